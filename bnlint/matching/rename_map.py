"""Renames as a map of regular expressions, the form that `.bnlint.yaml` and `bnlint fix --rename` take."""

from __future__ import annotations

import re

from bnlint.errors import UsageError
from bnlint.matching.names import filled, module_of, template, without_common_tail

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from bnlint.model.key_plan import KeyPlan, PrefixChange

    Rule = tuple[str, str]

TRIED = 4_000_000  # keys on which patterns are tried; what these do not explain is named key by key


def apply_renames(keys: Iterable[str], renames: Mapping[str, str]) -> dict[str, str]:
    """What each key is called after every pattern, in order, was replaced in it wherever it is found (`re.sub`).

    UsageError for a pattern that is no regular expression, for a replacement that refers to a group that
    is not there, and where two keys would get one name.
    """
    names = {key: key for key in keys}
    for pattern, replacement in renames.items():
        names = _replaced(names, pattern, replacement)
    first: dict[str, str] = {}
    for key, name in names.items():
        if name in first:
            raise UsageError(f"rename: both {first[name]!r} and {key!r} would become {name!r}")
        first[name] = key
    return names


def _replaced(names: Mapping[str, str], pattern: str, replacement: str) -> dict[str, str]:
    try:
        substitute = re.compile(pattern).sub
        return {key: substitute(replacement, name) for key, name in names.items()}
    except (re.error, IndexError) as error:
        raise UsageError(f"rename: {pattern!r}: {replacement!r} cannot be applied: {error}") from None


def rename_map(plan: KeyPlan) -> dict[str, str]:
    """The renames of a plan as patterns for `apply_renames`; empty where no name changes.

    Applied to the keys of the source it gives every key its place, and keys that have none a name that
    is nobody else's.
    """
    search = Search(plan)
    search.set_aside()
    for change in plan.prefixes:
        search.take(_prefix_rules(change, search.wrong()))
    search.take([_wrapper_rule(token) for token in plan.dropped])
    while search.take(_template_rules(search.wrong())):
        pass
    search.take(_module_rules(search.wrong()))
    search.name_the_rest()
    return search.rules


class Search:
    """Collects patterns that bring keys to their places and harm none that are there."""

    def __init__(self, plan: KeyPlan) -> None:
        self.rules: dict[str, str] = {}
        self._places = {**plan.renames, **dict(plan.reshaped)}
        homeless = (*plan.unexpected, *plan.unexpected_counters)
        self._names = {key: key for key in (*self._places, *homeless)}
        self._homeless = set(homeless)
        self._reserved = {*self._places.values(), *plan.missing, *plan.missing_counters}
        self._tries = TRIED // max(len(self._names), 1)

    def wrong(self) -> dict[str, str]:
        """What is still not called as it should be: the name it has -> the name it should have."""
        return {self._names[key]: name for key, name in self._places.items() if self._names[key] != name}

    def take(self, rules: Iterable[Rule]) -> bool:
        """Take every rule that helps; those that do not yet are tried again after one that did."""
        taken_any = False
        waiting = list(rules)
        while waiting:
            left = [rule for rule in waiting if not self._takes(rule)]
            if len(left) == len(waiting):
                break
            taken_any = True
            waiting = left
        return taken_any

    def set_aside(self) -> None:
        """Put what has no place out of the way where it bears the name of another's: "unused.features.16.bias"."""
        in_the_way = {module_of(key) for key in self._homeless & self._reserved}
        for module in sorted(in_the_way, key=len):
            inside = f"{module}." if module else ""
            everything = {key for key, name in self._names.items() if name.startswith(inside)}
            if module and everything <= self._homeless:
                self._set_aside(everything, rf"^{re.escape(inside)}", inside)
                continue
            for key in sorted(everything & self._reserved & self._homeless):
                if module_of(key) == module:
                    self._set_aside({key}, rf"^{re.escape(key)}$", key)

    def _set_aside(self, keys: Iterable[str], pattern: str, beginning: str) -> None:
        taken = self._reserved | set(self._names.values())
        aside = "unused."
        while any(aside + self._names[key] in taken for key in keys):
            aside = f"_{aside}"
        self.rules[pattern] = _verbatim(aside + beginning)
        for key in keys:
            self._names[key] = aside + self._names[key]

    def name_the_rest(self) -> None:
        """Name every key that is still wrong by itself; of a ring of names, one steps aside for a while."""
        key_of = {name: key for key, name in self._names.items()}
        end = r"\Z" if any("\n" in key for key in key_of) else "$"
        waiting = self.wrong()
        while waiting:
            free = [name for name, wanted in waiting.items() if wanted not in key_of]
            for name in free or [next(iter(waiting))]:
                wanted = waiting.pop(name)
                between = wanted
                while between in key_of or (not free and between in self._reserved):
                    between += "~"
                key = key_of.pop(name)
                self.rules[f"^{re.escape(name)}{end}"] = _verbatim(between)
                self._names[key] = between
                key_of[between] = key
                if between != wanted:
                    waiting[between] = wanted

    def _takes(self, rule: Rule) -> bool:
        """Take a rule if it brings a key to its place, moves none away, and makes no two alike."""
        pattern, replacement = rule
        if self._tries <= 0 or pattern in self.rules:
            return False
        self._tries -= 1
        replaced = re.compile(pattern).sub
        changed = {key: new for key, name in self._names.items() if (new := replaced(replacement, name)) != name}
        if not any(self._places.get(key) == name for key, name in changed.items()):
            return False
        for key, name in changed.items():
            place = self._places.get(key)
            if place == self._names[key] or (place is None and name in self._reserved):
                return False
        names = {**self._names, **changed}
        if len(set(names.values())) < len(names):
            return False
        self._names = names
        self.rules[pattern] = replacement
        return True


