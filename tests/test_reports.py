"""Reports: reviewed as text in tests/snapshots, read back by real parsers, and fed with hostile names.

`python tests/test_reports.py --update` rewrites the snapshots; `git diff` then shows what users will see.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from io import BytesIO, StringIO, TextIOWrapper
from itertools import cycle
from typing import Any
from xml.etree import ElementTree

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from report_examples import FIRST, RULES, at, found, something_of_everything, written

import bnlint
from bnlint import Location, RuleCrashed, Severity, UsageError
from bnlint.fingerprint import fingerprint
from bnlint.report import FileResult, Gate, Report
from bnlint.reports import FORMATS, write
from bnlint.reports.escaping import LONGEST, markdown_text, visible, well_formed
from bnlint.ruleset import builtin_rules

HERE = os.path.dirname(os.path.abspath(__file__))
SNAPSHOTS = os.path.join(HERE, "snapshots")
SNAPSHOT: dict[str, tuple[str, dict[str, Any]]] = {
    "text.txt": ("text", {}),
    "text-60-columns.txt": ("text", {"width": 60}),
    "text-verbose.txt": ("text", {"verbose": True, "width": 100}),
    "text-quiet.txt": ("text", {"quiet": True}),
    "text-tables.txt": ("text", {"quiet": True, "statistics": True, "show_files": True, "width": 100}),
    "json.json": ("json", {"verbose": True}),
    "json-lines.jsonl": ("json-lines", {}),
    "sarif.sarif": ("sarif", {"verbose": True}),
    "github.txt": ("github", {}),
    "gitlab.json": ("gitlab", {}),
    "junit.xml": ("junit", {}),
    "rdjson.json": ("rdjson", {}),
    "checkstyle.xml": ("checkstyle", {}),
    "markdown.md": ("markdown", {"verbose": True}),
}
SPEAKS_TO_PEOPLE = ("NO_COLOR", "FORCE_COLOR", "CLICOLOR_FORCE", "COLUMNS", "TERM", "COLORTERM")
SPEAKS_TO_GITHUB = ("GITHUB_STEP_SUMMARY", "GITHUB_WORKSPACE")
ANSI = re.compile(r"\x1b\[[0-9;]*m")


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*SPEAKS_TO_PEOPLE, *SPEAKS_TO_GITHUB):
        monkeypatch.delenv(name, raising=False)


# -- snapshots --------------------------------------------------------------------------------------


def snapshot(name: str) -> str:
    """What is to stand in a snapshot: a report in which no version is named, since releases change that."""
    format, options = SNAPSHOT[name]
    text = written(something_of_everything(), format, **options).replace(bnlint.__version__, "VERSION")
    if name.endswith(".sarif"):
        text = json.dumps(json.loads(text), indent=1) + "\n"  # to be read in review; it is written on one line
    return text


@pytest.mark.parametrize("name", SNAPSHOT)
def test_reports_are_as_reviewed(name: str) -> None:
    with open(os.path.join(SNAPSHOTS, name), encoding="utf-8") as file:
        reviewed = file.read()
    assert snapshot(name) == reviewed, "if this is meant: python tests/test_reports.py --update, and read git diff"


def test_every_format_has_a_snapshot_and_every_snapshot_a_format() -> None:
    assert {format for format, _ in SNAPSHOT.values()} == set(FORMATS)
    assert set(os.listdir(SNAPSHOTS)) >= set(SNAPSHOT)


def update_snapshots() -> None:
    for name in (*SPEAKS_TO_PEOPLE, *SPEAKS_TO_GITHUB):
        os.environ.pop(name, None)
    for name in SNAPSHOT:
        with open(os.path.join(SNAPSHOTS, name), "w", encoding="utf-8", newline="\n") as file:
            file.write(snapshot(name))


# -- text -------------------------------------------------------------------------------------------


def clean_report() -> Report:
    return Report([FileResult("a.pth", format="torch-zip", batchnorm_layers=53, channels=26_560)], rules=RULES)


def one_finding(severity: Severity = Severity.ERROR, **options: Any) -> Report:
    finding = found("nan-statistics", severity, "running_mean is NaN", where=at("a.pth", "bn1"))
    return Report([FileResult("a.pth", batchnorm_layers=1, channels=8)], [finding], rules=RULES, **options)


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


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1", "utf-8", "utf-16"])
@pytest.mark.parametrize("format", FORMATS)
def test_every_encoding_can_write_every_report(format: str, encoding: str) -> None:
    report = one_finding()
    report.findings[0].location.layers = ("блок1.bn", "\U0001f525")
    stream = TextIOWrapper(BytesIO(), encoding=encoding)
    write(report, format, stream)
    stream.flush()
    text = stream.buffer.getvalue().decode(encoding)  # type: ignore[attr-defined]
    if format == "text":
        shown = "блок1.bn" if encoding.startswith("utf") else "\\u0431\\u043b\\u043e\\u043a1.bn"
        assert shown in text


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


def test_an_unknown_format_is_refused_by_name() -> None:
    with pytest.raises(UsageError, match="'xml'; there are text, json"):
        write(Report(), "xml", StringIO())


# -- json -------------------------------------------------------------------------------------------

with open(
    os.path.join(os.path.dirname(bnlint.__file__), "schemas", "report.schema.json"), encoding="utf-8"
) as published:
    SCHEMA = json.load(published)
REPORT_SCHEMA = jsonschema.Draft202012Validator(SCHEMA)
LINE_SCHEMA = jsonschema.Draft202012Validator({"$ref": "#/$defs/line", "$defs": SCHEMA["$defs"]})
SUMMARY_KEYS = "files errors warnings infos failed exit_code".split()
FILE_KEYS = "path kind format status batchnorm_layers channels note".split()
FINDING_KEYS = (
    "rule family severity message path line column end_line end_column reference layers tensors certain evidence "
    "related fix fingerprint docs"
).split()


def test_the_published_schema_is_a_schema_and_promises_every_key() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    for name, keys in (("summary", SUMMARY_KEYS), ("file", FILE_KEYS), ("finding", FINDING_KEYS)):
        assert set(keys) <= set(SCHEMA["$defs"][name]["required"])


@pytest.mark.parametrize("verbose", [False, True])
def test_json_has_the_keys_of_the_design_in_its_order(verbose: bool) -> None:
    document = json.loads(written(something_of_everything(), "json", verbose=verbose))
    REPORT_SCHEMA.validate(document)
    assert list(document)[:5] == ["schema_version", "tool", "summary", "files", "findings"]
    assert document["tool"] == {"name": "bnlint", "version": bnlint.__version__}
    assert list(document["summary"])[:6] == SUMMARY_KEYS
    assert all(list(file) == FILE_KEYS for file in document["files"])
    assert all(list(finding)[:18] == FINDING_KEYS for finding in document["findings"])
    assert ("suppressed" in document) == ("baselined" in document) == verbose


def test_json_counts_what_it_lists() -> None:
    document = json.loads(written(something_of_everything(), "json", verbose=True))
    severities = [finding["severity"] for finding in document["findings"]]
    assert document["summary"] == {
        "files": len(document["files"]),
        "errors": severities.count("error"),
        "warnings": severities.count("warning"),
        "infos": severities.count("info"),
        "failed": True,
        "exit_code": 2,
        "suppressed": len(document["suppressed"]),
        "baselined": len(document["baselined"]),
    }


def test_numbers_that_json_does_not_have_are_strings() -> None:
    report = one_finding()
    report.findings[0].evidence = {"a": float("nan"), "b": [float("inf"), 1, True], "c": float("-inf"), "d": 0.1}
    evidence = json.loads(written(report, "json"), parse_constant=pytest.fail)["findings"][0]["evidence"]
    assert evidence == {"a": "NaN", "b": ["Infinity", 1, True], "c": "-Infinity", "d": 0.1}


def test_json_lines_are_the_same_records() -> None:
    document = json.loads(written(something_of_everything(), "json", verbose=True))
    lines = [json.loads(line) for line in written(something_of_everything(), "json-lines", verbose=True).splitlines()]
    for line in lines:
        LINE_SCHEMA.validate(line)
    by_type: dict[str, list[Any]] = {}
    for line in lines:
        by_type.setdefault(line.pop("type"), []).append(line)
    assert by_type["file"] == document["files"]
    assert by_type["finding"] == document["findings"]
    assert by_type["suppressed"] == document["suppressed"]
    assert by_type["baselined"] == document["baselined"]
    assert by_type["crash"] == document["crashes"]
    assert [line["message"] for line in by_type["trouble"]] == document["trouble"]
    assert lines[-1].items() >= document["summary"].items()


# -- review tools -----------------------------------------------------------------------------------

with open(os.path.join(HERE, "data", "sarif-2.1.0.schema.json"), encoding="utf-8") as official:
    SARIF_SCHEMA = jsonschema.Draft4Validator(json.load(official))


def sarif_of(report: Report, **options: Any) -> Any:
    log = json.loads(written(report, "sarif", **options))
    SARIF_SCHEMA.validate(log)
    return log["runs"][0]


def test_sarif_has_what_github_asks_for() -> None:
    run = sarif_of(something_of_everything())
    rules = run["tool"]["driver"]["rules"]
    for rule in rules:
        assert 0 < len(rule["shortDescription"]["text"]) <= 1024
        assert 0 < len(rule["fullDescription"]["text"]) <= 1024
    for result in run["results"]:
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
        place = result["locations"][0]["physicalLocation"]
        assert {"startLine", "startColumn", "endLine", "endColumn"} <= set(place["region"])
        assert not place["artifactLocation"]["uri"].startswith(("/", "file:"))
    marks = [result["partialFingerprints"]["primaryLocationLineHash"] for result in run["results"]]
    assert len(set(marks)) == len(marks)


def test_every_rule_of_bnlint_can_be_told_in_sarif() -> None:
    rules = builtin_rules().by_name
    findings = [found(name, Severity.WARNING, "wrong", where=at("a.pth", "bn1")) for name in rules]
    told = sarif_of(Report(findings=findings, rules=rules))["tool"]["driver"]["rules"]
    assert [rule["id"] for rule in told] == list(rules)
    for rule in told:
        assert f"**{rules[rule['id']].title}**" in rule["help"]["markdown"]
        assert "Fix" in rule["help"]["markdown"]


def test_only_rules_about_code_that_runs_are_a_matter_of_security() -> None:
    rules = {
        rule["id"]: rule.get("properties", {})
        for rule in sarif_of(something_of_everything())["tool"]["driver"]["rules"]
    }
    assert {name for name, facts in rules.items() if "security-severity" in facts} == {"runs-code"}


def test_sarif_keeps_suppressed_findings_from_becoming_alerts_unless_asked() -> None:
    report = something_of_everything()
    assert not any("suppressions" in result for result in sarif_of(report)["results"])
    reasons = [
        result["suppressions"][0]["justification"]
        for result in sarif_of(report, verbose=True)["results"]
        if "suppressions" in result
    ]
    assert reasons == ["pruned on purpose", "known from the baseline"]


def test_a_file_outside_the_repository_has_an_absolute_address() -> None:
    report = one_finding(root=HERE)
    report.findings[0].location.path = os.path.join(HERE, "..", "..", "a b.pth")
    address = sarif_of(report)["results"][0]["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
    assert address.startswith("file:///")
    assert address.endswith("/a%20b.pth")


def test_fingerprints_are_not_repeated_in_gitlab() -> None:
    report = one_finding()
    report.findings *= 3
    marks = [entry["fingerprint"] for entry in json.loads(written(report, "gitlab"))]
    assert len(set(marks)) == 3
    assert marks[0] == fingerprint(report.findings[0], "")


def test_junit_fails_what_fails_the_run() -> None:
    def failures(report: Report) -> str | None:
        return ElementTree.fromstring(written(report, "junit")).get("failures")

    assert failures(one_finding(Severity.ERROR)) == "1"
    assert failures(one_finding(Severity.ERROR, gate=Gate(None))) == "0"
    assert failures(one_finding(Severity.WARNING)) == "0"
    assert failures(one_finding(Severity.WARNING, gate=Gate(max_warnings=0))) == "1"
    assert failures(one_finding(Severity.INFO, gate=Gate(Severity.INFO))) == "1"


def test_junit_counts_are_those_of_its_elements() -> None:
    root = ElementTree.fromstring(written(something_of_everything(), "junit"))
    for suites in (root, *root):
        assert suites.get("tests") == str(len(list(suites.iter("testcase"))))
        for name, kind in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
            assert suites.get(name) == str(len(list(suites.iter(kind))))


def test_github_shows_ten_annotations_of_a_severity_and_names_the_rest() -> None:
    findings = [
        found("nan-statistics", severity, "NaN", where=at(f"{number}.pth", "bn1"))
        for severity in (Severity.INFO, Severity.ERROR)
        for number in range(14)
    ]
    lines = written(Report(findings=findings), "github").splitlines()
    assert [line[:8] for line in lines if line.startswith("::")] == ["::error "] * 10 + ["::notice"] * 10
    assert sum("NaN [nan-statistics]" in line for line in lines if not line.startswith("::")) == 8


def test_the_step_summary_is_appended_where_github_says(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    summary = tmp_path / "summary.md"
    summary.write_text("before\n", encoding="utf-8")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    written(one_finding(), "github")
    text = summary.read_text(encoding="utf-8")
    assert text.startswith("before\n### bnlint failed\n")
    assert "`bn1`: running\\_mean is NaN" in text
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path))
    assert "::warning title=bnlint::the step summary could not be written" in written(one_finding(), "github")


def test_github_gets_paths_seen_from_its_workspace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_WORKSPACE", os.path.dirname(os.getcwd()))
    assert f"file={os.path.basename(os.getcwd())}/a.pth," in written(one_finding(), "github")


def test_markdown_fits_into_a_comment() -> None:
    findings = [
        found(f"rule-{number}", Severity.ERROR, "NaN" * 30, where=at(f"{number}.pth", "layer" * 20))
        for number in range(2000)
    ]
    text = written(Report(findings=findings), "markdown")
    assert 60_000 < len(text) <= 65_000
    assert text.startswith("<!-- bnlint report -->\n")
    assert "more lines: too long for a comment" in text.splitlines()[-1]


# -- hostile names ----------------------------------------------------------------------------------

ACTS_IN_A_TERMINAL = [
    "\x1b]0;owned\x07",
    "\x1b[2J",
    "\x9b31m",
    "\r",
    "\n",
    "\u2028",
    "\x85",
    "\x00",
    "[red]x[/red]",
    ":fire:",
]
INVISIBLE = ["\u202e", "\u2066", "\ufeff", "\ufffe", "\ud800", "\udc80", "\u3164", "e\u0301", " ", "  ", ""]
ACTS_IN_A_LOG = [
    "\n::error::",
    "::add-mask::",
    " ::stop-commands::x",
    "%0A::set-output name=a::b",
    "##[error]",
    "##vso[x]y",
]
ACTS_IN_MARKUP = [
    "<img src=x onerror=alert(1)>",
    "]]>",
    "<!--",
    "-->",
    "&amp;",
    "`",
    "``",
    "```\n",
    "|",
    "\\",
    "*_~",
    "$x$",
]
ACTS_IN_A_COMMENT = [
    "@everyone",
    "#1",
    "owner/repo#1",
    "https://example.org",
    "www.example.org",
    "[x](//e)",
    "![x](//e)",
]
ORDINARY = ["###", "](0)", "{0}", "'", '"', ",", ":", "../../etc/passwd", "блок", "\U0001f525", "layer1.0.bn1"]
WEAPONS = ACTS_IN_A_TERMINAL + INVISIBLE + ACTS_IN_A_LOG + ACTS_IN_MARKUP + ACTS_IN_A_COMMENT + ORDINARY
HOSTILE = st.lists(
    st.one_of(st.sampled_from(WEAPONS), st.text(st.characters(exclude_categories=[]), max_size=8)), max_size=6
).map("".join)


def hostile_report(texts: list[str]) -> Report:
    """A report in which every text that can come out of a file is one of an attacker's, in turn."""
    turns = cycle(texts)

    def names() -> str:
        return next(turns)

    path = names()
    findings = [
        found(
            "nan-statistics",
            severity,
            names(),
            where=at(path, *layers, state_dict=names()),
            reference=names() if layers else None,
            evidence={"name": names()},
            unknown=names(),
            fix=names(),
            related=[(Location(path=names(), line=3), names()), (Location([names()]), names())],
        )
        for severity, layers in (
            (Severity.ERROR, [names()]),
            (Severity.WARNING, [names(), names()]),
            (Severity.INFO, [names() for _ in range(5)]),
            (Severity.INFO, []),
        )
    ]
    return Report(
        [FileResult(path, note=names()), FileResult(names(), status="skipped", format=names(), note=names())],
        findings,
        suppressed=[(findings[0], names())],
        baselined=[findings[1]],
        crashes=[RuleCrashed("nan-statistics", names(), ValueError(names()))],
        trouble=[names()],
        rules=RULES,
        executed=[names()],
    )


