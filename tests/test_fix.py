"""`bnlint fix`: what it writes loads in torch, and what it does not name is the same bit for bit."""

import copy
import io
import json
import os
import pickle
import shutil
import signal
import struct
import subprocess
import sys
import time
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from networks import ResNet, trained
from safetensors.torch import load_file, save_file
from small_checkpoints import write_checkpoint
from torch import nn

import bnlint
from bnlint.cli import main
from bnlint.errors import UnreadableFile
from bnlint.fixing import program_edits, torch_zip
from bnlint.fixing.edit import NewTensor, renamed_modules
from bnlint.fixing.program import Program, mappings, plain
from bnlint.matching import match, rename_map
from bnlint.readers.opening import open_file
from bnlint.readers.source import MemorySource, Source
from bnlint.readers.zip_archive import ZipArchive


@pytest.fixture(scope="module")
def network() -> ResNet:
    return trained(ResNet(), batches=3)[0]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


class Said:
    def __init__(self, code: int, out: str, err: str) -> None:
        self.code = code
        self.out = out
        self.err = err


@pytest.fixture
def fix(folder: Path, capsys: pytest.CaptureFixture[str]):
    def run(*words: str, code: int = 0) -> Said:
        found = main(["fix", *map(str, words)])
        said = Said(found, *capsys.readouterr())
        assert said.code == code, said.err
        assert not list(folder.glob("*.part")), "an unfinished file was left"
        return said

    return run


def save(weights: dict, path: str) -> None:
    """A state dict in the container that the name says; safetensors has no place for shared or strided tensors."""
    if path.endswith(".safetensors"):
        save_file({name: tensor.clone().contiguous() for name, tensor in weights.items()}, path, {"format": "pt"})
    else:
        torch.save(weights, path)


def load(path: str) -> dict:
    return load_file(path) if path.endswith(".safetensors") else torch.load(path, weights_only=True)


