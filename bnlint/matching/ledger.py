"""Which keys have found their place and which are still open."""

from __future__ import annotations

from bnlint.matching.names import module_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from bnlint.matching.names import Shape


class Ledger:
    """The one place that pairs names: every name once, only with an equal shape.

    `source` and `target` hold what is still open, name -> shape, in file order. `pairs` are the
    matched names (source -> target), `reshaped` those of one name and different shapes.
    `source_modules` and `target_modules` are the places of all modules in their files.
    """

    __slots__ = ("pairs", "reshaped", "source", "source_modules", "target", "target_modules")

    def __init__(self, source: Mapping[str, Shape], target: Mapping[str, Shape]) -> None:
        self.source = dict(source)
        self.target = dict(target)
        self.pairs: dict[str, str] = {}
        self.reshaped: dict[str, str] = {}
        self.source_modules = _places(source)
        self.target_modules = _places(target)

    def settle(self, name: str, other: str) -> bool:
        """Pair two open names of equal shape, or note that they differ in shape; False where one is not open."""
        if name not in self.source or other not in self.target:
            return False
        alike = self.source.pop(name) == self.target.pop(other)
        (self.pairs if alike else self.reshaped)[name] = other
        return True

    def pair(self, name: str, other: str) -> bool:
        """Pair two names; False, and nothing done, unless both are open and of one shape."""
        return self.fits(name, other) and self.settle(name, other)

    def fits(self, name: str, other: str) -> bool:
        """True where both names are open and of one shape."""
        shape = self.source.get(name)
        return shape is not None and self.target.get(other) == shape

    def withhold(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Take names out of what is open without a pair: what contests them is as good."""
        for name, other in pairs:
            self.source.pop(name, None)
            self.target.pop(other, None)

    def module_pairs(self) -> dict[str, str]:
        """Where the modules went, as far as their tensors did: source module -> target module."""
        modules: dict[str, str] = {}
        for settled in (self.pairs, self.reshaped):
            for name, other in settled.items():
                modules.setdefault(module_of(name), module_of(other))
        return modules


def _places(names: Mapping[str, Shape]) -> dict[str, int]:
    return {module: place for place, module in enumerate(dict.fromkeys(map(module_of, names)))}
