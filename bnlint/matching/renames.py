"""Modules that carry another name: found by their shapes, their order in the file, and what their names share."""

from __future__ import annotations

from bnlint.matching.alignment import decided_pairs, optimal_pairs
from bnlint.matching.names import ancestors, features, likeness, module_of
from bnlint.matching.substitutions import Substitutions
from bnlint.matching.support import shares, supported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Mapping, Sequence

    from bnlint.matching.ledger import Ledger
    from bnlint.matching.names import Shape

    Leaves = tuple[tuple[str, Shape], ...]

ROUNDS = 6  # each round knows the names that the one before has learned
MODULE = 1 << 40  # one more module outweighs any likeness of names
ALL_PAIRS = 4096  # up to so many pairs of modules with equal shapes, all are weighed; beyond, those near by
WINDOW = 12


class OpenModule:
    """A module none of whose tensors has a place yet: its leaves with shapes, and its place in the file."""

    __slots__ = ("leaves", "name", "place", "traits")

    def __init__(self, name: str, place: int, leaves: Leaves, *, numbers: bool) -> None:
        self.name = name
        self.place = place
        self.leaves = leaves
        self.traits = features(name, numbers=numbers)

    @property
    def thin(self) -> bool:
        """True where no tensor has two dimensions: any normalisation of this width looks like that."""
        return all(len(shape) < 2 for _, shape in self.leaves)


def rename_modules(ledger: Ledger) -> None:
    """Settle the modules of equal shapes that carry other names.

    Words decide first; then what they have taught of how numbers moved; only then numbers that are equal.
    """
    numbers = False
    for _ in range(ROUNDS):
        still_open = len(ledger.source)
        if not ledger.source or not ledger.target:
            return
        _along_the_file(ledger, numbers=numbers)
        Substitutions(ledger.module_pairs()).apply(ledger)
        _inside_known_blocks(ledger, numbers=numbers)
        if len(ledger.source) == still_open:
            if numbers:
                return
            numbers = True


def _along_the_file(ledger: Ledger, *, numbers: bool) -> None:
    source, target = _open_modules(ledger, numbers=numbers)
    _settle(ledger, source, target, _anchors(ledger))


def _inside_known_blocks(ledger: Ledger, *, numbers: bool) -> None:
    """Align what is left inside blocks whose partner is known: there the order in the file may differ."""
    partners = _block_partners(ledger.module_pairs())
    source, target = _open_modules(ledger, numbers=numbers)
    inside_source = _by_block(source, partners)
    inside_target = _by_block(target, set(partners.values()))
    for block, modules in inside_source.items():
        if partners[block] in inside_target:
            _settle(ledger, modules, inside_target[partners[block]], [])


def _by_block(modules: Iterable[OpenModule], blocks: Container[str]) -> dict[str, list[OpenModule]]:
    """The modules by the innermost of these blocks that they are in."""
    inside: dict[str, list[OpenModule]] = {}
    for module in modules:
        block = next((each for each in ancestors(module_of(module.name)) if each in blocks), None)
        if block is not None:
            inside.setdefault(block, []).append(module)
    return inside


def _block_partners(modules: Mapping[str, str]) -> dict[str, str]:
    """For each block of the source the one of the target where most of its modules went."""
    votes: dict[str, dict[str, int]] = {}
    for module, other in modules.items():
        for block, its in zip(ancestors(module_of(module)), ancestors(module_of(other)), strict=False):
            counts = votes.setdefault(block, {})
            counts[its] = counts.get(its, 0) + 1
    return {block: max(counts, key=lambda its: counts[its]) for block, counts in votes.items()}


def _open_modules(ledger: Ledger, *, numbers: bool) -> tuple[list[OpenModule], list[OpenModule]]:
    settled = ledger.module_pairs()
    return (
        _grouped(ledger.source, ledger.source_modules, settled, numbers=numbers),
        _grouped(ledger.target, ledger.target_modules, set(settled.values()), numbers=numbers),
    )


def _grouped(
    names: Mapping[str, Shape], places: Mapping[str, int], settled: Iterable[str], *, numbers: bool
) -> list[OpenModule]:
    leaves: dict[str, list[tuple[str, Shape]]] = {}
    for name, shape in names.items():
        module, _, leaf = name.rpartition(".")
        leaves.setdefault(module, []).append((leaf, shape))
    for module in settled:
        leaves.pop(module, None)
    return [OpenModule(module, places[module], tuple(sorted(its)), numbers=numbers) for module, its in leaves.items()]


def _anchors(ledger: Ledger) -> list[tuple[int, int, int]]:
    return [
        (ledger.source_modules[module], ledger.target_modules[other], MODULE)
        for module, other in ledger.module_pairs().items()
    ]


def _settle(
    ledger: Ledger, source: Sequence[OpenModule], target: Sequence[OpenModule], anchors: list[tuple[int, int, int]]
) -> None:
    """Settle the pairs of an alignment that nothing else could replace and that have support."""
    by_place = {module.place: module for module in source}
    others = {module.place: module for module in target}
    optimal = [
        (i, j) for i, j in optimal_pairs([*anchors, *_candidates(source, target)]) if i in by_place and j in others
    ]
    chosen = [(by_place[i], others[j]) for i, j in decided_pairs(optimal)]
    seen_from_source = shares([by_place[i] for i in {i for i, _ in optimal}], source)
    seen_from_target = shares([others[j] for j in {j for _, j in optimal}], target)
    for i, j in supported(chosen, seen_from_source, seen_from_target, _settled_places(ledger)):
        for leaf, _ in by_place[i].leaves:
            ledger.pair(_joined(by_place[i].name, leaf), _joined(others[j].name, leaf))


def _settled_places(ledger: Ledger) -> set[tuple[int, int]]:
    return {
        (ledger.source_modules[module_of(name)], ledger.target_modules[module_of(other)])
        for name, other in ledger.pairs.items()
    }


def _candidates(source: Sequence[OpenModule], target: Sequence[OpenModule]) -> list[tuple[int, int, int]]:
    """The pairs of modules with equal leaves: of large groups, those at about the same place."""
    alike: dict[Leaves, tuple[list[OpenModule], list[OpenModule]]] = {}
    for side, modules in enumerate((source, target)):
        for module in modules:
            alike.setdefault(module.leaves, ([], []))[side].append(module)
    return [
        (module.place, others[k].place, MODULE + likeness(module.traits, others[k].traits))
        for modules, others in alike.values()
        for rank, module in enumerate(modules)
        for k in _near(rank, len(modules), len(others))
    ]


def _near(rank: int, count: int, others: int) -> Iterable[int]:
    if count * others <= ALL_PAIRS:
        return range(others)
    centres = {rank, others - count + rank, rank * others // count}
    return {
        k for centre in centres for k in range(max(0, centre - WINDOW), min(others, centre + WINDOW + 1))
    }  # fmt: skip


def _joined(module: str, leaf: str) -> str:
    return f"{module}.{leaf}" if module else leaf
