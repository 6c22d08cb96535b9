"""Edits of a pickle's program: keys get other names, items come, go, or get another value.

An object that the pickle remembers and fetches again further on (a string, a class) may lie in bytes that
go. Its first use then makes it, from the very same bytes. So nothing but what an edit names changes: the
average beside a model may share its keys and its tensors with it.
"""

from __future__ import annotations

from bisect import bisect_left
from struct import pack

from bnlint.errors import UnreadableFile
from bnlint.fixing.program import Program, mappings, plain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from bnlint.fixing.edit import Edit, NewTensor
    from bnlint.fixing.program import Item, Node

_NODES_OF_A_TENSOR = 64
NESTING_LIMIT = 40  # objects that are made again inside each other
_STORAGE_TYPES = {
    "float64": "DoubleStorage", "float32": "FloatStorage", "float16": "HalfStorage", "bfloat16": "BFloat16Storage",
    "int64": "LongStorage",
}  # fmt: skip
WRITABLE = frozenset(_STORAGE_TYPES)  # dtypes of new tensors
_EXTRA_STATE = "_extra_state"  # what Module.get_extra_state() returned


class EditedPickle:
    """A data.pkl with all edits made: its `code`, and the storages that come (`added`) and go (`removed`)."""

    __slots__ = ("added", "code", "removed")

    def __init__(self, code: bytes, added: dict[str, NewTensor], removed: set[str]) -> None:
        self.code = code
        self.added = added
        self.removed = removed


def edited(code: bytes, edits: Sequence[Edit], taken: Sequence[str]) -> EditedPickle:
    """The pickle with the edits made. `taken` are the names of the archive's storages.

    UnreadableFile where the pickle is not as a pickler writes it, or a state dict not as torch builds it.
    """
    storages = _Storages(taken)
    program = Program(plain(code))
    patches = _Patches(program)
    for edit in edits:
        _edit(edit, program, patches, storages)
    changed = patches.made()
    removed: set[str] = set()
    if any(edit.dropped or edit.replaced for edit in edits):
        removed = set(program.storage_names()) - set(Program(changed).storage_names())
    return EditedPickle(changed, storages.added, removed)


class _Storages:
    """Names for the storages of new tensors: the numbers after those that are taken."""

    def __init__(self, taken: Sequence[str]) -> None:
        self.added: dict[str, NewTensor] = {}
        self._next = 1 + max((int(name) for name in taken if name.isdecimal()), default=-1)

    def add(self, tensor: NewTensor) -> str:
        name = str(self._next)
        self._next += 1
        self.added[name] = tensor
        return name


# -- from keys to bytes -----------------------------------------------------------------------------------


def _edit(edit: Edit, program: Program, patches: _Patches, storages: _Storages) -> None:
    mapping, items = _find(edit, program)
    for name, item in items.items():
        new = _name(name, edit)
        if name in edit.dropped:
            patches.replace(item.key.start, item.end, b"")
            continue
        if new != name:
            patches.rename(item.key, new)
        if name in edit.replaced:
            tensor = edit.replaced[name]
            patches.replace(item.value.start, item.value.end, _tensor(tensor, storages.add(tensor), _device(item)))
    for name, (added, tensor) in edit.added.items():
        beside = items[name]
        made = _string(edit.name(added)) + _tensor(tensor, storages.add(tensor), _device(beside))
        patches.replace(beside.end, beside.end, made + (b"s" if beside.end > beside.value.end else b""))
    _edit_metadata(edit, mapping, patches)


def _name(key: str, edit: Edit) -> str:
    """What an item is called in the new file; a module's extra state, which is no tensor, goes with its module."""
    module, _, leaf = key.rpartition(".")
    if leaf != _EXTRA_STATE or key in edit.state_dict.tensors:
        return edit.name(key)
    place = edit.modules([module]).get(module, module)
    return f"{place}.{leaf}" if place else leaf


def _find(edit: Edit, program: Program) -> tuple[Node, dict[str, Item]]:
    """The mapping that an edit is about, and its items by key."""
    wanted = edit.state_dict.tensors.keys()
    for mapping in mappings(program.root, edit.state_dict.key):
        items = {text: item for item in mapping.items if (text := item.key.text) is not None}
        if wanted <= items.keys():
            if len(items) < sum(item.key.text is not None for item in mapping.items):
                raise UnreadableFile("unsupported", "the state dict names a tensor twice")
            return mapping, items
    raise UnreadableFile(
        "unsupported", "its tensors do not lie in one state dict, but in a whole model or a tree of dicts"
    )


def _edit_metadata(edit: Edit, mapping: Node, patches: _Patches) -> None:
    """Let the entries of `_metadata` be called as their modules are."""
    if not edit.names or mapping.state is None:
        return
    for item in mapping.state.object.items:
        if item.key.text == "_metadata":
            renamed = edit.metadata()
            for entry in item.value.object.items:
                module = entry.key.text
                if module is None or module not in (edit.state_dict.metadata or {}):
                    continue
                if module not in renamed:
                    patches.replace(entry.key.start, entry.end, b"")
                elif renamed[module] != module:
                    patches.rename(entry.key, renamed[module])


