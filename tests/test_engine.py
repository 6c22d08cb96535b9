"""The loop: whose severity counts, who silences whom, what a crash does."""

from collections.abc import Iterator

import pytest

from bnlint.engine import Verdict, lint
from bnlint.errors import RuleError, UnreadableFile
from bnlint.finding import Finding, Severity
from bnlint.model.batchnorm import BatchNorm
from bnlint.model.examples import batchnorm, checkpoint, state_dict
from bnlint.model.raw_file import RawFile
from bnlint.model.state_dict import StateDict
from bnlint.ruleset import Rule, RuleSet, rule
from bnlint.settings import Override, RuleSetting, Settings


def nothing() -> list[object]:
    return []


@rule(severity=Severity.WARNING, good=nothing, bad=nothing)
def many_channels(layer: BatchNorm, *, at_most: int = 2) -> Iterator[Finding]:
    """A layer has many channels."""
    if layer.channels > at_most:
        yield Finding(layer.at("running_var"), f"{layer.channels} channels")


@rule(severity=Severity.WARNING, needs=["many-channels"], good=nothing, bad=nothing)
def any_layer(layer: BatchNorm) -> Iterator[Finding]:
    """There is a layer."""
    yield Finding(layer.at(), "a layer", severity=Severity.ERROR)


@rule(severity=Severity.WARNING, good=nothing, bad=nothing)
def guessed(layers: StateDict) -> Iterator[Finding]:
    """Nobody knows."""
    yield Finding(layers.at(layer.name for layer in layers.batchnorms), "perhaps", unknown="what this is")


@rule(severity=Severity.OFF, good=nothing, bad=nothing)
def quiet(layer: BatchNorm) -> Iterator[Finding]:
    """Off unless asked for."""
    yield Finding(layer.at(), "asked for")


@rule(severity=Severity.WARNING, good=nothing, bad=nothing)
def broken(layer: BatchNorm) -> Iterator[Finding]:
    """A rule with a bug."""
    yield Finding(layer.at(), "before the bug")
    raise ZeroDivisionError("a bug")


@rule(severity=Severity.ERROR, good=nothing, bad=nothing)
def unreadable(file: RawFile) -> Iterator[Finding]:
    """A file cannot be read."""
    if file.problem is not None:
        yield Finding(file.at(), str(file.problem))


@rule(severity=Severity.ERROR, deep=True, good=nothing, bad=nothing)
def reads_weights(layers: StateDict) -> Iterator[Finding]:
    """A rule that reads bytes which are not there."""
    raise UnreadableFile("truncated", "the file shrank while it was read", 17)
    yield


def a_file() -> RawFile:
    layers = [
        batchnorm("stem.bn"),
        batchnorm("backbone.bn", weight=[1.0], bias=[0.0], running_mean=[0.3], running_var=[2.0]),
    ]
    return RawFile("models/a.pth", checkpoint=checkpoint(state_dict(layers)))


def said(verdict: Verdict) -> list[tuple[str, str, str]]:
    return [(finding.rule, ",".join(finding.location.layers), str(finding.severity)) for finding in verdict.findings]


def look(*rules: Rule, **settings: object) -> Verdict:
    return lint(a_file(), RuleSet(rules), Settings(**settings))  # type: ignore[arg-type]


def test_the_rules_default_holds_where_nothing_was_said() -> None:
    verdict = look(many_channels)
    assert said(verdict) == [("many-channels", "stem.bn", "warning")]
    assert verdict.findings[0].location.path == "models/a.pth"


def test_a_finding_carries_its_own_default() -> None:
    assert said(look(any_layer)) == [("any-layer", "stem.bn", "error"), ("any-layer", "backbone.bn", "error")]


def test_the_users_word_is_final() -> None:
    assert {severity for *_, severity in said(look(any_layer, rules={"any-layer": RuleSetting(Severity.INFO)}))} == {
        "info"
    }


def test_a_rule_silences_another_at_its_layer_only() -> None:
    assert said(look(many_channels, any_layer)) == [
        ("many-channels", "stem.bn", "warning"),
        ("any-layer", "backbone.bn", "error"),
    ]


def test_a_rule_that_is_off_still_silences_but_is_not_heard() -> None:
    verdict = look(many_channels, any_layer, rules={"many-channels": RuleSetting(Severity.OFF)})
    assert said(verdict) == [("any-layer", "backbone.bn", "error")]


