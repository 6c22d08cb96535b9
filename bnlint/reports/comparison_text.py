"""What a person reads of `bnlint compare`: which key is which, what a loader would do, how far the layers moved."""

from __future__ import annotations

from math import isfinite

from bnlint.reports.escaping import visible
from bnlint.reports.sparkline import sparkline
from bnlint.reports.typesetting import PLAIN, Page, running
from bnlint.reports.wording import counted, layer_name, more

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import TextIO

    from bnlint.comparison import Drift, Family, Module, Series, SideBySide

NAME, QUIET, HEADING = "bold", "dim", "bold underline"
STYLES = {"drifted": "yellow", "stuck": "red", "rewound": "yellow"}
SAID = {
    "untouched": "neither weights nor statistics changed: frozen, in eval mode",
    "drifted": "frozen, and in train mode: equal weights, other statistics, and batches were counted",
    "replaced": "equal weights, other statistics, no batch counted: an EMA, AdaBN, a conversion",
    "eval": "weights trained, statistics equal: in eval mode",
    "stuck": "weights trained and batches counted, statistics equal: momentum 0, or too few bits",
    "trained": "weights and statistics changed",
    "averaged": "weights and statistics changed, no batch counted: an EMA, a soup, a lost counter",
    "rewound": "num_batches_tracked went back: files swapped, or update_bn",
    "converted": "the dtype changed",
    "incomparable": "a side has no statistics, or not their numbers",
}
FEW = 5  # families of keys, renamed modules
ROWS = 12  # layers of the table of the largest drifts
PARTS = 20  # modules
COLUMNS = 80  # where the width is not known
SHORTEST = 16  # so much of a name always stands in a table


def write_pair(
    pair: SideBySide, stream: TextIO, *, verbose: bool = False, color: str = "auto", width: int | None = None
) -> None:
    """Write what there is to say of two checkpoints."""
    text = _Text(stream, verbose, color, width)
    text.page.line((visible(pair.reference), HEADING), ("->", PLAIN), (visible(pair.checkpoint), HEADING), hanging=2)
    text.page.line(*running(_read(pair), QUIET))
    text.write_keys(pair)
    text.write_loading(pair)
    text.write_layers(pair)
    text.page.write()


def write_series(
    series: Series, stream: TextIO, *, verbose: bool = False, color: str = "auto", width: int | None = None
) -> None:
    """Write what there is to say of checkpoints in order."""
    text = _Text(stream, verbose, color, width)
    first, last = series.paths[0], series.paths[-1]
    text.page.line(
        *running(f"{len(series.paths)} checkpoints,"),
        (visible(first), HEADING),
        ("to", PLAIN),
        (visible(last), HEADING),
        *running("(by the numbers in their names)" if series.reordered else "(in this order)", QUIET),
        hanging=2,
    )
    text.page.line(*running(_read(series.steps[0]), QUIET))
    text.write_steps(series)
    text.write_courses(series)
    text.page.write()


def _read(pair: SideBySide) -> str:
    if pair.pair.kind == "model":
        return "ran your code to build the model; read keys and BatchNorm, all that a model has"
    if not pair.pair.into_checkpoint:
        return "read keys and BatchNorm, all that a contract has"
    if pair.pair.shallow:
        return "read keys and BatchNorm only (--shallow): nobody knows whether other weights are equal"
    return "read every weight (the default; --shallow reads keys and BatchNorm only)"


