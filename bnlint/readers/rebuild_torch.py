"""Tensors: what torch's rebuild functions make of a storage (torch/_utils.py, torch/_tensor.py)."""

from __future__ import annotations

from bnlint.errors import UnreadableFile
from bnlint.model.raw_file import Global
from bnlint.model.tensor import ITEM_SIZE, Tensor
from bnlint.readers.long_bytes import BYTES, LongBytes
from bnlint.readers.storages import TypedStorage, brief, count, sizes
from bnlint.readers.values import Opaque, as_tensor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bnlint.readers.pickle_machine import PickleMachine
    from bnlint.readers.rebuild import Reducer
    from bnlint.readers.source import ByteSource

_TENSOR_BYTES = 250  # what a tensor takes in Python
_NESTING_LIMIT = 3  # torch files inside byte strings of pickles
_NESTED_BYTES = 10_000  # what such a file costs
_SEVERAL_PER_BYTE = ("quint4x2", "quint2x4")


def _rebuild_tensor(machine: PickleMachine, args: tuple[object, ...]) -> object:
    """(storage, offset, size, stride)"""
    storage, offset, size, stride = args
    return tensor_view(machine, storage, offset, size, stride)


def _rebuild_tensor_v2(machine: PickleMachine, args: tuple[object, ...]) -> object:
    """(storage, offset, size, stride, requires_grad, hooks[, {"conj": True, "neg": True}])"""
    storage, offset, size, stride, requires_grad, _ = args[:6]
    if len(args) > 6 and args[6]:
        return Opaque("a tensor that is a conjugated or negated view")
    tensor = tensor_view(machine, storage, offset, size, stride)
    _say_requires_grad(tensor, requires_grad)
    return tensor


def _rebuild_tensor_v3(machine: PickleMachine, args: tuple[object, ...]) -> object:
    """(storage, offset, size, stride, requires_grad, hooks, dtype[, metadata])"""
    storage, offset, size, stride, requires_grad, _, dtype = args[:7]
    if len(args) > 7 and args[7]:
        return Opaque("a tensor that is a conjugated or negated view")
    if _name(dtype) not in ITEM_SIZE:
        return Opaque(f"a tensor of {brief(dtype)}, which bnlint does not know")
    tensor = tensor_view(machine, storage, offset, size, stride, _name(dtype))
    _say_requires_grad(tensor, requires_grad)
    return tensor


def _rebuild_qtensor(machine: PickleMachine, args: tuple[object, ...]) -> object:
    """(storage, offset, size, stride, quantizer, requires_grad, hooks)"""
    return _rebuild_tensor(machine, args[:4])


def _uninitialized_parameter(machine: PickleMachine, args: tuple[object, ...]) -> object:
    """(requires_grad, device, dtype): what a lazy layer has until it sees data."""
    machine.charge(_TENSOR_BYTES)
    return Tensor("float32", (0,), None, requires_grad=args[0] is True if args else None, parameter=True)


def _uninitialized_buffer(machine: PickleMachine, args: tuple[object, ...]) -> object:
    """(requires_grad, device, dtype)"""
    machine.charge(_TENSOR_BYTES)
    return Tensor("float32", (0,), None)


def _rebuild_parameter(machine: PickleMachine, args: tuple[object, ...]) -> object:
    """(data, requires_grad, hooks[, state]), and Parameter(data, requires_grad) of torch before 0.4.

    A Parameter without data gets it from BUILD.
    """
    if not args:
        return _empty(machine, parameter=True)
    data = as_tensor(args[0])
    if data is None:
        return Opaque("a parameter without plain data")
    requires_grad = args[1] if len(args) > 1 and type(args[1]) is bool else None
    return _copy(machine, data, requires_grad=requires_grad, parameter=True)


def _buffer(machine: PickleMachine, args: tuple[object, ...]) -> object:
    """torch.nn.parameter.Buffer(data, persistent)"""
    data = as_tensor(args[0])
    return Opaque("a buffer without plain data") if data is None else _copy(machine, data, parameter=False)


