"""What `bnlint compare` shows: two checkpoints side by side, or a series of them. Facts, no text."""

from __future__ import annotations

from itertools import pairwise
from math import isnan

from bnlint.comparing import Reference, open_reference
from bnlint.errors import UnreadableFile, UsageError
from bnlint.matching import families, load_line, load_outcome, rename_map
from bnlint.matching.names import template
from bnlint.model.pair import Change
from bnlint.pairing import pair_up

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from bnlint.model.batchnorm import BatchNorm
    from bnlint.model.pair import Pair
    from bnlint.model.state_dict import Assumed, StateDict

BUCKETS = 16  # of the channels of a layer, each with the channel that moved most
FROZEN = "drifted"  # the verdict of a layer whose weights stood still while its statistics moved

Family = tuple[str, int]


class Drift:
    """How far the statistics of one layer went from the one checkpoint to the other.

    `mean_shift` and `var_ratio` are those of Change: in standard deviations of the reference, NaN where the
    numbers of a side are not there or not finite. `profile` is the move over the channels, in at most
    BUCKETS numbers.
    """

    __slots__ = ("change", "mean_shift", "profile", "var_ratio", "verdict")

    def __init__(self, change: Change) -> None:
        self.change = change
        self.verdict = change.verdict
        self.mean_shift = change.mean_shift
        self.var_ratio = change.var_ratio
        self.profile = condensed(change.mean_shifts)

    @property
    def name(self) -> str:
        """The layer's name in the newer checkpoint."""
        return self.change.name