class _Text:
    """The parts, in the order in which they are read."""

    def __init__(self, stream: TextIO, verbose: bool, color: str, width: int | None) -> None:
        self.page = Page(stream, color, width)
        self.stream = stream
        self.verbose = verbose

    def heading(self, text: str) -> None:
        self.page.blank()
        self.page.line(*running(text, NAME))

    # -- keys ---------------------------------------------------------------------------------------

    def write_keys(self, pair: SideBySide) -> None:
        plan = pair.plan
        wanted = len(pair.pair.target.tensors)
        own = plan.exact
        self.heading("Keys")
        self.say(
            f"{len(plan.renames)} of {wanted} keys have a place in the other file"
            + ("" if own == len(plan.renames) else f", {own or 'none'} by their own name")
        )
        for change in plan.prefixes:
            was, will = (f'"{visible(prefix)}"' for prefix in (change.strip, change.add))
            how = (
                f"{was} becomes {will}"
                if change.strip and change.add
                else f"{was} taken off"
                if change.strip
                else f"{will} put on"
            )
            self.say(f"{how} ({counted(change.keys, 'key')})")
        for token in plan.dropped:
            self.say(f'"{visible(token)}." differs in the middle')
        for change in plan.undecided:
            self.say(f'as well: "{visible(change.strip)}" -> "{visible(change.add)}" (nothing decides between them)')
        self.some([f"{layer_name(old)} -> {layer_name(new)}" for old, new in plan.moved.items()], "renamed module")
        self.families(pair.missing, f"missing in {visible(pair.source)}")
        self.families(pair.unexpected, f"no place in {visible(pair.target)}")
        shapes = [_reshaped(pair, *keys) for keys in plan.reshaped]
        self.some([f"another shape: {shape}" for shape in shapes], "key of another shape", "keys of another shape")
        if plan.missing_counters:
            self.say(
                f"{len(plan.missing_counters):,} num_batches_tracked missing: the model keeps its own, no harm done"
            )
        if plan.unexpected_counters:
            self.say(
                f"{len(plan.unexpected_counters):,} num_batches_tracked without a place: strict=True raises, no harm"
            )

    def families(self, families: Sequence[Family], what: str) -> None:
        rows = [f"{what}: {layer_name(name)} ({counted(count, 'key')})" for name, count in families]
        self.some(rows, "such module")

    def some(self, rows: Sequence[str], thing: str, things: str | None = None) -> None:
        """The first few rows, all of them where that saves no line or is asked for, and how many there are more."""
        shown = rows if self.verbose or len(rows) <= FEW + 1 else rows[:FEW]
        for row in shown:
            self.say(row)
        rest = len(rows) - len(shown)
        if rest:
            self.say(f"and {more(rest, thing) if things is None else f'{rest:,} more {things}'} (--verbose)")

    def say(self, text: str) -> None:
        self.page.line(*running(text), indent=2, hanging=4)

    # -- loading ------------------------------------------------------------------------------------

    def write_loading(self, pair: SideBySide) -> None:
        outcome = pair.outcome
        loads = f"loads {outcome.loaded:,} of {outcome.keys:,} keys"
        planned = f"loads {outcome.planned:,} of {outcome.keys:,} keys"
        self.heading(f"load_state_dict, {visible(pair.source)} into the model of {visible(pair.target)}")
        rows = [
            ("strict=True", "raises" if outcome.strict_raises else loads),
            ("strict=False", "raises" if outcome.nonstrict_raises else loads),
            (
                "filter by name",
                "raises"
                if outcome.filter_raises
                else f"{loads}{' and says nothing' if outcome.loaded < outcome.keys else ''}",
            ),
        ]
        if pair.renames:
            rows.append(("renamed", f"{planned}{'; strict=True raises all the same' if outcome.plan_raises else ''}"))
        for how, what in rows:
            self.page.line((f"{how:<18}", PLAIN), *running(what), indent=2, hanging=21)
        if pair.renames:
            self.block(pair.code.splitlines())
            self.block(
                ["rename:  # in .bnlint.yaml", *(f"  {_yaml(old)}: {_yaml(new)}" for old, new in pair.renames.items())]
            )

    def block(self, lines: Sequence[str]) -> None:
        """Lines of code, as they are."""
        most = len(lines) if self.verbose else 2 * ROWS
        self.page.blank()
        for line in lines[:most]:
            self.page.row((f"    {visible(line)}" if line else "", PLAIN))
        if len(lines) > most:
            self.page.row((f"    # and {more(len(lines) - most, 'line')} (--verbose)", QUIET))

    # -- layers of a pair -----------------------------------------------------------------------------

    def write_layers(self, pair: SideBySide) -> None:
        from bnlint.comparison import modules

        if not pair.drifts:
            self.heading("BatchNorm")
            self.say("no layer that both have")
            return
        self.heading(f"BatchNorm: {counted(len(pair.drifts), 'layer')}")
        self.write_modules(modules(pair.drifts))
        verdicts = dict.fromkeys(drift.verdict for drift in pair.drifts)
        for verdict in verdicts:
            self.page.line(
                (f"{verdict}:", STYLES.get(verdict, NAME)), *running(SAID[verdict], QUIET), indent=2, hanging=4
            )
        self.write_drifts(pair.largest())

    def write_modules(self, parts: Sequence[Module]) -> None:
        rows = [("largest", "layers", "verdict", "module")]
        shown = parts if self.verbose or len(parts) <= PARTS + 1 else parts[:PARTS]
        for part in shown:
            counts: dict[str, int] = {}
            for drift in part.drifts:
                counts[drift.verdict] = counts.get(drift.verdict, 0) + 1
            alone = len(counts) == 1
            verdict = ", ".join(word if alone else f"{count} {word}" for word, count in counts.items())
            rows.append(
                (_in_sd([drift.mean_shift for drift in part.drifts]), f"{len(part.drifts):,}", verdict, part.name)
            )
        self.table(rows, "><<", cut=False)
        if len(shown) < len(parts):
            self.say(f"and {more(len(parts) - len(shown), 'module')} (--verbose)")
        self.page.blank()

    def write_drifts(self, drifts: Sequence[Drift]) -> None:
        if not drifts:
            return
        shown = drifts if self.verbose or len(drifts) <= ROWS + 1 else drifts[:ROWS]
        top = max((value for drift in shown for value in drift.profile if isfinite(value)), default=0.0)
        self.heading("Largest drifts, frozen layers first" if drifts[0].verdict == "drifted" else "Largest drifts")
        rows = [("mean", "variance", "batches", "verdict", "channels", "layer")]
        rows += [
            (
                _in_sd([drift.mean_shift]),
                _ratios(*drift.var_ratio),
                "?" if drift.change.batches is None else f"{drift.change.batches:+,}",
                drift.verdict,
                sparkline(drift.profile, top, self.stream),
                drift.name,
            )
            for drift in shown
        ]
        self.table(rows, ">>><<")
        if len(shown) < len(drifts):
            self.say(f"and {more(len(drifts) - len(shown), 'layer')} that moved (--verbose)")
        self.page.line(
            *running(f"mean: the farthest move of a channel, in sd before; bars: 0 to {top:.2g} sd", QUIET),
            indent=2,
            hanging=2,
        )

    # -- layers of a series ---------------------------------------------------------------------------

    def write_steps(self, series: Series) -> None:
        """Where the keys change on the way."""
        for step in series.steps:
            matched, wanted = len(step.plan.renames), len(step.pair.target.tensors)
            if step.plan.exact < wanted:
                self.page.line(
                    (f"{visible(step.checkpoint)}:", NAME),
                    *running(f"{matched} of {wanted} keys match, {step.plan.exact or 'none'} by their own name"),
                    hanging=2,
                )

    def write_courses(self, series: Series) -> None:
        from bnlint.comparison import begun

        self.heading(f"BatchNorm: {counted(len(series.courses), 'layer')}")
        beginnings = begun(series.courses)
        for step, courses in beginnings.items():
            self.page.line(
                *running(f"{counted(len(courses), 'frozen layer')} began to drift in"),
                (visible(series.paths[step]), NAME),
                *running(f"(not yet in {visible(series.paths[step - 1])})", QUIET),
                indent=2,
                hanging=4,
            )
        if not beginnings:
            self.say("no frozen layer drifted")
        courses = series.largest()
        shown = courses if self.verbose or len(courses) <= 2 * ROWS + 1 else courses[: 2 * ROWS]
        frozen = [course for course in shown if course.began is not None]
        top = max(
            (shift for course in frozen or shown for shift in course.shifts if shift is not None and isfinite(shift)),
            default=0.0,
        )
        rows = [("since first", "began", "steps", "at last", "layer")]
        rows += [
            (
                _in_sd([course.since]),
                "-" if course.began is None else visible(_short(series.paths, course.began)),
                sparkline(_last(course.shifts), top, self.stream),
                course.verdicts[-1] or "-",
                course.name,
            )
            for course in shown
        ]
        if courses:
            self.page.blank()
            self.table(rows, "><<<")
        if len(shown) < len(courses):
            self.say(f"and {more(len(courses) - len(shown), 'layer')} that moved (--verbose)")
        if courses:
            self.page.line(*running(f"bars: how far in each step, 0 to {top:.2g} sd", QUIET), indent=2, hanging=2)

    # -- tables ---------------------------------------------------------------------------------------

    def table(self, rows: Sequence[tuple[str, ...]], sides: str, cut: bool = True) -> None:
        """Rows under a heading. The last cell is a name; where a person looks it is shortened to the room there is.

        What all names begin with stands in the heading, where names are `cut`.
        """
        from bnlint.comparison import common_prefix

        prefix = common_prefix(row[-1] for row in rows[1:]) if cut and self.page.width is not None else ""
        widths = [max(len(row[i]) for row in rows) for i in range(len(sides))]
        room = None
        if self.page.width is not None:
            room = max(self.page.width - 2 - sum(widths) - 2 * len(widths), SHORTEST)
        for number, row in enumerate(rows):
            cells = [f"{cell:{side}{width}}" for cell, side, width in zip(row, sides, widths, strict=False)]
            name = shortened(layer_name(row[-1][len(prefix) :]) if number else _titled(row[-1], prefix), room)
            self.page.row(("  " + "  ".join([*cells, name]), PLAIN if number else QUIET))


