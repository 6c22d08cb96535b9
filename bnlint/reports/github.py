"""Annotations of a GitHub Actions run: workflow commands in its log, and a summary of the step.

GitHub shows ten annotations of a severity and step, so each rule gets one per file and the gravest come
first; what is left over is named in the log, and all of it stands in the step's summary.
"""

from __future__ import annotations

import os

from bnlint.finding import Severity
from bnlint.fingerprint import relative_path
from bnlint.reports.escaping import encodable, no_command, visible, workflow_data, workflow_property
from bnlint.reports.folding import by_file, in_number
from bnlint.reports.markdown import MARKER, document
from bnlint.reports.wording import holding_several, sentence, verdict

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container, Iterator, Sequence
    from typing import TextIO

    from bnlint.report import Report
    from bnlint.reports import Display
    from bnlint.reports.folding import Group

SHOWN = 10  # annotations of one severity that GitHub shows for one step
COMMANDS = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.INFO: "notice"}


def write(report: Report, stream: TextIO, display: Display) -> None:
    """Write the workflow commands, and the step's summary where GITHUB_STEP_SUMMARY says where it goes."""
    root = os.environ.get("GITHUB_WORKSPACE") or report.root
    groups = [(path, group) for (path, _), groups in by_file(report.findings).items() for group in groups]
    lines = list(_annotations(groups, root, holding_several(report)))
    lines += [
        f"::error title=bnlint::{workflow_data(problem)}" for problem in (*map(str, report.crashes), *report.trouble)
    ]
    lines.append(f"bnlint: {verdict(report)}")
    lines += _written_summary(report, display)
    stream.write("".join([encodable(line, stream) + "\n" for line in lines]))


def _annotations(groups: Sequence[tuple[str, Group]], root: str, several: Container[str]) -> Iterator[str]:
    for severity, command in COMMANDS.items():
        of_this_severity = [(path, group) for path, group in groups if group.severity == severity]
        for path, group in of_this_severity[:SHOWN]:
            yield _annotation(command, path, group, root, several)
        for path, group in of_this_severity[SHOWN:]:
            yield no_command(f"{visible(path)}: {command}: {_said(group, several)} [{visible(group.rule)}]")


def _annotation(command: str, path: str, group: Group, root: str, several: Container[str]) -> str:
    place = group.findings[0].location
    numbers = {"line": place.line, "endLine": place.end_line, "col": place.column, "endColumn": place.end_column}
    properties = {
        "file": workflow_property(relative_path(path, root)),
        **{name: str(number) for name, number in numbers.items() if number is not None},
        "title": workflow_property(f"bnlint {group.rule}"),
    }
    given = ",".join(f"{name}={value}" for name, value in properties.items())
    return f"::{command} {given}::{workflow_data(_said(group, several))}"


def _said(group: Group, several: Container[str]) -> str:
    first, *others = group.findings
    said = sentence(first, several)
    return f"{said} (and {in_number(others)})" if others else said


def _written_summary(report: Report, display: Display) -> Iterator[str]:
    """Append to the step's summary, where there is one; say so where that fails."""
    path = os.environ.get("GITHUB_STEP_SUMMARY")
    if not path:
        return
    try:
        with open(path, "a", encoding="utf-8") as summary:
            summary.write(document(report, display).removeprefix(f"{MARKER}\n") + "\n")
    except OSError as error:
        reason = workflow_data(f"the step summary could not be written: {error.strerror}")
        yield f"::warning title=bnlint::{reason}"
