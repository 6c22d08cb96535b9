"""Honest containers whose pickles lie about their tensors: views, sizes, storages, dtypes."""

import pickle as op
from struct import pack

from .assembler import (
    FALSE,
    NO_HOOKS,
    NONE,
    TRUE,
    VAR,
    Claim,
    byte_text,
    call,
    counter,
    dict_of,
    floats,
    integer,
    integers,
    layer,
    list_of,
    named,
    pickled,
    real,
    stacked,
    state_dict,
    text,
    torch_zip,
    tuple_of,
)
from .case import bounded, found, hostile, sound, unreadable

VARIANCE = floats(VAR, "3")
BOUNDS = (
    "outside|beyond|past|reach|negative|size|stride|offset|bounds|storage|shape|bytes|overflow|large|limit|elements"
)


def with_variance(claim: Claim) -> bytes:
    return torch_zip(layer(running_var=claim))


@hostile(
    unreadable(BOUNDS),
    each={
        "longer_than_its_storage": VARIANCE.but(size=integers([5])),
        "size_2_62": VARIANCE.but(size=integers([1 << 62])),
        "size_2_64": VARIANCE.but(size=integers([1 << 64])),
        "size_10_77": VARIANCE.but(size=integers([10**77])),
        "offset_beyond": VARIANCE.but(offset=integer(1)),
        "offset_2_63": VARIANCE.but(offset=integer(1 << 63)),
        "offset_negative": VARIANCE.but(offset=integer(-1)),
        "stride_too_wide": VARIANCE.but(stride=integers([2])),
        "stride_2_62": VARIANCE.but(stride=integers([1 << 62])),
        "stride_negative": VARIANCE.but(stride=integers([-1])),
        "size_negative": VARIANCE.but(size=integers([-4])),
        "numel_beyond_its_record": VARIANCE.but(numel=integer(1 << 40), size=integers([1 << 40])),
        "numel_2_63": VARIANCE.but(numel=integer(1 << 63), size=integers([1 << 63])),
        "huge_without_stride": VARIANCE.but(size=integers([1 << 40]), stride=integers([0])),
    },
)
def view(claim: Claim) -> bytes:
    """A statistic whose view reaches outside its storage, or where no view can be."""
    return with_variance(claim)


@hostile(
    bounded(),
    each={
        "rank_differs": VARIANCE.but(stride=integers([1, 1])),
        "no_strides": VARIANCE.but(stride=integers([])),
        "size_is_a_list": VARIANCE.but(size=list_of(integer(4))),
        "size_is_a_number": VARIANCE.but(size=integer(4)),
        "size_is_none": VARIANCE.but(size=NONE),
        "size_of_floats": VARIANCE.but(size=tuple_of(real(4.0))),
        "size_of_nan": VARIANCE.but(size=tuple_of(real(float("nan")))),
        "size_of_text": VARIANCE.but(size=tuple_of(text("4"))),
        "size_of_truth": VARIANCE.but(size=tuple_of(TRUE)),
        "size_is_itself_odd": VARIANCE.but(size=call(named("torch", "Size"), list_of(integer(4)))),
        "stride_of_text": VARIANCE.but(stride=tuple_of(text("1"))),
        "offset_is_text": VARIANCE.but(offset=text("0")),
        "offset_is_none": VARIANCE.but(offset=NONE),
        "offset_is_nan": VARIANCE.but(offset=real(float("nan"))),
        "numel_is_negative": VARIANCE.but(numel=integer(-4)),
        "numel_is_text": VARIANCE.but(numel=text("4")),
        "numel_is_none": VARIANCE.but(numel=NONE),
        "numel_is_a_dict": VARIANCE.but(numel=dict_of([])),
        "numel_too_small": VARIANCE.but(numel=integer(2)),
        "numel_infinite": VARIANCE.but(numel=real(float("inf"))),
        "location_is_nonsense": VARIANCE.but(location=text("cuda:999999999999")),
        "location_is_a_dict": VARIANCE.but(location=dict_of([])),
        "storage_is_text": VARIANCE.but(storage=text("FloatStorage")),
        "storage_is_a_function": VARIANCE.but(storage=named("torch", "load")),
    },
)
def type_of_a_claim(claim: Claim) -> bytes:
    """A field of a statistic has the wrong type, or a value that torch would not write."""
    return with_variance(claim)


