from collections.abc import Iterator

from bnlint import Assumed, BatchNorm, Finding, Severity, StateDict, batchnorm, rule, state_dict, tensor

AFTER_TWO = {"running_mean": [0.1, -0.1, 0.0, 0.2], "running_var": [0.81, 0.93, 1.4, 0.9], "num_batches_tracked": 2}
ZEROS_ONCE = {"running_mean": [0.0] * 4, "running_var": [0.9] * 4, "num_batches_tracked": 1}
PLAIN = {"weight": None, "bias": None}  # affine=False


@rule(
    severity=Severity.WARNING,
    possible=Severity.WARNING,
    confidence="medium",
    good=lambda: [
        state_dict([batchnorm("bn1"), batchnorm("bn2")]),
        model(num_batches_tracked=0),
        model(num_batches_tracked=None),
        model(num_batches_tracked=2),  # running_var is below 0.81: the counter counts something else (EMA)
        model(**AFTER_TWO, bias=[0.0] * 4),  # untrained
        model(**{**AFTER_TWO, "num_batches_tracked": 21, "bias": [0.005] * 4}),
        model(**ZEROS_ONCE, **PLAIN),  # a new model after one forward of zeros
        model(**ZEROS_ONCE, weight=[1.0] * 4, bias=[0.0] * 4),
        model(**{**AFTER_TWO, "num_batches_tracked": 40}),
        model(**AFTER_TWO, assumed=Assumed(momentum=0.9)),
        state_dict([batchnorm("module.bn1", **AFTER_TWO)], other={"n_averaged": tensor(5, "int64")}),
        state_dict([batchnorm("bn1", **AFTER_TWO), batchnorm("bn2", num_batches_tracked=2)]),
    ],
    bad=lambda: [
        model(**AFTER_TWO),
        model(**AFTER_TWO, **PLAIN),
        model(**{**AFTER_TWO, "bias": [0.0009] * 4}),
        model(**{**AFTER_TWO, "bias": [0.0025] * 4, "num_batches_tracked": 7}),  # possible: or momentum was None
        model(**{**AFTER_TWO, "num_batches_tracked": 7}, assumed=Assumed(momentum=0.1)),
        model(**{**AFTER_TWO, "num_batches_tracked": 28}),
        model(**{**AFTER_TWO, "num_batches_tracked": 200}, assumed=Assumed(momentum=0.01)),
        state_dict([batchnorm("backbone.bn"), batchnorm("head.bn", **AFTER_TWO)]),
        state_dict([batchnorm("backbone.bn", num_batches_tracked=0), batchnorm("head.bn", **AFTER_TWO)]),
    ],
)
def undertrained_stats(layers: StateDict, *, initial: float = 0.05, moved: float = 0.01) -> Iterator[Finding]:
    """The running statistics still carry much of what they started with, mean 0 and variance 1.

    After n batches (1 - momentum) ** n of the start is left: with momentum 0.1 still 81 % after two,
    5 % after 29 (99 with 0.03, 299 with 0.01, 2995 with 0.001). Eval mode is worse than training mode
    by as much: a toy network after 20 batches classified 14 % right in eval mode, 61 % in training
    mode. More than `initial` of it is reported, in layers whose bias moved by more than `moved` (or
    at all, where over a quarter is left). Layers without bias are reported as possible: nothing shows
    whether they were trained.

    The counter is not believed where it cannot be the number of updates: each leaves at least
    (1 - momentum) of every variance, so a running_var below (1 - momentum) ** n anywhere in the file
    shows that it counts something else (an EMA that skips integers, as ultralytics has it; a
    conversion; update_bn). momentum is not in a state dict; 0.1 is assumed unless you say otherwise.
    A lowest running_var of just (1 - momentum) ** n confirms it; otherwise the finding is possible, as
    update_bn with a cumulative average (momentum None) leaves nothing of the start after one batch.

    Common causes:
        A training that ended after a few batches (the test checkpoints of chemprop#607); momentum of
        0.001 to 0.0003 (Synchronized-BatchNorm-PyTorch#5, Enjoy-Hamburger#3); statistics that were
        reset for a last fine-tuning (schedule_free#60).

    Fix:
        Train longer or raise momentum. Or compute the statistics in one pass over training data:
            torch.optim.swa_utils.update_bn(train_loader, model)

    When this is fine:
        A file that only tests that loading works. A larger momentum than the assumed one: say
        `assume: {momentum: 0.3}`.
    """
    young: dict[int, list[BatchNorm]] = {}
    for layer in layers.batchnorms:
        if left(layer) > initial and layer.real_stats:
            young.setdefault(layer.num_batches_tracked or 0, []).append(layer)
    if not young or averaged(layers) or not all(map(believable, layers.batchnorms)):
        return
    for batches, same in sorted(young.items()):
        share = left(same[0])
        lowest = min(layer.running_var.min for layer in same if layer.running_var is not None)
        biases = [layer.bias for layer in same if layer.bias is not None]
        if biases and max(bias.largest for bias in biases) <= (0.0 if share > 0.25 else moved):
            continue  # untrained
        if not biases and all(map(saw_zeros_once, same)):
            continue
        doubt = (
            None if same[0].momentum_known or any(map(confirmed, same)) else f"whether momentum is {same[0].momentum:g}"
        )
        untrained = None if biases else "whether the layers were trained, they have no bias"
        yield Finding(
            layers.at(layer.name for layer in same),
            f"num_batches_tracked is {batches} in {len(same)} of {len(layers.batchnorms)} BatchNorm layers:"
            f" {'up to ' if doubt else ''}{share:.0%} of running_mean and running_var are still the initial 0 and 1"
            f" (limit {initial:.0%}, {momentum(same[0])}), the lowest running_var is {lowest:.3g}",
            evidence={
                "layers": len(same),
                "num_batches_tracked": batches,
                "initial": round(share, 4),
                "momentum": same[0].momentum,
                "lowest": lowest,
                **same[0].assumptions("momentum"),
            },
            unknown=" and ".join(filter(None, (doubt, untrained))) or None,
        )


