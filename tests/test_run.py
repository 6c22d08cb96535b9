"""A run: what becomes of files that are good, bad, missing, or more than bnlint can take; on one process or two."""

import multiprocessing
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from small_checkpoints import negative, write_checkpoint

from bnlint import processes, progress
from bnlint import run as run_room
from bnlint.config import Config, load_config
from bnlint.errors import BnlintError, UsageError
from bnlint.report import Report
from bnlint.run import Outcome, run

CRASHING = '''
from collections.abc import Iterator

from bnlint import BatchNorm, Finding, Severity, rule


@rule(severity=Severity.WARNING, good=lambda: [], bad=lambda: [])
def crashing(layer: BatchNorm) -> Iterator[Finding]:
    """A rule that crashes at one layer."""
    if layer.name == "bn1":
        raise ZeroDivisionError("division by zero")
    yield Finding(layer.at(), "seen")
'''


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / ".git").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def found(report: Report) -> list[tuple[str, str, str, tuple[str, ...]]]:
    return [(each.rule, str(each.severity), each.location.path, each.location.layers) for each in report.findings]


def test_what_is_said_of_a_file(folder: Path) -> None:
    write_checkpoint("good.safetensors", "bn1", "bn2", "bn3")
    report = run(["good.safetensors"], load_config())
    (file,) = report.files
    assert (file.path, file.kind, file.format, file.status) == (
        "good.safetensors",
        "checkpoint",
        "safetensors",
        "checked",
    )
    assert (file.batchnorm_layers, file.channels) == (3, 12)
    assert (report.findings, report.exit_code) == ([], 0)


def test_a_run_needs_no_configuration(folder: Path) -> None:
    negative("bad.safetensors", "bn1")
    assert found(run(["bad.safetensors"])) == [("negative-running-var", "error", "bad.safetensors", ("bn1",))]


def test_findings_come_in_the_order_of_files_the_gravest_first(folder: Path) -> None:
    negative("b.safetensors", "bn1", "bn2")
    negative("a.safetensors", "bn3")
    write_checkpoint("c.safetensors", "module.bn1")
    report = run(["b.safetensors", "a.safetensors", "c.safetensors"], load_config())
    assert found(report)[:3] == [
        ("negative-running-var", "error", "b.safetensors", ("bn1",)),
        ("negative-running-var", "error", "b.safetensors", ("bn2",)),
        ("negative-running-var", "error", "a.safetensors", ("bn3",)),
    ]
    assert [(rule, path) for rule, _, path, _ in found(report)[3:]] == [("wrapper-prefix", "c.safetensors")]
    assert [file.path for file in report.files] == ["b.safetensors", "a.safetensors", "c.safetensors"]
    assert {"negative-running-var", "wrapper-prefix"} <= report.rules.keys()


def test_what_cannot_be_looked_at_does_not_keep_the_rest_from_being_looked_at(folder: Path) -> None:
    write_checkpoint("good.safetensors")
    os.mkfifo("pipe.pth")
    report = run(["missing.pth", "pipe.pth", "good.safetensors"], load_config())
    assert report.trouble == ["missing.pth: no such file or folder", "pipe.pth: not a regular file"]
    assert [file.path for file in report.files] == ["good.safetensors"]
    assert report.exit_code == 2


def test_a_truncated_file_is_a_finding(folder: Path) -> None:
    path = write_checkpoint("short.safetensors")
    Path(path).write_bytes(Path(path).read_bytes()[:-40])
    write_checkpoint("good.safetensors")
    report = run([path, "good.safetensors"], load_config())
    assert [file.status for file in report.files] == ["unreadable", "checked"]
    assert [rule for rule, *_ in found(report)] == ["unreadable-checkpoint"]
    assert report.exit_code == 1


def test_python_source_is_skipped_and_said_to_be(folder: Path) -> None:
    Path("train.py").write_text("import torch\n")
    (file,) = run(["train.py"], load_config()).files
    assert (file.kind, file.status, file.note) == (
        "source",
        "skipped",
        "this version of bnlint has no rules for Python source",
    )


