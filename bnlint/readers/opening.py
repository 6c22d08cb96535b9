"""From a path to a RawFile with its Checkpoint: the one boundary between bytes and everything else.

Whatever is wrong with a file ends here, as its problem. Nothing that a file holds makes this raise.
"""

from __future__ import annotations

import os

from bnlint.errors import UnreadableFile, UsageError
from bnlint.model.raw_file import Global, RawFile
from bnlint.readers.assembling import assemble
from bnlint.readers.sniffing import Stranger, sniff, tar_stranger, zip_stranger
from bnlint.readers.source import Source

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from bnlint.model.checkpoint import Checkpoint
    from bnlint.model.state_dict import Assumed
    from bnlint.readers.values import Loaded

# What becomes of a file with a problem of this code; of every other, "unreadable".
_STATUS_IF_NAMED = {
    "html": "not-a-checkpoint",
    "text": "not-a-checkpoint",
    "image": "not-a-checkpoint",
    "unknown": "not-a-checkpoint",
    "unsupported": "skipped",
}
# Who says what an archive is that is none of torch's.
_STRANGERS = {"torch-zip": zip_stranger, "torch-tar": tar_stranger}


def open_file(path: str, *, named: bool = True, assumed: Assumed | None = None, key: str | None = None) -> RawFile:
    """Read a file as far as it can be read; `named` is False where it was met in a folder.

    What is wrong with it is in `.problem`. The caller closes `.checkpoint`, where there is one. `key` puts
    the state dict at that place first; UsageError where the file can be read and has none there.
    """
    file = RawFile(path, named=named)
    opened = _Sources(path)
    try:
        _read(file, opened, assumed, key)
    except UsageError:
        raise
    except UnreadableFile as problem:
        _refuse(file, problem)
    except RecursionError:
        _refuse(file, UnreadableFile("limit", "is nested too deeply"))
    except MemoryError:
        _refuse(file, UnreadableFile("limit", "takes more memory than there is"))
    except OSError as error:
        _refuse(file, UnreadableFile("io", f"cannot be read: {error.strerror or type(error).__name__}"))
    except Exception as error:  # the one place: a slip of any reader is a damaged file, not a crash
        slip = UnreadableFile("corrupt", f"cannot be read ({type(error).__name__})")
        slip.__cause__ = error
        _refuse(file, slip)
    finally:
        if file.checkpoint is None:
            opened.close()
    return file


def _read(file: RawFile, opened: _Sources, assumed: Assumed | None, key: str | None) -> None:
    source = opened.open("")
    file.size = source.size
    kind = sniff(source, file.path)
    file.format = None if kind == "index" else kind
    loaded = _load_shards(source, opened) if kind == "index" else _load(kind, source)
    file.format = loaded.format
    file.globals = loaded.globals
    file.facts.update(loaded.facts)
    checkpoint = assemble(loaded, assumed, key, opened.close)
    file.notes = checkpoint.notes
    file.status = "checked" if _has_batchnorm(checkpoint) else "nothing-to-check"
    file.facts.update(_facts(checkpoint))
    file.checkpoint = checkpoint


def _load(kind: str, source: Source) -> Loaded:
    """The object in a file of this kind."""
    try:
        return _reader(kind)(source)
    except UnreadableFile as problem:
        if problem.code == "unsupported" and kind in _STRANGERS:
            raise _STRANGERS[kind](source) from None
        raise


def _reader(kind: str) -> Callable[[Source], Loaded]:
    if kind == "torch-zip":
        from bnlint.readers import torch_zip

        return torch_zip.load
    if kind == "torch-legacy":
        from bnlint.readers import torch_legacy

        return torch_legacy.load
    if kind == "safetensors":
        from bnlint.readers import safetensors

        return safetensors.load
    if kind == "torch-tar":
        from bnlint.readers import torch_tar

        return torch_tar.load
    from bnlint.readers import raw_pickle

    return raw_pickle.load


def _load_shards(source: Source, opened: _Sources) -> Loaded:
    """The shards that an index names."""
    from bnlint.readers import shards

    def open_shard(name: str) -> Loaded:
        shard = opened.open(name)
        kind = sniff(shard, name)
        if kind == "index":
            raise UnreadableFile("path", "is an index itself")
        return _load(kind, shard)

    return shards.load(source, open_shard)


class _Sources:
    """The files that a checkpoint is read from: the one at `path`, and others beside it."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._sources: list[Source] = []

    def open(self, name: str) -> Source:
        """The file of that name beside the checkpoint; "" is the checkpoint itself."""
        source = Source(os.path.join(os.path.dirname(self._path), name) if name else self._path)
        self._sources.append(source)
        return source

    def close(self) -> None:
        for source in self._sources:
            source.close()


def _has_batchnorm(checkpoint: Checkpoint) -> bool:
    return any(state_dict.batchnorms for state_dict in checkpoint.state_dicts) or any(
        tree.batchnorms for tree in checkpoint.module_trees
    )


def _facts(checkpoint: Checkpoint) -> dict[str, object]:
    """What there is to say of a file that is a pickled module."""
    for tree in checkpoint.module_trees:
        if tree.origin == "pickle" and not tree.key:
            return {"pickled_module": tree.class_name, "training": tree.training}
    return {}


def _refuse(file: RawFile, problem: UnreadableFile) -> None:
    """Say of a file why it was not read, and all that is known of it nevertheless."""
    file.problem = problem
    file.globals = [each for each in problem.globals if isinstance(each, Global)] or file.globals
    file.status = _STATUS_IF_NAMED.get(problem.code, "unreadable")
    if not file.named and file.status == "not-a-checkpoint":
        file.status = "skipped"
    if isinstance(problem, Stranger):
        file.format = problem.format
        file.facts.update(problem.facts)
