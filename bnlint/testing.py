"""Every example of a rule is a test: `good` must pass, `bad` must be found. For your own rules too.

# tests/test_my_rules.py
import pytest
from bnlint.testing import Example, check, examples

@pytest.mark.parametrize("example", examples("ci/bnlint_rules"), ids=str)
def test_example(example: Example) -> None:
    check(example)
"""

from __future__ import annotations

from bnlint.engine import lint
from bnlint.finding import Finding, Severity
from bnlint.model.raw_file import RawFile
from bnlint.ruleset import Rule, RuleSet, builtin_rules, load_folder
from bnlint.settings import RuleSetting, Settings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


class Example:
    """One example of a rule: `kind` is "good" or "bad", `number` counts from 1."""

    def __init__(self, rule: Rule, kind: str, number: int, subject: object) -> None:
        self.rule = rule
        self.kind = kind
        self.number = number
        self.subject = subject

    def __str__(self) -> str:
        return f"{self.rule.name}-{self.kind}-{self.number}"


def examples(folder: str | None = None) -> list[Example]:
    """Every example of every rule in a folder; of bnlint's own rules where none is given."""
    rules = builtin_rules() if folder is None else RuleSet(load_folder(folder))
    return [
        Example(rule, kind, number, subject)
        for rule in rules
        for kind, make in (("good", rule.good), ("bad", rule.bad))
        for number, subject in enumerate(make(), start=1)
    ]


def check(example: Example) -> None:
    """AssertionError where a good example is found, or a bad one is not."""
    found = findings_in(example.rule, example.subject)
    if example.kind == "good":
        assert not found, f"{example}: {found[0].message}"
    else:
        assert found, f"{example}: nothing was found"


class _Only(RawFile):
    """A file that holds one subject of an example, and what is inside it."""

    __slots__ = ("subject",)

    def __init__(self, subject: object) -> None:
        super().__init__("example")
        self.subject = subject

    def subjects(self) -> Iterator[object]:
        inside = getattr(self.subject, "subjects", None)
        yield from inside() if inside else [self.subject]


def findings_in(rule: Rule, subject: object, **options: object) -> list[Finding]:
    """What one rule, with these options, says of one subject and of what is inside it.

    The rule speaks alone: what other rules would silence is not left out. A rule that crashes raises.
    """
    said = RuleSetting(options={name.replace("_", "-"): value for name, value in options.items()})
    settings = Settings({rule.name: said}, select=frozenset({rule.name}))
    verdict = lint(_Only(subject), RuleSet([rule]), settings)
    for crash in verdict.crashes:
        raise crash
    return [finding for finding in verdict.findings if finding.severity is not Severity.OFF]
