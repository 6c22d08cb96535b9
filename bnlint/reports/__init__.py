"""Findings to text: one file per format. A report decides nothing, it only says what a run found."""

from __future__ import annotations

from bnlint.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TextIO

    from bnlint.report import Report

FORMATS = (
    "text",
    "json",
    "json-lines",
    "sarif",
    "github",
    "gitlab",
    "junit",
    "rdjson",
    "checkstyle",
    "markdown",
)


class Display:
    """How a report is shown; each format takes what means something to it.

    `verbose` unfolds what the text folds and lists suppressed and baselined findings, in every format
    that can; `quiet` leaves out of the text all but errors and warnings. `color` is "auto", "always" or
    "never"; `width` a number of columns, None for that of the terminal. `statistics` and `show_files`
    add their tables to the text.
    """

    __slots__ = ("color", "quiet", "show_files", "statistics", "verbose", "width")

    def __init__(
        self,
        *,
        verbose: bool = False,
        quiet: bool = False,
        color: str = "auto",
        width: int | None = None,
        statistics: bool = False,
        show_files: bool = False,
    ) -> None:
        self.verbose = verbose
        self.quiet = quiet
        self.color = color
        self.width = width
        self.statistics = statistics
        self.show_files = show_files


def write(
    report: Report,
    format: str,
    stream: TextIO,
    *,
    verbose: bool = False,
    quiet: bool = False,
    color: str = "auto",
    width: int | None = None,
    statistics: bool = False,
    show_files: bool = False,
) -> None:
    """Write a report in one of FORMATS; the options are those of Display. UsageError for any other format."""
    if format not in FORMATS:
        raise UsageError(f"there is no report format {format!r}; there are {', '.join(FORMATS)}")
    display = Display(
        verbose=verbose, quiet=quiet, color=color, width=width, statistics=statistics, show_files=show_files
    )
    room = __import__(f"bnlint.reports.{format.replace('-', '_')}", fromlist=["write"])
    room.write(report, stream, display)
