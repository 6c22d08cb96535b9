"""The pair table, row by row, by real training: what torch did between two checkpoints, and what bnlint says of it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from networks import ResNet, batch, train, trained  # noqa: E402
from test_cases import Net, pretrained, two_epochs  # noqa: E402
from torch import nn  # noqa: E402
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn  # noqa: E402

from bnlint.config import load_config  # noqa: E402
from bnlint.finding import Finding, Severity  # noqa: E402
from bnlint.readers.contract import write_contract  # noqa: E402
from bnlint.readers.opening import open_file  # noqa: E402
from bnlint.report import Report  # noqa: E402
from bnlint.run import run  # noqa: E402

LAYERS = {"bn1", "layer1.0.bn1", "layer1.0.bn2", "layer2.0.bn1", "layer2.0.bn2", "layer2.0.downsample.1"}
BATCHES = 12


def compared(after: Path, before: Path, *, shallow: bool = False) -> Report:
    report = run([str(after)], load_config(isolated=True, reference=str(before), shallow=shallow))
    assert not report.crashes and not report.trouble
    return report


def of_the_pair(report: Report) -> list[Finding]:
    return [finding for finding in report.findings if finding.reference is not None]


def layers_of(report: Report, rule: str, least: Severity = Severity.INFO) -> set[str]:
    return {
        layer
        for finding in of_the_pair(report)
        if finding.rule == rule and finding.gravity >= least
        for layer in finding.location.layers
    }


def spoken(report: Report) -> set[str]:
    return {finding.rule for finding in of_the_pair(report)}


def verdicts(report: Report) -> str:
    """What the row of the pair says became of the layers."""
    (pair,) = [file for file in report.files if file.kind == "pair"]
    return next(part for part in str(pair.note).split("; ") if "BatchNorm layer" in part).partition(": ")[2]


@pytest.fixture(scope="module")
def start() -> nn.Module:
    return trained(ResNet(), 40)[0]


class Stage:
    """A folder with the model's first checkpoint in it; `then` writes the second and compares."""

    def __init__(self, folder: Path, model: nn.Module) -> None:
        self.before = folder / "before.pth"
        self.after = folder / "after.pth"
        self.model = copy.deepcopy(model)
        torch.save(self.model.state_dict(), self.before)

    def then(self, state_dict: Mapping[str, object] | None = None, *, shallow: bool = False) -> Report:
        torch.save(self.model.state_dict() if state_dict is None else state_dict, self.after)
        return compared(self.after, self.before, shallow=shallow)


@pytest.fixture
def stage(tmp_path: Path, start: nn.Module) -> Stage:
    torch.manual_seed(7)
    return Stage(tmp_path, start)


def shifted(batches: int) -> list[torch.Tensor]:
    return [2.0 * batch()[0] + 0.7 for _ in range(batches)]


def run_forwards(model: nn.Module, batches: list[torch.Tensor]) -> None:
    with torch.no_grad():
        for images in batches:
            model(images)


