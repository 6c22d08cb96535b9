"""Every way to save a network that bnlint reads: a planted defect is to be found in each."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from defects import StateDict
from networks import ResNet, trained


@cache
def network(affine: bool = True) -> tuple[ResNet, torch.optim.Optimizer]:
    return trained(ResNet(affine=affine))  # type: ignore[return-value]


class Wrapped(torch.nn.Module):
    """A Lightning module: the model is an attribute of it."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model


@dataclass(frozen=True)
class Container:
    """One way to save a network: its state dict, what is around it, and how it gets to disk."""

    state_dict: Callable[[], StateDict]
    around: Callable[[StateDict], object] = lambda state_dict: state_dict
    legacy: bool = False
    ending: str = "pth"
    protocol: int = 2

    def write(self, state_dict: StateDict, path: Path) -> None:
        whole = self.around(state_dict)
        torch.save(whole, path, pickle_protocol=self.protocol, _use_new_zipfile_serialization=not self.legacy)


class Safetensors(Container):
    def write(self, state_dict: StateDict, path: Path) -> None:
        from safetensors.torch import save_file

        save_file({name: tensor.contiguous().clone() for name, tensor in state_dict.items()}, path)


class Sharded(Container):
    """Every layer torn in two: the shards take turns."""

    def write(self, state_dict: StateDict, path: Path) -> None:
        from safetensors.torch import save_file

        shards: list[StateDict] = [{}, {}, {}]
        for number, (name, tensor) in enumerate(state_dict.items()):
            shards[number % 3][name] = tensor.contiguous().clone()
        weight_map = {}
        for number, shard in enumerate(shards):
            file = f"model-{number + 1:05}-of-00003.{'bin' if self.legacy else 'safetensors'}"
            weight_map |= dict.fromkeys(shard, file)
            if self.legacy:
                torch.save(shard, path.parent / file)
            else:
                save_file(shard, path.parent / file)
        path.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}))


class NumpyPickle(Container):
    def write(self, state_dict: StateDict, path: Path) -> None:
        arrays = {name: tensor.numpy() for name, tensor in state_dict.items()}
        path.write_bytes(pickle.dumps(arrays, protocol=2 if self.legacy else 5))


class Module(Container):
    """The whole module, pickled: what the state dict lacks, the module lacks."""

    def write(self, state_dict: StateDict, path: Path) -> None:
        torch.save(self.around(pretending(state_dict)), path, _use_new_zipfile_serialization=not self.legacy)


class Traced(Container):
    """A TorchScript archive; torch runs the network to make it, so some defects stop torch itself."""

    def write(self, state_dict: StateDict, path: Path) -> None:
        module = pretending(state_dict)
        try:
            traced = torch.jit.trace(module, torch.zeros(2, 3, 16, 16), check_trace=False)
        except (RuntimeError, AttributeError) as reason:
            raise CannotBeWritten(str(reason)) from reason
        torch.jit.save(traced, path)


class CannotBeWritten(Exception):
    """torch itself does not write such a file."""


def pretending(state_dict: StateDict) -> torch.nn.Module:
    """The network in eval mode whose every parameter and buffer is what the state dict says."""
    module = deepcopy(network()[0]).eval()
    for name in module.state_dict():
        owner = module.get_submodule(name.rpartition(".")[0])
        leaf = name.rpartition(".")[2]
        held = owner._buffers if leaf in owner._buffers else owner._parameters
        if name not in state_dict:
            del held[leaf]
        elif held is owner._buffers:
            held[leaf] = state_dict[name]
        else:
            held[leaf] = torch.nn.Parameter(state_dict[name])
    return module


def plain() -> StateDict:
    return deepcopy(network()[0].state_dict())


def without_counters() -> StateDict:
    return {name: tensor for name, tensor in plain().items() if not name.endswith("num_batches_tracked")}


def training(state_dict: StateDict) -> object:
    return {"epoch": 3, "best": 0.93, "model": state_dict, "optimizer": network()[1].state_dict()}


def lightning(state_dict: StateDict) -> object:
    return {
        "epoch": 3,
        "global_step": 60,
        "pytorch-lightning_version": "2.5.0",
        "state_dict": state_dict,
        "loops": {"fit_loop": {"epoch_progress": {"current": {"completed": 3}}}},
        "callbacks": {},
        "optimizer_states": [network()[1].state_dict()],
        "lr_schedulers": [],
    }


CONTAINERS = {
    "zip": Container(plain),
    "legacy": Container(plain, legacy=True),
    "without-counters": Container(without_counters),
    "legacy-without-counters": Container(without_counters, legacy=True),
    "affine-false": Container(lambda: deepcopy(network(affine=False)[0].state_dict())),
    "data-parallel": Container(lambda: deepcopy(torch.nn.DataParallel(network()[0]).state_dict())),
    "training": Container(plain, training),
    "legacy-training": Container(plain, training, legacy=True),
    "lightning": Container(lambda: deepcopy(Wrapped(network()[0]).state_dict()), lightning, ending="ckpt"),
    "timm": Container(plain, lambda state_dict: {"epoch": 3, "arch": "resnet", "state_dict": state_dict}),
    "mmcv": Container(plain, lambda state_dict: {"meta": {"epoch": 3}, "state_dict": state_dict, "optimizer": {}}),
    "deepspeed": Container(plain, lambda state_dict: {"module": state_dict, "dp_world_size": 1, "mp_world_size": 1}),
    "second-of-two": Container(plain, lambda state_dict: {"netG": plain(), "netD": state_dict}),
    "list": Container(plain, lambda state_dict: [1, ("network", state_dict)]),
    "protocol-4": Container(plain, protocol=4),
    "safetensors": Safetensors(plain, ending="safetensors"),
    "sharded": Sharded(plain, ending="safetensors.index.json"),
    "sharded-bin": Sharded(plain, legacy=True, ending="bin.index.json"),
    "numpy": NumpyPickle(plain, ending="pkl"),
    "numpy-protocol-2": NumpyPickle(plain, legacy=True, ending="pkl"),
    "module": Module(plain),
    "legacy-module": Module(plain, legacy=True),
    "module-in-a-dict": Module(plain, lambda module: {"epoch": -1, "model": module, "optimizer": None}, ending="pt"),
    "torchscript": Traced(plain, ending="pt"),
}
