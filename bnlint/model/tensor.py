"""A tensor of a file: shape, dtype, and its bytes when asked; no torch, no numpy.

`Tensor` is a handle: making one reads nothing. `Vector` is what a rule computes with: numbers in an
`array`, so `numpy.frombuffer(vector)` works too.
"""

from __future__ import annotations

import sys
from array import array
from math import isfinite, prod
from struct import unpack

from bnlint.errors import UnreadableFile

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import Protocol

    class Storage(Protocol):
        """Where a tensor's bytes lie."""

        nbytes: int
        big_endian: bool

        def read(self, offset: int, nbytes: int) -> bytes:
            """`nbytes` bytes from `offset` of this storage; UnreadableFile where they are not there."""

    Numbers = array[float]
else:
    Numbers = array


# torch 2.13's dtypes (c10/core/ScalarType.h) and numpy's float128: bytes per element.
ITEM_SIZE = {
    "float64": 8, "float32": 4, "float16": 2, "bfloat16": 2,
    "int64": 8, "int32": 4, "int16": 2, "int8": 1, "uint8": 1, "uint16": 2, "uint32": 4, "uint64": 8, "bool": 1,
    "complex32": 4, "complex64": 8, "complex128": 16,
    "float8_e4m3fn": 1, "float8_e5m2": 1, "float8_e4m3fnuz": 1, "float8_e5m2fnuz": 1, "float8_e8m0fnu": 1,
    "float4_e2m1fn_x2": 1,
    "quint8": 1, "qint8": 1, "qint32": 4, "quint4x2": 1, "quint2x4": 1,
    "bits1x8": 1, "bits2x4": 1, "bits4x2": 1, "bits8": 1, "bits16": 2,
    "float128": 16,
}  # fmt: skip
_ARRAY_CODE = {
    "float64": "d", "float32": "f", "int64": "q", "int32": "i", "int16": "h", "int8": "b", "uint8": "B",
    "bool": "B", "uint16": "H", "uint32": "I", "uint64": "Q", "qint8": "b", "quint8": "B", "qint32": "i",
}  # fmt: skip
_COMPLEX_WORD = {"complex32": 2, "complex64": 4, "complex128": 8}
# exponent bits, mantissa bits, exponent bias (the OCP 8-bit floating point specification; fnuz as in ml_dtypes)
_FLOAT8 = {
    "float8_e4m3fn": (4, 3, 7),
    "float8_e5m2": (5, 2, 15),
    "float8_e4m3fnuz": (4, 3, 8),
    "float8_e5m2fnuz": (5, 2, 16),
}
FLOATING = frozenset(
    {"float64", "float32", "float16", "bfloat16", "float8_e8m0fnu", *_FLOAT8}
)  # the dtypes whose elements can be NaN or infinite and that `values()` decodes
FAR_APART = 16  # bytes of storage per byte of a strided tensor, from which on its elements are read one by one
FAR_ELEMENTS = 4096  # so many at the most
VECTOR_LIMIT = 64 << 20  # bytes: far beyond any BatchNorm vector, small enough to never fill a machine


