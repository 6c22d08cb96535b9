"""From a path to a file that is read, or refused with its reason: what is said of it, and what stays open."""

import gzip
import io
import json
import os
import pickle
import socket
import struct
import sys
import tarfile
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from small_checkpoints import HEALTHY, write_checkpoint
from torch.nn.utils.prune import l1_unstructured

import bnlint
from bnlint import Assumed, RawFile, UnreadableFile, UsageError
from bnlint.readers import assembling, opening
from bnlint.readers.opening import open_file

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"4d7a" * 16 + b"\nsize 102530333\n"
LAYER = {f"bn.{leaf}": torch.tensor(values) for leaf, values in HEALTHY.items()}


def opened(folder: Path, data: bytes, name: str = "model.pth", **options: object) -> RawFile:
    path = folder / name
    path.write_bytes(data)
    return open_file(str(path), **options)  # type: ignore[arg-type]


def zipped(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def tarred(name: str, data: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        info = tarfile.TarInfo(name)
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


# -- what is no checkpoint -------------------------------------------------------------------------------

FOREIGN = {
    "html": (b"<!DOCTYPE html>\n<html><head><title>Google Drive - Virus scan warning</title>", "html", "HTML"),
    "html in capitals": (b"\n\n  <HTML><BODY>404</BODY>", "html", "HTML"),
    "xml": (b'\xef\xbb\xbf<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "html", "XML"),
    "text": (b"import sys; exec('')\n", "text", "text"),
    "text with umlauts": ("Prüfpunkt\n".encode() * 100, "text", "text"),
    "text cut in a character": (b"x" * 511 + "ü".encode(), "text", "text"),
    "text in utf-16": ("nothing here".encode("utf-16"), "text", "text"),
    "text that begins like a pickle": (b"config\nmodel\nresnet\n", "text", "text"),
    "text in parentheses": (b"(dpkg) installed\n(dpkg) removed\n", "text", "text"),
    "a version": (b"(Version 1.0)\nproject\n", "text", "text"),
    "a list of names": (b"Sam\npeter\nIda\n", "text", "text"),
    "numbers": (b"I1\nI2\n1.5\n", "text", "text"),
    "three bytes": (b"abc", "text", "text"),
    "json": (json.dumps({"weight_map": {"a": "b"}}).encode(), "text", "JSON"),
    "pdf": (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3", "text", "PDF"),
    "png": (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "image", "PNG"),
    "jpeg": (b"\xff\xd8\xff\xe0\0\x10JFIF", "image", "JPEG"),
    "gif": (b"GIF89a\1\0\1\0", "image", "GIF"),
    "webp": (b"RIFF\x24\0\0\0WEBPVP8 ", "image", "WebP"),
    "zip": (zipped(**{"word/document.xml": b"<x/>"}), "unknown", "zip archive"),
    "tar": (tarred("photo.jpg", b"x"), "unknown", "photo.jpg"),
    "noise": (b"\xde\xad\xbe\xef" * 100, "unknown", "no format"),
    "zeros": (bytes(5000), "unknown", "zeros"),
    "one zero": (b"\0", "unknown", "zeros"),
}


@pytest.mark.parametrize("named", [True, False], ids=["named", "met"])
@pytest.mark.parametrize(("data", "code", "says"), FOREIGN.values(), ids=FOREIGN)
def test_something_else_under_the_name(tmp_path: Path, data: bytes, code: str, says: str, named: bool) -> None:
    file = opened(tmp_path, data, named=named)
    assert file.problem is not None
    assert (file.problem.code, file.format, file.size) == (code, None, len(data))
    assert says in str(file.problem)
    assert file.status == ("not-a-checkpoint" if named else "skipped")
    assert file.named is named
    assert file.foreign
    assert file.checkpoint is None


@pytest.mark.parametrize("named", [True, False], ids=["named", "met"])
def test_a_pointer_of_git_lfs(tmp_path: Path, named: bool) -> None:
    file = opened(tmp_path, POINTER, named=named)
    assert file.problem is not None
    assert (file.problem.code, file.status) == ("lfs", "unreadable")
    assert "git lfs pull" in str(file.problem)
    assert file.facts == {"lfs_oid": "sha256:" + "4d7a" * 16, "lfs_size": 102530333}


@pytest.mark.parametrize("rest", [b"", b"oid sha256:", b"size -5", b"size " + b"9" * 400, b"\xff\xfe\n", b"oid md5:00"])
def test_a_damaged_pointer_is_still_a_pointer(tmp_path: Path, rest: bytes) -> None:
    file = opened(tmp_path, b"version https://git-lfs.github.com/spec/v1\n" + rest)
    assert file.problem is not None
    assert file.problem.code == "lfs"


UNSUPPORTED = {
    "model.onnx": (b"\x08\x07\x12\x07pytorch\x1a\x03", "onnx", "ONNX"),
    "model.bin": (b"\x08\x03\x12\x04onnx", "onnx", "ONNX"),
    "weights.h5": (b"\x89HDF\r\n\x1a\n" + bytes(100), "keras-h5", "HDF5"),
    "array.npy": (b"\x93NUMPY\1\0v\0{'descr': '<f4'}", "npy", "numpy"),
    "model.gguf": (b"GGUF\3\0\0\0", None, "GGUF"),
    "model.tflite": (b"\x1c\0\0\0TFL3", None, "TFLite"),
    "model.pth.gz": (gzip.compress(b"x" * 100), None, "gzip"),
    "model.pth.bz2": (b"BZh91AY&SY\0\0", None, "bzip2"),
    "model.pth.xz": (b"\xfd7zXZ\0\0\4", None, "xz"),
    "model.pth.zst": (b"\x28\xb5\x2f\xfd\x04\x00", None, "zstd"),
    "model.7z": (b"7z\xbc\xaf\x27\x1c\0\4", None, "7z"),
    "model.joblib": (b"\x78\x9c\xed\xc1\x01\x0d\x00\x00", None, "zlib"),
    "variables.index": (b"\0\1\2" * 40 + b"\x57\xfb\x80\x8b\x24\x75\x47\xdb", None, "TensorFlow"),
    "variables.data-00000-of-00001": (b"\x01\x02\xf3" * 40, None, "TensorFlow"),
    "model.msgpack": (b"\x81\xa6params\x81", None, "flax"),
    "net.caffemodel": (b"\x0a\x09\xff\xfeMobile", None, "Caffe"),
    "__0_0.distcp": (zipped(**{"archive/data.pkl": b"x"}), "torch-dcp", "distributed"),
    ".metadata": (b"\x80\x04\x95", "torch-dcp", "distributed"),
    "model.npz": (zipped(**{"a.npy": b"\x93NUMPY"}), "npz", "npz"),
    "model.keras": (zipped(**{"config.json": b"{}", "model.weights.h5": b"x"}), "keras", "Keras"),
    "model.pt2": (zipped(**{"m/data/weights/model_weights_config.json": b"{}"}), "torch-export", "torch.export"),
    "package.pt": (
        zipped(**{"p/.data/extern_modules": b"", "p/model/model.pkl": b""}),
        "torch-package",
        "torch.package",
    ),
    "models.zip": (zipped(**{"readme.txt": b"x", "nets/model.pth": b"x"}), None, "'nets/model.pth'"),
    "models.tar": (tarred("nets/model.pth", b"x"), None, "'nets/model.pth'"),
}


@pytest.mark.parametrize("named", [True, False], ids=["named", "met"])
@pytest.mark.parametrize("name", UNSUPPORTED)
def test_formats_that_are_known_and_not_read(tmp_path: Path, name: str, named: bool) -> None:
    data, format, says = UNSUPPORTED[name]
    file = opened(tmp_path, data, name, named=named)
    assert file.problem is not None
    assert (file.problem.code, file.status, file.format) == ("unsupported", "skipped", format)
    assert says in str(file.problem)


def test_a_directory_a_device_a_pipe_and_a_socket(tmp_path: Path) -> None:
    places = [tmp_path]
    if os.path.exists("/dev/zero"):
        places += [Path("/dev/zero"), Path("/dev/null")]
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "fifo.pth")
        places.append(tmp_path / "fifo.pth")
    if hasattr(socket, "AF_UNIX"):
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(tmp_path / "s.pth"))
        places.append(tmp_path / "s.pth")
    for place in places:
        file = open_file(str(place))
        assert file.problem is not None
        assert (file.problem.code, file.status) == ("io", "unreadable")
        assert str(tmp_path) not in str(file.problem)


def test_a_path_that_vanished_a_circle_of_links_and_a_null_byte(tmp_path: Path) -> None:
    paths = [str(tmp_path / "gone.pth"), "with\0null.pth"]
    if hasattr(os, "symlink"):
        os.symlink(tmp_path / "b.pth", tmp_path / "a.pth")
        os.symlink(tmp_path / "a.pth", tmp_path / "b.pth")
        paths.append(str(tmp_path / "a.pth"))
    for path in paths:
        file = open_file(path)
        assert file.problem is not None
        assert (file.problem.code, file.status) == ("io", "unreadable")


def test_an_empty_file(tmp_path: Path) -> None:
    file = opened(tmp_path, b"")
    assert file.problem is not None
    assert (file.problem.code, file.status, file.size) == ("empty", "unreadable", 0)


# -- content before the name -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["model.pth", "model.tar", "model.onnx", "model.h5", "README", "model.safetensors"])
def test_the_content_decides(tmp_path: Path, name: str) -> None:
    for legacy in (False, True):
        torch.save(LAYER, tmp_path / name, _use_new_zipfile_serialization=not legacy)
        file = open_file(str(tmp_path / name))
        assert (file.status, file.format) == ("checked", "torch-legacy" if legacy else "torch-zip")
    file = open_file(write_checkpoint(tmp_path / name))
    assert (file.status, file.format) == ("checked", "safetensors")


@pytest.mark.parametrize("protocol", range(1, 6))  # torch itself cannot load protocol 0
@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_pickle_protocols_that_users_choose(tmp_path: Path, protocol: int, legacy: bool) -> None:
    path = tmp_path / "model.pth"
    torch.save(LAYER, path, pickle_protocol=protocol, _use_new_zipfile_serialization=not legacy)
    file = open_file(str(path))
    assert file.problem is None, file.problem
    assert (file.status, file.format) == ("checked", "torch-legacy" if legacy else "torch-zip")


def test_a_broken_safetensors_file_is_one_by_its_name(tmp_path: Path) -> None:
    file = opened(tmp_path, b"\x90\xff\xff\xff\xff\xff\xff\xff" * 30, "model.safetensors")
    assert file.problem is not None
    assert (file.problem.code, file.status, file.format) == ("limit", "unreadable", "safetensors")


@pytest.mark.parametrize("size", [4, 100, 199, 300])
def test_the_first_bytes_of_a_checkpoint_keep_its_format(tmp_path: Path, size: int) -> None:
    torch.save(LAYER, tmp_path / "whole.pth")
    file = opened(tmp_path, (tmp_path / "whole.pth").read_bytes()[:size])
    assert file.problem is not None
    assert (file.status, file.format, file.problem.code) == ("unreadable", "torch-zip", "truncated")
    assert file.stub == (size < 200)


def test_a_small_file_that_is_all_there_is_damaged_not_cut_short(tmp_path: Path) -> None:
    header = b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}'
    file = opened(tmp_path, len(header).to_bytes(8, "little") + header + bytes(8), "model.safetensors")
    assert file.size < 200
    assert file.problem is not None
    assert (file.problem.code, file.stub) == ("bounds", False)
    findings = bnlint.check(tmp_path / "model.safetensors", isolated=True).findings
    assert [finding.rule for finding in findings] == ["unreadable-checkpoint"]


# -- what is read --------------------------------------------------------------------------------------


def test_assumptions_reach_every_layer(tmp_path: Path) -> None:
    file = open_file(write_checkpoint(tmp_path / "a.safetensors"), assumed=Assumed(momentum=0.03, eps=1e-3))
    assert file.checkpoint is not None
    for layer in file.checkpoint.batchnorms:
        assert (layer.momentum, layer.momentum_known, layer.eps) == (0.03, True, 1e-3)


def test_notes_and_globals_of_a_file(tmp_path: Path) -> None:
    torch.save({"state_dict": LAYER, "epoch": 3}, tmp_path / "a.pth")
    file = open_file(str(tmp_path / "a.pth"))
    assert file.checkpoint is not None
    assert file.notes == file.checkpoint.notes == ["read state dict 'state_dict'"]
    assert {str(each) for each in file.globals} == set(file.checkpoint.globals)
    assert "torch._utils._rebuild_tensor_v2" in file.checkpoint.globals
    assert file.checkpoint.format == file.format == "torch-zip"


@pytest.mark.parametrize(
    "data",
    [
        b"(S'echo'\nios\nsystem\n.",
        b"cos\nsystem\n(S'echo'\ntR.",
        b"(ios\nsystem\n.",
        b"(Vecho\np0\nios\nsystem\n.",
        b"(I1\np0\nios\nsystem\n.",
        pickle.dumps({"x": [1.5, None, True]}, protocol=0),
        pickle.dumps({"x": [1.5, None, True]}, protocol=1),
        pickle.dumps([{}], protocol=0),
        pickle.dumps(OrderedDict(a=1), protocol=0),
        pickle.dumps("text", protocol=0),
    ],
)
def test_pickles_that_look_like_text_are_pickles(tmp_path: Path, data: bytes) -> None:
    file = opened(tmp_path, data, "model.pkl")
    assert (file.format, file.status) == ("pickle", "nothing-to-check")
    assert [str(each) for each in file.globals if each.module == "os"] == ["os.system"] * (b"system" in data)


META = torch.zeros(4, device="meta")


def test_a_statistic_without_data_is_damage(tmp_path: Path) -> None:
    torch.save({**LAYER, "bn.running_var": META}, tmp_path / "a.pth")
    file = open_file(str(tmp_path / "a.pth"))
    assert file.problem is not None
    assert (file.problem.code, file.status) == ("missing", "unreadable")
    assert "running_var of layer 'bn' has no data" in str(file.problem)


def test_a_statistic_that_cannot_be_understood_is_damage(tmp_path: Path) -> None:
    sparse = LAYER["bn.running_var"].to_sparse()
    torch.save({**LAYER, "bn.running_var": sparse}, tmp_path / "a.pth")
    file = open_file(str(tmp_path / "a.pth"))
    assert file.problem is not None
    assert (file.problem.code, file.status) == ("dtype", "unreadable")
    assert "running_var of layer 'bn' is of an unknown type: a sparse tensor" in str(file.problem)


@pytest.mark.parametrize("leaf", ["running_mean", "running_var"])
def test_a_complex_statistic_beside_a_readable_one_is_damage(tmp_path: Path, leaf: str) -> None:
    torch.save({**LAYER, f"bn.{leaf}": LAYER[f"bn.{leaf}"].to(torch.complex64)}, tmp_path / "a.pth")
    file = open_file(str(tmp_path / "a.pth"))
    assert file.problem is not None
    assert (file.problem.code, file.status) == ("dtype", "unreadable")
    assert f"{leaf} of layer 'bn' is complex64" in str(file.problem)


@pytest.mark.parametrize("nested", [False, True])
def test_an_unknown_statistic_in_a_dict_of_its_layer_is_damage(tmp_path: Path, nested: bool) -> None:
    layer = {"running_mean": torch.zeros(4), "running_var": torch.ones(4).to_sparse(), "weight": torch.ones(4)}
    torch.save({"model": {"bn": layer}} if nested else {"bn": layer}, tmp_path / "a.pth")
    file = open_file(str(tmp_path / "a.pth"))
    assert file.problem is not None
    assert file.problem.code == "dtype"


@pytest.mark.parametrize(
    ("counter", "dtype"),
    [(torch.tensor(3 + 0j), "complex64"), (torch.tensor([3]).to_sparse(), "opaque")],
    ids=["complex", "sparse"],
)
def test_a_counter_without_a_number_leaves_its_layer_in(tmp_path: Path, counter: torch.Tensor, dtype: str) -> None:
    path = str(tmp_path / "a.pth")
    torch.save({**LAYER, "bn.running_var": -torch.ones(4), "bn.num_batches_tracked": counter}, path)
    file = open_file(path)
    assert file.checkpoint is not None, file.problem
    (layer,) = file.checkpoint.batchnorms
    assert (layer.tracked, layer.num_batches_tracked) == (None, None)
    assert layer.tensors["num_batches_tracked"].dtype == dtype
    found = {finding.rule for finding in bnlint.check(path, isolated=True).findings}
    assert {"negative-running-var", "invalid-num-batches-tracked"} <= found
    assert "missing-num-batches-tracked" not in found


@pytest.mark.parametrize("leaf", ["running_mean", "running_var"])
@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.bool])
def test_statistics_that_are_integers_are_read(tmp_path: Path, leaf: str, dtype: torch.dtype) -> None:
    path = str(tmp_path / "a.pth")
    torch.save({**LAYER, f"bn.{leaf}": torch.tensor([0, 1, 1, 0]).to(dtype)}, path)
    report = bnlint.check(path, isolated=True, preset="strict", deep=True)
    assert ([each.status for each in report.files], report.crashes) == (["checked"], [])
    file = open_file(path)
    assert file.checkpoint is not None
    assert getattr(file.checkpoint.batchnorms[0], leaf).tolist() == [0, 1, 1, 0]


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("length", [300, 4096, 5000, 20_000])
def test_a_layer_with_a_long_name_is_checked(tmp_path: Path, length: int, legacy: bool) -> None:
    path = str(tmp_path / "a.pth")
    name = "x" * length
    state = {f"{name}.{key.rpartition('.')[2]}": each for key, each in LAYER.items()}
    state[f"{name}.running_mean"] = torch.full((4,), float("nan"))
    torch.save(state, path, _use_new_zipfile_serialization=not legacy)
    found = {finding.rule for finding in bnlint.check(path, isolated=True).findings}
    assert "nonfinite-running-stats" in found