@hostile(
    unreadable("storage|dtype|type|unknown"),
    each={
        "HyperStorage": named("torch", "HyperStorage"),
        "not_torch": named("mylib.storages", "FloatStorage"),
        "a_number": integer(7),
        "nothing": NONE,
    },
)
def storage_type(storage: bytes) -> bytes:
    """A statistic in a storage of a type that does not exist."""
    return with_variance(VARIANCE.but(storage=storage))


def _v3(dtype: bytes, data: bytes = pack("<4f", *VAR), size: bytes = integers([4])) -> Claim:
    """A tensor of the third generation: an untyped storage, the dtype beside it."""
    untyped = Claim(data, size, "3", integer(len(data)), storage=named("torch.storage", "UntypedStorage"))
    rebuild = named("torch._utils", "_rebuild_tensor_v3")
    storage = untyped.identity() + op.BINPERSID
    return untyped.but(rebuilt=call(rebuild, storage, integer(0), size, integers([1]), FALSE, NO_HOOKS, dtype, NONE))


@hostile(sound(), each={"float32": named("torch", "float32")})
def third_generation(dtype: bytes) -> bytes:
    """Untyped storage and a dtype: as torch writes uint16 and float8."""
    return with_variance(_v3(dtype))


@hostile(
    unreadable("dtype|type|unknown"),
    each={"float1234": named("torch", "float1234"), "text": text("float32"), "function": named("torch", "load")},
)
def dtype_unknown(dtype: bytes) -> bytes:
    """A statistic of a dtype that torch does not have."""
    return with_variance(_v3(dtype))


@hostile(
    unreadable("meta|no data|without data|storage|type|sparse|dtype|quant"),
    each={
        "meta": call(
            named("torch._utils", "_rebuild_meta_tensor_no_storage"),
            named("torch", "float32"),
            integers([4]),
            integers([1]),
            FALSE,
        ),
    },
)
def statistic_without_data(rebuilt: bytes) -> bytes:
    """running_var was saved on the meta device: there is no data to read."""
    return with_variance(VARIANCE.but(rebuilt=rebuilt))


@hostile(sound())
def other_tensor_without_data() -> bytes:
    """A meta tensor that is no BatchNorm statistic does not matter."""
    meta = call(
        named("torch._utils", "_rebuild_meta_tensor_no_storage"),
        named("torch", "float32"),
        integers([1 << 40, 1 << 20]),
        integers([1 << 20, 1]),
        FALSE,
    )
    return torch_zip({**layer(), "fc.weight": floats([1.0], "5").but(rebuilt=meta)})


@hostile(sound())
def giant_view_that_nobody_reads() -> bytes:
    """A 0-stride view of absurd size that is no statistic: only its name counts."""
    return torch_zip({**layer(), "fc.weight": floats([1.0], "5").but(size=integers([1 << 40]), stride=integers([0]))})


@hostile(bounded())
def giant_view_beyond_64_bits() -> bytes:
    """The same of 2^200 elements; torch refuses it."""
    giant = floats([1.0], "5").but(size=integers([1 << 100, 1 << 100]), stride=integers([0, 0]))
    return torch_zip({**layer(), "fc.weight": giant})


@hostile(sound())
def expanded_statistic() -> bytes:
    """One number expanded to four channels by a stride of 0."""
    one = floats([0.7], "3").but(size=integers([4]), stride=integers([0]))
    return with_variance(one)


@hostile(sound())
def strided_statistic() -> bytes:
    """Every second element of a larger storage, from an offset on."""
    wide = floats([9, 9, 0.91, 9, 1.73, 9, 0.42, 9, 1.16, 9], "3")
    return with_variance(wide.but(size=integers([4]), stride=integers([2]), offset=integer(2)))


@hostile(sound())
def statistics_share_a_storage() -> bytes:
    """Four vectors in one record, each a view of it."""
    together = floats([0.93, 1.12, 0.71, 1.04, 0.1, -0.2, 0.05, 0, 0.3, -0.1, 0.8, 0, 0.9, 1.7, 0.4, 1.1])
    views = {
        leaf: together.but(offset=integer(4 * place), size=integers([4]))
        for place, leaf in enumerate(("weight", "bias", "running_mean", "running_var"))
    }
    return torch_zip(layer(**views))


@hostile(sound())
def one_record_read_as_two_dtypes() -> bytes:
    """Legal in old files: the same record as float32 and as int32."""
    again = floats(VAR, "3").but(storage=named("torch", "IntStorage"))
    return torch_zip({**layer(), "other": again})


