"""Pickles that are broken, that eat memory or time, or that no pickler would write. None of them runs anything.

Every one is the data.pkl of an honest torch zip unless its name says otherwise: a raw pickle of the
same bytes takes the same road.
"""

import pickle as op
from struct import pack

from .assembler import (
    METADATA,
    NONE,
    archive,
    byte_text,
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
    stacked,
    state_dict,
    text,
    torch_entries,
    torch_zip,
    tuple_of,
)
from .case import bounded, empty_handed, hostile, refused, sound, unreadable

BROKEN = (
    "pickle|opcode|stack|mark|memo|ends|truncat|short|beyond|past|protocol|unhashable|key|line|number|integer|float|"
    "string|utf|frame|limit|large|deep|text|byte"
)
HEALTHY = state_dict(layer())


def beside_a_layer(value: bytes) -> bytes:
    """A state dict and, beside it, something odd."""
    return torch_zip(data_pkl=pickled(dict_of([(text("odd"), value), (text("state_dict"), HEALTHY)])))


# -- broken ------------------------------------------------------------------------------------------

BROKEN_BODIES = {
    "get_of_a_missing_memo": op.BINGET + b"\7",
    "long_get_of_a_missing_memo": op.LONG_BINGET + pack("<I", 1 << 31),
    "text_get_of_a_missing_memo": op.GET + b"99999999999999999999\n",
    "text_get_of_no_number": op.GET + b"x\n",
    "put_on_an_empty_stack": op.BINPUT + b"\0",
    "memoize_on_an_empty_stack": op.MEMOIZE,
    "pop_on_an_empty_stack": op.POP,
    "dup_on_an_empty_stack": op.DUP,
    "stop_on_an_empty_stack": b"",
    "pop_mark_without_a_mark": op.POP_MARK,
    "tuple_without_a_mark": op.NONE + op.TUPLE,
    "tuple2_of_one": op.NONE + op.TUPLE2,
    "append_on_a_number": integer(1) + integer(2) + op.APPEND,
    "appends_on_a_dict": op.EMPTY_DICT + op.MARK + integer(1) + op.APPENDS,
    "setitem_on_a_list": op.EMPTY_LIST + integer(0) + integer(1) + op.SETITEM,
    "setitems_of_odd_number": op.EMPTY_DICT + op.MARK + integer(1) + op.SETITEMS,
    "setitems_without_a_mark": op.EMPTY_DICT + op.SETITEMS,
    "additems_on_a_list": op.EMPTY_LIST + op.MARK + integer(1) + op.ADDITEMS,
    "dict_of_odd_number": op.MARK + integer(1) + op.DICT,
    "build_on_a_number": integer(1) + op.EMPTY_DICT + op.BUILD,
    "build_without_a_state": op.EMPTY_DICT + op.BUILD,
    "reduce_on_a_number": integer(1) + tuple_of() + op.REDUCE,
    "reduce_on_nothing": op.REDUCE,
    "newobj_of_nothing": op.NEWOBJ,
    "obj_of_nothing": op.MARK + op.OBJ,
    "global_without_an_end": op.GLOBAL + b"collections OrderedDict",
    "global_with_half_an_end": op.GLOBAL + b"collections\nOrderedDict",
    "stack_global_of_numbers": integer(1) + integer(2) + op.STACK_GLOBAL,
    "stack_global_of_nothing": op.STACK_GLOBAL,
    "unknown_opcode": b"\xff",
    "zero_opcode": b"\0",
    "next_buffer_without_buffers": op.NEXT_BUFFER,
    "readonly_buffer_of_a_number": integer(1) + op.READONLY_BUFFER,
    "protocol_6_inside": op.PROTO + b"\6" + op.NONE,
    "frame_beyond_the_end": op.FRAME + pack("<Q", 1000) + op.NONE,
    "frame_2_63": op.FRAME + pack("<Q", 1 << 63) + op.NONE,
    "text_beyond_the_end": op.BINUNICODE + pack("<I", 1000) + b"x",
    "text8_of_2_63": op.BINUNICODE8 + pack("<Q", 1 << 63) + b"x",
    "bytes_beyond_the_end": op.BINBYTES + pack("<I", 1000) + b"x",
    "bytes8_of_2_63": op.BINBYTES8 + pack("<Q", 1 << 63) + b"x",
    "bytearray8_of_2_62": op.BYTEARRAY8 + pack("<Q", 1 << 62) + b"x",
    "string_of_negative_length": op.BINSTRING + pack("<i", -1) + b"x",
    "short_string_beyond_the_end": op.SHORT_BINSTRING + b"\xff" + b"x",
    "long4_of_negative_length": op.LONG4 + pack("<i", -1) + b"x",
    "long4_of_1_gb_that_is_not_there": op.LONG4 + pack("<i", 1 << 30) + b"x",
    "long1_beyond_the_end": op.LONG1 + b"\xff" + b"x",
    "quoted_string_without_an_end": op.STRING + b"'abc\n",
    "quoted_string_without_a_line": op.STRING + b"'abc'",
    "unicode_without_a_line": op.UNICODE + b"abc",
    "integer_that_is_none": op.INT + b"seven\n",
    "integer_of_underscores": op.INT + b"1_000\n",
    "integer_of_nothing": op.INT + b"\n",
    "long_that_is_none": op.LONG + b"0xL\n",
    "float_that_is_none": op.FLOAT + b"one\n",
    "key_that_is_a_list": dict_of([(list_of(), NONE)]),
    "key_that_is_a_dict": dict_of([(dict_of([]), NONE)]),
    "mark_as_a_value": op.EMPTY_DICT + text("a") + op.MARK + op.SETITEM,
}

