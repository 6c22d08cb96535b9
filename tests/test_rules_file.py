"""What a pickle names, and files that cannot be read: torch writes the files, bnlint has to tell the sorts apart."""

import argparse
import collections
import contextlib
import datetime
import decimal
import enum
import functools
import io
import itertools
import logging
import os
import pathlib
import pickle
import random
import re
import types
import uuid
import zipfile
from collections.abc import Callable
from typing import Any

import pytest

from bnlint.engine import lint
from bnlint.finding import Finding, Severity
from bnlint.model.pickle_names import ALLOW, DANGER, NOTE, tier
from bnlint.model.raw_file import RawFile
from bnlint.readers.opening import open_file
from bnlint.ruleset import builtin_rules
from bnlint.settings import Settings

torch = pytest.importorskip("torch")
numpy = pytest.importorskip("numpy")
nn = torch.nn

RULES = builtin_rules(["file"])


def said(path: Any, *, named: bool = True) -> list[Finding]:
    """What all rules of the family say of a file."""
    return judged(open_file(str(path), named=named))


def judged(file: RawFile) -> list[Finding]:
    verdict = lint(file, RULES, Settings())
    if file.checkpoint is not None:
        file.checkpoint.close()
    assert not verdict.crashes
    return verdict.findings


def names(findings: list[Finding]) -> list[str]:
    return [finding.rule for finding in findings]


# -- what torch itself calls safe ---------------------------------------------------------------------


def test_all_that_weights_only_loads_is_passed_over() -> None:
    """Torch's own list of what it lets weights_only load, whatever this version of torch has on it."""
    from torch._weights_only_unpickler import _get_allowed_globals

    for name in _get_allowed_globals():
        module, _, name = name.rpartition(".")
        for called in (True, False):
            assert tier(module, name, called) == ALLOW, f"{module}.{name}"


@pytest.mark.parametrize("legacy", [True, False])
def test_tensors_of_all_kinds_are_passed_over(tmp_path: Any, legacy: bool) -> None:
    kinds = [torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.bool, torch.complex64]
    contents = {str(kind): torch.ones(3, dtype=kind) for kind in kinds}
    contents |= {
        "net": nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).state_dict(),
        "parameter": nn.Parameter(torch.ones(2)),
        "sparse": torch.eye(3).to_sparse(),
        "quantized": torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.quint8),
        "device": torch.device("cpu"),
        "size": torch.Size([1, 2]),
        "dtype": torch.float32,
        "scalar": numpy.float64(0.5),
        "array": numpy.arange(3),
        "random": numpy.random.RandomState(0).get_state(),
        "bytes": b"abc",
        "set": {1, 2},
        "counts": collections.defaultdict(int, {"a": 1}),
    }
    torch.save(contents, tmp_path / "model.pth", _use_new_zipfile_serialization=not legacy)
    assert said(tmp_path / "model.pth") == []


# -- what belongs to the file's author ----------------------------------------------------------------


class Colour(enum.Enum):
    RED = "red"


class Author:
    """A class of someone's own."""

    def method(self) -> None: ...


