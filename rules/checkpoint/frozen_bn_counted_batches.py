from collections.abc import Iterable, Iterator, Mapping

from bnlint import (
    BatchNorm,
    Checkpoint,
    Finding,
    OptimizerState,
    Severity,
    StateDict,
    batchnorm,
    checkpoint,
    rule,
    state_dict,
    tensor,
)

# Parts that follow another part of the model instead of a gradient, and count batches on purpose or not.
AVERAGED = {"ema", "teacher", "target", "momentum", "shadow", "averaged", "encoder_k", "key_encoder"}
# Under which names training code saves how many batches it has seen; an epoch says nothing of batches.
ITERATIONS = ("global_step", "global_iter", "iteration", "iterations", "iter", "n_iter", "num_updates", "step")


@rule(
    severity=Severity.WARNING,
    confidence="high",
    needs=["frozen-bn-in-train-mode"],
    good=lambda: [
        net(frozen=20, trained=20),  # no optimizer in the file
        net(frozen=20, trained=20, optimizer=adam(steps=dict.fromkeys(range(6), 20))),  # everything was trained
        net(frozen=0, trained=20, optimizer=adam(steps={3: 20, 4: 20, 5: 20})),  # eval() after every train()
        net(frozen=20, trained=20, optimizer=sgd()),  # plain SGD keeps no state at all
        net(frozen=25, trained=25, optimizer=adam(steps={3: 5, 4: 5, 5: 5})),  # rebuilt after 20 steps
        net(frozen=80, trained=80, optimizer=adam(steps={3: 20, 4: 20, 5: 20})),  # 4 batches per step
        net(frozen=500_000, trained=20, optimizer=sgd(3, 4, 5)),  # counted before, in pretraining
        net(frozen=150, trained=250, optimizer=adam(steps=dict.fromkeys([3, 4, 5], 100))),  # 150 in pretraining
        net(frozen=100, trained=200, optimizer=adam(steps=dict.fromkeys([3, 4, 5], 100))),
        net(frozen=500_000, trained=500_100, optimizer=adam(steps=dict.fromkeys([3, 4, 5], 100))),
        net(frozen=500_000, trained=500_100, optimizer=sgd(3, 4, 5)),
        net(frozen=150, trained=250, optimizer=sgd(3, 4, 5), scalars={"global_step": 100}),
        net(frozen=220, trained=None, optimizer=adam(steps={3: 100})),  # only a head was trained: either way
        net(frozen=None, trained=20, optimizer=adam(steps={3: 20, 4: 20, 5: 20})),
        net(frozen=20, trained=20, optimizer=adam(steps={0: 20}, shapes={0: (4,)}, held=1)),  # which vector is it?
        net(frozen=20, trained=20, optimizer=adam(steps={0: 20}, shapes={0: (7, 7)}, held=1)),  # another model's
    ],
    bad=lambda: [
        net(frozen=20, trained=20, optimizer=adam(steps={3: 20, 4: 20, 5: 20})),
        net(frozen=1020, trained=20, optimizer=adam(steps={3: 1020, 4: 1020, 5: 1020})),
        net(frozen=1003, trained=1003, optimizer=adam(steps={3: 1000, 4: 1000, 5: 1000})),  # AMP skipped three
        net(frozen=20, trained=20, optimizer=sgd(3, 4, 5)),
        net(frozen=500_000, trained=500_000, optimizer=sgd(3, 4, 5), scalars={"global_step": 500_000}),
        net(frozen=20, trained=20, optimizer=filtered()),
        net(frozen=20, trained=20, optimizer=adam(steps={0: 20, 1: 20}, names={0: "module.bn2.weight", 1: "bn2.bias"})),
        net(frozen=12, trained=20, optimizer=adam(steps={3: 20, 4: 20, 5: 20})),  # possible
        net(frozen=12, trained=None, optimizer=sgd(3)),  # possible
        net(frozen=500_000, trained=500_000, optimizer=sgd(3, 4, 5)),  # possible: or all of BatchNorm is in eval mode
        net(frozen=150, trained=150, optimizer=sgd(3, 4, 5), scalars={"iteration": 100}),  # possible
        net(frozen=250, trained=250, optimizer=adam(steps=dict.fromkeys([3, 4, 5], 100))),  # possible
        net(frozen=500_100, trained=500_100, optimizer=adam(steps=dict.fromkeys([3, 4, 5], 100))),  # possible
        net(frozen=20, trained=20, optimizer=adam(steps={3: 20, 4: 20, 5: 20}), block="encoder_k."),  # possible
    ],
)
def frozen_bn_counted_batches(
    file: Checkpoint, *, skipped_steps: float = 0.01, plausible_steps: int = 100_000
) -> Iterator[Finding]:
    """A frozen BatchNorm layer counted the batches of this training: it was in train mode all along.

    `requires_grad_(False)` stops weight and bias and nothing else: in train mode the layer normalises
    by the batch and moves running_mean and running_var. A frozen network whose data shifted moved its
    outputs by 0.56 in the first epoch, its running_mean by 1.25 standard deviations. A training
    checkpoint proves it alone: optimizers hold state only for parameters that got a gradient, and
    num_batches_tracked only grows in train mode.

    Certain where the count is the optimizer's number of steps. SGD counts none: there it is certain
    where the trained layers counted as much and the file's global_step or iteration agrees or, where
    it has none, where the count is no more than `plausible_steps`; published networks counted more in
    their own training. A frozen layer that counted as much as the trained ones, more than there were
    steps, is possible only: pretraining with all of BatchNorm in eval mode since looks the same.
    Nothing is said where the trained layers are ahead by the number of steps (the frozen ones stood
    still), where several batches made a step (gradient accumulation), and where no BatchNorm layer
    was trained and the counts are twice the steps or more.

    Common causes:
        `param.requires_grad = False` once, and `model.train()` at the top of every epoch, which puts
        the frozen layers back into train mode (pytorch/vision#2079, Lightning #13902 and #15062).

    Fix:
        Put the frozen layers into eval mode after every `model.train()`, and start again from the
        pretrained running statistics:

            for module in backbone.modules():
                if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
                    module.eval()

    When this is fine:
        The statistics were meant to adapt (AdaBN). A branch that gets no gradient but runs with the
        others, such as a momentum encoder. With SGD, a network fine-tuned with all of its BatchNorm in
        eval mode after a short pretraining: compare the counts with the pretrained file's.
    """
    for weights in file.state_dicts:
        training = file.training(weights) if weights.role == "model" and weights.batchnorms else None
        if training is None:
            continue
        trained = usual_count(layer for layer in weights.batchnorms if training.trained(layer))
        history = History(training.step, iterations(file), trained, skipped_steps, plausible_steps)
        for layer in weights.batchnorms:
            count = layer.num_batches_tracked
            if not count or not training.froze(layer) or history.explains(count):
                continue
            proof, doubt = history.shown_by(count)
            yield Finding(
                layer.at("num_batches_tracked"),
                f"weight and bias never got a gradient, yet the layer counted {count} batches{proof}",
                evidence={
                    "num_batches_tracked": count,
                    "optimizer_steps": training.step,
                    "trained_layers_counted": trained,
                },
                unknown=averaged(layer) or doubt,
            )


