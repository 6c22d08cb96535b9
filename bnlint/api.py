"""The Python interface: `bnlint.check(...)` and `bnlint.open_checkpoint(...)`."""

from __future__ import annotations

import os

from bnlint.errors import UnreadableFile, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from bnlint.model.checkpoint import Checkpoint
    from bnlint.model.state_dict import Assumed
    from bnlint.report import Report

    Path = str | os.PathLike[str]


def check(
    paths: Path | Iterable[Path],
    *,
    config: str | None = None,
    isolated: bool = False,
    preset: str | None = None,
    select: Sequence[str] = (),
    ignore: Sequence[str] = (),
    severity: Mapping[str, str] | None = None,
    reference: str | None = None,
    shallow: bool = False,
    key: str | None = None,
    momentum: float | None = None,
    eps: float | None = None,
    deep: bool = False,
    preview: bool = False,
    fail_on: str | None = None,
    max_warnings: int | None = None,
    min_severity: str | None = None,
    baseline: str | None = None,
    force_exclude: bool = False,
    allow_empty: bool = False,
    allow_code: bool = False,
    jobs: int | None = 1,
) -> Report:
    """What `bnlint check` finds in checkpoints, folders and patterns, as a Report.

    The options are those of the command line; `severity` maps rules to levels, `{"dead-channels":
    "warning"}`. As there, the configuration is the one found from the working directory, unless `config`
    names one or `isolated` is set. ConfigError and UsageError where the options or the configuration are
    wrong; what is wrong with a file is a finding.
    """
    from bnlint.config import load_config
    from bnlint.run import run

    loaded = load_config(
        config,
        isolated=isolated,
        preset=preset,
        select=select,
        ignore=ignore,
        severity=severity,
        momentum=momentum,
        eps=eps,
        fail_on=fail_on,
        max_warnings=max_warnings,
        min_severity=min_severity,
        reference=reference,
        shallow=shallow,
        key=key,
        deep=deep,
        preview=preview,
        allow_code=allow_code,
    )
    known = None
    if baseline is not None:
        from bnlint.baseline import read_baseline

        known = read_baseline(baseline)
    if isinstance(paths, (str, os.PathLike)):
        paths = [paths]
    return run(
        [os.fspath(path) for path in paths],
        loaded,
        jobs=jobs,
        force_exclude=force_exclude,
        allow_empty=allow_empty,
        baseline=known,
    )


def open_checkpoint(path: Path, *, key: str | None = None, assumed: Assumed | None = None) -> Checkpoint:
    """The checkpoint in a file, without torch and without running anything in it.

    A context manager: closing it closes the file. The numbers of its BatchNorm layers are read, other
    tensors when they are asked for. `key` puts the state dict at that place first. UnreadableFile, with a
    `code` and an `offset`, where the file cannot be read; UsageError where it has no such state dict. Both
    messages start with the path.
    """
    from bnlint.readers.opening import open_file

    named = os.fspath(path)
    try:
        file = open_file(named, key=key, assumed=assumed)
    except UsageError as error:
        raise UsageError(f"{named}: {error}") from None
    if file.checkpoint is None:
        raise _of_file(named, file.problem or UnreadableFile("corrupt", "cannot be read"))
    return file.checkpoint


def _of_file(path: str, problem: UnreadableFile) -> UnreadableFile:
    """The problem, with the path in front of it."""
    told = UnreadableFile(problem.code, f"{path}: {problem}", problem.offset)
    told.globals = problem.globals
    told.__cause__ = problem.__cause__
    return told
