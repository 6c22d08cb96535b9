"""Torch's container before 0.1.10: a tar of storages, tensors and the pickle (torch/serialization.py, legacy_load)."""

from __future__ import annotations

from struct import unpack

from bnlint.errors import UnreadableFile
from bnlint.model.tensor import Tensor
from bnlint.readers.pickle_machine import PickleMachine
from bnlint.readers.rebuild_torch import tensor_view
from bnlint.readers.source import Section
from bnlint.readers.storages import Part, Span, TypedStorage, storage_dtype, storage_key, storage_size
from bnlint.readers.values import Loaded, Opaque

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bnlint.readers.source import ByteSource

MEMBER_LIMIT = 10_000
_DIMENSION_LIMIT = 64
_ITEM_BYTES = 1000  # what a storage or tensor costs
_BLOCK = 512


def load(source: ByteSource) -> Loaded:
    """The object in the file. UnreadableFile where the bytes are not what they say they are."""
    members = _members(source)
    for name in ("storages", "tensors", "pickle"):
        if name not in members:
            raise UnreadableFile("unsupported", f"is a tar archive without {name!r}, no torch checkpoint")
    machine = PickleMachine(members["storages"])
    storages = _storages(members["storages"], machine)
    tensors = _tensors(members["tensors"], storages, PickleMachine(members["tensors"], parent=machine))

    def persistent(identity: object) -> object:
        """The key of a tensor or storage; or (class, file, source text) of a module."""
        if type(identity) is tuple and identity:
            return identity[0]
        key = storage_key(identity)
        if key in tensors:
            return tensors[key]
        if key in storages:
            return storages[key]
        raise UnreadableFile("missing", f"the file lacks tensor {key[:40]!r}")

    machine = PickleMachine(members["pickle"], persistent=persistent, parent=machine)
    root = machine.load()
    return Loaded(
        "torch-tar",
        root,
        globals=list(machine.globals.values()),
        facts={"python2": True} if machine.python2 else {},
        notes=["the container is older than torch 0.1.10"],
    )


def _members(source: ByteSource) -> dict[str, Section]:
    """The regular files of the tar by name, the first of each name."""
    members: dict[str, Section] = {}
    position = 0
    while position + _BLOCK <= source.size and len(members) < MEMBER_LIMIT:
        header = source.read(position, _BLOCK)
        if not any(header):
            break
        name = header[:100].partition(b"\0")[0].decode("latin1").removeprefix("./")
        try:
            size = int(header[124:136].partition(b"\0")[0].strip() or b"0", 8)
        except ValueError:
            size = -1
        if size < 0:
            raise UnreadableFile("corrupt", f"the size of tar member {name[:40]!r} is no number", position)
        position += _BLOCK
        if position + size > source.size:
            raise UnreadableFile("truncated", f"tar member {name[:40]!r} runs past the end of the file", source.size)
        if header[156:157] in (b"0", b"\0"):
            members.setdefault(name, Section(source, position, size))
        position += (size + _BLOCK - 1) // _BLOCK * _BLOCK
    return members


def _storages(source: Section, machine: PickleMachine) -> dict[str, TypedStorage]:
    """A pickled number; for each storage pickled (key, device, type), its count, its bytes; pickled views."""
    storages: dict[str, TypedStorage] = {}
    for _ in range(_number(machine.load())):
        machine.charge(_ITEM_BYTES)
        key, _, storage_type = _tuple(machine.load(), 3)
        dtype = storage_dtype(storage_type)
        start = machine.position + 8
        nbytes = storage_size(int.from_bytes(source.read(machine.position, 8), "little"), dtype)
        if start + nbytes > source.size:
            raise UnreadableFile("truncated", f"storage {storage_key(key)[:40]!r} runs past the end of its member")
        storages[storage_key(key)] = TypedStorage(dtype, nbytes, Span(source, start, nbytes))
        machine.move_to(start + nbytes)
    views = machine.load()
    for view in views if type(views) is list else ():
        key, root_key, offset, elements = _tuple(view, 4)
        root = storages.get(storage_key(root_key))
        if root is None:
            raise UnreadableFile("missing", f"the file lacks storage {storage_key(root_key)[:40]!r}")
        start, nbytes = storage_size(offset, root.dtype), storage_size(elements, root.dtype)
        storages[storage_key(key)] = TypedStorage(root.dtype, nbytes, Part(root.data, start, nbytes))
    return storages


def _tensors(source: Section, storages: dict[str, TypedStorage], machine: PickleMachine) -> dict[str, Tensor | Opaque]:
    """A pickled number; for each tensor pickled (key, storage, type), then dimensions, sizes, strides, offset."""
    tensors: dict[str, Tensor | Opaque] = {}
    for _ in range(_number(machine.load())):
        machine.charge(_ITEM_BYTES)
        key, storage, _ = _tuple(machine.load(), 3)
        position = machine.position
        (dimensions,) = unpack("<i4x", source.read(position, 8))
        if not 0 <= dimensions <= _DIMENSION_LIMIT:
            raise UnreadableFile("bounds", f"a tensor has {dimensions} dimensions", position)
        numbers = unpack(f"<{2 * dimensions + 1}q", source.read(position + 8, 8 * (2 * dimensions + 1)))
        tensors[storage_key(key)] = tensor_view(
            machine,
            storages.get(storage_key(storage)),
            numbers[-1],
            numbers[:dimensions],
            numbers[dimensions:-1],
        )
        machine.move_to(position + 8 + 8 * len(numbers))
    return tensors


def _number(value: object) -> int:
    if type(value) is not int or value < 0:
        raise UnreadableFile("pickle", "the number of storages or tensors is no number")
    return value


def _tuple(value: object, length: int) -> tuple[object, ...]:
    if type(value) is not tuple or len(value) != length:
        raise UnreadableFile("pickle", f"a storage, view or tensor is not described by {length} values")
    return value
