"""Two checkpoints side by side: what is compared with what, how much is read, and what a wrong reference comes to."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from small_checkpoints import write_checkpoint  # noqa: E402
from torch import nn  # noqa: E402

import bnlint  # noqa: E402
from bnlint.cli import main  # noqa: E402
from bnlint.config import load_config  # noqa: E402
from bnlint.errors import UnreadableFile  # noqa: E402
from bnlint.model.examples import Bytes  # noqa: E402
from bnlint.model.tensor import Tensor  # noqa: E402
from bnlint.pairing import CHUNK, pair_up, preceding  # noqa: E402
from bnlint.readers.opening import open_file  # noqa: E402
from bnlint.run import run  # noqa: E402

# -- equality of other weights -------------------------------------------------------------------------------


def opened(path: Path, state_dict: dict[str, torch.Tensor]) -> bnlint.StateDict:
    torch.save(state_dict, path)
    checkpoint = open_file(str(path)).checkpoint
    assert checkpoint is not None
    return checkpoint.state_dicts[0]


LAYOUTS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "contiguous": lambda x: x.clone(),
    "channels-last": lambda x: x.clone().contiguous(memory_format=torch.channels_last),
    "transposed": lambda x: x.clone().transpose(0, 1).contiguous().transpose(0, 1),
    "gaps": lambda x: x.repeat_interleave(2, dim=0)[::2],
    "offset": lambda x: torch.cat([torch.zeros(1, *x.shape[1:], dtype=x.dtype), x])[1:],
}
SIZES = [(0, 2, 1, 1), (2, 3, 1, 1), (64, 33, 5, 5), (3, 40_000, 1, 1)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("after", LAYOUTS)
@pytest.mark.parametrize("before", LAYOUTS)
def test_weights_are_equal_where_torch_says_so(tmp_path: Path, before: str, after: str, dtype: torch.dtype) -> None:
    """Whatever the layout in either file; and one bit anywhere is seen."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")  # noqa: T201
    torch.manual_seed(seed)
    ours, theirs, expected = {}, {}, {}
    for number, size in enumerate(SIZES):
        value = torch.randn(size).to(dtype)
        for changed in (False, True):
            other = value.clone()
            if changed and other.numel():
                place = int(torch.randint(other.numel(), ()))
                other.view(-1)[place] += 0.25
            name = f"conv{number}{'x' if changed else ''}.weight"
            ours[name], theirs[name] = LAYOUTS[before](value), LAYOUTS[after](other)
            expected[name] = torch.equal(value, other)
    pair = pair_up(opened(tmp_path / "r.pth", ours), opened(tmp_path / "m.pth", theirs), shallow=False)
    assert pair.other_tensors == len(expected)
    assert pair.same_elsewhere == sum(expected.values()) == len(SIZES) + 1


def test_nan_is_equal_to_the_same_nan_and_0_is_not_minus_0(tmp_path: Path) -> None:
    before = {"a.weight": torch.tensor([float("nan"), 1.0]), "b.weight": torch.zeros(2)}
    after = {"a.weight": torch.tensor([float("nan"), 1.0]), "b.weight": -torch.zeros(2)}
    pair = pair_up(opened(tmp_path / "r.pth", before), opened(tmp_path / "m.pth", after), shallow=False)
    assert (pair.same_elsewhere, pair.other_tensors) == (1, 2)


