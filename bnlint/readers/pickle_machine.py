"""The inert pickle machine: runs the opcodes of a pickle, imports nothing, calls nothing.

It leaves the graph that `bnlint.readers.values` describes. What a pickle can do to it is bounded by
counts: of opcodes, memo entries, open marks and globals, and an estimate of the memory its objects
take. It never recurses, and never hashes or compares a container.

Python's own C unpickler with harmless stubs in place of what it calls is twice as fast and no way
out: nine bytes make it allocate 4 GB (python/cpython#115952), nested tuples overflow its stack.
"""

from __future__ import annotations

import gc
import struct

from bnlint.errors import UnreadableFile
from bnlint.model.raw_file import Global
from bnlint.readers.long_bytes import BYTES, LongBytes
from bnlint.readers.pickle_opcodes import HANDLERS
from bnlint.readers.rebuild import find_reducer
from bnlint.readers.values import Instance

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from bnlint.readers.rebuild import Reducer
    from bnlint.readers.source import ByteSource

OPCODE_LIMIT = 4_000_000  # some 35 per tensor
MEMO_LIMIT = 2_000_000
MARK_LIMIT = 10_000
GLOBAL_LIMIT = 20_000
MEMORY_LIMIT = 128 << 20  # bytes of objects beyond the 90 or so that any opcode may make
SCAN_LIMIT = 1 << 30  # bytes that are searched for the ends of lines, beyond those at hand
TUPLE_KEY_LIMIT = 4096  # tuples can be made to have one hash: so many comparisons are bearable

_FIRST_WINDOW = 4096
_NEXT_WINDOW = 512  # after a skipped part; doubled while nothing is skipped
_LARGEST_WINDOW = 1 << 15
_SCANNED_AT_ONCE = 1 << 20
_STRIDE = 1 << 18  # bytes of a pickle in memory that run before the limits are looked at again
_SLACK = 272  # any opcode that the loop runs itself is shorter, with its string of up to 255 bytes

_unsigned_2, _unsigned_4, _signed_4 = (
    struct.Struct("<H").unpack_from,
    struct.Struct("<I").unpack_from,
    struct.Struct("<i").unpack_from,
)


class Allowance:
    """What is left of the limits, for a pickle and the files nested in it."""

    __slots__ = ("memory", "opcodes", "scanned", "tuple_keys")

    def __init__(self) -> None:
        self.opcodes = OPCODE_LIMIT
        self.memory = MEMORY_LIMIT
        self.scanned = SCAN_LIMIT
        self.tuple_keys = TUPLE_KEY_LIMIT


