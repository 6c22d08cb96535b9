"""What a format reader left of a file, put together as a Checkpoint: state dicts, layers, modules, optimizers."""

from __future__ import annotations

from bnlint.errors import UsageError
from bnlint.model.checkpoint import Checkpoint
from bnlint.model.state_dict import StateDict
from bnlint.readers.batchnorms import read_batchnorms
from bnlint.readers.state_dicts import PLAIN, Search, choose

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from bnlint.model.checkpoint import OptimizerState
    from bnlint.model.state_dict import Assumed
    from bnlint.readers.state_dicts import Candidate
    from bnlint.readers.values import Loaded

_LISTED = 8  # so many state dicts are named in a sentence


def assemble(loaded: Loaded, assumed: Assumed | None, key: str | None, close: Callable[[], None]) -> Checkpoint:
    """The checkpoint in a file, with the numbers of its BatchNorm layers read.

    The state dict at `key` comes first, where that is given; UsageError where there is none.
    """
    search = Search()
    notes = list(loaded.notes)
    if loaded.format == "torchscript":
        notes += _search_script(search, loaded)
    else:
        search.visit(loaded.root)
    candidates = choose(search.candidates)
    if key is not None:
        candidates = _put_first(key, candidates, search.candidates)
    state_dicts = [_state_dict(candidate, assumed) for candidate in candidates]
    groups = [candidate.groups for candidate in candidates]
    notes += read_batchnorms(list(zip(state_dicts, groups, strict=True)))
    _connect_modules(candidates, state_dicts)
    notes += _which_were_read(candidates)
    return Checkpoint(
        loaded.format,
        state_dicts,
        optimizers=list(_optimizers(search, state_dicts)),
        module_trees=[candidate.tree for candidate in candidates if candidate.tree is not None],
        globals=list(dict.fromkeys(map(str, loaded.globals))),
        scalars=_scalars(loaded.root),
        notes=notes,
        close=close,
    )


def _search_script(search: Search, loaded: Loaded) -> Iterator[str]:
    from bnlint.readers.torchscript import read_script

    model = read_script(loaded)
    if model is None:
        search.visit(loaded.root)
        return
    search.add_model(model, key="")
    if not model.tensors and loaded.parts.get("constants"):
        yield "a frozen archive: its weights are constants without names, its BatchNorm is part of the convolutions"


def _put_first(key: str, chosen: list[Candidate], candidates: list[Candidate]) -> list[Candidate]:
    found = next((each for each in [*chosen, *candidates] if each.key == key), None)
    if found is None:
        if [candidate.key for candidate in chosen] == [""]:
            raise UsageError(f"there is no state dict at {key!r}: the file itself is the only state dict")
        keys = [repr(candidate.key)[:80] for candidate in chosen]
        rest = len(keys) - _LISTED
        told = ", ".join(keys[:_LISTED]) + (f" and {rest} more" if rest > 0 else "")
        raise UsageError(f"there is no state dict at {key!r}; there is {told or 'none at all'}")
    return [found, *(candidate for candidate in chosen if candidate is not found)]


def _state_dict(candidate: Candidate, assumed: Assumed | None) -> StateDict:
    return StateDict(
        candidate.key,
        candidate.tensors,
        metadata=candidate.metadata,
        role=candidate.role,
        assumed=assumed,
        scalars=candidate.scalars,
    )


def _connect_modules(candidates: Sequence[Candidate], state_dicts: Sequence[StateDict]) -> None:
    """Let each BatchNorm module know its numbers, and these their module."""
    for candidate, state_dict in zip(candidates, state_dicts, strict=True):
        for module in candidate.tree.batchnorms if candidate.tree is not None else ():
            module.layer = state_dict.batchnorm(module.name)
            if module.layer is not None:
                module.layer.module = module


def _which_were_read(candidates: Sequence[Candidate]) -> Iterator[str]:
    keys = [repr(candidate.key)[:80] for candidate in candidates]
    if len(keys) > 1:
        rest = len(keys) - _LISTED
        then = ", ".join(keys[1:_LISTED]) + (f" and {rest} more" if rest > 0 else "")
        yield f"read state dict {keys[0]} first, then {then}"
    elif candidates and candidates[0].key and candidates[0].is_state_dict:
        yield f"read state dict {keys[0]}"


def _optimizers(search: Search, state_dicts: Sequence[StateDict]) -> Iterator[OptimizerState]:
    """The optimizers of the file. Their step counts cost a read each, and matter beside BatchNorm only."""
    if not search.optimizers:
        return
    from bnlint.readers.optimizer_states import read_optimizer

    with_steps = any(state_dict.batchnorms for state_dict in state_dicts)
    for key, mapping in search.optimizers:
        yield read_optimizer(mapping, key, with_steps=with_steps)


def _scalars(root: object) -> dict[str, object]:
    """Plain numbers and texts at the top of the file."""
    if not isinstance(root, dict):
        return {}
    return {name: value for name, value in root.items() if type(name) is str and type(value) in PLAIN}