HONEST: dict[str, Callable[[], object]] = {
    "namespace": lambda: argparse.Namespace(lr=0.1),
    "path": lambda: pathlib.PurePosixPath("runs/1"),
    "date": lambda: datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc),
    "delta": lambda: datetime.timedelta(seconds=3),
    "decimal": lambda: decimal.Decimal("0.1"),
    "enum": lambda: Colour.RED,
    "partial": lambda: functools.partial(torch.relu, inplace=True),
    "function": lambda: torch.nn.functional.relu,
    "bound method": lambda: Author().method,
    "own class": lambda: Author(),
    "optimizer": lambda: torch.optim.Adam([torch.ones(1)]),
    "schedule": lambda: torch.optim.lr_scheduler.StepLR(torch.optim.SGD([torch.ones(1)], lr=1.0), 3),
    "module": lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()),
    "data parallel": lambda: nn.DataParallel(nn.Linear(2, 2)),
    "weight norm": lambda: nn.utils.parametrizations.weight_norm(nn.Linear(2, 2)).weight,
    "logger": lambda: logging.getLogger("train"),
    "pattern": lambda: re.compile("a+"),
    "uuid": lambda: uuid.UUID(int=3),
    "namespace of types": lambda: types.SimpleNamespace(lr=0.1),
    "buffer": lambda: io.BytesIO(b"abc"),
    "random": lambda: random.Random(0),
    "generator": lambda: numpy.random.default_rng(0),
    "slice": lambda: slice(1, 2),
    "range": lambda: range(3),
    "complex": lambda: 1j,
    "exception": lambda: ValueError("diverged"),
    "masked": lambda: numpy.ma.masked_array([1.0, 2.0], mask=[0, 1]),
    "distribution": lambda: torch.distributions.Normal(0.0, 1.0),
    "count": lambda: itertools.count(3),
}


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("kind", HONEST)
def test_what_people_save_beside_their_weights_is_at_most_an_info(tmp_path: Any, kind: str, protocol: int) -> None:
    try:
        torch.save({"state_dict": {}, "extra": HONEST[kind]()}, tmp_path / "last.ckpt", pickle_protocol=protocol)
    except (AttributeError, TypeError, pickle.PicklingError, RuntimeError) as error:
        pytest.skip(f"this Python or torch does not pickle it: {error}")
    findings = [finding for finding in said(tmp_path / "last.ckpt") if finding.severity != Severity.INFO]
    assert findings == []


# -- what runs code -----------------------------------------------------------------------------------


class Call:
    """Pickles as the call of a function, and runs it where it is unpickled."""

    def __init__(self, function: Any, *args: object) -> None:
        self.call = function, args

    def __reduce__(self) -> tuple[Any, tuple[object, ...]]:
        return self.call

    def __call__(self) -> None:
        """So that pickle lets one call be what another call calls."""


def code_that_marks(path: str) -> str:
    return f"open({path!r}, 'w').close()"


HOSTILE: dict[str, Callable[[str], object]] = {
    "exec": lambda path: Call(exec, code_that_marks(path)),
    "eval": lambda path: Call(eval, code_that_marks(path)),
    "os.system": lambda path: Call(os.system, f"touch {path}"),
    "os.mkdir": lambda path: Call(os.mkdir, path),
    "pathlib's touch": lambda path: Call(pathlib.Path.touch, pathlib.Path(path)),
    "open": lambda path: Call(open, path, "w"),
    "io.FileIO": lambda path: Call(io.FileIO, path, "w"),
    "torch.save": lambda path: Call(torch.save, {}, path),
    "numpy.savetxt": lambda path: Call(numpy.savetxt, path, [1.0]),
    "a function that reduces": lambda path: Call(functools.reduce, exec, [code_that_marks(path), {}]),
    "map": lambda path: Call(list, Call(map, exec, [code_that_marks(path)])),
    "getattr on a computed module": lambda path: Call(Call(getattr, pathlib.Path(path), "touch")),
    "behind rebuild_from_type": lambda path: Call(
        torch._tensor._rebuild_from_type_v2, exec, torch.Tensor, (code_that_marks(path),), {}
    ),
    "in a nested file": lambda path: Call(
        torch.storage._load_from_bytes, torch_bytes(Call(exec, code_that_marks(path)))
    ),
}


def torch_bytes(value: object) -> bytes:
    data = io.BytesIO()
    torch.save(value, data, _use_new_zipfile_serialization=False)
    return data.getvalue()


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize("container", ["zip", "legacy", "pickle"])
def test_code_in_a_file_is_an_error_and_does_not_run(tmp_path: Any, kind: str, container: str) -> None:
    marker = str(tmp_path / "it-ran")
    contents = {"state_dict": nn.BatchNorm2d(3).state_dict(), "extra": HOSTILE[kind](marker)}
    path = tmp_path / "model.pth"
    if container == "pickle":
        contents["state_dict"] = {"weight": numpy.ones(3)}
        path.write_bytes(pickle.dumps(contents))
    else:
        torch.save(contents, path, _use_new_zipfile_serialization=container == "zip")
    (finding,) = said(path)
    assert finding.severity == Severity.ERROR
    assert finding.rule in ("unsafe-pickle", "unreadable-checkpoint")
    assert not os.path.exists(marker)
    if container == "zip":  # that it would run is no guess
        with contextlib.suppress(AttributeError, RuntimeError):
            torch.load(path, weights_only=False)
        assert os.path.exists(marker)


