"""Counters, lengths and what an optimizer proves: real torch trains, saves and loads; bnlint has to agree with it."""

import itertools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bnlint import check
from bnlint.engine import lint
from bnlint.finding import Finding, Severity
from bnlint.model.optimizer_mapping import only_assignment
from bnlint.readers.opening import open_file
from bnlint.ruleset import builtin_rules
from bnlint.settings import Settings
from bnlint.testing import findings_in

torch = pytest.importorskip("torch")
nn = torch.nn
torch.set_num_threads(1)  # these nets are small

RULES = builtin_rules(["checkpoint", "module"]).by_name
STEPS = 20
OPTIMIZERS: dict[str, Callable[..., Any]] = {
    "adam": lambda parameters: torch.optim.Adam(parameters, lr=1e-3),
    "adamw": lambda parameters: torch.optim.AdamW(parameters, lr=1e-3),
    "sgd-momentum": lambda parameters: torch.optim.SGD(parameters, lr=1e-3, momentum=0.9),
    "rmsprop": lambda parameters: torch.optim.RMSprop(parameters, lr=1e-3),
    "adagrad": lambda parameters: torch.optim.Adagrad(parameters, lr=1e-3),
}
LAYOUTS = ("plain", "lightning")


def small_net() -> Any:
    """Two frozen blocks will be `0.`, `1.` and `3.`, `4.`; the third and the head are trained."""
    torch.manual_seed(0)
    blocks = [[nn.Conv2d(i, o, 3), nn.BatchNorm2d(o), nn.ReLU()] for i, o in [(3, 4), (4, 6), (6, 8)]]
    return nn.Sequential(*itertools.chain(*blocks), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))


FROZEN = ["1", "4"]


def freeze(net: Any) -> None:
    for parameter in net[:5].parameters():
        parameter.requires_grad_(False)