def test_a_key_over_the_limit_makes_the_file_unreadable(tmp_path: Path) -> None:
    torch.save({**LAYER, "x" * 70_000: torch.zeros(1)}, tmp_path / "a.pth")
    file = open_file(str(tmp_path / "a.pth"))
    assert file.problem is not None
    assert (file.problem.code, str(file.problem)) == ("limit", "a key of 70000 bytes is over the limit of 65536")


def test_statistics_alone_at_the_root_are_no_layer(tmp_path: Path) -> None:
    statistics = {"running_mean": torch.zeros(4), "running_var": torch.ones(4)}
    named = {f"bn.{leaf}": each for leaf, each in statistics.items()}  # affine=False, of before torch 0.4.1
    counted = {**statistics, "num_batches_tracked": torch.tensor(7)}
    for state, wanted in ((statistics, []), (named, ["bn"]), (counted, [""])):
        torch.save(state, tmp_path / "a.pth")
        file = open_file(str(tmp_path / "a.pth"))
        assert file.checkpoint is not None
        assert [layer.name for layer in file.checkpoint.batchnorms] == wanted


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (dict.fromkeys(LAYER, META), "saved on the meta device, without data"),
        ({name: torch.zeros(0) for name in LAYER}, "no channels"),
        ({name: each.to(torch.complex64) for name, each in LAYER.items()}, "weight is complex64"),
    ],
    ids=["meta", "empty", "complex"],
)
def test_layers_without_numbers_are_left_out_and_noted(tmp_path: Path, state: dict, reason: str) -> None:
    torch.save(state, tmp_path / "a.pth")
    file = open_file(str(tmp_path / "a.pth"))
    assert file.problem is None
    assert file.status == "nothing-to-check"
    assert file.notes == [f"BatchNorm layer 'bn' left out ({reason})"]


