"""A file that is written whole or not at all: beside its place under another name, then renamed."""

from __future__ import annotations

import os

from bnlint.errors import UsageError
from bnlint.outputs import expect_writable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    Write = Callable[[bytes], object]

_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
_BUFFER = 1 << 20


def expect_new(path: str, force: bool, inputs: Iterable[str]) -> None:
    """UsageError where `path` is one of the inputs, or cannot be written as `bnlint.outputs` has it."""
    if os.path.exists(path) and any(os.path.exists(each) and os.path.samefile(path, each) for each in inputs):
        raise UsageError(f"{path}: is one of the inputs; a fix goes to a new file")
    expect_writable(path, force)


def write_new(
    path: str, write: Callable[[Write], object], verify: Callable[[str], object], *, expected: int, force: bool
) -> int:
    """Write a file of some `expected` bytes, have it verified, and give it its name; returns its size.

    UsageError where that cannot be done. Whatever goes wrong, or interrupts it, there is nothing new at `path`.
    """
    _expect_room(path, expected)
    unfinished = f"{path}.{os.urandom(4).hex()}.part"
    try:
        with open(os.open(unfinished, _FLAGS, 0o666), "wb", buffering=_BUFFER) as file:
            write(file.write)
            file.flush()
            os.fsync(file.fileno())
            size = file.tell()
        verify(unfinished)
        expect_writable(path, force)  # once more: writing took its time
        os.replace(unfinished, path)
    except OSError as error:
        raise UsageError(f"{path}: cannot be written: {error.strerror or type(error).__name__}") from None
    finally:
        _remove(unfinished)
    _sync_folder(os.path.dirname(path) or os.curdir)
    return size


def _expect_room(path: str, nbytes: int) -> None:
    """UsageError where the disk has not enough room: better said before the work than after it."""
    from shutil import disk_usage

    try:
        free = disk_usage(os.path.dirname(path) or os.curdir).free
    except OSError:
        return  # writing will say it
    if free < nbytes:
        raise UsageError(f"{path}: cannot be written: it takes {nbytes >> 20} MB, and {free >> 20} MB are free")


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return  # it has its name, or was never made
    except OSError as error:
        raise UsageError(f"{path}: cannot be removed: {error.strerror}") from None


def _sync_folder(folder: str) -> None:
    """Have the new name reach the disk; some systems cannot, and the file itself has reached it."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError:
        return
    finally:
        os.close(descriptor)
