"""`bnlint keys`: write the key contract of a checkpoint."""

from __future__ import annotations

import sys

from bnlint.cli.parser import Parser
from bnlint.comparing import open_reference
from bnlint.errors import UsageError
from bnlint.readers.contract import write_contract

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

DESCRIPTION = """\
Write the key contract of a checkpoint as YAML: names, shapes, dtypes, and a digest of each BatchNorm layer.
It is small enough to review and to commit; `bnlint check MODEL --reference CONTRACT` holds others to it."""


def main(argv: Sequence[str]) -> int:
    parser = Parser("keys", DESCRIPTION)
    parser.add_argument("checkpoint", nargs="?", metavar="FILE", help="the checkpoint")
    parser.add_argument("--key", metavar="NAME", help="the state dict in the file, such as ema or state_dict")
    parser.add_argument(
        "--model",
        metavar="MODULE:FUNCTION",
        help="the keys of the model that your function builds, in place of a checkpoint."
        " This runs your code, in a process of its own, and needs torch",
    )
    parser.add_argument("--model-timeout", type=float, metavar="SECONDS", help="how long that may take (60)")
    said = parser.parse_args(argv)
    if (said.checkpoint is None) == (said.model is None):
        raise UsageError("keys: name one checkpoint, or one model with --model")
    if said.model is not None:
        from bnlint.factory import build

        write_contract(build(said.model, said.model_timeout), sys.stdout)
        return 0
    with open_reference(said.checkpoint, key=said.key) as opened:
        write_contract(opened.state_dicts[0], sys.stdout)
    return 0
