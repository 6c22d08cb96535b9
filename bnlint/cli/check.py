"""`bnlint check`: lint checkpoints."""

from __future__ import annotations

import os
import sys

from bnlint.cli import complain
from bnlint.cli.check_arguments import arguments
from bnlint.config import load_config
from bnlint.errors import UsageError
from bnlint.outputs import expect_writable, leave_standard_output, open_output, outputs
from bnlint.reports import write
from bnlint.run import run

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TextIO

    from bnlint.baseline import Baseline
    from bnlint.cli.check_arguments import Arguments
    from bnlint.config import Config
    from bnlint.outputs import Output
    from bnlint.report import Report
    from bnlint.run import Watch


def main(argv: Sequence[str]) -> int:
    said = arguments(argv)
    asked = outputs(said.output)
    for output in asked:
        if output.path is not None:
            expect_writable(output.path, said.force)
    baseline = _baseline(said)
    config = _config(said)
    config.model_timeout = said.model_timeout
    if said.reference is not None:
        _expect_reference(said.reference)
    if said.model is not None:
        _compare_with_model(config, said)
    report = run(
        _paths(said),
        config,
        jobs=_jobs(said),
        force_exclude=said.force_exclude,
        allow_empty=said.allow_empty,
        baseline=baseline,
        watch=_watch(said),
    )
    _complain(report, config, baseline, said)
    if said.write_baseline is not None:
        _write_baseline(said.write_baseline, report, said.force)
    for output in asked:
        _write(report, output, said)
    return report.exit_code


def _paths(said: Arguments) -> list[str]:
    if said.files_from is None:
        return list(said.paths)
    from bnlint.discovery import read_paths

    return [*said.paths, *read_paths(said.files_from)]


def _config(said: Arguments) -> Config:
    return load_config(
        said.config,
        isolated=said.isolated,
        preset=said.preset,
        select=_names(said.select),
        ignore=_names(said.ignore),
        severity=dict(map(_level, said.severity)),
        momentum=said.momentum,
        eps=said.eps,
        fail_on=said.fail_on,
        max_warnings=said.max_warnings,
        min_severity=said.min_severity,
        key=said.key,
        deep=said.deep,
        preview=said.preview,
        allow_code=said.allow_code,
        reference=said.reference,
        shallow=said.shallow,
    )


def _expect_reference(path: str) -> None:
    """UsageError where there is nothing to compare with: better said before the work than after it."""
    from bnlint.comparing import expect_reference

    try:
        expect_reference(path)
    except UsageError as problem:
        raise UsageError(f"--reference: {problem}") from None


def _compare_with_model(config: Config, said: Arguments) -> None:
    """Compare every checkpoint with what the user's function builds. UsageError where it builds nothing."""
    from bnlint.factory import build
    from bnlint.settings import Comparison

    factory = str(said.model)
    try:
        model = build(factory, said.model_timeout)
    except UsageError as problem:
        raise UsageError(f"--model: {problem}") from None
    config.compare.append(Comparison(factory, factory=True, model=model, shallow=said.shallow, place="--model"))


def _names(words: Sequence[str]) -> list[str]:
    """The rules that `--select a,b --select c` names."""
    return [name.strip() for word in words for name in word.split(",") if name.strip()]


def _level(word: str) -> tuple[str, str]:
    rule, equals, level = word.partition("=")
    if not equals:
        raise UsageError(f"--severity: {word} is not RULE=LEVEL, such as dead-channels=warning")
    return rule, level


def _jobs(said: Arguments) -> int | None:
    if said.jobs is not None and said.jobs < 1:
        raise UsageError(f"-j: at least 1 process, not {said.jobs}")
    return said.jobs


def _watch(said: Arguments) -> Watch | None:
    """A progress bar for a person who waits, None for everybody else."""
    if said.quiet or not sys.stderr.isatty():
        return None
    from bnlint.progress import watched

    return watched


def _baseline(said: Arguments) -> Baseline | None:
    if said.baseline is None:
        if said.prune_baseline:
            raise UsageError("--prune-baseline: name the baseline with --baseline FILE")
        return None
    from bnlint.baseline import read_baseline

    return read_baseline(said.baseline)


def _complain(report: Report, config: Config, baseline: Baseline | None, said: Arguments) -> None:
    """Say on standard error what could not be done, and what is not right without being a finding."""
    for problem in (*report.trouble, *map(str, report.crashes)):
        complain(problem)
    for name in sorted({*config.rules, *(config.select or ())}):
        rule = report.rules.get(name)
        if rule is not None and rule.deprecated is not None:
            complain(f"{name} is deprecated{f'; use {rule.deprecated}' if rule.deprecated else ''}")
    if baseline is not None and baseline.stale:
        _complain_about_stale(baseline, said)


def _complain_about_stale(baseline: Baseline, said: Arguments) -> None:
    path, count = str(said.baseline), len(baseline.stale)
    if said.prune_baseline:
        with open_output(path, force=True) as stream:
            baseline.prune().write(stream)
    if not said.quiet:
        entries = "1 entry is" if count == 1 else f"{count} entries are"
        done = "and removed" if said.prune_baseline else "(--prune-baseline removes them)"
        complain(f"{path}: {entries} not found any more {done}, first {baseline.stale[0]}")


def _write_baseline(path: str, report: Report, force: bool) -> None:
    """Write what was found as known, and leave the report without it."""
    from bnlint.baseline import Baseline, read_baseline

    if os.path.lexists(path) and not force:
        read_baseline(path)  # a baseline may be written again, any other file is not one's to replace
    baseline = Baseline.of(report)
    with open_output(path, force=force or os.path.exists(path), inputs=[file.path for file in report.files]) as stream:
        baseline.write(stream)
    baseline.divide(report)
    count = len(baseline.entries)
    complain(f"{path}: {'1 finding is' if count == 1 else f'{count} findings are'} known from now on")


def _write(report: Report, output: Output, said: Arguments) -> None:
    if output.path is not None:
        with open_output(output.path, said.force, inputs=[file.path for file in report.files]) as stream:
            _write_to(stream, report, output.format, said)
        return
    try:
        _write_to(sys.stdout, report, output.format, said)
        sys.stdout.flush()
    except BrokenPipeError:
        leave_standard_output()  # the verdict stands


def _write_to(stream: TextIO, report: Report, format: str, said: Arguments) -> None:
    write(
        report,
        format,
        stream,
        verbose=said.verbose,
        quiet=said.quiet,
        color=said.color,
        statistics=said.statistics,
        show_files=said.show_files,
    )
