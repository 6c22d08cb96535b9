from collections.abc import Iterator

from bnlint import (
    BatchNormModule,
    Finding,
    OptimizerState,
    Severity,
    StateDict,
    batchnorm,
    checkpoint,
    rule,
    state_dict,
)


@rule(
    severity=Severity.WARNING,
    confidence="high",
    good=lambda: [
        state_dict([batchnorm(dtype="float16"), batchnorm("bn2", dtype="bfloat16")]),  # an inference file
        in_training("float32"),
        in_training("bfloat16", steps=0),  # the optimizer never stepped
        pickled("float16", training=False),
    ],
    bad=lambda: [in_training("bfloat16"), in_training("float16"), pickled("bfloat16", training=True)],
)
def low_precision_stats(layers: StateDict) -> Iterator[Finding]:
    """Training keeps the running statistics in bfloat16 or float16.

    An update that is smaller than 1/256 of the value (bfloat16; 1/2048 in float16) is rounded away.
    Measured against a true mean of 0.5: with momentum 0.01 bfloat16 stays at 0.418, with 0.001 at
    0.25 and running_var is still exactly 1 after 8000 batches. That the file is one of training
    shows in its optimizer state, or in a pickled module's training flag.

    Common causes:
        `model.bfloat16()` or `model.half()` before training, apex O3, DeepSpeed bf16 (apex PR 137,
        PR 144; pytorch#75478).

    Fix:
        Convert everything but BatchNorm; torch mixes the types by itself:
            model.bfloat16()
            for module in model.modules():
                if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
                    module.float()
        or train with torch.autocast, which leaves the buffers in float32.

    When this is fine:
        A copy that was cast for saving only while training goes on in float32. A pickled model all in
        float16 beside an optimizer is how ultralytics saves; there the finding is only possible.
    """
    optimizers = layers.checkpoint.optimizers if layers.checkpoint is not None else ()
    stepped = any(optimizer.state for optimizer in optimizers)
    low = [
        layer
        for layer in layers.batchnorms
        if layer.stats_dtype in ("bfloat16", "float16")
        and (stepped or (layer.module is not None and layer.module.training))
    ]
    if not low:
        return
    dtypes = " and ".join(sorted({layer.stats_dtype for layer in low}))
    cast_to_save = low[0].module is not None and dtypes == "float16"
    yield Finding(
        layers.at(layer.name for layer in low),
        f"running_mean and running_var are {dtypes} in {len(low)} of {len(layers.batchnorms)} BatchNorm layers"
        f" {'beside an optimizer state' if stepped else 'of a model in training mode'}, expected float32",
        evidence={"layers": len(low), "dtype": dtypes},
        unknown="whether training goes on in float32" if cast_to_save else None,
    )


def in_training(dtype: str, steps: int = 10) -> StateDict:
    """A state dict beside the optimizer that trains it."""
    layers = state_dict([batchnorm(dtype=dtype)])
    checkpoint(layers, optimizers=[OptimizerState("optimizer", [[0, 1]], {0: {"step": steps}} if steps else {})])
    return layers


def pickled(dtype: str, training: bool) -> StateDict:
    """The state dict of a pickled module."""
    return batchnorm(dtype=dtype, module=BatchNormModule("bn1", training=training)).state_dict
