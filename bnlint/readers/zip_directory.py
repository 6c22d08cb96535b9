"""The central directory of a zip archive: which records there are and where, read strictly."""

from __future__ import annotations

from struct import unpack_from

from bnlint.errors import UnreadableFile

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bnlint.readers.source import ByteSource

DIRECTORY_LIMIT = 64 << 20  # bytes
ENTRY_LIMIT = 250_000
_END_SIZE, _LOCATOR_SIZE, _END64_SIZE = 22, 20, 56
_LIKELY_TAIL = 4096  # holds the end record unless there is a comment
_COMMENT_LIMIT = 0xFFFF
_ENCRYPTED = 1  # flag bit
_IN_ZIP64 = 0xFFFFFFFF
_ZIP64 = 1  # id of the extra field


class Entry:
    """One record as the directory has it. `end` is where the next thing in the file begins."""

    __slots__ = ("end", "header", "method", "name", "packed", "size")

    def __init__(self, name: bytes, header: int, packed: int, size: int, method: int) -> None:
        self.name = name
        self.header = header
        self.packed = packed
        self.size = size
        self.method = method
        self.end = 0

    def __str__(self) -> str:
        return repr(_text(self.name[:80]))


class Directory:
    """`entries` by name in the order of the directory; `trailing` counts the bytes behind the archive.

    UnreadableFile: `truncated` without an end record, `limit` over the limits, `zip` for two records
    of one name, records that overlap or leave the file, and encryption.
    """

    def __init__(self, source: ByteSource) -> None:
        start, size, count, self.trailing = _find(source)
        if size > DIRECTORY_LIMIT or count > ENTRY_LIMIT:
            raise UnreadableFile("limit", f"the zip directory has {count} records in {size} bytes", start)
        self.entries: dict[str, Entry] = {}
        data = source.read(start, size)
        at = 0
        for _ in range(count):
            entry, length = _parse(data, at, start)
            name = _text(entry.name)
            if name in self.entries:
                raise UnreadableFile("zip", f"two records of the zip archive are called {entry}", entry.header)
            self.entries[name] = entry
            at += length
        if at != size:
            raise UnreadableFile("zip", f"the zip directory is {size} bytes long, its records {at}", start)
        self._refuse_overlaps(start)

    def _refuse_overlaps(self, end: int) -> None:
        for entry in sorted(self.entries.values(), key=lambda entry: entry.header, reverse=True):
            if entry.header + 30 + len(entry.name) + entry.packed > end:
                raise UnreadableFile("zip", f"record {entry} overlaps with what follows it", entry.header)
            entry.end = end
            end = entry.header


def _find(source: ByteSource) -> tuple[int, int, int, int]:
    """Start and size of the directory, its number of records, the number of bytes behind the archive."""
    for tail_size in (_LIKELY_TAIL, _END_SIZE + _COMMENT_LIMIT):
        tail_size = min(tail_size, source.size)
        tail = source.read(source.size - tail_size, tail_size)
        found = tail.rfind(b"PK\5\6", 0, max(0, tail_size - _END_SIZE + 4))
        if found >= 0:
            break
    else:
        raise UnreadableFile("truncated", "the zip archive has no end: the file is cut short", source.size)
    disk, first_disk, count_here, count, size, start, comment = unpack_from("<HHHHIIH", tail, found + 4)
    end = source.size - tail_size + found
    trailing = source.size - end - _END_SIZE - comment
    if trailing < 0:
        raise UnreadableFile("truncated", "the comment of the zip archive runs past the end of the file", end)
    if found >= _LOCATOR_SIZE and tail[found - _LOCATOR_SIZE :][:4] == b"PK\6\7":
        (end64,) = unpack_from("<Q", tail, found - _LOCATOR_SIZE + 8)
        if end64 + _END64_SIZE > end - _LOCATOR_SIZE:
            raise UnreadableFile("zip", "the zip64 end record lies outside the file", end)
        record = source.read(end64, _END64_SIZE)
        if record[:4] != b"PK\6\6":
            raise UnreadableFile("zip", "there is no zip64 end record where there should be one", end64)
        small = (count, size, start)
        disk, first_disk, count_here, count, size, start = unpack_from("<IIQQQQ", record, 16)
        if any(
            said not in (wide, full)
            for said, wide, full in zip(small, (count, size, start), (0xFFFF, _IN_ZIP64, _IN_ZIP64), strict=True)
        ):
            raise UnreadableFile("zip", "the two end records of the zip archive contradict each other", end)
        end = end64
    if disk or first_disk or count_here != count:
        raise UnreadableFile("zip", "the zip archive is one of several parts", end)
    if start + size != end:
        raise UnreadableFile("zip", f"the zip directory ends at byte {start + size}, not at its end record", end)
    if not count:
        raise UnreadableFile("zip", "the zip archive is empty", end)
    return start, size, count, trailing


def _parse(data: bytes, at: int, start: int) -> tuple[Entry, int]:
    """The record whose directory entry begins at `at`, and the length of that entry."""
    if at + 46 > len(data) or data[at : at + 4] != b"PK\1\2":
        raise UnreadableFile("zip", "the zip directory is damaged", start + at)
    flags, method, packed, size, name_size, extra_size, comment_size, header = unpack_from(
        "<HH8xIIHHH8xI", data, at + 8
    )
    extra = at + 46 + name_size
    length = 46 + name_size + extra_size + comment_size
    if at + length > len(data):
        raise UnreadableFile("zip", "the zip directory is cut short", start + at)
    name = data[at + 46 : extra]
    if size == _IN_ZIP64 or packed == _IN_ZIP64 or header == _IN_ZIP64:
        size, packed, header = _widen(data[extra : extra + extra_size], (size, packed, header), start + at)
    entry = Entry(name, header, packed, size, method)
    if flags & _ENCRYPTED:
        raise UnreadableFile("zip", f"record {entry} is encrypted", header)
    if not method and size != packed:
        raise UnreadableFile("zip", f"record {entry} is stored as it is, but has two sizes", header)
    if b"\0" in name:
        raise UnreadableFile("zip", f"record {entry} has a null byte in its name", header)
    return entry, length


def _widen(extra: bytes, values: tuple[int, ...], offset: int) -> list[int]:
    """The values, with those that do not fit 32 bits taken from the zip64 extra field."""
    at = 0
    while at + 4 <= len(extra):
        field, length = unpack_from("<HH", extra, at)
        at += 4
        if field == _ZIP64:
            wide = iter(unpack_from(f"<{min(length, len(extra) - at) // 8}Q", extra, at))
            widened = [next(wide, -1) if value == _IN_ZIP64 else value for value in values]
            if -1 not in widened:
                return widened
        at += length
    raise UnreadableFile("zip", "a record of the zip archive lacks its 64-bit sizes", offset)


def _text(name: bytes) -> str:
    try:
        return name.decode()
    except UnicodeDecodeError:
        return name.decode("latin1")