class History:
    """How long this training was, as far as the file says it, and what the trained layers counted."""

    def __init__(
        self, step: int | None, iterations: int | None, trained: int | None, skipped_steps: float, plausible_steps: int
    ) -> None:
        self.step = step
        self.length = iterations if step is None else step
        self.trained = trained
        self.skipped_steps = skipped_steps
        self.plausible_steps = plausible_steps

    def explains(self, count: int) -> bool:
        """True where a layer that stood still since it was frozen would have counted as much."""
        if count == self.trained:
            batches_per_step, odd = divmod(count, self.step or count)
            return not odd and 2 <= batches_per_step <= 64
        if self.trained is not None and count < self.trained:
            ahead = self.trained - count
            if self.is_length(ahead) or (self.length is None and count > self.plausible_steps):
                return True
        return count >= 2 * (self.length or self.trained or count)  # counted before, or by an earlier optimizer

    def shown_by(self, count: int) -> tuple[str, str | None]:
        """What shows that the count is that of this training, and what leaves it in doubt.

        Under AMP the optimizer skips a step now and then, and BatchNorm does not.
        """
        together = count == self.trained
        if self.step is not None and (count == self.step or (together and self.is_length(count))):
            return f", the optimizer's {self.step} steps", None
        if not together:
            return "", "whether it counted them since it was frozen"
        if self.step is not None:
            return (
                f", like the trained layers, in {self.step} steps of the optimizer",
                "whether the optimizer was rebuilt, or all of them counted in pretraining only",
            )
        here = count <= self.plausible_steps if self.length is None else self.is_length(count)
        return ", like the trained layers", None if here else "whether all of them counted in pretraining only"

    def is_length(self, batches: int) -> bool:
        """True where that many batches make this training."""
        return self.length is not None and self.length <= batches <= self.length * (1 + self.skipped_steps)


