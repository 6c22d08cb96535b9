"""The rules of a run by name: bnlint's own and the user's, each family loaded when it is first needed."""

from __future__ import annotations

import os

from bnlint.errors import ConfigError, RuleError
from bnlint.ruleset import FAMILIES, RuleSet, builtin_folder, load_folder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from bnlint.ruleset import Rule

CONFIG_FAMILY = "config"  # about overrides; these lie in the package, because rules/ never sees a configuration
CUSTOM_FAMILY = "custom"


class Rulebook:
    """bnlint's rules, and those of `folder` where a configuration names one.

    The user's folder is Python that runs when it is loaded: until `allowed` is True nothing in it is,
    and asking for its rules is a ConfigError that starts with `place`.
    """

    __slots__ = ("_families", "_names", "_rulesets", "allowed", "folder", "place")

    def __init__(self, folder: str | None = None, *, allowed: bool = False, place: str = "") -> None:
        self.folder = folder
        self.allowed = allowed
        self.place = place
        self._families: dict[str, list[Rule]] = {}
        self._names: dict[str, str] | None = None
        self._rulesets: dict[tuple[str, ...], RuleSet] = {}

    def __reduce__(self) -> tuple[object, ...]:
        # A worker process loads rules for itself: functions do not travel.
        return _rulebook, (self.folder, self.allowed, self.place)

    @property
    def names(self) -> dict[str, str]:
        """The family of every rule, by the rule's name.

        A rule lies in a file of its name, so for bnlint's own the folders are listed and nothing is
        loaded. A user's file may hold more than one rule: an allowed folder is loaded.
        """
        if self._names is None:
            folder = builtin_folder()
            self._names = {name: family for family in FAMILIES for name in _stems(os.path.join(folder, family))}
            self._names.update((rule.name, CONFIG_FAMILY) for rule in self.family(CONFIG_FAMILY))
            if self.folder is not None:
                own = [rule.name for rule in self.family(CUSTOM_FAMILY)] if self.allowed else _stems(self.folder)
                self._names.update(dict.fromkeys(own, CUSTOM_FAMILY))
        return self._names

    def family(self, family: str) -> list[Rule]:
        """The rules of one family."""
        if family not in self._families:
            self._families[family] = self._load(family)
        return self._families[family]

    def _load(self, family: str) -> list[Rule]:
        if family == CUSTOM_FAMILY:
            return self._user_rules()
        if family == CONFIG_FAMILY:
            from bnlint.overrides import RULES

            return list(RULES)
        return list(load_folder(os.path.join(builtin_folder(), family), family))

    def _user_rules(self) -> list[Rule]:
        if self.folder is None:
            return []
        if not self.allowed:
            raise ConfigError(
                f"{self.place}: rules-folder: the rules in {self.folder} are Python that would run;"
                " allow it with --allow-code"
            )
        if not os.path.isdir(self.folder):
            raise ConfigError(f"{self.place}: rules-folder: there is no folder {self.folder}")
        try:
            return list(load_folder(self.folder, CUSTOM_FAMILY))
        except RuleError:
            raise
        except Exception as error:
            raise RuleError(f"{_culprit(error, self.folder)}: {type(error).__name__}: {error}") from error

    def rule(self, name: str) -> Rule | None:
        """The rule of that name; None where there is none, or where it lies in a folder that is not allowed."""
        family = self.names.get(name)
        if family is None or (family == CUSTOM_FAMILY and not self.allowed):
            return None
        return next((rule for rule in self.family(family) if rule.name == name), None)

    def ruleset(self, families: Sequence[str]) -> RuleSet:
        """The rules of these families and the user's, ready for the engine."""
        wanted = tuple(families)
        if wanted not in self._rulesets:
            self._rulesets[wanted] = RuleSet(
                rule for family in (*wanted, CUSTOM_FAMILY) for rule in self.family(family)
            )
        return self._rulesets[wanted]

    def everything(self) -> RuleSet:
        """Every rule there is."""
        return self.ruleset((*FAMILIES, CONFIG_FAMILY))

    @property
    def executed(self) -> list[str]:
        """The user's files that ran."""
        return sorted({rule.path for rule in self._families.get(CUSTOM_FAMILY, ())})


def _rulebook(folder: str | None, allowed: bool, place: str) -> Rulebook:
    return Rulebook(folder, allowed=allowed, place=place)


def _culprit(error: Exception, folder: str) -> str:
    """`file:line` of the user's line that raised, the folder where none can be named."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    culprit = folder
    trace = error.__traceback__
    while trace is not None:
        path = trace.tb_frame.f_code.co_filename
        if path.startswith(folder):
            culprit = f"{path}:{trace.tb_lineno}"
        trace = trace.tb_next
    return culprit


def _stems(folder: str) -> list[str]:
    """The names of the rules that the files of a folder are named after."""
    return sorted(
        name[: -len(".py")].replace("_", "-")
        for _, _, names in os.walk(folder)
        for name in names
        if name.endswith(".py")
    )
