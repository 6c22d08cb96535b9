"""A file that was written, read again: it has to hold what was planned, and all else bit for bit."""

from __future__ import annotations

from bnlint.errors import UnreadableFile, UsageError
from bnlint.fixing.edit import Edit, NewTensor
from bnlint.readers.opening import open_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from bnlint.model.checkpoint import Checkpoint
    from bnlint.model.raw_file import RawFile
    from bnlint.model.state_dict import StateDict
    from bnlint.model.tensor import Storage, Tensor

CHUNK = 1 << 20


def verify(path: str, checkpoint: Checkpoint, edits: Sequence[Edit]) -> None:
    """UsageError where the file at `path` is not the checkpoint with the edits made."""
    edited = {edit.state_dict.key: edit for edit in edits}
    seen: set[tuple[int, int]] = set()
    written = _opened(path, edits[0].state_dict.key)
    if written.checkpoint is None:
        raise _difference(str(written.problem))
    try:
        if written.format != checkpoint.format:
            raise _difference(f"it is {written.format}")
        found = {state_dict.key: state_dict for state_dict in written.checkpoint.state_dicts}
        for state_dict in checkpoint.state_dicts:
            edit = edited.get(state_dict.key) or Edit(state_dict)
            if state_dict.key in found:
                _compare(edit, found[state_dict.key], seen)
            elif state_dict.key in edited:
                raise _difference(f"there is no state dict at {state_dict.key!r}")
    except UnreadableFile as problem:
        raise _difference(str(problem)) from None
    finally:
        written.checkpoint.close()


def _opened(path: str, key: str) -> RawFile:
    try:
        return open_file(path, key=key)
    except UsageError as problem:
        raise _difference(str(problem)) from None


def _compare(edit: Edit, found: StateDict, seen: set[tuple[int, int]]) -> None:
    wanted = dict(edit.tensors())
    if list(wanted) != list(found.tensors):
        raise _difference("its keys are others than planned")
    for name, tensor in wanted.items():
        if not _same(tensor, found.tensors[name], seen):
            raise _difference(f"{name[:80]!r} is not what it should be")
    if _modules(edit) != {name: found.versions.get(name) for name in found.metadata or {}}:
        raise _difference("its _metadata is not what it should be")


def _modules(edit: Edit) -> dict[str, int | None]:
    """The modules that `_metadata` names in the new file, with their versions."""
    versions = edit.state_dict.versions
    return {new: versions.get(module) for module, new in edit.metadata().items()}


def _same(wanted: Tensor | NewTensor, found: Tensor, seen: set[tuple[int, int]]) -> bool:
    if wanted.dtype != found.dtype or wanted.shape != found.shape:
        return False
    if isinstance(wanted, NewTensor):
        return found.raw() == wanted.data
    if (wanted.stride, wanted.offset) != (found.stride, found.offset):
        return False
    if wanted.storage is None or found.storage is None:
        return wanted.storage is found.storage
    pair = id(wanted.storage), id(found.storage)
    if pair not in seen:
        seen.add(pair)
        return _same_bytes(wanted.storage, found.storage)
    return True


def _same_bytes(one: Storage, other: Storage) -> bool:
    """True where two storages hold the same: many tensors may be views of one, which is read once."""
    return one.nbytes == other.nbytes and all(
        one.read(offset, size) == other.read(offset, size)
        for offset in range(0, one.nbytes, CHUNK)
        for size in (min(CHUNK, one.nbytes - offset),)
    )


def _difference(what: str) -> UsageError:
    return UsageError(f"the repaired file does not read as planned, so it was not kept: {what}")