def condensed(values: Sequence[float]) -> list[float]:
    """At most BUCKETS numbers, each the largest of as many neighbours."""
    count = min(len(values), BUCKETS)
    return [max(values[i * len(values) // count : (i + 1) * len(values) // count]) for i in range(count)]


class SideBySide:
    """A checkpoint beside its reference: what became of the layers, which key is which, what a loader would do.

    `drifts` are the layers that both have, in the order of the checkpoint. `missing` and `unexpected` are
    families of keys, num_batches_tracked left out. `code` is the line that gives the keys of what is
    loaded the names they need, "" where they have them; `renames` says the same as patterns.
    """

    def __init__(self, reference: str, checkpoint: str, pair: Pair) -> None:
        self.reference = reference
        self.checkpoint = checkpoint
        self.pair = pair
        self.plan = plan = pair.plan
        self.drifts = [Drift(change) for change in pair.changes]
        self.renames = rename_map(plan)
        self.code = load_line(plan) if self.renames else ""
        self.outcome = load_outcome(plan, pair.source.tensors, pair.target.tensors, metadata=pair.source.metadata)
        self.missing: list[Family] = families(plan.missing, pair.target_keys)
        self.unexpected: list[Family] = families(plan.unexpected, pair.source_keys)

    @property
    def source(self) -> str:
        """What is loaded."""
        return self.reference if self.pair.into_checkpoint else self.checkpoint

    @property
    def target(self) -> str:
        """What it is loaded into."""
        return self.checkpoint if self.pair.into_checkpoint else self.reference

    def largest(self) -> list[Drift]:
        """The layers that moved, where both sides have numbers: frozen ones first, among these the farthest.

        Before them all those whose numbers are not finite.
        """
        if not self.pair.into_checkpoint:
            return []
        moved = [drift for drift in self.drifts if not drift.change.stats_same and drift.verdict != "incomparable"]
        return sorted(
            moved, key=lambda drift: (not isnan(drift.mean_shift), drift.verdict != FROZEN, -drift.mean_shift)
        )


class Course:
    """One layer through a series. Steps are numbered by the checkpoint that they lead to: 1 is the second.

    `verdicts` and `shifts` have one entry per step, None where the layer is not on both sides of it. `since`
    is how far it is from where it was in the first checkpoint that has it.
    """

    __slots__ = ("first", "name", "shifts", "since", "verdicts")

    def __init__(self, first: BatchNorm, steps: int) -> None:
        self.first = first
        self.name = first.name
        self.verdicts: list[str | None] = [None] * steps
        self.shifts: list[float | None] = [None] * steps
        self.since = 0.0

    def take(self, drift: Drift, step: int) -> None:
        """What became of the layer in one more step."""
        self.name = drift.name
        self.verdicts[step - 1] = drift.verdict
        self.shifts[step - 1] = drift.mean_shift
        self.since = Change(self.first, drift.change.after).mean_shift

    @property
    def began(self) -> int | None:
        """The step in which it first drifted while it was frozen; None where it never did."""
        return next((step for step, verdict in enumerate(self.verdicts, 1) if verdict == FROZEN), None)


class Series:
    """Checkpoints in order, each beside the one before it. `reordered` is True where the order is not as given."""

    def __init__(self, paths: Sequence[str], reordered: bool = False) -> None:
        self.paths = list(paths)
        self.reordered = reordered
        self.steps: list[SideBySide] = []
        self.courses: list[Course] = []
        self._running: dict[str, Course] = {}  # by the name in the checkpoint looked at last

    def take(self, pair: SideBySide) -> None:
        """The next step."""
        self.steps.append(pair)
        running: dict[str, Course] = {}
        for drift in pair.drifts:
            course = self._running.get(drift.change.before.name)
            if course is None:
                course = Course(drift.change.before, len(self.paths) - 1)
                self.courses.append(course)
            course.take(drift, len(self.steps))
            running[drift.name] = course
        self._running = running

    def largest(self) -> list[Course]:
        """The layers that moved: those that drifted while frozen first, among these the farthest."""
        moved = [course for course in self.courses if course.since != 0 or course.began is not None]
        return sorted(moved, key=lambda course: (course.began is None, isnan(course.since), -course.since))


class Module:
    """A part of the network, with what became of the layers in it."""

    __slots__ = ("drifts", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self.drifts: list[Drift] = []


def modules(drifts: Sequence[Drift]) -> list[Module]:
    """The layers by the part of the network they are in: the first word of their names that is not common to all."""
    paths = [drift.name.split(".") for drift in drifts]
    depth = _common([path[:-1] for path in paths]) + 1
    found: dict[str, Module] = {}
    for drift, path in zip(drifts, paths, strict=True):
        name = ".".join(path[:depth])
        found.setdefault(name, Module(name)).drifts.append(drift)
    return list(found.values())


def begun(courses: Iterable[Course]) -> dict[int, list[Course]]:
    """The layers that drifted while they were frozen, by the step in which that began."""
    found: dict[int, list[Course]] = {}
    for course in courses:
        if course.began is not None:
            found.setdefault(course.began, []).append(course)
    return dict(sorted(found.items()))


def common_prefix(names: Iterable[str]) -> str:
    """What all these names begin with, up to a dot: "module.backbone."; the last word of a name is its own."""
    paths = [name.split(".")[:-1] for name in names]
    return "".join(f"{word}." for word in paths[0][: _common(paths)]) if paths else ""


def _common(paths: Sequence[Sequence[str]]) -> int:
    """How many words all these paths begin with."""
    return next(
        (i for i, words in enumerate(zip(*paths, strict=False)) if len({*words}) > 1),
        min(map(len, paths), default=0),
    )


# -- looking ------------------------------------------------------------------------------------------


def compare_two(
    reference: str,
    checkpoint: str,
    *,
    shallow: bool = False,
    key: str | None = None,
    assumed: Assumed | None = None,
    model: StateDict | None = None,
) -> SideBySide:
    """A checkpoint beside its reference, a checkpoint or a key contract.

    `model` is what the code called `reference` built, where that is no path. `shallow`: only keys and
    BatchNorm are read. `key` is the place of the state dict in both. UsageError where one of the two cannot
    be read.
    """
    opened = Reference("model", [model]) if model is not None else open_reference(reference, assumed, key)
    with opened as before, open_reference(checkpoint, assumed, key) as after:
        if after.kind != "checkpoint":
            raise UsageError(f"{checkpoint}: is a key contract; it stands first, what is compared with it after it")
        newer = after.state_dicts[0]
        try:
            pair = pair_up(before.state_dict(newer.key), newer, kind=before.kind, shallow=shallow)
        except UnreadableFile as problem:
            raise UsageError(f"{reference} and {checkpoint} cannot be compared: {problem}") from None
        return SideBySide(reference, checkpoint, pair)


def compare_series(
    paths: Sequence[str], *, shallow: bool = False, key: str | None = None, assumed: Assumed | None = None
) -> Series:
    """Three checkpoints or more, each beside the one before it; no more than two are open at a time."""
    order = in_order(paths)
    series = Series(order, order != [*paths])
    for before, after in pairwise(order):
        series.take(compare_two(before, after, shallow=shallow, key=key, assumed=assumed))
    return series


def in_order(paths: Sequence[str]) -> list[str]:
    """Paths that differ in their numbers only by these numbers: a shell puts epoch_10 before epoch_2.

    They share the places that they have; other paths stay where they are.
    """
    alike: dict[tuple[str, ...], list[str]] = {}
    for path in paths:
        alike.setdefault(template(path)[0], []).append(path)
    for members in alike.values():
        members.sort(key=lambda path: [(len(number.lstrip("0")), number.lstrip("0")) for number in template(path)[1]])
    sorted_members = {texts: iter(members) for texts, members in alike.items()}
    return [next(sorted_members[template(path)[0]]) for path in paths]
