"""The readers against torch and pickle: every dtype, layout and container must come out bit by bit the same."""

import os
import pickle
import random
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from oracle import PROTOCOLS, READERS, Net, assert_same, by_legacy, by_pickle, by_tar, by_torch, by_zip
from torch import nn

from bnlint.errors import UnreadableFile
from bnlint.model.raw_file import Global
from bnlint.model.tensor import ITEM_SIZE
from bnlint.readers import raw_pickle, torch_zip
from bnlint.readers.source import MemorySource, Source
from bnlint.readers.values import Opaque, as_tensor

pytestmark = pytest.mark.filterwarnings("ignore")  # torch deprecates what old files are made of


# -- what goes into them -----------------------------------------------------------------------------------


def dtypes() -> list[torch.dtype]:
    """The dtypes of this torch that tensors can be saved in, quantised ones apart."""
    found = {value for value in vars(torch).values() if isinstance(value, torch.dtype)}
    saved = []
    for dtype in sorted(found, key=str):
        if str(dtype).startswith("torch.q") or dtype.itemsize == 0:
            continue
        try:
            by_zip(torch.empty(2, dtype=dtype))
        except (KeyError, RuntimeError):  # the unfinished integers of 1 to 7 bits
            continue
        saved.append(dtype)
    return saved


def tensor_of(dtype: torch.dtype, count: int = 24) -> torch.Tensor:
    generator = torch.Generator().manual_seed(count)
    data = torch.randint(0, 256, (count * dtype.itemsize,), dtype=torch.uint8, generator=generator)
    if dtype == torch.bool:
        data &= 1
    return data.view(dtype)


LAYOUTS: dict[str, Callable[[torch.Tensor], object]] = {
    "vector": lambda t: t,
    "matrix": lambda t: t.reshape(4, 6),
    "scalar": lambda t: t[5],
    "empty": lambda t: t[:0],
    "empty matrix": lambda t: t[:0].reshape(0, 7),
    "slice": lambda t: t[3:9],
    "every third": lambda t: t[1::3],
    "transposed": lambda t: t.reshape(4, 6).T,
    "permuted": lambda t: t.reshape(2, 3, 4).permute(2, 0, 1),
    "expanded": lambda t: t[2].expand(3, 2),
    "column": lambda t: t.reshape(4, 6)[:, 2],
    "overlapping": lambda t: t.as_strided((3, 4), (2, 3), 1),
    "shared": lambda t: [t, t[2:], {"again": t}],
}


@pytest.mark.parametrize("dtype", dtypes(), ids=str)
@pytest.mark.parametrize("container", READERS, ids=lambda container: container.__name__)
def test_every_dtype_in_every_layout(container: Callable[..., bytes], dtype: torch.dtype, tmp_path: Path) -> None:
    base = tensor_of(dtype)
    graph = {name: make(base) for name, make in LAYOUTS.items()}
    typed = dtype not in torch.storage._new_dtypes()
    if container is by_tar and not typed:
        pytest.skip("torch had no such dtype then")
    data = container(graph)
    found = READERS[container](MemorySource(data)).root
    if container is by_pickle:
        wanted = pickle.loads(data) if typed else graph
    else:
        wanted = by_torch(data, tmp_path) if typed or container is by_zip else graph
    assert_same(found, wanted)
    assert_same(found, graph)


def test_every_dtype_of_torch_is_known() -> None:
    quantised = {"quint8", "qint8", "qint32", "quint4x2", "quint2x4"}
    assert {str(dtype).removeprefix("torch.") for dtype in dtypes()} | quantised <= set(ITEM_SIZE)
    assert all(ITEM_SIZE[str(dtype).removeprefix("torch.")] == dtype.itemsize for dtype in dtypes())


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("container", READERS, ids=lambda container: container.__name__)
def test_every_protocol(container: Callable[..., bytes], protocol: int, tmp_path: Path) -> None:
    if protocol == 0 and container in (by_zip, by_legacy):
        pytest.skip("torch does not load what it saves with protocol 0")
    graph = {"a": torch.arange(70.0), "b": [torch.tensor(3), (1, "x", None)], "c": OrderedDict(w=torch.ones(2, 2))}
    data = container(graph, protocol)
    wanted = pickle.loads(data) if container is by_pickle else by_torch(data, tmp_path)
    assert_same(READERS[container](MemorySource(data)).root, wanted)


@pytest.mark.parametrize("container", [by_zip, by_legacy, by_tar], ids=lambda container: container.__name__)
def test_views_share_their_storage(container: Callable[..., bytes]) -> None:
    weight = torch.arange(10.0)
    found = READERS[container](MemorySource(container([weight, weight[3:], torch.ones(2)]))).root
    assert found[0].storage is found[1].storage
    assert found[0].storage is not found[2].storage


@pytest.mark.parametrize("container", [by_zip, by_legacy], ids=lambda container: container.__name__)
def test_quantised_tensors(container: Callable[..., bytes], tmp_path: Path) -> None:
    numbers = torch.linspace(-3, 3, 12).reshape(3, 4)
    graph: dict[str, torch.Tensor] = {
        str(dtype): torch.quantize_per_tensor(numbers, 0.1, 2, dtype)
        for dtype in (torch.quint8, torch.qint8, torch.qint32)
    }
    scales, zeros = torch.tensor([0.1, 0.2, 0.3]), torch.zeros(3, dtype=torch.int64)
    graph["per channel"] = torch.quantize_per_channel(numbers, scales, zeros, 0, torch.qint8)
    data = container(graph)
    assert_same(READERS[container](MemorySource(data)).root, by_torch(data, tmp_path))
    packed = torch.quantize_per_channel(numbers, scales, zeros.float(), 0, torch.quint4x2)
    found = READERS[container](MemorySource(container({"packed": packed, "after": numbers}))).root
    assert isinstance(found["packed"], Opaque)
    assert_same(found["after"], numbers)


