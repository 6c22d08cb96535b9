from collections.abc import Iterator

from bnlint import BatchNormModule, Finding, Severity, rule


@rule(
    severity=Severity.WARNING,
    confidence="high",
    good=lambda: [
        BatchNormModule("bn1", momentum=0.1),
        BatchNormModule("bn1", momentum=0.03),
        BatchNormModule("bn1", momentum=0.01),
        BatchNormModule("bn1", momentum=0.002),
        BatchNormModule("bn1", momentum=0.4),
        BatchNormModule("bn1", momentum=None),  # the cumulative average
        BatchNormModule("bn1", momentum=1.0),  # calibration: the last batch is the statistics
        BatchNormModule("bn1", momentum=0.0, momentum_known=False),
        BatchNormModule("bn1", momentum=0.0, track_running_stats=False),  # no statistics to move
    ],
    bad=lambda: [
        BatchNormModule("bn1", momentum=0.0),
        BatchNormModule("bn1", momentum=0.9),
        BatchNormModule("bn1", momentum=0.99),
        BatchNormModule("bn1", momentum=0.9997, origin="live"),
        BatchNormModule("bn1", momentum=0.5),
        BatchNormModule("bn1", momentum=-0.1),
        BatchNormModule("bn1", momentum=0.001),
    ],
)
def suspicious_momentum(module: BatchNormModule, *, high: float = 0.5, low: float = 0.002) -> Iterator[Finding]:
    """BatchNorm's momentum is 0, or is meant the way Keras means it.

    In torch momentum is the weight of the new batch, `new = (1 - momentum) * old + momentum * batch`;
    in Keras and TensorFlow it is the weight of the old value. A Keras 0.99 put into torch makes the
    statistics those of the last batch: over 400 batches of 16 the spread of running_var was 1.46
    instead of 0.36. With 0 they never move from mean 0 and variance 1.

    Common causes:
        A number carried over from Keras or a TensorFlow paper: 0.9, 0.99, 0.997, 0.9997 (DnCNN#74, in
        its published model too, KAIR#132, deeplab-pytorch#79). momentum=0 meant as a freeze
        (pretrained-models#5).

    Fix:
        torch's momentum is 1 - Keras's: `torch.nn.BatchNorm2d(64, momentum=0.01)` for 0.99. To freeze
        the statistics call `bn.eval()`. After training with a wrong one:
        `torch.optim.swa_utils.update_bn(loader, model)`.

    When this is fine:
        1.0 in calibration code is on purpose and passed over. Below 0.002 (info) the statistics need
        1500 batches and more to leave their start behind, which long trainings have.
    """
    momentum = module.momentum
    if momentum is None or not module.momentum_known or module.track_running_stats is False or momentum == 1:
        return
    if momentum == 0:
        told, severity = "0: the running statistics never move", Severity.ERROR
    elif momentum >= high or momentum < 0:
        told, severity = f"{momentum:g}, the weight of the new batch; expected less than {high:g}", Severity.WARNING
    elif momentum < low:
        told, severity = f"{momentum:g}: the start is forgotten after {3 / momentum:.0f} batches", Severity.INFO
    else:
        return
    yield Finding(module.at(), f"momentum is {told}", evidence={"momentum": momentum}, severity=severity)
