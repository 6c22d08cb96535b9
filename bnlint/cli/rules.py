"""`bnlint rules`: list the rules."""

from __future__ import annotations

import sys

from bnlint.cli.parser import Parser
from bnlint.config import load_config
from bnlint.rulebook import Rulebook

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from bnlint.ruleset import Rule

INDENT = 2


def main(argv: Sequence[str]) -> int:
    parser = Parser("rules", "List the rules, with their default severities.")
    parser.add_argument("--output", choices=("text", "json", "markdown"), default="text", help="text where left out")
    parser.add_argument("--config", metavar="FILE", help="the configuration that names your rules-folder")
    parser.add_argument("--allow-code", action="store_true", help="also list the rules of the rules-folder: they run")
    said = parser.parse_args(argv)
    rules = rulebook(said.config, said.allow_code).everything()
    if said.output == "json":
        from json import dumps

        from bnlint.explanation import facts

        sys.stdout.write(f"{dumps([facts(rule) for rule in rules], indent=1)}\n")
    elif said.output == "markdown":
        from bnlint.explanation import catalogue

        sys.stdout.write(f"{catalogue(rules)}\n")
    else:
        sys.stdout.write(f"{_table(rules)}\n")
    return 0


def rulebook(config: str | None, allow_code: bool) -> Rulebook:
    """bnlint's rules, and with `allow_code` those that the configuration names.

    Without it no configuration is read: who has a wrong one needs the names of the rules to mend it.
    """
    if config is None and not allow_code:
        return Rulebook()
    return load_config(config, allow_code=allow_code).rulebook


def _table(rules: Iterable[Rule]) -> str:
    from shutil import get_terminal_size
    from textwrap import wrap

    from bnlint.explanation import TABLES

    rules = list(rules)
    name_width = max(len(rule.name) for rule in rules)
    start = INDENT + name_width + 2 + len("warning") + 2
    columns = max(get_terminal_size().columns, start + 30)
    lines: list[str] = []
    family = ""
    for rule in rules:
        if rule.family != family:
            family = rule.family
            lines += ["", TABLES.get(family, family)]
        first, *rest = wrap(rule.title, columns - start)
        lines.append(f"{' ' * INDENT}{rule.name:<{name_width}}  {rule.severity!s:<7}  {first}")
        lines += [f"{' ' * start}{line}" for line in rest]
    return "\n".join(lines[1:])
