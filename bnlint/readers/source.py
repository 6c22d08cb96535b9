"""Where bytes come from: a regular file read with pread, a part of one, or bytes in memory."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    class ByteSource(Protocol):
        """What every reader reads from."""

        size: int

        def read(self, offset: int, nbytes: int) -> bytes:
            """Exactly `nbytes` bytes from `offset`; UnreadableFile `truncated` where they are not there."""


class Source:
    """A regular file, opened for reading and never mapped. Close it, or use it as a context manager.

    `size` is its size when it was opened, `bytes_read` and `reads` count what was asked of it.
    UnreadableFile: `io` for what cannot be opened or is no regular file, `empty` for no bytes.
    """

    def __init__(self, path: str) -> None:
        raise NotImplementedError

    def read(self, offset: int, nbytes: int) -> bytes:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError
