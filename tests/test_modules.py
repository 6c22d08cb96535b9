"""Pickled and scripted models: their state dicts are torch's, their BatchNorm settings those of the live modules."""

from pathlib import Path
from typing import Any

import pytest
import torch
from networks import BasicBlock, ResNet
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parameter import is_lazy
from torch.optim.swa_utils import AveragedModel

from bnlint import BatchNormModule, RawFile, UnreadableFile
from bnlint.model.examples import tensor
from bnlint.model.raw_file import Global
from bnlint.readers.modules import read_module
from bnlint.readers.opening import open_file
from bnlint.readers.values import Instance

# TorchScript is deprecated, and still what people deploy.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")


class Custom(nn.Module):
    """Parameters of its own before and between children, a buffer that is not saved, children that are None."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(2))
        self.register_buffer("kept", torch.zeros(3))
        self.register_buffer("transient", torch.zeros(3), persistent=False)
        self.register_buffer("absent", None)
        self.register_parameter("missing", None)
        self.norm = nn.BatchNorm1d(5)
        self.nothing: nn.Module | None = None
        self.shift = nn.Parameter(torch.zeros(2), requires_grad=False)
        self.heads = nn.ModuleDict({"a": nn.Linear(5, 2), "b": nn.Linear(5, 2, bias=False)})
        self.extra = nn.ParameterList([nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(2))])


class Shared(nn.Module):
    """One layer under two names, as detection heads share theirs."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        self.second = self.first
        self.tied = nn.Linear(4, 4)
        self.tied.weight = nn.Linear(4, 4).weight


class MyBatchNorm2d(nn.BatchNorm2d):
    pass


class FrozenBatchNorm2d(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        for name in ("weight", "bias", "running_mean", "running_var"):
            self.register_buffer(name, torch.ones(4))


MODELS: dict[str, Any] = {
    "resnet": lambda: ResNet(),
    "without affine": lambda: ResNet(affine=False),
    "data parallel": lambda: nn.DataParallel(ResNet()),
    "averaged": lambda: AveragedModel(ResNet()),
    "compiled": lambda: torch.compile(ResNet()),
    "custom": Custom,
    "shared": Shared,
    "one layer": lambda: nn.BatchNorm2d(3),
    "settings": lambda: nn.Sequential(
        nn.BatchNorm1d(2, eps=1e-3, momentum=0.03),
        nn.BatchNorm2d(3, momentum=None),
        nn.BatchNorm3d(4, affine=False, momentum=0),
        nn.BatchNorm2d(5, track_running_stats=False),
        nn.SyncBatchNorm(6, momentum=0.5),
        MyBatchNorm2d(7),
    ),
    "half": lambda: ResNet().half(),
    "graph": lambda: torch.fx.symbolic_trace(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))),
    "lazy": lambda: nn.Sequential(nn.LazyConv2d(4, 3), nn.LazyBatchNorm2d()),
}


def opened(folder: Path, saved: object, **options: Any) -> RawFile:
    torch.save(saved, folder / "model.pt", **options)
    file = open_file(str(folder / "model.pt"))
    assert file.problem is None, file.problem
    return file


def bytes_of(value: torch.Tensor) -> bytes:
    return value.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def live(model: nn.Module) -> dict[str, _BatchNorm]:
    return {name: module for name, module in model.named_modules() if isinstance(module, _BatchNorm)}


