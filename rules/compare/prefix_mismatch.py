from collections.abc import Mapping, Sequence

from bnlint import Finding, KeyPlan, Pair, PrefixChange, Severity, StateDict, batchnorm, load_line, pair, rule
from bnlint import state_dict as weights


@rule(
    severity=Severity.ERROR,
    confidence="high",
    good=lambda: [
        pair(net(), net(), kind="model"),
        pair(net(), net("other."), kind="model"),  # no plan explains it: no-matching-keys
        wrapped("module.", "", kind="model", plan=KeyPlan({}, unexpected=["module.bn1.weight"])),
    ],
    bad=lambda: [
        wrapped("module.", "", kind="model"),
        wrapped("", "backbone.", kind="contract"),
        wrapped("_orig_mod.", "model.", kind="model"),
        wrapped("module.", "", kind="checkpoint"),  # info
    ],
)
def prefix_mismatch(both: Pair, *, ratio: float = 0.9) -> Sequence[Finding]:
    """The names differ in a prefix only, so that next to nothing would be loaded.

    As they are, fewer than half of the keys have a place in the target; with one prefix taken off or put
    on, nearly all have. `load_state_dict` raises, and with strict=False it loads nothing and says so only
    in a return value that is usually thrown away. Between two checkpoints it is a fact worth knowing: one
    of them was written by a wrapped model.

    Common causes:
        DataParallel and DistributedDataParallel (`module.`), torch.compile (`_orig_mod.`), FSDP and
        activation checkpointing, a model that became the backbone or encoder of another (timm PR#2003,
        open_clip PR#639, nanoGPT#325, pytorch#3805, pytorch#101107).

    Fix:
        Rename the keys before loading:
            state_dict = {key.removeprefix("module."): value for key, value in state_dict.items()}
        and save the model inside the wrapper: model.module.state_dict(), model._orig_mod.state_dict().

    When this is fine:
        The loading code changes the prefix itself.
    """
    source, target = both.source_keys, both.target_keys
    total = min(len(source), len(target))
    exact = len(both.matched_by_name)
    if not total or exact >= total / 2:
        return []
    change = first_change(both)
    matched = sum(not key.endswith("num_batches_tracked") for key in both.plan.renames)
    if not change or matched < ratio * total:
        return []
    return [
        Finding(
            both.at(),
            f"{exact} of {total} keys match as they are, {matched} with {change}",
            severity=Severity.INFO if both.into_checkpoint else None,
            evidence={
                "keys": total,
                "matched": exact,
                "matched_after": matched,
                "strip": [each.strip for each in both.plan.prefixes],
                "add": [each.add for each in both.plan.prefixes],
            },
            fix=f"Rename the keys before loading:\n    {indented(load_line(both.plan))}",
        )
    ]


def first_change(both: Pair) -> str:
    """The change of names that explains most, in words; "" where renamed modules explain it."""
    for change in both.plan.prefixes:
        if change.strip and change.add:
            return f"{change.add!r} in place of {change.strip!r} at the front"
        return f"{change.strip!r} taken off" if change.strip else f"{change.add!r} put on"
    return " and ".join(f"{token!r} taken out of the middle" for token in both.plan.dropped)


def indented(code: str) -> str:
    return code.replace("\n", "\n    ")


def net(prefix: str = "") -> StateDict:
    """A network of one BatchNorm layer, under a prefix."""
    return weights([batchnorm(f"{prefix}bn1")])


def wrapped(strip: str, add: str, *, kind: str, plan: KeyPlan | None = None) -> Pair:
    """A checkpoint whose keys begin with `strip` where the target has `add`."""
    source, target = net(strip), net(add)
    renames: Mapping[str, str] = dict(zip(source.tensors, target.tensors, strict=True))
    plan = plan or KeyPlan(renames, prefixes=[PrefixChange(strip, add, len(renames))])
    before, after = (source, target) if kind == "checkpoint" else (target, source)
    return pair(before, after, kind=kind, plan=plan)