def train(net: Any, optimizer: Any, steps: int = STEPS, *, batches: int = 1, frozen_in_eval: bool = False) -> Any:
    net.train()
    if frozen_in_eval:
        for module in net[:5]:
            module.eval()
    for _ in range(steps):
        for _ in range(batches):
            net(torch.randn(4, 3, 12, 12)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    return optimizer


def save(path: str, net: Any, *optimizers: Any, layout: str = "plain") -> str:
    state_dict = net.state_dict()
    if layout == "plain":
        file = {"epoch": 1, "state_dict": state_dict}
        file |= {f"optimizer{i or ''}": each.state_dict() for i, each in enumerate(optimizers)}
    else:
        lightning = type(state_dict)((f"model.{key}", value) for key, value in state_dict.items())
        states = [each.state_dict() for each in optimizers]
        file = {"epoch": 1, "global_step": STEPS, "state_dict": lightning, "optimizer_states": states}
    torch.save(file, path)
    return path


def found(rule: str, path: str) -> list[Finding]:
    """What one rule says of a file that torch wrote."""
    file = open_file(path)
    assert file.problem is None and file.checkpoint is not None, file.problem
    with file.checkpoint as checkpoint:
        return findings_in(RULES[rule], checkpoint)


def layers(findings: list[Finding]) -> list[str]:
    return [layer.removeprefix("model.") for finding in findings for layer in finding.location.layers]


@pytest.fixture
def path(tmp_path: Any) -> str:
    return os.path.join(tmp_path, "last.ckpt")


# -- frozen-bn-counted-batches ------------------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_frozen_layers_left_in_train_mode_are_found(path: str, kind: str, layout: str) -> None:
    net = small_net()
    freeze(net)
    optimizer = train(net, OPTIMIZERS[kind](net.parameters()))
    findings = found("frozen-bn-counted-batches", save(path, net, optimizer, layout=layout))
    assert layers(findings) == FROZEN
    assert {finding.severity for finding in findings} == {Severity.WARNING}
    assert {finding.evidence["num_batches_tracked"] for finding in findings} == {STEPS}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_frozen_layers_in_eval_mode_are_fine(path: str, kind: str, layout: str) -> None:
    net = small_net()
    freeze(net)
    optimizer = train(net, OPTIMIZERS[kind](net.parameters()), frozen_in_eval=True)
    assert not found("frozen-bn-counted-batches", save(path, net, optimizer, layout=layout))


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_nothing_is_frozen(path: str, kind: str) -> None:
    net = small_net()
    optimizer = train(net, OPTIMIZERS[kind](net.parameters()))
    assert not found("frozen-bn-counted-batches", save(path, net, optimizer))


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_an_optimizer_that_was_given_the_trained_parameters_only(path: str, kind: str) -> None:
    net = small_net()
    freeze(net)
    optimizer = OPTIMIZERS[kind](parameter for parameter in net.parameters() if parameter.requires_grad)
    findings = found("frozen-bn-counted-batches", save(path, net, train(net, optimizer)))
    assert layers(findings) == FROZEN
    assert {finding.severity for finding in findings} == {Severity.WARNING}


def test_parameter_names_in_the_file_are_believed(path: str) -> None:
    net = small_net()
    freeze(net)
    trained = [(f"module.{name}", each) for name, each in reversed([*net.named_parameters()]) if each.requires_grad]
    optimizer = train(net, torch.optim.Adam(trained))
    assert "param_names" in optimizer.state_dict()["param_groups"][0]
    assert layers(found("frozen-bn-counted-batches", save(path, net, optimizer))) == FROZEN


def test_groups_in_another_order_than_the_model(path: str) -> None:
    net = small_net()
    freeze(net)
    groups = [{"params": net[11].parameters()}, {"params": net[6:8].parameters(), "lr": 1e-4}]
    assert layers(found("frozen-bn-counted-batches", save(path, net, train(net, torch.optim.Adam(groups))))) == FROZEN


def test_several_optimizers_train_one_model_together(path: str) -> None:
    net = small_net()
    freeze(net)
    head, body = torch.optim.Adam(net[11].parameters()), torch.optim.Adam(net[6:8].parameters())

    class Both:
        def step(self) -> None:
            head.step()
            body.step()

        def zero_grad(self) -> None:
            net.zero_grad()

    train(net, Both())
    assert layers(found("frozen-bn-counted-batches", save(path, net, head, body, layout="lightning"))) == FROZEN


def test_plain_sgd_keeps_no_state_and_proves_nothing(path: str) -> None:
    net = small_net()
    freeze(net)
    optimizer = train(net, torch.optim.SGD(net.parameters(), lr=1e-3))
    assert not found("frozen-bn-counted-batches", save(path, net, optimizer))


def test_an_optimizer_rebuilt_midway_proves_nothing(path: str) -> None:
    net = small_net()
    train(net, torch.optim.Adam(net.parameters()))
    freeze(net)
    optimizer = train(net, torch.optim.Adam(net.parameters()), steps=5, frozen_in_eval=True)
    assert not found("frozen-bn-counted-batches", save(path, net, optimizer))


def test_gradient_accumulation_proves_nothing(path: str) -> None:
    net = small_net()
    freeze(net)
    optimizer = train(net, torch.optim.Adam(net.parameters()), steps=5, batches=4)
    assert not found("frozen-bn-counted-batches", save(path, net, optimizer))


def test_a_pretrained_count_under_a_frozen_layer_proves_nothing(path: str) -> None:
    net = small_net()
    for module in net[:5]:
        if isinstance(module, nn.BatchNorm2d):
            module.num_batches_tracked.fill_(736_839)
    freeze(net)
    optimizer = train(net, torch.optim.Adam(net.parameters()), frozen_in_eval=True)
    assert not found("frozen-bn-counted-batches", save(path, net, optimizer))


def test_shapes_that_fit_in_two_ways_prove_nothing(path: str) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(*[module for _ in range(3) for module in (nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))], nn.Flatten())
    for parameter in net[:2].parameters():
        parameter.requires_grad_(False)
    optimizer = torch.optim.Adam(net[2:4].parameters())  # nobody can tell which of the three blocks it is
    assert not found("frozen-bn-counted-batches", save(path, net, train(net, optimizer)))


