from collections.abc import Iterator
from math import inf, isnan, nan

from bnlint import Finding, Severity, StateDict, Tensor, batchnorm, rule, state_dict, tensor


@rule(
    severity=Severity.ERROR,
    deep=True,
    good=lambda: [
        holding(tensor([0.1, -0.2])),
        holding(tensor([7, 8], "int64")),
        holding(tensor(inf)),  # a best score, the range of a quantisation observer
        holding(tensor([0.0, -inf, 0.0, 0.0], shape=(2, 2))),  # an attention mask
        holding(tensor([0.0] + [-inf] * 300_000)),
        holding(tensor([])),
        holding(Tensor("float32", (2, 2), None)),  # saved on the meta device
        state_dict([batchnorm(running_mean=[nan, 0.0, 0.0, 0.0])]),  # nonfinite-running-stats says this
    ],
    bad=lambda: [
        holding(tensor([0.1, nan])),
        holding(tensor([0.1, inf])),
        holding(tensor([0.1, -inf])),
        holding(tensor(nan)),
        holding(tensor([0.1, nan], "bfloat16")),
        holding(tensor([0.0] * 300_000 + [nan])),
    ],
)
def nonfinite_weights(layers: StateDict) -> Iterator[Finding]:
    """A tensor of the model that is not BatchNorm's holds NaN or infinity.

    One NaN weight makes every output that depends on it NaN: a convolution with one NaN in its kernel
    a whole channel, the layer after it everything. This rule reads all weights and so runs with
    `--deep` only (0.3 s for 100 MB of float32).

    Common causes:
        Diverged training; a step taken on infinite gradients because the GradScaler was bypassed;
        a conversion that read uninitialised memory (pytorch#10008 asks for such a check).

    Fix:
        Go back to the last finite checkpoint. To find the step that does it:
            torch.autograd.set_detect_anomaly(True)
        or, before each save:
            assert all(torch.isfinite(p).all() for p in model.parameters())

    When this is fine:
        A mask of 0 and -inf, and a single infinite number (a best score, an observer's range) are
        not reported. Other buffers that are infinite on purpose are: silence them with an override.
    """
    of_batchnorm = {layer.key(leaf) for layer in layers.batchnorms for leaf in layer.tensors}
    damaged = {
        name: what
        for name, each in layers.tensors.items()
        if name not in of_batchnorm and each.floating and each.storage is not None and (what := damage(each))
    }
    if damaged:
        what = " or ".join(sorted(set(damaged.values())))
        yield Finding(
            layers.at((), damaged),
            f"holds {what}" if len(damaged) == 1 else f"{len(damaged)} tensors hold {what}",
            evidence={"tensors": len(damaged), "what": what},
        )


def damage(weights: Tensor) -> str:
    """What a tensor holds that it should not: "NaN", "infinity", "" for nothing."""
    mask = True
    infinite = False
    for chunk in weights.chunks():
        if not chunk.finite:
            if any(map(isnan, chunk)):
                return "NaN"
            infinite = True
            mask = mask and inf not in chunk
        mask = mask and not chunk.largest > 0
    return "infinity" if infinite and not mask and weights.count > 1 else ""


def holding(weights: Tensor) -> StateDict:
    """A healthy state dict with one more tensor."""
    return state_dict([batchnorm()], other={"conv1.weight": weights})