def attacked(test: Callable[[Report], None]) -> Callable[[], None]:
    """Run a test with many hostile reports: each weapon by itself, and mixtures of them."""

    @settings(max_examples=60, deadline=None)
    @given(st.lists(HOSTILE, min_size=1, max_size=3))
    def mixed(texts: list[str]) -> None:
        test(hostile_report(texts))

    def run() -> None:
        for weapon in WEAPONS:
            test(hostile_report([weapon]))
        mixed()

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


@attacked
def test_nothing_in_a_report_acts_where_it_is_shown(report: Report) -> None:
    for format in FORMATS:
        for verbose in (False, True):
            text = written(report, format, verbose=verbose, width=80)
            assert all(character == "\n" or character.isprintable() for character in text), format
            assert "##[" not in text, format
            assert "##vso[" not in text, format
            text.encode("utf-8")


@attacked
def test_no_line_of_a_text_report_is_a_workflow_command(report: Report) -> None:
    for width in (20, 40, None):
        lines = written(report, "text", width=width, verbose=True, show_files=True, statistics=True).splitlines()
        assert [line for line in lines if line.lstrip().startswith("::")] == []


@attacked
def test_colour_changes_no_character_of_hostile_names(report: Report) -> None:
    coloured = written(report, "text", color="always", width=60, verbose=True)
    assert ANSI.sub("", coloured) == written(report, "text", color="never", width=60, verbose=True)


