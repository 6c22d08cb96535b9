"""`bnlint.torch.check`: a live model is judged as its file would be, whatever wraps it, and stays as it is."""

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from live_models import Net, check, healthy_model, reset, said, state, told  # noqa: E402
from networks import batch  # noqa: E402
from torch import Tensor, nn  # noqa: E402

import bnlint  # noqa: E402
import bnlint.torch  # noqa: E402
from bnlint import UsageError  # noqa: E402
from bnlint.errors import ConfigError  # noqa: E402
from bnlint.torch.live import Live  # noqa: E402

OF_FILES = {"pickled-module", "unsafe-pickle", "legacy-format"}


@pytest.fixture(scope="module")
def healthy() -> nn.Module:
    return healthy_model()


# -- the oracle: the same model as a file ------------------------------------------------------------------


def frozen(model: nn.Module) -> None:
    model.requires_grad_(False).train()


def left_in_train_mode(model: nn.Module) -> None:
    model.eval()
    model.layer1[0].bn2.train()


def damaged(model: nn.Module) -> None:
    model.bn1.running_var[3] = float("nan")
    model.layer2[0].bn1.running_mean.fill_(float("inf"))
    model.layer1[0].bn1.running_var[0] = -1.0


def uncounted(model: nn.Module) -> None:
    model.bn1.momentum = None
    model.bn1.num_batches_tracked.zero_()
    model.layer2[0].bn1.track_running_stats = False
    model.layer1[0].bn1.momentum = 0.0


def synchronised(model: nn.Module) -> None:
    model.layer1 = nn.SyncBatchNorm.convert_sync_batchnorm(model.layer1)
    model.eval()


def without_affine(model: nn.Module) -> None:
    model.layer1[0].bn1 = nn.BatchNorm2d(8, affine=False)
    model.layer1[0].conv1.requires_grad_(False)
    model.layer1[0].bn2 = nn.BatchNorm2d(8, track_running_stats=False)
    model.layer2[0].bn1 = nn.InstanceNorm2d(16, affine=True, track_running_stats=True)


def nothing(model: nn.Module) -> None:
    pass


DEFECTS = (
    nothing,
    frozen,
    left_in_train_mode,
    damaged,
    reset,
    uncounted,
    synchronised,
    without_affine,
    nn.Module.half,
    nn.Module.bfloat16,
    nn.Module.double,
)


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda defect: defect.__name__)
def test_a_live_model_is_judged_as_its_file(defect: Callable[[Any], object], healthy: Any, tmp_path: Path) -> None:
    model = copy.deepcopy(healthy)
    defect(model)
    torch.save(model, tmp_path / "model.pt")
    options: dict[str, Any] = {"isolated": True, "deep": True, "preset": "strict"}
    of_file = bnlint.check(str(tmp_path / "model.pt"), **options)
    live = bnlint.torch.check(model, **options)
    assert not live.crashes and not live.trouble
    assert said(live.findings) == said([each for each in of_file.findings if each.rule not in OF_FILES])
    (file,), (result,) = of_file.files, live.files
    assert (result.batchnorm_layers, result.channels) == (file.batchnorm_layers, file.channels)
    assert defect in (nothing, nn.Module.double, nn.Module.half) or live.findings


def test_the_loudness_of_a_live_model(healthy: Any) -> None:
    model = copy.deepcopy(healthy)
    assert not [finding for finding in check(model).findings if str(finding.gravity) != "info"]
    frozen(model)
    report = check(model)
    assert {str(each.gravity) for each in report.findings if each.rule == "frozen-bn-in-train-mode"} == {"error"}
    assert report.failed and report.exit_code == 1
    assert (report.files[0].path, report.files[0].format, report.files[0].status) == ("ResNet", "live", "checked")
    assert check(model, name="the student").findings[0].location.path == "the student"
    assert told(model.eval()) == {}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_the_numbers_are_those_of_torch(dtype: Any, healthy: Any) -> None:
    model = copy.deepcopy(healthy).to(dtype)
    checkpoint = Live(model).checkpoint()
    modules = dict(model.named_modules())
    assert [layer.name for layer in checkpoint.batchnorms] == [
        name for name, module in modules.items() if isinstance(module, nn.BatchNorm2d)
    ]
    for layer in checkpoint.batchnorms:
        assert layer.module is not None and layer.module.layer is layer
        for leaf in ("weight", "bias", "running_mean", "running_var"):
            vector, tensor = getattr(layer, leaf), getattr(modules[layer.name], leaf)
            assert list(vector) == tensor.tolist()
            assert vector.dtype == str(dtype).removeprefix("torch.")
        assert layer.num_batches_tracked == 120
    assert list(checkpoint.tensors) == list(model.state_dict())
    for name, tensor in model.state_dict().items():
        handle = checkpoint.tensors[name]
        assert (handle.shape, list(handle.values())) == (tuple(tensor.shape), tensor.flatten().tolist())