class PickleMachine:
    """Runs the pickles of a source one after the other, the first at byte `start`.

    `persistent` answers persistent ids (torch's storages), `after_build` may replace an object that
    BUILD has completed (joblib's arrays stand in the stream there). A machine with a `parent` shares
    its globals and its limits.

    `globals` holds everything the pickles name, `python2` turns True with the first string or dict key
    that only Python 2 writes, `position` is the byte of the source that is next.
    """

    def __init__(
        self,
        source: ByteSource,
        start: int = 0,
        *,
        persistent: Callable[[object], object] | None = None,
        after_build: Callable[[PickleMachine, Instance], object] | None = None,
        parent: PickleMachine | None = None,
    ) -> None:
        self.source = source
        self.persistent = persistent or _no_persistent_id
        self.after_build = after_build
        self.nesting: int = parent.nesting if parent else 0  # how many files this one is nested in
        self.allowance: Allowance = parent.allowance if parent else Allowance()
        self.globals: dict[tuple[str, str], Global] = parent.globals if parent else {}
        self.python2 = False
        self.stack: list[object] = []
        self.marks: list[list[object]] = []  # the stacks below each open MARK
        self.memo: dict[int, object] = {}
        self._reducers: dict[int, Reducer] = {}  # by identity of the global: no object of a pickle is hashed
        # The window: `code` is what of the source begins at `base`, `at` the next opcode in it. The loop
        # runs while `at` is below `limit`, so that no opcode of its own reaches over the end of the window.
        self.code: bytes = getattr(source, "data", b"")
        self._in_memory = bool(self.code)
        self.base, self.at = (0, start) if self._in_memory else (start, 0)
        self.limit = 0
        self._width = _FIRST_WINDOW // 2  # doubled before it is used
        self._charged = start  # the byte up to which memory was charged

    @property
    def position(self) -> int:
        """The byte of the source that is next."""
        return self.base + self.at

    # -- running ------------------------------------------------------------------------------------

    def move_to(self, position: int) -> None:
        """Leave out what lies before byte `position`, which is not a pickle."""
        self._charged += position - self.position
        self.at = position - self.base

    def load(self) -> object:
        """The object of the next pickle. UnreadableFile where it is damaged or over a limit."""
        collecting = gc.isenabled()
        gc.disable()  # with millions of containers alive and none dying it would cost quadratic time
        self.stack = []
        self.marks.clear()
        self.memo.clear()
        try:
            return self._run()
        except UnreadableFile as problem:
            problem.globals = list(self.globals.values())  # what loading it would import before it breaks off
            raise
        finally:
            if collecting:
                gc.enable()

    def _run(self) -> object:
        """The loop. The opcodes that make up a state dict stand here, the most frequent first, with all
        they need in local variables: a call would cost more than what most of them do. The others have
        handlers, in `pickle_opcodes`."""
        stack, marks, memo = self.stack, self.marks, self.memo
        code, at, limit = self.code, self.at, self.limit
        persistent, reducers = self.persistent, self._reducers
        allowed = self.allowance.opcodes
        executed = 0
        try:
            for executed in range(allowed):  # noqa: B007, counted for the files nested in this one
                if at >= limit:
                    self.at = at
                    self._advance()
                    code, at, limit = self.code, self.at, self.limit
                opcode = code[at]
                at += 1
                if opcode == 0x72:  # LONG_BINPUT
                    memo[_unsigned_4(code, at)[0]] = stack[-1]
                    at += 4
                elif opcode == 0x4B:  # BININT1
                    stack.append(code[at])
                    at += 1
                elif opcode == 0x68:  # BINGET
                    stack.append(memo[code[at]])
                    at += 1
                elif opcode == 0x94:  # MEMOIZE
                    memo[len(memo)] = stack[-1]
                elif opcode == 0x58 and code[at + 1 : at + 4] == b"\0\0\0":  # BINUNICODE of up to 255 bytes
                    stop = at + 4 + code[at]
                    if stop > len(code):
                        raise EOFError
                    stack.append(code[at + 4 : stop].decode("utf-8", "surrogatepass"))
                    at = stop
                elif opcode == 0x28:  # MARK
                    if len(marks) >= MARK_LIMIT:
                        raise UnreadableFile("limit", f"the pickle has more than {MARK_LIMIT} open marks")
                    marks.append(stack)
                    stack = []
                elif opcode == 0x74:  # TUPLE
                    items = tuple(stack)
                    stack = marks.pop()
                    stack.append(items)
                elif opcode == 0x52:  # REDUCE
                    self.at = at
                    args = stack.pop()
                    callee = stack[-1]
                    reducer = reducers.get(id(callee))
                    if reducer is None or type(args) is not tuple:
                        stack[-1] = self.call(callee, args)
                    else:
                        callee.called = True  # type: ignore[attr-defined]
                        made = reducer(self, args)
                        stack[-1] = made if made is not NotImplemented else Instance(callee, args)  # type: ignore[arg-type]
                elif opcode == 0x71:  # BINPUT
                    memo[code[at]] = stack[-1]
                    at += 1
                elif opcode == 0x8C:  # SHORT_BINUNICODE
                    stop = at + 1 + code[at]
                    if stop > len(code):
                        raise EOFError
                    stack.append(code[at + 1 : stop].decode("utf-8", "surrogatepass"))
                    at = stop
                elif opcode == 0x85:  # TUPLE1
                    stack[-1] = (stack[-1],)
                elif opcode == 0x29:  # EMPTY_TUPLE
                    stack.append(())
                elif opcode == 0x51:  # BINPERSID
                    stack[-1] = persistent(stack[-1])
                elif opcode == 0x89:  # NEWFALSE
                    stack.append(False)
                elif opcode == 0x4E:  # NONE
                    stack.append(None)
                elif opcode == 0x4D:  # BININT2
                    stack.append(_unsigned_2(code, at)[0])
                    at += 2
                elif opcode == 0x6A:  # LONG_BINGET
                    stack.append(memo[_unsigned_4(code, at)[0]])
                    at += 4
                elif opcode == 0x88:  # NEWTRUE
                    stack.append(True)
                elif opcode == 0x4A:  # BININT
                    stack.append(_signed_4(code, at)[0])
                    at += 4
                elif opcode == 0x86:  # TUPLE2
                    second = stack.pop()
                    stack[-1] = (stack[-1], second)
                elif opcode == 0x87:  # TUPLE3
                    third = stack.pop()
                    second = stack.pop()
                    stack[-1] = (stack[-1], second, third)
                elif opcode == 0x7D:  # EMPTY_DICT
                    stack.append({})
                elif opcode == 0x2E:  # STOP
                    return stack.pop()
                else:
                    self.stack, self.at, at = stack, at, -1  # from here the handler moves on
                    HANDLERS[opcode](self)
                    stack, code, at, limit = self.stack, self.code, self.at, self.limit
            raise UnreadableFile("limit", f"the pickle has more than {OPCODE_LIMIT} opcodes")
        except UnreadableFile as problem:
            if problem.offset is None:
                problem.offset = self.base + (self.at if at < 0 else at)
            raise
        except RecursionError:  # a call whose argument is a call
            raise UnreadableFile("limit", "the pickle's calls are nested too deeply", self.position) from None
        except (LookupError, TypeError, ValueError, AttributeError, OverflowError, EOFError, struct.error) as problem:
            raise self._damage(problem, self.at if at < 0 else at) from None
        finally:
            if at >= 0:
                self.at = at
            self.allowance.opcodes = max(0, self.allowance.opcodes - executed - 1)

    def _damage(self, problem: Exception, at: int) -> UnreadableFile:
        offset = self.base + at
        if isinstance(problem, (EOFError, struct.error)) or offset >= self.source.size:
            return UnreadableFile("truncated", "the pickle is cut short", self.source.size)
        if isinstance(problem, KeyError):
            what = "asks for a memo entry that it never made"
        elif isinstance(problem, IndexError):
            what = "takes more from its stack than is there"
        else:
            what = f"is damaged ({type(problem).__name__})"
        return UnreadableFile("pickle", f"the pickle {what}", offset)

    def _advance(self) -> None:
        """Move the window to the next opcode, and look at the limits."""
        position = self.base + self.at
        left = self.source.size - position
        if left <= 0:
            raise EOFError
        self.charge(4 * max(0, position - self._charged))  # a text takes up to 4 bytes per byte
        self._charged = position
        if len(self.memo) > MEMO_LIMIT:
            raise UnreadableFile("limit", f"the pickle remembers more than {MEMO_LIMIT} objects")
        if self._in_memory:
            self.limit = min(len(self.code), self.at + _STRIDE)
            return
        skipped = self.at > len(self.code)
        self._width = _NEXT_WINDOW if skipped else min(2 * self._width, _LARGEST_WINDOW)
        self._read_window(min(left, self._width))

    def _read_window(self, width: int) -> None:
        position = self.base + self.at
        self.code = self.source.read(position, width)
        self.base, self.at = position, 0
        ends = position + width == self.source.size
        self.limit = width if ends else max(1, width - _SLACK)

    # -- what handlers of opcodes use ------------------------------------------------------------------

    def take(self, nbytes: int) -> bytes:
        """The next `nbytes` bytes, an operand."""
        if self.at + nbytes > len(self.code):
            if self.position + nbytes > self.source.size:
                raise EOFError
            left = self.source.size - self.position
            self._read_window(min(left, max(self._width, nbytes + _SLACK)))
        data = self.code[self.at : self.at + nbytes]
        self.at += nbytes
        return data

    def unsigned(self, nbytes: int) -> int:
        """The next `nbytes` bytes as a number."""
        return int.from_bytes(self.take(nbytes), "little")

    def skip(self, nbytes: int, written: str = BYTES) -> LongBytes:
        """The next `nbytes` bytes, which are left where they are."""
        if nbytes < 0:
            raise ValueError
        if self.position + nbytes > self.source.size:
            raise EOFError
        skipped = LongBytes(self.source, self.position, nbytes, written)
        self.at += nbytes
        self._charged += nbytes
        return skipped

    def line(self, limit: int) -> bytes:
        """The operand up to the next line feed, which is left out; ValueError where it is over `limit` bytes."""
        length = self.line_length(limit)
        line = self.take(length + 1)
        return line[:-1]

    def line_length(self, limit: int) -> int:
        """How many bytes there are up to the next line feed; ValueError where they are over `limit`."""
        found = self.code.find(b"\n", self.at, self.at + limit + 1)
        if found >= 0:
            return found - self.at
        position = self.base + len(self.code)
        stop = min(self.source.size, self.position + limit + 1)
        while position < stop:
            part = self.source.read(position, min(_SCANNED_AT_ONCE, stop - position))
            self.allowance.scanned -= len(part)
            if self.allowance.scanned < 0:
                raise UnreadableFile("limit", f"the pickle has lines of more than {SCAN_LIMIT >> 20} MB")
            found = part.find(b"\n")
            if found >= 0:
                return position + found - self.position
            position += len(part)
        if stop == self.source.size:
            raise EOFError
        raise ValueError

    def pop_mark(self) -> list[object]:
        """What was pushed since the last MARK, which is undone."""
        items, self.stack = self.stack, self.marks.pop()
        return items

    def charge(self, nbytes: int) -> None:
        """Account for memory that an opcode takes beyond the ordinary."""
        self.allowance.memory -= nbytes
        if self.allowance.memory < 0:
            raise UnreadableFile("limit", f"the pickle asks for more than {MEMORY_LIMIT >> 20} MB")

    def named(self, module: str, name: str, offset: int) -> Global:
        """The global of that name, which the opcode at byte `offset` asks for."""
        found = self.globals.get((module, name))
        if found is None:
            if len(self.globals) >= GLOBAL_LIMIT:
                raise UnreadableFile("limit", f"the pickle names more than {GLOBAL_LIMIT} globals")
            found = self.globals[module, name] = Global(module, name, offset)
        if id(found) not in self._reducers:
            reducer = find_reducer(module, name)
            if reducer is not None:
                self._reducers[id(found)] = reducer
        return found

    def call(self, callee: object, args: object) -> object:
        """What calling `callee` would make: an Instance, where no reducer knows better."""
        if type(args) is not tuple:
            raise TypeError
        if type(callee) is not Global:
            self.named("<computed>", type(callee).__name__, self.position - 1).called = True
            return Instance(None, args)
        callee.called = True
        reducer = self._reducers.get(id(callee))
        made = NotImplemented if reducer is None else reducer(self, args)
        return Instance(callee, args) if made is NotImplemented else made


def _no_persistent_id(identity: object) -> object:
    raise UnreadableFile("pickle", "the pickle refers to an object outside itself (a persistent id)")
