"""The words that several reports share, so that they say the same thing in the same way."""

from __future__ import annotations

from bnlint.finding import Severity
from bnlint.reports.escaping import visible

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Sequence

    from bnlint.finding import Finding, Location
    from bnlint.report import FileResult, Report

NAMED = 3  # so many layers of one finding are named, of more only the first
UNREADABLE = ("unreadable", "not-a-checkpoint", "skipped")


def counted(number: int, thing: str, plural: str | None = None) -> str:
    """`counted(2, "layer")` is "2 layers", `counted(0, "layer")` "no layers"."""
    if number == 1:
        return f"1 {thing}"
    return f"{f'{number:,}' if number else 'no'} {plural or thing + 's'}"


def more(number: int, thing: str) -> str:
    """`more(47, "layer")` is "47 more layers"."""
    return f"{number:,} more {thing}{'' if number == 1 else 's'}"


def tally(report: Report) -> str:
    """How many findings of each severity: "1 error, 2 warnings, 4 notes"; "" where there is none."""
    words = ((Severity.ERROR, "error"), (Severity.WARNING, "warning"), (Severity.INFO, "note"))
    return ", ".join(counted(number, word) for severity, word in words if (number := report.count(severity)))


def coverage(report: Report) -> str:
    """What was looked at: "3 files, 153 BatchNorm layers"."""
    files = _files(report)
    pairs = len(report.files) - len(files)
    layers = sum(file.batchnorm_layers for file in files)
    parts = [counted(len(files), "file"), *([counted(pairs, "pair")] if pairs else [])]
    return f"{', '.join(parts)}, {counted(layers, 'BatchNorm layer')}"


def _files(report: Report) -> list[FileResult]:
    """The files of a run, each once: a pair is no file."""
    return [file for file in report.files if file.kind != "pair"]


def verdict(report: Report) -> str:
    """The one line that sums a run up: what was looked at, what was found, what was left out and why it failed."""
    parts = [f"{coverage(report)}: {tally(report)}" if report.findings else _clean(report)]
    skipped = sum(file.status == "skipped" for file in report.files)
    if skipped:
        parts.append(f"{counted(skipped, 'file')} skipped")
    if report.suppressed:
        parts.append(f"{len(report.suppressed):,} suppressed")
    if report.baselined:
        parts.append(f"{len(report.baselined):,} known from the baseline")
    if report.failed and not report.count(Severity.ERROR):
        parts.append(_failure(report))
    problems = len(report.crashes) + len(report.trouble)
    if problems:
        parts.append(f"incomplete, because of {counted(problems, 'problem')}")
    return "; ".join(parts)


def _clean(report: Report) -> str:
    layers = sum(file.batchnorm_layers for file in _files(report))
    channels = sum(file.channels for file in _files(report))
    checked = any(file.status == "checked" for file in report.files)
    if not layers:
        return f"{coverage(report)}: {'no problem found' if checked else 'nothing to check'}"
    return f"{coverage(report)}, {counted(channels, 'channel')}: no problem found"


def _failure(report: Report) -> str:
    if report.gate.fail_on is not None and any(each.gravity >= report.gate.fail_on for each in report.findings):
        return f"failed, because {report.gate.fail_on} is enough to fail"
    allowed = report.gate.max_warnings
    return (
        f"failed, because only {counted(allowed, 'warning')} may pass"
        if allowed
        else "failed, because no warning may pass"
    )


def place(location: Location, in_which: bool = False) -> str:
    """Where in its file: "layer1.0.bn1", "layer1.0.bn1 and 47 more layers"; "" for the file as a whole.

    `in_which` adds the state dict's own place, for files that hold several.
    """
    return " ".join(place_in_words(location, in_which))


def place_in_words(location: Location, in_which: bool = False, *, whole: bool = False) -> list[str]:
    """The words of `place`, so that a line can break between them but not in a name; `whole` names every layer."""
    if location.line is not None:
        column = "" if location.column is None else f":{location.column}"
        return [f"{visible(location.path)}:{location.line}{column}"]
    names, thing = (location.layers, "layer") if location.layers else (location.tensors, "tensor")
    words = names_in_words(names, thing, len(names) if whole else NAMED)
    if in_which and location.state_dict:
        words += ["in", visible(location.state_dict)]
    return words


def names_in_words(names: Sequence[str], thing: str, most: int = NAMED) -> list[str]:
    """Few names as they are, many as the first and a number."""
    if len(names) > most:
        return [layer_name(names[0]), "and", *more(len(names) - 1, thing).split(" ")]
    words = [f"{layer_name(name)}," for name in names]
    return [*words[:-1], words[-1][:-1]] if words else []


def place_elsewhere(location: Location) -> str:
    """Where, for a place that may lie in another file: "train.py:12", "b.pth: layer1.0.bn1"."""
    inside = place(location, in_which=True)
    if location.line is not None or not location.path:
        return inside
    return f"{visible(location.path)}: {inside}" if inside else visible(location.path)


def layer_name(name: str) -> str:
    """A layer as a person reads it; the file itself may be one layer, whose name is empty."""
    return visible(name) if name else "(the whole file)"


def statement(finding: Finding) -> str:
    """What was found, and what was not known where it is only possible. Not escaped."""
    return finding.message if finding.unknown is None else f"{finding.message} (possible; not known: {finding.unknown})"


def holding_several(report: Report) -> set[str]:
    """The paths of files where the name of a layer is not enough: they hold several state dicts."""
    return {file.path for file in report.files if len(file.state_dicts) > 1}


def sentence(finding: Finding, several: Container[str]) -> str:
    """Where and what, on one line, for a medium that has one text per finding; `several` is `holding_several`."""
    place_said = finding.location.line is not None  # by the medium
    where = "" if place_said else place(finding.location, finding.location.path in several)
    what = visible(statement(finding))
    return f"{where}: {what}" if where else what


def fix(finding: Finding, report: Report) -> str:
    """What to do: the finding's own fix, else its rule's; "" where neither says anything. Not escaped."""
    if finding.fix:
        return finding.fix
    rule = report.rules.get(finding.rule)
    if rule is None:
        return ""
    from bnlint.explanation import sections

    return dict(sections(rule)[1]).get("Fix", "")


def in_short(text: str, length: int = 240) -> tuple[str, list[str]]:
    """How a text begins: its first sentences on one line, and the lines of code that belong to them.

    The sentences end where the code begins, at a blank line, or after a sentence where they are longer
    than `length`; then there is no code. Code is what is indented.
    """
    lines = text.strip().splitlines()
    said = next((i for i, line in enumerate(lines) if not line.strip() or line[0] == " "), len(lines))
    prose = " ".join(visible(word) for line in lines[:said] for word in line.split())
    if len(prose) > length and (end := prose.rfind(". ", 0, length)) >= 0:
        return prose[: end + 1], []
    below = lines[said + 1 :] if said < len(lines) and not lines[said].strip() else lines[said:]
    stop = next((i for i, line in enumerate(below) if line[:1] != " "), len(below))
    code = below[:stop]
    margin = min((len(line) - len(line.lstrip()) for line in code), default=0)
    return prose, [visible(line[margin:]) for line in code]


def distinct_layers(findings: Iterable[Finding]) -> int:
    """How many layers these findings name."""
    return len({(each.location.state_dict, layer) for each in findings for layer in each.location.layers})