@pytest.mark.parametrize("code", [b"\x82\x01", b"\x83\x01\x00", b"\x84\x01\x00\x00\x00"])
def test_extension_codes_are_an_error(tmp_path: Any, code: bytes) -> None:
    path = tmp_path / "model.pkl"
    path.write_bytes(b"\x80\x02}(X\x01\x00\x00\x00a" + code + b"u.")
    assert [(finding.rule, finding.severity) for finding in said(path)] == [("unsafe-pickle", Severity.ERROR)]


@pytest.mark.parametrize(
    ("module", "name", "wanted"),
    [
        ("vdsr", "Net", NOTE),
        ("__main__", "DnCNN", NOTE),
        ("code.networks", "Net", NOTE),  # someone's own package called code
        ("test.models", "Net", NOTE),
        ("pytorch_lightning.callbacks.model_checkpoint", "ModelCheckpoint", NOTE),
        ("omegaconf.dictconfig", "DictConfig", NOTE),
        ("torchmetrics.utilities.data", "dim_zero_sum", NOTE),
        ("code", "InteractiveInterpreter", DANGER),
        ("torch.utils.collect_env", "run", DANGER),
        ("torch._dynamo.guards", "GuardBuilder.get", DANGER),
        ("torch.jit.unsupported_tensor_ops", "execWrapper", DANGER),
        ("torch.fx.graph_module", "reduce_graph_module", DANGER),
        ("torch.nn.modules.module", "os.system", DANGER),
        ("torch.distributed", "TCPStore", DANGER),
        ("numpy", "load", DANGER),
        ("numpy.lib._datasource", "DataSource", DANGER),
        ("numpy.f2py.crackfortran", "myeval", DANGER),
        ("pip._internal.cli.main", "main", DANGER),
        ("pandas", "eval", DANGER),
        ("typing", "get_type_hints", DANGER),
        ("uuid", "_get_command_stdout", DANGER),
        ("logging.config", "dictConfig", DANGER),
        ("commands", "getoutput", DANGER),
        ("__builtin__", "execfile", DANGER),
        ("itertools", "imap", DANGER),  # Python 2's name for map
        ("types", "CodeType", DANGER),
        ("asyncio.unix_events", "_UnixSubprocessTransport._start", DANGER),
        ("<computed>", "Instance", DANGER),
    ],
)
def test_the_tier_of_a_call(module: str, name: str, wanted: str) -> None:
    assert tier(module, name, called=True) == wanted


# -- files that are something else --------------------------------------------------------------------

PNG = b"\x89PNG\r\n\x1a\n" + bytes(300)
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"4d7a" * 16 + b"\nsize 102530333\n"
STRANGERS = {
    "html": (
        b"<!DOCTYPE html><html><body>Google Drive - Virus scan warning</body></html>" + b" " * 300,
        "not-a-checkpoint",
    ),
    "xml": (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "not-a-checkpoint"),
    "text": (b"404: Not Found\n" * 30, "not-a-checkpoint"),
    "image": (PNG, "not-a-checkpoint"),
    "unknown": (bytes(range(7, 250)) * 4, "not-a-checkpoint"),
    "lfs": (POINTER, "lfs-pointer"),
    "gguf": (b"GGUF\x03\x00\x00\x00" + bytes(300), "unsupported-format"),
    "empty": (b"", "unreadable-checkpoint"),
}


@pytest.mark.parametrize("kind", STRANGERS)
def test_one_rule_speaks_about_a_stranger_that_was_named(tmp_path: Any, kind: str) -> None:
    data, rule = STRANGERS[kind]
    (tmp_path / "model.pth").write_bytes(data)
    assert names(said(tmp_path / "model.pth")) == [rule]


@pytest.mark.parametrize("kind", STRANGERS)
def test_a_stranger_met_in_a_folder_is_no_error(tmp_path: Any, kind: str) -> None:
    data, rule = STRANGERS[kind]
    (tmp_path / "model.pt").write_bytes(data)
    (finding,) = said(tmp_path / "model.pt", named=False)
    kept = rule in ("lfs-pointer", "unreadable-checkpoint")  # these are broken wherever they are met
    assert finding.rule == (rule if kept else "unsupported-format")
    assert finding.severity == (Severity.ERROR if kept else Severity.INFO)


