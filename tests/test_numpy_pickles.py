"""Plain pickles of numpy arrays against pickle: every protocol, byte order and Python, and joblib."""

import pickle
import struct

import numpy as np
import pytest
from oracle import PROTOCOLS, assert_same

from bnlint.errors import UnreadableFile
from bnlint.readers import raw_pickle
from bnlint.readers.source import MemorySource
from bnlint.readers.values import NumpyArray, as_tensor

ARRAYS: dict[str, np.ndarray | np.generic] = {
    **{
        f"{order}{code}": np.arange(12).reshape(3, 4).astype(f"{order}{code}")
        for order in "<>"
        for code in ("f8", "f4", "f2", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "b1", "c8", "c16")
    },
    "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "fortran 3d": np.asfortranarray(np.arange(24).reshape(2, 3, 4)),
    "transposed": np.arange(6.0).reshape(2, 3).T,
    "strided": np.arange(20.0)[::3],
    "scalar array": np.array(3.5),
    "scalar": np.float32(1.5),
    "counter": np.int64(7),
    "empty": np.zeros((0, 3), "f4"),
    "long": np.arange(5000.0),
    "long of bytes": np.arange(256).astype("u1").repeat(30),
    "big": np.arange(2000).astype(">f4"),
}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_numpy_arrays_of_every_protocol(protocol: int) -> None:
    data = pickle.dumps(ARRAYS, protocol)
    assert_same(raw_pickle.load(MemorySource(data)).root, pickle.loads(data))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_numpy_arrays_that_hold_no_numbers(protocol: int) -> None:
    record = np.zeros(2, [("a", "f4"), ("b", "i2")])
    graph = [np.array(["text"]), record, np.array([None, {}], object), np.array(["2020"], "M8[D]"), np.arange(3)]
    *found, plain = raw_pickle.load(MemorySource(pickle.dumps(graph, protocol))).root
    assert all(isinstance(array, NumpyArray) and array.tensor() is None for array in found)
    assert_same(plain, graph[-1])


def python2_array(array: np.ndarray) -> bytes:
    """An array as numpy pickled it under Python 2, protocol 2."""
    content = array.tobytes()
    dtype = b"cnumpy\ndtype\nU" + bytes((len(array.dtype.str[1:]),)) + array.dtype.str[1:].encode() + b"K\x00K\x01\x87R"
    dtype += b"(K\x03U\x01" + array.dtype.str[:1].encode() + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    shape = b"(" + b"".join(b"K%c" % size for size in array.shape) + b"t"
    made = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
    return made + b"(K\x01" + shape + dtype + b"\x89T" + struct.pack("<i", len(content)) + content + b"tb"


@pytest.mark.parametrize("count", [3, 100, 200])
def test_numpy_arrays_of_python_2(count: int) -> None:
    arrays = {"w\xe9ight": np.arange(count, dtype="<f4"), "big": np.arange(count, dtype=">f8").reshape(1, count)}
    items = b"".join(
        b"U" + bytes((len(name),)) + name.encode("latin1") + python2_array(array) for name, array in arrays.items()
    )
    data = b"\x80\x02}(" + items + b"u."
    loaded = raw_pickle.load(MemorySource(data))
    assert_same(loaded.root, pickle.loads(data, encoding="latin1"))
    assert_same(loaded.root, arrays)
    assert loaded.facts == {"python2": True}


def test_numpy_arrays_of_python_2_in_text() -> None:
    array = np.arange(300, dtype="<f4")
    escaped = repr(array.tobytes())[1:].encode()
    data = b"(dp0\nS'w'\np1\ncnumpy.core.multiarray\n_reconstruct\np2\n"
    data += b"(cnumpy\nndarray\np3\n(I0\ntp4\nS'b'\np5\ntp6\nRp7\n"
    data += b"(I1\n(I300\ntp8\ncnumpy\ndtype\np9\n(S'f4'\np10\nI0\nI1\ntp11\nRp12\n"
    data += b"(I3\nS'<'\np13\nNNNI-1\nI-1\nI0\ntp14\nbI00\nS" + escaped + b"\np15\ntp16\nbs."
    assert_same(raw_pickle.load(MemorySource(data)).root, pickle.loads(data, encoding="latin1"))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_arrays_that_lack_bytes(protocol: int) -> None:
    data = pickle.dumps({"w": np.arange(600.0), "v": np.arange(4.0)}, protocol)
    for count, less in ((600, 599), (4, 3)):
        old = b"I%d\n" % count if not protocol else (b"M" + struct.pack("<H", count) if count > 255 else b"K\x04")
        new = b"I%d\n" % less if not protocol else (b"M" + struct.pack("<H", less) if count > 255 else b"K\x03")
        at = data.rindex(old) if count == 4 else data.index(old)
        with pytest.raises(UnreadableFile) as caught:
            for value in raw_pickle.load(MemorySource(data[:at] + new + data[at + len(old) :])).root.values():
                as_tensor(value).raw()
        assert caught.value.code == "bounds"


def test_bfloat16_of_ml_dtypes() -> None:
    dtype = b"cnumpy\ndtype\ncml_dtypes\nbfloat16\n\x89\x88\x87R"
    data = b"\x80\x04" + dtype + b"0" + b"cnumpy.core.multiarray\nscalar\n" + dtype + b"C\x02\x80\x3f\x86R."
    found = as_tensor(raw_pickle.load(MemorySource(data)).root)
    assert (found.dtype, found.values().tolist()) == ("bfloat16", [1.0])


def test_joblib_arrays_stand_in_the_stream() -> None:
    """As joblib.dump writes them (joblib/numpy_pickle.py, NumpyArrayWrapper)."""
    arrays = {"w": np.arange(1000.0), "v": np.asfortranarray(np.arange(6, dtype=">i4").reshape(2, 3))}
    data = b"\x80\x04}("
    for name, array in arrays.items():
        order = "F" if array.flags.f_contiguous and array.ndim > 1 else "C"
        state = {"shape": array.shape, "order": order, "dtype": array.dtype, "allow_mmap": True}
        state["numpy_array_alignment_bytes"] = 16
        data += pickle.dumps(name, 2)[2:-1]
        data += b"cjoblib.numpy_pickle\nNumpyArrayWrapper\n)\x81" + pickle.dumps(state, 2)[2:-1] + b"b"
        data += b"\x05" + b"\xff" * 5 + array.tobytes(order)
    loaded = raw_pickle.load(MemorySource(data + b"u."))
    assert loaded.format == "joblib"
    assert_same(loaded.root, arrays)
