"""Every state dict in the object that a file holds, the one a user would load first in front.

A state dict is a mapping with tensors: the object itself, or one in it under a name such as `state_dict`,
or a tree of dicts by layer, or a whole pickled module. What optimizers, schedulers and callbacks keep is
told apart by name and by form.
"""

from __future__ import annotations

from bnlint.errors import UnreadableFile
from bnlint.model.batchnorm import COUNTER, HOLDERS
from bnlint.model.raw_file import Global
from bnlint.model.state_dict import TRANSPORT
from bnlint.model.tensor import Tensor
from bnlint.readers import wrapper_names
from bnlint.readers.batchnorms import STATISTICS, groups_in
from bnlint.readers.optimizer_states import is_optimizer, pairs
from bnlint.readers.values import Instance, NumpyArray, Opaque, OrderedMapping, as_tensor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from bnlint.model.module import ModuleTree
    from bnlint.readers.batchnorms import Group
    from bnlint.readers.modules import Model

DEPTH_LIMIT = 100
CONTAINER_LIMIT = 1_000_000
STATE_DICT_LIMIT = 10_000
ITEM_LIMIT = 1_000_000  # items that are looked at to tell layers from other dicts
NAME_LIMIT = 32 << 20  # characters in all names
_LEAVES = ("weight", "bias", *STATISTICS)
_DOUBTFUL = 100  # so many mappings that may not be state dicts are kept, in case nothing else is found
_WRAPPED = 4  # so many of what wraps a model can stand in front of a name
_COMPARED = 16  # so many models are compared with a copy
_SAME_MODEL = 0.8  # of a copy's keys are keys of the model that it follows
PLAIN = (str, int, float, bool)

MODEL, BESIDE, OPTIMIZER = range(3)  # what part of the file something lies in


class Candidate:
    """A mapping with tensors that may be a state dict. `part` is where it lies, `depth` how deep."""

    __slots__ = ("depth", "groups", "key", "metadata", "part", "role", "scalars", "tensors", "tree")

    def __init__(self, key: str, depth: int, part: int, tensors: Mapping[str, Tensor]) -> None:
        self.key = key
        self.depth = depth
        self.part = part
        self.tensors = tensors
        self.groups: Mapping[str, Group] = {}
        self.metadata: Mapping[str, Mapping[str, object]] | None = None
        self.scalars: Mapping[str, object] = {}
        self.tree: ModuleTree | None = None
        self.role = "model"

    @property
    def is_state_dict(self) -> bool:
        """True where there is no doubt: BatchNorm in it, or the names of a model in the place of one."""
        if self.groups or (self.tree is not None and self.tree.batchnorms):
            return True
        return self.part == MODEL and (_names_a_model(self.tensors) or (self.tree is not None and bool(self.tensors)))

    @property
    def order(self) -> tuple[bool, bool, bool, int, int]:
        """Sorts what a user would load first to the front."""
        average = wrapper_names.is_average(self.key)
        return self.role == "ema", not self.groups, average, wrapper_names.rank(self.key), self.depth


class _Contents:
    """What a mapping holds: `layers` are dicts that are layers of one model, `others` all other containers.

    `opaque` says what the tensors are that could not be understood.
    """

    __slots__ = ("layers", "opaque", "others", "scalars", "tensors")

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}
        self.opaque: dict[str, str] = {}
        self.scalars: dict[str, object] = {}
        self.layers: dict[str, dict[str, Tensor]] = {}
        self.others: list[tuple[str, object]] = []


