from collections.abc import Iterator

from bnlint import Finding, Pair, Severity, StateDict, batchnorm, families, pair, rule, state_dict, tensor


@rule(
    severity=Severity.WARNING,
    good=lambda: [
        pair(net("bn1"), net("bn1"), kind="model"),
        pair(net("bn1", "bn2"), net("bn1"), kind="model"),  # missing-pretrained-keys
        pair(net("norm1"), net("bn1"), kind="model"),  # nothing matches: no-matching-keys
    ],
    bad=lambda: [
        pair(net("bn1", "layer.bn2"), net("bn1", "layer.bn2", "layer.bn3"), kind="model"),
        pair(net("bn1", "bn2"), net("bn1", "bn3"), kind="checkpoint"),
        pair(net("bn1"), net("bn1", "fc"), kind="model"),  # info: a head
        pair(net("bn1"), net("bn1", "decoder.bn1"), kind="model"),  # info: an encoder takes its part
        pair(net("bn1", counted=False), net("bn1"), kind="model"),  # info: counters
    ],
)
def unexpected_pretrained_keys(both: Pair) -> Iterator[Finding]:
    """Keys of the pretrained file that have no place in the target: these weights are thrown away.

    Counted after the best change of prefix and the renames that names and shapes suggest, one line for
    each family of modules. num_batches_tracked is told apart: a FrozenBatchNorm2d has no place for it,
    and nothing is lost.

    Common causes:
        Renamed modules; another variant; a head or decoder that the target does not have.

    Fix:
        Look at what was not loaded, and expect it:

            missing, unexpected = model.load_state_dict(state_dict, strict=False)
            assert all(key.startswith("fc.") for key in unexpected)

    When this is fine:
        The head of another task, and a target that is a part of the pretrained network: where nothing
        is missing and whole modules are left over, this is info.
    """
    plan = both.plan
    if not plan.renames:
        return
    part = not plan.missing and not plan.reshaped
    left = [key for key in plan.unexpected if key != "n_averaged"]
    for head in (False, True):
        keys = [key for key in left if (key in both.source_head) is head]
        for family, count in families(keys, both.source_keys):
            fine = head or both.declared_different or (part and is_apart(both, keys))
            yield Finding(
                both.at(),
                f"{family} ({count} key{'s' if count > 1 else ''}) of the {whose(both)}: no place for it",
                severity=Severity.INFO if fine else None,
                evidence={"family": family, "keys": count, "head": head},
            )
    alone = [key for key in plan.unexpected_counters if is_loaded(both, key)]
    if alone:
        yield counters(both, alone)


def whose(both: Pair) -> str:
    return "reference" if both.into_checkpoint else "checkpoint"


def is_apart(both: Pair, keys: list[str]) -> bool:
    """True where these keys are modules of their own: none of their parts of the model has a place."""
    places = {key.partition(".")[0] for key in both.plan.renames}
    return places.isdisjoint(key.partition(".")[0] for key in keys)


def is_loaded(both: Pair, counter: str) -> bool:
    """True where the layer of this counter has a place but for it; else the counter is left over with its module."""
    layer = both.source.batchnorm(counter.rpartition(".")[0])
    return layer is not None and any(layer.key(leaf) in both.plan.renames for leaf in layer.tensors)


def counters(both: Pair, unexpected: list[str]) -> Finding:
    return Finding(
        both.at((), () if both.into_checkpoint else unexpected),
        f"{len(unexpected)} num_batches_tracked keys of the {whose(both)} have no place"
        f" ({len(both.source.tensors)} keys against {len(both.target.tensors)}): nothing is lost with them",
        severity=Severity.INFO,
        evidence={"counters": len(unexpected), "keys": len(both.source.tensors), "wanted": len(both.target.tensors)},
    )


def net(*layers: str, counted: bool = True) -> StateDict:
    """A convolution, BatchNorm layers, and a classifier where one is named fc."""
    convolution = {"conv1.weight": tensor([0.1] * 4, shape=(4, 1, 1, 1))}
    head = {"fc.weight": tensor([0.1] * 8, shape=(2, 4))} if "fc" in layers else {}
    made = [batchnorm(name, num_batches_tracked=10_000 if counted else None) for name in layers if name != "fc"]
    return state_dict(made, other={**convolution, **head} if layers[0] == "bn1" else {})
