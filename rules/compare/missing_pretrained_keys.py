from collections.abc import Iterator

from bnlint import Finding, Pair, Severity, StateDict, batchnorm, families, pair, rule, state_dict, tensor


@rule(
    severity=Severity.WARNING,
    good=lambda: [
        pair(net("bn1"), net("bn1"), kind="model"),
        pair(net("bn1"), net("bn1", "bn2"), kind="model"),  # unexpected-pretrained-keys
        pair(net("bn1"), net("norm1"), kind="model"),  # nothing matches: no-matching-keys
    ],
    bad=lambda: [
        pair(net("bn1"), net("bn1", "bn2"), kind="checkpoint"),
        pair(net("bn1", "neck.bn1"), net("bn1"), kind="contract"),
        pair(net("bn1", "fc"), net("bn1"), kind="model"),  # info: a head
        pair(net("bn1"), net("bn1", counted=False), kind="model"),  # info: counters
        pair(net("bn1"), net("bn1", "bn2"), declared_different=True),  # info
    ],
)
def missing_pretrained_keys(both: Pair) -> Iterator[Finding]:
    """Keys that the target has and the pretrained file lacks: these modules keep their initialisation.

    Counted after the best change of prefix and the renames that names and shapes suggest, one line for
    each family of modules. num_batches_tracked is told apart: it is harmless. The official ResNet-18
    file has 102 keys and the model 122; the 20 more are the counters of its 20 BatchNorm layers, which
    came with torch 0.4.1, after that file.

    Common causes:
        New modules beside a pretrained backbone; renamed modules; a filter that dropped more than was
        meant; a file from before torch 0.4.1 (counters).

    Fix:
        Look at what was loaded, and expect it:

            missing, unexpected = model.load_state_dict(state_dict, strict=False)
            assert all(key.startswith("fc.") for key in missing)

    When this is fine:
        The head, which a new task replaces (info), and modules that are trained from scratch on purpose.
    """
    plan = both.plan
    if not plan.renames:
        return
    left = left_over(both)
    for head in (False, True):
        keys = [key for key in left if (key in both.target_head) is head]
        for family, count in families(keys, both.target_keys):
            yield Finding(
                both.at(),
                f"{family} ({count} key{'s' if count > 1 else ''}) {what(both)}",
                severity=Severity.INFO if head or both.declared_different else None,
                evidence={"family": family, "keys": count, "head": head},
            )
    alone = [key for key in plan.missing_counters if is_filled(both, key)]
    if alone:
        yield counters(both, alone)


def is_filled(both: Pair, counter: str) -> bool:
    """True where the layer of this counter is filled but for it; else the counter is missing with its module."""
    layer = both.target.batchnorm(counter.rpartition(".")[0])
    filled = both.filled
    return layer is not None and any(layer.key(leaf) in filled for leaf in layer.tensors)


def left_over(both: Pair) -> list[str]:
    """The keys that nothing fills; of a layer that is filled in part, other rules speak."""
    filled = both.filled
    split = {
        layer.key(leaf)
        for layer in both.target.batchnorms
        if any(layer.key(leaf) in filled for leaf in layer.tensors if leaf != "num_batches_tracked")
        for leaf in layer.tensors
    }
    return [key for key in both.plan.missing if key not in split and key != "n_averaged"]


def what(both: Pair) -> str:
    if both.into_checkpoint:
        return "did not come from the reference, which has no such keys"
    return "would stay as initialised: the checkpoint has no such keys"


def counters(both: Pair, missing: list[str]) -> Finding:
    strict = any(version >= 2 for version in both.source.versions.values())
    loads = "load_state_dict raises for them, and only with strict=True" if strict else "load_state_dict accepts that"
    return Finding(
        both.at((), missing if both.into_checkpoint else ()),
        f"{len(missing)} num_batches_tracked keys are not there"
        f" ({len(both.source.tensors)} keys against {len(both.target.tensors)}): {loads}",
        severity=Severity.INFO,
        evidence={"counters": len(missing), "keys": len(both.source.tensors), "wanted": len(both.target.tensors)},
    )


def net(*layers: str, counted: bool = True) -> StateDict:
    """BatchNorm layers, a convolution, and a classifier where one is named fc."""
    convolution = {"conv1.weight": tensor([0.1] * 4, shape=(4, 1, 1, 1))}
    head = {"fc.weight": tensor([0.1] * 8, shape=(2, 4))} if "fc" in layers else {}
    made = [batchnorm(name, num_batches_tracked=10_000 if counted else None) for name in layers if name != "fc"]
    return state_dict(made, other={**convolution, **head} if layers[0] == "bn1" else {})
