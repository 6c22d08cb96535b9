"""Where bytes come from: only regular files, only the bytes that are there."""

import os
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bnlint.errors import UnreadableFile
from bnlint.readers.source import MemorySource, Section, Source


@pytest.fixture
def source(tmp_path: Path):
    path = tmp_path / "file"
    path.write_bytes(bytes(range(200)))
    with Source(str(path)) as opened:
        yield opened


def test_reads_what_is_asked_for_and_counts_it(source: Source) -> None:
    assert source.read(3, 5) == bytes(range(3, 8))
    assert source.read(200, 0) == b""
    assert (source.size, source.bytes_read, source.reads) == (200, 5, 1)


@given(st.integers(-300, 300), st.integers(-300, 300), st.integers(0, 200), st.integers(0, 200))
def test_section_is_a_file_of_its_own(offset: int, nbytes: int, start: int, size: int) -> None:
    whole = MemorySource(bytes(range(200)))
    if start + size > 200:
        with pytest.raises(UnreadableFile):
            Section(whole, start, size)
        return
    section = Section(whole, start, size)
    if offset >= 0 and nbytes >= 0 and offset + nbytes <= size:
        assert section.read(offset, nbytes) == whole.data[start : start + size][offset : offset + nbytes]
    else:
        with pytest.raises(UnreadableFile) as caught:
            section.read(offset, nbytes)
        assert caught.value.code == "truncated"


def test_file_that_shrinks(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 100)
    with Source(str(path)) as source:
        os.truncate(path, 10)
        with pytest.raises(UnreadableFile, match="became shorter") as caught:
            source.read(0, 100)
    assert caught.value.code == "truncated"


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


def _loop(path: Path) -> None:
    path.symlink_to(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs POSIX")
@pytest.mark.parametrize("make", [_fifo, _socket, _loop, Path.mkdir, lambda path: None])
def test_what_is_no_regular_file(make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's path must be short
    make(Path("it"))
    with pytest.raises(UnreadableFile) as caught:
        Source("it")
    assert caught.value.code == "io"
    assert str(tmp_path) not in str(caught.value)


def test_null_byte_in_a_path() -> None:
    with pytest.raises(UnreadableFile):
        Source("a\0b")


def test_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    with pytest.raises(UnreadableFile) as caught:
        Source(str(path))
    assert caught.value.code == "empty"


def test_closing_twice(source: Source) -> None:
    source.close()
    source.close()
