"""The JSON report as one object a line, for logs and streams: files, findings, problems, and last the summary."""

from __future__ import annotations

from bnlint.reports.json import SCHEMA_VERSION, TOOL, Records, problems, serialized, summary

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TextIO

    from bnlint.report import Report
    from bnlint.reports import Display
    from bnlint.reports.json import Record


def write(report: Report, stream: TextIO, display: Display) -> None:
    """Write one JSON object per line; `type` says what each is."""
    for kind, record in _records(report, display):
        stream.write(serialized({"type": kind, **record}) + "\n")


def _records(report: Report, display: Display) -> Iterator[tuple[str, Record]]:
    records = Records(report)
    for file in report.files:
        yield "file", records.file(file)
    for finding in report.findings:
        yield "finding", records.finding(finding)
    if display.verbose:
        for finding, reason in report.suppressed:
            yield "suppressed", records.suppressed(finding, reason)
        for finding in report.baselined:
            yield "baselined", records.finding(finding)
    told = problems(report)
    for crash in told["crashes"]:
        yield "crash", crash
    for sentence in told["trouble"]:
        yield "trouble", {"message": sentence}
    for path in told["executed"]:
        yield "executed", {"path": path}
    yield "summary", {"schema_version": SCHEMA_VERSION, "tool": TOOL, **summary(report)}
