"""The real command over a thousand hostile and odd files: the right finding, and never more than that.

Every file is checked in a child process with limited memory and time. Files that are not nasty share
a process; nasty ones have their own, with room to grow, so that growing is seen. Nothing in any file
may run: payloads leave a canary, and so does the bait module that some of them import.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from xml.etree import ElementTree

import pytest

if sys.platform == "win32":
    pytest.skip("needs FIFOs, links and resource limits", allow_module_level=True)

from confinement import Outcome, confined
from hostile import CASES, Case
from hostile.assembler import torch_zip
from hostile.executing import CANARY, LIVE, PAYLOADS, payload, pickled
from hostile.safetensors import NAME as SAFETENSORS_NAME
from hostile.safetensors import file as safetensors_file
from hostile.tensors import planted_negative

CHECKOUT = Path(__file__).resolve().parent.parent
MEGABYTES = 600
ROOM_TO_GROW = 3000
SECONDS = 30
BAIT = f"open({CANARY!r}, 'w').write('imported')\n\ndef sing():\n    return sing\n"

ORDINARY = [case for case in CASES if not case.nasty and case.expected.exit_codes != (2,)]
NASTY = [case for case in CASES if case.nasty]
TROUBLE = [case for case in CASES if case.expected.exit_codes == (2,)]


class Corpus:
    """The files on disk, and the command that checks them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.work = folder / "work"
        self.files = folder / "files"
        self.bait = folder / "bait"
        for made in (self.work, self.files, self.bait):
            made.mkdir()
        (self.bait / "bnlint_bait.py").write_text(BAIT)
        self.paths = {str(case): case.make(self.files) for case in CASES if not case.nasty}
        self._shared: dict[str, dict[str, object]] = {}

    def run(
        self, paths: Sequence[Path], *options: str, python: Sequence[str] = (), megabytes: int = MEGABYTES
    ) -> Outcome:
        """`python -m bnlint check` on these paths; no canary may sing."""
        command = [sys.executable, *python, "-m", "bnlint", "check", *map(self.shown, paths), "--isolated", *options]
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.work),
            "PYTHONPATH": os.pathsep.join([str(CHECKOUT), str(self.bait)]),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        outcome = confined(command, megabytes=megabytes, seconds=SECONDS, cwd=self.files, environment=environment)
        sung = [folder for folder in (self.files, self.work, self.bait) if (folder / CANARY).exists()]
        assert not sung, f"something in {[path.name for path in paths][:20]} was executed"
        return outcome

    def shown(self, path: Path) -> str:
        """The path as it is given to the command: relative, and never an option."""
        return os.path.relpath(path, self.files)

    def checked(self, case: Case) -> dict[str, object]:
        """What the shared run of this case's room says of it; a run of its own where that broke."""
        if case.room not in self._shared:
            together = [self.paths[str(other)] for other in ORDINARY if other.room == case.room]
            outcome = self.run(together, "--output", "json", "-j", "1")
            self._shared[case.room] = report_of(outcome) if clean(outcome) else {}
        report = self._shared[case.room]
        if not report:
            outcome = self.run([self.paths[str(case)]], "--output", "json", "-j", "1")
            complain_unless_clean(outcome)
            report = report_of(outcome)
        return about(case, report)


@pytest.fixture(scope="module")
def corpus() -> Iterator[Corpus]:
    folder = Path(tempfile.mkdtemp(prefix="bnlint-hostile-"))
    try:
        yield Corpus(folder)
    finally:
        shutil.rmtree(folder)


def clean(outcome: Outcome) -> bool:
    return outcome.code in (0, 1) and not outcome.stderr


def complain_unless_clean(outcome: Outcome) -> None:
    assert "Traceback" not in outcome.stdout + outcome.stderr, outcome.stderr[-3000:]
    assert outcome.code >= 0, f"killed by signal {-outcome.code} after {outcome.cpu_seconds} s: {outcome.stderr[-500:]}"
    assert outcome.code in (0, 1), f"exit code {outcome.code}: {outcome.stderr[-1000:]}"
    assert not outcome.stderr, f"on stderr: {outcome.stderr[-1000:]}"


def report_of(outcome: Outcome) -> dict[str, object]:
    report = json.loads(outcome.stdout)
    assert report["summary"]["exit_code"] == outcome.code
    return report


