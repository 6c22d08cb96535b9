"""The best alignment of two sequences, and which of its pairs nothing else could replace."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    Pair = tuple[int, int, int]  # place in one sequence, place in the other, weight


def optimal_pairs(pairs: Sequence[Pair]) -> list[tuple[int, int]]:
    """The pairs that belong to a heaviest chain in which both places grow; O(n log n) for n pairs."""
    if not pairs:
        return []
    before = _heaviest_up_to(pairs)
    after = _heaviest_up_to([(-i, -j, weight) for i, j, weight in pairs])
    best = max(before)
    return [(i, j) for k, (i, j, weight) in enumerate(pairs) if before[k] + after[k] - weight == best]


def decided_pairs(optimal: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Those of the optimal pairs whose places have no other partner in any heaviest chain."""
    left, right = _counted([i for i, _ in optimal]), _counted([j for _, j in optimal])
    return [(i, j) for i, j in optimal if left[i] == right[j] == 1]


def _heaviest_up_to(pairs: Sequence[Pair]) -> list[int]:
    """For each pair the weight of the heaviest chain that ends with it."""
    rank = {j: k for k, j in enumerate(sorted({j for _, j, _ in pairs}), 1)}
    heaviest = [0] * (len(rank) + 1)  # a Fenwick tree of maxima over the second place
    weights = [0] * len(pairs)
    for k in sorted(range(len(pairs)), key=lambda k: (pairs[k][0], -pairs[k][1])):
        _, j, weight = pairs[k]
        place = rank[j] - 1
        chain = 0
        while place:
            chain = max(chain, heaviest[place])
            place &= place - 1
        weights[k] = chain + weight
        place = rank[j]
        while place < len(heaviest):
            heaviest[place] = max(heaviest[place], weights[k])
            place += place & -place
    return weights


def _counted(places: Sequence[int]) -> dict[int, int]:
    counts: dict[int, int] = {}
    for place in places:
        counts[place] = counts.get(place, 0) + 1
    return counts