def test_a_count_that_stopped_halfway_is_possible(path: str) -> None:
    net = small_net()
    freeze(net)
    optimizer = train(net, torch.optim.Adam(net.parameters()), steps=12)
    train(net, optimizer, steps=8, frozen_in_eval=True)
    findings = found("frozen-bn-counted-batches", save(path, net, optimizer))
    assert layers(findings) == FROZEN
    assert {(finding.severity, finding.certain) for finding in findings} == {(Severity.INFO, False)}


def pretrained_net(count: int) -> Any:
    """The first two blocks are frozen; all of it counted before."""
    net = small_net()
    for layer in (net[1], net[4], net[7]):
        layer.num_batches_tracked.fill_(count)
    freeze(net)
    return net


@pytest.mark.parametrize("pretraining", [7, 500_000])
def test_counts_that_may_all_come_from_pretraining_are_possible(path: str, pretraining: int) -> None:
    net = pretrained_net(pretraining)
    optimizer = train(net, OPTIMIZERS["adam"](net.parameters()))
    findings = found("frozen-bn-counted-batches", save(path, net, optimizer))
    assert layers(findings) == FROZEN
    assert {(finding.severity, finding.certain) for finding in findings} == {(Severity.INFO, False)}


@pytest.mark.parametrize(
    ("kind", "layout"), [("adam", "plain"), ("sgd-momentum", "plain"), ("sgd-momentum", "lightning")]
)
def test_trained_layers_that_are_ahead_by_the_steps_show_that_the_frozen_ones_stood_still(
    path: str, kind: str, layout: str
) -> None:
    net = pretrained_net(500_000)
    optimizer = train(net, OPTIMIZERS[kind](net.parameters()), frozen_in_eval=True)
    assert net[7].num_batches_tracked == 500_020
    assert not found("frozen-bn-counted-batches", save(path, net, optimizer, layout=layout))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_sgd_with_all_of_batchnorm_in_eval_mode_is_possible_at_most(path: str, layout: str) -> None:
    net = pretrained_net(500_000)
    net.train = lambda mode=True: type(net).train(net, False)  # norm_eval
    optimizer = train(net, OPTIMIZERS["sgd-momentum"](net.parameters()))
    assert {int(net[i].num_batches_tracked) for i in (1, 4, 7)} == {500_000}
    findings = found("frozen-bn-counted-batches", save(path, net, optimizer, layout=layout))
    assert {(finding.severity, finding.certain) for finding in findings} == {(Severity.INFO, False)}


def test_several_batches_per_step_and_sgd_are_possible_where_the_file_counts_steps(path: str) -> None:
    net = small_net()
    freeze(net)
    optimizer = train(net, OPTIMIZERS["sgd-momentum"](net.parameters()), batches=4)
    (first, *_) = found("frozen-bn-counted-batches", save(path, net, optimizer, layout="lightning"))
    assert not first.certain


def test_two_models_with_an_optimizer_each(path: str) -> None:
    """A GAN: the generator's optimizer says nothing of the discriminator."""
    generator, discriminator = small_net(), nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.Flatten())
    freeze(generator)
    torch.save(
        {
            "netG": generator.state_dict(),
            "netD": discriminator.state_dict(),
            "optG": train(generator, torch.optim.Adam(generator.parameters())).state_dict(),
            "optD": train(discriminator, torch.optim.Adam(discriminator.parameters())).state_dict(),
        },
        path,
    )
    findings = found("frozen-bn-counted-batches", path)
    assert [(finding.location.state_dict, *finding.location.layers) for finding in findings] == [
        ("netG", "1"),
        ("netG", "4"),
    ]


def test_the_only_assignment_is_found_where_there_is_exactly_one() -> None:
    """Against trying every choice of places."""
    sizes = [(1,), (2,)]
    for length in range(5):
        for offered in itertools.product(sizes, repeat=length):
            for wanted in itertools.chain(*(itertools.product([*sizes, None], repeat=k) for k in range(4))):
                fitting = [
                    list(places)
                    for places in itertools.combinations(range(length), len(wanted))
                    if all(shape in (None, offered[place]) for shape, place in zip(wanted, places, strict=True))
                ]
                assert only_assignment(wanted, offered) == (fitting[0] if len(fitting) == 1 else None)


