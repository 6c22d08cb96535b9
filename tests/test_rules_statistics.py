"""Rules about statistics: how loud, at which layer, on what evidence, and who keeps silent then."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import inf, isfinite, nan
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from bnlint.engine import Verdict, lint
from bnlint.finding import Finding, Severity
from bnlint.model.batchnorm import BatchNorm
from bnlint.model.checkpoint import Checkpoint, OptimizerState
from bnlint.model.examples import HEALTHY, Bytes, batchnorm, checkpoint, state_dict, tensor
from bnlint.model.module import BatchNormModule
from bnlint.model.raw_file import RawFile
from bnlint.model.state_dict import StateDict
from bnlint.model.tensor import Tensor
from bnlint.ruleset import builtin_rules
from bnlint.settings import RuleSetting, Settings
from bnlint.testing import findings_in

RULES = builtin_rules(("checkpoint",))
RESET = {"running_mean": [0.0] * 4, "running_var": [1.0] * 4}
UNTOUCHED = {"weight": [1.0] * 4, "bias": [0.0] * 4}
PLAIN = {"weight": None, "bias": None}  # affine=False

Given = Mapping[str, object]


def layer(name: str = "bn1", /, *changes: Given, **given: object) -> BatchNorm:
    """A healthy layer, but for these changes; the later wins."""
    merged: dict[str, object] = {}
    for change in (*changes, given):
        merged.update(change)
    return batchnorm(name, **merged)  # type: ignore[arg-type]


def judged(*state_dicts: StateDict, deep: bool = False, **rules: RuleSetting) -> Verdict:
    """What the rules for checkpoints say of a file, all together."""
    said = {name.replace("_", "-"): setting for name, setting in rules.items()}
    verdict = lint(RawFile("a.pth", checkpoint=checkpoint(*state_dicts)), RULES, Settings(said, deep=deep))
    assert not verdict.crashes, verdict.crashes
    return verdict


def short(findings: Sequence[Finding]) -> list[tuple[str, str, tuple[str, ...]]]:
    return [(finding.rule, str(finding.severity), finding.location.layers) for finding in findings]


def from_said(rule: str, subject: object, **options: object) -> list[Finding]:
    return findings_in(RULES.by_name[rule], subject, **options)


# -- one defect in healthy files of every kind -------------------------------------------------------

BLOCKS = ("stem.bn", "layer1.0.bn1", "layer1.0.bn2", "layer1.0.downsample.1", "head.bn")
KINDS: dict[str, Given] = {
    "usual": {},
    "no counter": {"num_batches_tracked": None},
    "counters 0": {"num_batches_tracked": 0},
    "affine=False": PLAIN,
    "affine=False, no counter": {**PLAIN, "num_batches_tracked": None},
    "affine=False, counters 0": {**PLAIN, "num_batches_tracked": 0},
    "bias frozen at 0": {"bias": [0.0] * 4},
    "weight 1, bias 0": UNTOUCHED,
    "weight 1, bias 0, no counter": {**UNTOUCHED, "num_batches_tracked": None},
    "weight without bias": {"bias": None},
    "float64": {"dtype": "float64"},
    "bfloat16": {"dtype": "bfloat16"},
    "one channel": {leaf: values[:1] for leaf, values in HEALTHY.items()},
    "one channel, affine=False": {"running_mean": [0.3], "running_var": [0.4], **PLAIN},
}


def value_in(leaf: str, value: float) -> Callable[[Given], Given]:
    """The first channel of a vector becomes `value`."""
    return lambda given: {leaf: [value, *list(given.get(leaf, HEALTHY[leaf]))[1:]]}  # type: ignore[call-overload]


def channels(given: Given) -> int:
    return len(given.get("running_var", HEALTHY["running_var"]))  # type: ignore[arg-type]


def reset(given: Given) -> Given:
    return {"running_mean": [0.0] * channels(given), "running_var": [1.0] * channels(given)}


def reset_though_counted(given: Given) -> Given:
    return {**reset(given), "num_batches_tracked": 10_000}


def reset_without_count(given: Given) -> Given:
    return {**reset(given), "num_batches_tracked": None if given.get("num_batches_tracked", 1) is None else 0}


def dead(given: Given) -> Given:
    return {"running_var": [0.0] * channels(given)}


DEFECTS: dict[str, tuple[Callable[[Given], Given], str, str]] = {
    "NaN in running_mean": (value_in("running_mean", nan), "nonfinite-running-stats", "error"),
    "inf in running_mean": (value_in("running_mean", inf), "nonfinite-running-stats", "error"),
    "NaN in running_var": (value_in("running_var", nan), "nonfinite-running-stats", "error"),
    "inf in running_var": (value_in("running_var", inf), "nonfinite-running-stats", "error"),
    "negative variance": (value_in("running_var", -0.5), "negative-running-var", "error"),
    "eps subtracted": (value_in("running_var", -9e-6), "negative-running-var", "error"),
    "reset though counted": (reset_though_counted, "default-stats-despite-batches", "error"),
    "reset without count": (reset_without_count, "default-running-stats", "warning"),
    "dead channel": (value_in("running_var", 0.0), "dead-channels", "info"),
    "decayed channel": (value_in("running_var", 5.605193857299268e-45), "dead-channels", "info"),
    "dead layer": (dead, "dead-channels", "info"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_healthy_files_of_every_kind_are_healthy(kind: str) -> None:
    verdict = judged(state_dict([layer(name, KINDS[kind]) for name in BLOCKS]))
    assert all(severity == "info" for _, severity, _ in short(verdict.findings)), short(verdict.findings)


@pytest.mark.parametrize("defect", DEFECTS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", BLOCKS)
def test_one_defect_is_found_at_its_layer_and_nothing_else_becomes_an_error(kind: str, defect: str, place: str) -> None:
    given = KINDS[kind]
    plant, rule, severity = DEFECTS[defect]
    damaged = [layer(name, given, plant(given) if name == place else {}) for name in BLOCKS]
    verdict = judged(state_dict(damaged))
    assert (rule, severity, (place,)) in short(verdict.findings), short(verdict.findings)
    errors = [finding for finding in short(verdict.findings) if finding[1] == "error"]
    assert errors == ([(rule, severity, (place,))] if severity == "error" else [])


@pytest.mark.parametrize("defect", DEFECTS)
@pytest.mark.parametrize("kind", KINDS)
def test_one_defect_in_a_file_of_a_single_layer(kind: str, defect: str) -> None:
    """Found as well; only a reset layer that has neither a count nor a bias that moved could as well be new."""
    given = KINDS[kind]
    plant, rule, severity = DEFECTS[defect]
    only = layer("", given, plant(given))
    if defect == "reset without count" and not only.trained:
        severity = "info"
    verdict = judged(state_dict([only]))
    assert (rule, severity, ("",)) in short(verdict.findings), short(verdict.findings)


# -- statistics that are reset -----------------------------------------------------------------------


def test_a_whole_file_of_reset_layers_is_one_finding() -> None:
    names = tuple(f"layer{number}.bn" for number in range(53))
    counted = state_dict([layer(name, RESET) for name in names])
    assert short(judged(counted).findings) == [("default-stats-despite-batches", "error", names)]
    uncounted = state_dict([layer(name, RESET, num_batches_tracked=0) for name in names])
    assert short(judged(uncounted).findings) == [("default-running-stats", "warning", names)]


def severities(rule: str, layers: StateDict) -> dict[str, str]:
    return {
        name: severity for said, severity, names in short(judged(layers).findings) if said == rule for name in names
    }


def test_folded_caffe_statistics_only_inform() -> None:
    """Every layer, or every layer of the backbone, without a single counter: mmdetection#1217."""
    backbone = [layer(f"backbone.{number}.bn", RESET, num_batches_tracked=None) for number in range(20)]
    head = [layer(f"head.{number}.bn", num_batches_tracked=None) for number in range(3)]
    for layers in (backbone, [*backbone, *head], [*head, *backbone]):
        said = severities("default-running-stats", state_dict(layers))
        assert said == {each.name: "info" for each in backbone}


