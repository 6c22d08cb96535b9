"""The command line: arguments in, exit code out, one line for what goes wrong, never a traceback."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import jsonschema
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from small_checkpoints import negative, write_checkpoint

import bnlint
from bnlint.cli import COMMANDS, main
from bnlint.cli.check_arguments import Arguments, common, parsed
from bnlint.config import load_config
from bnlint.reports import FORMATS
from bnlint.ruleset import builtin_rules


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with a good and a bad checkpoint, as the working directory."""
    (tmp_path / ".git").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    write_checkpoint("good.safetensors")
    negative("bad.safetensors", "bn1")
    return tmp_path


class Said:
    """What a command said: its exit code and its two streams."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code = code
        self.out = out
        self.err = err

    @property
    def report(self) -> dict:
        return json.loads(self.out)

    def rules(self) -> list[str]:
        return [finding["rule"] for finding in self.report["findings"]]


@pytest.fixture
def bnlint_(folder: Path, capsys: pytest.CaptureFixture[str]):
    def run(*words: str) -> Said:
        code = main(words)
        captured = capsys.readouterr()
        return Said(code, captured.out, captured.err)

    return run


def process(*words: str, **how: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "bnlint", *words], text=True, **{"capture_output": True, **how})


# -- exit codes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["good.safetensors"], 0),
        (["bad.safetensors"], 1),
        (["bad.safetensors", "--fail-on", "never"], 0),
        (["bad.safetensors", "--severity", "negative-running-var=warning"], 0),
        (["bad.safetensors", "--severity", "negative-running-var=warning", "--fail-on", "warning"], 1),
        (["bad.safetensors", "--severity", "negative-running-var=warning", "--max-warnings", "0"], 1),
        (["bad.safetensors", "--severity", "negative-running-var=warning", "--max-warnings", "1"], 0),
        (["bad.safetensors", "--severity", "negative-running-var=info", "--fail-on", "info"], 1),
        (["bad.safetensors", "--ignore", "negative-running-var"], 0),
        (["bad.safetensors", "--select", "wrapper-prefix"], 0),
        (["bad.safetensors", "--select", "wrapper-prefix,negative-running-var"], 1),
        (["."], 1),
        (["*d.safetensors"], 1),
        (["missing.pth"], 2),
        (["bad.safetensors", "missing.pth"], 2),
        (["no*thing"], 2),
        (["no*thing", "--allow-empty"], 0),
        (["--files-from", os.devnull], 2),
        (["--files-from", os.devnull, "--allow-empty"], 0),
        ([], 2),
        (["good.safetensors", "--selct", "x"], 2),
        (["good.safetensors", "--key", "ema"], 2),
        (["good.safetensors", "--config", "missing.yaml"], 2),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_exit_codes(bnlint_, words: list[str], code: int) -> None:
    said = bnlint_("check", *words)
    assert said.code == code
    assert len(said.err.splitlines()) == (1 if code == 2 else 0)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["check", "x", "--sevrity", "a=b"], "check: there is no option --sevrity; did you mean --severity?;"),
        (["check", "x", "--severity", "dead"], "--severity: dead is not RULE=LEVEL, such as dead-channels=warning"),
        (
            ["check", "x", "--severity", "negative-running-vr=error"],
            "--severity: there is no rule called negative-running-vr; did you mean negative-running-var?",
        ),
        (["check", "x", "--output", "jsn"], "--output: there is no format jsn; allowed: text, json,"),
        (["check", "x", "--output", "json", "--output", "text"],
         "--output: two reports cannot both go to standard output"),
        (["check", "x", "--momentum", "much"], "check: argument --momentum: invalid float value: 'much';"),
        (["check", "x", "-j", "0"], "-j: at least 1 process, not 0"),
        (["check", "x", "--prune-baseline"], "--prune-baseline: name the baseline with --baseline FILE"),
        (["check", "x", "--color", "pink"], "check: argument --color: invalid choice: 'pink'"),
        (["chek"],
         f"there is no command chek; commands are {', '.join(COMMANDS)}; did you mean check?"),
        (["good.safetensors"], f"there is no command good.safetensors; commands are {', '.join(COMMANDS)};"
         " did you mean `bnlint check good.safetensors`?"),
        (["explain", "negative-var"], "there is no rule called negative-var; did you mean negative-running-var?"),
        (["check", "bad\x1b]0;x\nname.pth"], "bad\\x1b]0;x\\nname.pth: no such file or folder"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_one_line_says_what_is_wrong(bnlint_, words: list[str], told: str) -> None:
    said = bnlint_(*words)
    assert said.code == 2
    assert said.err.startswith(f"bnlint: {told}")
    assert said.err.count("\n") == 1
    assert not said.out or words[-1].endswith("name.pth")


# -- reports --------------------------------------------------------------------------------------------------


def test_json_holds_what_was_found(bnlint_) -> None:
    said = bnlint_("check", ".", "--output", "json")
    assert [file["path"] for file in said.report["files"]] == ["bad.safetensors", "good.safetensors"]
    assert said.rules() == ["negative-running-var"]
    assert said.report["findings"][0]["layers"] == ["bn1"]
    assert said.report["summary"]["exit_code"] == said.code == 1


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_goes_to_standard_output_and_to_a_file(bnlint_, format: str) -> None:
    said = bnlint_("check", "bad.safetensors", "--output", format)
    assert said.code == 1
    assert "negative-running-var" in said.out
    to_file = bnlint_("check", "bad.safetensors", "--output", f"{format}=report")
    assert (to_file.code, to_file.out) == (1, "")
    assert "negative-running-var" in Path("report").read_text()


def test_several_reports_in_one_run(bnlint_) -> None:
    said = bnlint_(
        "check", "bad.safetensors", "--output", "text", "--output", "json=a.json", "--output", "sarif=b.sarif"
    )
    assert "negative-running-var" in said.out
    assert json.loads(Path("a.json").read_text())["findings"]
    assert json.loads(Path("b.sarif").read_text())["runs"]


def test_output_files_lose_nothing(bnlint_) -> None:
    os.symlink("target", "link")
    before = Path("good.safetensors").read_bytes()
    Path("old.json").write_text("old")
    for words, told in (
        (["--output", "json=old.json"], "old.json: exists; --force replaces it"),
        (["--output", "json=link", "--force"], "link: is a link; output goes to regular files only"),
        (["--output", "json=.", "--force"], ".: is a folder"),
        (["--output", f"json={os.devnull}", "--force"], f"{os.devnull}: is no regular file"),
        (["--output", "json=no/where.json"], "no/where.json: there is no folder no"),
        (["--output", "json=good.safetensors", "--force"], "good.safetensors: is one of the inputs"),
        (["--output", "json=./bad.safetensors", "--force"], "./bad.safetensors: is one of the inputs"),
        (["--write-baseline", "good.safetensors"], "good.safetensors: not a baseline of bnlint"),
        (["--write-baseline", "good.safetensors", "--force"], "good.safetensors: is one of the inputs"),
        (["--write-baseline", "link", "--force"], "link: is a link; output goes to regular files only"),
    ):
        said = bnlint_("check", ".", *words)
        assert (said.code, said.out) == (2, ""), words
        assert told in said.err
    assert Path("good.safetensors").read_bytes() == before
    assert Path("old.json").read_text() == "old"
    assert not os.path.exists("target")
    assert bnlint_("check", ".", "--output", "json=old.json", "--force").code == 1
    assert json.loads(Path("old.json").read_text())["findings"]


def test_quiet_verbose_statistics_and_files(bnlint_) -> None:
    text = bnlint_("check", ".", "--statistics", "--show-files").out
    assert "good.safetensors" in text
    assert "error" in text
    assert "good.safetensors" not in bnlint_("check", ".", "-q").out
    assert bnlint_("check", "good.safetensors", "--quiet").out == ""
    assert len(bnlint_("check", ".", "-v").out) > len(bnlint_("check", ".").out)


@pytest.mark.parametrize(
    ("words", "environment", "colored"),
    [
        ([], {}, False),
        (["--color", "always"], {}, True),
        (["--color", "always"], {"NO_COLOR": "1"}, True),
        ([], {"FORCE_COLOR": "1"}, True),
        ([], {"NO_COLOR": "1", "FORCE_COLOR": "1"}, False),
        (["--color", "never"], {"FORCE_COLOR": "1"}, False),
    ],
)
def test_color(bnlint_, monkeypatch, words: list[str], environment: dict[str, str], colored: bool) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert ("\x1b[" in bnlint_("check", "bad.safetensors", *words).out) is colored


# -- baselines ------------------------------------------------------------------------------------------------


def test_a_baseline_is_written_used_and_pruned(bnlint_) -> None:
    written = bnlint_("check", ".", "--write-baseline", "known.json")
    assert (written.code, written.err) == (0, "bnlint: known.json: 1 finding is known from now on\n")
    known = bnlint_("check", ".", "--baseline", "known.json", "--output", "json")
    assert (known.code, known.rules(), known.report["summary"]["baselined"]) == (0, [], 1)
    negative("bad.safetensors", "bn1", "bn2")
    new = bnlint_("check", ".", "--baseline", "known.json", "--output", "json")
    assert (new.code, [each["layers"] for each in new.report["findings"]]) == (1, [["bn2"]])
    write_checkpoint("bad.safetensors")
    stale = bnlint_("check", ".", "--baseline", "known.json")
    assert stale.code == 0
    assert stale.err == (
        "bnlint: known.json: 1 entry is not found any more (--prune-baseline removes them),"
        " first negative-running-var in bad.safetensors at bn1\n"
    )
    assert "and removed" in bnlint_("check", ".", "--baseline", "known.json", "--prune-baseline").err
    assert json.loads(Path("known.json").read_text())["findings"] == []
    assert bnlint_("check", ".", "--baseline", "known.json").err == ""


def test_a_wrong_baseline_is_an_error(bnlint_) -> None:
    Path("wrong.json").write_text("{}")
    said = bnlint_("check", ".", "--baseline", "wrong.json")
    assert (said.code, said.out, said.err) == (2, "", "bnlint: wrong.json: not a baseline of bnlint\n")


# -- configurations ---------------------------------------------------------------------------------------------


def test_the_configuration_decides(bnlint_) -> None:
    Path(".bnlint.yaml").write_text("rules: {negative-running-var: warning}\nfail-on: warning\n")
    assert bnlint_("check", ".").code == 1
    assert bnlint_("check", ".", "--isolated", "--fail-on", "never").code == 0
    Path("other.yaml").write_text("rules: {negative-running-var: off}\n")
    assert bnlint_("check", ".", "--config", "other.yaml").code == 0
    Path(".bnlint.yaml").write_text("exclude: ['*.safetensors']\n")
    assert bnlint_("check", ".").code == 0
    assert bnlint_("check", "bad.safetensors").code == 1
    assert bnlint_("check", "bad.safetensors", "--force-exclude").code == 0


def test_a_wrong_configuration_is_an_error(bnlint_) -> None:
    Path(".bnlint.yaml").write_text("rules:\n  negative-runing-var: off\n")
    said = bnlint_("check", ".")
    assert (said.code, said.out, said.err) == (
        2,
        "",
        "bnlint: .bnlint.yaml:2:3: there is no rule called negative-runing-var; did you mean negative-running-var?\n",
    )
    assert bnlint_("rules").code == 0, "who mends it needs the names"


def test_a_users_rules_need_to_be_allowed(bnlint_) -> None:
    Path("own").mkdir()
    Path("own/named_bn1.py").write_text(
        "from bnlint import BatchNorm, Finding, Severity, rule\n"
        "@rule(severity=Severity.WARNING, good=lambda: [], bad=lambda: [])\n"
        "def named_bn1(layer: BatchNorm, *, name: str = 'bn1'):\n"
        "    'A layer has this name.'\n"
        "    if layer.name == name:\n"
        "        yield Finding(layer.at(), f'named {name}')\n"
    )
    Path(".bnlint.yaml").write_text("rules-folder: own\nrules: {named-bn1: {severity: error, name: backbone.bn2}}\n")
    refused = bnlint_("check", "good.safetensors")
    assert refused.code == 2
    assert "--allow-code" in refused.err
    allowed = bnlint_("check", "good.safetensors", "--allow-code", "--output", "json")
    assert allowed.code == 1
    assert [(each["rule"], each["family"], each["message"]) for each in allowed.report["findings"]] == [
        ("named-bn1", "custom", "named backbone.bn2")
    ]
    assert [os.path.basename(path) for path in allowed.report["executed"]] == ["named_bn1.py"]
    assert "named-bn1" in bnlint_("rules", "--allow-code").out
    assert "A layer has this name." in bnlint_("explain", "named-bn1", "--allow-code").out
    assert "named-bn1" not in bnlint_("rules").out


def test_a_deprecated_rule_works_and_names_its_successor(bnlint_) -> None:
    Path("own").mkdir()
    Path("own/old_name.py").write_text(
        "from bnlint import BatchNorm, Finding, Severity, rule\n"
        "@rule(severity=Severity.INFO, good=lambda: [], bad=lambda: [], deprecated='new-name')\n"
        "def old_name(layer: BatchNorm):\n"
        "    'A layer.'\n"
        "    yield Finding(layer.at(), 'seen')\n"
    )
    Path(".bnlint.yaml").write_text("rules-folder: own\nrules: {old-name: error}\n")
    said = bnlint_("check", "good.safetensors", "--allow-code")
    assert said.code == 1
    assert said.err == "bnlint: old-name is deprecated; use new-name\n"


def test_init_writes_what_changes_nothing(bnlint_) -> None:
    assert bnlint_("init").code == 0
    config = load_config()
    assert (config.rules, config.overrides, config.exclude) == ({}, [], [])
    text = Path(".bnlint.yaml").read_text()
    assert bnlint_("init").code == 2
    assert Path(".bnlint.yaml").read_text() == text
    assert bnlint_("init", "--force", "--preset", "quiet").code == 0
    assert "extends: quiet" in Path(".bnlint.yaml").read_text()


def test_what_init_leaves_out_can_be_taken_in(bnlint_) -> None:
    bnlint_("init")
    path = Path(".bnlint.yaml")
    path.write_text(re.sub(r"(?m)^#(?=\S|  )", "", path.read_text()))
    config = load_config()
    assert config.rules.keys() == {"missing-num-batches-tracked", "dead-channels"}
    assert (config.max_warnings, config.assumed.eps, len(config.overrides)) == (0, 0.001, 1)
    assert config.exclude
    assert config.rulebook.folder


def test_config_shows_what_is_in_force_and_where_it_comes_from(bnlint_) -> None:
    Path("shared.yaml").write_text("rules:\n  negative-running-var: {severity: info}\nmax-warnings: 3\n")
    Path(".bnlint.yaml").write_text(
        "extends: shared.yaml\nassume: {eps: 1e-3}\noverrides:\n"
        "  - {files: ['*.pth'], rules: {wrapper-prefix: off}, reason: fine}\n"
    )
    settings = json.loads(bnlint_("config", "--output", "json").out)["settings"]
    assert settings["rules.negative-running-var.severity"] == {"value": "info", "from": "shared.yaml:2:3"}
    assert settings["max-warnings"] == {"value": 3, "from": "shared.yaml:3:15"}
    assert settings["assume.eps"] == {"value": 0.001, "from": ".bnlint.yaml:2:15"}
    assert settings["fail-on"] == {"value": "error", "from": "default"}
    assert settings["overrides.0"] == {
        "value": {"files": ["*.pth"], "rules": {"wrapper-prefix": "off"}, "reason": "fine"},
        "from": ".bnlint.yaml:4:5",
    }
    text = bnlint_("config").out
    assert all(f"{name}: " in text for name in settings)
    assert "# shared.yaml:2:3" in text


def test_config_checks_every_file_it_is_given(bnlint_) -> None:
    Path("good.yaml").write_text("fail-on: info\n")
    Path("wrong.yaml").write_text("fail: info\n")
    Path("worse.yaml").write_text("fail-on: [\n")
    Path("own.yaml").write_text("rules-folder: own\nrules: {my-rule: off}\n")
    Path("own").mkdir()
    Path("own/my_rule.py").write_text("raise SystemExit(3)")
    assert bnlint_("config", "--check", "good.yaml").code == 0
    assert bnlint_("config", "--check", "own.yaml").code == 0, "nothing in a rules-folder runs"
    said = bnlint_("config", "--check", "wrong.yaml", "good.yaml", "worse.yaml")
    assert (said.code, said.out) == (2, "")
    assert [line.partition(": ")[2].partition(":")[0] for line in said.err.splitlines()] == ["wrong.yaml", "worse.yaml"]


# -- rules ------------------------------------------------------------------------------------------------------


def test_rules_lists_every_rule_within_80_columns(bnlint_) -> None:
    text = bnlint_("rules").out
    assert all(f"  {rule.name} " in text for rule in builtin_rules())
    assert max(map(len, text.splitlines())) <= 80


def test_rules_for_machines(bnlint_) -> None:
    rules = {rule["name"]: rule for rule in json.loads(bnlint_("rules", "--output", "json").out)}
    for rule in builtin_rules():
        assert rules[rule.name]["severity"] == str(rule.severity)
        assert rules[rule.name]["options"].keys() == rule.options.keys()
    assert json.loads(bnlint_("explain", "wrapper-prefix", "--output", "json").out) == rules["wrapper-prefix"]


def test_explain_says_all_that_the_docstring_says(bnlint_) -> None:
    for rule in builtin_rules():
        said = bnlint_("explain", rule.name)
        assert said.code == 0
        assert rule.explanation in said.out
        chapter = bnlint_("explain", rule.name, "--output", "markdown").out
        assert chapter.startswith(f"# {rule.name}\n")
        assert [word for word in rule.explanation.split() if word not in chapter] == []


def test_schemas(bnlint_) -> None:
    for name in ("config", "report"):
        jsonschema.Draft202012Validator.check_schema(json.loads(bnlint_("schema", name).out))
    schema = json.loads(bnlint_("schema", "config").out)
    jsonschema.validate(yaml.safe_load("rules: {negative-running-var: off}"), schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"rules": {"negative-runing-var": "off"}}, schema)


# -- the common call goes around argparse -----------------------------------------------------------------------

WORDS = st.sampled_from(
    ["a.pth", "b c.pth", "", "*.pth", "--config", "--config=x", "--output", "json", "text=x", "--force-exclude", "-q",
     "--quiet", "--reference", "--shallow", "--", "-", "--select", "--force", "-j2", "--isolated", "-1", "--conf",
     "--help"]
)  # fmt: skip


@given(st.lists(WORDS, max_size=6))
def test_argparse_agrees_with_the_common_call(words: list[str]) -> None:
    by_hand = common(words)
    if by_hand is not None:
        assert vars(parsed(words)) == {**vars(by_hand), "paths": list(by_hand.paths)}


@pytest.mark.parametrize(
    "words",
    [[], ["a.pth"], ["a.pth", "b.pth"], ["--config", "x", "a.pth"], ["a.pth", "--output", "json"],
     ["--force-exclude", "a"], ["a.pth", "--reference", "b.pth"], ["--shallow", "a"],
     ["a", "--output", "text", "b", "--output", "json=c"]],
)  # fmt: skip
def test_the_common_call_is_taken(words: list[str]) -> None:
    assert common(words) is not None


def test_options_may_stand_between_paths() -> None:
    said = parsed(["a", "-q", "b", "--select", "x,y", "--select", "z", "c"])
    assert (list(said.paths), said.quiet, said.select) == (["a", "b", "c"], True, ["x,y", "z"])
    assert Arguments().select == []


# -- the process ------------------------------------------------------------------------------------------------


def test_version_and_help(bnlint_) -> None:
    assert bnlint_("--version").out == f"bnlint {bnlint.__version__}\n"
    for words in ([], ["--help"]):
        said = bnlint_(*words)
        assert said.code == 0
        assert all(f"  {name} " in said.out for name in COMMANDS)
    for name in COMMANDS:
        said = bnlint_(name, "--help")
        assert (said.code, said.err) == (0, "")
        assert f"usage: bnlint {name}" in said.out


def test_the_installed_command_is_this_one(folder: Path) -> None:
    assert process("check", "good.safetensors").returncode == 0
    done = process("check", ".", "--output", "json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["summary"]["files"] == 2


def test_a_list_of_paths_on_standard_input(folder: Path) -> None:
    done = process("check", "--files-from", "-", "--output", "json", input="good.safetensors\nbad.safetensors\n")
    assert done.returncode == 1
    assert json.loads(done.stdout)["summary"]["files"] == 2


@pytest.mark.parametrize(("path", "code"), [("good.safetensors", 0), ("bad.safetensors", 1)])
def test_the_verdict_stands_where_the_reader_leaves(folder: Path, path: str, code: int) -> None:
    read, write = os.pipe()
    os.close(read)
    try:
        done = process("check", path, capture_output=False, stdout=write, stderr=subprocess.PIPE)
    finally:
        os.close(write)
    assert (done.returncode, done.stderr) == (code, "")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize("words", [["check", "good.safetensors"], ["rules"], ["--version"]])
def test_a_full_disk_is_said(folder: Path, words: list[str]) -> None:
    with open("/dev/full", "w") as full:
        done = process(*words, capture_output=False, stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 2
    assert "No space left on device" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(("closed", "code"), [(">&-", 1), ("2>&-", 1), (">&- 2>&-", 1), ("<&-", 1)])
def test_closed_streams_are_no_trouble(folder: Path, closed: str, code: int) -> None:
    command = f'exec "{sys.executable}" -m bnlint check bad.safetensors {closed}'
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (code, "")


def writing_end(path: str) -> int | None:
    """The pipe at `path`, opened to be written; None while nobody reads it."""
    try:
        return os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    except OSError:
        return None


def test_an_interrupt_is_quiet(folder: Path) -> None:
    os.mkfifo("list")
    child = subprocess.Popen(
        [sys.executable, "-m", "bnlint", "check", "--files-from", "list"], stderr=subprocess.PIPE, text=True
    )
    while (pipe := writing_end("list")) is None and child.poll() is None:
        time.sleep(0.01)
    child.send_signal(signal.SIGINT)
    os.close(pipe)  # so that a read which began just before the signal ends too
    _, err = child.communicate(timeout=20)
    assert (child.returncode, err) == (130, "bnlint: interrupted\n")


def test_names_that_are_no_text_reach_any_terminal(folder: Path) -> None:
    name = os.fsdecode(b"caf\xe9 \xf0\x9f\x90\x8d.safetensors")
    negative(name, "b\N{LATIN SMALL LETTER O WITH DIAERESIS}")
    for format in FORMATS:
        done = process("check", name, "--output", format, env={**os.environ, "PYTHONIOENCODING": "ascii:strict"})
        assert done.returncode == 1, done.stderr
        assert not done.stderr


def test_an_error_of_bnlint_is_one_line(bnlint_, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*words: object, **said: object) -> None:
        raise KeyError("x")

    monkeypatch.setattr("bnlint.cli.check.run", broken)
    said = bnlint_("check", "good.safetensors")
    assert (said.code, said.err) == (
        2,
        "bnlint: this is a bug in bnlint: KeyError: 'x' (please report it; BNLINT_DEBUG=1 shows where it happened)\n",
    )
    monkeypatch.setenv("BNLINT_DEBUG", "1")
    with pytest.raises(KeyError):
        main(["check", "good.safetensors"])
