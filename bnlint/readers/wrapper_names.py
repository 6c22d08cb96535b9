"""What the names around a state dict say: `{"model_ema": {...}, "optimizer": {...}, "epoch": 3}`."""

from __future__ import annotations

# Under these names stands a whole state dict, the one a user loads first in front.
MODELS = (
    "state_dict", "model_state_dict", "model_state", "model", "module", "net_state_dict", "network_state_dict",
    "net", "network", "student", "student_state_dict", "weights", "params", "parameters", "blobs",
    "generator", "discriminator", "netG", "netD", "G", "D",
)  # fmt: skip
# Words in the name of a copy that averages or follows a model.
AVERAGES = frozenset({"ema", "teacher", "target", "averaged", "average", "avg", "swa", "shadow", "momentum"})
# What stands beside a model and is none; also in the plural, and with these endings.
BESIDE = frozenset({
    "scheduler", "lr_scheduler", "sched", "lr_sched", "compression_sched", "scaler", "grad_scaler", "amp",
    "callback", "mask", "normalizer", "hyper_parameter", "hyperparameter", "hparam", "rng", "loop", "arg", "config",
    "cfg", "meta", "metric", "history", "grad", "gradient", "criterion", "loss", "buffer_name", "param_shape",
})  # fmt: skip
_LONGEST = 256  # characters of a name that are looked at
_ENDINGS = ("_state_dict", "_states", "_state", "_dict")


def is_wrapper(name: str) -> bool:
    """True for a name under which a whole state dict stands."""
    return name in MODELS or is_average(name)


def is_average(name: str) -> bool:
    """True for the name of a copy that follows a model: "model_ema", "ema.module", "params_ema", "EMACallback"."""
    return not AVERAGES.isdisjoint(_words(name))


def is_optimizer(name: str) -> bool:
    """True for names of optimizers: "optimizer_states", "optimizerG", "optim", "opt"."""
    return "optimizer" in name.lower() or not {"optim", "optims", "opt"}.isdisjoint(_words(name))


def is_beside(name: str) -> bool:
    """True for what stands beside a model in a training checkpoint: schedulers, masks, callbacks, arguments."""
    stem = name.lower()
    for ending in _ENDINGS:
        stem = stem.removesuffix(ending)
    singular = stem.removesuffix("s")
    return not BESIDE.isdisjoint((stem, singular)) or singular.endswith(("_scheduler", "_scaler", "_mask", "_callback"))


def rank(key: str) -> int:
    """The place of a state dict among those a user might load, by its key: 0 is loaded first."""
    last = key.rpartition(".")[2]
    if not key:
        return 0
    return MODELS.index(last) + 1 if last in MODELS else len(MODELS) + 1


def _words(name: str) -> list[str]:
    """The words of a name: "netG_ema", "emaModel" and "EMACallback" all hold "ema"."""
    words: list[str] = []
    for i, char in enumerate(name[:_LONGEST]):
        if not char.isalnum():
            words.append("")
            continue
        before, after = name[i - 1 : i], name[i + 1 : i + 2]
        if not words or (char.isupper() and (before.islower() or (before.isupper() and after.islower()))):
            words.append("")
        words[-1] += char.lower()
    return words