def test_reset_layers_here_and_there_are_no_backbone() -> None:
    layers = [layer(f"{number}.bn", RESET if number % 2 else {}, num_batches_tracked=None) for number in range(40)]
    said = severities("default-running-stats", state_dict(layers))
    assert said == {f"{number}.bn": "warning" for number in range(1, 40, 2)}


def test_detectron2_identity_informs_once_and_is_never_an_error() -> None:
    identity = {"running_mean": [0.0] * 4, "running_var": [1 - 1e-5] * 4}
    for batches in (None, 0, 500):
        frozen = [layer(f"backbone.{number}.norm", identity, num_batches_tracked=batches) for number in range(3)]
        findings = judged(state_dict([*frozen, layer("head.norm")])).findings
        assert [each for each in short(findings) if each[0].startswith("default")] == [
            ("default-running-stats", "info", tuple(each.name for each in frozen))
        ]


def test_an_unused_branch_only_informs() -> None:
    branch = [layer(f"aux.{number}.bn", RESET, UNTOUCHED, num_batches_tracked=0) for number in range(2)]
    said = severities("default-running-stats", state_dict([layer("stem.bn"), layer("body.bn"), *branch]))
    assert said == {"aux.0.bn": "info", "aux.1.bn": "info"}
    alone = layer("aux.bn", RESET, UNTOUCHED, num_batches_tracked=0)
    assert severities("default-running-stats", state_dict([layer("stem.bn"), alone])) == {"aux.bn": "info"}


