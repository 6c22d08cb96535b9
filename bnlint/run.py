"""A run: discovery -> reading -> rules -> report, in order, on one processor or several."""

from __future__ import annotations

import os

from bnlint.discovery import discover, is_path_file
from bnlint.engine import lint
from bnlint.errors import RuleCrashed, UsageError
from bnlint.report import FileResult, Gate, Report

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from bnlint.baseline import Baseline
    from bnlint.config import Config
    from bnlint.discovery import Target
    from bnlint.engine import Verdict
    from bnlint.finding import Finding
    from bnlint.model.batchnorm import BatchNorm
    from bnlint.model.raw_file import RawFile
    from bnlint.settings import Comparison, Override, Settings

    Watch = Callable[[Iterable["Outcome"], int], Iterator["Outcome"]]


class Outcome:
    """What came of one file. It travels between processes, so overrides are numbers here.

    `result` is None for a file that is not to be mentioned, or that could not be looked at at all:
    then `trouble` says why. `pairs` are the rows of what it was compared with. `families` are those whose
    rules looked at it; `met` and `used` number the overrides that are about it, and those that decided
    about a finding.
    """

    __slots__ = ("crashes", "families", "findings", "met", "pairs", "result", "suppressed", "trouble", "used")

    def __init__(self, result: FileResult | None = None) -> None:
        self.result = result
        self.pairs: list[FileResult] = []
        self.findings: list[Finding] = []
        self.suppressed: list[tuple[Finding, int]] = []
        self.crashes: list[tuple[str, str, str]] = []
        self.trouble: str | None = None
        self.families: tuple[str, ...] = ()
        self.met: list[int] = []
        self.used: list[int] = []


def run(
    paths: Sequence[str],
    config: Config | None = None,
    *,
    jobs: int | None = 1,
    force_exclude: bool = False,
    allow_empty: bool = False,
    baseline: Baseline | None = None,
    watch: Watch | None = None,
) -> Report:
    """Look at files, folders and patterns, and say what was found.

    `config` is the configuration in force (`load_config()`); none is the rules' own defaults. `jobs` is
    the number of processes, None for as many as pay. `force_exclude` and `allow_empty` are those of
    `discover`. Findings that `baseline` knows are put aside. `watch` is shown the outcomes as they come,
    with how many there will be. UsageError where there is nothing to look at, ConfigError where the
    configuration names code that the caller did not allow: a folder of rules, or what builds a model.
    """
    if config is None:
        from bnlint.config import Config

        config = Config(os.getcwd())
    found = discover(paths, config.excludes, force_exclude=force_exclude, allow_empty=allow_empty)
    config.rulebook.family("custom")  # the user's rules load, or say why not, before any file is read
    if config.compare:
        from bnlint.comparing import build_models

        build_models(config, (target.path for target in found.targets))
    outcomes = _outcomes(found.targets, config, jobs)
    report = Report(gate=Gate(config.fail_on, config.max_warnings), root=config.root, trouble=found.trouble)
    families: dict[str, None] = {}
    judged = not force_exclude and config.select is None  # of a part of the files or rules nobody can tell
    for outcome in watch(outcomes, len(found.targets)) if watch else outcomes:
        _take(outcome, report, config.overrides, judged)
        families.update(dict.fromkeys(outcome.families))
    if config.overrides:
        _judge_overrides(config, report, families)
    if baseline is not None:
        baseline.divide(report, complete=config.select is None and not config.ignore)
    report.rules = dict(config.rulebook.ruleset(tuple(families)).by_name)
    report.executed = [*config.rulebook.executed, *config.models_built]
    return report


def _outcomes(targets: Sequence[Target], config: Config, jobs: int | None) -> Iterator[Outcome]:
    if len(targets) > 1 and jobs != 1:
        from bnlint.processes import outcomes_of, worthwhile

        jobs = worthwhile(len(targets)) if jobs is None else min(jobs, len(targets))
        if jobs > 1:
            return outcomes_of(targets, config, jobs)
    return (look_at(target, config) for target in targets)


def look_at(target: Target, config: Config) -> Outcome:
    """What the rules say of one file. An error of bnlint's own is that file's trouble, not the run's end."""
    if target.path.endswith((".py", ".pyi", ".ipynb")):
        note = "this version of bnlint has no rules for Python source"
        return Outcome(FileResult(target.path, kind="source", status="skipped", note=note))
    try:
        return _look_at_checkpoint(target, config)
    except UsageError as problem:
        outcome = Outcome()
        outcome.trouble = f"{target.path}: {problem}"
    except Exception as error:
        if os.environ.get("BNLINT_DEBUG"):
            raise
        outcome = Outcome()
        outcome.trouble = f"{target.path}: {internal_error(error)}"
    return outcome


def internal_error(error: BaseException) -> str:
    """One line about an error that is bnlint's own fault."""
    told = str(error).strip().partition("\n")[0]
    return (
        f"this is a bug in bnlint: {type(error).__name__}{f': {told}' if told else ''}"
        " (please report it; BNLINT_DEBUG=1 shows where it happened)"
    )


