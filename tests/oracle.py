"""What the readers are compared with: files as torch and pickle write them, and what those make of them."""

import io
import pickle
import struct
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import nn

from bnlint.readers import raw_pickle, torch_legacy, torch_tar, torch_zip
from bnlint.readers.long_bytes import LongBytes
from bnlint.readers.values import Instance, Loaded, as_tensor

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.bn = nn.BatchNorm2d(4, eps=1e-3, momentum=None)
        self.inner = nn.Sequential(nn.BatchNorm1d(2, affine=False), nn.BatchNorm1d(2, track_running_stats=False))
        self.scale = nn.Parameter(torch.tensor(2.0), requires_grad=False)
        self.register_buffer("table", torch.arange(5))
        self.conv.weight.requires_grad_(False)
        self.bn.eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.bn(self.conv(x))


# -- containers ----------------------------------------------------------------------------------------


def by_zip(graph: object, protocol: int = 2) -> bytes:
    buffer = io.BytesIO()
    torch.save(graph, buffer, pickle_protocol=protocol)
    return buffer.getvalue()


def by_legacy(graph: object, protocol: int = 2) -> bytes:
    buffer = io.BytesIO()
    torch.save(graph, buffer, pickle_protocol=protocol, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


def by_tar(graph: object, protocol: int = 2) -> bytes:
    """A file as torch 0.1.9 wrote it (torch/serialization.py, legacy_load)."""
    storages: dict[int, torch.Tensor] = {}
    tensors: dict[int, torch.Tensor] = {}

    class Pickler(pickle.Pickler):
        def persistent_id(self, value: object) -> str | None:
            if not isinstance(value, torch.Tensor):
                return None
            tensors[id(value)] = value
            storages[value.untyped_storage().data_ptr()] = value
            return str(id(value))

    graph_pickle = io.BytesIO()
    Pickler(graph_pickle, protocol).dump(graph)
    storage_member = io.BytesIO()
    pickle.dump(len(storages), storage_member, protocol)
    for key, owner in storages.items():
        storage = owner.untyped_storage()
        storage_type = getattr(torch, owner._typed_storage().pickle_storage_type())
        pickle.dump((key, "cpu", storage_type), storage_member, protocol)
        storage_member.write(struct.pack("<q", storage.nbytes() // owner.element_size()) + bytes(storage))
    pickle.dump([], storage_member, protocol)
    tensor_member = io.BytesIO()
    pickle.dump(len(tensors), tensor_member, protocol)
    for key, tensor in tensors.items():
        pickle.dump((key, tensor.untyped_storage().data_ptr(), torch.FloatTensor), tensor_member, protocol)
        numbers = (*tensor.shape, *tensor.stride(), tensor.storage_offset())
        tensor_member.write(struct.pack(f"<ii{len(numbers)}q", tensor.dim(), 0, *numbers))
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, member in (("storages", storage_member), ("tensors", tensor_member), ("pickle", graph_pickle)):
            info = tarfile.TarInfo(name)
            info.size = len(member.getvalue())
            archive.addfile(info, io.BytesIO(member.getvalue()))
    return buffer.getvalue()


def by_pickle(graph: object, protocol: int = 2) -> bytes:
    return pickle.dumps(graph, protocol)


READERS: dict[Callable[..., bytes], Callable[..., Loaded]] = {
    by_zip: torch_zip.load,
    by_legacy: torch_legacy.load,
    by_tar: torch_tar.load,
    by_pickle: raw_pickle.load,
}


def by_torch(data: bytes, path: Path) -> object:
    """What torch makes of the same bytes."""
    file = path / "oracle.pt"
    file.write_bytes(data)
    return torch.load(file, weights_only=False, map_location="cpu")


# -- comparison ------------------------------------------------------------------------------------------


def raw(tensor: torch.Tensor) -> bytes:
    """Its elements' bytes, row by row, taken from its storage."""
    tensor = tensor.detach()
    if tensor.is_quantized:
        tensor = tensor.int_repr()
    if not tensor.numel():
        return b""
    stored = torch.empty(0, dtype=torch.uint8).set_(tensor.untyped_storage()).numpy()
    elements = stored[: len(stored) // tensor.element_size() * tensor.element_size()].reshape(-1, tensor.element_size())
    places = torch.arange(len(elements)).as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())
    return elements[places.flatten().numpy()].tobytes()


def differences(found: object, wanted: object, path: str = "") -> Iterator[str]:
    """Where the graph differs from what torch or pickle loaded."""
    tensor = as_tensor(found)
    if isinstance(wanted, (torch.Tensor, np.ndarray, np.generic)):
        if tensor is None:
            yield f"{path}: {found} instead of a tensor"
            return
        if isinstance(wanted, torch.Tensor):
            shape, dtype, data = tuple(wanted.shape), str(wanted.dtype).removeprefix("torch."), raw(wanted)
            parameter = isinstance(wanted, nn.Parameter)
            if parameter != bool(tensor.parameter) or (parameter and tensor.requires_grad != wanted.requires_grad):
                yield f"{path}: parameter {tensor.parameter}, requires_grad {tensor.requires_grad}"
        else:
            shape, dtype = wanted.shape, wanted.dtype.name.replace("longdouble", "float128")
            data = np.asarray(wanted).astype(wanted.dtype.newbyteorder("<")).tobytes()
        if (tensor.shape, tensor.dtype) != (shape, dtype):
            yield f"{path}: {tensor.dtype} {tensor.shape} instead of {dtype} {shape}"
        elif tensor.raw() != data:
            yield f"{path}: other bytes"
        return
    if isinstance(wanted, nn.Module):
        if not isinstance(found, Instance) or str(found.callee) != f"{type(wanted).__module__}.{type(wanted).__name__}":
            yield f"{path}: {found} instead of a module"
            return
        yield from differences(found.state, wanted.__dict__, path)
    elif isinstance(wanted, dict):
        if not isinstance(found, dict) or list(found) != list(wanted):
            yield f"{path}: {found} instead of {wanted}"
            return
        for key, item in wanted.items():
            yield from differences(found[key], item, f"{path}.{key}")
    elif isinstance(wanted, (list, tuple)):
        if not isinstance(found, (list, tuple)) or len(found) != len(wanted):
            yield f"{path}: {found} instead of {wanted}"
            return
        for i, item in enumerate(wanted):
            yield from differences(found[i], item, f"{path}[{i}]")
    elif isinstance(found, LongBytes):
        if wanted not in (found.read(), found.read().decode("utf-8", "replace")):
            yield f"{path}: other text"
    elif isinstance(wanted, (int, float, str, bytes, type(None))) and found != wanted:
        yield f"{path}: {found!r} instead of {wanted!r}"


def assert_same(found: object, wanted: object) -> None:
    assert list(differences(found, wanted)) == []


# -- files by hand --------------------------------------------------------------------------------------


class Made:
    """Pickled as the call of a function, and a state for BUILD."""

    def __init__(self, function: object, *args: object, state: object = None) -> None:
        self.reduced = (function, args) if state is None else (function, args, state)

    def __reduce__(self) -> tuple[object, ...]:
        return self.reduced


class Stored:
    """Pickled as a persistent id."""

    def __init__(self, *identity: object) -> None:
        self.identity = identity


def legacy_by_hand(graph: object, storages: dict[str, torch.Tensor]) -> bytes:
    """A legacy file whose object refers to these storages with `Stored`."""

    class Pickler(pickle.Pickler):
        def persistent_id(self, value: object) -> object:
            return value.identity if isinstance(value, Stored) else None

    buffer = io.BytesIO()
    for value in (torch_legacy.MAGIC_NUMBER, torch_legacy.PROTOCOL_VERSION, {"little_endian": True}):
        pickle.dump(value, buffer, 2)
    Pickler(buffer, 2).dump(graph)
    pickle.dump(list(storages), buffer, 2)
    for storage in storages.values():
        buffer.write(struct.pack("<q", len(storage)) + storage.numpy().tobytes())
    return buffer.getvalue()
