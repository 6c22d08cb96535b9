"""Pickles to read: sources, samples, and when two graphs are the same."""

import pickle
from collections import OrderedDict

from bnlint.readers.pickle_machine import PickleMachine
from bnlint.readers.source import MemorySource
from bnlint.readers.values import Opaque, OrderedMapping

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)
CALLS = {
    "REDUCE": b"cos\nsystem\n(S'touch PWNED'\ntR.",
    "NEWOBJ": b"\x80\x02cos\nsystem\n)\x81.",
    "NEWOBJ_EX": b"\x80\x04cos\nsystem\n)}\x92.",
    "OBJ": b"(cos\nsystem\nS'touch PWNED'\no.",
    "INST": b"(S'touch PWNED'\nios\nsystem\n.",
    "BUILD": b"cos\nsystem\n}b.",
    "STACK_GLOBAL": b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x0btouch PWNED\x85R.",
    "copyreg": b"ccopyreg\n__newobj__\n(cos\nsystem\ntR.",
    "copy_reg": b"ccopy_reg\n_reconstructor\n(cos\nsystem\nc__builtin__\nobject\nNtR.",
    "subclass": b"\x80\x02ctorch._tensor\n_rebuild_from_type_v2\n(cos\nsystem\nN)NtR.",
}


class FileLike:
    """A source that is read window by window, as a file is."""

    def __init__(self, data: bytes) -> None:
        self._memory = MemorySource(data)
        self.size = len(data)
        self.bytes_read = 0

    def read(self, offset: int, nbytes: int) -> bytes:
        self.bytes_read += nbytes
        return self._memory.read(offset, nbytes)


def run(data: bytes) -> object:
    return PickleMachine(MemorySource(data)).load()


def same(found: object, wanted: object) -> bool:
    """Equality that keeps types apart and takes NaN for NaN; what bnlint keeps by identity is not looked into."""
    if isinstance(wanted, OrderedDict):
        return isinstance(found, OrderedMapping) and same(list(found.items()), list(wanted.items()))
    if isinstance(wanted, dict):
        return type(found) is dict and same(list(found.items()), list(wanted.items()))
    if isinstance(wanted, (list, tuple)):
        return type(found) is type(wanted) and len(found) == len(wanted) and all(map(same, found, wanted))
    if isinstance(wanted, int) and wanted.bit_length() > 8 * 1024:
        return isinstance(found, Opaque)
    return type(found) is type(wanted) and (found == wanted or repr(found) == repr(wanted))