def test_the_path_files_of_site_packages_are_not_mentioned(tmp_path: Any) -> None:
    path = tmp_path / "distutils-precedence.pth"
    path.write_text("import os; var = 'SETUPTOOLS_USE_DISTUTILS'; enabled = os.environ.get(var, 'local') == 'local'\n")
    assert said(path, named=False) == []
    assert names(said(path)) == ["not-a-checkpoint"]


def test_a_pointer_says_what_it_points_to(tmp_path: Any) -> None:
    (tmp_path / "model.pth").write_bytes(POINTER)
    (finding,) = said(tmp_path / "model.pth")
    assert finding.evidence == {"oid": "sha256:" + "4d7a" * 16, "size": 102530333}


# -- damaged files ------------------------------------------------------------------------------------


@pytest.mark.parametrize("legacy", [True, False])
def test_a_file_cut_short_anywhere_is_one_error(tmp_path: Any, legacy: bool) -> None:
    whole = io.BytesIO()
    torch.save(nn.BatchNorm2d(64).state_dict(), whole, _use_new_zipfile_serialization=not legacy)
    data = whole.getvalue()
    path = tmp_path / "model.pth"
    for size in [20, 100, 199, 201, *range(250, len(data), max(1, len(data) // 12)), len(data) - 1]:
        path.write_bytes(data[:size])
        (finding,) = said(path)
        assert finding.severity == Severity.ERROR
        assert finding.rule == ("not-a-checkpoint" if size < 200 else "unreadable-checkpoint"), size
        assert finding.evidence["bytes"] == size


@pytest.mark.parametrize("root", [False, True])
def test_an_archive_that_torch_refuses_is_read_with_a_warning(tmp_path: Any, root: bool) -> None:
    torch.save({"bn." + key: each for key, each in torch.nn.BatchNorm2d(4).state_dict().items()}, tmp_path / "a.pth")
    with zipfile.ZipFile(tmp_path / "a.pth") as whole, zipfile.ZipFile(tmp_path / "b.pth", "w") as packed:
        for name in whole.namelist():
            inner = name.partition("/")[2]
            if root or inner != "version":
                packed.writestr(inner if root else name, whole.read(name))
    with pytest.raises(RuntimeError):
        torch.load(tmp_path / "b.pth")
    assert names(said(tmp_path / "a.pth")) == []
    (finding,) = said(tmp_path / "b.pth")
    assert (finding.rule, finding.severity) == ("unreadable-checkpoint", Severity.WARNING)
    assert ("root" if root else "version record") in finding.message


def test_code_in_a_damaged_file_is_named_in_the_one_error(tmp_path: Any) -> None:
    contents = {"state_dict": {"bn.running_mean": torch.ones(3, device="meta"), "bn.running_var": torch.ones(3)}}
    torch.save({**contents, "extra": Call(os.system, "true")}, tmp_path / "model.pth")
    (finding,) = said(tmp_path / "model.pth")
    assert finding.rule == "unreadable-checkpoint"
    assert f"{os.system.__module__}.system" in finding.message


# -- whole models and old files -----------------------------------------------------------------------


@pytest.mark.parametrize("training", [True, False])
def test_a_pickled_model_is_named_with_its_mode(tmp_path: Any, training: bool) -> None:
    torch.save(nn.Sequential(nn.BatchNorm2d(3)).train(training), tmp_path / "model.pth")
    (finding,) = [each for each in said(tmp_path / "model.pth") if each.rule == "pickled-module"]
    assert finding.evidence == {"class": "torch.nn.modules.container.Sequential", "training": training}
    assert finding.severity == Severity.INFO


def test_python_2_is_told_by_its_strings(tmp_path: Any) -> None:
    """Protocol 2 as Python 2 wrote it: SHORT_BINSTRING for the keys."""
    array = pickle.dumps(numpy.ones(3, dtype="<f4"), protocol=2)[2:-1]
    (tmp_path / "old.pkl").write_bytes(b"\x80\x02}(U\x06weight" + array + b"u.")
    assert names(said(tmp_path / "old.pkl")) == ["legacy-format"]
    (tmp_path / "new.pkl").write_bytes(b"\x80\x02}(X\x06\x00\x00\x00weight" + array + b"u.")
    assert names(said(tmp_path / "new.pkl")) == []