FLOATS = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2]


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_statistics_of_every_floating_dtype(tmp_path: Path, dtype: torch.dtype) -> None:
    state = {name: value.to(dtype) for name, value in LAYER.items()}
    torch.save(state, tmp_path / "a.pth")
    file = open_file(str(tmp_path / "a.pth"))
    assert file.checkpoint is not None
    (layer,) = file.checkpoint.batchnorms
    for leaf, vector in layer.vectors.items():
        assert vector.dtype == str(dtype).removeprefix("torch.")
        assert vector.tolist() == state[f"bn.{leaf}"].double().tolist()


@pytest.mark.parametrize(
    ("state", "layers"),
    [
        ({"bn.weight": (4, 4)}, []),
        ({"bn.bias": (4, 4)}, []),
        ({"bn.weight": None, "bn.bias": None}, ["bn"]),
        ({"bn.running_var": None}, ["bn"]),
        ({"bn.running_mean": None, "bn.running_var": None}, []),
        ({"bn.running_mean": None, "bn.running_var": (2, 2)}, []),
        ({"bn.running_mean": (3,)}, ["bn"]),
        ({"bn.weight": None, "bn.bias": None, "bn.count": ()}, []),
        ({"bn.count": ()}, ["bn"]),
        ({"bn.scale": (1,), "bn.zero_point": (1,)}, ["bn"]),
        ({"conv.weight": (4, 3, 3, 3), "conv.bn.running_mean": (4,), "conv.bn.running_var": (4,)}, ["bn", "conv.bn"]),
    ],
    ids=[
        "weight of rank 2", "bias of rank 2", "affine=False", "mean alone", "no statistics", "a matrix", "two lengths",
        "RunningMeanStd", "a count beside a weight", "quantised", "QAT",
    ],
)  # fmt: skip
def test_what_is_a_batchnorm_layer(tmp_path: Path, state: dict, layers: list[str]) -> None:
    made = {**LAYER, **{key: None if shape is None else torch.ones(shape) for key, shape in state.items()}}
    torch.save({key: value for key, value in made.items() if value is not None}, tmp_path / "a.pth")
    file = open_file(str(tmp_path / "a.pth"))
    assert file.checkpoint is not None
    assert [layer.name for layer in file.checkpoint.batchnorms] == layers


