"""A checkpoint: every state dict in a file, its optimizers and its modules."""

from __future__ import annotations

from bnlint.finding import Location

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from types import TracebackType

    from bnlint.model.batchnorm import BatchNorm
    from bnlint.model.module import ModuleTree
    from bnlint.model.optimizer_mapping import Training
    from bnlint.model.state_dict import StateDict
    from bnlint.model.tensor import Tensor


class OptimizerState:
    """What an optimizer's state dict says of training.

    `groups` lists, per parameter group, the parameter indices in order (old torch wrote ids of
    Python objects there: opaque integers all the same). `names` gives a name per index where the
    file has `param_names`. `state` holds, per index that has any state, its facts: "step" (a number)
    and the shape of each tensor in it ("exp_avg": (64,)). `key` is its place in the file.
    """

    __slots__ = ("groups", "key", "names", "state")

    def __init__(
        self,
        key: str,
        groups: Sequence[Sequence[int]],
        state: Mapping[int, Mapping[str, object]],
        names: Mapping[int, str] | None = None,
    ) -> None:
        self.key = key
        self.groups = groups
        self.state = state
        self.names: Mapping[int, str] = names or {}

    def steps(self, index: int) -> int | None:
        """How often it stepped this parameter; None where it does not count (SGD) or never had a gradient."""
        step = self.state.get(index, {}).get("step")
        return int(step) if isinstance(step, int | float) and 0 < step < 1 << 60 else None


class Checkpoint:
    """An opened checkpoint. A context manager: closing it closes the file.

    `format` as in the JSON report ("torch-zip", "safetensors"). `state_dicts` lists every state dict
    in the file, the one a user would load first (`--key` puts another first); `tensors` and
    `batchnorms` are those of the first. `modules` is the first pickled or scripted model, None in a
    plain state dict; `module_trees` all of them. `globals` names every class and function that
    loading the file with pickle would import. `scalars` holds plain numbers and strings at the top of
    the file (epoch, global_step). `notes` says what a reader should know: trailing bytes, which
    wrapper was read.
    """

    __slots__ = ("_close", "format", "globals", "module_trees", "notes", "optimizers", "scalars", "state_dicts")

    def __init__(
        self,
        format: str,
        state_dicts: Sequence[StateDict],
        *,
        optimizers: Sequence[OptimizerState] = (),
        module_trees: Sequence[ModuleTree] = (),
        globals: Sequence[str] = (),
        scalars: Mapping[str, object] | None = None,
        notes: Sequence[str] = (),
        close: object = None,
    ) -> None:
        self.format = format
        self.state_dicts = list(state_dicts)
        self.optimizers = list(optimizers)
        self.module_trees = list(module_trees)
        self.globals = list(globals)
        self.scalars: Mapping[str, object] = scalars or {}
        self.notes = list(notes)
        self._close = close
        for state_dict in self.state_dicts:
            state_dict.checkpoint = self

    def training(self, state_dict: StateDict) -> Training | None:
        """What the file's optimizers say of a state dict's parameters; None where they prove nothing."""
        if not self.optimizers:
            return None
        from bnlint.model.optimizer_mapping import training_of

        return training_of(state_dict, self)

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        return self.state_dicts[0].tensors if self.state_dicts else {}

    @property
    def batchnorms(self) -> list[BatchNorm]:
        return self.state_dicts[0].batchnorms if self.state_dicts else []

    @property
    def modules(self) -> ModuleTree | None:
        return self.module_trees[0] if self.module_trees else None

    def at(self) -> Location:
        """The checkpoint as a whole as a place."""
        return Location()

    def subjects(self) -> Iterator[object]:
        """The checkpoint and everything in it that a rule can look at."""
        yield self
        for state_dict in self.state_dicts:
            yield from state_dict.subjects()
        for tree in self.module_trees:
            yield from tree.subjects()

    def close(self) -> None:
        if callable(self._close):
            self._close()
            self._close = None

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
