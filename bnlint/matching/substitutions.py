"""What the renames found so far teach: `layer1` is `stage1`, so `layer3` will be `stage3`."""

from __future__ import annotations

from bnlint.matching.names import ancestors, filled, template, without_common_tail

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from bnlint.matching.ledger import Ledger
    from bnlint.matching.names import Template

    Shifted = tuple[Template, tuple[int, ...]]  # the text of the other name, and what its numbers are more


class Substitutions:
    """Learned from modules that were paired: which part of a name became which, and how its numbers moved."""

    __slots__ = ("_literal", "_numbered")

    def __init__(self, modules: Mapping[str, str]) -> None:
        self._literal: dict[str, dict[str, int]] = {}
        self._numbered: dict[Template, dict[Shifted, int]] = {}
        for module, other in modules.items():
            if module != other:
                self._learn(*without_common_tail(module, other))

    def apply(self, ledger: Ledger) -> None:
        """Settle every open name for which one learned name is open on the other side."""
        predicted: dict[str, list[dict[str, int]]] = {}
        for name in list(ledger.source):
            module, _, leaf = name.rpartition(".")
            if module not in predicted:
                predicted[module] = list(self._predictions(module))
            for others in predicted[module]:
                names = {f"{other}.{leaf}" if other else leaf: seen for other, seen in others.items()}
                if self._settled(ledger, name, names):
                    break

    @staticmethod
    def _settled(ledger: Ledger, name: str, others: Mapping[str, int]) -> bool:
        """Pair with the one that fits; only a name seen twice, and no other, may differ in shape."""
        fitting = [other for other in others if ledger.fits(name, other)]
        if fitting:
            return len(fitting) > 1 or ledger.pair(name, fitting[0])
        return len(others) == 1 and any(seen > 1 and ledger.settle(name, other) for other, seen in others.items())

    def _learn(self, head: str, other: str) -> None:
        literal = self._literal.setdefault(head, {})
        literal[other] = literal.get(other, 0) + 1
        (texts, numbers), (other_texts, other_numbers) = template(head), template(other)
        if len(numbers) == len(other_numbers) and all(len(number) < 10 for number in numbers + other_numbers):
            shifts = tuple(int(to) - int(at) for at, to in zip(numbers, other_numbers, strict=True))
            seen = self._numbered.setdefault(texts, {})
            seen[other_texts, shifts] = seen.get((other_texts, shifts), 0) + 1

    def _predictions(self, module: str) -> Iterator[dict[str, int]]:
        """The names that a module may have, with how often they were seen, by the longest part known first."""
        for head in ancestors(module):
            tail = module[len(head) :]
            known = self._literal.get(head) or self._shifted(head)
            if known:
                yield {(other + tail).removeprefix("."): seen for other, seen in known.items()}

    def _shifted(self, head: str) -> dict[str, int]:
        texts, numbers = template(head)
        if any(len(number) > 9 for number in numbers):
            return {}
        return {
            filled(other, tuple(_moved(number, shift) for number, shift in zip(numbers, shifts, strict=True))): seen
            for (other, shifts), seen in self._numbered.get(texts, {}).items()
        }


def _moved(number: str, shift: int) -> str:
    return str(int(number) + shift) if shift else number
