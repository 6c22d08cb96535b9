"""Wheel, sdist and editable install, built and installed for real. Needs a package index."""

import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile

import pytest

from bnlint.ruleset import builtin_rules

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SCRIPTS = "Scripts" if os.name == "nt" else "bin"
INSTALLED_BY_DEFAULT = {"bnlint", "markdown-it-py", "mdurl", "pathspec", "pygments", "pyyaml", "rich", "tomli"}
NEW_RULE = '''
from collections.abc import Iterator

from bnlint import BatchNorm, Finding, Severity, batchnorm, rule


@rule(severity=Severity.INFO, good=lambda: [batchnorm(weight=None)], bad=lambda: [batchnorm()])
def just_written(layer: BatchNorm) -> Iterator[Finding]:
    """A rule that was not there when bnlint was installed."""
    if layer.weight is not None:
        yield Finding(layer.at("weight"), "weight is there")
'''


def run(*command: str, cwd: str | os.PathLike[str], status: int = 0) -> str:
    """What a command writes to standard output; the test fails where it exits with another status."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == status, f"{command} exited with {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


class Environment:
    """A virtual environment with nothing in it but what was asked for."""

    def __init__(self, folder: os.PathLike[str], *requirements: str) -> None:
        self.folder = os.path.join(folder, "environment")
        self.elsewhere = os.path.join(folder, "elsewhere")
        os.mkdir(self.elsewhere)
        run(sys.executable, "-m", "venv", self.folder, cwd=folder)
        self("python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements)

    def __call__(self, program: str, *arguments: str, status: int = 0) -> str:
        return run(os.path.join(self.folder, SCRIPTS, program), *arguments, cwd=self.elsewhere, status=status)

    def packages(self) -> set[str]:
        listed = json.loads(self("python", "-m", "pip", "list", "--format", "json"))
        return {package["name"].lower().replace("_", "-") for package in listed} - {"pip", "setuptools"}

    def rules(self) -> set[str]:
        program = "from bnlint.ruleset import builtin_rules; print(*(rule.name for rule in builtin_rules()))"
        return set(self("python", "-c", program).split())


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The sdist, and the wheel that was built from it."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--outdir", str(folder), ROOT, cwd=folder)
    return {path.suffix: str(path) for path in folder.iterdir()}


@pytest.fixture(scope="module")
def source(built: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> str:
    """The unpacked sdist: what somebody has who downloads the source."""
    folder = tmp_path_factory.mktemp("source")
    with tarfile.open(built[".gz"]) as archive:
        archive.extractall(folder, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    (unpacked,) = folder.iterdir()
    return str(unpacked)


@pytest.fixture(scope="module")
def installed(built: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Environment:
    return Environment(tmp_path_factory.mktemp("wheel"), built[".whl"])


def files_under(folder: str) -> set[str]:
    """The files a build should carry, with slashes, relative to the root of the project."""
    return {
        os.path.relpath(os.path.join(parent, name), ROOT).replace(os.sep, "/")
        for parent, _, names in os.walk(os.path.join(ROOT, folder))
        for name in names
        if "__pycache__" not in parent
    }


def test_the_wheel_holds_the_package_and_the_rules_and_nothing_else(built: dict[str, str]) -> None:
    with zipfile.ZipFile(built[".whl"]) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert names == files_under("bnlint") | {f"bnlint/{name}" for name in files_under("rules")}


def test_the_sdist_holds_all_that_the_tests_need(built: dict[str, str]) -> None:
    with tarfile.open(built[".gz"]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for folder in ("bnlint", "rules", "tests", "examples", "docs"):
        assert files_under(folder) <= names
    assert {"README.md", "CHANGELOG.md", "LICENSE", ".pre-commit-hooks.yaml", "benchmarks/run.py"} <= names
    assert not [name for name in names if "__pycache__" in name or name.startswith("benchmarks/files/")]


def test_a_base_install_has_neither_torch_nor_numpy(installed: Environment) -> None:
    assert installed.packages() <= INSTALLED_BY_DEFAULT


def test_a_wheel_works_from_any_directory(installed: Environment) -> None:
    assert installed.rules() == {rule.name for rule in builtin_rules()}
    bad = os.path.join(ROOT, "examples", "overflow.pth")
    for preset in ("recommended", "strict", "quiet"):
        assert "nonfinite-running-stats" in installed("bnlint", "check", "--preset", preset, bad, status=1)
    assert json.loads(installed("bnlint", "check", "--output", "json", bad, status=1))["summary"]["errors"] > 0
    for schema in ("config", "report"):
        assert json.loads(installed("bnlint", "schema", schema))["$schema"].startswith("https://json-schema.org/")


def test_an_editable_install_sees_a_new_rule_at_once(source: str, tmp_path: os.PathLike[str]) -> None:
    environment = Environment(tmp_path, "--editable", source)
    assert "just-written" not in environment.rules()
    path = os.path.join(source, "rules", "checkpoint", "just_written.py")
    with open(path, "w") as file:
        file.write(NEW_RULE)
    assert "just-written" in environment.rules()
    assert "weight is there" in environment("bnlint", "check", os.path.join(source, "examples", "frozen.pth"))
    os.remove(path)
    assert "just-written" not in environment.rules()


@pytest.mark.skipif(os.name == "nt", reason="the command is for a POSIX shell")
def test_the_install_command_of_the_readme(source: str, tmp_path: os.PathLike[str]) -> None:
    with open(os.path.join(ROOT, "README.md"), encoding="utf-8") as file:
        block = file.read().partition("<!-- the install command -->\n```sh\n")[2]
    command = block.partition("\n")[0]
    clone = shutil.copytree(source, os.path.join(tmp_path, "clone"))
    shown = run("sh", "-c", command, cwd=clone, status=1)
    assert "examples/overflow.pth" in shown
    assert "nonfinite-running-stats" in shown
