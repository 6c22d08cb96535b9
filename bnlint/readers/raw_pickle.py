"""Plain pickles: numpy arrays of any protocol and Python, pickled tensors, joblib files."""

from __future__ import annotations

from bnlint.errors import UnreadableFile
from bnlint.readers.pickle_machine import PickleMachine
from bnlint.readers.values import Loaded

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bnlint.readers.source import ByteSource
    from bnlint.readers.values import Instance

STACKED_LIMIT = 64  # pickles in a row whose names are listed


def load(source: ByteSource) -> Loaded:
    """The first object in the file, and the names in all its pickles. A torch file from before 1.6 is read as one.

    UnreadableFile where the bytes are not what they say they are.
    """
    arrays = _ArraysInStream()
    machine = PickleMachine(source, after_build=arrays.read)
    root = machine.load()
    from bnlint.readers import torch_legacy

    if root == torch_legacy.MAGIC_NUMBER:
        return torch_legacy.load(source)
    notes = _read_on(machine)
    return Loaded(
        "joblib" if arrays.found else "pickle",
        root,
        globals=list(machine.globals.values()),
        facts={"python2": True} if machine.python2 else {},
        notes=notes,
    )


class _ArraysInStream:
    """joblib's arrays; `found` says whether there was one."""

    def __init__(self) -> None:
        self.found = False

    def read(self, machine: PickleMachine, instance: Instance) -> object:
        """The array that follows its wrapper in the stream; any other object as it is."""
        if instance.callee is None or instance.callee.name != "NumpyArrayWrapper":
            return instance
        from bnlint.readers.joblib_arrays import read_array

        self.found = True
        return read_array(machine, instance)


def _read_on(machine: PickleMachine) -> list[str]:
    """Run the pickles that follow, so that their names are known too; what there is to say of them."""
    end = machine.source.size
    pickles, read = 1, machine.position
    while read < end and pickles < STACKED_LIMIT:
        try:
            machine.load()
        except UnreadableFile:
            break  # no pickle: its bytes are counted below
        pickles, read = pickles + 1, machine.position
    notes = [f"the file holds {pickles} pickles one after the other, of which the first is read"] if pickles > 1 else []
    if read < end:
        notes.append(f"{end - read} bytes follow the last pickle")
    return notes
