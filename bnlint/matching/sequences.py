"""Numbered siblings that moved up: `features.2` of a VGG is `features.3` of the one with BatchNorm."""

from __future__ import annotations

from bnlint.matching.alignment import decided_pairs, optimal_pairs
from bnlint.matching.names import heads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from bnlint.matching.ledger import Ledger
    from bnlint.matching.names import Shape

    Children = dict[str, dict[str, Shape]]  # the number of a child -> what it holds: rest of the name -> shape


PAIRS_LIMIT = 250_000  # pairs of equal children; beyond, names decide


def settle_moved_siblings(ledger: Ledger) -> None:
    """Settle the children of numbered containers by their order, where by their names they clash.

    Only where the order fits entirely: every child of the one side has a partner of equal names and shapes
    on the other, no other order would do, and by name fewer had.
    """
    source, target = _containers(ledger.source), _containers(ledger.target)
    done: list[str] = []
    for container in sorted(source.keys() & target.keys(), key=len):
        if container.startswith(tuple(done)):
            continue
        children, others = source[container], target[container]
        if not any(_clash(child, others.get(number, {})) for number, child in children.items()):
            continue
        moved = _by_order(children, others)
        by_name = sum(others.get(number) == child for number, child in children.items())
        if len(moved) == min(len(children), len(others)) > max(by_name, 1):
            done.append(container)
            for number, other in moved.items():
                for rest in children[number]:
                    ledger.pair(f"{container}{number}{rest}", f"{container}{other}{rest}")


def _containers(names: Mapping[str, Shape]) -> dict[str, Children]:
    """Every module with numbered children, its name with the dot."""
    found: dict[str, Children] = {}
    for name, shape in names.items():
        for container, tail in heads(name):
            number, dot, rest = tail.partition(".")
            if dot and number.isdigit():
                found.setdefault(container, {}).setdefault(number, {})[dot + rest] = shape
    return found


def _clash(child: Mapping[str, Shape], other: Mapping[str, Shape]) -> bool:
    return any(rest in other and other[rest] != shape for rest, shape in child.items())


def _by_order(children: Children, others: Children) -> dict[str, str]:
    """Child -> child of the other side, in order, where nothing else would do."""
    places: dict[frozenset[tuple[str, Shape]], list[int]] = {}
    for place, child in enumerate(others.values()):
        places.setdefault(frozenset(child.items()), []).append(place)
    pairs = [
        (place, partner, 1)
        for place, child in enumerate(children.values())
        for partner in places.get(frozenset(child.items()), ())
    ]
    if len(pairs) > PAIRS_LIMIT:
        return {}
    numbers, other_numbers = list(children), list(others)
    return {numbers[i]: other_numbers[j] for i, j in decided_pairs(optimal_pairs(pairs))}