def norms(model: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    return [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]


def sgd(model: nn.Module, rate: float = 0.02) -> torch.optim.Optimizer:
    return torch.optim.SGD([each for each in model.parameters() if each.requires_grad], lr=rate)


# -- the rows of the table ------------------------------------------------------------------------------


def test_the_same_file_twice_says_nothing(stage: Stage) -> None:
    report = stage.then()
    assert not of_the_pair(report)
    assert verdicts(report) == "6 untouched"


def test_normal_training_says_nothing(stage: Stage) -> None:
    train(stage.model, sgd(stage.model), BATCHES)
    report = stage.then()
    assert not of_the_pair(report)
    assert verdicts(report) == "6 trained"


def freeze(model: nn.Module) -> None:
    for name, parameter in model.named_parameters():
        parameter.requires_grad = name.startswith("fc.")


@pytest.mark.parametrize("shallow", [False, True], ids=["deep", "shallow"])
def test_freezing_by_requires_grad_is_found(stage: Stage, shallow: bool) -> None:
    """The trap: the backbone is frozen, train() every epoch, other data than before."""
    freeze(stage.model)
    optimizer = sgd(stage.model)
    stage.model.train()
    for images in shifted(BATCHES):
        optimizer.zero_grad()
        stage.model(images).square().mean().backward()
        optimizer.step()
    report = stage.then(shallow=shallow)
    assert layers_of(report, "frozen-bn-drifted") == LAYERS
    assert layers_of(report, "frozen-bn-drifted", Severity.ERROR), "data this far away moves a layer by over 0.3 sd"
    assert spoken(report) == {"frozen-bn-drifted"}
    assert verdicts(report) == "6 drifted"
    first = of_the_pair(report)[0]
    assert first.evidence["batches"] == BATCHES
    assert first.evidence["preceding_same"] is (None if shallow else True)


def test_the_drift_is_that_of_torch(stage: Stage) -> None:
    freeze(stage.model)
    before = copy.deepcopy(stage.model.state_dict())
    stage.model.train()
    run_forwards(stage.model, shifted(BATCHES))
    after = stage.model.state_dict()
    report = stage.then()
    said = {finding.location.layers[0]: finding.evidence for finding in of_the_pair(report)}
    assert said.keys() == LAYERS
    for name, evidence in said.items():
        mean, var = (before[f"{name}.{leaf}"].double() for leaf in ("running_mean", "running_var"))
        shift = (after[f"{name}.running_mean"].double() - mean).abs() / (var + 1e-5).sqrt()
        ratio = (after[f"{name}.running_var"].double() + 1e-5) / (var + 1e-5)
        assert evidence["mean_shift_sd"] == pytest.approx(shift.max().item(), rel=1e-9)
        assert evidence["lowest_variance_ratio"] == pytest.approx(ratio.min().item(), rel=1e-9)
        assert evidence["highest_variance_ratio"] == pytest.approx(ratio.max().item(), rel=1e-9)


def test_the_right_freeze_says_nothing(stage: Stage) -> None:
    freeze(stage.model)
    optimizer = sgd(stage.model)
    for _ in range(2):
        stage.model.train()
        for module in norms(stage.model):
            module.eval()
        for images in shifted(BATCHES):
            optimizer.zero_grad()
            stage.model(images).square().mean().backward()
            optimizer.step()
    report = stage.then()
    assert not of_the_pair(report)
    assert verdicts(report) == "6 untouched"


def test_batchnorm_alone_frozen_while_the_convolutions_train_is_fine(stage: Stage) -> None:
    """Statistics have to follow convolutions that move; without reading these nobody can tell."""
    for module in norms(stage.model):
        module.requires_grad_(False)
    train(stage.model, sgd(stage.model), BATCHES)
    report = stage.then()
    assert not of_the_pair(report)
    assert verdicts(report) == "6 trained"


def test_fine_tuning_in_eval_mode_is_a_note(stage: Stage) -> None:
    optimizer = sgd(stage.model)
    stage.model.eval()
    for images in shifted(BATCHES):
        optimizer.zero_grad()
        stage.model(images).square().mean().backward()
        optimizer.step()
    report = stage.then()
    assert layers_of(report, "stats-replaced") == LAYERS
    assert spoken(report) == {"stats-replaced"}
    assert not [finding for finding in of_the_pair(report) if finding.gravity > Severity.INFO]
    assert verdicts(report) == "6 eval"


def test_momentum_0_is_found(stage: Stage) -> None:
    for module in norms(stage.model):
        module.momentum = 0.0
    train(stage.model, sgd(stage.model), BATCHES)
    report = stage.then()
    assert layers_of(report, "stats-did-not-follow", Severity.ERROR) == LAYERS
    assert verdicts(report) == "6 stuck"


def test_statistics_in_bfloat16_stall(tmp_path: Path) -> None:
    """A model that trains in bfloat16, with a small momentum: an update is less than the last bit."""
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8)).bfloat16()
    nn.init.constant_(model[0].bias, 5.0)
    model.train()
    run_forwards(model, [torch.randn(64, 4).bfloat16() for _ in range(60)])
    model[1].momentum = 1e-4
    stage = Stage(tmp_path, model)
    optimizer = sgd(stage.model, 0.5)
    for _ in range(BATCHES):
        optimizer.zero_grad()
        nn.functional.mse_loss(stage.model(torch.randn(64, 4).bfloat16()), torch.ones(64, 8).bfloat16()).backward()
        optimizer.step()
    assert stage.model[1].running_var.dtype == torch.bfloat16
    report = stage.then()
    assert layers_of(report, "stats-did-not-follow", Severity.ERROR) == {"1"}


