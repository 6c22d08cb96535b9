"""What is to change in one state dict of a file: keys that are renamed, tensors that come, go or are replaced."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from bnlint.model.state_dict import StateDict
    from bnlint.model.tensor import Tensor


class NewTensor:
    """A contiguous tensor that the new file has and the old one has not: its bytes, little-endian."""

    __slots__ = ("data", "dtype", "shape")

    def __init__(self, dtype: str, shape: Sequence[int], data: bytes) -> None:
        self.dtype = dtype
        self.shape = tuple(shape)
        self.data = data

    @classmethod
    def counter(cls, batches: int, shape: Sequence[int] = ()) -> NewTensor:
        """A num_batches_tracked, int64."""
        return cls("int64", shape, batches.to_bytes(8, "little", signed=True))


class Edit:
    """The changes of one state dict, by the keys it has now.

    `names` maps keys to their new names, where those differ. `dropped` are the keys that go. `replaced`
    are the tensors that others stand in for. `added` maps a key to the tensor that comes right behind it,
    with the name that it would have if nothing were renamed; `names` holds its new name too.
    `left` says what was asked for and could not be done, a sentence each.
    """

    __slots__ = ("added", "dropped", "left", "names", "replaced", "state_dict")

    def __init__(self, state_dict: StateDict) -> None:
        self.state_dict = state_dict
        self.names: dict[str, str] = {}
        self.dropped: set[str] = set()
        self.replaced: dict[str, NewTensor] = {}
        self.added: dict[str, tuple[str, NewTensor]] = {}
        self.left: list[str] = []

    def __bool__(self) -> bool:
        return bool(self.names or self.dropped or self.replaced or self.added)

    def name(self, key: str) -> str:
        """What a key is called in the new file."""
        return self.names.get(key, key)

    def keys(self) -> Iterator[str]:
        """The keys of the new file in order, by the names that they would have if nothing were renamed."""
        for key in self.state_dict.tensors:
            if key not in self.dropped:
                yield key
            if key in self.added:
                yield self.added[key][0]

    def tensors(self) -> Iterator[tuple[str, Tensor | NewTensor]]:
        """What the state dict holds in the new file, in order."""
        for key, tensor in self.state_dict.tensors.items():
            if key not in self.dropped:
                yield self.name(key), self.replaced.get(key, tensor)
            if key in self.added:
                name, new = self.added[key]
                yield self.name(name), new

    def metadata(self) -> dict[str, str]:
        """What the entries of torch's `_metadata` are called in the new file; those that have no place any more
        are left out."""
        return self.modules(self.state_dict.metadata or {})

    def modules(self, modules: Iterable[str]) -> dict[str, str]:
        """What modules are called in the new file; those that have no place any more are left out."""
        return renamed_modules(modules, {key: self.name(key) for key in self.state_dict.tensors})


def renamed_modules(modules: Iterable[str], names: Mapping[str, str]) -> dict[str, str]:
    """What modules are called once the keys of their tensors carry the names that `names` gives them.

    A module that holds tensors goes where they go, one without any (a ReLU) where the module around it goes.
    Where two would be called alike, the one that was renamed stays.
    """
    places = _places(names)
    emptied = {module for key, name in names.items() if key != name for module in _around(key)}
    renamed: dict[str, str] = {}
    for module in modules:
        nearest = next((each for each in (module, *_around(module)) if each in places), None)
        if nearest is not None:
            rest = module[len(nearest) :].removeprefix(".")
            renamed[module] = ".".join(part for part in (places[nearest], rest) if part)
        elif not module or module not in emptied:
            renamed[module] = module
    moved = {new for module, new in renamed.items() if module != new}
    owners: dict[str, str] = {}
    for module, new in renamed.items():
        if module != new or new not in moved:
            owners.setdefault(new, module)
    return {module: new for new, module in owners.items()}


def _places(names: Mapping[str, str]) -> dict[str, str]:
    """Where the modules around each key went: they end where the old and the new name begin to end alike."""
    places: dict[str, str] = {}
    for key, name in names.items():
        old, new = key, name
        while old and new and old.rpartition(".")[2] == new.rpartition(".")[2]:
            old, new = old.rpartition(".")[0], new.rpartition(".")[0]
            places.setdefault(old, new)
    return places


def _around(name: str) -> Iterator[str]:
    """The modules that a key or module lies in, the innermost first, the model as a whole last."""
    while name:
        name = name.rpartition(".")[0]
        yield name
