"""One BatchNorm layer: its five tensors as numbers, and what is known of its settings."""

from __future__ import annotations

from math import sqrt

from bnlint.finding import Location
from bnlint.model.state_dict import TRANSPORT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bnlint.model.module import BatchNormModule
    from bnlint.model.state_dict import StateDict
    from bnlint.model.tensor import Tensor, Vector

VECTORS = ("weight", "bias", "running_mean", "running_var")
COUNTER = "num_batches_tracked"
LEAVES = (*VECTORS, COUNTER)

# Attributes under which training code holds a whole model.
HOLDERS = ("model", "ema", "ema_model", "model_ema", "averaged_model", "net", "network")

USUAL_MOMENTA = (0.1, 0.01, 0.03, 0.001, 0.2, 0.05, 0.003, 0.0003)
HALF_FIXED_POINT = 4 * 2.0**-24  # where rounding stops a float16 that loses a tenth per batch


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

    @property
    def bare_name(self) -> str:
        """Its name without what wraps a whole model: "ema.module.layer1.0.bn1" is "layer1.0.bn1"."""
        parts = [part for part in self.name.split(".") if part not in TRANSPORT]
        while len(parts) > 1 and parts[0] in HOLDERS:
            del parts[0]
        return ".".join(parts)

    def in_words(self, channels: Sequence[int]) -> str:
        """Some of its channels as a message has them: "3 of 64 channels (7, 12, 40)", "all 64 channels"."""
        if len(channels) == self.channels:
            return f"all {self.channels} channels" if self.channels > 1 else "its only channel"
        if len(channels) == 1:
            return f"1 of {self.channels} channels (channel {channels[0]})"
        first = ", ".join(map(str, channels[:4])) + (", ..." if len(channels) > 4 else "")
        return f"{len(channels)} of {self.channels} channels ({first})"

    # -- facts ------------------------------------------------------------------------------------

    @property
    def channels(self) -> int:
        """How many channels the statistics have."""
        vector = self.running_var if self.running_var is not None else self.running_mean
        return len(vector) if vector is not None else 0

    @property
    def stats_dtype(self) -> str:
        """The dtype of the statistics in the file, "float32" or "bfloat16"; "" where there are none."""
        vector = self.running_var if self.running_var is not None else self.running_mean
        return vector.dtype if vector is not None else ""

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
            and (var.all_equal(1.0) or self.detectron2_identity)
        )

    @property
    def detectron2_identity(self) -> bool:
        """True where running_var is all 1 - 1e-5: how detectron2's FrozenBatchNorm2d is made when it does nothing."""
        var = self.running_var
        return var is not None and len(var) > 0 and abs(var[0] - (1 - 1e-5)) < 1e-7 and var.all_equal(var[0])

    @property
    def real_stats(self) -> bool:
        """True where both statistics are there, finite, and not those of a new layer."""
        mean, var = self.running_mean, self.running_var
        return mean is not None and var is not None and mean.finite and var.finite and not self.default_stats

    @property
    def trained(self) -> bool:
        """True where bias moved from 0. gamma proves nothing: torch before 1.2 drew it from U(0, 1)."""
        return self.bias is not None and self.bias.finite and any(self.bias)

    @property
    def untouched(self) -> bool:
        """True where weight and bias may still be as some torch initialised them: 1 or U(0, 1), and 0."""
        if self.trained:
            return False
        weight = self.weight
        return not weight or weight.all_equal(weight[0]) or (weight.min >= 0 and weight.max <= 1)

    def gains(self) -> list[float]:
        """What eval mode multiplies each channel's input with: |weight| / sqrt(running_var + eps)."""
        var = self.running_var or ()
        weight = self.weight or [1.0] * len(var)
        return [abs(gamma) / sqrt(max(value, 0.0) + self.eps) for gamma, value in zip(weight, var, strict=False)]

    def dead_channels(self, at_most: float = 1e-10) -> list[int]:
        """The channels whose input was constant in training, as far as running_var shows it.

        `at_most` and below (and far below the other channels of the layer); or, after some batches,
        what is left of the first 1 when nothing is added to it: at least two channels with exactly
        (1 - momentum) ** num_batches_tracked. float16 cannot hold such values: there, only the fixed
        point of the decay counts.
        """
        var = self.running_var
        if not var or not var.finite:
            return []
        if var.dtype == "float16":
            return var.where([value == HALF_FIXED_POINT for value in var])
        if var.min > at_most:
            return self._decayed_channels(var)
        typical = var.median
        far_below = 1e-3 * typical if typical > at_most else at_most
        return var.where([0 <= value <= at_most and (value == 0 or value <= far_below) for value in var])

    def _decayed_channels(self, var: Vector) -> list[int]:
        batches = self.num_batches_tracked
        if batches is None or batches < 20 or var.dtype not in ("float32", "float64"):
            return []
        momenta = USUAL_MOMENTA if self.momentum is None else (self.momentum, *USUAL_MOMENTA)
        left = [(1 - momentum) ** batches for momentum in momenta]
        if not any(abs(var.min - decayed) < 1e-3 * decayed for decayed in left):
            return []
        lowest = var.where([value == var.min for value in var])
        return lowest if len(lowest) > 1 else []

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
    def eps_known(self) -> bool:
        """True where the file or the user says eps; False where it was guessed."""
        return (self.module is not None and self.module.eps is not None) or self.state_dict.assumed.eps_given

    @property
    def eps(self) -> float:
        """What is added to running_var before the root."""
        if self.module is not None and self.module.eps is not None:
            return self.module.eps
        return self.state_dict.assumed.eps

    def assumptions(self, *settings: str) -> dict[str, float]:
        """Of "momentum" and "eps", those that nothing says, with what was assumed: for a finding's evidence."""
        assumed: dict[str, float] = {}
        if "momentum" in settings and not self.momentum_known and self.momentum is not None:
            assumed["assumed_momentum"] = self.momentum
        if "eps" in settings and not self.eps_known:
            assumed["assumed_eps"] = self.eps
        return assumed