def about(case: Case, report: dict[str, object]) -> dict[str, object]:
    """The part of a report that is about one case."""
    place = f"{case.room}/{case.name}/"

    def own(entries: object) -> list[dict[str, object]]:
        return [entry for entry in entries if entry["path"].replace("\\", "/").startswith(place)]  # type: ignore[attr-defined]

    return {"files": own(report["files"]), "findings": own(report["findings"])}


def judge(case: Case, said: dict[str, object], folder: Path) -> None:
    """Hold what was said of a file against what must be said."""
    expected = case.expected
    files: list[dict[str, object]] = said["files"]  # type: ignore[assignment]
    findings: list[dict[str, object]] = said["findings"]  # type: ignore[assignment]
    told = [f"{finding['severity']} {finding['rule']}: {finding['message']}" for finding in findings]
    errors = [finding for finding in findings if finding["severity"] == "error"]
    shown = f"{case.purpose}\n  files: {files}\n  findings: {told}"

    assert len(files) == 1, f"{case} is listed {len(files)} times\n{shown}"
    assert int(bool(errors)) in expected.exit_codes, f"{case}: exit code\n{shown}"
    allowed = {*expected.rules, *expected.beside} if expected.severity != "info" else set()
    strays = {finding["rule"] for finding in errors} - allowed
    assert not strays or expected.is_open, f"{case}: {strays} as an error\n{shown}"
    if expected.statuses:
        assert files[0]["status"] in expected.statuses, f"{case}: status {files[0]['status']}\n{shown}"
    if expected.layers is not None:
        assert files[0]["batchnorm_layers"] == expected.layers, f"{case}: {expected.layers} layers expected\n{shown}"
    if expected.rules:
        spoke = [
            finding
            for finding in findings
            if finding["rule"] in expected.rules and expected.severity in (None, finding["severity"])
        ]
        assert spoke, f"{case}: {expected.rules} did not speak as {expected.severity}\n{shown}"
        assert any(re.search(expected.says, str(finding["message"]), re.IGNORECASE) for finding in spoke), (
            f"{case}: no message names the reason ({expected.says})\n{shown}"
        )
        if expected.rules == ("unreadable-checkpoint",):
            assert len(spoke) == 1, f"{case}: said {len(spoke)} times\n{shown}"
    for finding in findings:
        message = str(finding["message"])
        assert message.strip() and len(message) < 2000, (
            f"{case}: a message of {len(message)} characters\n{message[:300]}"
        )
        assert str(folder) not in message, f"{case}: a path of this machine in {message!r}"


def test_there_are_enough_files_and_their_names_are_unique() -> None:
    assert len(CASES) >= 220
    assert len({str(case) for case in CASES}) == len(CASES)
    assert all(case.purpose for case in CASES)


@pytest.mark.parametrize("case", ORDINARY, ids=str)
def test_what_is_said_of(case: Case, corpus: Corpus) -> None:
    judge(case, corpus.checked(case), corpus.folder)


@pytest.mark.parametrize("room", sorted({case.room for case in ORDINARY}))
def test_a_whole_room_in_one_run(room: str, corpus: Corpus) -> None:
    """No file of a room breaks the run for the others."""
    cases = [case for case in ORDINARY if case.room == room]
    outcome = corpus.run([corpus.paths[str(case)] for case in cases], "--output", "json", "-j", "1")
    complain_unless_clean(outcome)
    assert outcome.megabytes < MEGABYTES
    assert len(report_of(outcome)["files"]) == len(cases)  # type: ignore[arg-type]


@pytest.mark.parametrize("case", NASTY, ids=str)
def test_nasty(case: Case, corpus: Corpus, tmp_path: Path) -> None:
    """Room for five times as much memory as may be used, so that the limit is bnlint's own."""
    path = case.make(corpus.files)
    try:
        outcome = corpus.run([path], "--output", "json", megabytes=ROOM_TO_GROW)
        complain_unless_clean(outcome)
        assert outcome.megabytes < MEGABYTES, f"{case}: {outcome.megabytes} MB"
        assert outcome.cpu_seconds < 10, f"{case}: {outcome.cpu_seconds} s"
        judge(case, about(case, report_of(outcome)), corpus.folder)
    finally:
        shutil.rmtree(path.parent)


