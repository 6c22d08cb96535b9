"""Key contracts: what is written can be read, by YAML's own reader too, and what is wrong is named with its line."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from small_checkpoints import write_checkpoint

from bnlint import BatchNormModule, Pair, StateDict, Tensor, UnreadableFile, batchnorm, state_dict
from bnlint.config import load_config
from bnlint.model.digest import PromisedBatchNorm, digest
from bnlint.model.tensor import ITEM_SIZE
from bnlint.pairing import pair_up
from bnlint.readers.contract import load_contract, write_contract
from bnlint.readers.opening import open_file
from bnlint.run import run

NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
SHAPES = st.lists(st.integers(0, 1 << 40), max_size=5).map(tuple)
KEYS = st.dictionaries(NAMES, st.tuples(st.sampled_from(sorted(ITEM_SIZE)), SHAPES), max_size=8)


def written(weights: StateDict) -> str:
    stream = StringIO()
    write_contract(weights, stream)
    return stream.getvalue()


@pytest.fixture
def contract(tmp_path: Path):
    def load(text: str | bytes) -> StateDict:
        path = tmp_path / "model.keys.yaml"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return load_contract(str(path))

    return load


# -- there and back -----------------------------------------------------------------------------------------


@given(KEYS)
@settings(max_examples=150)
def test_every_key_comes_back(tmp_path_factory: pytest.TempPathFactory, keys: dict[str, tuple[str, tuple[int, ...]]]):
    """Whatever a file calls its tensors: names are the file's text."""
    text = written(StateDict("", {name: Tensor(dtype, shape, None) for name, (dtype, shape) in keys.items()}))
    path = tmp_path_factory.mktemp("contract") / "k.yaml"
    path.write_text(text, encoding="utf-8", newline="")
    again = load_contract(str(path))
    assert [(name, (each.dtype, each.shape)) for name, each in again.tensors.items()] == [*keys.items()]
    by_yaml = yaml.safe_load(text)["keys"]
    assert by_yaml == {name: f"{dtype} {list(shape)}" for name, (dtype, shape) in keys.items()}


AMBIGUOUS = ["1.weight", "0.1", "1e5", "null", "yes", "~", "on.off", "Off", "", " ", "a: b", "- a", "&a", "*a", "!a",
             "a #b", "2024-01-01", "0x1f", "1:30", "=", "<<", "[a]", "{a}", "\u0085", "\ud7ff",
             "\U0001f600", "\ufeff"]  # fmt: skip


@pytest.mark.parametrize("name", AMBIGUOUS, ids=ascii)
def test_a_name_that_yaml_could_take_for_something_else(contract, name: str) -> None:
    text = written(StateDict("", {f"{name}{leaf}": Tensor("float32", (4,), None) for leaf in ("", ".x")}))
    assert [*contract(text).tensors] == [name, f"{name}.x"] == [*yaml.safe_load(text)["keys"]]


def test_layers_come_back_as_what_they_promise(contract) -> None:
    layer = batchnorm("layer1.bn", module=BatchNormModule("layer1.bn", eps=1e-3))
    plain = batchnorm("bn", weight=None, bias=None, num_batches_tracked=None)
    weights = state_dict([layer, plain])
    first, second = contract(written(weights)).batchnorms
    assert isinstance(first, PromisedBatchNorm) and isinstance(second, PromisedBatchNorm)
    assert (first.name, first.num_batches_tracked, first.promised_eps) == ("layer1.bn", 10_000, 1e-3)
    assert first.digests == {
        "weight bias": digest(layer, ("weight", "bias")),
        "running_mean running_var": digest(layer, ("running_mean", "running_var")),
    }
    assert (second.name, second.num_batches_tracked, second.promised_eps) == ("bn", None, None)
    assert [*second.digests] == ["running_mean running_var"]
    assert not first.vectors