def iterations(file: Checkpoint) -> int | None:
    """How many batches the training loop says it has seen."""
    said = (file.scalars.get(name) for name in ITERATIONS)
    return next((number for number in said if type(number) is int and number > 0), None)


def usual_count(layers: Iterable[BatchNorm]) -> int | None:
    """What most of these layers have counted."""
    how_often: dict[int, int] = {}
    for layer in layers:
        count = layer.num_batches_tracked
        if count is not None:
            how_often[count] = how_often.get(count, 0) + 1
    return max(how_often, key=lambda count: how_often[count], default=None)


def averaged(layer: BatchNorm) -> str | None:
    for part in layer.name.split(".")[:-1]:
        if not AVERAGED.isdisjoint((part, *part.split("_"))):
            return f"whether {part} follows another part of the model"
    return None


SHAPES = [(4, 3, 1, 1), (4,), (4,), (6, 4, 1, 1), (4,), (4,)]


def net(
    *,
    frozen: float | None,
    trained: float | None,
    optimizer: OptimizerState | None = None,
    block: str = "",
    scalars: Mapping[str, object] | None = None,
) -> Checkpoint:
    """conv1, bn1, conv2, bn2, of which the first two are frozen."""
    first = batchnorm(f"{block}bn1", num_batches_tracked=frozen)
    second = batchnorm(f"{block}bn2", num_batches_tracked=trained)
    weights: StateDict = state_dict([first, second])
    tensors = {f"{block}conv1.weight": tensor([0.1] * 12, shape=SHAPES[0])}
    tensors |= {first.key(leaf): each for leaf, each in first.tensors.items()}
    tensors |= {f"{block}conv2.weight": tensor([0.1] * 24, shape=SHAPES[3])}
    tensors |= {second.key(leaf): each for leaf, each in second.tensors.items()}
    weights.tensors = tensors
    return checkpoint(weights, optimizers=[optimizer] if optimizer else [], scalars=scalars)


def adam(
    *,
    steps: Mapping[int, int],
    shapes: Mapping[int, tuple[int, ...]] | None = None,
    held: int = 6,
    names: Mapping[int, str] | None = None,
) -> OptimizerState:
    shape_of = shapes or dict(enumerate(SHAPES))
    state = {index: {"step": step, "exp_avg": shape_of[index]} for index, step in steps.items()}
    if names:
        state = {index: {"step": step} for index, step in steps.items()}
    return OptimizerState("optimizer", [list(range(held))], state, names)


def sgd(*trained: int) -> OptimizerState:
    return OptimizerState(
        "optimizer", [list(range(6))], {index: {"momentum_buffer": SHAPES[index]} for index in trained}
    )


def filtered() -> OptimizerState:
    """Only what requires_grad was passed to the optimizer: conv2 and bn2, found by their shapes."""
    return adam(steps={0: 20, 1: 20, 2: 20}, shapes={0: SHAPES[3], 1: (4,), 2: (4,)}, held=3)
