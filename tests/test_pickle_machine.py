"""The inert pickle machine: Python's pickle writes, and says what should come back; nothing is ever run."""

import pickle
import pickletools
import struct
from collections import OrderedDict
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bnlint.errors import UnreadableFile
from bnlint.readers import pickle_machine, raw_pickle
from bnlint.readers.long_bytes import TEXT, LongBytes
from bnlint.readers.pickle_machine import PickleMachine
from bnlint.readers.source import MemorySource
from bnlint.readers.values import Instance, Opaque, OrderedMapping

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


class FileLike:
    """A source that is read window by window, as a file is."""

    def __init__(self, data: bytes) -> None:
        self._memory = MemorySource(data)
        self.size = len(data)
        self.bytes_read = 0

    def read(self, offset: int, nbytes: int) -> bytes:
        self.bytes_read += nbytes
        return self._memory.read(offset, nbytes)


def run(data: bytes) -> object:
    return PickleMachine(MemorySource(data)).load()


def refused(data: bytes, code: str, match: str = ".") -> UnreadableFile:
    caught = []
    for source in (MemorySource(data), FileLike(data)):
        with pytest.raises(UnreadableFile, match=match) as error:
            PickleMachine(source).load()
        assert error.value.code == code
        caught.append(error.value)
    assert str(caught[0]) == str(caught[1])
    assert caught[0].offset == caught[1].offset
    return caught[0]


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


def same(found: object, wanted: object) -> bool:
    """Equality that keeps types apart and takes NaN for NaN; what bnlint keeps by identity is not looked into."""
    if isinstance(wanted, OrderedDict):
        return isinstance(found, OrderedMapping) and same(list(found.items()), list(wanted.items()))
    if isinstance(wanted, dict):
        return type(found) is dict and same(list(found.items()), list(wanted.items()))
    if isinstance(wanted, (list, tuple)):
        return type(found) is type(wanted) and len(found) == len(wanted) and all(map(same, found, wanted))
    if isinstance(wanted, int) and wanted.bit_length() > 8 * 1024:
        return isinstance(found, Opaque)
    return type(found) is type(wanted) and (found == wanted or repr(found) == repr(wanted))


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


# -- names and calls -------------------------------------------------------------------------------------

CALLS = {
    "REDUCE": b"cos\nsystem\n(S'touch PWNED'\ntR.",
    "NEWOBJ": b"\x80\x02cos\nsystem\n)\x81.",
    "NEWOBJ_EX": b"\x80\x04cos\nsystem\n)}\x92.",
    "OBJ": b"(cos\nsystem\nS'touch PWNED'\no.",
    "INST": b"(S'touch PWNED'\nios\nsystem\n.",
    "BUILD": b"cos\nsystem\n}b.",
    "STACK_GLOBAL": b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x0btouch PWNED\x85R.",
    "copyreg": b"ccopyreg\n__newobj__\n(cos\nsystem\ntR.",
    "copy_reg": b"ccopy_reg\n_reconstructor\n(cos\nsystem\nc__builtin__\nobject\nNtR.",
    "subclass": b"\x80\x02ctorch._tensor\n_rebuild_from_type_v2\n(cos\nsystem\nN)NtR.",
}


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


# -- what is damaged or too much ---------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_truncation_is_said(protocol: int) -> None:
    data = pickle.dumps({"a": [1, 2.5, "text", b"bytes", (None, True), 10**30]}, protocol)
    for length in range(1, len(data)):
        error = refused(data[:length], "truncated")
        assert error.offset == length


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (b"\x80\x07.", "protocol 7"),
        (b"\xff.", "nobody knows"),
        (b"q\x00.", "stack"),
        (b"(0t.", "stack|damaged"),
        (b"\x80\x02h\x07.", "memo"),
        (b"}]Ns.", "damaged"),
        (b"}}Ns.", "damaged"),
        (b"](K\x01\x90.", "damaged"),
        (b"](K\x01K\x02u.", "damaged"),
        (b"}(K\x01u.", "damaged"),
        (b"NNb.", "damaged"),
        (b"]Nb.", "damaged"),
        (b"cos\nsystem\nNR.", "damaged"),
        (b"K\x01K\x02\x93.", "damaged"),
        (b"X\x02\x00\x00\x00\xff\xff.", "damaged"),
        (b"I12x\n.", "damaged"),
        (b"S'a\n.", "damaged"),
        (b"S\n.", "damaged"),
        (b"T\xff\xff\xff\xff.", "damaged"),
        (b"K\x01Q.", "outside itself"),
        (b"P1\n.", "outside itself"),
        (b"\x97.", "elsewhere"),
        (b"I" + b"1" * 5000 + b"\n.", "damaged"),
    ],
)
def test_damage(data: bytes, match: str) -> None:
    error = refused(data + b"N" * 10, "pickle", match)
    assert error.offset is not None


@pytest.mark.parametrize(
    "data",
    [
        b"\x8b\xff\xff\xff\x7f.",
        b"B\xff\xff\xff\xff.",
        b"\x8e" + b"\xff" * 8 + b".",
        b"\x96" + b"\xff" * 7 + b"\x7f.",
        b"X\xff\xff\xff\xff.",
        b"\x8d" + b"\xff" * 8 + b".",
        b"\x95" + b"\xff" * 8 + b".",
        b"T\xff\xff\xff\x7f.",
    ],
)
def test_lengths_beyond_the_file(data: bytes) -> None:
    refused(data, "truncated")


