"""GitLab's code quality report: a JSON array, one object per finding."""

from __future__ import annotations

from bnlint.finding import Severity
from bnlint.fingerprint import fingerprint, relative_path
from bnlint.reports.escaping import visible, well_formed
from bnlint.reports.json import serialized
from bnlint.reports.places import Ordinals, line_of
from bnlint.reports.wording import holding_several, sentence

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TextIO

    from bnlint.report import Report
    from bnlint.reports import Display

SEVERITIES = {Severity.INFO: "info", Severity.WARNING: "major", Severity.ERROR: "critical"}


def write(report: Report, stream: TextIO, display: Display) -> None:
    """Write the array. GitLab drops findings whose fingerprint it has seen, so these are numbered."""
    ordinals = Ordinals()
    several = holding_several(report)
    entries = []
    for finding in report.findings:
        mark = fingerprint(finding, report.root)
        number = ordinals.next(mark)
        entry = {
            "description": sentence(finding, several),
            "check_name": visible(finding.rule),
            "fingerprint": mark if number == 1 else f"{mark}-{number}",
            "severity": SEVERITIES[finding.gravity],
            "location": {
                "path": well_formed(relative_path(finding.location.path, report.root)),
                "lines": {"begin": line_of(finding)},
            },
        }
        entries.append(serialized(entry))
    stream.write("[" + ",\n ".join(entries) + "]\n")
