"""Two things side by side: a checkpoint and its reference, and one layer before and after."""

from __future__ import annotations

from math import nan, sqrt

from bnlint.finding import Location
from bnlint.model.batchnorm import COUNTER
from bnlint.model.digest import PromisedBatchNorm, same_numbers
from bnlint.model.heads import head_of

TYPE_CHECKING = False
AFFINE = ("weight", "bias")
STATISTICS = ("running_mean", "running_var")
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bnlint.model.batchnorm import BatchNorm
    from bnlint.model.key_plan import KeyPlan
    from bnlint.model.state_dict import StateDict


class Pair:
    """A checkpoint M (`after`) beside its reference R (`before`).

    `kind` says what the reference is: "checkpoint", "contract" (a key contract: names, shapes, dtypes)
    or "model" (built on the meta device). Drift points from R, the older, to M, the newer. Keys point
    where something would be loaded: a checkpoint M into a contract or model R; of two checkpoints, R
    (pretrained) into M's keys. So `source` is what is loaded and `target` what it is loaded into, and
    `plan` maps source keys to target keys. `changes` are the BatchNorm layers that both sides have.
    `shallow` is True where only keys and BatchNorm tensors were read, so that nobody knows whether
    other weights are equal. `same_elsewhere` counts, of the other floating tensors that both have, those
    with equal bytes (None where that was not read), `other_tensors` how many there are.
    `declared_different` is True where the configuration says that these two are not the same network.
    """

    __slots__ = (
        "_filled",
        "_heads",
        "after",
        "before",
        "changes",
        "declared_different",
        "kind",
        "other_tensors",
        "plan",
        "same_elsewhere",
        "shallow",
    )

    def __init__(
        self,
        before: StateDict,
        after: StateDict,
        plan: KeyPlan,
        *,
        kind: str = "checkpoint",
        changes: Sequence[Change] = (),
        shallow: bool = False,
        same_elsewhere: int | None = None,
        other_tensors: int = 0,
        declared_different: bool = False,
    ) -> None:
        self.before = before
        self.after = after
        self.plan = plan
        self.kind = kind
        self.changes = list(changes)
        for change in self.changes:
            change.pair = self
        self.shallow = shallow
        self.same_elsewhere = same_elsewhere
        self.other_tensors = other_tensors
        self.declared_different = declared_different
        self._filled: frozenset[str] | None = None
        self._heads: tuple[frozenset[str], frozenset[str]] | None = None

    @property
    def source(self) -> StateDict:
        """What is loaded."""
        return self.before if self.kind == "checkpoint" else self.after

    @property
    def target(self) -> StateDict:
        """What it is loaded into."""
        return self.after if self.kind == "checkpoint" else self.before

    @property
    def into_checkpoint(self) -> bool:
        """True for two checkpoints: nothing is loaded here and now, it was, or will be."""
        return self.kind == "checkpoint"

    @property
    def source_keys(self) -> list[str]:
        """The keys of what is loaded, num_batches_tracked left out."""
        return [key for key in self.source.tensors if not key.endswith(COUNTER)]

    @property
    def target_keys(self) -> list[str]:
        """The keys of what it is loaded into, num_batches_tracked left out."""
        return [key for key in self.target.tensors if not key.endswith(COUNTER)]

    @property
    def matched_by_name(self) -> frozenset[str]:
        """The keys, num_batches_tracked left out, that both sides have, whatever the shape."""
        return frozenset(key for key in self.source.tensors if key in self.target.tensors and not key.endswith(COUNTER))

    @property
    def filled(self) -> frozenset[str]:
        """The target keys that the plan fills."""
        if self._filled is None:
            self._filled = frozenset(self.plan.renames.values())
        return self._filled

    @property
    def source_head(self) -> frozenset[str]:
        """The source keys of its head: the classifier at its end, which a new task replaces."""
        return self._both_heads()[0]

    @property
    def target_head(self) -> frozenset[str]:
        """The target keys of its head."""
        return self._both_heads()[1]

    def _both_heads(self) -> tuple[frozenset[str], frozenset[str]]:
        if self._heads is None:
            self._heads = head_of(self.source.tensors), head_of(self.target.tensors)
        return self._heads

    @property
    def same_weights(self) -> bool | None:
        """True where every weight that both sides have is equal bit for bit, BatchNorm's weight and bias included.

        False where one is not; None where not all of them were read.
        """
        if not all(change.affine_same for change in self.changes):
            return False
        return None if self.same_elsewhere is None else self.same_elsewhere == self.other_tensors

    @property
    def verdicts(self) -> dict[str, list[Change]]:
        """The layers by what became of them (`Change.verdict`), the words in the order of the layers."""
        found: dict[str, list[Change]] = {}
        for change in self.changes:
            found.setdefault(change.verdict, []).append(change)
        return found

    def at(self, layers: Sequence[str] = (), tensors: Sequence[str] = ()) -> Location:
        """Layers or tensors of the checkpoint as a place; none named is the pair as a whole."""
        return Location(layers, tensors, self.after.key)

    def subjects(self) -> Iterator[object]:
        """The pair and the layers of both."""
        yield self
        yield from self.changes


