"""Write the checkpoints that the benchmark measures: `python benchmarks/generate.py FOLDER [NAME...]`.

Needs torch, and as much memory as the largest file. Everything in the files is healthy: plausible random numbers.
Beside each NAME.pth lies NAME.json with what a reader has to read of it.
"""

import json
import os
import shutil
import sys
import zipfile
from collections import OrderedDict

import torch

SMALL = [16, 32, 64, 64, 128] * 4
RESNET50 = [64, *[64, 64, 256] * 3, 256, *[128, 128, 512] * 4, 512, *[256, 256, 1024] * 6, 1024, *[512, 512, 2048] * 3]
RESNET50.append(2048)
MB = 2**20

SHAPES = {
    "tiny": ([4], 0),
    "50MB": (RESNET50, 50 * MB),
    "500MB": (RESNET50 * 2, 500 * MB),
    "3GB": (RESNET50 * 3, 3000 * MB),
    "small": (SMALL, 0),
    "resnet50-shaped": (RESNET50, 0),
}


def state_dict(channels: list[int], size: int) -> OrderedDict[str, torch.Tensor]:
    """One convolution and one BatchNorm per entry; the convolutions fill the file up to `size` bytes."""
    torch.manual_seed(0)
    batchnorm_bytes = sum(4 * 4 * count + 8 for count in channels)
    filling = max(0, size - batchnorm_bytes) // 4 // len(channels)
    made = OrderedDict()
    for number, count in enumerate(channels):
        inputs = max(1, filling // count)
        made[f"layer{number}.conv.weight"] = torch.randn(count, inputs, 1, 1).mul_((2 / inputs) ** 0.5)
        made[f"layer{number}.bn.weight"] = 0.5 + torch.rand(count)
        made[f"layer{number}.bn.bias"] = 0.1 * torch.randn(count)
        made[f"layer{number}.bn.running_mean"] = torch.randn(count)
        made[f"layer{number}.bn.running_var"] = 0.2 + torch.rand(count)
        made[f"layer{number}.bn.num_batches_tracked"] = torch.tensor(450_000)
    return made


def must_read(path: str, channels: list[int]) -> dict[str, int]:
    """What nobody can lint the file without: the BatchNorm tensors, the zip directory, the pickle."""
    with zipfile.ZipFile(path) as archive:
        pickle = next(entry.file_size for entry in archive.infolist() if entry.filename.endswith("data.pkl"))
        directory = os.path.getsize(path) - archive.start_dir
    return {
        "layers": len(channels),
        "batchnorm_bytes": sum(4 * 4 * count + 8 for count in channels),
        "directory_bytes": directory,
        "pickle_bytes": pickle,
    }


def generate(folder: str, name: str) -> None:
    path = os.path.join(folder, f"{name}.pth")
    if os.path.exists(f"{path[:-4]}.json"):
        return
    channels, size = SHAPES[name]
    torch.save(state_dict(channels, size), path)
    with open(f"{path[:-4]}.json", "w") as file:
        json.dump(must_read(path, channels), file)


def copies(folder: str, name: str, count: int) -> None:
    """A folder `NAMExCOUNT` that holds COUNT copies of NAME.pth."""
    target = os.path.join(folder, f"{name}x{count}")
    os.makedirs(target, exist_ok=True)
    for number in range(count):
        shutil.copyfile(os.path.join(folder, f"{name}.pth"), os.path.join(target, f"{number:03}.pth"))


def main(folder: str, *names: str) -> None:
    os.makedirs(folder, exist_ok=True)
    for name in names or SHAPES:
        base, _, count = name.partition("x")
        if count.isdigit():
            copies(folder, base, int(count))
        else:
            generate(folder, name)


if __name__ == "__main__":
    main(*sys.argv[1:])