@pytest.mark.parametrize("kind", ["parametrization", "weight_norm", "pruning"])
def test_a_weight_that_is_made_of_another(tmp_path: Path, kind: str) -> None:
    norm = torch.nn.BatchNorm2d(4)
    if kind == "parametrization":
        torch.nn.utils.parametrize.register_parametrization(norm, "weight", torch.nn.Identity())
    elif kind == "weight_norm":
        torch.nn.utils.parametrizations.weight_norm(norm)
    else:
        l1_unstructured(norm, "weight", 1)
    torch.save(torch.nn.Sequential(norm).state_dict(), tmp_path / "a.pth")
    file = open_file(str(tmp_path / "a.pth"))
    assert file.checkpoint is not None
    (layer,) = file.checkpoint.batchnorms
    assert layer.name == "0"
    assert layer.weight is not None
    assert layer.weight.tolist() == [1.0] * 4


def test_counters_without_statistics_stay_in_the_tensors(tmp_path: Path) -> None:
    torch.save({**LAYER, "other.num_batches_tracked": torch.tensor(3)}, tmp_path / "a.pth")
    file = open_file(str(tmp_path / "a.pth"))
    assert file.checkpoint is not None
    assert "other.num_batches_tracked" in file.checkpoint.tensors
    assert [layer.name for layer in file.checkpoint.batchnorms] == ["bn"]