def initialised(state: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The parameters of lazy modules have no data yet: they are empty."""
    return {
        name: torch.empty(0, requires_grad=value.requires_grad) if is_lazy(value) else value
        for name, value in state.items()
        if value is not None
    }


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("name", MODELS)
def test_the_state_dict_is_the_one_of_torch(tmp_path: Path, name: str, legacy: bool) -> None:
    model = MODELS[name]()
    file = opened(tmp_path, model, _use_new_zipfile_serialization=not legacy)
    assert file.checkpoint is not None
    expected = initialised(model.state_dict())
    with file.checkpoint as checkpoint:
        assert list(checkpoint.tensors) == list(expected)
        for key, tensor_ in checkpoint.tensors.items():
            assert tensor_.raw() == bytes_of(expected[key]), key
        parameters = dict(model.named_parameters(remove_duplicate=False))
        for key, tensor_ in checkpoint.tensors.items():
            assert bool(tensor_.parameter) == (key in parameters), key
            if key in parameters:
                assert tensor_.requires_grad == parameters[key].requires_grad, key


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("name", MODELS)
def test_settings_are_those_of_the_live_modules(tmp_path: Path, name: str, training: bool) -> None:
    model = MODELS[name]().train(training)
    modules = live(model)
    if modules and name != "one layer":
        next(iter(modules.values())).train(not training)
    file = opened(tmp_path, model)
    assert file.facts == {"pickled_module": class_name(model), "training": model.training}
    assert file.checkpoint is not None
    tree = file.checkpoint.modules
    assert tree is not None
    assert (tree.origin, tree.key, tree.class_name) == ("pickle", "", class_name(model))
    assert [module.name for module in tree.batchnorms] == list(modules)
    for module in tree.batchnorms:
        assert settings_of(module) == live_settings(modules[module.name])
        assert module.momentum_known
        if initialised(modules[module.name].state_dict()).get("running_mean", torch.empty(0)).numel():
            assert module.layer is file.checkpoint.state_dicts[0].batchnorm(module.name)
            assert module.layer is not None
            assert module.layer.module is module
            assert module.layer.eps == module.eps
        else:
            assert module.layer is None


def class_name(model: object) -> str:
    return f"{type(model).__module__}.{type(model).__qualname__}".replace(
        "torch.fx.graph_module.GraphModule.__new__.<locals>.GraphModuleImpl",
        "torch.fx.graph_module.reduce_graph_module",
    )


def settings_of(module: BatchNormModule) -> dict[str, object]:
    return {
        "kind": module.kind,
        "training": module.training,
        "momentum": module.momentum,
        "eps": module.eps,
        "affine": module.affine,
        "track_running_stats": module.track_running_stats,
        "requires_grad": dict(module.requires_grad),
    }


def live_settings(module: _BatchNorm) -> dict[str, object]:
    return {
        "kind": type(module).__name__,
        "training": module.training,
        "momentum": module.momentum,
        "eps": module.eps,
        "affine": module.affine,
        "track_running_stats": module.track_running_stats,
        "requires_grad": {
            name: value.requires_grad for name, value in initialised(module._parameters).items() if value is not None
        },
    }


def test_the_network_frozen_as_a_whole(tmp_path: Path) -> None:
    model = ResNet().train()
    model.requires_grad_(False)
    checkpoint = opened(tmp_path, model).checkpoint
    assert checkpoint is not None
    assert checkpoint.modules is not None
    for module in checkpoint.modules.batchnorms:
        assert module.frozen
        assert module.training
        assert set(module.preceding.values()) == {False}


def test_what_comes_before_a_layer(tmp_path: Path) -> None:
    model = nn.Sequential(
        nn.BatchNorm2d(3),
        nn.Conv2d(3, 4, 3),
        nn.ReLU(),
        nn.BatchNorm2d(4, affine=False),
        nn.Sequential(nn.BatchNorm2d(4)),
        nn.BatchNorm2d(4),
    )
    model[1].weight.requires_grad_(False)
    checkpoint = opened(tmp_path, model).checkpoint
    assert checkpoint is not None
    assert checkpoint.modules is not None
    assert {module.name: dict(module.preceding) for module in checkpoint.modules.batchnorms} == {
        "0": {},
        "3": {"1.weight": False, "1.bias": True},
        "4.0": {},
        "5": {"4.0.weight": True, "4.0.bias": True},
    }


def test_modules_in_a_training_checkpoint(tmp_path: Path) -> None:
    """ultralytics saves whole modules: the live one, or None once it is stripped, and the average."""
    net = ResNet()
    both = opened(tmp_path, {"epoch": 3, "model": net, "ema": ResNet(), "updates": 7, "optimizer": None})
    assert both.checkpoint is not None
    assert [(each.key, each.role) for each in both.checkpoint.state_dicts] == [("model", "model"), ("ema", "ema")]
    assert [tree.key for tree in both.checkpoint.module_trees] == ["model", "ema"]
    assert both.facts == {}, "the file is no module itself"
    stripped = opened(tmp_path, {"epoch": -1, "model": None, "ema": ResNet()})
    assert stripped.checkpoint is not None
    assert [(each.key, each.role) for each in stripped.checkpoint.state_dicts] == [("ema", "model")]
    location = stripped.checkpoint.module_trees[0].batchnorms[0].at("weight")
    assert (location.state_dict, location.layers, location.tensors) == ("ema", ("bn1",), ("bn1.weight",))


def test_a_loss_is_no_model(tmp_path: Path) -> None:
    file = opened(tmp_path, {"net": ResNet(), "loss": nn.CrossEntropyLoss(weight=torch.ones(4))})
    assert file.checkpoint is not None
    assert [each.key for each in file.checkpoint.state_dicts] == ["net"]


def test_instance_norm_and_frozen_batchnorm_are_told_apart(tmp_path: Path) -> None:
    model = nn.Sequential(
        nn.InstanceNorm2d(4, affine=True, track_running_stats=True), FrozenBatchNorm2d(), nn.BatchNorm2d(4)
    )
    checkpoint = opened(tmp_path, model).checkpoint
    assert checkpoint is not None
    assert checkpoint.modules is not None
    assert [module.name for module in checkpoint.modules.batchnorms] == ["2"], "only it has a mode that matters"
    assert [layer.name for layer in checkpoint.batchnorms] == ["1", "2"]
    assert "0.running_mean" in checkpoint.tensors


# -- TorchScript ---------------------------------------------------------------------------------------


def saved_script(folder: Path, script: Any) -> RawFile:
    torch.jit.save(script, folder / "model.pt")
    file = open_file(str(folder / "model.pt"))
    assert file.problem is None, file.problem
    assert file.format == "torchscript"
    return file


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("how", ["script", "trace"])
def test_scripted_and_traced_models(tmp_path: Path, how: str, training: bool) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), BasicBlock(4, 8, 2)).train(training)
    model[2].bn1.eps = 0.25
    model[2].bn1.momentum = 0.75
    script = torch.jit.script(model) if how == "script" else torch.jit.trace(model, torch.randn(2, 3, 16, 16))
    file = saved_script(tmp_path, script)
    assert file.facts == {}
    assert file.checkpoint is not None
    expected = torch.jit.load(str(tmp_path / "model.pt"), map_location="cpu").state_dict()
    with file.checkpoint as checkpoint:
        assert list(checkpoint.tensors) == list(expected)
        for key, tensor_ in checkpoint.tensors.items():
            assert tensor_.raw() == bytes_of(expected[key])
            assert bool(tensor_.parameter) == (key in dict(model.named_parameters()))
        tree = checkpoint.modules
        assert tree is not None
        assert (tree.origin, tree.training) == ("torchscript", training)
        for module in tree.batchnorms:
            settings = live_settings(live(model)[module.name])
            if how == "trace":  # a traced graph holds numbers only
                settings |= {"affine": None, "track_running_stats": None}
            assert settings_of(module) == settings
            assert module.momentum_known


def test_eval_after_tracing_in_train_mode_changes_nothing(tmp_path: Path) -> None:
    traced = torch.jit.trace(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).train(), torch.randn(2, 3, 8, 8))
    checkpoint = saved_script(tmp_path, traced.eval()).checkpoint
    assert checkpoint is not None
    assert checkpoint.modules is not None
    assert checkpoint.modules.training is False
    assert [module.training for module in checkpoint.modules.batchnorms] == [True]


def test_scripted_settings_of_every_kind(tmp_path: Path) -> None:
    model = nn.Sequential(
        nn.BatchNorm2d(3, momentum=None), nn.BatchNorm2d(3, affine=False), nn.BatchNorm2d(3, track_running_stats=False)
    )
    checkpoint = saved_script(tmp_path, torch.jit.script(model)).checkpoint
    assert checkpoint is not None
    assert checkpoint.modules is not None
    for module, expected in zip(checkpoint.modules.batchnorms, model, strict=True):
        assert settings_of(module) == live_settings(expected)
        assert module.momentum_known


def test_a_frozen_archive_says_that_it_is_frozen(tmp_path: Path) -> None:
    file = saved_script(tmp_path, torch.jit.freeze(torch.jit.script(BasicBlock(4, 4).eval())))
    assert file.status == "nothing-to-check"
    assert "frozen" in file.notes[0]


# -- what nobody's torch ever wrote ---------------------------------------------------------------------


def module(children: dict[str, object], **attributes: object) -> Instance:
    made = Instance(Global("nets", "Net", 0), ())
    made.state = {"_parameters": {}, "_buffers": {}, "_modules": children, **attributes}
    return made


def refused(root: object) -> str:
    with pytest.raises(UnreadableFile) as caught:
        read_module(root, "")
    return caught.value.code


def test_a_module_in_itself_is_refused() -> None:
    children: dict[str, object] = {}
    children["child"] = module({"grandchild": module(children)})
    assert refused(module(children)) == "corrupt"


def test_modules_that_share_modules_end() -> None:
    shared = module({}, _parameters={"weight": tensor([1.0])})
    for _ in range(40):
        shared = module({"a": shared, "b": shared})
    assert refused(shared) == "limit"


def test_modules_nested_without_end_are_refused() -> None:
    deep = module({})
    for _ in range(5000):
        deep = module({"a": deep})
    assert refused(deep) == "limit"


@pytest.mark.parametrize(
    "odd", [None, 7, "x", [], (), {}, {"x": 7}, {7: 7}, {"bn": None}, Instance(None, ())], ids=repr
)
def test_parts_of_any_type_are_taken(odd: object) -> None:
    for part in ("_parameters", "_buffers", "_modules", "_non_persistent_buffers_set", "training"):
        made = module({"bn": module({}, training=odd)}, **{part: odd})
        read_module(made, "")


@pytest.mark.parametrize("odd", ["0.1", [], True, 10**400, Instance(None, ())], ids=lambda odd: type(odd).__name__)
def test_settings_of_any_type_are_unknown(odd: object) -> None:
    names = ("training", "momentum", "eps", "affine", "track_running_stats")
    made = Instance(Global("torch.nn.modules.batchnorm", "BatchNorm2d", 0), ())
    made.state = {"_parameters": {}, "_buffers": {}, "_modules": {}, **dict.fromkeys(names, odd)}
    (found,) = read_module(made, "").tree.batchnorms
    truth = True if odd is True else None
    assert not found.momentum_known
    assert (found.momentum, found.eps) == (None, None)
    assert (found.training, found.affine, found.track_running_stats) == (truth, truth, truth)
