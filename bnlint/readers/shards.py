"""Checkpoints in several files: an index that says which tensor lies in which (`*.index.json`).

transformers and accelerate write it beside `model-00001-of-00002.safetensors` or
`pytorch_model-00001-of-00002.bin`.
"""

from __future__ import annotations

from bnlint.errors import UnreadableFile
from bnlint.readers.json_text import LIMIT, parse
from bnlint.readers.values import Loaded, OrderedMapping

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from bnlint.readers.source import ByteSource

SHARD_LIMIT = 1000
NAME_LIMIT = 255


def load(source: ByteSource, open_shard: Callable[[str], Loaded]) -> Loaded:
    """All shards as one state dict, in the order of the index.

    `open_shard` reads the file of that name beside the index. UnreadableFile: `json` for a damaged index,
    `path` for a shard that is no bare file name, `missing` for a tensor that its shard does not hold,
    and whatever a shard is refused for, with its name.
    """
    where = _weight_map(source)
    shards: dict[str, Loaded] = {}
    for name in dict.fromkeys(where.values()):
        _expect_bare(name)
        if len(shards) == SHARD_LIMIT:
            raise UnreadableFile("limit", f"the index names more than {SHARD_LIMIT} shards")
        shards[name] = _open(name, open_shard)
    merged = OrderedMapping()
    for key, name in where.items():
        mapping = shards[name].root
        if not isinstance(mapping, dict) or key not in mapping:
            raise UnreadableFile("missing", f"tensor {key[:80]!r} is not in shard {name[:80]!r}")
        merged[key] = mapping[key]
    merged.state = _metadata(shards)
    return Loaded(
        next(iter(shards.values())).format,
        merged,
        globals=list({str(each): each for shard in shards.values() for each in shard.globals}.values()),
        facts={fact: value for shard in shards.values() for fact, value in shard.facts.items()},
        notes=list(_notes(shards)),
    )


def _weight_map(source: ByteSource) -> dict[str, str]:
    """The name of the shard for each tensor."""
    if source.size > LIMIT:
        raise UnreadableFile("limit", f"an index of {source.size} bytes is over the limit of {LIMIT}")
    index = parse(source.read(0, source.size))
    where = index.get("weight_map") if type(index) is dict else None
    if type(where) is not dict or not all(type(name) is str for name in where.values()):
        raise UnreadableFile("json", "the index has no weight_map that says which tensor is in which file")
    if not where:
        raise UnreadableFile("json", "the index names no tensor")
    return where


def _expect_bare(name: str) -> None:
    """A shard lies beside its index: anything but a bare file name could lead elsewhere."""
    if not name or len(name) > NAME_LIMIT or name.startswith(".") or any(char in name for char in "/\\:\0"):
        raise UnreadableFile("path", f"shard {name[:80]!r} is no bare file name")


def _open(name: str, open_shard: Callable[[str], Loaded]) -> Loaded:
    try:
        return open_shard(name)
    except UnreadableFile as problem:
        raise UnreadableFile(problem.code, f"shard {name[:80]!r}: {problem}", problem.offset) from None


def _metadata(shards: dict[str, Loaded]) -> object:
    """The `_metadata` of the shards that have one, put together, as BUILD would have given it."""
    merged: dict[object, object] = {}
    for shard in shards.values():
        state = shard.root.state if type(shard.root) is OrderedMapping else None
        metadata = state.get("_metadata") if isinstance(state, dict) else None
        if isinstance(metadata, dict):
            merged.update(metadata)
    return {"_metadata": merged} if merged else None


def _notes(shards: dict[str, Loaded]) -> list[str]:
    told = [f"{len(shards)} shards"]
    for name, shard in shards.items():
        told += [f"shard {name[:80]!r}: {note}" for note in shard.notes]
    return told
