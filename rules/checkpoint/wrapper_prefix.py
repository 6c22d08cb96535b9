from collections.abc import Iterator

from bnlint import Finding, Severity, StateDict, batchnorm, rule, state_dict, tensor

TRANSPORT = ("module.", "_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")


@rule(
    severity=Severity.INFO,
    good=lambda: [
        named("bn1", "layer1.bn1"),
        named("backbone.bn1", "encoder.bn1", "model.bn1"),
        named("features.module.0", "features.module.1"),
        named("module.bn1", "bn2"),  # one submodule that happens to be called module
        named("modules.bn1"),
        state_dict(),
    ],
    bad=lambda: [
        named("module.bn1", "module.layer1.bn1"),
        named("module._orig_mod.bn1"),
        named("_fsdp_wrapped_module.bn1", "_fsdp_wrapped_module.bn2"),
        state_dict([batchnorm("module.bn1")], other={"n_averaged": tensor(7, "int64")}),
        state_dict([batchnorm("module.bn1")], scalars={"n_averaged": 7}),
        named("module.bn1", "bn1", "bn2"),
    ],
)
def wrapper_prefix(weights: StateDict) -> Iterator[Finding]:
    """Every key carries the name of a wrapper such as DataParallel, torch.compile or FSDP.

    Loaded into the bare model with strict=False, a file whose keys all start with "module." matches 0
    keys and says nothing: all weights and statistics stay as initialised. 26 of 89 published state
    dicts have such a prefix. A file in which some keys stand both with and without it (warning) holds
    two versions of the same tensors, and only one of them will be loaded.

    Common causes:
        `torch.save(model.state_dict())` of a model inside DataParallel or DistributedDataParallel
        ("module."), torch.compile ("_orig_mod.", nanoGPT#325), FSDP, or AveragedModel ("module." and
        n_averaged). Both forms together: a dict that was updated with one of the other form.

    Fix:
        Save the inner model: `model.module.state_dict()`, `model._orig_mod.state_dict()`. To strip a
        prefix: `sd = {key.removeprefix("module."): value for key, value in sd.items()}`. Then load with
        strict=True.

    When this is fine:
        Where the file is loaded into an equally wrapped model.
    """
    keys = [key for key in weights.tensors if key != "n_averaged"]
    wrapped = [key for key in keys if key.startswith(TRANSPORT)]
    if not wrapped:
        return
    twice = [key for key in wrapped if weights.unwrapped(key) in weights.tensors]
    if twice:
        yield Finding(
            weights.at(tensors=twice[:8]),
            f"{len(twice)} of {len(keys)} keys are there twice, with and without {prefix(twice)!r}",
            evidence={"keys": len(keys), "twice": len(twice), "prefix": prefix(twice)},
            severity=Severity.WARNING,
        )
    elif len(wrapped) == len(keys):
        averaged = "n_averaged" in weights.tensors or "n_averaged" in weights.scalars
        yield Finding(
            weights.at(),
            f"all {len(keys)} keys start with {prefix(keys)!r}"
            + (", an AveragedModel's (n_averaged)" if averaged else ""),
            evidence={"keys": len(keys), "prefix": prefix(keys), "averaged": averaged},
        )


def prefix(keys: list[str]) -> str:
    """The names of wrappers that all these keys start with; the first key's outermost where they differ."""
    shortest = min((key.removesuffix(StateDict.unwrapped(key)) for key in keys), key=len)
    return shortest if all(key.startswith(shortest) for key in keys) else keys[0].partition(".")[0] + "."


def named(*names: str) -> StateDict:
    return state_dict([batchnorm(name) for name in names])
