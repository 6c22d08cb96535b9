"""Markdown for a comment on a pull request. It begins with a marker by which a bot finds its earlier comment."""

from __future__ import annotations

from bnlint.finding import Severity
from bnlint.reports.escaping import encodable, markdown_code, markdown_prose, markdown_text
from bnlint.reports.folding import by_file, in_number
from bnlint.reports.wording import counted, fix, holding_several, in_short, more, place, statement, verdict

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TextIO

    from bnlint.finding import Finding
    from bnlint.report import Report
    from bnlint.reports import Display
    from bnlint.reports.folding import Group

MARKER = "<!-- bnlint report -->"
LONGEST = 65_000  # characters; GitHub refuses a comment of 65 536
ROOM_FOR_THE_END = 500
SKIPPED = 10  # so many skipped files are named
OUTCOMES = ("passed", "failed", "could not do all it was asked to")


def write(report: Report, stream: TextIO, display: Display) -> None:
    """Write the comment."""
    stream.write(encodable(document(report, display), stream))


def document(report: Report, display: Display) -> str:
    """The whole comment; what would make it too long for a comment is counted instead of told."""
    lines = [MARKER, f"### bnlint {OUTCOMES[report.exit_code]}", "", verdict(report)]
    length = sum(len(line) + 1 for line in lines)
    body = list(_body(report, display))
    for number, line in enumerate(body):
        length += len(line) + 1
        if length > LONGEST - ROOM_FOR_THE_END:
            lines += ["", f"... and {counted(len(body) - number, 'more line')}: too long for a comment"]
            break
        lines.append(line)
    return "\n".join(lines) + "\n"


def _body(report: Report, display: Display) -> Iterator[str]:
    problems = [*map(str, report.crashes), *report.trouble]
    if problems:
        yield ""
    for problem in problems:
        yield f"- **error** {markdown_prose(problem)}"
    several = holding_several(report)
    for (path, reference), groups in by_file(report.findings).items():
        against = "" if reference is None else f" against {markdown_code(reference)}"
        yield f"\n#### {markdown_code(path)}{against}\n"
        for group in groups:
            yield from _group(group, path in several, display.verbose)
    yield from _fixes(report)
    skipped = [file for file in report.files if file.status == "skipped"]
    if skipped:
        yield "\n**Skipped**\n"
        for file in skipped[:SKIPPED]:
            yield f"- {markdown_code(file.path)}: {markdown_prose(file.note or file.format or 'unknown format')}"
        if len(skipped) > SKIPPED:
            yield f"- and {more(len(skipped) - SKIPPED, 'file')}"
    if display.verbose and report.suppressed:
        yield "\n**Suppressed**\n"
        for finding, reason in report.suppressed:
            yield f"- {markdown_code(finding.location.path)}: {_said(finding, False)} ({markdown_prose(reason)})"


def _group(group: Group, several: bool, verbose: bool) -> Iterator[str]:
    shown = group.findings if verbose else group.shown() if group.severity > Severity.INFO else group.findings[:1]
    hidden = group.findings[len(shown) :]
    for finding in shown:
        rest = f", and {in_number(hidden)}" if hidden and finding is shown[-1] else ""
        yield f"- **{group.severity}** {_said(finding, several)}{rest} ({markdown_code(group.rule)})"


def _said(finding: Finding, several: bool) -> str:
    where = place(finding.location, several)
    what = markdown_prose(statement(finding))
    return f"{markdown_code(where)}: {what}" if where else what


def _fixes(report: Report) -> Iterator[str]:
    """What to do about each rule that found more than a note."""
    grave = {finding.rule: finding for finding in reversed(report.findings) if finding.gravity > Severity.INFO}
    advice = [(rule, *in_short(fix(finding, report))) for rule, finding in reversed(grave.items())]
    told = [(rule, prose, code) for rule, prose, code in advice if prose]
    if told:
        yield "\n**Fix**\n"
    for rule, prose, code in told:
        yield f"- {markdown_code(rule)}: {markdown_text(prose)}"
        if code:
            yield "\n".join(["", *(f"      {line}" for line in code), ""])
