"""Pickled nn.Modules: the state dict that such a module would give, and the settings of its BatchNorm layers."""

from __future__ import annotations

from bnlint.errors import UnreadableFile
from bnlint.model.module import BatchNormModule, ModuleTree
from bnlint.model.raw_file import Global
from bnlint.readers.values import Instance, as_tensor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from bnlint.model.tensor import Tensor

MODULE_LIMIT = 50_000
DEPTH_LIMIT = 100
NAME_LIMIT = 32 << 20  # characters in all names
# How pickle makes objects of a class that is the first argument.
_CONSTRUCTORS = ("_reconstructor", "__newobj__", "__newobj_ex__")


class Parts:
    """What one module is made of: its own parameters and persistent buffers, its children, its settings.

    `settings` are the attributes of its class by name: training, eps, momentum ...
    """

    __slots__ = ("buffers", "children", "class_module", "class_name", "parameters", "settings")

    def __init__(
        self,
        class_module: str,
        class_name: str,
        parameters: Mapping[str, Tensor],
        buffers: Mapping[str, Tensor | None],
        children: Mapping[str, object],
        settings: Mapping[str, object],
    ) -> None:
        self.class_module = class_module
        self.class_name = class_name
        self.parameters = parameters
        self.buffers = buffers
        self.children = children
        self.settings = settings


class Model:
    """A model of the file: `tensors` in the order of torch's state_dict(), and the `tree` of its modules.

    `others` names its modules that have running statistics and are not BatchNorm.
    """

    __slots__ = ("others", "tensors", "tree")

    def __init__(self, tensors: Mapping[str, Tensor], tree: ModuleTree, others: Sequence[str]) -> None:
        self.tensors = tensors
        self.tree = tree
        self.others = frozenset(others)


def is_module(value: object) -> bool:
    """True for a pickled nn.Module."""
    attributes = _attributes(value)
    return "_modules" in attributes and ("_parameters" in attributes or "_buffers" in attributes)


def read_module(module: object, key: str) -> Model:
    """The model that a pickled module is. UnreadableFile where it contains itself or is over a limit."""
    return Walk(pickled_parts, "pickle").model(module, key)


def pickled_parts(value: object) -> Parts | None:
    """The parts of a pickled nn.Module, None for anything else."""
    if not is_module(value):
        return None
    attributes = _attributes(value)
    class_ = class_of(value)
    transient = attributes.get("_non_persistent_buffers_set")
    skipped = transient if isinstance(transient, (set, frozenset)) else ()
    return Parts(
        class_.module,
        class_.name,
        {name: each for name, value in _pairs(attributes.get("_parameters")) if (each := as_tensor(value))},
        {name: as_tensor(value) for name, value in _pairs(attributes.get("_buffers")) if name not in skipped},
        dict(_pairs(attributes.get("_modules"))),
        attributes,
    )


def class_of(value: object) -> Global:
    """The class of a pickled object; one without a name where the pickle computes it."""
    callee = value.callee if type(value) is Instance else None
    args = value.args if type(value) is Instance else None
    if callee is not None and callee.name in _CONSTRUCTORS and type(args) is tuple and args:
        callee = args[0]
    return callee if type(callee) is Global else Global("", "Module", 0)


def _attributes(value: object) -> Mapping[str, object]:
    """The `__dict__` of a pickled object, as far as its keys are text."""
    if type(value) is not Instance:
        return {}
    state = value.state
    if type(state) is tuple and len(state) == 2:  # a class with __slots__
        state = state[0]
    if state is None and type(value.args) is tuple and value.args:
        state = value.args[0]  # torch.fx: reduce_graph_module(__dict__, ...)
        if value.callee is not None and value.callee.name == "OptimizedModule":  # torch.compile: (module, context)
            training = _attributes(state).get("training")
            return {"training": training, "_parameters": {}, "_modules": {"_orig_mod": state}}
    return state if isinstance(state, dict) else {}


def _pairs(value: object) -> Iterator[tuple[str, object]]:
    pairs = value.items() if isinstance(value, dict) else getattr(value, "items", None) or ()
    return ((name, each) for name, each in pairs if type(name) is str)


# -- walking ------------------------------------------------------------------------------------------


