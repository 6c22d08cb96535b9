"""`bnlint.torch.watch(model)`: notices frozen BatchNorm in train mode, and statistics that stop being finite.

What costs something happens rarely. A forward hook looks at the training flags in Python and leaves one
number on the device: the first batch after which a running variance was not finite. It is read every
`every` batches and at the end. The variance is enough: it is computed from the mean, and NaN in a running
average stays.
"""

from __future__ import annotations

import sys
import warnings

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from bnlint.engine import lint
from bnlint.model.raw_file import RawFile
from bnlint.report import Report
from bnlint.reports.wording import fix, in_short, more, names_in_words, statement
from bnlint.ruleset import RuleSet
from bnlint.torch.checking import configured, title
from bnlint.torch.live import ORIGIN, Live

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import TracebackType

    from typing_extensions import Self, Unpack

    from bnlint.finding import Finding
    from bnlint.torch.checking import Options

FROZEN, NONFINITE = "frozen-bn-in-train-mode", "nonfinite-running-stats"
EVERY = 100  # batches
NAMED, FEW = 12, 3  # so many layers of which the same is said are named, so many different things are said
_NEVER = 1 << 62


class BatchNormWarning(UserWarning):
    """What `watch` has to say, where no callback takes it."""


def watch(
    model: nn.Module,
    *,
    every: int = EVERY,
    on_findings: Callable[[Sequence[Finding]], object] | None = None,
    name: str | None = None,
    **options: Unpack[Options],
) -> Watch:
    """Watch the BatchNorm layers of a model while it trains; a context manager.

        with bnlint.torch.watch(model) as watching:
            train(model)

    Said at once, at the forward that is about to do the damage: a layer in train mode whose parameters are
    frozen, by the rule `frozen-bn-in-train-mode`, also where a later `model.train()` undid an `eval()`. Said
    within `every` batches and at the end: running statistics that are no longer finite, and since which
    batch. Each layer is named once per rule, in a BatchNormWarning, or to `on_findings`.

    `model` is what the training loop calls; for a compiled model, what `torch.compile` gave. No step waits
    for the device. The options are those of `check`; UsageError and ConfigError where they are wrong.
    """
    return Watch(model, every=every, on_findings=on_findings, name=name, **options)


