"""Which pairs of an alignment are more than a coincidence of widths."""

from __future__ import annotations

from bnlint.matching.names import ancestors, module_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from bnlint.matching.renames import OpenModule as Module

    Pair = tuple[Module, Module]
    Places = set[tuple[int, int]]


class Share:
    """How many of the open modules of one side can have a partner, seen from one of them.

    `beside` of those with the same parent, `blocks` in the block around it where it is least, `model` of all.
    """

    __slots__ = ("beside", "blocks", "model")

    def __init__(self, beside: float, blocks: float, model: float) -> None:
        self.beside = beside
        self.blocks = blocks
        self.model = model


def shares(aligned: Sequence[Module], every: Sequence[Module]) -> dict[str, Share]:
    """The shares as seen from the modules of each parent."""
    found, total = (_inside(modules) for modules in (aligned, every))
    beside_found, beside = (_counted(module_of(module.name) for module in modules) for modules in (aligned, every))
    return {
        parent: Share(
            beside_found.get(parent, 0) / count,
            min((found.get(block, 0) / total[block] for block in ancestors(parent)), default=1.0),
            len(aligned) / len(every),
        )
        for parent, count in beside.items()
    }


def supported(
    chosen: Sequence[Pair], source: Mapping[str, Share], target: Mapping[str, Share], settled: Places
) -> Places:
    """The places of the pairs with support; `settled` are the places of modules that were paired before.

    Of the block that a module is in, nearly all on one side or half on both must find a partner. Then
    either the module before or after it is paired alike; or it has more than vectors, half of
    the modules beside it have a partner, and so has as much of the model as of the block.
    """
    seen_from = [(source[module_of(one.name)], target[module_of(other.name)]) for one, other in chosen]
    plausible = [
        (*pair, _whole(*both)) for pair, both in zip(chosen, seen_from, strict=True) if _block_fits(*both)
    ]  # fmt: skip
    firm = settled | {(one.place, other.place) for one, other, whole in plausible if whole and not one.thin}
    pairs = [(one, other) for one, other, _ in plausible]
    reached = _reached(pairs, firm, -1) | _reached(reversed(pairs), firm, 1)
    return reached.intersection((one.place, other.place) for one, other in pairs)


def _block_fits(source: Share, target: Share) -> bool:
    return _enough(source.blocks, target.blocks)


def _whole(source: Share, target: Share) -> bool:
    beside = min(source.beside, target.beside)
    return beside >= 0.5 and _enough(min(source.blocks, source.model), min(target.blocks, target.model))


def _enough(source: float, target: float) -> bool:
    """Nearly all of one side (the other may have more), or half of both."""
    return max(source, target) >= 0.8 or min(source, target) >= 0.5


def _reached(pairs: Iterable[Pair], firm: Places, step: int) -> Places:
    """The firm places and those next to them, one after the other, in the order of the pairs."""
    reached = set(firm)
    for one, other in pairs:
        if (one.place + step, other.place + step) in reached:
            reached.add((one.place, other.place))
    return reached


def _inside(modules: Iterable[Module]) -> dict[str, int]:
    return _counted(block for module in modules for block in ancestors(module_of(module.name)))


def _counted(names: Iterable[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for name in names:
        counts[name] = counts.get(name, 0) + 1
    return counts
