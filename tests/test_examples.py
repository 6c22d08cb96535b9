"""The training script still writes what lies beside it, and bnlint says of each file what it is about."""

import os
import subprocess
import sys

import pytest

import bnlint

EXAMPLES = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "examples")

# What each run is about: the rule that must speak, at which layers, how loud. None: nothing over info.
ABOUT = {
    "published_weights": None,
    "frozen": ("frozen-bn-counted-batches", {"main.bn1", "main.bn2"}, "warning"),
    "frozen_right": None,
    "frozen_module": ("frozen-bn-in-train-mode", {"bn1", "bn2"}, "warning"),
    "overflow": ("nonfinite-running-stats", {"bn1", "bn2"}, "error"),
    "ema": ("stale-ema-stats", {"bn1", "bn2"}, "warning"),
}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with the checkpoints of a new run of the script."""
    folder = str(tmp_path_factory.mktemp("written"))
    subprocess.run([sys.executable, os.path.join(EXAMPLES, "train.py"), folder], check=True)
    return folder


def shapes(path: str) -> dict[str, list[tuple[str, tuple[int, ...]]]]:
    with bnlint.open_checkpoint(path) as checkpoint:
        return {
            state_dict.key: [(name, tuple(tensor.shape)) for name, tensor in state_dict.tensors.items()]
            for state_dict in checkpoint.state_dicts
        }


def test_the_committed_files_are_those_of_the_script(written: str) -> None:
    committed = {name for name in os.listdir(EXAMPLES) if name.endswith(".pth")}
    assert committed == set(os.listdir(written)) == {f"{run}.pth" for run in ABOUT}
    for name in committed:
        assert shapes(os.path.join(EXAMPLES, name)) == shapes(os.path.join(written, name))
        assert os.path.getsize(os.path.join(EXAMPLES, name)) < 20_000


@pytest.mark.parametrize("run", ABOUT)
def test_bnlint_says_what_the_run_is_about(run: str, written: str) -> None:
    for folder in (EXAMPLES, written):
        report = bnlint.check(os.path.join(folder, f"{run}.pth"))
        loud = {
            (finding.rule, layer, str(finding.severity))
            for finding in report.findings
            if str(finding.severity) in ("warning", "error")
            for layer in finding.location.layers
        }
        rule, layers, severity = ABOUT[run] or ("", set(), "")
        assert loud == {(rule, layer, severity) for layer in layers}
