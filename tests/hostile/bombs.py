"""Small files that ask for much memory or time: of a pickle machine, of an unpacker."""

import pickle as op
import zlib
from struct import pack

from .assembler import (
    NONE,
    TRUE,
    Claim,
    Directory,
    Entry,
    archive,
    call,
    dict_of,
    integer,
    integers,
    layer,
    list_of,
    named,
    ordered_dict,
    pickled,
    real,
    text,
    torch_entries,
    torch_zip,
)
from .case import bounded, hostile, sound, unreadable, unsafe
from .pickles import HEALTHY, beside_a_layer
from .zips import changed


def _flood(opcode: bytes, count: int, end: bytes = b"") -> bytes:
    return torch_zip(data_pkl=pickled(opcode * count + (end or NONE), protocol=4))


@hostile(bounded(), nasty=True, each={
    "mark_8_million": (op.MARK, 8_000_000),
    "empty_set_8_million": (op.EMPTY_SET, 8_000_000),
    "empty_dict_8_million": (op.EMPTY_DICT, 8_000_000),
    "empty_list_8_million": (op.EMPTY_LIST, 8_000_000),
    "empty_tuple_8_million": (op.EMPTY_TUPLE, 8_000_000),
    "none_60_million": (op.NONE, 60_000_000),
    "float_3_million": (real(1.5), 3_000_000),
    "ordered_dict_700_thousand": (call(named("collections", "OrderedDict")), 700_000),
    "short_text_3_million": (op.SHORT_BINUNICODE + b"\3abc", 3_000_000),
})  # fmt: skip
def flood(what: tuple[bytes, int]) -> bytes:
    """Millions of one opcode: each a byte or few in the file, each an object in memory."""
    return _flood(*what)


@hostile(bounded(), nasty=True, each={
    "mark_8_million": op.MARK * 8_000_000,
    "empty_set_8_million": op.EMPTY_SET * 8_000_000,
    "none_60_million": op.NONE * 60_000_000,
})  # fmt: skip
def raw_flood(body: bytes) -> bytes:
    """The same as a raw pickle."""
    return pickled(body, protocol=4)


@hostile(bounded(), nasty=True, each={"2_28": 1 << 28, "2_32": (1 << 32) - 1})
def memo_bomb(place: int) -> bytes:
    """LONG_BINPUT of a huge memo index: nine bytes that cost the C unpickler 4 GB (gh-115952)."""
    return pickled(NONE + op.LONG_BINPUT + pack("<I", place))


@hostile(sound(), nasty=True)
def memo_bomb_beside_a_layer() -> bytes:
    """A memo that holds one entry costs one entry, whatever its number."""
    return beside_a_layer(NONE + op.LONG_BINPUT + pack("<I", 1 << 28))


@hostile(bounded(), nasty=True)
def memo_of_a_huge_number() -> bytes:
    """PUT with a memo number of a hundred thousand digits."""
    return pickled(NONE + op.PUT + b"9" * 100_000 + b"\n")


@hostile(bounded(), nasty=True)
def memo_of_three_million() -> bytes:
    """MEMOIZE three million times."""
    return pickled(NONE + op.MEMOIZE * 3_000_000, protocol=4)


@hostile(bounded(), nasty=True, each={"list": op.EMPTY_LIST, "dict": op.EMPTY_DICT + text("k"), "tuple": op.MARK})
def nested_100_000_deep(opening: bytes) -> bytes:
    """Containers inside containers, far deeper than any stack."""
    closing = {op.EMPTY_LIST: op.APPEND, op.MARK: op.TUPLE}.get(opening, op.SETITEM)
    return beside_a_layer(opening * 100_000 + NONE + closing * 100_000)


@hostile(bounded(), nasty=True)
def tuple_1_million_deep() -> bytes:
    """TUPLE1 a million times: freeing it recurses too."""
    return beside_a_layer(op.EMPTY_TUPLE + op.TUPLE1 * 1_000_000)


