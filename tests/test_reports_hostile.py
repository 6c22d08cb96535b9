"""Reports about files whose every name and text is an attacker's: nothing in them acts where it is shown."""

import json
import re
from collections.abc import Callable
from itertools import cycle
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from report_examples import (
    ANSI,
    FIRST,
    LINE_SCHEMA,
    REPORT_SCHEMA,
    RULES,
    at,
    found,
    sarif_of,
    something_of_everything,
    written,
)
from report_examples import plain_environment as plain_environment

from bnlint import Location, RuleCrashed, Severity
from bnlint.report import FileResult, Report
from bnlint.reports import FORMATS
from bnlint.reports.escaping import LONGEST, markdown_text, visible, well_formed

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