def same(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Equal dtype, shape and bits, NaN included."""
    if one.dtype != other.dtype or one.shape != other.shape or one.stride() != other.stride():
        return False
    return one.contiguous().flatten().view(torch.uint8).equal(other.contiguous().flatten().view(torch.uint8))


def expect_same(one: dict, other: dict) -> None:
    assert list(one) == list(other)
    assert [name for name in one if not same(one[name], other[name])] == []


def prefixed(weights: dict, prefix: str) -> dict:
    return OrderedDict((prefix + name, tensor) for name, tensor in weights.items())


CONTAINERS = pytest.mark.parametrize("ending", ["pth", "safetensors"])


# -- keys ---------------------------------------------------------------------------------------------------


@CONTAINERS
def test_a_prefix_comes_off(network: ResNet, fix, ending: str) -> None:
    save(nn.DataParallel(network).state_dict(), f"old.{ending}")
    said = fix(f"old.{ending}", "--strip-prefix", "module", "-o", f"new.{ending}")
    assert "renamed 38 keys" in said.out
    ResNet().load_state_dict(load(f"new.{ending}"), strict=True)
    written, wanted = load(f"new.{ending}"), network.state_dict()
    expect_same({name: written[name] for name in wanted}, wanted)
    assert written.keys() == wanted.keys()


@CONTAINERS
def test_what_one_fix_does_the_other_undoes(network: ResNet, fix, ending: str) -> None:
    save(network.state_dict(), f"old.{ending}")
    fix(f"old.{ending}", "--add-prefix", "backbone.", "-o", f"between.{ending}")
    assert all(name.startswith("backbone.") for name in load(f"between.{ending}"))
    fix(f"between.{ending}", "--strip-prefix", "backbone.", "-o", f"new.{ending}")
    expect_same(load(f"new.{ending}"), load(f"old.{ending}"))


def test_the_metadata_of_torch_follows_the_names(network: ResNet, fix) -> None:
    wrapped = nn.DataParallel(network)
    torch.save(wrapped.state_dict(), "old.pth")
    fix("old.pth", "--strip-prefix", "module", "-o", "new.pth")
    assert load("new.pth")._metadata == network.state_dict()._metadata
    fix("new.pth", "--add-prefix", "module", "-o", "back.pth")
    metadata = wrapped.state_dict()._metadata
    del metadata[""]  # a module of which nobody has heard yet
    assert load("back.pth")._metadata == metadata


def test_a_module_without_tensors_goes_with_the_one_around_it() -> None:
    names = {"model.bn1.weight": "bn1.weight", "model.layer1.0.bn1.weight": "layer1.0.bn1.weight"}
    modules = ["", "model", "model.bn1", "model.relu", "model.layer1", "model.layer1.0", "model.layer1.0.relu"]
    assert renamed_modules(modules, names) == {
        "model": "",
        "model.bn1": "bn1",
        "model.relu": "relu",
        "model.layer1": "layer1",
        "model.layer1.0": "layer1.0",
        "model.layer1.0.relu": "layer1.0.relu",
    }
    assert renamed_modules(["", "a", "a.b", "a.b.bn"], {"a.b.bn.bias": "bn.bias"}) == {"a.b": "", "a.b.bn": "bn"}


@CONTAINERS
def test_a_rename_map_that_matching_wrote_makes_the_file_load(network: ResNet, fix, ending: str) -> None:
    theirs = OrderedDict(
        (name.replace("layer", "stage").replace("downsample", "shortcut"), tensor)
        for name, tensor in prefixed(network.state_dict(), "net.").items()
    )
    save(theirs, f"old.{ending}")
    save(network.state_dict(), "wanted.pth")
    old, wanted = open_file(f"old.{ending}"), open_file("wanted.pth")
    plan = match(old.checkpoint.state_dicts[0].tensors, wanted.checkpoint.state_dicts[0].tensors)
    Path("map.yaml").write_text(yaml.safe_dump({"rename": rename_map(plan)}, sort_keys=False))
    fix(f"old.{ending}", "--rename", "map.yaml", "-o", f"new.{ending}")
    ResNet().load_state_dict(load(f"new.{ending}"), strict=True)


def test_renames_on_the_command_line_are_applied_in_order(fix) -> None:
    write_checkpoint("old.safetensors", "a.bn", "b.bn")
    fix("old.safetensors", "--rename", r"^a\.=c.", "--rename", r"^c\.(?=bn)=d.", "-o", "new.safetensors")
    assert {name.partition(".")[0] for name in load("new.safetensors")} == {"d", "b"}


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--rename", "(=x"], "cannot be applied"),
        (["--rename", r"^(bn)=\2"], "cannot be applied"),
        (["--rename", "nothing"], "neither REGEX=REPLACEMENT nor a YAML file"),
        (["--rename", "bn1=bn2", "--rename", "bn2=bn1", "--rename", "bn1=x"], "is said twice"),
        (["--rename", "^bn[12]=bn"], "would become"),
        (["--rename", "missing.yaml"], "missing.yaml: no such file"),
        (["--rename", "list.yaml"], "is a mapping of regular expressions"),
        (["--rename", "number.yaml"], "number.yaml:1:4: a replacement is text"),
        (["--rename", "broken.yaml"], "this is not YAML"),
        (["--strip-prefix", "modul"], "no key of old.safetensors begins with 'modul.'"),
        (["--key", "ema"], "there is no state dict at 'ema'"),
        (["--restore-stats"], "--reference"),
        (["--restore-stats", "--reference", "nowhere.pth"], "--reference: nowhere.pth: no such file"),
        (["--reference", "old.safetensors", "--add-prefix", "x"], "neither is asked for"),
        (["--rename", "^bn1.*$="], "become ''"),
    ],
)
def test_what_cannot_be_done_is_one_clear_error(fix, folder: Path, words: list[str], complaint: str) -> None:
    write_checkpoint("old.safetensors", "bn1", "bn2")
    Path("list.yaml").write_text("- a\n- b\n")
    Path("number.yaml").write_text("a: [1]\n")
    Path("broken.yaml").write_text("a: {\n")
    before = sorted(folder.iterdir())
    said = fix("old.safetensors", *words, "-o", "new.safetensors", code=2)
    assert complaint in said.err
    assert said.err.count("\n") == 1
    assert sorted(folder.iterdir()) == before


# -- counters -----------------------------------------------------------------------------------------------


@CONTAINERS
def test_102_keys_become_122(fix, ending: str) -> None:
    model = ResNet((2, 2, 2, 2), width=4)
    old = OrderedDict((name, each) for name, each in model.state_dict().items() if "num_batches" not in name)
    assert (len(old), len(model.state_dict())) == (102, 122)
    save(old, f"old.{ending}")
    said = fix(f"old.{ending}", "-o", f"new.{ending}")
    assert "added 20 num_batches_tracked" in said.out
    written = load(f"new.{ending}")
    model.load_state_dict(written, strict=True)
    assert list(written) == list(model.state_dict()) or ending == "safetensors"
    assert all(each.dtype == torch.int64 and not each for name, each in written.items() if "num_batches" in name)


@CONTAINERS
def test_counters_come_from_the_reference_where_it_has_them(network: ResNet, fix, ending: str) -> None:
    whole = nn.DataParallel(network).state_dict()
    save({name: each for name, each in network.state_dict().items() if "num_batches" not in name}, f"old.{ending}")
    del whole["module.bn1.num_batches_tracked"]
    torch.save(whole, "reference.pth")
    said = fix(f"old.{ending}", "--reference", "reference.pth", "-o", f"new.{ending}")
    assert "no num_batches_tracked for 1 layer" in said.err
    counts = {name: int(each) for name, each in load(f"new.{ending}").items() if "num_batches" in name}
    assert counts.pop("bn1.num_batches_tracked") == 0
    assert set(counts.values()) == {3}
    assert len(counts) == 5


@CONTAINERS
def test_counters_are_cast_only_where_they_are_whole(network: ResNet, fix, ending: str) -> None:
    weights = network.state_dict()
    first, second, third, *_ = [name for name in weights if "num_batches" in name]
    weights[first] = torch.tensor(12.0)
    weights[second] = torch.tensor([300.0], dtype=torch.bfloat16)
    weights[third] = torch.tensor(2.5)
    save(weights, f"old.{ending}")
    said = fix(f"old.{ending}", "-o", f"new.{ending}")
    assert f"{third} (float32) is no whole number" in said.err
    written = load(f"new.{ending}")
    wanted = {**weights, first: torch.tensor(12), second: torch.tensor([300])}
    expect_same({name: written[name] for name in wanted}, wanted)
    network.load_state_dict({**written, third: torch.tensor(3)}, strict=True)


@CONTAINERS
def test_counters_without_statistics_are_dropped(network: ResNet, fix, ending: str) -> None:
    weights = network.state_dict()
    wanted = {name: each for name, each in weights.items() if not name.startswith("layer1.0.bn1.running")}
    orphaned = OrderedDict(wanted)
    del wanted["layer1.0.bn1.num_batches_tracked"]
    save(orphaned, f"old.{ending}")
    fix(f"old.{ending}", "--drop-orphans", "-o", f"new.{ending}")
    written = load(f"new.{ending}")
    assert written.keys() == wanted.keys()
    expect_same({name: written[name] for name in wanted}, wanted)
    if ending == "pth":
        records = zipfile.ZipFile("new.pth").namelist()
        assert len([name for name in records if name.startswith("new/data/") or "/data/" in name]) == len(wanted)


def test_an_orphan_that_others_share_their_classes_with_can_go(fix) -> None:
    """The first LongStorage, 'cpu' and so on of the pickle lie in what is dropped."""
    weights = OrderedDict([("conv.num_batches_tracked", torch.tensor(3)), *nn.BatchNorm2d(4).state_dict().items()])
    torch.save(weights, "old.pth")
    fix("old.pth", "-o", "new.pth")
    del weights["conv.num_batches_tracked"]
    expect_same(load("new.pth"), weights)


def test_nothing_to_repair_is_said_and_nothing_is_written(network: ResNet, fix) -> None:
    torch.save(network.state_dict(), "old.pth")
    assert fix("old.pth", "-o", "new.pth").out == "nothing to repair: nothing was written\n"
    assert not os.path.exists("new.pth")


# -- statistics ---------------------------------------------------------------------------------------------


@CONTAINERS
def test_the_network_that_was_frozen_and_moved_gets_its_statistics_back(network: ResNet, fix, ending: str) -> None:
    save(network.state_dict(), "pretrained.pth")
    frozen = copy.deepcopy(network).requires_grad_(False).train()
    frozen(torch.randn(5, 3, 16, 16))
    assert not same(frozen.bn1.running_mean, network.bn1.running_mean)
    nn.init.normal_(frozen.fc.weight)  # a head that was trained stays
    save(prefixed(frozen.state_dict(), "model."), f"old.{ending}")
    said = fix(f"old.{ending}", "--restore-stats", "--reference", "pretrained.pth", "-o", f"new.{ending}")
    assert "restored the running statistics of 6 layers" in said.out
    wanted = prefixed({**network.state_dict(), "fc.weight": frozen.fc.weight.data}, "model.")
    written = load(f"new.{ending}")
    expect_same({name: written[name] for name in wanted}, wanted)
    assert written.keys() == wanted.keys()


def test_the_statistics_of_trained_layers_are_left(network: ResNet, fix) -> None:
    torch.save(network.state_dict(), "pretrained.pth")
    tuned = copy.deepcopy(network).train()
    tuned(torch.randn(5, 3, 16, 16))
    with torch.no_grad():
        tuned.bn1.bias += 0.1
        tuned.layer2[0].conv1.weight += 0.1
    torch.save(tuned.state_dict(), "old.pth")
    fix("old.pth", "--restore-stats", "--reference", "pretrained.pth", "-o", "new.pth")
    written, before, after = load("new.pth"), network.state_dict(), tuned.state_dict()
    for layer, kept in {"bn1": True, "layer2.0.bn1": True, "layer1.0.bn1": False, "layer2.0.bn2": False}.items():
        key = f"{layer}.running_mean"
        assert same(written[key], (after if kept else before)[key])


def test_half_precision_statistics_are_restored_bit_for_bit(network: ResNet, fix) -> None:
    half = copy.deepcopy(network).to(torch.bfloat16)
    torch.save(half.state_dict(), "pretrained.pth")
    moved = half.state_dict()
    moved = OrderedDict((name, each * 3 if "running" in name else each) for name, each in moved.items())
    torch.save(moved, "old.pth")
    fix("old.pth", "--restore-stats", "--reference", "pretrained.pth", "-o", "new.pth")
    expect_same(load("new.pth"), half.state_dict())


def test_statistics_are_never_invented(network: ResNet, fix) -> None:
    weights = network.state_dict()
    weights["bn1.running_var"] = torch.full_like(weights["bn1.running_var"], float("nan"))
    weights["bn1.num_batches_tracked"] = torch.tensor(3.0)
    del weights["layer1.0.bn1.running_mean"]
    torch.save(weights, "old.pth")
    said = fix("old.pth", "-o", "new.pth")
    assert "Not repaired: running_var is not finite in bn1, and 1 more layer." in said.out
    assert "torch.optim.swa_utils.update_bn(train_loader, model, device=device)" in said.out
    assert load("new.pth").keys() == weights.keys()
    assert same(load("new.pth")["bn1.running_var"], weights["bn1.running_var"])
    torch.save(network.state_dict(), "sound.pth")
    assert "update_bn" not in fix("sound.pth", "--add-prefix", "x", "--diff").out


# -- what is in the file besides ----------------------------------------------------------------------------


def lightning(network: ResNet) -> dict:
    """A training checkpoint: two state dicts that share keys and tensors, an optimizer, plain values."""
    weights = prefixed(network.state_dict(), "model.")
    ema = OrderedDict((name, each.clone() if "bn1" in name else each) for name, each in weights.items())
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    network.zero_grad()
    network(torch.randn(2, 3, 16, 16)).sum().backward()
    optimizer.step()
    return {
        "epoch": 3,
        "state_dict": weights,
        "ema": {"module": ema, "decay": 0.999},
        "optimizer_states": [optimizer.state_dict()],
        "hyper_parameters": {"lr": 0.1, "names": list(weights)[:3]},
        "loops": {"state_dict": {}, "best": None, "model.bn1.weight": "a text"},
    }


@pytest.mark.parametrize("version", [float("nan"), 2, "two"])
def test_metadata_of_any_kind_is_carried_over(fix, version: object) -> None:
    weights = nn.Sequential(nn.BatchNorm2d(4)).state_dict()
    weights._metadata["0"]["version"] = version
    torch.save(weights, "old.pth")
    fix("old.pth", "--add-prefix", "x", "-o", "new.pth")
    assert repr(load("new.pth")._metadata["x.0"]) == repr({"version": version})


def test_one_state_dict_changes_and_its_neighbours_do_not(network: ResNet, fix) -> None:
    checkpoint = lightning(copy.deepcopy(network))
    torch.save(checkpoint, "old.ckpt")
    said = fix("old.ckpt", "--strip-prefix", "model", "-o", "new.ckpt")
    assert "also holds 'ema.module'" in said.err
    written = load("new.ckpt")
    expect_same(prefixed(written["state_dict"], "model."), checkpoint["state_dict"])
    expect_same(written["ema"]["module"], checkpoint["ema"]["module"])
    assert written["ema"]["module"]["model.fc.weight"].data_ptr() == written["state_dict"]["fc.weight"].data_ptr()
    assert written["hyper_parameters"] == checkpoint["hyper_parameters"]
    assert written["loops"] == checkpoint["loops"]
    old, new = (each["optimizer_states"][0] for each in (checkpoint, written))
    assert old["param_groups"] == new["param_groups"]
    assert all(same(old["state"][i]["momentum_buffer"], new["state"][i]["momentum_buffer"]) for i in old["state"])


def test_several_state_dicts_can_be_repaired_at_once(network: ResNet, fix) -> None:
    checkpoint = lightning(copy.deepcopy(network))
    torch.save(checkpoint, "old.ckpt")
    words = ["--key", "state_dict", "--key", "ema.module"]
    fix("old.ckpt", *words, "--strip-prefix", "model", "-o", "new.ckpt")
    written = load("new.ckpt")
    for weights in (written["state_dict"], written["ema"]["module"]):
        assert list(weights) == list(network.state_dict())
    fix("new.ckpt", *words, "--add-prefix", "model", "-o", "back.ckpt")
    expect_same(load("back.ckpt")["ema"]["module"], checkpoint["ema"]["module"])


def test_the_average_can_be_repaired_alone(network: ResNet, fix) -> None:
    checkpoint = lightning(copy.deepcopy(network))
    checkpoint["ema"]["module"]["model.bn1.num_batches_tracked"] = torch.tensor(7.0)
    torch.save(checkpoint, "old.ckpt")
    fix("old.ckpt", "--key", "ema.module", "-o", "new.ckpt")
    written = load("new.ckpt")
    assert same(written["ema"]["module"]["model.bn1.num_batches_tracked"], torch.tensor(7))
    expect_same(written["state_dict"], checkpoint["state_dict"])


def test_a_tensor_that_two_state_dicts_share_is_replaced_in_one(network: ResNet, fix) -> None:
    weights = network.state_dict()
    weights["bn1.num_batches_tracked"] = torch.tensor(7.0)
    torch.save({"model": weights, "ema": dict(weights)}, "old.pth")
    fix("old.pth", "--key", "model", "-o", "new.pth")
    written = load("new.pth")
    assert same(written["model"]["bn1.num_batches_tracked"], torch.tensor(7))
    expect_same(written["ema"], weights)


def test_views_and_strides_stay_what_they_are(fix) -> None:
    base = torch.randn(4, 6)
    weights = {"a.weight": base, "a.view": base[1:3], "a.turned": base.T, "a.last": torch.randn(2, 3, 4, 4).to(
        memory_format=torch.channels_last), **prefixed(nn.BatchNorm2d(4).state_dict(), "a.bn.")}  # fmt: skip
    torch.save(weights, "old.pth")
    fix("old.pth", "--strip-prefix", "a", "-o", "new.pth")
    written = load("new.pth")
    expect_same(prefixed(written, "a."), weights)
    assert written["view"].untyped_storage().data_ptr() == written["weight"].untyped_storage().data_ptr()


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.uint16, torch.complex64, torch.bool, torch.float64])
def test_dtypes_that_no_repair_touches_are_carried_over(fix, dtype: torch.dtype) -> None:
    weights = {**nn.BatchNorm2d(4).state_dict(), "other": torch.randn(5).abs().to(dtype)}
    weights["num_batches_tracked"] = torch.tensor(3.0)
    torch.save(weights, "old.pth")
    fix("old.pth", "-o", "new.pth")
    expect_same(load("new.pth"), {**weights, "num_batches_tracked": torch.tensor(3)})


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_protocol_of_pickle_is_edited(network: ResNet, fix, protocol: int) -> None:
    checkpoint = lightning(copy.deepcopy(network))
    del checkpoint["state_dict"]["model.bn1.num_batches_tracked"]
    torch.save(checkpoint, "old.ckpt", pickle_protocol=protocol)
    fix("old.ckpt", "--strip-prefix", "model", "--add-counters", "-o", "new.ckpt")
    written = torch.load("new.ckpt", weights_only=False)  # weights_only knows protocol 2 alone
    assert list(written["state_dict"]) == list(network.state_dict())
    expect_same(written["ema"]["module"], checkpoint["ema"]["module"])


class Counting(nn.BatchNorm2d):
    """A layer with extra state, which is no tensor."""

    def get_extra_state(self) -> object:
        return {"seen": 3}

    def set_extra_state(self, state: object) -> None:
        assert state == {"seen": 3}


def test_extra_state_goes_with_its_module(fix) -> None:
    model = nn.Sequential(OrderedDict(bn=Counting(4)))
    torch.save(nn.DataParallel(model).state_dict(), "old.pth")
    fix("old.pth", "--strip-prefix", "module", "-o", "new.pth")
    model.load_state_dict(load("new.pth"), strict=True)


def test_a_state_dict_of_one_key_is_edited(fix) -> None:
    torch.save({"model": {"bn.running_mean": torch.randn(3)}, "n": 1}, "old.pth")
    fix("old.pth", "--rename", "^bn=norm", "-o", "new.pth")
    assert list(load("new.pth")["model"]) == ["norm.running_mean"]


def test_the_header_of_safetensors_keeps_order_metadata_and_alignment(fix) -> None:
    weights = {"b.half": torch.randn(3).half(), **prefixed(nn.BatchNorm2d(3).state_dict(), "b.bn."),
               "b.empty": torch.empty(0), "b.é": torch.ones(1)}  # fmt: skip
    del weights["b.bn.num_batches_tracked"]
    save_file(weights, "old.safetensors", {"format": "pt", "note": "x"})
    fix("old.safetensors", "--strip-prefix", "b", "--add-counters", "-o", "new.safetensors")
    old, new = header("old.safetensors"), header("new.safetensors")
    assert old.pop("__metadata__") == new.pop("__metadata__")
    assert [name for name in new if "num_batches" not in name] == [name.removeprefix("b.") for name in old]
    assert list(new).index("bn.num_batches_tracked") == list(new).index("bn.running_var") + 1
    sizes = {"F32": 4, "F16": 2, "I64": 8}
    assert all(entry["data_offsets"][0] % sizes[entry["dtype"]] == 0 for entry in new.values())


def header(path: str) -> dict:
    data = Path(path).read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    assert length % 8 == 0
    return json.loads(data[8 : 8 + length])


# -- the archive --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alignment", [64, 4096])
def test_an_archive_in_which_nothing_changes_is_written_as_torch_wrote_it(network: ResNet, fix, alignment: int) -> None:
    with torch.utils.serialization.config.patch("save.storage_alignment", alignment):
        torch.save({**lightning(copy.deepcopy(network)), "empty": torch.empty(0)}, "old.ckpt")
    original = Path("old.ckpt").read_bytes()
    written = io.BytesIO()
    torch_zip.write(MemorySource(original), [], written.write)
    assert written.getvalue() == original


def test_the_records_of_a_fixed_archive_are_sound(network: ResNet, fix) -> None:
    weights = network.state_dict()
    weights["bn1.num_batches_tracked"] = torch.tensor(3.0)
    torch.save(weights, "old.pth")
    fix("old.pth", "--add-prefix", "a.long.prefix.that.moves.everything", "--cast-counters", "-o", "new.pth")
    old, new = zipfile.ZipFile("old.pth"), zipfile.ZipFile("new.pth")
    assert new.testzip() is None
    records = {entry.filename: entry for entry in new.infolist()}
    gone = set(old.namelist()) - set(records)
    come = set(records) - set(old.namelist())
    assert len(gone) == len(come) == 1
    for name in set(records) & set(old.namelist()) - {"old/data.pkl"}:
        assert old.read(name) == new.read(name)
    data = Path("new.pth").read_bytes()
    for entry in records.values():
        name, extra = struct.unpack_from("<HH", data, entry.header_offset + 26)
        assert (entry.header_offset + 30 + name + extra) % 64 == 0
    torch.load("new.pth", weights_only=True, mmap=True)


def test_a_deflated_archive_is_repaired_too(network: ResNet, fix) -> None:
    torch.save(nn.DataParallel(network).state_dict(), "old.pth")
    with zipfile.ZipFile("old.pth") as old, zipfile.ZipFile("packed.pth", "w", zipfile.ZIP_DEFLATED) as packed:
        for name in old.namelist():
            packed.writestr(name, old.read(name))
    fix("packed.pth", "--strip-prefix", "module", "-o", "new.pth")
    expect_same(load("new.pth"), network.state_dict())


def test_a_big_endian_archive_gets_big_endian_counters(fix) -> None:
    torch.save({"bn.running_mean": torch.ones(2), "bn.running_var": torch.ones(2),
                "bn.num_batches_tracked": torch.tensor(258.0)}, "little.pth")  # fmt: skip
    with zipfile.ZipFile("little.pth") as old, zipfile.ZipFile("old.pth", "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if "/data/" in name:
                data = b"".join(data[i : i + 4][::-1] for i in range(0, len(data), 4))
            new.writestr(name, b"big" if name.endswith("byteorder") else data)
    fix("old.pth", "-o", "new.pth")
    assert same(load("new.pth")["bn.num_batches_tracked"], torch.tensor(258))


def test_records_beyond_four_gigabytes_are_found_again(tmp_path: Path) -> None:
    """By Python's own reader of zip archives. What is zero takes no room on the disk."""
    size, zeros = (1 << 32) + 5, bytes(1 << 26)
    path = tmp_path / "large.zip"
    with open(path, "wb") as file:
        writer = torch_zip.ArchiveWriter(
            lambda data: file.seek(len(data), os.SEEK_CUR) if data is zeros else file.write(data)
        )
        writer.add(b"x/data/0", (zeros if i < 64 else b"12345" for i in range(65)), size)
        writer.add(b"x/data/1", [b"behind it"])
        writer.close()
    with zipfile.ZipFile(path) as archive:
        assert [entry.file_size for entry in archive.infolist()] == [size, 9]
        assert archive.read("x/data/1") == b"behind it"
    with Source(str(path)) as source:
        assert [entry.size for entry in ZipArchive(source).entries.values()] == [size, 9]


# -- files ---------------------------------------------------------------------------------------------------


def test_the_diff_says_everything_and_writes_nothing(fix, folder: Path) -> None:
    write_checkpoint("old.safetensors", "m.bn")
    weights = load("old.safetensors")
    weights["m.bn.num_batches_tracked"] = torch.tensor(7.0)
    weights["m.conv.num_batches_tracked"] = torch.tensor(1)
    save_file(weights, "old.safetensors")
    before = {path: path.read_bytes() for path in folder.iterdir()}
    said = fix("old.safetensors", "--strip-prefix", "m", "--cast-counters", "--drop-orphans", "--diff")
    assert said.out.splitlines() == [
        "--- old.safetensors",
        "+++ (nothing is written)",
        "-m.conv.num_batches_tracked  int64 []",
        "-m.bn.bias  float32 [4]",
        "+bn.bias  float32 [4]",
        "-m.bn.num_batches_tracked  float32 [] = 7",
        "+bn.num_batches_tracked  int64 [] = 7",
        *(f"{sign}{prefix}bn.{leaf}  float32 [4]" for leaf in ("running_mean", "running_var", "weight")
          for sign, prefix in (("-", "m."), ("+", ""))),
        "renamed 5 keys, cast 1 num_batches_tracked to int64, dropped 1 num_batches_tracked without statistics",
    ]  # fmt: skip
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_names_are_escaped(fix) -> None:
    write_checkpoint("old.safetensors", "m.\x1b]0;owned\x07", "m.bn\n::error::x")
    said = fix("old.safetensors", "--strip-prefix", "m", "--diff")
    assert "\x1b" not in said.out
    assert "\n::error" not in said.out


def test_outputs_go_where_nothing_is_lost(network: ResNet, fix, folder: Path) -> None:
    torch.save(nn.DataParallel(network).state_dict(), "old.pth")
    Path("other.pth").write_bytes(b"something else")
    Path("link.pth").symlink_to("other.pth")
    Path("folder").mkdir()
    strip = ["old.pth", "--strip-prefix", "module"]
    original = Path("old.pth").read_bytes()
    for words, complaint in {
        ("-o", "old.pth"): "is one of the inputs",
        ("-o", "old.pth", "--force"): "is one of the inputs",
        ("-o", "other.pth"): "exists; --force replaces it",
        ("-o", "link.pth", "--force"): "is a link",
        ("-o", "folder", "--force"): "is a folder",
        ("-o", "nowhere/new.pth"): "there is no folder nowhere",
        (): "-o NEW",
    }.items():
        said = fix(*strip, *words, code=2)
        assert complaint in said.err
        assert said.err.count("\n") == 1
    assert Path("old.pth").read_bytes() == original
    assert Path("other.pth").read_bytes() == b"something else"
    fix(*strip, "-o", "other.pth", "--force")
    expect_same(load("other.pth"), network.state_dict())


def legacy(weights: dict, path: str) -> None:
    torch.save(weights, path, _use_new_zipfile_serialization=False)


def script(weights: dict, path: str) -> None:
    torch.jit.script(nn.BatchNorm2d(4)).save(path)


def arrays(weights: dict, path: str) -> None:
    Path(path).write_bytes(pickle.dumps({name: each.numpy() for name, each in weights.items()}))


def model(weights: dict, path: str) -> None:
    torch.save(nn.BatchNorm2d(4), path)


def index(weights: dict, path: str) -> None:
    save_file(weights, "shard.safetensors")
    Path(path).write_text(json.dumps({"weight_map": dict.fromkeys(weights, "shard.safetensors")}))


def text(weights: dict, path: str) -> None:
    Path(path).write_text("no checkpoint")


@pytest.mark.parametrize(
    ("write", "path", "complaint"),
    [
        (legacy, "old.pth", "is torch-legacy; only torch zip archives and safetensors are repaired. Convert it: torch"),
        (script, "old.pt", "torch.jit.load('old.pt').state_dict()"),
        (arrays, "old.pkl", "torch.as_tensor(array)"),
        (model, "old.pth", "torch.save(model.state_dict(), NEW)"),
        (index, "model.safetensors.index.json", "is an index of shards"),
        (text, "old.pth", "is text, not a checkpoint"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_what_is_not_written_says_how_to_convert_it(fix, write, path: str, complaint: str) -> None:
    write(nn.BatchNorm2d(4).state_dict(), path)
    said = fix(path, "--add-prefix", "x", "-o", "new.pth", code=2)
    assert complaint in said.err
    assert said.err.count("\n") == 1
    assert not os.path.exists("new.pth")


def test_a_tree_of_dicts_is_no_state_dict(fix) -> None:
    torch.save({"conv": {"weight": torch.ones(1)}, "bn": dict(nn.BatchNorm2d(4).state_dict())}, "old.pth")
    said = fix("old.pth", "--add-prefix", "x", "-o", "new.pth", code=2)
    assert "do not lie in one state dict" in said.err


def process(*words: str, **how: object) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": os.path.dirname(os.path.dirname(bnlint.__file__))}
    return subprocess.Popen(
        [sys.executable, "-m", "bnlint", "fix", *words], text=True, stdout=-1, stderr=-1, env=environment, **how
    )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="limits on the size of a file are a matter of POSIX")
def test_a_full_disk_leaves_nothing_behind(network: ResNet, folder: Path) -> None:
    import resource

    torch.save(nn.DataParallel(network).state_dict(), "old.pth")
    limit = os.path.getsize("old.pth") // 2
    running = process(
        "old.pth", "--strip-prefix", "module", "-o", "new.pth",
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )  # fmt: skip
    _, complaint = running.communicate(timeout=60)
    assert running.returncode == 2
    assert complaint == "bnlint: new.pth: cannot be written: File too large\n"
    assert os.listdir() == ["old.pth"]


def test_a_disk_without_room_is_said_before_the_work(fix, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_checkpoint("old.safetensors", "m.bn")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 10, 0))
    said = fix("old.safetensors", "--strip-prefix", "m", "-o", "new.safetensors", code=2)
    assert said.err == "bnlint: new.safetensors: cannot be written: it takes 0 MB, and 0 MB are free\n"
    assert os.listdir() == ["old.safetensors"]


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), OSError(28, "No space left on device")])
@pytest.mark.parametrize("call", ["open", "fsync", "replace"])
def test_whatever_the_system_refuses_leaves_nothing_behind(
    fix, folder: Path, monkeypatch: pytest.MonkeyPatch, error: OSError, call: str
) -> None:
    write_checkpoint("old.safetensors", "m.bn")
    original = getattr(os, call)

    def refuse(path: object, *others: object, **named: object) -> object:
        if call != "open" or str(path).endswith(".part"):
            raise error
        return original(path, *others, **named)

    monkeypatch.setattr(os, call, refuse)
    said = fix("old.safetensors", "--strip-prefix", "m", "-o", "new.safetensors", code=2)
    assert said.err == f"bnlint: new.safetensors: cannot be written: {error.strerror}\n"
    assert [path.name for path in folder.iterdir()] == ["old.safetensors"]


