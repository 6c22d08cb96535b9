"""Torch's storages: runs of bytes with a dtype, of which tensors are views."""

from __future__ import annotations

from bnlint.errors import UnreadableFile
from bnlint.model.raw_file import Global
from bnlint.model.tensor import ITEM_SIZE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bnlint.model.tensor import Storage
    from bnlint.readers.pickle_machine import PickleMachine
    from bnlint.readers.source import ByteSource

# As torch finds them by name (torch/serialization.py, StorageType), but in torch's own modules only:
# the others it ignores, and refuses with weights_only.
STORAGE_DTYPES = {
    "DoubleStorage": "float64", "FloatStorage": "float32", "HalfStorage": "float16", "BFloat16Storage": "bfloat16",
    "LongStorage": "int64", "IntStorage": "int32", "ShortStorage": "int16", "CharStorage": "int8",
    "ByteStorage": "uint8", "BoolStorage": "bool",
    "ComplexFloatStorage": "complex64", "ComplexDoubleStorage": "complex128", "ComplexHalfStorage": "complex32",
    "QUInt8Storage": "quint8", "QInt8Storage": "qint8", "QInt32Storage": "qint32",
    "QUInt4x2Storage": "quint4x2", "QUInt2x4Storage": "quint2x4",
    "UntypedStorage": "uint8", "_UntypedStorage": "uint8", "TypedStorage": "uint8",
}  # fmt: skip
_ELEMENT_LIMIT = 1 << 60  # more cannot be addressed
_KEY_LIMIT = 1 << 64
_DIMENSION_LIMIT = 64  # torch's own
_DIMENSION_BYTES = 20  # what one costs


class TypedStorage:
    """A torch storage of the file: `nbytes` bytes of elements of `dtype`, which lie in `data`."""

    __slots__ = ("data", "dtype", "nbytes")

    def __init__(self, dtype: str, nbytes: int, data: Storage) -> None:
        self.dtype = dtype
        self.nbytes = nbytes
        self.data = data


class Span:
    """`nbytes` bytes of a source from `start`."""

    __slots__ = ("big_endian", "nbytes", "source", "start")

    def __init__(self, source: ByteSource, start: int, nbytes: int, big_endian: bool = False) -> None:
        self.source = source
        self.start = start
        self.nbytes = nbytes
        self.big_endian = big_endian

    def read(self, offset: int, nbytes: int) -> bytes:
        """`nbytes` bytes from `offset`; UnreadableFile where they are not there."""
        expect_inside(self, offset, nbytes)
        return self.source.read(self.start + offset, nbytes)


class Part:
    """`nbytes` bytes of another storage from `start`: what old torch called a storage view."""

    __slots__ = ("_start", "_whole", "big_endian", "nbytes")

    def __init__(self, whole: Storage, start: int, nbytes: int) -> None:
        expect_inside(whole, start, nbytes)
        self._whole = whole
        self._start = start
        self.nbytes = nbytes
        self.big_endian = whole.big_endian

    def read(self, offset: int, nbytes: int) -> bytes:
        """`nbytes` bytes from `offset`; UnreadableFile where they are not there."""
        expect_inside(self, offset, nbytes)
        return self._whole.read(self._start + offset, nbytes)


def expect_inside(storage: Storage, offset: int, nbytes: int) -> None:
    """UnreadableFile `bounds` where the storage does not have these bytes."""
    if offset < 0 or nbytes < 0 or offset + nbytes > storage.nbytes:
        raise UnreadableFile(
            "bounds", f"bytes {offset} to {offset + nbytes} are wanted of a storage of {storage.nbytes} bytes"
        )


def storage_dtype(storage_type: object) -> str:
    """The dtype of a storage class that a pickle names; UnreadableFile `dtype` for any other object."""
    dtype = None
    if type(storage_type) is Global and storage_type.module.partition(".")[0] == "torch":
        dtype = STORAGE_DTYPES.get(storage_type.name)
    if dtype is None:
        raise UnreadableFile("dtype", f"{brief(storage_type)} is no storage type that torch knows")
    return dtype


def storage_size(elements: object, dtype: str) -> int:
    """The bytes of so many elements; UnreadableFile `bounds` where that is no number of elements."""
    return count(elements, "storage size") * ITEM_SIZE[dtype]


def count(value: object, what: str) -> int:
    """A number of elements; UnreadableFile `bounds`, naming `what` it should be, where it is none."""
    if type(value) is not int or not 0 <= value < _ELEMENT_LIMIT:
        raise UnreadableFile("bounds", f"{brief(value)} is no {what}: not from 0 to 2**60 elements")
    return value


def sizes(machine: PickleMachine, values: object) -> tuple[int, ...]:
    """Sizes or strides of a tensor; UnreadableFile `bounds` where they are none."""
    if type(values) is list:
        values = tuple(values[: _DIMENSION_LIMIT + 1])
    if type(values) is not tuple or len(values) > _DIMENSION_LIMIT:
        raise UnreadableFile("bounds", f"{brief(values)} is no tensor shape: not {_DIMENSION_LIMIT} sizes or less")
    machine.charge(_DIMENSION_BYTES * len(values))
    for value in values:
        count(value, "tensor size or stride")
    return values


def storage_key(key: object) -> str:
    """The name of a storage; UnreadableFile `pickle` where it is neither text nor a number."""
    if type(key) is str:
        return key
    if type(key) is bytes:  # Python 2
        return key.decode("latin1")
    if type(key) is int and -_KEY_LIMIT < key < _KEY_LIMIT:
        return str(key)
    raise UnreadableFile("pickle", f"{brief(key)} stands where the name of a storage should")


def brief(value: object) -> str:
    """An object of a pickle for a message. Only what is small is written out: containers may be endless."""
    if type(value) is str or type(value) is Global:
        return repr(str(value)[:80])
    if type(value) is int and -_KEY_LIMIT < value < _KEY_LIMIT:
        return str(value)
    return f"a {type(value).__name__}"
