"""Files of torch before 1.6: five pickles, then a count and data per storage. Something in them lies."""

import pickle as op
from struct import pack

from .assembler import (
    FALSE,
    MAGIC,
    NONE,
    TRUE,
    VAR,
    byte_text,
    dict_of,
    floats,
    integer,
    integers,
    layer,
    legacy,
    legacy_parts,
    legacy_state_dict,
    legacy_storage,
    list_of,
    named,
    ordered_dict,
    pickled,
    real,
    text,
    tuple_of,
)
from .case import Expected, bounded, hostile, noted, refused, sound, unreadable

DAMAGED = "truncat|ends|short|beyond|past|outside|missing|storage|count|bytes|pickle|key|elements|negative"
_PARTS = legacy_parts()
_CUTS = {f"after_part_{n}": len(b"".join(_PARTS[:n])) for n in range(1, len(_PARTS))}
_CUTS |= {"in_the_object": len(b"".join(_PARTS[:3])) + 200, "in_the_last_number": len(b"".join(_PARTS)) - 3}
KEYS = [text(str(number)) for number in range(5)]


@hostile(lambda size: refused() if size < 200 else unreadable(DAMAGED), each=_CUTS)
def truncated(size: int) -> bytes:
    """Cut off, at every boundary between its pickles and its storages and inside them."""
    return legacy()[:size]


@hostile(
    unreadable(DAMAGED),
    each={
        "negative": {"3": -1},
        "very_negative": {"3": -(1 << 63)},
        "2_62": {"3": 1 << 62},
        "too_small": {"3": 2},
        "too_large": {"3": 400},
        "zero": {"3": 0},
        "first_too_large": {"0": 1 << 40},
    },
)
def count(counts: dict[str, int]) -> bytes:
    """The count before a storage lies."""
    return legacy(counts=counts)


@hostile(unreadable(DAMAGED), each={"empty": list_of(), "one_short": list_of(*KEYS[:4])})
def keys_missing(keys: bytes) -> bytes:
    """The list of storages lacks one that the object uses."""
    return legacy(keys=keys)


@hostile(
    bounded(),
    each={
        "one_too_many": list_of(*KEYS, text("77")),
        "twice": list_of(*KEYS[:4], KEYS[3]),
        "in_another_order": list_of(*KEYS[::-1]),
        "numbers": list_of(*map(integer, range(5))),
        "a_tuple": tuple_of(*KEYS),
        "a_dict": dict_of([(key, NONE) for key in KEYS]),
        "a_number": integer(5),
        "text": text("01234"),
        "none": NONE,
        "lists": list_of(list_of()),
    },
)
def keys_are(keys: bytes) -> bytes:
    """The list of storages is not the list that torch writes."""
    return legacy(keys=keys)


@hostile(
    bounded(),
    each={"one_more": integer(MAGIC + 1), "negative": integer(-MAGIC), "text": text("torch"), "none": NONE},
)
def magic(value: bytes) -> bytes:
    """Another magic number: a raw pickle of a number, with something behind it."""
    return legacy(magic=value)


@hostile(Expected((0, 1), ("unsupported-format", "unreadable-checkpoint"), None, "1002", ("skipped", "unreadable")))
def protocol_1002() -> bytes:
    """A version that does not exist yet."""
    return legacy(protocol=integer(1002))


@hostile(
    unreadable("protocol|version"),
    each={"negative": integer(-1), "text": text("1001"), "huge": integer(1 << 100), "none": NONE},
)
def protocol(value: bytes) -> bytes:
    """A protocol that no torch has ever written; torch refuses it."""
    return legacy(protocol=value)


@hostile(
    bounded(),
    each={
        "number": integer(1),
        "empty": dict_of([]),
        "list": list_of(),
        "endian_of_text": dict_of([(text("little_endian"), text("no"))]),
        "big_endian": dict_of([(text("little_endian"), FALSE)]),
        "longs_of_8": dict_of(
            [(text("type_sizes"), dict_of([(text("long"), integer(8))])), (text("little_endian"), TRUE)]
        ),
    },
)
def system_info(value: bytes) -> bytes:
    """The third pickle, which torch reads and ignores."""
    return legacy(system=value)


def with_view(view: bytes) -> bytes:
    claims = layer()
    rebuilt = claims["bn.running_var"].pickled(legacy_storage(claims["bn.running_var"], view))
    return legacy({**claims, "bn.running_var": claims["bn.running_var"].but(rebuilt=rebuilt)})


@hostile(
    unreadable(DAMAGED + "|view"),
    each={
        "offset_beyond": (text("v"), integer(4), integer(4)),
        "offset_negative": (text("v"), integer(-2), integer(4)),
        "offset_2_62": (text("v"), integer(1 << 62), integer(4)),
        "numel_too_small": (text("v"), integer(0), integer(2)),
    },
)
def view(parts: tuple[bytes, ...]) -> bytes:
    """A storage that is a view of another one, and reaches outside it."""
    return with_view(tuple_of(*parts))


