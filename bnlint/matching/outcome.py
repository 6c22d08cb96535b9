"""What `load_state_dict` would do, in its three forms."""

from __future__ import annotations

from bnlint.matching.names import is_counter, module_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from bnlint.model.key_plan import KeyPlan
    from bnlint.model.tensor import Tensor

    Metadata = Mapping[str, Mapping[str, object]]


class LoadOutcome:
    """What three ways to load a file as it is would do, and what the plan would make of it.

    Of the `keys` of the model, `loaded` would be filled from the file: those of equal name and shape.
    `strict_raises`: `load_state_dict(state_dict)` raises. `nonstrict_raises`: so does strict=False, which
    takes missing and unexpected keys but never another shape. `filter_raises`: so does the idiom
    `{k: v for k, v in pretrained.items() if k in model_dict}` with `model_dict.update(...)`, which
    can raise for another shape only: with nothing loaded it says nothing. `planned` keys would be filled
    once the plan's renames are applied, and `plan_raises` says whether strict=True would then raise.
    What raises for a shape alone has by then filled the other keys.

    Source: torch.nn.Module._load_from_state_dict and torch.nn.modules.batchnorm._NormBase, torch 2.13.
    """

    __slots__ = ("filter_raises", "keys", "loaded", "nonstrict_raises", "plan_raises", "planned", "strict_raises")

    def __init__(self, *, keys: int, loaded: int, planned: int, raises: tuple[bool, bool, bool, bool]) -> None:
        self.keys = keys
        self.loaded = loaded
        self.planned = planned
        self.strict_raises, self.nonstrict_raises, self.filter_raises, self.plan_raises = raises

    @property
    def silent(self) -> bool:
        """True where the filter idiom loads nothing at all and does not say so."""
        return self.keys > 0 and not self.loaded and not self.filter_raises


def load_outcome(
    plan: KeyPlan,
    source: Mapping[str, Tensor],
    target: Mapping[str, Tensor],
    *,
    metadata: Metadata | None = None,
) -> LoadOutcome:
    """What `load_state_dict` would do with `source` in a model whose state dict is `target`.

    `metadata` is the `_metadata` of the source: where it gives a BatchNorm layer the version 2, a missing
    num_batches_tracked raises; without it the model keeps its own.
    """
    common = [key for key in target if key in source]
    fitting = sum(_loads(source[key], target[key]) for key in common)
    clash = fitting < len(common)
    missing = any(_is_missed(key, metadata or {}) for key in target if key not in source)
    unexpected = len(common) < len(source)
    return LoadOutcome(
        keys=len(target),
        loaded=fitting,
        planned=len(plan.renames),
        raises=(
            missing or unexpected or clash,
            clash,
            clash,
            # a dict that was renamed by a comprehension has no metadata: missing counters do not raise
            any(map(bool, (plan.missing, plan.unexpected, plan.unexpected_counters, plan.reshaped))),
        ),
    )


def _loads(tensor: Tensor, wanted: Tensor) -> bool:
    """Equal shapes; and a vector goes into a scalar, as in files from before torch 0.4."""
    return tuple(tensor.shape) == tuple(wanted.shape) or (not wanted.shape and len(tensor.shape) == 1)


def _is_missed(key: str, metadata: Metadata) -> bool:
    if not is_counter(key):
        return True
    version = metadata.get(module_of(key), {}).get("version")
    return isinstance(version, int) and version >= 2
