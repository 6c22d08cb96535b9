from collections.abc import Iterator, Sequence
from math import ceil, log2, sqrt

from bnlint import BatchNormModule, Finding, Severity, batchnorm, rule

MEAN = [0.31, -0.12, 0.84, 0.02]
VAR = [0.91, 1.73, 0.42, 1.16]


@rule(
    severity=Severity.WARNING,
    confidence="high",
    needs=["nonfinite-running-stats", "negative-running-var", "batchnorm-length-mismatch"],
    good=lambda: [
        recalibrated(MEAN, VAR),
        recalibrated([mean + 0.05 for mean in MEAN], [1.2 * var for var in VAR]),
        recalibrated([0.0] * 4, [0.0] * 4, stored_mean=[0.0] * 4, stored_var=[1e-7] * 4),  # both below eps
        recalibrated([9.0, *[0.0] * 39], [1.0] * 40, stored_mean=[0.0] * 40, stored_var=[1.0] * 40),  # 1 of 40
        recalibrated([], [], stored_mean=[], stored_var=[]),
        BatchNormModule("bn1", origin="live"),  # no data was asked
    ],
    bad=lambda: [
        recalibrated([mean + 0.5 for mean in MEAN], VAR),
        recalibrated(MEAN, [2 * var for var in VAR]),
        recalibrated(MEAN, [var / 4 for var in VAR]),
        recalibrated(MEAN, VAR, stored_mean=[0.0] * 4, stored_var=[1.0] * 4),
        recalibrated([mean + 2 for mean in MEAN], VAR, batches=3),
    ],
)
def recalibration_gap(
    module: BatchNormModule,
    *,
    shift: float = 0.25,
    spread: float = 0.6,
    error_shift: float = 0.75,
    error_spread: float = 1.5,
    batches: int = 16,
) -> Iterator[Finding]:
    """The running statistics are not those that the data gives.

    The model ran over data with cumulative averages. Compared are, in the 95th percentile of the
    channels, |mean - running_mean| / sqrt(running_var + eps) with `shift`, and the difference of the
    variances in octaves, |log2((var + eps) / (running_var + eps))|, with `spread`. Measured on a toy
    ResNet: healthy 0.008 and 0.06; momentum 0.99 0.03 and 0.26; batches of two 0.16 and 0.29; after 20
    steps 0.37 and 0.99 (accuracy 0.14 in eval mode, 0.61 in train mode); never updated 1.3 and 2.05.
    Beyond `error-shift` or `error-spread` it is an error. Fewer than `batches` batches prove nothing:
    then the finding is only possible.

    Common causes:
        Statistics of another run or another data set; an EMA or a save over parameters only; too few
        steps for the momentum; one batch with values a thousand times too large; a forward of zeros in
        train mode. All of these but the first can leave statistics that look well.

    Fix:
        Compute them again from what training saw, with its augmentation:
            torch.optim.swa_utils.update_bn(train_loader, model)

    When this is fine:
        The data here is not what the model was trained on: another domain or augmentation, a subset of
        the classes. A backbone that keeps its pretrained statistics on purpose.
    """
    stored, measured = module.layer, module.recalibrated
    if stored is None or measured is None or not stored.running_mean or not stored.running_var:
        return
    eps = stored.eps
    variances = list(zip(stored.running_var, measured.running_var or (), strict=True))
    means = zip(stored.running_mean, measured.running_mean or (), stored.running_var, strict=True)
    shifted = percentile([abs(after - before) / sqrt(var + eps) for before, after, var in means])
    spreading = percentile([abs(log2((after + eps) / (before + eps))) for before, after in variances])
    if shifted <= shift and spreading <= spread:
        return
    count = measured.num_batches_tracked or 0
    grave = shifted > error_shift or spreading > error_spread
    yield Finding(
        module.at("running_mean", "running_var"),
        f"over {count} batches of data the mean lies {shifted:.2g} standard deviations from running_mean and the"
        f" variance is off running_var by a factor of {2**spreading:.2g} (95th percentile of {stored.channels}"
        f" channels), expected at most {shift:g} and {2**spread:.2g}",
        evidence={"shift": shifted, "spread": spreading, "batches": count, "channels": stored.channels},
        severity=Severity.ERROR if grave else Severity.WARNING,
        unknown=f"what {batches} batches or more would give" if count < batches else None,
    )


def percentile(values: Sequence[float]) -> float:
    """The 95th percentile, by nearest rank."""
    return sorted(values)[ceil(0.95 * len(values)) - 1]


def recalibrated(
    mean: Sequence[float],
    var: Sequence[float],
    *,
    stored_mean: Sequence[float] = MEAN,
    stored_var: Sequence[float] = VAR,
    batches: int = 64,
) -> BatchNormModule:
    """A layer after a pass over data that gave this mean and variance."""
    module = BatchNormModule("bn1", origin="live", momentum=0.1)
    batchnorm(module=module, running_mean=stored_mean, running_var=stored_var, weight=None, bias=None)
    module.recalibrated = batchnorm(running_mean=mean, running_var=var, num_batches_tracked=batches)
    return module
