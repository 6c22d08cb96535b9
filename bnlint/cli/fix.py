"""`bnlint fix`: repairs that lose nothing, to a new file."""

from __future__ import annotations

import sys
from contextlib import contextmanager

from bnlint.cli import complain
from bnlint.cli.parser import Parser
from bnlint.errors import UsageError
from bnlint.fixing import Repairs, open_fix
from bnlint.fixing.new_file import expect_new
from bnlint.fixing.wording import beyond_repair, diff, summary
from bnlint.reports.escaping import visible

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterator, Sequence

    from bnlint.comparing import Reference
    from bnlint.fixing import Fix

_MAPS = (".yaml", ".yml")
_EPILOG = """\
Without any repair named, num_batches_tracked is put in order: --add-counters --cast-counters --drop-orphans.

  bnlint fix model.pth --strip-prefix module -o clean.pth
  bnlint fix model.pth --rename '^layer([0-9])\\.=stage\\1.' --diff
  bnlint fix finetuned.pth --restore-stats --reference pretrained.pth -o restored.pth

Statistics that are damaged or were never collected are not invented: they come from data, and fix says how."""


def main(argv: Sequence[str]) -> int:
    said = _parser().parse_args(argv)
    _expect_sense(said)
    maps = [word for word in said.rename if _is_map(word)]
    if said.output is not None and not said.diff:
        expect_new(said.output, said.force, [said.path, *maps, *([said.reference] if said.reference else [])])
    repairs = Repairs(
        strip_prefix=said.strip_prefix,
        add_prefix=said.add_prefix,
        renames=_renames(said.rename),
        add_counters=said.add_counters,
        cast_counters=said.cast_counters,
        drop_orphans=said.drop_orphans,
        restore_stats=said.restore_stats,
    )
    if said.reference is not None and not (repairs.restore_stats or repairs.add_counters):
        raise UsageError("--reference: serves --restore-stats and --add-counters, and neither is asked for")
    with _reference(said) as reference, open_fix(said.path, repairs, keys=said.key, reference=reference) as fix:
        _complain(fix, said)
        if said.diff:
            _show(fix, said)
        elif not fix:
            _say("nothing to repair: nothing was written")
        else:
            with _ended_politely():
                size = fix.write(said.output, force=said.force)
            _sum_up(fix)
            _say(f"wrote {said.output} ({size / 1e6:.1f} MB); read again, its state dicts are as planned, bit for bit")
        for edit in fix.edits:
            for line in beyond_repair(edit, said.output or said.path):
                _say(line)
    return 0


def _parser() -> Parser:
    parser = Parser("fix", "Repair what can be repaired without loss, and write it to a new file.", _EPILOG)
    parser.add_argument("path", metavar="MODEL", help="a checkpoint: a torch zip archive or safetensors")
    parser.add_argument("-o", "--output", metavar="NEW", help="the file to write, in the same format")
    parser.add_argument("--force", action="store_true", help="replace NEW where it exists")
    parser.add_argument("--diff", action="store_true", help="show what would change, and write nothing")
    parser.add_argument(
        "--key", action="append", default=[], metavar="NAME", help="which state dict in the file; may be repeated"
    )
    parser.add_argument("--strip-prefix", default="", metavar="P", help="take P off the keys that begin with it")
    parser.add_argument("--add-prefix", default="", metavar="P", help="put P before all keys")
    parser.add_argument(
        "--rename",
        action="append",
        default=[],
        metavar="MAP",
        help="REGEX=REPLACEMENT, or a YAML file that maps regular expressions to replacements; may be repeated",
    )
    parser.add_argument(
        "--add-counters", action="store_true", help="add missing num_batches_tracked: as in --reference, else 0"
    )
    parser.add_argument(
        "--cast-counters", action="store_true", help="make num_batches_tracked int64, where it is whole"
    )
    parser.add_argument("--drop-orphans", action="store_true", help="drop num_batches_tracked without statistics")
    parser.add_argument(
        "--restore-stats",
        action="store_true",
        help="give layers whose weights are those of --reference its running statistics too",
    )
    parser.add_argument("--reference", metavar="R", help="a checkpoint; for counters a key contract too")
    return parser