class Counted(Bytes):
    """A storage that counts what is read of it."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.bytes_read = self.largest = 0

    def read(self, offset: int, nbytes: int) -> bytes:
        self.bytes_read += nbytes
        self.largest = max(self.largest, nbytes)
        return super().read(offset, nbytes)


def counted(floats: int) -> tuple[Counted, bnlint.StateDict]:
    storage = Counted(struct.pack(f"<{floats}f", *([0.5] * floats)))
    return storage, bnlint.StateDict("", {"conv.weight": Tensor("float32", (floats,), storage)})


@pytest.mark.parametrize("floats", [10, CHUNK, 3 * CHUNK + 1])
def test_every_byte_is_read_once_and_in_pieces(floats: int) -> None:
    ours, before = counted(floats)
    theirs, after = counted(floats)
    assert pair_up(before, after, shallow=False).same_elsewhere == 1
    assert ours.bytes_read == theirs.bytes_read == 4 * floats
    assert ours.largest <= CHUNK


def test_shallow_reads_nothing_more(tmp_path: Path) -> None:
    ours, before = counted(CHUNK)
    theirs, after = counted(CHUNK)
    pair = pair_up(before, after, shallow=True)
    assert (pair.same_elsewhere, pair.same_weights) == (None, None)
    assert ours.bytes_read == theirs.bytes_read == 0


def views(storage: Bytes, shape: tuple[int, ...], stride: tuple[int, ...], how_many: int) -> bnlint.StateDict:
    return bnlint.StateDict("", {f"view{k}": Tensor("float32", shape, storage, stride=stride) for k in range(how_many)})


@pytest.mark.parametrize(
    ("shape", "strides", "how_many"),
    [
        ((1 << 18,), ((1,), (1,)), 10_000),  # tied a thousand times over
        ((1 << 40, 4), ((0, 1), (4, 1)), 1),  # a row, shown for ever
        ((1 << 17, 2), ((2, 1), (1, 2)), 10_000),
        ((1 << 17,), ((2,), (1,)), 10_000),
    ],
)
def test_views_cannot_make_it_read_for_ever(
    shape: tuple[int, ...], strides: tuple[tuple[int, ...], tuple[int, ...]], how_many: int
) -> None:
    storages = [Bytes(bytes(1 << 20)) for _ in strides]
    before, after = (views(storage, shape, stride, how_many) for storage, stride in zip(storages, strides, strict=True))
    with pytest.raises(UnreadableFile):
        pair_up(before, after, shallow=False)


# -- layers ---------------------------------------------------------------------------------------------------


def feeding(folder: Path, model: nn.Module) -> dict[str, str]:
    return preceding(opened(folder / "model.pth", model.state_dict()))


def test_the_convolution_before_a_layer(tmp_path: Path) -> None:
    from networks import ResNet

    assert feeding(tmp_path, ResNet()) == {
        "bn1": "conv1.weight",
        "layer1.0.bn1": "layer1.0.conv1.weight",
        "layer1.0.bn2": "layer1.0.conv2.weight",
        "layer2.0.bn1": "layer2.0.conv1.weight",
        "layer2.0.bn2": "layer2.0.conv2.weight",
        "layer2.0.downsample.1": "layer2.0.downsample.0.weight",
    }


def test_the_convolution_before_a_layer_by_its_name(tmp_path: Path) -> None:
    """All convolutions first, then all normalisations: the order alone would mislead."""
    model = nn.Module()
    for number in (1, 2):
        model.add_module(f"conv{number}", nn.Conv2d(3, 3, 1))
    for number in (1, 2):
        model.add_module(f"bn{number}", nn.BatchNorm2d(3))
    assert feeding(tmp_path, model) == {"bn1": "conv1.weight", "bn2": "conv2.weight"}


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8)), {"1": "0.weight"}),
        (nn.Sequential(nn.ConvTranspose2d(3, 8, 2), nn.BatchNorm2d(8)), {"1": "0.weight"}),
        (nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8)), {"1": "0.weight"}),
        (nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.BatchNorm2d(8)), {"2": "0.weight"}),
        (nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 8, 1)), {}),
        (nn.Sequential(nn.Conv2d(3, 8, 1), nn.LayerNorm(4), nn.BatchNorm2d(8)), {}),
        (nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(4)), {}),  # another width: concatenated
    ],
)
def test_the_layer_before_by_order(tmp_path: Path, model: nn.Module, expected: dict[str, str]) -> None:
    assert feeding(tmp_path, model) == expected


# -- the command ----------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with a pretrained file and a frozen one that drifted."""
    (tmp_path / ".git").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    write_checkpoint("pretrained.safetensors")
    write_checkpoint("frozen.safetensors", running_mean=[0.9, -0.12, 0.84, 0.02])
    data = bytearray(Path("frozen.safetensors").read_bytes())
    for place in [k for k in range(len(data)) if data[k : k + 8] == struct.pack("<q", 10_000)]:
        data[place : place + 8] = struct.pack("<q", 10_200)
    Path("frozen.safetensors").write_bytes(data)
    return tmp_path


