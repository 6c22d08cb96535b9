"""What there is to know of a rule, for `bnlint rules` and `bnlint explain`: as text, Markdown and JSON."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    from bnlint.ruleset import Rule

HEADINGS = ("Common causes", "Fix", "When this is fine", "Evidence")
TABLES = {
    "file": "What a file's bytes say",
    "checkpoint": "What a checkpoint's tensors say",
    "module": "What a pickled or scripted model says",
    "compare": "What two checkpoints say together",
    "code": "What Python source says",
    "config": "What overrides in the configuration say",
    "custom": "Your own rules",
}


def facts(rule: Rule) -> dict[str, Any]:
    """A rule for machines. Additive changes only."""
    return {
        "name": rule.name,
        "family": rule.family,
        "title": rule.title,
        "severity": str(rule.severity),
        "possible": str(rule.possible),
        "on_request": str(rule.on_request),
        "confidence": rule.confidence,
        "options": rule.options,
        "needs": list(rule.needs),
        "deep": rule.deep,
        "preview": rule.preview,
        "deprecated": rule.deprecated,
        "since": rule.since,
        "security_severity": rule.security_severity,
        "explanation": rule.explanation,
    }


def default_severity(rule: Rule) -> str:
    """The severity a rule has where nothing is said about it."""
    return str(rule.severity) if rule.severity else f"off ({rule.on_request} when selected)"


def standing(rule: Rule) -> Iterator[str]:
    """What is special about a rule."""
    if rule.deprecated is not None:
        yield f"deprecated: use {rule.deprecated}" if rule.deprecated else "deprecated"
    if rule.preview:
        yield "runs with --preview"
    if rule.deep:
        yield "runs with --deep"
    if rule.needs:
        yield f"says nothing where {' or '.join(rule.needs)} speaks"


def setting(value: object) -> str:
    """The value of an option as YAML has it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(str, value))}]"
    return "null" if value is None else str(value)


def as_text(rule: Rule) -> str:
    """All about one rule, for a person at a terminal."""
    lines = [
        f"{rule.name} ({rule.family}, {default_severity(rule)}, since {rule.since})",
        *(f"  {each}" for each in standing(rule)),
        "",
        rule.explanation,
    ]
    if rule.options:
        lines += ["", "Options:", *(f"    {name}: {setting(value)}" for name, value in rule.options.items())]
    return "\n".join(lines)


def sections(rule: Rule) -> tuple[str, list[tuple[str, str]]]:
    """Why it hurts, and the text under each heading, as paragraphs without indentation."""
    why: list[str] = []
    found: list[tuple[str, list[str]]] = []
    for line in flush_left((rule.checks[0].function.__doc__ or "").strip().splitlines()[1:]):
        if line.endswith(":") and line[:-1] in HEADINGS:
            found.append((line[:-1], []))
        else:
            (found[-1][1] if found else why).append(line)
    return "\n".join(why).strip(), [(heading, "\n".join(flush_left(lines)).strip()) for heading, lines in found]


def flush_left(lines: list[str]) -> list[str]:
    """Lines without the indentation that they share. textwrap would do, but it imports re, which takes 5 ms."""
    margin = min((len(line) - len(line.lstrip()) for line in lines if line.strip()), default=0)
    return [line[margin:].rstrip() for line in lines]


def as_markdown(rule: Rule, level: int = 1) -> str:
    """All about one rule, as a chapter."""
    why, chapters = sections(rule)
    grade = ", ".join([f"{rule.family}, {default_severity(rule)}, since {rule.since}", *standing(rule)])
    parts = [f"{'#' * level} {rule.name}", f"**{rule.title}** ({grade})", why]
    parts += [f"*{heading}:* {text}" for heading, text in chapters]
    if rule.options:
        options = "\n".join(f"- `{name}: {setting(value)}`" for name, value in rule.options.items())
        parts.append(f"*Options,* with their defaults:\n\n{options}")
    return "\n\n".join(part for part in parts if part)


def catalogue(rules: Iterable[Rule]) -> str:
    """Every rule, as the Markdown page that lies beside them."""
    by_family: dict[str, list[Rule]] = {}
    for rule in rules:
        by_family.setdefault(rule.family, []).append(rule)
    parts = [
        "# Rules",
        "Written by `bnlint rules --output markdown > rules/README.md` from the docstrings of the rules; change"
        " those. `bnlint explain RULE` shows one of them.",
    ]
    for family, members in by_family.items():
        table = "\n".join(
            f"| [{rule.name}](#{rule.name}) | {default_severity(rule)} | {rule.title} |" for rule in members
        )
        parts += [f"## {TABLES.get(family, family)}", f"| rule | default | finds |\n|--|--|--|\n{table}"]
    parts += [as_markdown(rule, level=3) for members in by_family.values() for rule in members]
    return "\n\n".join(parts)
