from collections.abc import Iterator

from bnlint import BatchNormModule, Finding, ModuleTree, Severity, rule


@rule(
    severity=Severity.WARNING,
    good=lambda: [
        archive([False, False]),
        archive([None, None]),
        archive([]),
        archive([True, True], origin="pickle"),  # pickled-module says the mode
        archive([True, True], origin="live"),
    ],
    bad=lambda: [
        archive([True, True]),
        archive([False, True]),
        archive([True], origin="export"),
    ],
)
def saved_in_train_mode(model: ModuleTree) -> Iterator[Finding]:
    """A TorchScript archive or an exported program was made with BatchNorm in train mode.

    Deployed like this it normalises by the batch: the answer for a sample depends on the samples beside
    it, and each call moves the running statistics. A graph that was traced or exported in train mode
    keeps training=True, and a later `.eval()` does not undo it (torch 2.13: after `.eval()` the output
    of a traced module still depended on the batch).

    Common causes:
        `torch.jit.trace`, `torch.jit.script` or `torch.export.export` without `model.eval()` before it.

    Fix:
        Export again: `model.eval(); torch.jit.save(torch.jit.trace(model, example), "model.pt")`.

    When this is fine:
        Archives made for training on the device.
    """
    if model.origin not in ("torchscript", "export"):
        return
    training = [module for module in model.batchnorms if module.training]
    if training:
        yield Finding(
            model.at(training),
            f"{len(training)} of {len(model.batchnorms)} BatchNorm layers were saved in train mode",
            evidence={"batchnorms": len(model.batchnorms), "training": len(training)},
        )


def archive(modes: list[bool | None], origin: str = "torchscript") -> ModuleTree:
    layers = [BatchNormModule(f"layer{i}.bn", training=mode, origin=origin) for i, mode in enumerate(modes)]
    return ModuleTree("Net", layers, training=False, origin=origin)