def test_layers_that_are_dead_are_not_expected_to_follow(tmp_path: Path) -> None:
    torch.manual_seed(1)
    model = nn.Sequential(nn.BatchNorm1d(8), nn.Linear(8, 4), nn.BatchNorm1d(4))
    model.train()
    zeros = torch.zeros(16, 8)
    run_forwards(model, [zeros] * 1000)
    stage = Stage(tmp_path, model)
    optimizer = sgd(stage.model)
    for _ in range(3):
        optimizer.zero_grad()
        stage.model(zeros).square().sum().backward()
        optimizer.step()
    assert "stats-did-not-follow" not in spoken(stage.then())


@pytest.mark.parametrize("forwards", [1, 5])
def test_a_few_forwards_in_train_mode_are_found(stage: Stage, forwards: int) -> None:
    """A summary, a warm-up, a shape probe: under no_grad, and nobody trained anything."""
    stage.model.train()
    run_forwards(stage.model, [torch.zeros(2, 3, 16, 16)] * forwards)
    report = stage.then()
    assert layers_of(report, "forward-pollution", Severity.WARNING) == LAYERS
    assert spoken(report) == {"forward-pollution"}, "one thing is said once"


def test_update_bn_counts_from_0_again(stage: Stage) -> None:
    update_bn(shifted(7), stage.model)
    report = stage.then()
    assert layers_of(report, "stats-replaced") == LAYERS
    assert spoken(report) == {"stats-replaced"}
    assert verdicts(report) == "6 rewound"


def test_a_recalibration_can_be_allowed(stage: Stage, tmp_path: Path) -> None:
    stage.model.train()
    run_forwards(stage.model, shifted(BATCHES))
    assert layers_of(stage.then(), "frozen-bn-drifted") == LAYERS
    configuration = tmp_path / "bnlint.yaml"
    configuration.write_text("rules: {frozen-bn-drifted: {allow-recalibrated: true}}\n")
    config = load_config(str(configuration), reference=str(stage.before))
    assert not of_the_pair(run([str(stage.after)], config))


def averaged(model: nn.Module, *, buffers: bool) -> nn.Module:
    """An average of the model over some training, as people write it: of parameters, or of buffers too."""
    average = copy.deepcopy(model)
    optimizer = sgd(model)
    for _ in range(BATCHES):
        train(model, optimizer, 1)
        with torch.no_grad():
            for mine, live in zip(average.parameters(), model.parameters(), strict=True):
                mine.lerp_(live, 0.1)
            for mine, live in zip(average.buffers(), model.buffers(), strict=True) if buffers else ():
                mine.copy_(live)
    return average


def test_an_ema_over_parameters_keeps_the_statistics_of_the_reference(stage: Stage) -> None:
    """In the file of the run, beside the live model: nobody has to ask for the average."""
    average = averaged(stage.model, buffers=False)
    report = stage.then({"model": stage.model.state_dict(), "ema": average.state_dict()})
    assert layers_of(report, "stale-ema-stats", Severity.WARNING) == LAYERS
    assert spoken(report) == {"stale-ema-stats"}
    alone = stage.then(average.state_dict())
    assert layers_of(alone, "stats-replaced") == LAYERS and verdicts(alone) == "6 eval"


