"""safetensors files: the reference implementation writes them, and says which are sound."""

import json
import struct
from pathlib import Path

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from safetensors import SafetensorError, deserialize
from safetensors.torch import save, save_file

from bnlint import Tensor, UnreadableFile
from bnlint.readers import safetensors
from bnlint.readers.opening import open_file
from bnlint.readers.source import MemorySource

DTYPES = [
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex64, torch.bool,
    torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.uint16, torch.uint32, torch.uint64,
    torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz,
]  # fmt: skip


def written(header: object, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(dtype: object = "F32", shape: object = (1,), offsets: object = (0, 4)) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def read(data: bytes) -> dict[str, Tensor]:
    root = safetensors.load(MemorySource(data)).root
    assert isinstance(root, dict)
    return root


def refused(data: bytes) -> str:
    with pytest.raises(UnreadableFile) as caught:
        read(data)
    return caught.value.code


def sound(data: bytes) -> bool:
    """What the reference implementation says."""
    try:
        deserialize(data)
    except SafetensorError:
        return False
    return True


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_tensors_are_those_of_torch(dtype: torch.dtype) -> None:
    written_by_torch = {
        "vector": torch.arange(7).to(dtype),
        "matrix": torch.arange(12).reshape(3, 4).to(dtype),
        "number": torch.tensor(1).to(dtype),
        "nothing": torch.zeros(0, 3).to(dtype),
    }
    tensors = read(save(written_by_torch))
    assert tensors.keys() == written_by_torch.keys()
    for name, expected in written_by_torch.items():
        assert tensors[name].dtype == str(dtype).removeprefix("torch.")
        assert tensors[name].shape == tuple(expected.shape)
        assert tensors[name].raw() == expected.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def test_batchnorm_layers_are_found_with_their_numbers(tmp_path: Path) -> None:
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 5, 3), torch.nn.BatchNorm2d(5))
    model(torch.randn(2, 3, 8, 8))
    path = str(tmp_path / "model.safetensors")
    save_file(model.state_dict(), path, metadata={"format": "pt"})
    file = open_file(path)
    assert (file.format, file.status, file.notes) == ("safetensors", "checked", [])
    assert file.checkpoint is not None
    with file.checkpoint:
        (layer,) = file.checkpoint.batchnorms
        assert layer.name == "1"
        assert layer.state_dict.metadata is None
        for leaf, vector in layer.vectors.items():
            assert vector.tolist() == model[1].state_dict()[leaf].tolist()
        assert layer.num_batches_tracked == 1


@pytest.mark.parametrize(
    ("dtype", "shape", "nbytes", "seen_as"),
    [
        ("F4", [2, 4], 4, ("float4_e2m1fn_x2", (2, 2))),  # torch counts pairs
        ("F4", [2, 3], 3, ("bits8", (3,))),
        ("F6_E2M3", [4], 3, ("bits8", (3,))),
        ("F8_E8M0", [3], 3, ("float8_e8m0fnu", (3,))),
    ],
)
def test_elements_smaller_than_a_byte(dtype: str, shape: list[int], nbytes: int, seen_as: tuple) -> None:
    data = written({"x": entry(dtype, shape, [0, nbytes])}, bytes(nbytes))
    assert sound(data)
    tensor = read(data)["x"]
    assert (tensor.dtype, tensor.shape) == seen_as