class Search:
    """Walks the object of a file once. `candidates` and `optimizers` (place and mapping) are what it finds."""

    def __init__(self) -> None:
        self.candidates: list[Candidate] = []
        self.optimizers: list[tuple[str, Mapping[object, object]]] = []
        self._seen: set[int] = set()
        self._kept: list[object] = []  # keeps what was made on the way alive: `_seen` knows it by identity
        self._characters_left = NAME_LIMIT
        self._items_left = ITEM_LIMIT
        self._doubtful = 0

    def visit(self, value: object, key: str = "", depth: int = 0, part: int = MODEL) -> None:
        """Look for state dicts in a value that lies at `key`."""
        if not _is_container(value) or id(value) in self._seen or depth > DEPTH_LIMIT:
            return
        self._seen.add(id(value))
        if len(self._seen) > CONTAINER_LIMIT:
            raise UnreadableFile("limit", f"the file holds more than {CONTAINER_LIMIT} containers")
        if isinstance(value, dict):
            self._visit_mapping(value, key, depth, part)
        elif type(value) is Instance:
            self._visit_object(value, key, depth, part)
        elif isinstance(value, (list, tuple)):
            self._visit_elements(value, key, depth, part)

    def _visit_elements(self, elements: list[object] | tuple[object, ...], key: str, depth: int, part: int) -> None:
        tensors = {str(i): tensor for i, each in enumerate(elements) if (tensor := as_tensor(each))}
        if tensors and part != OPTIMIZER:
            self._add(Candidate(key, depth, BESIDE, tensors))
        for i, each in enumerate(elements):
            if _is_container(each):
                self.visit(each, self._joined(key, str(i)), depth + 1, part)

    def _visit_object(self, value: Instance, key: str, depth: int, part: int) -> None:
        from bnlint.readers.modules import is_module, read_module

        if is_module(value):
            if part != OPTIMIZER:
                self.add_model(read_module(value, key), key, depth, part)
            return
        if value.callee is not None and value.callee.module.startswith("torch.optim"):
            return  # a whole optimizer: its parameters have no names
        state = value.state[0] if type(value.state) is tuple and len(value.state) == 2 else value.state
        for inside in (dict(_hashable(pairs(value))), state, value.elements, value.args):
            self._kept.append(inside)
            self.visit(inside, key, depth + 1, part)

    def add_model(self, model: Model, key: str, depth: int = 0, part: int = MODEL) -> None:
        """Take in a whole model."""
        candidate = Candidate(key, depth, part, model.tensors)
        candidate.tree = model.tree
        candidate.scalars = _numbers(model.tensors)
        candidate.groups = groups_in(model.tensors, model.others)
        self._keep(candidate)

    def _visit_mapping(self, mapping: dict[object, object], key: str, depth: int, part: int) -> None:
        if is_optimizer(mapping):
            self.optimizers.append((key, mapping))
            return
        contents = self._contents(mapping, depth, part)
        known = len(self.candidates)
        for name, value in contents.others:
            self.visit(value, self._joined(key, name), depth + 1, _part_of(name, part))
        if part == OPTIMIZER:
            return
        wraps = any(candidate.is_state_dict for candidate in self.candidates[known:])
        if wraps and not _names_a_model(contents.tensors):
            for name, layer in contents.layers.items():  # what lies beside state dicts is not one with them
                self._add(Candidate(self._joined(key, name), depth + 1, _part_of(name, part), layer))
            return
        tensors = contents.tensors
        for name, layer in contents.layers.items():
            tensors.update((self._joined(name, leaf), tensor) for leaf, tensor in layer.items())
        if tensors:
            candidate = Candidate(key, depth, part, tensors)
            candidate.metadata = _metadata(mapping)
            candidate.scalars = {**contents.scalars, **_numbers(tensors)}
            self._add(candidate, contents.opaque)

    def _contents(self, mapping: dict[object, object], depth: int, part: int) -> _Contents:
        """What a mapping holds, sorted."""
        contents = _Contents()
        for name, value in _named(mapping):
            tensor = as_tensor(value)
            if tensor is not None:
                contents.tensors[name] = tensor
            elif type(value) in PLAIN:
                contents.scalars[name] = value
            elif type(value) is Opaque:
                contents.opaque[name] = value.what
            elif type(value) is NumpyArray:
                contents.opaque[name] = "an array of something else than numbers"
            elif _is_container(value):
                layer = None if part == OPTIMIZER or wrapper_names.is_wrapper(name) else self._layer(value, depth + 1)
                if layer and (_part_of(name, part) == part or _holds_statistics(layer)):
                    contents.layers[name] = layer
                else:
                    contents.others.append((name, value))
        return contents

    def _add(self, candidate: Candidate, opaque: Mapping[str, str] | None = None) -> None:
        candidate.groups = groups_in(candidate.tensors, opaque=opaque)
        self._keep(candidate)

    def _keep(self, candidate: Candidate) -> None:
        if candidate.is_state_dict or self._doubtful < _DOUBTFUL:
            self._doubtful += not candidate.is_state_dict
            self.candidates.append(candidate)
        if len(self.candidates) > STATE_DICT_LIMIT:
            raise UnreadableFile("limit", f"the file holds more than {STATE_DICT_LIMIT} state dicts")

    def _layer(self, value: object, depth: int) -> dict[str, Tensor] | None:
        """The tensors by dotted name of a dict that is a layer, or a tree of layers; None for anything else.

        In such a tree no name has a dot: `{"conv": {"weight": ...}, "bn": {"running_mean": ...}}`.
        """
        if not isinstance(value, dict) or id(value) in self._seen or depth > DEPTH_LIMIT or is_optimizer(value):
            return None
        self._items_left -= len(value) + 1
        if self._items_left < 0:
            raise UnreadableFile("limit", f"the file holds more than {ITEM_LIMIT} items in dicts of dicts")
        tensors: dict[str, Tensor] = {}
        for name, each in _named(value):
            tensor = as_tensor(each)
            if tensor is not None:
                if "." in name:
                    return None
                tensors[name] = tensor
            elif type(each) in (Opaque, NumpyArray) and name in (*STATISTICS, COUNTER):
                return None  # not as a part of something larger: what is not understood is told with its layer
            elif _is_container(each):
                below = None if "." in name else self._layer(each, depth + 1)
                if below is None:
                    return None
                tensors.update((self._joined(name, leaf), tensor) for leaf, tensor in below.items())
        return tensors

    def _joined(self, key: str, name: str) -> str:
        joined = f"{key}.{name}" if key else name
        self._characters_left -= len(joined)
        if self._characters_left < 0:
            raise UnreadableFile("limit", f"the names in the file have more than {NAME_LIMIT} characters")
        return joined