@pytest.mark.skipif(not hasattr(signal, "SIGTERM") or os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_interrupted_fix_leaves_no_half_file(folder: Path, number: int) -> None:
    weights = {**prefixed(nn.BatchNorm2d(4).state_dict(), "m."), "m.large": torch.empty(80_000_000)}
    torch.save(weights, "old.pth")
    running = process("old.pth", "--strip-prefix", "m", "-o", "new.pth")
    until = time.monotonic() + 60
    while not list(folder.glob("*.part")) and running.poll() is None and time.monotonic() < until:
        time.sleep(0.002)
    running.send_signal(number)
    assert running.wait(60) == 130
    assert os.listdir() == ["old.pth"]


def test_a_result_that_does_not_read_as_planned_is_not_kept(
    network: ResNet, fix, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(nn.DataParallel(network).state_dict(), "old.pth")
    chunks = torch_zip._chunks
    monkeypatch.setattr(
        torch_zip, "_chunks", lambda storage: (bytes([part[0] ^ 1]) + part[1:] for part in chunks(storage))
    )
    said = fix("old.pth", "--strip-prefix", "module", "-o", "new.pth", code=2)
    assert "the repaired file does not read as planned, so it was not kept" in said.err
    assert os.listdir() == ["old.pth"]


# -- programs ------------------------------------------------------------------------------------------------

plain_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=300) | st.binary(),
    lambda inside: (
        st.lists(inside) | st.dictionaries(st.text(), inside) | st.tuples(inside, inside) | st.sets(st.text())
    ),
    max_leaves=30,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(value=plain_values, protocol=st.integers(2, 5))
def test_a_pickle_says_the_same_without_frames(value: object, protocol: int) -> None:
    shared = [value, value, {"a": value}]  # remembered and fetched again
    code = plain(pickle.dumps(shared, protocol))
    assert pickle.loads(code) == shared
    program = Program(code)
    assert (program.root.start, program.root.end) == (2, len(code) - 1)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data(), protocol=st.integers(2, 5))
