"""Keys of one state dict find those of another; torch loads what the plan says, and the truth is known.

The pairs are drawn anew in each run; a failure prints the seed, and BNLINT_SEED repeats it.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from random import Random, SystemRandom

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from architectures import VGG  # noqa: E402
from key_pairs import COUNTER, KeyPair, model_with  # noqa: E402
from networks import ResNet  # noqa: E402

from bnlint import Tensor  # noqa: E402
from bnlint.errors import UsageError  # noqa: E402
from bnlint.matching import (  # noqa: E402
    apply_renames,
    families,
    load_line,
    load_outcome,
    match,
    rename_map,
)
from bnlint.model.key_plan import KeyPlan  # noqa: E402
from bnlint.readers.opening import open_file  # noqa: E402

SEED = int(os.environ.get("BNLINT_SEED", SystemRandom().randrange(1 << 32)))
PAIRS = 60
RESNET = ResNet((2, 2, 2, 2)).state_dict()


def described(state_dict: Mapping[str, torch.Tensor]) -> dict[str, Tensor]:
    return {
        key: Tensor(str(value.dtype).removeprefix("torch."), tuple(value.shape), None)
        for key, value in state_dict.items()
    }


def shaped(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    return {key: Tensor("float32", shape, None) for key, shape in shapes.items()}


def matched(source: Mapping[str, torch.Tensor], target: Mapping[str, torch.Tensor]) -> KeyPlan:
    return match(described(source), described(target))


def renamed(state_dict: Mapping[str, torch.Tensor], *changes: tuple[str, str]) -> dict[str, torch.Tensor]:
    names = {key: key for key in state_dict}
    for pattern, replacement in changes:
        names = {key: re.sub(pattern, replacement, name) for key, name in names.items()}
    return {names[key]: value for key, value in state_dict.items()}


def applied(plan: KeyPlan, source: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {plan.renames[key]: value for key, value in source.items() if key in plan.renames}


def raises(model: torch.nn.Module, state_dict: Mapping[str, torch.Tensor], *, strict: bool) -> bool:
    try:
        model.load_state_dict(state_dict, strict=strict)
    except RuntimeError:
        return True
    return False


# -- pairs whose truth is known ---------------------------------------------------------------------


@pytest.fixture(params=range(PAIRS), ids=lambda number: f"{SEED}-{number}")
def pair(request: pytest.FixtureRequest) -> KeyPair:
    made = KeyPair(Random(f"{SEED} {request.param}"))
    print(f"BNLINT_SEED={SEED} {request.param}: {made.architecture}, {', '.join(made.changes)}")  # noqa: T201
    return made


def test_a_plan_is_the_truth(pair: KeyPair) -> None:
    plan = matched(pair.source, pair.target)
    assert {key: other for key, other in plan.renames.items() if pair.truth.get(key) != other} == {}, "wrong places"
    assert pair.expected().items() <= plan.renames.items(), "places not found"
    assert all(pair.truth.get(key) == other for key, other in plan.reshaped)


def test_a_plan_loads_with_strict_wherever_that_is_possible(pair: KeyPair) -> None:
    plan = matched(pair.source, pair.target)
    ready = applied(plan, pair.source)
    model = model_with(pair.target)
    left_out = model.load_state_dict(ready, strict=False)
    assert left_out.unexpected_keys == []
    unfilled = {*plan.missing, *(other for _, other in plan.reshaped)}
    assert {key for key in left_out.missing_keys if not key.endswith(COUNTER)} == unfilled
    if not plan.missing and not plan.reshaped:
        model.load_state_dict(ready, strict=True)
    loaded = model.state_dict()
    assert all(torch.equal(loaded[plan.renames[key]], pair.source[key]) for key in plan.renames)


def test_every_key_is_told_of_once(pair: KeyPair) -> None:
    plan = matched(pair.source, pair.target)
    reshaped = dict(plan.reshaped)
    assert sorted([*plan.renames, *reshaped, *plan.unexpected, *plan.unexpected_counters]) == sorted(pair.source)
    places = [*plan.renames.values(), *reshaped.values(), *plan.missing, *plan.missing_counters]
    assert sorted(places) == sorted(pair.target)
    assert all(key.endswith(COUNTER) for key in (*plan.missing_counters, *plan.unexpected_counters))
    assert not any(key.endswith(COUNTER) for key in (*plan.missing, *plan.unexpected))


def test_the_rename_map_leads_to_the_same_plan(pair: KeyPair) -> None:
    plan = matched(pair.source, pair.target)
    names = apply_renames(pair.source, rename_map(plan))
    assert len(set(names.values())) == len(pair.source)
    assert {key: names[key] for key in plan.renames} == plan.renames
    assert {key: names[key] for key, _ in plan.reshaped} == dict(plan.reshaped)
    again = matched({names[key]: value for key, value in pair.source.items()}, pair.target)
    assert {other: other for other in plan.renames.values()}.items() <= again.renames.items()
    assert "width" in pair.changes or len(again.renames) == len(plan.renames)
    assert pair.renamed or rename_map(again) == {}


def test_the_line_does_what_the_plan_says(pair: KeyPair) -> None:
    plan = matched(pair.source, pair.target)
    scope = {
        "state_dict": dict(pair.source),
        "model": type("Model", (), {"load_state_dict": lambda self, given: None})(),
    }
    exec(load_line(plan), scope)
    assert list(scope["state_dict"]) == list(apply_renames(pair.source, rename_map(plan)).values())


def test_what_load_state_dict_would_do(pair: KeyPair) -> None:
    plan = matched(pair.source, pair.target)
    outcome = load_outcome(plan, described(pair.source), described(pair.target))
    assert outcome.strict_raises == raises(model_with(pair.target), pair.source, strict=True)
    assert outcome.nonstrict_raises == raises(model_with(pair.target), pair.source, strict=False)
    model = model_with(pair.target)
    filtered = {**model.state_dict(), **{key: value for key, value in pair.source.items() if key in pair.target}}
    assert outcome.filter_raises == raises(model, filtered, strict=True)
    assert (outcome.keys, outcome.planned) == (len(pair.target), len(plan.renames))
    assert outcome.loaded == sum(
        key in pair.target and value.shape == pair.target[key].shape for key, value in pair.source.items()
    )
    names = apply_renames(pair.source, rename_map(plan))
    ready = {names[key]: value for key, value in pair.source.items()}
    assert outcome.plan_raises == raises(model_with(pair.target), ready, strict=True)


# -- how a plan explains itself ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "target", "line"),
    [
        (RESNET, RESNET, "model.load_state_dict(state_dict)"),
        (
            renamed(RESNET, ("^", "module.")),
            RESNET,
            'state_dict = {key.removeprefix("module."): value for key, value in state_dict.items()}',
        ),
        (
            RESNET,
            renamed(RESNET, ("^", "backbone.body.")),
            'state_dict = {"backbone.body." + key: value for key, value in state_dict.items()}',
        ),
        (
            renamed(RESNET, (r"^(layer\d\.\d)", r"\1._fsdp_wrapped_module")),
            RESNET,
            "import re\n\n"
            r'state_dict = {re.sub(r"(?<=\.)_fsdp_wrapped_module\.", "", key): '
            "value for key, value in state_dict.items()}",
        ),
        (
            RESNET,
            renamed(RESNET, ("^layer", "stage")),
            "import re\n\n"
            r'state_dict = {re.sub(r"^layer([0-9]+)\.", r"stage\1.", key): value for key, value in state_dict.items()}',
        ),
    ],
    ids=["equal", "DataParallel", "backbone", "FSDP", "blocks"],
)  # fmt: skip
def test_the_line_of_code(source: Mapping[str, torch.Tensor], target: Mapping[str, torch.Tensor], line: str) -> None:
    assert load_line(matched(source, target)) == line


def test_backbone_and_head_are_wrapped_differently() -> None:
    target = renamed(RESNET, ("^(?!fc)", "backbone."), ("^fc", "head.fc"))
    plan = matched(renamed(RESNET, ("^", "module.")), target)
    assert [(change.strip, change.add, change.keys) for change in plan.prefixes] == [
        ("module.", "backbone.", 120),
        ("module.", "head.", 2),
    ]
    assert not plan.missing
    assert not plan.unexpected


def test_a_wrapper_in_the_middle_is_told_apart() -> None:
    plan = matched(renamed(RESNET, (r"^(layer\d)", r"\1.module")), RESNET)
    assert plan.dropped == ["module"]
    assert (plan.prefixes, plan.moved) == ([], {})
    assert len(plan.renames) == 122


def test_case_4_counters_are_counted_apart() -> None:
    official = {key: value for key, value in RESNET.items() if not key.endswith(COUNTER)}
    plan = matched(official, RESNET)
    assert (len(official), len(RESNET)) == (102, 122)
    assert (len(plan.renames), plan.missing, len(plan.missing_counters)) == (102, [], 20)
    outcome = load_outcome(plan, described(official), described(RESNET))
    assert not outcome.strict_raises
    versions = RESNET._metadata
    assert load_outcome(plan, described(official), described(RESNET), metadata=versions).strict_raises


@pytest.mark.parametrize("version", [None, 1, 2])
def test_missing_counters_raise_as_in_torch(version: int | None) -> None:
    state_dict = ResNet().state_dict()
    for key in [key for key in state_dict if key.endswith(COUNTER)]:
        del state_dict[key]
    state_dict._metadata = {name: {"version": version} for name in state_dict._metadata} if version else None
    if version is None:
        del state_dict._metadata
    target = ResNet().state_dict()
    metadata = getattr(state_dict, "_metadata", None)
    outcome = load_outcome(matched(state_dict, target), described(state_dict), described(target), metadata=metadata)
    assert outcome.strict_raises == raises(ResNet(), state_dict, strict=True)


def test_a_filter_that_keeps_nothing_is_silent() -> None:
    source = renamed(RESNET, ("^", "module."))
    outcome = load_outcome(matched(source, RESNET), described(source), described(RESNET))
    assert outcome.silent
    assert (outcome.loaded, outcome.keys, outcome.planned) == (0, 122, 122)
    assert (outcome.strict_raises, outcome.nonstrict_raises, outcome.plan_raises) == (True, False, False)


def test_between_equals_nothing_is_guessed() -> None:
    target = {**renamed(RESNET, ("^", "student.")), **renamed(RESNET, ("^", "teacher."))}
    plan = matched(RESNET, target)
    assert plan.renames == {}
    assert [(change.strip, change.add) for change in plan.undecided] == [("", "student."), ("", "teacher.")]
    both = matched({**renamed(RESNET, ("^", "ema.")), **renamed(RESNET, ("^", "model."))}, target)
    assert both.renames == {}
    assert len(both.undecided) == 4


def test_two_equal_layers_without_a_name_in_common_are_not_guessed() -> None:
    layers = {"a.weight": (8, 8)}
    assert match(shaped(layers), shaped({"x.weight": (8, 8), "y.weight": (8, 8)})).renames == {}
    in_order = match(shaped({**layers, "b.weight": (8, 8)}), shaped({"x.weight": (8, 8), "y.weight": (8, 8)}))
    assert in_order.renames == {"a.weight": "x.weight", "b.weight": "y.weight"}


def test_norms_of_equal_width_are_no_evidence() -> None:
    bn = {f"{leaf}": (16,) for leaf in ("weight", "bias", "running_mean", "running_var")}
    source = {"layer4.conv.weight": (16, 8, 3, 3), **{f"layer4.bn.{leaf}": shape for leaf, shape in bn.items()}}
    target = {"decoder.up.weight": (8, 4, 2, 2), **{f"decoder.norm.{leaf}": shape for leaf, shape in bn.items()}}
    assert match(shaped(source), shaped(target)).renames == {}


def test_siblings_that_moved_up_are_found_by_their_order() -> None:
    plain, normed = VGG(batch_norm=False).state_dict(), VGG().state_dict()
    plan = matched(plain, normed)
    assert len(plan.renames) == len(plain)
    convolutions = [key.rpartition(".")[0] for key, value in normed.items() if value.dim() == 4]
    assert [plan.renames[key] for key, value in plain.items() if value.dim() == 4] == [
        f"{name}.weight" for name in convolutions
    ]
    back = matched(normed, plain)
    assert {other: key for key, other in back.renames.items()} == plan.renames
    assert apply_renames(normed, rename_map(back)).items() >= back.renames.items()


def test_a_ring_of_names() -> None:
    plan = KeyPlan({"a.weight": "b.weight", "b.weight": "c.weight", "c.weight": "a.weight"})
    assert apply_renames(plan.renames, rename_map(plan)) == plan.renames


def test_left_over_keys_are_one_line_per_family() -> None:
    blocks = [f"blocks.{k}.{name}.weight" for k in range(6) for name in ("attn", "mlp")]
    assert families(["fc.weight", "fc.bias"]) == [("fc", 2)]
    assert families(blocks[6:], among=blocks) == [("blocks.{3..5}", 6)]
    assert families([key for key in blocks if "attn" in key], among=blocks) == [("blocks.{0..5}.attn", 6)]
    assert families(["logit_scale"]) == [("logit_scale", 1)]
    assert families([]) == []
    resnet = list(RESNET)
    left = [key for key in resnet if key.startswith(("layer4", "fc"))]
    assert families(left, among=resnet) == [("layer4", 30), ("fc", 2)]


# -- real files -------------------------------------------------------------------------------------

CORPUS = os.environ.get("BNLINT_CORPUS")
# Pairs that share a network: (loaded, loaded into), how many keys are matched, and the prefix put on.
REAL_PAIRS = {
    "a backbone and the detector on it": (
        "dog-qiuqiu__FastestDet__shufflenetv2.pth",
        "dog-qiuqiu__FastestDet__weight_AP05_0.253207_280-epoch.pth",
        330, "backbone.",
    ),
    "an encoder and the network around it": (
        "sacmehta__ESPNet__espnet_p_2_q_3.pth", "sacmehta__ESPNet__espnet_p_2_q_8.pth", 99, "encoder.",
    ),
    "a shallow network and a deep one": (
        "akamaster__pytorch_resnet_cifar10__resnet20-12fca82f.th",
        "akamaster__pytorch_resnet_cifar10__resnet56-4bfd9763.th",
        97, None,
    ),
    "one network, the head renamed": (
        "IntelLabs__distiller__checkpoint_trained_dense.pth.tar",
        "akamaster__pytorch_resnet_cifar10__resnet20-12fca82f.th",
        97, None,
    ),
    "two containers": ("tracel-ai__burn__mnist.pt", "tracel-ai__burn__mnist.safetensors", 20, None),
    "a block of another kind": (
        "Linzaer__Ultra-Light-Fast-Generic-Face-Detector-1MB__version-RFB-320.pth",
        "Linzaer__Ultra-Light-Fast-Generic-Face-Detector-1MB__version-slim-320.pth",
        172, None,
    ),
}  # fmt: skip


@pytest.mark.skipif(CORPUS is None, reason="BNLINT_CORPUS is not set")
@pytest.mark.parametrize("name", REAL_PAIRS)
def test_real_files_that_share_a_network(name: str) -> None:
    *files, keys, prefix = REAL_PAIRS[name]
    sides = []
    for file in files:
        checkpoint = open_file(os.path.join(str(CORPUS), str(file))).checkpoint
        assert checkpoint is not None
        sides.append(checkpoint.state_dicts[0].tensors)
        checkpoint.close()
    plan = match(*sides)
    assert len(plan.renames) == keys
    assert [change.add for change in plan.prefixes] == ([prefix] if prefix else [])


# -- rename maps of users ---------------------------------------------------------------------------


def test_patterns_are_applied_in_their_order() -> None:
    assert apply_renames(["module.layer1.weight"], {r"^module\.": "", r"^layer(\d)": r"stage\1"}) == {
        "module.layer1.weight": "stage1.weight"
    }


@pytest.mark.parametrize(
    ("renames", "said"),
    [
        ({"(": ""}, "'('"),
        ({"a": r"\1"}, "'a'"),
        ({"a": r"\g<x>"}, "'a'"),
        ({r"\..*": ""}, "both 'a.weight' and 'a.bias' would become 'a'"),
    ],
)
def test_a_map_that_cannot_be_applied_is_one_clear_error(renames: dict[str, str], said: str) -> None:
    with pytest.raises(UsageError, match=re.escape(said)):
        apply_renames(["a.weight", "a.bias"], renames)


# -- any names --------------------------------------------------------------------------------------

NAME_PARTS = st.sampled_from(
    ["module", "model", "backbone", "layer1", "layer2", "0", "1", "10", "conv", "bn", "weight", "bias", COUNTER]
) | st.text(max_size=3)
KEYS = st.lists(NAME_PARTS, min_size=1, max_size=5).map(".".join)
SIDES = st.dictionaries(KEYS, st.sampled_from([(), (1,), (2,), (4,), (4, 2), (2, 2, 1)]), max_size=24)


@given(SIDES, SIDES)
@settings(max_examples=200, deadline=None)
def test_any_plan_is_injective_keeps_shapes_and_tells_of_every_key(
    source: dict[str, tuple[int, ...]], target: dict[str, tuple[int, ...]]
) -> None:
    plan = match(shaped(source), shaped(target))
    assert len(set(plan.renames.values())) == len(plan.renames)
    for key, other in plan.renames.items():
        scalar = source[key] == (1,) and target[other] == () and key.endswith(COUNTER)
        scalar = scalar or (source[key] == () and target[other] == (1,) and other.endswith(COUNTER))
        assert source[key] == target[other] or scalar
    reshaped = dict(plan.reshaped)
    assert sorted([*plan.renames, *reshaped, *plan.unexpected, *plan.unexpected_counters]) == sorted(source)
    places = [*plan.renames.values(), *reshaped.values(), *plan.missing, *plan.missing_counters]
    assert sorted(places) == sorted(target)


@given(SIDES, SIDES)
@settings(max_examples=200, deadline=None)
def test_any_plan_is_written_as_a_map_and_as_code(
    source: dict[str, tuple[int, ...]], target: dict[str, tuple[int, ...]]
) -> None:
    plan = match(shaped(source), shaped(target))
    names = apply_renames(source, rename_map(plan))
    places = {**plan.renames, **dict(plan.reshaped)}
    assert {key: names[key] for key in places} == places
    assert not {names[key] for key in source if key not in places} & set(target)
    scope = {"state_dict": dict(source), "model": type("Model", (), {"load_state_dict": lambda self, given: None})()}
    exec(load_line(plan), scope)
    assert list(scope["state_dict"]) == list(names.values())


@given(SIDES)
@settings(max_examples=100, deadline=None)
def test_equal_sides_change_no_name(side: dict[str, tuple[int, ...]]) -> None:
    plan = match(shaped(side), shaped(side))
    assert plan.renames == {key: key for key in side}
    assert rename_map(plan) == {}


@given(st.lists(KEYS, unique=True), st.lists(KEYS, unique=True))
def test_families_count_every_key(left: list[str], others: list[str]) -> None:
    assert sum(count for _, count in families(left, among=[*left, *others])) == len(left)
    assert sum(count for _, count in families(left)) == len(left)


# -- cost -------------------------------------------------------------------------------------------


def deep_network(blocks: int) -> dict[str, tuple[int, ...]]:
    """A network of 12 keys a block, in four stages of growing width."""
    shapes: dict[str, tuple[int, ...]] = {}
    for block in range(blocks):
        width = 64 << (block * 4 // blocks)
        for number in (1, 2):
            shapes[f"layer{block * 4 // blocks}.{block}.conv{number}.weight"] = (width, width, 3, 3)
            for leaf in ("weight", "bias", "running_mean", "running_var"):
                shapes[f"layer{block * 4 // blocks}.{block}.bn{number}.{leaf}"] = (width,)
            shapes[f"layer{block * 4 // blocks}.{block}.bn{number}.{COUNTER}"] = ()
    return shapes


def seconds(blocks: int) -> float:
    source = shaped(deep_network(blocks))
    target = {"net." + key.replace("layer", "stage").replace("bn", "norm"): each for key, each in source.items()}
    start = time.perf_counter()
    plan = match(source, target)
    took = time.perf_counter() - start
    assert len(plan.renames) == len(source)
    return took


def test_the_cost_grows_with_the_keys() -> None:
    small, large = min(seconds(208) for _ in range(2)), seconds(833)
    print(f"2 496 keys {small:.2f} s, 9 996 keys {large:.2f} s")  # noqa: T201
    assert large < 12 * small + 0.2, "four times the keys, at most about four times the time"
