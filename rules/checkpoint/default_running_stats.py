from collections.abc import Iterator, Sequence

from bnlint import BatchNorm, Finding, Severity, StateDict, batchnorm, rule, state_dict

RESET = {"running_mean": [0.0] * 4, "running_var": [1.0] * 4}
UNTOUCHED = {"weight": [1.0] * 4, "bias": [0.0] * 4}
OLD_INIT = {"weight": [0.04, 0.97, 0.5, 0.3], "bias": [0.0] * 4}  # torch before 1.2
PLAIN = {"weight": None, "bias": None}  # affine=False


@rule(
    severity=Severity.WARNING,
    confidence="high",
    needs=["default-stats-despite-batches", "stale-ema-stats"],
    good=lambda: [
        state_dict([batchnorm("bn1"), batchnorm("bn2", num_batches_tracked=0)]),
        reset_layers(3),  # they counted batches: default-stats-despite-batches
        batchnorm(running_var=[1.0] * 4, num_batches_tracked=0).state_dict,  # the mean did move
        batchnorm(running_mean=[], running_var=[], weight=[], bias=[]).state_dict,
    ],
    bad=lambda: [
        one_reset(num_batches_tracked=0),
        one_reset(num_batches_tracked=None),
        one_reset(num_batches_tracked=0, **PLAIN),
        one_reset(num_batches_tracked=0, **UNTOUCHED),  # info
        reset_layers(1, num_batches_tracked=None),
        reset_layers(4, num_batches_tracked=0),
        reset_layers(53, num_batches_tracked=None),  # info
        reset_layers(4, num_batches_tracked=0, **UNTOUCHED),  # info
        reset_layers(4, num_batches_tracked=0, **OLD_INIT),  # info
        reset_layers(2, num_batches_tracked=0, **PLAIN),  # info
        batchnorm(running_mean=[0.0] * 4, running_var=[1 - 1e-5] * 4, num_batches_tracked=None).state_dict,  # info
    ],
)
def default_running_stats(layers: StateDict, *, caffe_layers: int = 8) -> Iterator[Finding]:
    """The running statistics of a trained BatchNorm layer are those of a new one: mean 0, variance 1.

    Eval mode then does not normalise at all. A toy ResNet that lost its statistics this way fell from
    100 % to 77 % accuracy; a published depth decoder had lost them too (cleinc/bts#90).

    That a layer was trained shows in its bias, which starts at 0; where it has none, or no layer's
    bias moved, in the real statistics of the layers beside it. weight proves nothing: torch before
    1.2 drew it from U(0, 1) (pytorch#12259). Without such evidence the model, or an unused branch of
    it, is untrained, and the finding only informs. It only informs too where at least `caffe-layers`
    layers in a row have such statistics, no layer counts batches, and either all layers are so or all
    of one backbone: Caffe and detectron2 models fold the statistics into weight and bias.

    Common causes:
        An EMA or a save over `model.parameters()`, which leaves out the buffers (mean-teacher#9,
        sesemi#36). BatchNorm in eval mode for the whole training (habitat-lab#570, spleeter#151).
        A key filter that dropped running_mean and running_var, followed by a strict=False load.

    Fix:
        Save `model.state_dict()`, never the parameters alone. To repair this file, compute the
        statistics once more with training data:
            torch.optim.swa_utils.update_bn(train_loader, model)

    When this is fine:
        Statistics folded into weight and bias (detectors converted from Caffe: mmdetection#1217,
        Detectron#189), where the network was then fine-tuned and counts 0 batches. Say so with an
        override for those layers. A file with a single layer, no bias and no counter is always
        called untrained: nothing in it could show the difference.
    """
    default = [layer for layer in layers.batchnorms if layer.default_stats]
    identity = [layer for layer in default if layer.detectron2_identity]
    default = [layer for layer in default if not layer.detectron2_identity and not layer.num_batches_tracked]
    folded = backbone(layers, default, caffe_layers)
    if identity:
        yield together(
            layers, identity, "detectron2's identity, the statistics are folded into weight and bias", Severity.INFO
        )
    if folded:
        yield together(
            layers, folded, "none counts batches, the statistics are folded as in models from Caffe", Severity.INFO
        )
    elif len(default) == len(layers.batchnorms) > 1:
        trained = sum(layer.trained for layer in default)
        if trained:
            yield together(layers, default, f"although bias moved from 0 in {trained} of them", Severity.WARNING)
        else:
            yield together(layers, default, "as in a model that was never trained", Severity.INFO)
    else:
        yield from map(alone, default)


def backbone(layers: StateDict, default: list[BatchNorm], at_least: int) -> list[BatchNorm]:
    """These layers, where they are the trained backbone of a network that was converted from Caffe."""
    if len(default) < at_least or any(layer.tracked is not None for layer in default):
        return []
    start = layers.batchnorms.index(default[0])
    in_a_row = layers.batchnorms[start : start + len(default)] == default
    return default if in_a_row and any(layer.trained for layer in default) else []


def together(layers: StateDict, found: list[BatchNorm], remark: str, severity: Severity) -> Finding:
    """One finding for many layers."""
    total = len(layers.batchnorms)
    of_layers = f"all {total}" if len(found) == total > 1 else f"{len(found)} of {total}"
    return Finding(
        layers.at(layer.name for layer in found),
        f"running_mean is 0 and running_var 1 in {of_layers} BatchNorm layers, {remark}",
        evidence={"layers": total, "default": len(found)},
        severity=severity,
    )


def alone(layer: BatchNorm) -> Finding:
    """The finding for one layer among others that hold real statistics."""
    evidence = sign_of_training(layer)
    return Finding(
        layer.at("running_mean", "running_var"),
        f"running_mean is 0 and running_var 1 in {layer.in_words(range(layer.channels))},"
        f" {evidence or 'as in a layer that was never used'}",
        evidence={"channels": layer.channels, "num_batches_tracked": layer.num_batches_tracked},
        severity=Severity.WARNING if evidence else Severity.INFO,
    )


def sign_of_training(layer: BatchNorm) -> str:
    """What shows that this layer was trained, "" where nothing does."""
    if layer.trained:
        return "although bias moved from 0"
    real = [other for other in layer.state_dict.siblings(layer) if other.real_stats]
    unlike_the_others = layer.bias is not None and layer.untouched and any(other.trained for other in real)
    return "although the layers beside it hold real statistics" if real and not unlike_the_others else ""


def reset_layers(count: int, **given: Sequence[float] | float | None) -> StateDict:
    return state_dict([batchnorm(f"layer{number}.bn", **RESET, **given) for number in range(count)])


def one_reset(**given: Sequence[float] | float | None) -> StateDict:
    """Three layers that hold real statistics, and one that does not."""
    beside = {"weight": None, "bias": None} if given.get("bias", RESET) is None else {}
    healthy = [batchnorm(f"layer{number}.bn", **beside) for number in range(3)]
    return state_dict([*healthy, batchnorm("layer3.bn", **RESET, **given)])
