"""The loop: show every subject of a file to every rule that looks at its kind."""

from __future__ import annotations

from bnlint.errors import RuleCrashed, UnreadableFile
from bnlint.finding import Severity
from bnlint.settings import NOTHING_SAID

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from bnlint.finding import Finding
    from bnlint.model.raw_file import RawFile
    from bnlint.ruleset import Check, Rule, RuleSet
    from bnlint.settings import Override, RuleSetting, Settings


class Verdict:
    """What the rules said of one file: findings by the user's severities, what an override silenced, crashes."""

    __slots__ = ("crashes", "findings", "suppressed")

    def __init__(self) -> None:
        self.findings: list[Finding] = []
        self.suppressed: list[tuple[Finding, Override]] = []
        self.crashes: list[RuleCrashed] = []


def lint(file: RawFile, rules: RuleSet, settings: Settings) -> Verdict:
    """Everything the rules have to say of one file."""
    verdict = Verdict()
    try:
        said = list(_listen(file.subjects(), rules, settings, verdict))
    except UnreadableFile as problem:  # a tensor that only a rule asked for, as --deep does
        file.problem, file.status = problem, "unreadable"
        verdict = Verdict()
        said = list(_listen([file], rules, settings, verdict))
    for rule, finding in _silence(said):
        if not settings.runs(rule):
            continue  # it ran only for those that need it
        finding.location.path = file.path
        _judge(rule, finding, settings, verdict)
    return verdict


def _listen(
    subjects: Iterable[object], rules: RuleSet, settings: Settings, verdict: Verdict
) -> Iterator[tuple[Rule, Finding]]:
    table = _wanted(rules, settings)
    by_layer = any(override.layers for override in settings.overrides)
    for subject in subjects:
        for rule, check, options in table.get(type(subject), ()):
            if by_layer or settings.overrides:
                options = _options(rule, check, settings, getattr(subject, "name", None) if by_layer else None)
            try:
                for finding in check.function(subject, **options):
                    finding.rule = rule.name
                    finding.family = rule.family
                    yield rule, finding
            except UnreadableFile:
                raise
            except Exception as error:
                where = getattr(subject, "name", "") or type(subject).__name__
                verdict.crashes.append(RuleCrashed(rule.name, where, error))


def _wanted(rules: RuleSet, settings: Settings) -> dict[type, list[tuple[Rule, Check, dict[str, object]]]]:
    """The rules to run, by what they look at, with their options; a rule that is needed runs unheard."""
    names = {rule.name for rule in rules if settings.runs(rule)}
    needed = {need for rule in rules if rule.name in names for need in rule.needs}
    return {
        subject: [
            (rule, check, _options(rule, check, settings, None))
            for rule, check in pairs
            if rule.name in names or rule.name in needed
        ]
        for subject, pairs in rules.by_subject.items()
    }


def _options(rule: Rule, check: Check, settings: Settings, layer: str | None) -> dict[str, object]:
    said: Mapping[str, object] = settings.of(rule, layer)[0].options
    return {name.replace("-", "_"): said[name] for name in check.options if name in said}


def _silence(said: list[tuple[Rule, Finding]]) -> Iterator[tuple[Rule, Finding]]:
    """Leave out what a rule says of a layer at which a rule that it needs has spoken."""
    spoken: dict[str, set[tuple[str | None, str]]] = {}
    for rule, finding in said:
        place = finding.location
        spoken.setdefault(rule.name, set()).update((place.state_dict, layer) for layer in place.layers or ("",))
    for rule, finding in said:
        silencers = [spoken[need] for need in rule.needs if need in spoken]
        if silencers:
            place = finding.location
            if any((place.state_dict, layer) in places for layer in place.layers or ("",) for places in silencers):
                continue
        yield rule, finding


def _judge(rule: Rule, finding: Finding, settings: Settings, verdict: Verdict) -> None:
    """Stamp the severity: the user's word, else the finding's own, else the rule's."""
    own = (finding.severity or rule.severity or rule.on_request) if finding.certain else rule.possible
    if not settings.overrides:
        finding.severity = _user_severity(rule, finding, settings, None, own)[0]
        if finding.severity:
            verdict.findings.append(finding)
        return
    kept: list[str] = []
    loudest = Severity.OFF
    silenced_by: Override | None = None
    without_overrides = _severity(settings.rules.get(rule.name, NOTHING_SAID), rule, finding, settings, own)
    for layer in finding.location.layers or (None,):
        severity, override = _user_severity(rule, finding, settings, layer, own)
        if override is not None and severity != without_overrides:
            override.used = True
        if severity:
            loudest = max(loudest, severity)
            if layer is not None:
                kept.append(layer)
        else:
            silenced_by = override
    if loudest:
        finding.location.layers = tuple(kept)
        finding.severity = loudest
        verdict.findings.append(finding)
    elif silenced_by is not None:
        finding.severity = own
        verdict.suppressed.append((finding, silenced_by))


def _user_severity(
    rule: Rule, finding: Finding, settings: Settings, layer: str | None, own: Severity
) -> tuple[Severity, Override | None]:
    setting, override = settings.of(rule, layer)
    if setting.severity is None and not settings.on(rule):
        return Severity.OFF, None
    return _severity(setting, rule, finding, settings, own), override


def _severity(setting: RuleSetting, rule: Rule, finding: Finding, settings: Settings, own: Severity) -> Severity:
    """What the user said of the rule, else `own` where that is to be heard."""
    if setting.severity is not None and setting.severity == Severity.OFF:
        return Severity.OFF
    said = setting.severity if finding.certain else setting.possible
    if said is not None:
        return said
    return own if settings.on(rule) and own >= settings.min_severity else Severity.OFF
