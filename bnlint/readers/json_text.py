"""JSON out of a file that may be hostile: strict, and without the import of `json`.

`import json` costs 5 ms, half of Python's own start, most of it for `re`. The scanner in C that it wraps
is all a header needs. Where there is none, and to word an error, `json` is imported after all.
"""

from __future__ import annotations

from bnlint.errors import UnreadableFile

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

LIMIT = 32 << 20  # bytes: the header of a model of 100 000 tensors has some ten million
CONTAINER_LIMIT = 1_000_000  # an object of two bytes takes sixty in memory
_BLANKS = " \t\n\r"


def parse(text: bytes) -> object:
    """The value of a JSON text in UTF-8.

    UnreadableFile `json` for anything else and where a key comes twice, `limit` where it is over a limit.
    """
    if len(text) > LIMIT:
        raise UnreadableFile("limit", f"a JSON text of {len(text)} bytes is over the limit of {LIMIT}")
    if text.count(b"[") + text.count(b"{") > CONTAINER_LIMIT:
        raise UnreadableFile("limit", f"the JSON text holds more than {CONTAINER_LIMIT} objects and arrays")
    try:
        decoded = text.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UnreadableFile("json", f"the JSON text is no UTF-8 at byte {error.start}") from None
    try:
        value, end = _scan(decoded, len(decoded) - len(decoded.lstrip(_BLANKS)))
    except RecursionError:
        raise UnreadableFile("limit", "the JSON text is nested too deeply") from None
    except (ValueError, StopIteration, SystemError):  # without `json`, the scanner has no error to raise
        raise UnreadableFile("json", f"the JSON text is damaged{_explained(decoded)}") from None
    if decoded[end:].strip(_BLANKS):
        raise UnreadableFile("json", "the JSON text goes on after its end")
    return value


class _NotStrict(ValueError):
    """JSON as Python takes it and the standard does not."""


class _Strictness:
    """What the scanner asks for: the settings of a `json.JSONDecoder`."""

    strict = True
    object_hook = None
    parse_float = float
    parse_int = int

    @staticmethod
    def object_pairs_hook(pairs: list[tuple[str, object]]) -> dict[str, object]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise _NotStrict("a key comes twice")
        return found

    @staticmethod
    def parse_constant(name: str) -> object:
        raise _NotStrict(f"{name} is no JSON")


def _scanner() -> Callable[[str, int], tuple[object, int]]:
    try:
        from _json import make_scanner
    except ImportError:
        from json import JSONDecoder

        hook, constant = _Strictness.object_pairs_hook, _Strictness.parse_constant
        return JSONDecoder(object_pairs_hook=hook, parse_constant=constant).scan_once  # type: ignore
    return make_scanner(_Strictness)  # type: ignore


_scan = _scanner()


def _explained(text: str) -> str:
    """What `json` says is wrong."""
    from json import JSONDecodeError, loads

    try:
        loads(text, object_pairs_hook=_Strictness.object_pairs_hook, parse_constant=_Strictness.parse_constant)
    except JSONDecodeError as error:
        return f" ({error})"
    except _NotStrict as error:
        return f" ({error})"
    except ValueError:  # Python's limit: int() of ever more digits takes ever more time
        return " (an integer has more digits than Python reads)"
    return ""
