"""A file as its bytes show it: what it is, what is wrong with it, what it would import."""

from __future__ import annotations

from bnlint.finding import Location

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from bnlint.errors import UnreadableFile
    from bnlint.model.checkpoint import Checkpoint

FOREIGN = ("html", "text", "image", "unknown")  # codes of UnreadableFile: not a model at all
SMALLEST_CHECKPOINT = 200  # bytes; one tensor takes more in every container of torch


class Global:
    """A class or function that a pickle names: `module`.`name`, first seen at byte `offset`.

    `called` is True where the pickle calls it (REDUCE, NEWOBJ, OBJ, INST) or hands it a state
    (BUILD). A copyreg extension opcode is the module "<copyreg extension>"; the call of a computed
    result the module "<computed>".
    """

    __slots__ = ("called", "module", "name", "offset")

    def __init__(self, module: str, name: str, offset: int, called: bool = False) -> None:
        self.module = module
        self.name = name
        self.offset = offset
        self.called = called

    @property
    def tier(self) -> str:
        """What loading the file with pickle risks by it: "allow", "note" or "danger"."""
        from bnlint.model.pickle_names import tier

        return tier(self.module, self.name, self.called)

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


class RawFile:
    """A file before anyone asks what is in it.

    `format` is one of the report's formats, None where nobody knows. `status` is "checked",
    "nothing-to-check" (readable, no BatchNorm), "unreadable", "not-a-checkpoint" or "skipped".
    `problem` says why a file could not be read. `named` is True where the user gave this very path,
    False where it was met in a folder or handed over by a hook. `facts` holds what single rules ask:
    "python2" (True for a Python 2 pickle or byte-string keys), "pickled_module" (the class of a
    whole model at the top) with "training", "lfs_oid" and "lfs_size", "torch_refuses" (why torch does not load what
    bnlint can read). `notes` go to the report.
    """

    __slots__ = ("checkpoint", "facts", "format", "globals", "named", "notes", "path", "problem", "size", "status")

    def __init__(
        self,
        path: str = "model.pth",
        *,
        size: int = 0,
        format: str | None = None,
        status: str = "checked",
        problem: UnreadableFile | None = None,
        globals: Sequence[Global] = (),
        facts: Mapping[str, object] | None = None,
        notes: Sequence[str] = (),
        named: bool = True,
        checkpoint: Checkpoint | None = None,
    ) -> None:
        self.path = path
        self.size = size
        self.format = format
        self.status = status
        self.problem = problem
        self.globals = list(globals)
        self.facts: dict[str, object] = dict(facts or {})
        self.notes = list(notes)
        self.named = named
        self.checkpoint = checkpoint

    @property
    def foreign(self) -> bool:
        """True where the bytes are something else than a model: a page, text, an image, nobody knows what."""
        return self.problem is not None and self.problem.code in FOREIGN

    @property
    def damaged(self) -> bool:
        """True where the bytes say that they are a checkpoint and cannot be read."""
        return self.problem is not None and self.problem.code not in (*FOREIGN, "lfs", "unsupported")

    @property
    def stub(self) -> bool:
        """True for the start of a checkpoint that is too short to be one: cut short, not damaged."""
        if self.problem is None or self.problem.code != "truncated" or self.format is None:
            return False
        return 0 < self.size < SMALLEST_CHECKPOINT

    def at(self) -> Location:
        """The file as a whole as a place."""
        return Location()

    def subjects(self) -> Iterator[object]:
        """Everything in this file that a rule can look at, the file itself first."""
        yield self
        if self.checkpoint is not None and self.problem is None:
            yield from self.checkpoint.subjects()
