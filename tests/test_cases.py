"""The puzzles and traps this project started from, as programs: torch runs them, bnlint looks at what they wrote."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
np = pytest.importorskip("numpy")

from hostile import assembler  # noqa: E402
from networks import ResNet, trained  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch.nn.functional import cross_entropy, max_pool2d, relu  # noqa: E402

import bnlint  # noqa: E402
from bnlint.finding import Finding, Severity  # noqa: E402


def check(path: Path) -> list[Finding]:
    report = bnlint.check(str(path), isolated=True)
    assert not report.crashes and not report.trouble
    return report.findings


def spoken(findings: list[Finding], rule: str, least: Severity = Severity.WARNING) -> set[str]:
    """The layers at which a rule speaks at least this loud."""
    return {
        layer
        for finding in findings
        if finding.rule == rule and finding.gravity >= least
        for layer in finding.location.layers
    }


def loud(findings: list[Finding]) -> list[str]:
    return [f"{f.rule} {f.location.layers}: {f.message}" for f in findings if f.gravity >= Severity.WARNING]


# -- 1. the curve ------------------------------------------------------------------------------------


def python_2_checkpoint(state_dict: dict[str, Tensor]) -> bytes:
    """{'epoch': ..., 'state_dict': ...} as torch of Python 2 wrote it: byte strings, old container."""

    def claim(number: int, tensor: Tensor) -> assembler.Claim:
        kind = {torch.float32: "FloatStorage", torch.int64: "LongStorage"}[tensor.dtype]
        return assembler.Claim(
            tensor.contiguous().numpy().tobytes(),
            assembler.integers(tensor.shape),
            str(94_000_000_000_000 + number),
            assembler.integer(tensor.numel()),
            assembler.integers(tensor.contiguous().stride()),
            storage=assembler.named("torch", kind),
            location=assembler.byte_text(b"cpu"),
        )

    claims = {name: claim(number, tensor) for number, (name, tensor) in enumerate(state_dict.items())}
    pairs = [
        (assembler.byte_text(name.encode()), each.pickled(assembler.legacy_storage(each)))
        for name, each in claims.items()
    ]
    root = assembler.dict_of(
        [
            (assembler.byte_text(b"epoch"), assembler.integer(90)),
            (assembler.byte_text(b"arch"), assembler.byte_text(b"caf\xe9net")),
            (assembler.byte_text(b"state_dict"), assembler.ordered_dict(pairs)),
        ]
    )
    return assembler.legacy(claims, root=root)


@cache
def network() -> nn.Module:
    return trained(ResNet())[0]


@pytest.fixture(scope="module")
def old_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    without = {name: tensor for name, tensor in network().state_dict().items() if not name.endswith("tracked")}
    path = tmp_path_factory.mktemp("case1") / "checkpoint.pth"
    path.write_bytes(python_2_checkpoint(without))
    return path


def test_the_curve_of_running_means(old_file: Path) -> None:
    """Names in the order of the file, and each layer's mean as numpy averages it."""
    loaded = torch.load(old_file, map_location="cpu", encoding="latin1", weights_only=False)
    curve = {
        name: float(np.mean(tensor.numpy(), dtype=np.float64))
        for name, tensor in loaded["state_dict"].items()
        if "running_mean" in name
    }
    with bnlint.open_checkpoint(str(old_file)) as checkpoint:
        ours = {layer.key("running_mean"): layer.running_mean.mean for layer in checkpoint.batchnorms}
    assert list(ours) == list(curve)
    assert ours == pytest.approx(curve, rel=1e-12)
    assert len(curve) == 6 and len({round(value, 6) for value in curve.values()}) == 6


