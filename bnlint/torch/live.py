"""A live module as rules see it: its state dict, its BatchNorm layers with their numbers, their modes."""

from __future__ import annotations

import sys
from ctypes import string_at

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parameter import is_lazy

from bnlint.errors import UsageError
from bnlint.model.batchnorm import BatchNorm
from bnlint.model.checkpoint import Checkpoint
from bnlint.model.state_dict import TRANSPORT, StateDict
from bnlint.model.tensor import ITEM_SIZE, Tensor, decode
from bnlint.readers.batchnorms import STATISTICS
from bnlint.readers.modules import Parts, Walk, is_batchnorm
from bnlint.readers.state_dicts import Search

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from bnlint.model.module import ModuleTree
    from bnlint.model.tensor import Vector
    from bnlint.readers.modules import Model

ORIGIN = "live"
_SETTINGS = ("training", "momentum", "eps", "affine", "track_running_stats")
_NOT_NUMBERS = ("complex", "q", "bits", "float4", "uint1", "uint2", "uint3", "uint4", "uint5", "uint6", "uint7", "int4")


class Live:
    """A live model, read: `tree` is what the rules see of its modules, `layers` are its BatchNorm modules by name.

    Making one reads the names, shapes, modes and settings, no number. The model is left as it is. UsageError
    for what is no model.
    """

    def __init__(self, model: nn.Module) -> None:
        if not isinstance(model, nn.Module):
            raise UsageError(f"bnlint.torch looks at a torch.nn.Module, not at {type(model).__name__}")
        self._handles: dict[int, Tensor] = {}
        self._tensors: dict[int, torch.Tensor] = {}  # by the identity of their handles
        self._found: dict[int, nn.Module] = {}  # its BatchNorm modules, by identity, in the order of the walk
        self._model: Model = Walk(self._parts, ORIGIN).model(unwrapped(model), "")
        self.tree: ModuleTree = self._model.tree
        self.layers: dict[str, nn.Module] = {
            module.name: layer for module, layer in zip(self.tree.batchnorms, self._found.values(), strict=True)
        }

    def checkpoint(self) -> Checkpoint:
        """The model as a checkpoint, with the numbers of its BatchNorm layers: one transfer per device."""
        search = Search()
        search.add_model(self._model, key="")
        (candidate,) = search.candidates
        state_dict = StateDict("", candidate.tensors, scalars=candidate.scalars)
        groups: dict[tuple[int, ...], tuple[str, Mapping[str, Tensor]]] = {}
        for name, group in candidate.groups.items():  # a shared layer once, by its first name
            groups.setdefault(tuple(map(id, group.values())), (name, group))
        named = list(groups.values())
        vectors = self._vectors([handle for _, group in named for handle in group.values()])
        without: list[str] = []
        for name, group in named:
            known = {leaf: vectors[id(handle)] for leaf, handle in group.items() if id(handle) in vectors}
            if all(leaf in known for leaf in STATISTICS if leaf in group):
                state_dict.batchnorms.append(BatchNorm(name, group, known, state_dict))
            else:
                without.append(name)
        for module in self.tree.batchnorms:
            module.layer = state_dict.batchnorm(module.name)
            if module.layer is not None:
                module.layer.module = module
        return Checkpoint(ORIGIN, [state_dict], module_trees=[self.tree], notes=_left_out(without))

    def _parts(self, module: object) -> Parts | None:
        if not isinstance(module, nn.Module):
            return None
        transient = getattr(module, "_non_persistent_buffers_set", ())
        parts = Parts(
            _home(module),
            getattr(module, "original_name", type(module).__name__),  # of a scripted module
            {name: self._handle(each, True) for name, each in module._parameters.items() if each is not None},
            {
                name: None if each is None else self._handle(each, False)
                for name, each in module._buffers.items()
                if name not in transient
            },
            {name: unwrapped(child) for name, child in module._modules.items() if child is not None},
            _settings(module),
        )
        if is_batchnorm(parts):
            self._found.setdefault(id(module), module)
        return parts

    def _handle(self, tensor: torch.Tensor, parameter: bool) -> Tensor:
        """The handle of a tensor; a tensor that several modules share has one."""
        handle = self._handles.get(id(tensor))
        if handle is None:
            handle = self._handles[id(tensor)] = _handle(tensor, parameter)
            self._tensors[id(handle)] = tensor
        return handle

    def _vectors(self, handles: Iterable[Tensor]) -> dict[int, Vector]:
        """The numbers of the tensors that have any, by the identity of the handle."""
        wanted = {id(handle): handle for handle in handles if handle.storage is not None and _is_number(handle.dtype)}
        data = bytes_of([self._tensors[key] for key in wanted])
        return {
            key: decode(_little_endian(each, handle.dtype), handle.dtype, handle.shape)
            for (key, handle), each in zip(wanted.items(), data, strict=True)
        }


