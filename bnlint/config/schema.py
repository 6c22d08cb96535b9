"""The JSON Schema of a configuration, made from the rules: for editors, and for whoever checks YAML by schema."""

from __future__ import annotations

from bnlint.config.sections import GATES, PRESETS
from bnlint.finding import Severity

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from bnlint.ruleset import Rule

    Schema = dict[str, Any]

TEXTS: Schema = {"type": "array", "items": {"type": "string"}}
PROPORTION: Schema = {"type": "number", "minimum": 0, "maximum": 1}


def schema(rules: Iterable[Rule]) -> Schema:
    """The schema of `.bnlint.yaml`, with every rule and its options."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "bnlint configuration",
        "description": ".bnlint.yaml, or [tool.bnlint] in pyproject.toml",
        **_mapping(
            {
                "extends": _described(
                    {"anyOf": [{"enum": list(PRESETS)}, {"type": "string"}]},
                    "Where to start: a preset, or the path of another configuration.",
                ),
                "fail-on": _described({"enum": list(GATES)}, "From which severity on a run fails."),
                "max-warnings": _described({"type": "integer", "minimum": 0}, "A run with more warnings fails."),
                "min-severity": _described(
                    {"enum": list(Severity.NAMES[1:])},
                    "What rules without a severity of their own say below it is left out.",
                ),
                "rules": {"$ref": "#/$defs/rules"},
                "assume": _described(
                    _mapping({"momentum": PROPORTION, "eps": PROPORTION}), "What a state dict cannot say of its layers."
                ),
                "exclude": _described(TEXTS, "Paths to leave out, as in .gitignore."),
                "overrides": {"type": "array", "items": _override()},
                "compare": {"type": "array", "items": _comparison()},
                "rules-folder": _described(
                    {"type": "string"}, "A folder of your own rules; they run only with --allow-code."
                ),
            }
        ),
        "$defs": {
            "severity": _described({"enum": [*Severity.NAMES, False]}, "`off` is false to YAML."),
            "rules": _described(
                _mapping({rule.name: _rule(rule) for rule in rules}), "What findings of each rule are, and its options."
            ),
        },
    }


def _override() -> Schema:
    return {
        **_mapping(
            {
                "files": _described(TEXTS, "Paths as in .gitignore, relative to the configuration."),
                "layers": _described(TEXTS, "Patterns of layer names, such as backbone.*"),
                "rules": {"$ref": "#/$defs/rules"},
                "reason": _described({"type": "string", "pattern": r"\S"}, "Why these findings are fine."),
                "expires": _described(
                    {"type": "string", "pattern": r"^\d{4}-\d{2}-\d{2}$"}, "After this day the override is reported."
                ),
            }
        ),
        "required": ["rules", "reason"],
        "anyOf": [{"required": ["files"]}, {"required": ["layers"]}],
    }


def _comparison() -> Schema:
    renames: Schema = {"type": "object", "additionalProperties": {"type": "string"}}
    flag: Schema = {"type": "boolean"}
    return {
        **_mapping(
            {
                "checkpoint": _described({"type": "string"}, "A path or pattern, as in .gitignore."),
                "reference": _described({"type": "string"}, "What came before: a checkpoint or a key contract."),
                "model": _described(
                    {"type": "string"},
                    "package.module:function, your code that builds the model; it runs only with --allow-code.",
                ),
                "rename": _described(
                    renames, "Regular expressions in the names that are loaded, and what replaces them."
                ),
                "different": _described(flag, "These two are not the same network, and need not match."),
                "shallow": _described(flag, "Compare keys and BatchNorm only, not every weight."),
            }
        ),
        "required": ["checkpoint"],
        "anyOf": [{"required": ["reference"]}, {"required": ["model"]}],
    }


def _rule(rule: Rule) -> Schema:
    severity: Schema = {"$ref": "#/$defs/severity"}
    options = {name: {**_option(default), "default": default} for name, default in rule.options.items()}
    return _described(
        {"anyOf": [severity, _mapping({"severity": severity, "possible": severity, **options})]}, rule.title
    )


def _option(default: object) -> Schema:
    if isinstance(default, (list, tuple)):
        return {"type": "array", "items": _option(default[0] if default else "")}
    kinds = ((bool, "boolean"), (int, "integer"), (float, "number"), (str, "string"))
    return next(({"type": name} for kind, name in kinds if isinstance(default, kind)), {})


def _mapping(properties: Schema) -> Schema:
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _described(what: Schema, description: str) -> Schema:
    return {**what, "description": description}
