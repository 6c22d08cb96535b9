"""Raw pickles of numpy arrays whose shapes, dtypes or bytes lie."""

import pickle as op
from struct import pack

from .assembler import (
    BIAS,
    FALSE,
    MEAN,
    NONE,
    TRUE,
    VAR,
    WEIGHT,
    byte_text,
    call,
    dict_of,
    integer,
    integers,
    list_of,
    named,
    pickled,
    real,
    text,
    tuple_of,
)
from .case import Expected, bounded, found, hostile, sound, unreadable

BOUNDS = "shape|bytes|array|dtype|short|long|size|negative|large|limit|numpy|state|data|type"
VECTORS = {"weight": WEIGHT, "bias": BIAS, "running_mean": MEAN, "running_var": VAR}
_RECONSTRUCT = named("numpy.core.multiarray", "_reconstruct")
_NDARRAY = named("numpy", "ndarray")


def binary(data: bytes) -> bytes:
    return op.BINBYTES + pack("<I", len(data)) + data


def dtype(code: str = "f4", order: str = "<", state: bytes | None = None) -> bytes:
    made = call(named("numpy", "dtype"), text(code), FALSE, TRUE)
    told = tuple_of(integer(3), text(order), NONE, NONE, NONE, integer(-1), integer(-1), integer(0))
    return made + (told if state is None else state) + op.BUILD


def array(
    data: bytes = pack("<4f", *VAR),
    shape: bytes = integers([4]),
    kind: bytes | None = None,
    fortran: bytes = FALSE,
    version: bytes = integer(1),
) -> bytes:
    """An ndarray as numpy pickles it, but for what is given."""
    empty = call(_RECONSTRUCT, _NDARRAY, integers([0]), binary(b"b"))
    return empty + tuple_of(version, shape, dtype() if kind is None else kind, fortran, binary(data)) + op.BUILD


def layer(variance: bytes | None = None) -> bytes:
    """A pickled dict of four arrays, as old model zoos publish them."""
    arrays = {leaf: array(pack("<4f", *values)) for leaf, values in VECTORS.items()}
    arrays["running_var"] = arrays["running_var"] if variance is None else variance
    return pickled(dict_of([(text(f"bn.{leaf}"), value) for leaf, value in arrays.items()]), protocol=3)


@hostile(sound(), "model.pkl")
def honest() -> bytes:
    """Four arrays in a dict."""
    return layer()


@hostile(found("negative-running-var"), "model.pkl", each={
    "little": array(pack("<4f", 1, -1, 1, 1)),
    "big": array(pack(">4f", 1, -1, 1, 1), kind=dtype(order=">")),
    "fortran": array(pack("<4f", 1, -1, 1, 1), fortran=TRUE),
    "double": array(pack("<4d", 1, -1, 1, 1), kind=dtype("f8")),
    "encoded": (
        call(_RECONSTRUCT, _NDARRAY, integers([0]), binary(b"b"))
        + tuple_of(
            integer(1), integers([4]), dtype(), FALSE,
            call(named("_codecs", "encode"), text(pack("<4f", 1, -1, 1, 1).decode("latin1")), text("latin1")),
        )
        + op.BUILD
    ),
    "python_2": (
        call(_RECONSTRUCT, _NDARRAY, integers([0]), byte_text(b"b"))
        + tuple_of(integer(1), integers([4]), dtype(), FALSE, byte_text(pack("<4f", 1, -1, 1, 1)))
        + op.BUILD
    ),
    "numpy_2": array(pack("<4f", 1, -1, 1, 1)).replace(b"numpy.core", b"numpy._core"),
    "from_buffer": call(
        named("numpy.core.numeric", "_frombuffer"), binary(pack("<4f", 1, -1, 1, 1)), dtype(), integers([4]), text("C")
    ),
})  # fmt: skip
def planted(variance: bytes) -> bytes:
    """Control: a negative variance is found whichever way numpy wrote it."""
    return layer(variance)


def _lie(variance: bytes) -> Expected:
    return unreadable(BOUNDS)


@hostile(_lie, "model.pkl", each={
    "shape_too_large": array(shape=integers([5])),
    "shape_2_62": array(shape=integers([1 << 62])),
    "shape_10_40": array(shape=integers([10**40])),
    "shape_negative": array(shape=integers([-4])),
    "data_short": array(data=b"\0" * 15),
    "dtype_larger_than_data": array(kind=dtype("f8")),
    "from_buffer_short": call(
        named("numpy.core.numeric", "_frombuffer"), binary(b"\0" * 3), dtype(), integers([4]), text("C")
    ),
})  # fmt: skip
def lies(variance: bytes) -> bytes:
    """The variance claims more than its bytes hold."""
    return layer(variance)


