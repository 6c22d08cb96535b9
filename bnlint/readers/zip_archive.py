"""Zip archives, read strictly: what two readers could understand differently is refused.

Only the central directory says what is where, as in torch; the local headers must agree with it. A
CRC is never checked: torch does not, and `torch.serialization.set_crc32_options(False)` writes none.
"""

from __future__ import annotations

from struct import unpack_from

from bnlint.errors import UnreadableFile
from bnlint.readers.zip_directory import Directory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bnlint.model.tensor import Storage
    from bnlint.readers.source import ByteSource
    from bnlint.readers.zip_directory import Entry

RECORD_LIMIT = 64 << 20  # bytes of a record that is read as a whole: a pickle, a source text
_ALIGNMENT = 64  # torch starts a record's data at a multiple of this
_SKIPPED = 4096  # bytes that are rather read along with a header than asked for on their own
_STORED, _DEFLATED = 0, 8
_ENCRYPTED, _SIZES_FOLLOW = 1, 8  # flag bits
_IN_ZIP64 = 0xFFFFFFFF


class ZipArchive:
    """The records of a zip archive. Opening it reads the directory; UnreadableFile as for `Directory`.

    `entries` are the records by name, in order; `trailing` counts the bytes behind the archive.
    """

    def __init__(self, source: ByteSource) -> None:
        directory = Directory(source)
        self.entries = directory.entries
        self.trailing = directory.trailing
        self.source = source
        self.bytes_deflated = 0
        self.bytes_inflated = 0

    def size(self, name: str) -> int:
        """How many bytes a record has; UnreadableFile `missing` where there is no such record."""
        return self._entry(name).size

    def read(self, name: str, limit: int = RECORD_LIMIT) -> bytes:
        """All bytes of a record. UnreadableFile where it is missing, over `limit` bytes or damaged."""
        entry = self._entry(name)
        if entry.size > limit:
            raise UnreadableFile("limit", f"record {entry} has {entry.size} bytes, the limit is {limit}", entry.header)
        storage = self.storage(name)
        data = storage.read(0, entry.size)
        if isinstance(storage, DeflatedRecord):
            storage.expect_end()
        return data

    def storage(self, name: str, big_endian: bool = False) -> Storage:
        """A record as the storage of tensors; nothing of it is read yet."""
        entry = self._entry(name)
        if entry.method == _STORED:
            return StoredRecord(self, entry, big_endian)
        if entry.method == _DEFLATED:
            return DeflatedRecord(self, entry, big_endian)
        raise UnreadableFile("zip", f"record {entry} is compressed by method {entry.method}", entry.header)

    def locate(self, entry: Entry, wanted: int = 0) -> tuple[int, bytes]:
        """Where a record's data begins, and what came along of its first `wanted` bytes.

        One read fetches header and data where the header is no longer than torch makes it.
        """
        fixed = entry.header + 30 + len(entry.name)
        likely = (fixed + 4 + _ALIGNMENT - 1) // _ALIGNMENT * _ALIGNMENT
        stop = min(likely + wanted, entry.end) if wanted else fixed
        block = self.source.read(entry.header, stop - entry.header)
        signature, flags, method, packed, size, name_size, extra_size = unpack_from("<4s2xHH8xIIHH", block)
        if signature != b"PK\3\4":
            raise UnreadableFile("zip", f"record {entry} has no local header", entry.header)
        if (
            flags & _ENCRYPTED
            or method != entry.method
            or block[30 : 30 + name_size] != entry.name
            or (not flags & _SIZES_FOLLOW and packed not in (entry.packed, _IN_ZIP64))
            or (not flags & _SIZES_FOLLOW and size not in (entry.size, _IN_ZIP64))
        ):
            raise UnreadableFile("zip", f"the two headers of record {entry} contradict each other", entry.header)
        start = fixed + extra_size
        if start + entry.packed > entry.end:
            raise UnreadableFile("zip", f"the data of record {entry} runs into what follows it", entry.header)
        return start, block[start - entry.header :]

    def _entry(self, name: str) -> Entry:
        entry = self.entries.get(name)
        if entry is None:
            raise UnreadableFile("missing", f"record {name[:80]!r} is not in the archive")
        return entry