def _titled(title: str, prefix: str) -> str:
    return f"{title} in {visible(prefix[:-1])}" if prefix else title


def shortened(name: str, room: int | None) -> str:
    """A name in so many characters: its end, which says more than its beginning."""
    return name if room is None or len(name) <= room else f"...{name[3 - room :]}"


def _in_sd(sizes: Iterable[float]) -> str:
    """The largest: "0.14 sd"; "?" where none is known, "not finite" where one is not."""
    known = list(sizes)
    finite = [size for size in known if isfinite(size)]
    if len(finite) < len(known):
        return "?"
    largest = max(finite, default=0.0)
    return f"{largest:.2g} sd" if largest else "0"


def _ratios(low: float, high: float) -> str:
    if not (isfinite(low) and isfinite(high)):
        return "?"
    return f"{low:.2g}-{high:.2g}"


def _reshaped(pair: SideBySide, source: str, target: str) -> str:
    shapes = (list(pair.pair.source.tensors[source].shape), list(pair.pair.target.tensors[target].shape))
    names = visible(source) if source == target else f"{visible(source)} -> {visible(target)}"
    return f"{names} {shapes[0]} -> {shapes[1]}"


def _last(shifts: Sequence[float | None]) -> Sequence[float | None]:
    """The steps that there is room for, the last ones."""
    return shifts[-COLUMNS // 4 :]


def _short(paths: Sequence[str], step: int) -> str:
    """A path without the folders that it shares with all others."""
    from os.path import basename, dirname

    return basename(paths[step]) if len({*map(dirname, paths)}) == 1 else paths[step]


def _yaml(text: str) -> str:
    """A text in YAML's double quotes, in ASCII."""
    from json import dumps

    return dumps(text)
