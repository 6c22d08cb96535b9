"""A model that the user's code builds: what comes of it, and of code that raises, exits, prints, hangs or dies."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from networks import ResNet  # noqa: E402

from bnlint.cli import main  # noqa: E402
from bnlint.errors import UsageError  # noqa: E402
from bnlint.factory import build  # noqa: E402

NETWORK = f"""
import os, sys, threading, time
import torch
from torch import nn
sys.path.insert(0, {os.path.dirname(os.path.abspath(__file__))!r})
from networks import ResNet

print("imported")

def resnet():
    print("built", flush=True)
    print("and warned", file=sys.stderr, flush=True)
    os.write(1, b"even so")
    return ResNet()

def loose():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, eps=1e-3))
    assert model[0].weight.device.type == "meta"
    return model

def stochastic_depth():
    assert len([rate.item() for rate in torch.linspace(0, 1, 3)]) == 3
    return ResNet()

def threaded():
    threading.Thread(target=time.sleep, args=(60,)).start()
    return ResNet()

def raises():
    raise ValueError("no such width\\nat all")

def exits():
    sys.exit("bye")

def leaves():
    os._exit(0)

def dies():
    os.kill(os.getpid(), 9)

def asks():
    return input("which one? ")

def hangs():
    import subprocess
    with open("child.pid", "w") as file:
        file.write(str(subprocess.Popen(["sleep", "60"]).pid))
    time.sleep(60)

def gives_a_dict():
    return ResNet().state_dict()

def lazy():
    return nn.LazyConv2d(3, 1)

def wants(width):
    return ResNet()

class Holder:
    net = ResNet