# Python's own pickle opens these, or reasonable readers differ.
TOLERATED = {
    "integer_of_underscores",
    "key_that_is_a_list",
    "key_that_is_a_dict",
    "build_on_a_number",
    "reduce_on_a_number",
    "put_on_an_empty_stack",
    "text_get_of_a_missing_memo",
    "readonly_buffer_of_a_number",
    "frame_beyond_the_end",
    "frame_2_63",
    "protocol_6_inside",
    "mark_as_a_value",
}
REFUSED = {name: body for name, body in BROKEN_BODIES.items() if name not in TOLERATED}


@hostile(unreadable(BROKEN), each=REFUSED)
def broken(body: bytes) -> bytes:
    """A pickle that no unpickler can follow, as the data.pkl of a torch zip."""
    return torch_zip(data_pkl=pickled(body, protocol=5))


@hostile(refused(), "model.pkl", each=REFUSED)
def raw(body: bytes) -> bytes:
    """The same as a raw pickle: too little is left to say what it once was."""
    return pickled(body, protocol=5)


@hostile(bounded(), each={name: BROKEN_BODIES[name] for name in sorted(TOLERATED)})
def odd(body: bytes) -> bytes:
    """A pickle about which unpicklers differ."""
    return torch_zip(data_pkl=pickled(body, protocol=5))


