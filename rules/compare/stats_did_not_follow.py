from collections.abc import Iterator, Sequence

from bnlint import Change, Finding, Pair, Severity, batchnorm, pair, rule, state_dict

DEAD = [5.605e-45] * 4


@rule(
    severity=Severity.ERROR,
    confidence="high",
    needs=["nonfinite-running-stats"],
    good=lambda: [
        trained(batches=0),  # BatchNorm was in eval mode
        trained(batches=200, mean=[0.3, -0.1, 0.8, 0.0]),  # as it should be
        trained(batches=200, var=DEAD),  # constant channels stay where they are
        trained(batches=None),  # a FrozenBatchNorm2d has no counter
        trained(batches=200, bias=[0.11, -0.27, 0.05, -0.02]),  # frozen
    ],
    bad=lambda: [trained(batches=200), trained(batches=1), trained(batches=200, var=[*DEAD[:3], 1.0])],
)
def stats_did_not_follow(layer: Change) -> Iterator[Finding]:
    """The weights were trained in train mode and the running statistics did not move by a single bit.

    Batches were counted and weights changed, so every forward measured other statistics; yet
    running_mean and running_var are those of the reference. Eval mode normalises with statistics of
    other weights: a network whose statistics stayed at their defaults was right in 77 % of the cases,
    100 % with its own.

    Common causes:
        momentum=0 to "freeze" the statistics, which counts batches all the same
        (Cadene/pretrained-models#5); statistics in bfloat16 with a small momentum, where the update is
        less than the last bit (with momentum 0.001 variance 1 stays 1 for ever).

    Fix:
        Set momentum to 0.1, keep BatchNorm in float32, and measure the statistics of the new weights:
            torch.optim.swa_utils.update_bn(train_loader, model)
        To keep the old statistics on purpose, train with BatchNorm in eval mode.

    When this is fine:
        Never, where a channel of the layer is alive.
    """
    if layer.verdict != "stuck" or not layer.after.finite:
        return
    live = layer.channels - len(layer.after.dead_channels())
    if live > 0:
        yield Finding(
            layer.at("running_mean", "running_var"),
            f"trained for {layer.batches} batches, yet running_mean and running_var are equal bit for bit"
            f" in all {layer.channels} channels",
            evidence={"batches": layer.batches, "channels": layer.channels, "live": live},
        )


def trained(
    *,
    batches: int | None,
    mean: Sequence[float] = (0.31, -0.12, 0.84, 0.02),
    var: Sequence[float] = (0.91, 1.73, 0.42, 1.16),
    bias: Sequence[float] = (0.2, -0.2, 0.1, 0.0),
) -> Pair:
    """One layer before and after so many batches."""
    counts = (None, None) if batches is None else (10_000, 10_000 + batches)
    before = batchnorm(running_var=var, num_batches_tracked=counts[0])
    after = batchnorm(running_mean=mean, running_var=var, bias=bias, num_batches_tracked=counts[1])
    return pair(state_dict([before]), state_dict([after]))
