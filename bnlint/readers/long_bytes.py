"""Long strings and byte strings of a pickle: a place in the file, read when someone asks."""

from __future__ import annotations

from bnlint.errors import UnreadableFile
from bnlint.model.tensor import VECTOR_LIMIT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bnlint.readers.source import ByteSource

# How a string stands in the pickle.
BYTES = "bytes"  # as it is
TEXT = "utf-8"
LATIN1_TEXT = "latin1 in utf-8"  # text that `_codecs.encode(text, "latin1")` turned into bytes
ESCAPED = "escaped"  # a Python 2 string literal
ESCAPED_TEXT = "raw-unicode-escape"  # text of protocol 0


class LongBytes:
    """A string or byte string too long to copy unasked: `nbytes` bytes of `source` from `offset`.

    `written` says how it stands there; what it stands for may have another length.
    """

    __slots__ = ("nbytes", "offset", "source", "written")

    def __init__(self, source: ByteSource, offset: int, nbytes: int, written: str = BYTES) -> None:
        self.source = source
        self.offset = offset
        self.nbytes = nbytes
        self.written = written

    def read(self, limit: int = VECTOR_LIMIT) -> bytes:
        """The bytes it stands for. UnreadableFile where they are damaged, or over `limit` as written."""
        if self.nbytes > limit:
            raise UnreadableFile("limit", f"a string of {self.nbytes} bytes is over the limit of {limit}", self.offset)
        data = self.source.read(self.offset, self.nbytes)
        try:
            if self.written == ESCAPED:
                return unescaped(data)
            if self.written == LATIN1_TEXT:
                return data.decode().encode("latin1")
            if self.written == ESCAPED_TEXT:
                return data.decode("raw-unicode-escape").encode("latin1")
        except ValueError:
            raise UnreadableFile("pickle", "a string that stands for bytes is damaged", self.offset) from None
        return data

    @property
    def is_text(self) -> bool:
        """True where it is a text to Python 3, False for bytes and the strings of Python 2."""
        return self.written in (TEXT, ESCAPED_TEXT)

    def text(self, limit: int) -> str:
        """The text it stands for; bytes as Python 2 meant them. UnreadableFile as for `read`."""
        if not self.is_text:
            return self.read(limit).decode("latin1")
        written = LongBytes(self.source, self.offset, self.nbytes).read(limit)
        try:
            if self.written == TEXT:
                return written.decode("utf-8", "surrogatepass")
            return written.decode("raw-unicode-escape")
        except ValueError:
            raise UnreadableFile("pickle", "a text is damaged", self.offset) from None


def unescaped(literal: bytes) -> bytes:
    """What stands between the quotes of a Python 2 string literal; ValueError where it is damaged."""
    from codecs import escape_decode
    from warnings import catch_warnings, simplefilter

    with catch_warnings():
        simplefilter("ignore")  # of unknown escapes, which Python 2 kept as they are
        return escape_decode(literal)[0]
