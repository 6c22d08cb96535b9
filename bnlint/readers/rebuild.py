"""What the calls in a pickle stand for: each function that bnlint knows has a reducer that makes its inert value.

A reducer gets the machine and the arguments that the pickle would call the function with. Where there
is none, or it returns NotImplemented for arguments that it does not know, the call becomes an
`Instance`: a name and its arguments.
"""

from __future__ import annotations

from bnlint.model.raw_file import Global
from bnlint.model.tensor import Tensor
from bnlint.readers.long_bytes import ESCAPED_TEXT, LATIN1_TEXT, TEXT, LongBytes
from bnlint.readers.pickle_keys import dict_key, set_member
from bnlint.readers.rebuild_torch import TORCH, set_tensor_state
from bnlint.readers.values import Instance, Opaque, OrderedMapping

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from bnlint.readers.pickle_machine import PickleMachine

    Reducer = Callable[[PickleMachine, tuple[object, ...]], object]

_ITEM_BYTES = 100  # what an item takes in a dict
_ARGUMENT_BYTES = 8  # what it takes in a tuple


def find_reducer(module: str, name: str) -> Reducer | None:
    """The reducer of a function, None where bnlint does not know it."""
    if module.startswith("torch"):
        return TORCH.get((module, name))
    if module.startswith("numpy"):
        from bnlint.readers.rebuild_numpy import NUMPY

        return NUMPY.get((module, name))
    return _PYTHON.get((module, name))


def build(machine: PickleMachine, target: object, state: object) -> None:
    """BUILD: give an object its state. TypeError for objects that take none."""
    if type(target) is Instance or type(target) is OrderedMapping:
        target.state = state
    elif type(target) is Tensor:
        set_tensor_state(machine, target, state)
    elif type(target) is Global:
        target.called = True  # a class is handed a state: `__setstate__`, or attributes are set on it
    elif type(target) is not Opaque:
        from bnlint.readers.rebuild_numpy import set_numpy_state

        set_numpy_state(machine, target, state)


# -- Python's own types ----------------------------------------------------------------------------------


def _ordered_dict(machine: PickleMachine, args: tuple[object, ...]) -> object:
    mapping = OrderedMapping()
    if args:  # protocols 0 and 1, and Python 2: a list of pairs
        pairs = _items(machine, args)
        if pairs is None:
            return NotImplemented
        for pair in pairs:
            if not isinstance(pair, (list, tuple)) or len(pair) != 2:
                return NotImplemented
            mapping[dict_key(machine, pair[0])] = pair[1]
    return mapping


def _dict(machine: PickleMachine, args: tuple[object, ...]) -> object:
    mapping = _ordered_dict(machine, args)
    return mapping if mapping is NotImplemented else dict(mapping)  # type: ignore[call-overload]


def _list(machine: PickleMachine, args: tuple[object, ...]) -> object:
    items = _items(machine, args)
    return NotImplemented if items is None else list(items)


def _set(machine: PickleMachine, args: tuple[object, ...]) -> object:
    items = _items(machine, args)
    return NotImplemented if items is None else {set_member(machine, item) for item in items}


def _frozenset(machine: PickleMachine, args: tuple[object, ...]) -> object:
    items = _items(machine, args)
    return NotImplemented if items is None else frozenset([set_member(machine, item) for item in items])


def _items(machine: PickleMachine, args: tuple[object, ...]) -> list[object] | tuple[object, ...] | None:
    """The items of the one argument; None where it is not a list or tuple (an iterator would be run)."""
    if not args:
        return ()
    items = args[0]
    if len(args) > 1 or not isinstance(items, (list, tuple)):
        return None
    machine.charge(_ITEM_BYTES * len(items))
    return items


def _bytes(machine: PickleMachine, args: tuple[object, ...]) -> object:
    """bytes and bytearray: of nothing, of bytes, or in Python 2 pickles of text and its encoding."""
    if not args:
        return b""
    data = args[0]
    if type(data) is bytes or type(data) is LongBytes:
        return data
    if type(data) is str and args[1:] in (("latin-1",), ("latin1",)):
        return _encode(machine, args)
    return NotImplemented


def _encode(machine: PickleMachine, args: tuple[object, ...]) -> object:
    """_codecs.encode(text, "latin1"): how protocols 0 to 2 write bytes."""
    text = args[0]
    if type(text) is str:
        machine.charge(len(text))
        return text.encode("latin1")
    if type(text) is LongBytes and text.written in (TEXT, ESCAPED_TEXT):
        written = LATIN1_TEXT if text.written == TEXT else ESCAPED_TEXT
        return LongBytes(text.source, text.offset, text.nbytes, written)
    return NotImplemented


def _complex(machine: PickleMachine, args: tuple[object, ...]) -> object:
    if len(args) != 2:
        return NotImplemented
    real, imaginary = args
    return complex(real, imaginary) if type(real) is type(imaginary) is float else NotImplemented


def _reconstructor(machine: PickleMachine, args: tuple[object, ...]) -> object:
    """copyreg._reconstructor(class, base, state): how protocols 0 and 1 make objects."""
    made_class, _, state = args
    made = machine.call(made_class, ())
    if type(made) is Instance and type(state) is list:
        machine.charge(_ITEM_BYTES * len(state))
        made.elements = list(state)
    elif isinstance(state, dict):
        machine.charge(_ITEM_BYTES * len(state))
        if type(made) is Instance:
            made.items = list(state.items())
        elif type(made) is OrderedMapping:
            made.update(state)
    return made


def _new_object(machine: PickleMachine, args: tuple[object, ...]) -> object:
    """copyreg.__newobj__(class, *args)"""
    machine.charge(_ARGUMENT_BYTES * len(args))
    return machine.call(args[0], args[1:])


_PYTHON: dict[tuple[str, str], Reducer] = {
    ("collections", "OrderedDict"): _ordered_dict,
    ("ordereddict", "OrderedDict"): _ordered_dict,
    ("_codecs", "encode"): _encode,
}
for _builtins in ("builtins", "__builtin__"):
    for _name, _reducer in (
        ("list", _list), ("dict", _dict), ("set", _set), ("frozenset", _frozenset),
        ("bytes", _bytes), ("bytearray", _bytes), ("complex", _complex),
    ):  # fmt: skip
        _PYTHON[_builtins, _name] = _reducer
for _copyreg in ("copyreg", "copy_reg"):
    _PYTHON[_copyreg, "_reconstructor"] = _reconstructor
    _PYTHON[_copyreg, "__newobj__"] = _new_object
