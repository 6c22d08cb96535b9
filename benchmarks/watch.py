"""What `bnlint.torch.watch` costs: a training step of ResNet-18 with and without it, side by side, on this CPU.

    python benchmarks/watch.py
    python benchmarks/watch.py --batch 32 --pixels 224 --rounds 20

Steps are timed in pairs, the order by turns, in processor time, so that a busy machine hits both alike. Shown
are medians, the quartiles of the differences within pairs, and, because a difference of microseconds drowns in
the noise of steps of milliseconds, what passes inside the hooks of real steps.
"""

import argparse
import os
import platform
import sys
import time
from collections.abc import Callable
from statistics import median, quantiles

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "tests"))

from networks import ResNet  # noqa: E402

from bnlint.torch import watch  # noqa: E402


def stepper(model: nn.Module, images: Tensor, labels: Tensor) -> Callable[[], float]:
    """A training step that says how many seconds of the processor it took."""
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)

    def step() -> float:
        start = time.process_time()
        optimizer.zero_grad()
        cross_entropy(model(images), labels).backward()
        optimizer.step()
        return time.process_time() - start

    return step


def step_times(model: nn.Module, step: Callable[[], float], rounds: int) -> tuple[list[float], list[float]]:
    """The times of steps alone and of steps under watch, pair by pair."""
    alone, watched = [], []
    with watch(model):
        step()
    for i in range(rounds):
        for under_watch in (i % 2 == 0, i % 2 == 1):
            if under_watch:
                with watch(model):
                    step()  # the first forward is looked at longer
                    watched.append(step())
            else:
                step()
                alone.append(step())
    return alone, watched


def hook_times(model: nn.Module, step: Callable[[], float], rounds: int) -> list[float]:
    """Seconds in the hooks of watch in each step: hooks run in the order in which they were put on."""
    times: list[float] = []
    marks: list[float] = []

    def mark(*_: object) -> None:
        marks.append(time.perf_counter())

    def last_mark(*_: object) -> None:
        before, started, ended, now = *marks, time.perf_counter()
        times.append(started - before + now - ended)
        marks.clear()

    hooks = [model.register_forward_pre_hook(mark), model.register_forward_hook(mark)]
    # The marks above come first, then those of watch, then those below: a pre-hook, and after the forward.
    with watch(model, every=rounds):
        hooks += [model.register_forward_pre_hook(mark), model.register_forward_hook(last_mark)]
        for _ in range(rounds):
            step()
        for hook in hooks:
            hook.remove()
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--pixels", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    model = ResNet((2, 2, 2, 2), width=64)
    images = torch.randn(arguments.batch, 3, arguments.pixels, arguments.pixels)
    labels = torch.randint(4, (arguments.batch,))
    alone, watched = step_times(model, stepper(model, images, labels), arguments.rounds)
    differences = [more - less for less, more in zip(alone, watched, strict=True)]
    low, difference, high = quantiles(differences, n=4)
    *hooks, reading = hook_times(model, stepper(model, images, labels), arguments.rounds)[1:]
    step = median(alone)
    start = time.process_time()
    watch(model).start().stop()
    around = time.process_time() - start

    print(f"{platform.system()} {platform.machine()}, {arguments.threads} threads, torch {torch.__version__}")
    print(f"ResNet-18, {arguments.batch} images of {arguments.pixels} x {arguments.pixels}, {arguments.rounds} pairs\n")
    print("| | ms | of a step |")
    print("|--|--:|--:|")
    print(f"| training step | {1e3 * step:.1f} | |")
    print(f"| under watch | {1e3 * median(watched):.1f} | {median(watched) / step - 1:+.2%} |")
    quartiles = f"{low / step:+.1%} to {high / step:+.1%}"
    print(f"| difference within pairs (quartiles) | {1e3 * difference:.2f} | {difference / step:+.2%} ({quartiles}) |")
    print(f"| in the hooks, within a step | {1e3 * median(hooks):.3f} | {median(hooks) / step:.3%} |")
    print(f"| reading, once in 100 steps | {1e3 * reading:.2f} | {reading / step / 100:.3%} |")
    print(f"| start and stop, once | {1e3 * around:.0f} | |")


if __name__ == "__main__":
    main()
