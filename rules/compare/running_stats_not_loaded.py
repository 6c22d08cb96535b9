from collections.abc import Iterator, Mapping

from bnlint import BatchNorm, Finding, Pair, Severity, StateDict, batchnorm, pair, rule, state_dict

PARAMETERS = ("weight", "bias")
STATISTICS = ("running_mean", "running_var")


@rule(
    severity=Severity.ERROR,
    confidence="high",
    good=lambda: [
        pair(net(), net(), kind="model"),
        pair(without_statistics(), without_statistics(), kind="model"),  # GroupNorm, track_running_stats=False
        pair(net(), without_statistics(), kind="checkpoint"),  # the other way round
        pair(net("bn2"), net("bn1"), kind="model"),
    ],
    bad=lambda: [
        pair(net(), without_statistics(), kind="model"),
        pair(net(), without_statistics(), kind="contract"),
        pair(without_statistics(), net(), kind="checkpoint"),  # info: the checkpoint has its own by now
    ],
)
def running_stats_not_loaded(both: Pair) -> Iterator[Finding]:
    """Weight and bias of a BatchNorm layer would be loaded, its running statistics would not.

    The file has no running_mean and no running_var for a layer that wants them. After loading with
    strict=False the layer normalises with mean 0 and variance 1 in eval mode: a toy network was right in
    77 % of the cases, 100 % with its statistics.

    Common causes:
        A save over `named_parameters()`, which leaves buffers out (torch/nn#1165, DIGITS#496); an adapter
        (peft#1732, #1734 and #3481).

    Fix:
        Save `model.state_dict()`. With this file, measure the statistics after loading:
            torch.optim.swa_utils.update_bn(train_loader, model)

    When this is fine:
        The statistics come from a second file.
    """
    origin = {place: key for key, place in both.plan.renames.items()}
    missing = {*both.plan.missing}
    layers = [
        layer
        for layer in both.target.batchnorms
        if any(layer.key(leaf) in origin for leaf in PARAMETERS)
        and all(layer.key(leaf) in missing for leaf in STATISTICS if leaf in layer.tensors)
    ]
    if layers:
        names = [layer.name if both.into_checkpoint else name_in_file(layer, origin) for layer in layers]
        yield Finding(
            both.at(names),
            f"weight and bias of {len(layers)} of {len(both.target.batchnorms)} BatchNorm layers would be loaded,"
            " running_mean and running_var are not there",
            severity=Severity.INFO if both.into_checkpoint else None,
            evidence={"layers": len(both.target.batchnorms), "without_statistics": len(layers)},
        )


def name_in_file(layer: BatchNorm, origin: Mapping[str, str]) -> str:
    """What the checkpoint calls a layer of the model that it would be loaded into."""
    key = next(key for leaf in PARAMETERS if (key := layer.key(leaf)) in origin)
    return origin[key].rpartition(".")[0]


def net(name: str = "bn1") -> StateDict:
    return state_dict([batchnorm(name)])


def without_statistics() -> StateDict:
    """What `dict(model.named_parameters())` holds: no BatchNorm layer that anyone could recognise."""
    layer = batchnorm(running_mean=None, running_var=None, num_batches_tracked=None)
    return state_dict(other={layer.key(leaf): each for leaf, each in layer.tensors.items()})