def command(line: str) -> tuple[str, dict[str, str], str]:
    """A workflow command as GitHub's runner reads it."""
    matched = re.fullmatch(r"::(\w+)(?: ([^:]*))?::(.*)", line)
    assert matched, line
    escapes = {"%25": "%", "%0D": "\r", "%0A": "\n", "%3A": ":", "%2C": ","}

    def plain(text: str) -> str:
        return re.sub("%25|%0D|%0A|%3A|%2C", lambda escape: escapes[escape[0]], text)

    properties = dict(part.split("=", 1) for part in (matched[2] or "").split(",") if part)
    return matched[1], {name: plain(value) for name, value in properties.items()}, plain(matched[3])


@attacked
def test_github_gets_its_own_commands_and_no_others(report: Report) -> None:
    lines = written(report, "github").splitlines()
    commands = [command(line) for line in lines if line.lstrip().startswith("::")]
    expected = [
        ("error", "bnlint nan-statistics"),
        ("warning", "bnlint nan-statistics"),
        ("notice", "bnlint nan-statistics"),
    ]
    findings = [(name, properties["title"]) for name, properties, _ in commands if "file" in properties]
    assert sorted(set(findings)) == sorted(expected)
    assert {properties["title"] for _, properties, _ in commands if "file" not in properties} == {"bnlint"}
    assert sum("file" not in properties for _, properties, _ in commands) == len(report.crashes) + len(report.trouble)
    for _, properties, message in commands:
        assert all(text.isprintable() for text in (*properties.values(), message))


