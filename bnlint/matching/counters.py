"""num_batches_tracked goes where its module goes."""

from __future__ import annotations

from bnlint.matching.names import module_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bnlint.model.key_plan import PrefixChange


def follow(
    source: Sequence[str], target: Sequence[str], modules: Mapping[str, str], prefixes: Sequence[PrefixChange]
) -> dict[str, str]:
    """Where each counter of the source goes: source name -> target name, each once.

    A counter follows the tensors beside it (`modules`: where they went). One without any keeps its
    name, or changes its prefix as others did.
    """
    left = set(target)
    places: dict[str, str] = {}
    for name in source:
        for other in _wanted(name, modules, prefixes):
            if other in left:
                left.remove(other)
                places[name] = other
                break
    return places


def _wanted(name: str, modules: Mapping[str, str], prefixes: Sequence[PrefixChange]) -> list[str]:
    module = module_of(name)
    if module in modules:
        leaf = name[len(module) :].removeprefix("." if module else "")
        other = modules[module]
        return [f"{other}.{leaf}" if other else leaf]
    changed = [change.apply(name) for change in prefixes]
    return [name, *(other for other in changed if other is not None)]