def test_a_layer_whose_bias_is_kept_at_0_is_no_unused_branch() -> None:
    """The neck of person re-identification: bias frozen, weight trained beyond what any torch draws."""
    neck = layer("neck", RESET, weight=[1.3, 0.9, 1.1, 0.8], bias=[0.0] * 4, num_batches_tracked=0)
    assert severities("default-running-stats", state_dict([layer("stem.bn"), neck])) == {"neck": "warning"}


def test_an_untrained_model_with_the_old_initialisation_of_gamma_only_informs() -> None:
    """PyTorch_teach/cnn.pkl: gamma in (.04, .97), beta 0, statistics 0 and 1."""
    drawn = {"weight": [0.04, 0.97, 0.31, 0.66], "bias": [0.0] * 4, "num_batches_tracked": None}
    findings = judged(state_dict([layer(f"bn{number}", RESET, drawn) for number in range(3)])).findings
    assert ("default-running-stats", "info", ("bn0", "bn1", "bn2")) in short(findings)
    assert not [finding for finding in findings if finding.gravity > Severity.INFO]


# -- who speaks when two could -----------------------------------------------------------------------

SPEAKS_ALONE: dict[str, tuple[BatchNorm, str]] = {
    "all NaN": (layer("bn", running_mean=[nan] * 4, running_var=[nan] * 4), "nonfinite-running-stats"),
    "NaN and negative": (layer("bn", running_var=[nan, -1.0, 1e11, 0.0]), "nonfinite-running-stats"),
    "NaN beside a fingerprint": (
        layer("bn", running_mean=[0.0, nan, 0.0, 0.0], running_var=[0.9**50, 0.9**50, 1.0, 1.0]),
        "nonfinite-running-stats",
    ),
    "float16 overflow": (layer("bn", running_var=[inf, 1.0, 1.0, 1.0], dtype="float16"), "half-precision-damage"),
    "float16 overflow and NaN": (
        layer("bn", running_var=[inf, nan, 1.0, 1.0], dtype="float16"),
        "nonfinite-running-stats",
    ),
    "float16 mean overflow": (
        layer("bn", running_mean=[inf, 1.0, 1.0, 1.0], dtype="float16"),
        "nonfinite-running-stats",
    ),
    "reset and counted": (layer("bn", RESET), "default-stats-despite-batches"),
}


