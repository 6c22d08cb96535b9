"""`bnlint compare`: what a person and a machine are shown of two checkpoints, and of a run of them."""

from __future__ import annotations

import io
import json
import random
import re
from math import sqrt
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from networks import ResNet, train, trained  # noqa: E402
from torch import nn  # noqa: E402

import bnlint  # noqa: E402
from bnlint.cli import main  # noqa: E402
from bnlint.comparison import BUCKETS, SideBySide, common_prefix, compare_two, condensed, in_order  # noqa: E402
from bnlint.matching import apply_renames  # noqa: E402
from bnlint.pairing import pair_up  # noqa: E402
from bnlint.reports import comparison_text  # noqa: E402
from bnlint.reports.sparkline import BARS, PLAIN_BARS, sparkline  # noqa: E402

FROZEN = ("conv1", "bn1", "layer1")
HOSTILE = "\x1b]0;owned\x07::error::x\u202e\n"


def freeze(model: nn.Module) -> torch.optim.Optimizer:
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not name.startswith(FROZEN))
    return torch.optim.SGD([each for each in model.parameters() if each.requires_grad], lr=0.02)


def train_with_frozen_in_eval(model: nn.Module, optimizer: torch.optim.Optimizer, batches: int) -> None:
    """Right: every train() is followed by eval() of what is frozen."""
    mode = model.train
    model.train = lambda flag=True: [mode(flag), model.bn1.eval(), model.layer1.eval()][0]
    train(model, optimizer, batches)
    del model.train


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run: in epochs 1 and 2 the frozen part is in eval mode, in 3 and 10 not; wrapped.pth is the last of them."""
    folder = tmp_path_factory.mktemp("run")
    (folder / ".git").mkdir()
    model, _ = trained(ResNet((1, 1)), 20)
    torch.save(model.state_dict(), folder / "pretrained.pth")
    optimizer = freeze(model)
    for epoch in (1, 2, 3, 10):
        (train_with_frozen_in_eval if epoch < 3 else train)(model, optimizer, 4)
        torch.save(model.state_dict(), folder / f"epoch_{epoch}.pth")
    torch.save(nn.DataParallel(model).state_dict(), folder / "wrapped.pth")
    torch.save({key: value for key, value in model.state_dict().items() if "fc" not in key}, folder / "headless.pth")
    return folder


@pytest.fixture
def compare(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "80")

    def run(*words: str) -> str:
        code = main(["compare", *words])
        captured = capsys.readouterr()
        assert (code, captured.err) == (0, "")
        return captured.out

    return run


def loaded(folder: Path, name: str) -> dict[str, torch.Tensor]:
    return torch.load(folder / name)


# -- a pair -----------------------------------------------------------------------------------------------------


def test_the_drift_is_what_torch_computes(compare, folder: Path) -> None:
    (pair,) = json.loads(compare("pretrained.pth", "epoch_10.pth", "--output", "json"))["pairs"]
    before, after = loaded(folder, "pretrained.pth"), loaded(folder, "epoch_10.pth")
    assert [layer["layer"] for layer in pair["layers"]] == [key[:-13] for key in after if key.endswith("running_mean")]
    for layer in pair["layers"]:
        name = layer["layer"]
        mean, var = f"{name}.running_mean", f"{name}.running_var"
        shifts = (after[mean] - before[mean]).abs() / (before[var] + 1e-5).sqrt()
        ratios = (after[var] + 1e-5) / (before[var] + 1e-5)
        assert layer["mean_shift_sd"] == pytest.approx(shifts.max().item(), rel=1e-4)
        assert max(layer["profile_sd"]) == layer["mean_shift_sd"]
        assert len(layer["profile_sd"]) == min(len(shifts), BUCKETS)
        assert layer["highest_variance_ratio"] == pytest.approx(ratios.max().item(), rel=1e-4)
        assert layer["lowest_variance_ratio"] == pytest.approx(ratios.min().item(), rel=1e-4)
        assert layer["verdict"] == ("drifted" if name.startswith(FROZEN) else "trained")
        assert layer["batches"] == (8 if name.startswith(FROZEN) else 16)


def test_the_modules_sum_the_layers_up(compare) -> None:
    (pair,) = json.loads(compare("pretrained.pth", "wrapped.pth", "--output", "json"))["pairs"]
    modules = {module["name"]: module["verdicts"] for module in pair["modules"]}
    assert modules == {
        "module.bn1": {"drifted": 1},
        "module.layer1": {"drifted": 2},
        "module.layer2": {"trained": 3},
    }


def test_a_person_sees_the_verdicts_and_the_frozen_layers_first(compare) -> None:
    text = compare("pretrained.pth", "wrapped.pth")
    rows = text.partition("Largest drifts, frozen layers first\n")[2].splitlines()[1:7]
    assert [row.split()[4] for row in rows] == ["drifted"] * 3 + ["trained"] * 3
    for verdict in ("drifted", "trained"):
        shifts = [float(row.split()[0]) for row in rows if row.split()[4] == verdict]
        assert shifts == sorted(shifts, reverse=True)
    assert all(set(row.split()[5]) <= {*BARS} for row in rows)
    assert max(map(len, text.splitlines())) <= 80


def test_the_code_and_the_rename_map_do_what_they_say(compare, folder: Path) -> None:
    """Executed, and read as YAML: then load_state_dict takes the keys with strict=True."""
    (pair,) = json.loads(compare("pretrained.pth", "wrapped.pth", "--output", "json"))["pairs"]
    names = {"state_dict": loaded(folder, "pretrained.pth")}
    exec(pair["keys"]["code"], names)
    nn.DataParallel(ResNet((1, 1))).load_state_dict(names["state_dict"], strict=True)

    text = compare("pretrained.pth", "wrapped.pth")
    assert f"    {pair['keys']['code']}\n" in text
    block = re.search(r"^    rename:.*\n(?:      .*\n)+", text, re.MULTILINE)
    assert block is not None
    renames = yaml.safe_load(block.group())["rename"]
    assert renames == pair["keys"]["rename"]
    renamed = apply_renames(loaded(folder, "pretrained.pth"), renames)
    assert [*renamed.values()] == [*loaded(folder, "wrapped.pth")]


@pytest.mark.parametrize("target", ["epoch_1.pth", "wrapped.pth", "headless.pth"])
def test_what_load_state_dict_would_do_is_what_it_does(compare, folder: Path, target: str) -> None:
    (pair,) = json.loads(compare("pretrained.pth", target, "--output", "json"))["pairs"]
    source, wanted = loaded(folder, "pretrained.pth"), loaded(folder, target)
    model = ResNet((1, 1))
    if target == "headless.pth":
        model.fc = nn.Identity()
    model = nn.DataParallel(model) if target == "wrapped.pth" else model
    try:
        model.load_state_dict(source)
        raised = False
    except RuntimeError:
        raised = True
    assert pair["load_state_dict"]["strict_raises"] is raised
    assert pair["load_state_dict"]["loaded"] == sum(key in source for key in wanted)
    assert pair["load_state_dict"]["silent"] is (target == "wrapped.pth")


def test_it_says_how_much_it_read(compare) -> None:
    assert "read every weight" in compare("pretrained.pth", "epoch_1.pth")
    assert "(--shallow)" in compare("pretrained.pth", "epoch_1.pth", "--shallow")
    (pair,) = json.loads(compare("pretrained.pth", "epoch_1.pth", "--shallow", "--output", "json"))["pairs"]
    assert (pair["shallow"], pair["same_elsewhere"]) == (True, None)


def test_the_same_file_twice_is_untouched(compare) -> None:
    text = compare("epoch_1.pth", "epoch_1.pth")
    assert "untouched" in text
    assert "drift" not in text.replace("epoch", "")
    assert "rename:" not in text


def test_what_is_left_over_is_folded(compare) -> None:
    text = compare("pretrained.pth", "headless.pth")
    assert "no place in headless.pth: fc (2 keys)" in text
    assert "missing in headless.pth: fc (2 keys)" in compare("headless.pth", "pretrained.pth")


def test_a_contract_stands_first(compare, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keys", "pretrained.pth"]) == 0
    (folder / "net.keys.yaml").write_text(capsys.readouterr().out)
    text = compare("net.keys.yaml", "epoch_10.pth")
    assert re.search(r"1 +drifted +bn1\n", text)
    assert "Largest drifts" not in text
    assert main(["compare", "epoch_10.pth", "net.keys.yaml"]) == 2
    assert "it stands first" in capsys.readouterr().err


# -- a series ---------------------------------------------------------------------------------------------------

RUN = ("pretrained.pth", "epoch_1.pth", "epoch_10.pth", "epoch_2.pth", "epoch_3.pth")  # as a shell gives them


def test_a_series_says_when_drift_began(compare) -> None:
    series = json.loads(compare(*RUN, "--output", "json"))["series"]
    assert series["checkpoints"] == ["pretrained.pth", *(f"epoch_{epoch}.pth" for epoch in (1, 2, 3, 10))]
    assert series["reordered"] is True
    frozen = [layer["layer"] for layer in series["layers"] if layer["layer"].startswith(FROZEN)]
    assert series["began"] == {"epoch_3.pth": frozen}
    for layer in series["layers"]:
        is_frozen = layer["layer"] in frozen
        assert layer["began"] == ("epoch_3.pth" if is_frozen else None)
        assert layer["verdicts"] == (["untouched"] * 2 + ["drifted"] * 2 if is_frozen else ["trained"] * 4)
        assert [shift == 0 for shift in layer["mean_shifts_sd"]] == [is_frozen, is_frozen, False, False]


def test_a_person_sees_when_drift_began(compare) -> None:
    text = compare(*RUN)
    assert "3 frozen layers began to drift in epoch_3.pth (not yet in epoch_2.pth)" in text
    (row,) = [line for line in text.splitlines() if line.endswith("  bn1")]
    assert re.fullmatch(rf" +[\d.e-]+ sd  epoch_3.pth  ▁▁[{BARS[1:]}]{{2}} +drifted  bn1", row)
    assert max(map(len, text.splitlines())) <= 80


def test_a_series_follows_a_layer_through_other_names(compare) -> None:
    series = json.loads(compare("pretrained.pth", "epoch_2.pth", "wrapped.pth", "--output", "json"))["series"]
    assert len(series["layers"]) == 6
    assert all(layer["layer"].startswith("module.") and len(layer["verdicts"]) == 2 for layer in series["layers"])
    assert "wrapped.pth: 38 of 38 keys match, none by their own name" in compare(*RUN[:2], "wrapped.pth")


def test_a_frozen_network_that_stays_frozen_is_said_to(compare) -> None:
    assert "no frozen layer drifted" in compare("pretrained.pth", "epoch_1.pth", "epoch_2.pth")


@given(st.lists(st.integers(0, 10**20), unique=True, min_size=1), st.randoms())
def test_the_order_is_that_of_the_numbers(numbers: list[int], chance: random.Random) -> None:
    paths = [f"run/epoch_{number}.pth" for number in numbers]
    chance.shuffle(paths)
    in_order_of_numbers = [f"run/epoch_{number}.pth" for number in sorted(numbers)]
    assert in_order(paths) == in_order_of_numbers
    assert in_order(["first.pth", *paths, "last.pth"]) == ["first.pth", *in_order_of_numbers, "last.pth"]


# -- names, width, characters -------------------------------------------------------------------------------------


def shown(pair: SideBySide, width: int | None = 80, encoding: str = "utf-8", verbose: bool = False) -> str:
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, newline="")
    comparison_text.write_pair(pair, stream, width=width, color="never", verbose=verbose)
    stream.flush()
    return stream.buffer.getvalue().decode(encoding)


def of_names(*names: str, prefix: str = "") -> SideBySide:
    before = bnlint.state_dict([bnlint.batchnorm(name) for name in names])
    after = bnlint.state_dict(
        [
            bnlint.batchnorm(prefix + name, running_mean=[0.5, 0.1, 0.2, 0.3], num_batches_tracked=10_100)
            for name in names
        ]
    )
    return SideBySide("a.pth", "b.pth", pair_up(before, after))


@given(st.lists(st.text(min_size=1, max_size=30), unique=True, min_size=1, max_size=5), st.booleans())
def test_names_of_a_file_do_nothing(names: list[str], verbose: bool) -> None:
    names = [f"{HOSTILE}{name}" for name in names]
    for encoding in ("utf-8", "ascii", "cp437"):
        text = shown(of_names(*names, prefix="module."), width=None, encoding=encoding, verbose=verbose)
        assert all(line.isprintable() for line in text.split("\n"))
        assert not any(line.lstrip().startswith("::") for line in text.split("\n"))
    assert "owned" in text


def test_long_names_keep_to_the_width_and_are_whole_in_a_pipe() -> None:
    deep = "backbone." + ".".join(f"block{i}" for i in range(12))
    pair = of_names(f"{deep}.bn1", f"{deep}.bn2", "neck.bn")
    assert max(map(len, shown(pair).splitlines())) <= 80
    assert re.search(r"  \.\.\.[a-z0-9.]*block11\.bn1$", shown(pair), re.MULTILINE)
    assert f"  {deep}.bn1\n" in shown(pair, width=None)


def test_sparklines_are_written_in_what_the_stream_can_write() -> None:
    values = [0.0, 0.01, 0.5, 1.0, 2.0, float("nan"), None]
    for encoding, bars in (("utf-8", BARS), ("ascii", PLAIN_BARS), ("latin-1", PLAIN_BARS)):
        line = sparkline(values, 1.0, io.TextIOWrapper(io.BytesIO(), encoding=encoding))
        assert line == f"{bars[0]}{bars[1]}{bars[4]}{bars[-1]}{bars[-1]}? "
        line.encode(encoding)
    assert len({*BARS}) == len(BARS) == len(PLAIN_BARS) == len({*PLAIN_BARS})
    assert sparkline([0.0, 0.0], 0.0, io.StringIO()) == BARS[0] * 2


@given(st.lists(st.floats(0, 10)))
def test_a_profile_loses_no_peak(values: list[float]) -> None:
    profile = condensed(values)
    assert len(profile) == min(len(values), BUCKETS)
    assert not values or max(profile) == max(values)


@pytest.mark.parametrize(
    ("names", "prefix"),
    [
        (["module.a.bn", "module.b.bn"], "module."),
        (["a.bn1", "a.bn2"], "a."),
        (["bn", "bn.x"], ""),
        (["a.b.c"], "a.b."),
        (["ab.x", "ac.x"], ""),
        ([], ""),
    ],
)
def test_the_common_prefix_ends_at_a_dot(names: list[str], prefix: str) -> None:
    assert common_prefix(names) == prefix


def test_numbers_that_are_none_are_shown_as_such() -> None:
    before = bnlint.state_dict([bnlint.batchnorm("bn1"), bnlint.batchnorm("bn2")])
    after = bnlint.state_dict(
        [bnlint.batchnorm("bn1", running_mean=[float("nan")] * 4), bnlint.batchnorm("bn2", running_mean=[1.0] * 4)]
    )
    pair = SideBySide("a.pth", "b.pth", pair_up(before, after))
    rows = shown(pair).partition("Largest drifts")[2].splitlines()[2:4]
    assert [row.split()[-1] for row in rows] == ["bn1", "bn2"]
    assert rows[0].split()[:2] == ["?", "?"]
    assert pair.drifts[1].mean_shift == pytest.approx(max(abs(1 - m) / sqrt(v + 1e-5) for m, v in _healthy()))


def _healthy() -> list[tuple[float, float]]:
    layer = bnlint.batchnorm()
    assert layer.running_mean is not None and layer.running_var is not None
    return list(zip(layer.running_mean, layer.running_var, strict=True))


# -- what goes wrong ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["pretrained.pth"], "name two checkpoints"),
        (["pretrained.pth", "absent.pth"], "absent.pth: no such file"),
        (["absent.pth", "pretrained.pth"], "absent.pth: no such file"),
        ([".", "pretrained.pth"], "is a folder"),
        (["junk.pth", "pretrained.pth"], "junk.pth: "),
        (["pretrained.pth", "junk.pth"], "junk.pth: "),
        (["pretrained.pth", "epoch_1.pth", "junk.pth"], "junk.pth: "),
        (["empty.pth", "pretrained.pth"], "empty.pth: holds no state dict"),
        (["pretrained.pth", "truncated.pth"], "truncated.pth: "),
        (["pretrained.pth", "epoch_1.pth", "--key", "ema"], "no state dict at 'ema'"),
        (["pretrained.pth", "epoch_1.pth", "--output", "sarif"], "invalid choice"),
        (["--model", "a:b", "pretrained.pth", "epoch_1.pth"], "one checkpoint at a time"),
    ],
)
def test_one_line_and_exit_code_2(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], told: str
) -> None:
    monkeypatch.chdir(folder)
    (folder / "junk.pth").write_bytes(b"\x01\x02junk")
    torch.save({"epoch": 3}, folder / "empty.pth")
    data = (folder / "pretrained.pth").read_bytes()
    (folder / "truncated.pth").write_bytes(data[: len(data) // 2])
    assert main(["compare", *words]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert told in captured.err


def test_a_wrapped_state_dict_compares_like_a_plain_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    after = loaded(folder, "epoch_10.pth")
    torch.save({"epoch": 10, "state_dict": after, "ema": {"model": loaded(folder, "epoch_1.pth")}}, "training.pth")
    plain, wrapped = (compare_two("pretrained.pth", path) for path in ("epoch_10.pth", "training.pth"))
    assert [drift.mean_shift for drift in plain.drifts] == [drift.mean_shift for drift in wrapped.drifts]
    assert compare_two("training.pth", "training.pth", key="ema.model").pair.after.key == "ema.model"