ready = ResNet()
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a package that builds models, as the working directory; names in it that bnlint uses too."""
    (tmp_path / ".git").mkdir()
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "__init__.py").touch()
    (tmp_path / "app" / "nets.py").write_text(NETWORK)
    for name in ("bnlint.py", "traceback.py", "array.py"):
        (tmp_path / name).write_text("raise SystemExit('this is not the module you look for')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    return tmp_path


@pytest.mark.parametrize("factory", ["resnet", "ready", "stochastic_depth", "threaded", "Holder.net"])
def test_the_keys_are_those_that_torch_gives(project: Path, factory: str) -> None:
    expected = {key: (str(value.dtype)[6:], tuple(value.shape)) for key, value in ResNet().state_dict().items()}
    built = build(f"app.nets:{factory}")
    assert {key: (tensor.dtype, tensor.shape) for key, tensor in built.tensors.items()} == expected
    assert list(built.tensors) == list(expected)
    assert len(built.batchnorms) == 6


def test_the_eps_of_the_layers_is_known(project: Path) -> None:
    (layer,) = build("app.nets:loose").batchnorms
    assert layer.promised_eps == 1e-3


@pytest.mark.parametrize(
    ("factory", "told"),
    [
        ("app.nets:raises", r"raised ValueError: no such width \(app.nets.py:\d+\)$"),
        ("app.nets:exits", r"called sys.exit\('bye'\) \(app.nets.py:\d+\)$"),
        ("app.nets:leaves", "ended its process with exit code 0 and built no model$"),
        pytest.param(
            "app.nets:dies", "was ended by signal 9 and", marks=pytest.mark.skipif(os.name == "nt", reason="")
        ),
        ("app.nets:asks", "raised EOFError"),
        ("app.nets:gives_a_dict", "gave OrderedDict, no torch.nn.Module$"),
        ("app.nets:lazy", "has no shape for 'weight'"),
        ("app.nets:wants", "raised TypeError: .* 'width'"),
        ("app.nets:absent", "is not there: .*'absent'$"),
        ("app.nothing:absent", "raised ModuleNotFoundError"),
    ],
)
def test_one_line_says_why_there_is_no_model(project: Path, factory: str, told: str) -> None:
    with pytest.raises(UsageError, match=told) as caught:
        build(factory)
    assert str(caught.value).startswith(factory)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("factory", ["app.nets", "app/nets.py:resnet", "app.nets:resnet()", ":resnet", "app.nets:", ""])
def test_what_is_no_name_starts_nothing(project: Path, factory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bnlint.factory._run", lambda *_: pytest.fail("it ran"))
    with pytest.raises(UsageError, match="is not MODULE:FUNCTION"):
        build(factory)


@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
def test_a_hang_is_ended_with_all_that_it_started(project: Path) -> None:
    start = time.monotonic()
    with pytest.raises(UsageError, match=r"had built no model after 8 seconds and was stopped$"):
        build("app.nets:hangs", 8)
    assert time.monotonic() - start < 20
    pid = int((project / "child.pid").read_text())
    for _ in range(50):
        if not _runs(pid):
            return
        time.sleep(0.1)
    pytest.fail("the process that it started still runs")


def _runs(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False


def test_a_time_limit_is_a_time(project: Path) -> None:
    for seconds in (0, -1, float("nan")):
        with pytest.raises(UsageError, match="more than 0 seconds"):
            build("app.nets:resnet", seconds)


# -- through the command line ---------------------------------------------------------------------------------


@pytest.fixture
def wrapped(project: Path) -> Path:
    torch.save(torch.nn.DataParallel(ResNet()).state_dict(), project / "wrapped.pth")
    torch.save(ResNet().state_dict(), project / "plain.pth")
    return project


def test_check_compares_with_the_model(wrapped: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """And the report says that code ran, and holds nothing of what it printed."""
    assert main(["check", "wrapped.pth", "plain.pth", "--model", "app.nets:resnet", "--output", "json"]) == 1
    captured = capfd.readouterr()
    report = json.loads(captured.out)
    assert captured.err == ""
    found = {
        (finding["path"], finding["reference"]) for finding in report["findings"] if finding["severity"] == "error"
    }
    assert found == {("wrapped.pth", "app.nets:resnet")}
    assert "prefix-mismatch" in [finding["rule"] for finding in report["findings"]]
    assert report["executed"] == ["app.nets:resnet"]


def test_a_model_and_a_reference_are_two_pairs(wrapped: Path, capfd: pytest.CaptureFixture[str]) -> None:
    words = ["plain.pth", "--model", "app.nets:resnet", "--reference", "plain.pth", "--output", "json"]
    assert main(["check", *words]) in (0, 1)
    kinds = [(file["kind"], file["note"].split(":")[0]) for file in json.loads(capfd.readouterr().out)["files"][1:]]
    assert kinds == [("pair", "against plain.pth"), ("pair", "against app.nets")]


CONFIGURED = "compare:\n- checkpoint: wrapped.pth\n  model: app.nets:resnet\n"


def test_the_configuration_names_a_model_and_the_command_line_allows_it(
    wrapped: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """`rename` maps the names of the checkpoint, which is what would be loaded; a reference beside it is a pair too."""
    (wrapped / ".bnlint.yaml").write_text(CONFIGURED + "  reference: wrapped.pth\n  rename: {'^module\\.': ''}\n")
    main(["check", "wrapped.pth", "plain.pth", "--allow-code", "--output", "json"])
    captured = capfd.readouterr()
    report = json.loads(captured.out)
    assert captured.err == ""
    assert report["executed"] == ["app.nets:resnet"]
    notes = [file["note"] for file in report["files"] if file["kind"] == "pair"]
    assert [note.split(": ")[0] for note in notes] == ["against wrapped.pth", "against app.nets:resnet"]
    against_model = [found["rule"] for found in report["findings"] if found["reference"] == "app.nets:resnet"]
    assert "prefix-mismatch" not in against_model


def test_without_a_rename_the_prefix_is_found(wrapped: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """And the model that the command line names too is built once."""
    (wrapped / ".bnlint.yaml").write_text(CONFIGURED)
    assert main(["check", "wrapped.pth", "--allow-code", "--model", "app.nets:resnet", "--output", "json"]) == 1
    report = json.loads(capfd.readouterr().out)
    assert [found["rule"] for found in report["findings"]].count("prefix-mismatch") == 2
    assert report["executed"] == ["app.nets:resnet"]


@pytest.mark.parametrize("path", ["wrapped.pth", "plain.pth"])
def test_a_model_that_is_not_allowed_is_not_built(
    wrapped: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setattr("bnlint.factory._run", lambda *_: pytest.fail("it ran"))
    (wrapped / ".bnlint.yaml").write_text(CONFIGURED)
    assert main(["check", path]) == 2
    captured = capfd.readouterr()
    assert captured.out == ""
    assert captured.err == (
        "bnlint: .bnlint.yaml:3:10: compare: app.nets:resnet is Python that would run; allow it with --allow-code\n"
    )
    assert main(["config"]) == 0  # which shows it and runs nothing
    assert "app.nets:resnet" in capfd.readouterr().out


def test_a_model_that_nothing_is_compared_with_is_not_built(
    wrapped: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bnlint.factory._run", lambda *_: pytest.fail("it ran"))
    (wrapped / ".bnlint.yaml").write_text(CONFIGURED)
    main(["check", "plain.pth", "--allow-code", "--output", "json"])
    assert json.loads(capfd.readouterr().out)["executed"] == []


def test_a_model_of_the_configuration_that_cannot_be_built_is_named_with_its_place(
    wrapped: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (wrapped / ".bnlint.yaml").write_text(CONFIGURED.replace(":resnet", ":raises"))
    assert main(["check", "wrapped.pth", "--allow-code"]) == 2
    assert capfd.readouterr().err.startswith("bnlint: .bnlint.yaml:3:10: compare: app.nets:raises raised ValueError")


def test_compare_shows_the_model_and_says_that_code_ran(wrapped: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "wrapped.pth", "--model", "app.nets:resnet"]) == 0
    captured = capfd.readouterr()
    assert captured.err == ""
    assert "ran your code to build the model" in captured.out
    assert 'key.removeprefix("module.")' in captured.out


@pytest.mark.parametrize("command", [["check", "plain.pth"], ["compare", "plain.pth"], ["keys"]])
def test_a_model_that_is_not_built_is_exit_code_2(
    wrapped: Path, capfd: pytest.CaptureFixture[str], command: list[str]
) -> None:
    assert main([*command, "--model", "app.nets:raises"]) == 2
    captured = capfd.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert "app.nets:raises raised ValueError: no such width" in captured.err


def test_keys_of_a_model(wrapped: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["keys", "--model", "app.nets:loose"]) == 0
    contract = capfd.readouterr().out
    assert "  1.running_mean: float32 [4]\n" in contract.replace('"', "")
    assert "{eps: 0.001}" in contract


def test_the_help_says_that_it_runs_code(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("check", "compare", "keys"):
        assert main([command, "--help"]) == 0
        assert "This runs your code" in " ".join(capsys.readouterr().out.split())
