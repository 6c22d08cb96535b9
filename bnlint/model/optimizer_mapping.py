"""Which parameters of a state dict an optimizer trained: its indices mapped to names.

An optimizer's state dict knows parameters by number only, and holds state only for those that ever
got a gradient (torch/optim/adam.py, sgd.py: `if p.grad is not None`). So a file with an optimizer
beside the model says which layers were frozen.
"""

from __future__ import annotations

from bnlint.model.batchnorm import COUNTER
from bnlint.model.state_dict import StateDict
from bnlint.model.tensor import FLOATING

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from bnlint.model.batchnorm import BatchNorm
    from bnlint.model.checkpoint import Checkpoint, OptimizerState

    Shape = tuple[int, ...]

BUFFERS = ("running_mean", "running_var", COUNTER)
MANY = 32  # more models, optimizers or parameter groups than this are not sorted out
# Where torch's optimizers keep a tensor of the parameter's own shape.
SHAPED_LIKE_THE_PARAMETER = ("exp_avg", "momentum_buffer", "square_avg", "exp_inf", "sum", "acc_delta", "prev")


class Training:
    """What the optimizers of a file say of one state dict.

    `steps` has an entry for every parameter that was trained: the optimizer's steps for it, None
    where the optimizer does not count them (SGD). `frozen` names the parameters that certainly never
    got a gradient from any of these optimizers.
    """

    __slots__ = ("frozen", "steps")

    def __init__(self, steps: Mapping[str, int | None], frozen: Iterable[str]) -> None:
        self.steps = steps
        self.frozen = frozenset(frozen)

    @property
    def step(self) -> int | None:
        """How many steps the optimizer that worked longest made; None where none counts them."""
        return max((step for step in self.steps.values() if step is not None), default=None)

    def trained(self, layer: BatchNorm) -> bool:
        """True where the layer's weight or bias was trained."""
        return any(layer.key(leaf) in self.steps for leaf in ("weight", "bias"))

    def froze(self, layer: BatchNorm) -> bool:
        """True where the layer has a weight or a bias and neither ever got a gradient."""
        affine = [layer.key(leaf) for leaf in ("weight", "bias") if leaf in layer.tensors]
        return bool(affine) and self.frozen.issuperset(affine)


def training_of(state_dict: StateDict, checkpoint: Checkpoint) -> Training | None:
    """What the optimizers of `checkpoint` prove about `state_dict`; None where they prove nothing."""
    if max(len(checkpoint.optimizers), len(checkpoint.state_dicts)) > MANY:
        return None
    shapes = parameter_shapes(state_dict)
    others = [other for other in checkpoint.state_dicts if other is not state_dict and other.role == "model"]
    steps: dict[str, int | None] = {}
    for optimizer in checkpoint.optimizers:
        if not covers(optimizer, shapes) and any(covers(optimizer, parameter_shapes(other)) for other in others):
            continue  # it trained another model of this file
        names = parameter_names(optimizer, shapes)
        if names is None:
            return None
        for index, name in names.items():
            if got_gradients(optimizer, index):
                steps[name] = optimizer.steps(index)
    return Training(steps, shapes.keys() - steps.keys()) if steps else None


def parameter_shapes(state_dict: StateDict) -> dict[str, Shape]:
    """The shapes of the state dict's parameters by name, in the order of `model.parameters()`.

    A plain state dict does not tell parameters from buffers: BatchNorm's own buffers and tensors that
    cannot have a gradient are left out, other buffers stay. Tied parameters count once, as in torch.
    """
    known = any(tensor.parameter for tensor in state_dict.tensors.values())
    seen: set[tuple[int, int, Shape]] = set()
    shapes: dict[str, Shape] = {}
    for name, tensor in state_dict.tensors.items():
        if tensor.dtype not in FLOATING or name.rpartition(".")[2] in BUFFERS or (known and not tensor.parameter):
            continue
        if tensor.storage is not None:
            place = (id(tensor.storage), tensor.offset, tensor.shape)
            if place in seen:
                continue
            seen.add(place)
        shapes[name] = tensor.shape
    return shapes


def parameter_names(optimizer: OptimizerState, shapes: Mapping[str, Shape]) -> dict[int, str] | None:
    """The name of each parameter the optimizer holds, by its index; None where that is not certain.

    The file's own `param_names` come first. Without them, parameters are matched in their order by
    the shapes of the optimizer's state, all groups one after the other or else each group by itself,
    and only an assignment that is the only possible one counts.
    """
    if optimizer.names:
        known = {StateDict.unwrapped(name): name for name in shapes}
        named = {index: known.get(StateDict.unwrapped(name)) for index, name in optimizer.names.items()}
        return {index: name for index, name in named.items() if name is not None}
    names, offered = list(shapes), list(shapes.values())
    for groups in ([indices(optimizer)], optimizer.groups[:MANY]):
        assigned: dict[int, str] = {}
        for group in groups:
            places = only_assignment([shape_of(optimizer, index) for index in group], offered)
            if places is None:
                break
            assigned.update(zip(group, (names[place] for place in places), strict=True))
        else:
            if len(set(assigned.values())) == len(assigned) == len(indices(optimizer)):
                return assigned
    return None


def covers(optimizer: OptimizerState, shapes: Mapping[str, Shape]) -> bool:
    """True where the optimizer holds exactly these parameters, one for one in this order."""
    held = indices(optimizer)
    return len(held) == len(shapes) and all(
        shape_of(optimizer, index) in (None, shape) for index, shape in zip(held, shapes.values(), strict=True)
    )


def only_assignment(wanted: Sequence[Shape | None], offered: Sequence[Shape]) -> list[int] | None:
    """The places in `offered` that `wanted` takes, in order; None where there is no way or more than one.

    There is exactly one way where taking the first fitting places and taking the last ones agree.
    """
    first = first_places(wanted, offered)
    if first is None:
        return None
    backwards = first_places(wanted[::-1], offered[::-1]) or []
    last = [len(offered) - 1 - place for place in reversed(backwards)]
    return first if first == last else None


def first_places(wanted: Sequence[Shape | None], offered: Sequence[Shape]) -> list[int] | None:
    """The first places in `offered` that fit `wanted` in order; a shape of None fits anywhere."""
    places: list[int] = []
    place = 0
    for shape in wanted:
        while place < len(offered) and shape is not None and offered[place] != shape:
            place += 1
        if place == len(offered):
            return None
        places.append(place)
        place += 1
    return places


def indices(optimizer: OptimizerState) -> list[int]:
    """Every parameter index of the optimizer, group after group."""
    return [index for group in optimizer.groups for index in group]


def got_gradients(optimizer: OptimizerState, index: int) -> bool:
    """True where the optimizer has state for the parameter; Adagrad makes one for all, at step 0."""
    return index in optimizer.state and optimizer.state[index].get("step") != 0


def shape_of(optimizer: OptimizerState, index: int) -> Shape | None:
    """The parameter's shape as the optimizer's state shows it, None where it does not."""
    state = optimizer.state.get(index, {})
    return next((shape for key in SHAPED_LIKE_THE_PARAMETER if isinstance(shape := state.get(key), tuple)), None)