def test_absurd_sizes_are_refused_before_anything_is_read(tmp_path: Path) -> None:
    one = torch.ones(1)
    wide = one.expand(1 << 40)
    for state in (
        {"bn.running_mean": wide, "bn.running_var": wide},
        {f"bn{i}.running_mean": one.expand(1 << 22) for i in range(5)},
        {**LAYER, "bn.num_batches_tracked": torch.ones(1).expand([1] * 20)},
    ):
        torch.save(state, tmp_path / "a.pth")
        file = open_file(str(tmp_path / "a.pth"))
        assert file.problem is not None
        assert (file.problem.code, file.status) == ("limit", "unreadable")


# -- the boundary --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (KeyError("x"), "corrupt"),
        (struct.error("x"), "corrupt"),
        (AssertionError("secret"), "corrupt"),
        (RecursionError(), "limit"),
        (MemoryError(), "limit"),
        (OSError(5, "Input/output error"), "io"),
        (OSError(), "io"),
        (UnreadableFile("zip", "broken", 7), "zip"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_whatever_a_reader_raises_is_a_problem_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, code: str
) -> None:
    def fail(*_: object) -> None:
        raise error

    for room, name in ((opening, "assemble"), (opening, "sniff"), (assembling, "choose")):
        with monkeypatch.context() as patched:
            patched.setattr(room, name, fail)
            file = open_file(write_checkpoint(tmp_path / "a.safetensors"))
        assert file.problem is not None
        assert (file.problem.code, file.status) == (code, "unreadable")
        assert file.checkpoint is None
        assert "secret" not in str(file.problem)


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts open files by /proc")
def test_no_file_stays_open(tmp_path: Path) -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    before = descriptors()
    good = write_checkpoint(tmp_path / "a.safetensors")
    file = open_file(good)
    assert descriptors() == before + 1
    assert file.checkpoint is not None
    file.checkpoint.close()
    file.checkpoint.close()
    for data in (b"", b"text", POINTER, b"PK\3\4", Path(good).read_bytes()[:-1]):
        opened(tmp_path, data)
    with pytest.raises(bnlint.UsageError):
        open_file(good, key="nothing")
    assert descriptors() == before