WRONG = {
    "nothing": b"",
    "half a length": b"\1\0\0",
    "header beyond the file": struct.pack("<Q", 400) + b"{}",
    "header of a terabyte": struct.pack("<Q", 1 << 40) + b"{}",
    "header of 2**64": b"\xff" * 8 + b"{}",
    "no JSON": written(b"{tensors}"),
    "a list": written([]),
    "no UTF-8": written(b'{"\xff": 1}'),
    "goes on": written(b"{}{}"),
    "null byte behind": written(b"{}\0"),
    "metadata of numbers": written({"__metadata__": {"epoch": 1}}),
    "metadata is text": written({"__metadata__": "pt"}),
    "entry is null": written({"x": None}),
    "dtype unknown": written({"x": entry("F12")}, bytes(4)),
    "dtype is a list": written({"x": entry([])}, bytes(4)),
    "no dtype": written({"x": {"shape": [1], "data_offsets": [0, 4]}}, bytes(4)),
    "shape negative": written({"x": entry(shape=[-1])}, bytes(4)),
    "shape of fractions": written({"x": entry(shape=[1.0])}, bytes(4)),
    "shape of truth": written({"x": entry(shape=[True])}, bytes(4)),
    "shape of 2**64": written({"x": entry(shape=[1 << 64, 0], offsets=[0, 0])}),
    "product overflows": written({"x": entry(shape=[1 << 62, 1 << 62, 0], offsets=[0, 0])}),
    "offsets are three": written({"x": entry(offsets=[0, 4, 4])}, bytes(4)),
    "offsets backwards": written({"x": entry(offsets=[4, 0])}, bytes(4)),
    "too few bytes": written({"x": entry(shape=[2])}, bytes(4)),
    "a gap before": written({"x": entry(offsets=[4, 8])}, bytes(8)),
    "a gap between": written({"x": entry(), "y": entry(offsets=[8, 12])}, bytes(12)),
    "an overlap": written({"x": entry(), "y": entry(offsets=[2, 6])}, bytes(6)),
    "the same bytes twice": written({"x": entry(), "y": entry()}, bytes(4)),
    "bytes behind": written({"x": entry()}, bytes(5)),
    "cut short": written({"x": entry()}, bytes(3)),
    "nested without end": written(b'{"x":' * 100_000),
}  # fmt: skip


@pytest.mark.parametrize("data", WRONG.values(), ids=WRONG)
def test_what_the_reference_refuses_is_refused(data: bytes) -> None:
    assert not sound(data)
    refused(data)


EMPTY = b'"x": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}'


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (written(b"{%b, %b}" % (EMPTY, EMPTY)), "json"),
        (written(b" {%b}" % EMPTY), "json"),
        (written({"x": ["F32", [1], [0, 4]]}, bytes(4)), "json"),
        (written(b'{"x":' + b"[" * 1_100_000), "limit"),
    ],
    ids=["a name twice", "a blank before the brace", "an entry without names", "a million brackets"],
)  # fmt: skip
def test_what_is_refused_beyond_the_reference(data: bytes, code: str) -> None:
    assert refused(data) == code


def test_a_long_product_of_sizes_is_refused_at_once() -> None:
    assert refused(written({"x": entry(shape=[(1 << 63) - 1] * 100_000)}, bytes(4))) == "bounds"


def test_truncated_files_say_where_they_end() -> None:
    whole = save({"x": torch.zeros(100)})
    for size in range(len(whole)):
        with pytest.raises(UnreadableFile) as caught:
            read(whole[:size])
        assert caught.value.code == "truncated"
        assert caught.value.offset == size


NUMBERS = st.integers(-1, 12) | st.sampled_from([1 << 32, 1 << 63, (1 << 64) - 1, 1 << 64])
ENTRIES = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "F16", "I64", "U8", "BOOL", "F4", "F6_E3M2", "F33", ""]),
        "shape": st.lists(NUMBERS, max_size=3),
        "data_offsets": st.lists(NUMBERS, min_size=1, max_size=3) | st.tuples(NUMBERS, NUMBERS),
    }
)
HEADERS = st.dictionaries(st.sampled_from(["a", "b", "bn.running_var", "__metadata__"]), ENTRIES, max_size=3)


@given(HEADERS, st.integers(0, 24))
@example({}, 0)
@example({"a": entry("U8", [3], [0, 3]), "b": entry("F32", [0, 5], [3, 3])}, 3)
def test_headers_are_taken_and_refused_as_by_the_reference(header: dict, nbytes: int) -> None:
    data = written(header, bytes(nbytes))
    try:
        tensors = read(data)
    except UnreadableFile:
        assert not sound(data)
    else:
        assert sound(data)
        assert tensors.keys() == header.keys()


@given(st.data())
def test_mutated_files_are_read_as_by_the_reference_or_refused(data: st.DataObject) -> None:
    whole = bytearray(save({"bn.running_mean": torch.arange(4.0), "bn.running_var": torch.ones(4)}))
    for _ in range(data.draw(st.integers(1, 3))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        tensors = read(bytes(whole))
    except UnreadableFile:
        return
    expected = dict(deserialize(bytes(whole)))
    assert tensors.keys() == expected.keys()
    for name, tensor in tensors.items():
        assert tensor.raw() == expected[name]["data"]
