"""The report a person reads: what it says, how wide it is, in which colours, and what it imports."""

import subprocess
import sys
from contextlib import redirect_stdout
from io import StringIO
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from report_examples import ANSI, HERE, RULES, at, found, one_finding, something_of_everything, written
from report_examples import plain_environment as plain_environment

from bnlint import Severity
from bnlint.report import FileResult, Gate, Report
from bnlint.reports import write


def clean_report() -> Report:
    return Report([FileResult("a.pth", format="torch-zip", batchnorm_layers=53, channels=26_560)], rules=RULES)


def test_a_clean_run_is_one_line() -> None:
    assert written(clean_report(), "text") == "1 file, 53 BatchNorm layers, 26,560 channels: no problem found\n"


def test_a_quiet_clean_run_says_nothing() -> None:
    assert written(clean_report(), "text", quiet=True) == ""


def test_a_file_without_batchnorm_is_not_called_healthy() -> None:
    report = Report([FileResult("a.pth", status="nothing-to-check")])
    assert written(report, "text") == "1 file, no BatchNorm layers: nothing to check\n"


@pytest.mark.parametrize("quiet", [False, True])
@pytest.mark.parametrize("status", ["skipped", "unreadable", "not-a-checkpoint"])
def test_a_file_that_was_not_checked_is_never_passed_over_in_silence(status: str, quiet: bool) -> None:
    text = written(Report([FileResult("a.gguf", status=status, note="GGUF")]), "text", quiet=quiet)
    assert "1 file" in text
    assert quiet or f"{status} a.gguf: GGUF" in text


def test_many_skipped_files_are_counted() -> None:
    files = [FileResult(f"{number}.gguf", status="skipped", note="GGUF") for number in range(40)]
    text = written(Report(files), "text")
    assert text.count("GGUF") == 5
    assert "and 35 more files" in text
    assert written(Report(files), "text", verbose=True).count("GGUF") == 40


def test_where_nothing_could_be_checked_the_line_on_standard_error_says_it_all() -> None:
    assert written(Report(trouble=["x.pth: there is no such file"]), "text") == ""


def test_a_run_that_was_not_complete_says_so() -> None:
    assert "; incomplete, because of 1 problem\n" in written(one_finding(trouble=["x.pth: no such file"]), "text")


def test_findings_fold_after_a_few_and_the_fix_is_said_once_in_a_run() -> None:
    findings = [
        found("nan-statistics", Severity.ERROR, "NaN", where=at(path, f"layer{number}.bn"))
        for path in ("a.pth", "b.pth")
        for number in range(50)
    ]
    text = written(Report(findings=findings, rules=RULES), "text")
    assert text.count("and 47 more layers [nan-statistics]") == 2
    assert text.count("Fix: ") == 1
    unfolded = written(Report(findings=findings, rules=RULES), "text", verbose=True)
    assert unfolded.count(" NaN [nan-statistics]") == 100


def test_a_fix_shows_the_code_that_belongs_to_it() -> None:
    report = one_finding()
    report.findings[0].fix = "Say so:\n\n    model.eval()\n    if deep:\n        go()\n\nAnd more."
    assert "Fix: Say so:\n               model.eval()\n               if deep:\n                   go()\n" in written(
        report, "text"
    )
    assert ": Say so:\n\n      model.eval()\n      if deep:\n          go()\n" in written(report, "markdown")


def test_one_finding_is_never_folded_away() -> None:
    findings = [
        found("nan-statistics", Severity.ERROR, "NaN", where=at("a.pth", f"layer{number}.bn")) for number in range(4)
    ]
    assert "more layer" not in written(Report(findings=findings), "text")


def test_the_same_note_on_many_layers_is_one_line_without_advice() -> None:
    findings = [
        found("silent-channels", Severity.INFO, "no counter", where=at("a.pth", f"layer{number}.bn"))
        for number in range(53)
    ]
    text = written(Report(findings=findings, rules=RULES), "text")
    assert "  info     layer0.bn and 52 more layers: no counter [silent-channels]\n" in text
    assert "Fix:" not in text


def test_a_failure_without_an_error_says_why() -> None:
    assert "failed, because warning is enough" in written(
        one_finding(Severity.WARNING, gate=Gate(Severity.WARNING)), "text"
    )
    assert "no warning may pass" in written(one_finding(Severity.WARNING, gate=Gate(None, 0)), "text")


