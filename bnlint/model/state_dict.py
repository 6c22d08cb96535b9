"""One state dict of a checkpoint: its tensors by name, its BatchNorm layers, its `_metadata`."""

from __future__ import annotations

from bnlint.finding import Location

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from bnlint.model.batchnorm import BatchNorm
    from bnlint.model.checkpoint import Checkpoint
    from bnlint.model.tensor import Tensor

# What wraps a model on its way through training and leaves its name in every key.
TRANSPORT = ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")


class Assumed:
    """What a state dict cannot say: the momentum and eps its layers were built with.

    `momentum_given` and `eps_given` are True where the user said so; else they are torch's 0.1 and 1e-5.
    """

    __slots__ = ("eps", "eps_given", "momentum", "momentum_given")

    def __init__(self, momentum: float | None = None, eps: float | None = None) -> None:
        self.momentum_given = momentum is not None
        self.momentum = 0.1 if momentum is None else momentum
        self.eps_given = eps is not None
        self.eps = 1e-5 if eps is None else eps


class StateDict:
    """A mapping of names to tensors, as `load_state_dict` takes it.

    `key` is its place in the file: "state_dict", "ema.model", or "" where the file is the state dict
    itself. `tensors` keeps the order of the file. `metadata` is torch's `_metadata` (module prefix ->
    facts such as `version`), None where the state dict has none: a dict comprehension loses it, and
    safetensors cannot hold it. `role` is "ema" for a copy that averages another state dict of the
    file (ema, teacher, target, averaged model), else "model".
    """

    __slots__ = ("_by_name", "assumed", "batchnorms", "checkpoint", "key", "metadata", "role", "scalars", "tensors")

    def __init__(
        self,
        key: str,
        tensors: Mapping[str, Tensor],
        *,
        metadata: Mapping[str, Mapping[str, object]] | None = None,
        role: str = "model",
        assumed: Assumed | None = None,
        scalars: Mapping[str, object] | None = None,
    ) -> None:
        self.key = key
        self.tensors = tensors
        self.metadata = metadata
        self.role = role
        self.assumed = assumed or Assumed()
        self.scalars: Mapping[str, object] = scalars or {}  # plain values beside the tensors, such as n_averaged
        self.batchnorms: list[BatchNorm] = []
        self.checkpoint: Checkpoint | None = None
        self._by_name: dict[str, BatchNorm] | None = None

    def at(self, layers: Iterable[str] = (), tensors: Iterable[str] = ()) -> Location:
        """Layers or tensors of this state dict as a place; nothing named is the state dict as a whole."""
        return Location(tuple(layers), tuple(tensors), self.key)

    def subjects(self) -> Iterator[object]:
        """The state dict and its layers."""
        yield self
        yield from self.batchnorms

    @property
    def versions(self) -> dict[str, int]:
        """The `version` of each module in `_metadata`, by module name."""
        return {
            name: version
            for name, facts in (self.metadata or {}).items()
            if type(version := facts.get("version")) is int
        }

    def batchnorm(self, name: str) -> BatchNorm | None:
        """The BatchNorm layer of that name."""
        if self._by_name is None:
            self._by_name = {layer.name: layer for layer in self.batchnorms}
        return self._by_name.get(name)

    @staticmethod
    def unwrapped(name: str) -> str:
        """A name without the wrappers before it: "module._orig_mod.conv1.weight" is "conv1.weight"."""
        parts = name.split(".", 8)  # nobody wraps a model eight times
        wrappers = 0
        while wrappers < len(parts) - 1 and parts[wrappers] in TRANSPORT:
            wrappers += 1
        return ".".join(parts[wrappers:])

    def siblings(self, layer: BatchNorm) -> list[BatchNorm]:
        """The other BatchNorm layers of the smallest block around `layer` that has any.

        "layer1.0.downsample.1" is alone in its downsample; its siblings are those of "layer1.0".
        """
        block = layer.name
        while block:
            block = block.rpartition(".")[0]
            inside = f"{block}." if block else ""
            found = [other for other in self.batchnorms if other is not layer and other.name.startswith(inside)]
            if found:
                return found
        return []
