"""Configurations: where they are found, what they mean, and what is said of wrong ones."""

import json
import os
import re
import textwrap
import time
from pathlib import Path

import jsonschema
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from bnlint.config import Config, load_config
from bnlint.config import file as config_file
from bnlint.config.file import Node
from bnlint.config.schema import schema
from bnlint.errors import BnlintError, ConfigError, UsageError
from bnlint.finding import Severity

RULES = '''
from collections.abc import Iterator

from bnlint import BatchNorm, Finding, Severity, rule


@rule(severity=Severity.WARNING, good=lambda: [], bad=lambda: [])
def odd_layer(
    layer: BatchNorm, *, fraction: float = 0.5, at_least: int = 1, strict: bool = False, word: str = "bn",
    names: tuple[str, ...] = ("a",),
) -> Iterator[Finding]:
    """A layer is odd."""
    yield from ()


@rule(severity=Severity.ERROR, good=lambda: [], bad=lambda: [])
def even_layer(layer: BatchNorm) -> Iterator[Finding]:
    """A layer is even."""
    yield from ()
'''


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with two rules of its own, as the working directory."""
    (tmp_path / ".git").mkdir()
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "layers.py").write_text(RULES)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def configured(text: str, **said: object) -> Config:
    """The configuration in force where .bnlint.yaml says `text`, and where the rules are."""
    Path(".bnlint.yaml").write_text(f"rules-folder: rules\n{textwrap.dedent(text)}")
    return load_config(allow_code=True, **said)  # type: ignore[arg-type]


def rule_settings(config: Config, path: str = "model.pth", layer: str | None = None) -> dict[str, object]:
    rule = config.rulebook.rule("odd-layer")
    assert rule is not None
    said, _ = config.for_file(path).of(rule, layer)
    return {"severity": said.severity, "possible": said.possible, **said.options}


def all_rules(config: Config) -> dict[str, object]:
    return {name: (said.severity, said.possible, dict(said.options)) for name, said in config.rules.items()}


# -- what it means --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "severity"),
    [("off", 0), ("false", 0), ("'off'", 0), ("info", 1), ("warning", 2), ("error", 3), ("{severity: error}", 3)],
)
def test_a_severity(project: Path, word: str, severity: int) -> None:
    config = configured(f"rules: {{odd-layer: {word}}}")
    assert rule_settings(config) == {"severity": severity, "possible": None}


def test_options_and_possible(project: Path) -> None:
    config = configured(
        """
        rules:
          odd-layer:
            {severity: error, possible: warning, fraction: 1e-3, at-least: 3, strict: yes, word: x, names: [b, c]}
        """
    )
    assert rule_settings(config) == {
        "severity": Severity.ERROR,
        "possible": Severity.WARNING,
        "fraction": 0.001,
        "at-least": 3,
        "strict": True,
        "word": "x",
        "names": ("b", "c"),
    }


def test_a_whole_number_is_a_number(project: Path) -> None:
    assert rule_settings(configured("rules: {odd-layer: {fraction: 1}}"))["fraction"] == 1.0


def test_what_a_state_dict_cannot_say(project: Path) -> None:
    config = configured("assume: {momentum: 0.03, eps: 1e-3}")
    assert (config.assumed.momentum, config.assumed.momentum_given, config.assumed.eps) == (0.03, True, 0.001)
    config = configured("assume: {eps: 0.01}", momentum=0.5)
    assert (config.assumed.momentum, config.assumed.eps) == (0.5, 0.01)
    config = configured("assume: {eps: 0.01}")
    assert (config.assumed.momentum, config.assumed.momentum_given) == (0.1, False)


def test_the_gate(project: Path) -> None:
    config = configured("fail-on: warning\nmax-warnings: 0")
    assert (config.fail_on, config.max_warnings) == (Severity.WARNING, 0)
    config = configured("fail-on: warning", fail_on="never", max_warnings=7)
    assert (config.fail_on, config.max_warnings) == (None, 7)
    assert configured("").fail_on == Severity.ERROR


def test_excluded_paths_are_those_of_gitignore(project: Path) -> None:
    config = configured("exclude: ['third_party/**', '*.tmp.pth', '/top.pth', '!keep.tmp.pth']")
    excluded = ["third_party/a.pth", "x/b.tmp.pth", "top.pth"]
    assert [path for path in [*excluded, "keep.tmp.pth", "x/top.pth", "a.pth"] if config.excludes(path)] == excluded
    assert config.excludes(str(project / "third_party" / "a.pth"))
    assert config.excludes("third_party/deep", folder=True)


def test_patterns_are_relative_to_the_configuration(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "work").mkdir()
    configured("exclude: [work/a.pth]")
    monkeypatch.chdir("work")
    config = load_config(allow_code=True)
    assert config.excludes("a.pth")
    assert not config.excludes("../a.pth")


def test_overrides_hold_for_their_files_and_layers_and_the_last_one_wins(project: Path) -> None:
    config = configured(
        """
        rules: {odd-layer: {severity: error, at-least: 2}}
        overrides:
          - files: [legacy/*.pth]
            layers: [backbone.*]
            rules: {odd-layer: off}
            reason: converted
            expires: 2027-06-30
          - files: [legacy/new.pth]
            rules: {odd-layer: {severity: info, fraction: 0.1}}
            reason: just looking
        """
    )
    assert rule_settings(config, "a.pth", "backbone.bn")["severity"] == Severity.ERROR
    assert rule_settings(config, "legacy/a.pth", "backbone.bn")["severity"] == Severity.OFF
    assert rule_settings(config, "legacy/a.pth", "head.bn")["severity"] == Severity.ERROR
    assert rule_settings(config, "legacy/new.pth", "backbone.bn") == {
        "severity": Severity.INFO,
        "possible": None,
        "at-least": 2,
        "fraction": 0.1,
    }
    first = config.overrides[0]
    assert (first.reason, first.expires, first.path, first.line) == ("converted", "2027-06-30", ".bnlint.yaml", 5)


def test_files_under_the_same_overrides_share_their_settings(project: Path) -> None:
    config = configured("overrides: [{files: [a.pth], rules: {odd-layer: off}, reason: known}]")
    assert config.for_file("b.pth") is config.for_file("c.pth")
    assert config.for_file("a.pth") is not config.for_file("b.pth")
    assert not config.for_file("b.pth").overrides


def test_the_command_line_has_the_last_word(project: Path) -> None:
    text = "rules: {odd-layer: {severity: off, at-least: 2}}"
    assert rule_settings(configured(text, severity={"odd-layer": "error"}))["severity"] == Severity.ERROR
    selected = configured(text, select=["odd-layer"])
    rule = selected.rulebook.rule("odd-layer")
    assert rule is not None
    assert selected.for_file("a.pth").runs(rule)
    assert rule_settings(selected)["at-least"] == 2
    assert not configured("", ignore=["odd-layer"]).for_file("a.pth").runs(rule)


# -- extends --------------------------------------------------------------------------------------


def test_a_chain_of_files_is_read_from_its_far_end(project: Path) -> None:
    (project / "shared").mkdir()
    (project / "shared" / "far.yaml").write_text("rules: {odd-layer: {severity: info, at-least: 9}}\nexclude: [far]\n")
    (project / "shared" / "near.yaml").write_text("extends: far.yaml\nfail-on: info\nexclude: [near]\n")
    config = configured("extends: shared/near.yaml\nrules: {odd-layer: error}")
    assert rule_settings(config) == {"severity": Severity.ERROR, "possible": None, "at-least": 9}
    assert config.fail_on == Severity.INFO
    assert config.exclude == ["far", "near"]
    assert config.origins["rules.odd-layer.at-least"] == "shared/far.yaml:1:9"
    assert config.origins["rules.odd-layer.severity"] == ".bnlint.yaml:3:9"


def test_a_circle_is_refused(project: Path) -> None:
    (project / "other.yaml").write_text("extends: .bnlint.yaml\n")
    with pytest.raises(ConfigError, match=r"other\.yaml:1:10: extends goes in a circle"):
        configured("extends: other.yaml")


@pytest.mark.parametrize("preset", ["recommended", "strict", "quiet"])
def test_presets_are_valid(project: Path, preset: str) -> None:
    assert all_rules(configured("", preset=preset)) == all_rules(configured(f"extends: {preset}"))


def test_recommended_is_what_holds_without_a_configuration(project: Path) -> None:
    config = load_config(preset="recommended")
    assert (config.rules, config.overrides, config.exclude, config.fail_on) == ({}, [], [], Severity.ERROR)


def test_a_preset_of_the_command_line_replaces_that_of_the_file(project: Path) -> None:
    said = configured("extends: quiet\nrules: {odd-layer: error}", preset="strict")
    assert all_rules(said) == {**all_rules(configured("", preset="strict")), "odd-layer": (Severity.ERROR, None, {})}
    assert all_rules(said) != all_rules(configured("extends: quiet\nrules: {odd-layer: error}"))


# -- where it is found ------------------------------------------------------------------------------


def found() -> str | None:
    path = load_config().path
    return path and os.path.relpath(path, os.environ["TOP"])


@pytest.fixture
def top(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a/b/c, in which c is the working directory; no repository yet."""
    (tmp_path / "a" / "b" / "c").mkdir(parents=True)
    monkeypatch.setenv("TOP", str(tmp_path))
    monkeypatch.chdir(tmp_path / "a" / "b" / "c")
    return tmp_path


def test_outside_a_repository_only_the_working_directory_is_looked_at(top: Path) -> None:
    (top / "a" / ".bnlint.yaml").touch()
    assert found() is None
    (top / "a" / "b" / "c" / "bnlint.yaml").touch()
    assert found() == os.path.join("a", "b", "c", "bnlint.yaml")


def test_in_a_repository_the_nearest_up_to_its_root(top: Path) -> None:
    (top / ".bnlint.yaml").touch()
    (top / "a" / ".git").touch()  # a worktree has a file
    assert found() is None
    assert load_config().root == str(top / "a")
    (top / "a" / ".bnlint.yml").touch()
    assert found() == os.path.join("a", ".bnlint.yml")
    assert load_config().root == str(top / "a")
    (top / "a" / "b" / ".bnlint.yaml").touch()
    assert found() == os.path.join("a", "b", ".bnlint.yaml")


def test_pyproject_is_read_where_there_is_no_yaml(top: Path) -> None:
    (top / ".git").mkdir()
    (top / "a" / "b" / "pyproject.toml").write_text("[project]\nname = 'bnlint-user'\n")
    (top / "a" / "pyproject.toml").write_text("[tool.bnlint]\nfail-on = 'info'\n")
    assert found() == os.path.join("a", "pyproject.toml")
    assert load_config().fail_on == Severity.INFO
    (top / ".bnlint.yaml").touch()
    assert found() == ".bnlint.yaml"


def test_never_beside_a_checkpoint(project: Path) -> None:
    (project / "downloads").mkdir()
    (project / "downloads" / ".bnlint.yaml").write_text("fail-on: never\n")
    assert load_config().path is None


def test_two_in_one_folder_are_refused(project: Path) -> None:
    (project / "bnlint.yaml").touch()
    with pytest.raises(ConfigError, match=r"there are \.bnlint\.yaml and bnlint\.yaml; keep one"):
        configured("")


def test_isolated_reads_none(project: Path) -> None:
    config = configured("fail-on: never", isolated=True)
    assert (config.path, config.fail_on) == (None, Severity.ERROR)


def test_a_named_file_elsewhere_speaks_about_the_repository(project: Path) -> None:
    (project / "ci").mkdir()
    (project / "ci" / "bnlint.yaml").write_text("exclude: [third_party]\n")
    config = load_config("ci/bnlint.yaml")
    assert config.root == str(project)
    assert config.excludes("third_party/a.pth")


# -- pyproject.toml -----------------------------------------------------------------------------------

TOML = """
[project]
name = "x"

[tool.bnlint]
rules-folder = "rules"
fail-on = "warning"
exclude = ["third_party"]
assume.eps = 1e-3

[tool.bnlint.rules]
odd-layer = { severity = "error", at-least = 3 }

[[tool.bnlint.overrides]]
files = ["a.pth"]
reason = "known"
expires = 2027-06-30
[tool.bnlint.overrides.rules]
odd-layer = "off"

[[tool.bnlint.overrides]]
files = ["b.pth"]
reason = "known too"
[tool.bnlint.overrides.rules]
odd-layer = "info"
"""
SAME_IN_YAML = """
fail-on: warning
exclude: [third_party]
assume: {eps: 1e-3}
rules: {odd-layer: {severity: error, at-least: 3}}
overrides:
  - {files: [a.pth], reason: known, expires: 2027-06-30, rules: {odd-layer: off}}
  - {files: [b.pth], reason: known too, rules: {odd-layer: info}}
"""


def test_pyproject_says_the_same_as_yaml(project: Path) -> None:
    by_yaml = configured(SAME_IN_YAML)
    (project / ".bnlint.yaml").unlink()
    (project / "pyproject.toml").write_text(TOML)
    by_toml = load_config(allow_code=True)
    for path in ("a.pth", "b.pth", "c.pth"):
        assert rule_settings(by_toml, path) == rule_settings(by_yaml, path)
    for name in ("fail_on", "exclude", "max_warnings"):
        assert getattr(by_toml, name) == getattr(by_yaml, name)
    assert [(each.expires, each.reason) for each in by_toml.overrides] == [("2027-06-30", "known"), (None, "known too")]


@pytest.mark.parametrize(
    ("before", "after", "place"),
    [
        ("assume.eps", "assume.epsilon", "9:1"),
        ('fail-on = "warning"', 'fail-on = "warn"', "7:1"),
        ("at-least", "atleast", "12:1"),
        ("2027-06-30", "'soon'", "17:1"),
        ('odd-layer = "info"', 'odd-layer = "loud"', "25:1"),
        ('reason = "known too"', "", "21:1"),
        ("[project]", "[project", "2:9"),
    ],
)
def test_errors_in_pyproject_say_where(project: Path, before: str, after: str, place: str) -> None:
    (project / "pyproject.toml").write_text(TOML.replace(before, after))
    with pytest.raises(ConfigError, match=rf"^pyproject\.toml:{place}: "):
        load_config(allow_code=True)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[tool.bnlint]\nfail-on = 'info'", True),
        ("[ tool . 'bnlint' ] # ours\nfail-on = 'info'", True),
        ("[tool]\nbnlint.fail-on = 'info'", True),
        ("tool.bnlint.fail-on = 'info'", True),
        ("tool = {bnlint = {fail-on = 'info'}}", True),
        ("[tool]\nbnlint = {fail-on = 'info'}", True),
        ("[project]\nreadme = \"\"\"\n[x]\n\"\"\"\n[tool]\nx = '''\n[y]\n'''\nbnlint.fail-on = 'info'", True),
        ("[project]\nname = 'bnlint-user'\ndependencies = [\n  'bnlint==0.1',\n]\n[tool.ruff]\n", False),
        ("[project.scripts]\nbnlint = 'bnlint.__main__:run'", False),
        ("[tool.other]\nbnlint.fail-on = 'info'", False),
    ],
)
def test_where_pyproject_speaks_of_bnlint(project: Path, text: str, expected: bool) -> None:
    (project / "pyproject.toml").write_text(text)
    assert (load_config().fail_on == Severity.INFO) is expected


# -- what is said of wrong ones ---------------------------------------------------------------------------

WRONG = {
    "rule: {}": "2:1: unknown key rule in a configuration; allowed: extends, fail-on, max-warnings, min-severity,"
    " rules, assume, exclude, overrides, compare, rules-folder; did you mean rules?",
    "- a": "2:1: this is not YAML: ...",
    "rules: [odd-layer]": "2:8: rules is a mapping of names to values, not a list",
    "rules: {od-layer: off}": "2:9: there is no rule called od-layer; did you mean odd-layer?",
    "rules: {odd_layer: off}": "2:9: there is no rule called odd_layer; did you mean odd-layer?",
    "rules: {zzz: off}": "2:9: there is no rule called zzz; `bnlint rules` lists them all",
    "rules: {odd-layer: on}": "2:20: odd-layer cannot be true; allowed: off, info, warning, error",
    "rules: {odd-layer: warn}": "2:20: odd-layer cannot be 'warn'; allowed: off, info, warning, error;"
    " did you mean warning?",
    "rules: {odd-layer: 3}": "2:20: odd-layer cannot be 3; allowed: off, info, warning, error",
    "rules: {odd-layer: }": "2:20: odd-layer cannot be empty; allowed: off, info, warning, error",
    "rules: {odd-layer: {fractoin: 1}}": "2:21: unknown key fractoin in odd-layer; allowed: severity, possible,"
    " fraction, at-least, strict, word, names; did you mean fraction?",
    "rules: {odd-layer: {fraction: much}}": "2:31: odd-layer.fraction is a number, not 'much'",
    "rules: {odd-layer: {fraction: .inf}}": "2:31: odd-layer.fraction is a number, not '.inf'",
    "rules: {odd-layer: {fraction: 1e999}}": "2:31: odd-layer.fraction is a finite number, not inf",
    "rules: {odd-layer: {fraction: true}}": "2:31: odd-layer.fraction is a number, not true",
    "rules: {odd-layer: {at-least: 1.5}}": "2:31: odd-layer.at-least is a whole number, not 1.5",
    "rules: {odd-layer: {strict: 1}}": "2:29: odd-layer.strict is true or false, not 1",
    "rules: {odd-layer: {word: 1}}": "2:27: odd-layer.word is text, not 1",
    "rules: {odd-layer: {names: b}}": "2:28: odd-layer.names is a list, not 'b'",
    "rules: {odd-layer: {names: [1]}}": "2:29: odd-layer.names is text, not 1",
    "rules: {odd-layer: {possible: loud}}": "2:31: odd-layer.possible cannot be 'loud'; allowed: off, info, warning,"
    " error",
    "rules:\n  odd-layer: off\n  even-layer: off\n  odd-layer: error": "5:3: odd-layer is said twice, first on line 3",
    "fail-on: warnings": "2:10: fail-on cannot be 'warnings'; allowed: error, warning, info, never;"
    " did you mean warning?",
    "max-warnings: -1": "2:15: max-warnings is at least 0, not -1",
    "max-warnings: few": "2:15: max-warnings is a whole number, not 'few'",
    "assume: {momentum: 2}": "2:20: assume.momentum lies between 0 and 1, not at 2",
    "assume: {epsilon: 2}": "2:10: unknown key epsilon in assume; allowed: momentum, eps; did you mean eps?",
    "exclude: third_party": "2:10: exclude is a list, not 'third_party'",
    "exclude: [1]": "2:11: exclude is text, not 1",
    "overrides: [{files: [a]}]": "2:13: an override needs rules",
    "overrides: [{files: [a], rules: {odd-layer: off}}]": "2:13: an override needs reason",
    "overrides: [{files: [a], rules: {odd-layer: off}, reason: ' '}]": "2:59: reason is empty: say why these findings"
    " are fine",
    "overrides: [{rules: {odd-layer: off}, reason: r}]": "2:13: an override needs files or layers; what holds"
    " everywhere belongs under rules",
    "overrides: [{files: [a], rules: {od-layer: off}, reason: r}]": "2:34: there is no rule called od-layer;"
    " did you mean odd-layer?",
    "overrides: [{file: [a]}]": "2:14: unknown key file in overrides; allowed: files, layers, rules, reason, expires;"
    " did you mean files?",
    "overrides: [{files: [a], rules: {}, reason: r, expires: 2027-02-30}]": "2:57: expires is a day such as"
    " 2027-06-30, not '2027-02-30'",
    "overrides: [{files: [a], rules: {}, reason: r, expires: tomorrow}]": "2:57: expires is a day such as"
    " 2027-06-30, not 'tomorrow'",
    "overrides: [{files: [a], rules: {}, reason: r, expires: 2027}]": "2:57: expires is a day such as"
    " 2027-06-30, not 2027",
    "extends: strct": "2:10: extends: strct is no file; presets are recommended, strict, quiet; did you mean strict?",
    "extends: [strict]": "2:10: extends is text, not a list",
    "compare: [{checkpoint: a}]": "2:11: a comparison needs reference or model",
    "compare: [{model: 'a:b'}]": "2:11: a comparison needs checkpoint",
    "compare: [{checkpoint: a, model: 3}]": "2:34: compare.model is text, not 3",
    "compare: [{checkpoint: a, model: nets}]": "2:34: compare.model: nets is not MODULE:FUNCTION, such as"
    " package.models:resnet",
    "compare: [{checkpoint: a, reference: b, shallow: 3}]": "2:50: compare.shallow is true or false, not 3",
    "compare: [{checkpoint: a, reference: b, diferent: yes}]": "2:41: unknown key diferent in compare; allowed:"
    " checkpoint, reference, model, rename, different, shallow; did you mean different?",
    "compare: [{checkpoint: a, reference: b, rename: {'(': ''}}]": "2:50: compare.rename: ( is not a regular"
    " expression: missing ), unterminated subpattern at position 0",
    "rules: {odd-layer: !!str off}\nfail-on: !!python/name:os.system x": "3:10: tags have no meaning in a"
    " configuration",
    "rules: {<<: {odd-layer: off}}": "2:9: merge keys have no meaning in a configuration; `extends` takes over a"
    " whole file",
    "rules: *nothing": "2:8: *nothing stands for nothing: no &nothing ends before it",
    "rules: &again {odd-layer: *again}": "2:27: *again stands for nothing: no &again ends before it",
    "? [a]\n: b": "2:3: a name is text",
    "1: b": "2:1: a name is text",
    "fail-on: error\n---\nfail-on: never": "3:1: a configuration is one YAML document",
    "fail-on: 'error": "2:16: this is not YAML: ...",
    "fail-on: \t\x00": "1:1: this is not YAML: ...",
}


@pytest.mark.parametrize("text", WRONG)
def test_what_is_said_of_a_wrong_configuration(project: Path, text: str) -> None:
    with pytest.raises(ConfigError) as told:
        configured(text)
    expected, and_more, _ = WRONG[text].partition("...")  # of YAML's own troubles libyaml says more than PyYAML
    assert str(told.value).startswith(f".bnlint.yaml:{expected}")
    assert and_more or str(told.value) == f".bnlint.yaml:{expected}"


def test_a_byte_order_mark_is_no_trouble(project: Path) -> None:
    (project / ".bnlint.yaml").write_bytes(b"\xef\xbb\xbffail-on: info\n")
    assert load_config().fail_on == Severity.INFO


def test_a_file_that_is_not_text(project: Path) -> None:
    (project / ".bnlint.yaml").write_bytes(b"fail-on: error\nexclude: ['\xff']\n")
    with pytest.raises(ConfigError, match=r"^\.bnlint\.yaml:2:12: a configuration is UTF-8 text"):
        load_config()


@pytest.mark.parametrize("name", ["no.yaml", ".", "pipe.yaml", "settings.toml", "pyproject.toml"])
def test_files_that_are_no_configuration(project: Path, name: str) -> None:
    if hasattr(os, "mkfifo"):
        os.mkfifo("pipe.yaml")
    Path("settings.toml").write_text("")
    Path("pyproject.toml").write_text("[tool.ruff]\n")
    with pytest.raises(ConfigError, match=rf"^{name}:"):
        load_config(name)


@pytest.mark.parametrize(
    "said",
    [
        {"select": ["od-layer"]},
        {"ignore": ["od-layer"]},
        {"severity": {"od-layer": "error"}},
        {"severity": {"odd-layer": "loud"}},
        {"preset": "strikt"},
        {"fail_on": "errors"},
        {"max_warnings": -1},
        {"momentum": 3.0},
        {"eps": float("nan")},
    ],
    ids=str,
)
def test_a_wrong_command_line(project: Path, said: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="--"):
        configured("", **said)


# -- user's rules -------------------------------------------------------------------------------------------


def test_rules_of_a_folder_do_not_run_unless_allowed(project: Path) -> None:
    (project / "rules" / "layers.py").write_text("raise SystemExit('this ran')")
    (project / ".bnlint.yaml").write_text("rules-folder: rules\nrules: {layers: {any: 1}}\n")
    config = load_config()
    with pytest.raises(ConfigError, match=r"^\.bnlint\.yaml:1:15: rules-folder: .*--allow-code"):
        config.rulebook.everything()


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("1 +", r"layers\.py:1: SyntaxError"),
        ("import math\n\nmath.sqrt(-1)", r"layers\.py:3: ValueError"),
        ("import bnlint\n@bnlint.rule(severity=1, good=1, bad=1)\ndef x(a): 'no type'", r"layers\.py:2: the first"),
    ],
)
def test_a_broken_rule_of_the_user_is_named(project: Path, code: str, told: str) -> None:
    (project / "rules" / "layers.py").write_text(code)
    with pytest.raises(BnlintError, match=told):
        configured("").rulebook.everything()


def test_a_folder_that_is_not_there(project: Path) -> None:
    (project / ".bnlint.yaml").write_text("rules-folder: nowhere\n")
    with pytest.raises(ConfigError, match=r"^\.bnlint\.yaml:1:15: rules-folder: there is no folder .*nowhere"):
        load_config(allow_code=True).rulebook.everything()


# -- hostile files --------------------------------------------------------------------------------------------

BILLION = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (BILLION, "at most 20000 values"),
        ("x: [" + "y, " * 30_000 + "]", "at most 20000 values"),
        ("[" * 100_000, "nested deeper than 16 levels"),
        ("- " * 100_000, "nested deeper than 16 levels"),
        ("{a: " * 100_000, "nested deeper than 16 levels"),
        ("#" * (1 << 20) + "\n", "at most 1048576 bytes"),
    ],
    ids=["aliases", "values", "flow", "blocks", "mappings", "bytes"],
)
def test_a_bomb_is_defused(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "bomb.yaml"
    path.write_text(text)
    started = time.monotonic()
    with pytest.raises(ConfigError, match=told):
        config_file.read(str(path))
    assert time.monotonic() - started < 5


@given(
    st.one_of(
        st.binary(max_size=200), st.text(alphabet="ab:-&*!|>?#{}[],'\"\n \t%@`off0.e", max_size=80).map(str.encode)
    )
)
def test_any_bytes_are_a_configuration_or_an_error(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(data)
    try:
        config_file.read(str(path))
    except ConfigError as error:
        assert str(error)


SCALARS = st.one_of(
    st.booleans(),
    st.none(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=8).filter(
        lambda text: not re.fullmatch(r"[-+]?[0-9.]+[eE][-+]?[0-9]+", text)  # 1e-5 is text to PyYAML
    ),
)
DOCUMENTS = st.dictionaries(
    st.text("abc-", min_size=1, max_size=5).filter(lambda name: name.strip("-")),
    st.recursive(
        SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b"]), inner)
    ),
    max_size=4,
)


@given(DOCUMENTS)
def test_a_document_means_what_pyyaml_says(
    tmp_path_factory: pytest.TempPathFactory, document: dict[str, object]
) -> None:
    path = tmp_path_factory.getbasetemp() / "document.yaml"
    path.write_text(yaml.safe_dump(document, allow_unicode=True), encoding="utf-8")
    node = config_file.read(str(path))
    assert node is not None
    assert bare(node) == document


def bare(node: Node) -> object:
    if isinstance(node.value, dict):
        return {name: bare(each) for name, each in node.value.items()}
    return [bare(each) for each in node.value] if isinstance(node.value, list) else node.value


# -- the schema -----------------------------------------------------------------------------------------------

RIGHT = [
    "",
    SAME_IN_YAML,
    "extends: recommended\nmax-warnings: 3\nfail-on: never",
    "rules: {odd-layer: off, even-layer: {severity: off, possible: info}}",
    "rules: {odd-layer: {names: [x], strict: no, word: w, at-least: 0, fraction: 2}}",
    "compare: [{checkpoint: a.pth, reference: b.pth, rename: {'^module\\.': ''}}]",
    "compare: [{checkpoint: 'runs/*.pth', reference: b.keys.yaml, different: true, shallow: no}]",
    "compare: [{checkpoint: a.pth, model: 'package.nets:resnet', rename: {'^module\\.': ''}}]",
    "compare: [{checkpoint: a.pth, reference: b.pth, model: 'nets:resnet'}]",
    "overrides: [{layers: ['backbone.*'], rules: {}, reason: r}]",
]
# What only bnlint can see: YAML's own troubles, files, dates that are none, regular expressions.
BEYOND_A_SCHEMA = ("said twice", "not YAML", "no file", "such as", "regular expression", "tags", "merge", "stands for",
                   "a name", "one YAML", "finite", ".inf")  # fmt: skip


@pytest.mark.parametrize("text", [*RIGHT, *WRONG])
def test_the_schema_agrees(project: Path, text: str) -> None:
    if any(words in WRONG.get(text, "") for words in BEYOND_A_SCHEMA):
        pytest.skip("beyond a schema")
    rulebook = configured("").rulebook
    validator = jsonschema.Draft202012Validator(schema(rulebook.everything()))
    document = json.loads(
        json.dumps(yaml.safe_load(f"rules-folder: rules\n{text}".replace("1e-3", "0.001")), default=str)
    )
    if text in RIGHT:
        configured(text)
        validator.validate(document)
    else:
        assert not validator.is_valid(document)
