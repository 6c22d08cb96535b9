"""Every state dict of a file is found, the one a user loads first; torch writes the files, and says what is in them."""

import math
import pickle
from collections import OrderedDict, defaultdict
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.optim.swa_utils import AveragedModel

from bnlint import Checkpoint, RawFile, UnreadableFile, UsageError
from bnlint.model.examples import tensor
from bnlint.readers.assembling import assemble
from bnlint.readers.opening import open_file
from bnlint.readers.values import Instance, Loaded, NumpyArray, Opaque, OrderedMapping


class Block(nn.Module):
    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3)
        self.bn = nn.BatchNorm2d(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.bn(self.conv(x))


def network(width: int = 4) -> Block:
    torch.manual_seed(0)
    made = Block(width)
    made(torch.randn(2, 3, 8, 8))
    return made


STATE = network().state_dict()
OTHER = network(6).state_dict()
EMA = {name: value / 2 if value.is_floating_point() else value for name, value in STATE.items()}
NAMES = list(STATE)


def opened(folder: Path, saved: object, **options: Any) -> RawFile:
    path = folder / "model.pth"
    torch.save(saved, path)
    return open_file(str(path), **options)


def read(folder: Path, saved: object, **options: Any) -> Checkpoint:
    file = opened(folder, saved, **options)
    assert file.problem is None, file.problem
    assert file.checkpoint is not None
    return file.checkpoint


def found(checkpoint: Checkpoint) -> list[tuple[str, str, list[str]]]:
    return [(each.key, each.role, [layer.name for layer in each.batchnorms]) for each in checkpoint.state_dicts]


# -- wrappers ------------------------------------------------------------------------------------------


def test_the_file_that_is_the_state_dict(tmp_path: Path) -> None:
    file = opened(tmp_path, STATE)
    assert file.checkpoint is not None
    assert found(file.checkpoint) == [("", "model", ["bn"])]
    assert file.notes == []
    assert list(file.checkpoint.tensors) == NAMES
    assert file.checkpoint.state_dicts[0].versions == {"": 1, "conv": 1, "bn": 2}


WRAPPERS = "state_dict model model_state_dict net network module ema state_dict_ema weights my_net".split()


@pytest.mark.parametrize("key", WRAPPERS)
def test_one_wrapper(tmp_path: Path, key: str) -> None:
    file = opened(tmp_path, {"epoch": 3, "arch": "resnet", "best": 0.5, key: STATE, "done": True, "nothing": None})
    assert file.checkpoint is not None
    assert found(file.checkpoint) == [(key, "model", ["bn"])], "a lone average is the model"
    assert list(file.checkpoint.tensors) == NAMES
    assert file.checkpoint.scalars == {"epoch": 3, "arch": "resnet", "best": 0.5, "done": True}
    assert file.notes == [f"read state dict '{key}'"]
    assert file.checkpoint.state_dicts[0].metadata is not None


def test_wrappers_in_wrappers(tmp_path: Path) -> None:
    checkpoint = read(tmp_path, {"checkpoint": {"models": [{"state_dict": STATE}, {"state_dict": OTHER}]}})
    assert found(checkpoint) == [
        ("checkpoint.models.0.state_dict", "model", ["bn"]),
        ("checkpoint.models.1.state_dict", "model", ["bn"]),
    ]


LAYOUTS: dict[str, tuple[dict[str, object], dict[str, str]]] = {
    "timm": (
        {"epoch": 1, "arch": "r", "state_dict_ema": EMA, "state_dict": STATE, "optimizer": {}, "args": None},
        {"state_dict": "model", "state_dict_ema": "ema"},
    ),
    "torchvision": (
        {"model": STATE, "optimizer": {}, "lr_scheduler": {"last_epoch": 3}, "epoch": 1, "model_ema": EMA},
        {"model": "model", "model_ema": "ema"},
    ),
    "mmcv": (
        {"meta": {"epoch": 1, "CLASSES": ("a",)}, "state_dict": STATE, "optimizer": {}},
        {"state_dict": "model"},
    ),
    "deepspeed": (
        {
            "module": STATE,
            "buffer_names": ["bn.running_mean"],
            "optimizer": None,
            "param_shapes": [OrderedDict(weight=torch.Size([3]))],
            "ds_version": "0.9",
        },
        {"module": "model"},
    ),
    "detectron2": (
        {"model": {name: value.numpy() for name, value in STATE.items()}, "__author__": "x", "heuristics": True},
        {"model": "model"},
    ),
    "gan": (
        {"generator": STATE, "discriminator": OTHER, "g_ema": EMA},
        {"generator": "model", "discriminator": "model", "g_ema": "ema"},
    ),
    "mean teacher": (
        {"teacher": EMA, "student": STATE},
        {"student": "model", "teacher": "ema"},
    ),
    "dino": (
        {
            "student": {f"module.{name}": value for name, value in STATE.items()},
            "teacher": EMA,
            "optimizer": {},
            "dino_loss": {"center": torch.zeros(3)},
        },
        {"student": "model", "teacher": "ema"},
    ),
    "byol": (
        {"online_network": STATE, "target_network": EMA},
        {"online_network": "model", "target_network": "ema"},
    ),
    "another network as target": (
        {"target": OTHER, "net": {"x.weight": torch.zeros(3)}},
        {"target": "model", "net": "model"},
    ),
    "weights only averaged": (
        {"model": STATE, "ema": {name: value for name, value in EMA.items() if "running" not in name}},
        {"model": "model", "ema": "ema"},
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_of_well_known_trainers(tmp_path: Path, layout: str) -> None:
    saved, expected = LAYOUTS[layout]
    checkpoint = read(tmp_path, saved)
    assert [(each.key, each.role) for each in checkpoint.state_dicts] == list(expected.items())


def test_lightning(tmp_path: Path) -> None:
    adam = {"state": {0: {"momentum_buffer": torch.zeros(3)}}, "param_groups": [{"params": [0]}]}
    checkpoint = read(
        tmp_path,
        {
            "epoch": 2,
            "global_step": 300,
            "pytorch-lightning_version": "2.1.0",
            "state_dict": OrderedDict((f"model.{name}", value) for name, value in STATE.items()),
            "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": {"total": {"ready": 3}}}},
            "callbacks": {"ModelCheckpoint{'monitor': None}": {"best_model_score": torch.tensor(math.inf)}},
            "optimizer_states": [adam, dict(adam)],
            "lr_schedulers": [{"last_epoch": 1, "_last_lr": [0.1]}],
            "hyper_parameters": {"lr": 0.1, "normalizer": {"mean": torch.zeros(3), "std": torch.ones(3)}},
        },
    )
    assert found(checkpoint) == [("state_dict", "model", ["model.bn"])]
    assert [each.key for each in checkpoint.optimizers] == ["optimizer_states.0", "optimizer_states.1"]
    assert checkpoint.scalars == {"epoch": 2, "global_step": 300, "pytorch-lightning_version": "2.1.0"}


def test_an_average_in_a_callback(tmp_path: Path) -> None:
    checkpoint = read(tmp_path, {"state_dict": STATE, "callbacks": {"EMACallback": {"decay": 0.99, "weights": EMA}}})
    assert found(checkpoint) == [("state_dict", "model", ["bn"]), ("callbacks.EMACallback.weights", "ema", ["bn"])]


def test_a_model_without_batchnorm_comes_after_one_that_has_it(tmp_path: Path) -> None:
    checkpoint = read(tmp_path, {"model": {"fc.weight": torch.zeros(2, 2)}, "backbone": STATE})
    assert [each.key for each in checkpoint.state_dicts] == ["backbone", "model"]


def test_one_object_under_two_names_is_read_once(tmp_path: Path) -> None:
    assert found(read(tmp_path, {"model": STATE, "ema": STATE})) == [("model", "model", ["bn"])]


# -- prefixes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "backbone.0."])
def test_prefixes_stay_in_the_names(tmp_path: Path, prefix: str) -> None:
    checkpoint = read(tmp_path, {"state_dict": {prefix + name: value for name, value in STATE.items()}})
    assert found(checkpoint) == [("state_dict", "model", [f"{prefix}bn"])]


def test_an_averaged_model_keeps_its_count(tmp_path: Path) -> None:
    averaged = AveragedModel(network())
    averaged.update_parameters(network())
    checkpoint = read(tmp_path, {"model": STATE, "swa_model": averaged.state_dict()})
    assert found(checkpoint) == [("model", "model", ["bn"]), ("swa_model", "ema", ["module.bn"])]
    assert checkpoint.state_dicts[1].scalars == {"n_averaged": 1}
    assert "n_averaged" in checkpoint.state_dicts[1].tensors


# -- trees of dicts ------------------------------------------------------------------------------------


def nested(state: dict[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for name, value in state.items():
        *path, leaf = name.split(".")
        place = tree
        for part in path:
            place = place.setdefault(part, {})
        place[leaf] = value
    return tree


def test_dicts_by_layer_are_one_state_dict_with_dotted_names(tmp_path: Path) -> None:
    deep = {f"backbone.stage1.{name}": value for name, value in STATE.items()} | {"head.weight": torch.zeros(2)}
    checkpoint = read(tmp_path, nested(deep))
    assert found(checkpoint) == [("", "model", ["backbone.stage1.bn"])]
    assert list(checkpoint.tensors) == list(deep)


@pytest.mark.parametrize("key", ["model", "state_dict"])
def test_dicts_by_layer_in_a_wrapper(tmp_path: Path, key: str) -> None:
    checkpoint = read(tmp_path, {"epoch": 1, key: nested(STATE), "normalizer": {"mean": torch.zeros(3)}})
    assert found(checkpoint) == [(key, "model", ["bn"])]
    assert list(checkpoint.tensors) == NAMES


def test_flat_state_dicts_side_by_side_are_several(tmp_path: Path) -> None:
    checkpoint = read(tmp_path, {"encoder": STATE, "decoder": OTHER})
    assert found(checkpoint) == [("encoder", "model", ["bn"]), ("decoder", "model", ["bn"])]


# -- what is no model ----------------------------------------------------------------------------------


BESIDE: dict[str, object] = {
    "lr_scheduler": {"base_lrs": [0.1], "weight": torch.zeros(2)},
    "scaler": {"scale": torch.tensor(65536.0), "_growth_tracker": 5},
    "normalizer": {"mean": torch.zeros(3), "std": torch.ones(3)},
    "compression_sched": {"masks_dict": {"module.conv.weight": torch.zeros(3)}},
    "callbacks": {"swa": {"weight": torch.zeros(3)}},
    "best_error": torch.tensor(0.3),
    "rng_state": torch.zeros(16, dtype=torch.uint8),
    "history": [torch.zeros(2), torch.zeros(2)],
    "criterion": {"weight": torch.ones(4)},
    "mean": numpy.zeros(3),
}


@pytest.mark.parametrize("key", BESIDE)
def test_what_stands_beside_a_model_is_no_model(tmp_path: Path, key: str) -> None:
    assert found(read(tmp_path, {key: BESIDE[key], "state_dict": STATE})) == [("state_dict", "model", ["bn"])]


@pytest.mark.parametrize("key", ["normalizer", "callbacks", "best_error", "history"])
def test_it_is_listed_where_nothing_else_is(tmp_path: Path, key: str) -> None:
    file = opened(tmp_path, {key: BESIDE[key], "epoch": 3})
    assert file.status == "nothing-to-check"
    assert file.checkpoint is not None
    assert len(file.checkpoint.state_dicts) == 1


def test_batchnorm_makes_a_state_dict_of_anything(tmp_path: Path) -> None:
    checkpoint = read(tmp_path, {"model": {"fc.weight": torch.zeros(2)}, "criterion": STATE})
    assert found(checkpoint) == [("criterion", "model", ["bn"]), ("model", "model", [])]


# -- choosing ------------------------------------------------------------------------------------------


def test_a_key_puts_its_state_dict_first(tmp_path: Path) -> None:
    saved = {"model": STATE, "ema": EMA, "normalizer": {"mean": torch.zeros(3)}}
    assert [each.key for each in read(tmp_path, saved).state_dicts] == ["model", "ema"]
    assert [each.key for each in read(tmp_path, saved, key="ema").state_dicts] == ["ema", "model"]
    assert read(tmp_path, saved, key="ema").state_dicts[0].role == "ema"
    assert [each.key for each in read(tmp_path, saved, key="normalizer").state_dicts] == ["normalizer", "model", "ema"]


def test_a_key_that_is_not_there_is_a_mistake_of_the_user(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no state dict at 'emma'; there is 'model', 'ema'$"):
        opened(tmp_path, {"model": STATE, "ema": EMA}, key="emma")
    with pytest.raises(UsageError, match="none at all"):
        opened(tmp_path, 7, key="model")


def test_several_state_dicts_are_noted_in_order(tmp_path: Path) -> None:
    assert opened(tmp_path, {"ema": EMA, "model": STATE}).notes == ["read state dict 'model' first, then 'ema'"]


# -- values of every kind --------------------------------------------------------------------------------


def test_plain_pickles_of_numpy_arrays(tmp_path: Path) -> None:
    path = tmp_path / "model.pkl"
    arrays = {name: value.numpy() for name, value in STATE.items()}
    for protocol in range(6):
        path.write_bytes(pickle.dumps({"model": arrays, "epoch": 4}, protocol=protocol))
        file = open_file(str(path))
        assert file.problem is None, (protocol, file.problem)
        assert file.format == "pickle"
        assert file.checkpoint is not None
        with file.checkpoint as checkpoint:
            assert found(checkpoint) == [("model", "model", ["bn"])], protocol
            mean = checkpoint.batchnorms[0].running_mean
            assert mean is not None
            assert mean.tolist() == STATE["bn.running_mean"].tolist()


def test_mappings_of_other_types(tmp_path: Path) -> None:
    holder = defaultdict(dict, {"model": OrderedDict(STATE)})
    assert found(read(tmp_path, holder)) == [("model", "model", ["bn"])]
    thing = Instance(None, ())
    thing.state = {"ema": OrderedMapping()}
    assert assemble(Loaded("pickle", thing), None, None, lambda: None).state_dicts == []


def graph(root: object) -> Checkpoint:
    return assemble(Loaded("pickle", root), None, None, lambda: None)


def layer(prefix: str = "bn.") -> dict[object, object]:
    return {f"{prefix}running_mean": tensor([0.5, 1.0]), f"{prefix}running_var": tensor([1.5, 2.0])}


@pytest.mark.parametrize(
    "root",
    [
        None, 7, "text", [], (), {}, set(), frozenset(), [[[]]], {"a": None}, {1: {2: {3: "x"}}},
        tensor([1.0]), Opaque("x"), Instance(None, None), OrderedMapping(), NumpyArray(lambda: None),
    ],
    ids=lambda root: type(root).__name__,
)  # fmt: skip
def test_files_without_tensors(root: object) -> None:
    checkpoint = graph(root)
    assert (checkpoint.state_dicts, checkpoint.optimizers, checkpoint.module_trees) == ([], [], [])


def test_numbers_and_text_are_names() -> None:
    (state_dict,) = graph({0: layer(""), "one": layer("")}).state_dicts
    assert [each.name for each in state_dict.batchnorms] == ["0", "one"]


def test_objects_filled_like_dicts() -> None:
    config = Instance(None, ())
    config.items = list(layer().items())
    config.items.append(([], "a list as a key"))  # type: ignore[arg-type]
    assert found(graph({"model": config})) == [("model", "model", ["bn"])]
    holder = Instance(None, ())
    holder.state = {"ema": layer(), "updates": 5}
    assert found(graph(holder)) == [("ema", "model", ["bn"])]


def test_circles_end() -> None:
    circle: dict[object, object] = {"model": layer()}
    circle["self"] = circle
    circle["list"] = [circle, circle]
    assert found(graph(circle)) == [("model", "model", ["bn"])]
    tree: dict[object, object] = {"bn": layer("")}
    tree["bn2"] = tree
    assert found(graph(tree)) == [("", "model", ["bn"])]


def test_what_lies_too_deep_is_passed_over() -> None:
    root: object = layer()
    for _ in range(5000):
        root = {"model": root}
    assert graph(root).state_dicts == []


def test_dicts_that_share_dicts_end() -> None:
    shared: dict[object, object] = {"weight": tensor([1.0])}
    for _ in range(60):
        shared = {"a": shared, "b": shared}
    with pytest.raises(UnreadableFile) as caught:
        graph(shared)
    assert caught.value.code == "limit"


def test_names_without_end_are_refused() -> None:
    root: dict[object, object] = {f"{i}": tensor([1.0]) for i in range(2000)}
    for _ in range(80):
        root = {"n" * 4000: root}
    with pytest.raises(UnreadableFile) as caught:
        graph(root)
    assert caught.value.code == "limit"


def test_metadata_that_is_none_is_no_metadata() -> None:
    for state in (None, 7, {"_metadata": 7}, {"_metadata": {3: {}, "bn": 7}}, {"other": {}}):
        mapping = OrderedMapping()
        mapping.update(layer())
        mapping.state = state
        assert graph(mapping).state_dicts[0].versions == {}


GRAPHS = st.recursive(
    st.none() | st.integers() | st.text(max_size=3) | st.builds(lambda: tensor([1.0])) | st.builds(lambda: tensor(3)),
    lambda inside: (
        st.lists(inside, max_size=4)
        | st.dictionaries(
            st.sampled_from("model ema bn weight running_mean running_var a.b optimizer state".split())
            | st.integers(0, 2),
            inside,
            max_size=5,
        )
        | st.fixed_dictionaries({"state": inside, "param_groups": st.lists(st.dictionaries(st.just("params"), inside))})
    ),
    max_leaves=25,
)


@given(GRAPHS)
def test_any_graph_is_read(root: object) -> None:
    checkpoint = graph(root)
    names = [(each.key, name) for each in checkpoint.state_dicts for name in each.tensors]
    assert len(names) == len(set(names))
    for state_dict in checkpoint.state_dicts:
        assert state_dict.tensors
        for each in state_dict.batchnorms:
            assert each.running_mean is not None or each.running_var is not None
