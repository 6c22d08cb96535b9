from collections.abc import Iterator

from bnlint import BatchNorm, Finding, Severity, batchnorm, rule


@rule(
    severity=Severity.ERROR,
    needs=["nonfinite-running-stats"],
    good=lambda: [batchnorm(), batchnorm(running_var=[0.0, 1.0, 2.0, 0.5])],
    bad=lambda: [
        batchnorm(running_var=[-9.9e-6, 1.0, 2.0, 0.5]),
        batchnorm(running_var=[-0.4, 1.0, -2.0, 0.5]),
    ],
)
def negative_running_var(layer: BatchNorm) -> Iterator[Finding]:
    """A channel's running variance is negative.

    In eval mode BatchNorm divides by sqrt(running_var + eps): below -eps the channel is NaN, just
    above it the channel is amplified up to a thousandfold. No training produces a negative variance.

    Common causes:
        detectron2's FrozenBatchNorm2d once subtracted eps while it loaded a version-2 file; then no
        value is below -1e-5 (detectron2#2413). A converter read the wrong blob or offset, or swapped
        mean and variance; then many channels are negative (pytorch-caffe-darknet-convert#48).

    Fix:
        With every value above -1.1e-5 add eps back: `sd[k] += 1e-5`. Otherwise convert the file again
        and compare one layer's running_mean and running_var with the original.

    When this is fine:
        Never.
    """
    var = layer.running_var
    if var is None or var.min >= 0:
        return
    negative = var.where([value < 0 for value in var])
    frozen_bn = var.min >= -1.1e-5
    yield Finding(
        layer.at("running_var"),
        f"running_var is negative in {len(negative)} of {len(var)} channels"
        f" (lowest {var.min:.3g}, channel {var.index(var.min)})"
        + (": eps was subtracted, as detectron2 once did" if frozen_bn else ""),
        evidence={"channels": len(var), "negative": len(negative), "lowest": var.min, "first_channels": negative[:8]},
    )
