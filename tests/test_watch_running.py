"""`bnlint.torch.watch` however a model is run: accumulated, checkpointed, compiled, traced, by Lightning."""

from __future__ import annotations

import copy
import os
import re
import subprocess
import sys
import types
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from live_models import Net, Small, hooks, images, layers  # noqa: E402
from networks import ResNet, batch  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch.nn.functional import cross_entropy  # noqa: E402
from torch.utils.checkpoint import checkpoint  # noqa: E402

from bnlint.torch import BatchNormWarning, watch  # noqa: E402

FROZEN, NONFINITE = "frozen-bn-in-train-mode", "nonfinite-running-stats"


@pytest.fixture(autouse=True)
def nothing_unexpected() -> Iterator[None]:
    """A warning that a test does not ask for fails it."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", BatchNormWarning)
        yield


@pytest.mark.parametrize("mode", [nullcontext, torch.no_grad, torch.inference_mode])
def test_what_batchnorm_counts_is_what_counts(mode: Callable[[], AbstractContextManager[object]]) -> None:
    """no_grad does not stop the update, and so counts; eval mode does."""
    model = Small()
    with watch(model, every=2) as watching:
        for i in range(8):
            model.train(i % 4 != 3)
            with mode():
                model(torch.randn(4, 4))
    assert watching.batches == 6 == model.bn1.num_batches_tracked


@pytest.mark.parametrize("accumulated", [1, 4])
def test_gradients_are_accumulated(accumulated: int) -> None:
    model = ResNet((1,))
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    with watch(model, every=3) as watching:
        for _ in range(3):
            optimizer.zero_grad()
            for _ in range(accumulated):
                inputs, labels = batch(4)
                (cross_entropy(model(inputs), labels) / accumulated).backward()
            optimizer.step()
    assert watching.batches == 3 * accumulated == model.bn1.num_batches_tracked


@pytest.mark.parametrize("reentrant", [False, True])
def test_activation_checkpointing_counts_once(reentrant: bool) -> None:
    class Checkpointed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = Small()

        def forward(self, x: Tensor) -> Tensor:
            return checkpoint(self.body, x, use_reentrant=reentrant)

    model = Checkpointed()
    with watch(model) as watching:
        for _ in range(3):
            model(torch.randn(4, 4, requires_grad=True)).sum().backward()
    assert model.body.bn1.num_batches_tracked == 6, "BatchNorm itself counts the second forward"
    assert watching.batches == 3


def test_a_layer_that_is_used_twice_in_a_forward() -> None:
    model = Small()
    model.bn2 = model.bn1
    with watch(model) as watching:
        model(torch.randn(4, 4))
    assert watching.batches == 1
    assert model.bn1.num_batches_tracked == 2


def test_wrapped_and_lazy_models() -> None:
    wrapped = nn.DataParallel(Small()).requires_grad_(False)
    lazy = nn.Sequential(nn.LazyLinear(8), nn.LazyBatchNorm1d())
    for parameter in lazy.parameters():
        parameter.requires_grad = False
    for model, names in (wrapped, ["bn1", "bn2"]), (lazy, ["1"]):
        with watch(model, on_findings=list) as watching:
            model(torch.randn(4, 4))
            model(torch.full((4, 4), float("nan")))
        assert layers(watching.findings, FROZEN) == names
        assert layers(watching.findings, NONFINITE) == names
        assert watching.batches == 2


def compiled(model: nn.Module, **options: Any) -> Any:
    return torch.compile(model, backend="eager", fullgraph=True, **options)


@pytest.mark.parametrize("warm", [False, True], ids=["cold", "warm"])
@pytest.mark.parametrize("in_place", [False, True], ids=["wrapped", "in-place"])
def test_compiled_models(in_place: bool, warm: bool) -> None:
    """As one graph, compiled before the watch began or by its first forward."""
    torch._dynamo.reset()
    model = Small()
    expected = copy.deepcopy(model)
    called: Any = model if in_place else compiled(model)
    if in_place:
        model.compile(backend="eager", fullgraph=True)
    model.requires_grad_(False)
    x = torch.randn(4, 4)
    if warm:
        called(x)
        expected(x)
    with watch(called, on_findings=list) as watching:
        for value in (x, 2 * x, x):
            assert torch.equal(called(value), expected(value))
        called(torch.full((4, 4), float("nan")))
    assert watching.batches == 4
    assert layers(watching.findings, FROZEN) == ["bn1", "bn2"]
    assert layers(watching.findings, NONFINITE) == ["bn1", "bn2"]
    assert watching.findings[-1].message.endswith("since batch 4")
    assert hooks(model) == 0
    assert torch.equal(called(x), called(x))
    assert watching.batches == 4


def test_the_model_inside_a_compiled_one_cannot_be_watched_and_that_is_said() -> None:
    torch._dynamo.reset()
    model = Small()
    called = compiled(model)
    with pytest.warns(BatchNormWarning, match="Watch what the training loop calls"), watch(model) as watching:
        called(torch.randn(4, 4))
    assert watching.batches == 0


def test_a_graph_takes_no_watch_along() -> None:
    model, x = Small(), torch.randn(4, 4)

    def graphs() -> list[list[str]]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            traced, exported = torch.jit.trace(model, x), torch.export.export(model, (x,))
        return [
            [node.kind() for node in traced.inlined_graph.nodes()],
            [str(node.target) for node in exported.graph.nodes],
        ]

    expected = graphs()
    with watch(model):
        assert graphs() == expected


# -- Lightning --------------------------------------------------------------------------------------------


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The callback over a package that has nothing but Lightning's Callback."""

    class Callback:
        pass

    package = types.ModuleType("pytorch_lightning")
    package.Callback = Callback  # type: ignore[attr-defined]
    monkeypatch.delitem(sys.modules, "lightning.pytorch", raising=False)
    monkeypatch.delitem(sys.modules, "bnlint.torch.lightning", raising=False)
    monkeypatch.setitem(sys.modules, "pytorch_lightning", package)
    import bnlint.torch.lightning as room

    assert issubclass(room.WatchBatchNorm, Callback)
    yield room
    monkeypatch.delitem(sys.modules, "bnlint.torch.lightning", raising=False)


