"""Dict keys and set members of a pickle: what a file can make costly to hash or compare is kept by identity.

Text and byte strings are hashed with a secret of the process, so nobody can make many of one hash.
Integers are hashed modulo 2**61 - 1, tuples by a formula: of those one can. A tuple of tuples of
tuples takes as long to hash as it has leaves, and those can be more than there are atoms.
"""

from __future__ import annotations

from bnlint.errors import UnreadableFile
from bnlint.readers.long_bytes import LongBytes
from bnlint.readers.values import Opaque

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bnlint.readers.pickle_machine import PickleMachine

KEY_LIMIT = 64 << 10  # bytes of a text that is a key
_FLAT_LIMIT = 64  # items of a tuple
_SAFE = frozenset((str, bytes, float, bool, type(None)))


def dict_key(machine: PickleMachine, value: object) -> object:
    """A key as it is kept: a byte string becomes text, as Python 2 meant it. TypeError as in a dict.

    UnreadableFile `limit` for a text of more than KEY_LIMIT bytes: left out, it would take its tensor with it.
    """
    if type(value) is LongBytes:
        return _long_key(machine, value)
    if type(value) is bytes:
        machine.python2 = True
        return value.decode("latin1")
    return set_member(machine, value)


def _long_key(machine: PickleMachine, key: LongBytes) -> str:
    if key.nbytes > KEY_LIMIT:
        raise UnreadableFile("limit", f"a key of {key.nbytes} bytes is over the limit of {KEY_LIMIT}", key.offset)
    machine.charge(4 * key.nbytes)  # a text takes up to 4 bytes per byte
    if not key.is_text:
        machine.python2 = True
    return key.text(KEY_LIMIT)


def set_member(machine: PickleMachine, value: object) -> object:
    """A set member as it is kept: itself, or an Opaque in its place. TypeError as in a set."""
    kind = type(value)
    if kind in _SAFE or kind.__hash__ is object.__hash__ or _is_small(value):
        return value
    if kind.__hash__ is None:
        raise TypeError
    if isinstance(value, tuple) and machine.allowance.tuple_keys and _is_flat(value):
        machine.allowance.tuple_keys -= 1
        return value
    return Opaque(f"a {kind.__name__} as a key")


def _is_small(value: object) -> bool:
    return type(value) is int and -(1 << 60) < value < 1 << 60


def _is_flat(items: tuple[object, ...]) -> bool:
    return len(items) <= _FLAT_LIMIT and all(type(item) in _SAFE or _is_small(item) for item in items)
