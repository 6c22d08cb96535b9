"""What can be repaired without losing anything, and what a state dict needs of it."""

from __future__ import annotations

from math import isfinite

from bnlint.errors import UnreadableFile, UsageError
from bnlint.fixing.edit import Edit, NewTensor
from bnlint.matching import apply_renames
from bnlint.model.batchnorm import COUNTER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from bnlint.comparing import Reference
    from bnlint.model.batchnorm import BatchNorm
    from bnlint.model.pair import Change, Pair
    from bnlint.model.state_dict import StateDict
    from bnlint.model.tensor import Tensor

STATISTICS = ("running_mean", "running_var")
_LARGEST_COUNT = 1 << 63


class Repairs:
    """What is asked for. Nothing asked for is the three repairs of num_batches_tracked.

    `renames` maps regular expressions to replacements, applied between taking `strip_prefix` off and putting
    `add_prefix` on; prefixes are modules: "module" is "module.".
    """

    __slots__ = (
        "add_counters",
        "add_prefix",
        "cast_counters",
        "drop_orphans",
        "renames",
        "restore_stats",
        "strip_prefix",
    )

    def __init__(
        self,
        *,
        strip_prefix: str = "",
        add_prefix: str = "",
        renames: Mapping[str, str] | None = None,
        add_counters: bool = False,
        cast_counters: bool = False,
        drop_orphans: bool = False,
        restore_stats: bool = False,
    ) -> None:
        self.strip_prefix = _as_module(strip_prefix)
        self.add_prefix = _as_module(add_prefix)
        self.renames = dict(renames or {})
        self.restore_stats = restore_stats
        named = self.strip_prefix or self.add_prefix or self.renames or restore_stats
        nothing_asked = not (named or add_counters or cast_counters or drop_orphans)
        self.add_counters = add_counters or nothing_asked
        self.cast_counters = cast_counters or nothing_asked
        self.drop_orphans = drop_orphans or nothing_asked


def plan(
    state_dict: StateDict, repairs: Repairs, reference: Reference | None, writable: Collection[str], mended: str
) -> Edit:
    """What to change in a state dict. `writable` are the dtypes that the format can take new tensors of.

    UsageError where it does not have the prefix that shall go, where two keys would get one name, and where
    the reference holds no statistics.
    """
    edit = Edit(state_dict)
    pair = _pair(state_dict, reference, shallow=not repairs.restore_stats)
    changes = {change.name: change for change in pair.changes} if pair is not None else {}
    if repairs.drop_orphans:
        edit.dropped.update(orphans(state_dict))
    if repairs.restore_stats:
        _restore_statistics(edit, changes, writable)
    if repairs.cast_counters:
        _cast_counters(edit)
    if repairs.add_counters:
        _add_counters(edit, changes, with_reference=pair is not None)
    _rename(edit, repairs, mended)
    return edit


def _as_module(prefix: str) -> str:
    return f"{prefix}." if prefix and not prefix.endswith(".") else prefix


def _pair(state_dict: StateDict, reference: Reference | None, shallow: bool) -> Pair | None:
    if reference is None:
        return None
    from bnlint.pairing import pair_up

    return pair_up(reference.state_dict(state_dict.key), state_dict, kind=reference.kind, shallow=shallow)


# -- num_batches_tracked ------------------------------------------------------------------------------------


def counters(state_dict: StateDict) -> Iterator[tuple[str, Tensor]]:
    """The keys called num_batches_tracked, with their tensors."""
    for key, tensor in state_dict.tensors.items():
        if key.rpartition(".")[2] == COUNTER:
            yield key, tensor


def orphans(state_dict: StateDict) -> Iterator[str]:
    """The counters without statistics beside them."""
    for key, _ in counters(state_dict):
        beside = key.removesuffix(COUNTER)
        if not any(beside + leaf in state_dict.tensors for leaf in STATISTICS):
            yield key


def _add_counters(edit: Edit, changes: Mapping[str, Change], with_reference: bool) -> None:
    tensors = edit.state_dict.tensors
    invented = 0
    for layer in edit.state_dict.batchnorms:
        if layer.key(COUNTER) in tensors or layer.running_mean is None or layer.running_var is None:
            continue
        change = changes.get(layer.name)
        batches = change.before.num_batches_tracked if change is not None else None
        invented += with_reference and batches is None
        edit.added[_last_key(layer)] = layer.key(COUNTER), NewTensor.counter(batches or 0)
    if invented:
        edit.left.append(f"the reference has no {COUNTER} for {_layers(invented)}: 0 there")


