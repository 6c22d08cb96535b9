"""What a rule is, and how a folder of rules is loaded: bnlint's own, or yours."""

from __future__ import annotations

import os
import sys
from importlib.machinery import SourceFileLoader

from bnlint.errors import RuleError
from bnlint.finding import Severity

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from typing import Any

    from bnlint.finding import Finding

    CheckFunction = Callable[..., Iterable[Finding]]
    Examples = Callable[[], Sequence[object]]

FAMILIES = ("file", "checkpoint", "module", "compare", "code")
CONFIDENCE = ("certain", "high", "medium", "low")


class Check:
    """One function of a rule: what it looks at, and its options with their defaults."""

    __slots__ = ("function", "looks_at", "options")

    def __init__(self, function: CheckFunction) -> None:
        code = function.__code__
        if code.co_argcount != 1:
            raise RuleError(f"{where(function)}: a rule takes one thing to look at; its options are keyword-only")
        self.function = function
        self.looks_at = looked_at(function)
        self.options: Mapping[str, Any] = {
            name.replace("_", "-"): default for name, default in (function.__kwdefaults__ or {}).items()
        }
        if len(self.options) != code.co_kwonlyargcount:
            raise RuleError(f"{where(function)}: every option of a rule needs a default")


class Rule:
    """A check, with its name, its default severity, its explanation and its examples.

    `severity` is the default of a finding that carries none of its own; a rule that is OFF by
    default speaks with `on_request` when it is selected. `possible` is the severity of findings whose
    evidence is incomplete. `needs` names the rules that silence this one: at a layer where one of
    them found something, this rule says nothing. `deep` rules read every weight and run with
    `--deep`.
    """

    __slots__ = (
        "bad",
        "checks",
        "confidence",
        "deep",
        "deprecated",
        "family",
        "good",
        "name",
        "needs",
        "on_request",
        "path",
        "possible",
        "preview",
        "security_severity",
        "severity",
        "since",
    )

    def __init__(
        self,
        function: CheckFunction,
        *,
        severity: Severity,
        since: str,
        good: Examples,
        bad: Examples,
        possible: Severity,
        on_request: Severity,
        confidence: str,
        needs: Sequence[str],
        deep: bool,
        preview: bool,
        deprecated: str | None,
        security_severity: str | None,
    ) -> None:
        self.name = function.__name__.replace("_", "-")
        self.path = function.__code__.co_filename
        self.family = ""
        self.severity = severity
        self.since = since
        self.good = good
        self.bad = bad
        self.possible = possible
        self.on_request = on_request
        self.confidence = confidence
        self.needs = tuple(needs)
        self.deep = deep
        self.preview = preview
        self.deprecated = deprecated
        self.security_severity = security_severity
        self.checks = [Check(function)]

    def also(self, function: CheckFunction) -> CheckFunction:
        """Decorate a second function of this rule, for another kind of thing to look at."""
        self.checks.append(Check(function))
        return function

    @property
    def options(self) -> dict[str, Any]:
        """Every option with its default, as YAML names them."""
        return {name: default for check in self.checks for name, default in check.options.items()}

    @property
    def explanation(self) -> str:
        """The docstring of the rule, without its indentation."""
        from textwrap import dedent

        first, _, rest = (self.checks[0].function.__doc__ or "").strip().partition("\n")
        return f"{first}\n{dedent(rest)}".strip()

    @property
    def title(self) -> str:
        """The first sentence of the explanation."""
        return self.explanation.partition("\n")[0]

    def __repr__(self) -> str:
        return f"<rule {self.name}>"


