"""Repairs of a checkpoint that lose nothing, written to a new file of the same container.

`Repairs` says what is asked for, `open_fix` plans it, `Fix.write` writes the new file, has it read again and
only then gives it its name. No byte of the old file is executed; what no repair names is copied bit for bit.
"""

from __future__ import annotations

import os

from bnlint.errors import UnreadableFile, UsageError
from bnlint.fixing.repairs import Repairs, plan
from bnlint.readers.opening import open_file
from bnlint.readers.sniffing import sniff
from bnlint.readers.source import Source

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from bnlint.comparing import Reference
    from bnlint.fixing.edit import Edit
    from bnlint.fixing.new_file import Write
    from bnlint.model.checkpoint import Checkpoint
    from bnlint.model.raw_file import RawFile
    from bnlint.model.state_dict import StateDict

__all__ = ["Fix", "Repairs", "open_fix"]

_LEGACY = "torch.save(torch.load({path!r}, weights_only=True), NEW)"
_HOW_TO_CONVERT = {
    "torch-legacy": _LEGACY,
    "torch-tar": _LEGACY,
    "torchscript": "torch.save(torch.jit.load({path!r}).state_dict(), NEW)",
    "index": "load all shards and torch.save the state dict to one file",
    "pickle": "torch.save({{name: torch.as_tensor(array) for name, array in weights.items()}}, NEW)",
}
_WHOLE_MODEL = "torch.save(model.state_dict(), NEW)"


class Fix:
    """A checkpoint, and what is to change in it: an edit for each state dict asked for. Closed as a context manager.

    `left_alone` are the state dicts that nobody asked for.
    """

    def __init__(self, path: str, kind: str, checkpoint: Checkpoint, edits: list[Edit]) -> None:
        self.path = path
        self.edits = edits
        self._kind = kind
        self._checkpoint = checkpoint

    def __bool__(self) -> bool:
        return any(self.edits)

    @property
    def left_alone(self) -> list[str]:
        """The keys of the state dicts in the file that are not repaired."""
        edited = [edit.state_dict for edit in self.edits]
        return [each.key for each in self._checkpoint.state_dicts if each not in edited]

    def write(self, path: str, *, force: bool = False) -> int:
        """Write the repaired file, read it again, and give it its name; returns its size.

        UsageError where that cannot be done; then there is nothing new at `path`.
        """
        from bnlint.fixing.new_file import write_new
        from bnlint.fixing.verifying import verify

        def read_again(unfinished: str) -> None:
            verify(unfinished, self._checkpoint, self.edits)

        try:
            return write_new(path, self._write, read_again, expected=os.path.getsize(self.path), force=force)
        except UnreadableFile as problem:
            raise UsageError(f"{self.path}: {problem}{self._conversion(problem)}") from None
        except RecursionError:
            raise UsageError(f"{self.path}: is nested too deeply") from None

    def _write(self, stream: Write) -> None:
        with Source(self.path) as source:
            if self._kind == "safetensors":
                from bnlint.fixing import safetensors

                safetensors.write(source, self.edits[0], stream)
            else:
                from bnlint.fixing import torch_zip

                torch_zip.write(source, self.edits, stream)

    @staticmethod
    def _conversion(problem: UnreadableFile) -> str:
        return f"; `{_WHOLE_MODEL}` writes one" if problem.code == "unsupported" else ""

    def __enter__(self) -> Fix:
        return self

    def __exit__(self, *raised: object) -> None:
        self._checkpoint.close()


def open_fix(path: str, repairs: Repairs, *, keys: Sequence[str] = (), reference: Reference | None = None) -> Fix:
    """Plan the repairs of the state dicts at `keys` in the checkpoint at `path`; of the first where none is named.

    UsageError for a file that cannot be read or is in a format that is not written, for a key that is not in
    it, and as for `bnlint.fixing.repairs.plan`.
    """
    if not os.path.exists(path):
        raise UsageError(f"{path}: no such file")
    raw = open_file(path, key=keys[0] if keys else None)
    if raw.checkpoint is None:
        raise UsageError(f"{path}: {raw.problem}")
    try:
        kind = _kind(raw)
        state_dicts = list(_chosen(raw.checkpoint, path, keys))
        edits = [plan(each, repairs, reference, _writable(kind), path) for each in state_dicts]
    except UnreadableFile as problem:
        raw.checkpoint.close()
        raise UsageError(f"{path}: {problem}") from None
    except BaseException:
        raw.checkpoint.close()
        raise
    return Fix(path, kind, raw.checkpoint, edits)


def _kind(raw: RawFile) -> str:
    """The container of the file; UsageError for one that is not written, with the line that converts it."""
    with Source(raw.path) as source:
        kind = sniff(source, raw.path)
    if kind == raw.format and kind in ("torch-zip", "safetensors"):
        return kind
    kind = "index" if kind == "index" else str(raw.format)
    how = _HOW_TO_CONVERT.get(kind, _WHOLE_MODEL).format(path=os.path.basename(raw.path))
    what = "an index of shards" if kind == "index" else kind
    raise UsageError(f"{raw.path}: is {what}; only torch zip archives and safetensors are repaired. Convert it: {how}")


def _writable(kind: str) -> Collection[str]:
    if kind == "safetensors":
        from bnlint.fixing.safetensors import WRITABLE
    else:
        from bnlint.fixing.program_edits import WRITABLE
    return WRITABLE


def _chosen(checkpoint: Checkpoint, path: str, keys: Sequence[str]) -> list[StateDict]:
    if not checkpoint.state_dicts:
        raise UsageError(f"{path}: holds no state dict")
    if not keys:
        return checkpoint.state_dicts[:1]
    found = {state_dict.key: state_dict for state_dict in checkpoint.state_dicts}
    for key in keys:
        if key not in found:
            raise UsageError(f"--key: there is no state dict at {key!r}; there is {', '.join(map(repr, found))}")
    return [found[key] for key in dict.fromkeys(keys)]
