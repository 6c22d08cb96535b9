"""Modules that carry another name: found by their shapes, their order in the file, and what their names share."""

from __future__ import annotations

from bnlint.matching.alignment import decided_pairs
from bnlint.matching.names import ancestors, features, likeness, module_of
from bnlint.matching.substitutions import Substitutions

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from bnlint.matching.ledger import Ledger
    from bnlint.matching.names import Shape

    Leaves = tuple[tuple[str, Shape], ...]

ROUNDS = 4  # each round knows the names that the one before has learned
MODULE = 1 << 40  # one more module outweighs any likeness of names
ALL_PAIRS = 4096  # up to so many pairs of modules with equal shapes, all are weighed; beyond, those near by
WINDOW = 12


class OpenModule:
    """A module none of whose tensors has a place yet: its leaves with shapes, and its place in the file."""

    __slots__ = ("features", "leaves", "name", "place")

    def __init__(self, name: str, place: int, leaves: Leaves) -> None:
        self.name = name
        self.place = place
        self.leaves = leaves
        self.features = features(name)

    @property
    def thin(self) -> bool:
        """True where no tensor has two dimensions: any normalisation of this width looks like that."""
        return all(len(shape) < 2 for _, shape in self.leaves)


def rename_modules(ledger: Ledger) -> dict[str, str]:
    """Settle the modules of equal shapes that carry other names; returns source module -> target module."""
    already = ledger.module_pairs()
    for _ in range(ROUNDS):
        still_open = len(ledger.source)
        if not ledger.source or not ledger.target:
            break
        _along_the_file(ledger)
        Substitutions(ledger.module_pairs()).apply(ledger)
        _inside_known_blocks(ledger)
        if len(ledger.source) == still_open:
            break
    return {module: other for module, other in ledger.module_pairs().items() if module not in already}


def _along_the_file(ledger: Ledger) -> None:
    source, target = _open_modules(ledger)
    _settle(ledger, source, target, _anchors(ledger))


def _inside_known_blocks(ledger: Ledger) -> None:
    """Align what is left inside blocks whose partner is known: there the order in the file may differ."""
    partners = _block_partners(ledger.module_pairs())
    blocks = set(partners.values())
    source, target = _open_modules(ledger)
    inside_source: dict[str, list[OpenModule]] = {}
    for module in source:
        block = next((each for each in ancestors(module_of(module.name)) if each in partners), None)
        if block is not None:
            inside_source.setdefault(partners[block], []).append(module)
    inside_target: dict[str, list[OpenModule]] = {}
    for module in target:
        block = next((each for each in ancestors(module_of(module.name)) if each in blocks), None)
        if block is not None:
            inside_target.setdefault(block, []).append(module)
    for block, modules in inside_source.items():
        if block in inside_target:
            _settle(ledger, modules, inside_target[block], [])


def _block_partners(modules: Mapping[str, str]) -> dict[str, str]:
    """For each block of the source the one of the target where most of its modules went."""
    votes: dict[str, dict[str, int]] = {}
    for module, other in modules.items():
        for block, its in zip(ancestors(module_of(module)), ancestors(module_of(other)), strict=False):
            counts = votes.setdefault(block, {})
            counts[its] = counts.get(its, 0) + 1
    return {block: max(counts, key=lambda its: counts[its]) for block, counts in votes.items()}


def _open_modules(ledger: Ledger) -> tuple[list[OpenModule], list[OpenModule]]:
    settled = ledger.module_pairs()
    return (
        _grouped(ledger.source, ledger.source_modules, settled),
        _grouped(ledger.target, ledger.target_modules, set(settled.values())),
    )


