"""Long strings and byte strings of a pickle: a place in the file, read when someone asks."""

from __future__ import annotations

from bnlint.errors import UnreadableFile
from bnlint.model.tensor import VECTOR_LIMIT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bnlint.readers.source import ByteSource

# How the bytes in the pickle become the bytes that were pickled.
RAW = "raw"  # they are them
UTF8_OF_LATIN1 = "utf-8"  # text that `_codecs.encode(text, "latin1")` turns into bytes
ESCAPED = "escaped"  # a Python 2 string literal
RAW_UNICODE_ESCAPED = "raw-unicode-escape"  # protocol 0 text that stands for bytes


class LongBytes:
    """`nbytes` bytes of `source` from `offset` that were a string or byte string: too long to copy unasked.

    `written` says how they stand in the pickle; where it is not `RAW`, what they stand for has another
    length, known once they are read.
    """

    __slots__ = ("nbytes", "offset", "source", "written")

    def __init__(self, source: ByteSource, offset: int, nbytes: int, written: str = RAW) -> None:
        self.source = source
        self.offset = offset
        self.nbytes = nbytes
        self.written = written

    def read(self, limit: int = VECTOR_LIMIT) -> bytes:
        """All the bytes that were pickled. UnreadableFile where they are over `limit` or damaged."""
        if self.nbytes > limit:
            raise UnreadableFile("limit", f"a string of {self.nbytes} bytes is over the limit of {limit}", self.offset)
        data = self.source.read(self.offset, self.nbytes)
        try:
            if self.written == ESCAPED:
                from codecs import escape_decode

                return escape_decode(data)[0]
            if self.written != RAW:
                return data.decode(self.written).encode("latin1")
        except ValueError:
            raise UnreadableFile("pickle", "a string that stands for bytes is damaged", self.offset) from None
        return data
