"""Equality of a layer's numbers bit for bit, also where a key contract holds only digests of them."""

from __future__ import annotations

from bnlint.model.batchnorm import BatchNorm

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bnlint.model.state_dict import StateDict
    from bnlint.model.tensor import Tensor, Vector

DIGITS = 16  # hexadecimal: a chance of one in 1e19 that two layers look the same


class PromisedBatchNorm(BatchNorm):
    """A BatchNorm layer of a key contract or of a model without data: what it is, without its numbers.

    `digests` maps the names of tensors, such as "running_mean running_var", to the digest of their numbers.
    `counted` is its num_batches_tracked, `promised_eps` its eps, where these are known.
    """

    __slots__ = ("counted", "digests", "promised_eps")

    def __init__(
        self,
        name: str,
        tensors: Mapping[str, Tensor],
        state_dict: StateDict,
        *,
        digests: Mapping[str, str] | None = None,
        counted: int | None = None,
        eps: float | None = None,
    ) -> None:
        super().__init__(name, tensors, {}, state_dict)
        self.digests: Mapping[str, str] = digests or {}
        self.counted = counted
        self.promised_eps = eps

    @property
    def num_batches_tracked(self) -> int | None:
        return self.counted


def same_numbers(before: BatchNorm, after: BatchNorm, leaves: Sequence[str]) -> bool:
    """True where these vectors of two layers are equal bit for bit, or both layers lack them."""
    if isinstance(before, PromisedBatchNorm):
        return before.digests.get(" ".join(leaves)) == digest(after, leaves)
    return all(_bits(before.vectors.get(leaf)) == _bits(after.vectors.get(leaf)) for leaf in leaves)


def digest(layer: BatchNorm, leaves: Sequence[str]) -> str | None:
    """Hexadecimal digits that stand for the numbers of these vectors; None where the layer has none of them."""
    from hashlib import sha256

    vectors = [layer.vectors.get(leaf) for leaf in leaves]
    if not any(vector is not None for vector in vectors):
        return None
    hashed = sha256()
    for leaf, vector in zip(leaves, vectors, strict=True):
        if vector is not None:
            hashed.update(f"{leaf} {vector.dtype} {len(vector)}\n".encode())
            hashed.update(_little_endian(vector))
    return hashed.hexdigest()[:DIGITS]


def _bits(vector: Vector | None) -> bytes | None:
    return None if vector is None else bytes(vector.dtype, "ascii") + vector.tobytes()


def _little_endian(vector: Vector) -> bytes:
    from sys import byteorder

    if byteorder == "little":
        return vector.tobytes()
    swapped = vector[:]
    swapped.byteswap()
    return swapped.tobytes()
