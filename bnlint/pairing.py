"""Two state dicts side by side: which key is which, and what changed from the one to the other."""

from __future__ import annotations

from bnlint.errors import UnreadableFile
from bnlint.matching import apply_renames, match
from bnlint.model.batchnorm import VECTORS
from bnlint.model.pair import Change, Pair
from bnlint.model.tensor import ITEM_SIZE, Tensor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from bnlint.model.batchnorm import BatchNorm
    from bnlint.model.key_plan import KeyPlan
    from bnlint.model.state_dict import StateDict

CHUNK = 1 << 16  # bytes that are read of each side at a time; from 128 kB on malloc maps memory anew, twice as slow
BLOCK = 24 << 20  # bytes of each side in memory, where the two sides order their elements differently
LEAST_READ = 64  # bytes that a read counts for, however short it is
VIEWS = 4  # so many times may the tensors of a file show the same byte
_WORDS = {1: "B", 2: "H", 4: "I", 8: "Q"}
_CONVOLUTION = {"bn": "conv", "norm": "conv", "batchnorm": "conv", "batch_norm": "conv"}


def pair_up(
    before: StateDict,
    after: StateDict,
    *,
    kind: str = "checkpoint",
    shallow: bool = True,
    rename: Mapping[str, str] | None = None,
    declared_different: bool = False,
) -> Pair:
    """A checkpoint `after` beside its reference `before`.

    `kind` is what the reference is: "checkpoint", "contract" or "model". `shallow` reads nothing but what
    is read already (keys and BatchNorm); else every weight that both sides have is compared, a chunk at a
    time. `rename` maps regular expressions to what stands in place of them in the names of what is loaded
    (the reference of two checkpoints, else the checkpoint). UnreadableFile where a weight cannot be read.
    """
    source, target = (before, after) if kind == "checkpoint" else (after, before)
    plan = _plan(source, target, rename)
    places = plan.renames if kind != "checkpoint" else {new: old for old, new in plan.renames.items()}
    shallow = shallow or kind != "checkpoint"
    same = {} if shallow else _same_elsewhere(before, after, places)
    return Pair(
        before,
        after,
        plan,
        kind=kind,
        changes=list(_changes(before, after, places, same)),
        shallow=shallow,
        same_elsewhere=None if shallow else sum(same.values()),
        other_tensors=len(same),
        declared_different=declared_different,
    )


def _plan(source: StateDict, target: StateDict, rename: Mapping[str, str] | None) -> KeyPlan:
    if not rename:
        return match(source.tensors, target.tensors)
    renamed = apply_renames(source.tensors, rename)
    plan = match({new: source.tensors[old] for old, new in renamed.items()}, target.tensors)
    origin = {new: old for old, new in renamed.items()}
    plan.renames = {origin[key]: place for key, place in plan.renames.items()}
    plan.unexpected = [origin[key] for key in plan.unexpected]
    plan.unexpected_counters = [origin[key] for key in plan.unexpected_counters]
    plan.reshaped = [(origin[key], place) for key, place in plan.reshaped]
    return plan


# -- layers -------------------------------------------------------------------------------------------


def _changes(
    before: StateDict, after: StateDict, places: Mapping[str, str], same: Mapping[str, bool]
) -> Iterator[Change]:
    """The BatchNorm layers that both sides have. `places` maps keys of `after` to those of `before`."""
    convolutions = preceding(after) if same else {}
    for layer in after.batchnorms:
        earlier = _earlier(layer, before, places)
        if earlier is not None:
            yield Change(earlier, layer, preceding_same=same.get(convolutions.get(layer.name, "")))


def _earlier(layer: BatchNorm, before: StateDict, places: Mapping[str, str]) -> BatchNorm | None:
    for leaf in VECTORS:  # a counter of the same name proves nothing: all of them have one shape
        place = places.get(layer.key(leaf))
        if place is not None:
            return before.batchnorm(place.rpartition(".")[0])
    return None


def preceding(weights: StateDict) -> dict[str, str]:
    """For each BatchNorm layer the weight of the convolution or linear layer whose output it normalises.

    The convolution of its name (conv2 for bn2), else the layer that stands just before it in the state
    dict; where there is one with as many outputs as the BatchNorm layer has channels.
    """
    found: dict[str, str] = {}
    layers = {layer.name: layer for layer in weights.batchnorms}
    last = ""  # the weight of the module before
    for key in weights.tensors:
        module, _, leaf = key.rpartition(".")
        layer = layers.get(module)
        if layer is None:
            last = key if leaf == "weight" else last if last == f"{module}.weight" else ""
        elif module not in found:
            for candidate in (_namesake(module), last):
                if candidate in weights.tensors and _feeds(weights.tensors[candidate], layer):
                    found[module] = candidate
                    break
            last = ""
    return found


