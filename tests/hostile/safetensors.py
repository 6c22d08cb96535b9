"""safetensors files whose header lies about itself or about the data behind it."""

import json
from collections.abc import Mapping
from struct import pack

from .assembler import BIAS, MEAN, VAR, WEIGHT
from .case import bounded, empty_handed, found, hostile, refused, sound, unreadable

NAME = "model.safetensors"
REASON = (
    "header|json|truncat|ends|short|beyond|past|outside|offset|hole|gap|overlap|duplicate|twice|utf|dtype|shape|bytes|"
    "size|deep|limit|large|negative|length|data|end at|elements"
)
DATA = pack("<16f", *WEIGHT, *BIAS, *MEAN, *VAR)


def tensor(dtype: object = "F32", shape: object = (4,), begin: object = 0, end: object = 16) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def layer(**changed: object) -> dict[str, object]:
    leaves = {
        f"bn.{leaf}": tensor(begin=16 * place, end=16 * place + 16)
        for place, leaf in enumerate(("weight", "bias", "running_mean", "running_var"))
    }
    return {**leaves, **{f"bn.{leaf}": value for leaf, value in changed.items()}}


def file(header: Mapping[str, object] | bytes | None = None, data: bytes = DATA, length: int | None = None) -> bytes:
    """A healthy layer, but for what is given; `length` is what the first eight bytes say."""
    told = layer() if header is None else header
    encoded = told if isinstance(told, bytes) else json.dumps(told).encode()
    return pack("<Q", (len(encoded) if length is None else length) % (1 << 64)) + encoded + data


@hostile(sound(), NAME)
def honest() -> bytes:
    """A healthy layer."""
    return file()


@hostile(sound())
def under_the_name_of_a_torch_file() -> bytes:
    """The bytes decide, not the name."""
    return file()


@hostile(found("negative-running-var"), NAME)
def planted() -> bytes:
    """Control: a negative variance is found."""
    return file(data=pack("<16f", *WEIGHT, *BIAS, *MEAN, 1, -1, 1, 1))


_HEADER = len(json.dumps(layer()))


@hostile(lambda size: refused() if size < 200 else unreadable(REASON), NAME, each={
    "in_the_length": 5, "after_the_length": 8, "in_the_header": 8 + _HEADER - 5, "after_the_header": 8 + _HEADER,
    "in_the_data": 8 + _HEADER + 40, "by_one_byte": 8 + _HEADER + 63,
})  # fmt: skip
def truncated(size: int) -> bytes:
    """Cut off at its boundaries."""
    return file()[:size]


@hostile(refused(REASON), NAME, each={
    "zero": 0, "one": 1, "short": 100, "beyond_the_file": 100_000, "over_100_mb": 100_000_001, "2_31": 1 << 31,
    "2_63": 1 << 63, "2_64": -1,
})  # fmt: skip
def header_length(length: int) -> bytes:
    """The first eight bytes lie about the length of the header."""
    return file(length=length)


@hostile(refused(REASON), NAME, each={
    "text": b"not json at all, and long enough to be told from nothing " * 4,
    "half": b'{"bn.weight": {"dtype": "F32", "shape": [4], "data_offsets": [0,' + b" " * 100,
    "list": b"[1, 2, 3]" + b" " * 100,
    "number": b"17" + b" " * 200,
    "two_objects": b'{"a": {}} {"b": {}}' + b" " * 100,
    "single_quotes": b"{'bn.weight': {'dtype': 'F32'}}" + b" " * 100,
    "not_utf8": b'{"\xff\xfe": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}' + b" " * 100,
    "utf16": '{"bn.weight": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}'.encode("utf-16"),
    "zeros": bytes(300),
    "comment": b'{"a": 1 /* no */}' + b" " * 100,
})  # fmt: skip
def header(text: bytes) -> bytes:
    """The header is not the JSON object it should be."""
    return file(text)