class Watch:
    """A model under watch, from `start` to `stop`; as a context manager, for the time of its block.

    `batches` counts the forwards in which a BatchNorm layer was in train mode: what BatchNorm sees,
    whatever gradients are accumulated. `findings` is all that was noticed.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        every: int = EVERY,
        on_findings: Callable[[Sequence[Finding]], object] | None = None,
        name: str | None = None,
        **options: Unpack[Options],
    ) -> None:
        config = configured(options)
        self.batches = 0
        self.findings: list[Finding] = []
        self._model = model
        self._every = max(1, every)
        self._on_findings = on_findings or self._warn
        self._name = name or title(model)
        self._settings = config.for_file(self._name)
        self._rules = {name: rule for name in (FROZEN, NONFINITE) if (rule := config.rulebook.rule(name))}
        self._handles: list[Callable[[], None]] = []
        self._forget()

    def _forget(self) -> None:
        self.batches = 0
        self.findings = []
        self._said: set[tuple[str, str]] = set()  # rule and layer
        self._layers: dict[int, tuple[str, nn.Module]] = {}
        self._seen: set[int] = set()  # layers that were looked at in train mode
        self._damaged: set[int] = set()
        self._first_bad: dict[torch.device, torch.Tensor] = {}  # the first batch that was not finite
        self._counted: dict[str, int] = {}
        self._forwards = False  # the model itself is called, not only parts of it
        self._inside = False
        self._ran: set[int] = set()  # where only parts are called: the layers that ran in this batch

    # -- start and stop -------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.stop()
        except Exception:
            if error is None:
                raise  # else the error that ends the block is the one to be seen

    def start(self) -> Self:
        """Put the hooks on. Does nothing where they are."""
        if self._handles:
            return self
        self._forget()
        live = self._look()
        self._counted = {layer.name: layer.num_batches_tracked or 0 for layer in live.checkpoint().batchnorms}
        self._tell(NONFINITE, live, "before the first batch")
        self._attach()
        return self

    def stop(self) -> None:
        """Take the hooks off and say what is left to say. Does nothing where they are off."""
        if not self._handles:
            return
        self._detach()
        if self._ran:
            self._close_batch()
        live = self._look()
        counted = sum(
            (layer.num_batches_tracked or 0) > self._counted.get(layer.name, 0)
            for layer in live.checkpoint().batchnorms
        )
        self._tell(NONFINITE, live, self._since())
        if counted and not self.batches:
            warnings.warn(
                f"bnlint: {counted} BatchNorm layers of {self._name} counted batches, but no forward in train mode was"
                " seen: hooks do not run inside a compiled model. Watch what the training loop calls.",
                BatchNormWarning,
                stacklevel=_user_level(),
            )

    def _attach(self) -> None:
        call = getattr(self._model, "_compiled_call_impl", None)
        if call is None:
            hooks = (
                self._model.register_forward_pre_hook(_Hook(self._before_model)),
                self._model.register_forward_hook(_Hook(self._after_model)),
            )
            self._handles += [hook.remove for hook in hooks]
        else:
            self._surround(call)
        for _, layer in self._layers.values():
            self._handles.append(layer.register_forward_pre_hook(_Hook(self._before_layer)).remove)

    def _surround(self, call: Callable[..., object]) -> None:
        """Stand around a model that was compiled in place: its hooks are part of what is compiled."""
        model = self._model

        def watched(*args: object, **kwargs: object) -> object:
            self._before_model(model)
            result = call(*args, **kwargs)
            self._after_model(model)
            return result

        def restore() -> None:
            if model._compiled_call_impl is watched:
                model._compiled_call_impl = call

        model._compiled_call_impl = watched
        self._handles.append(restore)

    def _detach(self) -> None:
        while self._handles:
            self._handles.pop()()

    # -- every batch ----------------------------------------------------------------------------------

    def _before_model(self, model: nn.Module, *_: object) -> None:
        if model is not self._model or not self._handles or _is_traced():
            return
        training = {key for key, (_, layer) in self._layers.items() if layer.training}
        if training:
            self._forwards = self._inside = True
            if not training <= self._seen:
                self._look_at_modes()

    def _after_model(self, *_: object) -> None:
        if self._inside and not _is_traced():
            self._inside = False
            self._close_batch()

    def _before_layer(self, layer: nn.Module, *_: object) -> None:
        """Where only parts of the model are called: a batch ends when a layer is called for the second time."""
        if _is_traced() or self._forwards or not layer.training or id(layer) not in self._layers:
            return
        if id(layer) in self._ran:
            self._close_batch()
        if id(layer) not in self._seen:
            self._look_at_modes()
        self._ran.add(id(layer))

    def _close_batch(self) -> None:
        self._ran.clear()
        self.batches += 1
        self._flag()
        if self.batches % self._every == 0:
            self._look_at_modes()
            self._read_flags()

    def _flag(self) -> None:
        """Leave on each device the first batch after which a variance there was not finite. Nothing is read."""
        by_device: dict[torch.device, list[torch.Tensor]] = {}
        for key, (_, layer) in self._layers.items():
            variance = layer.running_var
            if isinstance(variance, torch.Tensor) and layer.training and key not in self._damaged:
                by_device.setdefault(variance.device, []).append(variance)
        with torch.no_grad():
            for device, variances in by_device.items():
                if device.type == "meta" or any(map(is_lazy, variances)):
                    continue
                finite = torch.cat(variances).isfinite().all()
                first = self._first_bad.get(device)
                if first is None:
                    first = torch.full((), _NEVER, dtype=torch.int64, device=device)
                self._first_bad[device] = torch.where(finite, first, first.clamp(max=self.batches))

    # -- now and then ---------------------------------------------------------------------------------

    def _look(self) -> Live:
        """Read the modules again: layers come and go, modes and requires_grad change."""
        live = Live(self._model)
        self._layers = {id(layer): (name, layer) for name, layer in live.layers.items()}
        return live

    def _look_at_modes(self) -> None:
        live = self._look()
        self._seen.update(key for key, (_, layer) in self._layers.items() if layer.training)
        self._tell(FROZEN, live)

    def _read_flags(self) -> None:
        since = self._since()
        if since:
            live = self._look()
            live.checkpoint()
            self._tell(NONFINITE, live, since)

    def _since(self) -> str:
        """Since when statistics are not finite, as far as the flags say; "" where all are."""
        first = min((int(flag) for flag in self._first_bad.values()), default=_NEVER)
        self._first_bad.clear()
        return f"since batch {first}" if first < _NEVER else ""

    def _tell(self, rule: str, live: Live, when: str = "") -> None:
        """Say what a rule finds, of each layer once."""
        new = []
        for finding in self._ask(rule, live):
            fresh = [name for name in finding.location.layers if (rule, name) not in self._said]
            if fresh:
                self._said.update((rule, name) for name in fresh)
                finding.message += f", {when}" if when else ""
                new.append(finding)
        if rule == NONFINITE:
            names = {name for finding in new for name in finding.location.layers}
            self._damaged.update(key for key, (name, _) in self._layers.items() if name in names)
        if new:
            self.findings += new
            self._on_findings(new)

    def _ask(self, name: str, live: Live) -> Sequence[Finding]:
        verdict = lint(_Layers(self._name, live), RuleSet([self._rules[name]]), self._settings)
        for crash in verdict.crashes:
            warnings.warn(f"bnlint: {crash}", BatchNormWarning, stacklevel=_user_level())
        return verdict.findings

    def _warn(self, findings: Sequence[Finding]) -> None:
        """One warning for all that a rule says now."""
        layers: dict[str, list[str]] = {}
        for finding in findings:
            layers.setdefault(statement(finding), []).extend(finding.location.layers)
        said = [f"{' '.join(names_in_words(names, 'layer', NAMED))}: {what}" for what, names in layers.items()]
        rest = sum(map(len, list(layers.values())[FEW:]))
        prose, code = in_short(fix(findings[0], Report(rules=self._rules)))
        lines = [*said[:FEW], *([f"and {more(rest, 'layer')}"] if rest else []), f"[{findings[0].rule}]"]
        lines += [f"Fix: {prose}", *(f"    {line}" for line in code)]
        warnings.warn("\n".join(lines), BatchNormWarning, stacklevel=_user_level())


class _Layers(RawFile):
    """The BatchNorm layers of a live model, their modes and their numbers, as a file that rules look at."""

    __slots__ = ("live",)

    def __init__(self, name: str, live: Live) -> None:
        super().__init__(name, format=ORIGIN)
        self.live = live

    def subjects(self) -> Iterator[object]:
        for module in self.live.tree.batchnorms:
            yield module
            if module.layer is not None:
                yield module.layer


class _Hook:
    """A hook that a copied or pickled model does not take along: the copy's does nothing."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[..., None] | None = None) -> None:
        self._call = call

    def __call__(self, module: nn.Module, *rest: object) -> None:
        if self._call is not None:
            self._call(module, *rest)

    def __reduce__(self) -> tuple[object, ...]:
        return _Hook, ()


def _is_traced() -> bool:
    """True where the hook is being compiled, traced or captured: what it did would become part of the graph."""
    return (
        torch.compiler.is_compiling()
        or torch.jit.is_tracing()  # type: ignore[attr-defined,no-untyped-call]
        or (torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing())  # type: ignore[no-untyped-call]
    )


def _user_level() -> int:
    """The stacklevel of the first caller that is neither torch nor bnlint: the line that calls the model."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in ("torch", "bnlint"):
        frame, level = frame.f_back, level + 1
    return level
