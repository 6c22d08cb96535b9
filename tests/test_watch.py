"""`bnlint.torch.watch`: what it notices while a model trains, when, and that nothing else changes."""

from __future__ import annotations

import copy
import io
import warnings
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from live_models import Net, Small, hooks, images, layers  # noqa: E402
from networks import ResNet, batch, train, trained  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

import bnlint.torch  # noqa: E402
from bnlint.torch import BatchNormWarning, watch  # noqa: E402

FROZEN, NONFINITE = "frozen-bn-in-train-mode", "nonfinite-running-stats"


@pytest.fixture(autouse=True)
def nothing_unexpected() -> Iterator[None]:
    """A warning that a test does not ask for fails it."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", BatchNormWarning)
        yield


# -- frozen and in train mode ----------------------------------------------------------------------------


@pytest.mark.parametrize("keep_still", [False, True], ids=["trap", "cure"])
def test_the_frozen_network_that_moves(keep_still: bool) -> None:
    """CASES.md 2: frozen once, two epochs of net.train(); cured by eval() of its two layers."""
    torch.manual_seed(0)
    net, image = Net(), images(1)
    net.requires_grad_(False)
    outputs, said = [], []
    with watch(net, on_findings=said.append) as watching:
        for _ in range(2):
            net.train()
            if keep_still:
                net.bn1.eval()
                net.bn2.eval()
            before = len(said)
            net(images())
            assert len(said) - before == (0 if keep_still or outputs else 1), "said once, at the first forward"
            net.eval()
            outputs.append(net(image))
    assert torch.equal(*outputs) is keep_still
    assert layers(watching.findings, FROZEN) == ([] if keep_still else ["bn1", "bn2"])
    assert watching.batches == (0 if keep_still else 2)
    assert {str(finding.gravity) for finding in watching.findings} <= {"error"}


def test_the_warning_names_the_layers_and_the_fix_and_points_at_the_call() -> None:
    net = Net().requires_grad_(False)
    with watch(net), pytest.warns(BatchNormWarning) as caught:
        net(images())
    (warning,) = caught
    assert warning.filename == __file__
    text = str(warning.message)
    assert text.startswith("bn1, bn2: weight and bias need no gradient, but BatchNorm2d is in train mode")
    assert FROZEN in text and "module.eval()" in text


def test_train_undoes_eval_in_the_second_epoch() -> None:
    net, said = Net().requires_grad_(False), []
    with watch(net, on_findings=said.append):
        net.train()
        net.bn1.eval()
        net.bn2.eval()
        net(images())
        assert not said
        net.train()
        net(images())
    assert [layers(findings, FROZEN) for findings in said] == [["bn1", "bn2"]]


def test_train_undoes_eval_beside_layers_that_train() -> None:
    model, said = Small(), []
    model.bn1.requires_grad_(False).eval()
    with watch(model, on_findings=said.append):
        model(torch.randn(4, 4))
        model.train()
        model(torch.randn(4, 4))
        assert [layers(findings, FROZEN) for findings in said] == [["bn1"]]


def test_layers_that_are_frozen_later_are_noticed_within_every_batches() -> None:
    net, said = Net(), []
    with watch(net, every=4, on_findings=said.append) as watching:
        for _ in range(3):
            net(images())
        net.bn2.requires_grad_(False)
        for _ in range(4):
            net(images())
    assert [layers(findings, FROZEN) for findings in said] == [["bn2"]]
    assert watching.batches == 7


def test_what_trains_and_what_is_frozen_as_it_should_be_is_passed_over() -> None:
    model = ResNet((1, 1))
    model.layer1.requires_grad_(False).eval()
    with watch(model) as watching:
        for _ in range(3):
            model(batch()[0])
    assert watching.findings == [] and watching.batches == 3


def test_only_parts_of_the_model_are_called() -> None:
    """Lightning's training_step and the note's side branch do so."""
    net, said = Net().requires_grad_(False), []
    with watch(net, on_findings=said.append) as watching:
        for i in range(3):
            net.features(torch.full((5, 1, 32, 32), float("nan")) if i == 1 else images())
        net.eval().features(images())
    assert watching.batches == 3
    assert layers(said[0], FROZEN) == ["bn1", "bn2"]
    assert layers(said[1], NONFINITE) == ["bn1", "bn2"]
    assert said[1][0].message.endswith("since batch 2")


def test_the_users_word_holds(tmp_path: Path) -> None:
    """A layer that adapts on purpose is left alone by an override, and the rule by `ignore`."""
    config = tmp_path / "bnlint.yaml"
    config.write_text(
        "overrides: [{layers: [bn1], rules: {frozen-bn-in-train-mode: off}, reason: adapts on purpose}]\n"
    )
    folder = tmp_path / "own_rules"
    folder.mkdir()
    (folder / "own.py").write_text("raise ZeroDivisionError\n")
    (tmp_path / "own.yaml").write_text("rules-folder: own_rules\n")
    with watch(Net(), config=str(tmp_path / "own.yaml")):
        pass  # a user's own rules have no part in it, so none are run
    for options, expected in ({"config": str(config)}, ["bn2"]), ({"ignore": [FROZEN]}, []):
        net = Net().requires_grad_(False)
        with watch(net, on_findings=list, **options) as watching:
            net(images())
        assert layers(watching.findings, FROZEN) == expected


# -- statistics that are not finite ----------------------------------------------------------------------

BAD = {"nan": float("nan"), "inf": float("inf"), "-inf": -float("inf"), "overflow": 3e38}


@pytest.mark.parametrize("value", BAD.values(), ids=BAD)
@pytest.mark.parametrize("shape", [(4, 6), (4, 6, 5), (4, 6, 5, 5), (4, 6, 3, 3, 3)], ids=len)
@pytest.mark.parametrize("momentum", [0.1, 0.0, None, 1.0])
def test_the_variance_shows_every_batch_that_is_not_finite(
    shape: tuple[int, ...], momentum: float | None, value: float
) -> None:
    """What the watch relies on, and that the finding has the right batch."""
    norm = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}[len(shape)]
    layer = norm(6, momentum=momentum)
    with watch(layer, every=4, on_findings=list) as watching:
        for i in range(6):
            x = torch.randn(shape)
            if i == 1:
                x[0, 3] = value
            layer(x)
            assert len(watching.findings) == (i >= 3), "read every four batches"
            if i >= 1 and not layer.running_mean.isfinite().all():
                assert not layer.running_var.isfinite().all()
    assert momentum == 1.0 or not layer.running_var.isfinite().all(), "NaN stays"
    if momentum == 1.0:
        return
    (finding,) = watching.findings
    assert finding.rule == NONFINITE and finding.message.endswith("since batch 2")


def test_statistics_that_were_not_finite_before() -> None:
    model = Small()
    model.bn1.running_var[2] = float("inf")
    with watch(model, every=1, on_findings=list) as watching:
        assert [finding.message.rpartition(", ")[2] for finding in watching.findings] == ["before the first batch"]
        model(torch.randn(4, 4))
        x = torch.randn(4, 4)
        model.bn2.register_forward_pre_hook(lambda *_: (torch.full((4, 8), float("nan")),))
        model(x)
    assert layers(watching.findings, NONFINITE) == ["bn1", "bn2"]
    assert watching.findings[1].message.endswith("since batch 2")


class Reads(TorchDispatchMode):
    """Counts the operations, and those that wait for the device."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = self.reads = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.operations += 1
        self.reads += function in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.equal.default)
        return function(*args, **(kwargs or {}))