def test_a_pickle_with_items_gone_and_keys_renamed_is_the_dict_with_those_gone_and_renamed(
    data: st.DataObject, protocol: int
) -> None:
    names = data.draw(st.lists(st.text(min_size=1), min_size=1, max_size=8, unique=True))
    pool = [data.draw(plain_values) for _ in range(3)]
    values = {name: (pool[data.draw(st.integers(0, 2))], name, names) for name in names}
    dropped = set(data.draw(st.lists(st.sampled_from(names))))
    renamed = {name: f"{name}'" for name in data.draw(st.lists(st.sampled_from(names)))}
    program = Program(plain(pickle.dumps([{"inside": values}, pool, values], protocol)))
    patches = program_edits._Patches(program)
    (mapping,) = mappings(program.root, "0.inside")
    for item in mapping.items:
        if item.key.text in dropped:
            patches.replace(item.key.start, item.end, b"")
        elif item.key.text in renamed:
            patches.rename(item.key, renamed[item.key.text])
    wanted = {renamed.get(name, name): value for name, value in values.items() if name not in dropped}
    assert pickle.loads(patches.made()) == [{"inside": wanted}, pool, wanted]


@pytest.mark.parametrize(
    "code",
    [
        b"\x80\x02}(X\1\0\0\0aK\1X\1\0\0\0bK\0020u.",  # POP
        b"\x80\x02]2a.",  # DUP
        b"\x80\x02]]q\0a\x85q\0.",  # two objects remembered as one
        b"\x80\x02]q\0h\0K\1a.",  # changed where it is fetched
        b"\x80\x02h\0.",
        b"\x80\x02}",
        b"\x80\x02K\1K\2.",
        b"u.",
        b"",
        b"\xff.",
    ],
)
def test_a_program_that_no_pickler_wrote_is_refused(code: bytes) -> None:
    with pytest.raises(UnreadableFile):
        Program(plain(code))


@settings(deadline=None, max_examples=300)
@given(code=st.binary(max_size=60))
def test_any_bytes_are_a_program_or_refused(code: bytes) -> None:
    try:
        Program(plain(b"\x80\x02" + code))
    except UnreadableFile:
        return


def test_a_counter_is_eight_bytes() -> None:
    assert NewTensor.counter(258).data == struct.pack("<q", 258)
