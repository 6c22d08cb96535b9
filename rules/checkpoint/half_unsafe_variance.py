from collections.abc import Iterator
from math import inf

from bnlint import BatchNorm, Finding, Severity, batchnorm, rule


@rule(
    severity=Severity.INFO,
    confidence="medium",
    needs=["nonfinite-running-stats"],
    good=lambda: [
        batchnorm(),
        batchnorm(running_var=[65504.0, 1.0, 2.0, 0.5]),
        batchnorm(running_var=[inf, 1.0, 2.0, 0.5], dtype="float16"),  # half-precision-damage says this
        batchnorm(running_var=[inf] * 4),  # nonfinite-running-stats says this
    ],
    bad=lambda: [
        batchnorm(running_var=[98220.0, 1.0, 2.0, 0.5]),
        batchnorm(running_var=[3e10, 1.0, 2.0, 0.5]),
        batchnorm(running_var=[1e6], running_mean=[0.0], weight=None, bias=None, dtype="bfloat16"),
    ],
)
def half_unsafe_variance(layer: BatchNorm, *, limit: float = 65504.0, warning_from: float = 1e10) -> Iterator[Finding]:
    """A running variance is larger than float16 can hold.

    Cast to float16 (`limit` is its largest number) it becomes infinite and the channel outputs its
    bias whatever comes in. In float32 it is harmless: networks are scale-invariant, a toy network
    trained with Adam at a learning rate of 0.3 reached a variance of 1.2e6 and 98 % accuracy; 2 of
    89 published models have one. Beyond `warning-from` training has most likely diverged.

    Common causes:
        Inputs that were not normalised; a large learning rate; weights without decay in front of
        BatchNorm.

    Fix:
        Keep BatchNorm in float32 when the model goes to float16, or fold it into the convolution
        first: `torch.nn.utils.fusion.fuse_conv_bn_eval(conv, bn)` on modules in eval mode.

    When this is fine:
        Wherever the model stays in float32 or bfloat16.
    """
    var = layer.running_var
    if var is None or var.dtype == "float16":
        return
    if 0 <= var.min <= var.sum <= limit or not var.max > limit:  # none is larger than their sum
        return
    large = var.where([value > limit for value in var])
    yield Finding(
        layer.at("running_var"),
        f"running_var is over {limit:.6g} in {layer.in_words(large)}, highest {var.max:.3g}",
        evidence={"channels": len(var), "large": len(large), "highest": var.max, "first_channels": large[:8]},
        severity=Severity.WARNING if var.max >= warning_from else Severity.INFO,
    )
