"""Reports: reviewed as text in tests/snapshots, and read back by real parsers.

`python tests/test_reports.py --update` rewrites the snapshots; `git diff` then shows what users will see.
"""

import json
import os
import sys
from io import BytesIO, StringIO, TextIOWrapper
from typing import Any
from xml.etree import ElementTree

import jsonschema
import pytest
from report_examples import (
    HERE,
    LINE_SCHEMA,
    REPORT_SCHEMA,
    SCHEMA,
    SPEAKS_TO_GITHUB,
    SPEAKS_TO_PEOPLE,
    at,
    found,
    one_finding,
    sarif_of,
    something_of_everything,
    written,
)
from report_examples import plain_environment as plain_environment

import bnlint
from bnlint import Severity, UsageError
from bnlint.fingerprint import fingerprint
from bnlint.report import Gate, Report
from bnlint.reports import FORMATS, write
from bnlint.ruleset import builtin_rules

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


# -- all formats -------------------------------------------------------------------------


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


def test_an_unknown_format_is_refused_by_name() -> None:
    with pytest.raises(UsageError, match="'xml'; there are text, json"):
        write(Report(), "xml", StringIO())


# -- json -------------------------------------------------------------------------------------------

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
    assert all(list(file)[:7] == FILE_KEYS for file in document["files"])
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


if __name__ == "__main__" and sys.argv[1:] == ["--update"]:
    update_snapshots()
