"""Zip archives: Python's zipfile and torch write them, zipfile says what is in them."""

import io
import struct
import zipfile
import zlib

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bnlint.errors import UnreadableFile
from bnlint.readers.source import MemorySource
from bnlint.readers.zip_archive import ZipArchive

RECORDS = {"a/data.pkl": b"pickle" * 100, "a/data/0": bytes(range(256)) * 300, "a/data/1": b"", "a/version": b"3\n"}


class CountingSource(MemorySource):
    """Counts how often it is read, like a file."""

    __slots__ = ("bytes_read", "reads")

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.reads = self.bytes_read = 0

    def read(self, offset: int, nbytes: int) -> bytes:
        self.reads += 1
        self.bytes_read += nbytes
        return super().read(offset, nbytes)


def by_zipfile(method: int = zipfile.ZIP_STORED, comment: bytes = b"", records=RECORDS) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in records.items():
            archive.writestr(name, data)
        archive.comment = comment
    return buffer.getvalue()


def by_torch() -> bytes:
    buffer = io.BytesIO()
    torch.save({"weight": torch.arange(1000.0), "bias": torch.arange(3)}, buffer)
    return buffer.getvalue()


def patch(data: bytes, offset: int, new: bytes) -> bytes:
    return data[:offset] + new + data[offset + len(new) :]


def central(data: bytes, name: bytes) -> int:
    """Where the directory's entry of a record begins."""
    at = data.rindex(name)  # the directory comes last
    return data.rindex(b"PK\1\2", 0, at)


def refused(data: bytes, match: str, *, reading: str | None = None) -> str:
    with pytest.raises(UnreadableFile, match=match) as caught:
        archive = ZipArchive(MemorySource(data))
        assert reading is not None, "the directory was accepted"
        archive.read(reading)
    return caught.value.code


@pytest.mark.parametrize(
    "data",
    [
        by_torch(),
        by_zipfile(),
        by_zipfile(zipfile.ZIP_DEFLATED),
        by_zipfile(comment=b"x" * 65535),
        by_zipfile(comment=b"c" * 5000),
    ],
    ids=["torch", "stored", "deflated", "longest-comment", "long-comment"],
)
def test_every_record_as_zipfile_reads_it(data: bytes) -> None:
    archive = ZipArchive(MemorySource(data))
    with zipfile.ZipFile(io.BytesIO(data)) as oracle:
        assert list(archive.entries) == oracle.namelist()
        for name in oracle.namelist():
            assert archive.read(name) == oracle.read(name)
    assert archive.trailing == 0


@given(
    st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]),
    st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 5000)), min_size=1, max_size=8),
)
@settings(max_examples=60)
def test_any_part_of_a_record(method: int, parts: list[tuple[int, int]]) -> None:
    content = bytes(range(256)) * 20
    storage = ZipArchive(MemorySource(by_zipfile(method, records={"r": content, "s": b"end"}))).storage("r")
    for offset, nbytes in parts:
        if offset + nbytes > len(content):
            with pytest.raises(UnreadableFile) as caught:
                storage.read(offset, nbytes)
            assert caught.value.code == "bounds"
        else:
            assert storage.read(offset, nbytes) == content[offset : offset + nbytes]


def test_one_read_brings_header_and_vector() -> None:
    source = CountingSource(by_torch())
    archive = ZipArchive(source)
    before, bytes_before = source.reads, source.bytes_read
    record = archive.storage("archive/data/0")
    assert len(record.read(0, 4000)) == 4000
    assert source.reads == before + 1
    assert source.bytes_read - bytes_before < 4000 + 150
    assert record.read(8, 8) == struct.pack("<2f", 2, 3)
    assert source.reads == before + 2  # the header is known now


def test_a_slice_far_into_a_record_does_not_fetch_its_beginning() -> None:
    content = bytes(1 << 20)
    source = CountingSource(by_zipfile(records={"r": content}))
    record = ZipArchive(source).storage("r")
    before = source.bytes_read
    record.read(1 << 19, 64)
    assert source.bytes_read - before < 200


def test_trailing_bytes_are_counted() -> None:
    archive = ZipArchive(MemorySource(by_torch() + b"\0" * 1000))
    assert archive.trailing == 1000


def test_zip64_sizes() -> None:
    """A record whose sizes and offset stand in the zip64 field, as beyond 4 GB."""
    name, content = b"r", b"hello"
    local = struct.pack("<4s5H3I2H", b"PK\3\4", 45, 8, 0, 0, 0, 0, 0, 0, len(name), 0) + name + content
    extra = struct.pack("<2H3Q", 1, 24, len(content), len(content), 0)
    entry = struct.pack(
        "<4s6H3I5H2I",
        b"PK\1\2",
        45,
        45,
        8,
        0,
        0,
        0,
        0,
        *(0xFFFFFFFF,) * 2,
        len(name),
        len(extra),
        0,
        0,
        0,
        0,
        0xFFFFFFFF,
    )
    directory = entry + name + extra
    start, end64 = len(local), len(local) + len(directory)
    tail = struct.pack("<4sQ2H2I4Q", b"PK\6\6", 44, 45, 45, 0, 0, 1, 1, len(directory), start)
    tail += struct.pack("<4sIQI", b"PK\6\7", 0, end64, 1)
    tail += struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    data = local + directory + tail
    assert ZipArchive(MemorySource(data)).read("r") == content
    with zipfile.ZipFile(io.BytesIO(data)) as oracle:
        assert oracle.getinfo("r").file_size == len(content)
    assert refused(data.replace(extra, struct.pack("<2H3Q", 2, 24, 5, 5, 0)), "64-bit") == "zip"
    lying_end = data[:-22] + struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 7, 7, len(directory), start, 0)
    assert refused(lying_end, "contradict") == "zip"