# -- batches-per-step ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("batches", "ratio"), [(1, None), (2, 2.0), (4, 4.0)])
def test_batches_per_step_is_the_number_of_accumulated_batches(path: str, batches: int, ratio: float | None) -> None:
    net = small_net()
    optimizer = train(net, torch.optim.Adam(net.parameters()), batches=batches)
    findings = found("batches-per-step", save(path, net, optimizer, layout="lightning"))
    assert [finding.evidence["ratio"] for finding in findings] == ([ratio] if ratio else [])


def test_frozen_layers_do_not_hide_the_batches_per_step(path: str) -> None:
    net = small_net()
    freeze(net)
    optimizer = train(net, torch.optim.Adam(net.parameters()), batches=4, frozen_in_eval=True)
    assert [finding.evidence["ratio"] for finding in found("batches-per-step", save(path, net, optimizer))] == [4.0]


# -- counters: what torch says when it loads the file --------------------------------------------------


def without_counters(net: Any, *, in_place: bool, only: str = "") -> Any:
    state_dict = net.state_dict()
    gone = [key for key in state_dict if key.endswith("num_batches_tracked") and key.startswith(only)]
    if not in_place:
        return {key: value for key, value in state_dict.items() if key not in gone}
    for key in gone:
        del state_dict[key]
    return state_dict


@pytest.mark.parametrize("only", ["", "1."])
@pytest.mark.parametrize("in_place", [True, False])
def test_missing_counters_are_a_warning_where_a_strict_load_fails(path: str, in_place: bool, only: str) -> None:
    net = small_net()
    state_dict = without_counters(net, in_place=in_place, only=only)
    torch.save(state_dict, path)
    findings = found("missing-num-batches-tracked", path)
    assert len(findings) == 1
    assert findings[0].location.layers == (("1",) if only else ("1", "4", "7"))
    try:
        small_net().load_state_dict(torch.load(path))
    except RuntimeError as error:
        assert "num_batches_tracked" in str(error)
        assert findings[0].severity == Severity.WARNING
        assert "strict load fails" in findings[0].message
    else:
        assert not in_place
        assert findings[0].severity == (Severity.WARNING if only else Severity.INFO)
        assert ("loads fine" in findings[0].message) == (not only)


def test_the_fix_of_a_file_that_does_not_load_makes_it_load(path: str) -> None:
    torch.save(without_counters(small_net(), in_place=True, only="1."), path)
    (finding,) = found("missing-num-batches-tracked", path)
    assert finding.message.startswith("1 of 3 BatchNorm layers has no num_batches_tracked")
    assert finding.fix is not None and 'sd[f"{name}.num_batches_tracked"] = torch.tensor(0)' in finding.fix
    sd, model = torch.load(path), small_net()
    model.load_state_dict(dict(sd.items()))
    sd["1.num_batches_tracked"] = torch.tensor(0)
    model.load_state_dict(sd)


@pytest.mark.parametrize("legacy", [True, False])
def test_the_one_line_of_an_old_file_says_how_many_layers(path: str, legacy: bool) -> None:
    torch.save(without_counters(small_net(), in_place=False), path, _use_new_zipfile_serialization=not legacy)
    (finding,) = found("missing-num-batches-tracked", path)
    assert finding.message == (
        "3 of 3 BatchNorm layers have no num_batches_tracked: "
        + ("a file" if legacy else "as in files")
        + " older than torch 0.4.1, loads fine"
    )


def test_a_frozen_backbone_beside_counting_layers_is_no_warning(path: str) -> None:
    """FrozenBatchNorm2d (torchvision: version 1, detectron2: version 3) never has a counter."""
    for version in (1, 3):
        state_dict = small_net().state_dict()
        for layer in ("1", "4"):
            del state_dict[f"{layer}.num_batches_tracked"]
            state_dict._metadata[layer]["version"] = version
        torch.save(state_dict, path)
        (finding,) = found("missing-num-batches-tracked", path)
        assert finding.severity == Severity.INFO
        assert finding.location.layers == ("1", "4")


