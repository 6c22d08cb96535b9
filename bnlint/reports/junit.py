"""JUnit's XML: a suite per file, a test case per rule that speaks of it."""

from __future__ import annotations

from xml.etree.ElementTree import Element, SubElement

from bnlint.finding import Severity
from bnlint.reports.escaping import visible
from bnlint.reports.folding import by_file, in_number
from bnlint.reports.wording import UNREADABLE, fix, holding_several, sentence
from bnlint.reports.xml_document import write_document

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container
    from typing import TextIO

    from bnlint.report import FileResult, Report
    from bnlint.reports import Display
    from bnlint.reports.folding import Group


def write(report: Report, stream: TextIO, display: Display) -> None:
    """Write the suites. A test case fails where its findings make the run fail; others only say what was found."""
    root = Element("testsuites", name="bnlint")
    groups: dict[str, list[Group]] = {file.path: [] for file in report.files}
    for (path, _), of_file in by_file(report.findings).items():
        groups.setdefault(path, []).extend(of_file)
    facts = {file.path: file for file in report.files if file.kind != "pair"}
    several = holding_several(report)
    for path, of_file in groups.items():
        suite = SubElement(root, "testsuite", name=visible(path))
        for group in of_file:
            _add_case(suite, path, group, report, several)
        if not of_file:
            _add_silent_case(suite, facts[path])
        _count(suite)
    problems = [*map(str, report.crashes), *report.trouble]
    if problems:
        suite = SubElement(root, "testsuite", name="bnlint")
        for number, problem in enumerate(problems, start=1):
            case = SubElement(suite, "testcase", classname="bnlint", name=f"run {number}")
            SubElement(case, "error", type="bnlint", message=visible(problem))
        _count(suite)
    for name in ("tests", "failures", "errors", "skipped"):
        root.set(name, str(sum(int(suite.get(name, "0")) for suite in root)))
    write_document(root, stream)


def _add_case(suite: Element, path: str, group: Group, report: Report, several: Container[str]) -> None:
    name = f"{visible(group.rule)} ({group.severity})"  # GitLab drops the second of two cases of one name
    case = SubElement(suite, "testcase", classname=visible(path), name=name)
    first, *others = group.findings
    lines = [f"{finding.gravity}: {sentence(finding, several)}" for finding in group.findings]
    advice = fix(first, report)
    if advice:
        lines += ["", "Fix:", *[f"  {visible(line)}".rstrip() for line in advice.splitlines()]]
    if _fails(group, report):
        message = f"{sentence(first, several)} (and {in_number(others)})" if others else sentence(first, several)
        told = SubElement(case, "failure", type=str(group.severity), message=message)
    else:
        told = SubElement(case, "system-out")
    told.text = "\n".join(lines)


def _fails(group: Group, report: Report) -> bool:
    gate = report.gate
    if gate.fail_on is not None and group.severity >= gate.fail_on:
        return True
    too_many = gate.max_warnings is not None and report.count(Severity.WARNING) > gate.max_warnings
    return too_many and group.severity == Severity.WARNING


def _add_silent_case(suite: Element, file: FileResult) -> None:
    """A file of which no rule speaks: it passes, or was not looked at."""
    case = SubElement(suite, "testcase", classname=visible(file.path), name="bnlint")
    if file.status in UNREADABLE:
        SubElement(case, "skipped", message=visible(file.note or file.status))


def _count(suite: Element) -> None:
    suite.set("tests", str(len(suite)))
    for name, kind in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        suite.set(name, str(sum(case.find(kind) is not None for case in suite)))
