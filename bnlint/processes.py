"""Files on several processors: outcomes come back in the order of the files."""

from __future__ import annotations

import os
import sys

from bnlint.errors import BnlintError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from multiprocessing.context import BaseContext

    from bnlint.config import Config
    from bnlint.discovery import Target
    from bnlint.run import Outcome

PAYS_FROM = 32  # files: starting the processes costs as much as looking at about ten of them
CHUNK = 8  # files that a process takes at a time

_config: Config | None = None  # of a worker process


def worthwhile(files: int) -> int:
    """How many processes pay for so many files."""
    return min(_processors(), files // (PAYS_FROM // 2)) if files >= PAYS_FROM else 1


def _processors() -> int:
    """The processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def outcomes_of(targets: Sequence[Target], config: Config, jobs: int) -> Iterator[Outcome]:
    """What came of each file, from `jobs` processes."""
    from concurrent.futures import ProcessPoolExecutor
    from concurrent.futures.process import BrokenProcessPool

    import bnlint.readers.opening  # noqa: F401  # loaded once here and not once in every process

    config.rulebook.ruleset(("file", "checkpoint"))
    chunk = max(1, min(CHUNK, len(targets) // (2 * jobs)))
    try:
        with ProcessPoolExecutor(jobs, mp_context=_context(), initializer=_begin, initargs=(config,)) as pool:
            yield from pool.map(_look_at, targets, chunksize=chunk)
    except BrokenProcessPool:
        raise BnlintError("a process ended before its work was done (no memory left?); try -j 1") from None


def _context() -> BaseContext | None:
    """Fork where that is safe, which takes 5 ms a process and not 100; elsewhere what the platform does."""
    from multiprocessing import get_context
    from threading import active_count

    safe = sys.platform == "linux" and active_count() == 1 and "torch" not in sys.modules
    return get_context("fork") if safe else None


def _begin(config: Config) -> None:
    """Set up a worker. An interrupt is the parent's to handle: it tells the workers."""
    global _config
    from signal import SIG_IGN, SIGINT, signal

    signal(SIGINT, SIG_IGN)
    _config = config


def _look_at(target: Target) -> Outcome:
    from bnlint.run import look_at

    assert _config is not None  # _begin ran
    return look_at(target, _config)
