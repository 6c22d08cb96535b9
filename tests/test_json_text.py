"""JSON without importing json: what the standard library reads, and nothing that two readers could read differently."""

import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bnlint import UnreadableFile
from bnlint.readers.json_text import CONTAINER_LIMIT, LIMIT, parse

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inside: st.lists(inside, max_size=4) | st.dictionaries(st.text(max_size=4), inside, max_size=4),
    max_leaves=20,
)


def refused(text: bytes) -> str:
    with pytest.raises(UnreadableFile) as caught:
        parse(text)
    return caught.value.code


@given(VALUES, st.booleans(), st.sampled_from(["", " ", "\n\t\r "]))
def test_values_come_back(value: object, ascii_only: bool, blanks: str) -> None:
    text = blanks + json.dumps(value, ensure_ascii=ascii_only, indent=1 if blanks else None) + blanks
    try:
        encoded = text.encode()
    except UnicodeEncodeError:  # a lone surrogate is no text, unless it is escaped
        return
    assert parse(encoded) == value


@given(st.text(alphabet='{}[]":,0123456789.eE+-truefalsn \n\\u', max_size=12))
def test_texts_are_refused_as_by_the_standard_library(text: str) -> None:
    def strict(pairs: list[tuple[str, object]]) -> dict[str, object]:
        assert len(dict(pairs)) == len(pairs)
        return dict(pairs)

    try:
        expected = json.loads(text, object_pairs_hook=strict)
    except (ValueError, AssertionError):
        refused(text.encode())
    else:
        assert parse(text.encode()) == expected


WRONG = [b"", b" ", b"\xff", b"\xef\xbb\xbf{}", b"NaN", b"-Infinity", b"{}{}", b"{}\0", b'"\1"', b"1" * 5000]


@pytest.mark.parametrize("text", [*WRONG, b'{"a": 1, "a": 1}'], ids=lambda text: repr(text[:12]))
def test_what_is_not_json(text: bytes) -> None:
    assert refused(text) == "json"


def test_a_number_of_too_many_digits_is_told_in_words_of_our_own() -> None:
    with pytest.raises(UnreadableFile) as caught:
        parse(b'{"a": ' + b"1" * 5000 + b"}")
    assert str(caught.value) == "the JSON text is damaged (an integer has more digits than Python reads)"


@pytest.mark.parametrize(
    "text",
    [b"[" * 500_000, b"[" + b"[]," * CONTAINER_LIMIT + b"[]]", b" " * (LIMIT + 1)],
    ids=["too deep", "too many", "too long"],
)
def test_limits(text: bytes) -> None:
    assert refused(text) == "limit"


WITHOUT_THE_SCANNER = """
import builtins
real = builtins.__import__
def without(name, *rest, **named):
    if name == "_json":
        raise ImportError
    return real(name, *rest, **named)
builtins.__import__ = without
from bnlint.errors import UnreadableFile
from bnlint.readers.json_text import parse
assert parse(b'{"a": [1, 2.5, null]}') == {"a": [1, 2.5, None]}
for text in (b'{"a": 1, "a": 2}', b'{"a": NaN}', b'{"a": '):
    try:
        parse(text)
    except UnreadableFile as problem:
        print(problem.code)
"""


def test_an_interpreter_without_a_scanner_in_c() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT_THE_SCANNER], capture_output=True, text=True)
    assert done.stderr == ""
    assert done.stdout.split() == ["json"] * 3
