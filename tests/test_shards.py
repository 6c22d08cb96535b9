"""Checkpoints in several files: what transformers writes is one state dict; an index leads nowhere else."""

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from bnlint import UnreadableFile
from bnlint.readers.opening import open_file

NAMES = {
    "safetensors": ("model-{}-of-00002.safetensors", "model.safetensors.index.json"),
    "bin": ("pytorch_model-{}-of-00002.bin", "pytorch_model.bin.index.json"),
}


def network() -> nn.Sequential:
    torch.manual_seed(0)
    made = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6))
    made(torch.randn(2, 3, 8, 8))
    return made


def write(folder: Path, kind: str, state: dict[str, torch.Tensor], split: int = 4) -> Path:
    """Two shards and their index. With 4 keys in the first, the first layer lies in both."""
    shard, index = NAMES[kind]
    names = list(state)
    weight_map = {}
    for number, part in enumerate((names[:split], names[split:]), start=1):
        name = shard.format(f"{number:05}")
        tensors = {key: state[key].clone() for key in part}
        if kind == "bin":
            torch.save(tensors, folder / name)
        else:
            save_file(tensors, folder / name)
        weight_map |= dict.fromkeys(part, name)
    return write_index(folder / index, weight_map)


def write_index(path: Path, weight_map: object) -> Path:
    path.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}))
    return path


def refused(path: Path, code: str) -> str:
    file = open_file(str(path))
    assert file.checkpoint is None
    assert file.problem is not None
    assert file.problem.code == code, file.problem
    return str(file.problem)


@pytest.mark.parametrize("kind", NAMES)
def test_shards_are_one_state_dict_in_the_order_of_the_index(tmp_path: Path, kind: str) -> None:
    state = network().state_dict()
    file = open_file(str(write(tmp_path, kind, state)))
    assert file.problem is None
    assert (file.format, file.status) == ("torch-zip" if kind == "bin" else "safetensors", "checked")
    assert file.notes[0] == "2 shards"
    assert file.checkpoint is not None
    with file.checkpoint as checkpoint:
        assert [each.key for each in checkpoint.state_dicts] == [""]
        assert list(checkpoint.tensors) == list(state)
        assert [layer.name for layer in checkpoint.batchnorms] == ["1", "4"]
        for name, tensor in checkpoint.tensors.items():
            assert tensor.raw() == state[name].contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def test_closing_the_checkpoint_closes_every_shard(tmp_path: Path) -> None:
    path = str(write(tmp_path, "safetensors", network().state_dict()))
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else None
    file = open_file(path)
    assert file.checkpoint is not None
    tensor = file.checkpoint.tensors["0.weight"]
    file.checkpoint.close()
    with pytest.raises(UnreadableFile):
        tensor.raw()
    if before is not None:
        assert len(os.listdir("/proc/self/fd")) == before


LEADING_ELSEWHERE = ["", ".", "..", "../model.bin", "/etc/passwd", "sub/model.bin", "..\\model.bin", "C:model.bin"]


@pytest.mark.parametrize("name", [*LEADING_ELSEWHERE, ".hidden", "a\0b", "n" * 300], ids=repr)
def test_only_bare_names_beside_the_index_are_opened(tmp_path: Path, name: str) -> None:
    (tmp_path / "sub").mkdir()
    torch.save({"x": torch.zeros(1)}, tmp_path / "sub" / "model.bin")
    assert "no bare file name" in refused(write_index(tmp_path / "a.index.json", {"x": name}), "path")


@pytest.mark.parametrize("weight_map", [None, [], {}, "model.bin", {"x": 1}, {"x": None}, {"x": ["a.bin"]}], ids=repr)
def test_an_index_without_a_weight_map_is_refused(tmp_path: Path, weight_map: object) -> None:
    refused(write_index(tmp_path / "a.index.json", weight_map), "json")


def test_an_index_that_is_no_json_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors.index.json"
    path.write_text('{"weight_map": {"a": "b"')
    refused(path, "json")


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    index = write(tmp_path, "safetensors", network().state_dict())
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    assert "'model-00002-of-00002.safetensors'" in refused(index, "io")


def test_a_tensor_that_its_shard_lacks_is_named(tmp_path: Path) -> None:
    torch.save({"y": torch.zeros(1)}, tmp_path / "part.bin")
    said = refused(write_index(tmp_path / "a.index.json", {"y": "part.bin", "x": "part.bin"}), "missing")
    assert "'x'" in said
    assert "'part.bin'" in said


def test_a_truncated_shard_is_named_with_its_problem(tmp_path: Path) -> None:
    index = write(tmp_path, "safetensors", network().state_dict())
    shard = tmp_path / "model-00001-of-00002.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1])
    assert "'model-00001-of-00002.safetensors'" in refused(index, "truncated")


def test_shards_that_are_pointers_are_a_matter_of_git_lfs(tmp_path: Path) -> None:
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12345\n"
    (tmp_path / "part.bin").write_bytes(pointer)
    assert "git lfs pull" in refused(write_index(tmp_path / "a.index.json", {"x": "part.bin"}), "lfs")


@pytest.mark.parametrize("root", [[torch.zeros(1)], torch.zeros(1), 7], ids=["list", "tensor", "number"])
def test_a_shard_that_is_no_state_dict_is_refused(tmp_path: Path, root: object) -> None:
    torch.save(root, tmp_path / "part.bin")
    refused(write_index(tmp_path / "a.index.json", {"x": "part.bin"}), "missing")


def test_an_index_cannot_name_itself_or_another(tmp_path: Path) -> None:
    write_index(tmp_path / "b.index.json", {"x": "a.index.json"})
    refused(write_index(tmp_path / "a.index.json", {"x": "b.index.json"}), "path")
    refused(write_index(tmp_path / "a.index.json", {"x": "a.index.json"}), "path")


def test_a_thousand_shards_are_the_limit(tmp_path: Path) -> None:
    (tmp_path / "0.safetensors").write_bytes(b"\2\0\0\0\0\0\0\0{}")
    for number in range(1, 1001):
        os.link(tmp_path / "0.safetensors", tmp_path / f"{number}.safetensors")
    names = {str(number): f"{number}.safetensors" for number in range(1001)}
    file = open_file(str(write_index(tmp_path / "a.index.json", names)))
    assert file.problem is not None
    assert file.problem.code in ("limit", "io")  # "io" where fewer files may be open


def test_metadata_of_the_shards_is_put_together(tmp_path: Path) -> None:
    state = network().state_dict()
    for number, prefix in enumerate("14"):
        part = type(state)((key, value) for key, value in state.items() if key.startswith(prefix))
        part._metadata = {prefix: state._metadata[prefix]}  # type: ignore[attr-defined]
        torch.save(part, tmp_path / f"{number}.bin")
    names = {key: "0.bin" if key.startswith("1") else "1.bin" for key in state if key[0] in "14"}
    file = open_file(str(write_index(tmp_path / "a.index.json", names)))
    assert file.checkpoint is not None
    with file.checkpoint as checkpoint:
        assert [layer.version for layer in checkpoint.batchnorms] == [2, 2]