def _variable(machine: PickleMachine, args: tuple[object, ...]) -> object:
    """torch.autograd.Variable(data): a tensor, before torch 0.4. BUILD says requires_grad."""
    if not args:
        return _empty(machine)
    data = as_tensor(args[0])
    return Opaque("a variable without plain data") if data is None else _copy(machine, data)


def _rebuild_from_type(machine: PickleMachine, args: tuple[object, ...]) -> object:
    """(function, class, args, state): a subclass of Tensor, or one with attributes."""
    function, _, function_args, _ = args
    return machine.call(function, function_args)


def _rebuild_meta_tensor(machine: PickleMachine, args: tuple[object, ...]) -> object:
    """(dtype, size, stride, requires_grad)"""
    dtype, size, stride, requires_grad = args
    if _name(dtype) not in ITEM_SIZE:
        return Opaque(f"a tensor of {brief(dtype)}, which bnlint does not know")
    machine.charge(_TENSOR_BYTES)
    tensor = Tensor(_name(dtype), sizes(machine, size), None, stride=sizes(machine, stride))
    _say_requires_grad(tensor, requires_grad)
    return tensor


def _first(machine: PickleMachine, args: tuple[object, ...]) -> object:
    """What stands for its first argument: a tensor that comes back from another device, a typed list."""
    return args[0]


def _size(machine: PickleMachine, args: tuple[object, ...]) -> object:
    """torch.Size(sizes)"""
    (size,) = args or ((),)
    return sizes(machine, size)


def _opaque(what: str) -> Reducer:
    return lambda machine, args: Opaque(what)


def _load_from_bytes(machine: PickleMachine, args: tuple[object, ...]) -> object:
    """torch.storage._load_from_bytes(data): a torch file in a byte string, as pickle.dump writes tensors."""
    from bnlint.readers.source import MemorySource, Section

    (data,) = args
    if type(data) is bytes:
        return _load_nested(MemorySource(data), machine)
    if type(data) is LongBytes and data.written == BYTES:
        return _load_nested(Section(data.source, data.offset, data.nbytes), machine)
    if type(data) is LongBytes:
        machine.charge(data.nbytes)
        return _load_nested(MemorySource(data.read()), machine)
    raise TypeError


def _load_nested(source: ByteSource, parent: PickleMachine) -> object:
    from bnlint.readers import torch_legacy, torch_zip

    if parent.nesting == _NESTING_LIMIT:
        raise UnreadableFile("limit", f"more than {_NESTING_LIMIT} torch files are nested in each other")
    zipped = source.read(0, min(4, source.size)) == b"PK\3\4"
    parent.charge(_NESTED_BYTES)
    parent.nesting += 1
    try:
        return (torch_zip if zipped else torch_legacy).load(source, parent).root
    finally:
        parent.nesting -= 1


def set_tensor_state(machine: PickleMachine, tensor: Tensor, state: object) -> None:
    """BUILD on a tensor, as `torch.Tensor.__setstate__` knows three kinds of it."""
    if type(state) is not tuple:
        return  # attributes of the Python object
    if len(state) == 4:  # (storage, offset, size, stride)
        _become(tensor, tensor_view(machine, *state))
    elif len(state) == 5:  # (data, gradient, hooks, requires_grad, volatile)
        data = as_tensor(state[0])
        if data is not None:
            _become(tensor, data)
        tensor.requires_grad = state[3] is True
    elif len(state) == 3:  # (requires_grad, volatile, hooks)
        tensor.requires_grad = state[0] is True


def tensor_view(
    machine: PickleMachine, storage: object, offset: object, size: object, stride: object, dtype: str = ""
) -> Tensor | Opaque:
    """A tensor that is known to lie in its storage; UnreadableFile `bounds` where it does not."""
    if type(storage) is not TypedStorage:
        raise UnreadableFile("pickle", f"a tensor is made of a {type(storage).__name__} instead of a storage")
    dtype = dtype or storage.dtype
    if dtype in _SEVERAL_PER_BYTE:
        return Opaque(f"a {dtype} tensor")
    shape, steps = sizes(machine, size), sizes(machine, stride)
    machine.charge(_TENSOR_BYTES)
    last = start = count(offset, "storage offset")
    for length, step in zip(shape, steps, strict=True):
        last += (length - 1) * step
    end = (last + 1) * ITEM_SIZE[dtype]
    if end > storage.nbytes and 0 not in shape:
        raise UnreadableFile("bounds", f"a tensor reaches byte {end} of a storage of {storage.nbytes} bytes")
    return Tensor(dtype, shape, storage.data, stride=steps, offset=start)


