from collections.abc import Iterator

from bnlint import BatchNorm, Checkpoint, Finding, OptimizerState, Severity, batchnorm, checkpoint, rule, state_dict


@rule(
    severity=Severity.INFO,
    confidence="medium",
    good=lambda: [
        trained(counts=[1000, 1000], steps=1000),
        trained(counts=[1003, 1003], steps=1000),  # AMP skipped three steps
        trained(counts=[4000, 4000], steps=None),  # SGD counts no steps
        trained(counts=[1_905_515, 343_102], steps=1000),  # each layer has a history of its own
        trained(counts=[1730, 1730], steps=1000),  # a resumed run
        trained(counts=[500_000, 500_000], steps=1000),  # pretrained elsewhere
        trained(counts=[4000, 4000], steps=1000, optimizers=2),  # a GAN
        checkpoint(state_dict([batchnorm()])),
    ],
    bad=lambda: [
        trained(counts=[4000, 4000], steps=1000),
        trained(counts=[2000, 2000], steps=1000),
        trained(counts=[600, 600], steps=1000),
        trained(counts=[0, 0], steps=1000),
    ],
)
def batches_per_step(file: Checkpoint, *, tolerance: float = 0.02, at_most: int = 64) -> Iterator[Finding]:
    """BatchNorm counted more, or fewer, batches than the optimizer made steps.

    With gradient accumulation over k batches BatchNorm still normalises by the small batch and updates
    k times per step: its momentum per step is 1 - (1 - 0.1)^4 = 0.344 for k = 4 instead of 0.1. Under
    gradient checkpointing every forward runs twice and updates twice, 0.19 instead of 0.1
    (pytorch#62471, #96136).

    Common causes:
        More: gradient accumulation, torch.utils.checkpoint (2), two forwards per step as in SAM or
        with two domains (2), a model shared by several losses. Fewer: BatchNorm was in eval mode for
        part of the training, or the counts come from a file that had none.

    Fix:
        To keep the time constant per step, use `momentum = 1 - (1 - 0.1) ** (1 / k)`: 0.026 for k = 4,
        0.0513 for k = 2.

    When this is fine:
        Almost always: the statistics are an average over more, smaller batches.
    """
    if len(file.optimizers) != 1 or not file.state_dicts:
        return
    optimizer = file.optimizers[0]
    steps = {optimizer.steps(index) for index in optimizer.state} - {None}
    counts = {layer.num_batches_tracked for layer in trained_layers(file)}
    if len(steps) != 1 or len(counts) != 1 or None in counts:
        return
    step, count = steps.pop() or 1, counts.pop() or 0
    ratio = count / step
    whole = round(ratio)
    if ratio < 1 - tolerance or (2 <= whole <= at_most and abs(ratio - whole) <= tolerance):
        yield Finding(
            file.state_dicts[0].at(),
            f"BatchNorm counted {count} batches in {step} optimizer steps ({ratio:.3g} per step)",
            evidence={"num_batches_tracked": count, "optimizer_steps": step, "ratio": ratio},
        )


def trained_layers(file: Checkpoint) -> list[BatchNorm]:
    """The layers that the optimizer trained, all of them where that is not known."""
    weights = file.state_dicts[0]
    training = file.training(weights)
    return [layer for layer in weights.batchnorms if training is None or training.trained(layer)]


def trained(*, counts: list[int], steps: int | None, optimizers: int = 1) -> Checkpoint:
    layers = [batchnorm(f"bn{i}", num_batches_tracked=count) for i, count in enumerate(counts)]
    facts = {"momentum_buffer": (4,)} if steps is None else {"step": steps, "exp_avg": (4,)}
    held = range(2 * len(layers))
    adam = OptimizerState("optimizer", [list(held)], dict.fromkeys(held, facts))
    return checkpoint(state_dict(layers), optimizers=[adam] * optimizers)
