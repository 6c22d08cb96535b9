"""Arrays of joblib.dump: their bytes stand in the pickle's stream, right after the object that describes them."""

from __future__ import annotations

from math import prod

from bnlint.errors import UnreadableFile
from bnlint.model.tensor import ITEM_SIZE
from bnlint.readers.rebuild_numpy import NumpyDtype, array
from bnlint.readers.storages import sizes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bnlint.readers.pickle_machine import PickleMachine
    from bnlint.readers.values import Instance


def read_array(machine: PickleMachine, wrapper: Instance) -> object:
    """The array that follows its wrapper (joblib/numpy_pickle.py); its bytes are skipped, not read."""
    state = wrapper.state
    if type(state) is not dict:
        raise UnreadableFile("pickle", "an array of joblib is damaged")
    shape, dtype = sizes(machine, state.get("shape")), state.get("dtype")
    if type(dtype) is not NumpyDtype:
        raise UnreadableFile("pickle", "an array of joblib is damaged")
    if dtype.name is None:
        raise UnreadableFile("unsupported", "is a joblib file with arrays of objects or strings")
    if state.get("numpy_array_alignment_bytes") is not None:
        machine.take(machine.unsigned(1))
    data = machine.skip(prod(shape) * ITEM_SIZE[dtype.name])
    return array(machine, shape, dtype, data, fortran=state.get("order") == "F")
