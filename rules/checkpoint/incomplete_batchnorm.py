from collections.abc import Iterator

from bnlint import BatchNorm, Finding, Severity, batchnorm, rule, state_dict, tensor


@rule(
    severity=Severity.WARNING,
    good=lambda: [
        batchnorm(),
        batchnorm(bias=None),  # BatchNorm2d(64, bias=False), torch 2.1 and later
        batchnorm(weight=None, bias=None),  # affine=False
        batchnorm(num_batches_tracked=None),
    ],
    bad=lambda: [
        batchnorm(running_var=None),
        batchnorm(running_mean=None, num_batches_tracked=None),
        batchnorm(weight=None, bias=None, running_var=None),
        batchnorm(weight=None),
        lone_running_mean(),
        normaliser_of_its_own(),
    ],
)
def incomplete_batchnorm(layer: BatchNorm) -> Iterator[Finding]:
    """A BatchNorm layer has one of its statistics, or a bias without a weight.

    With only one of running_mean and running_var eval mode raises "Expected running_mean and
    running_var to be defined" or, after `load_state_dict(strict=False)`, normalises with the other
    half from the file and this half from the initialisation (mean 0, variance 1): 100 % of the
    layer's channels are wrong. torch makes and saves the two together (nn/modules/batchnorm.py).

    Common causes:
        Keys were filtered by name or by shape while the file was written or converted.

    Fix:
        Write the whole state dict again from the model:
        `torch.save(model.state_dict(), "model.pth")`. Where keys must be filtered, keep or drop all
        tensors of a layer together.

    When this is fine:
        A module that is not BatchNorm and keeps a running_mean of its own. bnlint calls the finding
        possible where nothing else in the file shows that the layer is BatchNorm.
    """
    mean, var = layer.running_mean, layer.running_var
    if (mean is None) != (var is None):
        missing, there = ("running_var", "running_mean") if var is None else ("running_mean", "running_var")
        yield Finding(
            layer.at(there),
            f"{missing} is missing beside {there} ({layer.channels} channels)",
            evidence={"missing": missing, "channels": layer.channels},
            severity=Severity.ERROR,
            unknown=None if is_batchnorm(layer) else "whether the layer is BatchNorm",
        )
    elif layer.bias is not None and layer.weight is None:
        yield Finding(
            layer.at("bias"),
            f"weight is missing beside bias ({len(layer.bias)} channels)",
            evidence={"missing": "weight", "channels": len(layer.bias)},
        )


def is_batchnorm(layer: BatchNorm) -> bool:
    """True where more than one statistic says so: its own other tensors, or complete layers beside it."""
    if other_statistics(layer):
        return False
    return len(layer.tensors) > 1 or any(
        other.running_mean is not None and other.running_var is not None for other in layer.state_dict.batchnorms
    )


def other_statistics(layer: BatchNorm) -> bool:
    """True where a statistic that BatchNorm does not have lies beside it, such as running_std."""
    start = layer.key("running_")
    return any(
        key.startswith(start) and key not in (layer.key("running_mean"), layer.key("running_var"))
        for key in layer.state_dict.tensors
    )


def lone_running_mean() -> BatchNorm:
    return batchnorm("reward", weight=None, bias=None, running_var=None, num_batches_tracked=None)


def normaliser_of_its_own() -> BatchNorm:
    layer = batchnorm("target_norm", running_var=None)
    state_dict([layer], other={"target_norm.running_std": tensor([1.0, 1.0, 1.0, 1.0])})
    return layer
