"""The opcodes that are rare in checkpoints: a handler for each (Lib/pickletools.py says what they do)."""

from __future__ import annotations

from struct import unpack

from bnlint.errors import UnreadableFile
from bnlint.readers.long_bytes import BYTES, ESCAPED, ESCAPED_TEXT, TEXT, unescaped
from bnlint.readers.pickle_keys import dict_key, set_member
from bnlint.readers.rebuild import build
from bnlint.readers.values import Instance, Opaque

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from bnlint.readers.pickle_machine import PickleMachine

    Handler = Callable[[PickleMachine], None]

HIGHEST_PROTOCOL = 5
TEXT_LIMIT = 4096  # bytes of a text that is made a str; a longer one stays in the file
BYTES_LIMIT = 512  # the same for byte strings, of which most are the numbers of an array
INTEGER_LIMIT = 1024  # bytes
NUMBER_LIMIT = 4300  # digits, as in Python
NAME_LIMIT = 1 << 16
_PLACE_DIGITS = 18  # of a place in the memo: larger integers could share a hash
_SET_BYTES, _MEMBER_BYTES = 220, 60  # what they take in Python


# -- strings -------------------------------------------------------------------------------------------


def _push_text(machine: PickleMachine, nbytes: int) -> None:
    if nbytes > TEXT_LIMIT:
        machine.stack.append(machine.skip(nbytes, TEXT))
    else:
        machine.stack.append(machine.take(nbytes).decode("utf-8", "surrogatepass"))


def _push_bytes(machine: PickleMachine, nbytes: int) -> None:
    machine.stack.append(machine.skip(nbytes) if nbytes > BYTES_LIMIT else machine.take(nbytes))


def _push_python2_string(machine: PickleMachine, nbytes: int) -> None:
    """A str of Python 2 is text or bytes, nobody knows: latin1 keeps both."""
    machine.python2 = True
    if nbytes > BYTES_LIMIT:
        machine.stack.append(machine.skip(nbytes, BYTES))
    else:
        machine.stack.append(machine.take(nbytes).decode("latin1"))


def _binunicode(machine: PickleMachine) -> None:
    _push_text(machine, machine.unsigned(4))


def _binunicode8(machine: PickleMachine) -> None:
    _push_text(machine, machine.unsigned(8))


def _short_binbytes(machine: PickleMachine) -> None:
    _push_bytes(machine, machine.unsigned(1))


def _binbytes(machine: PickleMachine) -> None:
    _push_bytes(machine, machine.unsigned(4))


def _binbytes8(machine: PickleMachine) -> None:
    _push_bytes(machine, machine.unsigned(8))


def _short_binstring(machine: PickleMachine) -> None:
    _push_python2_string(machine, machine.unsigned(1))


def _binstring(machine: PickleMachine) -> None:
    (nbytes,) = unpack("<i", machine.take(4))
    if nbytes < 0:
        raise ValueError
    _push_python2_string(machine, nbytes)


def _string(machine: PickleMachine) -> None:
    machine.python2 = True
    length = machine.line_length(machine.source.size)
    if length < 2:
        raise ValueError
    opening = machine.take(1)
    if length > BYTES_LIMIT:
        machine.stack.append(machine.skip(length - 2, ESCAPED))
    else:
        machine.stack.append(unescaped(machine.take(length - 2)).decode("latin1"))
    closing = machine.take(2)
    if opening not in (b"'", b'"') or closing != opening + b"\n":
        raise ValueError


def _unicode(machine: PickleMachine) -> None:
    length = machine.line_length(machine.source.size)
    if length > TEXT_LIMIT:
        machine.stack.append(machine.skip(length, ESCAPED_TEXT))
    else:
        machine.stack.append(machine.take(length).decode("raw-unicode-escape"))
    machine.take(1)


# -- numbers -------------------------------------------------------------------------------------------


def _binfloat(machine: PickleMachine) -> None:
    machine.stack.append(unpack(">d", machine.take(8))[0])


def _push_integer(machine: PickleMachine, nbytes: int) -> None:
    if nbytes > INTEGER_LIMIT:
        machine.skip(nbytes)
        machine.stack.append(Opaque(f"an integer of {nbytes} bytes"))
    else:
        machine.stack.append(int.from_bytes(machine.take(nbytes), "little", signed=True))


