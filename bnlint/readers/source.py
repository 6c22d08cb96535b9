"""Where bytes come from: a regular file read with pread, bytes in memory, or a section of either."""

from __future__ import annotations

import os
from stat import S_ISDIR, S_ISREG

from bnlint.errors import UnreadableFile

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Protocol

    class ByteSource(Protocol):
        """What every reader reads from."""

        @property
        def size(self) -> int:
            """How many bytes there are."""

        def read(self, offset: int, nbytes: int) -> bytes:
            """Exactly `nbytes` bytes from `offset`; UnreadableFile `truncated` where they are not there."""


# A pipe must not block us, a terminal must not become ours, Windows must not translate line ends.
_FLAGS = os.O_RDONLY
for _name in ("O_NONBLOCK", "O_CLOEXEC", "O_NOCTTY", "O_BINARY"):
    _FLAGS |= getattr(os, _name, 0)


class Source:
    """A regular file, opened for reading and never mapped: a mapped file that shrinks kills the process.

    A context manager. `size` is the file's size when it was opened; `bytes_read` and `reads` count what
    was asked of it. UnreadableFile: `io` for what cannot be opened or is no regular file, `empty` for a
    file without bytes.
    """

    __slots__ = ("_descriptor", "bytes_read", "reads", "size")

    def __init__(self, path: str) -> None:
        self.bytes_read = 0
        self.reads = 0
        try:
            self._descriptor = os.open(path, _FLAGS)
        except (OSError, ValueError) as error:  # ValueError: a null byte in the path
            raise UnreadableFile("io", f"cannot be opened: {_reason(error)}") from None
        try:
            status = os.fstat(self._descriptor)
            if not S_ISREG(status.st_mode):
                what = "a folder" if S_ISDIR(status.st_mode) else "no regular file (a pipe, device or socket)"
                raise UnreadableFile("io", f"is {what}")
            if not status.st_size:
                raise UnreadableFile("empty", "the file is empty")
            self.size = status.st_size
            _expect_random_reads(self._descriptor)
        except BaseException:
            os.close(self._descriptor)
            raise

    def read(self, offset: int, nbytes: int) -> bytes:
        """Exactly `nbytes` bytes from `offset`; UnreadableFile `truncated` where the file ends before."""
        _check(offset, nbytes, self.size)
        parts: list[bytes] = []
        while nbytes:
            try:
                part = _pread(self._descriptor, nbytes, offset)
            except OSError as error:
                raise UnreadableFile("io", f"cannot be read: {_reason(error)}", offset) from None
            if not part:
                raise UnreadableFile("truncated", "the file became shorter while it was read", offset)
            self.reads += 1
            self.bytes_read += len(part)
            if len(part) == nbytes and not parts:
                return part
            parts.append(part)
            offset += len(part)
            nbytes -= len(part)
        return b"".join(parts)

    def close(self) -> None:
        """Close the file; a second time does nothing."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Source:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class MemorySource:
    """Bytes in memory, read like a file."""

    __slots__ = ("data", "size")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.size = len(data)

    def read(self, offset: int, nbytes: int) -> bytes:
        """Exactly `nbytes` bytes from `offset`; UnreadableFile `truncated` where there are fewer."""
        _check(offset, nbytes, self.size)
        return self.data[offset : offset + nbytes]


class Section:
    """`size` bytes of another source from `start`, read as if they were a file of their own."""

    __slots__ = ("_source", "_start", "size")

    def __init__(self, source: ByteSource, start: int, size: int) -> None:
        _check(start, size, source.size)
        self._source = source
        self._start = start
        self.size = size

    def read(self, offset: int, nbytes: int) -> bytes:
        """Exactly `nbytes` bytes from `offset`; UnreadableFile `truncated` where the section ends before."""
        _check(offset, nbytes, self.size)
        return self._source.read(self._start + offset, nbytes)


def _check(offset: int, nbytes: int, size: int) -> None:
    if offset < 0 or nbytes < 0 or offset + nbytes > size:
        raise UnreadableFile("truncated", f"needs bytes {offset} to {offset + nbytes}, but there are {size}", size)


def _expect_random_reads(descriptor: int) -> None:
    """Tell the kernel not to read ahead: of 500 MB it would fetch all where 1 MB is wanted."""
    if hasattr(os, "posix_fadvise"):
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
        except OSError:
            return  # it is advice only, and some file systems take none


def _reason(error: Exception) -> str:
    """What the system says, without the path that it would name."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


if hasattr(os, "pread"):
    _pread = os.pread
else:

    def _pread(descriptor: int, nbytes: int, offset: int, /) -> bytes:
        os.lseek(descriptor, offset, os.SEEK_SET)
        return os.read(descriptor, nbytes)
