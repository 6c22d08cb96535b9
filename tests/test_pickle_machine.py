"""The inert pickle machine: Python's pickle writes, and says what should come back; nothing is ever run."""

import pickle
import pickletools
from collections import OrderedDict
from pathlib import Path

import pytest
from graphs import CALLS, PROTOCOLS, FileLike, run, same
from hypothesis import given, settings
from hypothesis import strategies as st

from bnlint import UnreadableFile
from bnlint.readers import pickle_machine, raw_pickle
from bnlint.readers.long_bytes import TEXT, LongBytes
from bnlint.readers.pickle_machine import PickleMachine
from bnlint.readers.source import MemorySource
from bnlint.readers.values import Instance, OrderedMapping


def read_long(found: object, wanted: object) -> object:
    """A graph with the strings read that were left in the file."""
    if isinstance(wanted, list):
        return [read_long(*pair) for pair in zip(found, wanted, strict=True)]  # type: ignore[call-overload]
    if not isinstance(found, LongBytes):
        return found
    data = found.read()
    if isinstance(wanted, bytes):
        return data
    return data.decode("utf-8" if found.written == TEXT else "latin1")


# -- everything that pickle writes comes back ----------------------------------------------------------

LARGE = 1 << 60
HASHABLE = st.one_of(
    st.text(max_size=20),
    st.integers(1 - LARGE, LARGE - 1),
    st.booleans(),
    st.none(),
    st.floats(allow_nan=False),
)
LEAVES = st.one_of(
    HASHABLE,
    st.integers(),
    st.binary(max_size=40),
    st.floats(),
    st.complex_numbers(),
    st.sampled_from([2**31, -(2**31), 2**2000, "\ud800", "x" * 300, "ü" * 200, "", (), {}, [], set(), frozenset()]),
    st.frozensets(HASHABLE, max_size=5),
    st.sets(HASHABLE, max_size=5),
)
GRAPHS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=6),
        st.lists(inner, max_size=6).map(tuple),
        st.dictionaries(HASHABLE | st.tuples(HASHABLE, HASHABLE), inner, max_size=6),
        st.dictionaries(st.text(max_size=8), inner, max_size=6).map(OrderedDict),
    ),
    max_leaves=25,
)


@given(GRAPHS, st.sampled_from(PROTOCOLS))
@settings(max_examples=400, deadline=None)
def test_what_pickle_writes_comes_back(graph: object, protocol: int) -> None:
    data = pickle.dumps(graph, protocol)
    for source in (MemorySource(data), FileLike(data)):
        machine = PickleMachine(source)
        assert same(machine.load(), graph)
        assert machine.position == len(data)
        assert not machine.python2


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_shared_and_recursive_objects_stay_shared(protocol: int) -> None:
    shared: list[object] = [1]
    ring: dict[str, object] = {"shared": shared, "again": shared}
    ring["self"] = ring
    found = run(pickle.dumps(ring, protocol))
    assert found["shared"] is found["again"]
    assert found["self"] is found


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("length", [255, 256, 511, 513, 4095, 4097, 40_000])
def test_long_strings_across_windows(protocol: int, length: int) -> None:
    """Strings that lie across the end of a window, and those that are left in the file."""
    graph = [["n" * (length % 997), "t" * length, "é" * length, b"\x80b\n" * (length // 3), 7] for _ in range(5)]
    data = pickle.dumps(graph, protocol)
    for source in (MemorySource(data), FileLike(data)):
        assert read_long(PickleMachine(source).load(), graph) == graph


def test_inline_arrays_are_skipped() -> None:
    graph = {f"layer{i}.weight": bytes([i]) * (1 << 20) for i in range(20)}
    data = pickle.dumps(graph, 4)
    source = FileLike(data)
    found = PickleMachine(source).load()
    assert source.bytes_read < 20 * 700 + 5000
    assert found["layer7.weight"].read() == graph["layer7.weight"]


@given(GRAPHS, st.integers(0, 300), st.integers(273, 600))
@settings(max_examples=150, deadline=None)
def test_wherever_the_windows_end(graph: object, shift: int, width: int) -> None:
    wanted = ["x" * shift, *[graph] * 20, "y" * 255, graph]
    data = pickle.dumps(wanted, 4)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("_FIRST_WINDOW", "_NEXT_WINDOW", "_LARGEST_WINDOW"):
            patch.setattr(pickle_machine, name, width)
        assert same(PickleMachine(FileLike(data)).load(), wanted)


# -- Python 2 --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        b"(dp0\nS'weight'\np1\nS'\\x00\\x01\\xff\\n'\np2\nsS\"it's\"\nL12345678901234567890L\ns.",
        b"}q\x00(U\x06weightq\x01U\x04\x00\x01\xff\nU\x04it'sT\x03\x00\x00\x00abcu.",
        b"\x80\x02}(U\x06weightT\x2c\x01\x00\x00" + b"\xfe" * 300 + b"u.",
        b"\x80\x02}(U\x06weightT\x58\x02\x00\x00" + b"\xfe" * 600 + b"u.",
        b"(dS'weight'\nS'" + b"\\xfe" * 600 + b"'\ns.",
        b"I01\n.",
        b"(I00\nI-7\nF1.5e300\nF-inf\nt.",
    ],
)
def test_python_2_as_pickle_reads_it_with_latin1(data: bytes) -> None:
    machine = PickleMachine(MemorySource(data))
    wanted = pickle.loads(data, encoding="latin1")
    found = machine.load()
    if isinstance(wanted, dict):
        found = {
            key: value.read().decode("latin1") if isinstance(value, LongBytes) else value
            for key, value in found.items()
        }
        assert machine.python2
    assert same(found, wanted)


def test_byte_string_keys_become_text() -> None:
    machine = PickleMachine(MemorySource(pickle.dumps({b"state_dict": {b"w\xe9": b"kept"}})))
    assert machine.load() == {"state_dict": {"wé": b"kept"}}
    assert machine.python2


LONG = "k\u00e9" * 3000


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        *((pickle.dumps({LONG: 1}, protocol), LONG) for protocol in range(6)),
        (pickle.dumps({LONG.encode("latin1"): 1}, 4), LONG),
        (pickle.dumps({LONG.encode("latin1"): 1}, 2), LONG),
        (b"(dS'" + b"x" * 600 + b"'\nI1\ns.", "x" * 600),
        (b"}T\x58\2\0\0" + b"x" * 600 + b"I1\ns.", "x" * 600),
        (b"ccollections\nOrderedDict\n(((X\0\x20\0\0" + b"x" * 8192 + b"I1\nlltR.", "x" * 8192),
    ],
)
def test_long_keys_are_kept_as_text(data: bytes, wanted: str) -> None:
    assert PickleMachine(MemorySource(data)).load() == {wanted: 1}