def _last_key(layer: BatchNorm) -> str:
    """The key of the layer's statistics that comes last in the file: torch has the counter behind it."""
    tensors = layer.state_dict.tensors
    wanted = {layer.key(leaf) for leaf in STATISTICS}
    return next(key for key in reversed(list(tensors)) if key in wanted)


def _cast_counters(edit: Edit) -> None:
    for key, tensor in counters(edit.state_dict):
        if tensor.dtype == "int64" or key in edit.dropped or key in edit.replaced:
            continue
        count = _single(tensor)
        if count is None:
            edit.left.append(f"{key} ({tensor.dtype}) is no whole number, so it is left as it is")
        else:
            edit.replaced[key] = NewTensor.counter(count, tensor.shape)


def _single(tensor: Tensor) -> int | None:
    """The whole number in a tensor of one element, None where there is another."""
    if tensor.count != 1:
        return None
    try:
        (value,) = tensor.values()
    except UnreadableFile:
        return None
    return int(value) if isfinite(value) and value == int(value) and abs(value) < _LARGEST_COUNT else None


# -- statistics ---------------------------------------------------------------------------------------------


def _restore_statistics(edit: Edit, changes: Mapping[str, Change], writable: Collection[str]) -> None:
    """Give frozen layers the statistics of the reference: those whose weights are the same bit for bit."""
    other_dtypes = 0
    for change in changes.values():
        if change.converted:
            other_dtypes += 1
        elif change.weights_same and not change.stats_same:
            _restore(edit, change, writable)
    if other_dtypes:
        edit.left.append(f"{_layers(other_dtypes)} of another dtype than in the reference: statistics left as they are")


def _restore(edit: Edit, change: Change, writable: Collection[str]) -> None:
    now, then = change.after, change.before
    for leaf in (*STATISTICS, COUNTER):
        key = now.key(leaf)
        tensor, earlier = now.tensors.get(leaf), then.tensors.get(leaf)
        if tensor is None or earlier is None or earlier.storage is None:
            continue
        if tensor.dtype != earlier.dtype or tensor.shape != earlier.shape or tensor.dtype not in writable:
            edit.left.append(f"{key} is {_form(tensor)}, and {_form(earlier)} in the reference: left as it is")
        elif tensor.raw() != earlier.raw():
            edit.replaced[key] = NewTensor(earlier.dtype, earlier.shape, earlier.raw())


def _form(tensor: Tensor) -> str:
    return f"{tensor.dtype} {list(tensor.shape)}"


def _layers(count: int) -> str:
    return "1 layer" if count == 1 else f"{count} layers"


def unmendable(edit: Edit) -> list[tuple[str, str]]:
    """The layers whose statistics only data can give back, and what is wrong with them."""
    return [
        (edit.name(layer.key("running_var")).rpartition(".")[0], what)
        for layer in edit.state_dict.batchnorms
        if (what := _damage(layer)) and not {layer.key(leaf) for leaf in STATISTICS} & edit.replaced.keys()
    ]


def _damage(layer: BatchNorm) -> str:
    for leaf, vector in zip(STATISTICS, (layer.running_mean, layer.running_var), strict=True):
        if vector is None:
            return f"has no {leaf}"
        if not vector.finite:
            return f"{leaf} is not finite"
    if layer.running_var is not None and layer.running_var.min < 0:
        return "running_var is negative"
    if layer.default_stats and layer.trained and not layer.detectron2_identity:
        return "running statistics are those of a new layer"
    return ""


# -- names --------------------------------------------------------------------------------------------------


def _rename(edit: Edit, repairs: Repairs, mended: str) -> None:
    keys = list(edit.keys())
    names = {key: key for key in keys}
    if repairs.strip_prefix:
        if not any(key.startswith(repairs.strip_prefix) for key in keys):
            raise UsageError(f"--strip-prefix: no key of {mended} begins with {repairs.strip_prefix!r}")
        names = {key: name.removeprefix(repairs.strip_prefix) for key, name in names.items()}
    if repairs.renames:
        _expect_distinct(names)
        renamed = apply_renames(names.values(), repairs.renames)
        names = {key: renamed[name] for key, name in names.items()}
    if repairs.add_prefix:
        names = {key: repairs.add_prefix + name for key, name in names.items()}
    _expect_distinct(names)
    edit.names = {key: name for key, name in names.items() if key != name}


def _expect_distinct(names: Mapping[str, str]) -> None:
    owners: dict[str, str] = {}
    for key, name in names.items():
        if not name:
            raise UsageError(f"{key!r} would be left without a name")
        if name in owners:
            raise UsageError(f"both {owners[name]!r} and {key!r} would become {name!r}")
        owners[name] = key