@hostile(unreadable(BROKEN), each={
    "without_stop": pickled(HEALTHY)[:-1],
    "cut_in_half": pickled(HEALTHY)[: len(HEALTHY) // 2],
    "one_byte": b"\x80",
    "two_bytes": b"\x80\x02",
    "nothing_but_stop": b".",
})  # fmt: skip
def data_pkl(data: bytes) -> bytes:
    """A pickle that does not begin or end as pickles do."""
    return torch_zip(data_pkl=data)


@hostile(bounded(), each={"6": 6, "255": 255})
def protocol(number: int) -> bytes:
    """A protocol that Python does not know; torch only warns."""
    return torch_zip(data_pkl=pickled(HEALTHY, protocol=number))


@hostile(sound(), each={
    "rubbish": b"\xff" * 100,
    "another_pickle": pickled(NONE),
    "zeros": bytes(100_000),
})  # fmt: skip
def after_stop(trailing: bytes) -> bytes:
    """Bytes after the STOP of data.pkl, which torch never reads."""
    return torch_zip(data_pkl=pickled(HEALTHY) + trailing)


@hostile(sound())
def without_proto() -> bytes:
    """No PROTO opcode; Python's pickle does not need one."""
    return torch_zip(data_pkl=HEALTHY + op.STOP)


@hostile(sound())
def proto_twice() -> bytes:
    """PROTO in the middle of the stream."""
    return torch_zip(data_pkl=pickled(op.PROTO + b"\x02" + HEALTHY))


# -- goes in circles ---------------------------------------------------------------------------------


@hostile(sound(), each={
    "list": op.EMPTY_LIST + op.BINPUT + b"\x64" + op.BINGET + b"\x64" + op.APPEND,
    "dict": op.EMPTY_DICT + op.BINPUT + b"\x64" + text("me") + op.BINGET + b"\x64" + op.SETITEM,
    "tuple": op.EMPTY_LIST + op.BINPUT + b"\x64" + op.BINGET + b"\x64" + op.TUPLE1 + op.APPEND,
    "instance": (
        call(named("argparse", "Namespace")) + op.BINPUT + b"\x64"
        + dict_of([(text("me"), op.BINGET + b"\x64")]) + op.BUILD
    ),
})  # fmt: skip
def contains_itself(value: bytes) -> bytes:
    """A container inside itself, beside an honest state dict."""
    return beside_a_layer(value)


@hostile(sound())
def state_dict_inside_itself() -> bytes:
    """checkpoint["state_dict"] is the checkpoint."""
    body = op.EMPTY_DICT + op.BINPUT + b"\x64" + text("state_dict") + op.BINGET + b"\x64" + op.SETITEM
    body += text("model") + HEALTHY + op.SETITEM
    return torch_zip(data_pkl=pickled(body))


@hostile(bounded())
def metadata_inside_itself() -> bytes:
    """The `_metadata` of a state dict is the state dict."""
    items = [(text(name), claim.pickled()) for name, claim in layer().items()]
    body = call(named("collections", "OrderedDict")) + op.BINPUT + b"\x64" + op.MARK
    body += b"".join(key + value for key, value in items) + op.SETITEMS
    body += dict_of([(text("_metadata"), op.BINGET + b"\x64")]) + op.BUILD
    return torch_zip(data_pkl=pickled(body))


@hostile(bounded(), each={
    "number": integer(2),
    "text": text("version 2"),
    "list": list_of(integer(2)),
    "of_numbers": dict_of([(text("bn"), integer(2))]),
    "of_none": dict_of([(text("bn"), NONE)]),
    "with_odd_keys": dict_of([(NONE, dict_of([])), (integers((1, 2)), dict_of([]))]),
    "with_odd_versions": dict_of([(text("bn"), dict_of([(text("version"), real(float("nan")))]))]),
    "with_versions_of_text": dict_of([(text("bn"), dict_of([(text("version"), text("two"))]))]),
})  # fmt: skip
def metadata_is(metadata: bytes) -> bytes:
    """A `_metadata` that is not what torch writes."""
    return torch_zip(data_pkl=pickled(state_dict(layer(), dict_of([(text("_metadata"), metadata)]))))


@hostile(bounded(), each={
    "of_pairs": call(named("collections", "OrderedDict"), list_of(list_of(text("a"), integer(1)))),
    "of_a_number": call(named("collections", "OrderedDict"), integer(1)),
    "of_odd_pairs": call(named("collections", "OrderedDict"), list_of(list_of(text("a")))),
    "of_text": call(named("collections", "OrderedDict"), text("ab")),
    "built_with_a_number": call(named("collections", "OrderedDict")) + integer(1) + op.BUILD,
    "built_with_text": call(named("collections", "OrderedDict")) + text("x") + op.BUILD,
    "built_with_a_pair": call(named("collections", "OrderedDict")) + integers((1, 2)) + op.BUILD,
    "counter": call(named("collections", "Counter"), dict_of([(text("a"), text("b"))])),
    "defaultdict": call(named("collections", "defaultdict"), named("builtins", "list")),
    "deque": call(named("collections", "deque"), list_of(), integer(-1)),
    "namedtuple": call(named("collections", "namedtuple"), text("a"), text("class import")),
})  # fmt: skip
def collection(value: bytes) -> bytes:
    """The allowed containers, with arguments that they do not take."""
    return beside_a_layer(value)


# -- text that is none -------------------------------------------------------------------------------


@hostile(bounded(), each={
    "not_utf8": op.BINUNICODE + pack("<I", 2) + b"\xff\xfe",
    "lone_surrogate": text("\ud800"),
    "nul": text("\0"),
    "python_2_bytes": byte_text(b"\xff\xfe\x80"),
    "raw_unicode_escape": op.UNICODE + b"\\ud800\\U0010ffff\\u0000\n",
    "raw_unicode_escape_broken": op.UNICODE + b"\\u12\n",
    "string_escape": op.STRING + b"'\\xff\\n\\''\n",
    "string_escape_broken": op.STRING + b"'\\x'\n",
})  # fmt: skip
def words(value: bytes) -> bytes:
    """Text that is not what it says, as a value and as a key."""
    body = dict_of([(text("odd"), value), (value, NONE), (text("state_dict"), HEALTHY)])
    return torch_zip(data_pkl=pickled(body))


@hostile(bounded(), each={
    "bytes": byte_text(b"bn.running_var"),
    "number": integer(1),
    "none": NONE,
    "tuple": tuple_of(text("bn"), text("running_var")),
    "float": real(float("nan")),
    "global": named("torch", "float32"),
    "tensor": layer()["bn.weight"].pickled(),
})  # fmt: skip
def key(value: bytes) -> bytes:
    """A state dict with one key that is no text."""
    claims = layer()
    pairs = [(text(name), claim.pickled()) for name, claim in claims.items()]
    return torch_zip(data_pkl=pickled(ordered_dict([*pairs, (value, claims["bn.running_var"].pickled())], METADATA)))


@hostile(empty_handed(), "model.pkl", each={
    "number": integer(1),
    "text": text("hello"),
    "list": list_of(integer(1), text("a")),
    "dict": dict_of([(text("lr"), real(0.1))]),
    "none": NONE,
})  # fmt: skip
def raw_pickle_of_a(value: bytes) -> bytes:
    """An honest pickle of something that is no model."""
    return pickled(value)


@hostile(
    empty_handed(), "model.pkl", each={"protocol_0": b"(dp0\nS'lr'\np1\nF0.1\ns.", "protocol_1": b"}q\0(U\2lrq\1K\1u."}
)
def raw_pickle_of_old(data: bytes) -> bytes:
    """A pickle of Python 2, whose first byte does not say so."""
    return data


@hostile(bounded(), "model.pkl")
def raw_pickle_with_a_persistent_id() -> bytes:
    """BINPERSID where there is nobody to ask."""
    return pickled(tuple_of(text("storage")) + op.BINPERSID)


@hostile(bounded(), "model.pkl", each={"text": b"P12\n.", "no_line": b"P12", "binary_of_nothing": b"Q."})
def old_persistent_id(data: bytes) -> bytes:
    """The persistent id of protocol 0."""
    return op.PROTO + b"\2" + data


@hostile(bounded(), "model.pkl", nasty=True)
def a_thousand_stacked_pickles() -> bytes:
    """Pickle after pickle in one file."""
    return pickled(dict_of([(text("a"), integer(1))])) * 1000


@hostile(bounded())
def globals_that_stay() -> bytes:
    """A state dict whose values are classes."""
    return torch_zip(data_pkl=pickled(dict_of([(text("bn.running_var"), stacked("torch", "Tensor"))]), protocol=4))


@hostile(bounded())
def frames_out_of_order() -> bytes:
    """Frames that begin inside frames."""
    inner = op.FRAME + pack("<Q", 3) + HEALTHY
    framed = op.FRAME + pack("<Q", len(inner) + 1) + inner
    return archive(torch_entries(data_pkl=pickled(framed, protocol=4)))