@hostile(
    bounded(),
    each={
        "numel_too_large": tuple_of(text("v"), integer(0), integer(1 << 40)),
        "a_number": integer(1),
        "of_two": tuple_of(text("v"), integer(0)),
        "of_text": tuple_of(text("v"), text("0"), text("4")),
        "of_none": tuple_of(NONE, NONE, NONE),
        "numel_negative": tuple_of(text("v"), integer(0), integer(-4)),
        "nested": tuple_of(tuple_of(), list_of(), dict_of([])),
    },
)
def view_is(view: bytes) -> bytes:
    """A view that is not what torch writes."""
    return with_view(view)


@hostile(sound())
def honest_view() -> bytes:
    """A view of the whole storage, as old torch writes for a storage that is shared."""
    return with_view(tuple_of(text("v"), integer(0), integer(4)))


@hostile(
    bounded(),
    each={
        "two_types_for_one_key": floats(VAR, "2").but(storage=named("torch", "LongStorage")),
        "two_sizes_for_one_key": floats(VAR, "2").but(numel=integer(400)),
        "numel_negative": floats(VAR, "3").but(numel=integer(-4)),
        "numel_of_text": floats(VAR, "3").but(numel=text("4")),
        "key_none": floats(VAR, "3").but(location=NONE),
    },
)
def storage(claim: object) -> bytes:
    """The persistent id of a storage contradicts another one, or itself."""
    return legacy(layer(running_var=claim))  # type: ignore[arg-type]


@hostile(
    unreadable("type|storage|unknown|dtype"), each={"unknown": named("torch", "HyperStorage"), "number": integer(4)}
)
def storage_type(kind: bytes) -> bytes:
    """A storage of a type whose element size nobody knows: all that follows is unreadable."""
    return legacy(layer(running_var=floats(VAR, "3").but(storage=kind)))


@hostile(noted("net|Net"))
def source_of_a_module() -> bytes:
    """A whole model, whose source text torch used to keep in the file."""
    source = tuple_of(text("module"), named("net", "Net"), text("net.py"), text("import os; os.system('touch CANARY')"))
    root = dict_of([(text("state_dict"), legacy_state_dict(layer())), (text("net"), source + op.BINPERSID)])
    return legacy(root=root)


@hostile(sound())
def python_2() -> bytes:
    """Byte strings for every name, as Python 2 wrote them: read with latin1."""
    claims = layer()
    pairs = [(byte_text(name.encode()), claim.pickled(legacy_storage(claim))) for name, claim in claims.items()]
    return legacy(root=ordered_dict(pairs))


@hostile(sound())
def python_2_with_latin1_names() -> bytes:
    """Byte strings that are no UTF-8."""
    claims = layer()
    pairs = [(byte_text(name.encode()), claim.pickled(legacy_storage(claim))) for name, claim in claims.items()]
    return legacy(root=ordered_dict([*pairs, (byte_text(b"caf\xe9\xff"), integer(1))]))


@hostile(bounded())
def no_tensors() -> bytes:
    """A file of old torch that holds a number."""
    return legacy({}, root=integer(7))


@hostile(sound())
def trailing_bytes() -> bytes:
    """Something behind the last storage."""
    return legacy() + b"x" * 5000


@hostile(
    unreadable(DAMAGED), each={"nothing": b"", "zeros": bytes(4096), "text": b"and then the disk was full\n" * 200}
)
def only_the_magic(rest: bytes) -> bytes:
    """The first pickle and then something else."""
    return pickled(integer(MAGIC)).ljust(14, b"\0") + rest if len(rest) > 200 else pickled(integer(MAGIC)) + bytes(300)


@hostile(bounded(), nasty=True)
def two_million_storages() -> bytes:
    """A list of two million storages, none of which is there."""
    return legacy(keys=list_of(*(text(str(n)) for n in range(2_000_000))))


@hostile(unreadable(DAMAGED))
def object_that_is_cut_by_the_next_pickle() -> bytes:
    """The object lacks its STOP: what follows is read as part of it."""
    parts = legacy_parts()
    parts[3] = parts[3][:-1]
    return b"".join(parts)


@hostile(bounded())
def everything_is_a_float() -> bytes:
    """The five pickles are numbers with a point."""
    return b"".join(pickled(real(float(value))) for value in (MAGIC, 1001, 0, 0, 0)) + pack("<q", 0) + b"\0" * 200


@hostile(bounded())
def sizes_of_truth() -> bytes:
    """The size of a statistic is a truth value."""
    return legacy(layer(running_var=floats([1.0], "3").but(size=tuple_of(TRUE), stride=integers([1]))))
