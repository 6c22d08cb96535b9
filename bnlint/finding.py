"""What bnlint tells you: one Finding per problem, at one Location, with one Severity."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import ClassVar

    Number = int | float | str | bool | None
    Evidence = Mapping[str, Number | Sequence[Number]]


class Severity(int):
    """How much a finding matters. Ordered: `off` < `info` < `warning` < `error`.

    `error`: results are wrong or the file cannot be used. `warning`: very probably wrong, or
    wrong in one common use. `info`: a fact worth knowing. `off`: the rule does not speak.
    """

    OFF: ClassVar[Severity]
    INFO: ClassVar[Severity]
    WARNING: ClassVar[Severity]
    ERROR: ClassVar[Severity]
    NAMES: ClassVar[tuple[str, ...]] = ("off", "info", "warning", "error")

    @classmethod
    def of(cls, name: str) -> Severity:
        """The severity called `name`; ValueError where there is none."""
        return cls(cls.NAMES.index(name))

    def __str__(self) -> str:
        return self.NAMES[self]

    __repr__ = __str__


Severity.OFF, Severity.INFO, Severity.WARNING, Severity.ERROR = map(Severity, range(4))


class Location:
    """Where: layers and tensors of a state dict, or lines of a source file.

    `layers` and `tensors` carry the names exactly as the state dict has them, `state_dict` the
    place of that state dict in the file (`"ema"`, or `""` where the file is the state dict).
    A rule makes one with `layer.at(...)` and its like and never sees a path; the engine adds it.
    """

    __slots__ = ("column", "end_column", "end_line", "layers", "line", "path", "state_dict", "tensors")

    def __init__(
        self,
        layers: Sequence[str] = (),
        tensors: Sequence[str] = (),
        state_dict: str | None = None,
        *,
        path: str = "",
        line: int | None = None,
        column: int | None = None,
        end_line: int | None = None,
        end_column: int | None = None,
    ) -> None:
        self.layers = tuple(layers)
        self.tensors = tuple(tensors)
        self.state_dict = state_dict
        self.path = path
        self.line = line
        self.column = column
        self.end_line = end_line
        self.end_column = end_column


class Finding:
    """One problem at one place.

    A rule yields where and what: `message` is lower case, holds the measured value and what was
    expected, and gives no advice; `evidence` holds the same numbers for machines; `fix` replaces
    the rule's own *Fix* where this case has a more exact one. `severity` is this finding's own
    default where the rule's is graded. `unknown` says what was not known: such a finding is only
    possible, and gets the rule's `possible` severity. The engine stamps `rule`, `family`, the final
    `severity` and the path.
    """

    __slots__ = (
        "evidence",
        "family",
        "fix",
        "location",
        "message",
        "reference",
        "related",
        "rule",
        "severity",
        "unknown",
    )

    def __init__(
        self,
        location: Location,
        message: str,
        *,
        evidence: Evidence | None = None,
        severity: Severity | None = None,
        unknown: str | None = None,
        fix: str | None = None,
        related: Sequence[tuple[Location, str]] = (),
    ) -> None:
        self.location = location
        self.message = message
        self.evidence: Evidence = evidence or {}
        self.severity = severity
        self.unknown = unknown
        self.fix = fix
        self.related = tuple(related)
        self.rule = ""
        self.family = ""
        self.reference: str | None = None

    @property
    def certain(self) -> bool:
        return self.unknown is None

    @property
    def gravity(self) -> Severity:
        """The severity once the engine has stamped it."""
        return Severity.OFF if self.severity is None else self.severity

    def __repr__(self) -> str:
        return f"<{self.severity} {self.rule} {self.location.layers} {self.message!r}>"
