"""What each section of a configuration means: values with places in, settings or a clear error out."""

from __future__ import annotations

import sys

from bnlint.config.file import Node, Place
from bnlint.errors import UsageError
from bnlint.finding import Severity
from bnlint.nearest import did_you_mean
from bnlint.settings import Comparison, Override, RuleSetting

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bnlint.rulebook import Rulebook

PRESETS = ("recommended", "strict", "quiet")
KEYS = (
    "extends",
    "fail-on",
    "max-warnings",
    "min-severity",
    "rules",
    "assume",
    "exclude",
    "overrides",
    "compare",
    "rules-folder",
)
GATES = ("error", "warning", "info", "never")
ASSUMED = ("momentum", "eps")
OVERRIDE_KEYS = ("files", "layers", "rules", "reason", "expires")
COMPARE_KEYS = ("checkpoint", "reference", "model", "rename", "different", "shallow")


# -- sections ---------------------------------------------------------------------------------------


def severity(node: Node, what: str) -> Severity:
    """A severity. YAML reads `off` as false, so that is one too."""
    return Severity.OFF if node.value is False else Severity.of(choice(node, what, Severity.NAMES))


def gate(node: Node) -> Severity | None:
    """What `fail-on` says; None is never."""
    word = choice(node, "fail-on", GATES)
    return None if word == "never" else Severity.of(word)


def assumed(node: Node) -> dict[str, tuple[float, Place]]:
    """The momentum and eps that a state dict cannot say."""
    return {
        name: (number(each, f"assume.{name}", low=0.0, high=1.0), each.place)
        for name, each in entries(node, "assume", ASSUMED).items()
    }


def rules(node: Node, rulebook: Rulebook) -> dict[str, RuleSetting]:
    """What a `rules` section says of each rule: `name: severity`, or severity, possible and options."""
    return {
        name: rule_setting(name, each, rulebook)
        for name, each in entries(node, "rules").items()
        if known_rule(name, each.key, rulebook)
    }


def known_rule(name: str, place: Place, rulebook: Rulebook) -> bool:
    """True; ConfigError where there is no rule of that name."""
    if name in rulebook.names:
        return True
    hint = did_you_mean(name, rulebook.names) or "; `bnlint rules` lists them all"
    raise place.error(f"there is no rule called {name}{hint}")


def rule_setting(name: str, node: Node, rulebook: Rulebook) -> RuleSetting:
    """What is said of one rule."""
    if not isinstance(node.value, dict):
        return RuleSetting(severity(node, name))
    rule = rulebook.rule(name)
    defaults = rule.options if rule is not None else None
    allowed = None if defaults is None else ("severity", "possible", *defaults)
    said = dict(entries(node, name, allowed))
    levels = {word: severity(said.pop(word), f"{name}.{word}") for word in ("severity", "possible") if word in said}
    options = {
        option: each.value if defaults is None else option_value(each, f"{name}.{option}", defaults[option])
        for option, each in said.items()
    }
    return RuleSetting(levels.get("severity"), levels.get("possible"), options)


def option_value(node: Node, what: str, default: object) -> object:
    """The value of a rule's option; its type is that of the default."""
    if isinstance(default, bool):
        return truth(node, what)
    if isinstance(default, int):
        return whole(node, what)
    if isinstance(default, float):
        return number(node, what)
    if isinstance(default, str):
        return text(node, what)
    if isinstance(default, (list, tuple)):
        return type(default)(option_value(each, what, default[0] if default else "") for each in items(node, what))
    if isinstance(node.value, (dict, list)):
        raise node.place.error(f"{what} is one value")
    return node.value


def overrides(node: Node, rulebook: Rulebook) -> list[Override]:
    """The entries of `overrides`, in order."""
    return [_override(each, rulebook) for each in items(node, "overrides")]


def _override(node: Node, rulebook: Rulebook) -> Override:
    said = entries(node, "overrides", OVERRIDE_KEYS)
    for wanted in ("rules", "reason"):
        if wanted not in said:
            raise node.place.error(f"an override needs {wanted}")
    if "files" not in said and "layers" not in said:
        raise node.place.error("an override needs files or layers; what holds everywhere belongs under rules")
    return Override(
        rules(said["rules"], rulebook),
        files=patterns(said["files"], "files") if "files" in said else (),
        layers=texts(said["layers"], "layers") if "layers" in said else (),
        reason=reason(said["reason"]),
        expires=day(said["expires"]) if "expires" in said else None,
        path=node.place.file,
        line=node.place.line,
        column=node.place.column,
    )


def reason(node: Node) -> str:
    """Why an override is there; an empty reason is none."""
    said = text(node, "reason")
    if not said.strip():
        raise node.place.error("reason is empty: say why these findings are fine")
    return said


def day(node: Node) -> str:
    """A date, as 2027-06-30."""
    from datetime import date

    said = node.value
    try:
        if not isinstance(said, str) or len(said) != len("2027-06-30"):
            raise ValueError
        return date.fromisoformat(said).isoformat()
    except ValueError:
        raise node.place.error(f"expires is a day such as 2027-06-30, not {_shown(said)}") from None


def patterns(node: Node, what: str) -> list[str]:
    """Patterns of paths, as in .gitignore."""
    return [_pattern(each, what) for each in items(node, what)]