def choose(candidates: list[Candidate]) -> list[Candidate]:
    """The state dicts among the candidates, in order and with their roles; all candidates where none is one."""
    chosen = [each for each in candidates if each.is_state_dict] or candidates
    copies = [each for each in chosen if wrapper_names.is_average(each.key)]
    if copies:
        live = [each for each in chosen if not wrapper_names.is_average(each.key)][:_COMPARED]
        names = [{_bare(name) for name in model.tensors} for model in live]
        for copy in copies:
            if any(_follows(copy, model) for model in names):
                copy.role = "ema"
    return sorted(chosen, key=lambda candidate: candidate.order)


def _follows(copy: Candidate, model: set[str]) -> bool:
    """True where nearly all keys of the copy are names in the model, whatever wraps either."""
    common = sum(_bare(name) in model for name in copy.tensors)
    return common >= _SAME_MODEL * len(copy.tensors)


def _bare(name: str) -> str:
    """A tensor's name without what wraps the model: "module.model.bn1.weight" is "bn1.weight"."""
    for _ in range(_WRAPPED):
        first, dot, rest = name.partition(".")
        if not dot or (first not in TRANSPORT and first not in HOLDERS):
            break
        name = rest
    return name


def _part_of(name: str, part: int) -> int:
    """The part of the file that begins at `name`, in a part of the file."""
    if wrapper_names.is_optimizer(name):
        return OPTIMIZER
    return max(part, BESIDE) if wrapper_names.is_beside(name) else part


def _is_container(value: object) -> bool:
    return type(value) in (dict, OrderedMapping, list, tuple, Instance)


def _named(mapping: Mapping[object, object]) -> Iterator[tuple[str, object]]:
    """The items of a mapping by name; numbers and classes (Lightning's callbacks) are names too."""
    for key, value in mapping.items():
        if type(key) is str:
            yield key, value
        elif type(key) in (int, Global):
            yield str(key), value


def _hashable(items: Iterator[tuple[object, object]]) -> Iterator[tuple[object, object]]:
    return ((key, value) for key, value in items if type(key) in (str, int, Global))


def _names_a_model(tensors: Mapping[str, Tensor]) -> bool:
    return any(name.rpartition(".")[2] in _LEAVES for name in tensors)


def _holds_statistics(tensors: Mapping[str, Tensor]) -> bool:
    return any(name.rpartition(".")[2] in STATISTICS for name in tensors)


def _metadata(mapping: Mapping[object, object]) -> Mapping[str, Mapping[str, object]] | None:
    """torch's `_metadata`, which state_dict() sets as an attribute of its OrderedDict."""
    state = mapping.state if type(mapping) is OrderedMapping else None
    metadata = state.get("_metadata") if isinstance(state, dict) else None
    if not isinstance(metadata, dict):
        return None
    return {name: facts for name, facts in metadata.items() if type(name) is str and isinstance(facts, dict)}


def _numbers(tensors: Mapping[str, Tensor]) -> dict[str, object]:
    """How many models an AveragedModel averaged: a tensor, as a number."""
    averaged = tensors.get("n_averaged")
    if averaged is None or averaged.shape or averaged.dtype != "int64" or averaged.storage is None:
        return {}
    return {"n_averaged": averaged.values()[0]}
