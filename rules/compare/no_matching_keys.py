from collections.abc import Iterator

from bnlint import Finding, Pair, Severity, StateDict, batchnorm, load_line, pair, rule, state_dict, tensor


@rule(
    severity=Severity.ERROR,
    confidence="high",
    needs=["prefix-mismatch"],
    good=lambda: [
        pair(net("bn1"), net("bn1")),
        pair(net("bn1"), net("bn1", "bn2", "neck.bn")),  # what is loaded has its place
        pair(net("bn1", "bn2"), net("bn1"), kind="model"),
        pair(state_dict(), net("bn1")),
    ],
    bad=lambda: [
        pair(net("bn1"), net("norm1")),
        pair(net("bn1"), net("norm1"), kind="model"),
        pair(net("bn1", conv="conv.weight"), net("norm1", conv="conv.weight"), kind="contract"),  # BatchNorm
        pair(net("bn1", "bn2", "bn3"), net("bn1", "norm2", "norm3")),  # a warning
        pair(net("bn1"), net("norm1"), declared_different=True),  # info
    ],
)
def no_matching_keys(both: Pair, *, least: float = 0.5) -> Iterator[Finding]:
    """No key of the checkpoint, or hardly any, is a key of what it would be loaded into.

    `load_state_dict(strict=False)` and the idiom `{k: v for k, v in pretrained.items() if k in model_dict}`
    load what matches and are silent about the rest: with 0 of n keys the model keeps its random weights,
    and nothing says so. All four published builders of a torchgeo release returned random weights this
    way (torchgeo#4036).

    Common causes:
        A prefix or renamed modules (pytorch/examples#1029, pytorch#141256, simple-HRNet#79); the dict
        around the state dict handed over in its place; the wrong file.

    Fix:
        Look at what was loaded, every time:

            missing, unexpected = model.load_state_dict(state_dict, strict=False)
            assert not unexpected and all(key.startswith("fc.") for key in missing)

    When this is fine:
        Two networks that have nothing to do with each other: say `different: true` in the configuration.
    """
    source, target = both.source_keys, both.target_keys
    total = min(len(source), len(target))
    matched = both.matched_by_name
    if not total or (len(matched) >= least * total and not unmatched_batchnorm(both, matched)):
        return
    what, count = "keys", len(matched)
    if matched and unmatched_batchnorm(both, matched):
        what, count, total = "BatchNorm keys", 0, min(map(len, batchnorm_keys(both)))
    elsewhere = sum(not key.endswith("num_batches_tracked") for key in both.plan.renames)
    yield Finding(
        both.at(),
        f"{count or 'none'} of {total} {what} would be loaded"
        + (f"; under other names {elsewhere} have a place" if elsewhere > len(matched) else ""),
        severity=severity(both, count),
        evidence={"keys": total, "matched": count, "matched_renamed": elsewhere},
        fix=f"Rename the keys before loading:\n    {indented(load_line(both.plan))}"
        if elsewhere > len(matched)
        else None,
    )


def unmatched_batchnorm(both: Pair, matched: frozenset[str]) -> bool:
    """True where both sides have BatchNorm and not one of its keys has a place."""
    loaded, wanted = batchnorm_keys(both)
    return bool(loaded and wanted) and loaded.isdisjoint(matched)


def batchnorm_keys(both: Pair) -> tuple[set[str], set[str]]:
    """The BatchNorm keys of source and target, counters left out."""
    source, target = (
        {layer.key(leaf) for layer in side.batchnorms for leaf in layer.tensors if leaf != "num_batches_tracked"}
        for side in (both.source, both.target)
    )
    return source, target


def severity(both: Pair, matched: int) -> Severity | None:
    if both.declared_different:
        return Severity.INFO
    return Severity.WARNING if matched else None


def indented(code: str) -> str:
    return code.replace("\n", "\n    ")


def net(*layers: str, conv: str = "") -> StateDict:
    """A network of BatchNorm layers of these names, and a convolution."""
    other = {conv: tensor([0.1] * 4, shape=(4, 1, 1, 1))} if conv else None
    return state_dict([batchnorm(name) for name in layers], other=other)
