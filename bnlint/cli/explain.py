"""`bnlint explain`: say what a rule finds, why it hurts, and what to do."""

from __future__ import annotations

import sys

from bnlint.cli.parser import Parser
from bnlint.cli.rules import rulebook
from bnlint.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from bnlint.rulebook import Rulebook


def main(argv: Sequence[str]) -> int:
    parser = Parser("explain", "Say what a rule finds, why it hurts, what causes it, what to do, and when it is fine.")
    parser.add_argument("rules", nargs="+", metavar="RULE", help="the name of a rule")
    parser.add_argument("--output", choices=("text", "json", "markdown"), default="text", help="text where left out")
    parser.add_argument("--config", metavar="FILE", help="the configuration that names your rules-folder")
    parser.add_argument("--allow-code", action="store_true", help="also know the rules of the rules-folder: they run")
    said = parser.parse_args(argv)
    known = rulebook(said.config, said.allow_code)
    sys.stdout.write("\n\n".join(_explained(name, known, said.output) for name in said.rules) + "\n")
    return 0


def _explained(name: str, known: Rulebook, output: str) -> str:
    rule = known.rule(name)
    if rule is None:
        from bnlint.nearest import did_you_mean

        hint = did_you_mean(name, known.names) or "; `bnlint rules` lists them all"
        raise UsageError(f"there is no rule called {name}{hint}")
    if output == "json":
        from json import dumps

        from bnlint.explanation import facts

        return dumps(facts(rule), indent=1)
    from bnlint.explanation import as_markdown, as_text

    return as_markdown(rule) if output == "markdown" else as_text(rule)
