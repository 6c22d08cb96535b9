"""Live models for the tests of bnlint.torch, and what of a model anything could change."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from networks import ResNet, batch, trained
from torch import Tensor, nn
from torch.nn.functional import max_pool2d, relu

import bnlint.torch
from bnlint import Finding, Report


class Net(nn.Module):
    """The network of the note about the frozen network that moves."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 3)
        self.bn1 = nn.BatchNorm2d(6)
        self.conv2 = nn.Conv2d(6, 16, 3)
        self.bn2 = nn.BatchNorm2d(16)
        self.fc1 = nn.Linear(16 * 6 * 6, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, 5)

    def features(self, x: Tensor) -> Tensor:
        x = max_pool2d(relu(self.bn1(self.conv1(x))), 2)
        return max_pool2d(relu(self.bn2(self.conv2(x))), 2).flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc3(relu(self.fc2(relu(self.fc1(self.features(x))))))


class Small(nn.Module):
    """Two layers of BatchNorm, on vectors."""

    def __init__(self, norm: Callable[[int], nn.Module] = nn.BatchNorm1d) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 8)
        self.bn1 = norm(8)
        self.bn2 = norm(8)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn2(relu(self.bn1(self.fc(x))))


def images(count: int = 5) -> Tensor:
    return torch.rand(count, 1, 32, 32)


def hooks(model: nn.Module) -> int:
    """How many forward hooks there are in a model."""
    return sum(len(each._forward_hooks) + len(each._forward_pre_hooks) for each in model.modules())


def data(batches: int = 20, **shift: float) -> Iterator[tuple[Tensor, Tensor]]:
    for _ in range(batches):
        images, labels = batch(16)
        yield images * shift.get("scale", 1.0) + shift.get("brightness", 0.0), labels


def healthy_model() -> nn.Module:
    """Trained, and with statistics that have followed the last weights."""
    torch.manual_seed(0)
    model, _ = trained(ResNet((1, 1)), 60)
    with torch.no_grad():
        for images, _ in data(60):
            model(images)
    return model


def reset(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.zero_()
            module.running_var.fill_(1)


def state(model: nn.Module) -> list[object]:
    """All of a model that anything could have changed, bit for bit."""
    return [
        {name: tensor.detach().view(-1).view(torch.uint8).tolist() for name, tensor in model.state_dict().items()},
        [(name, tensor.requires_grad, tensor._version) for name, tensor in model.named_parameters()],
        [tensor._version for tensor in model.buffers()],
        modes(model),
    ]


def modes(model: nn.Module) -> list[object]:
    return [
        *[(name, each.training, getattr(each, "momentum", 0)) for name, each in model.named_modules()],
        *[len(each._forward_hooks) + len(each._forward_pre_hooks) for each in model.modules()],
        torch.get_rng_state().tolist(),
        torch.is_grad_enabled(),
    ]


def layers(findings: Any, rule: str) -> list[str]:
    return [layer for finding in findings if finding.rule == rule for layer in finding.location.layers]


def check(model: nn.Module, **options: Any) -> Report:
    report = bnlint.torch.check(model, isolated=True, **options)
    assert not report.crashes and not report.trouble
    return report


def said(findings: list[Finding]) -> list[tuple[str, tuple[str, ...], tuple[str, ...], str]]:
    """What findings say and where; whether it is loud depends on where it was met."""
    return sorted((each.rule, each.location.layers, each.location.tensors, each.message) for each in findings)


def told(model: nn.Module, **options: Any) -> dict[str, tuple[str, set[str]]]:
    """The severity and the layers of every rule that speaks."""
    found: dict[str, tuple[str, set[str]]] = {}
    for finding in check(model, **options).findings:
        found.setdefault(finding.rule, (str(finding.gravity), set()))[1].update(finding.location.layers)
    return found


def gap(model: nn.Module, loader: Any, **options: Any) -> Report:
    report = bnlint.torch.recalibration_gap(model, loader, isolated=True, **options)
    assert not report.crashes and not report.trouble
    return report
