"""Reports to write: one run in which something of everything happened, and whatever a test makes of it."""

import json
import os
import re
from collections.abc import Iterator
from io import StringIO
from typing import Any

import jsonschema
import pytest

import bnlint
from bnlint import BatchNorm, Finding, Location, RuleCrashed, Severity, batchnorm, rule
from bnlint.report import FileResult, Gate, Report
from bnlint.reports import write
from bnlint.ruleset import Rule

HERE = os.path.dirname(os.path.abspath(__file__))
SPEAKS_TO_PEOPLE = ("NO_COLOR", "FORCE_COLOR", "CLICOLOR_FORCE", "COLUMNS", "TERM", "COLORTERM")
SPEAKS_TO_GITHUB = ("GITHUB_STEP_SUMMARY", "GITHUB_WORKSPACE")
ANSI = re.compile(r"\x1b\[[0-9;]*m")

with open(
    os.path.join(os.path.dirname(bnlint.__file__), "schemas", "report.schema.json"), encoding="utf-8"
) as published:
    SCHEMA = json.load(published)
REPORT_SCHEMA = jsonschema.Draft202012Validator(SCHEMA)
LINE_SCHEMA = jsonschema.Draft202012Validator({"$ref": "#/$defs/line", "$defs": SCHEMA["$defs"]})

with open(os.path.join(HERE, "data", "sarif-2.1.0.schema.json"), encoding="utf-8") as official:
    SARIF_SCHEMA = jsonschema.Draft4Validator(json.load(official))

FIRST, SECOND, PICKLE, SOURCE = "models/resnet50.pth", "models/ema.safetensors", "models/old.pkl", "train.py"


@rule(severity=Severity.ERROR, since="0.0.1", good=list, bad=lambda: [batchnorm()])
def nan_statistics(layer: BatchNorm) -> Iterator[Finding]:
    """A running statistic is not a number.

    In eval mode the channel is NaN, and clean batches never repair it: NaN absorbs
    whatever is averaged with it.

    Common causes:
        A batch overflowed under AMP.

    Fix:
        Take the last finite checkpoint. Or reset the layer and let it measure again:
        `torch.optim.swa_utils.update_bn(loader, model)`.

        Under AMP, skip the batch before it reaches BatchNorm:

            if not loss.isfinite():
                continue

    When this is fine:
        Never.
    """
    yield from ()


@rule(severity=Severity.WARNING, confidence="high", since="0.0.1", good=list, bad=lambda: [batchnorm()])
def fresh_statistics(layer: BatchNorm) -> Iterator[Finding]:
    """The running statistics are those of a new layer.

    The layer normalizes with mean 0 and variance 1, whatever it was trained on.

    Fix:
        Save `model.state_dict()`, not `dict(model.named_parameters())`.
    """
    yield from ()


@rule(severity=Severity.INFO, confidence="low", since="0.0.1", good=list, bad=lambda: [batchnorm()])
def silent_channels(layer: BatchNorm) -> Iterator[Finding]:
    """A channel saw a constant input.

    Fix:
        Nothing to do.
    """
    yield from ()


@rule(severity=Severity.OFF, security_severity="9.3", since="0.0.1", good=list, bad=lambda: [batchnorm()])
def runs_code(layer: BatchNorm) -> Iterator[Finding]:
    """Loading this file runs code."""
    yield from ()


RULES: dict[str, Rule] = {each.name: each for each in (nan_statistics, fresh_statistics, silent_channels, runs_code)}
for each in RULES.values():
    each.family = "checkpoint"


def found(
    rule: str, severity: Severity, message: str, *, reference: str | None = None, where: dict[str, Any], **more: Any
) -> Finding:
    """A finding as the engine hands it over; `where` are the fields of its Location."""
    finding = Finding(Location(**where), message, severity=severity, **more)
    finding.rule, finding.family, finding.reference = rule, "checkpoint", reference
    return finding


def at(path: str, *layers: str, leaf: str = "running_mean", state_dict: str = "state_dict") -> dict[str, Any]:
    """The fields of the Location of layers in a state dict."""
    tensors = [f"{layer}.{leaf}" for layer in layers]
    return {"path": path, "layers": layers, "tensors": tensors, "state_dict": state_dict}


