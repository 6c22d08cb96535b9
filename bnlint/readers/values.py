"""What an inert pickle machine leaves behind: names and containers, nothing that runs.

The result of unpickling is a graph of plain Python containers (dict, list, tuple, set, frozenset),
scalars, and the values below. A tensor is a `Tensor` of the model. Nothing here was imported or
called on behalf of the file.
"""

from __future__ import annotations

from bnlint.model.raw_file import Global
from bnlint.model.tensor import Tensor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


class Instance:
    """What REDUCE, NEWOBJ, OBJ or INST would have made: `callee`(*`args`), then BUILD with `state`.

    `callee` is None where a computed result was called. `items` are the pairs of SETITEMS on it,
    `elements` those of APPENDS and ADDITEMS.
    """

    __slots__ = ("args", "callee", "elements", "items", "state")

    def __init__(self, callee: Global | None, args: object) -> None:
        self.callee = callee
        self.args = args
        self.state: object = None
        self.items: list[tuple[object, object]] | None = None
        self.elements: list[object] | None = None


class OrderedMapping(dict[object, object]):
    """A collections.OrderedDict of the file; `state` is what BUILD gave it (`{"_metadata": ...}`)."""

    __slots__ = ("state",)

    def __init__(self) -> None:
        super().__init__()
        self.state: object = None


class Opaque:
    """A value that bnlint keeps by identity and never looks into (an integer of a thousand digits)."""

    __slots__ = ("what",)

    def __init__(self, what: str) -> None:
        self.what = what


class NumpyArray:
    """A numpy array of the file while it is built; `tensor()` is what became of it.

    `tensor()` is None where the array does not hold numbers (object, string and record arrays).
    """

    __slots__ = ("make",)

    def __init__(self, make: Callable[[], Tensor | None]) -> None:
        self.make = make

    def tensor(self) -> Tensor | None:
        return self.make()


class Loaded:
    """A file as a format reader leaves it: the object in it, and what the way there showed.

    `format` is one of the report's formats. `root` is the graph described above. `globals` lists
    every name the pickles mention. `facts` goes to `RawFile.facts`, `notes` to its notes. `code` maps
    the archive's source files to a function that reads one as text (TorchScript's code/*.py); `parts`
    holds what is beside the root (TorchScript's constants).
    """

    __slots__ = ("code", "facts", "format", "globals", "notes", "parts", "root")

    def __init__(
        self,
        format: str,
        root: object,
        *,
        globals: Sequence[Global] = (),
        facts: Mapping[str, object] | None = None,
        notes: Sequence[str] = (),
        code: Mapping[str, Callable[[], str]] | None = None,
        parts: Mapping[str, object] | None = None,
    ) -> None:
        self.format = format
        self.root = root
        self.globals = list(globals)
        self.facts: dict[str, object] = dict(facts or {})
        self.notes = list(notes)
        self.code: Mapping[str, Callable[[], str]] = code or {}
        self.parts: Mapping[str, object] = parts or {}


def as_tensor(value: object) -> Tensor | None:
    """The tensor that a value of the graph is, None where it is something else."""
    if type(value) is Tensor:
        return value
    if type(value) is NumpyArray:
        return value.tensor()
    return None