def test_the_four_vectors_and_the_formula(old_file: Path) -> None:
    """What a reader who writes inference by hand needs: gamma, beta, mean and variance, eps beside them."""
    torch.manual_seed(1)
    image = torch.randn(2, 8, 3, 3)
    expected = network().bn1.eval()(image)
    assert [name for name, _ in network().bn1.named_parameters()] == ["weight", "bias"]
    with bnlint.open_checkpoint(str(old_file)) as checkpoint:
        layer = checkpoint.batchnorms[0]
        gamma, beta, mean, variance = (
            np.frombuffer(vector, dtype=np.float32).reshape(1, -1, 1, 1)
            for vector in (layer.weight, layer.bias, layer.running_mean, layer.running_var)
        )
        y = (image.numpy() - mean) / np.sqrt(variance + layer.eps) * gamma + beta
    np.testing.assert_allclose(y, expected.detach().numpy(), rtol=1e-4, atol=1e-5)


def test_the_python_2_pickle_is_explained(old_file: Path) -> None:
    findings = check(old_file)
    assert "legacy-format" in {finding.rule for finding in findings}
    assert not loud(findings)


# -- 2. the frozen network that moves ----------------------------------------------------------------


class Net(nn.Module):
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


def two_epochs(net: Net, *, keep_still: bool) -> list[Tensor]:
    """The frozen net, run as the note runs it; the output for one image after each epoch."""
    torch.manual_seed(0)
    image = torch.rand(1, 1, 32, 32)
    net.requires_grad_(False)
    outputs = []
    for _ in range(2):
        net.train()
        if keep_still:
            net.bn1.eval()
            net.bn2.eval()
        net(torch.rand(5, 1, 32, 32))
        mode = [module.training for module in net.modules()]
        net.eval()
        outputs.append(net(image))
        for module, training in zip(net.modules(), mode, strict=True):
            module.training = training
    return outputs


def pretrained(batches: int = 40) -> Net:
    torch.manual_seed(0)
    net = Net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    for _ in range(batches):
        optimizer.zero_grad()
        cross_entropy(net(torch.rand(5, 1, 32, 32)), torch.randint(5, (5,))).backward()
        optimizer.step()
    return net


def test_the_frozen_network_moves_and_is_found_as_a_module(tmp_path: Path) -> None:
    net = pretrained()
    first, second = two_epochs(net, keep_still=False)
    assert not any(parameter.requires_grad for parameter in net.parameters())
    assert not torch.equal(first, second), "the trap did not spring"
    torch.save(net, tmp_path / "net.pth")
    findings = check(tmp_path / "net.pth")
    assert spoken(findings, "frozen-bn-in-train-mode") == {"bn1", "bn2"}, loud(findings)


def test_the_cure_is_silent_as_a_module(tmp_path: Path) -> None:
    net = pretrained()
    first, second = two_epochs(net, keep_still=True)
    assert torch.equal(first, second)
    torch.save(net, tmp_path / "net.pth")
    assert not loud(check(tmp_path / "net.pth"))


class SideBranch(nn.Module):
    """The wider aim of the note: the main branch fixed, a side branch trained."""

    def __init__(self, main: Net) -> None:
        super().__init__()
        self.main = main
        self.conv = nn.Conv2d(16, 8, 3, padding=1)
        self.bn = nn.BatchNorm2d(8)
        self.fc = nn.Linear(8 * 6 * 6, 5)

    def forward(self, x: Tensor) -> Tensor:
        features = self.main.features(x).view(-1, 16, 6, 6)
        return self.fc(relu(self.bn(self.conv(features))).flatten(1))


Optimizers = {
    "Adam": lambda parameters: torch.optim.Adam(parameters, lr=1e-3),
    "AdamW": lambda parameters: torch.optim.AdamW(parameters, lr=1e-3),
    "SGD": lambda parameters: torch.optim.SGD(parameters, lr=1e-2, momentum=0.9),
    "RMSprop": lambda parameters: torch.optim.RMSprop(parameters, lr=1e-3),
}


def side_branch_run(kind: str, *, keep_still: bool, only_trainable: bool) -> dict[str, object]:
    """Two epochs of thirty batches; the main branch was trained for forty before."""
    model = SideBranch(pretrained())
    model.main.requires_grad_(False)
    parameters = [p for p in model.parameters() if p.requires_grad or not only_trainable]
    optimizer = Optimizers[kind](parameters)
    for _ in range(2):
        model.train()
        if keep_still:
            model.main.eval()
        for _ in range(30):
            optimizer.zero_grad()
            cross_entropy(model(torch.rand(5, 1, 32, 32)), torch.randint(5, (5,))).backward()
            optimizer.step()
    return {"epoch": 2, "state_dict": model.state_dict(), "optimizer": optimizer.state_dict()}