@pytest.mark.parametrize("case", SPEAKS_ALONE)
def test_one_rule_speaks_for_all(case: str) -> None:
    damaged, rule = SPEAKS_ALONE[case]
    findings = judged(state_dict([layer("other.bn"), damaged])).findings
    assert [finding.rule for finding in findings if finding.location.layers == ("bn",)] == [rule]


@pytest.mark.parametrize("batches", [0, 7, None])
def test_a_stale_average_is_said_once_and_is_no_error(batches: int | None) -> None:
    live = state_dict([layer(name) for name in BLOCKS], key="state_dict")
    stale = state_dict([layer(name, RESET, num_batches_tracked=batches) for name in BLOCKS], key="ema", role="ema")
    findings = judged(live, stale).findings
    about = [finding for finding in findings if finding.location.state_dict == "ema" and finding.location.layers]
    assert ("stale-ema-stats", "warning", BLOCKS) in short(about)
    assert not [finding for finding in about if "default" in finding.rule]
    assert not [finding for finding in findings if finding.severity == Severity.ERROR]


def test_one_stale_layer_of_an_average_is_found_at_that_layer() -> None:
    live = state_dict([layer(f"module.{name}") for name in BLOCKS], key="state_dict")
    copies = [layer(name, RESET if name == "layer1.0.bn2" else {}) for name in BLOCKS]
    average = state_dict(copies, key="model_ema", role="ema")
    loud = [finding for finding in judged(live, average).findings if finding.gravity >= Severity.WARNING]
    assert short(loud) == [("stale-ema-stats", "warning", ("layer1.0.bn2",))]
    assert loud[0].related[0][0].layers == ("module.layer1.0.bn2",)


def test_a_layer_of_another_width_is_not_what_an_average_follows() -> None:
    narrow = {leaf: values[:2] for leaf, values in HEALTHY.items()}
    live = state_dict([layer("bn1", narrow)], key="state_dict")
    average = state_dict([layer("bn1", RESET, num_batches_tracked=0)], key="ema", role="ema")
    assert short(judged(live, average).findings)[-1:] == [("default-running-stats", "warning", ("bn1",))]


# -- graded findings ---------------------------------------------------------------------------------

GRADES: dict[str, tuple[str, object, str]] = {
    "a dead layer": ("dead-channels", layer(running_var=[0.0] * 4), "info"),
    "float16 overflow": ("half-precision-damage", layer(running_var=[inf] + [1.0] * 3, dtype="float16"), "warning"),
    "float16 zero": ("half-precision-damage", layer(running_var=[0.0] + [1.0] * 3, dtype="float16"), "info"),
    "over 65504": ("half-unsafe-variance", layer(running_var=[7e4] + [1.0] * 3), "info"),
    "over 1e10": ("half-unsafe-variance", layer(running_var=[2e10] + [1.0] * 3), "warning"),
    "gamma 0 in a channel": ("tiny-gamma", layer(weight=[0.0] + [1.0] * 3), "info"),
    "gamma 0 in a layer": ("tiny-gamma", layer(weight=[0.0] * 4), "warning"),
}


@pytest.mark.parametrize("case", GRADES)
def test_how_loud(case: str) -> None:
    rule, subject, severity = GRADES[case]
    assert [str(finding.severity) for finding in from_said(rule, subject)] == [severity]


