"""A plan in words: the line of code that applies it, and the keys left over, one line per family."""

from __future__ import annotations

from bnlint.matching.names import DEPTH_LIMIT, ancestors, filled, module_of, template
from bnlint.matching.rename_map import prefix_rule, rename_map

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from bnlint.matching.names import Template
    from bnlint.model.key_plan import KeyPlan, PrefixChange

ITEMS = "value for key, value in state_dict.items()"


def load_line(plan: KeyPlan) -> str:
    """The code that gives the keys of `state_dict` the names of the plan; it may be several lines.

    A plan that changes no name needs none: `model.load_state_dict(state_dict)`.
    """
    rules = rename_map(plan)
    if not rules:
        return "model.load_state_dict(state_dict)"
    changes = {prefix_rule(change): change for change in plan.prefixes}
    if all(rule in changes for rule in rules.items()):
        used = [changes[rule] for rule in rules.items()]
        if len(used) == 1 or all(not change.add for change in used):
            return f"state_dict = {{{_renamed(used)}: {ITEMS}}}"
    return _substitutions(rules)


def _renamed(changes: Sequence[PrefixChange]) -> str:
    """The expression for a key with prefixes changed: one change, or several that only take off."""
    strip, add = changes[0].strip, changes[0].add
    if not strip:
        return f"{literal(add)} + key"
    if add:
        return f"{literal(add)} + key[{len(strip)}:] if key.startswith({literal(strip)}) else key"
    return "key" + "".join(f".removeprefix({literal(change.strip)})" for change in changes)


def _substitutions(rules: Mapping[str, str]) -> str:
    if len(rules) == 1:
        ((pattern, replacement),) = rules.items()
        return (
            "import re\n\n"
            f"state_dict = {{re.sub({literal(pattern)}, {literal(replacement)}, key): {ITEMS}}}"
        )  # fmt: skip
    return "\n".join((
        "import re\n",
        "renames = {",
        *(f"    {literal(pattern)}: {literal(replacement)}," for pattern, replacement in rules.items()),
        "}",
        "for pattern, name in renames.items():",
        f"    state_dict = {{re.sub(pattern, name, key): {ITEMS}}}",
    ))  # fmt: skip


def literal(text: str) -> str:
    """A text as it stands in a program: double quotes, raw where it has backslashes."""
    if not text.isprintable() or '"' in text or text.endswith("\\"):
        return ascii(text)
    return f'r"{text}"' if "\\" in text else f'"{text}"'


def families(keys: Iterable[str], among: Iterable[str] = ()) -> list[tuple[str, int]]:
    """The keys by module, one entry per family with how many keys it has, in their order.

    A family is the largest module that is left over as a whole: of `among` (all keys of that side) it has
    no other keys; without `among`, the module of each key. Modules that differ in one number only are
    one family: "layer4.{0..2}.conv3". A key that is in no module is a family of its own.
    """
    left = list(dict.fromkeys(keys))
    everything = list(among)
    held_left, held = _held(left), _held(everything) if everything else {}
    counts: dict[str, int] = {}
    for key in left:
        family = _whole_module(key, held_left, held)
        counts[family] = counts.get(family, 0) + 1
    return _merged(counts)


def _held(keys: Iterable[str]) -> dict[str, int]:
    """How many keys each module holds, at any depth."""
    held: dict[str, int] = {}
    for key in keys:
        for module in ancestors(module_of(key)):
            held[module] = held.get(module, 0) + 1
    return held


def _whole_module(key: str, left: Mapping[str, int], held: Mapping[str, int]) -> str:
    whole = module_of(key)
    for module in ancestors(whole):
        if left[module] != held.get(module):
            break
        whole = module
    return whole or key


def _merged(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    """Families whose names differ in one number become one, in the place of the first."""
    alike: dict[tuple[Template, Template, int], list[str]] = {}
    rows_of: dict[str, list[tuple[Template, Template, int]]] = {}
    for name in counts:
        texts, numbers = template(name)
        rows_of[name] = [(texts, (*numbers[:k], *numbers[k + 1 :]), k) for k in range(min(len(numbers), DEPTH_LIMIT))]
        for row in rows_of[name]:
            alike.setdefault(row, []).append(name)
    merged: list[tuple[str, int]] = []
    done: set[str] = set()
    for name in counts:
        if name in done:
            continue
        members, position = [name], 0
        if rows_of[name]:
            row = max(rows_of[name], key=lambda row: len(alike[row]))
            members, position = [each for each in alike[row] if each not in done], row[2]
        done.update(members)
        merged.append((_family_name(members, position), sum(counts[each] for each in members)))
    return merged


def _family_name(members: Sequence[str], position: int) -> str:
    """One name for modules that differ in the number at this position: "blocks.{8..11}.attn"."""
    if len(members) == 1:
        return members[0]
    texts, numbers = template(members[0])
    found = [template(name)[1][position] for name in members]
    if any(len(number) > 9 for number in found):
        return filled(texts, (*numbers[:position], "*", *numbers[position + 1 :]))
    values = sorted(map(int, found))
    if values[-1] - values[0] == len(values) - 1:
        span = f"{{{values[0]}..{values[-1]}}}"
    else:
        span = "{" + ",".join(map(str, values)) + "}" if len(values) <= 6 else "*"
    return filled(texts, (*numbers[:position], span, *numbers[position + 1 :]))
