"""`bnlint.torch.recalibration_gap`: what data says of running statistics, and that the model is put back."""

from __future__ import annotations

import copy
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from live_models import check, data, gap, healthy_model, modes, reset, said, state  # noqa: E402
from torch import nn  # noqa: E402

from bnlint import UsageError  # noqa: E402


@pytest.fixture(scope="module")
def healthy() -> nn.Module:
    return healthy_model()


def test_statistics_of_the_data_itself_pass(healthy: Any) -> None:
    assert not gap(healthy, data()).findings


def test_wrong_statistics_that_look_well_are_found(healthy: Any) -> None:
    """No rule that looks at the model alone can see it."""
    model = copy.deepcopy(healthy)
    with torch.no_grad():
        model.train()
        for images, _ in data(60, brightness=0.4, scale=1.5):
            model(images)
    assert not [finding for finding in check(model).findings if str(finding.gravity) != "info"]
    loud = {layer for finding in gap(model, data()).findings for layer in finding.location.layers}
    assert "bn1" in loud
    torch.optim.swa_utils.update_bn(data(), model)
    assert not gap(model, data()).findings, "the fix it prints"


def test_statistics_that_were_never_updated_are_an_error(healthy: Any) -> None:
    model = copy.deepcopy(healthy)
    reset(model)
    report = gap(model, data())
    assert "error" in {str(finding.gravity) for finding in report.findings}
    assert report.failed


def test_the_statistics_are_those_of_update_bn(healthy: Any) -> None:
    torch.manual_seed(3)
    given = list(data(17))
    expected = copy.deepcopy(healthy)
    torch.optim.swa_utils.update_bn(given, expected)
    model = copy.deepcopy(healthy).eval()
    reset(model)
    (first, *_) = gap(model, given, select=["recalibration-gap"]).findings
    assert first.location.layers == ("bn1",)
    shifts = sorted((expected.bn1.running_mean / (1 + 1e-5) ** 0.5).abs().tolist())
    assert first.evidence["shift"] == pytest.approx(shifts[-1], rel=1e-5)
    assert first.evidence["batches"] == 17


def test_the_model_is_put_back(healthy: Any) -> None:
    model = nn.Sequential(copy.deepcopy(healthy), nn.Dropout(0.5), nn.BatchNorm1d(4, momentum=0.3)).eval()
    model[0].layer1.train()
    given = list(data(3))
    before = state(model)[0], modes(model)
    gap(model, given)
    assert (state(model)[0], modes(model)) == before

    def fails(net: nn.Module, inputs: Any) -> None:
        net(inputs[0])
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        gap(model, given, forward=fails)
    assert (state(model)[0], modes(model)) == before


def test_few_batches_prove_nothing(healthy: Any) -> None:
    model = copy.deepcopy(healthy)
    reset(model)
    report = gap(model, data(3))
    assert report.findings and not report.failed
    assert {str(finding.gravity) for finding in report.findings} == {"info"}


def test_batches_come_in_several_forms(healthy: Any) -> None:
    images = [images for images, _ in data(16)]
    forms: list[list[Any]] = [images, [(each, 0) for each in images], [[each] for each in images]]
    forms.append([{"x": each} for each in images])
    model = copy.deepcopy(healthy)
    reset(model)
    said_of = [said(gap(model, form).findings) for form in forms]
    said_of.append(said(gap(nn.DataParallel(model), images, forward=lambda net, each: net(each)).findings))
    assert said_of[0] and said_of == [said_of[0]] * 5


def test_what_cannot_be_recalibrated(healthy: Any) -> None:
    with pytest.raises(UsageError, match="no batch"):
        gap(healthy, [])
    with pytest.raises(UsageError, match="no numbers"):
        gap(nn.Sequential(nn.LazyBatchNorm2d()), data())
    with torch.device("meta"), pytest.raises(UsageError, match="no numbers"):
        gap(nn.BatchNorm2d(3), data())
    report = gap(healthy, [torch.full((4, 3, 16, 16), float("nan"))])
    assert not report.findings and "not finite" in str(report.files[0].note)
    unused = nn.ModuleDict({"used": nn.BatchNorm2d(3), "unused": nn.BatchNorm2d(3)})
    report = gap(unused, data(20, brightness=5.0), forward=lambda net, each: net["used"](each[0]))
    assert {layer for finding in report.findings for layer in finding.location.layers} == {"used"}
