"""`python -m bnlint`, and the command `bnlint`."""

from __future__ import annotations

import os
import sys

from bnlint.cli import main

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn


def run() -> NoReturn:
    """Run the command line and leave at once: taking the interpreter down properly costs several milliseconds."""
    code = main(sys.argv[1:])
    os._exit(code if _flushed() else 2)


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
