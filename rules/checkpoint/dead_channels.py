from collections.abc import Iterator

from bnlint import BatchNorm, Finding, Severity, batchnorm, rule

NEVER = 2.0  # no share of channels reaches it


@rule(
    severity=Severity.INFO,
    needs=["nonfinite-running-stats"],
    good=lambda: [
        batchnorm(),
        batchnorm(running_var=[1e-6, 1.0, 2.0, 0.5]),  # quiet, not dead
        batchnorm(running_var=[5e-11, 2e-10, 9e-10, 3e-10]),  # a quiet layer
        batchnorm(running_var=[0.9**50, 1.0, 2.0, 0.5], num_batches_tracked=50),  # one channel: may be chance
        batchnorm(running_var=[0.5, 0.5, 2.0, 0.7], num_batches_tracked=50),
        batchnorm(running_var=[0.9**5, 0.9**5, 2.0, 0.7], num_batches_tracked=5),  # too few batches to tell
        batchnorm(running_var=[0.0, 1.0, 2.0, 0.5], dtype="float16"),  # half-precision-damage says this
        batchnorm(running_var=[-1e-12, 1.0, 2.0, 0.5]),  # negative-running-var says this
        batchnorm(running_var=[], running_mean=[], weight=[], bias=[]),
    ],
    bad=lambda: [
        batchnorm(running_var=[0.0, 1.0, 2.0, 0.5]),
        batchnorm(running_var=[5.605193857299268e-45, 1.0, 2.0, 0.5]),
        batchnorm(running_var=[1e-12, 1.0, 2.0, 0.5], num_batches_tracked=None),
        batchnorm(running_var=[0.0], running_mean=[0.3], weight=None, bias=None),
        batchnorm(running_var=[0.0] * 4),
        batchnorm(running_var=[1e-17] * 4),
        batchnorm(running_var=[0.9**50, 0.9**50, 2.0, 0.5], num_batches_tracked=50),
        batchnorm(running_var=[0.99**500, 0.99**500, 2.0, 0.5], num_batches_tracked=500),
        batchnorm(running_var=[3.7e-40, 1.0, 2.0, 0.5], dtype="bfloat16"),
        batchnorm(running_var=[4 * 2.0**-24, 1.0, 2.0, 0.5], dtype="float16"),
    ],
)
def dead_channels(
    layer: BatchNorm, *, at_most: float = 1e-10, fraction: float = 0.0, warning_from: float = NEVER
) -> Iterator[Finding]:
    """Channels of a BatchNorm layer had a constant input in training.

    Their running_var is 0 or nearly so (`at-most`), or exactly what is left of its first value 1 when
    nothing is ever added to it: (1 - momentum) ** num_batches_tracked, with momentum 0.1 from 965
    batches on 5.605e-45, where rounding stops it. 23 of 89 published state dicts have such channels,
    3 of them whole layers: harmless as long as the input stays constant. Once it moves, by another
    precision, a resize, a new domain, eval mode multiplies it with |weight| / sqrt(eps), 316 at
    weight 1. `fraction` is the share of dead channels from which a layer is reported, `warning-from`
    the share from which it is a warning (1.0: a whole layer, as the preset `strict` has it).

    Common causes:
        A ReLU before the layer that never fires; weight decay that drove a filter to 0; pruning
        (he-y/filter-pruning-geometric-median#27); a constant input channel.

    Fix:
        Leave it, or prune the channel. For an export to float16 keep a floor under the variance:
            for name, tensor in state_dict.items():
                if name.endswith("running_var"):
                    tensor.clamp_(min=1e-5)

    When this is fine:
        Nearly always: pruned networks, depthwise convolutions, removed residual branches.
    """
    dead = layer.dead_channels(at_most)
    if not dead or len(dead) < fraction * layer.channels:
        return
    assert layer.running_var is not None
    share = len(dead) / layer.channels
    gains = layer.gains()
    gain = max([gains[channel] for channel in dead if channel < len(gains)], default=0.0)
    yield Finding(
        layer.at("running_var"),
        f"the input of {layer.in_words(dead)} was constant in training"
        f" (running_var {layer.running_var[dead[0]]:.3g}, gain up to {gain:.3g})",
        evidence={
            "channels": layer.channels,
            "dead": len(dead),
            "fraction": round(share, 4),
            "first_channels": dead[:8],
            "lowest": layer.running_var.min,
            "largest_gain": gain,
        },
        severity=Severity.WARNING if share >= warning_from else Severity.INFO,
    )