def test_path_files_of_python_in_a_folder_stay_unmentioned(folder: Path) -> None:
    write_checkpoint("site-packages/model.safetensors")
    Path("site-packages/editable.pth").write_text("/home/user/project\n")
    report = run(["site-packages"], load_config())
    assert [os.path.basename(file.path) for file in report.files] == ["model.safetensors"]
    assert not report.findings


def test_the_key_of_a_state_dict_that_is_not_there(folder: Path) -> None:
    write_checkpoint("a.safetensors")
    report = run(["a.safetensors"], load_config(key="ema"))
    assert len(report.trouble) == 1
    assert report.trouble[0].startswith("a.safetensors: ")
    assert "ema" in report.trouble[0]
    assert report.exit_code == 2


def test_an_error_of_bnlint_is_one_line_and_the_run_goes_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bnlint.readers import opening

    open_file = opening.open_file

    def broken(path: str, **said: object) -> object:
        if path.startswith("a"):
            raise RecursionError("maximum recursion depth exceeded")
        return open_file(path, **said)  # type: ignore[arg-type]

    monkeypatch.setattr(opening, "open_file", broken)
    for name in ("a", "b"):
        write_checkpoint(f"{name}.safetensors")
    report = run(["a.safetensors", "b.safetensors"], load_config())
    assert [file.path for file in report.files] == ["b.safetensors"]
    assert report.trouble == [
        "a.safetensors: this is a bug in bnlint: RecursionError: maximum recursion depth exceeded"
        " (please report it; BNLINT_DEBUG=1 shows where it happened)"
    ]
    monkeypatch.setenv("BNLINT_DEBUG", "1")
    with pytest.raises(RecursionError):
        run(["a.safetensors"], load_config())


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_rule_that_crashes_is_named_and_the_run_goes_on(folder: Path, jobs: int) -> None:
    Path("rules").mkdir()
    Path("rules/crashing.py").write_text(CRASHING)
    Path(".bnlint.yaml").write_text("rules-folder: rules\n")
    paths = [write_checkpoint(f"{name}.safetensors") for name in "ab"]
    report = run(paths, load_config(allow_code=True), jobs=jobs)
    assert [(crash.rule, crash.where, str(crash)) for crash in report.crashes] == [
        ("crashing", "bn1", "rule crashing crashed at bn1: ZeroDivisionError: division by zero")
    ] * 2
    assert [(rule, layers) for rule, _, _, layers in found(report)] == [("crashing", ("backbone.bn2",))] * 2
    assert report.exit_code == 2
    assert [os.path.basename(path) for path in report.executed] == ["crashing.py"]


# -- overrides -----------------------------------------------------------------------------------------------

OVERRIDES = """
overrides:
  - files: [legacy/*]
    rules: {negative-running-var: off}
    reason: known
  - layers: ["head.*"]
    rules: {negative-running-var: off}
    reason: not needed any more
  - files: [elsewhere.pth]
    rules: {negative-running-var: off}
    reason: not checked today
    expires: 2020-02-29
"""


@pytest.mark.parametrize("jobs", [1, 2])
def test_overrides_suppress_and_are_judged_by_what_they_decided(folder: Path, jobs: int) -> None:
    Path(".bnlint.yaml").write_text(OVERRIDES)
    negative("legacy/a.safetensors", "backbone.bn1")
    negative("b.safetensors", "backbone.bn1")
    report = run(["legacy", "b.safetensors"], load_config(), jobs=jobs)
    assert [(finding.location.path, reason) for finding, reason in report.suppressed] == [
        (os.path.join("legacy", "a.safetensors"), "known")
    ]
    assert [(each.rule, str(each.severity), each.location.path, each.location.line) for each in report.findings] == [
        ("negative-running-var", "error", "b.safetensors", None),
        ("unused-override", "info", ".bnlint.yaml", 6),
        ("expired-override", "warning", ".bnlint.yaml", 9),
    ]
    assert {"unused-override", "expired-override"} <= report.rules.keys()