def test_two_records_of_one_name() -> None:
    data = by_zipfile().replace(b"a/data/1", b"a/data/0")
    assert refused(data, "two records") == "zip"


def test_records_that_overlap() -> None:
    data = by_zipfile()
    data = patch(data, central(data, b"a/data/0") + 42, struct.pack("<I", 10))
    assert refused(data, "overlaps") == "zip"


def test_a_record_beyond_the_directory() -> None:
    data = by_zipfile()
    data = patch(data, central(data, b"a/version") + 42, struct.pack("<I", len(data) - 30))
    assert refused(data, "overlaps") == "zip"


@pytest.mark.parametrize("where", ["directory", "header"])
def test_encryption(where: str) -> None:
    data = by_zipfile()
    offset = central(data, b"a/data.pkl") + 8 if where == "directory" else 6
    flags = data[offset] | 1
    assert refused(patch(data, offset, bytes((flags,))), "encrypted|contradict", reading="a/data.pkl") == "zip"


@pytest.mark.parametrize(
    ("offset", "new"),
    [(8, b"\x08\0"), (18, b"\x11"), (22, b"\x11"), (30, b"b"), (26, b"\x01\0")],
    ids=["method", "packed-size", "size", "name", "name-length"],
)
def test_headers_that_contradict_each_other(offset: int, new: bytes) -> None:
    assert refused(patch(by_zipfile(), offset, new), "contradict", reading="a/data.pkl") == "zip"


def test_a_local_header_that_moves_the_data() -> None:
    data = patch(by_zipfile(), 28, struct.pack("<H", 60))  # extra field
    assert refused(data, "runs into", reading="a/data.pkl") == "zip"


def test_a_missing_local_header() -> None:
    assert refused(patch(by_zipfile(), 0, b"PK\3\5"), "no local header", reading="a/data.pkl") == "zip"


def test_two_sizes_of_a_stored_record() -> None:
    data = by_zipfile()
    data = patch(data, central(data, b"a/data.pkl") + 24, struct.pack("<I", 7))
    assert refused(data, "two sizes") == "zip"


def test_an_unknown_compression() -> None:
    data = by_zipfile(zipfile.ZIP_BZIP2)
    assert refused(data, "method 12", reading="a/data.pkl") == "zip"


@pytest.mark.parametrize("kept", [5, 300, 4000, -1])
def test_a_file_cut_short(kept: int) -> None:
    assert refused(by_torch()[:kept], "no end") == "truncated"


def test_a_comment_cut_short() -> None:
    assert refused(by_zipfile(comment=b"comment")[:-1], "comment") == "truncated"


def test_bytes_between_directory_and_end() -> None:
    data = by_zipfile()
    end = data.rindex(b"PK\5\6")
    assert refused(data[:end] + b"hidden" + data[end:], "ends at byte") == "zip"


def test_a_missing_record() -> None:
    assert refused(by_zipfile(), "not in the archive", reading="a/data/7") == "missing"


@pytest.mark.parametrize(("change", "match"), [(-1, "does not end"), (1, "less than it says")])
def test_a_deflated_record_of_another_size(change: int, match: str) -> None:
    data = by_zipfile(zipfile.ZIP_DEFLATED)
    size = struct.pack("<I", len(RECORDS["a/data/0"]) + change)
    data = patch(data, central(data, b"a/data/0") + 24, size)
    data = patch(data, data.index(b"a/data/0") - 30 + 22, size)
    assert refused(data, match, reading="a/data/0") == "zip"


def test_damaged_deflate() -> None:
    data = by_zipfile(zipfile.ZIP_DEFLATED)
    assert (
        refused(patch(data, data.index(b"a/data.pkl") + 10, b"\xff\xff\xff"), "inflate", reading="a/data.pkl") == "zip"
    )


def test_a_zip_bomb() -> None:
    squeeze = zlib.compressobj(9, zlib.DEFLATED, -15)
    megabyte = bytes(1 << 20)
    packed = b"".join(squeeze.compress(megabyte) for _ in range(300)) + squeeze.flush()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("r", b"")
    data = buffer.getvalue()
    start = data.index(b"r") + 1
    old = data[start : data.index(b"PK\1\2")]
    data = data[:start] + packed + data[start + len(old) :]
    for at in (18, central(data, b"r") + 20):
        data = patch(data, at, struct.pack("<2I", len(packed), 300 << 20))
    end = data.rindex(b"PK\5\6")
    data = patch(data, end + 16, struct.pack("<I", start + len(packed)))
    assert refused(data, "limit", reading="r") == "limit"
    storage = ZipArchive(MemorySource(data)).storage("r")
    with pytest.raises(UnreadableFile) as caught:
        storage.read(299 << 20, 100)
    assert caught.value.code == "limit"


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_damage_is_one_clear_error(data: st.DataObject) -> None:
    good = data.draw(st.sampled_from([TORCH, DEFLATED]))
    bad = bytearray(good)
    for offset in data.draw(st.lists(st.integers(0, len(bad) - 1), min_size=1, max_size=4)):
        bad[offset] = data.draw(st.integers(0, 255))
    try:
        archive = ZipArchive(MemorySource(bytes(bad[: data.draw(st.sampled_from([None, len(bad) // 2]))])))
        for name in archive.entries:
            archive.read(name)
    except UnreadableFile:
        pass


TORCH, DEFLATED = by_torch(), by_zipfile(zipfile.ZIP_DEFLATED)
