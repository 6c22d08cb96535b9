"""Which keys of a state dict make a BatchNorm layer, and the numbers of those layers.

A group is BatchNorm when `running_mean` or `running_var` has rank 1 and `weight` and `bias`, where they are
there, have rank 1 too. The normaliser of reinforcement learning is not: statistics and a `count`, or
statistics at the root of a state dict, and no weight, bias or counter.
"""

from __future__ import annotations

from bnlint.errors import UnreadableFile
from bnlint.model.batchnorm import COUNTER, LEAVES, BatchNorm
from bnlint.model.tensor import Tensor, decode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from bnlint.model.state_dict import StateDict
    from bnlint.model.tensor import Vector

    Group = Mapping[str, Tensor]  # by leaf

STATISTICS = ("running_mean", "running_var")
# Where torch keeps what a weight is made of: parametrizations, and the hooks of pruning and weight_norm.
_WEIGHT_ELSEWHERE = ("parametrizations.weight.original", "parametrizations.weight.original0", "weight_orig", "weight_g")
_BIAS_ELSEWHERE = ("parametrizations.bias.original", "bias_orig")
_QUANTISED = ("qint", "quint")
_UNREADABLE = ("complex", "bits", "float4", "float128")
_NOT_NUMBERS = (*_QUANTISED, *_UNREADABLE)
OPAQUE = "opaque"  # the dtype of a counter that could not be understood

LAYER_LIMIT = 20_000
CHANNEL_LIMIT = 1 << 22  # in one vector
TOTAL_LIMIT = 1 << 24  # numbers in all vectors of a file: 64 MB of float32
_RANK_LIMIT = 8  # of a counter, which should have rank 0


def groups_in(
    tensors: Mapping[str, Tensor], others: Collection[str] = (), opaque: Mapping[str, str] | None = None
) -> dict[str, Group]:
    """The BatchNorm layers of a state dict by name, each with its tensors by leaf, in the order of the file.

    `others` names layers that are known to be something else (a pickled InstanceNorm), `opaque` says what
    tensors are that could not be understood; UnreadableFile where half the statistics of a layer are such.
    A counter that is such stays with its layer, as a tensor without numbers.
    """
    groups: dict[str, Group] = {}
    for key in tensors:
        name, _, leaf = key.rpartition(".")
        if leaf in STATISTICS and name not in groups and name not in others:
            prefix = f"{name}." if name else ""
            group = _group(tensors, prefix)
            if group:
                groups[name] = group
                if opaque:
                    _refuse_opaque(name, [opaque.get(prefix + leaf) for leaf in STATISTICS])
                    if prefix + COUNTER in opaque:
                        group[COUNTER] = Tensor(OPAQUE, (), None)
    return groups


def _refuse_opaque(name: str, whats: Sequence[str | None]) -> None:
    for leaf, what in zip(STATISTICS, whats, strict=True):
        if what is not None:
            raise UnreadableFile("dtype", f"{leaf} of layer {name[:80]!r} is of an unknown type: {what}")