@pytest.mark.parametrize("case", [case for case in NASTY if "flood" in case.name], ids=str)
def test_nasty_in_little_memory(case: Case, corpus: Corpus) -> None:
    """Where the system refuses more memory, that is a finding too."""
    path = case.make(corpus.files)
    try:
        outcome = corpus.run([path], "--output", "json", megabytes=300)
        complain_unless_clean(outcome)
    finally:
        shutil.rmtree(path.parent)


@pytest.mark.parametrize("case", TROUBLE, ids=str)
def test_no_regular_file_ends_in_trouble(case: Case, corpus: Corpus) -> None:
    """Exit code 2 and one line that names the path."""
    outcome = corpus.run([corpus.paths[str(case)]])
    assert "Traceback" not in outcome.stdout + outcome.stderr
    assert outcome.code == 2, f"{case}: exit code {outcome.code}\n{outcome.stdout}{outcome.stderr}"
    lines = [line for line in outcome.stderr.splitlines() if line.strip()]
    assert len(lines) == 1, f"{case}: {lines}"
    assert corpus.paths[str(case)].name in lines[0]


def test_a_path_that_does_not_exist_ends_in_trouble(corpus: Corpus) -> None:
    outcome = corpus.run([corpus.files / "no such file.pth"])
    assert outcome.code == 2
    assert len(outcome.stderr.strip().splitlines()) == 1 and "no such file.pth" in outcome.stderr


def test_trouble_does_not_hide_the_other_files(corpus: Corpus) -> None:
    """A path that does not exist, a FIFO, a bad file and a good one in one run."""
    good = corpus.paths["names-file_called_comma"]
    fifo = corpus.paths["places-fifo"]
    outcome = corpus.run([corpus.files / "gone.pth", fifo, good], "--output", "json")
    assert outcome.code == 2
    assert [finding["rule"] for finding in json.loads(outcome.stdout)["findings"]] == ["negative-running-var"]


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_a_folder_of_all_of_them(corpus: Corpus, jobs: str) -> None:
    """The three honest files among a thousand others are checked all the same."""
    controls = corpus.files / "controls"
    controls.mkdir(exist_ok=True)
    (controls / "healthy.pth").write_bytes(torch_zip())
    (controls / SAFETENSORS_NAME).write_bytes(safetensors_file())
    (controls / "negative.pth").write_bytes(planted_negative() or b"")
    outcome = corpus.run([corpus.files], "--output", "json", "-j", jobs)
    complain_unless_clean(outcome)
    assert outcome.code == 1
    assert outcome.megabytes < MEGABYTES
    report = json.loads(outcome.stdout)
    own = {os.path.basename(file["path"]): file for file in report["files"] if "controls/" in file["path"]}
    assert {name: (file["status"], file["batchnorm_layers"]) for name, file in own.items()} == {
        "healthy.pth": ("checked", 1),
        SAFETENSORS_NAME: ("checked", 1),
        "negative.pth": ("checked", 1),
    }
    found = [f["rule"] for f in report["findings"] if "controls/" in f["path"] and f["severity"] == "error"]
    assert found == ["negative-running-var"]
    strangers = [
        finding
        for finding in report["findings"]
        if "strangers/unknown" in finding["path"] and finding["severity"] == "error"
    ]
    assert not strangers, "unknown bytes met in a folder are skipped"
    assert not [finding for finding in report["findings"] if "strangers/path_file" in finding["path"]]


# -- nothing runs ------------------------------------------------------------------------------------


@pytest.mark.parametrize("label", LIVE)
def test_the_payloads_are_live(label: str, tmp_path: Path) -> None:
    """Python's own pickle runs them: a canary that cannot sing proves nothing."""
    (tmp_path / "model.pkl").write_bytes(pickled(payload(label), protocol=4))
    confined(
        [sys.executable, "-c", "import pickle; pickle.load(open('model.pkl', 'rb'))"],
        megabytes=MEGABYTES,
        seconds=SECONDS,
        cwd=tmp_path,
        environment={"PATH": os.environ["PATH"]},
    )
    assert (tmp_path / CANARY).exists()


