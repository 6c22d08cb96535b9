"""What a hostile file is, and what must come of checking it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from inspect import signature
from pathlib import Path

UNREADABLE = "unreadable-checkpoint"
NOT_ONE = "not-a-checkpoint"
LFS = "lfs-pointer"
UNSAFE = "unsafe-pickle"
UNSUPPORTED = "unsupported-format"
READ = ("checked", "nothing-to-check")


@dataclass(frozen=True)
class Expected:
    """What a check of one named file must end in.

    One of `rules` speaks at `severity`, with a message in which the pattern `says` is found; no rule
    but these and those of `beside` speaks as an error. With no `rules` and one exit code, nothing is an
    error. `statuses` are those the file may have in the report, `layers` how many BatchNorm layers are
    found where it matters.
    """

    exit_codes: tuple[int, ...]
    rules: tuple[str, ...] = ()
    severity: str | None = None
    says: str = ""
    statuses: tuple[str, ...] = ()
    layers: int | None = None
    beside: tuple[str, ...] = ()

    @property
    def is_open(self) -> bool:
        """True where the text leaves open what is said."""
        return self.exit_codes == (0, 1) and not self.rules


def unreadable(says: str) -> Expected:
    """A damaged checkpoint."""
    return Expected((1,), (UNREADABLE,), "error", says, ("unreadable",))


def not_a_checkpoint(says: str) -> Expected:
    """Something else under a checkpoint's name."""
    return Expected((1,), (NOT_ONE,), "error", says, (NOT_ONE,))


def refused(says: str = "") -> Expected:
    """A damaged checkpoint or none at all: too little is left to tell which."""
    return Expected((1,), (UNREADABLE, NOT_ONE), "error", says, ("unreadable", NOT_ONE))


def lfs_pointer(says: str = "lfs") -> Expected:
    """A git-lfs pointer in place of the file."""
    return Expected((1,), (LFS,), "error", says, ("unreadable", NOT_ONE))


def unsafe(says: str) -> Expected:
    """A pickle that would run something."""
    return Expected((1,), (UNSAFE,), "error", says, (*READ, "unreadable"), beside=(UNREADABLE,))


def unsafe_or_broken() -> Expected:
    """A pickle that would run something and is damaged: which of the two is said is not specified."""
    return Expected((1,), (UNSAFE, UNREADABLE, NOT_ONE), "error", "", (*READ, "unreadable", NOT_ONE))


def noted(says: str) -> Expected:
    """A pickle that needs a class nobody here knows: worth a line, no failure."""
    return Expected((0,), (UNSAFE,), "info", says, READ)


def mentioned(says: str) -> Expected:
    """A pickle that names something dangerous and does not call it: how loud is not specified."""
    return Expected((0, 1), (UNSAFE,), None, says, (*READ, "unreadable"))


def unsupported(says: str) -> Expected:
    """A known format that this version does not read."""
    return Expected((0,), (UNSUPPORTED,), "info", says, ("skipped",))


def sound(layers: int = 1) -> Expected:
    """Odd, but torch reads it, and so must bnlint: this many layers, no error."""
    return Expected((0,), statuses=("checked",), layers=layers)


def empty_handed() -> Expected:
    """Readable, and nothing in it is BatchNorm."""
    return Expected((0,), statuses=("nothing-to-check",), layers=0)


def found(rule: str, layers: int = 1) -> Expected:
    """Readable, and a defect of the model in it is found."""
    return Expected((1,), (rule,), "error", "", ("checked",), layers)


def bounded() -> Expected:
    """The text leaves open whether this is read or refused: it only may not crash, hang or grow."""
    return Expected((0, 1), (), None, "", (*READ, "unreadable", NOT_ONE, "skipped"))


@dataclass(frozen=True)
class Case:
    """One hostile file: `write` makes it (and what belongs to it) in an empty folder of its own."""

    name: str
    room: str
    filename: str
    purpose: str
    expected: Expected
    write: Callable[[Path], None]
    nasty: bool

    def __str__(self) -> str:
        return f"{self.room}-{self.name}"

    def make(self, corpus: Path) -> Path:
        """Write the case below `corpus`; the file to check."""
        folder = corpus / self.room / self.name
        folder.mkdir(parents=True)
        path = folder / self.filename
        self.write(path)
        return path


CASES: list[Case] = []


def hostile(
    expected: Expected | Callable[..., Expected],
    filename: str | Callable[..., str] = "model.pth",
    *,
    each: Mapping[str, object] | None = None,
    nasty: bool = False,
) -> Callable[[Callable[..., bytes | None]], Callable[..., bytes | None]]:
    """Register a maker of a hostile file.

    It returns the bytes of the file, or takes the `path` as its first parameter and writes what it
    likes. With `each`, one file per entry: the maker gets the entry's value last. `expected` and
    `filename` may depend on the entry too. `nasty` files are checked in a process of their own.
    """

    def register(maker: Callable[..., bytes | None]) -> Callable[..., bytes | None]:
        writes_itself = "path" in signature(maker).parameters
        for label, value in (each or {"": None}).items():
            arguments = () if each is None else (value,)
            suffix = f"_{slug(label)}" if label else ""
            CASES.append(
                Case(
                    maker.__name__ + suffix,
                    maker.__module__.rpartition(".")[2],
                    filename if isinstance(filename, str) else filename(*arguments),
                    (maker.__doc__ or "").strip(),
                    expected if isinstance(expected, Expected) else expected(*arguments),
                    _writer(maker, arguments, writes_itself),
                    nasty,
                )
            )
        return maker

    return register


def slug(label: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", label.lower()).strip("_") or "x"


def _writer(
    maker: Callable[..., bytes | None], arguments: tuple[object, ...], writes_itself: bool
) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        if writes_itself:
            maker(path, *arguments)
        else:
            made = maker(*arguments)
            assert made is not None
            path.write_bytes(made)

    return write