def something_of_everything() -> Report:
    """A run over five files that shows every kind of thing a report can hold."""
    not_a_number = [
        found(
            "nan-statistics",
            Severity.ERROR,
            f"running_mean is NaN in {number} of 64 channels (first: channel 3)",
            where=at(FIRST, f"layer1.{number}.bn1"),
            evidence={"channels": 64, "nonfinite": number, "first_channels": [3, 4], "lowest": float("nan")},
        )
        for number in range(1, 8)
    ]
    silent = [
        found(
            "silent-channels",
            Severity.INFO,
            f"{number} of 256 channels had a constant input",
            where=at(FIRST, f"layer3.{number}.bn2", leaf="running_var"),
            evidence={"channels": 256, "silent": number, "highest": float("inf"), "assumed_momentum": 0.1},
        )
        for number in range(1, 5)
    ]
    fresh = [
        found(
            "fresh-statistics",
            Severity.WARNING,
            "running_mean is all 0 and running_var all 1",
            where=at(SECOND, "bn1", state_dict=state_dict),
            fix="Copy the buffers too: `for e, b in zip(ema.buffers(), model.buffers()): e.copy_(b)`.",
            related=[(Location(path=SOURCE, line=12, column=5), "the copy is made here")],
            unknown=unknown,
        )
        for state_dict, unknown in (("ema", None), ("teacher", "whether this copy is meant for evaluation"))
    ]
    everywhere = found(
        "fresh-statistics",
        Severity.WARNING,
        "the same in every layer",
        where=at(SECOND, *[f"layer{number}.bn" for number in range(1, 13)], state_dict="ema"),
        evidence={"assumed_eps": 1e-5, "lowest": float("-inf"), "role": "ema", "given": None, "frozen": True},
    )
    code = found("runs-code", Severity.ERROR, "calls os.system at byte 17", where={"path": PICKLE})
    line = found(
        "eval-undone",
        Severity.WARNING,
        "model.train() undoes the eval() of line 12",
        where={"path": SOURCE, "line": 30, "column": 9, "end_line": 30, "end_column": 22},
    )
    compared = found(
        "drifted", Severity.INFO, "drifted by 0.2 sd", where=at(SECOND, "bn1"), reference="models/resnet50.pth"
    )
    return Report(
        [
            FileResult(FIRST, format="torch-zip", batchnorm_layers=53, channels=26_560, note='read "state_dict"'),
            FileResult(SECOND, format="safetensors", batchnorm_layers=13, channels=832, state_dicts=["ema", "teacher"]),
            FileResult(PICKLE, format="pickle", status="unreadable", note="a pickle of something else"),
            FileResult("models/net.gguf", status="skipped", note="GGUF, which bnlint does not read"),
            FileResult(SOURCE, kind="source"),
            FileResult("models/linear.pth", format="torch-zip", status="nothing-to-check"),
        ],
        [*not_a_number, *silent, *fresh, everywhere, compared, code, line],
        suppressed=[
            (
                found("silent-channels", Severity.INFO, "all 64 channels", where=at(FIRST, "layer4.bn")),
                "pruned on purpose",
            )
        ],
        baselined=[found("nan-statistics", Severity.ERROR, "running_var is NaN", where=at(FIRST, "fc.bn"))],
        crashes=[RuleCrashed("own-rule", "layer1.0.bn1", ZeroDivisionError("division by zero"))],
        trouble=["models/missing.pth: there is no such file"],
        rules=RULES,
        gate=Gate(Severity.ERROR, max_warnings=10),
        executed=["ci/bnlint_rules"],
    )


def written(report: Report, format: str, **options: Any) -> str:
    """The report in that format."""
    stream = StringIO()
    write(report, format, stream, **options)
    return stream.getvalue()


def one_finding(severity: Severity = Severity.ERROR, **options: Any) -> Report:
    finding = found("nan-statistics", severity, "running_mean is NaN", where=at("a.pth", "bn1"))
    return Report([FileResult("a.pth", batchnorm_layers=1, channels=8)], [finding], rules=RULES, **options)


def sarif_of(report: Report, **options: Any) -> Any:
    log = json.loads(written(report, "sarif", **options))
    SARIF_SCHEMA.validate(log)
    return log["runs"][0]


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the surroundings say of colour, width and GitHub is not said in tests; import this to have it so."""
    for name in (*SPEAKS_TO_PEOPLE, *SPEAKS_TO_GITHUB):
        monkeypatch.delenv(name, raising=False)
