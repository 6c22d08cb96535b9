"""Which key of one state dict is which key of another, and what a loader would make of it.

`match(source, target)` answers what a person does by hand when `load_state_dict` complains: equal names
first, then the changes of prefix that explain most, then modules that were renamed, found by shapes,
order and names. Every step keeps shapes and uses each key once, so that the plan loads wherever one
can; where nothing decides between two, neither is taken.
"""

from __future__ import annotations

from bnlint.matching.counters import follow
from bnlint.matching.ledger import Ledger
from bnlint.matching.names import is_counter, module_of, unwrapped_names
from bnlint.matching.outcome import LoadOutcome, load_outcome
from bnlint.matching.prefixes import change_prefixes
from bnlint.matching.rename_map import apply_renames, rename_map
from bnlint.matching.renames import rename_modules
from bnlint.matching.sequences import settle_moved_siblings
from bnlint.matching.wording import families, load_line
from bnlint.model.key_plan import KeyPlan
from bnlint.model.state_dict import TRANSPORT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from bnlint.matching.names import Shape
    from bnlint.model.key_plan import PrefixChange
    from bnlint.model.tensor import Tensor

__all__ = ["LoadOutcome", "apply_renames", "families", "load_line", "load_outcome", "match", "rename_map"]


def match(source: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> KeyPlan:
    """How the keys of `source` (what is loaded) become those of `target` (what it is loaded into).

    Only names, their order and shapes are looked at. A num_batches_tracked of shape (1,) is taken as the
    scalar that `load_state_dict` makes of it.
    """
    loaded, wanted = Side(source), Side(target)
    ledger = Ledger(loaded.shapes, wanted.shapes)
    settle_moved_siblings(ledger)
    _settle_equal_names(ledger, loaded, wanted)
    prefixes, undecided = change_prefixes(ledger)
    rename_modules(ledger)
    counters = follow(loaded.counters, wanted.counters, ledger.module_pairs(), prefixes)
    moved = _count(prefixes, {**ledger.pairs, **counters})

    places = {
        loaded.key_of[name]: wanted.key_of[other]
        for settled in (ledger.pairs, ledger.reshaped, counters)
        for name, other in settled.items()
    }
    fits = {key: _shape(key, source) == _shape(other, target) for key, other in places.items()}
    renames = {key: places[key] for key in source if fits.get(key)}
    taken = set(places.values())
    unexpected = [key for key in source if key not in places]
    missing = [key for key in target if key not in taken]
    return KeyPlan(
        renames,
        prefixes=prefixes,
        undecided=undecided,
        dropped=_dropped(renames),
        moved={module_of(key): module_of(other) for key, other in renames.items() if loaded.names[key] in moved},
        missing=[key for key in missing if not is_counter(key)],
        unexpected=[key for key in unexpected if not is_counter(key)],
        missing_counters=list(filter(is_counter, missing)),
        unexpected_counters=list(filter(is_counter, unexpected)),
        reshaped=[(key, places[key]) for key in source if key in places and not fits[key]],
    )


class Side:
    """The keys of one side: their names without wrappers in the middle, shapes, and the counters apart."""

    __slots__ = ("counters", "key_of", "names", "shapes")

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self.names = unwrapped_names(tensors)
        self.key_of = {name: key for key, name in self.names.items()}
        self.counters = [name for key, name in self.names.items() if is_counter(key)]
        self.shapes = {name: tuple(tensors[key].shape) for key, name in self.names.items() if not is_counter(key)}


def _shape(key: str, tensors: Mapping[str, Tensor]) -> Shape:
    shape = tuple(tensors[key].shape)
    return () if shape == (1,) and is_counter(key) else shape


def _settle_equal_names(ledger: Ledger, source: Side, target: Side) -> None:
    """Keys that are equal as they stand, then those that are once the wrappers in their middle are gone."""
    for key, name in source.names.items():
        if key in target.names:
            ledger.settle(name, target.names[key])
    for name in list(ledger.source):
        ledger.settle(name, name)


def _count(prefixes: Iterable[PrefixChange], pairs: Mapping[str, str]) -> set[str]:
    """Say with each change of prefix how many keys it explains; returns the names that none does."""
    left = {name: other for name, other in pairs.items() if name != other}
    for change in prefixes:
        explained = [name for name, other in left.items() if change.apply(name) == other]
        change.keys = len(explained)
        for name in explained:
            del left[name]
    return set(left)


def _dropped(renames: Mapping[str, str]) -> list[str]:
    """The wrappers that stand in the middle of keys on one side and not on the other."""
    return [
        token
        for token in TRANSPORT
        if any(
            key != other and (f".{token}." in key) != (f".{token}." in other)
            for key, other in renames.items()
        )
    ]  # fmt: skip