def test_strided_tensors_are_read_as_they_are(healthy: Any) -> None:
    model = copy.deepcopy(healthy).to(memory_format=torch.channels_last)
    model.fc.weight = nn.Parameter(model.fc.weight.detach().t().contiguous().t())
    model.bn1.running_var = torch.stack([model.bn1.running_var] * 3, 1)[:, 1]
    checkpoint = Live(model).checkpoint()
    for name, tensor in model.state_dict().items():
        assert list(checkpoint.tensors[name].values()) == tensor.flatten().tolist()
    assert list(checkpoint.batchnorms[0].running_var) == model.bn1.running_var.tolist()


# -- the model stays as it is ------------------------------------------------------------------------------


def test_check_changes_nothing(healthy: Any) -> None:
    model = copy.deepcopy(healthy)
    left_in_train_mode(model)
    before = state(model)
    check(model, deep=True)
    assert state(model) == before


def test_all_numbers_come_in_one_transfer(healthy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    transfers: list[int] = []
    to_cpu = Tensor.cpu

    def counted(tensor: Tensor) -> Tensor:
        transfers.append(tensor.numel())
        return to_cpu(tensor)

    monkeypatch.setattr(Tensor, "cpu", counted)
    check(healthy)
    channels = sum(len(module.weight) for module in healthy.modules() if isinstance(module, nn.BatchNorm2d))
    layers = sum(isinstance(module, nn.BatchNorm2d) for module in healthy.modules())
    assert transfers == [4 * 4 * channels + 8 * layers]


# -- kinds of layers -----------------------------------------------------------------------------------------


def test_a_shared_layer_is_one_layer(healthy: Any) -> None:
    model = copy.deepcopy(healthy)
    model.layer1[0].bn2 = model.layer1[0].bn1 = model.bn1
    model.bn1.running_var[1] = float("nan")
    assert told(model)["nonfinite-running-stats"] == ("error", {"bn1"})
    assert check(model).files[0].batchnorm_layers == 4


class MyNorm(nn.BatchNorm2d):
    """A user's own kind of BatchNorm, named as nobody would guess."""


class FrozenNorm(nn.BatchNorm2d):
    """A user's BatchNorm that never trains, whatever its flag says."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias)


def test_kinds_of_batchnorm() -> None:
    def model(layer: nn.Module) -> nn.Module:
        for parameter in layer.parameters():
            parameter.requires_grad = False
        return nn.Sequential(nn.Conv2d(3, 4, 3), layer).train()

    frozen = {"frozen-bn-in-train-mode": ("error", {"1"})}
    kinds = [nn.BatchNorm2d(4), MyNorm(4), nn.SyncBatchNorm(4), nn.LazyBatchNorm2d()]
    for layer in kinds:
        found = told(model(layer), select=["frozen-bn-in-train-mode"])
        assert found == frozen, type(layer)
    others = [FrozenNorm(4), nn.InstanceNorm2d(4, affine=True, track_running_stats=True), nn.GroupNorm(2, 4)]
    for layer in others:
        assert not told(model(layer), select=["frozen-bn-in-train-mode"]), type(layer)


class Doubled(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return 2 * weight


def test_a_parametrized_layer_keeps_its_weight_elsewhere(healthy: Any) -> None:
    model = copy.deepcopy(healthy)
    nn.utils.parametrize.register_parametrization(model.bn1, "weight", Doubled())
    assert not [finding for finding in check(model).findings if str(finding.gravity) != "info"]
    model.bn1.requires_grad_(False)
    model.bn1.parametrizations.weight.original.data[0] = float("nan")
    assert told(model) == {
        "frozen-bn-in-train-mode": ("error", {"bn1"}),
        "nonfinite-running-stats": ("error", {"bn1"}),
    }


@pytest.mark.parametrize("lazily", [False, True])
def test_layers_without_numbers_are_judged_by_their_modes(lazily: bool) -> None:
    if lazily:
        model = nn.Sequential(nn.LazyConv2d(4, 3), nn.LazyBatchNorm2d(), nn.LazyConv2d(4, 3), nn.LazyBatchNorm2d())
    else:
        with torch.device("meta"):
            model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4))
    for parameter in model[1].parameters():
        parameter.requires_grad = False
    report = check(model, deep=True)
    assert told(model) == {"frozen-bn-in-train-mode": ("error", {"1"})}
    assert report.files[0].note is not None and "2 BatchNorm layers left out" in report.files[0].note
    assert report.files[0].status == "checked"


def test_some_layers_on_the_meta_device(healthy: Any) -> None:
    model = copy.deepcopy(healthy)
    model.layer2.to("meta")
    model.bn1.running_var[1] = float("nan")
    assert told(model)["nonfinite-running-stats"] == ("error", {"bn1"})
    assert check(model).files[0].batchnorm_layers == 3


def test_scripted_and_traced_models(healthy: Any) -> None:
    model = copy.deepcopy(healthy)
    model.bn1.running_var[1] = float("nan")
    model.bn1.momentum = 0.0
    plain = told(model)
    assert {"nonfinite-running-stats", "suspicious-momentum"} <= plain.keys()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert told(torch.jit.script(nn.Sequential(model.conv1, model.bn1)))["nonfinite-running-stats"][1] == {"1"}
        traced = torch.jit.trace(copy.deepcopy(model).eval(), batch(2)[0])
    assert told(traced)["nonfinite-running-stats"] == ("error", {"bn1"})


def test_quantised_layers_have_no_mode() -> None:
    quantized = pytest.importorskip("torch.ao.nn.quantized")
    layer = quantized.BatchNorm2d(4).train().requires_grad_(False)
    assert not told(nn.Sequential(layer), select=["frozen-bn-in-train-mode", "mixed-train-eval"])
    layer.running_var[1] = float("nan")
    assert told(nn.Sequential(layer))["nonfinite-running-stats"] == ("error", {"0"})


def test_quantisation_aware_training() -> None:
    intrinsic = pytest.importorskip("torch.ao.nn.intrinsic.qat")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        qconfig = torch.ao.quantization.get_default_qat_qconfig("fbgemm")
    layer = intrinsic.ConvBn2d(3, 4, 3, qconfig=qconfig).requires_grad_(False).train()
    assert told(nn.Sequential(layer), select=["frozen-bn-in-train-mode"]) == {
        "frozen-bn-in-train-mode": ("error", {"0.bn"})
    }


def test_models_without_batchnorm() -> None:
    for model in (nn.Linear(3, 4), nn.Sequential(), nn.Identity(), nn.ModuleDict({"none": nn.ReLU()})):
        report = check(model)
        assert not report.findings and report.exit_code == 0
        assert report.files[0].status == "nothing-to-check"


def test_what_is_no_model(healthy: Any) -> None:
    with pytest.raises(UsageError, match="not at OrderedDict"):
        bnlint.torch.check(healthy.state_dict())


# -- options and the helper for tests --------------------------------------------------------------------------


def test_the_configuration_is_the_one_of_the_command_line(healthy: Any, tmp_path: Path) -> None:
    model = copy.deepcopy(healthy)
    frozen(model)
    config = tmp_path / "bnlint.yaml"
    config.write_text("rules: {frozen-bn-in-train-mode: warning}\nfail-on: warning\n")
    report = bnlint.torch.check(model, config=str(config))
    assert {str(finding.gravity) for finding in report.findings} == {"warning"} and report.failed
    assert not check(model, ignore=["frozen-bn-in-train-mode"]).findings
    with pytest.raises(UsageError, match="frozen-bn-in-train-mod"):
        check(model, select=["frozen-bn-in-train-mod"])
    config.write_text("rules: {frozen-bn: warning}\n")
    with pytest.raises(ConfigError):
        bnlint.torch.check(model, config=str(config))


def test_the_helper_for_tests(healthy: Any) -> None:
    bnlint.torch.assert_bn_healthy(healthy, isolated=True)
    model = copy.deepcopy(healthy)
    model.bn1.running_var[1] = float("nan")
    with pytest.raises(AssertionError, match="running_var is NaN in 1 of 8 channels"):
        bnlint.torch.assert_bn_healthy(model, isolated=True)
    bnlint.torch.assert_bn_healthy(model, isolated=True, ignore=["nonfinite-running-stats"])
    left_in_train_mode(model := copy.deepcopy(healthy))
    bnlint.torch.assert_bn_healthy(model, isolated=True)
    with pytest.raises(AssertionError):
        bnlint.torch.assert_bn_healthy(model, isolated=True, fail_on="warning")


def test_importing_the_room_needs_neither_pytest_nor_lightning() -> None:
    import subprocess
    import sys

    program = "import sys, bnlint.torch; print('pytest' in sys.modules, 'lightning' in sys.modules)"
    root = os.path.dirname(os.path.dirname(os.path.abspath(bnlint.__file__)))
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=root)
    assert shown.stdout.split() == ["False", "False"]


# -- the case ----------------------------------------------------------------------------------------------------


def test_the_frozen_network_that_moves() -> None:
    """Printed, its parameters all say requires_grad False; checked, its layers are two errors."""
    net = Net().requires_grad_(False).train()
    assert told(net)["frozen-bn-in-train-mode"] == ("error", {"bn1", "bn2"})
    image = torch.rand(1, 1, 32, 32)
    first = net.eval()(image)
    net.train()(torch.rand(5, 1, 32, 32))
    assert not torch.equal(first, net.eval()(image)), "the trap did not spring"
    net.train()
    net.bn1.eval()
    net.bn2.eval()
    assert "frozen-bn-in-train-mode" not in told(net)
