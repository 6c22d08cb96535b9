from collections.abc import Iterator, Mapping

from bnlint import BatchNormModule, Finding, ModuleTree, Severity, rule

# A pickled module may have been frozen for inference, and eval() forgotten.
SEVERITY_BY_ORIGIN = {"live": Severity.ERROR, "pickle": Severity.WARNING}
FROZEN = {"weight": False, "bias": False}


@rule(
    severity=Severity.WARNING,
    confidence="high",
    good=lambda: [
        module(training=False, requires_grad=FROZEN),
        module(training=True, requires_grad={"weight": True, "bias": True}),
        module(training=True, requires_grad={"weight": False, "bias": True}),
        module(training=True, requires_grad={"weight": True, "bias": True}, track_running_stats=False),
        module(training=True, requires_grad=FROZEN, track_running_stats=False),  # no statistics to move
        module(training=True, requires_grad={}, preceding={"conv1.weight": True}),  # affine=False, conv is trained
        module(training=True, requires_grad={}),
        module(training=None, requires_grad=FROZEN),
        module(training=True, requires_grad=FROZEN, origin="torchscript"),  # saved-in-train-mode speaks
        ModuleTree("Net", [module(training=False, requires_grad=FROZEN)], training=False),
    ],
    bad=lambda: [
        module(training=True, requires_grad=FROZEN),
        module(training=True, requires_grad=FROZEN, origin="live"),
        module(training=True, requires_grad={"weight": False}, track_running_stats=True),
        module(training=True, requires_grad={}, preceding={"conv1.weight": False, "conv1.bias": False}),
        ModuleTree("Net", [module(training=True, requires_grad=FROZEN)], training=True),
    ],
)
def frozen_bn_in_train_mode(module: BatchNormModule) -> Iterator[Finding]:
    """A BatchNorm layer has frozen parameters and is in train mode, so its statistics still move.

    `requires_grad_(False)` stops weight and bias and nothing else. In train mode the layer normalises
    by the batch and moves running_mean and running_var with every forward, under torch.no_grad() too. A
    frozen network whose data shifted moved its outputs by 0.56 in the first epoch and its running_mean
    by 1.25 standard deviations, with all weights bit-identical.

    Common causes:
        `net.requires_grad_(False)` once and `net.train()` at the top of every epoch (gt-pyg#112,
        indexnet_matting#35). A pickled model that was frozen for export and never put into eval mode.

    Fix:
        Put frozen layers into eval mode after every `model.train()`; only eval mode both stops the
        update and uses the running statistics:

            for module in model.modules():
                if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
                    module.eval()

    When this is fine:
        Methods that adapt the statistics on purpose (AdaBN, TENT), and networks that follow another
        without a gradient, such as momentum encoders (MoCo, BYOL). For a layer without parameters
        (affine=False) the layer before it is looked at.
    """
    frozen = module.frozen or (not module.requires_grad and all_frozen(module.preceding))
    if (
        not (module.training and frozen)
        or module.track_running_stats is False
        or module.origin not in SEVERITY_BY_ORIGIN
    ):
        return
    what = "weight and bias need" if module.requires_grad else f"{' and '.join(module.preceding)} before it need"
    yield Finding(
        module.at(),
        f"{what} no gradient, but {module.kind} is in train mode: its running statistics move",
        evidence={"training": True, "frozen": list(module.requires_grad or module.preceding)},
        severity=SEVERITY_BY_ORIGIN[module.origin],
    )


def all_frozen(requires_grad: Mapping[str, bool]) -> bool:
    return bool(requires_grad) and not any(requires_grad.values())


def module(
    *,
    training: bool | None,
    requires_grad: Mapping[str, bool],
    preceding: Mapping[str, bool] | None = None,
    track_running_stats: bool | None = True,
    origin: str = "pickle",
) -> BatchNormModule:
    return BatchNormModule(
        "layer1.bn1",
        origin=origin,
        training=training,
        momentum=0.1,
        track_running_stats=track_running_stats,
        requires_grad=requires_grad,
        preceding=preceding,
    )