RECORD = tuple_of(integer(3), text("|"), NONE, tuple_of(text("a")), dict_of([]))


@hostile(bounded(), "model.pkl", each={
    "shape_too_small": array(shape=integers([2])),
    "shape_a_number": array(shape=integer(4)),
    "shape_of_text": array(shape=tuple_of(text("4"))),
    "shape_of_floats": array(shape=tuple_of(real(4.0))),
    "shape_none": array(shape=NONE),
    "rank_100": array(shape=integers([1] * 100)),
    "dtype_none": array(kind=NONE),
    "dtype_text": array(kind=text("f4")),
    "dtype_unknown": array(kind=dtype("Q9")),
    "dtype_of_an_object": array(kind=dtype("O8"), data=b"\0" * 32),
    "dtype_of_text": array(kind=dtype("U4"), data=b"\0" * 64),
    "dtype_of_records": array(kind=dtype("V8", state=RECORD)),
    "dtype_of_dates": array(kind=dtype("M8"), data=b"\0" * 32),
    "dtype_of_complex": array(kind=dtype("c8"), data=b"\0" * 32),
    "dtype_with_a_short_state": array(kind=dtype(state=tuple_of(integer(3)))),
    "dtype_with_no_order": array(kind=dtype(order="?")),
    "dtype_float_of_3_bytes": array(kind=dtype("f3")),
    "dtype_float_of_2_30_bytes": array(kind=dtype("f1073741824")),
    "version_of_text": array(version=text("1")),
    "objects_in_a_list": (
        call(_RECONSTRUCT, _NDARRAY, integers([0]), binary(b"b"))
        + tuple_of(integer(1), integers([2]), dtype("O8"), FALSE, list_of(NONE, NONE)) + op.BUILD
    ),
    "state_of_two": call(_RECONSTRUCT, _NDARRAY, integers([0]), binary(b"b")) + integers([1, 2]) + op.BUILD,
    "state_none": call(_RECONSTRUCT, _NDARRAY, integers([0]), binary(b"b")) + NONE + op.BUILD,
    "no_state": call(_RECONSTRUCT, _NDARRAY, integers([0]), binary(b"b")),
    "two_states": array() + tuple_of(integer(1), integers([4]), dtype(), FALSE, binary(bytes(16))) + op.BUILD,
    "reconstruct_of_nothing": call(_RECONSTRUCT),
    "reconstruct_of_another_class": call(_RECONSTRUCT, named("lib", "Matrix"), integers([0]), binary(b"b")),
    "reconstruct_of_a_giant": call(_RECONSTRUCT, _NDARRAY, integers([1 << 40]), binary(b"b")),
    "scalar": call(named("numpy.core.multiarray", "scalar"), dtype("f8"), binary(pack("<d", 1.0))),
    "scalar_short": call(named("numpy.core.multiarray", "scalar"), dtype("f8"), binary(b"\0")),
    "scalar_of_nothing": call(named("numpy.core.multiarray", "scalar")),
    "encoded_with_another_codec": call(named("_codecs", "encode"), text("a"), text("rot13")),
    "encoded_beyond_latin1": call(named("_codecs", "encode"), text("\u20ac"), text("latin1")),
    "from_buffer_in_no_order": call(
        named("numpy.core.numeric", "_frombuffer"), binary(bytes(16)), dtype(), integers([4]), text("?")
    ),
    "random_state": call(named("numpy.random", "__RandomState_ctor"), text("MT19937")),
})  # fmt: skip
def odd(variance: bytes) -> bytes:
    """The variance is not what numpy writes, or no vector of numbers."""
    return layer(variance)


@hostile(bounded(), "model.pkl")
def giant_of_zero_bytes() -> bytes:
    """A shape whose product is 0 through one of its factors."""
    return layer(array(data=b"", shape=integers([1 << 62, 0])))


@hostile(bounded(), "model.pkl", nasty=True)
def fifty_megabytes_of_weights() -> bytes:
    """A large honest array beside a layer: its bytes are no reason to hold them."""
    big = array(bytes(50 << 20), shape=integers([(50 << 20) // 4]))
    body = layer()[2:-1] + op.POP + dict_of([(text("fc.weight"), big), (text("bn"), dict_of([]))])
    return pickled(body, protocol=3)
