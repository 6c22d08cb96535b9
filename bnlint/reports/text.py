"""The report a person reads: what is wrong, where, and what to do about it, in as few lines as that takes.

What could not be done at all (trouble, crashed rules) is not in it: the command says that on standard
error, where it is seen whatever the report is and wherever it goes.
"""

from __future__ import annotations

from bnlint.finding import Severity
from bnlint.reports.escaping import visible
from bnlint.reports.folding import by_file, in_number
from bnlint.reports.typesetting import PLAIN, Page, running
from bnlint.reports.wording import (
    UNREADABLE,
    counted,
    fix,
    holding_several,
    in_short,
    more,
    names_in_words,
    place_elsewhere,
    place_in_words,
    statement,
    verdict,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TextIO

    from bnlint.finding import Finding
    from bnlint.report import FileResult, Report
    from bnlint.reports import Display
    from bnlint.reports.folding import Group
    from bnlint.reports.typesetting import Piece

STYLES = {"error": "bold red", "warning": "yellow", "info": "cyan", "skipped": "magenta"}
NAME, QUIET, HEADING, FIX = "bold", "dim", "bold underline", "green"
COLUMN = 11  # where the text of a finding begins, after two spaces and its severity
SKIPPED = 5  # so many skipped files are named
PAIRS = 5  # and so many pairs are summed up


def write(report: Report, stream: TextIO, display: Display) -> None:
    """Write the report as text."""
    page = Page(stream, display.color, display.width)
    _Text(report, page, display).write()
    page.write()


class _Text:
    """The parts of the report, in the order in which they are read."""

    def __init__(self, report: Report, page: Page, display: Display) -> None:
        self.report = report
        self.page = page
        self.display = display
        self.fixed: set[str] = set()
        least = Severity.WARNING if display.quiet else Severity.INFO
        self.findings = [finding for finding in report.findings if finding.gravity >= least]

    def write(self) -> None:
        self.write_files()
        self.write_silenced()
        self.write_skipped()
        self.write_pairs()
        if self.display.show_files:
            self.write_file_list()
        if self.display.statistics:
            self.write_statistics()
        self.write_closing()

    # -- findings -----------------------------------------------------------------------------------

    def write_files(self) -> None:
        facts = {file.path: file for file in self.report.files if file.kind != "pair"}
        several = holding_several(self.report)
        for (path, reference), groups in by_file(self.findings).items():
            self.page.blank()
            self.write_heading(path, reference, facts.get(path))
            for group in groups:
                self.write_group(group, path in several)

    def write_heading(self, path: str, reference: str | None, file: FileResult | None) -> None:
        heading = [(visible(path), HEADING)]
        if reference is not None:
            heading += [*running("against"), (visible(reference), HEADING)]
        if file is not None and self.display.verbose:
            heading += running(f"({_facts(file)})", QUIET)
        self.page.line(*heading, hanging=2)

    def write_group(self, group: Group, several: bool) -> None:
        if self.display.verbose:
            for finding in group.findings:
                self.write_finding(finding, place_in_words(finding.location, several, whole=True))
        elif group.severity > Severity.INFO:
            for finding in group.shown():
                self.write_finding(finding, place_in_words(finding.location, several))
            if rest := group.rest():
                self.write_below(*running(f"and {rest}"), _rule(group.rule))
        else:
            self.write_folded(group, several)
        self.write_fix(group)

    def write_folded(self, group: Group, several: bool) -> None:
        """All that a rule notes about a file, on one line."""
        first, *others = group.findings
        if not others:
            self.write_finding(first, place_in_words(first.location, several))
        elif all(statement(other) == statement(first) for other in others):
            layers = [layer for finding in group.findings for layer in finding.location.layers]
            self.write_finding(first, names_in_words(layers, "layer") or [f"{len(group.findings):,}", "times"])
        else:
            self.write_finding(first, place_in_words(first.location, several), f"(and {in_number(others)})")

    def write_finding(self, finding: Finding, where: list[str], *also: str) -> None:
        severity = str(finding.gravity)
        self.page.line(
            (f"{severity:<8}", STYLES[severity]),
            *_where(where),
            *running(visible(statement(finding))),
            *[piece for words in also for piece in running(words)],
            _rule(finding.rule),
            indent=2,
            hanging=COLUMN,
        )
        for location, message in finding.related:
            self.write_below(("see", PLAIN), *_where([place_elsewhere(location)]), *running(visible(message)))

    def write_fix(self, group: Group) -> None:
        """What to do, once per rule; a mere note needs nothing done."""
        noted = group.severity <= Severity.INFO and not self.display.verbose
        if self.display.quiet or noted or group.rule in self.fixed:
            return
        self.fixed.add(group.rule)
        advice = fix(group.findings[0], self.report)
        if not advice:
            return
        if not self.display.verbose:
            prose, code = in_short(advice)
            self.write_below(("Fix:", FIX), *running(prose))
            for line in code:
                self.write_below((f"    {line}", PLAIN))
            return
        self.write_below(("Fix:", FIX))
        for line in advice.splitlines():
            self.write_below((f"  {visible(line)}".rstrip(), PLAIN))

    def write_below(self, *pieces: Piece) -> None:
        self.page.line(*pieces, indent=COLUMN, hanging=COLUMN)

    # -- what was left out --------------------------------------------------------------------------

    def write_silenced(self) -> None:
        """What was suppressed or is known from the baseline, where it is asked for."""
        silenced = [(finding, "suppressed", reason) for finding, reason in self.report.suppressed]
        silenced += [(finding, "baselined", "known from the baseline") for finding in self.report.baselined]
        if not silenced or not self.display.verbose:
            return
        self.page.blank()
        for finding, word, reason in silenced:
            path = () if finding.location.line is not None else ((f"{visible(finding.location.path)}:", NAME),)
            self.page.line(
                (word, QUIET),
                *path,
                *_where(place_in_words(finding.location)),
                *running(visible(statement(finding))),
                _rule(finding.rule),
                *running(f"({visible(reason)})" if reason else "(no reason given)", QUIET),
                hanging=2,
            )

    def write_skipped(self) -> None:
        """Files that could not be looked at and of which no finding speaks: nothing is passed over in silence."""
        spoken_of = {finding.location.path for finding in self.report.findings}
        spoken_of.update(finding.location.path for finding, _ in self.report.suppressed)
        spoken_of.update(finding.location.path for finding in self.report.baselined)
        skipped = [file for file in self.report.files if file.status in UNREADABLE and file.path not in spoken_of]
        if not skipped or self.display.quiet:
            return
        self.page.blank()
        few = skipped if self.display.verbose or len(skipped) <= SKIPPED + 1 else skipped[:SKIPPED]
        for file in few:
            self.page.line(
                (file.status, STYLES["skipped"]),
                (f"{visible(file.path)}:", NAME),
                *running(visible(file.note or file.format or "of no format that bnlint knows")),
                hanging=2,
            )
        if len(few) < len(skipped):
            self.page.line(*running(f"and {more(len(skipped) - len(few), 'file')} (--show-files lists them)"))

    def write_pairs(self) -> None:
        """What was compared, how much of it was read, and what became of the layers."""
        pairs = [file for file in self.report.files if file.kind == "pair"]
        if not pairs or self.display.quiet:
            return
        self.page.blank()
        few = pairs if self.display.verbose or len(pairs) <= PAIRS + 1 else pairs[:PAIRS]
        for file in few:
            self.page.line((visible(file.path), NAME), *running(visible(file.note or "")), hanging=2)
        if len(few) < len(pairs):
            self.page.line(*running(f"and {more(len(pairs) - len(few), 'pair')} (--show-files lists them)"))

    # -- tables -------------------------------------------------------------------------------------

    def write_file_list(self) -> None:
        self.page.blank()
        for file in self.report.files:
            self.page.line((f"{file.status:<16}", QUIET), (visible(file.path), NAME), *running(_facts(file)), hanging=4)

    def write_statistics(self) -> None:
        rows = _statistics(self.report)
        if not rows:
            return
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        self.page.blank()
        for number, row in enumerate(rows):
            style = PLAIN if number else NAME
            cells = [
                row[0].ljust(widths[0]),
                *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)),
            ]
            self.page.row(("  ".join(cells), style))

    # -- closing ------------------------------------------------------------------------------------

    def write_closing(self) -> None:
        report = self.report
        self.page.blank()
        for path in report.executed:
            self.page.line(*running("ran your code:"), (visible(path), NAME), hanging=2)
        if not self.display.quiet:
            self.write_assumed()
        if self.worth_a_verdict():
            self.page.line(*running(verdict(report), _verdict_style(report)))
        grave = {finding.rule for finding in self.findings if finding.gravity > Severity.INFO}
        if grave and not self.display.quiet:
            rule = grave.pop() if len(grave) == 1 else "RULE"
            self.page.line(
                *running(f"`bnlint explain {rule}` says why it hurts, what causes it and when it is fine", QUIET)
            )

    def worth_a_verdict(self) -> bool:
        report = self.report
        if report.trouble and not report.files:
            return False  # the one line on standard error is all there is to say
        passed_over = any(file.status in UNREADABLE for file in report.files)
        return not self.display.quiet or bool(self.findings) or report.failed or passed_over

    def write_assumed(self) -> None:
        """What was assumed about the layers, where a finding depends on it."""
        assumed = {
            f"{name} {finding.evidence[key]:g}"
            for finding in self.findings
            for name, key in (("momentum", "assumed_momentum"), ("eps", "assumed_eps"))
            if isinstance(finding.evidence.get(key), float)
        }
        if assumed:
            self.page.line(
                *running(f"assumed: {', '.join(sorted(assumed))}; a state dict does not say"),
                *running("(--momentum, --eps, or assume: in .bnlint.yaml)", QUIET),
                hanging=2,
            )


