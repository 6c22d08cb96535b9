"""Paths, folders and patterns: what is looked at, in which order, and what is said of the rest."""

import io
import json
import os
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bnlint.discovery import CHECKPOINT_ENDINGS, Discovery, discover, is_path_file, read_paths
from bnlint.errors import UsageError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def touch(*paths: str) -> None:
    for path in paths:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).touch()


def paths(found: Discovery) -> list[str]:
    return [target.path.replace(os.sep, "/") for target in found.targets]


def test_files_are_taken_as_they_are_named(folder: Path) -> None:
    touch("b.pth", "a.weights", "c.py")
    found = discover(["b.pth", "a.weights", "c.py"])
    assert paths(found) == ["b.pth", "a.weights", "c.py"]
    assert all(target.named for target in found.targets)
    assert not found.trouble


def test_a_folder_is_walked_in_the_order_of_names(folder: Path) -> None:
    touch(
        "m/z.pth", "m/a.ckpt", "m/b/c.PTH", "m/b/notes.txt", "m/.git/x.pth", "m/._a.pth", "m/__pycache__/x.pkl", "n.pth"
    )
    found = discover(["m"])
    assert paths(found) == ["m/a.ckpt", "m/b/c.PTH", "m/z.pth"]
    assert not any(target.named for target in found.targets)


@pytest.mark.parametrize("ending", CHECKPOINT_ENDINGS)
def test_every_ending_is_met(folder: Path, ending: str) -> None:
    touch(f"m/model{ending}")
    assert paths(discover(["m"])) == [f"m/model{ending}"]


def test_what_is_given_twice_is_looked_at_once(folder: Path) -> None:
    touch("m/a.pth", "m/b.pth")
    assert paths(discover(["m/b.pth", "m", "./m/a.pth", str(folder / "m")])) == ["m/b.pth", "m/a.pth"]


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("nowhere.pth", "nowhere.pth: no such file or folder"),
        ("empty", "empty: holds nothing to check"),
        ("*.onnx", "*.onnx: matches nothing"),
        ("null\0byte.pth", "null\0byte.pth: no path: there is a null byte in it"),
        ("link.pth", "link.pth: a link to gone.pth, which does not exist"),
        ("pipe.pth", "pipe.pth: not a regular file"),
        ("/dev/null", "/dev/null: not a regular file"),
    ],
)
def test_paths_that_come_to_nothing(folder: Path, path: str, told: str) -> None:
    touch("good.pth", "empty/notes.txt")
    os.symlink("gone.pth", "link.pth")
    os.mkfifo("pipe.pth")
    found = discover([path, "good.pth"])
    assert paths(found) == ["good.pth"]
    assert found.trouble == [told]


def test_nothing_is_fine_where_that_is_allowed(folder: Path) -> None:
    touch("empty/notes.txt")
    assert discover(["empty", "*.onnx"], allow_empty=True).trouble == []
    assert discover([], allow_empty=True).targets == []
    assert discover(["nowhere.pth"], allow_empty=True).trouble == ["nowhere.pth: no such file or folder"]
    with pytest.raises(UsageError, match="nothing to check"):
        discover([])


