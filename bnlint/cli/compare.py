"""`bnlint compare`: checkpoints side by side, for a person."""

from __future__ import annotations

import sys

from bnlint.cli.parser import Parser
from bnlint.comparing import expect_reference
from bnlint.comparison import compare_series, compare_two
from bnlint.errors import UsageError
from bnlint.model.state_dict import Assumed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Sequence

    from bnlint.comparison import Series, SideBySide

DESCRIPTION = """\
Show what became of B since A: which key is which, what load_state_dict would do, how far each BatchNorm
layer moved. A came before; it is a checkpoint or a key contract. More checkpoints than two are a series,
each beside the one before it. `bnlint check B --reference A` judges the same pair."""
EPILOG = "Exit code: 0, whatever there is to see; 2 where something could not be done."


def main(argv: Sequence[str]) -> int:
    said = _parser().parse_args(argv)
    if len(said.paths) < (1 if said.model else 2):
        raise UsageError("compare: name two checkpoints, the older first, or more of one run")
    for path in said.paths:
        expect_reference(path)
    _write(_looked_at(said), said)
    return 0


def _looked_at(said: Namespace) -> SideBySide | Series:
    assumed = Assumed(eps=said.eps)
    if said.model:
        from bnlint.factory import build

        if len(said.paths) > 1:
            raise UsageError("compare: one checkpoint at a time with a model")
        model = build(said.model, said.model_timeout)
        return compare_two(said.model, said.paths[0], key=said.key, assumed=assumed, model=model)
    if len(said.paths) > 2:
        return compare_series(said.paths, shallow=said.shallow, key=said.key, assumed=assumed)
    return compare_two(*said.paths, shallow=said.shallow, key=said.key, assumed=assumed)


def _write(shown: SideBySide | Series, said: Namespace) -> None:
    from bnlint.comparison import Series

    if said.output == "json":
        from bnlint.reports import comparison_json

        if isinstance(shown, Series):
            comparison_json.write_series(shown, sys.stdout)
        else:
            comparison_json.write_pair(shown, sys.stdout)
        return
    from bnlint.reports import comparison_text

    if isinstance(shown, Series):
        comparison_text.write_series(shown, sys.stdout, verbose=said.verbose, color=said.color)
    else:
        comparison_text.write_pair(shown, sys.stdout, verbose=said.verbose, color=said.color)


def _parser() -> Parser:
    parser = Parser("compare", DESCRIPTION, EPILOG)
    add = parser.add_argument
    add("paths", nargs="+", metavar="FILE", help="the older checkpoint (or a key contract), then the newer ones")
    add("--key", metavar="NAME", help="the state dict to look at in each file, such as ema or state_dict")
    add("--shallow", action="store_true", help="read keys and BatchNorm only; without it, every weight is read")
    add(
        "--model",
        metavar="MODULE:FUNCTION",
        help="compare FILE with the model that your function builds, such as package.models:resnet."
        " This runs your code, in a process of its own, and needs torch",
    )
    add("--model-timeout", type=float, metavar="SECONDS", help="how long that may take (60)")
    add("--eps", type=float, metavar="X", help="the eps of the layers, where a file cannot say it")
    add("--output", choices=("text", "json"), default="text", help="text where left out")
    add("-v", "--verbose", action="store_true", help="every layer, every key that is left over")
    add("--color", choices=("auto", "always", "never"), default="auto", help="colour the text; auto heeds NO_COLOR")
    return parser
