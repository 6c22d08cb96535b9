"""Pickles and torch files written byte by byte, so that every field of them can lie. Needs no torch."""

from __future__ import annotations

import pickle as op
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from struct import pack

# -- pickle ------------------------------------------------------------------------------------------


def pickled(*parts: bytes, protocol: int = 2) -> bytes:
    """A whole pickle."""
    return op.PROTO + bytes([protocol]) + b"".join(parts) + op.STOP


def named(module: str, name: str) -> bytes:
    """A global, the old way: GLOBAL."""
    return op.GLOBAL + f"{module}\n{name}\n".encode()


def stacked(module: str, name: str) -> bytes:
    """A global, the new way: STACK_GLOBAL."""
    return text(module) + text(name) + op.STACK_GLOBAL


def text(value: str) -> bytes:
    encoded = value.encode("utf-8", "surrogatepass")
    return op.BINUNICODE + pack("<I", len(encoded)) + encoded


def byte_text(value: bytes) -> bytes:
    """A str of Python 2."""
    return op.SHORT_BINSTRING + bytes([len(value)]) + value


def integer(value: int) -> bytes:
    if -(1 << 31) <= value < 1 << 31:
        return op.BININT + pack("<i", value)
    encoded = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return op.LONG1 + bytes([len(encoded)]) + encoded


def real(value: float) -> bytes:
    return op.BINFLOAT + pack(">d", value)


def tuple_of(*parts: bytes) -> bytes:
    return op.MARK + b"".join(parts) + op.TUPLE


def list_of(*parts: bytes) -> bytes:
    return op.EMPTY_LIST + op.MARK + b"".join(parts) + op.APPENDS


def dict_of(pairs: Iterable[tuple[bytes, bytes]]) -> bytes:
    return op.EMPTY_DICT + op.MARK + b"".join(key + value for key, value in pairs) + op.SETITEMS


def call(callee: bytes, *arguments: bytes) -> bytes:
    return callee + tuple_of(*arguments) + op.REDUCE


def integers(values: Sequence[int]) -> bytes:
    return tuple_of(*map(integer, values))


NONE, TRUE, FALSE = op.NONE, op.NEWTRUE, op.NEWFALSE
ORDERED_DICT = named("collections", "OrderedDict")
NO_HOOKS = call(ORDERED_DICT)
REBUILD = named("torch._utils", "_rebuild_tensor_v2")


def ordered_dict(pairs: Iterable[tuple[bytes, bytes]], state: bytes = b"") -> bytes:
    """An OrderedDict with its items, and what BUILD gives it."""
    items = op.MARK + b"".join(key + value for key, value in pairs) + op.SETITEMS
    return NO_HOOKS + items + (state + op.BUILD if state else b"")


# -- tensors -----------------------------------------------------------------------------------------

WEIGHT = (0.93, 1.12, 0.71, 1.04)
BIAS = (0.11, -0.27, 0.05, -0.02)
MEAN = (0.31, -0.12, 0.84, 0.02)
VAR = (0.91, 1.73, 0.42, 1.16)


@dataclass(frozen=True)
class Claim:
    """What a file claims of one tensor, and the bytes it really holds.

    The fields that pickles carry are pickled parts, so any of them can be of any type.
    """

    data: bytes
    size: bytes
    key: str = "0"
    numel: bytes = b""
    stride: bytes = integers((1,))
    offset: bytes = integer(0)
    storage: bytes = named("torch", "FloatStorage")
    location: bytes = text("cpu")
    rebuilt: bytes | None = field(default=None)  # the whole tensor, where it is not a plain one

    def but(self, **changed: object) -> Claim:
        return replace(self, **changed)  # type: ignore[arg-type]

    def identity(self) -> bytes:
        """The persistent id of its storage."""
        return tuple_of(text("storage"), self.storage, text(self.key), self.location, self.numel)

    def pickled(self, storage: bytes | None = None) -> bytes:
        if self.rebuilt is not None:
            return self.rebuilt
        persistent = self.identity() + op.BINPERSID if storage is None else storage
        return call(REBUILD, persistent, self.offset, self.size, self.stride, FALSE, NO_HOOKS)


