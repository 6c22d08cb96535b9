"""State dicts of optimizers: which parameters they step, and what they remember of each."""

from __future__ import annotations

from bnlint.model.checkpoint import OptimizerState
from bnlint.readers.values import Instance, as_tensor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from bnlint.model.tensor import Tensor

STEP_LIMIT = 256  # step counts are tensors since torch 1.12: those of more parameters are not read


def is_optimizer(mapping: Mapping[object, object]) -> bool:
    """True for what an optimizer's state_dict() returns."""
    groups = mapping.get("param_groups")
    return "state" in mapping and type(groups) is list and all(isinstance(group, dict) for group in groups)


def read_optimizer(mapping: Mapping[object, object], key: str, *, with_steps: bool = True) -> OptimizerState:
    """An optimizer's state dict; `key` is its place in the file.

    Optimizers that call parameters by name (FSDP) get an index for each name. Where steps are tensors,
    `with_steps` reads those of at most 256 parameters.
    """
    indices = _Indices()
    groups: list[list[int]] = []
    names: dict[int, str] = {}
    for group in mapping["param_groups"]:  # type: ignore[attr-defined]
        groups.append(indices.of_all(group.get("params")))
        told = group.get("param_names")
        if type(told) is list and len(told) == len(groups[-1]):
            names.update((index, name) for index, name in zip(groups[-1], told, strict=True) if type(name) is str)
    names.update(indices.names)
    steps_left = STEP_LIMIT if with_steps else 0
    state: dict[int, Mapping[str, object]] = {}
    for parameter, remembered in pairs(mapping["state"]):
        index = indices.of(parameter)
        facts = dict(_facts(remembered))
        if index is None or not facts:
            continue
        step = as_tensor(facts.get("step"))
        if step is not None:
            steps_left -= 1
            facts["step"] = _number(step) if steps_left >= 0 else None
        state[index] = facts
    return OptimizerState(key, groups, state, names)


def pairs(value: object) -> Iterator[tuple[object, object]]:
    """The items of a mapping, be it a dict or an object that was filled like one (defaultdict)."""
    if isinstance(value, dict):
        yield from value.items()
    elif type(value) is Instance and value.items:
        yield from value.items


class _Indices:
    """The index of each parameter: its own where the file has one, the next free one for a name."""

    def __init__(self) -> None:
        self.names: dict[int, str] = {}
        self._by_name: dict[str, int] = {}

    def of(self, parameter: object) -> int | None:
        if type(parameter) is str:
            index = self._by_name.setdefault(parameter, len(self._by_name))
            self.names[index] = parameter
            return index
        return parameter if type(parameter) is int else None

    def of_all(self, parameters: object) -> list[int]:
        known = [self.of(parameter) for parameter in parameters] if type(parameters) is list else []
        return [index for index in known if index is not None]


def _facts(remembered: object) -> Iterator[tuple[str, object]]:
    """What is remembered of a parameter: numbers as they are, the shape of each tensor, the tensor of "step"."""
    for name, value in pairs(remembered):
        if type(name) is not str:
            continue
        tensor = as_tensor(value)
        if tensor is not None:
            yield name, value if name == "step" else tensor.shape
        elif type(value) in (int, float):
            yield name, value


def _number(tensor: Tensor) -> float | None:
    """The number in a tensor of one element."""
    if len(tensor.shape) > 1 or tensor.count != 1:
        return None
    return tensor.values()[0]
