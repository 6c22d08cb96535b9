from collections.abc import Iterator

from bnlint import BatchNorm, Checkpoint, Finding, Severity, StateDict, batchnorm, checkpoint, rule, state_dict

COUNTER = "num_batches_tracked"
FROZEN = "FrozenBatchNorm2d"
GIVE_A_COUNT = """\
Give the layers a count:
    sd[f"{name}.num_batches_tracked"] = torch.tensor(0)
or drop the version that demands one:
    model.load_state_dict({key: value for key, value in sd.items()})"""


@rule(
    severity=Severity.INFO,
    good=lambda: [
        state_dict([batchnorm("bn1"), batchnorm("bn2")]),
        state_dict([batchnorm("bn1")], metadata=version(2, "bn1")),
        state_dict([batchnorm("bn1", num_batches_tracked=None, running_var=None)]),  # incomplete-batchnorm speaks
        state_dict(),
    ],
    bad=lambda: [
        uncounted("bn1", "layer1.0.bn1", "layer1.0.downsample.1"),
        uncounted("bn1", metadata=version(1, "bn1")),
        uncounted("bn1", metadata=version(2, "bn1")),
        state_dict([batchnorm("layer1.0.bn1"), batchnorm("layer1.0.bn2", num_batches_tracked=None)]),
        frozen_backbone(),
        frozen_by_its_class(),
        checkpoint(uncounted("bn1"), format="torch-legacy"),
    ],
)
def missing_num_batches_tracked(weights: StateDict) -> Iterator[Finding]:
    """BatchNorm layers have statistics but no num_batches_tracked.

    Nothing computes with the count unless momentum is None. Whether the file loads depends on one
    number: where `_metadata` gives the layer version 2, `load_state_dict` raises "Missing key(s)" for
    every such layer; with version 1 or no `_metadata` it fills the count in and says nothing
    (_load_from_state_dict in torch/nn/modules/batchnorm.py). torch has written the count since 0.4.1
    (pytorch PR#6445), so the official ResNet-18 of 2016 has 102 keys where the model has 122.

    Common causes:
        A file older than torch 0.4.1 or converted from Caffe, TensorFlow or Keras. FrozenBatchNorm2d
        (torchvision, detectron2), which has no such buffer. Keys deleted by hand: deleted in place they
        leave version 2 behind, left out in a dict comprehension they take `_metadata` with them, so the
        sloppier copy loads and the careful one fails.

    Fix:
        Nothing to do where the file loads. Where a strict load fails, give the layers a count:
        `sd[f"{name}.num_batches_tracked"] = torch.tensor(0)`; or drop the version:
        `model.load_state_dict({key: value for key, value in sd.items()})`.

    When this is fine:
        Always for FrozenBatchNorm2d, and where all layers lack it. A single layer without a count
        among layers that have one was edited.
    """
    layers = [layer for layer in weights.batchnorms if layer.running_mean is not None and layer.running_var is not None]
    without = [layer for layer in layers if COUNTER not in layer.tensors]
    if not without:
        return
    versions = weights.versions
    alone = the_only_ones_in_their_block(layers) if len(without) < len(layers) else set()
    strict_load_fails: list[BatchNorm] = []
    edited: list[BatchNorm] = []
    harmless: list[BatchNorm] = []
    for layer in without:
        version = versions.get(layer.name)
        kind = strict_load_fails if version == 2 else edited if version is None and layer.name in alone else harmless
        kind.append(layer)
    if strict_load_fails:
        why = " although _metadata has version 2 for them: a strict load fails"
        yield lacking(weights, strict_load_fails, layers, why, Severity.WARNING, GIVE_A_COUNT)
    if edited:
        yield lacking(weights, edited, layers, " while every layer beside them has it", Severity.WARNING)
    if harmless:
        yield lacking(weights, harmless, layers, f": {origin(weights, harmless, layers)}, loads fine", Severity.INFO)


def the_only_ones_in_their_block(layers: list[BatchNorm]) -> set[str]:
    """The layers without a count for which every other layer of the smallest block around them has one."""
    total: dict[str, int] = {}
    counted: dict[str, int] = {}
    for layer in layers:
        for block in blocks_around(layer.name):
            total[block] = total.get(block, 0) + 1
            counted[block] = counted.get(block, 0) + (COUNTER in layer.tensors)
    alone = set()
    for layer in layers:
        around = next((block for block in blocks_around(layer.name) if total[block] > 1), None)
        if around is not None and COUNTER not in layer.tensors and counted[around] == total[around] - 1:
            alone.add(layer.name)
    return alone


def blocks_around(name: str, depth: int = 32) -> Iterator[str]:
    """From the smallest block to the whole model: "layer1.0.bn1" lies in "layer1.0", "layer1" and ""."""
    while name and depth:
        name = name.rpartition(".")[0]
        depth -= 1
        yield name


def origin(weights: StateDict, harmless: list[BatchNorm], layers: list[BatchNorm]) -> str:
    if len(harmless) < len(layers):
        return "as in FrozenBatchNorm2d"
    file = weights.checkpoint
    if file is not None and any(name.rpartition(".")[2] == FROZEN for name in file.globals):
        return f"{FROZEN} keeps none"
    legacy = file is not None and file.format in ("torch-legacy", "torch-tar")
    return "a file older than torch 0.4.1" if legacy else "as in files older than torch 0.4.1"


def lacking(
    weights: StateDict,
    without: list[BatchNorm],
    layers: list[BatchNorm],
    why: str,
    severity: Severity,
    fix: str | None = None,
) -> Finding:
    have = "has" if len(without) == 1 else "have"
    return Finding(
        weights.at(layer.name for layer in without),
        f"{len(without)} of {len(layers)} BatchNorm layers {have} no num_batches_tracked{why}",
        evidence={"layers": len(layers), "without": len(without)},
        severity=severity,
        fix=fix,
    )


def uncounted(*names: str, metadata: dict[str, dict[str, object]] | None = None) -> StateDict:
    return state_dict([batchnorm(name, num_batches_tracked=None) for name in names], metadata=metadata)


def version(number: int, *names: str) -> dict[str, dict[str, object]]:
    return {"": {"version": 1}, **{name: {"version": number} for name in names}}


def frozen_backbone() -> StateDict:
    return state_dict(
        [batchnorm("backbone.bn1", num_batches_tracked=None), batchnorm("backbone.bn2")],
        metadata=version(3, "backbone.bn1") | version(2, "backbone.bn2"),
    )


def frozen_by_its_class() -> Checkpoint:
    """A pickled model of torchvision: the file names the class."""
    file = checkpoint(uncounted("bn1"))
    file.globals = [f"torchvision.ops.misc.{FROZEN}"]
    return file
