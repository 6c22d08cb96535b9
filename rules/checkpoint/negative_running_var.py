from collections.abc import Iterator
from math import nan

from bnlint import BatchNorm, Finding, Severity, batchnorm, rule


@rule(
    severity=Severity.ERROR,
    needs=["nonfinite-running-stats"],
    good=lambda: [
        batchnorm(),
        batchnorm(running_var=[0.0, 1.0, 2.0, 0.5]),
        batchnorm(running_var=None),
        batchnorm(running_var=[nan] * 4),  # nonfinite-running-stats says this
        batchnorm(running_mean=[0.0], running_var=[-0.4, 1.0]),  # not the statistics of one layer
    ],
    bad=lambda: [
        batchnorm(running_var=[-9.9e-6, 1.0, 2.0, 0.5]),
        batchnorm(running_var=[-0.4, 1.0, -2.0, 0.5]),
        batchnorm(running_var=[-0.4, *[1.0] * 15], running_mean=[0.0] * 16, weight=None, bias=None),
        batchnorm(running_var=[-1.0], running_mean=[0.0], weight=None, bias=None, dtype="float16"),
    ],
)
def negative_running_var(
    layer: BatchNorm, *, subtracted_eps: float = 1.1e-5, wrong_tensor: float = 0.1
) -> Iterator[Finding]:
    """A channel's running variance is negative.

    In eval mode BatchNorm divides by sqrt(running_var + eps): at -eps and below the channel is NaN
    (measured: -1e-5 and -1.1e-5 with eps 1e-5), just above it is amplified up to a thousandfold
    (-9.9e-6: 9884 for an input of 2). No training produces a negative variance. `subtracted-eps` is
    how far below 0 values may lie that detectron2 made; `wrong-tensor` the share of negative channels
    that says the numbers are not variances at all (mean and variance swapped: 64 %).

    Common causes:
        detectron2's FrozenBatchNorm2d once subtracted eps while it loaded a version-2 file; then no
        value is below -1e-5 (detectron2#2413). A converter read the wrong blob or offset, or swapped
        mean and variance; then many channels are negative (pytorch-caffe-darknet-convert#48,
        hufu6371/DORN#25).

    Fix:
        With every value above -1.1e-5 add eps back: `state_dict[name + ".running_var"] += 1e-5`.
        Otherwise convert the file again and compare one layer's running_mean and running_var with
        the original.

    When this is fine:
        Never.
    """
    var = layer.running_var
    if var is None or not var.min < 0:
        return
    if layer.running_mean is not None and len(layer.running_mean) != len(var):
        return
    negative = var.where([value < 0 for value in var])
    if var.min >= -subtracted_eps:
        cause = ": eps was subtracted, as detectron2 once did"
    elif len(negative) > max(1, wrong_tensor * len(var)):
        cause = ": these are not variances"
    else:
        cause = ""
    yield Finding(
        layer.at("running_var"),
        f"running_var is negative in {layer.in_words(negative)}, lowest {var.min:.3g}{cause}",
        evidence={"channels": len(var), "negative": len(negative), "lowest": var.min, "first_channels": negative[:8]},
    )
