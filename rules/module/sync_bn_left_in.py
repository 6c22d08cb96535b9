from collections.abc import Iterator

from bnlint import BatchNormModule, Finding, ModuleTree, Severity, rule


@rule(
    severity=Severity.INFO,
    confidence="medium",
    good=lambda: [
        model("BatchNorm2d", training=False),
        model("SyncBatchNorm", training=True),  # training goes on
        ModuleTree("Net", [], training=False),
    ],
    bad=lambda: [
        model("SyncBatchNorm", training=False),
        model("SyncBatchNorm", training=None, origin="torchscript"),
        model("SyncBatchNorm", training=False, origin="live"),
    ],
)
def sync_bn_left_in(model: ModuleTree) -> Iterator[Finding]:
    """A model that is out of training still has SyncBatchNorm in it.

    In eval mode it computes what BatchNorm computes, but exporters do not know it (mmocr#398, mmseg#387
    and #2147), and old torch refuses it on a CPU: "SyncBatchNorm expected input tensor to be on GPU" is
    what 10 of 12 threads about it are about.

    Common causes:
        A model converted by `torch.nn.SyncBatchNorm.convert_sync_batchnorm` and saved whole.

    Fix:
        The state dicts have the same keys, so build the model with BatchNorm and load it:
        `model.load_state_dict(torch.load(path, weights_only=True))`; or mmcv's `revert_sync_batchnorm`.

    When this is fine:
        Where the model goes back to several GPUs.
    """
    if model.training is True:
        return
    synchronised = [module for module in model.batchnorms if module.kind == "SyncBatchNorm"]
    if synchronised:
        yield Finding(
            model.at(synchronised),
            f"{len(synchronised)} of {len(model.batchnorms)} BatchNorm layers are SyncBatchNorm",
            evidence={"batchnorms": len(model.batchnorms), "synchronised": len(synchronised)},
        )


def model(kind: str, training: bool | None, origin: str = "pickle") -> ModuleTree:
    layers = [BatchNormModule("bn1", kind=kind, training=training, origin=origin)]
    return ModuleTree("Net", layers, training=training, origin=origin)