def test_long_keys_count_against_the_memory() -> None:
    data = b"(X\0\0\1\0" + b"x" * 65536 + b"q\0" + b"0}h\0Ns" * 1000 + b"."
    with pytest.raises(UnreadableFile) as caught:
        PickleMachine(MemorySource(data)).load()
    assert caught.value.code == "limit"


# -- names and calls -------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", CALLS.values(), ids=CALLS)
def test_calls_are_named_and_never_made(data: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    machine = PickleMachine(MemorySource(data))
    machine.load()
    system = machine.globals["os", "system"]
    assert system.called
    assert not list(tmp_path.iterdir())


def test_a_name_alone_is_not_called() -> None:
    machine = PickleMachine(MemorySource(b"cos\nsystem\n."))
    assert machine.load() is machine.globals["os", "system"]
    assert not machine.globals["os", "system"].called


def test_the_call_of_a_computed_result() -> None:
    machine = PickleMachine(
        MemorySource(b"cbuiltins\ngetattr\n(cos\nS'system'\ntR(S'touch PWNED'\ntR.".replace(b"cos\n", b"cos\npath\n"))
    )
    found = machine.load()
    assert isinstance(found, Instance)
    assert found.callee is None
    assert [name.called for key, name in machine.globals.items() if key[0] == "<computed>"] == [True]


@pytest.mark.parametrize("data", [b"\x82\x07.", b"\x83\x07\x00.", b"\x84\x07\x00\x00\x00."])
def test_extension_codes(data: bytes) -> None:
    machine = PickleMachine(MemorySource(data))
    machine.load()
    assert list(machine.globals) == [("<copyreg extension>", "7")]


NAMES = st.lists(st.tuples(st.sampled_from(["os", "a.b", "torch", "numpy"]), st.sampled_from("xyz")), max_size=12)


@given(NAMES)
def test_names_and_offsets_as_pickletools_shows_them(names: list[tuple[str, str]]) -> None:
    data = b"\x80\x02(" + b"".join(f"c{module}\n{name}\n".encode() for module, name in names) + b"l."
    machine = PickleMachine(MemorySource(data))
    machine.load()
    wanted: dict[tuple[str, str], int] = {}
    for opcode, argument, position in pickletools.genops(data):
        if opcode.name == "GLOBAL":
            module, name = argument.split(" ")
            wanted.setdefault((module, name), position)
    assert {key: found.offset for key, found in machine.globals.items()} == wanted


def test_objects_of_classes_nobody_has() -> None:
    data = b"\x80\x02cnet\nModel\n)\x81}(X\x01\x00\x00\x00aK\x01ub](K\x05K\x06e\x86."
    found, numbers = run(data)
    assert isinstance(found, Instance)
    assert str(found.callee) == "net.Model"
    assert (found.args, found.state, numbers) == ((), {"a": 1}, [5, 6])


def test_items_and_elements_of_instances() -> None:
    data = b"\x80\x02ccollections\ndefaultdict\nN\x85R(X\x01\x00\x00\x00aK\x01ucollections\ndeque\n)R(K\x01K\x02e\x86."
    data = data.replace(b"ucollections", b"uccollections")
    default, deque = run(data)
    assert default.items == [("a", 1)]
    assert deque.elements == [1, 2]


def test_ordered_dict_keeps_its_metadata() -> None:
    mapping = OrderedDict(weight=1)
    mapping._metadata = OrderedDict({"": {"version": 1}})  # type: ignore[attr-defined]
    for protocol in PROTOCOLS:
        found = run(pickle.dumps(mapping, protocol))
        assert isinstance(found, OrderedMapping)
        assert found == {"weight": 1}
        assert found.state == {"_metadata": {"": {"version": 1}}}


def test_stacked_pickles_are_named_too() -> None:
    data = pickle.dumps({"a": 1}, 2) + CALLS["REDUCE"] + pickle.dumps(7)
    loaded = raw_pickle.load(MemorySource(data))
    assert loaded.root == {"a": 1}
    assert "os.system" in map(str, loaded.globals)
    assert loaded.notes == ["the file holds 3 pickles one after the other, of which the first is read"]
    assert raw_pickle.load(MemorySource(data + b"junk")).notes[-1] == "4 bytes follow the last pickle"
