"""A model built by a function that the user names, on the meta device, and its keys."""

from __future__ import annotations

from functools import reduce
from importlib import import_module

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from bnlint.factory_process import CannotBuild
from bnlint.model.digest import PromisedBatchNorm
from bnlint.model.state_dict import StateDict
from bnlint.model.tensor import Tensor
from bnlint.readers.batchnorms import groups_in

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


def built(factory: str) -> nn.Module:
    """What "package.module:function" builds. CannotBuild where that is no model; else what the code raises."""
    module, _, path = factory.partition(":")
    home = import_module(module)
    try:
        made: object = reduce(getattr, path.split("."), home)
    except AttributeError as error:
        raise CannotBuild(f"is not there: {error}") from None
    if callable(made) and not isinstance(made, nn.Module):
        made = _called(made)
    if not isinstance(made, nn.Module):
        raise CannotBuild(f"gave {type(made).__name__}, no torch.nn.Module")
    return made


def _called(function: Callable[[], object]) -> object:
    """What it returns on the meta device, or on its own where it asks tensors for their numbers.

    Stochastic depth does: `[rate.item() for rate in torch.linspace(0, 0.1, depth)]`.
    """
    try:
        with torch.device("meta"):
            return function()
    except (NotImplementedError, RuntimeError, TypeError) as error:
        if "meta" not in str(error):
            raise
    return function()


def keys_of(model: nn.Module) -> StateDict:
    """What `load_state_dict` would fill: names, shapes and dtypes, and the eps of each BatchNorm layer."""
    tensors = {key: value for key, value in model.state_dict().items() if isinstance(value, torch.Tensor)}
    lazy = next((key for key, value in tensors.items() if is_lazy(value)), None)
    if lazy is not None:
        raise CannotBuild(f"has no shape for {lazy[:80]!r}: a lazy module knows it after its first forward")
    state_dict = StateDict(
        "",
        {
            key: Tensor(str(value.dtype).removeprefix("torch."), tuple(value.shape), None)
            for key, value in tensors.items()
        },
    )
    for name, group in groups_in(state_dict.tensors).items():
        state_dict.batchnorms.append(PromisedBatchNorm(name, group, state_dict, eps=_eps(model, name)))
    return state_dict


def _eps(model: nn.Module, name: str) -> float | None:
    try:
        eps = getattr(model.get_submodule(name), "eps", None)
    except AttributeError:  # a state dict hook gave the layer another name
        return None
    return eps if isinstance(eps, float) else None