def rule(
    *,
    severity: Severity,
    good: Examples,
    bad: Examples,
    since: str = "0.1.0",
    confidence: str = "certain",
    possible: Severity = Severity.INFO,
    on_request: Severity = Severity.WARNING,
    needs: Sequence[str] = (),
    deep: bool = False,
    preview: bool = False,
    deprecated: str | None = None,
    security_severity: str | None = None,
) -> Callable[[CheckFunction], Rule]:
    """Make a check a rule.

    The function's name is the rule's name and its docstring the explanation. The type of its first
    parameter is what the rule looks at; its keyword parameters are the options that can be set in
    `.bnlint.yaml`. `good` and `bad` are called by the tests only and give examples of what the rule
    looks at. RuleError where something of this is missing.
    """

    def make(function: CheckFunction) -> Rule:
        if not function.__doc__:
            raise RuleError(f"{where(function)}: a rule explains itself in a docstring")
        if confidence not in CONFIDENCE:
            raise RuleError(f"{where(function)}: confidence is one of {', '.join(CONFIDENCE)}")
        return Rule(
            function,
            severity=severity,
            since=since,
            good=good,
            bad=bad,
            possible=possible,
            on_request=on_request,
            confidence=confidence,
            needs=needs,
            deep=deep,
            preview=preview,
            deprecated=deprecated,
            security_severity=security_severity,
        )

    return make


def where(function: CheckFunction) -> str:
    """`file:line` of a function."""
    return f"{function.__code__.co_filename}:{function.__code__.co_firstlineno}"


def looked_at(function: CheckFunction) -> type:
    """The type of a check's first parameter; annotations may be strings (`from __future__`)."""
    first = function.__code__.co_varnames[0]
    kind = function.__annotations__.get(first)
    if isinstance(kind, str):
        kind = function.__globals__.get(kind)
    if not isinstance(kind, type):
        raise RuleError(f"{where(function)}: the first parameter needs a type that says what the rule looks at")
    return kind


class RuleSet:
    """Rules by name, and by what they look at."""

    __slots__ = ("by_name", "by_subject")

    def __init__(self, rules: Iterable[Rule]) -> None:
        self.by_name: dict[str, Rule] = {}
        self.by_subject: dict[type, list[tuple[Rule, Check]]] = {}
        for each in rules:
            if each.name in self.by_name:
                raise RuleError(
                    f"{each.path}: there is already a rule called {each.name} ({self.by_name[each.name].path})"
                )
            self.by_name[each.name] = each
            for check in each.checks:
                self.by_subject.setdefault(check.looks_at, []).append((each, check))

    def __iter__(self) -> Iterator[Rule]:
        return iter(self.by_name.values())

    def __len__(self) -> int:
        return len(self.by_name)

    def with_folder(self, folder: str) -> RuleSet:
        """These rules and those of a user's folder."""
        return RuleSet([*self, *load_folder(folder)])


def builtin_folder() -> str:
    """Where bnlint's own rules lie: `bnlint/rules` in a wheel, `rules` in a checkout."""
    package = os.path.dirname(os.path.abspath(__file__))
    for folder in (os.path.join(package, "rules"), os.path.join(os.path.dirname(package), "rules")):
        if os.path.isdir(folder):
            return folder
    raise RuleError(f"{package}: this installation of bnlint has no rules; install it again")


def builtin_rules(families: Sequence[str] = FAMILIES) -> RuleSet:
    """bnlint's own rules of these families."""
    folder = builtin_folder()
    return RuleSet(each for family in families for each in load_folder(os.path.join(folder, family), family))


def load_folder(folder: str, family: str = "custom") -> Iterator[Rule]:
    """Every rule in every Python file under `folder`, in the order of their paths.

    The files are run: only folders the user named on the command line or allowed get here.
    """
    for path in _python_files(folder):
        name = f"bnlint_rules.{family}.{os.path.splitext(os.path.basename(path))[0]}"
        module = sys.modules[name] = type(sys)(name)
        module.__file__ = path
        code = SourceFileLoader(name, path).get_code(name)
        assert code is not None  # a SourceFileLoader compiles or raises
        exec(code, module.__dict__)
        for value in list(module.__dict__.values()):
            if isinstance(value, Rule) and value.path == path:
                value.family = family
                yield value


def _python_files(folder: str) -> Iterator[str]:
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except FileNotFoundError:
        return
    for entry in entries:
        if entry.is_dir():
            if entry.name != "__pycache__":
                yield from _python_files(entry.path)
        elif entry.name.endswith(".py"):
            yield entry.path
