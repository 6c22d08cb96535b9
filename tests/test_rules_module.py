"""Modes, momentum and flags: whole models that torch pickled, scripted or traced."""

import itertools
import os
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from bnlint.engine import lint
from bnlint.finding import Finding, Severity
from bnlint.readers.opening import open_file
from bnlint.ruleset import RuleSet, builtin_rules
from bnlint.settings import Settings

torch = pytest.importorskip("torch")
nn = torch.nn
torch.set_num_threads(1)  # these nets are small

RULES = RuleSet(itertools.chain(builtin_rules(["module"]), builtin_rules(["code"])))


def said(path: str) -> list[Finding]:
    """What the rules about modules say of a file."""
    file = open_file(path)
    assert file.problem is None and file.checkpoint is not None, file.problem
    with file.checkpoint:
        verdict = lint(file, RULES, Settings())
    assert not verdict.crashes
    return verdict.findings


def told(path: str) -> list[tuple[str, Severity, tuple[str, ...]]]:
    return [(finding.rule, finding.gravity, finding.location.layers) for finding in said(path)]


def small_net(*, norm: Callable[[int], Any] = nn.BatchNorm2d, channels: Sequence[int] = (4, 6)) -> Any:
    """conv 0, norm 1, conv 3, norm 4, after some batches in train mode."""
    torch.manual_seed(0)
    blocks = [(nn.Conv2d(i, o, 3), norm(o), nn.ReLU()) for i, o in zip((3, *channels), channels, strict=False)]
    net = nn.Sequential(*itertools.chain(*blocks))
    with torch.no_grad():
        for _ in range(30):
            net(torch.randn(4, 3, 9, 9))
    return net


def save(path: str, net: Any) -> str:
    torch.save(net, path)
    return path


@pytest.fixture
def path(tmp_path: Any) -> str:
    return os.path.join(tmp_path, "model.pt")


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("legacy", [True, False])
def test_a_model_as_it_should_be_is_passed_over(path: str, training: bool, legacy: bool) -> None:
    torch.save(small_net().train(training), path, _use_new_zipfile_serialization=not legacy)
    assert told(path) == []


def test_a_frozen_model_in_train_mode(path: str) -> None:
    """The trap itself: requires_grad_(False) and train()."""
    net = small_net().requires_grad_(False).train()
    assert told(save(path, net)) == [
        ("frozen-bn-in-train-mode", Severity.WARNING, ("1",)),
        ("frozen-bn-in-train-mode", Severity.WARNING, ("4",)),
    ]
    before = net[1].running_mean.clone()
    with torch.no_grad():
        net(torch.randn(4, 3, 9, 9))
    assert not torch.equal(before, net[1].running_mean)  # that is what the finding says


def test_a_frozen_model_in_eval_mode_is_passed_over(path: str) -> None:
    assert told(save(path, small_net().requires_grad_(False).eval())) == []


def test_frozen_layers_in_eval_mode_inside_training_are_listed(path: str) -> None:
    net = small_net().train()
    net[:2].requires_grad_(False)
    net[1].eval()
    assert told(save(path, net)) == [("mixed-train-eval", Severity.INFO, ("1",))]


def test_a_layer_without_parameters_is_frozen_with_the_convolution_before_it(path: str) -> None:
    net = small_net(norm=lambda width: nn.BatchNorm2d(width, affine=False)).train()
    net[0].requires_grad_(False)
    assert told(save(path, net)) == [("frozen-bn-in-train-mode", Severity.WARNING, ("1",))]


def test_one_layer_left_in_train_mode(path: str) -> None:
    net = small_net().eval()
    net[4].train()
    assert told(save(path, net)) == [("mixed-train-eval", Severity.WARNING, ("4",))]


def test_of_a_frozen_layer_only_one_thing_is_said(path: str) -> None:
    net = small_net().requires_grad_(False).eval()
    net[4].train()
    assert told(save(path, net)) == [("frozen-bn-in-train-mode", Severity.WARNING, ("4",))]


@pytest.mark.parametrize(
    ("momentum", "severity"),
    [
        (0.0, Severity.ERROR),
        (0.95, Severity.WARNING),
        (0.5, Severity.WARNING),
        (0.001, Severity.INFO),
        (0.1, None),
        (0.01, None),
        (0.0, Severity.ERROR),
        (1.0, None),
    ],
)
def test_momentum(path: str, momentum: float, severity: Severity | None) -> None:
    net = small_net().eval()
    net[1].momentum = momentum
    expected = [("suspicious-momentum", severity, ("1",))] if severity else []
    assert told(save(path, net)) == expected


def test_momentum_none_replaces_statistics_that_are_not_counted(path: str) -> None:
    net = small_net().train()
    net[1].momentum = None
    assert told(save(path, net)) == []  # it counted
    net[1].num_batches_tracked.zero_()
    assert told(save(path, net)) == [("momentum-none-without-batches", Severity.WARNING, ("1",))]
    batch = 7 + torch.randn(4, 3, 9, 9)
    with torch.no_grad():
        expected = net[0](batch).mean((0, 2, 3))
        net(batch)
    assert torch.allclose(net[1].running_mean, expected, atol=1e-5)  # nothing is left of what was there
    net[1].reset_running_stats()
    assert told(save(path, net)) == []


def test_track_running_stats_set_to_false_afterwards(path: str) -> None:
    net = small_net().eval()
    net[1].track_running_stats = False
    assert told(save(path, net)) == [("track-running-stats-as-freeze", Severity.WARNING, ("1",))]
    net[1].running_mean = net[1].running_var = None  # as TENT does it
    assert told(save(path, net)) == []


def test_layers_built_without_statistics_are_passed_over(path: str) -> None:
    net = small_net(norm=lambda width: nn.BatchNorm2d(width, track_running_stats=False))
    assert told(save(path, net.requires_grad_(False).train())) == []


@pytest.mark.parametrize("training", [True, False])
def test_sync_batchnorm_is_left_over_in_what_does_not_train(path: str, training: bool) -> None:
    net = nn.SyncBatchNorm.convert_sync_batchnorm(small_net()).train(training)
    expected = [] if training else [("sync-bn-left-in", Severity.INFO, ("1", "4"))]
    assert told(save(path, net)) == expected


@pytest.mark.parametrize("make", [torch.jit.script, lambda net: torch.jit.trace(net, torch.randn(4, 3, 9, 9))])
@pytest.mark.parametrize("training", [True, False])
def test_an_archive_made_in_train_mode(path: str, make: Callable[[Any], Any], training: bool) -> None:
    torch.jit.save(make(small_net().train(training)), path)
    expected = [("saved-in-train-mode", Severity.WARNING, ("1", "4"))] if training else []
    assert told(path) == expected


@pytest.mark.parametrize("other", [nn.GroupNorm, nn.InstanceNorm2d])
def test_other_norms_are_not_batchnorm(path: str, other: Any) -> None:
    def norm(width: int) -> Any:
        return other(2, width) if other is nn.GroupNorm else other(width, affine=True, track_running_stats=True)

    assert told(save(path, small_net(norm=norm).requires_grad_(False).train())) == []
