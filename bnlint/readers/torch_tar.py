"""torch's container before 0.1.10: a tar of three members."""

from __future__ import annotations

from bnlint.readers.values import Loaded

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bnlint.readers.source import ByteSource


def load(source: ByteSource) -> Loaded:
    """The object in the file. UnreadableFile where the bytes are not what they say they are."""
    raise NotImplementedError
