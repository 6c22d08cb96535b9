"""The report for machines, schema_version 1: bnlint/schemas/report.schema.json says what is in it.

Names are exactly those of the file, as JSON writes them in ASCII. Every file and every finding has a
line of its own, so that reports can be compared line by line.
"""

from __future__ import annotations

from json import dumps

from bnlint import __version__
from bnlint.finding import Severity
from bnlint.fingerprint import fingerprint
from bnlint.reports.escaping import well_formed
from bnlint.reports.wording import fix

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any, TextIO

    from bnlint.finding import Finding, Location
    from bnlint.report import FileResult, Report
    from bnlint.reports import Display

    Record = dict[str, Any]

SCHEMA_VERSION = 1
INFINITY = float("inf")


def write(report: Report, stream: TextIO, display: Display) -> None:
    """Write the report as one JSON document; with `verbose` it lists what was suppressed and baselined too."""
    records = Records(report)
    lists = {
        "files": [records.file(each) for each in report.files],
        "findings": [records.finding(each) for each in report.findings],
    }
    if display.verbose:
        lists["suppressed"] = [records.suppressed(each, reason) for each, reason in report.suppressed]
        lists["baselined"] = [records.finding(each) for each in report.baselined]
    stream.write(
        f'{{"schema_version": {SCHEMA_VERSION}, "tool": {serialized(TOOL)},\n "summary": {serialized(summary(report))}'
    )
    for name, members in lists.items():
        stream.write(f',\n "{name}": {_array(members)}')
    for name, sentences in problems(report).items():
        stream.write(f',\n "{name}": {_array(sentences)}')
    stream.write("}\n")


def _array(members: Sequence[object]) -> str:
    if not members:
        return "[]"
    return "[\n  " + ",\n  ".join(map(serialized, members)) + "]"


def serialized(value: object) -> str:
    """`value` as JSON on one line, in ASCII. "##", which build servers obey, can only stand in a string."""
    return dumps(value, allow_nan=False).replace("##", "#\\u0023")


TOOL = {"name": "bnlint", "version": __version__}


def summary(report: Report) -> Record:
    """Counts, and what the run exits with."""
    return {
        "files": len(report.files),
        "errors": report.count(Severity.ERROR),
        "warnings": report.count(Severity.WARNING),
        "infos": report.count(Severity.INFO),
        "failed": report.failed,
        "exit_code": report.exit_code,
        "suppressed": len(report.suppressed),
        "baselined": len(report.baselined),
    }


def problems(report: Report) -> dict[str, list[Any]]:
    """What could not be done, and which code of the user's ran."""
    return {
        "crashes": [
            {"rule": crash.rule, "where": well_formed(crash.where), "message": well_formed(str(crash))}
            for crash in report.crashes
        ],
        "trouble": [well_formed(sentence) for sentence in report.trouble],
        "executed": [well_formed(path) for path in report.executed],
    }


class Records:
    """The files and findings of a report as JSON has them."""

    def __init__(self, report: Report) -> None:
        self.report = report
        self._fixes: dict[str, str] = {}

    def file(self, file: FileResult) -> Record:
        return {
            "path": well_formed(file.path),
            "kind": file.kind,
            "format": _optional(well_formed, file.format),
            "status": file.status,
            "batchnorm_layers": file.batchnorm_layers,
            "channels": file.channels,
            "note": _optional(well_formed, file.note),
            "state_dicts": [well_formed(key) for key in file.state_dicts],
        }

    def finding(self, finding: Finding) -> Record:
        place = finding.location
        rule = self.report.rules.get(finding.rule)
        return {
            "rule": finding.rule,
            "family": finding.family,
            "severity": str(finding.gravity),
            "message": well_formed(finding.message),
            "path": well_formed(place.path),
            **_lines(place),
            "reference": _optional(well_formed, finding.reference),
            "layers": _all(place.layers),
            "tensors": _all(place.tensors),
            "certain": finding.certain,
            "evidence": {key: number(value) for key, value in finding.evidence.items()},
            "related": [_related(there, message, place.path) for there, message in finding.related],
            "fix": self._fix(finding),
            "fingerprint": fingerprint(finding, self.report.root),
            "docs": documentation(finding.rule),
            "state_dict": _optional(well_formed, place.state_dict),
            "unknown": _optional(well_formed, finding.unknown),
            "confidence": rule.confidence if rule else None,
        }

    def suppressed(self, finding: Finding, reason: str) -> Record:
        return {**self.finding(finding), "reason": well_formed(reason)}

    def _fix(self, finding: Finding) -> str:
        if finding.fix:
            return well_formed(finding.fix)
        if finding.rule not in self._fixes:
            self._fixes[finding.rule] = well_formed(fix(finding, self.report))
        return self._fixes[finding.rule]


def documentation(rule: str) -> str:
    """Where a rule is explained: the one address that is true offline, for a user's rules too, and in every version."""
    return f"bnlint explain {rule}"


def _related(there: Location, message: str, path: str) -> Record:
    return {
        "path": well_formed(there.path or path),
        "line": there.line,
        "message": well_formed(message),
        "column": there.column,
        "layers": _all(there.layers),
        "tensors": _all(there.tensors),
    }


def _lines(place: Location) -> Record:
    return {
        "line": place.line,
        "column": place.column,
        "end_line": place.end_line,
        "end_column": place.end_column,
    }


def _all(names: Iterable[str]) -> list[str]:
    return [well_formed(name) for name in names]


def _optional(form: Callable[[str], str], text: str | None) -> str | None:
    return None if text is None else form(text)


def number(value: object) -> object:
    """A value of evidence; RFC 8259 has no NaN and no infinity, so these are strings."""
    if isinstance(value, float):
        if value != value:
            return "NaN"
        return {INFINITY: "Infinity", -INFINITY: "-Infinity"}.get(value, value)
    if isinstance(value, str):
        return well_formed(value)
    if isinstance(value, int) or value is None:
        return value
    return [number(each) for each in value]  # type: ignore[attr-defined]