@hostile(refused(REASON), NAME, nasty=True, each={
    "arrays": b'{"a": ' + b"[" * 1_000_000 + b"]" * 1_000_000 + b"}",
    "objects": b'{"a": ' * 200_000 + b"1" + b"}" * 200_000,
    "never_closed": b'{"a": ' + b"[" * 5_000_000,
})  # fmt: skip
def header_deep(text: bytes) -> bytes:
    """JSON that nests deeper than any stack."""
    return file(text)


@hostile(unreadable(REASON), NAME, each={
    "number_of_5000_digits": b'{"bn.weight": {"dtype": "F32", "shape": [%s], "data_offsets": [0, 16]}}' % (b"9" * 5000),
    "duplicate_key": (
        b'{"bn.weight": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]},'
        b' "bn.weight": {"dtype": "F32", "shape": [4], "data_offsets": [16, 32]}}' + b" " * 100
    ),
    "duplicate_field": (
        b'{"bn.weight": {"dtype": "F32", "dtype": "F64", "shape": [4], "data_offsets": [0, 16]}}'.ljust(200)
    ),
})  # fmt: skip
def header_text(text: bytes) -> bytes:
    """JSON about which parsers differ."""
    return file(text, data=DATA[:32] if b"32]" in text else DATA[:16])


@hostile(unreadable(REASON), NAME, each={
    "offsets_reversed": tensor(begin=64, end=48),
    "offsets_beyond": tensor(begin=48, end=1 << 40),
    "offsets_2_63": tensor(begin=48, end=1 << 63),
    "offsets_negative": tensor(begin=-16, end=0),
    "offsets_of_floats": tensor(begin=48.0, end=64.5),
    "offsets_of_text": tensor(begin="48", end="64"),
    "offsets_of_truth": tensor(begin=False, end=True),
    "offsets_none": tensor(begin=None, end=None),
    "offsets_of_one": {"dtype": "F32", "shape": [4], "data_offsets": [48]},
    "offsets_of_three": {"dtype": "F32", "shape": [4], "data_offsets": [48, 64, 80]},
    "offsets_missing": {"dtype": "F32", "shape": [4]},
    "overlap": tensor(begin=32, end=48),
    "hole": tensor(begin=52, end=68),
    "shape_too_large": tensor(shape=[5], begin=48, end=64),
    "shape_too_small": tensor(shape=[3], begin=48, end=64),
    "shape_negative": tensor(shape=[-4], begin=48, end=64),
    "shape_twice_negative": tensor(shape=[-2, -2], begin=48, end=64),
    "shape_overflows": tensor(shape=[1 << 62, 1 << 62], begin=48, end=64),
    "shape_of_floats": tensor(shape=[4.0], begin=48, end=64),
    "shape_of_text": tensor(shape=["4"], begin=48, end=64),
    "shape_a_number": tensor(shape=4, begin=48, end=64),
    "shape_missing": {"dtype": "F32", "data_offsets": [48, 64]},
    "dtype_unknown": tensor(dtype="F31", begin=48, end=64),
    "dtype_lower_case": tensor(dtype="f32", begin=48, end=64),
    "dtype_a_number": tensor(dtype=32, begin=48, end=64),
    "dtype_of_another_size": tensor(dtype="F64", begin=48, end=64),
    "dtype_missing": {"shape": [4], "data_offsets": [48, 64]},
    "a_number": 7,
    "none": None,
})  # fmt: skip
def variance(entry: object) -> bytes:
    """What the header says of running_var cannot be."""
    return file(layer(running_var=entry))


@hostile(bounded(), NAME)
def variance_as_a_list() -> bytes:
    """The three fields in a row; the reference reader takes that."""
    return file(layer(running_var=["F32", [4], [48, 64]]))


