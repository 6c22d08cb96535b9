"""Pickles that are damaged, hostile or too much: one clear error each, in bounded time and memory."""

import pickle
import struct
from collections import OrderedDict
from io import BytesIO

import pytest
from graphs import CALLS, PROTOCOLS, FileLike, run, same
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bnlint.errors import UnreadableFile
from bnlint.readers import pickle_machine, raw_pickle, torch_legacy
from bnlint.readers.pickle_machine import PickleMachine
from bnlint.readers.source import MemorySource
from bnlint.readers.values import Instance, Opaque


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
        (b"Sxax\n.", "damaged"),
        (b"S'a\"\n.", "damaged"),
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
COSTLY = {
    "a tuple of 2**120 leaves": b"\x80\x02})" + b"2\x86" * 120 + b"Ns.",
    "nested tuples": b"\x80\x02})" + b"\x85" * 200_000 + b"Ns.",
    "nested frozensets": b"\x80\x04}(" + b"(\x91" * 5000 + b"\x91Ns.",
    "integers of one hash": b"\x80\x02}("
    + b"".join(b"\x8a\x0b" + (i * HASH_MODULUS).to_bytes(11, "little", signed=True) + b"N" for i in range(1, 2000))
    + b"u.",
}


@pytest.mark.parametrize("data", COSTLY.values(), ids=COSTLY)
def test_keys_that_are_costly_to_hash_are_kept_by_identity(data: bytes) -> None:
    found = run(data)
    assert {type(key) for key in found} == {Opaque}


def test_so_many_tuples_are_keys_and_no_more() -> None:
    data = b"\x80\x02}(" + b"".join(b"K\x01M%b\x86N" % struct.pack("<H", i) for i in range(10_000)) + b"u."
    kinds = [type(key) for key in run(data)]
    assert kinds.count(tuple) == pickle_machine.TUPLE_KEY_LIMIT
    assert kinds.count(Opaque) == 10_000 - pickle_machine.TUPLE_KEY_LIMIT


REPEATED = b"h\x00h\x01R0" * 200_000 + b"N."
ONES = b"(" + b"K\x01" * 200_000 + b"tq\x01"


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\x80\x02ccopyreg\n__newobj__\nq\x00(" + b"h\x00" * 200_000 + b"tq\x010" + REPEATED, "limit"),
        (b"\x80\x02ccopyreg\n_reconstructor\nq\x00" + ONES + b"0" + REPEATED, "pickle"),
        (b"\x80\x02ctorch\nSize\nq\x00" + ONES + b"\x85q\x010" + REPEATED, "bounds"),
        (
            b"\x80\x02ctorch._tensor\n_rebuild_from_type_v2\nq\x00(h\x00N)Ntq\x01"
            + b"0(h\x00Nh\x01Ntq\x01" * 20_000
            + b"0h\x00h\x01R.",
            "limit",
        ),
        (
            b"\x80\x02ctorch._utils\n_rebuild_meta_tensor_no_storage\nq\x00(ctorch\nfloat32\n("
            + b"K\x01" * 64
            + b"tq\x05h\x05\x89tq\x010"
            + REPEATED,
            "limit",
        ),
        (b"]" + b"".join(b"p%d\n" % (i * HASH_MODULUS) for i in range(1, 100)) + b".", "pickle"),
    ],
    ids=["newobj", "reconstructor", "size", "nested-calls", "dimensions", "memo-of-one-hash"],
)
def test_calls_that_cost_more_than_they_say(data: bytes, code: str) -> None:
    with pytest.raises(UnreadableFile) as caught:
        run(data)
    assert caught.value.code == code


def test_arguments_that_would_be_run_are_kept_as_they_are() -> None:
    for callee in (b"ccollections\nOrderedDict\n", b"cbuiltins\nlist\n", b"cbuiltins\nset\n", b"cbuiltins\nbytes\n"):
        found = run(callee + b"(cbuiltins\nmap\n(cos\nsystem\n(S'id'\nltRtR.")
        assert isinstance(found, Instance)
        assert isinstance(found.args[0], Instance)


def test_what_was_named_before_the_damage_is_known() -> None:
    for data in (CALLS["REDUCE"][:-1], CALLS["REDUCE"][:-1] + b"\xff", CALLS["REDUCE"][:-1] + b"0K\x01Q."):
        with pytest.raises(UnreadableFile) as caught:
            run(data)
        assert [(str(name), name.called) for name in caught.value.globals] == [("os.system", True)]


def test_lines_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    class Endless:
        size = 1 << 50

        def read(self, offset: int, nbytes: int) -> bytes:
            return b"S'"[:nbytes] + bytes(max(0, nbytes - 2))

    monkeypatch.setattr(pickle_machine, "SCAN_LIMIT", 1 << 22)
    with pytest.raises(UnreadableFile) as caught:
        PickleMachine(Endless()).load()
    assert caught.value.code == "limit"


def legacy(pickled: bytes) -> bytes:
    """A torch file from before 1.6 that holds one pickled object."""
    parts = [pickle.dumps(value, 2) for value in (torch_legacy.MAGIC_NUMBER, torch_legacy.PROTOCOL_VERSION, {})]
    return b"".join([*parts, pickled, pickle.dumps([], 2)])


def in_bytes(file: bytes) -> bytes:
    """A pickle that loads a torch file from a byte string."""
    return b"\x80\x03ctorch.storage\n_load_from_bytes\nq\x00B" + struct.pack("<I", len(file)) + file + b"\x85q\x01R."


def test_files_nested_in_each_other() -> None:
    file = legacy(pickle.dumps({"inner": 1}, 2))
    for _ in range(3):
        file = legacy(in_bytes(file))
    assert raw_pickle.load(MemorySource(file)).root == {"inner": 1}
    with pytest.raises(UnreadableFile, match="nested") as caught:
        raw_pickle.load(MemorySource(legacy(in_bytes(file))))
    assert caught.value.code == "limit"


def test_one_nested_file_again_and_again() -> None:
    data = in_bytes(legacy(pickle.dumps(7, 2)))[:-1] + REPEATED
    with pytest.raises(UnreadableFile) as caught:
        run(data)
    assert caught.value.code == "limit"


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
    data = bytearray(sample)
    for offset, byte in changes:
        data[offset % len(data)] = byte
    if b"\x96" in data:
        return  # Python allocates what a BYTEARRAY8 promises
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
