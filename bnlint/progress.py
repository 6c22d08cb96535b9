"""A bar on standard error for runs that take over a second."""

from __future__ import annotations

from time import monotonic

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rich.progress import Progress

    from bnlint.run import Outcome

PATIENCE = 1.0  # seconds


def watched(outcomes: Iterable[Outcome], total: int) -> Iterator[Outcome]:
    """Hand on the outcomes as they come; show how many there are once that takes long."""
    started = monotonic()
    progress: Progress | None = None
    try:
        for done, outcome in enumerate(outcomes, start=1):
            if progress is None and done < total and monotonic() - started > PATIENCE:
                progress = _progress()
                progress.add_task("checking", total=total)
            if progress is not None:
                progress.update(progress.task_ids[0], completed=done)
            yield outcome
    finally:
        if progress is not None:
            progress.stop()


def _progress() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    progress = Progress(*columns, console=Console(stderr=True), transient=True)
    progress.start()
    return progress
