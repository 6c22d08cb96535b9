"""The process in which the user's code builds a model; bnlint.factory starts it and reads what it leaves."""

from __future__ import annotations

import os
import sys

from bnlint.factory import KEYS, PROBLEM

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

LONGEST = 400  # characters of what an exception says


def run(factory: str, folder: str) -> NoReturn:
    """Build the model and leave its key contract in `folder`, or one line that says why there is none.

    Threads that the code started and exit handlers that it registered are not waited for.
    """
    try:
        _build(factory, os.path.join(folder, KEYS))
    except BaseException as error:  # SystemExit and KeyboardInterrupt too: the code is not ours
        with open(os.path.join(folder, PROBLEM), "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(_in_words(error))
    os._exit(0)


def _build(factory: str, path: str) -> None:
    from importlib.util import find_spec

    if find_spec("torch") is None:
        raise CannotBuild("needs torch to be built: pip install 'bnlint[torch]'")
    from bnlint.readers.contract import write_contract
    from bnlint.torch.building import built, keys_of

    sys.path.insert(0, os.getcwd())
    state_dict = keys_of(built(factory))
    with open(path, "w", encoding="utf-8") as stream:
        write_contract(state_dict, stream)


class CannotBuild(Exception):
    """There is no model to compare with, and nobody raised: what to say about the factory."""


def _in_words(error: BaseException) -> str:
    if isinstance(error, CannotBuild):
        return str(error)
    if isinstance(error, SystemExit):
        return f"called sys.exit({error.code!r:.{LONGEST}}){_place(error)}"
    told = next(iter(str(error).strip().splitlines()), "")[:LONGEST]
    return f"raised {type(error).__name__}{f': {told}' if told else ''}{_place(error)}"


def _place(error: BaseException) -> str:
    """Where in the user's code it was raised: the last place that is neither bnlint's nor an installed package's."""
    from traceback import extract_tb

    own = os.path.dirname(os.path.abspath(__file__))
    for frame in reversed(extract_tb(error.__traceback__)):
        path = os.path.abspath(frame.filename)
        outside = not frame.filename.startswith("<") and not path.startswith((own, sys.prefix, sys.base_prefix))
        if outside:
            return f" ({os.path.relpath(path)}:{frame.lineno})"
    return ""