def _pattern(node: Node, what: str) -> str:
    from pathspec import GitIgnoreSpec

    said = text(node, what)
    try:
        GitIgnoreSpec.from_lines([said])
    except ValueError as error:
        raise node.place.error(f"{what}: {error}") from None
    return said


def comparisons(node: Node) -> list[Comparison]:
    """The pairs of `compare`: checkpoint, reference, and how names of the one become those of the other.

    An entry with a reference and a model is two pairs.
    """
    return [comparison for each in items(node, "compare") for comparison in _comparisons(each)]


def _comparisons(node: Node) -> Iterator[Comparison]:
    said = entries(node, "compare", COMPARE_KEYS)
    if "checkpoint" not in said:
        raise node.place.error("a comparison needs checkpoint")
    if "reference" not in said and "model" not in said:
        raise node.place.error("a comparison needs reference or model")
    for name, named in (("reference", text), ("model", _factory)):
        if name in said:
            yield Comparison(
                named(said[name], f"compare.{name}"),
                _pattern(said["checkpoint"], "compare.checkpoint"),
                rename=_renames(said["rename"]) if "rename" in said else None,
                different="different" in said and truth(said["different"], "compare.different"),
                shallow="shallow" in said and truth(said["shallow"], "compare.shallow"),
                place=f"{said[name].place}: compare",
                factory=name == "model",
            )


def _factory(node: Node, what: str) -> str:
    """The name of a function that builds a model, which is not run here."""
    from bnlint.factory import expect_name

    said = text(node, what)
    try:
        expect_name(said)
    except UsageError as problem:
        raise node.place.error(f"{what}: {problem}") from None
    return said


def _renames(node: Node) -> dict[str, str]:
    import re

    renames: dict[str, str] = {}
    for pattern, each in entries(node, "compare.rename").items():
        try:
            re.compile(pattern)
        except re.error as error:
            raise each.key.error(f"compare.rename: {pattern} is not a regular expression: {error}") from None
        renames[pattern] = text(each, "compare.rename")
    return renames


# -- values -----------------------------------------------------------------------------------------


def entries(node: Node, what: str, allowed: Sequence[str] | None = None) -> dict[str, Node]:
    """The members of a mapping; ConfigError where it is none, or names what is not allowed."""
    if node.value is not None and not isinstance(node.value, dict):
        raise node.place.error(f"{what} is a mapping of names to values, not {_shown(node.value)}")
    for name, each in members(node).items():
        if allowed is not None and name not in allowed:
            hint = did_you_mean(name, allowed)
            raise each.key.error(f"unknown key {name} in {what}; allowed: {', '.join(allowed)}{hint}")
    return members(node)


def members(node: Node) -> dict[str, Node]:
    """The members of a mapping; none where it is empty or something else."""
    return node.value if isinstance(node.value, dict) else {}


def items(node: Node, what: str) -> list[Node]:
    """The members of a list."""
    if node.value is None:
        return []
    if not isinstance(node.value, list):
        raise node.place.error(f"{what} is a list, not {_shown(node.value)}")
    return node.value


def texts(node: Node, what: str) -> list[str]:
    """A list of text."""
    return [text(each, what) for each in items(node, what)]


def text(node: Node, what: str) -> str:
    if not isinstance(node.value, str):
        raise node.place.error(f"{what} is text, not {_shown(node.value)}")
    return node.value


def truth(node: Node, what: str) -> bool:
    if not isinstance(node.value, bool):
        raise node.place.error(f"{what} is true or false, not {_shown(node.value)}")
    return node.value


def whole(node: Node, what: str, low: int | None = None) -> int:
    """A whole number, not below `low`."""
    if isinstance(node.value, bool) or not isinstance(node.value, int):
        raise node.place.error(f"{what} is a whole number, not {_shown(node.value)}")
    if low is not None and node.value < low:
        raise node.place.error(f"{what} is at least {low}, not {node.value}")
    return node.value


def number(node: Node, what: str, low: float = -sys.float_info.max, high: float = sys.float_info.max) -> float:
    """A finite number within the given bounds."""
    if isinstance(node.value, bool) or not isinstance(node.value, (int, float)):
        raise node.place.error(f"{what} is a number, not {_shown(node.value)}")
    if not abs(node.value) <= sys.float_info.max:
        raise node.place.error(f"{what} is a finite number, not {_shown(node.value)}")
    if not low <= node.value <= high:
        raise node.place.error(f"{what} lies between {low:g} and {high:g}, not at {_shown(node.value)}")
    return float(node.value)


def choice(node: Node, what: str, allowed: Sequence[str]) -> str:
    """One of a few words."""
    said = node.value
    if isinstance(said, str) and said in allowed:
        return said
    hint = did_you_mean(said, allowed) if isinstance(said, str) else ""
    raise node.place.error(f"{what} cannot be {_shown(said)}; allowed: {', '.join(allowed)}{hint}")


def _shown(value: object) -> str:
    """A value as a message quotes it."""
    if value is None:
        return "empty"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    shown = repr(value) if isinstance(value, str) else str(value)
    return shown if len(shown) <= 60 else f"{shown[:60]}..."
