"""Writes a safetensors file again: a new header, the bytes of every other tensor as they were."""

from __future__ import annotations

from json import dumps

from bnlint.errors import UnreadableFile
from bnlint.readers.json_text import parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Any

    from bnlint.fixing.edit import Edit, NewTensor
    from bnlint.readers.source import ByteSource

    Write = Callable[[bytes], object]

CHUNK = 1 << 20
_METADATA = "__metadata__"
_ALIGNMENT = 8  # of the first tensor, in the file
_DTYPES = {"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "int64": "I64"}
WRITABLE = frozenset(_DTYPES)  # dtypes of new tensors
_IN_FRONT = -1


class _Piece:
    """A tensor of the new file: its entry in the header, and its bytes, or where the old file's data has them."""

    __slots__ = ("data", "dtype", "name", "shape", "size", "start")

    def __init__(self, name: str, dtype: object, shape: object, start: int, size: int, data: bytes | None) -> None:
        self.name = name
        self.dtype = dtype
        self.shape = shape
        self.start = start
        self.size = size
        self.data = data


def write(source: ByteSource, edit: Edit, stream: Write) -> None:
    """Write the file with the edit made. UnreadableFile where it cannot be read, or a name cannot be."""
    length = int.from_bytes(source.read(0, 8), "little")
    header = parse(source.read(8, length))
    if not isinstance(header, dict):
        raise UnreadableFile("json", "the header is no JSON object", 8)
    metadata = header.pop(_METADATA, None)
    pieces = list(_pieces(edit, header))
    in_order = sorted(pieces, key=lambda piece: (piece.start, piece.size))
    text = _header(pieces, in_order, metadata)
    stream(len(text).to_bytes(8, "little") + text)
    for piece in in_order:
        if piece.data is not None:
            stream(piece.data)
            continue
        start = 8 + length + piece.start
        for offset in range(0, piece.size, CHUNK):
            stream(source.read(start + offset, min(CHUNK, piece.size - offset)))


def _pieces(edit: Edit, header: Mapping[str, Any]) -> Iterator[_Piece]:
    """The tensors of the new file, in the order of its header."""
    for key, entry in header.items():
        begin, end = entry["data_offsets"]
        if key in edit.replaced:
            new = edit.replaced[key]
            yield _new(edit.name(key), new, begin if len(new.data) == end - begin else _IN_FRONT)
        elif key not in edit.dropped:
            yield _Piece(edit.name(key), entry["dtype"], entry["shape"], begin, end - begin, None)
        if key in edit.added:
            name, new = edit.added[key]
            yield _new(edit.name(name), new, _IN_FRONT)


def _new(name: str, tensor: NewTensor, start: int) -> _Piece:
    """A new tensor. A counter has 8 bytes: in front of all others it leaves them aligned as they were."""
    return _Piece(name, _DTYPES[tensor.dtype], tensor.shape, start, len(tensor.data), tensor.data)


def _header(pieces: Sequence[_Piece], in_order: Sequence[_Piece], metadata: object) -> bytes:
    """The JSON of the header, filled up with blanks so that the data is aligned."""
    offsets: dict[str, list[int]] = {}
    at = 0
    for piece in in_order:
        offsets[piece.name] = [at, at + piece.size]
        at += piece.size
    if _METADATA in offsets:
        raise UnreadableFile("unsupported", f"safetensors keeps the name {_METADATA} for itself")
    entries: dict[str, object] = {} if metadata is None else {_METADATA: metadata}
    for piece in pieces:
        entries[piece.name] = {"dtype": piece.dtype, "shape": piece.shape, "data_offsets": offsets[piece.name]}
    text = dumps(entries, separators=(",", ":")).encode("ascii")
    return text + b" " * (-len(text) % _ALIGNMENT)
