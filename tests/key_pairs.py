"""Pairs of state dicts of one architecture, the one changed as people change them, with the true mapping."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from random import Random

import torch
from architectures import ARCHITECTURES, HEADS
from torch import Tensor, nn

from bnlint import Tensor as Described

COUNTER = "num_batches_tracked"
FRONTS = (
    "module.",
    "_orig_mod.",
    "model.",
    "backbone.",
    "encoder.",
    "net.",
    "student.",
    "module.model.",
    "trunk.body.",
)
MIDDLES = ("_fsdp_wrapped_module", "_checkpoint_wrapped_module", "module", "_orig_mod")
# Renames that real forks of these architectures have, as a pattern over the whole key.
RENAMES: dict[str, list[tuple[str, str]]] = {
    "ResNet": [
        (r"^layer(\d)", r"stage\1"), (r"^layer(\d)", r"stages.\1"), (r"\bbn(\d)", r"norm\1"),
        (r"downsample", "shortcut"), (r"^(conv1|bn1)\.", r"stem.\1."), (r"\bconv(\d)", r"convolution_\1"),
        (r"^layer(\d)\.(\d+)\.", r"layer\1.block\2."),
    ],
    "VGG-BN": [(r"^features\.", "layers."), (r"^features\.", "backbone.encoder."), (r"^classifier\.", "mlp.")],
    "MobileNetV2": [
        (r"^features\.", "blocks."), (r"\.conv\.", ".layers."), (r"^features\.0\.", "stem."),
    ],
    "EfficientNet": [
        (r"^features\.", "stages."), (r"\.fc1\.", ".reduce."), (r"\.fc2\.", ".expand."), (r"\.block\.", ".body."),
    ],
    "DenseNet": [
        (r"denseblock", "block"), (r"denselayer", "layer"), (r"transition", "trans"), (r"norm(\d)\.", r"bn\1."),
        (r"^features\.", "trunk."),
    ],
    "Detector": [
        (r"backbone\.body\.", "backbone.bottom_up."), (r"inner_blocks", "lateral"), (r"layer_blocks", "output"),
        (r"backbone\.body\.layer(\d)", r"backbone.body.res\1"), (r"^roi_heads", "heads"),
    ],
}  # fmt: skip
OFFSETS = {"MobileNetV2": "features", "EfficientNet": "features", "VGG-BN": "features"}


class KeyPair:
    """A source, a model as target, and the truth: source key -> target key, whatever the shapes."""

    def __init__(self, random: Random) -> None:
        self.architecture = random.choice(sorted(ARCHITECTURES))
        self.changes: list[str] = []
        torch.manual_seed(random.randrange(1 << 30))
        build = ARCHITECTURES[self.architecture]
        classes = 10
        width = 4
        if random.random() < 0.3:
            classes = 7
            self.changes.append("head")
        elif random.random() < 0.15:
            width = 6
            self.changes.append("width")
        made = build(width, classes).state_dict()
        self.source: dict[str, Tensor] = {
            key: torch.full_like(value, k + 1) if key.endswith(COUNTER) else torch.randn(value.shape)
            for k, (key, value) in enumerate(made.items())
        }
        self.target: dict[str, Tensor] = dict(build().state_dict())
        self.truth = {key: key for key in self.source}
        self._rename(random)
        self._halve(random)
        self._count(random)
        self._wrap(random)
        if random.random() < 0.5:
            self.source, self.target = self.target, self.source
            self.truth = {other: key for key, other in self.truth.items()}
            self.changes.append("turned")

    def described(self, side: Mapping[str, Tensor]) -> dict[str, Described]:
        return {
            key: Described(str(value.dtype).removeprefix("torch."), tuple(value.shape), None)
            for key, value in side.items()
        }

    def expected(self) -> dict[str, str]:
        """The truth as far as shapes agree; of a network of another width nothing can be expected."""
        return {
            key: other
            for key, other in self.truth.items()
            if other in self.target
            and self.source[key].shape == self.target[other].shape
            and not ("width" in self.changes and self.renamed)
        }

    @property
    def renamed(self) -> bool:
        """True where more than wrappers changed."""
        return any("->" in change or change == "head renamed" for change in self.changes)

    def _source_keys(self, change: Callable[[str], str | None]) -> None:
        self.source, self.truth = (
            {new: value for key, value in self.source.items() if (new := change(key)) is not None},
            {new: other for key, other in self.truth.items() if (new := change(key)) is not None},
        )

    def _target_keys(self, change: Callable[[str], str | None]) -> None:
        self.target = {new: value for key, value in self.target.items() if (new := change(key)) is not None}
        self.truth = {key: new for key, other in self.truth.items() if (new := change(other)) is not None}

    def _rename(self, random: Random) -> None:
        for pattern, name in random.sample(RENAMES[self.architecture], random.choice((0, 0, 1, 2, 3))):
            renamed = {key: re.sub(pattern, name, key) for key in self.source}
            if len({*renamed.values()}) == len(renamed):
                self._source_keys(renamed.get)
                self.changes.append(f"{pattern} -> {name}")
        if random.random() < 0.2 and self.architecture in OFFSETS:
            offset = random.choice((1, 2))
            container = OFFSETS[self.architecture]
            self._source_keys(lambda key: _shifted(key, container, "sequence", offset))
            self.changes.append(f"{container}.N -> sequence.N+{offset}")
        if random.random() < 0.3:
            heads = HEADS[self.architecture]
            self._source_keys(lambda key: key if not key.startswith(heads) else "top.predictor." + key[len(heads[0]) :])
            self.changes.append("head renamed")

    def _halve(self, random: Random) -> None:
        choice = random.random()
        modules = list(dict.fromkeys(key.rpartition(".")[0] for key in (self.source if choice < 0.5 else self.target)))
        half = len(modules) // 2
        kept = set(modules[:half] if random.random() < 0.7 else modules[half:])
        if choice < 0.15:
            self._source_keys(lambda key: key if key.rpartition(".")[0] in kept else None)
            self.changes.append("source halved")
        elif choice > 0.85:
            self._target_keys(lambda key: key if key.rpartition(".")[0] in kept else None)
            self.changes.append("target halved")

    def _count(self, random: Random) -> None:
        if random.random() < 0.2:
            self._source_keys(lambda key: None if key.endswith(COUNTER) else key)
            self.changes.append("no counters")

    def _wrap(self, random: Random) -> None:
        for change in (self._source_keys, self._target_keys):
            if random.random() < 0.3:
                token, depth = random.choice(MIDDLES), random.choice((1, 2))
                change(lambda key, token=token, depth=depth: _inserted(key, token, depth))  # type: ignore[misc]
                self.changes.append(f"{token} at depth {depth}")
            if random.random() < 0.4:
                front = random.choice(FRONTS)
                change(lambda key, front=front: front + key)  # type: ignore[misc]
                self.changes.append(f"{front} in front")


def model_with(state_dict: Mapping[str, Tensor]) -> nn.Module:
    """A module whose state dict has exactly these keys and shapes, with real BatchNorm where there is one."""
    root = nn.Module()
    for key, value in state_dict.items():
        *path, leaf = key.split(".")
        module = root
        for k, name in enumerate(path):
            if name not in module._modules:
                holds = ".".join(path[: k + 1])
                module.add_module(name, _batchnorm(holds, state_dict) or nn.Module())
            module = module._modules[name]  # type: ignore[assignment]
        if leaf not in module._parameters and leaf not in module._buffers:
            module.register_buffer(leaf, torch.zeros_like(value))
    return root


def _batchnorm(name: str, state_dict: Mapping[str, Tensor]) -> nn.Module | None:
    mean = state_dict.get(f"{name}.running_mean")
    return None if mean is None or f"{name}.{COUNTER}" not in state_dict else nn.BatchNorm2d(len(mean))


def _shifted(key: str, container: str, name: str, offset: int) -> str:
    return re.sub(rf"^{container}\.(\d+)", lambda found: f"{name}.{int(found[1]) + offset}", key)


def _inserted(key: str, token: str, depth: int) -> str:
    parts = key.split(".")
    return key if len(parts) <= depth + 1 else ".".join([*parts[:depth], token, *parts[depth:]])