@attacked
def test_json_gives_names_back_exactly(report: Report) -> None:
    document = json.loads(written(report, "json", verbose=True))
    REPORT_SCHEMA.validate(document)
    for finding, record in zip(report.findings, document["findings"], strict=True):
        assert record["layers"] == [well_formed(layer) for layer in finding.location.layers]
        assert record["tensors"] == [well_formed(tensor) for tensor in finding.location.tensors]
        assert record["message"] == well_formed(finding.message)
    for line in written(report, "json-lines", verbose=True).splitlines():
        LINE_SCHEMA.validate(json.loads(line))


@attacked
def test_review_tools_get_well_formed_reports(report: Report) -> None:
    run = sarif_of(report, verbose=True)
    messages = [result["message"]["text"] for result in run["results"]]
    assert not any("](" in message for message in messages)
    assert len(json.loads(written(report, "gitlab"))) == len(report.findings)
    assert len(json.loads(written(report, "rdjson"))["diagnostics"]) == len(report.findings)


@attacked
def test_xml_gives_names_back_as_they_are_shown(report: Report) -> None:
    checkstyle = ElementTree.fromstring(written(report, "checkstyle"))
    assert checkstyle[0].get("name") == visible(report.findings[0].location.path)
    errors = checkstyle[0].findall("error")
    assert len(errors) == len(report.findings)
    for finding, error in zip(report.findings, errors, strict=True):
        assert visible(finding.message) in (error.get("message") or "")
    junit = ElementTree.fromstring(written(report, "junit"))
    assert junit[0].get("name") == visible(report.findings[0].location.path)