def test_assumptions_are_named_only_where_a_finding_depends_on_one() -> None:
    assert "assumed" not in written(one_finding(), "text")
    report = one_finding()
    report.findings[0].evidence = {"assumed_momentum": 0.1, "assumed_eps": 1e-5}
    assert "assumed: eps 1e-05, momentum 0.1; a state dict does not say" in written(report, "text")


NAMES = st.text("abcdefghijklmnopqrstuvwxyz0123456789_.", min_size=1, max_size=70).map(lambda name: f"<{name}>")


@settings(max_examples=60, deadline=None)
@given(st.lists(NAMES, min_size=1, max_size=9), st.integers(20, 120), st.booleans())
def test_no_width_cuts_a_name(names: list[str], width: int, verbose: bool) -> None:
    rule = "a-rule-with-a-name-that-is-longer-than-many-terminals-are-wide"
    findings = [found(rule, Severity.ERROR, "is wrong", where=at("m.pth", name)) for name in names]
    findings.append(found(rule, Severity.ERROR, "is wrong", where=at("m.pth", *names)))
    lines = written(Report(findings=findings), "text", width=width, verbose=verbose).splitlines()
    shown = names if verbose else names[:3] if len(names) > 3 else names
    assert all(any(name in line for line in lines) for name in shown)
    assert any(f"[{rule}]" in line for line in lines)
    assert all(len(line) <= width or len(line.split()) == 1 or line.startswith("  error") for line in lines)


class Terminal(StringIO):
    """A stream at which a person looks; it has no file number, so it is 80 columns wide."""

    def isatty(self) -> bool:
        return True


def seen_by_a_person(report: Report, **options: Any) -> str:
    terminal = Terminal()
    write(report, "text", terminal, **options)
    return terminal.getvalue()


@pytest.mark.parametrize(
    ("environment", "color", "coloured"),
    [
        ({}, "auto", True),
        ({"TERM": "dumb"}, "auto", False),
        ({"NO_COLOR": "1"}, "auto", False),
        ({"NO_COLOR": ""}, "auto", True),
        ({"NO_COLOR": "1", "FORCE_COLOR": "1"}, "auto", False),
        ({"NO_COLOR": "1"}, "always", True),
        ({"FORCE_COLOR": "1"}, "never", False),
    ],
)
def test_colour_at_a_terminal(
    environment: dict[str, str], color: str, coloured: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"TERM": "xterm-256color", **environment}.items():
        monkeypatch.setenv(name, value)
    assert bool(ANSI.search(seen_by_a_person(something_of_everything(), color=color))) == coloured


@pytest.mark.parametrize("name", ["FORCE_COLOR", "CLICOLOR_FORCE"])
def test_colour_in_a_pipe_only_on_demand(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def printed() -> str:
        with redirect_stdout(StringIO()) as output:
            write(something_of_everything(), "text", output)
        return output.getvalue()

    assert not ANSI.search(printed())
    monkeypatch.setenv(name, "0")
    assert not ANSI.search(printed())
    monkeypatch.setenv(name, "1")
    assert ANSI.search(printed())
    assert not ANSI.search(written(something_of_everything(), "text")), "this one goes to a file"


@pytest.mark.parametrize("options", [{}, {"verbose": True}, {"statistics": True, "show_files": True, "quiet": True}])
@pytest.mark.parametrize("width", [40, 80, 200])
def test_colour_changes_no_character(options: dict[str, Any], width: int) -> None:
    coloured = written(something_of_everything(), "text", color="always", width=width, **options)
    assert ANSI.sub("", coloured) == written(something_of_everything(), "text", color="never", width=width, **options)


def test_lines_break_where_a_person_looks_and_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    longest = max(map(len, seen_by_a_person(something_of_everything(), color="never").splitlines()))
    assert 60 < longest <= 80
    assert max(map(len, written(something_of_everything(), "text").splitlines())) > 100
    monkeypatch.setenv("COLUMNS", "50")
    assert max(map(len, written(something_of_everything(), "text", quiet=True).splitlines())) <= 50


def test_a_clean_text_report_imports_nothing_but_its_own_rooms() -> None:
    script = (
        "import sys, io, bnlint.report\n"
        "before = set(sys.modules)\n"
        "from bnlint.reports import write\n"
        "write(bnlint.report.Report([bnlint.report.FileResult('a.pth')]), 'text', io.StringIO(), color='always')\n"
        "print(*sorted(set(sys.modules) - before))\n"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=HERE + "/..")
    assert run.stdout.split()
    assert [name for name in run.stdout.split() if not name.startswith("bnlint.")] == []