def test_the_smallest_bomb_of_the_c_unpickler() -> None:
    assert run(b"\x80\x02Nr\xff\xff\xff\x0f.") is None  # python/cpython#115952


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (b"(" * 10_001, "open marks"),
        (b"\x80\x04" + b"\x8f" * 1_000_000 + b".", "MB"),
        (b"".join(b"ca\n%d\n0" % i for i in range(20_001)), "globals"),
        (
            b"c_codecs\nencode\nq\x00X\x00\x0f\x00\x00"
            + b"a" * 3840
            + b"X\x06\x00\x00\x00latin1\x86q\x01"
            + b"h\x00h\x01R" * 50_000,
            "MB",
        ),
        (b"c__builtin__\nset\nq\x00](" + b"K\x01" * 50_000 + b"e\x85q\x01" + b"h\x00h\x01R" * 100, "MB"),
        (
            b"ccollections\nOrderedDict\nq\x00](" + b"K\x01K\x02\x86" * 50_000 + b"e\x85q\x01" + b"h\x00h\x01R" * 100,
            "MB",
        ),
    ],
    ids=["marks", "sets", "globals", "encode", "set", "ordered-dict"],
)
def test_limits(data: bytes, match: str) -> None:
    with pytest.raises(UnreadableFile, match=match) as caught:
        run(data)
    assert caught.value.code == "limit"


@pytest.mark.parametrize(
    ("limit", "data"),
    [("OPCODE_LIMIT", b"N0" * 600 + b"N."), ("MEMO_LIMIT", b"\x80\x04N" + b"\x94" * (1 << 19) + b".")],
)
def test_lowered_limits(limit: str, data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(data) is None
    monkeypatch.setattr(pickle_machine, limit, 1000)
    with pytest.raises(UnreadableFile) as caught:
        run(data)
    assert caught.value.code == "limit"


HASH_MODULUS = (1 << 61) - 1


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x02})" + b"2\x86" * 120 + b"Ns.",  # a tuple of 2**120 leaves as a key
        b"\x80\x02})" + b"\x85" * 200_000 + b"Ns.",
        b"\x80\x04(" + b"(\x91" * 5000 + b"\x91.",
        b"\x80\x02}("
        + b"".join(b"\x8a\x0b" + (i * HASH_MODULUS).to_bytes(11, "little", signed=True) + b"N" for i in range(50_000))
        + b"u.",  # integers of one hash
        b"\x80\x02}(" + b"".join(b"K\x01M%b\x86N" % struct.pack("<H", i) for i in range(20_000)) + b"u.",
    ],
    ids=["tuple-dag", "nested-tuple", "nested-frozensets", "one-hash", "tuples"],
)
def test_keys_that_are_costly_to_hash(data: bytes) -> None:
    run(data)


SAMPLES = [pickle.dumps({"a": [1, "b", {"c": (1.5, None, b"x" * 20)}], "d": {1, 2}, "e": 2**70}, i) for i in PROTOCOLS]
SAMPLES += [*CALLS.values(), pickle.dumps(OrderedDict(a=OrderedDict()), 0)]


@given(st.sampled_from(SAMPLES), st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), min_size=1, max_size=5))
@example(b"\x80\x02}.", [(2, 0x62)])
@settings(max_examples=1500, deadline=None)
def test_damaged_pickles_are_one_clear_error(sample: bytes, changes: list[tuple[int, int]]) -> None:
    data = bytearray(sample)
    for offset, byte in changes:
        data[offset % len(data)] = byte
    assert outcome(MemorySource(bytes(data))) == outcome(FileLike(bytes(data)))


def outcome(source: MemorySource | FileLike) -> str:
    try:
        return type(PickleMachine(source).load()).__name__
    except UnreadableFile as error:
        return f"{error.code} {error} {error.offset}"


class NamesNothing(pickle._Unpickler):  # type: ignore[name-defined,misc]
    """Python's own unpickler in Python, which may import nothing."""

    def find_class(self, module: str, name: str) -> object:
        raise pickle.UnpicklingError


@given(
    st.sampled_from(SAMPLES[:4]), st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), min_size=1, max_size=3)
)
@settings(max_examples=1000, deadline=None)
def test_what_python_reads_of_a_damaged_pickle(sample: bytes, changes: list[tuple[int, int]]) -> None:
    """Where Python still reads plain containers, the machine reads the same."""
    from io import BytesIO

    data = bytearray(sample)
    for offset, byte in changes:
        data[offset % len(data)] = byte
    try:
        wanted = NamesNothing(BytesIO(bytes(data)), encoding="latin1").load()
        pickle.dumps(wanted)  # not recursive
    except Exception:
        return
    assert same(run(bytes(data)), plain_keys(wanted))


def plain_keys(value: object) -> object:
    """The same with byte-string keys as text."""
    if isinstance(value, dict):
        return {
            key.decode("latin1") if isinstance(key, bytes) else key: plain_keys(item) for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return type(value)(map(plain_keys, value))
    return bytes(value) if isinstance(value, bytearray) else value
