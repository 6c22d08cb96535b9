"""A checkpoint beside its reference, as a part of a run: the reference is opened, the rules look at the pair."""

from __future__ import annotations

import os

from bnlint.engine import lint
from bnlint.errors import ConfigError, UnreadableFile, UsageError
from bnlint.matching import load_outcome
from bnlint.model.raw_file import RawFile
from bnlint.pairing import pair_up
from bnlint.report import FileResult

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from bnlint.config import Config
    from bnlint.engine import Verdict
    from bnlint.model.checkpoint import Checkpoint
    from bnlint.model.pair import Pair
    from bnlint.model.state_dict import Assumed, StateDict
    from bnlint.ruleset import RuleSet
    from bnlint.settings import Comparison, Settings

CONTRACT_ENDINGS = (".yaml", ".yml")
FAMILIES = ("compare", "checkpoint")  # stale-ema-stats looks at a pair too


class Reference:
    """What a checkpoint is compared with. A context manager: closing it closes the file.

    `kind` is that of a Pair. `state_dict(key)` is the one to compare with the checkpoint's at `key`.
    """

    def __init__(self, kind: str, state_dicts: list[StateDict], close: Callable[[], None] | None = None) -> None:
        self.kind = kind
        self.state_dicts = state_dicts
        self.close = close

    def state_dict(self, key: str) -> StateDict:
        """The state dict at `key`, else the first: `ema` is compared with `ema` where both files have one."""
        return next((each for each in self.state_dicts if each.key == key), self.state_dicts[0])

    def __enter__(self) -> Reference:
        return self

    def __exit__(self, *raised: object) -> None:
        if self.close is not None:
            self.close()


def open_reference(path: str, assumed: Assumed | None = None, key: str | None = None) -> Reference:
    """The checkpoint or key contract at `path`, its state dict at `key` first.

    UsageError where it is neither, cannot be read, or has no such state dict.
    """
    expect_reference(path)
    if path.lower().endswith(CONTRACT_ENDINGS):
        from bnlint.readers.contract import load_contract

        try:
            return Reference("contract", [load_contract(path)])
        except UnreadableFile as problem:
            raise UsageError(f"{path}: {problem}") from None
    from bnlint.readers.opening import open_file

    try:
        raw = open_file(path, assumed=assumed, key=key)
    except UsageError as problem:  # of the key
        raise UsageError(f"{path}: {problem}") from None
    if raw.checkpoint is None:
        raise UsageError(f"{path}: {raw.problem}")
    if not raw.checkpoint.state_dicts:
        raw.checkpoint.close()
        raise UsageError(f"{path}: holds no state dict")
    return Reference("checkpoint", raw.checkpoint.state_dicts, raw.checkpoint.close)


def expect_reference(path: str) -> None:
    """UsageError where there is no file to compare with."""
    if not os.path.exists(path):
        raise UsageError(f"{path}: no such file")
    if not os.path.isfile(path):
        raise UsageError(f"{path}: is a folder" if os.path.isdir(path) else f"{path}: is no regular file")


def build_models(config: Config, paths: Iterable[str]) -> None:
    """Let the user's code build each model that the configuration wants one of `paths` compared with, once.

    ConfigError, with the place in the configuration, where it names code that the caller did not allow,
    whatever the paths, and where that code builds no model.
    """
    waiting = [each for each in config.compare if each.factory and each.model is None]
    if not waiting:
        return
    if not config.rulebook.allowed:
        raise ConfigError(
            f"{waiting[0].place}: {waiting[0].reference} is Python that would run; allow it with --allow-code"
        )
    from bnlint.factory import build

    models = {each.reference: each.model for each in config.compare if each.model is not None}
    wanted = {id(comparison) for path in paths for comparison in config.comparisons(path)}
    for comparison in waiting:
        if id(comparison) not in wanted:
            continue
        factory = comparison.reference
        try:
            comparison.model = models[factory] = models.get(factory) or build(factory, config.model_timeout)
        except UsageError as problem:
            raise ConfigError(f"{comparison.place}: {problem}") from None


