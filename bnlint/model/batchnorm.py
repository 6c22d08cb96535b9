"""One BatchNorm layer: its five tensors as numbers, and what is known of its settings."""

from __future__ import annotations

from bnlint.finding import Location

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from bnlint.model.module import BatchNormModule
    from bnlint.model.state_dict import StateDict
    from bnlint.model.tensor import Tensor, Vector

VECTORS = ("weight", "bias", "running_mean", "running_var")
COUNTER = "num_batches_tracked"
LEAVES = (*VECTORS, COUNTER)


class BatchNorm:
    """One BatchNorm layer of a state dict.

    Made by the reader, which has read the vectors; nothing here touches a file. A vector is None
    where the state dict has no such key. A group is BatchNorm when `running_mean` or `running_var`
    has rank 1 and `weight`, where there is one, has rank 1 too.
    """

    __slots__ = ("bias", "module", "name", "running_mean", "running_var", "state_dict", "tensors", "tracked", "weight")

    def __init__(
        self,
        name: str,
        tensors: Mapping[str, Tensor],
        vectors: Mapping[str, Vector],
        state_dict: StateDict,
        module: BatchNormModule | None = None,
    ) -> None:
        self.name = name
        self.tensors = tensors
        self.weight = vectors.get("weight")
        self.bias = vectors.get("bias")
        self.running_mean = vectors.get("running_mean")
        self.running_var = vectors.get("running_var")
        self.tracked = vectors.get(COUNTER)
        self.state_dict = state_dict
        self.module = module

    # -- names ------------------------------------------------------------------------------------

    def key(self, leaf: str) -> str:
        """The state dict's key of `leaf`: `key("running_var")` is "layer1.0.bn1.running_var"."""
        return f"{self.name}.{leaf}" if self.name else leaf

    def at(self, *leaves: str) -> Location:
        """This layer as a place, with the tensors a finding is about."""
        return Location((self.name,), [self.key(leaf) for leaf in leaves], self.state_dict.key)

    # -- facts ------------------------------------------------------------------------------------

    @property
    def channels(self) -> int:
        """How many channels the statistics have."""
        vector = self.running_var if self.running_var is not None else self.running_mean
        return len(vector) if vector is not None else 0

    @property
    def vectors(self) -> dict[str, Vector]:
        """The vectors that are there, by leaf name, in the order of torch."""
        named = zip(VECTORS, (self.weight, self.bias, self.running_mean, self.running_var), strict=True)
        return {leaf: vector for leaf, vector in named if vector is not None}

    @property
    def finite(self) -> bool:
        """True where no vector holds NaN or infinity."""
        return all(vector.finite for vector in self.vectors.values())

    @property
    def num_batches_tracked(self) -> int | None:
        """How many batches moved the statistics; None where the file does not say it in a usable way.

        A counter that is missing, negative, fractional, not finite or not a single number is None
        here; `tracked` holds what the file has.
        """
        if self.tracked is None or len(self.tracked) != 1 or not self.tracked.finite:
            return None
        count = self.tracked[0]
        return int(count) if count >= 0 and count == int(count) else None

    @property
    def version(self) -> int | None:
        """The layer's `version` in the state dict's `_metadata`: 2 knows num_batches_tracked, 1 does not."""
        return self.state_dict.versions.get(self.name)

    @property
    def default_stats(self) -> bool:
        """True where running_mean is all 0 and running_var all 1 (or 1 - 1e-5, detectron2's identity)."""
        mean, var = self.running_mean, self.running_var
        return (
            mean is not None
            and var is not None
            and mean.all_equal(0.0)
            and (var.all_equal(1.0) or (var.finite and var.min == var.max and abs(var.min - (1 - 1e-5)) < 1e-7))
        )

    @property
    def trained(self) -> bool:
        """True where bias moved from 0. gamma proves nothing: torch before 1.2 drew it from U(0, 1)."""
        return self.bias is not None and self.bias.finite and self.bias.largest > 0

    # -- settings: what the file says, else what was assumed -----------------------------------------

    @property
    def momentum(self) -> float | None:
        """The weight of the new batch in the running average; None is the cumulative average."""
        if self.module is not None and self.module.momentum_known:
            return self.module.momentum
        return self.state_dict.assumed.momentum

    @property
    def momentum_known(self) -> bool:
        """True where the file or the user says the momentum; False where it was guessed."""
        return (self.module is not None and self.module.momentum_known) or self.state_dict.assumed.momentum_given

    @property
    def eps(self) -> float:
        """What is added to running_var before the root."""
        if self.module is not None and self.module.eps is not None:
            return self.module.eps
        return self.state_dict.assumed.eps