def _grouped(names: Mapping[str, Shape], places: Mapping[str, int], settled: Iterable[str]) -> list[OpenModule]:
    leaves: dict[str, list[tuple[str, Shape]]] = {}
    for name, shape in names.items():
        module, _, leaf = name.rpartition(".")
        leaves.setdefault(module, []).append((leaf, shape))
    for module in settled:
        leaves.pop(module, None)
    return [OpenModule(module, places[module], tuple(sorted(its))) for module, its in leaves.items()]


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
    pairs = decided_pairs([*anchors, *_candidates(source, target)])
    chosen = [(by_place[i], others[j]) for i, j in pairs if i in by_place and j in others]
    neighbours = {
        (ledger.source_modules[module_of(name)], ledger.target_modules[module_of(other)])
        for name, other in ledger.pairs.items()
    }
    for module, other in _supported(chosen, source, target, neighbours):
        for leaf, _ in module.leaves:
            ledger.pair(_joined(module.name, leaf), _joined(other.name, leaf))


def _candidates(source: Sequence[OpenModule], target: Sequence[OpenModule]) -> list[tuple[int, int, int]]:
    """The pairs of modules with equal leaves: of large groups, those at about the same place."""
    alike: dict[Leaves, tuple[list[OpenModule], list[OpenModule]]] = {}
    for side, modules in enumerate((source, target)):
        for module in modules:
            alike.setdefault(module.leaves, ([], []))[side].append(module)
    return [
        (module.place, others[k].place, MODULE + likeness(module.features, others[k].features))
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


def _supported(
    chosen: Sequence[tuple[OpenModule, OpenModule]],
    source: Sequence[OpenModule],
    target: Sequence[OpenModule],
    neighbours: set[tuple[int, int]],
) -> list[tuple[OpenModule, OpenModule]]:
    """Those pairs that are no coincidence of widths.

    Either the module before or after it is paired alike, or it has more than vectors and of the open
    modules beside it, on both sides, at least half have found a partner, as have, on one side at
    least, half of those in every block around it.
    """
    shares = (
        _shares([module for module, _ in chosen], source),
        _shares([other for _, other in chosen], target),
    )
    firm = neighbours | {
        (module.place, other.place)
        for module, other in chosen
        if not module.thin and _covered(*(shares[k][module_of(each.name)] for k, each in enumerate((module, other))))
    }
    forward = _reached(chosen, firm, -1)
    backward = _reached(reversed(chosen), firm, 1)
    supported = forward | backward
    return [(module, other) for module, other in chosen if (module.place, other.place) in supported]


def _reached(
    chosen: Iterable[tuple[OpenModule, OpenModule]], firm: set[tuple[int, int]], step: int
) -> set[tuple[int, int]]:
    """The firm places and those next to them, one after the other, in the order of `chosen`."""
    reached = set(firm)
    for module, other in chosen:
        if (module.place + step, other.place + step) in reached:
            reached.add((module.place, other.place))
    return reached


def _covered(source: Sequence[float], target: Sequence[float]) -> bool:
    return source[0] >= 0.5 and target[0] >= 0.5 and max(min(source), min(target)) >= 0.5


def _shares(chosen: Sequence[OpenModule], every: Sequence[OpenModule]) -> dict[str, list[float]]:
    """For each parent of open modules the share of them that was chosen, then the same for each block around it."""
    parents = [module_of(module.name) for module in every]
    found = _counted(block for module in chosen for block in _around(module_of(module.name)))
    all_of_them = _counted(block for parent in parents for block in _around(parent))
    beside_found, beside = _counted(module_of(module.name) for module in chosen), _counted(parents)
    return {
        parent: [
            beside_found.get(parent, 0) / beside[parent],
            *(found.get(block, 0) / all_of_them[block] for block in _around(parent)),
        ]
        for parent in beside
    }


def _around(parent: str) -> list[str]:
    """A module, the blocks around it, and the model as a whole."""
    return [*ancestors(parent), ""]


def _counted(parents: Iterable[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for parent in parents:
        counts[parent] = counts.get(parent, 0) + 1
    return counts


def _joined(module: str, leaf: str) -> str:
    return f"{module}.{leaf}" if module else leaf
