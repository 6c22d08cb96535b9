"""The running statistics that data would give, beside those that the model has; the model is left as it was."""

from __future__ import annotations

from contextlib import contextmanager
from itertools import islice

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parameter import is_lazy

from bnlint.errors import UsageError
from bnlint.torch.checking import configured, report_on, title
from bnlint.torch.live import Live

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from typing_extensions import Unpack

    from bnlint.report import Report
    from bnlint.torch.checking import Options

RULE = "recalibration-gap"
BATCHES = 64
_WRAPPERS = ("module", "_orig_mod")  # what DataParallel, DistributedDataParallel and torch.compile call the model


def recalibration_gap(
    model: nn.Module,
    loader: Iterable[object],
    *,
    batches: int = BATCHES,
    forward: Callable[[nn.Module, object], object] | None = None,
    name: str | None = None,
    **options: Unpack[Options],
) -> Report:
    """How far the running statistics are from those that data gives: the rule `recalibration-gap`.

    The only check that sees statistics which are well-formed and wrong. `loader` should give what training
    saw, with its augmentation and batch size; up to `batches` of it go through the model, without
    gradient, in train mode and with cumulative averages, as in `torch.optim.swa_utils.update_bn`. Then
    modes, buffers, momenta and torch's random number generators are put back.

    A batch is what the model takes, a tuple or list whose first element it takes, or a dict of its
    keyword arguments; tensors go to the device of the model. `forward(model, batch)` says it in another
    way. With synchronised BatchNorm all processes have to call this. UsageError where the model has no
    numbers yet, or `loader` gives nothing.
    """
    config = configured({"select": [RULE], **options})
    inside = _without_replicas(model)
    _expect_numbers(inside)
    stored = Live(inside)
    checkpoint = stored.checkpoint()
    with _as_it_was(inside):
        count = _accumulate(inside, stored.layers.values(), islice(loader, batches), forward or _call)
        measured = Live(inside).checkpoint()
    if not count:
        raise UsageError("recalibration-gap: the loader gave no batch")
    for module in stored.tree.batchnorms:
        layer = measured.state_dicts[0].batchnorm(module.name)
        if layer is None or not layer.num_batches_tracked:
            continue  # the data did not reach it
        if layer.finite:
            module.recalibrated = layer
        else:
            checkpoint.notes.append(f"the data gave statistics that are not finite in {module.name[:80]!r}")
    return report_on(checkpoint, name or title(model), config)


def _accumulate(
    model: nn.Module,
    layers: Iterable[nn.Module],
    loader: Iterable[object],
    forward: Callable[[nn.Module, object], object],
) -> int:
    """Compute the statistics of every layer anew; the number of batches there were."""
    for module in model.modules():
        module.training = True
    for layer in layers:
        if isinstance(layer, _BatchNorm) and layer.running_mean is not None:
            layer.reset_running_stats()
            layer.momentum = None
    device = next((tensor.device for tensor in model.parameters()), torch.device("cpu"))
    count = 0
    with torch.no_grad():
        for batch in loader:
            forward(model, _moved(batch, device))
            count += 1
    return count


def _call(model: nn.Module, batch: object) -> object:
    if isinstance(batch, dict):
        return model(**batch)
    if isinstance(batch, (list, tuple)):
        return model(batch[0])
    return model(batch)


def _moved(batch: object, device: torch.device) -> object:
    """A batch with its tensors on the device."""
    if isinstance(batch, torch.Tensor):
        return batch.to(device)
    if isinstance(batch, dict):
        return {key: _moved(each, device) for key, each in batch.items()}
    if type(batch) in (list, tuple):
        return [_moved(each, device) for each in batch]  # type: ignore[attr-defined]
    return batch


@contextmanager
def _as_it_was(model: nn.Module) -> Iterator[None]:
    """Put back, at the end, what a pass in train mode changes."""
    modules = list(model.modules())
    modes = [module.training for module in modules]
    buffers = [dict(module._buffers) for module in modules]
    values = {id(each): each.detach().clone() for named in buffers for each in named.values() if each is not None}
    momenta = [(module, module.momentum) for module in modules if hasattr(module, "momentum")]
    devices = {each.device for each in model.parameters() if each.is_cuda}
    with torch.random.fork_rng([device.index for device in devices]):
        try:
            yield
        finally:
            with torch.no_grad():
                for module, training, named in zip(modules, modes, buffers, strict=True):
                    module.training = training
                    for name, buffer in named.items():
                        module._buffers[name] = buffer
                        if buffer is not None:
                            buffer.copy_(values[id(buffer)])
            for module, momentum in momenta:
                module.momentum = momentum


def _without_replicas(model: nn.Module) -> nn.Module:
    """The model on this device alone, not compiled. FSDP stays: it gathers what the model computes with."""
    inside = next((getattr(model, name) for name in _WRAPPERS if name in model._modules), None)
    wraps = type(model).__module__.startswith("torch.") and not (model._parameters or model._buffers)
    return _without_replicas(inside) if wraps and isinstance(inside, nn.Module) else model


def _expect_numbers(model: nn.Module) -> None:
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if is_lazy(tensor) or tensor.is_meta:
            raise UsageError(f"recalibration-gap: {name} has no numbers (lazy, or on the meta device)")
