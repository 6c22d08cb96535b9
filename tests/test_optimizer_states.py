"""Optimizers beside a model: which parameters they stepped, as torch's own optimizers write it."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from bnlint import Checkpoint
from bnlint.readers.opening import open_file


def network() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))


STATE = network().state_dict()


def trained(optimizer: type[torch.optim.Optimizer] = torch.optim.Adam, **options: Any) -> torch.optim.Optimizer:
    model = network()
    made = optimizer(model.parameters(), lr=0.01, **options)
    for _ in range(3):
        made.zero_grad()
        model(torch.randn(2, 3, 8, 8)).sum().backward()
        made.step()
    return made


def read(folder: Path, saved: object) -> Checkpoint:
    torch.save(saved, folder / "model.pth")
    file = open_file(str(folder / "model.pth"))
    assert file.checkpoint is not None, file.problem
    assert [each.key for each in file.checkpoint.state_dicts] == ["model"]
    return file.checkpoint


@pytest.mark.parametrize(
    ("optimizer", "options", "remembers"),
    [
        (torch.optim.Adam, {}, {"step", "exp_avg", "exp_avg_sq"}),
        (torch.optim.AdamW, {"amsgrad": True}, {"step", "exp_avg", "exp_avg_sq", "max_exp_avg_sq"}),
        (torch.optim.SGD, {"momentum": 0.9}, {"momentum_buffer"}),
        (torch.optim.RMSprop, {}, {"step", "square_avg"}),
        (torch.optim.Adagrad, {}, {"step", "sum"}),
    ],
)
@pytest.mark.parametrize("key", ["optimizer", "optimizer_state_dict", "optim", "opt_G", "something"])
def test_optimizers_are_no_state_dicts(tmp_path: Path, key: str, optimizer: Any, options: Any, remembers: Any) -> None:
    state = trained(optimizer, **options).state_dict()
    checkpoint = read(tmp_path, {"model": STATE, key: state})
    (held,) = checkpoint.optimizers
    assert held.key == key
    assert held.groups == [[0, 1, 2, 3]]
    assert held.state.keys() == {0, 1, 2, 3}
    for index, facts in held.state.items():
        assert facts.keys() == remembers
        for name, value in state["state"][index].items():
            assert facts[name] == (3 if name == "step" else tuple(value.shape))
        assert held.steps(index) == (3 if "step" in remembers else None)


def test_an_optimizer_that_remembers_nothing(tmp_path: Path) -> None:
    checkpoint = read(tmp_path, {"model": STATE, "optimizer": trained(torch.optim.SGD).state_dict()})
    (held,) = checkpoint.optimizers
    assert (held.groups, dict(held.state)) == ([[0, 1, 2, 3]], {})


def test_parameter_groups_and_names_of_an_optimizer(tmp_path: Path) -> None:
    model = network()
    named = list(model.named_parameters())
    adam = torch.optim.Adam([{"params": named[2:]}, {"params": named[:2], "lr": 0.1}])
    model(torch.randn(2, 3, 8, 8)).sum().backward()
    adam.step()
    (held,) = read(tmp_path, {"model": STATE, "optimizer": adam.state_dict()}).optimizers
    assert held.groups == [[0, 1], [2, 3]]
    assert held.names == {0: "1.weight", 1: "1.bias", 2: "0.weight", 3: "0.bias"}


def test_parameters_called_by_name(tmp_path: Path) -> None:
    fsdp = {
        "state": {"1.bias": {"step": torch.tensor(5.0), "exp_avg": torch.zeros(4)}},
        "param_groups": [{"params": ["0.weight", "1.bias"], "lr": 0.1}],
    }
    (held,) = read(tmp_path, {"model": STATE, "optimizer": fsdp}).optimizers
    assert held.groups == [[0, 1]]
    assert held.names == {0: "0.weight", 1: "1.bias"}
    assert held.state == {1: {"step": 5.0, "exp_avg": (4,)}}


def test_optimizers_by_name_and_in_lists(tmp_path: Path) -> None:
    adam = trained().state_dict()
    by_name = {"generator": adam, "discriminator": copy.deepcopy(adam)}
    checkpoint = read(tmp_path, {"model": STATE, "optimizer": by_name, "optimizers": [copy.deepcopy(adam), adam]})
    keys = [each.key for each in checkpoint.optimizers]
    assert keys == ["optimizer.generator", "optimizer.discriminator", "optimizers.0"], "the last is the first again"


def test_steps_of_very_many_parameters_are_not_all_read(tmp_path: Path) -> None:
    state = {i: {"step": torch.tensor(7.0), "exp_avg": torch.zeros(1)} for i in range(300)}
    adam = {"state": state, "param_groups": [{"params": list(range(300))}]}
    (held,) = read(tmp_path, {"model": STATE, "optimizer": adam}).optimizers
    steps = [held.steps(index) for index in range(300)]
    assert steps[:256] == [7] * 256
    assert steps[256:] == [None] * 44
    assert len(held.state) == 300
    (without_batchnorm,) = read(tmp_path, {"model": {"fc.weight": torch.zeros(1)}, "optimizer": adam}).optimizers
    assert without_batchnorm.steps(0) is None


def test_a_whole_pickled_optimizer_is_passed_over(tmp_path: Path) -> None:
    assert read(tmp_path, {"model": STATE, "optimizer": trained()}).optimizers == []
