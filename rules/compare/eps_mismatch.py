from collections.abc import Iterator, Sequence
from math import sqrt

from bnlint import BatchNorm, BatchNormModule, Change, Finding, Pair, Severity, batchnorm, pair, rule, state_dict


@rule(
    severity=Severity.WARNING,
    confidence="high",
    good=lambda: [
        of_eps(1e-5, 1e-5),
        of_eps(None, 1e-3),  # a plain state dict does not say
        of_eps(1e-3, None),
    ],
    bad=lambda: [
        of_eps(1e-5, 1e-3, var=[0.9, 1.7, 0.001, 1.2]),
        of_eps(1e-3, 1e-5, var=[0.9, 1.7, 0.001, 1.2]),
        of_eps(0.0, 1e-5, var=[0.9, 1.7, 0.0, 1.2]),
        of_eps(1e-5, 1e-3),  # info: no variance is small enough to matter
    ],
)
def eps_mismatch(layer: Change, *, gain: float = 0.01) -> Iterator[Finding]:
    """The two sides were built with another eps, so the same numbers mean another gain.

    Eval mode multiplies by weight / sqrt(running_var + eps), and eps is in no state dict. 1e-3 against
    1e-5 changes the gain of a channel with variance 0.001 by 41 %, with 0.01 by 5 %, with 0.1 by 0.5 %.

    Common causes:
        Keras, YOLO, EfficientNet and Inception use 1e-3, torch 1e-5, torchvision's FrozenBatchNorm2d
        once 0 (vision#2169, nn-transfer PR#3, tacotron#19, pytorch#43614).

    Fix:
        Build the model with the eps that the weights were trained with: nn.BatchNorm2d(n, eps=1e-3).

    When this is fine:
        The network was trained on with its new eps.
    """
    before, after = layer.eps
    if before is None or after is None or before == after:
        return
    var = [value for value in layer.after.running_var or layer.before.running_var or () if value >= 0]
    smallest = min(var, default=None)
    change = 0.0 if smallest is None else deviation(smallest, before, after)
    yield Finding(
        layer.at("running_var"),
        f"eps is {after:g}, in the reference {before:g}"
        + (f": the gain differs by up to {100 * change:.2g} % (running_var {smallest:.2g})" if var else ""),
        severity=None if change > gain else Severity.INFO,
        evidence={"eps": after, "reference_eps": before, "gain_change": change, "smallest_running_var": smallest},
    )


def deviation(var: float, before: float, after: float) -> float:
    """By how much the gain of a channel differs, as a proportion of the smaller one."""
    low, high = sorted((var + before, var + after))
    return sqrt(high / low) - 1 if low > 0 else float("inf")


def of_eps(before: float | None, after: float | None, var: Sequence[float] = (0.91, 1.73, 0.42, 1.16)) -> Pair:
    """One layer of two models that say their eps."""

    def layer(eps: float | None) -> BatchNorm:
        return batchnorm("bn1", running_var=var, module=BatchNormModule("bn1", eps=eps))

    return pair(state_dict([layer(before)]), state_dict([layer(after)]))
