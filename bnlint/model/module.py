"""Modules: what a pickled nn.Module, a TorchScript archive or a live model says of its BatchNorm layers."""

from __future__ import annotations

from bnlint.finding import Location

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from bnlint.model.batchnorm import BatchNorm


class BatchNormModule:
    """One BatchNorm module with its settings.

    `training`, `eps`, `affine`, `track_running_stats` are None where the source does not say.
    `momentum` is None for the cumulative average; `momentum_known` is False where the source does
    not say it. `requires_grad` has one entry per parameter ("weight", "bias"); it is empty where the
    layer has none. `preceding` is the requires_grad of the parameters of the layer before it
    (usually the convolution), by full name. `kind` is the class, "BatchNorm2d" or "SyncBatchNorm";
    `origin` is "pickle", "torchscript", "export" or "live". `layer` holds the numbers, where the
    source has them; `recalibrated` those that data gave the same layer, where a pass was made.
    """

    __slots__ = (
        "affine",
        "eps",
        "kind",
        "layer",
        "momentum",
        "momentum_known",
        "name",
        "origin",
        "preceding",
        "recalibrated",
        "requires_grad",
        "state_dict_key",
        "track_running_stats",
        "training",
    )

    def __init__(
        self,
        name: str,
        *,
        kind: str = "BatchNorm2d",
        origin: str = "pickle",
        training: bool | None = None,
        momentum: float | None = None,
        momentum_known: bool = True,
        eps: float | None = None,
        affine: bool | None = None,
        track_running_stats: bool | None = None,
        requires_grad: Mapping[str, bool] | None = None,
        preceding: Mapping[str, bool] | None = None,
    ) -> None:
        self.name = name
        self.kind = kind
        self.origin = origin
        self.training = training
        self.momentum = momentum
        self.momentum_known = momentum_known
        self.eps = eps
        self.affine = affine
        self.track_running_stats = track_running_stats
        self.requires_grad: Mapping[str, bool] = requires_grad or {}
        self.preceding: Mapping[str, bool] = preceding or {}
        self.layer: BatchNorm | None = None
        self.recalibrated: BatchNorm | None = None
        self.state_dict_key = ""

    def at(self, *leaves: str) -> Location:
        """This module as a place."""
        names = [f"{self.name}.{leaf}" if self.name else leaf for leaf in leaves]
        return Location((self.name,), names, self.state_dict_key)

    @property
    def frozen(self) -> bool:
        """True where it has parameters and none of them gets a gradient."""
        return bool(self.requires_grad) and not any(self.requires_grad.values())


class ModuleTree:
    """A whole model: its class, the modes of its modules, its BatchNorm modules in order.

    `training` is the root's flag. `origin` as for BatchNormModule. `key` is its place in the file,
    "" where the file is the module itself.
    """

    __slots__ = ("batchnorms", "class_name", "key", "origin", "training")

    def __init__(
        self,
        class_name: str,
        batchnorms: Sequence[BatchNormModule],
        *,
        training: bool | None = None,
        origin: str = "pickle",
        key: str = "",
    ) -> None:
        self.class_name = class_name
        self.batchnorms = list(batchnorms)
        self.training = training
        self.origin = origin
        self.key = key
        for module in self.batchnorms:
            module.state_dict_key = key

    def at(self, modules: Sequence[BatchNormModule] = ()) -> Location:
        """Some of its modules as a place; none named is the model as a whole."""
        return Location([module.name for module in modules], (), self.key)

    def subjects(self) -> Iterator[object]:
        """The model and its BatchNorm modules."""
        yield self
        yield from self.batchnorms
