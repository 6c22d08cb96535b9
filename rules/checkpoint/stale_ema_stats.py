from collections.abc import Iterator

from bnlint import (
    BatchNorm,
    Change,
    Checkpoint,
    Finding,
    Pair,
    Severity,
    batchnorm,
    checkpoint,
    pair,
    rule,
    state_dict,
)

AVERAGES = {"ema", "teacher", "target", "averaged", "momentum"}  # words in the name of a copy that follows a model
WRAPPERS = {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
FOLLOWS = {"encoder_k": "encoder_q", "key_encoder": "query_encoder"}  # MoCo: the keys follow the queries
RESET = {"running_mean": [0.0] * 4, "running_var": [1.0] * 4}
UNTOUCHED = {"weight": [1.0] * 4, "bias": [0.0] * 4}
PLAIN = {"weight": None, "bias": None}  # affine=False


@rule(
    severity=Severity.WARNING,
    confidence="high",
    good=lambda: [
        checkpoint(state_dict([batchnorm("bn1", **RESET)])),  # no copy: default-stats-despite-batches
        with_ema(batchnorm("bn1", num_batches_tracked=0)),  # ultralytics does not average integers
        with_ema(batchnorm("bn1", num_batches_tracked=4000)),  # use_buffers=True truncates the counter
        with_ema(batchnorm("bn1", **RESET, **UNTOUCHED)),  # a copy that was never updated
        with_ema(batchnorm("bn1", **RESET), batchnorm("bn1", **RESET)),  # the live model has none either
        with_ema(batchnorm("bn1", **RESET), batchnorm("other.bn1")),
        in_one(batchnorm("student.bn1"), batchnorm("teacher.bn1")),
        in_one(batchnorm("stem.bn1"), batchnorm("student.bn1", **RESET)),
        in_one(batchnorm("model.bn1", **RESET), batchnorm("model.layer1.bn1"), batchnorm("ema.module.layer1.bn1")),
        in_one(batchnorm("module.encoder_q.bn1", **RESET), batchnorm("module.encoder_k.bn1")),
        in_one(batchnorm("module.stem.bn1"), batchnorm("module.encoder_k.bn1", **RESET)),
        since_pretraining(batchnorm("bn1", bias=[0.2] * 4, running_mean=[0.3] * 4)),  # both moved
        since_pretraining(batchnorm("bn1")),  # an average that was never updated
    ],
    bad=lambda: [
        with_ema(batchnorm("bn1", **RESET, num_batches_tracked=0)),
        with_ema(batchnorm("module.bn1", **RESET), batchnorm("model.bn1")),
        with_ema(batchnorm("bn1", **RESET, **PLAIN), batchnorm("bn1", **PLAIN)),
        with_ema(batchnorm("bn1", **RESET, **UNTOUCHED), batchnorm("bn1", **UNTOUCHED)),
        in_one(batchnorm("student.bn1"), batchnorm("teacher.bn1", **RESET)),
        in_one(batchnorm("critic.net.1"), batchnorm("critic_target.net.1", **RESET)),
        in_one(batchnorm("net.bn1"), batchnorm("model_ema.net.bn1", **RESET)),
        *(
            in_one(batchnorm("model.layer1.0.bn1"), batchnorm(f"{copy}.layer1.0.bn1", **RESET))
            for copy in ("ema.module", "model_ema.module", "ema_model.module", "ema._orig_mod.module")
        ),
        in_one(batchnorm("module.encoder_q.bn1"), batchnorm("module.encoder_k.bn1", **RESET)),
        since_pretraining(batchnorm("bn1", bias=[0.2] * 4)),  # its buffers are still those of the reference
    ],
)
def stale_ema_stats(file: Checkpoint) -> Iterator[Finding]:
    """The averaged copy of a model (EMA, teacher, target network) has the running statistics of a new one.

    The weights were averaged, the buffers were not: in eval mode the copy normalises with mean 0 and
    variance 1. A toy network evaluated through such a copy was right in 77 % of the cases, 100 % with
    its buffers. Only the statistics prove it; the counter of a healthy copy may stand at 0 or lag.

    Common causes:
        A loop over `parameters()`, which leaves buffers out (moco#70, stable-baselines3#996,
        mean-teacher#9, sesemi#36, pytorch_ema#13, ignite#2590).

    Fix:
        Copy the buffers at every update of the average:
            for ema, live in zip(ema_model.buffers(), model.buffers(), strict=True):
                ema.copy_(live)
        or use torch.optim.swa_utils.AveragedModel, which does (torch 2.0 and later, pytorch#84053).
        For this file: torch.optim.swa_utils.update_bn(train_loader, ema_model)

    When this is fine:
        A copy that only ever runs in training mode.
    """
    for copy in file.state_dicts:
        stale = [(layer, live) for layer in copy.batchnorms if layer.default_stats and (live := followed(file, layer))]
        if stale:
            yield Finding(
                copy.at(layer.name for layer, _ in stale),
                f"running_mean is 0 and running_var 1 in {len(stale)} of {len(copy.batchnorms)} BatchNorm layers of"
                f" an averaged copy, while the model that it follows holds real statistics",
                evidence={"layers": len(copy.batchnorms), "default": len(stale)},
                related=[(live.at("running_mean", "running_var"), "the live layer") for _, live in stale[:1]],
            )


@stale_ema_stats.also
def with_the_statistics_of_the_reference(both: Pair) -> Iterator[Finding]:
    file = both.after.checkpoint
    changes = {change.after.bare_name: change for change in both.changes if change.verdict == "trained"}
    for copy in (each for each in (file.state_dicts if file else ()) if each.role == "ema"):
        stale = [
            (layer, change)
            for layer in copy.batchnorms
            if (change := changes.get(layer.bare_name)) and Change(change.before, layer).verdict in ("eval", "stuck")
        ]
        if stale:
            yield Finding(
                copy.at(layer.name for layer, _ in stale),
                f"running_mean and running_var are still those of the reference in {len(stale)} of"
                f" {len(copy.batchnorms)} BatchNorm layers of an averaged copy, while its weights moved and so did"
                " the statistics of the model that it follows",
                evidence={"layers": len(copy.batchnorms), "stale": len(stale)},
                related=[(change.after.at("running_mean", "running_var"), "the live layer") for _, change in stale[:1]],
            )


def followed(file: Checkpoint, layer: BatchNorm) -> BatchNorm | None:
    """The layer that this one is an average of, where it holds real statistics that this one lacks."""
    if layer.state_dict.role == "ema":
        wanted = layer.bare_name
        others = [each for live in file.state_dicts if live is not layer.state_dict for each in live.batchnorms]
        candidates = [other for other in others if other.bare_name == wanted]
    else:
        candidates = namesakes(layer)
    for live in candidates:
        never_updated = layer.bias is not None and live.trained and not layer.trained
        if live.real_stats and live.channels == layer.channels and not never_updated:
            return live
    return None


def namesakes(layer: BatchNorm) -> list[BatchNorm]:
    """The layers of the same state dict that it follows by its name: "student.bn1" for "teacher.bn1".

    Both may be wrapped: "model.bn1" for "ema.module.bn1". Of several that end alike, the outermost.
    """
    parts = layer.name.split(".")
    if any(part in FOLLOWS for part in parts):
        live = layer.state_dict.batchnorm(".".join(FOLLOWS.get(part, part) for part in parts))
        return [live] if live else []
    rest = after_average(parts)
    if rest is None:
        return []
    others = [other for other in layer.state_dict.batchnorms if other is not layer and other.real_stats]
    alike = [other for other in others if f".{unwrapped(other.name.split('.'))}".endswith(f".{rest}")]
    outermost = min((other.name.count(".") for other in alike), default=0)
    return [other for other in alike if other.name.count(".") == outermost]


def after_average(parts: list[str]) -> str | None:
    """What follows the part of a name that says "average", None where no part does."""
    for place, part in enumerate(parts):
        if AVERAGES.intersection(part.lower().split("_")):
            return unwrapped(parts[place + 1 :])
    return None


def unwrapped(parts: list[str]) -> str:
    return ".".join(part for part in parts if part not in WRAPPERS)


def with_ema(copy: BatchNorm, live: BatchNorm | None = None) -> Checkpoint:
    """A file that holds a model of one layer, and its average."""
    model = state_dict([batchnorm("bn1") if live is None else live], key="state_dict")
    return checkpoint(model, state_dict([copy], key="ema", role="ema"))


def since_pretraining(copy: BatchNorm) -> Pair:
    """A file that holds a trained model and its average, beside the pretrained one that both began with."""
    live = batchnorm("bn1", bias=[0.2] * 4, running_mean=[0.4] * 4, num_batches_tracked=10_400)
    model = state_dict([live], key="state_dict")
    checkpoint(model, state_dict([copy], key="ema", role="ema"))
    return pair(state_dict([batchnorm("bn1")]), model)


def in_one(*layers: BatchNorm) -> Checkpoint:
    """A file whose one state dict holds both networks."""
    return checkpoint(state_dict(layers))