def floats(values: Sequence[float], key: str = "0") -> Claim:
    """An honest float32 vector."""
    numel = integer(len(values))
    return Claim(pack(f"<{len(values)}f", *values), integers([len(values)]), key, numel)


def counter(value: int = 10_000, key: str = "4") -> Claim:
    """An honest num_batches_tracked."""
    return Claim(pack("<q", value), integers([]), key, integer(1), integers([]), storage=named("torch", "LongStorage"))


def layer(name: str = "bn", first_key: int = 0, **changed: Claim) -> dict[str, Claim]:
    """A healthy BatchNorm layer of four channels, but for what is given."""
    leaves = {
        "weight": floats(WEIGHT),
        "bias": floats(BIAS),
        "running_mean": floats(MEAN),
        "running_var": floats(VAR),
        "num_batches_tracked": counter(),
    }
    prefix = f"{name}." if name else ""
    return {
        prefix + leaf: changed[leaf] if leaf in changed else honest.but(key=str(first_key + place))
        for place, (leaf, honest) in enumerate(leaves.items())
    }


METADATA = dict_of(
    [
        (
            text("_metadata"),
            ordered_dict(
                [
                    (text(""), dict_of([(text("version"), integer(1))])),
                    (text("bn"), dict_of([(text("version"), integer(2))])),
                ]
            ),
        )
    ]
)


def state_dict(claims: Mapping[str, Claim], state: bytes = METADATA) -> bytes:
    """An OrderedDict of tensors, as `torch.save(model.state_dict())` writes it."""
    return ordered_dict([(text(name), claim.pickled()) for name, claim in claims.items()], state)


# -- zip ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Entry:
    """One entry of a zip archive; what is None is told as it is."""

    name: str | bytes
    data: bytes
    method: int = 0
    flags: int = 0x0808
    compressed_size: int | None = None
    size: int | None = None
    offset: int | None = None
    local_name: bytes | None = None
    local_extra: bytes | None = None
    local_extra_length: int | None = None
    extra: bytes = b""
    extra_length: int | None = None
    name_length: int | None = None
    comment_length: int = 0
    crc: int = 0
    hidden: bool = False  # not in the central directory
    shares: bool = False  # has no local header and data of its own

    def but(self, **changed: object) -> Entry:
        return replace(self, **changed)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Directory:
    """What the end of the central directory says; what is None is told as it is."""

    disk: int = 0
    entries: int | None = None
    size: int | None = None
    offset: int | None = None
    comment: bytes = b""
    comment_length: int | None = None
    before: bytes = b""  # between the central directory and its end: the place of the zip64 records
    signature: bytes = b"PK\5\6"


def archive(entries: Sequence[Entry], directory: Directory | None = None, *, align: int = 64) -> bytes:
    """A zip archive the way torch writes one: no sizes in the local headers, data aligned to 64 bytes."""
    return b"".join(archive_parts(entries, directory, align=align))


def archive_parts(entries: Sequence[Entry], directory: Directory | None = None, *, align: int = 64) -> list[bytes]:
    """The archive in its structural parts: local header and data of each entry, central headers, the end."""
    told = directory or Directory()
    parts: list[bytes] = []
    central: list[bytes] = []
    place = 0
    for entry in entries:
        name = entry.name if isinstance(entry.name, bytes) else entry.name.encode()
        start = place
        if not entry.shares:
            local_name = name if entry.local_name is None else entry.local_name
            extra = entry.local_extra
            if extra is None:
                padding = -(place + 30 + len(local_name) + 4) % align
                extra = b"FB" + pack("<H", padding) + b"Z" * padding
            extra_length = len(extra) if entry.local_extra_length is None else entry.local_extra_length
            header = pack(
                "<4s5H3I2H", b"PK\3\4", 0, entry.flags, entry.method, 0, 0, 0, 0, 0, len(local_name), extra_length
            )
            parts += [header + local_name + extra, entry.data]
            place += sum(map(len, parts[-2:]))
        if not entry.hidden:
            central.append(_central_header(entry, name, start))
    size = sum(map(len, central))
    end = pack(
        "<4s4H2IH",
        told.signature,
        told.disk,
        told.disk,
        *[len(central) if told.entries is None else told.entries] * 2,
        size if told.size is None else told.size,
        place if told.offset is None else told.offset,
        len(told.comment) if told.comment_length is None else told.comment_length,
    )
    return [*parts, *central, told.before, end, told.comment]


