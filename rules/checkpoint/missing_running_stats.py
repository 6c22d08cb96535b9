from collections.abc import Iterator

from bnlint import Finding, Severity, StateDict, Tensor, batchnorm, rule, state_dict, tensor


@rule(
    severity=Severity.INFO,
    confidence="low",
    good=lambda: [
        state_dict([batchnorm()], other=convolution("conv1")),
        state_dict(other=pair("norm1") | convolution("conv1")),  # LayerNorm, GroupNorm
        state_dict(other=pair("bn1")),  # no convolution beside it
        state_dict(other={**pair("bn1"), **convolution("conv1"), "teacher.bn1.running_mean": tensor([0.0, 0.0])}),
        state_dict(other={"bn1.weight": tensor([1.0] * 4, shape=(2, 2)), **convolution("conv1")}),
    ],
    bad=lambda: [
        state_dict(other=pair("bn1") | convolution("conv1")),
        state_dict(other=pair("layer1.0.bn2") | convolution("layer1.0.conv2") | convolution("conv1")),
        state_dict(other=pair("stem.batch_norm") | convolution("stem.conv")),
        state_dict(other=pair("stem.BatchNorm1") | convolution("stem.conv")),
    ],
)
def missing_running_stats(layers: StateDict) -> Iterator[Finding]:
    """Layers that are named like BatchNorm have weight and bias, but the file holds no running statistics.

    Loaded with strict=False into a network with BatchNorm the statistics stay 0 and 1: a toy network
    fell from 100 % to 77 %. GroupNorm and LayerNorm have the same two tensors, sometimes under the
    same names (timm's GroupNorm networks say bn1), so the finding is only possible.

    Common causes:
        A file written from `model.parameters()` or `named_parameters()`, which leave buffers out
        (torch/nn#1165); an adapter that saves trained parameters only (peft#1732).

    Fix:
        Write the file from the whole state dict: `torch.save(model.state_dict(), "model.pth")`.
        After loading what there is, compute the statistics:
            torch.optim.swa_utils.update_bn(train_loader, model)

    When this is fine:
        The layers are GroupNorm or LayerNorm, or a frozen affine layer with the statistics folded in
        (Caffe2's AffineChannel, Detectron#189); the file is an adapter for a base model that has them.
    """
    if layers.batchnorms or any(".running_" in f".{key}" for key in layers.tensors):
        return
    beside_convolutions = {parent(parent(key)) for key, each in layers.tensors.items() if is_kernel(key, each)}
    names = [parent(key) for key in layers.tensors if key.endswith(".weight")]
    bare = [
        name
        for name in names
        if named_like_batchnorm(name)
        and parent(name) in beside_convolutions
        and len(layers.tensors[f"{name}.weight"].shape) == 1
        and f"{name}.bias" in layers.tensors
    ]
    if bare:
        yield Finding(
            layers.at(bare),
            f"{len(bare)} layers are named like BatchNorm and have weight and bias,"
            " but no running_mean or running_var is in the file",
            evidence={"layers": len(bare)},
            unknown="whether the layers are BatchNorm",
        )


def named_like_batchnorm(name: str) -> bool:
    return name.rpartition(".")[2].lower().rstrip("0123456789") in ("bn", "batchnorm", "batch_norm")


def is_kernel(key: str, weights: Tensor) -> bool:
    return key.endswith(".weight") and 3 <= len(weights.shape) <= 5


def parent(name: str) -> str:
    """The module that holds it: "layer1.0" for "layer1.0.bn1", "" at the top."""
    return name.rpartition(".")[0]


def pair(name: str) -> dict[str, Tensor]:
    """The weight and bias of a normalisation layer."""
    return {f"{name}.weight": tensor([1.0, 0.9]), f"{name}.bias": tensor([0.1, 0.0])}


def convolution(name: str) -> dict[str, Tensor]:
    return {f"{name}.weight": tensor([0.1, 0.2], shape=(2, 1, 1, 1))}
