"""One defect in one layer of a healthy checkpoint: it is found there, and nothing else becomes an error.

The layer is drawn at random; a failure prints the seed, and BNLINT_SEED repeats it. With BNLINT_CORPUS
set (a folder of real checkpoints with a catalog.json) the same is planted into every healthy file.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from random import Random, SystemRandom

import pytest

torch = pytest.importorskip("torch")

from containers import CONTAINERS, CannotBeWritten, plain  # noqa: E402
from defects import DEFECTS, Defect, StateDict, layers, stale_copy  # noqa: E402
from networks import ResNet, train, trained  # noqa: E402

import bnlint  # noqa: E402
from bnlint.finding import Severity  # noqa: E402
from bnlint.report import Report  # noqa: E402

CHECKOUT = Path(__file__).resolve().parent.parent
SEED = int(os.environ.get("BNLINT_SEED", SystemRandom().randrange(1 << 32)))
CORPUS = os.environ.get("BNLINT_CORPUS")


def said(report: Report) -> list[str]:
    return [
        f"{finding.gravity} {finding.rule} {finding.location.state_dict!r} {finding.location.layers}: {finding.message}"
        for finding in report.findings
    ]


def check(path: Path) -> Report:
    report = bnlint.check(str(path), isolated=True)
    assert not report.crashes and not report.trouble, [*map(str, report.crashes), *report.trouble]
    return report


def assert_healthy(report: Report) -> None:
    loud = [finding for finding in report.findings if finding.gravity >= Severity.WARNING]
    assert not loud, said(report)
    assert report.exit_code == 0


def assert_found(defect: Defect, layer: str, report: Report, where: str) -> None:
    """The defect is said at its layer, and no other rule or layer is an error."""
    least = Severity.of(defect.severity)
    hits = [
        finding
        for finding in report.findings
        if finding.rule == defect.rule
        and finding.gravity >= least
        and (defect.whole_file or layer in finding.location.layers)
    ]
    context = f"{defect} at {layer!r} of {where} (BNLINT_SEED={SEED})\n" + "\n".join(said(report))
    assert hits, f"not found: {context}"
    errors = [finding for finding in report.findings if finding.gravity >= Severity.ERROR]
    strays = [
        finding
        for finding in errors
        if defect.severity != "error" or finding.rule != defect.rule or finding.location.layers != (layer,)
    ]
    assert not strays, f"something else became an error: {context}"
    assert report.exit_code == (1 if errors else 0)


# -- checkpoints of our own --------------------------------------------------------------------------


@pytest.mark.parametrize("kind", CONTAINERS)
def test_healthy(kind: str, tmp_path: Path) -> None:
    container = CONTAINERS[kind]
    path = tmp_path / f"healthy.{container.ending}"
    state_dict = container.state_dict()
    container.write(state_dict, path)
    report = check(path)
    assert_healthy(report)
    assert report.files[0].batchnorm_layers == 6 * (2 if kind == "second-of-two" else 1)
    assert report.files[0].status == "checked"


@pytest.mark.parametrize("defect", DEFECTS, ids=str)
@pytest.mark.parametrize("kind", CONTAINERS)
def test_planted(kind: str, defect: Defect, tmp_path: Path) -> None:
    container = CONTAINERS[kind]
    random = Random(f"{SEED} {kind} {defect}")
    state_dict = container.state_dict()
    candidates = [layer for layer in layers(state_dict) if defect.applies(state_dict, layer)]
    if not candidates:
        pytest.skip(f"{defect} cannot happen to {kind}")
    layer = random.choice(candidates)
    defect.plant(state_dict, layer, random)
    path = tmp_path / f"planted.{container.ending}"
    try:
        container.write(state_dict, path)
    except CannotBeWritten as reason:
        pytest.skip(f"{defect} cannot happen to {kind}: {str(reason)[:60]}")
    assert_found(defect, layer, check(path), kind)


def test_a_healthy_file_has_none_of_them(tmp_path: Path) -> None:
    """Else the test above would prove nothing."""
    container = CONTAINERS["zip"]
    container.write(plain(), tmp_path / "healthy.pth")
    report = check(tmp_path / "healthy.pth")
    for defect in DEFECTS:
        with pytest.raises(AssertionError, match="not found"):
            assert_found(defect, "bn1", report, "a healthy file")


def test_every_defect_can_happen_to_a_plain_state_dict() -> None:
    """Else a test above would be skipped everywhere."""
    state_dict = plain()
    for defect in DEFECTS:
        assert any(defect.applies(state_dict, layer) for layer in layers(state_dict)), defect


@pytest.mark.parametrize("kind", ["zip", "legacy", "without-counters", "data-parallel", "lightning"])
@pytest.mark.parametrize("name", ["ema", "model_ema", "ema_state_dict", "teacher"])
def test_an_average_with_reset_statistics(kind: str, name: str, tmp_path: Path) -> None:
    """The copy is named; nothing is an error, least of all in the live model."""
    container = CONTAINERS[kind]
    live = container.state_dict()
    around = container.around(live)
    wrapper = dict(around) if isinstance(around, dict) and "epoch" in around else {"state_dict": live}
    path = tmp_path / "ema.pth"
    torch.save({**wrapper, name: stale_copy(live)}, path, _use_new_zipfile_serialization=not container.legacy)
    report = check(path)
    hits = [f for f in report.findings if f.rule == "stale-ema-stats" and f.gravity >= Severity.WARNING]
    assert hits, said(report)
    assert all(finding.location.state_dict == name for finding in hits), said(report)
    assert {layer for finding in hits for layer in finding.location.layers} <= set(layers(live))
    assert not [finding for finding in report.findings if finding.gravity >= Severity.ERROR], said(report)
    assert report.exit_code == 0


def test_a_healthy_average(tmp_path: Path) -> None:
    live = plain()
    average = {name: tensor * 0.999 if tensor.is_floating_point() else tensor for name, tensor in live.items()}
    torch.save({"state_dict": live, "ema": average}, tmp_path / "ema.pth")
    assert_healthy(check(tmp_path / "ema.pth"))


def test_really_only_two_batches(tmp_path: Path) -> None:
    """Trained, not simulated: two steps with a learning rate that moves every bias."""
    torch.manual_seed(SEED % 1000)
    model = ResNet()
    train(model, torch.optim.SGD(model.parameters(), lr=1.0), 2)
    torch.save(model.state_dict(), tmp_path / "young.pth")
    report = check(tmp_path / "young.pth")
    hits = [f for f in report.findings if f.rule == "undertrained-stats" and f.gravity >= Severity.WARNING]
    assert hits, said(report)
    assert not [finding for finding in report.findings if finding.gravity >= Severity.ERROR], said(report)


def test_untrained(tmp_path: Path) -> None:
    """A model that was never trained is no warning: every statistic and every bias is as it was made."""
    torch.save(ResNet().state_dict(), tmp_path / "fresh.pth")
    assert_healthy(check(tmp_path / "fresh.pth"))


# -- the official ResNet-18 --------------------------------------------------------------------------


@cache
def resnet18() -> ResNet:
    return trained(ResNet((2, 2, 2, 2), width=4), 40)[0]  # type: ignore[return-value]


def test_resnet18_has_the_keys_of_the_real_one() -> None:
    keys = list(resnet18().state_dict())
    counters = [name for name in keys if name.endswith("num_batches_tracked")]
    assert (len(keys), len(counters), len(keys) - len(counters)) == (122, 20, 102)
    assert "layer2.0.downsample.1.running_var" in keys and "layer1.0.downsample.0.weight" not in keys


def command(path: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bnlint", "check", str(path), "--isolated", *options],
        cwd=path.parent,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT), "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_resnet18_as_the_official_one_was_written(tmp_path: Path) -> None:
    """102 keys, no metadata, legacy container: one info line that explains it, nothing else, exit code 0."""
    old = OrderedDict((k, v) for k, v in resnet18().state_dict().items() if not k.endswith("num_batches_tracked"))
    assert len(old) == 102 and not hasattr(old, "_metadata")
    path = tmp_path / "resnet18-5c106cde.pth"
    torch.save(old, path, _use_new_zipfile_serialization=False)
    assert ResNet((2, 2, 2, 2), width=4).load_state_dict(torch.load(path)).missing_keys == []

    done = command(path, "--output", "json")
    report = json.loads(done.stdout)
    findings = report["findings"]
    assert [(finding["rule"], finding["severity"]) for finding in findings] == [("missing-num-batches-tracked", "info")]
    assert "20" in findings[0]["message"] and len(findings[0]["layers"]) in (0, 20)
    assert done.returncode == 0 and not done.stderr
    assert report["files"][0]["batchnorm_layers"] == 20

    text = command(path)
    lines = [line for line in text.stdout.splitlines() if "missing-num-batches-tracked" in line]
    assert len(lines) == 1, text.stdout
    assert text.stdout.count("info") >= 1 and "warning" not in text.stdout.partition("\n\n")[0]
    assert text.returncode == 0


def test_resnet18_with_the_counters_deleted_in_place(tmp_path: Path) -> None:
    """The same keys, but version 2 in the metadata: a strict load fails, so a warning."""
    broken = resnet18().state_dict()
    for name in [name for name in broken if name.endswith("num_batches_tracked")]:
        del broken[name]
    path = tmp_path / "resnet18.pth"
    torch.save(broken, path)
    with pytest.raises(RuntimeError, match="Missing key"):
        ResNet((2, 2, 2, 2), width=4).load_state_dict(torch.load(path))
    report = check(path)
    hits = [finding for finding in report.findings if finding.rule == "missing-num-batches-tracked"]
    assert hits and all(finding.gravity == Severity.WARNING for finding in hits), said(report)
    assert {layer for finding in hits for layer in finding.location.layers} == set(layers(broken)), said(report)
    assert not [f for f in report.findings if f.rule != "missing-num-batches-tracked"], said(report)
    assert report.exit_code == 0


def test_resnet18_saved_again_is_silent(tmp_path: Path) -> None:
    torch.save(resnet18().state_dict(), tmp_path / "again.pth")
    assert not check(tmp_path / "again.pth").findings


# -- real files --------------------------------------------------------------------------------------

READ = ("torch-zip", "torch-legacy", "torch-tar", "torchscript-zip", "safetensors")


def catalog() -> list[Mapping[str, object]]:
    if CORPUS is None:
        return []
    entries = json.loads((Path(CORPUS) / "catalog.json").read_text(encoding="utf-8"))
    return [entry for entry in entries if entry["judged"] in ("healthy", "no BN") and entry["container"] in READ]


def real_state_dict(entry: Mapping[str, object]) -> tuple[object, StateDict]:
    """The loaded file and the state dict in it that has the most BatchNorm layers."""
    path = Path(CORPUS or "") / str(entry["file"])
    if entry["container"] == "safetensors":
        from safetensors.torch import load_file

        tensors: StateDict = load_file(path)
        return tensors, tensors
    loaded = torch.load(path, map_location="cpu", weights_only=True)
    found: list[StateDict] = []

    def walk(value: object) -> None:
        if isinstance(value, dict):
            if layers({k: v for k, v in value.items() if isinstance(k, str) and isinstance(v, torch.Tensor)}):
                found.append(value)
            for inner in value.values():
                walk(inner)

    walk(loaded)
    assert found, "torch sees no BatchNorm"
    return loaded, max(found, key=lambda state_dict: len(layers(_tensors(state_dict))))


def _tensors(state_dict: StateDict) -> StateDict:
    return {name: value for name, value in state_dict.items() if isinstance(value, torch.Tensor)}


@pytest.mark.skipif(CORPUS is None, reason="BNLINT_CORPUS is not set")
@pytest.mark.parametrize("entry", catalog(), ids=lambda entry: str(entry["file"]))
def test_real_and_healthy(entry: Mapping[str, object]) -> None:
    report = check(Path(CORPUS or "") / str(entry["file"]))
    assert_healthy(report)
    assert report.files[0].batchnorm_layers == entry["bn_layers"]


@pytest.mark.skipif(CORPUS is None, reason="BNLINT_CORPUS is not set")
@pytest.mark.parametrize(
    "entry",
    [entry for entry in catalog() if entry["bn_layers"] and entry["container"] != "torchscript-zip"],
    ids=lambda entry: str(entry["file"]),
)
def test_planted_into_a_real_file(entry: Mapping[str, object], tmp_path: Path) -> None:
    """Every defect that can happen to this file, each at a layer of its own."""
    from pickle import UnpicklingError

    try:
        loaded, state_dict = real_state_dict(entry)
    except UnpicklingError as reason:
        pytest.skip(f"torch does not load it safely: {str(reason)[:80]}")
    healthy = OrderedDict(state_dict)
    metadata = getattr(state_dict, "_metadata", None)
    random = Random(f"{SEED} {entry['file']}")
    failures: list[str] = []
    for defect in DEFECTS:
        candidates = [name for name in layers(_tensors(healthy)) if defect.applies(_tensors(healthy), name)]
        if not candidates:
            continue
        layer = random.choice(candidates)
        defect.plant(state_dict, layer, random)
        path = tmp_path / f"{defect}.{'safetensors' if entry['container'] == 'safetensors' else 'pth'}"
        if entry["container"] == "safetensors":
            CONTAINERS["safetensors"].write(state_dict, path)
        else:
            torch.save(loaded, path, _use_new_zipfile_serialization=entry["container"] == "torch-zip")
        try:
            assert_found(defect, layer, check(path), str(entry["file"]))
        except AssertionError as failure:
            failures.append(str(failure))
        path.unlink()
        state_dict.clear()
        state_dict.update(healthy)
        if metadata is not None:
            state_dict._metadata = metadata  # type: ignore[attr-defined]
    assert not failures, "\n\n".join(failures)
