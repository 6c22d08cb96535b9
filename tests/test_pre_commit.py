"""The hooks, run by the real pre-commit from this checkout in a scratch repository. Needs a package index."""

import os
import re
import shutil
import subprocess
import sys

import pytest
import yaml

from bnlint.discovery import CHECKPOINT_ENDINGS

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
EXAMPLES = os.path.join(ROOT, "examples")
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "4d" * 32 + "\nsize 46830571\n"

pytestmark = pytest.mark.skipif(
    not os.path.exists(os.path.join(ROOT, ".git")), reason="pre-commit installs hooks from a git repository"
)


def hooks() -> dict[str, dict[str, object]]:
    with open(os.path.join(ROOT, ".pre-commit-hooks.yaml"), encoding="utf-8") as file:
        return {hook["id"]: hook for hook in yaml.safe_load(file)}


class Repository:
    """A scratch git repository whose files are staged."""

    def __init__(self, folder: os.PathLike[str]) -> None:
        self.folder = str(folder)
        self.git("init", "--quiet")

    def git(self, *arguments: str) -> None:
        subprocess.run(["git", *arguments], cwd=self.folder, check=True, capture_output=True)

    def write(self, name: str, text: str) -> None:
        path = os.path.join(self.folder, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as file:
            file.write(text)

    def copy(self, example: str, name: str) -> None:
        shutil.copyfile(os.path.join(EXAMPLES, example), os.path.join(self.folder, name))

    def try_hooks(self) -> tuple[int, str]:
        """The exit code of pre-commit and what it printed."""
        self.git("add", ".")
        done = subprocess.run(
            [sys.executable, "-m", "pre_commit", "try-repo", ROOT, "--all-files", "--verbose", "--color", "never"],
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        return done.returncode, done.stdout


@pytest.fixture
def repository(tmp_path: os.PathLike[str]) -> Repository:
    return Repository(tmp_path)


def test_good_files_pass(repository: Repository) -> None:
    repository.copy("frozen_right.pth", "good.pth")
    repository.write(".bnlint.yaml", "extends: strict\n")
    repository.write("notes.txt", "no checkpoint\n")
    status, shown = repository.try_hooks()
    assert status == 0, shown
    assert re.search(r"bnlint\.{3,}Passed", shown), shown
    assert re.search(r"bnlint-config\.{3,}Passed", shown), shown


def test_a_bad_checkpoint_a_pointer_and_a_wrong_configuration_fail(repository: Repository) -> None:
    repository.copy("frozen_right.pth", "good.pth")
    repository.copy("overflow.pth", "bad.pth")
    repository.write("pulled-not.safetensors", POINTER)
    repository.write("elsewhere/.bnlint.yaml", "rules: {nonfinite-runing-stats: off}\n")
    status, shown = repository.try_hooks()
    assert status == 1, shown
    assert re.search(r"bnlint\.{3,}Failed", shown), shown
    words = " ".join(shown.split())
    assert re.search(r"bad\.pth error .* \[nonfinite-running-stats\]", words), shown
    assert re.search(r"pulled-not\.safetensors error .* \[lfs-pointer\]", words), shown
    assert "good.pth" not in shown
    assert re.search(r"bnlint-config\.{3,}Failed", shown), shown
    assert "nonfinite-running-stats" in shown.partition("bnlint-config.")[2], "the nearest name is shown"


@pytest.mark.parametrize("ending", CHECKPOINT_ENDINGS)
def test_the_hook_takes_what_a_folder_run_takes(ending: str) -> None:
    files = str(hooks()["bnlint"]["files"])
    assert re.search(files, f"models/resnet{ending}")
    assert re.search(files, f"MODEL{ending.upper()}")


@pytest.mark.parametrize("name", ["a.py", "README.md", "bin/tool", "pth", "a.pth.md", "config.json", "a.tar.gz"])
def test_the_hook_leaves_other_files_alone(name: str) -> None:
    assert not re.search(str(hooks()["bnlint"]["files"]), name)


def test_the_hooks_are_what_pre_commit_expects() -> None:
    checkpoints = hooks()["bnlint"]
    assert checkpoints["types"] == ["file"], "an LFS pointer is text, a checkpoint is binary"
    assert "--force-exclude" in str(checkpoints["entry"]).split(), "pre-commit names files one by one"
    assert checkpoints["require_serial"] is True
    assert set(hooks()) == {"bnlint", "bnlint-config"}
