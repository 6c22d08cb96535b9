"""A pickle as the program that it is: which bytes of it make which object. Nothing is run.

Only what a pickler writes is understood: there, the bytes that make an object lie in one piece. A program
that was put together by hand in another way is refused, as one that cannot be edited.
"""

from __future__ import annotations

import gc
from pickletools import genops, markobject, opcodes, stackslice
from struct import pack

from bnlint.errors import UnreadableFile

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from pickletools import OpcodeInfo

OPCODE_LIMIT = 4_000_000
DEPTH_LIMIT = 100
_STRINGS = frozenset(
    "BINUNICODE SHORT_BINUNICODE BINUNICODE8 UNICODE BINSTRING SHORT_BINSTRING STRING SHORT_BINBYTES".split()
)
_PUTS = frozenset(("PUT", "BINPUT", "LONG_BINPUT"))
_GETS = frozenset(("GET", "BINGET", "LONG_BINGET"))
_INTO = frozenset(("SETITEM", "SETITEMS", "APPEND", "APPENDS", "ADDITEMS", "BUILD"))  # they change what lies below
_SEQUENCES = frozenset(("TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "LIST"))
_REFUSED = frozenset(("POP", "POP_MARK", "DUP", "NEXT_BUFFER", "READONLY_BUFFER", "MEMOIZE", "FRAME"))
# How many objects an opcode takes from the stack; where it has a mark, besides those behind that.
_TAKES = {
    opcode.name: (
        sum(each not in (markobject, stackslice) for each in opcode.stack_before),
        markobject in opcode.stack_before,
    )
    for opcode in opcodes
}
_COUNTING_PROTOCOL = 4  # the first that writes frames, and remembers objects without their number


class Node:
    """An object and the bytes that make it, `start` to `end`.

    `value` is what a literal says, `parts` what it is made of, `items` the pairs that were put into it,
    `elements` what was appended, `state` what BUILD gave it, `origin` the object that a GET fetches again,
    `put` where it is remembered (start, end, number).
    """

    __slots__ = ("elements", "end", "items", "opcode", "origin", "parts", "put", "start", "state", "value")

    def __init__(self, opcode: str, start: int, end: int, parts: list[Node], value: object = None) -> None:
        self.opcode = opcode
        self.start = start
        self.end = end
        self.parts = parts
        self.value = value
        self.items: list[Item] = []
        self.elements: list[Node] = []
        self.state: Node | None = None
        self.origin: Node | None = None
        self.put: tuple[int, int, int] | None = None

    @property
    def object(self) -> Node:
        """The object itself, where this fetches one that was made before."""
        return self.origin or self

    @property
    def text(self) -> str | None:
        """The string that it is, None where it is something else."""
        made = self.object
        if made.opcode not in _STRINGS:
            return None
        return made.value.decode("latin1") if isinstance(made.value, bytes) else str(made.value)

    @property
    def storage(self) -> tuple[str, str]:
        """Name and device of the storage that a persistent id asks for: ("storage", type, name, device, elements)."""
        identity = self.parts[0].object.elements
        if len(identity) < 5:
            raise _foreign(self.opcode)
        name = identity[2].object
        return name.text if name.text is not None else str(name.value), identity[3].text or "cpu"


class Item:
    """A pair of a mapping: its key, its value, and where the bytes that add it end."""

    __slots__ = ("end", "key", "value")

    def __init__(self, key: Node, value: Node, end: int) -> None:
        self.key = key
        self.value = value
        self.end = end


class Program:
    """The first pickle in `code`. UnreadableFile where it is damaged, or is none that a pickler wrote.

    `gets` are the places where a remembered object is fetched (start, end, number), `puts` those where one
    is remembered, `memo` the objects that are; `storages` are the persistent ids.
    """

    def __init__(self, code: bytes) -> None:
        self.code = code
        self.gets: list[tuple[int, int, int]] = []
        self.puts: list[tuple[int, int, int]] = []
        self.memo: dict[int, Node] = {}
        self.storages: list[Node] = []
        self._stack: list[Node] = []
        self._marks: list[tuple[int, int]] = []  # how high the stack was, and the byte of the MARK
        collecting = gc.isenabled()
        gc.disable()  # with hundreds of thousands of nodes alive and none dying it would cost quadratic time
        try:
            self.root = self._read()
        except (ValueError, LookupError, AttributeError) as error:
            raise _foreign(type(error).__name__) from None
        finally:
            if collecting:
                gc.enable()

    def storage_names(self) -> list[str]:
        """The names of the storages that the program asks for, in order."""
        return [node.storage[0] for node in self.storages]

    def _read(self) -> Node:
        for opcode, value, start, end in _opcodes(self.code):
            name = opcode.name
            if name in _PUTS:
                self._put(int(value), start, end)  # type: ignore[call-overload]
            elif name in _GETS:
                self._get(int(value), start, end)  # type: ignore[call-overload]
            elif name == "MARK":
                self._marks.append((len(self._stack), start))
            elif name in _INTO:
                self._change(opcode, end)
            elif name == "STOP":
                break
            elif name in _REFUSED or (name == "PROTO" and start):
                raise _foreign(name)
            elif name != "PROTO":
                self._make(opcode, value, start, end)
        (root,) = self._stack
        return root

    def _put(self, number: int, start: int, end: int) -> None:
        top = self._stack[-1]
        if top.end != start or top.origin or number in self.memo:
            raise _foreign("PUT")
        top.end = end
        top.put = start, end, number
        self.memo[number] = top
        self.puts.append(top.put)

    def _get(self, number: int, start: int, end: int) -> None:
        node = Node("GET", start, end, [])
        node.origin = self.memo[number]
        self._stack.append(node)
        self.gets.append((start, end, number))

    def _make(self, opcode: OpcodeInfo, value: object, start: int, end: int) -> None:
        parts, begin = self._pop(opcode, start)
        node = Node(opcode.name, begin, end, parts, value)
        self._stack.append(node)
        if opcode.name == "BINPERSID":
            self.storages.append(node)
        elif opcode.name == "DICT":
            node.items = _pairs(parts, end)
        elif opcode.name in _SEQUENCES:
            node.elements = parts

    def _change(self, opcode: OpcodeInfo, end: int) -> None:
        parts, _ = self._pop(opcode, end - 1)
        into, *rest = parts
        if into.origin or (rest and into.end > rest[0].start):
            raise _foreign(opcode.name)
        if opcode.name == "SETITEM":
            into.items += _pairs(rest, end)
        elif opcode.name == "SETITEMS":
            into.items += _pairs(rest)
        elif opcode.name == "BUILD":
            into.state = rest[0]
        else:
            into.elements += rest
        into.end = end
        self._stack.append(into)

    def _pop(self, opcode: OpcodeInfo, start: int) -> tuple[list[Node], int]:
        """What an opcode takes from the stack, and where the bytes that made it begin."""
        count, marked = _TAKES[opcode.name]
        begin = start
        if marked:
            height, begin = self._marks.pop()
            count += len(self._stack) - height
        elif count == 0:
            return [], start
        height = len(self._stack) - count
        if height < 0:
            raise IndexError
        parts = self._stack[height:]
        del self._stack[height:]
        return parts, min(begin, parts[0].start) if parts else begin


def plain(code: bytes) -> bytes:
    """The pickle without what counts bytes or objects: no frames, and every remembered object by its number.

    That is what protocols 2 and 3 write; what protocol 4 writes would count wrong after an edit.
    """
    if code[:1] != b"\x80" or code[1:2] < b"%c" % _COUNTING_PROTOCOL:
        return code
    parts: list[bytes] = []
    remembered: set[int] = set()
    copied = 0
    for opcode, value, start, end in _opcodes(code):
        if opcode.name in _PUTS:
            remembered.add(int(value))  # type: ignore[call-overload]
        elif opcode.name in ("MEMOIZE", "FRAME"):
            parts.append(code[copied:start])
            copied = end
            if opcode.name == "MEMOIZE":
                number = len(remembered)
                remembered.add(number)
                parts.append(b"q%c" % number if number < 256 else b"r" + pack("<I", number))
    return b"".join(parts) + code[copied:]


def mappings(root: Node, key: str) -> Iterator[Node]:
    """The mappings that lie at `key`, as `StateDict.key` says it: "", "state_dict", "ema.model"."""
    waiting = [(root, "", 0)]
    seen = set()
    while waiting:
        node, path, depth = waiting.pop()
        node = node.object
        if (id(node), path) in seen or depth > DEPTH_LIMIT or not _leads_to(key, path):
            continue
        seen.add((id(node), path))
        if path == key and node.items:
            yield node
        named = [(str(_name(item.key)), item.value) for item in node.items]
        named += [(str(i), element) for i, element in enumerate(node.elements)]
        waiting += [(value, f"{path}.{name}" if path else name, depth + 1) for name, value in reversed(named)]
        if not node.elements:
            waiting += [(part, path, depth + 1) for part in (*node.parts, *([node.state] if node.state else []))]


def _leads_to(key: str, path: str) -> bool:
    return not path or path == key or key.startswith(f"{path}.")


def _name(key: Node) -> object:
    value = key.text if key.text is not None else key.object.value
    return str(value).replace(" ", ".") if key.object.opcode == "GLOBAL" else value


def _pairs(nodes: list[Node], end: int | None = None) -> list[Item]:
    return [
        Item(key, value, value.end if end is None else end)
        for key, value in zip(nodes[0::2], nodes[1::2], strict=True)
    ]  # fmt: skip


def _opcodes(code: bytes) -> Iterator[tuple[OpcodeInfo, object, int, int]]:
    """The opcodes of a pickle with their operands, and the bytes where each begins and ends."""
    before: tuple[OpcodeInfo, object, int] | None = None
    try:
        for count, (opcode, value, start) in enumerate(genops(code)):
            if count > OPCODE_LIMIT:
                raise UnreadableFile("limit", f"the pickle has more than {OPCODE_LIMIT} opcodes")
            if before is not None:
                yield *before, start or 0
            before = opcode, value, start or 0
    except ValueError:
        raise UnreadableFile("pickle", "the pickle is damaged") from None
    if before is not None:
        yield *before, before[2] + 1


def _foreign(what: str) -> UnreadableFile:
    return UnreadableFile("unsupported", f"no pickler wrote its data.pkl ({what}): it can be read, but not edited")