def _name(dtype: object) -> str:
    """The name of a torch.dtype; UnreadableFile `dtype` where the pickle has something else in its place."""
    if type(dtype) is Global and dtype.module == "torch":
        return dtype.name
    raise UnreadableFile("dtype", f"{brief(dtype)} stands where a dtype should")


def _copy(
    machine: PickleMachine, data: Tensor, *, requires_grad: bool | None = None, parameter: bool | None = None
) -> Tensor:
    machine.charge(_TENSOR_BYTES)
    if requires_grad is None:
        requires_grad = data.requires_grad
    return Tensor(
        data.dtype,
        data.shape,
        data.storage,
        stride=data.stride,
        offset=data.offset,
        requires_grad=requires_grad,
        parameter=parameter,
    )


def _empty(machine: PickleMachine, *, parameter: bool | None = None) -> Tensor:
    """A tensor that BUILD will fill."""
    machine.charge(_TENSOR_BYTES)
    return Tensor("float32", (0,), None, parameter=parameter)


def _become(tensor: Tensor, other: Tensor | Opaque) -> None:
    if isinstance(other, Tensor):
        tensor.dtype, tensor.shape, tensor.stride = other.dtype, other.shape, other.stride
        tensor.storage, tensor.offset = other.storage, other.offset


def _say_requires_grad(tensor: Tensor | Opaque, requires_grad: object) -> None:
    """A tensor of a state dict was detached: that it needs no gradient says nothing of the parameter."""
    if requires_grad is True and isinstance(tensor, Tensor):
        tensor.requires_grad = True


TORCH: dict[tuple[str, str], Reducer] = {
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor_v2,
    ("torch._utils", "_rebuild_tensor"): _rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v3"): _rebuild_tensor_v3,
    ("torch._utils", "_rebuild_qtensor"): _rebuild_qtensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    ("torch._utils", "_rebuild_parameter_with_state"): _rebuild_parameter,
    ("torch._utils", "_rebuild_meta_tensor_no_storage"): _rebuild_meta_tensor,
    ("torch._utils", "_rebuild_device_tensor_from_cpu_tensor"): _first,
    ("torch._utils", "_rebuild_device_tensor_from_numpy"): _first,
    ("torch._utils", "_rebuild_xla_tensor"): _first,
    ("torch._utils", "_rebuild_sparse_tensor"): _opaque("a sparse tensor"),
    ("torch._utils", "_rebuild_nested_tensor"): _opaque("a nested tensor"),
    ("torch._utils", "_rebuild_wrapper_subclass"): _opaque("a tensor subclass without data of its own"),
    ("torch._tensor", "_rebuild_from_type_v2"): _rebuild_from_type,
    ("torch._tensor", "_rebuild_from_type"): _rebuild_from_type,
    ("torch.tensor", "_rebuild_from_type"): _rebuild_from_type,
    ("torch.tensor", "_rebuild_from_type_v2"): _rebuild_from_type,
    ("torch.nn.parameter", "Parameter"): _rebuild_parameter,
    ("torch.nn.parameter", "UninitializedParameter"): _uninitialized_parameter,
    ("torch.nn.parameter", "UninitializedBuffer"): _uninitialized_buffer,
    ("torch.nn.parameter", "Buffer"): _buffer,
    ("torch.autograd.variable", "Variable"): _variable,
    ("torch", "Size"): _size,
    ("torch.storage", "_load_from_bytes"): _load_from_bytes,
    ("torch.jit._pickle", "build_intlist"): _first,
    ("torch.jit._pickle", "build_tensorlist"): _first,
    ("torch.jit._pickle", "build_doublelist"): _first,
    ("torch.jit._pickle", "build_boollist"): _first,
    ("torch.jit._pickle", "restore_type_tag"): _first,
}