def _where(words: list[str]) -> list[Piece]:
    return [*[(word, NAME) for word in words[:-1]], (f"{words[-1]}:", NAME)] if words and words[-1] else []


def _rule(name: str) -> Piece:
    return f"[{visible(name)}]", QUIET


def _facts(file: FileResult) -> str:
    """What is known of a file besides its name."""
    layers = f"{counted(file.batchnorm_layers, 'BatchNorm layer')}, {counted(file.channels, 'channel')}"
    has_layers = file.status == "checked" and file.kind != "source"
    known = (file.format, layers if has_layers else None, file.note)
    return visible("; ".join(filter(None, known)) or file.kind)


def _statistics(report: Report) -> list[tuple[str, ...]]:
    """A row per rule: how often it spoke with each severity, of how many layers and files."""
    by_rule: dict[str, list[Finding]] = {}
    for finding in report.findings:
        by_rule.setdefault(finding.rule, []).append(finding)
    rows: list[tuple[str, ...]] = [("rule", "error", "warning", "info", "layers", "files")]
    for rule, findings in sorted(by_rule.items()):
        severities = [finding.gravity for finding in findings]
        layers = {
            (each.location.path, each.location.state_dict, layer) for each in findings for layer in each.location.layers
        }
        files = {each.location.path for each in findings}
        numbers = (*map(severities.count, (Severity.ERROR, Severity.WARNING, Severity.INFO)), len(layers), len(files))
        rows.append((visible(rule), *(f"{number:,}" for number in numbers)))
    return rows if by_rule else []


def _verdict_style(report: Report) -> str:
    if report.count(Severity.ERROR):
        return STYLES["error"]
    return STYLES["warning"] if report.count(Severity.WARNING) else PLAIN
