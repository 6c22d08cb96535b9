from collections.abc import Iterator

from bnlint import Finding, Severity, StateDict, batchnorm, rule, state_dict

ALIASING = "assign_to_params_buffers"


@rule(
    severity=Severity.WARNING,
    good=lambda: [
        state_dict([batchnorm("bn1")]),
        state_dict([batchnorm("bn1")], metadata={}),
        state_dict([batchnorm("bn1")], metadata={"": {"version": 1}, "bn1": {"version": 2}}),
        state_dict([batchnorm("bn1", num_batches_tracked=None)], metadata={"bn1": {"version": 3}}),
        state_dict([batchnorm("bn1")], metadata={"module": {"version": 1}, "module.bn1": {"version": 2}}),  # stale
        state_dict([batchnorm("bn1", num_batches_tracked=None)], metadata={"bn1": {"version": 1}}),
        state_dict([batchnorm("bn1", num_batches_tracked=None)], metadata={"bn1": {"version": 2}}),  # said elsewhere
    ],
    bad=lambda: [
        state_dict([batchnorm("bn1")], metadata={"": {ALIASING: True}, "bn1": {"version": 2, ALIASING: True}}),
        state_dict([batchnorm("bn1")], metadata={"": {"version": 1}, "bn1": {"version": "2"}}),
        state_dict([batchnorm("bn1")], metadata={"bn1": {"version": 1}}),
    ],
)
def metadata_anomaly(weights: StateDict) -> Iterator[Finding]:
    """The state dict's `_metadata` makes torch load it in a way that nobody expects.

    `_metadata` says by which version of each module the state dict was written. After
    `load_state_dict(sd, assign=True)` it also keeps the flag assign_to_params_buffers, and the flag
    survives torch.save: every later plain `load_state_dict` of the dict then shares its tensors with
    the model, so one training step changes the "file" in memory and two models train one running_mean
    (pytorch#188166, open; reproduced with torch 2.13).

    Common causes:
        A dict that was loaded with assign=True and saved again. A version written by hand: torch
        compares it with 2 and raises TypeError where it is not a number. Version 1 beside a counter
        (info) is a class of its own, such as mmcv's SyncBatchNorm, or an edited file.

    Fix:
        `for facts in sd._metadata.values(): facts.pop("assign_to_params_buffers", None)`, or drop
        `_metadata` altogether: `sd = {key: value for key, value in sd.items()}`.

    When this is fine:
        A missing `_metadata` is normal and not reported: dict(), OrderedDict(), .copy() and
        safetensors all drop it.
    """
    metadata = weights.metadata or {}
    aliasing = [name for name, facts in metadata.items() if facts.get(ALIASING)]
    if aliasing:
        yield Finding(
            weights.at(),
            f"_metadata has {ALIASING} for {len(aliasing)} of {len(metadata)} modules: a plain load shares the tensors",
            evidence={"modules": len(metadata), "aliasing": len(aliasing)},
        )
    for layer in weights.batchnorms:
        version = metadata.get(layer.name, {}).get("version")
        if version is not None and type(version) is not int:
            yield Finding(
                layer.at(),
                f"_metadata has a {type(version).__name__} as version, not a whole number",
                evidence={"type": type(version).__name__},
            )
        elif version == 1 and "num_batches_tracked" in layer.tensors:
            yield Finding(
                layer.at("num_batches_tracked"),
                "_metadata has version 1, which knows no num_batches_tracked, and the layer has one",
                evidence={"version": version},
                severity=Severity.INFO,
            )
