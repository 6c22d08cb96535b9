from collections.abc import Iterator, Sequence
from math import isnan

from bnlint import Change, Finding, Pair, Severity, batchnorm, pair, rule, state_dict


@rule(
    severity=Severity.WARNING,
    confidence="high",
    needs=["forward-pollution"],
    good=lambda: [
        moved(by=0.0),  # eval() after every train()
        moved(by=0.4, batches=0),  # stats-replaced
        moved(by=0.4, weight=[0.9, 1.1, 0.7, 1.0]),  # trained
        moved(by=0.4, preceding_same=False),  # the convolution was trained, so its statistics have to move
        moved(by=0.4, affine=False),  # nobody knows whether the convolution was frozen
        moved(by=0.4, batches=-10_000),  # files swapped, or update_bn
    ],
    bad=lambda: [
        moved(by=0.4),
        moved(by=0.1),
        moved(by=0.01),  # info
        moved(by=0.4, preceding_same=True),
        moved(by=0.4, affine=False, preceding_same=True),
        moved(by=0.0, var=[4.0, 1.73, 0.42, 1.16]),
        moved(by=0.4, batches=None),  # possible
        moved(by=0.4, counted=0),  # a warning: update_bn on a file without counts looks the same
    ],
)
def frozen_bn_drifted(
    layer: Change, *, noticeable: float = 0.05, harmful: float = 0.3, allow_recalibrated: bool = False
) -> Iterator[Finding]:
    """A frozen BatchNorm layer kept moving its running statistics.

    Its weights are equal bit for bit in both files, and still running_mean or running_var changed while
    batches were counted. `requires_grad_(False)` stops the optimizer and nothing else: in train mode the
    layer normalises by the batch and moves its statistics, so that in eval mode the "frozen" part computes
    something else. A frozen network whose data shifted moved its outputs by 0.56 in the first epoch, its
    running_mean by 1.25 standard deviations. A layer that is truly frozen changes no bit; the severity
    says how far this one went (sd is the square root of running_var + eps of the reference).

    Common causes:
        `param.requires_grad = False` once and `model.train()` at the top of every epoch, which puts the
        frozen layers back into train mode (pytorch/vision#2079, pytorch#86590, Lightning #13902 and
        #15062, chemprop PR#952).

    Fix:
        Put the frozen layers into eval mode after every `model.train()`, or override train():

            for module in backbone.modules():
                if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
                    module.eval()

        For this file: take running_mean and running_var of the frozen layers from the reference.

    When this is fine:
        The statistics were meant to adapt: AdaBN, or torch.optim.swa_utils.update_bn on new data. With
        `allow-recalibrated: true` the rule is silent where every weight of the two files is equal.
    """
    if layer.verdict != "drifted" or (allow_recalibrated and recalibrated(layer.pair)):
        return
    shift, (low, high), batches = layer.mean_shift, layer.var_ratio, layer.batches
    yield Finding(
        layer.at("running_mean", "running_var"),
        f"{equal(layer)} equal in both files, yet {moves(shift, low, high)}"
        + (f" over {batches} batches" if batches is not None else ""),
        severity=severity(layer, shift, low, high, noticeable, harmful),
        evidence={
            "mean_shift_sd": shift,
            "lowest_variance_ratio": low,
            "highest_variance_ratio": high,
            "batches": batches,
            "preceding_same": layer.preceding_same,
        },
        unknown=None if batches is not None else "whether batches were counted, or the statistics replaced",
    )


def equal(layer: Change) -> str:
    """What is equal, as the start of a sentence."""
    if not layer.affine:
        return "the weights of the layer before are"
    return "weight, bias and the weights of the layer before are" if layer.preceding_same else "weight and bias are"


def moves(shift: float, low: float, high: float) -> str:
    if isnan(shift):
        return "running_mean and running_var differ"
    return f"running_mean moved by up to {shift:.2g} sd and running_var by a factor of {low:.2g} to {high:.2g}"


def severity(
    layer: Change, shift: float, low: float, high: float, noticeable: float, harmful: float
) -> Severity | None:
    if shift < noticeable and low >= 0.9 and high <= 1.1:
        return Severity.INFO
    counted_before = bool(layer.batches and layer.before.num_batches_tracked)
    if counted_before and (shift >= harmful or low < 0.5 or high > 2):
        return Severity.ERROR
    return None


def recalibrated(both: Pair | None) -> bool:
    return both is not None and bool(both.same_weights)


MEAN = [0.31, -0.12, 0.84, 0.02]


def moved(
    *,
    by: float,
    batches: int | None = 200,
    counted: int = 10_000,
    var: Sequence[float] = (0.91, 1.73, 0.42, 1.16),
    weight: Sequence[float] = (0.93, 1.12, 0.71, 1.04),
    affine: bool = True,
    preceding_same: bool | None = None,
) -> Pair:
    """One layer, before and after so many batches; every mean moved by as much."""
    tensors = {"weight": [0.93, 1.12, 0.71, 1.04]} if affine else {"weight": None, "bias": None}
    before = batchnorm(num_batches_tracked=counted if batches is not None else None, **tensors)
    after = batchnorm(
        running_mean=[mean + by for mean in MEAN],
        running_var=var,
        num_batches_tracked=None if batches is None else counted + batches,
        **({"weight": weight} if affine else tensors),
    )
    return pair(state_dict([before]), state_dict([after]), preceding_same=preceding_same)