def _long1(machine: PickleMachine) -> None:
    _push_integer(machine, machine.unsigned(1))


def _long4(machine: PickleMachine) -> None:
    _push_integer(machine, machine.unsigned(4))


def _int(machine: PickleMachine) -> None:
    text = machine.line(NUMBER_LIMIT)
    machine.stack.append({b"00": False, b"01": True}[text] if text in (b"00", b"01") else int(text))


def _long(machine: PickleMachine) -> None:
    machine.stack.append(int(machine.line(NUMBER_LIMIT).removesuffix(b"L")))


def _float(machine: PickleMachine) -> None:
    machine.stack.append(float(machine.line(NUMBER_LIMIT)))


# -- containers ----------------------------------------------------------------------------------------


def _tuple(machine: PickleMachine) -> None:
    items = tuple(machine.pop_mark())
    machine.stack.append(items)


def _empty_list(machine: PickleMachine) -> None:
    machine.stack.append([])


def _list(machine: PickleMachine) -> None:
    items = machine.pop_mark()
    machine.stack.append(items)


def _append(machine: PickleMachine) -> None:
    item = machine.stack.pop()
    _extend(machine, [item])


def _appends(machine: PickleMachine) -> None:
    _extend(machine, machine.pop_mark())


def _extend(machine: PickleMachine, items: list[object]) -> None:
    target = machine.stack[-1]
    if type(target) is list:
        target.extend(items)
    elif type(target) is Instance:
        target.elements = target.elements or []
        target.elements.extend(items)
    else:
        raise TypeError


def _dict(machine: PickleMachine) -> None:
    pairs = machine.pop_mark()
    machine.stack.append({})
    _set_items(machine, pairs)


def _setitem(machine: PickleMachine) -> None:
    value = machine.stack.pop()
    key = machine.stack.pop()
    _set_items(machine, [key, value])


def _setitems(machine: PickleMachine) -> None:
    _set_items(machine, machine.pop_mark())


def _set_items(machine: PickleMachine, pairs: list[object]) -> None:
    target = machine.stack[-1]
    keys = pairs[0::2]
    if {*map(type, keys)} != {str}:
        keys = [dict_key(machine, key) for key in keys]
    items = zip(keys, pairs[1::2], strict=True)
    if isinstance(target, dict):
        target.update(items)
    elif type(target) is Instance:
        target.items = target.items or []
        target.items.extend(items)
    else:
        raise TypeError


def _empty_set(machine: PickleMachine) -> None:
    machine.charge(_SET_BYTES)
    machine.stack.append(set())


def _additems(machine: PickleMachine) -> None:
    items = machine.pop_mark()
    machine.charge(_MEMBER_BYTES * len(items))
    target = machine.stack[-1]
    if type(target) is set:
        target.update([set_member(machine, item) for item in items])
    elif type(target) is Instance:
        target.elements = target.elements or []
        target.elements.extend(items)
    else:
        raise TypeError


def _frozenset(machine: PickleMachine) -> None:
    items = machine.pop_mark()
    machine.charge(_SET_BYTES + _MEMBER_BYTES * len(items))
    machine.stack.append(frozenset([set_member(machine, item) for item in items]))


# -- the stack and the memo ----------------------------------------------------------------------------


def _pop(machine: PickleMachine) -> None:
    if machine.stack:
        machine.stack.pop()
    else:
        machine.pop_mark()


def _pop_mark(machine: PickleMachine) -> None:
    machine.pop_mark()


def _dup(machine: PickleMachine) -> None:
    machine.stack.append(machine.stack[-1])


def _put(machine: PickleMachine) -> None:
    place = int(machine.line(_PLACE_DIGITS))
    machine.memo[place] = machine.stack[-1]


def _get(machine: PickleMachine) -> None:
    machine.stack.append(machine.memo[int(machine.line(_PLACE_DIGITS))])


def _proto(machine: PickleMachine) -> None:
    protocol = machine.unsigned(1)
    if protocol > HIGHEST_PROTOCOL:
        raise UnreadableFile("pickle", f"the pickle is of protocol {protocol}, which nobody knows")