def _namesake(module: str) -> str:
    """ "layer1.0.conv2.weight" for "layer1.0.bn2"."""
    parent, dot, name = module.rpartition(".")
    kind = name.rstrip("0123456789")
    return f"{parent}{dot}{_CONVOLUTION.get(kind, kind)}{name[len(kind) :]}.weight"


def _feeds(weight: Tensor, layer: BatchNorm) -> bool:
    """True where the channels are those that come out; a transposed convolution has them second."""
    return len(weight.shape) > 1 and layer.channels in weight.shape[:2]


# -- all other weights ----------------------------------------------------------------------------------


def _same_elsewhere(before: StateDict, after: StateDict, places: Mapping[str, str]) -> dict[str, bool]:
    """For each floating tensor that both sides have, and no BatchNorm layer, whether it is equal bit for bit."""
    of_batchnorm = {layer.key(leaf) for layer in after.batchnorms for leaf in layer.tensors}
    compared = [
        (key, before.tensors[places[key]], tensor)
        for key, tensor in after.tensors.items()
        if key in places and key not in of_batchnorm and tensor.floating
    ]
    reading = _Reading([tensor for _, *tensors in compared for tensor in tensors])
    same: dict[str, bool] = {}
    for key, one, other in compared:
        if one.storage is None or other.storage is None:
            continue
        try:
            same[key] = reading.same(one, other)
        except UnreadableFile as problem:
            raise UnreadableFile(problem.code, f"{key[:80]!r}: {problem}", problem.offset) from None
    return same


class _Reading:
    """Compares tensors, and reads no more than what the storages hold: views may show a byte very often."""

    def __init__(self, tensors: list[Tensor]) -> None:
        storages = {id(tensor.storage): tensor.storage for tensor in tensors if tensor.storage is not None}
        self._left = 2 * CHUNK + VIEWS * sum(storage.nbytes for storage in storages.values())

    def same(self, one: Tensor, other: Tensor) -> bool:
        """True where two tensors have the same elements, bit for bit."""
        if one.dtype != other.dtype or one.shape != other.shape:
            return False
        if not one.count:
            return True
        if one.stride == other.stride:
            span = _span(one)
            if self._same_run(_run(one, span), _run(other, span)):
                return True
            if span == one.count:
                return False
        return self._same_rows(one, other)

    def _same_run(self, one: Tensor, other: Tensor) -> bool:
        step = CHUNK // ITEM_SIZE[one.dtype]
        return all(
            self._raw(_run(one, size, start)) == self._raw(_run(other, size, start))
            for start in range(0, one.count, step)
            for size in (min(step, one.count - start),)
        )

    def _same_rows(self, one: Tensor, other: Tensor) -> bool:
        """Compare two layouts: in memory, or row by row where that takes too much of it."""
        if max(_span(one), _span(other)) * ITEM_SIZE[one.dtype] > BLOCK and one.shape:
            return all(self._same_rows(_row(one, i), _row(other, i)) for i in range(one.shape[0]))
        mine, theirs = (
            _words(self._raw(_run(each, _span(each)), each.nbytes), ITEM_SIZE[each.dtype]) for each in (one, other)
        )
        axes = sorted(axis for axis in zip(one.shape, one.stride, other.stride, strict=True) if axis[0] > 1)
        return _same_words(mine, theirs, axes)

    def _raw(self, tensor: Tensor, shown: int = 0) -> bytes:
        self._left -= max(LEAST_READ, tensor.nbytes, shown)
        if self._left < 0:
            raise UnreadableFile("limit", "the tensors show the same bytes too often")
        return tensor.raw()


def _words(data: bytes, size: int) -> memoryview:
    """Bytes as whole numbers of `size` bytes: equal where all bits are."""
    return memoryview(data).cast(_WORDS[size])  # type: ignore[call-overload,no-any-return,unused-ignore]


def _same_words(mine: memoryview, theirs: memoryview, axes: list[tuple[int, int, int]]) -> bool:
    """Compare element by element. Axes are a length and the step on either side, the longest last."""
    if not axes:
        return bool(mine[0] == theirs[0])
    (size, step, other_step), *inner = axes
    if not inner and step and other_step:
        return mine[: (size - 1) * step + 1 : step] == theirs[: (size - 1) * other_step + 1 : other_step]
    return all(_same_words(mine[i * step :], theirs[i * other_step :], inner) for i in range(size))


def _span(tensor: Tensor) -> int:
    """The places from its first element to its last."""
    if not tensor.count:
        return 0
    return 1 + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride, strict=True))


def _run(tensor: Tensor, size: int, start: int = 0) -> Tensor:
    """`size` places of its storage, from `start` places after its first element."""
    return Tensor(tensor.dtype, (size,), tensor.storage, offset=tensor.offset + start)


def _row(tensor: Tensor, i: int) -> Tensor:
    offset = tensor.offset + i * tensor.stride[0]
    return Tensor(tensor.dtype, tensor.shape[1:], tensor.storage, stride=tensor.stride[1:], offset=offset)