def unwrapped(module: nn.Module) -> nn.Module:
    """A module without what DataParallel, torch.compile, FSDP or activation checkpointing put around it."""
    while type(module).__module__.startswith("torch."):
        children = list(module._modules.items())
        if len(children) != 1 or module._parameters or module._buffers:
            return module
        name, inside = children[0]
        if name not in TRANSPORT or inside is None:
            return module
        module = inside
    return module


def _home(module: nn.Module) -> str:
    """Where a class is known from: a user's kind of BatchNorm is one of torch's, unless it calls itself frozen."""
    kind = type(module)
    if isinstance(module, _BatchNorm) and "frozen" not in kind.__name__.lower():
        return _BatchNorm.__module__
    return kind.__module__


def _settings(module: nn.Module) -> Mapping[str, object]:
    settings = {name: getattr(module, name) for name in _SETTINGS if hasattr(module, name)}
    if ".quantized" in type(module).__module__:
        del settings["training"]  # a quantised layer normalises by its running statistics in either mode
    return settings


def _left_out(names: Sequence[str]) -> list[str]:
    if not names:
        return []
    what = f"BatchNorm layer {names[0][:80]!r}" if len(names) == 1 else f"{len(names)} BatchNorm layers"
    return [f"{what} left out: no numbers yet, or none here (lazy, on the meta device, sharded)"]


# -- tensors ------------------------------------------------------------------------------------------


class Memory:
    """The memory under a tensor, on whatever device it lies; read when asked for."""

    big_endian = sys.byteorder == "big"

    def __init__(self, tensor: torch.Tensor) -> None:
        self._storage = tensor.untyped_storage()
        self._device = tensor.device
        self.nbytes = self._storage.nbytes()

    def read(self, offset: int, nbytes: int) -> bytes:
        everything = torch.empty(0, dtype=torch.uint8, device=self._device).set_(self._storage)
        (data,) = bytes_of([everything[offset : offset + nbytes]])
        return data


def is_plain(tensor: torch.Tensor) -> bool:
    """True where the tensor's elements lie in memory here: not lazy, meta, fake, sharded, sparse or set free."""
    if is_lazy(tensor) or tensor.layout is not torch.strided or hasattr(tensor, "__tensor_flatten__"):
        return False
    storage = tensor.untyped_storage()
    if storage.device.type == "meta":
        return False
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return not tensor.numel() or (tensor.storage_offset() + last + 1) * tensor.itemsize <= storage.nbytes()


def bytes_of(tensors: Sequence[torch.Tensor]) -> list[bytes]:
    """The bytes of plain tensors in row-major order, with one transfer for each device."""
    by_device: dict[torch.device, list[int]] = {}
    for i, tensor in enumerate(tensors):
        by_device.setdefault(tensor.device, []).append(i)
    found = [b""] * len(tensors)
    with torch.no_grad():
        for indices in by_device.values():
            flat = [tensors[i].detach().reshape(-1).contiguous().view(torch.uint8) for i in indices]
            together = torch.cat(flat).cpu()
            data = string_at(together.data_ptr(), together.numel()) if together.numel() else b""
            start = 0
            for i, each in zip(indices, flat, strict=True):
                found[i] = data[start : start + each.numel()]
                start += each.numel()
    return found


def _handle(tensor: torch.Tensor, parameter: bool) -> Tensor:
    dtype = str(tensor.dtype).removeprefix("torch.")
    requires_grad = tensor.requires_grad if parameter else None
    if is_lazy(tensor):
        return Tensor(dtype, (0,), None, requires_grad=requires_grad, parameter=parameter)
    shape = tuple(tensor.shape)
    if not is_plain(tensor):
        return Tensor(dtype, shape, None, requires_grad=requires_grad, parameter=parameter)
    return Tensor(
        dtype,
        shape,
        Memory(tensor),
        stride=tensor.stride(),
        offset=int(tensor.storage_offset()),
        requires_grad=requires_grad,
        parameter=parameter,
    )


def _is_number(dtype: str) -> bool:
    return dtype in ITEM_SIZE and not dtype.startswith(_NOT_NUMBERS)


def _little_endian(data: bytes, dtype: str) -> bytes:
    if sys.byteorder == "little":
        return data
    item = ITEM_SIZE[dtype]
    swapped = bytearray(data)
    for byte in range(item):
        swapped[byte::item] = data[item - 1 - byte :: item]
    return bytes(swapped)