def test_the_bait_is_live(tmp_path: Path) -> None:
    (tmp_path / "bnlint_bait.py").write_text(BAIT)
    (tmp_path / "model.pkl").write_bytes(b"cbnlint_bait\nsing\n.")
    confined(
        [sys.executable, "-c", "import pickle; pickle.load(open('model.pkl', 'rb'))"],
        megabytes=MEGABYTES,
        seconds=SECONDS,
        cwd=tmp_path,
        environment={"PATH": os.environ["PATH"]},
    )
    assert (tmp_path / CANARY).exists()


def modules_imported(corpus: Corpus, paths: Sequence[Path]) -> set[str]:
    outcome = corpus.run(paths, "--output", "json", "-j", "1", python=["-X", "importtime"])
    assert outcome.code in (0, 1), outcome.stderr[-2000:]
    lines = [line for line in outcome.stderr.splitlines() if line.startswith("import time:")]
    assert len(lines) > 20
    return {line.rpartition("|")[2].strip() for line in lines}


def test_nothing_is_imported_for_a_file(corpus: Corpus) -> None:
    """Files that call a hundred functions of sixty modules import what healthy and unsafe files import."""
    executing = [case for case in ORDINARY if case.room == "executing"]
    quiet = [
        corpus.paths[str(case)] for case in executing if case.name.startswith(("calls_os_system", "unknown_class"))
    ]
    usual = modules_imported(corpus, quiet)
    named = {module for module, _, _ in PAYLOADS.values()} | {
        "bnlint_bait",
        "lib",
        "argparse",
        "omegaconf",
        "functools",
    }
    imported = modules_imported(corpus, [corpus.paths[str(case)] for case in executing])
    assert not (imported - usual) & named
    assert not imported & {"torch", "numpy", "pickle", "subprocess", "runpy_run", "ctypes", "socket"}


# -- names are attacker's text -----------------------------------------------------------------------

FORBIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u2028\u2029]")
RAW_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f]")
FORMATS = ("text", "github", "markdown", "junit", "checkstyle", "json", "json-lines", "sarif", "gitlab", "rdjson")


def test_names_are_escaped_in_every_report(corpus: Corpus) -> None:
    """No name in a file or of a file reaches a terminal, a workflow log or a page as it is."""
    paths = [corpus.paths[str(case)] for case in ORDINARY if case.room in ("names", "strangers")]
    reports = {name: corpus.work / f"report-{name}" for name in FORMATS}
    outcome = corpus.run(paths, *(f"--output={name}={path}" for name, path in reports.items()), "-j", "1")
    complain_unless_clean(outcome)
    assert outcome.code == 1
    for name, path in reports.items():
        text = path.read_text(encoding="utf-8")
        pattern = FORBIDDEN if name in ("text", "github", "markdown") else RAW_CONTROL
        found = pattern.search(text)
        assert not found, f"{name}: {text[max(0, found.start() - 80) : found.end() + 40]!r}"
    for line in reports["github"].read_text(encoding="utf-8").splitlines():
        assert "##[" not in line, "the runner obeys these anywhere in a line"
        if line.lstrip().startswith("::"):
            assert re.match(r"::(error|warning|notice) (file|title)=", line), line[:200]
            assert line.count("::") == 2 or "pwned" not in line.partition("::")[2].partition("::")[0], line[:200]
    for name in ("junit", "checkstyle"):
        ElementTree.fromstring(reports[name].read_bytes())
    for name in ("json", "sarif", "gitlab", "rdjson"):
        json.loads(reports[name].read_text(encoding="utf-8"))
    for line in reports["json-lines"].read_text(encoding="utf-8").splitlines():
        json.loads(line)
    outside_code = re.sub(r"(?<!`)(`+)(?!`).*?(?<!`)\1(?!`)", "", reports["markdown"].read_text(encoding="utf-8"))
    assert "<script" not in outside_code and "](http" not in outside_code


def test_names_stay_whole_for_machines(corpus: Corpus) -> None:
    """JSON carries the names exactly as the state dict has them."""
    case = next(case for case in ORDINARY if case.name == "layer_called_workflow_command")
    findings = corpus.checked(case)["findings"]
    assert [finding["layers"] for finding in findings] == [["x\n::error file=app.py,line=1::pwned"]]  # type: ignore[attr-defined]
