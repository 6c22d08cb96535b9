"""SARIF 2.1.0, as GitHub code scanning and other viewers of static analysis take it.

What is not obvious: only the first location of a result counts and it needs all four numbers of a
region, in a binary too; the fingerprint has to be ours, because GitHub hashes lines of source; a
suppressed result opens an alert all the same, so it is written with `verbose` only; and the category
of a run (automationDetails) is left to whoever uploads it.
"""

from __future__ import annotations

from bnlint.explanation import as_markdown, as_text, sections
from bnlint.finding import Severity
from bnlint.reports.escaping import sarif_message, visible
from bnlint.reports.json import TOOL, Records, serialized
from bnlint.reports.places import Ordinals, uri
from bnlint.reports.wording import holding_several, layer_name, sentence, verdict

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import TextIO

    from bnlint.finding import Finding, Location
    from bnlint.report import Report
    from bnlint.reports import Display
    from bnlint.reports.json import Record
    from bnlint.ruleset import Rule

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
LEVELS = {Severity.OFF: "none", Severity.INFO: "note", Severity.WARNING: "warning", Severity.ERROR: "error"}
PROBLEM = {Severity.INFO: "recommendation", Severity.WARNING: "warning", Severity.ERROR: "error"}
PRECISION = {"certain": "very-high", "high": "high", "medium": "medium", "low": "low"}
LONGEST_DESCRIPTION = 1024  # GitHub's limit


def write(report: Report, stream: TextIO, display: Display) -> None:
    """Write the report as one SARIF log with one run."""
    told = list(_told(report, display.verbose))
    names = list(dict.fromkeys(finding.rule for finding, _ in told))
    results = _Results(report, names)
    run = {
        "tool": {
            "driver": {
                "name": TOOL["name"],
                "version": TOOL["version"],
                "semanticVersion": TOOL["version"],
                "rules": [_rule(name, report.rules.get(name)) for name in names],
            }
        },
        "invocations": [_invocation(report)],
        "columnKind": "unicodeCodePoints",
        "results": [results.result(finding, suppression) for finding, suppression in told],
    }
    stream.write(serialized({"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}) + "\n")


def _told(report: Report, verbose: bool) -> Iterator[tuple[Finding, str | None]]:
    """The findings, each with the reason for which it is suppressed, if it is."""
    for finding in report.findings:
        yield finding, None
    if verbose:
        yield from report.suppressed
        for finding in report.baselined:
            yield finding, "known from the baseline"


# -- rules ------------------------------------------------------------------------------------------


def _rule(name: str, rule: Rule | None) -> Record:
    """A rule with its whole explanation; of one that is not known any more only the name."""
    if rule is None:
        return {"id": name, "shortDescription": {"text": name}, "fullDescription": {"text": name}}
    severity = rule.severity or rule.on_request
    properties = {
        "precision": PRECISION[rule.confidence],
        "problem.severity": PROBLEM[severity],
        "tags": ["batchnorm", "pytorch", rule.family],
    }
    if rule.security_severity is not None:
        properties["security-severity"] = rule.security_severity
        properties["tags"] = [*properties["tags"], "security"]
    return {
        "id": name,
        "shortDescription": {"text": _limited(rule.title)},
        "fullDescription": {"text": _limited(f"{rule.title} {' '.join(sections(rule)[0].split())}".rstrip())},
        "help": {"text": as_text(rule), "markdown": as_markdown(rule, level=3)},
        "defaultConfiguration": {"enabled": bool(rule.severity), "level": LEVELS[severity]},
        "properties": properties,
    }


def _limited(text: str) -> str:
    return text if len(text) <= LONGEST_DESCRIPTION else f"{text[: LONGEST_DESCRIPTION - 3]}..."


# -- results ----------------------------------------------------------------------------------------


class _Results:
    """The results of a run; `names` are its rules in order."""

    def __init__(self, report: Report, names: Sequence[str]) -> None:
        self.report = report
        self.records = Records(report)
        self.index = {name: number for number, name in enumerate(names)}
        self.ordinals = Ordinals()
        self.several = holding_several(report)

    def result(self, finding: Finding, suppression: str | None) -> Record:
        said = self.records.finding(finding)
        mark = said["fingerprint"]
        result = {
            "ruleId": finding.rule,
            "ruleIndex": self.index[finding.rule],
            "level": LEVELS[finding.gravity],
            "message": {"text": sarif_message(sentence(finding, self.several))},
            "locations": [self.location(finding.location, finding.location.path)],
            "partialFingerprints": {
                "primaryLocationLineHash": f"{mark}:{self.ordinals.next(mark)}",
                "bnlint/v1": mark,
            },
            "properties": {name: said[name] for name in ("certain", "evidence", "fix", "layers", "tensors")},
        }
        if finding.related:
            result["relatedLocations"] = [
                {
                    "id": number,
                    **self.location(there, finding.location.path),
                    "message": {"text": sarif_message(message)},
                }
                for number, (there, message) in enumerate(finding.related, start=1)
            ]
        if suppression is not None:
            result["suppressions"] = [{"kind": "external", "justification": sarif_message(suppression)}]
        return result

    def location(self, place: Location, path: str) -> Record:
        line = place.line or 1
        column = place.column or 1
        location: Record = {
            "physicalLocation": {
                "artifactLocation": uri(place.path or path, self.report.root),
                "region": {
                    "startLine": line,
                    "startColumn": column,
                    "endLine": place.end_line or line,
                    "endColumn": place.end_column or column,
                },
            }
        }
        logical = list(_logical(place))
        if logical:
            location["logicalLocations"] = logical
        return location


def _logical(place: Location) -> Iterator[Record]:
    """The layers as places in the file's own structure; its tensors where no layer is named."""
    inside = f"{visible(place.state_dict)}." if place.state_dict else ""
    for name in dict.fromkeys(map(layer_name, place.layers or place.tensors)):  # SARIF allows no location twice
        yield {"name": name, "fullyQualifiedName": f"{inside}{name}", "kind": "object"}


# -- the run ----------------------------------------------------------------------------------------


def _invocation(report: Report) -> Record:
    notifications = [_notification("error", str(crash), crash.rule) for crash in report.crashes]
    notifications += [_notification("error", sentence) for sentence in report.trouble]
    notifications += [
        _notification("note", f"{file.path}: {file.status}: {file.note or file.format or 'unknown'}")
        for file in report.files
        if file.status == "skipped"
    ]
    notifications += [_notification("warning", f"ran the user's code: {path}") for path in report.executed]
    return {
        "executionSuccessful": not (report.crashes or report.trouble),
        "exitCode": report.exit_code,
        "exitCodeDescription": visible(verdict(report)),
        "toolExecutionNotifications": notifications,
    }


def _notification(level: str, message: str, rule: str | None = None) -> Record:
    notification: Record = {"level": level, "message": {"text": sarif_message(message)}}
    if rule is not None:
        notification["associatedRule"] = {"id": rule}
    return notification