@hostile(unsafe("computed|result"), nasty=True)
def reduce_100_000_deep() -> bytes:
    """A call of a call of a call."""
    return beside_a_layer(named("collections", "OrderedDict") + (op.EMPTY_TUPLE + op.REDUCE) * 100_000)


@hostile(bounded(), nasty=True)
def dotted_names_10_000_deep() -> bytes:
    """Nested state dicts whose dotted names grow with the square of the depth."""
    body = (op.EMPTY_DICT + text("layer")) * 10_000 + HEALTHY + op.SETITEM * 10_000
    return torch_zip(data_pkl=pickled(body))


def _dag(joined: bytes, levels: int) -> bytes:
    """x = (x, x), again and again: one object per level, 2^levels paths."""
    steps = b"".join(
        op.LONG_BINPUT + pack("<I", level) + op.POP
        + op.MARK * (joined == op.TUPLE)
        + (op.EMPTY_LIST + op.MARK) * (joined == op.APPENDS)
        + (op.LONG_BINGET + pack("<I", level)) * 2 + joined
        for level in range(levels)
    )  # fmt: skip
    return op.EMPTY_TUPLE + steps


@hostile(sound(), nasty=True, each={"tuples": op.TUPLE, "lists": op.APPENDS})
def billion_laughs(joined: bytes) -> bytes:
    """A graph of 119 containers with 2^119 paths through it: each may be visited once only."""
    return beside_a_layer(_dag(joined, 119))


@hostile(bounded(), nasty=True)
def billion_laughs_as_a_key() -> bytes:
    """The same graph as a dict key: its hash walks every path."""
    return beside_a_layer(dict_of([(_dag(op.TUPLE, 119), NONE)]))


@hostile(bounded(), nasty=True)
def nested_tuple_as_a_key() -> bytes:
    """A tuple of depth 500 000 as a dict key: hashing it overruns the C stack (gh-154318)."""
    return beside_a_layer(dict_of([(op.EMPTY_TUPLE + op.TUPLE1 * 500_000, NONE)]))


@hostile(bounded(), nasty=True)
def state_dicts_shared_2_to_the_60() -> bytes:
    """Dicts of dicts, each twice in the next, around a state dict: 2^60 names for one layer."""
    steps = b"".join(
        op.LONG_BINPUT + pack("<I", level) + op.POP
        + dict_of([(text(side), op.LONG_BINGET + pack("<I", level)) for side in "ab"])
        for level in range(100, 160)
    )  # fmt: skip
    return torch_zip(data_pkl=pickled(HEALTHY + steps))


@hostile(bounded(), nasty=True)
def one_tensor_under_200_000_names() -> bytes:
    """One running_var, memoised, under 200 000 names: as many layers of it."""
    claims = layer()
    variance = claims["bn.running_var"].pickled() + op.BINPUT + b"\x09"
    shared = [(text(f"bn{n}.running_var"), op.BINGET + b"\x09") for n in range(200_000)]
    return torch_zip(data_pkl=pickled(ordered_dict([(text("bn.running_var"), variance), *shared])))


@hostile(bounded(), nasty=True)
def colliding_keys() -> bytes:
    """50 000 integers with the same hash as keys: a dict of them takes quadratic time."""
    prime = (1 << 61) - 1
    keys = ((integer(n * prime), NONE) for n in range(50_000))
    return beside_a_layer(dict_of(keys))


@hostile(bounded(), nasty=True)
def colliding_set_members() -> bytes:
    """The same in a set."""
    prime = (1 << 61) - 1
    members = b"".join(integer(n * prime) for n in range(50_000))
    return torch_zip(data_pkl=pickled(op.EMPTY_SET + op.MARK + members + op.ADDITEMS, protocol=4))


@hostile(bounded(), nasty=True)
def a_million_scalar_keys() -> bytes:
    """A dict of a million numbers is not a million nodes to visit."""
    return torch_zip(data_pkl=pickled(dict_of((integer(n), TRUE) for n in range(1_000_000))))


@hostile(bounded(), nasty=True)
def fifty_thousand_globals() -> bytes:
    """Fifty thousand different classes are named."""
    return torch_zip(data_pkl=pickled(list_of(*(named("lib", f"Class{n}") for n in range(50_000)))))


