"""`bnlint schema`: print the JSON Schema of the configuration or of the report."""

from __future__ import annotations

import os
import sys

from bnlint.cli.parser import Parser
from bnlint.cli.rules import rulebook

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


def main(argv: Sequence[str]) -> int:
    parser = Parser("schema", "Print a JSON Schema: of the configuration, from the rules there are, or of the report.")
    parser.add_argument("of", choices=("config", "report"), metavar="config|report", help="what to describe")
    parser.add_argument("--config", metavar="FILE", help="the configuration that names your rules-folder")
    parser.add_argument(
        "--allow-code", action="store_true", help="also describe the rules of the rules-folder: they run"
    )
    said = parser.parse_args(argv)
    sys.stdout.write(_report_schema() if said.of == "report" else _config_schema(said.config, said.allow_code))
    return 0


def _report_schema() -> str:
    import bnlint

    path = os.path.join(os.path.dirname(os.path.abspath(bnlint.__file__)), "schemas", "report.schema.json")
    with open(path, encoding="utf-8") as file:
        return file.read()


def _config_schema(config: str | None, allow_code: bool) -> str:
    from json import dumps

    from bnlint.config.schema import schema

    return f"{dumps(schema(rulebook(config, allow_code).everything()), indent=1)}\n"
