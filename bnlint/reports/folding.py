"""One thing is said once: findings by file, and in a file by rule and severity, the gravest first."""

from __future__ import annotations

from bnlint.reports.wording import distinct_layers, more

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from bnlint.finding import Finding, Severity

FEW = 3  # so many lines of one rule and file are shown before the rest is only counted


class Group:
    """What one rule says of one file with one severity."""

    __slots__ = ("findings", "rule", "severity")

    def __init__(self, rule: str, severity: Severity) -> None:
        self.rule = rule
        self.severity = severity
        self.findings: list[Finding] = []

    def shown(self, few: int = FEW) -> list[Finding]:
        """The findings that are said one by one: the first few, or all where that saves no line."""
        return self.findings if len(self.findings) <= few + 1 else self.findings[:few]

    def rest(self, few: int = FEW) -> str:
        """What is only counted, in words: "47 more layers"; "" where all are shown."""
        hidden = self.findings[len(self.shown(few)) :]
        return in_number(hidden) if hidden else ""


def in_number(findings: list[Finding]) -> str:
    """So many more: of layers where each finding is about one, else of findings."""
    layers = distinct_layers(findings)
    return more(layers, "layer") if layers >= len(findings) else more(len(findings), "finding")


def by_file(findings: Iterable[Finding]) -> dict[tuple[str, str | None], list[Group]]:
    """The groups of each file (and of what it was compared with), in the order in which the files come."""
    files: dict[tuple[str, str | None], dict[tuple[Severity, str], Group]] = {}
    for finding in findings:
        groups = files.setdefault((finding.location.path, finding.reference), {})
        key = finding.gravity, finding.rule
        if key not in groups:
            groups[key] = Group(finding.rule, finding.gravity)
        groups[key].findings.append(finding)
    return {
        file: sorted(groups.values(), key=lambda group: group.severity, reverse=True) for file, groups in files.items()
    }
