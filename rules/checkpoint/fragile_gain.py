from collections.abc import Iterator

from bnlint import Assumed, BatchNorm, Finding, Severity, batchnorm, rule


@rule(
    severity=Severity.OFF,
    on_request=Severity.INFO,
    confidence="low",
    needs=["nonfinite-running-stats", "negative-running-var"],
    good=lambda: [
        batchnorm(),
        batchnorm(running_var=[0.0, 1.0, 2.0, 0.5], weight=[0.0, 1.0, 1.0, 1.0]),  # nothing passes
        batchnorm(running_var=[1e-6, 1.0, 2.0, 0.5], assumed=Assumed(eps=1e-3)),
        batchnorm(running_var=[2e-4, 1.0, 2.0, 0.5], weight=[3.0, 1.0, 1.0, 1.0]),  # the data decide, not eps
        batchnorm(running_var=[1e-6, 1.0, 2.0, 0.5], weight=[0.1, 60.0, 1.0, 1.0]),
    ],
    bad=lambda: [
        batchnorm(running_var=[1e-6, 1.0, 2.0, 0.5]),
        batchnorm(running_var=[0.0], running_mean=[0.0], weight=None, bias=None),
    ],
)
def fragile_gain(layer: BatchNorm, *, gain: float = 50.0, below_eps: float = 10.0) -> Iterator[Finding]:
    """eps, and not the data, decides how much eval mode amplifies a channel.

    |weight| / sqrt(running_var + eps) is over `gain` although running_var is below `below-eps` times
    eps: a changed eps or a lower precision changes the output. At a variance of 1e-5 the step from
    eps 1e-5 to 1e-3 changes the gain by a factor of 7. Healthy toy networks stay below 20, but 21
    of 89 published models have such channels (up to 228), so the rule is off unless asked for.

    Common causes:
        Channels that hardly vary under a large weight; weight decay on everything but BatchNorm
        (pytorch#5410).

    Fix:
        Check eps on both sides of every conversion (Keras, TensorFlow and YOLO have 1e-3, torch 1e-5):
        `BatchNorm2d(channels, eps=1e-3)`. Or prune the channel.

    When this is fine:
        As long as eps and precision stay as they were in training; with eps=1e-3 (`assume: {eps: 0.001}`).
    """
    var = layer.running_var
    if not var or var.min >= below_eps * layer.eps:
        return
    gains = layer.gains()
    fragile = [c for c, value in enumerate(gains) if value > gain and var[c] < below_eps * layer.eps]
    if fragile:
        largest = max(gains[channel] for channel in fragile)
        yield Finding(
            layer.at("weight", "running_var") if layer.weight is not None else layer.at("running_var"),
            f"eval mode amplifies {layer.in_words(fragile)} up to {largest:.3g} times (limit {gain:g})"
            f" and eps {layer.eps:g} decides by how much",
            evidence={
                "channels": layer.channels,
                "fragile": len(fragile),
                "largest_gain": largest,
                "first_channels": fragile[:8],
                **layer.assumptions("eps"),
            },
        )