def test_a_dead_layer_is_a_warning_where_that_is_wanted() -> None:
    whole, part = layer(running_var=[0.0] * 4), layer(running_var=[0.0, 0.0, 1.0, 1.0])
    assert [str(each.severity) for each in from_said("dead-channels", whole, warning_from=1.0)] == ["warning"]
    assert [str(each.severity) for each in from_said("dead-channels", part, warning_from=1.0)] == ["info"]
    assert from_said("dead-channels", part, fraction=0.75) == []
    assert len(from_said("dead-channels", part, fraction=0.5)) == 1


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_what_is_known_of_statistics_in_low_precision(dtype: str) -> None:
    beside = state_dict([layer(dtype=dtype)])
    checkpoint(beside, optimizers=[OptimizerState("optimizer", [[0]], {0: {"step": 3}})])
    (finding,) = from_said("low-precision-stats", beside)
    assert "beside an optimizer state" in finding.message and finding.severity == Severity.WARNING

    pickled = layer(dtype=dtype, module=BatchNormModule("bn1", training=True)).state_dict
    (finding,) = from_said("low-precision-stats", pickled)
    assert "of a model in training mode" in finding.message
    assert finding.certain == (dtype == "bfloat16")  # ultralytics casts a copy to float16 to save it


# -- what a finding says -----------------------------------------------------------------------------


def test_the_words_and_numbers_of_the_published_example() -> None:
    bad = layer("module.layer1.0.bn1", running_mean=[0.1, 0.2, 0.3, nan])
    (finding,) = from_said("nonfinite-running-stats", bad)
    assert finding.message == "running_mean is NaN in 1 of 4 channels (channel 3)"
    assert finding.location.tensors == ("module.layer1.0.bn1.running_mean",)
    assert dict(finding.evidence) == {"channels": 4, "nonfinite": 1, "first_channels": [3]}


def test_tensors_with_the_same_damage_share_a_sentence() -> None:
    bad = layer(running_mean=[nan] * 4, running_var=[nan] * 4, bias=[0.0, -inf, 0.0, 0.0])
    (finding,) = from_said("nonfinite-running-stats", bad)
    assert finding.message == (
        "bias is infinite in 1 of 4 channels (channel 1); running_mean and running_var are NaN in all 4 channels"
    )


def test_what_was_assumed_is_said() -> None:
    young = {"running_mean": [0.0] * 4, "running_var": [0.81, 0.9, 1.0, 1.1], "num_batches_tracked": 2}
    (finding,) = from_said("undertrained-stats", state_dict([layer("bn1", young), layer("bn2", young)]))
    assert finding.message == (
        "num_batches_tracked is 2 in 2 of 2 BatchNorm layers: 81% of running_mean and running_var are still the"
        " initial 0 and 1 (limit 5%, momentum 0.1 assumed), the lowest running_var is 0.81"
    )
    assert finding.certain
    (finding,) = from_said("undertrained-stats", state_dict([layer("bn1", young, PLAIN)]))
    (rounded,) = from_said("undertrained-stats", state_dict([layer("bn1", young, dtype="bfloat16")]))
    assert "the lowest running_var is 0.809" in rounded.message  # 0.81 in bfloat16
    assert finding.unknown == "whether the layers were trained, they have no bias"
    assert finding.severity == Severity.WARNING


def test_a_variance_above_what_is_left_of_the_first_one_does_not_show_the_momentum() -> None:
    """update_bn averages cumulatively: seven batches whose variances happen to be above 0.9 ** 7."""
    averaged = {"running_mean": [0.3] * 4, "running_var": [0.55, 0.9, 1.0, 1.1], "num_batches_tracked": 7}
    (finding,) = from_said("undertrained-stats", state_dict([layer("bn1", averaged)]))
    assert (finding.unknown, finding.severity) == ("whether momentum is 0.1", Severity.WARNING)
    assert "up to 48% of running_mean and running_var are still" in finding.message
    (finding,) = from_said("undertrained-stats", state_dict([layer("bn1", averaged, PLAIN)]))
    assert finding.unknown == "whether momentum is 0.1 and whether the layers were trained, they have no bias"


# -- torch as the oracle -----------------------------------------------------------------------------