def fresh_side_branch_run(kind: str, *, only_trainable: bool) -> dict[str, object]:
    """The main branch comes from a file without counters: what is counted was counted in this run."""
    run = side_branch_run(kind, keep_still=False, only_trainable=only_trainable)
    for name in ("main.bn1", "main.bn2"):
        run["state_dict"][f"{name}.num_batches_tracked"] -= 40  # type: ignore[index]
    return run


def lightning(run: dict[str, object]) -> dict[str, object]:
    return {
        "epoch": 2,
        "global_step": 60,
        "pytorch-lightning_version": "2.5.0",
        "state_dict": run["state_dict"],
        "optimizer_states": [run["optimizer"]],
        "lr_schedulers": [],
    }


def plainly(run: dict[str, object]) -> dict[str, object]:
    return run


@pytest.mark.parametrize("only_trainable", [False, True], ids=["all-parameters", "filtered"])
@pytest.mark.parametrize("layout", [plainly, lightning], ids=["plain", "lightning"])
@pytest.mark.parametrize("kind", Optimizers)
def test_the_frozen_main_branch_is_found_in_a_training_checkpoint(
    kind: str, layout: Callable[[dict[str, object]], dict[str, object]], only_trainable: bool, tmp_path: Path
) -> None:
    run = fresh_side_branch_run(kind, only_trainable=only_trainable)
    torch.save(layout(run), tmp_path / "last.ckpt")
    findings = check(tmp_path / "last.ckpt")
    assert spoken(findings, "frozen-bn-counted-batches") == {"main.bn1", "main.bn2"}, loud(findings)


@pytest.mark.parametrize("only_trainable", [False, True], ids=["all-parameters", "filtered"])
@pytest.mark.parametrize("kind", Optimizers)
def test_the_right_twin_is_no_warning(kind: str, only_trainable: bool, tmp_path: Path) -> None:
    torch.save(side_branch_run(kind, keep_still=True, only_trainable=only_trainable), tmp_path / "last.ckpt")
    assert not loud(check(tmp_path / "last.ckpt"))


def test_track_running_stats_as_a_freeze_is_found(tmp_path: Path) -> None:
    """Appended to the note: it stops the update, and normalises by the batch also at inference."""
    net = pretrained()
    net.bn2.track_running_stats = False
    torch.save(net.eval(), tmp_path / "net.pth")
    findings = check(tmp_path / "net.pth")
    assert spoken(findings, "track-running-stats-as-freeze") == {"bn2"}, loud(findings)


# -- 3. the fine-tuning course -----------------------------------------------------------------------


