"""Small checkpoints of known content, written without torch: safetensors, which is a length, JSON and the bytes."""

from __future__ import annotations

import json
import struct
from pathlib import Path

HEALTHY = {
    "weight": [0.93, 1.12, 0.71, 1.04],
    "bias": [0.11, -0.27, 0.05, -0.02],
    "running_mean": [0.31, -0.12, 0.84, 0.02],
    "running_var": [0.91, 1.73, 0.42, 1.16],
}
BATCHES = 10_000


def write_checkpoint(path: str | Path, *layers: str, **vectors: list[float]) -> str:
    """A checkpoint of BatchNorm layers with these names, healthy but for the vectors that are given."""
    header: dict[str, object] = {}
    data = b""
    for name in layers or ("bn1", "backbone.bn2"):
        for leaf, values in {**HEALTHY, **vectors}.items():
            encoded = struct.pack(f"<{len(values)}f", *values)
            header[f"{name}.{leaf}"] = _entry("F32", [len(values)], len(data), len(encoded))
            data += encoded
        header[f"{name}.num_batches_tracked"] = _entry("I64", [], len(data), 8)
        data += struct.pack("<q", BATCHES)
    text = json.dumps(header).encode()
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_bytes(struct.pack("<Q", len(text)) + text + data)
    return str(path)


def _entry(dtype: str, shape: list[int], start: int, size: int) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, start + size]}


def negative(path: str | Path, *layers: str) -> str:
    """A checkpoint whose layers have a negative variance in one channel: an error, and nothing else is wrong."""
    return write_checkpoint(path, *layers, running_var=[-0.4, 1.73, 0.42, 1.16])
