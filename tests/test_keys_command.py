"""`bnlint keys`: a contract that its own checkpoint keeps, and that others break visibly."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

torch = pytest.importorskip("torch")

from networks import ResNet, trained  # noqa: E402

from bnlint.cli import main  # noqa: E402


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Path:
    """A checkpoint of a training and the contract that was written of its model."""
    (tmp_path / ".git").mkdir()
    monkeypatch.chdir(tmp_path)
    model, _ = trained(ResNet(), 8)
    state_dict = model.state_dict()
    ema = {f"module.{key}": value for key, value in ResNet().state_dict().items()}
    torch.save({"state_dict": state_dict, "ema": ema}, "model.pth")
    (tmp_path / "net.keys.yaml").write_text(written("model.pth", capsys=capsys))
    return tmp_path


def written(*words: str, capsys: pytest.CaptureFixture[str]) -> str:
    code = main(["keys", *words])
    captured = capsys.readouterr()
    assert (code, captured.err) == (0, "")
    return captured.out


def test_it_holds_every_key_as_torch_has_it(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    contract = yaml.safe_load((folder / "net.keys.yaml").read_text())
    expected = torch.load("model.pth")["state_dict"]
    assert contract["keys"] == {key: f"{str(value.dtype)[6:]} {list(value.shape)}" for key, value in expected.items()}
    assert {layer["batches"] for layer in contract["batchnorm"].values()} == {8}
    assert len((folder / "net.keys.yaml").read_bytes()) < 100 * len(expected)


def test_the_state_dict_can_be_chosen(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "  module.conv1.weight: float32" in written("model.pth", "--key", "ema", capsys=capsys)


def test_its_own_checkpoint_keeps_it(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "model.pth", "--reference", "net.keys.yaml", "--output", "json", "--isolated"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [finding for finding in report["findings"] if finding["reference"]] == []


def test_another_checkpoint_breaks_it(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state_dict = torch.load("model.pth")["state_dict"]
    torch.save({f"module.{key}": value for key, value in state_dict.items()}, "wrapped.pth")
    assert main(["check", "wrapped.pth", "--reference", "net.keys.yaml", "--output", "json", "--isolated"]) == 1
    found = {finding["rule"] for finding in json.loads(capsys.readouterr().out)["findings"] if finding["reference"]}
    assert found == {"prefix-mismatch"}


def test_a_contract_of_a_contract_is_the_same(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert written("net.keys.yaml", capsys=capsys) == (folder / "net.keys.yaml").read_text()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "name one checkpoint, or one model"),
        (["model.pth", "--model", "a:b"], "name one checkpoint, or one model"),
        (["absent.pth"], "absent.pth: no such file"),
        (["."], "is a folder"),
        (["junk.pth"], "junk.pth: "),
        (["model.pth", "--key", "nothing"], "no state dict at 'nothing'"),
        (["model.pth", "other.pth"], "there is no option other.pth"),
    ],
)
def test_one_line_and_exit_code_2(
    folder: Path, capsys: pytest.CaptureFixture[str], words: list[str], told: str
) -> None:
    (folder / "junk.pth").write_bytes(b"\x01\x02junk")
    assert main(["keys", *words]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert told in captured.err
