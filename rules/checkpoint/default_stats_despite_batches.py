from collections.abc import Iterator

from bnlint import BatchNorm, BatchNormModule, Finding, Severity, StateDict, batchnorm, rule, state_dict, tensor

RESET = {"running_mean": [0.0] * 4, "running_var": [1.0] * 4}


@rule(
    severity=Severity.ERROR,
    confidence="high",
    needs=["stale-ema-stats"],
    good=lambda: [
        state_dict([batchnorm("bn1"), batchnorm("bn2")]),
        one_reset(0),  # default-running-stats says these two
        one_reset(None),
        one_reset(-3),  # invalid-num-batches-tracked says this
        batchnorm(running_mean=[0.0] * 4, running_var=[1 - 1e-5] * 4, num_batches_tracked=500).state_dict,
        state_dict([batchnorm(**RESET)], other={"base_model.conv1.lora_A.weight": tensor([0.1])}),
    ],
    bad=lambda: [
        one_reset(10_000),
        one_reset(1),
        state_dict([batchnorm(**RESET)]),
        state_dict([batchnorm("bn1", **RESET), batchnorm("bn2", **RESET), batchnorm("bn3", **RESET)]),
        state_dict([batchnorm("bn1", **RESET, weight=None, bias=None), batchnorm("bn2", weight=None, bias=None)]),
        state_dict([batchnorm(**RESET, weight=[1.0] * 4, bias=[0.0] * 4)]),
        state_dict([batchnorm(**RESET, module=BatchNormModule("bn1", momentum=0.0))]),
        state_dict([batchnorm(**RESET, dtype="bfloat16")]),
    ],
)
def default_stats_despite_batches(layers: StateDict) -> Iterator[Finding]:
    """A BatchNorm layer counted batches, but its running statistics are those of a new layer.

    In training mode every batch adds 1 to num_batches_tracked and moves the statistics; here the
    first happened and the second did not. Eval mode then normalises with mean 0 and variance 1
    whatever the data: a network that classifies 100 % of a toy set right in training mode got 77 %.

    Common causes:
        momentum=0, taken from a framework where 0 means "no smoothing" (Inception in
        Cadene/pretrained-models.pytorch#5; measured: 400 batches, statistics 0 and 1, counter 400).
        Statistics in bfloat16 with a momentum of 0.001: after 8000 batches running_var is still
        exactly 1. Buffers overwritten after training, or a key filter that dropped running_mean and
        running_var but kept the counter.

    Fix:
        Build BatchNorm with momentum=0.1 and in float32, then compute the statistics once more; the
        weights are not affected:
            for module in model.modules():
                if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
                    module.float()
                    module.momentum = 0.1
            torch.optim.swa_utils.update_bn(train_loader, model)

    When this is fine:
        The statistics were folded into weight and bias on purpose and the counter was kept. bnlint
        recognises detectron2's identity (variance 1 - 1e-5) and adapter files (lora_ keys) and says
        nothing there; a counter that was copied in from another file it cannot recognise.
    """
    reset = [layer for layer in layers.batchnorms if layer.default_stats and layer.num_batches_tracked]
    reset = [layer for layer in reset if not layer.detectron2_identity]
    if not reset or any("lora_" in key for key in layers.tensors):
        return
    if len(reset) == len(layers.batchnorms) > 1:
        batches = max(layer.num_batches_tracked or 0 for layer in reset)
        yield Finding(
            layers.at(layer.name for layer in reset),
            f"running_mean is 0 and running_var 1 in all {len(reset)} BatchNorm layers,"
            f" although {batches} batches were counted{because(reset[0])}",
            evidence={"layers": len(reset), "num_batches_tracked": batches},
        )
        return
    for layer in reset:
        yield Finding(
            layer.at("running_mean", "running_var"),
            f"running_mean is 0 and running_var 1 in {layer.in_words(range(layer.channels))},"
            f" although {layer.num_batches_tracked} batches were counted{because(layer)}",
            evidence={"channels": layer.channels, "num_batches_tracked": layer.num_batches_tracked},
        )


def because(layer: BatchNorm) -> str:
    """What the file itself says of the cause."""
    if layer.momentum_known and layer.momentum == 0:
        return ", momentum is 0"
    return f", the statistics are {layer.stats_dtype}" if layer.stats_dtype in ("bfloat16", "float16") else ""


def one_reset(batches: float | None) -> StateDict:
    """A healthy state dict, but for one layer."""
    return state_dict([batchnorm("bn1"), batchnorm("bn2", **RESET, num_batches_tracked=batches), batchnorm("bn3")])
