"""A model that the user's own code builds, as its keys: in a process of its own, under a time limit.

This runs code, and only code that the command line names or, with --allow-code, the configuration. torch is
imported over there and never here; the model is built on torch's meta device, where a tensor has a shape and
no numbers.
"""

from __future__ import annotations

import os
import sys

from bnlint.errors import UnreadableFile, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from subprocess import Popen

    from bnlint.model.state_dict import StateDict

SECONDS = 60.0  # importing torch and a large model library takes ten of them
KEYS, PROBLEM = "model.keys.yaml", "problem"  # what the other process leaves: a key contract, or one line
# The other process takes this very bnlint, and nothing from the working directory before the user's code.
_PROGRAM = (
    "import sys; sys.path[:] = [sys.argv[1], *filter(None, sys.path)]; import bnlint; del sys.path[0]; "
    "from bnlint.factory_process import run; run(sys.argv[2], sys.argv[3])"
)


def build(factory: str, seconds: float | None = None) -> StateDict:
    """The keys, shapes and dtypes of the model that `factory` ("package.module:function") returns, without numbers.

    The function is called without arguments, with the working directory on the module search path; a class
    will do, and so will a module that is built already. What the code prints is dropped (BNLINT_DEBUG=1 shows
    it on standard error). UsageError, of one line, where it raises, exits, returns something else, or takes
    longer than `seconds` (60 where none are given).
    """
    from tempfile import TemporaryDirectory

    expect_name(factory)
    seconds = SECONDS if seconds is None else seconds
    if not seconds > 0:
        raise UsageError(f"a time limit is more than 0 seconds, not {seconds:g}")
    with TemporaryDirectory(prefix="bnlint-", ignore_cleanup_errors=True) as folder:
        code = _run(factory, folder, seconds)
        problem = os.path.join(folder, PROBLEM)
        if os.path.exists(problem):
            with open(problem, encoding="utf-8") as file:
                raise UsageError(f"{factory} {file.read()}")
        return _read(factory, os.path.join(folder, KEYS), code)


def expect_name(factory: str) -> None:
    """UsageError where `factory` cannot be the name of a function in a module."""
    module, colon, function = factory.partition(":")
    if not (colon and all(word.isidentifier() for name in (module, function) for word in name.split("."))):
        raise UsageError(f"{factory} is not MODULE:FUNCTION, such as package.models:resnet")


def _read(factory: str, path: str, code: int) -> StateDict:
    from bnlint.readers.contract import load_contract

    if code or not os.path.exists(path):
        how = f"was ended by signal {-code}" if code < 0 else f"ended its process with exit code {code}"
        raise UsageError(f"{factory} {how} and built no model")
    try:
        return load_contract(path)
    except UnreadableFile as problem:
        raise UsageError(f"{factory}: the model cannot be compared: {problem}") from None


def _run(factory: str, folder: str, seconds: float) -> int:
    """Let the other process build the model; its exit code."""
    from subprocess import DEVNULL, Popen, TimeoutExpired

    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    shown = sys.stderr.fileno() if os.environ.get("BNLINT_DEBUG") else DEVNULL
    process = Popen(
        [sys.executable, "-c", _PROGRAM, root, factory, folder],
        stdin=DEVNULL,
        stdout=shown,
        stderr=shown,
        start_new_session=True,
    )
    try:
        return process.wait(seconds)
    except TimeoutExpired:
        raise UsageError(f"{factory} had built no model after {seconds:g} seconds and was stopped") from None
    finally:
        if process.returncode is None:
            _end(process)


def _end(process: Popen[bytes]) -> None:
    """End the process, and with it whatever it started."""
    if hasattr(os, "killpg"):
        from signal import SIGKILL

        os.killpg(process.pid, SIGKILL)
    else:
        process.kill()
    process.wait()