class Vector(Numbers):
    """The numbers of a tensor, flat: an `array` that knows its dtype and its extremes.

    `dtype` is the dtype in the file ("bfloat16"); the array itself holds what Python can compute
    with (float32 for the half formats, float64 for the 8-bit ones).
    """

    dtype: str
    shape: tuple[int, ...]
    _finite: bool | None
    _sum: float | None
    _min: float | None
    _max: float | None

    def __new__(
        cls, typecode: str, values: bytes | Sequence[float] = (), dtype: str = "", shape: Sequence[int] | None = None
    ) -> Vector:
        self = super().__new__(cls, typecode, values)
        self.dtype = dtype or {"f": "float32", "d": "float64", "q": "int64"}.get(typecode, typecode)
        self.shape = (len(self),) if shape is None else tuple(shape)
        self._finite = self._sum = self._min = self._max = None
        return self

    @property
    def finite(self) -> bool:
        """True where no element is NaN or infinite."""
        if self._finite is None:
            # A sum is finite only if every element is; the reverse fails where float64 sums overflow.
            self._finite = isfinite(self.sum) or all(map(isfinite, self))
        return self._finite

    @property
    def sum(self) -> float:
        """The sum of all elements, in double precision."""
        if self._sum is None:
            self._sum = sum(self)
        return self._sum

    @property
    def min(self) -> float:
        """The smallest finite element (NaN where none is finite, 0 where there is none)."""
        if self._min is None:
            self._min = self._extreme(min)
        return self._min

    @property
    def max(self) -> float:
        """The largest finite element (NaN where none is finite, 0 where there is none)."""
        if self._max is None:
            self._max = self._extreme(max)
        return self._max

    def _extreme(self, choose: Callable[[Iterable[float]], float]) -> float:
        if not self:
            return 0.0
        return choose(self if self.finite else [value for value in self if isfinite(value)] or [float("nan")])

    @property
    def largest(self) -> float:
        """The largest absolute value of a finite element."""
        return max(abs(self.min), abs(self.max))

    @property
    def mean(self) -> float:
        """The arithmetic mean; NaN where the vector is empty or not finite."""
        return self.sum / len(self) if self and self.finite else float("nan")

    @property
    def median(self) -> float:
        """The middle element of the sorted vector (the upper one of two); NaN where it is empty."""
        return sorted(self)[len(self) // 2] if self else float("nan")

    def all_equal(self, value: float) -> bool:
        """True where there is an element and every element is exactly `value`."""
        return bool(self) and self[0] == value and self.count(value) == len(self)

    def where(self, wanted: Sequence[bool] | None = None) -> list[int]:
        """The channels whose element is not finite, or for which `wanted` is true."""
        flags = [not isfinite(value) for value in self] if wanted is None else wanted
        return [channel for channel, flag in enumerate(flags) if flag]


class Tensor:
    """A tensor of a file: what it is, and where its bytes lie.

    `shape` and `stride` count elements, `offset` counts elements of `dtype` from the start of
    `storage`, which is None for a tensor without data (meta device). `parameter` and
    `requires_grad` are None where the file does not say (a plain state dict never does).
    """

    __slots__ = ("dtype", "offset", "parameter", "requires_grad", "shape", "storage", "stride")

    def __init__(
        self,
        dtype: str,
        shape: tuple[int, ...],
        storage: Storage | None,
        *,
        stride: tuple[int, ...] | None = None,
        offset: int = 0,
        requires_grad: bool | None = None,
        parameter: bool | None = None,
    ) -> None:
        self.dtype = dtype
        self.shape = shape
        self.storage = storage
        self.stride = contiguous_stride(shape) if stride is None else stride
        self.offset = offset
        self.requires_grad = requires_grad
        self.parameter = parameter

    def __repr__(self) -> str:
        return f"Tensor({self.dtype}, {list(self.shape)})"

    @property
    def count(self) -> int:
        """The number of elements."""
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        """The bytes of its elements, without what a strided view skips."""
        return self.count * ITEM_SIZE[self.dtype]

    @property
    def floating(self) -> bool:
        """True where the elements are numbers that can be NaN or infinite."""
        return self.dtype in FLOATING

    @property
    def contiguous(self) -> bool:
        """True where the elements lie in order without gaps."""
        return all(
            stride == wanted or size == 1
            for size, stride, wanted in zip(self.shape, self.stride, contiguous_stride(self.shape), strict=True)
        )

    def raw(self, limit: int = VECTOR_LIMIT) -> bytes:
        """The elements' bytes in row-major order, little-endian.

        UnreadableFile where the data is not in the file, lies outside its storage, or is larger than
        `limit` bytes.
        """
        item = ITEM_SIZE[self.dtype]
        if not self.count:
            return b""
        if self.storage is None:
            raise UnreadableFile("missing", "the tensor has no data (it was saved on the meta device)")
        span = self._span * item
        if self.offset < 0 or self.offset * item + span > self.storage.nbytes:
            raise UnreadableFile(
                "bounds",
                f"a tensor reaches byte {self.offset * item + span} of a storage of {self.storage.nbytes} bytes",
            )
        if max(span, self.nbytes) > limit:
            raise UnreadableFile("limit", f"a tensor of {max(span, self.nbytes)} bytes is over the limit of {limit}")
        if self.contiguous:
            data = self.storage.read(self.offset * item, span)
        else:
            data = self._gathered(self.storage, span, limit)
        if self.storage.big_endian:
            word = _COMPLEX_WORD.get(self.dtype, item)
            swapped = bytearray(data)
            for byte in range(word):
                swapped[byte::word] = data[word - 1 - byte :: word]
            data = bytes(swapped)
        return data

    def _gathered(self, storage: Storage, span: int, limit: int) -> bytes:
        """The elements one by one: out of one read where they lie close together, else by a read each."""
        item, start = ITEM_SIZE[self.dtype], self.offset * ITEM_SIZE[self.dtype]
        far_apart = span > FAR_APART * self.nbytes + (1 << 16)
        most = FAR_ELEMENTS if far_apart else limit >> 6  # a gathered element takes 100 bytes of Python's
        if self.count > most:
            raise UnreadableFile("limit", f"a strided tensor of {self.count} elements: the limit is {most}")
        places = [0]
        for size, stride in zip(self.shape, self.stride, strict=True):
            places = [place + step * stride * item for place in places for step in range(size)]
        if far_apart:
            return b"".join([storage.read(start + place, item) for place in places])
        data = storage.read(start, span)
        return b"".join([data[place : place + item] for place in places])

    def values(self) -> Vector:
        """The elements as numbers. UnreadableFile as for `raw`, and for dtypes that are not numbers."""
        return decode(self.raw(), self.dtype, self.shape)

    def chunks(self, nbytes: int = 1 << 20) -> Iterator[Vector]:
        """The elements as numbers, at most `nbytes` bytes at a time: for tensors of any size.

        Every element comes once; a tensor without gaps (channels_last is one) in the order of its storage.
        """
        item = ITEM_SIZE[self.dtype]
        if item * max(self.count, self._span) <= nbytes or not self.count:
            yield self.values()
        elif self._dense or self.count > self._span:  # more elements than places: they overlap
            step = nbytes // item
            for start in range(0, self._span, step):
                size = min(step, self._span - start)
                yield Tensor(self.dtype, (size,), self.storage, offset=self.offset + start).values()
        else:
            # Rows are cut across the widest steps, so that a row's places lie close together.
            (widest, first), *rest = sorted(zip(self.stride, self.shape, strict=True), reverse=True)
            rows = max(1, min(nbytes // (item * widest), first // 2))
            for row in range(0, first, rows):
                sizes = rest if rows == 1 else [(widest, min(rows, first - row)), *rest]
                stride, shape = zip(*sizes, strict=True) if sizes else ((), ())
                offset = self.offset + row * widest
                yield from Tensor(self.dtype, shape, self.storage, stride=stride, offset=offset).chunks(nbytes)

    @property
    def _span(self) -> int:
        """The places from its first element to its last."""
        return 1 + sum((size - 1) * stride for size, stride in zip(self.shape, self.stride, strict=True))

    @property
    def _dense(self) -> bool:
        steps = sorted((stride, size) for size, stride in zip(self.shape, self.stride, strict=True) if size > 1)
        wanted = 1
        for stride, size in steps:
            if stride != wanted:
                return False
            wanted *= size
        return True


def contiguous_stride(shape: Sequence[int]) -> tuple[int, ...]:
    """The strides, in elements, of a row-major tensor of this shape."""
    stride, step = [], 1
    for size in reversed(shape):
        stride.append(step)
        step *= size
    return tuple(reversed(stride))


_float8_tables: dict[str, list[float]] = {}


def _float8_table(dtype: str) -> list[float]:
    table = _float8_tables.get(dtype)
    if table is None:
        exponent_bits, mantissa_bits, bias = _FLOAT8[dtype]
        table = _float8_tables[dtype] = []
        for byte in range(256):
            sign = -1.0 if byte & 0x80 else 1.0
            exponent = (byte >> mantissa_bits) & ((1 << exponent_bits) - 1)
            fraction = (byte & ((1 << mantissa_bits) - 1)) / (1 << mantissa_bits)
            value = sign * (fraction * 2.0 ** (1 - bias) if not exponent else (1 + fraction) * 2.0 ** (exponent - bias))
            if dtype == "float8_e4m3fn" and byte & 0x7F == 0x7F:
                value = float("nan")
            elif dtype == "float8_e5m2" and exponent == 31:
                value = float("nan") if fraction else sign * float("inf")
            elif dtype.endswith("fnuz") and byte == 0x80:
                value = float("nan")
            table.append(value)
    return table


def decode(data: bytes, dtype: str, shape: Sequence[int] | None = None) -> Vector:
    """Little-endian bytes of a torch dtype as numbers; UnreadableFile for dtypes that are not numbers."""
    code = _ARRAY_CODE.get(dtype)
    if code is not None:
        vector = Vector(code, data, dtype, shape)
        if sys.byteorder == "big":
            vector.byteswap()
        return vector
    if dtype == "float16":
        return Vector("f", unpack(f"<{len(data) // 2}e", data), dtype, shape)
    if dtype == "bfloat16":  # the upper half of a float32
        wide = bytearray(2 * len(data))
        wide[2::4], wide[3::4] = data[0::2], data[1::2]
        return Vector("f", unpack(f"<{len(data) // 2}f", wide), dtype, shape)
    if dtype in _FLOAT8:
        table = _float8_table(dtype)
        return Vector("d", [table[byte] for byte in data], dtype, shape)
    if dtype == "float8_e8m0fnu":  # a power of two, no sign; 0xff is NaN
        return Vector("d", [float("nan") if byte == 255 else 2.0 ** (byte - 127) for byte in data], dtype, shape)
    raise UnreadableFile("dtype", f"bnlint does not compute with {dtype}")
