from collections.abc import Iterator

from bnlint import Finding, Severity, StateDict, Tensor, batchnorm, rule, state_dict, tensor


@rule(
    severity=Severity.WARNING,
    good=lambda: [
        state_dict([batchnorm("bn1"), batchnorm("bn2")]),
        state_dict([batchnorm("bn1", running_var=None)]),  # incomplete-batchnorm speaks
        state_dict([batchnorm("norm", weight=None, bias=None, num_batches_tracked=0)]),  # InstanceNorm with tracking
        state_dict(other={"obs.mean": tensor([0.1]), "obs.var": tensor([1.0]), "obs.count": tensor(7, "int64")}),
        state_dict(other={"conv1.weight": tensor([1.0, 2.0]), "num_batches_tracked_ema": tensor(7, "int64")}),
    ],
    bad=lambda: [
        state_dict([batchnorm("bn1"), batchnorm("bn2", running_mean=None, running_var=None)]),
        state_dict([batchnorm("bn1", weight=None, bias=None, running_mean=None, running_var=None)]),
        state_dict(other={"conv1.weight": tensor([1.0], shape=(1, 1, 1, 1)), **counter("conv1.")}),
        state_dict(other=counter("")),
    ],
)
def unexpected_num_batches_tracked(weights: StateDict) -> Iterator[Finding]:
    """There is a num_batches_tracked where running_mean and running_var are both missing.

    The count says that statistics were collected, and they are not in the file: a model that is
    loaded from it evaluates these layers with mean 0 and variance 1. In a toy ResNet that took
    accuracy from 1.00 to 0.77.

    Common causes:
        The running statistics were filtered out by a name pattern ("running_") that forgets the
        counter. A key was renamed by hand, so that the counter stands beside a convolution.

    Fix:
        Write the whole state dict again: `torch.save(model.state_dict(), "model.pth")`. If only the
        counter is left over by mistake, delete it: `del sd["conv1.num_batches_tracked"]`.

    When this is fine:
        Files that keep the statistics out on purpose (FedBN clients share everything but BatchNorm);
        leave the counter out as well.
    """
    for key in weights.tensors:
        if not key.endswith("num_batches_tracked"):
            continue
        layer, _, leaf = key.rpartition(".")
        start = f"{layer}." if layer else ""
        statistics = f"{start}running_mean" in weights.tensors or f"{start}running_var" in weights.tensors
        if leaf == "num_batches_tracked" and not statistics:
            yield Finding(
                weights.at([layer], [key]),
                "num_batches_tracked without running_mean and running_var",
                evidence={"shape": weights.tensors[key].shape},
            )


def counter(start: str) -> dict[str, Tensor]:
    return {f"{start}num_batches_tracked": tensor(7, "int64")}
