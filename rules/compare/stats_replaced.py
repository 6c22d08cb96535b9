from collections.abc import Iterator, Sequence

from bnlint import BatchNorm, Change, Finding, Pair, Severity, batchnorm, pair, rule, state_dict

TRAINED = [0.2, -0.2, 0.1, 0.0]  # a bias
SAID = {
    "eval": "trained with BatchNorm in eval mode: the weights changed, the running statistics are equal bit for bit,"
    " and no batch was counted",
    "replaced": "the running statistics were replaced: the weights are equal, and no batch was counted",
    "averaged": "averaged, or copied from elsewhere: weights and running statistics changed, and no batch was counted",
    "rewound": "num_batches_tracked went back: the statistics were measured anew, or the files are swapped",
}


@rule(
    severity=Severity.INFO,
    good=lambda: [
        becoming(batchnorm()),
        becoming(moved(num_batches_tracked=10_200)),
        becoming(moved(bias=TRAINED, num_batches_tracked=10_200)),
        becoming(batchnorm(bias=TRAINED, num_batches_tracked=None)),  # nobody knows
    ],
    bad=lambda: [
        becoming(moved()),
        becoming(batchnorm(bias=TRAINED)),
        becoming(moved(bias=TRAINED)),
        becoming(moved(num_batches_tracked=7)),
    ],
)
def stats_replaced(layer: Change) -> Iterator[Finding]:
    """The running statistics and the weights of a layer changed without each other, or without a batch.

    num_batches_tracked says how many batches moved the statistics. Where it stands still, nothing was
    measured in train mode: the layer was in eval mode while its weights were trained, or its numbers
    came from elsewhere. Where it went back, it was reset.

    Common causes:
        Fine-tuning with BatchNorm in eval mode (mmdetection's norm_eval); an EMA, a soup or federated
        averaging; AdaBN; a conversion; torch.optim.swa_utils.update_bn, which counts from 0.

    Fix:
        Nothing to repair. Where the numbers went back, look whether reference and checkpoint are in the
        right order: the reference is the older one.

    When this is fine:
        Nearly always: the finding says which of these it was.
    """
    said = SAID.get(layer.verdict)
    if said is not None and layer.batches is not None:
        yield Finding(
            layer.at("running_mean", "running_var"),
            said,
            evidence={"verdict": layer.verdict, "batches": layer.batches, "mean_shift_sd": layer.mean_shift},
        )


def moved(*, bias: Sequence[float] = (0.11, -0.27, 0.05, -0.02), num_batches_tracked: int = 10_000) -> BatchNorm:
    return batchnorm(running_mean=[0.2, -0.2, 0.9, 0.1], bias=bias, num_batches_tracked=num_batches_tracked)


def becoming(after: BatchNorm) -> Pair:
    """A healthy layer, and what became of it."""
    return pair(state_dict([batchnorm()]), state_dict([after]))
