from collections.abc import Iterator
from math import sqrt

from bnlint import BatchNorm, Finding, Severity, batchnorm, rule


@rule(
    severity=Severity.INFO,
    confidence="low",
    needs=["nonfinite-running-stats", "negative-running-var"],
    good=lambda: [
        batchnorm(),
        batchnorm(running_mean=[90.0, 0.1, 0.2, 0.3], running_var=[1.0] * 4),
        batchnorm(running_mean=[4.0, 0.1, 0.2, 0.3], running_var=[0.0, 1.0, 1.0, 1.0]),  # a dead channel
        batchnorm(running_mean=[4.0] * 4, running_var=None),
    ],
    bad=lambda: [
        batchnorm(running_mean=[-250.0, 0.1, 0.2, 0.3], running_var=[1.0] * 4),
        batchnorm(running_mean=[4.0], running_var=[1e-4], weight=None, bias=None),
    ],
)
def extreme_mean_to_std(layer: BatchNorm, *, limit: float = 100.0) -> Iterator[Finding]:
    """A running mean lies more than 100 standard deviations from 0.

    Eval mode subtracts two large numbers to get a small one, and folding multiplies the mean with a
    large gain. At `limit` 100 rounding alone is up to 5 % of a standard deviation in float16
    (100 / 2^11) and 39 % in bfloat16 (100 / 2^8). Toy networks stay below 4.4; 2 of 89 published
    models are over 100, 7 over 30. Dead channels are left out.

    Common causes:
        BatchNorm directly on raw inputs (timestamps, temperatures in kelvin), features with a
        constant offset, embeddings.

    Fix:
        Centre the input once, in float32, before the network: `x = x - offset`. Or keep this layer
        in float32.

    When this is fine:
        A first layer on raw inputs of a model that stays in float32.
    """
    mean, var = layer.running_mean, layer.running_var
    if not mean or not var or mean.largest <= limit * sqrt(max(var.min, 0.0) + layer.eps):
        return
    far = [m * m > limit * limit * (max(v, 0.0) + layer.eps) for m, v in zip(mean, var, strict=False)]
    dead = set(layer.dead_channels())
    extreme = [channel for channel in mean.where(far) if channel not in dead]
    if extreme:
        largest = max(abs(mean[channel]) / sqrt(max(var[channel], 0.0) + layer.eps) for channel in extreme)
        yield Finding(
            layer.at("running_mean", "running_var"),
            f"running_mean is up to {largest:.0f} standard deviations from 0 in {layer.in_words(extreme)}"
            f" (limit {limit:g})",
            evidence={
                "channels": layer.channels,
                "extreme": len(extreme),
                "largest": largest,
                "first_channels": extreme[:8],
                **layer.assumptions("eps"),
            },
        )
