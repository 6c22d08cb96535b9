"""numpy arrays in pickles: dtypes, arrays of protocols 0 to 5, scalars. Imported when a pickle names numpy."""

from __future__ import annotations

from math import prod

from bnlint.errors import UnreadableFile
from bnlint.model.raw_file import Global
from bnlint.model.tensor import ITEM_SIZE, Tensor, contiguous_stride
from bnlint.readers.long_bytes import BYTES, LongBytes
from bnlint.readers.source import MemorySource
from bnlint.readers.storages import Span, expect_inside, sizes
from bnlint.readers.values import Instance, NumpyArray

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bnlint.model.tensor import Storage
    from bnlint.readers.pickle_machine import PickleMachine
    from bnlint.readers.rebuild import Reducer

_DTYPES = {
    "f8": "float64", "f4": "float32", "f2": "float16", "f16": "float128",
    "i8": "int64", "i4": "int32", "i2": "int16", "i1": "int8",
    "u8": "uint64", "u4": "uint32", "u2": "uint16", "u1": "uint8",
    "b1": "bool", "c8": "complex64", "c16": "complex128",
}  # fmt: skip
_BYTE_ORDERS = ("<", ">", "|", "=")
_ARRAY_BYTES = 500  # what an array takes in Python


class NumpyDtype:
    """A numpy.dtype: `name` is torch's name of it, None for what is no number."""

    __slots__ = ("big_endian", "name")

    def __init__(self, code: str) -> None:
        self.big_endian = code[:1] == ">"
        self.name = _DTYPES.get(code[1:] if code[:1] in _BYTE_ORDERS else code)

    def set_state(self, state: object) -> None:
        """BUILD: (version, byte order, subtype, names, fields, ...)"""
        if type(state) is not tuple or len(state) < 5 or state[1] not in _BYTE_ORDERS:
            raise UnreadableFile("pickle", "a numpy dtype is damaged")
        self.big_endian = state[1] == ">"
        if any(part is not None for part in state[2:5]):
            self.name = None  # a record, or an array as element


class EncodedArray:
    """The numbers of an array that stand in the pickle as text: decoded when they are read."""

    __slots__ = ("_decoded", "_written", "big_endian", "nbytes")

    def __init__(self, written: LongBytes, nbytes: int, big_endian: bool) -> None:
        self._written = written
        self._decoded: bytes | None = None
        self.nbytes = nbytes
        self.big_endian = big_endian

    def read(self, offset: int, nbytes: int) -> bytes:
        """`nbytes` bytes from `offset`; UnreadableFile where the text stands for another number of bytes."""
        expect_inside(self, offset, nbytes)
        data = self._written.read() if self._decoded is None else self._decoded
        if len(data) != self.nbytes:
            raise _wrong_length(len(data), self.nbytes)
        self._decoded = None if offset + nbytes == self.nbytes else data  # kept for those who read chunk by chunk
        return data[offset : offset + nbytes]


def set_numpy_state(machine: PickleMachine, target: object, state: object) -> None:
    """BUILD on an array, (version, shape, dtype, fortran, data) or without version, or on a dtype."""
    if isinstance(target, NumpyDtype):
        target.set_state(state)
    elif isinstance(target, NumpyArray) and type(state) is tuple and len(state) in (4, 5):
        shape, dtype, fortran, data = state[-4:]
        target.make = array(machine, shape, dtype, data, fortran=fortran is not False and fortran != 0).make
    else:
        raise TypeError


def array(machine: PickleMachine, shape: object, dtype: object, data: object, *, fortran: bool = False) -> NumpyArray:
    """An array of these parts. UnreadableFile where they do not fit together."""
    if type(dtype) is not NumpyDtype:
        raise UnreadableFile("pickle", "a numpy array has no dtype")
    shape = sizes(machine, shape)
    machine.charge(_ARRAY_BYTES)
    if dtype.name is None or not isinstance(data, (bytes, str, LongBytes)):
        return NumpyArray(lambda: None)
    nbytes = prod(shape) * ITEM_SIZE[dtype.name]
    stride = contiguous_stride(shape[::-1])[::-1] if fortran else contiguous_stride(shape)
    tensor = Tensor(dtype.name, shape, _storage(data, nbytes, dtype.big_endian), stride=stride)
    return NumpyArray(lambda: tensor)


def _storage(data: bytes | str | LongBytes, nbytes: int, big_endian: bool) -> Storage:
    if isinstance(data, LongBytes):
        if data.written != BYTES:
            return EncodedArray(data, nbytes, big_endian)
        span = Span(data.source, data.offset, data.nbytes, big_endian)
    else:
        if isinstance(data, str):  # Python 2
            data = data.encode("latin1")
        span = Span(MemorySource(data), 0, len(data), big_endian)
    if span.nbytes != nbytes:
        raise _wrong_length(span.nbytes, nbytes)
    return span


def _wrong_length(nbytes: int, wanted: int) -> UnreadableFile:
    return UnreadableFile("bounds", f"a numpy array of {wanted} bytes has {nbytes} bytes of data")


# -- what a pickle calls ---------------------------------------------------------------------------------


def _dtype(machine: PickleMachine, args: tuple[object, ...]) -> object:
    """numpy.dtype("f4", align, copy); a type instead of the code for those of ml_dtypes."""
    code = args[0]
    machine.charge(_ARRAY_BYTES)
    if type(code) is Global:
        dtype = NumpyDtype("")
        dtype.name = code.name if code.name in ITEM_SIZE else None
        return dtype
    if type(code) is bytes:
        code = code.decode("latin1")
    if type(code) is not str:
        raise TypeError
    return NumpyDtype(code)


def _reconstruct(machine: PickleMachine, args: tuple[object, ...]) -> object:
    """An empty array, which BUILD fills."""
    machine.charge(_ARRAY_BYTES)
    return NumpyArray(_unfinished)


def _unfinished() -> Tensor | None:
    raise UnreadableFile("pickle", "a numpy array was begun and never filled")


def _scalar(machine: PickleMachine, args: tuple[object, ...]) -> object:
    """(dtype, data)"""
    dtype, data = args
    return array(machine, (), dtype, data)


def _frombuffer(machine: PickleMachine, args: tuple[object, ...]) -> object:
    """(data, dtype, shape, order[, axis order]), protocol 5"""
    data, dtype, shape, order = args[:4]
    if order not in ("C", "F"):
        return Instance(None, args)  # axes in an order of their own
    return array(machine, shape, dtype, data, fortran=order == "F")


NUMPY: dict[tuple[str, str], Reducer] = {("numpy", "dtype"): _dtype}
for _core in ("numpy.core", "numpy._core"):
    NUMPY[f"{_core}.multiarray", "_reconstruct"] = _reconstruct
    NUMPY[f"{_core}.multiarray", "scalar"] = _scalar
    NUMPY[f"{_core}.numeric", "_frombuffer"] = _frombuffer
