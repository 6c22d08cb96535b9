from collections.abc import Iterator

from bnlint import Finding, Pair, Severity, batchnorm, pair, rule, state_dict


@rule(
    severity=Severity.WARNING,
    confidence="high",
    good=lambda: [
        after(batches=0),  # the same file twice
        after(batches=0, by=0.1),  # stats-replaced
        after(batches=6, by=0.1),  # a run, or a recalibration: frozen-bn-drifted
        after(batches=1, by=0.1, same_elsewhere=1),  # another weight changed
        after(batches=1, by=0.1, same_elsewhere=None),  # --shallow: nobody read the other weights
        after(batches=1, by=0.1, bias=0.2),  # trained
        after(batches=None, by=0.1),
    ],
    bad=lambda: [after(batches=1, by=0.1), after(batches=5, by=0.1)],
)
def forward_pollution(both: Pair, *, batches: int = 5) -> Iterator[Finding]:
    """A few forwards in train mode moved the running statistics of a model that was not trained.

    Every weight of the two files is equal bit for bit, at most 5 batches were counted, and running_mean
    or running_var moved. One forward of zeros takes the statistics a tenth of the way to mean 0 and
    variance 0, thirty of them took a toy network from 100 % to 92 %; `summary(model)` cost a user 3 %
    (pytorch-summary#67).

    Common causes:
        A forward to print a summary, to warm up, to trace, or to probe a shape, with a model that is in
        train mode as a new one is (torchinfo#21, torchvista#39, EfficientAD#13, ultralytics PR#14829).
        `torch.no_grad()` does not stop it.

    Fix:
        Load the reference again, and call `model.eval()` before the forward that is not training.

    When this is fine:
        A network that is frozen as a whole and meant to adapt to its data, batch by batch.
    """
    if not both.into_checkpoint or not both.same_weights:
        return
    drifted = both.verdicts.get("drifted", [])
    if drifted and all(change.batches is not None and change.batches <= batches for change in both.changes):
        most = max(change.batches or 0 for change in drifted)
        shift = max(change.mean_shift for change in drifted)
        yield Finding(
            both.at([change.name for change in drifted]),
            f"all weights are equal, yet {most} batch{'' if most == 1 else 'es'} in train mode moved running_mean"
            f" by up to {shift:.2g} sd in {len(drifted)} of {len(both.changes)} BatchNorm layers",
            evidence={"batches": most, "moved": len(drifted), "layers": len(both.changes), "mean_shift_sd": shift},
        )


def after(*, batches: int | None, by: float = 0.0, bias: float = 0.11, same_elsewhere: int | None = 2) -> Pair:
    """One layer and two other weights, before and after so many forwards."""
    counted = None if batches is None else 10_000 + batches
    later = batchnorm(
        running_mean=[0.31 + by, -0.12, 0.84, 0.02], bias=[bias, -0.27, 0.05, -0.02], num_batches_tracked=counted
    )
    return pair(state_dict([batchnorm()]), state_dict([later]), same_elsewhere=same_elsewhere, other_tensors=2)
