"""Checkstyle's XML, which nearly every build server reads."""

from __future__ import annotations

from xml.etree.ElementTree import Element, SubElement

from bnlint.finding import Severity
from bnlint.reports.escaping import visible
from bnlint.reports.places import line_of
from bnlint.reports.wording import holding_several, sentence
from bnlint.reports.xml_document import write_document

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TextIO

    from bnlint.report import Report
    from bnlint.reports import Display


def write(report: Report, stream: TextIO, display: Display) -> None:
    """Write every file, and below it an error element per finding, whatever its severity."""
    root = Element("checkstyle", version="4.3")
    files: dict[str, Element] = {}
    for path in (*[file.path for file in report.files], *[each.location.path for each in report.findings]):
        if path not in files:
            files[path] = SubElement(root, "file", name=visible(path))
    several = holding_several(report)
    for finding in report.findings:
        attributes = {
            "line": str(line_of(finding)),
            "severity": str(finding.gravity),
            "message": sentence(finding, several),
            "source": f"bnlint.{visible(finding.rule)}",
        }
        if finding.location.column is not None:
            attributes["column"] = str(finding.location.column)
        SubElement(files[finding.location.path], "error", attributes)
    for problem in (*map(str, report.crashes), *report.trouble):
        file = SubElement(root, "file", name="bnlint")
        SubElement(file, "error", line="1", severity=str(Severity.ERROR), message=visible(problem), source="bnlint")
    write_document(root, stream)
