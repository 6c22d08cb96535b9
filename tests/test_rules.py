"""One test per example of every rule."""

import pytest

from bnlint.testing import Example, check, examples


@pytest.mark.parametrize("example", examples(), ids=str)
def test_example(example: Example) -> None:
    check(example)