def _device(item: Item) -> str:
    """Where the tensor of an item was when it was saved: "cpu", "cuda:0"."""
    waiting = [item.value]
    for _ in range(_NODES_OF_A_TENSOR):
        if not waiting:
            break
        node = waiting.pop(0).object
        if node.opcode == "BINPERSID":
            return node.storage[1]
        waiting += node.parts
    return "cpu"


# -- new bytes --------------------------------------------------------------------------------------------


def _tensor(tensor: NewTensor, storage: str, device: str) -> bytes:
    """The program of a tensor, as torch.save writes it, that remembers nothing."""
    stride, step = [], 1
    for size in reversed(tensor.shape):
        stride.append(step)
        step *= size
    return b"".join([
        b"ctorch._utils\n_rebuild_tensor_v2\n((",
        _string("storage"),
        f"ctorch\n{_STORAGE_TYPES[tensor.dtype]}\n".encode(),
        _string(storage), _string(device), _integer(step), b"tQK\0",
        _tuple(tensor.shape), _tuple(stride[::-1]),
        b"\x89ccollections\nOrderedDict\n)RtR",
    ])  # fmt: skip


def _string(text: str) -> bytes:
    data = text.encode("utf-8", "surrogatepass")
    return b"X" + pack("<I", len(data)) + data


def _integer(value: int) -> bytes:
    if value < 1 << 8:
        return b"K%c" % value
    return b"M" + pack("<H", value) if value < 1 << 16 else b"J" + pack("<i", value)


def _tuple(sizes: Sequence[int]) -> bytes:
    return b"(" + b"".join(map(_integer, sizes)) + b"t" if sizes else b")"


# -- patching ---------------------------------------------------------------------------------------------


class _Patches:
    """Spans of a program and what takes their place."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self._patches: list[tuple[int, int, bytes]] = []
        self._fetched = {number for _, _, number in program.gets}

    def replace(self, start: int, end: int, data: bytes) -> None:
        self._patches.append((start, end, data))

    def rename(self, key: Node, name: str) -> None:
        """Have a key be another string, and be remembered as before unless somebody else uses it."""
        put = b""
        if key.put is not None and key.put[2] not in self._fetched:
            start, end, _ = key.put
            put = self._program.code[start:end]
        self.replace(key.start, key.end, _string(name) + put)

    def made(self) -> bytes:
        """The program with all patches made."""
        return _Rewriting(self._program, self._patches).code


_PATCH, _PUT, _GET = 1, 2, 3


class _Rewriting:
    """Copies a program piece by piece, with patches; what went with a patch is made where it is needed."""

    def __init__(self, program: Program, patches: Sequence[tuple[int, int, bytes]]) -> None:
        self._program = program
        self._limit = 1024 + 2 * len(program.code) + sum(len(data) for _, _, data in patches)
        self._written = 0
        self._parts: list[bytes] = []
        self._made: set[int] = set()
        events: list[tuple[int, int, int, int | bytes]] = [
            (start, _PATCH if end > start else 0, end, data) for start, end, data in patches
        ]
        events += [(start, _PUT, end, number) for start, end, number in program.puts]
        events += [(start, _GET, end, number) for start, end, number in program.gets]
        self._events = sorted(events, key=lambda event: event[:2])
        self._starts = [event[0] for event in self._events]
        self._copy(0, len(program.code), patched=True)

    @property
    def code(self) -> bytes:
        return b"".join(self._parts)

    def _copy(self, start: int, end: int, patched: bool, depth: int = 0) -> None:
        at = start
        for i in range(bisect_left(self._starts, start), bisect_left(self._starts, end)):
            begin, kind, stop, what = self._events[i]
            if begin < at:
                continue  # it lies in a patch
            if isinstance(what, bytes):
                if patched:
                    self._write(self._program.code[at:begin] + what)
                    at = stop
            elif kind == _PUT:
                self._made.add(what)
            elif what not in self._made:
                self._write(self._program.code[at:begin])
                self._make(what, depth)
                at = stop
        self._write(self._program.code[at:end])

    def _make(self, number: int, depth: int) -> None:
        if depth > NESTING_LIMIT:
            raise UnreadableFile("limit", "its data.pkl cannot be edited: it is nested too deeply")
        made = self._program.memo[number]
        self._copy(made.start, made.end, patched=False, depth=depth + 1)

    def _write(self, data: bytes) -> None:
        self._written += len(data)
        if self._written > self._limit:
            raise UnreadableFile("limit", "its data.pkl cannot be edited: it grows beyond twice its size")
        self._parts.append(data)
