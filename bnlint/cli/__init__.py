"""The command line: one file per command, arguments in, exit code out."""

from __future__ import annotations

import sys

from bnlint.errors import BnlintError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

COMMANDS = {
    "check": "lint checkpoints: files, folders and patterns",
    "compare": "show what became of one checkpoint in another, or over a series",
    "keys": "write the key contract of a checkpoint, to commit and check against",
    "fix": "repair what can be repaired without loss, to a new file",
    "rules": "list the rules",
    "explain": "say what a rule finds, why it hurts, and what to do",
    "init": "write a commented .bnlint.yaml",
    "config": "show the settings in force and where each comes from",
    "schema": "print the JSON Schema of the configuration or of the report",
}
EXIT_TROUBLE, EXIT_INTERRUPTED = 2, 130


def main(argv: Sequence[str]) -> int:
    """Run one command and return its exit code. A traceback never reaches the user."""
    try:
        return _command(list(argv))
    except BnlintError as error:
        complain(str(error))
        return EXIT_TROUBLE
    except SystemExit as leaving:  # argparse, after --help
        return leaving.code if isinstance(leaving.code, int) else EXIT_TROUBLE
    except KeyboardInterrupt:
        complain("interrupted")
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        from bnlint.outputs import leave_standard_output

        leave_standard_output()
        return 0
    except Exception as error:
        from os import environ

        if environ.get("BNLINT_DEBUG"):
            raise
        from bnlint.run import internal_error

        complain(str(error.strerror or error) if isinstance(error, OSError) else internal_error(error))
        return EXIT_TROUBLE


def complain(sentence: str) -> None:
    """One line on standard error. Paths and names in it are the world's text, so it is made visible."""
    from bnlint.reports.escaping import visible

    print(f"bnlint: {visible(sentence)}", file=sys.stderr)  # noqa: T201


def _command(argv: list[str]) -> int:
    name = argv[0] if argv else "--help"
    if name in COMMANDS:
        command = __import__(f"bnlint.cli.{name}", fromlist=["main"])
        return int(command.main(argv[1:]))
    if name in ("--version", "-V"):
        return _say(_version())
    if name in ("--help", "-h", "help"):
        return _say(_help())
    from os.path import exists

    from bnlint.errors import UsageError
    from bnlint.nearest import did_you_mean

    hint = f"; did you mean `bnlint check {name}`?" if exists(name) else did_you_mean(name, COMMANDS)
    raise UsageError(f"there is no command {name}; commands are {', '.join(COMMANDS)}{hint}")


def _say(text: str) -> int:
    sys.stdout.write(f"{text}\n")
    return 0


def _version() -> str:
    from bnlint import __version__

    return f"bnlint {__version__}"


def _help() -> str:
    width = max(map(len, COMMANDS))
    return "\n".join(
        [
            "bnlint: the static linter for BatchNorm in PyTorch",
            "",
            "usage: bnlint COMMAND ...",
            "",
            *(f"  {name:<{width}}  {what}" for name, what in COMMANDS.items()),
            "",
            "`bnlint check model.pth` is where to start; `bnlint COMMAND --help` says more.",
            "Exit code: 0 nothing at or over the gate, 1 findings, 2 it could not be done.",
        ]
    )