def test_a_digest_changes_with_every_bit(contract) -> None:
    leaves = ("running_mean", "running_var")
    digests = {
        digest(layer, leaves)
        for layer in (
            batchnorm(),
            batchnorm(running_mean=[0.31, -0.12, 0.84, 0.020000001]),
            batchnorm(running_mean=[0.31, -0.12, 0.02, 0.84]),
            batchnorm(running_mean=[0.0] * 4),
            batchnorm(running_mean=[-0.0] * 4),
            batchnorm(dtype="float16"),
            batchnorm(running_mean=[0.91, 1.73, 0.42, 1.16], running_var=[0.31, -0.12, 0.84, 0.02]),
        )
    }
    assert len(digests) == 7
    assert digest(batchnorm("a"), leaves) == digest(batchnorm("b", weight=[2.0] * 4), leaves)


def test_a_contract_is_small_enough_to_review(tmp_path: Path) -> None:
    text = written(state_dict([batchnorm(f"layer{k}.bn1") for k in range(53)]))
    assert len(text.splitlines()) == 3 + 53 * 6 + 1
    assert max(map(len, text.splitlines())) < 120


# -- compared ---------------------------------------------------------------------------------------------------


def against_contract(weights: StateDict, contract) -> Pair:
    return pair_up(contract(written(state_dict([batchnorm("bn1")]))), weights, kind="contract")


