from collections.abc import Iterator

from bnlint import BatchNorm, Finding, Severity, batchnorm, rule


@rule(
    severity=Severity.OFF,
    on_request=Severity.INFO,
    confidence="medium",
    needs=["nonfinite-running-stats"],
    good=lambda: [
        batchnorm(),
        batchnorm(weight=None, bias=None),
        batchnorm(weight=[0.0] * 4, num_batches_tracked=300),  # zero-initialised residual branch, early
    ],
    bad=lambda: [
        batchnorm(weight=[1e-6, 1.0, 1.0, -1.0]),
        batchnorm(weight=[0.0, 1.0, 1.0, 1.0]),
        batchnorm(weight=[0.0] * 4, num_batches_tracked=5000),
        batchnorm(weight=[0.0] * 4, num_batches_tracked=None),
    ],
)
def tiny_gamma(layer: BatchNorm, *, relative: float = 1e-3, late: int = 1000) -> Iterator[Finding]:
    """Channels of a BatchNorm layer have a weight (gamma) of nearly 0.

    They output their bias whatever comes in: below `relative` times the layer's median a channel
    passes less than a thousandth of what its neighbours pass. A whole layer of zeros after more than
    `late` batches is a warning, a branch that never learned anything. 35 of 89 published models have
    such channels, so the rule is off unless asked for.

    Common causes:
        Weight decay on channels that are of no use; L1 pruning (network slimming#46); a residual
        branch whose last BatchNorm started at 0 and got no gradient.

    Fix:
        Prune the channels. For a branch that stayed at 0 look whether its parameters are in the
        optimizer: `assert all(p.grad is not None for p in branch.parameters())` after one backward.

    When this is fine:
        Zero-initialised residual branches early in training (torchvision zero_init_residual): a whole
        layer of zeros with at most `late` batches is not reported. Pruned networks.
    """
    weight = layer.weight
    if not weight:
        return
    if weight.all_equal(0.0):
        yield from untaught(layer, late)
        return
    sizes = sorted(map(abs, weight))
    limit = relative * sizes[len(sizes) // 2]
    if sizes[0] >= limit and sizes[0] > 0:
        return
    tiny = weight.where([abs(gamma) < limit or gamma == 0 for gamma in weight])
    yield Finding(
        layer.at("weight"),
        f"weight is below {limit:.2g} ({relative:g} of the median) in {layer.in_words(tiny)}",
        evidence={"channels": layer.channels, "tiny": len(tiny), "first_channels": tiny[:8]},
    )


def untaught(layer: BatchNorm, late: int) -> Iterator[Finding]:
    """A layer whose weight is 0 throughout, where it had the time to learn."""
    batches = layer.num_batches_tracked
    if batches is not None and batches <= late:
        return
    yield Finding(
        layer.at("weight"),
        f"weight is 0 in {layer.in_words(range(layer.channels))}"
        + ("" if batches is None else f" after {batches} batches"),
        evidence={"channels": layer.channels, "tiny": layer.channels, "num_batches_tracked": batches},
        severity=Severity.WARNING,
        unknown="how many batches the layer saw" if batches is None else None,
    )