@attacked
def test_markdown_holds_no_markup_but_its_own(report: Report) -> None:
    text = written(report, "markdown", verbose=True)
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(text)
    inline = [child for token in tokens for child in token.children or []]
    kinds = {token.type for token in (*tokens, *inline)}
    assert [token.content for token in tokens if token.type == "html_block"] == ["<!-- bnlint report -->\n"]
    assert kinds.isdisjoint({"html_inline", "link_open", "image", "table_open", "s_open", "em_open", "fence"})
    for token in inline:
        if token.type == "text":
            assert not re.search(r"[@#<>\\`]|://|www\.", token.content, re.IGNORECASE), token.content


@given(st.text("`@#a _\\", max_size=20))
def test_code_spans_of_an_advice_end_where_they_seem_to(text: str) -> None:
    inline = MarkdownIt("commonmark").parseInline(markdown_text(text))[0].children or []
    assert not any("@" in token.content or "#" in token.content for token in inline if token.type == "text")


def test_neighbouring_code_spans_stay_two() -> None:
    assert markdown_text("call `a`#1, then `b`.") == "call `a` `#1, then` `b`."


@attacked
def test_json_can_be_read_by_the_strictest_parser(report: Report) -> None:
    for format in ("json", "json-lines", "sarif", "gitlab", "rdjson"):
        text = written(report, format, verbose=True)
        for document in text.splitlines() if format == "json-lines" else [text]:
            json.dumps(json.loads(document, parse_constant=pytest.fail), ensure_ascii=False).encode("utf-8")


def test_a_name_that_floods_loses_its_middle() -> None:
    shown = visible("a" * 1_000_000 + "z")
    assert len(shown) < LONGEST + 100
    assert shown.startswith("aaa")
    assert shown.endswith("z")
    assert "more characters" in shown


@given(st.text())
def test_what_prints_is_shown_as_it_is(text: str) -> None:
    if text.isprintable() and len(text) <= LONGEST and "##" not in text:
        assert visible(text) == text
        assert well_formed(text) == text


def test_the_example_is_about_what_it_says() -> None:
    report = something_of_everything()
    assert {finding.gravity for finding in report.findings} == {Severity.ERROR, Severity.WARNING, Severity.INFO}
    assert report.findings[0].location.path == FIRST


if __name__ == "__main__" and sys.argv[1:] == ["--update"]:
    update_snapshots()