def of_torch(values: Mapping[str, object], **given: object) -> StateDict:
    """The state dict that torch has, as the rules see it."""
    import torch

    groups: dict[str, dict[str, object]] = {}
    dtypes = {}
    for key, value in values.items():
        assert isinstance(value, torch.Tensor)
        prefix, _, leaf = key.rpartition(".")
        groups.setdefault(prefix, {})[leaf] = value.tolist()
        if leaf == "running_var":
            dtypes[prefix] = str(value.dtype).removeprefix("torch.")
    layers = [layer(prefix, PLAIN, group, dtype=dtypes[prefix]) for prefix, group in groups.items() if prefix in dtypes]
    return state_dict(layers, **given)  # type: ignore[arg-type]


def loud(*state_dicts: StateDict) -> set[tuple[str, str]]:
    return {(rule, severity) for rule, severity, _ in short(judged(*state_dicts).findings) if severity != "info"}


def trained_by_torch(batches: int, *, seed: int = 0, **options: object) -> object:
    """Two convolutions with BatchNorm after some steps of SGD on noise."""
    torch = pytest.importorskip("torch")
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(2, 6, 3),
        torch.nn.BatchNorm2d(6, **options),
        torch.nn.ReLU(),
        torch.nn.Conv2d(6, 4, 3),
        torch.nn.BatchNorm2d(4, **options),
    )
    optimizer = torch.optim.SGD(net.parameters(), lr=0.5)
    for _ in range(batches):
        optimizer.zero_grad()
        (net(torch.randn(4, 2, 8, 8) + 1) - 1).square().mean().backward()
        optimizer.step()
    return net


def test_a_training_of_torch_is_healthy() -> None:
    assert loud(of_torch(trained_by_torch(60).state_dict())) == set()  # type: ignore[attr-defined]


def test_momentum_0_of_torch() -> None:
    net = trained_by_torch(5, momentum=0.0)
    assert loud(of_torch(net.state_dict())) == {("default-stats-despite-batches", "error")}  # type: ignore[attr-defined]


def test_two_batches_of_torch() -> None:
    net = trained_by_torch(2)
    assert loud(of_torch(net.state_dict())) == {("undertrained-stats", "warning")}  # type: ignore[attr-defined]


def test_one_bad_batch_of_torch_stays_bad() -> None:
    torch = pytest.importorskip("torch")
    net = trained_by_torch(5)
    with torch.no_grad():
        net(torch.full((4, 2, 8, 8), inf))  # type: ignore[operator]
        for _ in range(30):
            net(torch.randn(4, 2, 8, 8))  # type: ignore[operator]
    values = net.state_dict()  # type: ignore[attr-defined]
    assert not values["1.running_mean"].isfinite().any()
    assert loud(of_torch(values)) == {("nonfinite-running-stats", "error")}


def test_an_average_over_parameters_of_torch() -> None:
    torch = pytest.importorskip("torch")
    net = trained_by_torch(40)
    average = trained_by_torch(0, seed=1)
    with torch.no_grad():
        for copy, live in zip(average.parameters(), net.parameters(), strict=True):  # type: ignore[attr-defined]
            copy.lerp_(live, 0.9)
    live = of_torch(net.state_dict(), key="state_dict")  # type: ignore[attr-defined]
    copied = average.state_dict()  # type: ignore[attr-defined]
    assert loud(live, of_torch(copied, key="ema", role="ema")) == {("stale-ema-stats", "warning")}
    assert loud(of_torch(copied)) == {("default-running-stats", "warning")}


@pytest.mark.parametrize(
    ("live", "copy"),
    [
        ("model", "ema.module"),
        ("model", "model_ema.module"),
        ("model", "ema_model.module"),
        ("module.encoder_q", "module.encoder_k"),
    ],
)
def test_an_average_in_the_same_state_dict_under_other_wrappers(live: str, copy: str) -> None:
    torch = pytest.importorskip("torch")
    net, average = trained_by_torch(40), trained_by_torch(0, seed=1)
    with torch.no_grad():
        for behind, ahead in zip(average.parameters(), net.parameters(), strict=True):  # type: ignore[attr-defined]
            behind.copy_(ahead)
        average[1].num_batches_tracked.fill_(40)  # type: ignore[index]
    both = {f"{live}.{key}": value for key, value in net.state_dict().items()}  # type: ignore[attr-defined]
    both |= {f"{copy}.{key}": value for key, value in average.state_dict().items()}  # type: ignore[attr-defined]
    assert loud(of_torch(both)) == {("stale-ema-stats", "warning")}


