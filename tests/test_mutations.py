"""Good files of every format, mutated byte by byte: opening one never raises and never runs away."""

from __future__ import annotations

import io
import os
import struct
import tempfile
import time
from collections.abc import Callable

import pytest
from hostile import assembler, numpy_pickles, safetensors, tars
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from bnlint.engine import lint
from bnlint.model.checkpoint import Checkpoint
from bnlint.readers.opening import open_file
from bnlint.ruleset import builtin_rules
from bnlint.settings import Settings

resource = pytest.importorskip("resource", reason="measures memory as POSIX does")
EXAMPLES = int(os.environ.get("BNLINT_FUZZ_EXAMPLES", "120"))
STATUSES = {"checked", "nothing-to-check", "unreadable", "not-a-checkpoint", "skipped"}
RULES = builtin_rules()


def saved(how: str) -> bytes:
    """What torch writes of a small model."""
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.BatchNorm2d(4))
    for _ in range(40):
        model(torch.randn(4, 1, 8, 8))
    buffer = io.BytesIO()
    if how == "script":
        torch.jit.save(torch.jit.script(model.eval()), buffer)
    else:
        torch.save(model, buffer, _use_new_zipfile_serialization=how == "zip")
    return buffer.getvalue()


GOOD: dict[str, tuple[str, Callable[[], bytes]]] = {
    "torch-zip": ("model.pth", assembler.torch_zip),
    "torch-legacy": ("model.pth", assembler.legacy),
    "torch-tar": ("model.pth.tar", lambda: tars.tar(tars.members())),
    "safetensors": ("model.safetensors", safetensors.file),
    "numpy": ("model.pkl", numpy_pickles.layer),
    "torchscript": ("model.pt", lambda: saved("script")),
    "module": ("model.pth", lambda: saved("zip")),
    "legacy-module": ("model.pth", lambda: saved("legacy")),
}
_made: dict[str, bytes] = {}


def good(kind: str) -> bytes:
    if kind not in _made:
        _made[kind] = GOOD[kind][1]()
    return _made[kind]


# -- mutations: a place in the file as a fraction, and what happens there ------------------------------

PLACE = st.floats(0, 1, exclude_max=True)
INTERESTING = st.sampled_from(
    [0, 1, -1, 127, 128, 255, 256, 32767, 65535, 1 << 31, -(1 << 31), 1 << 32, 1 << 62, -(1 << 63)]
)
PICKLE_OPCODES = b"().012FIJKLMNRSTUVX]abcdeghijlopqrstu}" + bytes(range(0x80, 0x99))
Mutation = Callable[[bytearray], None]


def at(data: bytearray, place: float) -> int:
    return int(place * len(data))


def flip(place: float, bit: int) -> Mutation:
    def mutate(data: bytearray) -> None:
        if data:
            data[at(data, place)] ^= 1 << bit

    return mutate


def put(place: float, new: bytes) -> Mutation:
    def mutate(data: bytearray) -> None:
        start = at(data, place)
        data[start : start + len(new)] = new

    return mutate


def insert(place: float, new: bytes) -> Mutation:
    def mutate(data: bytearray) -> None:
        start = at(data, place)
        data[start:start] = new

    return mutate


def remove(place: float, length: int) -> Mutation:
    def mutate(data: bytearray) -> None:
        start = at(data, place)
        del data[start : start + length]

    return mutate


def truncate(place: float) -> Mutation:
    def mutate(data: bytearray) -> None:
        del data[at(data, place) :]

    return mutate


def splice(place: float, source: float, length: int) -> Mutation:
    def mutate(data: bytearray) -> None:
        start, begin = at(data, place), at(data, source)
        data[start : start + length] = data[begin : begin + length]

    return mutate


def repeat(place: float, length: int, times: int) -> Mutation:
    def mutate(data: bytearray) -> None:
        start = at(data, place)
        data[start:start] = data[start : start + length] * times

    return mutate


def number(value: int, form: str) -> bytes:
    size = struct.calcsize(form)
    return (value & ((1 << 8 * size) - 1)).to_bytes(size, "little" if form[0] == "<" else "big")


MUTATION = st.one_of(
    st.builds(flip, PLACE, st.integers(0, 7)),
    st.builds(put, PLACE, st.binary(min_size=1, max_size=9)),
    st.builds(put, PLACE, st.sampled_from([bytes([opcode]) for opcode in PICKLE_OPCODES])),
    st.builds(put, PLACE, st.builds(number, INTERESTING, st.sampled_from(["<H", "<I", "<Q", ">I", ">Q"]))),
    st.builds(insert, PLACE, st.binary(min_size=1, max_size=40)),
    st.builds(remove, PLACE, st.integers(1, 300)),
    st.builds(truncate, PLACE),
    st.builds(splice, PLACE, PLACE, st.integers(1, 200)),
    st.builds(repeat, PLACE, st.integers(1, 30), st.integers(1, 50)),
)


