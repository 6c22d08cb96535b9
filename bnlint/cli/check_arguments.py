"""The arguments of `bnlint check`."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from bnlint.cli.parser import Parser


class Arguments:
    """What the command line says. These are the defaults, for argparse too."""

    def __init__(self) -> None:
        self.paths: Sequence[str] = ()
        self.files_from: str | None = None
        self.config: str | None = None
        self.isolated = False
        self.preset: str | None = None
        self.select: list[str] = []
        self.ignore: list[str] = []
        self.severity: list[str] = []
        self.key: str | None = None
        self.reference: str | None = None
        self.model: str | None = None
        self.model_timeout: float | None = None
        self.shallow = False
        self.momentum: float | None = None
        self.eps: float | None = None
        self.deep = False
        self.preview = False
        self.allow_code = False
        self.output: list[str] = []
        self.force = False
        self.fail_on: str | None = None
        self.max_warnings: int | None = None
        self.min_severity: str | None = None
        self.baseline: str | None = None
        self.write_baseline: str | None = None
        self.prune_baseline = False
        self.force_exclude = False
        self.allow_empty = False
        self.statistics = False
        self.show_files = False
        self.quiet = False
        self.verbose = False
        self.color = "auto"
        self.jobs: int | None = None


def arguments(argv: Sequence[str]) -> Arguments:
    """The arguments of one call."""
    return common(argv) or parsed(argv)


def common(argv: Sequence[str]) -> Arguments | None:
    """The arguments of a common call, None for any other: argparse costs as much as reading a checkpoint.

    Paths, `--config FILE`, `--output FORMAT`, `--reference FILE` and `--shallow`, and what hooks say; a test
    holds that argparse agrees.
    """
    said = Arguments()
    paths: list[str] = []
    words = iter(argv)
    for word in words:
        if word in ("--config", "--output", "--reference"):
            value = next(words, "-")
            if value.startswith("-"):
                return None
            if word == "--config":
                said.config = value
            elif word == "--reference":
                said.reference = value
            else:
                said.output.append(value)
        elif word == "--force-exclude":
            said.force_exclude = True
        elif word == "--shallow":
            said.shallow = True
        elif word.startswith("-"):
            return None
        else:
            paths.append(word)
    said.paths = paths
    return said


def parsed(argv: Sequence[str]) -> Arguments:
    """The arguments of any call, by argparse."""
    return _parser().parse_intermixed_args(argv, Arguments())


EPILOG = """\
Exit code: 0 nothing at or over the gate; 1 findings at or over it; 2 something could
not be done: usage, configuration, a crashed rule, a path that does not exist, a folder
that holds nothing to check.
"""


def _parser() -> Parser:
    from bnlint.cli.parser import Parser

    parser = Parser("check", "Lint checkpoints. Nothing in them is run, and torch is not needed.", EPILOG)
    add = parser.add_argument
    add("paths", nargs="*", metavar="PATH", help="a checkpoint, a folder, or a pattern such as 'runs/**/*.ckpt'")

    add = parser.add_argument_group("what to look at").add_argument
    add(
        "--files-from",
        metavar="FILE",
        help="more paths from FILE (- is standard input), one a line or NUL between",
    )
    add("--key", metavar="NAME", help="the state dict in the file to read first, such as ema or state_dict")
    add("--deep", action="store_true", help="also read every weight, not only BatchNorm")
    add("--force-exclude", action="store_true", help="exclude patterns also hold for files named here (for hooks)")
    add("--allow-empty", action="store_true", help="a folder or pattern that holds nothing to check is fine")
    add("--momentum", type=float, metavar="X", help="the momentum of the layers, where a state dict cannot say it")
    add("--eps", type=float, metavar="X", help="the eps of the layers, where a state dict cannot say it")

    add = parser.add_argument_group("what to compare it with").add_argument
    add(
        "--reference",
        metavar="FILE",
        help="also compare each checkpoint with FILE, which came before: an older checkpoint, the pretrained one,"
        " or a key contract",
    )
    add(
        "--model",
        metavar="MODULE:FUNCTION",
        help="also compare each checkpoint with the model that your function builds, such as package.models:resnet."
        " This runs your code, in a process of its own, and needs torch",
    )
    add("--model-timeout", type=float, metavar="SECONDS", help="how long that may take (60)")
    add(
        "--shallow",
        action="store_true",
        help="compare keys and BatchNorm only; without it, every weight of both is read",
    )

    add = parser.add_argument_group("rules").add_argument
    add("--config", metavar="FILE", help="use this configuration instead of the one found from here")
    add("--isolated", action="store_true", help="use no configuration file")
    add("--preset", metavar="NAME", help="start from recommended, strict or quiet, whatever the configuration extends")
    add("--select", action="append", metavar="RULES", help="run these rules only (comma-separated, repeatable)")
    add("--ignore", action="append", metavar="RULES", help="do not run these rules (comma-separated, repeatable)")
    add(
        "--severity",
        action="append",
        metavar="RULE=LEVEL",
        help="what a rule's findings are: off, info, warning or error (repeatable)",
    )
    add("--min-severity", metavar="LEVEL", help="leave out what is less than info (default), warning or error")
    add("--preview", action="store_true", help="also run rules that are not settled yet")
    add("--allow-code", action="store_true", help="run the Python that the configuration names as rules-folder")

    add = parser.add_argument_group("when to fail").add_argument
    add("--fail-on", metavar="LEVEL", help="exit with 1 from this severity on: error (default), warning, info, never")
    add("--max-warnings", type=int, metavar="N", help="exit with 1 where there are more than N warnings")
    add("--baseline", metavar="FILE", help="do not report the findings that FILE knows")
    add("--write-baseline", metavar="FILE", help="write every finding of this run to FILE, as known from now on")
    add("--prune-baseline", action="store_true", help="remove from the baseline what is not found any more")

    add = parser.add_argument_group("how to report").add_argument
    add(
        "--output",
        action="append",
        metavar="FORMAT[=PATH]",
        help="text (default), json, json-lines, sarif, github, gitlab, junit, rdjson, checkstyle or markdown,"
        " to standard output or to PATH (repeatable)",
    )
    add("--force", action="store_true", help="replace output files that exist")
    add("--statistics", action="store_true", help="add a table: how often each rule spoke")
    add("--show-files", action="store_true", help="add a table: what each file is")
    add("-q", "--quiet", action="store_true", help="errors and warnings only")
    add("-v", "--verbose", action="store_true", help="unfold what is folded, and list what is suppressed or baselined")
    add("--color", choices=("auto", "always", "never"), help="colour the text; auto heeds NO_COLOR and FORCE_COLOR")
    add("-j", "--jobs", type=int, metavar="N", help="processes to use; as many as pay where it is left out")
    return parser
