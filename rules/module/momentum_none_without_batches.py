from collections.abc import Iterator

from bnlint import BatchNormModule, Finding, Severity, batchnorm, rule

FRESH = {"running_mean": [0.0] * 4, "running_var": [1.0] * 4}


@rule(
    severity=Severity.WARNING,
    confidence="high",
    good=lambda: [
        batchnorm(module=cumulative(), num_batches_tracked=500).module,
        batchnorm(module=cumulative(), num_batches_tracked=0, **FRESH).module,  # a new layer, or before update_bn
        batchnorm(module=BatchNormModule("bn1", momentum=0.1), num_batches_tracked=0).module,
        batchnorm(module=BatchNormModule("bn1", momentum_known=False), num_batches_tracked=0).module,
        cumulative(),  # the numbers are not known
    ],
    bad=lambda: [
        batchnorm(module=cumulative(), num_batches_tracked=0).module,
        batchnorm(module=cumulative(), num_batches_tracked=None).module,
    ],
)
def momentum_none_without_batches(module: BatchNormModule) -> Iterator[Finding]:
    """momentum is None and no batches are counted, but the layer has real statistics.

    With momentum None the statistics are a plain average over all batches: batch n enters with weight
    1/n. At a count of 0 the next training batch enters with weight 1/1 and replaces everything: a
    pretrained (mean 5, variance 4) became (-31, 5843) after one odd batch; with a count of 10000 it
    stayed at (4.996, 4.638).

    Common causes:
        Statistics loaded from a file without num_batches_tracked, or copied by hand, into a layer with
        momentum=None.

    Fix:
        Set the count to what it was, `bn.num_batches_tracked.fill_(10_000)`, or `bn.momentum = 0.1`.

    When this is fine:
        In a model that is never trained again, and right before `torch.optim.swa_utils.update_bn`,
        which starts over on purpose.
    """
    layer = module.layer
    if layer is None or not module.momentum_known or module.momentum is not None:
        return
    missing = "num_batches_tracked" not in layer.tensors
    uncounted = missing or layer.num_batches_tracked == 0
    if uncounted and layer.running_mean is not None and layer.running_var is not None and not layer.default_stats:
        yield Finding(
            module.at("num_batches_tracked"),
            f"momentum is None and num_batches_tracked is {'missing' if missing else 0}:"
            " the next training batch replaces the running statistics",
            evidence={"momentum": None, "num_batches_tracked": layer.num_batches_tracked},
        )


def cumulative() -> BatchNormModule:
    return BatchNormModule("bn1", momentum=None)