def test_an_ema_with_buffers_is_fine(stage: Stage) -> None:
    average = averaged(stage.model, buffers=True)
    report = stage.then({"model": stage.model.state_dict(), "ema": average.state_dict()})
    assert not of_the_pair(report)
    assert not of_the_pair(stage.then(average.state_dict()))


@pytest.mark.parametrize("use_buffers", [False, True])
def test_torchs_averaged_model_is_fine(stage: Stage, use_buffers: bool) -> None:
    average = AveragedModel(stage.model, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=use_buffers)
    optimizer = sgd(stage.model)
    for _ in range(BATCHES):
        train(stage.model, optimizer, 1)
        average.update_parameters(stage.model)
    report = stage.then(average.state_dict())
    assert not [finding for finding in of_the_pair(report) if finding.gravity > Severity.INFO]


def test_stochastic_weight_averaging_with_update_bn_is_a_note(stage: Stage) -> None:
    average = AveragedModel(stage.model)
    optimizer = sgd(stage.model)
    for _ in range(3):
        train(stage.model, optimizer, 4)
        average.update_parameters(stage.model)
    update_bn([batch()[0] for _ in range(4)], average)
    report = stage.then(average.state_dict())
    assert {f"module.{name}" for name in LAYERS} == layers_of(report, "stats-replaced")
    assert not [finding for finding in of_the_pair(report) if finding.gravity > Severity.INFO]
    assert verdicts(report) == "6 rewound"


# -- wrapped models ------------------------------------------------------------------------------------------

WRAPPERS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "_orig_mod.": lambda model: torch.compile(model, backend="eager"),
    "module.": nn.DataParallel,
}


@pytest.mark.parametrize("prefix", WRAPPERS)
def test_a_frozen_network_is_found_behind_its_wrapper(stage: Stage, prefix: str) -> None:
    freeze(stage.model)
    stage.model.train()
    run_forwards(stage.model, shifted(BATCHES))
    wrapped = WRAPPERS[prefix](stage.model).state_dict()
    assert all(key.startswith(prefix) for key in wrapped), "torch names the wrapper otherwise by now"
    report = stage.then(wrapped)
    assert layers_of(report, "frozen-bn-drifted") == {prefix + name for name in LAYERS}
    (said,) = [finding for finding in of_the_pair(report) if finding.rule == "prefix-mismatch"]
    assert said.gravity == Severity.INFO and prefix in said.message
    assert "no-matching-keys" not in spoken(report)
    assert "missing-pretrained-keys" not in spoken(report)


def test_a_wrapped_reference_is_the_same(stage: Stage, tmp_path: Path) -> None:
    torch.save({"state_dict": nn.DataParallel(stage.model).state_dict()}, stage.before)
    stage.model.train()
    run_forwards(stage.model, shifted(BATCHES))
    assert layers_of(stage.then(), "frozen-bn-drifted") == LAYERS


# -- the network of the second case -----------------------------------------------------------------------------


@pytest.mark.parametrize("keep_still", [False, True], ids=["trap", "cure"])
def test_the_frozen_network_that_moves_is_found_from_its_checkpoints(tmp_path: Path, keep_still: bool) -> None:
    net = pretrained()
    torch.save(net.state_dict(), tmp_path / "before.pth")
    first, second = two_epochs(net, keep_still=keep_still)
    assert torch.equal(first, second) is keep_still
    torch.save(net.state_dict(), tmp_path / "after.pth")
    report = compared(tmp_path / "after.pth", tmp_path / "before.pth")
    if keep_still:
        assert not of_the_pair(report)
    else:
        assert layers_of(report, "forward-pollution", Severity.WARNING) == {"bn1", "bn2"}
        shallow = compared(tmp_path / "after.pth", tmp_path / "before.pth", shallow=True)
        assert layers_of(shallow, "frozen-bn-drifted") == {"bn1", "bn2"}