def test_no_step_waits_for_the_device() -> None:
    """Reading a number from a device goes through one operation; a step has none, reading has one per device."""
    model, x = ResNet((2, 2, 2, 2), width=4), batch(2)[0]
    counts = []
    for watched in (False, True):
        with watch(model, every=5) if watched else nullcontext():
            per_batch = []
            for _ in range(10):
                with Reads() as mode:
                    model(x)
                per_batch.append((mode.operations, mode.reads))
        counts.append(per_batch)
    alone, beside = counts
    assert [reads for _, reads in beside] == [0, 0, 0, 0, 1, 0, 0, 0, 0, 1]
    assert max(more - less for (less, _), (more, _) in zip(alone, beside, strict=True)) <= 12


# -- nothing else changes --------------------------------------------------------------------------------


def run(watched: bool) -> tuple[dict[str, Tensor], Tensor]:
    torch.manual_seed(0)
    model, optimizer = trained(ResNet((1, 1)), 2)
    with watch(model, every=2) if watched else nullcontext():
        train(model, optimizer, 5)
    return model.state_dict(), torch.get_rng_state()


def test_training_goes_on_bit_for_bit() -> None:
    (alone, random_alone), (beside, random_beside) = run(False), run(True)
    assert list(alone) == list(beside)
    assert all(torch.equal(alone[name], beside[name]) for name in alone)
    assert torch.equal(random_alone, random_beside)


def test_hooks_are_gone_afterwards_and_those_of_others_stay() -> None:
    model = Small()
    model.bn1.register_forward_hook(lambda *_: None)
    outer, inner = watch(model), watch(model)
    with outer:
        assert hooks(model) > 1
        with inner:
            model(torch.randn(4, 4))
        model(torch.randn(4, 4))
    assert (outer.batches, inner.batches) == (2, 1)
    assert hooks(model) == 1
    outer.start()
    inner.start()
    outer.stop()
    model(torch.randn(4, 4))
    inner.stop()
    inner.stop()
    assert (outer.batches, inner.batches) == (0, 1)
    assert hooks(model) == 1


@pytest.mark.parametrize("damaged", [False, True])
def test_exceptions_pass_through(damaged: bool) -> None:
    """Also where there would be something to say at the end, and warnings are errors."""
    model = Small()
    with pytest.raises(ZeroDivisionError), watch(model):
        if damaged:
            model(torch.full((4, 4), float("nan")))
        raise ZeroDivisionError
    assert hooks(model) == 0
    model = Small()
    with pytest.raises(ValueError, match="more than 1 value per channel"), watch(model):
        model(torch.zeros(1, 4))
    assert hooks(model) == 0


def test_a_warning_made_an_error_stops_the_training() -> None:
    model = Small().requires_grad_(False)
    with pytest.raises(BatchNormWarning), watch(model):
        model(torch.randn(4, 4))
    assert hooks(model) == 0
    assert model.bn1.num_batches_tracked == 0, "before the damage"


def test_a_failed_forward_leaves_the_watch_in_order() -> None:
    model = Small()
    with watch(model) as watching:
        model(torch.randn(4, 4))
        with pytest.raises(RuntimeError):
            model(torch.randn(4, 5))
        model(torch.randn(4, 4))
    assert watching.batches == 2


def test_copies_and_files_take_no_watch_along() -> None:
    """An EMA begins as a deepcopy, often in the middle of training."""
    model = Small()
    with watch(model) as watching:
        ema = copy.deepcopy(model)
        file = io.BytesIO()
        torch.save(model, file)
        file.seek(0)
        for each in (ema, torch.load(file, weights_only=False)):
            each(torch.randn(4, 4))
        assert watching.batches == 0
        model(torch.randn(4, 4))
    assert watching.batches == 1


def test_the_public_names_are_these() -> None:
    public = "BatchNormWarning Watch assert_bn_healthy check recalibration_gap watch".split()
    assert sorted(bnlint.torch.__all__) == public
