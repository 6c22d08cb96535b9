"""Writes a torch zip archive again: an edited data.pkl, new storages, every other record as it was.

Headers, padding and descriptors are those of torch (caffe2/serialize/inline_container.cc and its miniz), so
that an archive of torch in which nothing is changed comes out byte for byte.
"""

from __future__ import annotations

from struct import pack
from zlib import crc32

from bnlint.fixing.program_edits import edited
from bnlint.readers.zip_archive import ZipArchive

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from bnlint.fixing.edit import Edit, NewTensor
    from bnlint.model.tensor import Storage
    from bnlint.readers.source import ByteSource

    Write = Callable[[bytes], object]

CHUNK = 1 << 20
_ALIGNMENT = 64
_LARGEST_ALIGNMENT = 1 << 15
_UTF8, _SIZES_FOLLOW = 0x0800, 8  # flag bits
_WIDE = 0xFFFFFFFF
_LOCAL_HEADER = 30
_OBJECT = "data.pkl"


def write(source: ByteSource, edits: Sequence[Edit], stream: Write) -> None:
    """Write the archive with the edits made. UnreadableFile where it cannot be read, or not be edited."""
    archive = ZipArchive(source)
    folder = next(
        (name[: -len(_OBJECT)] for name in archive.entries if name.count("/") == 1 and name.endswith(f"/{_OBJECT}")), ""
    )
    storages = f"{folder}data/"
    names = [name[len(storages) :] for name in archive.entries if name.startswith(storages)]
    pickle = edited(archive.read(folder + _OBJECT), edits, names)
    removed = {storages + name for name in pickle.removed}
    last = storages + names[-1] if names else folder + _OBJECT
    big_endian = f"{folder}byteorder" in archive.entries and archive.read(f"{folder}byteorder", 64) == b"big"
    writer = ArchiveWriter(stream, _alignment(archive, folder))
    for name, entry in archive.entries.items():
        if name == folder + _OBJECT:
            writer.add(entry.name, [pickle.code])
        elif name not in removed:
            writer.add(entry.name, _chunks(archive.storage(name)), entry.size)
        if name == last:
            for key, tensor in pickle.added.items():
                writer.add((storages + key).encode(), [_stored(tensor, big_endian)])
    writer.close()


def _alignment(archive: ZipArchive, folder: str) -> int:
    """What torch.utils.serialization.config.save.storage_alignment was when the file was saved."""
    name = f"{folder}.storage_alignment"
    said = archive.read(name, 64) if name in archive.entries else b""
    return int(said) if said.isdigit() and 0 < int(said) <= _LARGEST_ALIGNMENT else _ALIGNMENT


def _chunks(storage: Storage) -> Iterator[bytes]:
    for offset in range(0, storage.nbytes, CHUNK):
        yield storage.read(offset, min(CHUNK, storage.nbytes - offset))


def _stored(tensor: NewTensor, big_endian: bool) -> bytes:
    if not big_endian:
        return tensor.data
    count = 1
    for size in tensor.shape:
        count *= size
    word = len(tensor.data) // count if count else 1
    swapped = bytearray(tensor.data)
    for byte in range(word):
        swapped[byte::word] = tensor.data[word - 1 - byte :: word]
    return bytes(swapped)


class ArchiveWriter:
    """Writes records one after the other, and `close`s with the directory."""

    def __init__(self, stream: Write, alignment: int = _ALIGNMENT) -> None:
        self._stream = stream
        self._alignment = alignment
        self._at = 0
        self._directory: list[bytes] = []

    def add(self, name: bytes, data: Iterable[bytes], size: int | None = None) -> None:
        """Write a record; `size` is needed where `data` is no list."""
        if size is None:
            data = list(data)
            size = sum(map(len, data))
        start = self._at
        self._write(pack("<4sHHHIIIIHH", b"PK\3\4", 0, _flags(size), 0, 0, 0, 0, 0, len(name), 0)[:28])
        wide = size >= _WIDE or start >= _WIDE
        extra = _zip64(*([size, size] if size >= _WIDE else []), *([start] if start >= _WIDE else []))
        extra += self._padding(start + _LOCAL_HEADER + len(name) + len(extra) + 4)
        self._write(pack("<H", len(extra)) + name + extra)
        checksum = written = 0
        for chunk in data:
            checksum = crc32(chunk, checksum)
            written += len(chunk)
            self._write(chunk)
        assert written == size
        if size:
            self._write(pack("<4sIQQ" if wide else "<4sIII", b"PK\7\x08", checksum, size, size))
        self._directory.append(_entry(name, checksum, size, start))

    def close(self) -> None:
        """Write the directory and the end records, the one for large archives too, as torch always does."""
        start = self._at
        directory = b"".join(self._directory)
        self._write(directory)
        count, size, end = len(self._directory), len(directory), self._at
        self._write(pack("<4sQHHIIQQQQ", b"PK\6\6", 44, 0x031E, 45, 0, 0, count, count, size, start))
        self._write(pack("<4sIQI", b"PK\6\7", 0, end, 1))
        short = min(count, 0xFFFF)
        self._write(pack("<4sHHHHIIH", b"PK\5\6", 0, 0, short, short, min(size, _WIDE), min(start, _WIDE), 0))

    def _padding(self, start: int) -> bytes:
        """An extra field that ends where the data is aligned. `start` is where it would begin with an empty one."""
        gap = -start % self._alignment
        return b"FB" + pack("<H", gap) + b"Z" * gap

    def _write(self, data: bytes) -> None:
        self._stream(data)
        self._at += len(data)


def _flags(size: int) -> int:
    return _UTF8 | _SIZES_FOLLOW if size else _UTF8


def _entry(name: bytes, checksum: int, size: int, start: int) -> bytes:
    extra = _zip64(*([size, size] if size >= _WIDE else []), *([start] if start >= _WIDE else []))
    said = min(size, _WIDE)
    fixed = pack("<4sHHHHIIII", b"PK\1\2", 0, 0, _flags(size), 0, 0, checksum, said, said)
    return fixed + pack("<HHHHHII", len(name), len(extra), 0, 0, 0, 0, min(start, _WIDE)) + name + extra


def _zip64(*values: int) -> bytes:
    return pack(f"<HH{len(values)}Q", 1, 8 * len(values), *values) if values else b""