def test_the_frozen_network_over_whole_epochs(tmp_path: Path) -> None:
    net: Net = pretrained()
    torch.save(net.state_dict(), tmp_path / "before.pth")
    net.requires_grad_(False)
    net.train()
    for _ in range(2 * 20):
        net(torch.rand(5, 1, 32, 32) + 0.5)
    torch.save(net.state_dict(), tmp_path / "after.pth")
    report = compared(tmp_path / "after.pth", tmp_path / "before.pth")
    assert layers_of(report, "frozen-bn-drifted", Severity.WARNING) == {"bn1", "bn2"}
    assert layers_of(report, "frozen-bn-drifted", Severity.ERROR) == {"bn1"}, "the data moved by 1.7 sd, bn2 by less"
    assert report.exit_code == 1


# -- keys ---------------------------------------------------------------------------------------------------------


def test_102_keys_against_122_are_explained(tmp_path: Path) -> None:
    model = ResNet((2, 2, 2, 2), width=4)
    torch.save(model.state_dict(), tmp_path / "model.pth")
    old = {key: value for key, value in model.state_dict().items() if not key.endswith("num_batches_tracked")}
    torch.save(old, tmp_path / "official.pth")
    report = compared(tmp_path / "model.pth", tmp_path / "official.pth")
    (said,) = of_the_pair(report)
    assert said.rule == "missing-pretrained-keys" and said.gravity == Severity.INFO
    assert said.message.startswith("20 num_batches_tracked keys are not there (102 keys against 122)")
    model.load_state_dict(torch.load(tmp_path / "official.pth"))
    assert said.message.endswith("load_state_dict accepts that")


def test_a_changed_head_is_a_note(stage: Stage) -> None:
    stage.model.fc = nn.Linear(stage.model.fc.in_features, 9)
    report = stage.then()
    assert spoken(report) == {"head-shape-mismatch"}
    with pytest.raises(RuntimeError, match="size mismatch"):
        stage.model.load_state_dict(torch.load(stage.before), strict=False)
    lines = dict(finding.fix.split("\n    ") for finding in of_the_pair(report) if finding.fix).popitem()
    names: dict[str, object] = {"state_dict": torch.load(stage.before)}
    exec(lines[1], names)
    assert stage.model.load_state_dict(names["state_dict"], strict=False).missing_keys == ["fc.weight", "fc.bias"]


TABLE = {"frozen-bn-drifted", "forward-pollution", "stats-replaced", "stats-did-not-follow"}


def about_keys(report: Report) -> set[tuple[str, str]]:
    """The rules about keys that spoke, and how loud."""
    return {(each.rule, str(each.severity)) for each in of_the_pair(report) if each.rule not in TABLE}