@pytest.mark.parametrize(("said", "how"), [({}, {"force_exclude": True}), ({"select": ["wrapper-prefix"]}, {})])
def test_part_of_a_run_does_not_judge_overrides(folder: Path, said: dict[str, object], how: dict[str, object]) -> None:
    Path(".bnlint.yaml").write_text(OVERRIDES.replace("2020", "2992"))
    write_checkpoint("b.safetensors")
    assert not run(["b.safetensors"], load_config(**said), **how).findings  # type: ignore[arg-type]


def test_rules_about_overrides_are_set_like_any_rule(folder: Path) -> None:
    Path(".bnlint.yaml").write_text("rules: {expired-override: error, unused-override: off}\n" + OVERRIDES)
    write_checkpoint("b.safetensors")
    assert found(run(["b.safetensors"], load_config())) == [("expired-override", "error", ".bnlint.yaml", ())]


def test_rules_about_overrides_are_as_quiet_as_the_rest(folder: Path) -> None:
    Path(".bnlint.yaml").write_text("extends: quiet\n" + OVERRIDES)
    write_checkpoint("b.safetensors")
    assert [rule for rule, *_ in found(run(["b.safetensors"], load_config()))] == ["expired-override"]


def test_what_overrides_say_of_themselves() -> None:
    from bnlint.overrides import RULES
    from bnlint.testing import findings_in

    for rule in RULES:
        assert [findings_in(rule, each) for each in rule.good()] == [[]] * len(rule.good())
        assert all(findings_in(rule, each) for each in rule.bad())


# -- several processes ---------------------------------------------------------------------------------------


def facts(report: Report) -> object:
    return (
        [(file.path, file.status, file.batchnorm_layers, file.note) for file in report.files],
        [
            (each.rule, each.severity, each.message, dict(each.evidence), each.location.layers)
            for each in report.findings
        ],
        report.trouble,
        list(report.rules),
        report.exit_code,
    )


def many(folder: Path) -> list[str]:
    paths = [write_checkpoint(f"{number:02}.safetensors") for number in range(10)]
    paths += [negative(f"bad{number}.safetensors") for number in range(3)]
    Path("text.pth").write_text("hello\n")
    return [*paths, "text.pth", "missing.pth"]


def test_two_processes_say_what_one_says(folder: Path) -> None:
    paths = many(folder)
    assert facts(run(paths, load_config(), jobs=2)) == facts(run(paths, load_config(), jobs=1))


def test_processes_that_start_from_nothing_say_the_same(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path(".bnlint.yaml").write_text(OVERRIDES + "exclude: ['*.tmp']\n")
    paths = many(folder)
    alone = facts(run(paths, load_config(), jobs=1))
    monkeypatch.setattr(processes, "_context", lambda: multiprocessing.get_context("spawn"))
    assert facts(run(paths, load_config(), jobs=2)) == alone


def _die(target: object, config: object) -> Outcome:
    os._exit(7)


def test_a_process_that_dies_is_one_clear_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = many(folder)
    monkeypatch.setattr(run_room, "look_at", _die)
    monkeypatch.setattr(processes, "_context", lambda: multiprocessing.get_context("fork"))
    with pytest.raises(BnlintError, match="a process ended before its work was done"):
        run(paths, load_config(), jobs=2)


def test_several_processes_are_for_many_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_processors", lambda: 4)
    assert [processes.worthwhile(files) for files in (1, 31, 32, 1000)] == [1, 1, 2, 4]
    monkeypatch.setattr(processes, "_processors", lambda: 1)
    assert processes.worthwhile(1000) == 1


# -- progress --------------------------------------------------------------------------------------------------


def outcomes(seconds: Iterable[float]) -> Iterator[Outcome]:
    for each in seconds:
        time.sleep(each)
        yield Outcome()


def test_a_bar_only_where_it_takes_long(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(list(progress.watched(outcomes([0.0, 0.0]), 2))) == 2
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr(progress, "PATIENCE", 0.01)
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert len(list(progress.watched(outcomes([0.02, 0.0, 0.0]), 3))) == 3
    shown, bar = capsys.readouterr()
    assert not shown
    assert "checking" in bar


def test_nothing_to_look_at_is_a_usage_error(folder: Path) -> None:
    with pytest.raises(UsageError):
        run([], Config())