def prefix_rule(change: PrefixChange) -> Rule:
    """A change of prefix as a pattern."""
    return f"^{re.escape(change.strip)}", _verbatim(change.add)


def _prefix_rules(change: PrefixChange, wrong: Mapping[str, str]) -> Iterator[Rule]:
    yield prefix_rule(change)
    if not change.strip:  # put before some keys, not before all
        first = dict.fromkeys(
            name.partition(".")[0] for name, wanted in wrong.items() if change.apply(name) == wanted and "." in name
        )
        yield rf"^(?=(?:{'|'.join(map(re.escape, first))})\.)", _verbatim(change.add)


def _wrapper_rule(token: str) -> Rule:
    return rf"(?<=\.){re.escape(token)}\.", ""


def _template_rules(wrong: Mapping[str, str]) -> list[Rule]:
    """Patterns in which numbers stand for themselves: `^layer([0-9]+)\\.` -> `stage\\1.`, the commonest first."""
    votes: dict[Rule, int] = {}
    for name, wanted in wrong.items():
        head, other = without_common_tail(name, wanted)
        texts, numbers = template(head)
        other_texts, other_numbers = template(other)
        if not head or numbers != other_numbers or len(numbers) > 90:
            continue
        ends = len(head) == len(name)
        pattern = "^" + "([0-9]+)".join(map(re.escape, texts)) + ("$" if ends else r"\.")
        groups = tuple(f"\\{k}" for k in range(1, len(numbers) + 1))
        replacement = filled(tuple(map(_verbatim, other_texts)), groups) + ("." if other and not ends else "")
        votes[pattern, replacement] = votes.get((pattern, replacement), 0) + 1
    return sorted(votes, key=lambda rule: -votes[rule])


def _module_rules(wrong: Mapping[str, str]) -> list[Rule]:
    """Patterns for one module each, with all that is in it: `^blocks\\.0\\.` -> `features.1.`."""
    votes: dict[Rule, int] = {}
    for name, wanted in wrong.items():
        head, other = without_common_tail(name, wanted)
        if head and len(head) < len(name):
            rule = rf"^{re.escape(head)}\.", _verbatim(f"{other}." if other else "")
            votes[rule] = votes.get(rule, 0) + 1
    return sorted((rule for rule in votes if votes[rule] > 1), key=lambda rule: -votes[rule])


def _verbatim(text: str) -> str:
    """A replacement that is just this text."""
    return text.replace("\\", r"\\")