def said(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = main(words)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_a_drift_fails_the_run_and_names_both_files(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = said(capsys, "check", "frozen.safetensors", "--reference", "pretrained.safetensors")
    assert (code, err) == (1, "")
    assert "frozen.safetensors against pretrained.safetensors" in out
    assert "[frozen-bn-drifted]" in out
    assert "read every weight (the default; --shallow reads keys and BatchNorm only)" in " ".join(out.split())
    assert "1 file, 1 pair, 2 BatchNorm layers: 2 errors" in out
    code, out, _ = said(capsys, "check", "frozen.safetensors", "--reference", "pretrained.safetensors", "--shallow")
    assert code == 1 and "read keys and BatchNorm only (--shallow)" in " ".join(out.split())


def test_the_report_for_machines_has_a_row_for_the_pair(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("check", "frozen.safetensors", "--reference", "pretrained.safetensors", "--output", "json")
    report = json.loads(said(capsys, *words)[1])
    checkpoint, pair = report["files"]
    assert (checkpoint["kind"], pair["kind"]) == ("checkpoint", "pair")
    assert pair["path"] == "frozen.safetensors" and pair["note"].startswith("against pretrained.safetensors: ")
    assert {finding["reference"] for finding in report["findings"]} == {"pretrained.safetensors"}
    assert {finding["family"] for finding in report["findings"]} == {"compare"}


@pytest.mark.parametrize("format", ["sarif", "junit", "github", "gitlab", "markdown", "checkstyle", "rdjson"])
def test_every_report_can_tell_of_a_pair(folder: Path, capsys: pytest.CaptureFixture[str], format: str) -> None:
    words = ("check", "frozen.safetensors", "--reference", "pretrained.safetensors", "--output", format)
    code, out, err = said(capsys, *words)
    assert (code, err) == (1, "") and "frozen-bn-drifted" in out


def test_each_of_a_series_is_compared(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = said(capsys, "check", ".", "--reference", "pretrained.safetensors", "--output", "json")
    report = json.loads(out)
    assert [file["kind"] for file in report["files"]] == ["checkpoint", "pair"] * 2
    assert {finding["path"] for finding in report["findings"]} == {"frozen.safetensors"}
    jobs = json.loads(said(capsys, "check", ".", "--reference", "pretrained.safetensors", "--output", "json", "-j2")[1])
    assert jobs == report


def test_what_is_said_of_the_checkpoint_alone_stays(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_checkpoint("broken.safetensors", running_var=[-0.4, 1.73, 0.42, 1.16])
    _, out, _ = said(capsys, "check", "broken.safetensors", "--reference", "pretrained.safetensors", "--output", "json")
    told = {(finding["rule"], finding["reference"]) for finding in json.loads(out)["findings"]}
    assert ("negative-running-var", None) in told


# -- what can be wrong with a reference -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reference", "sentence"),
    [
        ("nowhere.pth", "bnlint: --reference: nowhere.pth: no such file\n"),
        (".", "bnlint: --reference: .: is a folder\n"),
        ("page.pth", "bnlint: --reference: page.pth: is an HTML or XML page, not a checkpoint"),
        ("cut.safetensors", "bnlint: --reference: cut.safetensors: "),
        ("empty.pth", "bnlint: --reference: empty.pth: the file is empty\n"),
        ("model.onnx", "bnlint: --reference: model.onnx: is an ONNX model, which this version does not read"),
        ("numbers.pth", "bnlint: --reference: numbers.pth: holds no state dict\n"),
        ("other.yaml", "bnlint: --reference: other.yaml: line 1: is no key contract: `bnlint keys MODEL` writes one\n"),
    ],
)
def test_a_wrong_reference_is_one_clear_error(
    folder: Path, capsys: pytest.CaptureFixture[str], reference: str, sentence: str
) -> None:
    Path("page.pth").write_text("<!DOCTYPE html><html></html>")
    Path("cut.safetensors").write_bytes(Path("pretrained.safetensors").read_bytes()[:-10])
    Path("empty.pth").touch()
    Path("model.onnx").write_bytes(b"\x08\x07\x12\x07pytorch" + bytes(50))
    torch.save([1, 2, 3], "numbers.pth")
    Path("other.yaml").write_text("rules: {}\n")
    code, out, err = said(capsys, "check", "frozen.safetensors", "--reference", reference)
    assert code == 2
    assert err.startswith(sentence) and err.count("\n") == 1, err
    assert "frozen-bn-drifted" not in out


def test_a_wrong_reference_is_said_once_for_all_files(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("page.pth").write_text("<!DOCTYPE html><html></html>")
    code, _, err = said(capsys, "check", "frozen.safetensors", "pretrained.safetensors", "--reference", "page.pth")
    assert code == 2 and err.count("\n") == 1


def test_a_weight_that_cannot_be_read_is_named(folder: Path) -> None:
    before, after = ({"conv.weight": Tensor("float32", (4,), Bytes(bytes(size)))} for size in (16, 8))
    with pytest.raises(UnreadableFile, match=r"'conv\.weight': a tensor reaches byte 16 of a storage of 8 bytes"):
        pair_up(bnlint.StateDict("", before), bnlint.StateDict("", after), shallow=False)


def test_shallow_without_a_reference_is_a_slip(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = said(capsys, "check", "frozen.safetensors", "--shallow")
    assert code == 2
    assert err == "bnlint: --shallow: there is nothing to compare; name a reference with --reference FILE\n"


def test_a_file_that_cannot_be_read_is_a_finding_and_no_pair(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("cut.safetensors").write_bytes(Path("pretrained.safetensors").read_bytes()[:-10])
    code, out, _ = said(capsys, "check", "cut.safetensors", "--reference", "pretrained.safetensors", "--output", "json")
    report = json.loads(out)
    assert code == 1
    assert [finding["rule"] for finding in report["findings"]] == ["unreadable-checkpoint"]
    assert [file["kind"] for file in report["files"]] == ["checkpoint"]


# -- the configuration's pairs -----------------------------------------------------------------------------------


def configured(text: str, *paths: str) -> bnlint.Report:
    Path(".bnlint.yaml").write_text(text)
    return run(list(paths), load_config())


def drifted(report: bnlint.Report) -> set[str]:
    return {finding.location.path for finding in report.findings if finding.rule == "frozen-bn-drifted"}


PAIR = "compare: [{checkpoint: frozen.safetensors, reference: pretrained.safetensors%s}]\n"


def test_the_configuration_names_pairs(folder: Path) -> None:
    report = configured(PAIR % "", "frozen.safetensors", "pretrained.safetensors")
    assert drifted(report) == {"frozen.safetensors"}
    assert [file.kind for file in report.files] == ["checkpoint", "pair", "checkpoint"]
    assert not drifted(configured(PAIR % "", "pretrained.safetensors"))


def test_a_pair_is_relative_to_its_configuration(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("inside").mkdir()
    Path(".bnlint.yaml").write_text(PAIR % "")
    monkeypatch.chdir("inside")
    assert drifted(run(["../frozen.safetensors"], load_config())) == {"../frozen.safetensors"}


def test_a_pattern_names_a_series(folder: Path) -> None:
    Path("runs").mkdir()
    for epoch in range(3):
        Path(f"runs/epoch_{epoch}.safetensors").write_bytes(Path("frozen.safetensors").read_bytes())
    text = "compare: [{checkpoint: 'runs/epoch_*.safetensors', reference: pretrained.safetensors}]\n"
    assert len(drifted(configured(text, "."))) == 3


def test_a_reference_that_is_gone_is_named_with_its_place(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path(".bnlint.yaml").write_text("compare:\n- checkpoint: frozen.safetensors\n  reference: gone.pth\n")
    code, _, err = said(capsys, "check", "frozen.safetensors")
    assert code == 2
    assert err == "bnlint: .bnlint.yaml:3:14: compare: gone.pth: no such file\n"


def test_a_rename_maps_names(folder: Path) -> None:
    write_checkpoint("pretrained.safetensors", "old.first", "old.second")
    report = configured(PAIR % ", rename: {'^old\\.first': bn1, '^old\\.second': backbone.bn2}", "frozen.safetensors")
    assert {layer for finding in report.findings for layer in finding.location.layers} == {"bn1", "backbone.bn2"}
    assert drifted(report) == {"frozen.safetensors"}


def test_a_rename_that_makes_two_names_one_is_an_error(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path(".bnlint.yaml").write_text(PAIR % ", rename: {'^.*\\.': ''}")
    code, _, err = said(capsys, "check", "frozen.safetensors")
    assert code == 2 and err.count("\n") == 1
    assert "rename" in err


def test_two_networks_may_be_declared_different(folder: Path) -> None:
    write_checkpoint("pretrained.safetensors", "quite.another")
    assert configured(PAIR % "", "frozen.safetensors").failed
    report = configured(PAIR % ", different: true", "frozen.safetensors")
    assert not report.failed and {str(finding.severity) for finding in report.findings} == {"info"}


def test_an_override_silences_a_pair_too(folder: Path) -> None:
    override = "overrides: [{layers: ['backbone.*'], rules: {frozen-bn-drifted: off}, reason: meant to adapt}]\n"
    report = configured(PAIR % "" + override, "frozen.safetensors")
    assert [finding.location.layers for finding in report.findings] == [("bn1",)]
    assert [finding.reference for finding, _ in report.suppressed] == ["pretrained.safetensors"]