class StoredRecord:
    """A record stored as it is: any part of it can be read."""

    __slots__ = ("_archive", "_entry", "_start", "big_endian", "nbytes")

    def __init__(self, archive: ZipArchive, entry: Entry, big_endian: bool) -> None:
        self._archive = archive
        self._entry = entry
        self._start = -1
        self.nbytes = entry.size
        self.big_endian = big_endian

    @property
    def position(self) -> int:
        """Where in the file the record begins, its header included."""
        return self._entry.header

    def read(self, offset: int, nbytes: int) -> bytes:
        """`nbytes` bytes from `offset` of the record; UnreadableFile where they are not in it."""
        _expect_inside(self._entry, offset, nbytes)
        if self._start < 0:
            self._start, data = self._archive.locate(self._entry, offset + nbytes if offset <= _SKIPPED else 0)
            if len(data) >= offset + nbytes:
                return data[offset : offset + nbytes]
        return self._archive.source.read(self._start + offset, nbytes)


class DeflatedRecord:
    """A compressed record: read from its beginning, or on from where the last read ended."""

    __slots__ = ("_archive", "_entry", "_stream", "big_endian", "nbytes")

    def __init__(self, archive: ZipArchive, entry: Entry, big_endian: bool) -> None:
        self._archive = archive
        self._entry = entry
        self._stream: _Inflation | None = None
        self.nbytes = entry.size
        self.big_endian = big_endian

    def read(self, offset: int, nbytes: int) -> bytes:
        """`nbytes` bytes from `offset` of the record; UnreadableFile where they are not in it."""
        _expect_inside(self._entry, offset, nbytes)
        if self._stream is None or self._stream.at > offset:
            self._stream = _Inflation(self._archive, self._entry)
        while self._stream.at < offset:
            self._stream.take(min(_Inflation.CHUNK, offset - self._stream.at))
        return self._stream.take(nbytes)

    def expect_end(self) -> None:
        """UnreadableFile where the record holds more than the bytes read so far."""
        if self._stream is None:
            self._stream = _Inflation(self._archive, self._entry)
        self._stream.expect_end()


class _Inflation:
    """The bytes of a deflated record, in order. `at` counts those that were taken."""

    CHUNK = 1 << 16
    LIMIT = 256 << 20  # bytes that one archive may become, and 16 more for each byte that was read

    def __init__(self, archive: ZipArchive, entry: Entry) -> None:
        from zlib import decompressobj

        self._archive = archive
        self._entry = entry
        self._zlib = decompressobj(-15)
        self._next = archive.locate(entry)[0]
        self._left = entry.packed
        self.at = 0

    def take(self, nbytes: int) -> bytes:
        """Exactly `nbytes` bytes more."""
        parts = []
        while nbytes:
            packed = self._packed()
            part = self._inflate(packed, nbytes)
            if not part and not packed:
                raise UnreadableFile("zip", f"record {self._entry} inflates to less than it says", self._entry.header)
            nbytes -= len(part)
            parts.append(part)
        return b"".join(parts)

    def expect_end(self) -> None:
        """UnreadableFile where more bytes can be taken, or the end mark is missing."""
        while not self._zlib.eof:
            packed = self._packed()
            if not packed or self._inflate(packed, 1):
                raise UnreadableFile("zip", f"record {self._entry} does not end where it should", self._entry.header)

    def _packed(self) -> bytes:
        """The next bytes for zlib, none at the end."""
        rest = self._zlib.unconsumed_tail
        if rest or self._zlib.eof:
            return rest
        chunk = self._archive.source.read(self._next, min(self.CHUNK, self._left))
        self._next += len(chunk)
        self._left -= len(chunk)
        self._archive.bytes_deflated += len(chunk)
        return chunk

    def _inflate(self, packed: bytes, most: int) -> bytes:
        from zlib import error

        try:
            data = self._zlib.decompress(packed, most)
        except error:
            raise UnreadableFile("zip", f"record {self._entry} does not inflate", self._entry.header) from None
        self.at += len(data)
        archive = self._archive
        archive.bytes_inflated += len(data)
        if archive.bytes_inflated > self.LIMIT + 16 * archive.bytes_deflated:
            raise UnreadableFile("limit", f"the archive inflates to more than {archive.bytes_inflated >> 20} MB")
        return data


def _expect_inside(entry: Entry, offset: int, nbytes: int) -> None:
    if offset < 0 or nbytes < 0 or offset + nbytes > entry.size:
        raise UnreadableFile(
            "bounds", f"bytes {offset} to {offset + nbytes} are wanted of record {entry} of {entry.size} bytes"
        )