@pytest.mark.parametrize(
    ("counter", "severity"),
    [
        (torch.tensor(-3), Severity.WARNING),
        (torch.tensor(100.5), Severity.WARNING),
        (torch.tensor(float("nan")), Severity.WARNING),
        (torch.tensor(100_000).half(), Severity.WARNING),
        (torch.tensor([1, 2]), Severity.WARNING),
        (torch.tensor(100.0), Severity.INFO),
        (torch.tensor(100.0, dtype=torch.bfloat16), Severity.INFO),
        (torch.tensor([100]), Severity.INFO),
        (torch.tensor(100, dtype=torch.int32), Severity.INFO),
        (torch.tensor(100), None),
        (torch.tensor(0), None),
    ],
    ids=str,
)
def test_counters_are_judged_by_what_loading_makes_of_them(path: str, counter: Any, severity: Severity | None) -> None:
    state_dict = small_net().state_dict()
    state_dict["4.num_batches_tracked"] = counter
    torch.save(state_dict, path)
    findings = found("invalid-num-batches-tracked", path)
    assert [(layers([finding]), finding.severity) for finding in findings] == ([(["4"], severity)] if severity else [])
    loaded = small_net()
    try:
        loaded.load_state_dict(state_dict)
    except RuntimeError:
        assert severity == Severity.WARNING
        return
    kept = counter.numel() == 1 and float(loaded[4].num_batches_tracked) == float(counter) and float(counter) >= 0
    assert kept == (severity != Severity.WARNING)


# -- vectors ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("leaf", ["weight", "bias", "running_mean", "running_var"])
def test_a_vector_of_another_length_is_an_error_and_torch_refuses_it(path: str, leaf: str) -> None:
    state_dict = small_net().state_dict()
    state_dict[f"4.{leaf}"] = state_dict[f"4.{leaf}"][:-1].clone()
    torch.save(state_dict, path)
    (finding,) = found("batchnorm-length-mismatch", path)
    assert (finding.severity, finding.location.layers, finding.location.tensors) == (
        Severity.ERROR,
        ("4",),
        (f"4.{leaf}",),
    )
    with pytest.raises(RuntimeError, match="size mismatch"):
        small_net().load_state_dict(state_dict, strict=False)


@pytest.mark.parametrize("leaf", ["running_mean", "running_var"])
def test_half_of_the_statistics_is_an_error(path: str, leaf: str) -> None:
    state_dict = small_net().state_dict()
    del state_dict[f"4.{leaf}"]
    torch.save(state_dict, path)
    (finding,) = found("incomplete-batchnorm", path)
    assert (finding.severity, finding.location.layers) == (Severity.ERROR, ("4",))
    assert finding.evidence["missing"] == leaf


def test_a_counter_whose_statistics_are_gone_is_a_warning(path: str) -> None:
    state_dict = small_net().state_dict()
    del state_dict["4.running_mean"], state_dict["4.running_var"]
    torch.save(state_dict, path)
    (finding,) = found("unexpected-num-batches-tracked", path)
    assert (finding.severity, finding.location.layers) == (Severity.WARNING, ("4",))
    assert not found("incomplete-batchnorm", path)


def test_layers_without_weight_or_bias_are_whole(path: str) -> None:
    torch.save(nn.Sequential(nn.BatchNorm2d(4, affine=False), nn.BatchNorm2d(4, bias=False)).state_dict(), path)
    for rule in ("incomplete-batchnorm", "batchnorm-length-mismatch", "unexpected-num-batches-tracked"):
        assert not found(rule, path)