@hostile(
    bounded(),
    each={
        "not_a_tuple": text("storage"),
        "empty": tuple_of(),
        "of_two": tuple_of(text("storage"), named("torch", "FloatStorage")),
        "of_ten": tuple_of(*[text("storage")] * 10),
        "of_another_kind": tuple_of(text("module"), named("net", "Net"), text("net.py"), text("import os")),
        "none": NONE,
        "a_number": integer(0),
        "key_is_a_list": tuple_of(text("storage"), named("torch", "FloatStorage"), list_of(), text("cpu"), integer(4)),
        "key_is_a_number": tuple_of(
            text("storage"), named("torch", "FloatStorage"), integer(3), text("cpu"), integer(4)
        ),
        "key_is_4000_characters": tuple_of(
            text("storage"), named("torch", "FloatStorage"), text("k" * 4000), text("cpu"), integer(4)
        ),
        "python_2": tuple_of(
            byte_text(b"storage"), named("torch", "FloatStorage"), byte_text(b"3"), byte_text(b"cpu"), integer(4)
        ),
    },
)
def persistent_id(identity: bytes) -> bytes:
    """The persistent id of a storage is not what torch writes."""
    rebuilt = VARIANCE.pickled(identity + op.BINPERSID)
    return with_variance(VARIANCE.but(rebuilt=rebuilt))


_STORAGE = VARIANCE.identity() + op.BINPERSID


@hostile(
    bounded(),
    each={
        "no_arguments": call(named("torch._utils", "_rebuild_tensor_v2")),
        "three_arguments": call(named("torch._utils", "_rebuild_tensor_v2"), _STORAGE, integer(0), integers([4])),
        "not_a_storage": call(
            named("torch._utils", "_rebuild_tensor_v2"),
            integer(1),
            integer(0),
            integers([4]),
            integers([1]),
            FALSE,
            NONE,
        ),
        "sparse": call(named("torch._utils", "_rebuild_sparse_tensor"), named("torch", "sparse_coo"), tuple_of(NONE)),
        "sparse_of_itself": call(named("torch._utils", "_rebuild_sparse_tensor"), NONE, integers([1, 2, 3, 4])),
        "quantized": call(
            named("torch._utils", "_rebuild_qtensor"), _STORAGE, integer(0), NONE, NONE, NONE, NONE, NONE
        ),
        "parameter_of_nothing": call(named("torch._utils", "_rebuild_parameter"), NONE, TRUE, NO_HOOKS),
        "parameter_of_a_number": call(named("torch._utils", "_rebuild_parameter"), integer(5), TRUE, NO_HOOKS),
        "numpy_on_a_device": call(named("torch._utils", "_rebuild_device_tensor_from_numpy"), integer(5)),
        "wrapper_subclass": call(named("torch._utils", "_rebuild_wrapper_subclass"), *[NONE] * 8),
        "from_type_v2": call(named("torch._tensor", "_rebuild_from_type_v2"), NONE, NONE, NONE, NONE),
        "a_number": integer(5),
        "text": text("0.9 1.7 0.4 1.1"),
        "a_list": list_of(*map(real, VAR)),
        "none": NONE,
        "a_dict": dict_of([(text("running_var"), integer(1))]),
    },
)
def statistic_is(rebuilt: bytes) -> bytes:
    """Something else than a tensor, or a tensor that was not built right, stands for running_var."""
    return with_variance(VARIANCE.but(rebuilt=rebuilt))


@hostile(sound())
def statistic_is_a_parameter() -> bytes:
    """A parameter in a state dict is a tensor like any other."""
    rebuilt = call(named("torch._utils", "_rebuild_parameter"), VARIANCE.pickled(), TRUE, NO_HOOKS)
    return with_variance(VARIANCE.but(rebuilt=rebuilt))


@hostile(bounded(), each={"conj": "conj", "neg": "neg", "both": "both", "nonsense": "\x1b[31m"})
def view_flag(flag: str) -> bytes:
    """A tensor saved as the conjugate or the negative of its bytes."""
    flags = dict_of([(text(flag), TRUE)])
    rebuild = named("torch._utils", "_rebuild_tensor_v2")
    rebuilt = call(rebuild, _STORAGE, integer(0), integers([4]), integers([1]), FALSE, NO_HOOKS, flags)
    return with_variance(VARIANCE.but(rebuilt=rebuilt))