def test_open_checkpoint_gives_the_checkpoint_or_raises_the_problem(tmp_path: Path) -> None:
    with bnlint.open_checkpoint(write_checkpoint(tmp_path / "a.safetensors", "bn1")) as checkpoint:
        assert checkpoint.format == "safetensors"
        assert checkpoint.tensors["bn1.running_mean"].shape == (4,)
        assert (
            checkpoint.tensors["bn1.running_mean"].values().tolist() == checkpoint.batchnorms[0].running_mean.tolist()
        )  # type: ignore[union-attr]
        assert checkpoint.modules is None
    (tmp_path / "b.pth").write_bytes(POINTER)
    with pytest.raises(UnreadableFile, match="git lfs pull") as caught:
        bnlint.open_checkpoint(str(tmp_path / "b.pth"))
    assert caught.value.code == "lfs"
    assert str(caught.value).startswith(f"{tmp_path / 'b.pth'}: ")
    with pytest.raises(UsageError, match="the file itself is the only state dict") as asked:
        bnlint.open_checkpoint(tmp_path / "a.safetensors", key="x")
    assert str(asked.value).startswith(f"{tmp_path / 'a.safetensors'}: ")


def test_a_tensor_shows_its_dtype_and_shape(tmp_path: Path) -> None:
    with bnlint.open_checkpoint(write_checkpoint(tmp_path / "a.safetensors", "bn1")) as checkpoint:
        assert repr(checkpoint.tensors["bn1.running_mean"]) == "Tensor(float32, [4])"