def _expect_sense(said: Namespace) -> None:
    """UsageError for what is missing or does not go together."""
    if said.output is None and not said.diff:
        raise UsageError("fix: -o NEW says where the repaired file goes; --diff only shows what would change")
    if said.restore_stats and said.reference is None:
        raise UsageError("--restore-stats: name the checkpoint that has them with --reference R")


# -- what is asked for --------------------------------------------------------------------------------------


def _is_map(word: str) -> bool:
    return word.lower().endswith(_MAPS)


def _renames(words: Sequence[str]) -> dict[str, str]:
    """The patterns of all `--rename`, in order."""
    renames: dict[str, str] = {}
    for word in words:
        for pattern, replacement in _map(word).items() if _is_map(word) else [_pair(word)]:
            if pattern in renames:
                raise UsageError(f"--rename: {pattern!r} is said twice")
            renames[pattern] = replacement
    return renames


def _pair(word: str) -> tuple[str, str]:
    pattern, equals, replacement = word.rpartition("=")
    if not equals or not pattern:
        raise UsageError(f"--rename: {word} is neither REGEX=REPLACEMENT nor a YAML file")
    return pattern, replacement


def _map(path: str) -> dict[str, str]:
    """A rename map: `'^module\\.': ''` and so on, at the top of the file or under `rename:`."""
    from bnlint.config.file import read

    node = read(path)
    if node is not None and isinstance(node.value, dict) and list(node.value) == ["rename"]:
        node = node.value["rename"]
    if node is None or not isinstance(node.value, dict):
        raise UsageError(f"{path}: a rename map is a mapping of regular expressions to replacements")
    renames: dict[str, str] = {}
    for pattern, replacement in node.value.items():
        if not isinstance(replacement.value, str):
            raise replacement.place.error("a replacement is text; '' takes away what the pattern finds")
        renames[pattern] = replacement.value
    return renames


@contextmanager
def _reference(said: Namespace) -> Iterator[Reference | None]:
    if said.reference is None:
        yield None
        return
    from bnlint.comparing import open_reference

    try:
        reference = open_reference(said.reference)
    except UsageError as problem:
        raise UsageError(f"--reference: {problem}") from None
    with reference:
        if said.restore_stats and reference.kind != "checkpoint":
            raise UsageError(f"--reference: {said.reference} is a {reference.kind}, which holds no statistics")
        yield reference


# -- what is said -------------------------------------------------------------------------------------------


def _show(fix: Fix, said: Namespace) -> None:
    for edit in fix.edits:
        if edit:
            for line in diff(edit, said.path, said.output or "(nothing is written)"):
                _say(line)
    _sum_up(fix)


def _sum_up(fix: Fix) -> None:
    for edit in fix.edits:
        place = f"{edit.state_dict.key}: " if edit.state_dict.key else ""
        _say(f"{place}{summary(edit)}")


def _complain(fix: Fix, said: Namespace) -> None:
    for edit in fix.edits:
        for sentence in edit.left:
            complain(sentence)
    if fix.left_alone and not said.key:
        names = ", ".join(map(repr, fix.left_alone[:4])) + (", ..." if len(fix.left_alone) > 4 else "")
        complain(f"{fix.path}: also holds {names}, left as they are; --key says which to repair")


def _say(line: str) -> None:
    sys.stdout.write(f"{visible(line)}\n")


@contextmanager
def _ended_politely() -> Iterator[None]:
    """Where the process is told to end, have the unfinished file removed first, as after Ctrl-C."""
    import signal

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    try:
        before = signal.signal(signal.SIGTERM, interrupt)
    except ValueError:  # not in the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