# -- prefixes and metadata ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrap", "prefix"),
    [
        (lambda net: nn.DataParallel(net), "module."),
        (lambda net: torch.compile(net), "_orig_mod."),
        (lambda net: nn.DataParallel(torch.compile(net)), "module._orig_mod."),
        (lambda net: torch.optim.swa_utils.AveragedModel(net), "module."),
        (lambda net: net, None),
    ],
    ids=["data-parallel", "compile", "both", "averaged", "bare"],
)
def test_the_prefix_of_torchs_own_wrappers(path: str, wrap: Callable[[Any], Any], prefix: str | None) -> None:
    torch.save(wrap(small_net()).state_dict(), path)
    findings = found("wrapper-prefix", path)
    assert [finding.evidence["prefix"] for finding in findings] == ([prefix] if prefix else [])


def test_the_flag_that_assign_leaves_behind(path: str) -> None:
    """pytorch#188166: torch itself writes it; where a later torch does not, there is nothing to find."""
    state_dict = small_net().state_dict()
    small_net().load_state_dict(state_dict, assign=True)
    torch.save(state_dict, path)
    left_behind = any("assign_to_params_buffers" in facts for facts in torch.load(path)._metadata.values())
    assert bool(found("metadata-anomaly", path)) == left_behind


# -- the official ResNet-18 ---------------------------------------------------------------------------


class BasicBlock(nn.Module):
    """As in torchvision, of which only the names and the order matter here."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        if inputs != outputs:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs))


class ResNet18(nn.Module):
    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 7, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        for number, inputs in enumerate((width, width, 2 * width, 4 * width)):
            outputs = width << number
            blocks = nn.Sequential(BasicBlock(inputs, outputs), BasicBlock(outputs, outputs))
            setattr(self, f"layer{number + 1}", blocks)
        self.fc = nn.Linear(8 * width, 10)


@pytest.fixture
def resnet18() -> Any:
    """A state dict that looks trained: 122 keys."""
    torch.manual_seed(0)
    model = ResNet18()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.3, 2.0)
            module.num_batches_tracked.fill_(736_839)
            nn.init.normal_(module.bias)
    assert len(model.state_dict()) == 122
    return model.state_dict()


def everything_said(path: str) -> list[tuple[str, Severity, str]]:
    file = open_file(path)
    verdict = lint(file, builtin_rules(), Settings())
    assert file.checkpoint is not None and not verdict.crashes
    file.checkpoint.close()
    return [(finding.rule, finding.gravity, finding.message) for finding in verdict.findings]


def test_the_official_resnet18_gets_one_info_line_and_nothing_else(path: str, resnet18: Any) -> None:
    official = {key: value for key, value in resnet18.items() if not key.endswith("num_batches_tracked")}
    assert len(official) == 102
    torch.save(official, path, _use_new_zipfile_serialization=False)
    told = "20 of 20 BatchNorm layers have no num_batches_tracked: a file older than torch 0.4.1, loads fine"
    assert everything_said(path) == [("missing-num-batches-tracked", Severity.INFO, told)]
    ResNet18().load_state_dict(torch.load(path))


@pytest.mark.parametrize("legacy", [True, False])
def test_the_counters_of_a_resnet18_deleted_in_place_are_a_warning(path: str, resnet18: Any, legacy: bool) -> None:
    for key in [key for key in resnet18 if key.endswith("num_batches_tracked")]:
        del resnet18[key]
    torch.save(resnet18, path, _use_new_zipfile_serialization=not legacy)
    ((rule, severity, message),) = everything_said(path)
    assert (rule, severity) == ("missing-num-batches-tracked", Severity.WARNING)
    assert message.startswith("20 of 20 BatchNorm layers have no num_batches_tracked")
    with pytest.raises(RuntimeError, match=r"Missing key\(s\)"):
        ResNet18().load_state_dict(torch.load(path))


@pytest.mark.parametrize("legacy", [True, False])
def test_a_whole_resnet18_is_passed_over(path: str, resnet18: Any, legacy: bool) -> None:
    torch.save(resnet18, path, _use_new_zipfile_serialization=not legacy)
    assert everything_said(path) == []


def test_a_lazy_layer_that_never_saw_data_is_no_damaged_one(tmp_path: Path) -> None:
    path = tmp_path / "lazy.pth"
    torch.save(torch.nn.LazyBatchNorm2d().state_dict(), path)
    assert not check(path, isolated=True).findings
