from collections.abc import Iterator

from bnlint import BatchNormModule, Finding, ModuleTree, Severity, rule


@rule(
    severity=Severity.WARNING,
    confidence="high",
    needs=["frozen-bn-in-train-mode"],
    good=lambda: [
        model(False, [False, False]),
        model(True, [True, True]),
        model(None, [True, False]),
        model(False, [None, False]),
        model(False, []),
        model(False, [True, False], origin="torchscript"),  # saved-in-train-mode speaks
        model(False, [True, False], origin="live", track_running_stats=False),
        model(True, [False, False], track_running_stats=False),
    ],
    bad=lambda: [
        model(False, [True, False]),
        model(False, [True, True], origin="live"),
        model(True, [False, True]),
        model(True, [False, False], origin="live"),
    ],
)
def mixed_train_eval(model: ModuleTree) -> Iterator[Finding]:
    """The model is in eval mode and some of its BatchNorm layers are in train mode, or the reverse.

    A BatchNorm layer in train mode inside a model in eval mode normalises by the batch: the result for
    a sample depends on the others beside it, and a batch of one of size 1x1 raises. Each forward moves
    its running statistics too, also under torch.no_grad().

    Common causes:
        `.train()` called on a part of the model after `model.eval()`. A callback that restores the
        modes of some modules only (Lightning PR#19468 shows the mode of each for this reason).
        BatchNorm in eval mode inside a model in train mode is how frozen BatchNorm is meant (info).

    Fix:
        `model.eval()` right before inference, on the whole model. To see the modes:
        `[name for name, module in model.named_modules() if module.training]`.

    When this is fine:
        Fine-tuning and detection train with BatchNorm in eval mode: that is only listed. Test-time
        adaptation runs it in train mode on purpose. Layers built with track_running_stats=False compute
        the same in both modes and are not reported.
    """
    if model.origin not in ("pickle", "live"):
        return
    other = [
        module
        for module in model.batchnorms
        if module.training is (not model.training) and module.track_running_stats is not False
    ]
    evidence = {"batchnorms": len(model.batchnorms), "in_the_other_mode": len(other)}
    if model.training is False:
        for module in other:
            yield Finding(
                module.at(), f"{module.kind} is in train mode and the model is in eval mode", evidence=evidence
            )
    elif model.training is True and other:
        yield Finding(
            model.at(other),
            f"{len(other)} of {len(model.batchnorms)} BatchNorm layers are in eval mode and the model is in train mode",
            evidence=evidence,
            severity=Severity.INFO,
        )


def model(
    training: bool | None, modes: list[bool | None], origin: str = "pickle", track_running_stats: bool = True
) -> ModuleTree:
    layers = [
        BatchNormModule(f"layer{i}.bn", training=mode, origin=origin, track_running_stats=track_running_stats)
        for i, mode in enumerate(modes)
    ]
    return ModuleTree("Net", layers, training=training, origin=origin)