def _group(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors of one layer; none where the layer is not BatchNorm."""
    group = {leaf: tensors[prefix + leaf] for leaf in LEAVES if prefix + leaf in tensors}
    for leaf, places in (("weight", _WEIGHT_ELSEWHERE), ("bias", _BIAS_ELSEWHERE)):
        place = next((place for place in places if prefix + place in tensors), None)
        if leaf not in group and place is not None:
            group[leaf] = tensors[prefix + place]
    if not any(len(group[leaf].shape) == 1 for leaf in STATISTICS if leaf in group):
        return {}
    if any(len(group[leaf].shape) != 1 for leaf in ("weight", "bias") if leaf in group):
        return {}
    if (not prefix or f"{prefix}count" in tensors) and not {"weight", "bias", COUNTER} & group.keys():
        return {}
    return group


def read_batchnorms(planned: Sequence[tuple[StateDict, Mapping[str, Group]]]) -> list[str]:
    """Give each state dict its layers, with their numbers read in the order in which they lie in the file.

    Returns a sentence for each kind of layer that the file has no numbers for. UnreadableFile where a
    vector cannot be read or is over a limit.
    """
    layers = [(owner, name, group) for owner, groups in planned for name, group in groups.items()]
    if len(layers) > LAYER_LIMIT:
        raise UnreadableFile("limit", f"the file has more than {LAYER_LIMIT} BatchNorm layers")
    _refuse_holes(layers)
    _refuse_unreadable(layers)
    left_out: dict[str, list[str]] = {}
    numbered = []
    for owner, name, group in layers:
        reason = _why_without_numbers(group)
        if reason:
            left_out.setdefault(reason, []).append(name)
        else:
            numbered.append((owner, name, group))
    vectors = _read_vectors(numbered)
    for owner, name, group in numbered:
        owner.batchnorms.append(
            BatchNorm(
                name, group, {leaf: vectors[id(each)] for leaf, each in group.items() if id(each) in vectors}, owner
            )
        )
    return [_left_out(names, reason) for reason, names in left_out.items()]


def _refuse_holes(layers: Sequence[tuple[StateDict, str, Group]]) -> None:
    """UnreadableFile where some numbers were saved and others were left on the meta device."""
    holes = [(name, leaf) for _, name, group in layers for leaf, tensor in group.items() if _is_hole(tensor)]
    if holes and len(holes) < sum(len(group) for _, _, group in layers):
        name, leaf = holes[0]
        raise UnreadableFile("missing", f"{leaf} of layer {name[:80]!r} has no data: it was saved on the meta device")


def _is_hole(tensor: Tensor) -> bool:
    return tensor.storage is None and 0 not in tensor.shape and tensor.dtype != OPAQUE


def _refuse_unreadable(layers: Sequence[tuple[StateDict, str, Group]]) -> None:
    """UnreadableFile where one statistic of a layer holds numbers and the other what no BatchNorm has."""
    for _, name, group in layers:
        statistics = {leaf: group[leaf].dtype for leaf in STATISTICS if leaf in group}
        if all(dtype.startswith(_NOT_NUMBERS) for dtype in statistics.values()):
            continue
        for leaf, dtype in statistics.items():
            if dtype.startswith(_UNREADABLE):
                raise UnreadableFile("dtype", f"{leaf} of layer {name[:80]!r} is {dtype}, the other statistic is not")


def _without_numbers(leaf: str, tensor: Tensor) -> bool:
    """True for a counter that no number can be read from; the layer stays."""
    return leaf == COUNTER and tensor.dtype.startswith((*_NOT_NUMBERS, OPAQUE))


def _why_without_numbers(group: Group) -> str:
    """Why nothing can be computed with a layer; "" where it can."""
    for leaf, tensor in group.items():
        if _without_numbers(leaf, tensor):
            continue
        if _is_hole(tensor):
            return "saved on the meta device, without data"
        if tensor.dtype.startswith(_NOT_NUMBERS):
            return f"{leaf} is {tensor.dtype}"
    if all(0 in group[leaf].shape for leaf in STATISTICS if leaf in group):
        return "no channels"
    return ""


def _left_out(names: Sequence[str], reason: str) -> str:
    what = f"BatchNorm layer {names[0][:80]!r}" if len(names) == 1 else f"{len(names)} BatchNorm layers"
    return f"{what} left out ({reason})"


def _read_vectors(layers: Sequence[tuple[StateDict, str, Group]]) -> dict[int, Vector]:
    """The numbers of all tensors, by the identity of the tensor."""
    wanted: dict[int, tuple[Tensor, str]] = {}
    numbers = 0
    for _, name, group in layers:
        for leaf, tensor in group.items():
            if _without_numbers(leaf, tensor):
                continue
            if len(tensor.shape) > _RANK_LIMIT or tensor.count > CHANNEL_LIMIT:
                raise UnreadableFile("limit", f"{leaf} of layer {name[:80]!r} has a shape beyond any BatchNorm's")
            numbers += tensor.count
            wanted[id(tensor)] = tensor, f"{leaf} of layer {name[:80]!r}"
    if numbers > TOTAL_LIMIT:
        raise UnreadableFile("limit", f"the BatchNorm layers hold more than {TOTAL_LIMIT} numbers")
    # A storage that says where it begins has a `position`; others are read in the order of the state dict.
    in_file_order = sorted(wanted.values(), key=lambda each: (getattr(each[0].storage, "position", 0), each[0].offset))
    return {id(tensor): _values(tensor, name) for tensor, name in in_file_order}


def _values(tensor: Tensor, name: str) -> Vector:
    try:
        return decode(tensor.raw(), tensor.dtype, tensor.shape)
    except UnreadableFile as problem:
        raise UnreadableFile(problem.code, f"{name}: {problem}", problem.offset) from None