def _look_at_checkpoint(target: Target, config: Config) -> Outcome:
    from bnlint.readers.opening import open_file

    settings = config.for_file(target.path)
    raw = open_file(target.path, named=target.named, assumed=settings.assumed, key=settings.key)
    try:
        if _is_unmentioned(raw):
            return Outcome()
        outcome = Outcome()
        families = _families(raw)
        _hear(lint(raw, config.rulebook.ruleset(families), settings), families, outcome)
        outcome.result = _result(raw)
        for comparison in config.comparisons(target.path):
            _compare(raw, comparison, config, settings, outcome)
    finally:
        if raw.checkpoint is not None:
            raw.checkpoint.close()
    outcome.met = [override.number for override in settings.overrides]
    outcome.used = [override.number for override in settings.overrides if override.used]
    return outcome


def _compare(raw: RawFile, comparison: Comparison, config: Config, settings: Settings, outcome: Outcome) -> None:
    """Let the rules look at a checkpoint beside what it is compared with."""
    from bnlint.comparing import FAMILIES, compare

    try:
        compared = compare(raw, comparison, config.rulebook.ruleset(FAMILIES), settings)
    except UsageError as problem:
        outcome.trouble = str(problem)
        return
    if compared is not None:
        outcome.pairs.append(compared.result)
        _hear(compared.verdict, FAMILIES, outcome)


def _hear(verdict: Verdict, families: tuple[str, ...], outcome: Outcome) -> None:
    """Take in what the rules of some families say."""
    outcome.families += families
    outcome.findings += sorted(verdict.findings, key=lambda finding: -finding.gravity)
    outcome.suppressed += [(finding, override.number) for finding, override in verdict.suppressed]
    outcome.crashes += [(crash.rule, crash.where, str(crash)) for crash in verdict.crashes]


def _is_unmentioned(raw: RawFile) -> bool:
    """True for the text .pth files of Python's own that lie in a folder among checkpoints."""
    return not raw.named and raw.problem is not None and raw.problem.code == "text" and is_path_file(raw.path)


def _families(raw: RawFile) -> tuple[str, ...]:
    """The families whose rules can have something to look at in this file; the others are not loaded."""
    if raw.checkpoint is None:
        return ("file",)
    if raw.checkpoint.module_trees:
        return ("file", "checkpoint", "module", "code")
    return ("file", "checkpoint")


def _result(raw: RawFile) -> FileResult:
    whole = [layer for layer in _layers(raw) if layer.running_mean is not None and layer.running_var is not None]
    return FileResult(
        raw.path,
        format=raw.format,
        status=raw.status,
        batchnorm_layers=len(whole),
        channels=sum(layer.channels for layer in whole),
        note="; ".join(raw.notes) or (str(raw.problem) if raw.problem is not None else None),
        state_dicts=[each.key for each in raw.checkpoint.state_dicts] if raw.checkpoint is not None else (),
    )


def _layers(raw: RawFile) -> Iterator[BatchNorm]:
    """The BatchNorm layers that the rules saw."""
    if raw.checkpoint is not None and raw.problem is None:
        for state_dict in raw.checkpoint.state_dicts:
            yield from state_dict.batchnorms


def _take(outcome: Outcome, report: Report, overrides: Sequence[Override], judged: bool) -> None:
    """Put what came of one file into the report."""
    if outcome.result is not None:
        report.files.append(outcome.result)
    report.files += outcome.pairs
    if outcome.trouble is not None and outcome.trouble not in report.trouble:
        report.trouble.append(outcome.trouble)
    report.findings += outcome.findings
    report.suppressed += [(finding, overrides[number].reason) for finding, number in outcome.suppressed]
    report.crashes += [_crash(*crash) for crash in outcome.crashes]
    for number in outcome.met if judged else ():
        overrides[number].met = True
    for number in outcome.used:
        overrides[number].used = True


def _crash(rule: str, where: str, message: str) -> RuleCrashed:
    """A crash that was told by another process; the exception itself may hold anything and does not travel."""
    crash = RuleCrashed.__new__(RuleCrashed, message)
    crash.args = (message,)
    crash.rule = rule
    crash.where = where
    return crash


def _judge_overrides(config: Config, report: Report, families: dict[str, None]) -> None:
    """Let the rules about the configuration look at its overrides, once it is known what they decided."""
    from bnlint.model.raw_file import RawFile
    from bnlint.rulebook import CONFIG_FAMILY
    from bnlint.settings import Settings

    class ConfigurationFile(RawFile):
        """The overrides that one configuration file has."""

        def subjects(self) -> Iterator[object]:
            return (override for override in config.overrides if override.path == self.path)

    settings = Settings(config.rules, select=config.select, ignore=config.ignore, min_severity=config.min_severity)
    rules = config.rulebook.ruleset((CONFIG_FAMILY,))
    for path in dict.fromkeys(override.path for override in config.overrides):
        verdict = lint(ConfigurationFile(path), rules, settings)
        report.findings += verdict.findings
        report.crashes += verdict.crashes
        if verdict.findings:
            families[CONFIG_FAMILY] = None