class Tuned(nn.Module):
    """A pretrained backbone and a new head, as the course names them."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = ResNet()
        self.head = nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 4))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.backbone(x))


def course(path: Path, *, frozen_epochs: int, unfrozen_epochs: int, with_counters: bool = False) -> Iterator[Path]:
    """Load, filter, update, load back; freeze; train; unfreeze; train. One checkpoint per phase."""
    from networks import batch

    pretrained_dict = trained(ResNet())[0].state_dict()
    if not with_counters:
        pretrained_dict = {k: v for k, v in pretrained_dict.items() if not k.endswith("num_batches_tracked")}
    torch.manual_seed(3)
    model = Tuned()
    own = model.state_dict()
    own.update({f"backbone.{k}": v for k, v in pretrained_dict.items() if f"backbone.{k}" in own})
    model.load_state_dict(own)

    ignored = list(map(id, model.head.parameters()))
    base = filter(lambda parameter: id(parameter) not in ignored, model.parameters())
    optimizer = torch.optim.SGD([{"params": base}, {"params": model.head.parameters(), "lr": 0.05}], 0.01, momentum=0.9)

    for phase, epochs in (("frozen", frozen_epochs), ("unfrozen", unfrozen_epochs)):
        for parameter in model.backbone.parameters():
            parameter.requires_grad = phase == "unfrozen"
        for _ in range(epochs):
            model.train()
            for _ in range(20):
                images, labels = batch()
                optimizer.zero_grad()
                cross_entropy(model(images), labels).backward()
                optimizer.step()
        written = path / f"{phase}.pth"
        torch.save({"epoch": epochs, "model": model.state_dict(), "optimizer": optimizer.state_dict()}, written)
        yield written


def test_the_freeze_phase_of_the_course_is_found(tmp_path: Path) -> None:
    """requires_grad = False over the backbone, train() every epoch: its statistics move all the same."""
    frozen, unfrozen = course(tmp_path, frozen_epochs=2, unfrozen_epochs=2)
    backbone = {f"backbone.{name}" for name in ("bn1", "layer1.0.bn1", "layer1.0.bn2", "layer2.0.bn1", "layer2.0.bn2")}
    backbone.add("backbone.layer2.0.downsample.1")
    assert spoken(check(frozen), "frozen-bn-counted-batches") == backbone
    assert not spoken(check(unfrozen), "frozen-bn-counted-batches", Severity.INFO)
    assert not loud(check(unfrozen))


# -- 4. 102 or 122 keys ------------------------------------------------------------------------------


def test_the_filter_idiom_loads_102_keys_and_saves_122(tmp_path: Path) -> None:
    official = trained(ResNet((2, 2, 2, 2), width=4), 40)[0].state_dict()
    old = {name: tensor for name, tensor in official.items() if not name.endswith("num_batches_tracked")}
    torch.save(old, tmp_path / "resnet18-5c106cde.pth", _use_new_zipfile_serialization=False)

    model = ResNet((2, 2, 2, 2), width=4)
    own = model.state_dict()
    loaded = torch.load(tmp_path / "resnet18-5c106cde.pth")
    own.update({k: v for k, v in loaded.items() if k in own})
    model.load_state_dict(own)
    torch.save(model.state_dict(), tmp_path / "again.pth")
    assert (len(loaded), len(torch.load(tmp_path / "again.pth"))) == (102, 122)

    before = check(tmp_path / "resnet18-5c106cde.pth")
    assert [(finding.rule, finding.gravity) for finding in before] == [("missing-num-batches-tracked", Severity.INFO)]
    after = check(tmp_path / "again.pth")
    assert not loud(after), "a counter of 0 beside real statistics is no fault: the file that was loaded had none"
    assert not [finding for finding in after if finding.rule == "missing-num-batches-tracked"]


# -- 5. the BN layer, looked at ----------------------------------------------------------------------


def test_the_numbers_of_one_layer_after_one_forward(tmp_path: Path) -> None:
    torch.manual_seed(0)
    layer = nn.BatchNorm2d(16)
    layer(torch.rand(100, 16, 28, 28))
    torch.save(layer.state_dict(), tmp_path / "layer.pth")
    torch.save(layer, tmp_path / "module.pth")
    with bnlint.open_checkpoint(str(tmp_path / "layer.pth")) as checkpoint:
        (seen,) = checkpoint.batchnorms
        assert seen.name == "" and seen.channels == 16
        assert seen.num_batches_tracked == 1
        assert seen.running_mean.mean == pytest.approx(0.05, abs=1e-3)
        assert seen.running_var.mean == pytest.approx(0.9083, abs=1e-3)
        assert list(seen.running_mean) == layer.running_mean.tolist()
        assert list(seen.running_var) == layer.running_var.tolist()
        assert seen.weight.all_equal(1.0) and seen.bias.all_equal(0.0)
    with bnlint.open_checkpoint(str(tmp_path / "module.pth")) as checkpoint:
        (module,) = checkpoint.modules.batchnorms
        assert (module.kind, module.training, module.eps, module.momentum) == ("BatchNorm2d", True, 1e-5, 0.1)
        assert (module.affine, module.track_running_stats) == (True, True)
        assert module.requires_grad == {"weight": True, "bias": True}
    assert not loud(check(tmp_path / "layer.pth")), "one dummy forward of a layer that was never trained"
