"""Small training runs on synthetic data that go wrong the way real ones do, and the checkpoints they write.

    python examples/train.py            writes the checkpoints beside this script
    python examples/train.py FOLDER     writes them into FOLDER

Needs torch. Takes a few seconds on a CPU; the same machine writes the same bytes every time.
README.md in this folder shows what bnlint says of each file.
"""

import math
import os
import sys
from collections.abc import Iterator
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, max_pool2d, relu

CLASSES = 5
PIXELS = 16


class Net(nn.Module):
    """Two convolutions, each followed by BatchNorm, and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(6)
        self.conv2 = nn.Conv2d(6, 16, 3, bias=False)
        self.bn2 = nn.BatchNorm2d(16)
        self.fc = nn.Linear(16 * 2 * 2, CLASSES)

    def features(self, images: Tensor) -> Tensor:
        images = max_pool2d(relu(self.bn1(self.conv1(images))), 2)
        return max_pool2d(relu(self.bn2(self.conv2(images))), 2).flatten(1)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.features(images))


class SideBranch(nn.Module):
    """A finished net as the main branch, and a new side branch on its features."""

    def __init__(self, main: Net) -> None:
        super().__init__()
        self.main = main
        self.side = nn.Linear(16 * 2 * 2, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        return self.side(self.main.features(images))


def batches(count: int, *, brightness: float = 0.0, size: int = 32) -> Iterator[tuple[Tensor, Tensor]]:
    """Striped images with noise, `(size, 1, 16, 16)`; the class is the direction of the stripes."""
    rows, columns = torch.meshgrid(torch.arange(PIXELS), torch.arange(PIXELS), indexing="ij")
    for _ in range(count):
        labels = torch.randint(CLASSES, (size,))
        angle = (labels * math.pi / CLASSES).view(-1, 1, 1)
        phase = 2 * math.pi * torch.rand(size, 1, 1)
        stripes = torch.sin(rows * torch.sin(angle) + columns * torch.cos(angle) + phase)
        yield (stripes + 0.3 * torch.randn(size, PIXELS, PIXELS) + brightness).unsqueeze(1), labels


def train(model: nn.Module, optimizer: torch.optim.Optimizer, data: Iterator[tuple[Tensor, Tensor]]) -> None:
    for images, labels in data:
        optimizer.zero_grad()
        cross_entropy(model(images), labels).backward()
        optimizer.step()


def accuracy(net: nn.Module, *, brightness: float = 0.0) -> str:
    """How many of 1000 new images are classified right in eval mode."""
    net.eval()
    with torch.no_grad():
        images, labels = next(batches(1, brightness=brightness, size=1000))
        return f"{(net(images).argmax(1) == labels).float().mean():.0%}"


def trained_net() -> Net:
    net = Net()
    train(net, torch.optim.Adam(net.parameters(), lr=0.01), batches(100))
    return net


def published_weights() -> dict[str, Tensor]:
    """A trained net as the old model zoos publish theirs: without num_batches_tracked."""
    return {name: value for name, value in trained_net().state_dict().items() if "num_batches" not in name}


def fine_tune(*, keep_statistics: bool) -> tuple[SideBranch, torch.optim.Optimizer]:
    """Freeze a published net and train a side branch on brighter images."""
    main = Net()
    main.load_state_dict(published_weights())
    model = SideBranch(main)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    before = accuracy(main)

    main.requires_grad_(False)
    for _epoch in range(2):
        model.train()
        if keep_statistics:
            main.eval()  # the line that freezes BatchNorm; requires_grad_(False) does not
        train(model, optimizer, batches(50, brightness=1.0))

    print(f"  accuracy of the frozen main branch before {before}, after {accuracy(main)}")
    return model, optimizer


def training_checkpoint(model: SideBranch, optimizer: torch.optim.Optimizer) -> dict[str, object]:
    return {"epoch": 2, "state_dict": model.state_dict(), "optimizer": optimizer.state_dict()}


def frozen() -> dict[str, object]:
    """The trap: no parameter of the main branch gets a gradient, yet its running statistics move."""
    return training_checkpoint(*fine_tune(keep_statistics=False))


def frozen_right() -> dict[str, object]:
    """The twin that does it right: the main branch back to eval() after every train()."""
    return training_checkpoint(*fine_tune(keep_statistics=True))


def frozen_module() -> nn.Module:
    """The frozen main branch of the trap, pickled whole, as it was while it trained."""
    model, _ = fine_tune(keep_statistics=False)
    return model.main.train()


def overflow() -> dict[str, Tensor]:
    """Half precision meets one corrupt image. The scaler rightly skips that step; BatchNorm saw the batch."""
    net = Net()
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    scaler = torch.amp.GradScaler("cpu")
    for step, (images, labels) in enumerate(batches(100)):
        if step == 60:
            images[0] *= 1e6
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.float16):
            loss = cross_entropy(net(images), labels)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
    print(f"  loss of the last batch {loss:.2f}, accuracy {accuracy(net)}")
    return net.state_dict()


def ema() -> dict[str, object]:
    """An average over parameters() only: the buffers of the copy stay as they were when it was made."""
    net = Net()
    average = deepcopy(net)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    for batch in batches(100):
        train(net, optimizer, iter([batch]))
        with torch.no_grad():
            for mean, value in zip(average.parameters(), net.parameters(), strict=True):
                mean.lerp_(value, 0.1)
    print(f"  accuracy {accuracy(net)}, of the average {accuracy(average)}")
    return {"epoch": 1, "state_dict": net.state_dict(), "ema": average.state_dict()}


RUNS = (published_weights, frozen, frozen_right, frozen_module, overflow, ema)


def main(folder: str) -> None:
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    for run in RUNS:
        print(f"{run.__name__}.pth")
        torch.manual_seed(0)
        torch.save(run(), os.path.join(folder, f"{run.__name__}.pth"))


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else os.path.dirname(os.path.abspath(__file__)))
