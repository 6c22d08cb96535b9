"""bnlint beside training: in a plain loop, in Hugging Face's Trainer, in Lightning, in a test, with data.

    python examples/live.py         runs each of them whose library is installed and prints what was noticed

Needs torch. A finished main branch is frozen, a side branch is trained on brighter images, and
`model.train()` at the top of every epoch puts the BatchNorm layers of the main branch into train mode.
"""

import tempfile
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader
from train import Net, SideBranch, batches, train

from bnlint.torch import BatchNormWarning, assert_bn_healthy, recalibration_gap, watch


def pretrained() -> Net:
    torch.manual_seed(0)
    main = Net()
    train(main.train(), torch.optim.SGD(main.parameters(), lr=0.1), batches(50))
    return main


def frozen() -> SideBranch:
    """A finished main branch, frozen, and a side branch that is to be trained."""
    model = SideBranch(pretrained())
    model.main.requires_grad_(False)
    return model


def plain_loop() -> None:
    model = frozen()
    optimizer = torch.optim.SGD(model.side.parameters(), lr=0.1)
    with watch(model):
        for _ in range(2):
            model.train()  # the line after it should be: model.main.eval()
            train(model, optimizer, batches(10, brightness=0.5))


def hugging_face() -> None:
    from transformers import Trainer, TrainerCallback, TrainingArguments

    class WatchBatchNorm(TrainerCallback):  # type: ignore[misc]
        """Give this to `Trainer(callbacks=[...])`."""

        def on_train_begin(self, args: Any, state: Any, control: Any, model: nn.Module, **kwargs: Any) -> None:
            self.watching = watch(model).start()

        def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.watching.stop()

    class WithLoss(nn.Module):
        """The model in the form that Trainer takes."""

        def __init__(self, model: nn.Module) -> None:
            super().__init__()
            self.model = model

        def forward(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
            scores = self.model(images)
            return {"loss": cross_entropy(scores, labels), "scores": scores}

    images, labels = next(batches(1, brightness=0.5))
    data = [{"images": image, "labels": label} for image, label in zip(images, labels, strict=True)]
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder, max_steps=4, use_cpu=True, report_to=[], save_strategy="no", disable_tqdm=True
        )
        Trainer(WithLoss(frozen()), arguments, train_dataset=data, callbacks=[WatchBatchNorm()]).train()


def lightning() -> None:
    from lightning.pytorch import LightningModule, Trainer

    from bnlint.torch.lightning import WatchBatchNorm

    class Course(LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model = frozen()

        def training_step(self, batch: Any, _: int) -> Tensor:
            images, labels = batch
            return cross_entropy(self.model(images), labels)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.model.side.parameters(), lr=0.1)

    quiet: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = Trainer(
        max_epochs=1, accelerator="cpu", callbacks=[WatchBatchNorm()], enable_model_summary=False, **quiet
    )
    trainer.fit(Course(), DataLoader(list(batches(4, brightness=0.5)), batch_size=None))


def test_the_model_is_ready_to_be_trained() -> None:
    """Under pytest, in a project's own tests: fails with the report."""
    model = frozen()
    model.train()
    assert_bn_healthy(model)


def with_data() -> None:
    """Statistics that are well-formed and wrong: no look at the model shows it, only data does."""
    main = pretrained()
    with torch.no_grad():
        for images, _ in batches(50, brightness=0.5):
            main(images)
    for finding in recalibration_gap(main, batches(20)).findings:
        print(f"{finding.location.layers[0]}: {finding.message} [{finding.rule}]")


RUNS: dict[str, tuple[Callable[[], None], str]] = {
    "a plain loop": (plain_loop, "torch"),
    "Hugging Face Trainer": (hugging_face, "transformers"),
    "Lightning": (lightning, "lightning"),
    "a test": (test_the_model_is_ready_to_be_trained, "torch"),
    "data": (with_data, "torch"),
}


def main() -> None:
    torch.set_num_threads(1)  # nets of this size run ten times slower on threads that have to meet
    for name, (run, library) in RUNS.items():
        print(f"== {name}")
        if not find_spec(library):
            print(f"not here: {library} is not installed\n")
            continue
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                run()
            except AssertionError as failure:
                print(failure)
        for warning in caught:
            if issubclass(warning.category, BatchNormWarning):
                print(warning.message)
        print()


if __name__ == "__main__":
    main()