def test_a_cast_to_half_of_torch() -> None:
    torch = pytest.importorskip("torch")
    net = trained_by_torch(40)
    net[1].running_var[2] = 1e6  # type: ignore[index]
    assert loud(of_torch(net.half().state_dict())) == {("half-precision-damage", "warning")}  # type: ignore[attr-defined]
    channel = torch.nn.functional.batch_norm(
        torch.randn(3, 1), torch.zeros(1), torch.full((1,), inf), bias=torch.full((1,), 0.25)
    )
    assert channel.unique().tolist() == [0.25]  # what the rule's explanation says


def test_update_bn_of_torch_is_not_undertrained() -> None:
    """It counts anew and averages over all batches: a small counter beside exact statistics."""
    torch = pytest.importorskip("torch")
    averaged = torch.optim.swa_utils.AveragedModel(trained_by_torch(40))
    torch.optim.swa_utils.update_bn([torch.randn(4, 2, 8, 8) for _ in range(3)], averaged)
    values = averaged.state_dict()
    assert values["module.1.num_batches_tracked"] == 3
    counter = {"n_averaged": tensor(1, "int64")}
    layers = of_torch({key: value for key, value in values.items() if key != "n_averaged"})
    with_counter = state_dict(layers.batchnorms, other=counter)
    assert loud(with_counter) == set()


@given(
    momentum=st.sampled_from([0.2, 0.1, 0.05, 0.03, 0.01]),
    batches=st.integers(20, 260),
    constant=st.sets(st.integers(0, 7), min_size=2, max_size=6),
)
@settings(max_examples=12, deadline=None)
def test_channels_that_were_constant_for_torch_are_dead(momentum: float, batches: int, constant: set[int]) -> None:
    torch = pytest.importorskip("torch")
    torch.manual_seed(batches)
    bn = torch.nn.BatchNorm1d(8, momentum=momentum, affine=False)
    scale = torch.rand(8) + 0.5
    scale[list(constant)] = 0.0
    with torch.no_grad():
        for _ in range(batches):
            bn(torch.randn(16, 8) * scale + 3.0)
    (only,) = of_torch({f"bn.{key}": value for key, value in bn.state_dict().items()}).batchnorms
    assert only.dead_channels() == sorted(constant)


# -- nothing of this may crash -----------------------------------------------------------------------

NUMBERS = st.one_of(
    st.sampled_from([0.0, -0.0, 1.0, 1 - 1e-5, nan, inf, -inf, 65504.0, 1e38, -1e-6, 1e-12, 5.6e-45]),
    st.floats(-3.0, 3.0, width=16),
)
VECTORS = st.one_of(st.none(), st.lists(NUMBERS, max_size=5))
COUNTERS = st.one_of(
    st.none(),
    st.integers(0, 50),
    st.sampled_from([tensor(2.5), tensor(nan), tensor(-3, "int64"), tensor([1, 2], "int64"), tensor(2**62, "int64")]),
)


@st.composite
def any_layer(draw: st.DrawFn, name: str) -> BatchNorm:
    dtype = draw(st.sampled_from(["float32", "float64", "bfloat16", "float16"]))
    vectors = {leaf: draw(VECTORS) for leaf in HEALTHY}
    if dtype == "float16":
        vectors = {
            leaf: None if each is None else [into_half(value) for value in each] for leaf, each in vectors.items()
        }
    if vectors["running_mean"] is None and vectors["running_var"] is None:
        vectors["running_var"] = [1.0]
    return layer(name, vectors, num_batches_tracked=draw(COUNTERS), dtype=dtype)


