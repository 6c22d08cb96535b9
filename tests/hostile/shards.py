"""Sharded checkpoints: an index that names other files, and what those are."""

import json
import os
from collections.abc import Mapping
from pathlib import Path

from . import safetensors
from .assembler import dict_of, layer, text, torch_zip
from .case import bounded, hostile, lfs_pointer, refused, sound, unreadable, unsafe, unsafe_or_broken
from .executing import payload, pickled

INDEX = "model.safetensors.index.json"
BIN = "pytorch_model.bin.index.json"
SHARD = "model-00001-of-00001.safetensors"
REASON = "shard|index|path|folder|outside|missing|not there|does not|no such|absolute|key|json|lfs|truncat|name|link"
LEAVES = ("weight", "bias", "running_mean", "running_var")
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"ab" * 32 + b"\nsize 12345\n"


def index(path: Path, weight_map: object, **files: bytes) -> None:
    """An index beside the shards that are given (a double underscore stands for a dot)."""
    path.write_text(json.dumps({"metadata": {"total_size": 64}, "weight_map": weight_map}))
    for name, data in files.items():
        (path.parent / name.replace("__", ".")).write_bytes(data)


def all_in(name: str) -> Mapping[str, str]:
    return {f"bn.{leaf}": name for leaf in LEAVES}


@hostile(sound(), INDEX)
def honest(path: Path) -> None:
    """One shard."""
    index(path, all_in(SHARD))
    (path.parent / SHARD).write_bytes(safetensors.file())


@hostile(sound(), BIN)
def honest_bin(path: Path) -> None:
    """One shard that is a torch zip."""
    index(path, dict.fromkeys(layer(), "model.bin"), model__bin=torch_zip())


@hostile(sound(), INDEX)
def layer_across_two_shards(path: Path) -> None:
    """The mean of a layer in one shard, its variance in another."""
    both = safetensors.layer()
    first = {key: both[key] for key in ("bn.weight", "bn.bias")}
    second = {
        "bn.running_mean": safetensors.tensor(begin=0, end=16),
        "bn.running_var": safetensors.tensor(begin=16, end=32),
    }
    index(
        path,
        {**dict.fromkeys(first, "a.safetensors"), **dict.fromkeys(second, "b.safetensors")},
        a__safetensors=safetensors.file(first, safetensors.DATA[:32]),
        b__safetensors=safetensors.file(second, safetensors.DATA[32:]),
    )


@hostile(unreadable(REASON), INDEX, each={
    "parent": "../secret.safetensors",
    "far_parent": "../../../../../../etc/passwd",
    "hidden_parent": "x/../../secret.safetensors",
    "absolute": "/etc/passwd",
    "windows": "..\\secret.safetensors",
    "drive": "C:\\secret.safetensors",
    "url": "https://example.org/model.safetensors",
    "file_url": "file:///etc/passwd",
    "nul": "a\0.safetensors",
    "empty": "",
    "dot": ".",
    "dots": "..",
    "control": "\x1b[31mred",
    "long": "n" * 5000,
    "folder": "sub/shard.safetensors",
    "surrogate": "\ud800.safetensors",
})  # fmt: skip
def shard_called(path: Path, name: str) -> None:
    """The index names a shard outside its folder, or by no name that a file beside it has."""
    (path.parent.parent / "secret.safetensors").write_bytes(safetensors.file())
    index(path, all_in(name))


@hostile(unreadable(REASON), INDEX)
def shard_missing(path: Path) -> None:
    """The shard was not downloaded."""
    index(path, all_in(SHARD))


@hostile(sound(), f"snapshots/main/{INDEX}")
def links_as_in_the_cache_of_the_hub(path: Path) -> None:
    """The index and the shard are links to blobs two folders up: the most common place of all."""
    path.parent.mkdir(parents=True)
    blobs = path.parent.parent.parent / "blobs"
    blobs.mkdir()
    index(blobs / "a1b2", all_in(SHARD))
    (blobs / "c3d4").write_bytes(safetensors.file())
    path.symlink_to("../../blobs/a1b2")
    (path.parent / SHARD).symlink_to("../../blobs/c3d4")


@hostile(unreadable(REASON), INDEX)
def shard_is_a_link_to_a_device(path: Path) -> None:
    """A symbolic link from the folder to something that never ends."""
    index(path, all_in(SHARD))
    (path.parent / SHARD).symlink_to("/dev/zero")


@hostile(unreadable(REASON), INDEX)
def shard_links_to_itself(path: Path) -> None:
    """A link in a circle."""
    index(path, all_in(SHARD))
    (path.parent / SHARD).symlink_to(SHARD)


@hostile(unreadable(REASON), INDEX)
def shard_is_a_fifo(path: Path) -> None:
    """Reading it would wait forever."""
    index(path, all_in(SHARD))
    os.mkfifo(path.parent / SHARD)


@hostile(unreadable(REASON), INDEX)
def shard_is_a_folder(path: Path) -> None:
    """A folder in place of the shard."""
    index(path, all_in(SHARD))
    (path.parent / SHARD).mkdir()


