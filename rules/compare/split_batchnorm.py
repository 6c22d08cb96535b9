from collections.abc import Iterator

from bnlint import BatchNorm, Finding, Pair, Severity, StateDict, batchnorm, pair, rule, state_dict

VECTORS = ("weight", "bias", "running_mean", "running_var")


@rule(
    severity=Severity.ERROR,
    good=lambda: [
        pair(net(batchnorm()), net(batchnorm()), kind="model"),
        pair(net(batchnorm()), net(batchnorm("bn2")), kind="model"),
        pair(net(batchnorm()), net(batchnorm(weight=None, bias=None)), kind="model"),  # gamma 1 and beta 0
        pair(net(batchnorm(weight=None, bias=None)), net(batchnorm()), kind="model"),
        pair(net(batchnorm()), net(batchnorm(running_mean=None, running_var=None)), kind="model"),
        pair(net(batchnorm()), net(batchnorm(num_batches_tracked=None)), kind="model"),
    ],
    bad=lambda: [
        pair(net(batchnorm()), net(batchnorm(weight=None)), kind="model"),
        pair(net(batchnorm()), net(batchnorm(running_mean=None)), kind="contract"),
        pair(net(batchnorm()), net(batchnorm(weight=[1.0], running_mean=[0.0])), kind="model"),  # by a shape filter
        pair(net(batchnorm(weight=None)), net(batchnorm())),  # info
    ],
)
def split_batchnorm(both: Pair) -> Iterator[Finding]:
    """Of the tensors of one BatchNorm layer some would be loaded and others would not.

    Half of the layer comes from the file and half from its initialisation. A filter by shape once kept
    only bias, running_var and the counter of a layer, whose running_mean stayed 0: no error, and outputs
    of no meaning.

    Common causes:
        A filter by shape, `if v.shape == model_dict[k].shape`, or by name; a state dict put together by
        hand.

    Fix:
        Load a BatchNorm layer as a whole, or not at all:

            layers = {key.rpartition(".")[0] for key in left_out}
            state_dict = {k: v for k, v in state_dict.items() if k.rpartition(".")[0] not in layers}

    When this is fine:
        Never. A layer without weight and bias (affine=False) is whole, and one without statistics is
        running-stats-not-loaded.
    """
    origin = {place: key for key, place in both.plan.renames.items()}
    for layer in both.target.batchnorms:
        there = [leaf for leaf in VECTORS if layer.key(leaf) in origin]
        lacking = [leaf for leaf in VECTORS if leaf in layer.tensors and leaf not in there]
        if not there or not lacking or is_whole(lacking, there):
            continue
        name = layer.name if both.into_checkpoint else origin[layer.key(there[0])].rpartition(".")[0]
        yield Finding(
            both.at([name]),
            f"{' and '.join(there)} would be loaded, {' and '.join(lacking)} would not",
            severity=Severity.INFO if both.into_checkpoint else None,
            evidence={"loaded": there, "lacking": lacking},
        )


def is_whole(lacking: list[str], there: list[str]) -> bool:
    """True where what is lacking is all of the parameters, or all of the statistics, and nothing else."""
    return any({*lacking} == {*half} and not {*half} & {*there} for half in (VECTORS[:2], VECTORS[2:]))


def net(layer: BatchNorm) -> StateDict:
    return state_dict([layer])
