"""Small real networks, trained for a moment on synthetic data, for tests that need healthy checkpoints."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, relu

CLASSES = 4
torch.set_num_threads(1)  # networks of this size run ten times slower on two threads that have to meet


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut, named as torchvision names them."""

    def __init__(self, inside: int, outside: int, stride: int = 1, *, affine: bool = True) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inside, outside, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outside, affine=affine)
        self.conv2 = nn.Conv2d(outside, outside, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outside, affine=affine)
        self.downsample: nn.Module | None = None
        if stride != 1 or inside != outside:
            shortcut = nn.Conv2d(inside, outside, 1, stride, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(outside, affine=affine))

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        return relu(self.bn2(self.conv2(relu(self.bn1(self.conv1(x))))) + shortcut)


class ResNet(nn.Module):
    """torchvision's ResNet with basic blocks: its names, its order, fewer channels.

    `ResNet((2, 2, 2, 2))` is ResNet-18: 20 BatchNorm layers, 122 keys, 102 without the counters.
    """

    def __init__(self, blocks: tuple[int, ...] = (1, 1), width: int = 8, *, affine: bool = True) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width, affine=affine)
        self.stages = len(blocks)
        inside = width
        for stage, count in enumerate(blocks):
            outside = width << stage
            made = [
                BasicBlock(inside if not block else outside, outside, 2 if stage and not block else 1, affine=affine)
                for block in range(count)
            ]
            setattr(self, f"layer{stage + 1}", nn.Sequential(*made))
            inside = outside
        self.fc = nn.Linear(inside, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = relu(self.bn1(self.conv1(x)))
        for stage in range(self.stages):
            x = getattr(self, f"layer{stage + 1}")(x)
        return self.fc(x.mean((2, 3)))


def batch(size: int = 16) -> tuple[Tensor, Tensor]:
    """Noisy images, `(size, 3, 16, 16)`, whose class is the brightness of one quarter."""
    labels = torch.randint(CLASSES, (size,))
    images = torch.randn(size, 3, 16, 16)
    for image, label in zip(images, labels.tolist(), strict=True):
        row, column = 8 * (label // 2), 8 * (label % 2)
        image[:, row : row + 8, column : column + 8] += 1.0
    return images, labels


def train(model: nn.Module, optimizer: torch.optim.Optimizer, batches: int) -> None:
    model.train()
    for _ in range(batches):
        images, labels = batch()
        optimizer.zero_grad()
        cross_entropy(model(images), labels).backward()
        optimizer.step()


def trained(model: nn.Module, batches: int = 60, seed: int = 0) -> tuple[nn.Module, torch.optim.Optimizer]:
    """The model after some batches of SGD with momentum, and its optimizer."""
    torch.manual_seed(seed)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    train(model, optimizer, batches)
    return model, optimizer
