"""How the keys of one state dict become those of another, and what is left over."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class PrefixChange:
    """One prefix taken off and another put on: `strip` + rest -> `add` + rest; `keys` were matched by it."""

    __slots__ = ("add", "keys", "strip")

    def __init__(self, strip: str, add: str, keys: int = 0) -> None:
        self.strip = strip
        self.add = add
        self.keys = keys

    def apply(self, key: str) -> str | None:
        """The key with its prefix changed; None where it does not start with `strip`."""
        return self.add + key[len(self.strip) :] if key.startswith(self.strip) else None


class KeyPlan:
    """How the keys of a source (a pretrained file) become those of a target (a model).

    `renames` maps every source key that has a place in the target to that place, unchanged names
    included; it is injective and keeps shapes. `exact` counts those whose name did not change.
    `prefixes` are the changes of prefix that explain most of it, the best first; `dropped` the wrapper
    names taken out of the middle of keys; `moved` the modules that carry another name (source module
    -> target module). `missing` are target keys that nothing fills, `unexpected` source keys that go
    nowhere, `reshaped` the pairs (source key, target key) of one name whose shapes differ. The
    num_batches_tracked keys among `missing` and `unexpected` are counted apart in
    `missing_counters` and `unexpected_counters`. `undecided` are changes of prefix that were not made
    because another explains as much: a plain source fits `student.` and `teacher.` equally well.
    """

    __slots__ = (
        "dropped",
        "missing",
        "missing_counters",
        "moved",
        "prefixes",
        "renames",
        "reshaped",
        "undecided",
        "unexpected",
        "unexpected_counters",
    )

    def __init__(
        self,
        renames: Mapping[str, str],
        *,
        prefixes: Sequence[PrefixChange] = (),
        dropped: Sequence[str] = (),
        moved: Mapping[str, str] | None = None,
        missing: Sequence[str] = (),
        unexpected: Sequence[str] = (),
        missing_counters: Sequence[str] = (),
        unexpected_counters: Sequence[str] = (),
        reshaped: Sequence[tuple[str, str]] = (),
        undecided: Sequence[PrefixChange] = (),
    ) -> None:
        self.renames = dict(renames)
        self.prefixes = list(prefixes)
        self.dropped = list(dropped)
        self.moved = dict(moved or {})
        self.missing = list(missing)
        self.unexpected = list(unexpected)
        self.missing_counters = list(missing_counters)
        self.unexpected_counters = list(unexpected_counters)
        self.reshaped = list(reshaped)
        self.undecided = list(undecided)

    @property
    def exact(self) -> int:
        """How many keys have the same name and shape on both sides."""
        return sum(source == target for source, target in self.renames.items())
