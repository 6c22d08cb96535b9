"""Lines of words, set to a width, in colour where a person is looking.

A piece is a text and its style. Pieces are never cut: a line that is too long breaks between them.
"""

from __future__ import annotations

import os
import sys

from bnlint.reports.escaping import encodable, no_command

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import TextIO

    Piece = tuple[str, str]

PLAIN = ""
NARROWEST, USUAL = 20, 80


def running(text: str, style: str = PLAIN) -> list[Piece]:
    """Running text, which may break at any space."""
    return [(word, style) for word in text.split(" ")]


class Page:
    """What will be written to a stream, line by line, once it is complete.

    `width` is None where lines do not break: nobody looks at a pipe or a file, but people do grep it.
    """

    def __init__(self, stream: TextIO, color: str = "auto", width: int | None = None) -> None:
        self.stream = stream
        self.color = color
        self.width = _width(stream, width)
        self.lines: list[list[Piece]] = []

    def line(self, *pieces: Piece, indent: int = 0, hanging: int = 0) -> None:
        """Add a line; what does not fit goes on below it, indented by `hanging`."""
        empty = not any(text for text, _ in pieces)
        self.lines += [[]] if empty else _broken(self._encodable(pieces), indent, hanging, self.width)

    def row(self, *pieces: Piece) -> None:
        """Add a row of a table, which does not break."""
        self.lines += _broken(self._encodable(pieces), 0, 0, None)

    def blank(self) -> None:
        """Add an empty line, but neither at the top nor after another."""
        if self.lines and self.lines[-1]:
            self.lines.append([])

    def write(self) -> None:
        """Write it all."""
        lines = [_no_command(line) for line in self.lines]
        styled = any(style for line in lines for _, style in line)
        if styled and in_colour(self.stream, self.color) and _write_in_colour(lines, self.stream, self.color):
            return
        self.stream.write("".join(["".join([text for text, _ in line]) + "\n" for line in lines]))

    def _encodable(self, pieces: Sequence[Piece]) -> Sequence[Piece]:
        return [(encodable(text, self.stream), style) for text, style in pieces]


def _broken(pieces: Sequence[Piece], indent: int, hanging: int, width: int | None) -> Iterator[list[Piece]]:
    """The pieces on one line or more, with the spaces between them; neighbours of one style become one piece."""
    line, column = _begun(indent)
    fresh = True
    for text, style in pieces:
        if not fresh and width is not None and column + 1 + len(text) > width:
            yield line
            line, column = _begun(hanging)
            fresh = True
        column += len(text) + (not fresh)
        if not fresh and line[-1][1] == style:
            line[-1] = (f"{line[-1][0]} {text}", style)
        else:
            line += [(text, style)] if fresh else [(" ", PLAIN), (text, style)]
        fresh = False
    yield line


def _begun(indent: int) -> tuple[list[Piece], int]:
    return ([(" " * indent, PLAIN)] if indent else []), indent


def _no_command(line: list[Piece]) -> list[Piece]:
    whole = "".join([text for text, _ in line])
    return line if no_command(whole) is whole else [(no_command(whole), PLAIN)]


def _width(stream: TextIO, asked: int | None) -> int | None:
    columns = os.environ.get("COLUMNS", "")
    if asked is not None:
        return max(asked, NARROWEST)
    if columns.isascii() and columns.isdigit() and int(columns):
        return max(int(columns), NARROWEST)
    if not stream.isatty():
        return None
    try:
        terminal = os.get_terminal_size(stream.fileno()).columns
    except OSError:
        terminal = 0
    return max(terminal or USUAL, NARROWEST)  # the pseudo-terminal that pre-commit opens has a width of 0


def in_colour(stream: TextIO, color: str) -> bool:
    """True where colour is wanted: "always", or a person looks and no one said otherwise.

    NO_COLOR (no-color.org) goes before FORCE_COLOR and CLICOLOR_FORCE, which speak of what a program
    prints and not of the files it writes; `--color` goes before all.
    """
    said = os.environ.get
    if color != "auto":
        return color == "always"
    if said("NO_COLOR"):
        return False
    return _forced(stream) or (said("TERM") != "dumb" and stream.isatty())


def _forced(stream: TextIO) -> bool:
    asked = any(os.environ.get(name, "0") not in ("", "0") for name in ("FORCE_COLOR", "CLICOLOR_FORCE"))
    return asked and stream in (sys.stdout, sys.stderr)


def _write_in_colour(lines: list[list[Piece]], stream: TextIO, color: str) -> bool:
    """Write with rich; False where it is not installed, since colour is not worth a crash."""
    try:
        from rich.console import Console
        from rich.text import Text
    except ImportError:
        return False
    forced = color == "always" or _forced(stream)
    console = Console(
        file=stream, force_terminal=True, no_color=False, color_system="standard" if forced else "auto", highlight=False
    )
    for line in lines:
        console.print(Text.assemble(*line), soft_wrap=True)
    return True