@pytest.mark.parametrize(
    ("after", "verdict"),
    [
        (batchnorm("bn1"), "untouched"),
        (batchnorm("bn1", running_mean=[0.5] * 4, num_batches_tracked=10_100), "drifted"),
        (batchnorm("bn1", running_mean=[0.5] * 4), "replaced"),
        (batchnorm("bn1", bias=[0.5] * 4), "eval"),
        (batchnorm("bn1", bias=[0.5] * 4, num_batches_tracked=10_100), "stuck"),
        (batchnorm("bn1", bias=[0.5] * 4, running_var=[0.5] * 4, num_batches_tracked=10_100), "trained"),
        (batchnorm("bn1", bias=[0.5] * 4, running_var=[0.5] * 4), "averaged"),
        (batchnorm("bn1", num_batches_tracked=7), "rewound"),
        (batchnorm("bn1", dtype="float16"), "converted"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_pair_table_holds_without_the_numbers(contract, after, verdict: str) -> None:
    (change,) = against_contract(state_dict([after]), contract).changes
    assert change.verdict == verdict
    assert change.mean_shift != change.mean_shift, "how far is not known"


def test_the_command_checks_against_a_contract(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "pretrained.safetensors", "bn1", "layer1.bn1")
    checkpoint = open_file(path).checkpoint
    assert checkpoint is not None
    keys = tmp_path / "backbone.keys.yaml"
    with open(keys, "w", encoding="utf-8") as stream:
        write_contract(checkpoint.state_dicts[0], stream)
    report = run([path], load_config(isolated=True, reference=str(keys)))
    assert not report.findings and not report.trouble

    other = write_checkpoint(tmp_path / "wrapped.safetensors", "module.bn1", "module.layer1.bn1")
    report = run([other], load_config(isolated=True, reference=str(keys)))
    told = [(finding.rule, str(finding.severity)) for finding in report.findings if finding.reference]
    assert told == [("prefix-mismatch", "error")]
    assert report.exit_code == 1

    less = write_checkpoint(tmp_path / "less.safetensors", "bn1")
    report = run([less], load_config(isolated=True, reference=str(keys)))
    (missing,) = [finding for finding in report.findings if finding.reference and finding.gravity > 1]
    assert missing.rule == "missing-pretrained-keys" and missing.message.startswith("layer1 (4 keys) ")


# -- what is wrong with one -----------------------------------------------------------------------------------------

WRONG = {
    "": "line 1: a key contract is a mapping",
    "[]": "line 1: a key contract has no lists",
    "rules: {}": "line 1: is no key contract: `bnlint keys MODEL` writes one",
    "bnlint-keys: 2\nkeys: {}": "line 1: this bnlint reads contracts of version 1",
    "bnlint-keys: {}": "line 1: this bnlint reads contracts of version 1",
    "bnlint-keys: 1\nkey: {}": "line 2: unknown section 'key'",
    "bnlint-keys: 1\nkeys: a": "line 2: keys is a mapping",
    "bnlint-keys: 1\nkeys:\n  a: {}": "line 3: a: one value is wanted, not a mapping",
    "bnlint-keys: 1\nkeys:\n  a: float33 [4]": "line 3: a: 'float33' is no dtype of torch",
    "bnlint-keys: 1\nkeys:\n  a: float32": "line 3: a: '' is no shape, such as [64, 3, 7, 7]",
    "bnlint-keys: 1\nkeys:\n  a: float32 [4": "line 3: a: '[4' is no shape, such as [64, 3, 7, 7]",
    "bnlint-keys: 1\nkeys:\n  a: float32 [-4]": "line 3: a: '[-4]' is no shape, such as [64, 3, 7, 7]",
    "bnlint-keys: 1\nkeys:\n  a: float32 [4,]": "line 3: a: '[4,]' is no shape, such as [64, 3, 7, 7]",
    f"bnlint-keys: 1\nkeys:\n  a: float32 [{'9' * 5000}]": "line 3: a: '[" + "9" * 39 + "' is no shape",
    "bnlint-keys: 1\nkeys:\n  a: float32 [4]\n  a: float32 [4]": "line 4: 'a' is said twice",
    "bnlint-keys: 1\nkeys: &a {}": "line 2: a key contract has no anchors, aliases or tags",
    "bnlint-keys: 1\nkeys: *a": "line 2: a key contract has no anchors, aliases or tags",
    "bnlint-keys: 1\nkeys: !!python/object:os.system {}": "line 2: a key contract has no anchors, aliases or tags",
    "bnlint-keys: 1\nbatchnorm:\n  bn: {}": "line 3: batchnorm: the keys have no BatchNorm layer 'bn'",
    "bnlint-keys: 1\nkeys: {a: {b: {c: d}}}": "line 2: a key contract is not nested so deeply",
    "bnlint-keys: 1\nkeys: {" * 1000: "line ",
    "bnlint-keys: 1\nkeys: {": "line 3: is not YAML: ",
    "bnlint-keys: 1\n\tkeys: {}": "line 2: is not YAML: ",
    "bnlint-keys: 1\n---\nbnlint-keys: 1": "line 2: a key contract is one YAML document",
}
LAYER = "bnlint-keys: 1\nkeys: {bn.running_mean: 'float32 [4]', bn.running_var: 'float32 [4]'}\nbatchnorm:\n  bn: "
WRONG_LAYER = {
    "x": "line 4: batchnorm: bn is a mapping",
    "{digest: a}": "line 4: batchnorm: bn: unknown 'digest'; allowed: affine, statistics, batches, eps",
    "{statistics: abc}": "line 4: batchnorm: bn: 'abc' is no digest",
    "{batches: many}": "line 4: batchnorm: bn: 'many' is no number",
    "{batches: nan}": "line 4: batchnorm: bn: 'nan' is no number",
    "{eps: -1}": "line 4: batchnorm: bn: '-1' is no number",
    "{eps: {}}": "line 4: a key contract is not nested so deeply",
}


@pytest.mark.parametrize(
    ("text", "sentence"), [*WRONG.items(), *((LAYER + text, said) for text, said in WRONG_LAYER.items())]
)
def test_what_is_wrong_is_named_with_its_line(contract, text: str, sentence: str) -> None:
    with pytest.raises(UnreadableFile) as raised:
        contract(text or "\n")
    assert str(raised.value).startswith(sentence)
    assert len(str(raised.value)) < 300


@pytest.mark.parametrize("data", [b"\xff\xfe", b"bnlint-keys: 1\n\x00", b"bnlint-keys: 1\n\x80"])
def test_bytes_that_are_no_text(contract, data: bytes) -> None:
    with pytest.raises(UnreadableFile):
        contract(data)


@given(st.binary(max_size=60) | st.text(max_size=60).map(lambda text: f"bnlint-keys: 1\n{text}".encode()))
@settings(max_examples=200)
def test_nothing_in_a_file_is_a_crash(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("contract") / "k.yaml"
    path.write_bytes(data)
    try:
        load_contract(str(path))
    except UnreadableFile as problem:
        assert str(problem)
