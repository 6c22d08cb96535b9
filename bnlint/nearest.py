"""The name that was probably meant."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


def nearest(name: str, names: Iterable[str]) -> str | None:
    """The one of `names` that is most like `name`; None where none is like it."""
    from difflib import get_close_matches

    return next(iter(get_close_matches(name.lower().replace("_", "-"), list(names), 1)), None)


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """The end of an error message: "; did you mean dead-channels?", or nothing."""
    meant = nearest(name, names)
    return f"; did you mean {meant}?" if meant else ""
