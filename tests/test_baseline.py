"""Baselines: what is known stays quiet, what is new is said, what is gone is noticed."""

import io
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bnlint import Finding, Location, Severity, UsageError
from bnlint.baseline import Baseline, read_baseline
from bnlint.fingerprint import fingerprint
from bnlint.report import FileResult, Report

ANY = st.text(st.characters())  # lone surrogates too: a path need not be text, and JSON lets names hold them


def finding(
    rule: str = "odd-layer", path: str = "a.pth", *layers: str, message: str = "odd", state_dict: str | None = None
) -> Finding:
    made = Finding(Location(layers, state_dict=state_dict, path=path), message, severity=Severity.ERROR)
    made.rule = rule
    return made


def report(*findings: Finding, files: tuple[str, ...] = ("a.pth",)) -> Report:
    return Report([FileResult(path) for path in files], findings)


def written(baseline: Baseline) -> str:
    stream = io.StringIO()
    baseline.write(stream)
    return stream.getvalue()


@pytest.fixture
def read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)

    def read(text: str) -> Baseline:
        Path("baseline.json").write_text(text, encoding="utf-8")
        return read_baseline("baseline.json")

    return read


# -- fingerprints -----------------------------------------------------------------------------------------


def test_a_fingerprint_is_the_same_tomorrow_and_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    known = fingerprint(finding("odd-layer", "models/a.pth", "bn1", message="1 of 4"), str(tmp_path))
    assert known == "7ccac322fcc027042ae89f1279cd7c11"  # in every baseline there is: never to change
    assert fingerprint(finding("odd-layer", "models/a.pth", "bn1", message="3 of 4"), str(tmp_path)) == known
    assert fingerprint(finding("odd-layer", str(tmp_path / "models" / "a.pth"), "bn1"), str(tmp_path)) == known
    (tmp_path / "models").mkdir()
    monkeypatch.chdir(tmp_path / "models")
    assert fingerprint(finding("odd-layer", "a.pth", "bn1"), str(tmp_path)) == known


def test_rule_path_layer_and_state_dict_make_a_fingerprint() -> None:
    different = [
        finding("odd-layer", "a.pth", "bn1"),
        finding("even-layer", "a.pth", "bn1"),
        finding("odd-layer", "b.pth", "bn1"),
        finding("odd-layer", "a.pth", "bn2"),
        finding("odd-layer", "a.pth", "bn1", "bn2"),
        finding("odd-layer", "a.pth"),
        finding("odd-layer", "a.pth", "bn1", state_dict="ema"),
    ]
    assert len({fingerprint(each) for each in different}) == len(different)


@given(ANY, ANY.filter(lambda path: "\0" not in path), st.lists(ANY))
def test_any_name_has_a_fingerprint(rule: str, path: str, layers: list[str]) -> None:
    assert len(fingerprint(finding(rule, path or "x", *layers))) == 32


# -- known and new ------------------------------------------------------------------------------------------


def test_what_is_known_is_put_aside_and_what_is_new_stays(read_back) -> None:
    known, new = finding("odd-layer", "a.pth", "bn1"), finding("odd-layer", "a.pth", "bn2")
    baseline = read_back(written(Baseline.of(report(known))))
    said = report(known, new)
    baseline.divide(said)
    assert (said.findings, said.baselined) == ([new], [known])
    assert not baseline.stale
    assert said.failed
    said = report(known)
    baseline.divide(said)
    assert not said.failed


def test_a_second_finding_at_the_same_place_is_new(read_back) -> None:
    first, second = finding("odd-layer", "a.pth", "bn1"), finding("odd-layer", "a.pth", "bn1")
    baseline = read_back(written(Baseline.of(report(first))))
    said = report(first, second)
    baseline.divide(said)
    assert (said.findings, said.baselined) == ([second], [first])


def test_what_is_gone_is_stale_where_it_was_looked_for(read_back) -> None:
    Path("elsewhere.pth").touch()
    old = [finding("odd-layer", path, "bn1") for path in ("a.pth", "deleted.pth", "elsewhere.pth")]
    baseline = read_back(written(Baseline.of(report(*old))))
    baseline.divide(report())
    assert [entry.path for entry in baseline.stale] == ["a.pth", "deleted.pth"]
    assert str(baseline.stale[0]) == "odd-layer in a.pth at bn1"
    assert [entry.path for entry in baseline.prune().entries] == ["elsewhere.pth"]
    baseline.divide(report(), complete=False)
    assert not baseline.stale


def test_a_baseline_is_for_reviewers_too(read_back) -> None:
    text = written(Baseline.of(report(finding("b", "b.pth", "y\n"), finding("a", "b.pth"), finding("z", "a.pth", "x"))))
    lines = [json.loads(line.rstrip(",")) for line in text.splitlines()[1:-1]]
    assert [(line["path"], line["rule"], line["layers"]) for line in lines] == [
        ("a.pth", "z", ["x"]),
        ("b.pth", "a", []),
        ("b.pth", "b", ["y\n"]),
    ]
    assert written(read_back(text)) == text
    assert json.loads(written(Baseline())) == {"tool": "bnlint", "schema_version": 1, "findings": []}


# -- wrong baselines ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "not a baseline of bnlint: Expecting value"),
        ("version https://git-lfs.github.com/spec/v1\n", "not a baseline of bnlint: Expecting value"),
        ("[" * 100_000, "not a baseline of bnlint: "),
        ("[]", "not a baseline of bnlint"),
        ('{"findings": []}', "not a baseline of bnlint"),
        ('{"tool": "bnlint", "schema_version": 2, "findings": []}', "a baseline of version 2; this bnlint knows 1"),
        ('{"tool": "bnlint", "schema_version": 1, "findings": {}}', "not a baseline of bnlint: findings is no list"),
        ('{"tool": "bnlint", "schema_version": 1, "findings": [1]}', "entry 1: not a mapping"),
        ('{"tool": "bnlint", "schema_version": 1, "findings": [{"rule": "a"}]}', "entry 1: fingerprint is no text"),
        (
            '{"tool": "bnlint", "schema_version": 1, "findings":'
            ' [{"rule": "a", "path": "p", "fingerprint": "f", "layers": [1]}]}',
            "entry 1: layers is no list of text",
        ),
    ],
)
def test_a_wrong_baseline(read_back, text: str, told: str) -> None:
    with pytest.raises(UsageError) as error:
        read_back(text)
    assert str(error.value).startswith(f"baseline.json: {told}")


def test_a_baseline_that_is_not_there(tmp_path: Path) -> None:
    for path in (tmp_path / "no.json", tmp_path):
        with pytest.raises(UsageError, match="no such baseline; --write-baseline"):
            read_baseline(str(path))


@given(st.binary(max_size=300))
def test_any_bytes_are_a_baseline_or_an_error(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.json"
    path.write_bytes(data)
    with pytest.raises(UsageError):
        read_baseline(str(path))