def left(layer: BatchNorm) -> float:
    """How much of the initial statistics is left after the counted batches; 0 where that is not known."""
    batches, momentum = layer.num_batches_tracked, layer.momentum
    return (1 - momentum) ** batches if batches and momentum else 0.0


def believable(layer: BatchNorm) -> bool:
    """False where a variance is smaller than so few batches could have made it."""
    if layer.running_var is None:
        return True
    return layer.running_var.min >= left(layer) * (1 - (1e-3 if exact(layer) else 2e-2))


def confirmed(layer: BatchNorm) -> bool:
    """True where the smallest variance is what this momentum leaves of the initial 1."""
    if layer.running_var is None:
        return False
    return layer.running_var.min <= left(layer) * (1.01 if exact(layer) else 1.02)


def exact(layer: BatchNorm) -> bool:
    return layer.stats_dtype in ("float32", "float64")


def averaged(layers: StateDict) -> bool:
    """True for an AveragedModel: update_bn counts its batches anew, with a cumulative average."""
    return any(key.rpartition(".")[2] == "n_averaged" for key in (*layers.tensors, *layers.scalars))


def saw_zeros_once(layer: BatchNorm) -> bool:
    """True after a single forward of a constant input, as frameworks run it to learn shapes."""
    mean, var = layer.running_mean, layer.running_var
    if mean is None or var is None or layer.num_batches_tracked != 1:
        return False
    return mean.largest < 0.01 and var.max - var.min < 0.01


def momentum(layer: BatchNorm) -> str:
    return f"momentum {layer.momentum:g}" + ("" if layer.momentum_known else " assumed")


def model(**given: object) -> StateDict:
    return batchnorm(**given).state_dict
