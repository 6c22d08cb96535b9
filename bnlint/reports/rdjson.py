"""Reviewdog's diagnostic format, so that any reviewer that reviewdog knows can be fed."""

from __future__ import annotations

from bnlint.finding import Severity
from bnlint.fingerprint import relative_path
from bnlint.reports.escaping import visible, well_formed
from bnlint.reports.json import TOOL, serialized
from bnlint.reports.wording import holding_several, sentence

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container
    from typing import TextIO

    from bnlint.finding import Finding, Location
    from bnlint.report import Report
    from bnlint.reports import Display
    from bnlint.reports.json import Record

SEVERITIES = {Severity.INFO: "INFO", Severity.WARNING: "WARNING", Severity.ERROR: "ERROR"}


def write(report: Report, stream: TextIO, display: Display) -> None:
    """Write one DiagnosticResult."""
    several = holding_several(report)
    diagnostics = [_diagnostic(finding, report.root, several) for finding in report.findings]
    stream.write(
        f'{{"source": {serialized({"name": TOOL["name"]})}, "diagnostics": [\n '
        + ",\n ".join(map(serialized, diagnostics))
        + "]}\n"
    )


def _diagnostic(finding: Finding, root: str, several: Container[str]) -> Record:
    diagnostic: Record = {
        "message": sentence(finding, several),
        "location": _location(finding.location, finding.location.path, root),
        "severity": SEVERITIES[finding.gravity],
        "code": {"value": visible(finding.rule)},
    }
    if finding.related:
        diagnostic["related_locations"] = [
            {"message": visible(message), "location": _location(there, finding.location.path, root)}
            for there, message in finding.related
        ]
    return diagnostic


def _location(place: Location, path: str, root: str) -> Record:
    """A file, and the lines in it where it has lines: reviewdog shows what has none at the file as a whole."""
    location: Record = {"path": well_formed(relative_path(place.path or path, root))}
    if place.line is not None:
        location["range"] = {"start": _position(place.line, place.column)}
        if place.end_line is not None:
            location["range"]["end"] = _position(place.end_line, place.end_column)
    return location


def _position(line: int, column: int | None) -> Record:
    return {"line": line} if column is None else {"line": line, "column": column}