@given(st.binary(max_size=300))
@example(b"\x80")
@example(b"\x80\x02.")
@example(b"cos\nsystem\n(S'true'\ntR.")
@example(b"PK\3\4" + bytes(300))
@example(b"\2\0\0\0\0\0\0\0{}")
@example(tarred("sys_info", b"x"))
def test_no_bytes_make_it_raise(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.pth"
    path.write_bytes(data)
    for name in (path, path.with_suffix(".index.json"), path.with_suffix(".safetensors")):
        name.write_bytes(data)
        file = open_file(str(name))
        if file.checkpoint is None:
            assert file.problem is not None
            assert file.status in ("unreadable", "not-a-checkpoint", "skipped")
        else:
            file.checkpoint.close()


def test_nothing_heavy_is_imported(tmp_path: Path) -> None:
    import subprocess

    path = write_checkpoint(tmp_path / "a.safetensors")
    script = (
        "import sys; before = set(sys.modules);"
        "from bnlint.readers.opening import open_file;"
        f"open_file({path!r});"
        "print(sorted(set(sys.modules) - before))"
    )
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert "bnlint.readers.safetensors" in loaded
    for name in ("torch", "numpy", "json", "re", "typing", "zipfile", "pickle", "enum", "dataclasses", "contextlib"):
        assert f"'{name}'" not in loaded


def test_globals_are_known_of_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    file = opened(tmp_path, b"\x80\x02cos\nsystem\nU\x04true\x85Rq\x00h\x07.")
    assert file.problem is not None
    assert file.problem.code == "pickle"
    assert [(str(each), each.called) for each in file.globals] == [("os.system", True)]
