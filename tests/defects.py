"""One defect each, as it happens to a state dict, and how bnlint must speak of it (issue and RULES.md)."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from copy import deepcopy
from dataclasses import dataclass
from random import Random

import torch
from torch import Tensor

StateDict = MutableMapping[str, Tensor]
DEAD = 5.605193857299268e-45  # where the decay of the initial variance gets stuck in float32


@dataclass(frozen=True)
class Defect:
    """`plant(state_dict, layer, random)` changes one layer; `applies` says where that makes sense."""

    name: str
    severity: str
    rule: str
    plant: Callable[[StateDict, str, Random], None]
    applies: Callable[[StateDict, str], bool]
    whole_file: bool = False

    def __str__(self) -> str:
        return self.name


DEFECTS: list[Defect] = []


def layers(state_dict: StateDict) -> list[str]:
    """Every BatchNorm layer that has both statistics."""
    return [
        key.removesuffix("running_mean").rstrip(".")
        for key, tensor in state_dict.items()
        if isinstance(key, str)
        and key.rpartition(".")[2] == "running_mean"
        and tensor.ndim == 1
        and key.removesuffix("running_mean") + "running_var" in state_dict
    ]


def key(layer: str, leaf: str) -> str:
    return f"{layer}.{leaf}" if layer else leaf


def counted(state_dict: StateDict, layer: str) -> bool:
    counter = state_dict.get(key(layer, "num_batches_tracked"))
    return counter is not None and counter.numel() == 1 and counter.item() > 0


def everywhere(state_dict: StateDict, layer: str) -> bool:
    return True


def affine(state_dict: StateDict, layer: str) -> bool:
    return key(layer, "weight") in state_dict and key(layer, "bias") in state_dict


def trained(state_dict: StateDict, layer: str) -> bool:
    """Something beside the statistics shows that the layer was trained."""
    bias = state_dict.get(key(layer, "bias"))
    return len(layers(state_dict)) > 2 and (bias is None or bool(bias.abs().max() > 0.01))


def alive(state_dict: StateDict, layer: str) -> bool:
    variance = state_dict[key(layer, "running_var")]
    return variance.dtype == torch.float32 and len(variance) > 2 and bool(variance.min() > 1e-4)


def defect(
    severity: str,
    rule: str,
    *,
    applies: Callable[[StateDict, str], bool] = everywhere,
    whole_file: bool = False,
) -> Callable[[Callable[[StateDict, str, Random], None]], Callable[[StateDict, str, Random], None]]:
    def register(plant: Callable[[StateDict, str, Random], None]) -> Callable[[StateDict, str, Random], None]:
        DEFECTS.append(Defect(plant.__name__, severity, rule, plant, applies, whole_file))
        return plant

    return register


def set_one(state_dict: StateDict, layer: str, leaf: str, value: float, random: Random) -> None:
    changed = state_dict[key(layer, leaf)].clone()
    changed[random.randrange(len(changed))] = value
    state_dict[key(layer, leaf)] = changed


def reset(state_dict: StateDict, layer: str) -> None:
    mean = state_dict[key(layer, "running_mean")]
    state_dict[key(layer, "running_mean")] = torch.zeros_like(mean)
    state_dict[key(layer, "running_var")] = torch.ones_like(mean)


def resize(state_dict: StateDict, layer: str, leaf: str, random: Random) -> None:
    vector = state_dict[key(layer, leaf)]
    longer = len(vector) < 2 or random.random() < 0.5
    state_dict[key(layer, leaf)] = torch.cat([vector, vector[:1]]) if longer else vector[:-1].clone()


# -- errors ------------------------------------------------------------------------------------------

for _leaf, _value in (
    ("running_mean", float("nan")),
    ("running_mean", float("inf")),
    ("running_mean", float("-inf")),
    ("running_var", float("nan")),
    ("running_var", float("inf")),
):

    def _nonfinite(state_dict: StateDict, layer: str, random: Random, leaf: str = _leaf, value: float = _value) -> None:
        set_one(state_dict, layer, leaf, value, random)

    _nonfinite.__name__ = f"{_value}_in_{_leaf}".replace("-", "minus_")
    defect("error", "nonfinite-running-stats")(_nonfinite)


@defect("error", "nonfinite-running-stats", applies=affine)
def nan_in_weight(state_dict: StateDict, layer: str, random: Random) -> None:
    set_one(state_dict, layer, "weight", float("nan"), random)


@defect("error", "nonfinite-running-stats")
def everything_nan(state_dict: StateDict, layer: str, random: Random) -> None:
    for leaf in ("running_mean", "running_var"):
        state_dict[key(layer, leaf)] = torch.full_like(state_dict[key(layer, leaf)], float("nan"))


@defect("error", "negative-running-var")
def negative_variance(state_dict: StateDict, layer: str, random: Random) -> None:
    set_one(state_dict, layer, "running_var", -0.5, random)


@defect("error", "negative-running-var")
def slightly_negative_variance(state_dict: StateDict, layer: str, random: Random) -> None:
    """As detectron2 left it when it subtracted eps."""
    set_one(state_dict, layer, "running_var", -9e-6, random)


@defect("error", "incomplete-batchnorm")
def running_var_gone(state_dict: StateDict, layer: str, random: Random) -> None:
    del state_dict[key(layer, "running_var")]


@defect("error", "incomplete-batchnorm")
def running_mean_gone(state_dict: StateDict, layer: str, random: Random) -> None:
    del state_dict[key(layer, "running_mean")]


for _leaf in ("weight", "bias", "running_mean", "running_var"):

    def _resized(state_dict: StateDict, layer: str, random: Random, leaf: str = _leaf) -> None:
        resize(state_dict, layer, leaf, random)

    _resized.__name__ = f"wrong_length_of_{_leaf}"
    defect("error", "batchnorm-length-mismatch", applies=affine if _leaf in ("weight", "bias") else everywhere)(
        _resized
    )


@defect(
    "error",
    "default-stats-despite-batches",
    applies=lambda state_dict, layer: counted(state_dict, layer) and trained(state_dict, layer),
)
def reset_although_batches_were_counted(state_dict: StateDict, layer: str, random: Random) -> None:
    reset(state_dict, layer)


# -- warnings ----------------------------------------------------------------------------------------


@defect("warning", "default-running-stats", applies=trained)
def reset_without_a_count(state_dict: StateDict, layer: str, random: Random) -> None:
    reset(state_dict, layer)
    counter = key(layer, "num_batches_tracked")
    if counter in state_dict:
        state_dict[counter] = torch.zeros_like(state_dict[counter])


@defect(
    "warning",
    "missing-num-batches-tracked",
    applies=lambda state_dict, layer: counted(state_dict, layer) and len(layers(state_dict)) > 1,
)
def counter_missing_beside_its_siblings(state_dict: StateDict, layer: str, random: Random) -> None:
    del state_dict[key(layer, "num_batches_tracked")]


for _label, _counter in (
    ("negative", torch.tensor(-3)),
    ("very_negative", torch.tensor(-(1 << 63))),
    ("fractional", torch.tensor(100.5, dtype=torch.float64)),
    ("nan", torch.tensor(float("nan"))),
    ("inf", torch.tensor(float("inf"))),
):

    def _miscounted(state_dict: StateDict, layer: str, random: Random, counter: Tensor = _counter) -> None:
        state_dict[key(layer, "num_batches_tracked")] = counter.clone()

    _miscounted.__name__ = f"counter_{_label}"
    defect("warning", "invalid-num-batches-tracked", applies=counted)(_miscounted)


@defect("warning", "unexpected-num-batches-tracked", applies=counted)
def counter_without_statistics(state_dict: StateDict, layer: str, random: Random) -> None:
    del state_dict[key(layer, "running_mean")]
    del state_dict[key(layer, "running_var")]


@defect("warning", "half-precision-damage")
def half_precision_overflow(state_dict: StateDict, layer: str, random: Random) -> None:
    set_one(state_dict, layer, "running_var", 70_000.0, random)
    for leaf in ("running_mean", "running_var"):
        state_dict[key(layer, leaf)] = state_dict[key(layer, leaf)].half()


def after_two_batches(state_dict: StateDict, layer: str, random: Random) -> None:
    """What two batches with momentum 0.1 leave, had every batch had the statistics that are there."""
    for name in layers(state_dict):
        state_dict[key(name, "running_mean")] = state_dict[key(name, "running_mean")] * 0.19
        state_dict[key(name, "running_var")] = state_dict[key(name, "running_var")] * 0.19 + 0.81
        state_dict[key(name, "num_batches_tracked")] = torch.tensor(2)


defect(
    "warning",
    "undertrained-stats",
    applies=lambda state_dict, layer: (
        affine(state_dict, layer)
        and trained(state_dict, layer)
        and all(key(name, "num_batches_tracked") in state_dict for name in layers(state_dict))
    ),
    whole_file=True,
)(after_two_batches)


# -- info --------------------------------------------------------------------------------------------


@defect("info", "dead-channels", applies=alive)
def dead_channel(state_dict: StateDict, layer: str, random: Random) -> None:
    set_one(state_dict, layer, "running_var", DEAD, random)


@defect("info", "dead-channels", applies=alive)
def dead_channel_of_exactly_zero(state_dict: StateDict, layer: str, random: Random) -> None:
    set_one(state_dict, layer, "running_var", 0.0, random)


@defect("info", "dead-channels", applies=alive)
def dead_layer(state_dict: StateDict, layer: str, random: Random) -> None:
    state_dict[key(layer, "running_var")] = torch.full_like(state_dict[key(layer, "running_var")], DEAD)


@defect("info", "missing-num-batches-tracked", applies=counted, whole_file=True)
def all_counters_missing(state_dict: StateDict, layer: str, random: Random) -> None:
    for name in layers(state_dict):
        state_dict.pop(key(name, "num_batches_tracked"), None)
    if hasattr(state_dict, "_metadata"):
        del state_dict._metadata


def stale_copy(state_dict: StateDict) -> StateDict:
    """An average over parameters() only: the buffers are those of a fresh model."""
    copy = deepcopy(state_dict)
    for name in layers(copy):
        reset(copy, name)
        counter = key(name, "num_batches_tracked")
        if counter in copy:
            copy[counter] = torch.zeros_like(copy[counter])
    for name, tensor in copy.items():
        if tensor.is_floating_point() and name.rpartition(".")[2] not in ("running_mean", "running_var"):
            copy[name] = tensor * 0.999
    return copy