class Compared:
    """What came of one pair: its row of the report, and what the rules say."""

    __slots__ = ("result", "verdict")

    def __init__(self, result: FileResult, verdict: Verdict) -> None:
        self.result = result
        self.verdict = verdict


def compare(raw: RawFile, comparison: Comparison, rules: RuleSet, settings: Settings) -> Compared | None:
    """What the rules say of a checkpoint beside its reference; None where the checkpoint holds no state dict.

    UsageError, with the reference's path, where one of the two cannot be read.
    """
    if raw.checkpoint is None or not raw.checkpoint.state_dicts:
        return None
    path = comparison.reference
    try:
        with _reference(comparison, settings) as reference:
            pair = _pair(raw.checkpoint, reference, comparison)
    except UsageError as problem:
        raise UsageError(f"{comparison.place}: {problem}") from None
    except UnreadableFile as problem:
        raise UsageError(f"{comparison.place}: {raw.path} and {path} cannot be compared: {problem}") from None
    verdict = lint(PairFile(raw.path, pair), rules, settings)
    for finding in (*verdict.findings, *(finding for finding, _ in verdict.suppressed)):
        finding.reference = path
    return Compared(_result(raw, path, pair), verdict)


def _reference(comparison: Comparison, settings: Settings) -> Reference:
    if comparison.model is not None:
        return Reference("model", [comparison.model])
    return open_reference(comparison.reference, settings.assumed)


def _pair(checkpoint: Checkpoint, reference: Reference, comparison: Comparison) -> Pair:
    after = checkpoint.state_dicts[0]
    return pair_up(
        reference.state_dict(after.key),
        after,
        kind=reference.kind,
        shallow=comparison.shallow,
        rename=comparison.rename,
        declared_different=comparison.different,
    )


class PairFile(RawFile):
    """A checkpoint as the file of a pair."""

    __slots__ = ("pair",)

    def __init__(self, path: str, pair: Pair) -> None:
        super().__init__(path)
        self.pair = pair

    def subjects(self) -> Iterator[object]:
        return self.pair.subjects()


def _result(raw: RawFile, path: str, pair: Pair) -> FileResult:
    return FileResult(
        raw.path,
        kind="pair",
        format=raw.format,
        batchnorm_layers=len(pair.changes),
        channels=sum(change.channels for change in pair.changes),
        note=f"against {path}: {'; '.join(summary(pair))}",
    )


def summary(pair: Pair) -> Iterator[str]:
    """A pair in a few words: how many keys match, what became of the layers, and what was read."""
    yield f"{len(pair.plan.renames)} of {len(pair.target.tensors)} keys match" + (
        f", {pair.plan.exact} by their own name" if pair.plan.exact < len(pair.plan.renames) else ""
    )
    outcome = load_outcome(pair.plan, pair.source.tensors, pair.target.tensors, metadata=pair.source.metadata)
    if outcome.strict_raises or outcome.loaded < outcome.keys:
        loads = f"loads {outcome.loaded} of {outcome.keys}"
        yield (
            f"as they are, load_state_dict {'raises' if outcome.strict_raises else loads},"
            f" with strict=False it {'raises' if outcome.nonstrict_raises else loads},"
            f" a filter by name {'raises' if outcome.filter_raises else f'{loads} and says nothing'}"
        )
    if pair.changes:
        layers = f"{len(pair.changes)} BatchNorm layer{'' if len(pair.changes) == 1 else 's'}"
        became = ", ".join(f"{len(changes)} {verdict}" for verdict, changes in pair.verdicts.items())
        yield f"{layers}: {became}"
    if not pair.into_checkpoint:
        yield "read keys and BatchNorm, all that the reference has"
    elif pair.shallow:
        yield "read keys and BatchNorm only (--shallow)"
    else:
        yield "read every weight (the default; --shallow reads keys and BatchNorm only)"
