"""Where reports go: standard output, or files that nothing else is lost by."""

from __future__ import annotations

import os
import sys

from bnlint.errors import UsageError
from bnlint.reports import FORMATS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import TextIO


class Output:
    """One report: its format, and the file it goes to; None is standard output."""

    __slots__ = ("format", "path")

    def __init__(self, format: str, path: str | None = None) -> None:
        self.format = format
        self.path = path


def outputs(words: Sequence[str]) -> list[Output]:
    """What `--output FORMAT[=PATH]` asks for, text on standard output where nothing is asked for."""
    asked = [_output(word) for word in words or ("text",)]
    paths = [output.path for output in asked]
    for path in paths:
        if paths.count(path) > 1:
            raise UsageError(f"--output: two reports cannot both go to {path or 'standard output'}")
    return asked


def _output(word: str) -> Output:
    format, _, path = word.partition("=")
    if format not in FORMATS:
        from bnlint.nearest import did_you_mean

        hint = did_you_mean(format, FORMATS)
        raise UsageError(f"--output: there is no format {format}; allowed: {', '.join(FORMATS)}{hint}")
    return Output(format, path if path not in ("", "-") else None)


def expect_writable(path: str, force: bool) -> None:
    """UsageError where a file cannot be written: better said before the work than after it."""
    if os.path.islink(path):
        raise UsageError(f"{path}: is a link; output goes to regular files only")
    if os.path.isdir(path):
        raise UsageError(f"{path}: is a folder")
    if os.path.exists(path) and not os.path.isfile(path):
        raise UsageError(f"{path}: is no regular file")
    if os.path.exists(path) and not force:
        raise UsageError(f"{path}: exists; --force replaces it")
    if not os.path.isdir(os.path.dirname(path) or os.curdir):
        raise UsageError(f"{path}: there is no folder {os.path.dirname(path)}")


def open_output(path: str, force: bool, inputs: Iterable[str] = ()) -> TextIO:
    """The file to write to. UsageError for a link, a file that is one of the inputs, one that exists."""
    expect_writable(path, force)
    if os.path.exists(path) and any(_same(path, each) for each in inputs):
        raise UsageError(f"{path}: is one of the inputs")
    flags = os.O_WRONLY | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | (os.O_TRUNC if force else os.O_EXCL)
    try:
        descriptor = os.open(path, flags, 0o666)
    except OSError as error:
        raise UsageError(f"{path}: cannot be written: {error.strerror}") from None
    return open(descriptor, "w", encoding="utf-8", errors="backslashreplace", newline="\n")


def _same(path: str, other: str) -> bool:
    return os.path.exists(other) and os.path.samefile(path, other)


def leave_standard_output() -> None:
    """Write nothing more to standard output: who read it has left."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