@hostile(unreadable(REASON), NAME, each={"before": (0, b"x" * 8), "behind": (1, b"x" * 8)})
def bytes_that_belong_to_nobody(place_and_junk: tuple[int, bytes]) -> bytes:
    """The data does not begin or end where the tensors do."""
    behind, junk = place_and_junk
    if behind:
        return file(data=DATA + junk)
    moved = {
        f"bn.{leaf}": tensor(begin=16 * n + 8, end=16 * n + 24)
        for n, leaf in enumerate(("weight", "bias", "running_mean", "running_var"))
    }
    return file(moved, data=junk + DATA)


@hostile(sound(), NAME, each={
    "ordinary": {"format": "pt"}, "long": {"note": "x" * 100_000}, "hostile_text": {"\x1b[31m": "::error::\n\r\0"},
})  # fmt: skip
def metadata(value: object) -> bytes:
    """Text beside the tensors."""
    return file({"__metadata__": value, **layer()})


@hostile(bounded(), NAME, each={"a_list": [1], "a_number": 1, "nested": {"a": {"b": [1]}}, "none": None})
def metadata_is(value: object) -> bytes:
    """Text beside the tensors that is no text; the reference reader refuses it."""
    return file({"__metadata__": value, **layer()})


@hostile(sound(), NAME)
def padded_with_spaces() -> bytes:
    """The header is padded to a multiple of eight, as the reference writer does."""
    encoded = json.dumps(layer()).encode()
    return file(encoded + b" " * (-len(encoded) % 8 + 800))


@hostile(bounded(), NAME)
def header_behind_spaces() -> bytes:
    """The header must begin with a brace."""
    return file(b"   " + json.dumps(layer()).encode())


@hostile(bounded(), NAME)
def no_tensors() -> bytes:
    """An empty header, padded: a file of no tensors."""
    return file(b"{}" + b" " * 300, data=b"")


@hostile(empty_handed(), NAME)
def tensors_without_batchnorm() -> bytes:
    """One weight of a linear layer, and the longest shape that is still one element."""
    return file({"fc.weight": tensor(shape=[1] * 2000, begin=0, end=4)}, data=DATA[:4])


@hostile(bounded(), NAME, each={"F4": "F4", "F6_E2M3": "F6_E2M3", "F8_E8M0": "F8_E8M0", "BOOL": "BOOL", "C64": "C64"})
def dtype(name: str) -> bytes:
    """Statistics of a dtype that safetensors knows and nobody trains with."""
    bits = {"F4": 4, "F6_E2M3": 6, "F8_E8M0": 8, "BOOL": 8, "C64": 64}[name]
    size = 8 * bits // 8
    return file(layer(running_var=tensor(name, [8], 48, 48 + size)), data=DATA[:48] + b"\1" * size)


WIDTHS = {"BF16": 2, "F16": 2, "F64": 8, "F8_E4M3": 1, "F8_E5M2": 1, "I64": 8, "U8": 1}


@hostile(sound(), NAME, each={name: name for name in WIDTHS})
def known_dtype(name: str) -> bytes:
    """Statistics of every plain width."""
    size = 4 * WIDTHS[name]
    return file(layer(running_var=tensor(name, [4], 48, 48 + size)), data=DATA[:48] + b"\x3c" * size)


@hostile(bounded(), NAME, nasty=True)
def two_hundred_thousand_tensors() -> bytes:
    """A header of 200 000 empty tensors."""
    return file({f"t{n}": tensor(shape=[0], begin=0, end=0) for n in range(200_000)}, data=b"")


@hostile(bounded(), NAME, nasty=True)
def header_of_ninety_megabytes() -> bytes:
    """Within the limit of the format, and of no use."""
    return file(b'{"__metadata__": {"a": "' + b"x" * (90 << 20) + b'"}}', data=b"")


@hostile(bounded(), NAME, each={
    "lone_surrogate": b"\\ud800", "nul": b"\\u0000", "newline": b"\\n::error::x", "empty": b"", "dots": b"....",
})  # fmt: skip
def name_of_a_tensor(name: bytes) -> bytes:
    """Names that JSON allows and nobody wants to print."""
    return file(json.dumps(layer()).encode().replace(b'"bn.', b'"' + name + b"."))
