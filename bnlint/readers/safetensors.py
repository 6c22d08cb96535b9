"""safetensors: a JSON header that says where each tensor lies, then the tensors without gaps.

As strict as the reference implementation (huggingface/safetensors, tensor.rs), and stricter in one thing:
a name that comes twice is refused.
"""

from __future__ import annotations

from bnlint.errors import UnreadableFile
from bnlint.model.tensor import Tensor
from bnlint.readers.json_text import LIMIT, parse
from bnlint.readers.storages import Span
from bnlint.readers.values import Loaded

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TypeGuard

    from bnlint.readers.source import ByteSource

    Place = tuple[str, tuple[int, ...], int, int]  # dtype, shape, first byte, last byte plus one

HEADER_LIMIT = 100_000_000  # bytes, in the reference implementation
_METADATA = "__metadata__"
_OFFSET_LIMIT = 1 << 64
# The dtype and the bits of an element. Two of F4's elements make one of torch's; F6 has no dtype in torch.
_DTYPES = {
    "F64": ("float64", 64), "F32": ("float32", 32), "F16": ("float16", 16), "BF16": ("bfloat16", 16),
    "I64": ("int64", 64), "I32": ("int32", 32), "I16": ("int16", 16), "I8": ("int8", 8),
    "U64": ("uint64", 64), "U32": ("uint32", 32), "U16": ("uint16", 16), "U8": ("uint8", 8), "BOOL": ("bool", 8),
    "F8_E4M3": ("float8_e4m3fn", 8), "F8_E5M2": ("float8_e5m2", 8), "F8_E8M0": ("float8_e8m0fnu", 8),
    "F8_E4M3FNUZ": ("float8_e4m3fnuz", 8), "F8_E5M2FNUZ": ("float8_e5m2fnuz", 8),
    "C64": ("complex64", 64), "F4": ("float4_e2m1fn_x2", 4), "F6_E2M3": ("bits8", 6), "F6_E3M2": ("bits8", 6),
}  # fmt: skip


def load(source: ByteSource) -> Loaded:
    """The tensors in the file by name, in the order of its header.

    UnreadableFile: `truncated` where the file is shorter than its header says, `json` where the header is
    damaged, `bounds` where tensors overlap, leave gaps or leave the file, `dtype` for dtypes nobody
    knows, `limit` for headers that are too large.
    """
    header, start = _header(source)
    _check_metadata(header.pop(_METADATA, None))
    data = Span(source, start, source.size - start)
    places = {name: _place(name, facts) for name, facts in header.items()}
    _expect_no_gaps(places, data)
    tensors: dict[str, Tensor] = {
        name: Tensor(dtype, shape, Span(source, start + begin, end - begin))
        for name, (dtype, shape, begin, end) in places.items()
    }
    return Loaded("safetensors", tensors)


def _header(source: ByteSource) -> tuple[dict[str, object], int]:
    """The header, and where the tensors begin."""
    if source.size < 8:
        raise UnreadableFile("truncated", "the file ends within the length of its header", source.size)
    length = int.from_bytes(source.read(0, 8), "little")
    if length > min(HEADER_LIMIT, LIMIT):
        raise UnreadableFile("limit", f"a header of {length} bytes is over the limit of {LIMIT}", 0)
    if 8 + length > source.size:
        raise UnreadableFile(
            "truncated", f"the header ends at byte {8 + length}, the file at byte {source.size}", source.size
        )
    text = source.read(8, length)
    if text[:1] != b"{":
        raise UnreadableFile("json", "the header does not begin with a brace", 8)
    header = parse(text)
    if type(header) is not dict:
        raise UnreadableFile("json", "the header is no JSON object", 8)
    return header, 8 + length


def _check_metadata(metadata: object) -> None:
    if metadata is None:
        return
    if type(metadata) is not dict or not all(type(value) is str for value in metadata.values()):
        raise UnreadableFile("json", "__metadata__ is not an object of strings")


def _place(name: str, facts: object) -> Place:
    if type(facts) is not dict:
        raise UnreadableFile("json", f"the header's entry {name[:80]!r} is no JSON object")
    dtype, bits = _DTYPES.get(str(facts.get("dtype")), ("", 0))
    if not dtype:
        raise UnreadableFile("dtype", f"tensor {name[:80]!r} has the unknown dtype {str(facts.get('dtype'))[:40]!r}")
    shape, offsets = facts.get("shape"), facts.get("data_offsets")
    if not (_is_sizes(shape) and _is_sizes(offsets) and len(offsets) == 2):
        raise UnreadableFile("json", f"tensor {name[:80]!r} has no shape or no data_offsets that are numbers")
    begin, end = offsets
    elements = _elements(shape)
    if elements * bits != 8 * (end - begin):
        raise UnreadableFile(
            "bounds", f"tensor {name[:80]!r} has {end - begin} bytes, not those of {elements} elements of {dtype}"
        )
    if bits % 8 == 0:
        return dtype, tuple(shape), begin, end
    if bits == 4 and shape and shape[-1] % 2 == 0:
        return dtype, (*shape[:-1], shape[-1] // 2), begin, end
    return "bits8", (end - begin,), begin, end


def _is_sizes(value: object) -> TypeGuard[list[int]]:
    return type(value) is list and all(type(size) is int and 0 <= size < _OFFSET_LIMIT for size in value)


def _elements(shape: Sequence[int]) -> int:
    elements = 1
    for size in shape:
        elements *= size
        if elements >= _OFFSET_LIMIT:
            raise UnreadableFile("bounds", "a tensor has more elements than 64 bits can count")
    return elements


def _expect_no_gaps(places: dict[str, Place], data: Span) -> None:
    expected = 0
    for name, (_, _, begin, end) in sorted(places.items(), key=lambda place: place[1][2:]):
        if begin != expected:
            what = "overlaps the one before it" if begin < expected else "leaves a gap before it"
            raise UnreadableFile("bounds", f"tensor {name[:80]!r} {what}", data.start + begin)
        expected = end
    if expected > data.nbytes:
        raise UnreadableFile(
            "truncated",
            f"the tensors end at byte {data.start + expected}, the file at byte {data.start + data.nbytes}",
            data.start + data.nbytes,
        )
    if expected < data.nbytes:
        raise UnreadableFile(
            "bounds", f"{data.nbytes - expected} bytes behind the last tensor belong to none", data.start + expected
        )
