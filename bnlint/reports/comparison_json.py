"""All that `bnlint compare` knows, for machines. Names are exactly those of the files, as JSON writes them in ASCII."""

from __future__ import annotations

from bnlint.comparison import begun, modules
from bnlint.reports.escaping import well_formed
from bnlint.reports.json import SCHEMA_VERSION, TOOL, number, serialized

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any, TextIO

    from bnlint.comparison import Course, Drift, Family, Series, SideBySide

    Record = dict[str, Any]


def write_pair(pair: SideBySide, stream: TextIO) -> None:
    """Write one pair as a JSON document."""
    _write({"pairs": [_pair(pair)]}, stream)


def write_series(series: Series, stream: TextIO) -> None:
    """Write a series as a JSON document: its steps as pairs, and each layer over all of them."""
    _write(
        {
            "pairs": [_pair(step) for step in series.steps],
            "series": {
                "checkpoints": [well_formed(path) for path in series.paths],
                "reordered": series.reordered,
                "began": {
                    well_formed(series.paths[step]): [well_formed(course.name) for course in courses]
                    for step, courses in begun(series.courses).items()
                },
                "layers": [_course(course, series.paths) for course in series.courses],
            },
        },
        stream,
    )


def _write(members: Mapping[str, object], stream: TextIO) -> None:
    stream.write(f"{serialized({'schema_version': SCHEMA_VERSION, 'tool': TOOL, **members})}\n")


def _pair(pair: SideBySide) -> Record:
    both = pair.pair
    return {
        "reference": well_formed(pair.reference),
        "checkpoint": well_formed(pair.checkpoint),
        "kind": both.kind,
        "shallow": both.shallow,
        "other_tensors": both.other_tensors,
        "same_elsewhere": both.same_elsewhere,
        "keys": _keys(pair),
        "load_state_dict": _loading(pair),
        "modules": [
            {"name": well_formed(part.name), "layers": len(part.drifts), "verdicts": _verdicts(part.drifts)}
            for part in modules(pair.drifts)
        ],
        "layers": [_drift(drift) for drift in pair.drifts],
    }


def _keys(pair: SideBySide) -> Record:
    plan = pair.plan
    return {
        "source": well_formed(pair.source),
        "target": well_formed(pair.target),
        "of_source": len(pair.pair.source.tensors),
        "of_target": len(pair.pair.target.tensors),
        "matched": len(plan.renames),
        "exact": plan.exact,
        "prefixes": [{**_prefix(change.strip, change.add), "keys": change.keys} for change in plan.prefixes],
        "undecided": [_prefix(change.strip, change.add) for change in plan.undecided],
        "dropped": _names(plan.dropped),
        "moved": _renames(plan.moved),
        "renames": _renames(plan.renames),
        "missing": _names(plan.missing),
        "missing_families": _families(pair.missing),
        "missing_counters": _names(plan.missing_counters),
        "unexpected": _names(plan.unexpected),
        "unexpected_families": _families(pair.unexpected),
        "unexpected_counters": _names(plan.unexpected_counters),
        "reshaped": [
            {
                "source": well_formed(source),
                "target": well_formed(target),
                "source_shape": list(pair.pair.source.tensors[source].shape),
                "target_shape": list(pair.pair.target.tensors[target].shape),
            }
            for source, target in plan.reshaped
        ],
        "code": well_formed(pair.code) or None,
        "rename": _renames(pair.renames),
    }


def _loading(pair: SideBySide) -> Record:
    outcome = pair.outcome
    return {
        "keys": outcome.keys,
        "loaded": outcome.loaded,
        "strict_raises": outcome.strict_raises,
        "nonstrict_raises": outcome.nonstrict_raises,
        "filter_raises": outcome.filter_raises,
        "silent": outcome.silent,
        "planned": outcome.planned,
        "plan_raises": outcome.plan_raises,
    }


def _drift(drift: Drift) -> Record:
    change = drift.change
    low, high = drift.var_ratio
    return {
        "layer": well_formed(drift.name),
        "reference_layer": well_formed(change.before.name),
        "verdict": drift.verdict,
        "channels": change.channels,
        "batches": change.batches,
        "weights_same": change.weights_same,
        "stats_same": change.stats_same,
        "preceding_same": change.preceding_same,
        "mean_shift_sd": number(drift.mean_shift),
        "lowest_variance_ratio": number(low),
        "highest_variance_ratio": number(high),
        "profile_sd": number(drift.profile),
    }


def _course(course: Course, paths: Sequence[str]) -> Record:
    return {
        "layer": well_formed(course.name),
        "began": None if course.began is None else well_formed(paths[course.began]),
        "since_first_sd": number(course.since),
        "verdicts": course.verdicts,
        "mean_shifts_sd": number(course.shifts),
    }


def _verdicts(drifts: Iterable[Drift]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for drift in drifts:
        counts[drift.verdict] = counts.get(drift.verdict, 0) + 1
    return counts


def _prefix(strip: str, add: str) -> Record:
    return {"strip": well_formed(strip), "add": well_formed(add)}


def _families(families: Iterable[Family]) -> list[Record]:
    return [{"module": well_formed(name), "keys": count} for name, count in families]


def _names(names: Iterable[str]) -> list[str]:
    return [well_formed(name) for name in names]


def _renames(renames: Mapping[str, str]) -> dict[str, str]:
    return {well_formed(old): well_formed(new) for old, new in renames.items()}
