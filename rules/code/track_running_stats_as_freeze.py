from collections.abc import Iterator

from bnlint import BatchNormModule, Finding, Severity, batchnorm, rule


@rule(
    severity=Severity.WARNING,
    confidence="high",
    good=lambda: [
        batchnorm(module=untracked(True)).module,
        batchnorm(module=untracked(None)).module,
        untracked(False),  # built so: it has no statistics
        batchnorm(module=untracked(False), running_mean=None, running_var=None).module,  # as TENT does it
    ],
    bad=lambda: [
        batchnorm(module=untracked(False)).module,
        batchnorm(module=untracked(False), num_batches_tracked=None).module,
    ],
)
def track_running_stats_as_freeze(module: BatchNormModule) -> Iterator[Finding]:
    """track_running_stats was set to False on a BatchNorm layer that has running statistics.

    Since torch 1.6 this stops the update, and in train mode the layer still normalises by the batch, so
    train and eval mode disagree: of the five ways people freeze a BatchNorm layer only eval() both stops
    the update and uses the running statistics. torch 1.1 to 1.5 even kept updating with the flag off and
    used the batch in eval mode (pytorch#20967, #37823, #38084, #44415).

    Common causes:
        A freeze written as `bn.track_running_stats = False`, often with a comment that it holds "even if
        we call model.train() later" (Lightning PR#15063, finetuning-scheduler#13).

    Fix:
        Leave the flag alone and call `bn.eval()` after every `model.train()`.

    When this is fine:
        Test-time adaptation that wants the statistics of the batch; it sets running_mean and
        running_var to None as well.
    """
    layer = module.layer
    if module.track_running_stats is not False or layer is None:
        return
    if layer.running_mean is not None and layer.running_var is not None:
        yield Finding(
            module.at("running_mean", "running_var"),
            "track_running_stats is False and the layer has running statistics: train mode uses the batch's",
            evidence={"track_running_stats": False, "channels": layer.channels, "training": module.training},
        )


def untracked(track_running_stats: bool | None) -> BatchNormModule:
    return BatchNormModule("bn1", momentum=0.1, track_running_stats=track_running_stats)
