"""Every command that the documentation shows, run in the root of the checkout: what it prints is what is shown.

In a ```console block a line `$ command` is run; the lines after it are its output, where `...` stands for any lines.
"""

import os
import re
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from shlex import quote

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PAGES = ("README.md", "examples/README.md", "docs/configuration.md", "docs/reports.md", "CONTRIBUTING.md")


def read(page: str) -> str:
    with open(os.path.join(ROOT, page), encoding="utf-8") as file:
        return file.read()


def shown_commands() -> Iterator[tuple[str, str, str]]:
    """Every `(page, command, output)` of the console blocks."""
    for page in PAGES:
        for block in re.findall(r"^```console\n(.*?)^```$", read(page), re.M | re.S):
            for part in re.split(r"^\$ ", block, flags=re.M)[1:]:
                command, _, output = part.partition("\n")
                yield page, command, output


def output_of(command: str) -> str:
    """What a command prints in a terminal of 88 columns without colour."""
    scripts = [sysconfig.get_path("scripts"), os.path.dirname(sys.executable)]
    environment = {name: value for name, value in os.environ.items() if name not in ("FORCE_COLOR", "CLICOLOR_FORCE")}
    environment.update(COLUMNS="88", NO_COLOR="1", PATH=os.pathsep.join([*scripts, os.environ["PATH"]]))
    done = subprocess.run(
        ["sh", "-c", command], cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    return done.stdout


def as_pattern(output: str) -> str:
    lines = ["(?:.*\n)*?" if line == "..." else re.escape(line) + "\n" for line in output.rstrip().splitlines()]
    return "".join(lines)


@pytest.mark.skipif(os.name == "nt", reason="the commands are for a POSIX shell")
@pytest.mark.parametrize(("page", "command", "output"), list(shown_commands()))
def test_a_shown_command_prints_what_is_shown(page: str, command: str, output: str) -> None:
    printed = "".join(f"{line.rstrip()}\n" for line in output_of(command).rstrip().splitlines())
    assert re.fullmatch(as_pattern(output), printed), f"{page} shows something else. $ {command}\n{printed}"


@pytest.mark.parametrize("page", ["README.md", "docs/configuration.md"])
def test_a_shown_configuration_is_right(page: str, tmp_path: Path) -> None:
    (block,) = [block for block in re.findall(r"^```yaml\n(.*?)^```$", read(page), re.M | re.S) if "extends:" in block]
    (tmp_path / ".bnlint.yaml").write_text(block)
    assert output_of(f"bnlint config --check '{tmp_path}/.bnlint.yaml'") == ""


def test_the_shown_python_runs(tmp_path: Path) -> None:
    (block,) = re.findall(r"^```python\n(.*?)^```$", read("README.md"), re.M | re.S)
    model = os.path.join(ROOT, "examples", "overflow.pth")
    printed = output_of(f"{quote(sys.executable)} -c {quote(block.replace('model.pth', model))}")
    assert "error nonfinite-running-stats ('bn1',) running_mean and running_var are NaN" in printed
    assert "bn2 16 nan 100" in printed


@pytest.mark.parametrize("page", [*PAGES, "docs/limits.md", "SECURITY.md", "CHANGELOG.md", "benchmarks/README.md"])
def test_a_link_leads_to_a_file(page: str) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", read(page)):
        if "://" not in target:
            assert os.path.exists(os.path.join(ROOT, os.path.dirname(page), target)), target


def test_the_rules_page_is_what_the_rules_say() -> None:
    command = "bnlint rules --output markdown"
    assert read("rules/README.md") == output_of(command), f"stale; mend it with: {command} > rules/README.md"