def test_a_folder_that_cannot_be_listed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch("m/a.pth", "m/locked/b.pth")
    scandir = os.scandir

    def locked(path: str) -> object:
        if path.endswith("locked"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", locked)
    found = discover(["m"])
    assert paths(found) == ["m/a.pth"]
    assert found.trouble == [f"{os.path.join('m', 'locked')}: cannot be listed: Permission denied"]


def test_links_in_circles_end(folder: Path) -> None:
    touch("m/a.pth", "m/b/c.pth")
    os.symlink(folder / "m", "m/b/up")
    os.symlink("self", "m/self")
    os.symlink(folder / "m" / "b", "m/again")
    assert paths(discover(["m"])) == ["m/a.pth", "m/b/c.pth"]


def test_links_that_multiply_paths_do_not_multiply_work(folder: Path) -> None:
    for number in range(40):
        Path(f"d{number}").mkdir()
        os.symlink(folder / f"d{number + 1}", f"d{number}/left")
        os.symlink(folder / f"d{number + 1}", f"d{number}/right")
    touch("d40/a.pth")
    found = discover(["d0"])
    assert len(found.targets) == 1
    assert not found.trouble


def test_a_folder_of_which_all_was_named_is_not_empty(folder: Path) -> None:
    touch("m/a.pth")
    assert not discover(["m/a.pth", "m"]).trouble


def test_a_link_to_a_file_is_that_file_and_a_link_to_nothing_is_to_be_reported(folder: Path) -> None:
    touch("blobs/4d5e", "m/notes.txt")
    os.symlink("../blobs/4d5e", "m/model.safetensors")
    os.symlink("../blobs/missing", "m/other.safetensors")
    os.mkfifo("m/pipe.pth")
    assert paths(discover(["m"])) == ["m/model.safetensors", "m/other.safetensors"]


def test_patterns_that_no_shell_expanded(folder: Path) -> None:
    touch("runs/1/last.ckpt", "runs/2/last.ckpt", "runs/2/log.txt", "runs/3/model.weights")
    assert paths(discover(["runs/*/*.ckpt"])) == ["runs/1/last.ckpt", "runs/2/last.ckpt"]
    assert paths(discover(["runs/**"])) == ["runs/1/last.ckpt", "runs/2/last.ckpt"]
    assert paths(discover(["runs/*"])) == ["runs/1/last.ckpt", "runs/2/last.ckpt"]
    assert paths(discover(["runs/3/*.weights"])) == ["runs/3/model.weights"]
    touch("odd[1].pth")
    found = discover(["odd[1].pth"])
    assert paths(found) == ["odd[1].pth"]
    assert found.targets[0].named


def excludes(path: str, folder: bool) -> bool:
    return "third_party" in path or path.endswith("skip.pth")


def test_what_is_excluded_is_no_trouble(folder: Path) -> None:
    touch("m/skip.pth", "m/third_party/a.pth", "third_party/b.pth", "skip.pth")
    assert discover(["m"], excludes).targets == []
    assert discover(["m", "third_party", "*.pth"], excludes).trouble == []


def test_named_files_are_excluded_only_by_force(folder: Path) -> None:
    touch("skip.pth", "a.pth")
    assert paths(discover(["skip.pth", "a.pth"], excludes)) == ["skip.pth", "a.pth"]
    by_hook = discover(["skip.pth", "a.pth"], excludes, force_exclude=True)
    assert paths(by_hook) == ["a.pth"]
    assert not by_hook.targets[0].named
    assert not by_hook.trouble


# -- shards -----------------------------------------------------------------------------------------------


def index(path: str, *shards: object) -> None:
    touch(path)
    Path(path).write_text(json.dumps({"weight_map": {f"layer{number}": shard for number, shard in enumerate(shards)}}))


def test_shards_are_looked_at_through_their_index(folder: Path) -> None:
    index("m/model.safetensors.index.json", "a-1.safetensors", "a-2.safetensors", 3)
    touch("m/a-1.safetensors", "m/a-2.safetensors", "m/other.safetensors")
    assert paths(discover(["m"])) == ["m/model.safetensors.index.json", "m/other.safetensors"]
    assert paths(discover(["m/a-1.safetensors"])) == ["m/a-1.safetensors"]
    named = ["m/a-1.safetensors", "m/a-2.safetensors", "m/model.safetensors.index.json"]
    assert paths(discover(named)) == ["m/model.safetensors.index.json"]


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"weight_map": 3}', '{"weight_map": {"a": "../up.pth"}}', "[" * 100_000, "\xff"]
)
def test_a_wrong_index_hides_nothing(folder: Path, text: str) -> None:
    touch("m/a.pth", "up.pth")
    Path("m/x.index.json").write_text(text, encoding="latin-1")
    assert paths(discover(["m", "up.pth"])) == ["m/a.pth", "m/x.index.json", "up.pth"]


# -- lists of paths -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"a.pth\nb c.pth\r\n\n", ["a.pth", "b c.pth"]),
        (b"a.pth\0b\nc.pth\0", ["a.pth", "b\nc.pth"]),
        (b"", []),
    ],
)
def test_paths_from_a_file(folder: Path, monkeypatch: pytest.MonkeyPatch, data: bytes, expected: list[str]) -> None:
    Path("list").write_bytes(data)
    assert read_paths("list") == expected
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    assert read_paths("-") == expected


def test_a_list_that_is_not_there(folder: Path) -> None:
    with pytest.raises(UsageError, match=r"--files-from: nowhere: No such file"):
        read_paths("nowhere")


@given(st.lists(st.binary(min_size=1, max_size=20).filter(lambda name: b"\0" not in name), min_size=1, max_size=5))
def test_any_name_survives_a_list(tmp_path_factory: pytest.TempPathFactory, names: list[bytes]) -> None:
    path = tmp_path_factory.getbasetemp() / "names"
    path.write_bytes(b"".join(name + b"\0" for name in names))
    assert [os.fsencode(name) for name in read_paths(str(path))] == names


# -- Python's own .pth files ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("x.pth", "import sys; sys.path.append('x')\n", True),
        ("x.pth", "# a comment\n./packages\n", True),
        ("site-packages/x.pth", "/nowhere/else\n", True),
        ("x.pth", "/nowhere/else\n", False),
        ("x.pth", "version https://git-lfs.github.com/spec/v1\n", False),
        ("x.pth", "<html>", False),
        ("x.pth", "", False),
        ("x.pt", "import sys\n", False),
    ],
)
def test_path_files_of_python(folder: Path, name: str, text: str, expected: bool) -> None:
    Path("packages").mkdir()
    touch(name)
    Path(name).write_text(text)
    assert is_path_file(name) is expected
