"""Numbers as a line of small bars."""

from __future__ import annotations

from math import isfinite

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import TextIO

BARS = "▁▂▃▄▅▆▇█"
PLAIN_BARS = "_.-:=+*@"
UNKNOWN = "?"


def sparkline(values: Iterable[float | None], top: float, stream: TextIO) -> str:
    """A bar per number, from 0 to `top`; only 0 has the lowest, what is not finite is "?", None a space.

    In characters that `stream` can write.
    """
    bars = _bars(stream)
    return "".join([" " if value is None else _bar(value, top, bars) for value in values])


def _bar(value: float, top: float, bars: str) -> str:
    if not isfinite(value):
        return UNKNOWN
    if value <= 0 or not top > 0:
        return bars[0]
    highest = len(bars) - 1
    return bars[min(highest, 1 + int(value / top * highest))]


def _bars(stream: TextIO) -> str:
    try:
        BARS.encode(getattr(stream, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return PLAIN_BARS
    return BARS
