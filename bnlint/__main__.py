"""`python -m bnlint`, and the command `bnlint`."""

from __future__ import annotations

import os
import sys
from io import TextIOWrapper

from bnlint.cli import main

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn


def run() -> NoReturn:
    """Run the command line and leave at once: taking the interpreter down properly costs several milliseconds."""
    _prepare_streams()
    code = main(sys.argv[1:])
    os._exit(code if _flushed() else 2)


def _prepare_streams() -> None:
    """Have somewhere to write, and a way to write any name, whatever the terminal can show."""
    if sys.stdout is None:  # closed by who called us
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _flushed() -> bool:
    """True where all that was written has gone out, or nobody is there any more who would read it."""
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except BrokenPipeError:
        return True
    except OSError as error:
        os.write(2, f"bnlint: standard output: {error.strerror}\n".encode())
        return False
    return True


if __name__ == "__main__":
    run()