def into_half(value: float) -> float:
    return value if not isfinite(value) or abs(value) <= 65504 else inf


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_no_layers_make_a_rule_crash(data: st.DataObject) -> None:
    layers = [data.draw(any_layer(f"{name}.bn")) for name in data.draw(st.lists(st.sampled_from("abc"), unique=True))]
    copies = [data.draw(any_layer(f"{name}.bn")) for name in data.draw(st.lists(st.sampled_from("abc"), unique=True))]
    optimizers = [OptimizerState("optimizer", [[0]], {0: {"step": 3}})]
    file = Checkpoint(
        "torch-zip",
        [state_dict(layers, key="model"), state_dict(copies, key="ema", role="ema")],
        optimizers=optimizers,
    )
    on = {rule.name: RuleSetting(Severity.INFO) for rule in RULES}
    verdict = lint(RawFile("a.pth", checkpoint=file), RULES, Settings(on, deep=True))
    assert not verdict.crashes, verdict.crashes
    damaged = {
        (each.state_dict.key, each.name)
        for each in (*layers, *copies)
        if not each.finite and not (each.running_var is not None and each.running_var.dtype == "float16")
    }
    said = {
        (finding.location.state_dict, *finding.location.layers)
        for finding in verdict.findings
        if finding.rule == "nonfinite-running-stats"
    }
    assert damaged <= said


# -- tensors of any stride, for the rules that read all weights --------------------------------------


@given(
    shape=st.lists(st.integers(1, 7), min_size=1, max_size=4),
    order=st.randoms(use_true_random=False),
    every=st.integers(1, 3),
    limit=st.integers(4, 64),
)
@settings(max_examples=60, deadline=None)
def test_pieces_of_a_tensor_hold_each_element_once(shape: list[int], order: object, every: int, limit: int) -> None:
    torch = pytest.importorskip("torch")
    dimensions = list(range(len(shape)))
    order.shuffle(dimensions)  # type: ignore[attr-defined]
    whole = torch.arange(float(torch.Size(shape).numel())).reshape(shape)
    view = whole.permute(dimensions)[..., ::every]
    handle = Tensor(
        "float32", tuple(view.shape), Bytes(whole.numpy().tobytes()), stride=view.stride(), offset=view.storage_offset()
    )
    pieces = list(handle.chunks(limit))
    assert sorted(value for piece in pieces for value in piece) == sorted(view.flatten().tolist())
    assert max(map(len, pieces)) <= max(1, limit // 4)


def test_pieces_of_a_tensor_whose_rows_overlap() -> None:
    torch = pytest.importorskip("torch")
    whole = torch.arange(16.0)
    handle = Tensor("float32", (4, 4), Bytes(whole.numpy().tobytes()), stride=(3, 2))
    pieces = [value for piece in handle.chunks(60) for value in piece]
    assert sorted(pieces) == sorted(whole.as_strided((4, 4), (3, 2)).flatten().tolist())


def test_a_tensor_of_absurd_size_in_a_small_storage_is_read_once() -> None:
    absurd = Tensor("float32", (10**9, 10**9), Bytes(bytes(40)), stride=(0, 0))
    assert sum(map(len, absurd.chunks(16))) == 1


# -- presets -----------------------------------------------------------------------------------------

PRESETS = sorted((Path(__file__).parent.parent / "bnlint" / "presets").glob("*.yaml"))


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_a_preset_names_deviations_only(path: Path) -> None:
    every = builtin_rules()
    for name, said in yaml.safe_load(path.read_text(encoding="utf-8")).get("rules", {}).items():
        rule = every.by_name[name]
        setting = said if isinstance(said, dict) else {"severity": "off" if said is False else said}
        assert setting.pop("severity", None) != str(rule.severity)
        for option, value in setting.items():
            assert rule.options[option] != value


def test_there_are_three_presets() -> None:
    assert [path.stem for path in PRESETS] == ["quiet", "recommended", "strict"]
