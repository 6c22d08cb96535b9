from collections.abc import Iterator
from math import inf

from bnlint import Assumed, BatchNorm, Finding, Severity, Vector, batchnorm, rule

LARGEST = 65504.0  # the largest finite float16
SMALLEST_NORMAL = 2.0**-14  # 6.1e-5


@rule(
    severity=Severity.WARNING,
    confidence="high",
    needs=["nonfinite-running-stats"],
    good=lambda: [
        batchnorm(dtype="float16"),
        batchnorm(running_var=[1e5, 1e-7, 2.0, 0.5]),  # float32 holds both
        batchnorm(running_var=[1e5, 1e-7, 2.0, 0.5], dtype="bfloat16"),
        batchnorm(running_var=[0.0, 1.0, 2.0, 0.5], dtype="float16", assumed=Assumed(eps=1e-3)),
    ],
    bad=lambda: [
        batchnorm(running_var=[inf, 1.0, 2.0, 0.5], dtype="float16"),
        batchnorm(running_var=[65504.0, 1.0, 2.0, 0.5], dtype="float16"),
        batchnorm(running_mean=[0.1, -65504.0, 0.0, 0.5], dtype="float16"),
        batchnorm(running_var=[0.0, 1.0, 2.0, 0.5], dtype="float16"),
        batchnorm(running_var=[3e-5, 1.0, 2.0, 0.5], dtype="float16"),
        batchnorm(running_var=[inf], running_mean=[0.0], weight=None, bias=None, dtype="float16"),
    ],
)
def half_precision_damage(layer: BatchNorm, *, harmless_eps: float = 1e-3) -> Iterator[Finding]:
    """A running statistic did not survive the cast to float16.

    float16 ends at 65504: a larger running_var becomes +inf, and x / sqrt(inf) is 0, so the channel
    outputs its bias whatever comes in (measured; apple/coreai-torch PR 54 found the same in an
    exporter: an absolute error of 4.9). A variance below 6.1e-5 loses digits, below 3e-8 it is 0:
    next to an eps of 1e-5 that moves the gain by 0.15 %, where a device flushes such small numbers
    to 0 it divides by 0. +inf in running_var is said here and not by nonfinite-running-stats; an
    infinite running_mean makes the whole channel infinite and is an error there. `harmless-eps` is
    the eps from which small variances are not worth a word.

    Common causes:
        `model.half()`, or `{k: v.half() for k, v in state_dict.items()}`, with activations whose
        standard deviation is over 256 (256 squared is 65536).

    Fix:
        Keep BatchNorm in float32, as apex does (apex PR 144):
            model.half()
            for module in model.modules():
                if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
                    module.float()
        or fold it into the convolutions before the cast (torch.nn.utils.fusion.fuse_conv_bn_eval).
        What overflowed has to come from the float32 file.

    When this is fine:
        Small variances in dead channels, or in a network built with an eps of 1e-3 or more: say
        `assume: {eps: 0.001}`.
    """
    if layer.stats_dtype != "float16":
        return
    statistics = {leaf: vector for leaf, vector in layer.vectors.items() if leaf.startswith("running_")}
    overflow = {leaf: overflowed(vector) for leaf, vector in statistics.items()}
    channels = sorted({channel for found in overflow.values() for channel in found})
    if channels:
        yield Finding(
            layer.at(*[leaf for leaf in overflow if overflow[leaf]]),
            f"{' and '.join(leaf for leaf in overflow if overflow[leaf])} overflowed in the cast to float16"
            f" (infinite, or the largest value {LARGEST:.0f}) in {layer.in_words(channels)}",
            evidence={"channels": layer.channels, "overflowed": len(channels), "first_channels": channels[:8]},
        )
    small = underflowed(layer.running_var) if layer.eps < harmless_eps else []
    if small:
        yield Finding(
            layer.at("running_var"),
            f"running_var is below {SMALLEST_NORMAL:.2g}, where float16 loses digits, in {layer.in_words(small)}",
            evidence={"channels": layer.channels, "underflowed": len(small), "first_channels": small[:8]},
            severity=Severity.INFO,
        )


def overflowed(vector: Vector) -> list[int]:
    if vector.dtype != "float16" or (vector.finite and vector.largest < LARGEST):
        return []
    return [channel for channel, value in enumerate(vector) if abs(value) >= LARGEST]


def underflowed(var: Vector | None) -> list[int]:
    if var is None or var.dtype != "float16" or var.min >= SMALLEST_NORMAL:
        return []
    return [channel for channel, value in enumerate(var) if 0 <= value < SMALLEST_NORMAL]