def _frame(machine: PickleMachine) -> None:
    if machine.unsigned(8) > machine.source.size - machine.position:
        raise EOFError


# -- names and calls -----------------------------------------------------------------------------------


def _name(machine: PickleMachine) -> str:
    return machine.line(NAME_LIMIT).decode("utf-8", "replace")


def _global(machine: PickleMachine) -> None:
    offset = machine.position - 1
    module, name = _name(machine), _name(machine)
    machine.stack.append(machine.named(module, name, offset))


def _stack_global(machine: PickleMachine) -> None:
    name, module = machine.stack.pop(), machine.stack.pop()
    if type(name) is not str or type(module) is not str:
        raise TypeError
    machine.stack.append(machine.named(module, name, machine.position - 1))


def _push_extension(machine: PickleMachine, width: int) -> None:
    offset = machine.position - 1
    machine.stack.append(machine.named("<copyreg extension>", str(machine.unsigned(width)), offset))


def _ext1(machine: PickleMachine) -> None:
    _push_extension(machine, 1)


def _ext2(machine: PickleMachine) -> None:
    _push_extension(machine, 2)


def _ext4(machine: PickleMachine) -> None:
    _push_extension(machine, 4)


def _persid(machine: PickleMachine) -> None:
    machine.stack.append(machine.persistent(_name(machine)))


def _newobj(machine: PickleMachine) -> None:
    args = machine.stack.pop()
    machine.stack[-1] = machine.call(machine.stack[-1], args)


def _newobj_ex(machine: PickleMachine) -> None:
    keywords, args = machine.stack.pop(), machine.stack.pop()
    if type(args) is not tuple or type(keywords) is not dict:
        raise TypeError
    machine.stack[-1] = machine.call(machine.stack[-1], (*args, keywords) if keywords else args)


def _inst(machine: PickleMachine) -> None:
    offset = machine.position - 1
    module, name = _name(machine), _name(machine)
    args = tuple(machine.pop_mark())
    machine.stack.append(machine.call(machine.named(module, name, offset), args))


def _obj(machine: PickleMachine) -> None:
    callee, *args = machine.pop_mark()
    machine.stack.append(machine.call(callee, tuple(args)))


def _build(machine: PickleMachine) -> None:
    state = machine.stack.pop()
    target = machine.stack[-1]
    build(machine, target, state)
    if machine.after_build is not None and type(target) is Instance:
        machine.stack[-1] = machine.after_build(machine, target)


def _buffer(machine: PickleMachine) -> None:
    raise UnreadableFile("pickle", "the pickle's buffers were written elsewhere (protocol 5)")


def _unknown(machine: PickleMachine) -> None:
    raise UnreadableFile("pickle", "the pickle has an opcode that nobody knows", machine.position - 1)


_BY_OPCODE: dict[bytes, Handler] = {
    b"X": _binunicode, b"\x8d": _binunicode8, b"V": _unicode,
    b"C": _short_binbytes, b"B": _binbytes, b"\x8e": _binbytes8, b"\x96": _binbytes8,  # BYTEARRAY8
    b"U": _short_binstring, b"T": _binstring, b"S": _string,
    b"G": _binfloat, b"\x8a": _long1, b"\x8b": _long4, b"I": _int, b"L": _long, b"F": _float,
    b"]": _empty_list, b"l": _list, b"a": _append, b"e": _appends,
    b"d": _dict, b"s": _setitem, b"u": _setitems,
    b"\x8f": _empty_set, b"\x90": _additems, b"\x91": _frozenset,
    b"0": _pop, b"1": _pop_mark, b"2": _dup, b"p": _put, b"g": _get, b"\x80": _proto, b"\x95": _frame,
    b"c": _global, b"\x93": _stack_global, b"\x82": _ext1, b"\x83": _ext2, b"\x84": _ext4, b"P": _persid,
    b"\x81": _newobj, b"\x92": _newobj_ex, b"i": _inst, b"o": _obj, b"b": _build,
    b"\x97": _buffer, b"\x98": _buffer,
}  # fmt: skip
HANDLERS: list[Handler] = [_BY_OPCODE.get(bytes((opcode,)), _unknown) for opcode in range(256)]
