from collections.abc import Iterator

from bnlint import Finding, Severity, StateDict, batchnorm, rule, state_dict


@rule(
    severity=Severity.INFO,
    confidence="high",
    good=lambda: [
        counted({"bn1": 500, "layer1.bn1": 500, "layer1.bn2": 500}),
        counted({"bn1": 500}),
        counted({"bn1": 500, "bn2": None, "bn3": -1}),  # not every count is known
        state_dict(),
    ],
    bad=lambda: [
        counted({"backbone.bn1": 1_905_515, "backbone.bn2": 1_905_515, "head.bn1": 343_102}),
        counted({"backbone.bn1": 300, "head.bn1": 1500}),
        counted({"backbone.bn1": 0, "backbone.bn2": 0, "head.bn1": 1500}),
        counted({f"bn{number}": number for number in range(10)}),
    ],
)
def uneven_num_batches_tracked(weights: StateDict, *, shown: int = 4) -> Iterator[Finding]:
    """BatchNorm layers of one model have counted different numbers of batches.

    A layer counts one batch per forward in train mode, so in a model trained as a whole all counts are
    equal. Where they differ the difference tells a story: 4 of 89 published files have it, each time a
    pretrained backbone (1905515 batches in FastestDet) under a new head (343102).

    Common causes:
        A pretrained part counts on from where it was. A count of 0 is a layer that was frozen with
        eval(), never used, converted from a file without counts, or an InstanceNorm, which never
        counts. A whole multiple is a layer that is called several times per step: a head shared by
        five pyramid levels (5x), a GAN's discriminator (2x), gradient checkpointing (2x, pytorch#96136).

    Fix:
        Nothing to repair. If a layer should have been frozen, compare its count with that of the file
        it was taken from: an equal count means that it stayed in eval mode.

    When this is fine:
        In all the cases above.
    """
    layers_with: dict[int, list[str]] = {}
    for layer in weights.batchnorms:
        count = layer.num_batches_tracked
        if count is not None:
            layers_with.setdefault(count, []).append(layer.name)
    if len(layers_with) < 2:
        return
    groups = sorted(layers_with.items(), key=lambda group: -len(group[1]))
    usual = groups[0][0]
    told = [f"{count} in {where(names)}{story(count, usual)}" for count, names in groups[:shown]]
    rest = len(groups) - len(told)
    yield Finding(
        weights.at(name for _, names in groups[1:] for name in names),
        "num_batches_tracked is " + ", ".join(told) + (f", and {rest} other counts" if rest else ""),
        evidence={"counts": [count for count, _ in groups], "layers": [len(names) for _, names in groups]},
    )


def where(names: list[str]) -> str:
    """How many layers, and the part of the model they have in common."""
    if len(names) == 1:
        return names[0] or "the model itself"
    first, last = min(names), max(names)  # what these two share, all share
    shared = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))
    part = first[:shared].rpartition(".")[0]
    return f"{len(names)} layers" + (f" of {part}" if part else "")


def story(count: int, usual: int) -> str:
    if count == 0:
        return " (never in train mode, or not counting)"
    if 0 < usual < count and count % usual == 0 and count // usual < 100:
        return f" ({count // usual} times {usual})"
    return ""


def counted(counts: dict[str, int | None]) -> StateDict:
    return state_dict([batchnorm(name, num_batches_tracked=count) for name, count in counts.items()])
