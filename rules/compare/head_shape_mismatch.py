from collections.abc import Iterator

from bnlint import Finding, Pair, Severity, StateDict, batchnorm, pair, rule, state_dict, tensor


@rule(
    severity=Severity.INFO,
    confidence="high",
    needs=["shape-mismatch"],
    good=lambda: [
        pair(net(1000), net(1000), kind="model"),
        pair(net(1000), net(1000, name="classifier"), kind="model"),  # missing-pretrained-keys
        pair(net(1000, name="fc1", last=False), net(10, name="fc1", last=False), kind="model"),  # of a block
    ],
    bad=lambda: [
        pair(net(1000), net(10), kind="model"),
        pair(net(1000), net(10), kind="checkpoint"),
        pair(net(1000, name="model.classifier"), net(10, name="model.classifier"), kind="contract"),
        pair(net(1000, name="last"), net(10, name="last"), kind="model"),  # the last layer, whatever its name
    ],
)
def head_shape_mismatch(both: Pair) -> Iterator[Finding]:
    """The classifier at the end has another number of outputs, and everything before it fits.

    That is what transfer learning looks like. But `load_state_dict` raises for it, with strict=False too:
    strict forgives missing and unexpected keys and never another shape.

    Common causes:
        A network pretrained for 1000 classes and a task with fewer (senet.pytorch#73, nanodet#274).

    Fix:
        Leave out the keys of the head before loading, and only those:
            state_dict = {k: v for k, v in state_dict.items() if not k.startswith("fc.")}

    When this is fine:
        Always, as long as the head is trained afterwards.
    """
    head = [(key, place) for key, place in both.plan.reshaped if key in both.source_head or place in both.target_head]
    if not head:
        return
    key, place = head[0]
    names = [place if both.into_checkpoint else key for key, place in head]
    module = key.rpartition(".")[0]
    shape, wanted = both.source.tensors[key].shape, both.target.tensors[place].shape
    yield Finding(
        both.at((), names),
        f"the head has another shape: {key} is {list(shape)}, {list(wanted)} is wanted",
        evidence={"keys": len(head), "shape": list(shape), "wanted": list(wanted)},
        fix="Leave out the keys of the head before loading, and only those:\n"
        f"    state_dict = {{k: v for k, v in state_dict.items() if not k.startswith({f'{module}.'!a})}}",
    )


def net(classes: int, *, name: str = "fc", last: bool = True) -> StateDict:
    """A BatchNorm layer and a linear one, which is the last of the two or not."""
    other = {f"{name}.weight": tensor([0.1] * classes * 4, shape=(classes, 4)), f"{name}.bias": tensor([0.0] * classes)}
    made = state_dict([batchnorm()], other=other)
    if not last:
        made.tensors = {**other, **made.tensors}
    return made
