"""Start-up is the product: what a run imports, and what it does not."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from small_checkpoints import write_checkpoint

EXAMPLES = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "examples")
HEALTHY, BAD = (os.path.join(EXAMPLES, name) for name in ("frozen_right.pth", "overflow.pth"))

# What a run may import beyond what a bare interpreter has, where nothing was asked for (array wants collections).
ALLOWED = {
    "__future__", "_struct", "array", "collections", "collections.abc", "_collections", "keyword", "reprlib",
    "operator", "_operator", "itertools", "gc", "errno", "math", "struct", "zlib", "atexit", "importlib",
    "importlib._bootstrap", "importlib._bootstrap_external", "importlib.machinery", "_warnings", "warnings",
}  # fmt: skip
NEVER = set(
    "torch numpy rich yaml pathspec json re pickle zipfile argparse hashlib tomllib enum dataclasses typing inspect"
    " pathlib functools contextlib difflib subprocess concurrent multiprocessing datetime tempfile".split()
)


def imported(*words: str, cwd: str | Path) -> set[str]:
    """The modules that a command imports beyond those of a bare interpreter."""
    bare = "import sys; print(*sys.modules)"
    program = (
        "import sys\nfrom bnlint.cli import main\n"
        f"code = main({list(words)!r})\nsys.stdout.flush()\nassert code in (0, 1), code\n"
        "print('modules:', *sys.modules, file=sys.stderr)"
    )
    before = subprocess.run([sys.executable, "-c", bare], capture_output=True, text=True, check=True, cwd=cwd)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=cwd)
    assert done.returncode == 0, done.stderr
    modules = next(line for line in done.stderr.splitlines() if line.startswith("modules:"))
    return {*modules.split()[1:]} - {*before.stdout.split()}


def foreign(modules: set[str]) -> set[str]:
    return {name for name in modules if not name.startswith(("bnlint.", "bnlint_rules.")) and name != "bnlint"}


@pytest.mark.parametrize("path", [HEALTHY, BAD], ids=["healthy", "bad"])
def test_a_check_imports_next_to_nothing(tmp_path: Path, path: str) -> None:
    modules = imported("check", path, cwd=tmp_path)
    assert not modules & NEVER
    assert foreign(modules) <= ALLOWED


def test_only_the_families_that_have_something_to_look_at_are_loaded(tmp_path: Path) -> None:
    families = {
        name.split(".")[1] for name in imported("check", HEALTHY, cwd=tmp_path) if name.startswith("bnlint_rules.")
    }
    assert families == {"file", "checkpoint"}


def test_what_is_asked_for_is_imported_and_nothing_else(tmp_path: Path) -> None:
    as_json = foreign(imported("check", HEALTHY, "--output", "json", cwd=tmp_path))
    assert "json" in as_json
    assert not as_json & {"yaml", "argparse", "pathspec", "torch", "numpy", "rich", "datetime", "typing"}
    (tmp_path / ".bnlint.yaml").write_text("rules: {negative-running-var: warning}\n")
    by_yaml = foreign(imported("check", HEALTHY, cwd=tmp_path))
    assert "yaml" in by_yaml
    assert not by_yaml & {"json", "argparse", "pathspec", "torch", "numpy", "rich", "difflib"}


def test_a_project_that_depends_on_bnlint_pays_nothing_for_it(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(
        "[dependency-groups]\nlint = ['bnlint>=0.1']\n[tool.ruff]\nline-length = 99\n"
    )
    assert foreign(imported("check", HEALTHY, cwd=tmp_path)) <= ALLOWED


def test_safetensors_need_json_and_no_more(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "a.safetensors")
    assert not imported("check", path, cwd=tmp_path) & (NEVER - {"json", "re", "enum", "functools", "collections"})


def test_version_imports_nothing(tmp_path: Path) -> None:
    assert not foreign(imported("--version", cwd=tmp_path)) - ALLOWED