def test_incomplete_evidence_gets_the_possible_severity() -> None:
    assert said(look(guessed)) == [("guessed", "stem.bn,backbone.bn", "info")]
    louder = {"guessed": RuleSetting(Severity.ERROR, possible=Severity.WARNING)}
    assert said(look(guessed, rules=louder)) == [("guessed", "stem.bn,backbone.bn", "warning")]
    assert said(look(guessed, rules={"guessed": RuleSetting(Severity.ERROR)})) == [
        ("guessed", "stem.bn,backbone.bn", "info")
    ]
    assert said(look(guessed, rules={"guessed": RuleSetting(Severity.OFF)})) == []


def test_off_by_default_speaks_when_selected_or_configured() -> None:
    assert said(look(quiet)) == []
    assert {severity for *_, severity in said(look(quiet, select=frozenset({"quiet"})))} == {"warning"}
    assert {severity for *_, severity in said(look(quiet, rules={"quiet": RuleSetting(Severity.ERROR)}))} == {"error"}


def test_options_reach_the_rule() -> None:
    assert said(look(many_channels, rules={"many-channels": RuleSetting(options={"at-most": 9})})) == []


def test_an_override_for_a_layer_silences_it_with_its_reason() -> None:
    override = Override({"any-layer": RuleSetting(Severity.OFF)}, layers=["backbone.*"], reason="converted")
    verdict = look(any_layer, overrides=[override])
    assert said(verdict) == [("any-layer", "stem.bn", "error")]
    assert [(finding.location.layers, by.reason) for finding, by in verdict.suppressed] == [
        (("backbone.bn",), "converted")
    ]
    assert override.used


def test_an_override_takes_its_layers_out_of_a_finding_about_several() -> None:
    override = Override({"guessed": RuleSetting(Severity.OFF)}, layers=["backbone.*"])
    assert said(look(guessed, overrides=[override])) == [("guessed", "stem.bn", "info")]


def test_an_override_sets_options_for_its_layers() -> None:
    override = Override({"many-channels": RuleSetting(options={"at-most": 0})}, layers=["backbone.*"])
    assert said(look(many_channels, overrides=[override])) == [
        ("many-channels", "stem.bn", "warning"),
        ("many-channels", "backbone.bn", "warning"),
    ]


def test_an_override_turns_a_rule_on() -> None:
    override = Override({"quiet": RuleSetting(Severity.WARNING)}, layers=["stem.*"])
    assert said(look(quiet, overrides=[override])) == [("quiet", "stem.bn", "warning")]


def test_a_crash_is_named_and_the_run_goes_on() -> None:
    verdict = look(broken, any_layer)
    assert [str(crash) for crash in verdict.crashes] == [
        "rule broken crashed at stem.bn: ZeroDivisionError: a bug",
        "rule broken crashed at backbone.bn: ZeroDivisionError: a bug",
    ]
    assert len(verdict.findings) == 4


def test_a_file_that_turns_out_unreadable_is_judged_as_one() -> None:
    verdict = look(unreadable, reads_weights, any_layer, deep=True)
    assert said(verdict) == [("unreadable", "", "error")]
    assert not verdict.crashes


def test_a_deep_rule_waits_for_deep() -> None:
    assert said(look(reads_weights)) == []


def test_two_rules_of_one_name_are_refused() -> None:
    with pytest.raises(RuleError, match="already a rule called any-layer"):
        RuleSet([any_layer, any_layer])


def test_a_rule_needs_a_docstring_a_subject_and_defaults() -> None:
    def silent(layer: BatchNorm) -> Iterator[Finding]:
        yield from ()

    def aimless(layer) -> Iterator[Finding]:  # type: ignore[no-untyped-def]
        """Nothing to look at."""
        yield from ()

    def greedy(layer: BatchNorm, *, at_most: int) -> Iterator[Finding]:
        """An option without a default."""
        yield from ()

    for function, complaint in ((silent, "docstring"), (aimless, "needs a type"), (greedy, "needs a default")):
        with pytest.raises(RuleError, match=complaint):
            rule(severity=Severity.INFO, good=nothing, bad=nothing)(function)


def test_what_is_less_than_the_least_is_left_out_unless_asked_for() -> None:
    assert said(look(guessed, many_channels, min_severity=Severity.WARNING)) == [
        ("many-channels", "stem.bn", "warning")
    ]
    asked = {"many-channels": RuleSetting(Severity.INFO)}
    assert said(look(many_channels, rules=asked, min_severity=Severity.ERROR)) == [("many-channels", "stem.bn", "info")]


def test_an_override_that_gives_a_rule_back_its_default_is_used() -> None:
    override = Override({"many-channels": RuleSetting(Severity.WARNING)}, layers=["stem.*"], reason="a default")
    verdict = look(many_channels, rules={"many-channels": RuleSetting(Severity.INFO)}, overrides=[override])
    assert said(verdict) == [("many-channels", "stem.bn", "warning")]
    assert override.used
