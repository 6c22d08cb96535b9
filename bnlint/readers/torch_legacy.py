"""Torch's container before 1.6: five pickles (magic number, version, system, object, storage keys), then storages.

Each storage is a count of its elements (8 bytes) and its bytes. Both are little-endian whatever the
pickled system says: torch converts when it writes on a big-endian machine (torch/csrc/serialization.cpp).
"""

from __future__ import annotations

from bnlint.errors import UnreadableFile
from bnlint.model.tensor import ITEM_SIZE
from bnlint.readers.pickle_machine import PickleMachine
from bnlint.readers.storages import Part, TypedStorage, brief, expect_inside, storage_dtype, storage_key, storage_size
from bnlint.readers.values import Loaded

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bnlint.readers.source import ByteSource

MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
PROTOCOL_VERSION = 1001
_COUNT_BYTES = 8


def load(source: ByteSource, parent: PickleMachine | None = None) -> Loaded:
    """The object in the file. UnreadableFile where the bytes are not what they say they are.

    `parent` is the machine in whose pickle this file is nested.
    """
    storages = _Storages(source)
    machine = PickleMachine(source, persistent=storages.persistent, parent=parent)
    if machine.load() != MAGIC_NUMBER:
        raise UnreadableFile("pickle", "the file does not begin with torch's magic number", 0)
    version = machine.load()
    if version != PROTOCOL_VERSION:
        raise UnreadableFile(
            "corrupt", f"{brief(version)} is no version of torch's container: there is only {PROTOCOL_VERSION}"
        )
    machine.load()  # the system that wrote it
    root = machine.load()
    end = storages.place(machine.load(), machine.position)
    notes = ["the container is older than torch 1.6"]
    if end < source.size:
        notes.append(f"{source.size - end} bytes follow the last storage")
    facts = {"python2": True} if machine.python2 else {}
    return Loaded("torch-legacy", root, globals=list(machine.globals.values()), facts=facts, notes=notes)


class CountedStorage:
    """A storage of the file: its bytes from `start`, with their number before them."""

    __slots__ = ("_count", "_source", "big_endian", "nbytes", "start")

    def __init__(self, source: ByteSource, count: int, nbytes: int) -> None:
        self._source = source
        self._count = count  # -1 once it was compared with the one in the file
        self.nbytes = nbytes
        self.big_endian = False
        self.start = -1

    def read(self, offset: int, nbytes: int) -> bytes:
        """`nbytes` bytes from `offset`; UnreadableFile where the file says another length than the pickle."""
        expect_inside(self, offset, nbytes)
        if self._count < 0:
            return self._source.read(self.start + offset, nbytes)
        before = self._source.read(self.start - _COUNT_BYTES, _COUNT_BYTES + (nbytes if not offset else 0))
        count = int.from_bytes(before[:_COUNT_BYTES], "little")
        if count != self._count:
            raise UnreadableFile(
                "corrupt",
                f"a storage has {count} elements, the pickle says {self._count}",
                self.start - _COUNT_BYTES,
            )
        self._count = -1
        return before[_COUNT_BYTES:] if not offset else self._source.read(self.start + offset, nbytes)


class _Storages:
    """The storages of the file: named by the object's pickle, placed by the list of keys after it."""

    def __init__(self, source: ByteSource) -> None:
        self._source = source
        self._typed: dict[str, TypedStorage] = {}
        self._counted: dict[str, CountedStorage] = {}

    def persistent(self, identity: object) -> object:
        """("storage", type, key, device, elements, view), or ("module", class, file, source text)"""
        if type(identity) is tuple and len(identity) > 1 and identity[0] in ("module", b"module"):
            return identity[1]
        if type(identity) is not tuple or len(identity) not in (5, 6) or identity[0] not in ("storage", b"storage"):
            raise UnreadableFile("pickle", "the pickle refers to something that is no storage")
        _, storage_type, key, _, elements, *view = identity
        dtype, key = storage_dtype(storage_type), storage_key(key)
        root = self._typed.get(key)
        if root is None or not root.nbytes:
            nbytes = storage_size(elements, dtype)
            self._counted[key] = counted = CountedStorage(self._source, nbytes // ITEM_SIZE[dtype], nbytes)
            self._typed[key] = root = TypedStorage(dtype, nbytes, counted)
        return root if view in ([], [None]) else self._view(root, dtype, view[0])

    def _view(self, root: TypedStorage, dtype: str, view: object) -> TypedStorage:
        """(key, offset, elements): a part of a storage that is a storage too."""
        if type(view) is not tuple or len(view) != 3:
            raise UnreadableFile("pickle", "a storage view is damaged")
        key, offset, elements = storage_key(view[0]), *view[1:]
        found = self._typed.get(key)
        if found is None:
            start, nbytes = storage_size(offset, dtype), storage_size(elements, dtype)
            found = self._typed[key] = TypedStorage(dtype, nbytes, Part(root.data, start, nbytes))
        return found

    def place(self, keys: object, position: int) -> int:
        """Say where each storage lies, in the order of the file's keys; the byte after the last one."""
        if type(keys) is not list:
            raise UnreadableFile("pickle", "the list of storage keys is missing", position)
        for key in map(storage_key, keys):
            counted = self._counted.get(key)
            if counted is None:
                raise UnreadableFile("corrupt", f"the file has a storage {key[:40]!r} that nothing uses", position)
            counted.start = position + _COUNT_BYTES
            position = counted.start + counted.nbytes
        if position > self._source.size:
            size = self._source.size
            raise UnreadableFile("truncated", f"the storages end at byte {position}, the file at {size}", size)
        for key, counted in self._counted.items():
            if counted.start < 0:
                raise UnreadableFile("missing", f"the file lacks storage {key[:40]!r}", position)
        return position