class Change:
    """One BatchNorm layer before (in R) and after (in M).

    `preceding_same` says whether the weight of the convolution or linear layer before it is equal bit
    for bit; None where there is none, or it was not read.
    """

    __slots__ = ("after", "before", "pair", "preceding_same")

    def __init__(self, before: BatchNorm, after: BatchNorm, *, preceding_same: bool | None = None) -> None:
        self.before = before
        self.after = after
        self.preceding_same = preceding_same
        self.pair: Pair | None = None

    @property
    def name(self) -> str:
        """The layer's name in the checkpoint."""
        return self.after.name

    def at(self, *leaves: str) -> Location:
        """The layer in the checkpoint as a place."""
        return self.after.at(*leaves)

    @property
    def affine(self) -> bool:
        """True where the layer has a weight or a bias."""
        return not {"weight", "bias"}.isdisjoint(self.after.tensors)

    @property
    def affine_same(self) -> bool:
        """True where weight and bias are equal bit for bit (or both sides have none)."""
        return same_numbers(self.before, self.after, AFFINE)

    @property
    def stats_same(self) -> bool:
        """True where running_mean and running_var are equal bit for bit."""
        return same_numbers(self.before, self.after, STATISTICS)

    @property
    def weights_same(self) -> bool:
        """True where what feeds the statistics is equal bit for bit: weight, bias, and the convolution before.

        A convolution that was not read is passed over, unless it is all there is (affine=False).
        """
        return self.affine_same and (bool(self.preceding_same) or (self.affine and self.preceding_same is None))

    @property
    def converted(self) -> bool:
        """True where the numbers have another dtype than before, so that no bit can be expected to be the same."""
        return any(
            tensor.dtype != self.before.tensors[leaf].dtype
            for leaf, tensor in self.after.tensors.items()
            if leaf in self.before.tensors and leaf in (*AFFINE, *STATISTICS)
        )

    @property
    def verdict(self) -> str:
        """What became of the layer from R to M, bit for bit, in one word.

        | weights | statistics | batches | verdict |
        |--|--|--|--|
        | same | same | any | "untouched" |
        | same | differ | more, or unknown | "drifted": frozen, and in train mode |
        | same | differ | as many | "replaced": an EMA copy, AdaBN, a conversion |
        | differ | same | as many, or unknown | "eval": trained with BatchNorm in eval mode |
        | differ | same | more | "stuck": momentum 0, or too few bits |
        | differ | differ | more, or unknown | "trained" |
        | differ | differ | as many | "averaged": EMA, soup, or a counter that got lost |
        | any | any | fewer | "rewound": files swapped, or update_bn |

        "converted" where the dtypes differ, "incomparable" where a side lacks statistics or their numbers.
        """
        if any(leaf not in side.tensors for side in (self.before, self.after) for leaf in STATISTICS):
            return "incomparable"
        if isinstance(self.before, PromisedBatchNorm) and not self.before.digests:
            return "incomparable"
        if self.converted:
            return "converted"
        batches = self.batches
        if batches is not None and batches < 0:
            return "rewound"
        if self.weights_same:
            return "untouched" if self.stats_same else "replaced" if batches == 0 else "drifted"
        if self.stats_same:
            return "stuck" if batches else "eval"
        return "averaged" if batches == 0 else "trained"

    @property
    def eps(self) -> tuple[float | None, float | None]:
        """The eps of R and of M; None where the source does not say it (a plain state dict never does)."""
        return known_eps(self.before), known_eps(self.after)

    @property
    def batches(self) -> int | None:
        """How many batches were counted from R to M; None where either side does not say."""
        before, after = self.before.num_batches_tracked, self.after.num_batches_tracked
        return None if before is None or after is None else after - before

    @property
    def mean_shift(self) -> float:
        """The largest |running_mean after - before| in standard deviations of the channel before.

        The deviation is sqrt(running_var + eps) of R. NaN where a side lacks statistics, they are not
        finite, negative, or of other lengths.
        """
        return max(self.mean_shifts, default=0.0) if self.comparable else nan

    @property
    def mean_shifts(self) -> list[float]:
        """|running_mean after - before| of each channel as `mean_shift` has it; empty where that is NaN."""
        if not self.comparable:
            return []
        eps = self.before.eps
        return [
            abs(after - before) / sqrt(var + eps)
            for before, after, var in zip(
                self.before.running_mean or (),
                self.after.running_mean or (),
                self.before.running_var or (),
                strict=True,
            )
        ]

    @property
    def var_ratio(self) -> tuple[float, float]:
        """The smallest and the largest (running_var + eps) after / before; NaN as for `mean_shift`."""
        if not self.comparable or not self.channels:
            return nan, nan
        eps = self.before.eps
        ratios = [
            (after + eps) / (before + eps)
            for before, after in zip(self.before.running_var or (), self.after.running_var or (), strict=True)
        ]
        return min(ratios), max(ratios)

    @property
    def channels(self) -> int:
        """How many channels the layer has in the checkpoint."""
        return self.after.channels

    @property
    def comparable(self) -> bool:
        """True where both sides have finite statistics of one length and no negative variance."""
        sides = (self.before, self.after)
        return all(side.real_stats or side.default_stats for side in sides) and (
            len({len(vector) for side in sides for vector in (side.running_mean or (), side.running_var or ())}) == 1
            and all(side.running_var is None or side.running_var.min >= 0 for side in sides)
        )


def known_eps(layer: BatchNorm) -> float | None:
    """The eps that the source of a layer says; None where it says none."""
    if isinstance(layer, PromisedBatchNorm):
        return layer.promised_eps
    return layer.eps if layer.eps_known else None
