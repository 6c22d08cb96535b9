"""The changes of prefix that explain most: `module.` off, `backbone.` on, one for each part of a model."""

from __future__ import annotations

from bisect import bisect_left
from heapq import heappop, heappush

from bnlint.matching.names import WRAPPERS, heads
from bnlint.model.key_plan import PrefixChange

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from bnlint.matching.ledger import Ledger
    from bnlint.matching.names import Shape

    Candidate = tuple[str, str]

CANDIDATES = 64  # changes that are tried; a model has a handful of parts
RIVALS = 8  # a tail found under more heads than this says nothing about any of them


def change_prefixes(ledger: Ledger) -> tuple[list[PrefixChange], list[PrefixChange]]:
    """Settle all names that a change of prefix explains, the best change first.

    Returns the changes made, and those between which nothing decides: what they contest is withheld.
    """
    trial = Trial(ledger)
    queue = [(-len(ledger.source) * 2, change) for change in _voted(ledger)]
    queue.sort()
    unconvincing: list[tuple[int, Candidate]] = []
    made: list[PrefixChange] = []
    undecided: list[PrefixChange] = []
    while queue:
        _, change = heappop(queue)
        claim = trial.claim(change)
        if not claim.convincing:
            unconvincing.append((-claim.score, change))
            continue
        if queue and -claim.score > queue[0][0]:  # it explained more before others took their part
            heappush(queue, (-claim.score, change))
            continue
        rivals = _rivals(claim, queue, trial)
        if rivals:
            queue = sorted(entry for entry in queue if entry[1] not in {rival.change for rival in rivals})
            if claim.wraps:
                undecided += [each.described() for each in (claim, *rivals)]
                ledger.withhold(pair for each in (claim, *rivals) for pair in each.pairs)
            continue
        for name, other in claim.pairs:
            ledger.settle(name, other)
        made.append(claim.described())
        queue = sorted([*queue, *unconvincing])  # among fewer names these may say more
        unconvincing = []
    return made, undecided


class Claim:
    """What one change of prefix would settle: `pairs` (source, target), `equal` of them with one shape.

    `of_source` and `of_target` are how many open names have the prefixes that it takes off and puts on;
    `thin` is True where no equal shape has two dimensions, so that widths may agree by chance.
    """

    __slots__ = ("change", "equal", "of_source", "of_target", "pairs", "thin")

    def __init__(
        self, change: Candidate, pairs: list[tuple[str, str]], shapes: list[Shape], names: tuple[int, int]
    ) -> None:
        self.change = change
        self.pairs = pairs
        self.equal = len(shapes)
        self.thin = all(len(shape) < 2 for shape in shapes)
        self.of_source, self.of_target = names

    @property
    def score(self) -> int:
        """Equal shapes count twice: a name alone is weaker evidence."""
        return self.equal + len(self.pairs)

    @property
    def wraps(self) -> bool:
        """True for a prefix that is only taken off or only put on, or that is a wrapper's known name."""
        return "" in self.change or self._known()

    @property
    def convincing(self) -> bool:
        """True where it explains enough of what has these prefixes, and few of the shapes disagree."""
        if not self.pairs:
            return False
        named = len(self.pairs) / self.of_source, len(self.pairs) / self.of_target
        fitting = self.equal / len(self.pairs)
        if self._known():
            return max(named) >= 0.5 or (fitting >= 0.75 and not self.thin)
        if not self.equal:
            return self.wraps and len(self.pairs) > 1 and max(named) >= 0.9
        if self.thin:
            return min(named) >= 0.9 and fitting >= 0.75
        if self.wraps:
            return fitting * max(named) >= 0.5
        if self._names_say_something():
            return fitting >= 0.75 and min(named) >= 0.5
        return fitting >= 0.95 and max(named) >= 0.9

    def described(self) -> PrefixChange:
        """The change, for a plan."""
        return PrefixChange(*self.change, keys=self.equal)

    def names(self) -> Iterator[tuple[str, str]]:
        """All names that it wants, each with its side."""
        for name, other in self.pairs:
            yield "source", name
            yield "target", other

    def _known(self) -> bool:
        """True where only wrappers with known names are taken off or put on."""
        return all(part in WRAPPERS for prefix in self.change for part in prefix.split(".")[:-1])

    def _names_say_something(self) -> bool:
        """True where what is left of a name has a word: "0.conv1.weight" has, "0.weight" has none."""
        return any(
            not part.isdigit()
            for name, _ in self.pairs[:8]
            for part in name[len(self.change[0]) :].split(".")[:-1]
        )  # fmt: skip


class Trial:
    """Tries changes of prefix on what is open."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._source = sorted(ledger.source)
        self._target = sorted(ledger.target)

    def claim(self, change: Candidate) -> Claim:
        """What a change would settle now."""
        strip, add = change
        source, target = self._ledger.source, self._ledger.target
        names = list(_starting_with(strip, self._source, source))
        pairs = [(name, other) for name in names if (other := add + name[len(strip) :]) in target]
        equal = [source[name] for name, other in pairs if source[name] == target[other]]
        others = sum(1 for _ in _starting_with(add, self._target, target)) if pairs else 0
        return Claim(change, pairs, equal, (len(names), others))


def _starting_with(prefix: str, names: list[str], still_open: Mapping[str, Shape]) -> Iterator[str]:
    for i in range(bisect_left(names, prefix), len(names)):
        if not names[i].startswith(prefix):
            return
        if names[i] in still_open:
            yield names[i]


def _rivals(claim: Claim, queue: list[tuple[int, Candidate]], trial: Trial) -> list[Claim]:
    """The changes that explain as much as this one and want some of the same names, and their rivals in turn."""
    equals = [
        rival
        for bound, change in queue
        if -bound >= claim.score and (rival := trial.claim(change)).score == claim.score and rival.convincing
    ]
    contested = set(claim.names())
    rivals: list[Claim] = []
    while found := [rival for rival in equals if not contested.isdisjoint(rival.names())]:
        rivals += found
        equals = [rival for rival in equals if rival not in found]
        contested.update(name for rival in found for name in rival.names())
    return rivals


def _voted(ledger: Ledger) -> list[Candidate]:
    """The changes that most names ask for: each votes by the longest tail that the other side has too."""
    heads_of: dict[str, list[tuple[str, Shape]]] = {}
    for name, shape in ledger.target.items():
        for head, tail in heads(name):
            heads_of.setdefault(tail, []).append((head, shape))
    votes: dict[Candidate, int] = {}
    for name, shape in ledger.source.items():
        for head, tail in heads(name):
            found = heads_of.get(tail)
            if found is None:
                continue
            if "." in tail:
                equal = [other for other, its_shape in found if its_shape == shape]
                for other in equal or [other for other, _ in found]:
                    if len(equal or found) <= RIVALS and other != head and not _renames_a_number(head, other):
                        votes[head, other] = votes.get((head, other), 0) + 1 + bool(equal)
            break
    return sorted(votes, key=lambda change: -votes[change])[:CANDIDATES]


def _renames_a_number(strip: str, add: str) -> bool:
    """True for `layer1.` -> `stage1.`: which of several alike became which, only their order can say."""
    return bool(strip and add) and any(map(str.isdigit, strip + add))
