"""`bnlint config`: show the settings in force and where each comes from, or check configurations."""

from __future__ import annotations

import sys

from bnlint.cli import EXIT_TROUBLE, complain
from bnlint.cli.parser import Parser
from bnlint.config import load_config
from bnlint.errors import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterator, Sequence

    from bnlint.config import Config
    from bnlint.settings import Comparison, Override, RuleSetting

DEFAULT = "default"


def main(argv: Sequence[str]) -> int:
    parser = Parser("config", "Show the settings in force and where each comes from.")
    parser.add_argument(
        "files", nargs="*", metavar="FILE", help="these configurations instead of the one found from here"
    )
    parser.add_argument("--check", action="store_true", help="print nothing; only say what is wrong with them")
    parser.add_argument("--output", choices=("text", "json"), default="text", help="text where left out")
    parser.add_argument("--allow-code", action="store_true", help="also know the rules of the rules-folder: they run")
    said = parser.parse_args(argv)
    return max(_show(file, said) for file in said.files or [None])


def _show(file: str | None, said: Namespace) -> int:
    """Show or check one configuration. A wrong one is no reason not to look at the next: hooks name them all."""
    try:
        config = load_config(file, allow_code=said.allow_code)
    except ConfigError as error:
        complain(str(error))
        return EXIT_TROUBLE
    if not said.check:
        sys.stdout.write(_json(config) if said.output == "json" else _text(config))
    return 0


def _settings(config: Config) -> Iterator[tuple[str, object, str]]:
    """Every setting that is in force: its name, its value, and where it was said."""
    plain: dict[str, object] = {
        "fail-on": "never" if config.fail_on is None else str(config.fail_on),
        "max-warnings": config.max_warnings,
        "min-severity": str(config.min_severity),
        "assume.momentum": config.assumed.momentum,
        "assume.eps": config.assumed.eps,
        "exclude": config.exclude,
        "compare": [_comparison(each) for each in config.compare],
        "rules-folder": config.rulebook.folder,
    }
    for name, said in sorted(config.rules.items()):
        levels = {"severity": said.severity, "possible": said.possible}
        plain.update({f"rules.{name}.{word}": str(level) for word, level in levels.items() if level is not None})
        plain.update({f"rules.{name}.{option}": value for option, value in said.options.items()})
    for name, value in plain.items():
        yield name, value, config.origins.get(name, DEFAULT)
    for override in config.overrides:
        yield f"overrides.{override.number}", _override(override), f"{override.path}:{override.line}:{override.column}"


def _override(override: Override) -> dict[str, object]:
    said: dict[str, object] = {
        "files": list(override.files),
        "layers": list(override.layers),
        "rules": {name: _setting(setting) for name, setting in override.rules.items()},
        "expires": override.expires,
        "reason": override.reason,
    }
    return {name: value for name, value in said.items() if value}


def _comparison(comparison: Comparison) -> dict[str, object]:
    said: dict[str, object] = {
        "checkpoint": comparison.checkpoint,
        "model" if comparison.factory else "reference": comparison.reference,
        "rename": dict(comparison.rename),
        "different": comparison.different,
        "shallow": comparison.shallow,
    }
    return {name: value for name, value in said.items() if value}


def _setting(said: RuleSetting) -> object:
    levels = {"severity": said.severity, "possible": said.possible}
    parts = {word: str(level) for word, level in levels.items() if level is not None}
    return parts["severity"] if [*parts] == ["severity"] and not said.options else {**parts, **said.options}


def _json(config: Config) -> str:
    from json import dumps

    settings = {name: {"value": value, "from": origin} for name, value, origin in _settings(config)}
    document = {"configuration": config.path, "root": config.root, "settings": settings}
    return f"{dumps(document, indent=1)}\n"


def _text(config: Config) -> str:
    """A line per setting, the value as YAML has it."""
    rows = [(name, _yaml(value), origin) for name, value, origin in _settings(config)]
    width = max(len(f"{name}: {value}") for name, value, _ in rows if len(value) <= 40)
    lines = [
        f"configuration: {config.path or 'none; every rule has its own defaults'}",
        f"root: {config.root}",
        "",
        *(f"{f'{name}: {value}':<{width}}  # {origin}" for name, value, origin in rows),
    ]
    return "\n".join(lines) + "\n"


def _yaml(value: object) -> str:
    """A value on one line, as YAML has it."""
    from json import dumps

    return value if isinstance(value, str) else dumps(value, ensure_ascii=False)