@hostile(unreadable(REASON), INDEX)
def shard_is_the_index(path: Path) -> None:
    """The index is its own shard."""
    index(path, all_in(INDEX))


@hostile(unreadable(REASON), INDEX)
def shards_are_indices_of_each_other(path: Path) -> None:
    """Two indices that name each other."""
    other = json.dumps({"metadata": {}, "weight_map": all_in(INDEX)}).encode()
    index(path, all_in("other.safetensors.index.json"), other__safetensors__index__json=other)


@hostile(unreadable(REASON), INDEX)
def key_not_in_the_shard(path: Path) -> None:
    """The index promises a tensor that the shard does not have."""
    index(path, {**all_in(SHARD), "bn2.running_var": SHARD})
    (path.parent / SHARD).write_bytes(safetensors.file())


@hostile(bounded(), INDEX)
def shard_with_more_than_promised(path: Path) -> None:
    """The shard holds tensors that the index does not name."""
    index(path, {"bn.weight": SHARD})
    (path.parent / SHARD).write_bytes(safetensors.file())


@hostile(refused(REASON), INDEX, each={
    "cut": safetensors.file()[:250],
    "empty": b"",
    "text": b"Entry not found" * 20,
    "html": b"<!DOCTYPE html><html><head><title>403</title></head></html>" * 5,
})  # fmt: skip
def shard_is(path: Path, data: bytes) -> None:
    """A shard that cannot be read."""
    index(path, all_in(SHARD))
    (path.parent / SHARD).write_bytes(data)


@hostile(lambda _: lfs_pointer("lfs|shard"), INDEX, each={"pointer": LFS})
def shard_of_lfs(path: Path, data: bytes) -> None:
    """The shard is a git-lfs pointer."""
    index(path, all_in(SHARD))
    (path.parent / SHARD).write_bytes(data)


@hostile(unsafe(r"(os|posix)\Wsystem"), BIN)
def shard_runs_something(path: Path) -> None:
    """A healthy index over a torch zip with a payload beside the tensors."""
    tensors = [(text(name), claim.pickled()) for name, claim in layer().items()]
    body = pickled(dict_of([*tensors, (text("x"), payload())]))
    index(path, dict.fromkeys(layer(), "model.bin"), model__bin=torch_zip(data_pkl=body))


@hostile(unsafe_or_broken(), BIN)
def shard_runs_something_and_has_nothing(path: Path) -> None:
    """A shard that is a payload and holds none of what the index promises."""
    index(path, dict.fromkeys(layer(), "model.bin"), model__bin=torch_zip({}, pickled(payload())))


@hostile(bounded(), INDEX, each={
    "list": [], "number": 1, "none": None, "text": "model.safetensors", "empty": {}, "of_numbers": {"bn.weight": 1},
    "of_lists": {"bn.weight": [SHARD]}, "of_none": {"bn.weight": None}, "of_truth": {"bn.weight": True},
})  # fmt: skip
def weight_map_is(path: Path, weight_map: object) -> None:
    """A weight map that maps nothing, or not to names."""
    index(path, weight_map)


@hostile(refused(), INDEX, each={
    "nothing": b"", "text": b"not json " * 40, "half": b'{"metadata": {}, "weight_map": {"a": '.ljust(300),
    "list": b"[1]" + b" " * 300,
    "number": b"1" + b" " * 300, "other": json.dumps({"architectures": ["ResNet"], "hidden": "x" * 300}).encode(),
    "utf16": json.dumps({"weight_map": all_in(SHARD)}).encode("utf-16"),
    "duplicates": b'{"weight_map": {"a": "x.safetensors", "a": "y.safetensors"}, "weight_map": {}}' + b" " * 300,
    "lfs_like": b'{"version": "https://git-lfs.github.com/spec/v1"}' + b" " * 300,
})  # fmt: skip
def index_is(data: bytes) -> bytes:
    """An index that is no index."""
    return data


@hostile(refused(), INDEX, nasty=True)
def index_deep() -> bytes:
    """JSON that nests deeper than any stack."""
    return b'{"weight_map": ' + b'{"a": ' * 500_000 + b"1" + b"}" * 500_001


@hostile(unreadable(REASON), INDEX, nasty=True)
def index_huge(path: Path) -> None:
    """Three hundred thousand tensors in as many shards, none of which is there."""
    index(path, {f"layer{n}.weight": f"model-{n:06}.safetensors" for n in range(300_000)})


@hostile(bounded(), INDEX, nasty=True)
def many_shards(path: Path) -> None:
    """Two thousand shards: as many open files at once are not to be had."""
    index(path, {f"bn{n}.running_var": f"s{n}.safetensors" for n in range(2000)})
    for n in range(2000):
        header = {f"bn{n}.running_var": safetensors.tensor()}
        (path.parent / f"s{n}.safetensors").write_bytes(safetensors.file(header, safetensors.DATA[:16]))
