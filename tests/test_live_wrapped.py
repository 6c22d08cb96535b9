"""Models inside DataParallel, DistributedDataParallel, FSDP, torch.compile: checked, watched, recalibrated."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from live_models import data, gap, healthy_model, told  # noqa: E402
from networks import batch  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn.functional import cross_entropy  # noqa: E402

import bnlint.torch  # noqa: E402
from bnlint.torch.live import Live  # noqa: E402


@pytest.fixture(scope="module")
def healthy() -> nn.Module:
    return healthy_model()


@pytest.fixture(scope="module")
def process_group(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    if not torch.distributed.is_available() or not torch.distributed.is_gloo_available():
        pytest.skip("torch without gloo")
    store = tmp_path_factory.mktemp("store") / "store"
    torch.distributed.init_process_group("gloo", init_method=store.as_uri(), rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def fully_sharded(model: nn.Module) -> nn.Module:
    from torch.distributed.fsdp import FullyShardedDataParallel

    return FullyShardedDataParallel(model, use_orig_params=True, device_id=torch.device("cpu"))


def fully_sharded_2(model: nn.Module) -> nn.Module:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh("cpu", (1,))
    for block in (model.layer1, model.layer2):
        fully_shard(block, mesh=mesh)
    return fully_shard(model, mesh=mesh)


def recomputed(model: nn.Module) -> nn.Module:
    from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

    model.layer1[0] = checkpoint_wrapper(model.layer1[0])
    model.layer2 = torch.compile(model.layer2, backend="eager")
    return model


def flattened(model: nn.Module) -> nn.Module:
    from torch.distributed.fsdp import FullyShardedDataParallel

    return FullyShardedDataParallel(model, device_id=torch.device("cpu"))


WRAPPERS = (
    nn.DataParallel,
    torch.compile,
    lambda model: torch.compile(nn.DataParallel(model)),
    nn.parallel.DistributedDataParallel,
    recomputed,
    fully_sharded,
    fully_sharded_2,
)


@pytest.mark.parametrize("wrap", WRAPPERS)
def test_what_is_put_around_a_model_is_looked_through(
    wrap: Callable[[Any], nn.Module], healthy: Any, process_group: None
) -> None:
    model = copy.deepcopy(healthy)
    model.bn1.running_var[1] = float("nan")
    model.layer1[0].bn2.requires_grad_(False)
    plain = told(model)
    assert plain == {
        "nonfinite-running-stats": ("error", {"bn1"}),
        "frozen-bn-in-train-mode": ("error", {"layer1.0.bn2"}),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wrapped = wrap(model)
    assert told(wrapped) == plain


def in_a_graph(model: nn.Module) -> nn.Module:
    return torch.compile(model, backend="aot_eager")


@pytest.mark.parametrize(
    "wrap",
    [
        nn.parallel.DistributedDataParallel,
        in_a_graph,
        lambda model: in_a_graph(nn.parallel.DistributedDataParallel(model)),
        fully_sharded,
        fully_sharded_2,
    ],
)
def test_what_is_put_around_a_model_is_trained_under_watch_and_recalibrated(
    wrap: Callable[[Any], nn.Module], healthy: Any, process_group: None
) -> None:
    model = copy.deepcopy(healthy)
    model.bn1.requires_grad_(False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wrapped = wrap(model)
        assert not gap(wrapped, data()).findings
        optimizer = torch.optim.SGD([each for each in wrapped.parameters() if each.requires_grad], 0.01)
        with bnlint.torch.watch(wrapped, every=2, on_findings=list, isolated=True) as watching:
            for i in range(3):
                images, labels = batch(8)
                optimizer.zero_grad()
                cross_entropy(wrapped(images + (float("nan") if i == 2 else 0)), labels).backward()
                optimizer.step()
    assert watching.batches == 3
    (frozen, *nonfinite) = watching.findings
    assert (frozen.rule, frozen.location.layers) == ("frozen-bn-in-train-mode", ("bn1",))
    assert {finding.location.layers for finding in nonfinite} == {(layer,) for layer in Live(model).layers}
    assert all(finding.message.endswith("since batch 3") for finding in nonfinite)


def test_parameters_that_were_flattened_away(healthy: Any, process_group: None) -> None:
    """FSDP without the original parameters: the buffers, and so the statistics, are still there."""
    model = copy.deepcopy(healthy)
    model.bn1.running_var[1] = float("nan")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert told(flattened(model))["nonfinite-running-stats"] == ("error", {"bn1"})


def test_an_averaged_model_keeps_its_names(healthy: Any) -> None:
    """Its state dict has them, and n_averaged beside them."""
    averaged = torch.optim.swa_utils.AveragedModel(healthy)
    averaged.module.bn1.running_var[1] = float("nan")
    assert told(averaged)["nonfinite-running-stats"] == ("error", {"module.bn1"})
    assert Live(averaged).checkpoint().state_dicts[0].scalars == {"n_averaged": 0}
