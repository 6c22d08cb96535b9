"""Who may import whom, and what a rule file holds. CONTRIBUTING.md says why."""

import ast
import os
from collections.abc import Iterator

import pytest

import bnlint
from bnlint.explanation import sections
from bnlint.ruleset import FAMILIES, Rule, builtin_rules

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PACKAGE = os.path.join(ROOT, "bnlint")
RULES = os.path.join(ROOT, "rules")

# What each room of bnlint/ may know of the others. Whoever adds an arrow here changes the design.
FACTS = {"errors", "finding"}
MAY_KNOW = {
    "errors": set(),
    "finding": set(),
    "model": FACTS,
    "readers": {*FACTS, "model"},
    "ruleset": FACTS,
    "settings": {*FACTS, "model", "ruleset"},
    "engine": {*FACTS, "model", "ruleset", "settings"},
    "comparing": {
        *FACTS,
        "config",
        "engine",
        "factory",
        "matching",
        "model",
        "pairing",
        "readers",
        "report",
        "ruleset",
        "settings",
    },
    "comparison": {*FACTS, "comparing", "matching", "model", "pairing"},
    "factory": {*FACTS, "model", "readers"},
    "fixing": {*FACTS, "comparing", "matching", "model", "outputs", "pairing", "readers"},
    "report": {*FACTS, "ruleset"},
    "reports": {*FACTS, "comparison", "explanation", "fingerprint", "report", "ruleset"},
    "outputs": {*FACTS, "nearest", "report", "reports"},
    "explanation": {"ruleset"},
    "fingerprint": FACTS,
    "baseline": {*FACTS, "fingerprint", "report"},
    "nearest": set(),
    "matching": {*FACTS, "model"},
    "pairing": {*FACTS, "matching", "model"},
    "discovery": FACTS,
    "overrides": {*FACTS, "ruleset", "settings"},
    "rulebook": {*FACTS, "overrides", "ruleset", "settings"},
    "config": {*FACTS, "factory", "fingerprint", "model", "nearest", "rulebook", "ruleset", "settings"},
    "testing": {*FACTS, "engine", "model", "ruleset", "settings"},
}
MAY_IMPORT_IN_A_RULE = {"bnlint", "collections.abc", "math"}
HEADINGS = ["Common causes", "Fix", "When this is fine"]


def python_files(folder: str) -> list[str]:
    return [
        os.path.join(parent, name)
        for parent, _, names in os.walk(folder)
        for name in names
        if name.endswith(".py") and "__pycache__" not in parent
    ]


def relative(path: str) -> str:
    return os.path.relpath(path, ROOT).replace(os.sep, "/")


def imports(path: str) -> Iterator[tuple[str, str]]:
    """Every `(module, name)` that a file imports, anywhere in it, type checking included."""
    with open(path, encoding="utf-8") as file:
        tree = ast.parse(file.read())
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{relative(path)}: imports here are absolute"
            yield from ((node.module or "", alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)


def room(module: str) -> str:
    """The room of a module of the package: "bnlint.model.tensor" is in "model"."""
    return module.removeprefix("bnlint.").partition(".")[0]


def rooms_known_to(path: str) -> set[str]:
    """The rooms of the package that a file imports from."""
    known = {room(f"{module}.{name}") for module, name in imports(path) if module == "bnlint"}
    known |= {room(module) for module, _ in imports(path) if module.startswith("bnlint.")}
    return {name for name in known if not name.startswith("__")}


@pytest.mark.parametrize("path", python_files(PACKAGE), ids=relative)
def test_a_room_knows_only_the_rooms_below_it(path: str) -> None:
    own = os.path.relpath(path, PACKAGE).removesuffix(".py").split(os.sep)[0]
    if own in MAY_KNOW:
        assert rooms_known_to(path) <= MAY_KNOW[own] | {own}


@pytest.mark.parametrize("path", python_files(PACKAGE), ids=relative)
def test_the_package_knows_no_rule_and_only_one_room_knows_torch(path: str) -> None:
    packages = {module.partition(".")[0] for module, _ in imports(path)}
    assert "rules" not in packages
    assert "torch" not in packages or relative(path).startswith("bnlint/torch/")


@pytest.mark.parametrize("path", python_files(RULES), ids=relative)
def test_a_rule_knows_only_the_public_names(path: str) -> None:
    for module, name in imports(path):
        assert module in MAY_IMPORT_IN_A_RULE
        assert module != "bnlint" or name in bnlint.__all__


def test_a_file_holds_the_rule_it_is_named_after() -> None:
    rules = {rule.path: rule for rule in builtin_rules()}
    assert len(rules) == len(builtin_rules()), "two rules in one file"
    assert {relative(path) for path in rules} == {relative(path) for path in python_files(RULES)}
    for path, rule in rules.items():
        assert relative(path) == f"rules/{rule.family}/{rule.name.replace('-', '_')}.py"
        assert rule.family in FAMILIES


@pytest.mark.parametrize("rule", list(builtin_rules()), ids=lambda rule: rule.name)
def test_a_rule_explains_itself(rule: Rule) -> None:
    assert rule.title.endswith("."), "the first line is one sentence"
    assert ". " not in rule.title, "the first line is one sentence"
    why_it_hurts, chapters = sections(rule)
    assert why_it_hurts
    assert [heading for heading, _ in chapters] == HEADINGS
    assert all(text for _, text in chapters)


@pytest.mark.parametrize("rule", list(builtin_rules()), ids=lambda rule: rule.name)
def test_a_rule_has_good_and_bad_examples(rule: Rule) -> None:
    assert rule.good()
    assert rule.bad()


def test_a_rule_needs_only_rules_that_exist() -> None:
    names = {rule.name for rule in builtin_rules()}
    assert {need for rule in builtin_rules() for need in rule.needs} <= names