class Attributed(torch.Tensor):
    """A subclass of Tensor."""


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("container", [by_zip, by_legacy, by_pickle], ids=lambda container: container.__name__)
def test_whole_modules(container: Callable[..., bytes], protocol: int, tmp_path: Path) -> None:
    if protocol == 0 and container is not by_pickle:
        pytest.skip("torch does not load what it saves with protocol 0")
    data = container(Net(), protocol)
    wanted = pickle.loads(data) if container is by_pickle else by_torch(data, tmp_path)
    loaded = READERS[container](MemorySource(data))
    assert_same(loaded.root, wanted)
    norm = loaded.root.state["_modules"]["bn"].state
    assert (norm["training"], norm["momentum"], norm["eps"]) == (False, None, 1e-3)


def test_parameters_buffers_and_subclasses(tmp_path: Path) -> None:
    with_attribute = nn.Parameter(torch.ones(3))
    with_attribute.note = "mine"  # type: ignore[attr-defined]
    leaf = torch.ones(2, requires_grad=True)
    graph = {
        "attribute": with_attribute,
        "subclass": torch.arange(4.0).as_subclass(Attributed),
        "buffer": nn.Buffer(torch.arange(3)),
        "leaf": leaf,
    }
    data = by_zip(graph)
    found = torch_zip.load(MemorySource(data)).root
    assert_same(found, by_torch(data, tmp_path))
    assert found["leaf"].requires_grad is True
    assert found["subclass"].requires_grad is None


def test_what_has_no_plain_bytes(tmp_path: Path) -> None:
    graph = {
        "sparse": torch.eye(3).to_sparse(),
        "compressed": torch.eye(3).to_sparse_csr(),
        "conjugated": torch.ones(2, dtype=torch.complex64).conj(),
        "meta": torch.empty(3, 2, device="meta"),
        "plain": torch.arange(3),
    }
    found = torch_zip.load(MemorySource(by_zip(graph))).root
    assert all(isinstance(found[name], Opaque) for name in ("sparse", "compressed", "conjugated"))
    assert (found["meta"].shape, found["meta"].storage) == ((3, 2), None)
    with pytest.raises(UnreadableFile, match="meta") as caught:
        found["meta"].raw()
    assert caught.value.code == "missing"
    assert_same(found["plain"], graph["plain"])


def test_globals_of_a_checkpoint_are_listed() -> None:
    loaded = raw_pickle.load(MemorySource(by_pickle({"w": torch.ones(2)})))
    assert {"torch._utils._rebuild_tensor_v2", "torch.storage._load_from_bytes"} <= set(map(str, loaded.globals))
    assert all(isinstance(name, Global) for name in loaded.globals)


def test_a_strided_vector_of_millions_is_not_gathered() -> None:
    found = torch_zip.load(MemorySource(by_zip(torch.zeros(4_000_000, dtype=torch.int8)[::2]))).root
    with pytest.raises(UnreadableFile) as caught:
        found.raw()
    assert caught.value.code == "limit"
    assert len(found.raw(1 << 30)) == 2_000_000


# -- damage --------------------------------------------------------------------------------------------------


def damaged(data: bytes, seed: int) -> bytes:
    chance = random.Random(seed)
    bad = bytearray(data)
    for _ in range(chance.randint(1, 5)):
        bad[chance.randrange(len(bad))] = chance.randrange(256)
    return bytes(bad[: chance.choice([None, None, chance.randrange(len(bad))])])


@pytest.mark.parametrize("container", READERS, ids=lambda container: container.__name__)
def test_damaged_files_are_one_clear_error(container: Callable[..., bytes]) -> None:
    graph: dict[str, object] = {"bn": Net().bn.state_dict(), "text": "x" * 20, "numbers": [1.5, 2]}
    if container is by_pickle:
        graph["array"] = np.arange(200.0)
    data = container(graph)
    for seed in range(400):
        with suppress(UnreadableFile):
            read_all(READERS[container](MemorySource(damaged(data, seed))).root)


def read_all(value: object) -> None:
    tensor = as_tensor(value)
    if tensor is not None:
        tensor.raw()
    elif isinstance(value, dict):
        for item in value.values():
            read_all(item)


# -- real files ------------------------------------------------------------------------------------------------


def corpus() -> list[Path]:
    folder = os.environ.get("BNLINT_CORPUS")
    skipped = (".json", ".md", ".onnx", ".hdf5", ".safetensors")
    return [path for path in sorted(Path(folder).iterdir()) if path.suffix not in skipped] if folder else []


@pytest.mark.skipif(not corpus(), reason="BNLINT_CORPUS names no folder of real checkpoints")
@pytest.mark.parametrize("path", corpus(), ids=lambda path: path.name)
def test_real_checkpoints(path: Path) -> None:
    with path.open("rb") as file:
        zipped = file.read(2) == b"PK"
    try:
        wanted = torch.load(path, weights_only=False, map_location="cpu")
    except Exception as error:
        pytest.skip(f"torch does not load it: {type(error).__name__}")
    if isinstance(wanted, torch.jit.ScriptModule):
        pytest.skip("TorchScript")
    with Source(str(path)) as source:
        assert_same((torch_zip if zipped else raw_pickle).load(source).root, wanted)