def look_through(checkpoint: Checkpoint) -> None:
    """Touch what a user of the model touches first."""
    for state_dict in checkpoint.state_dicts:
        for tensor in state_dict.tensors.values():
            assert tensor.nbytes >= 0
        for layer in state_dict.batchnorms:
            assert layer.channels == max(len(layer.running_mean or ()), len(layer.running_var or ())) or layer.vectors


def open_and_judge(name: str, data: bytes) -> None:
    with tempfile.TemporaryDirectory(prefix="bnlint-fuzz-") as folder:
        path = os.path.join(folder, name)
        with open(path, "wb") as file:
            file.write(data)
        began = time.process_time()
        raw = open_file(path)
        try:
            assert raw.status in STATUSES
            assert (raw.problem is None) == (raw.status in ("checked", "nothing-to-check"))
            if raw.problem is not None:
                assert str(raw.problem) and folder not in str(raw.problem)
            if raw.checkpoint is not None:
                look_through(raw.checkpoint)
            verdict = lint(raw, RULES, Settings())
            assert not verdict.crashes, [str(crash) for crash in verdict.crashes]
        finally:
            if raw.checkpoint is not None:
                raw.checkpoint.close()
        assert time.process_time() - began < 5


@pytest.mark.parametrize("kind", GOOD)
def test_the_good_file_is_good(kind: str) -> None:
    """Else the mutations would only mutate what is refused anyway."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, GOOD[kind][0])
        with open(path, "wb") as file:
            file.write(good(kind))
        raw = open_file(path)
        assert raw.status == "checked", raw.problem
        assert raw.checkpoint is not None and len(raw.checkpoint.batchnorms) == 1
        raw.checkpoint.close()


@pytest.mark.parametrize("kind", GOOD)
def test_mutated(kind: str) -> None:
    name = GOOD[kind][0]
    healthy = good(kind)

    @settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(MUTATION, min_size=1, max_size=5))
    @example([])
    def mutated(mutations: list[Mutation]) -> None:
        data = bytearray(healthy)
        for mutate in mutations:
            mutate(data)
        open_and_judge(name, bytes(data))

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    mutated()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 600 << 10


@pytest.mark.parametrize("kind", GOOD)
def test_cut_anywhere(kind: str) -> None:
    """Every file of a few kilobytes, cut at a hundred places from the first byte to the last but one."""
    data = good(kind)
    for size in sorted({int(part * (len(data) - 1) / 100) for part in range(101)}):
        open_and_judge(GOOD[kind][0], data[:size])


@settings(max_examples=EXAMPLES, deadline=None, database=None)
@given(
    st.binary(max_size=400),
    st.sampled_from(["", "PK\3\4", "\x80\2", "\x80\5", "\x80\2\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", "(", "{", "c"]),
)
def test_any_bytes(data: bytes, beginning: str) -> None:
    open_and_judge("model.pth", beginning.encode("latin1") + data)


@settings(max_examples=EXAMPLES, deadline=None, database=None)
@given(st.lists(st.sampled_from([bytes([opcode]) for opcode in PICKLE_OPCODES]) | st.binary(max_size=6), max_size=60))
def test_any_opcodes(parts: list[bytes]) -> None:
    """Grammar without sense, inside an honest archive and outside."""
    body = b"\x80\x02" + b"".join(parts) + b"."
    open_and_judge("model.pth", assembler.torch_zip(data_pkl=body))
    open_and_judge("model.pkl", body)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inside: st.lists(inside, max_size=4) | st.dictionaries(st.text(max_size=8), inside, max_size=4),
    max_leaves=12,
)
ENTRY = st.fixed_dictionaries(
    {},
    optional={
        "dtype": JSON | st.sampled_from(["F32", "BF16", "F8_E4M3"]),
        "shape": JSON | st.lists(st.integers(-5, 5)),
        "data_offsets": JSON | st.lists(st.integers(-5, 70), min_size=2, max_size=2),
    },
)


@settings(max_examples=EXAMPLES, deadline=None, database=None)
@given(st.dictionaries(st.sampled_from(["running_mean", "running_var", "weight", "bias"]), ENTRY | JSON))
def test_any_safetensors_header(changed: dict[str, object]) -> None:
    open_and_judge("model.safetensors", safetensors.file(safetensors.layer(**changed)))
