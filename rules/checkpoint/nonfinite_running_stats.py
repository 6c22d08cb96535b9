from collections.abc import Iterator
from math import inf, isnan, nan

from bnlint import BatchNorm, Finding, Severity, Vector, batchnorm, rule


@rule(
    severity=Severity.ERROR,
    good=lambda: [
        batchnorm(),
        batchnorm(running_var=[0.0, 1e30, 2.0, 0.5]),
        batchnorm(weight=None, bias=None),
        batchnorm(running_var=[inf, 1.0, 2.0, 0.5], dtype="float16"),  # half-precision-damage says this
        batchnorm(running_mean=[], running_var=[], weight=[], bias=[]),
    ],
    bad=lambda: [
        batchnorm(running_mean=[0.3, nan, 0.8, 0.0]),
        batchnorm(running_var=[0.9, inf, 0.4, 1.2]),
        batchnorm(running_mean=[nan] * 4, running_var=[nan] * 4),
        batchnorm(running_mean=[0.3, nan, 0.8, 0.0], dtype="bfloat16"),
        batchnorm(running_mean=[0.3, inf, 0.8, 0.0], dtype="float16"),
        batchnorm(running_var=[inf, nan, 2.0, 0.5], dtype="float16"),
        batchnorm(weight=[1.0, nan, 1.0, 1.0]),
        batchnorm(bias=[0.0, -inf, 0.0, 0.0]),
    ],
)
def nonfinite_running_stats(layer: BatchNorm) -> Iterator[Finding]:
    """A running statistic, weight or bias of a BatchNorm layer is NaN or infinite.

    One NaN in one channel makes every output of the network NaN in eval mode (measured: BatchNorm,
    ReLU, convolution: 100 % of the outputs). Training does not show it: the batch's own statistics
    are used, the loss stays finite. Nor does training repair it: 200 clean batches after one bad
    value leave running_mean and running_var NaN, because NaN * 0.9 is NaN.

    Common causes:
        One batch that overflowed under mixed precision: autocast skips the optimizer step, but the
        forward has already updated the statistics (pytorch#96798, #88474). A warm-up forward on
        `torch.empty` (ultralytics PR 14829). Diverged training. An empty batch (pytorch#1206).

    Fix:
        Take the last finite checkpoint. Where only the statistics are damaged, compute them again
        (update_bn resets them first):
            torch.optim.swa_utils.update_bn(train_loader, model)
        NaN in weight or bias cannot be repaired. In training, skip a batch before it reaches the model:
            if not torch.isfinite(images).all():
                continue

    When this is fine:
        Never.
    """
    if layer.finite:
        return
    damage: dict[tuple[str, tuple[int, ...]], list[str]] = {}
    for leaf, vector in layer.vectors.items():
        if not vector.finite and not (leaf == "running_var" and overflowed(vector)):
            damage.setdefault((kind(vector), tuple(vector.where())), []).append(leaf)
    if not damage:
        return
    leaves = [leaf for group in damage.values() for leaf in group]
    channels = sorted({channel for _, group in damage for channel in group})
    yield Finding(
        layer.at(*leaves),
        "; ".join(
            f"{' and '.join(group)} {'is' if len(group) == 1 else 'are'} {what} in {layer.in_words(where)}"
            for (what, where), group in damage.items()
        ),
        evidence={"channels": layer.channels, "nonfinite": len(channels), "first_channels": channels[:8]},
    )


def overflowed(vector: Vector) -> bool:
    """True for a float16 whose only fault is +inf: a variance over 65504 that was cast."""
    return vector.dtype == "float16" and all(vector[channel] == inf for channel in vector.where())


def kind(vector: Vector) -> str:
    if not any(map(isnan, vector)):
        return "infinite"
    return "NaN or infinite" if inf in vector or -inf in vector else "NaN"
