"""A callback for Lightning, as `lightning` or as `pytorch_lightning`: `Trainer(callbacks=[WatchBatchNorm()])`."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec

from bnlint.torch.watching import watch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from torch import nn

    from bnlint.torch.watching import Watch

_PACKAGES = ("lightning.pytorch", "pytorch_lightning")


def _callback_classes() -> tuple[type, ...]:
    """The Callback of every Lightning that is imported, else of the first that is installed."""
    imported = [sys.modules[name] for name in _PACKAGES if name in sys.modules]
    return tuple(module.Callback for module in imported or [_first_installed()])


def _first_installed() -> Any:
    for name in _PACKAGES:
        if find_spec(name.partition(".")[0]):
            return import_module(name)
    raise ImportError("bnlint.torch.lightning needs lightning or pytorch_lightning")


class WatchBatchNorm(*_callback_classes()):  # type: ignore[misc]
    """`bnlint.torch.watch` over a fit; takes its options, `WatchBatchNorm(every=50)`. `watching` is the Watch."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.options = options
        self.watching: Watch | None = None

    def on_train_start(self, trainer: object, pl_module: nn.Module) -> None:
        self.watching = watch(pl_module, **self.options).start()

    def on_train_end(self, trainer: object, pl_module: nn.Module) -> None:
        if self.watching is not None:
            self.watching.stop()

    def on_exception(self, trainer: object, pl_module: nn.Module, exception: BaseException) -> None:
        if self.watching is not None:
            self.watching.__exit__(type(exception), exception, exception.__traceback__)
