from collections.abc import Iterator

from bnlint import Checkpoint, Finding, Severity, StateDict, batchnorm, checkpoint, rule, state_dict, tensor


@rule(
    severity=Severity.INFO,
    good=lambda: [
        checkpoint(weights("state_dict")),
        checkpoint(weights("state_dict"), state_dict(key="normalizer", other={"mean": tensor([0.1])})),
        checkpoint(),
    ],
    bad=lambda: [
        checkpoint(weights("state_dict"), weights("ema", role="ema")),
        checkpoint(weights("netG"), weights("netD")),
        checkpoint(weights("model"), parameters_only("ema"), weights("teacher", role="ema")),
    ],
)
def several_state_dicts(file: Checkpoint, *, shown: int = 6) -> Iterator[Finding]:
    """The file holds more than one state dict that a model could be loaded from.

    Which one is loaded decides what the model does: an EMA copy and the live weights of one run differ
    by whole points of accuracy, and a copy kept over parameters only has running statistics of mean 0
    and variance 1 (accuracy 0.77 instead of 1.00 in a toy ResNet).

    Common causes:
        A training checkpoint with an averaged copy (timm's state_dict_ema, YOLO's ema), a teacher, or
        the networks of a GAN.

    Fix:
        Load the one you mean by its name: `model.load_state_dict(checkpoint["ema"])`. bnlint looks at
        all of them and reads the first as the model; `bnlint check --key ema` reads another first.

    When this is fine:
        Always; this only says which ones there are.
    """
    first = file.state_dicts[0] if file.state_dicts else None
    models = [each for each in file.state_dicts if each is first or each.batchnorms or is_copy(each, first)]
    if len(models) < 2 or not any(each.batchnorms for each in models):
        return
    others = [repr(each.key) for each in models[1:]]
    rest = len(others) - shown
    yield Finding(
        file.at(),
        f"{len(models)} state dicts: {models[0].key!r} is read as the model; beside it {', '.join(others[:shown])}"
        + (f" and {rest} more" if rest > 0 else ""),
        evidence={
            "state_dicts": [each.key for each in models],
            "batchnorms": [len(each.batchnorms) for each in models],
        },
    )


def is_copy(candidate: StateDict, model: StateDict | None) -> bool:
    """True where most of its names are the model's: an averaged copy that lacks the BatchNorm statistics."""
    if model is None or 4 * len(candidate.tensors) < len(model.tensors):
        return False
    return 2 * len(candidate.tensors.keys() & model.tensors.keys()) > len(candidate.tensors)


def weights(key: str, role: str = "model") -> StateDict:
    return state_dict([batchnorm("bn1"), batchnorm("layer1.bn1")], key=key, role=role)


def parameters_only(key: str) -> StateDict:
    bare = {"running_mean": None, "running_var": None, "num_batches_tracked": None}
    return state_dict(
        [],
        key=key,
        role="ema",
        other={
            layer.key(leaf): each
            for layer in (batchnorm("bn1", **bare), batchnorm("layer1.bn1", **bare))
            for leaf, each in layer.tensors.items()
        },
    )