@hostile(bounded(), each={"rank 0": (integers([]), integers([])), "rank 2": (integers([2, 2]), integers([2, 1])),
                          "rank 1000": (integers([1] * 1000), integers([1] * 1000)),
                          "rank 2^16": (integers([1] * 65536), integers([1] * 65536))})  # fmt: skip
def rank_of_a_statistic(size_and_stride: tuple[bytes, bytes]) -> bytes:
    """running_var is not a vector."""
    size, stride = size_and_stride
    return with_variance(VARIANCE.but(size=size, stride=stride))


@hostile(bounded(), nasty=True)
def rank_10_to_the_6() -> bytes:
    """A tensor of a million dimensions."""
    ones = integers([1] * 1_000_000)
    return torch_zip({"x": floats([1.0]).but(size=ones, stride=ones)})


@hostile(bounded())
def no_channels() -> bytes:
    """A BatchNorm layer of no channels."""
    none = {leaf: floats([]) for leaf in ("weight", "bias", "running_mean", "running_var")}
    return torch_zip(layer(**{leaf: claim.but(key=str(n)) for n, (leaf, claim) in enumerate(none.items())}))


@hostile(
    sound(), each={"int32": ("IntStorage", "<4i"), "float64": ("DoubleStorage", "<4d"), "uint8": ("ByteStorage", "<4B")}
)
def statistic_of_another_dtype(kind: tuple[str, str]) -> bytes:
    """Statistics of a dtype that nobody trains with."""
    storage, form = kind
    numbers = (1, 2, 3, 4)
    return with_variance(VARIANCE.but(data=pack(form, *numbers), storage=named("torch", storage)))


@hostile(
    bounded(), each={"bool": ("BoolStorage", 1), "complex64": ("ComplexFloatStorage", 8), "qint8": ("QInt8Storage", 1)}
)
def statistic_of_an_absurd_dtype(kind: tuple[str, int]) -> bytes:
    """A variance of truth values, of complex numbers, quantised."""
    storage, item = kind
    return with_variance(VARIANCE.but(data=b"\1" * (4 * item), storage=named("torch", storage)))


@hostile(found("nonfinite-running-stats"), each={"nan": float("nan"), "inf": float("inf"), "minus_inf": float("-inf")})
def planted_nonfinite(value: float) -> bytes:
    """Control: a real defect is found in a file made by this assembler."""
    return with_variance(floats([0.9, value, 0.4, 1.1], "3"))


@hostile(found("negative-running-var"))
def planted_negative() -> bytes:
    """Control: a negative variance is found in a file made by this assembler."""
    return with_variance(floats([0.9, -0.7, 0.4, 1.1], "3"))


@hostile(sound(layers=2))
def a_layer_at_the_root() -> bytes:
    """The state dict of a single BatchNorm, whose keys have no prefix, beside another layer."""
    return torch_zip({**layer(""), **layer("bn", 10)})


@hostile(sound())
def protocol_4() -> bytes:
    """torch.save(pickle_protocol=4): frames, STACK_GLOBAL, MEMOIZE."""
    body = state_dict(layer()).replace(named("collections", "OrderedDict"), stacked("collections", "OrderedDict"))
    body = body.replace(named("torch._utils", "_rebuild_tensor_v2"), stacked("torch._utils", "_rebuild_tensor_v2"))
    framed = op.FRAME + pack("<Q", len(body) + 1) + body
    return torch_zip(data_pkl=pickled(framed, protocol=4))


@hostile(sound())
def counter_of_another_shape() -> bytes:
    """A counter of shape [1], as LongTensor([0]) of old times; loads fine."""
    return torch_zip(layer(num_batches_tracked=counter().but(size=integers([1]), stride=integers([1]))))


@hostile(bounded())
def counter_is_a_giant_view() -> bytes:
    """A counter of 2^40 elements on a storage of one."""
    return torch_zip(layer(num_batches_tracked=counter().but(size=integers([1 << 40]), stride=integers([0]))))


@hostile(sound())
def raw_python_beside_the_tensors() -> bytes:
    """A state dict with plain values beside its tensors."""
    claims = {**layer(), "n_averaged": floats([1.0], "7").but(rebuilt=integer(7))}
    return torch_zip(claims, pickled(state_dict(claims)))
