"""Torch's containers against torch: zip, TorchScript, legacy, tar; and what is said where they lie."""

import io
import pickle
import pickletools
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from oracle import Made, Net, Stored, assert_same, by_legacy, by_torch, by_zip, legacy_by_hand
from torch import nn

from bnlint.errors import UnreadableFile
from bnlint.model.raw_file import Global
from bnlint.readers import torch_legacy, torch_zip
from bnlint.readers.source import MemorySource, Source
from bnlint.readers.values import OrderedMapping, as_tensor

pytestmark = pytest.mark.filterwarnings("ignore")  # torch deprecates what old files are made of


def rewritten(data: bytes, change: Callable[[str, bytes], bytes | None], method: int = zipfile.ZIP_STORED) -> bytes:
    """The archive written again by zipfile, with other records."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(buffer, "w", method) as new:
        for name in old.namelist():
            content = change(name, old.read(name))
            if content is not None:
                new.writestr(name, content)
    return buffer.getvalue()


def test_a_rezipped_archive(tmp_path: Path) -> None:
    data = rewritten(by_zip(Net().state_dict()), lambda name, content: content, zipfile.ZIP_DEFLATED)
    assert_same(torch_zip.load(MemorySource(data)).root, by_torch(data, tmp_path))


def test_a_big_endian_archive(tmp_path: Path) -> None:
    graph = {"w": torch.arange(6.0).reshape(2, 3), "n": torch.arange(5), "c": torch.ones(2, dtype=torch.complex64)}

    def swap(name: str, content: bytes) -> bytes:
        if name.endswith("byteorder"):
            return b"big"
        words = {"0": "<f4", "1": "<i8", "2": "<f4"}
        if name.rpartition("/")[2] in words:
            return np.frombuffer(content, words[name[-1]]).byteswap().tobytes()
        return content

    loaded = torch_zip.load(MemorySource(rewritten(by_zip(graph), swap)))
    assert_same(loaded.root, graph)
    assert_same(loaded.root, by_torch(rewritten(by_zip(graph), swap), tmp_path))
    assert loaded.notes == ["the archive is big-endian"]


def test_notes_on_what_torch_does_not_load() -> None:
    graph = {"w": torch.arange(6.0)}
    without = rewritten(by_zip(graph), lambda name, content: None if name.endswith("version") else content)
    assert "version" in torch_zip.load(MemorySource(without)).notes[0]
    assert torch_zip.load(MemorySource(by_zip(graph) + b"junk")).notes == ["4 bytes follow the archive"]
    behind = rewritten(by_zip(graph), lambda name, content: content + b"xx" if name.endswith(".pkl") else content)
    assert torch_zip.load(MemorySource(behind)).notes == ["2 bytes follow the object in data.pkl"]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda name, content: None if name.endswith("data/0") else content, "missing"),
        (lambda name, content: content[:-1] if name.endswith("data/0") else content, "bounds"),
        (lambda name, content: b"middle" if name.endswith("byteorder") else content, "corrupt"),
        (lambda name, content: content.replace(b"FloatStorage", b"BloatStorage"), "dtype"),
        (lambda name, content: content.replace(b"storage", b"sTorage"), "pickle"),
        (lambda name, content: None if name.endswith("data.pkl") else content, "unsupported"),
    ],
)
def test_archives_that_lie(change: Callable[[str, bytes], bytes | None], code: str) -> None:
    with pytest.raises(UnreadableFile) as caught:
        torch_zip.load(MemorySource(rewritten(by_zip({"w": torch.arange(6.0)}), change)))
    assert caught.value.code == code


@pytest.mark.parametrize("module", ["torch.cuda", "mylib.storages"])
def test_storage_classes_of_other_modules(module: str, tmp_path: Path) -> None:
    """Torch looks at the name alone, with weights_only at the module too; bnlint knows those of torch."""

    def elsewhere(name: str, content: bytes) -> bytes:
        return content.replace(b"ctorch\nFloatStorage\n", f"c{module}\nFloatStorage\n".encode())

    data = rewritten(by_zip({"w": torch.arange(6.0)}), elsewhere)
    if module == "torch.cuda":
        assert_same(torch_zip.load(MemorySource(data)).root, by_torch(data, tmp_path))
        return
    with pytest.raises(UnreadableFile) as caught:
        torch_zip.load(MemorySource(data))
    assert caught.value.code == "dtype"
    with pytest.raises(pickle.UnpicklingError):
        torch.load(io.BytesIO(data), weights_only=True)


def test_a_record_larger_than_its_storage() -> None:
    graph = {"w": torch.arange(6.0)}
    larger = rewritten(by_zip(graph), lambda name, content: content + b"more" if name.endswith("data/0") else content)
    assert_same(torch_zip.load(MemorySource(larger)).root, graph)


def test_torchscript(tmp_path: Path) -> None:
    path = tmp_path / "script.pt"
    torch.jit.script(Net().eval()).save(str(path))
    with Source(str(path)) as source:
        loaded = torch_zip.load(source)
        assert loaded.format == "torchscript"
        found = loaded.root.state
        for name, wanted in torch.jit.load(path).state_dict().items():
            owner = loaded.root
            *parts, leaf = name.split(".")
            for part in parts:
                owner = owner.state[part]
            assert_same(owner.state[leaf], wanted.detach())
        assert found["bn"].state["training"] is False
        texts = [
            text() for name, text in loaded.code.items() if "norm" in name
        ]  # another script may own the plain name
        assert any("eps : Final[float] = 0.001" in text for text in texts), loaded.code.keys()
        assert type(loaded.parts["constants"]) is tuple


def test_constants_of_torchscript(tmp_path: Path) -> None:
    path = tmp_path / "frozen.pt"
    frozen = torch.jit.freeze(torch.jit.script(Net().eval()))
    frozen.save(str(path))
    with Source(str(path)) as source:
        constants = [as_tensor(value) for value in torch_zip.load(source).parts["constants"]]
        shapes = sorted(constant.shape for constant in constants)
        assert (4, 3, 3, 3) in shapes
        assert all(len(constant.raw()) == constant.nbytes for constant in constants)


def python2(data: bytes) -> bytes:
    """A legacy file with the strings of its pickles as Python 2 wrote them."""
    stream, written = io.BytesIO(data), io.BytesIO()
    for _ in range(5):
        start = stream.tell()
        opcodes = list(pickletools.genops(stream))
        ends = [position for _, _, position in opcodes[1:]] + [stream.tell()]
        for (opcode, argument, position), end in zip(opcodes, ends, strict=True):
            if opcode.name == "BINUNICODE":
                text = argument.encode("latin1")
                written.write(b"U" + bytes((len(text),)) + text)
            else:
                written.write(data[position:end])
        assert start < stream.tell()
    return written.getvalue() + stream.read()


def test_legacy_files_of_python_2(tmp_path: Path) -> None:
    data = python2(by_legacy({"wéight": torch.arange(5.0), "n": OrderedDict(a=torch.ones(2))}))
    loaded = torch_legacy.load(MemorySource(data))
    (tmp_path / "f").write_bytes(data)
    assert_same(loaded.root, torch.load(tmp_path / "f", weights_only=False, encoding="latin1"))
    assert loaded.facts == {"python2": True}
    assert isinstance(loaded.root["n"], OrderedMapping)


def test_legacy_is_said_and_big_endian_systems_wrote_little_endian() -> None:
    data = by_legacy({"w": torch.arange(5.0)})
    loaded = torch_legacy.load(
        MemorySource(data.replace(b"little_endianq\x02\x88", b"little_endianq\x02\x89") + b"xyz")
    )
    assert_same(loaded.root, {"w": torch.arange(5.0)})
    assert loaded.notes == ["the container is older than torch 1.6", "3 bytes follow the last storage"]


def test_legacy_storage_views(tmp_path: Path) -> None:
    """A storage that is a part of another one, as torch wrote before 0.4."""
    whole = ("storage", torch.FloatStorage, "7", "cpu", 10)
    rebuild = torch._utils._rebuild_tensor
    graph = [
        Made(rebuild, Stored(*whole, None), 0, (2, 5), (5, 1)),
        Made(rebuild, Stored(*whole, ("view", 3, 4)), 1, (3,), (1,)),
        Made(rebuild, Stored(*whole, ("view", 3, 4)), 0, (2,), (2,)),
    ]
    data = legacy_by_hand(graph, {"7": torch.arange(10.0)})
    wanted = by_torch(data, tmp_path)
    assert wanted[1].tolist() == [4, 5, 6]
    assert_same(torch_legacy.load(MemorySource(data)).root, wanted)
    graph.append(Made(rebuild, Stored(*whole, ("outside", 8, 3)), 0, (1,), (1,)))
    with pytest.raises(UnreadableFile) as caught:
        torch_legacy.load(MemorySource(legacy_by_hand(graph, {"7": torch.arange(10.0)})))
    assert caught.value.code == "bounds"


@pytest.mark.parametrize(
    ("storages", "code"),
    [({}, "missing"), ({"0": torch.ones(3), "1": torch.ones(3)}, "corrupt")],
)
def test_legacy_storages_that_do_not_match(storages: dict[str, torch.Tensor], code: str) -> None:
    stored = Stored("storage", torch.FloatStorage, "0", "cpu", 3, None)
    data = legacy_by_hand(Made(torch._utils._rebuild_tensor, stored, 0, (3,), (1,)), storages)
    with pytest.raises(UnreadableFile) as caught:
        torch_legacy.load(MemorySource(data))
    assert caught.value.code == code


@pytest.mark.parametrize("source_text", [None, "class Net: pass"])
def test_legacy_modules_carry_their_source(source_text: str | None) -> None:
    graph = [Stored("module", Net, "net.py" if source_text else None, source_text)]
    (found,) = torch_legacy.load(MemorySource(legacy_by_hand(graph, {}))).root
    assert isinstance(found, Global)
    assert found.name == "Net"


@pytest.mark.parametrize("kept", [-1, -4000, 200])
def test_legacy_files_cut_short(kept: int) -> None:
    with pytest.raises(UnreadableFile) as caught:
        torch_legacy.load(MemorySource(by_legacy({"w": torch.arange(1000.0)})[:kept]))
    assert caught.value.code == "truncated"


def test_legacy_counts_that_lie() -> None:
    data = by_legacy({"w": torch.arange(1000.0)})
    count = data.rindex(struct.pack("<q", 1000))
    found = torch_legacy.load(MemorySource(data[:count] + struct.pack("<q", 999) + data[count + 8 :])).root
    with pytest.raises(UnreadableFile, match="999 elements, the pickle says 1000") as caught:
        found["w"].raw()
    assert caught.value.offset == count


def test_old_parameters_get_what_they_are_from_build(tmp_path: Path) -> None:
    """BUILD before torch 0.4: (data, gradient, hooks, requires_grad, volatile), or (requires_grad, volatile, hooks)."""
    stored = Stored("storage", torch.FloatStorage, "0", "cpu", 6, None)
    data = Made(torch._utils._rebuild_tensor, stored, 1, (2, 2), (2, 1))
    graph = [
        Made(nn.Parameter, data, state=(True, False, OrderedDict())),
        Made(nn.Parameter, data, state=(False, False, OrderedDict())),
        Made(nn.Parameter, state=(data, None, OrderedDict(), True, False)),
        Made(nn.Parameter, data, False),
    ]
    bytes_of_file = legacy_by_hand(graph, {"0": torch.arange(6.0)})
    found = torch_legacy.load(MemorySource(bytes_of_file)).root
    assert_same(found, by_torch(bytes_of_file, tmp_path))
    assert [parameter.requires_grad for parameter in found] == [True, False, True, False]


def test_tensors_outside_their_storage() -> None:
    for bad in (b"K\x07", b"J\xff\xff\xff\xff", b"\x8a\x09" + b"\xff" * 8 + b"\x00"):
        data = by_legacy({"w": torch.arange(3.0)})
        at = data.rindex(b"K\x03\x85q")
        with pytest.raises(UnreadableFile) as caught:
            torch_legacy.load(MemorySource(data[:at] + bad + data[at + 2 :]))
        assert caught.value.code == "bounds"