def test_the_callback_watches_a_fit(stand_in: Any) -> None:
    callback, model = stand_in.WatchBatchNorm(on_findings=list), Net().requires_grad_(False)
    callback.on_train_end(None, model)
    callback.on_train_start(None, model)
    model.features(images())
    callback.on_train_end(None, model)
    assert layers(callback.watching.findings, FROZEN) == ["bn1", "bn2"]
    callback.on_train_start(None, model)
    callback.on_exception(None, model, KeyboardInterrupt())
    callback.on_train_end(None, model)
    assert hooks(model) == 0


@pytest.mark.parametrize("package", ["lightning.pytorch", "pytorch_lightning"])
def test_a_fit_of_lightning(package: str, tmp_path: Path) -> None:
    lightning = pytest.importorskip(package)
    sys.modules.pop("bnlint.torch.lightning", None)
    from bnlint.torch.lightning import WatchBatchNorm

    class Course(lightning.LightningModule):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.backbone = Net().requires_grad_(False)
            self.head = nn.Linear(16 * 6 * 6, 2)

        def training_step(self, x: Any, _: int) -> Tensor:
            return self.head(self.backbone.features(x[0])).square().mean()

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.head.parameters(), 0.01)

    callback = WatchBatchNorm(on_findings=list)
    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(images(12)), batch_size=4)
    trainer = lightning.Trainer(
        max_epochs=2,
        callbacks=[callback],
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        default_root_dir=tmp_path,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(Course(), data)
    assert callback.watching is not None
    assert layers(callback.watching.findings, FROZEN) == ["backbone.bn1", "backbone.bn2"]
    assert callback.watching.batches == 6


# -- the example --------------------------------------------------------------------------------------------


def test_the_example_notices_what_it_says() -> None:
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    script = os.path.join(root, "examples", "live.py")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    printed = dict(re.findall(r"^== (.*)\n((?:(?!== ).*\n)*)", done.stdout, re.M))
    assert list(printed) == ["a plain loop", "Hugging Face Trainer", "Lightning", "a test", "data"]
    for name, text in printed.items():
        rule = "recalibration-gap" if name == "data" else FROZEN
        assert f"[{rule}]" in text or text.startswith("not here"), name
    assert "main.bn1, main.bn2: weight and bias need no gradient" in printed["a plain loop"]