@hostile(bounded(), nasty=True, each={
    "long_text_of_a_million_digits": op.LONG + b"9" * 1_000_000 + b"L\n",
    "int_text_of_a_million_digits": op.INT + b"9" * 1_000_000 + b"\n",
    "float_text_of_a_million_digits": op.FLOAT + b"9" * 1_000_000 + b"\n",
    "long4_of_a_megabyte": op.LONG4 + pack("<i", 1 << 20) + b"\xff" * ((1 << 20) - 1) + b"\x7f",
    "long4_negative_of_a_megabyte": op.LONG4 + pack("<i", 1 << 20) + b"\xff" * (1 << 20),
    "global_of_ten_megabytes": named("m" * 10_000_000, "name"),
    "text_of_thirty_megabytes": text("x" * 30_000_000),
})  # fmt: skip
def giant(value: bytes) -> bytes:
    """One value of absurd length."""
    return beside_a_layer(value)


@hostile(bounded(), nasty=True)
def data_pkl_of_a_hundred_megabytes() -> bytes:
    """Honest and far too long: text after text."""
    return torch_zip(data_pkl=pickled((text("x" * 1_000_000) + op.POP) * 100 + HEALTHY))


@hostile(bounded(), nasty=True)
def doubling_by_dup() -> bytes:
    """A list that holds itself a million times over."""
    return beside_a_layer(op.EMPTY_LIST + op.MEMOIZE + op.MARK + (op.BINGET + b"\0") * 1_000_000 + op.APPENDS)


def zeros_deflated(size: int) -> bytes:
    """A deflate stream of `size` zeros: after a full flush a block does not know what was before it."""
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    megabyte = deflate.compress(bytes(1 << 20)) + deflate.flush(zlib.Z_FULL_FLUSH)
    return megabyte * (size >> 20) + deflate.flush()


@hostile(unreadable("overlap|limit|inflat|entries|same bytes|share"), nasty=True)
def overlapping_bomb() -> bytes:
    """A thousand entries share one deflate stream of 100 MB (the quine bombs of Fifield 2019)."""
    stream = zeros_deflated(100 << 20)
    kernel = Entry("model/data/100", stream, method=8, size=100 << 20)
    others = [
        Entry(f"model/data/{n}", b"", method=8, size=100 << 20, compressed_size=len(stream), offset=0, shares=True)
        for n in range(101, 1101)
    ]
    return archive([kernel, *others, *torch_entries()])


@hostile(bounded(), nasty=True)
def a_hundred_thousand_entries() -> bytes:
    """A directory of 100 000 empty entries."""
    end = [Entry(f"model/data/{n}", b"", offset=0, shares=True) for n in range(100, 100_100)]
    return archive([*torch_entries(), *end], Directory(entries=len(end) % 65536))


@hostile(
    unreadable("limit|inflat|large|bytes|size|does not end"),
    nasty=True,
    each={"honest_size": 2 << 30, "size_lies": 4000},
)
def data_pkl_bomb(size: int) -> bytes:
    """A data.pkl of 2 MB that inflates to 2 GB."""
    return archive(changed("data.pkl", data=zeros_deflated(2 << 30), method=8, size=size))


@hostile(bounded(), nasty=True, each={"honest_size": 1 << 30, "size_lies": 16})
def record_bomb(size: int) -> bytes:
    """The record of a statistic inflates to 1 GB, of which 16 bytes are asked for."""
    return archive(changed("data/3", data=zeros_deflated(1 << 30), method=8, size=size))


@hostile(bounded(), nasty=True)
def statistics_of_far_strides() -> bytes:
    """Eight hundred vectors of sixteen numbers that lie 4 MB apart in one record: 48 GB to read them naively."""
    count = 15 << 20
    far = Claim(bytes(4 * count), integers([16]), "3", integer(count), integers([(count - 1) // 15]))
    leaves = ("running_mean", "running_var")
    return torch_zip({f"bn{number}.{leaf}": far for number in range(400) for leaf in leaves})