class Walk:
    """One walk through a model, in the order of torch's state_dict(): parameters, buffers, children."""

    def __init__(self, parts_of: Callable[[object], Parts | None], origin: str) -> None:
        self.parts_of = parts_of
        self.origin = origin
        self.tensors: dict[str, Tensor] = {}
        self.trainable: list[tuple[str, bool]] = []  # every parameter so far, and its requires_grad
        self.batchnorms: list[BatchNormModule] = []
        self.others: list[str] = []
        self._seen: set[int] = set()
        self._open: set[int] = set()
        self._modules_left = MODULE_LIMIT
        self._characters_left = NAME_LIMIT

    def model(self, root: object, key: str) -> Model:
        """The model whose root module is `root`; `key` is its place in the file."""
        parts = self.parts_of(root)
        assert parts is not None
        self._visit(root, parts, "", {})
        name = f"{parts.class_module}.{parts.class_name}".lstrip(".")
        tree = ModuleTree(name, self.batchnorms, training=_truth(parts, "training"), origin=self.origin, key=key)
        return Model(self.tensors, tree, self.others)

    def _visit(self, module: object, parts: Parts, name: str, preceding: Mapping[str, bool]) -> None:
        self._enter(module, name)
        prefix = f"{name}." if name else ""
        for leaf, parameter in parts.parameters.items():
            self._add(prefix + leaf, parameter)
            if parameter.requires_grad is not None:
                self.trainable.append((prefix + leaf, parameter.requires_grad))
        for leaf, buffer in parts.buffers.items():
            if buffer is not None:
                self._add(prefix + leaf, buffer)
        if id(module) not in self._seen:  # a shared module is listed once, as in named_modules()
            self._seen.add(id(module))
            if is_batchnorm(parts):
                self.batchnorms.append(batchnorm_module(name, parts, preceding, self.origin))
        if is_other_norm(parts):
            self.others.append(name)
        before: Mapping[str, bool] = {}
        for child_name, child in parts.children.items():
            child_parts = self.parts_of(child)
            if child_parts is not None:
                known = len(self.trainable)
                self._visit(child, child_parts, prefix + child_name, before)
                before = dict(self.trainable[known:]) or before
        self._open.remove(id(module))

    def _enter(self, module: object, name: str) -> None:
        if id(module) in self._open:
            raise UnreadableFile("corrupt", f"module {name[:80]!r} contains itself")
        self._open.add(id(module))
        self._modules_left -= 1
        if self._modules_left < 0:
            raise UnreadableFile("limit", f"the model has more than {MODULE_LIMIT} modules")
        if len(self._open) > DEPTH_LIMIT:
            raise UnreadableFile("limit", f"more than {DEPTH_LIMIT} modules are nested in each other")
        self._count(name)

    def _add(self, name: str, tensor: Tensor) -> None:
        self._count(name)
        self.tensors[name] = tensor

    def _count(self, name: str) -> None:
        self._characters_left -= len(name)
        if self._characters_left < 0:
            raise UnreadableFile("limit", f"the names in the model have more than {NAME_LIMIT} characters")


# -- BatchNorm ----------------------------------------------------------------------------------------


def is_batchnorm(parts: Parts) -> bool:
    """True for torch's BatchNorm classes, and for others that are called so and keep a running mean.

    A frozen BatchNorm (detectron2, torchvision) has no mode and no parameters: nothing to say about it.
    """
    if parts.class_module == "torch.nn.modules.batchnorm":
        return True
    name = parts.class_name.lower()
    called_so = "batchnorm" in name.replace("_", "") or name.rstrip("123d").endswith("bn")
    return called_so and "running_mean" in parts.buffers and "frozen" not in name


def is_other_norm(parts: Parts) -> bool:
    """True for InstanceNorm, whose statistics have BatchNorm's names."""
    return "instancenorm" in parts.class_name.lower().replace("_", "")


def batchnorm_module(name: str, parts: Parts, preceding: Mapping[str, bool], origin: str) -> BatchNormModule:
    """The settings of a BatchNorm module."""
    momentum = parts.settings.get("momentum", parts)  # None is a momentum: the cumulative average
    return BatchNormModule(
        name,
        kind=parts.class_name,
        origin=origin,
        training=_truth(parts, "training"),
        momentum=_number(momentum),
        momentum_known=momentum is None or _number(momentum) is not None,
        eps=_number(parts.settings.get("eps")),
        affine=_truth(parts, "affine"),
        track_running_stats=_truth(parts, "track_running_stats"),
        requires_grad={
            leaf: parts.parameters[leaf].requires_grad is not False
            for leaf in ("weight", "bias")
            if leaf in parts.parameters
        },
        preceding=preceding,
    )


def _truth(parts: Parts, name: str) -> bool | None:
    value = parts.settings.get(name)
    return value if type(value) is bool else None


def _number(value: object) -> float | None:
    if type(value) is int and abs(value) < 1 << 53:
        return float(value)
    return value if type(value) is float else None
