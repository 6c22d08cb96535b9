"""`bnlint.torch.check(model)`: what the rules say of a live model, as a Report."""

from __future__ import annotations

from io import StringIO

from bnlint.config import load_config
from bnlint.engine import lint
from bnlint.model.raw_file import RawFile
from bnlint.report import FileResult, Gate, Report
from bnlint.torch.live import ORIGIN, Live, unwrapped

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import nn
    from typing_extensions import TypedDict, Unpack

    from bnlint.config import Config
    from bnlint.model.checkpoint import Checkpoint

    class Options(TypedDict, total=False):
        """The options of the command line that mean something for a live model."""

        config: str | None
        isolated: bool
        preset: str | None
        select: Sequence[str]
        ignore: Sequence[str]
        severity: Mapping[str, str] | None
        deep: bool
        preview: bool
        fail_on: str | None
        max_warnings: int | None
        min_severity: str | None
        allow_code: bool


FAMILIES = ("checkpoint", "module", "code")


def check(model: nn.Module, *, name: str | None = None, **options: Unpack[Options]) -> Report:
    """What the rules say of a live model: its running statistics, its modes, what is frozen.

    The model stays as it is: no forward, no change of mode, no random number, one transfer per device for
    all BatchNorm layers. What DataParallel, DistributedDataParallel, FSDP or torch.compile put around it
    is looked through; a layer without numbers (lazy, on the meta device, sharded) is judged by its modes.
    `name` is what the report calls the model, its class where none is given. The options are those of
    `bnlint check`, and so is the configuration: the one found from the working directory, unless `config`
    names one or `isolated` is set. UsageError and ConfigError where these are wrong.
    """
    return report_on(Live(model).checkpoint(), name or title(model), configured(options))


def assert_bn_healthy(model: nn.Module, *, name: str | None = None, **options: Unpack[Options]) -> None:
    """AssertionError with the report where `check` of the model fails: for tests, under any test runner.

    `fail_on="warning"` makes it stricter than the configuration, whose default is to fail on errors.
    """
    __tracebackhide__ = True  # pytest shows the line that asserts
    report = check(model, name=name, **options)
    for crash in report.crashes:
        raise crash
    if report.failed:
        raise AssertionError(as_text(report))


def configured(options: Options) -> Config:
    """The configuration in force."""
    return load_config(options.get("config"), **{k: v for k, v in options.items() if k != "config"})  # type: ignore[arg-type]


def title(model: nn.Module) -> str:
    """What a report calls a model."""
    return type(unwrapped(model)).__name__


def report_on(checkpoint: Checkpoint, name: str, config: Config) -> Report:
    """What the rules say of a live model that was read."""
    rules = config.rulebook.ruleset(FAMILIES)
    raw = RawFile(name, format=ORIGIN, checkpoint=checkpoint)
    verdict = lint(raw, rules, config.for_file(name))
    layers = checkpoint.batchnorms
    modules = checkpoint.modules.batchnorms if checkpoint.modules is not None else ()
    result = FileResult(
        name,
        format=ORIGIN,
        status="checked" if layers or modules else "nothing-to-check",
        batchnorm_layers=len(layers),
        channels=sum(layer.channels for layer in layers),
        note="; ".join(checkpoint.notes) or None,
    )
    return Report(
        [result],
        sorted(verdict.findings, key=lambda finding: -finding.gravity),
        suppressed=[(finding, override.reason) for finding, override in verdict.suppressed],
        crashes=verdict.crashes,
        trouble=[f"{name}: {raw.problem}"] if raw.problem is not None else (),
        rules=dict(rules.by_name),
        gate=Gate(config.fail_on, config.max_warnings),
        root=config.root,
        executed=config.rulebook.executed,
    )


def as_text(report: Report) -> str:
    """The report that a person reads."""
    from bnlint.reports import write

    stream = StringIO()
    write(report, "text", stream, color="never", width=100)
    return stream.getvalue()
