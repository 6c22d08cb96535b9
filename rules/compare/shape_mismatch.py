from collections.abc import Iterator

from bnlint import Finding, Pair, Severity, StateDict, Tensor, batchnorm, pair, rule, state_dict, tensor


@rule(
    severity=Severity.ERROR,
    good=lambda: [
        pair(net(), net(), kind="model"),
        pair(net(classes=1000), net(classes=10), kind="model"),  # head-shape-mismatch
    ],
    bad=lambda: [
        pair(net(kernel=1), net(kernel=3), kind="model"),
        pair(net(width=4), net(width=8), kind="contract"),
        pair(net(kernel=1, classes=1000), net(kernel=3, classes=10), kind="model"),
        pair(net(kernel=1), net(kernel=3), kind="checkpoint"),  # a warning: they may be two networks
        pair(net(inputs=3), net(inputs=1), kind="model"),  # info: gray images
        pair(net(kernel=1), net(kernel=3), declared_different=True),  # info
    ],
)
def shape_mismatch(both: Pair) -> Iterator[Finding]:
    """Keys of one name have another shape, and not only in the head.

    The two are not one architecture: another width, depth or variant. `load_state_dict` raises, with
    strict=False too; a filter by shape makes it silent and leaves those layers at their initialisation.

    Common causes:
        The wrong variant (resnet50 for resnet18), a width multiplier, a pruned network
        (pytorch-prunes#6, yolov5prune#26, BGRL#1).

    Fix:
        Build the model as the file has it: compare the configuration of both. Do not filter by shape.

    When this is fine:
        A first convolution for another number of input channels (info). Two different networks: say
        `different: true` in the configuration.
    """
    plan = both.plan
    body = [each for each in plan.reshaped if each[0] not in both.source_head and each[1] not in both.target_head]
    if not body:
        return
    key, place = body[0]
    shape, wanted = both.source.tensors[key].shape, both.target.tensors[place].shape
    others = f", and {len(body) - 1} more of {len(both.target_keys)} keys" if len(body) > 1 else ""
    yield Finding(
        both.at((), [place if both.into_checkpoint else key for key, place in body]),
        f"{key} is {list(shape)}, {list(wanted)} is wanted{others}",
        severity=severity(both, is_stem(both, body)),
        evidence={"keys": len(both.target_keys), "reshaped": len(body), "shape": list(shape), "wanted": list(wanted)},
    )


def severity(both: Pair, stem: bool) -> Severity | None:
    if stem or both.declared_different:
        return Severity.INFO
    return Severity.WARNING if both.into_checkpoint else None


def is_stem(both: Pair, reshaped: list[tuple[str, str]]) -> bool:
    """True where only the first convolution differs, in its input channels."""
    (key, place), *others = reshaped
    loaded, wanted = both.source.tensors[key], both.target.tensors[place]
    first = next((name for name, each in both.target.tensors.items() if len(each.shape) > 2), None)
    return not others and place == first and without_inputs(loaded) == without_inputs(wanted)


def without_inputs(weight: Tensor) -> tuple[int, ...]:
    return (*weight.shape[:1], *weight.shape[2:])


def net(*, inputs: int = 3, width: int = 4, kernel: int = 3, classes: int = 10) -> StateDict:
    """A convolution, a BatchNorm layer and a classifier."""

    def weights(*shape: int) -> Tensor:
        size = 1
        for length in shape:
            size *= length
        return tensor([0.1] * size, shape=shape)

    half = [0.5] * width
    layer = batchnorm("bn1", weight=half, bias=half, running_mean=half, running_var=half)
    tensors = {"conv1.weight": weights(width, inputs, kernel, kernel)}
    tensors |= {layer.key(leaf): each for leaf, each in layer.tensors.items()}
    tensors |= {"fc.weight": weights(classes, width), "fc.bias": weights(classes)}
    made = state_dict([layer])
    made.tensors = tensors
    return made