def _central_header(entry: Entry, name: bytes, start: int) -> bytes:
    return (
        pack(
            "<4s6H3I5H2I",
            b"PK\1\2",
            0,
            0,
            entry.flags,
            entry.method,
            0,
            0,
            entry.crc,
            len(entry.data) if entry.compressed_size is None else entry.compressed_size,
            len(entry.data) if entry.size is None else entry.size,
            len(name) if entry.name_length is None else entry.name_length,
            len(entry.extra) if entry.extra_length is None else entry.extra_length,
            entry.comment_length,
            0,
            0,
            0,
            start if entry.offset is None else entry.offset,
        )
        + name
        + entry.extra
    )


# -- torch's containers ------------------------------------------------------------------------------


def torch_entries(
    claims: Mapping[str, Claim] | None = None, data_pkl: bytes | None = None, *, stem: str = "model"
) -> list[Entry]:
    """The entries of a torch zip in the order torch writes them; data.pkl second to none but itself."""
    claims = layer() if claims is None else claims
    root = pickled(state_dict(claims)) if data_pkl is None else data_pkl
    records = {claim.key: claim.data for claim in claims.values()}
    return [
        Entry(f"{stem}/data.pkl", root),
        Entry(f"{stem}/byteorder", b"little"),
        *(Entry(f"{stem}/data/{key}", data) for key, data in records.items()),
        Entry(f"{stem}/version", b"3\n"),
        Entry(f"{stem}/.data/serialization_id", b"0" * 40),
    ]


def torch_zip(claims: Mapping[str, Claim] | None = None, data_pkl: bytes | None = None) -> bytes:
    """A torch zip: a healthy one of a single BatchNorm layer where nothing else is asked."""
    return archive(torch_entries(claims, data_pkl))


MAGIC = 0x1950A86A20F9469CFC6C
SYSTEM = dict_of(
    [
        (text("protocol_version"), integer(1001)),
        (text("little_endian"), TRUE),
        (
            text("type_sizes"),
            dict_of([(text("short"), integer(2)), (text("int"), integer(4)), (text("long"), integer(4))]),
        ),
    ]
)


def legacy_storage(claim: Claim, view: bytes = NONE) -> bytes:
    """The persistent id of a storage as torch before 1.6 writes it."""
    return tuple_of(text("storage"), claim.storage, text(claim.key), claim.location, claim.numel, view) + op.BINPERSID


def legacy_state_dict(claims: Mapping[str, Claim], state: bytes = METADATA) -> bytes:
    return ordered_dict([(text(name), claim.pickled(legacy_storage(claim))) for name, claim in claims.items()], state)


def legacy_parts(
    claims: Mapping[str, Claim] | None = None,
    *,
    magic: bytes = integer(MAGIC),
    protocol: bytes = integer(1001),
    system: bytes = SYSTEM,
    root: bytes | None = None,
    keys: bytes | None = None,
    counts: Mapping[str, int] | None = None,
) -> list[bytes]:
    """A file of torch before 1.6 in its structural parts: five pickles, then a count and data per storage."""
    claims = layer() if claims is None else claims
    by_key = {claim.key: claim for claim in claims.values()}
    in_order = sorted(by_key)
    parts = [
        pickled(magic),
        pickled(protocol),
        pickled(system),
        pickled(legacy_state_dict(claims) if root is None else root),
        pickled(list_of(*map(text, in_order)) if keys is None else keys),
    ]
    for key in in_order:
        data = by_key[key].data
        item = 8 if b"LongStorage" in by_key[key].storage else 4
        parts += [pack("<q", (counts or {}).get(key, len(data) // item)), data]
    return parts


def legacy(claims: Mapping[str, Claim] | None = None, **told: object) -> bytes:
    """A file of torch before 1.6."""
    return b"".join(legacy_parts(claims, **told))  # type: ignore[arg-type]