class Backboned(nn.Module):
    """Another model around the network, as a detector is."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = ResNet()
        self.neck = nn.Sequential(nn.Conv2d(16, 8, 1), nn.BatchNorm2d(8))


def fix_of(report: Report, rule: str) -> str:
    """The program that a finding gives as its fix."""
    (finding,) = [finding for finding in of_the_pair(report) if finding.rule == rule]
    assert finding.fix is not None
    return "\n".join(line.removeprefix("    ") for line in finding.fix.splitlines()[1:])


def repaired(program: str, path: Path) -> dict[str, torch.Tensor]:
    names = {"state_dict": torch.load(path)}
    exec(program, names)
    return names["state_dict"]


def test_a_backbone_finds_its_place(stage: Stage) -> None:
    torch.manual_seed(3)
    model = Backboned()
    report = stage.then(model.state_dict())
    said = {
        (finding.rule, str(finding.severity)) for finding in of_the_pair(report) if finding.rule != "stats-replaced"
    }
    assert said == {("prefix-mismatch", "info"), ("missing-pretrained-keys", "warning")}
    loaded = model.load_state_dict(repaired(fix_of(report, "prefix-mismatch"), stage.before), strict=False)
    assert not loaded.unexpected_keys and all(key.startswith("neck.") for key in loaded.missing_keys)


def renamed(key: str) -> str:
    return key.replace("layer", "stage").replace("bn", "norm").replace("downsample", "shortcut")


def test_renamed_modules_load_after_the_fix(stage: Stage) -> None:
    before = {renamed(key): value for key, value in stage.model.state_dict().items()}
    torch.save(before, stage.before)
    report = stage.then()
    assert spoken(report) == {"no-matching-keys"}
    (said,) = of_the_pair(report)
    assert said.gravity == Severity.ERROR and said.message.startswith("none of 24 BatchNorm keys would be loaded")
    assert verdicts(report) == "6 untouched"
    stage.model.load_state_dict(repaired(fix_of(report, "no-matching-keys"), stage.before), strict=True)


def against_keys(stage: Stage, state_dict: Mapping[str, object]) -> Report:
    """A file against the key contract of the model."""
    keys = stage.before.with_name("model.keys.yaml")
    checkpoint = open_file(str(stage.before)).checkpoint
    assert checkpoint is not None
    with open(keys, "w", encoding="utf-8") as stream:
        write_contract(checkpoint.state_dicts[0], stream)
    torch.save(state_dict, stage.after)
    return compared(stage.after, keys)


def without(state_dict: Mapping[str, torch.Tensor], *words: str) -> dict[str, torch.Tensor]:
    return {key: value for key, value in state_dict.items() if not any(word in key for word in words)}


FILES: dict[str, tuple[Callable[[Mapping[str, torch.Tensor]], dict[str, torch.Tensor]], set[tuple[str, str]]]] = {
    "as it is": (dict, set()),
    "parameters only": (
        lambda file: without(file, "running_", "num_batches_tracked"),
        {("running-stats-not-loaded", "error"), ("missing-pretrained-keys", "info")},
    ),
    "half a layer": (
        lambda file: without(file, "layer1.0.bn1.weight", "layer1.0.bn1.running_mean"),
        {("split-batchnorm", "error")},
    ),
    "no head": (lambda file: without(file, "fc."), {("missing-pretrained-keys", "info")}),
    "half a network": (lambda file: without(file, "layer2."), {("missing-pretrained-keys", "warning")}),
    "wrapped": (lambda file: {f"module.{key}": value for key, value in file.items()}, {("prefix-mismatch", "error")}),
    "another width": (lambda file: dict(ResNet(width=4).state_dict()), {("shape-mismatch", "error")}),
    "more layers": (lambda file: dict(ResNet((1, 1, 1)).state_dict()), {("unexpected-pretrained-keys", "warning"),
                                                                       ("head-shape-mismatch", "info")}),
    "gray images": (
        lambda file: {**file, "conv1.weight": file["conv1.weight"][:, :1].clone()}, {("shape-mismatch", "info")}
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", FILES)
def test_a_file_against_the_keys_of_a_model(stage: Stage, kind: str) -> None:
    """What is said of each file, and that torch does with it what the row of the pair says."""
    make, expected = FILES[kind]
    file = make(stage.model.state_dict())
    report = against_keys(stage, file)
    assert about_keys(report) == expected
    (note,) = [str(each.note) for each in report.files if each.kind == "pair"]
    assert ("load_state_dict raises" in note) is raises(stage.model, file, strict=True)
    assert ("with strict=False it raises" in note) is raises(stage.model, file, strict=False)


def raises(model: nn.Module, file: Mapping[str, torch.Tensor], *, strict: bool) -> bool:
    try:
        copy.deepcopy(model).load_state_dict(file, strict=strict)
    except RuntimeError:
        return True
    return False
