"""What the renames found so far teach: `layer1` is `stage1`, so `layer3` will be `stage3`."""

from __future__ import annotations

from bnlint.matching.names import ancestors, filled, template, without_common_tail

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from bnlint.matching.ledger import Ledger
    from bnlint.matching.names import Template


class Substitutions:
    """Learned from modules that were paired: which part of a name became which, numbers kept or not."""

    __slots__ = ("_literal", "_numbered")

    def __init__(self, modules: Mapping[str, str]) -> None:
        self._literal: dict[str, dict[str, int]] = {}
        self._numbered: dict[Template, dict[Template, int]] = {}
        for module, other in modules.items():
            if module != other:
                self._learn(*without_common_tail(module, other))

    def apply(self, ledger: Ledger) -> None:
        """Settle every open name for which a learned name is open on the other side."""
        predicted: dict[str, list[tuple[str, bool]]] = {}
        for name in list(ledger.source):
            module, _, leaf = name.rpartition(".")
            if module not in predicted:
                predicted[module] = list(self._predictions(module))
            candidates = [(f"{other}.{leaf}" if other else leaf, certain) for other, certain in predicted[module]]
            if not any(ledger.pair(name, other) for other, _ in candidates):
                any(certain and ledger.settle(name, other) for other, certain in candidates)

    def _learn(self, head: str, other: str) -> None:
        texts, numbers = template(head)
        other_texts, other_numbers = template(other)
        if numbers == other_numbers:
            counts = self._numbered.setdefault(texts, {})
            counts[other_texts] = counts.get(other_texts, 0) + 1
        else:
            literal = self._literal.setdefault(head, {})
            literal[other] = literal.get(other, 0) + 1

    def _predictions(self, module: str) -> Iterator[tuple[str, bool]]:
        """Names it may have, the likeliest first; with each, whether it is certain: seen twice, never otherwise."""
        for head in ancestors(module):
            tail = module[len(head) :]
            literal = self._literal.get(head, {})
            for other in sorted(literal, key=lambda name: -literal[name]):
                yield (other + tail).removeprefix("."), len(literal) == 1 and literal[other] > 1
            texts, numbers = template(head)
            numbered = self._numbered.get(texts, {})
            for others in sorted(numbered, key=lambda name: -numbered[name]):
                yield (filled(others, numbers) + tail).removeprefix("."), len(numbered) == 1 and numbered[others] > 1
