"""Small things to look at, for the examples of rules and for tests. Nothing here runs in a check."""

from __future__ import annotations

from bnlint.model.batchnorm import COUNTER, VECTORS, BatchNorm
from bnlint.model.checkpoint import Checkpoint, OptimizerState
from bnlint.model.key_plan import KeyPlan
from bnlint.model.module import ModuleTree
from bnlint.model.pair import Change, Pair
from bnlint.model.state_dict import Assumed, StateDict
from bnlint.model.tensor import Tensor, Vector, decode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

HEALTHY: dict[str, list[float]] = {
    "weight": [0.93, 1.12, 0.71, 1.04],
    "bias": [0.11, -0.27, 0.05, -0.02],
    "running_mean": [0.31, -0.12, 0.84, 0.02],
    "running_var": [0.91, 1.73, 0.42, 1.16],
}


class Bytes:
    """A storage that holds its bytes in memory."""

    big_endian = False

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.nbytes = len(data)

    def read(self, offset: int, nbytes: int) -> bytes:
        return self.data[offset : offset + nbytes]


def tensor(values: Sequence[float] | float, dtype: str = "float32", shape: Sequence[int] | None = None) -> Tensor:
    """A tensor that holds these numbers."""
    numbers = [values] if isinstance(values, int | float) else list(values)
    wanted: Sequence[int] = shape if shape is not None else (() if isinstance(values, int | float) else (len(numbers),))
    return Tensor(dtype, tuple(wanted), Bytes(_encode(numbers, dtype)))


def _encode(numbers: list[float], dtype: str) -> bytes:
    from struct import pack

    codes = {"float64": "d", "float32": "f", "float16": "e", "int64": "q", "int32": "i", "uint8": "B", "bool": "B"}
    if dtype == "bfloat16":
        return b"".join(pack("<f", number)[2:] for number in numbers)
    if dtype not in codes:
        raise ValueError(f"examples hold {', '.join([*codes, 'bfloat16'])}, not {dtype}")
    whole = dtype in ("int64", "int32", "uint8", "bool")
    return pack(f"<{len(numbers)}{codes[dtype]}", *(int(number) if whole else number for number in numbers))


def batchnorm(name: str = "bn1", /, **given: Any) -> BatchNorm:
    """A BatchNorm layer of four healthy channels, but for what is given.

    `weight`, `bias`, `running_mean` and `running_var` are lists of numbers, `num_batches_tracked` is a
    number (10 000 where nothing is given) or a tensor; None leaves one out. `dtype` is that of the
    vectors. `module` holds the layer's settings, `assumed` what is assumed of them. TypeError for
    anything else.
    """
    dtype, counter = given.pop("dtype", "float32"), given.pop(COUNTER, 10_000)
    module, assumed = given.pop("module", None), given.pop("assumed", None)
    if not given.keys() <= set(VECTORS):
        raise TypeError(f"a BatchNorm layer has no {', '.join(sorted(given.keys() - set(VECTORS)))}")
    values = {leaf: given.get(leaf, HEALTHY[leaf]) for leaf in VECTORS}
    tensors = {leaf: tensor(numbers, dtype) for leaf, numbers in values.items() if numbers is not None}
    if isinstance(counter, Tensor):
        tensors[COUNTER] = counter
    elif counter is not None:
        tensors[COUNTER] = tensor(counter, "int64" if counter == int(counter) else "float32")
    layer = _layer(name, tensors, StateDict("", {}, assumed=assumed))
    if module is not None:
        layer.module, module.layer = module, layer
    state_dict([layer], assumed=assumed)
    return layer


def _layer(name: str, tensors: Mapping[str, Tensor], owner: StateDict) -> BatchNorm:
    vectors: dict[str, Vector] = {leaf: decode(each.raw(), each.dtype, each.shape) for leaf, each in tensors.items()}
    return BatchNorm(name, tensors, vectors, owner)


def state_dict(
    layers: Sequence[BatchNorm] = (),
    *,
    other: Mapping[str, Tensor] | None = None,
    key: str = "",
    role: str = "model",
    metadata: Mapping[str, Mapping[str, object]] | None = None,
    scalars: Mapping[str, object] | None = None,
    assumed: Assumed | None = None,
) -> StateDict:
    """A state dict of these layers and other tensors."""
    tensors = {layer.key(leaf): each for layer in layers for leaf, each in layer.tensors.items()}
    made = StateDict(key, {**tensors, **(other or {})}, role=role, metadata=metadata, scalars=scalars, assumed=assumed)
    made.batchnorms = list(layers)
    for layer in layers:
        layer.state_dict = made
    return made


def checkpoint(
    *state_dicts: StateDict,
    format: str = "torch-zip",
    optimizers: Sequence[OptimizerState] = (),
    module_trees: Sequence[ModuleTree] = (),
    scalars: Mapping[str, object] | None = None,
) -> Checkpoint:
    """A checkpoint of these state dicts."""
    return Checkpoint(format, state_dicts, optimizers=optimizers, module_trees=module_trees, scalars=scalars)


def pair(
    before: StateDict,
    after: StateDict,
    *,
    kind: str = "checkpoint",
    plan: KeyPlan | None = None,
    preceding_same: bool | None = None,
    same_elsewhere: int | None = 0,
    other_tensors: int = 0,
    declared_different: bool = False,
) -> Pair:
    """A checkpoint `after` beside its reference, whose keys are matched by name where no plan is given.

    `same_elsewhere` of `other_tensors` weights are equal; None is a pair of which only BatchNorm was read.
    """
    source, target = (before, after) if kind == "checkpoint" else (after, before)
    return Pair(
        before,
        after,
        plan or _by_name(source.tensors, target.tensors),
        kind=kind,
        changes=[
            Change(earlier, layer, preceding_same=preceding_same)
            for layer in after.batchnorms
            if (earlier := before.batchnorm(layer.name)) is not None
        ],
        shallow=same_elsewhere is None,
        same_elsewhere=same_elsewhere,
        other_tensors=other_tensors,
        declared_different=declared_different,
    )


def _by_name(source: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> KeyPlan:
    """The keys that have one name on both sides; the counters that only one side has are told apart."""
    both = [key for key in source if key in target]
    missing = [key for key in target if key not in source]
    unexpected = [key for key in source if key not in target]
    return KeyPlan(
        {key: key for key in both if source[key].shape == target[key].shape},
        missing=[key for key in missing if not key.endswith(COUNTER)],
        unexpected=[key for key in unexpected if not key.endswith(COUNTER)],
        missing_counters=[key for key in missing if key.endswith(COUNTER)],
        unexpected_counters=[key for key in unexpected if key.endswith(COUNTER)],
        reshaped=[(key, key) for key in both if source[key].shape != target[key].shape],
    )
