"""What a name of a state dict says: its module, its words, its numbers, its wrappers."""

from __future__ import annotations

import re

from bnlint.model.batchnorm import COUNTER
from bnlint.model.state_dict import TRANSPORT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    Shape = tuple[int, ...]
    Template = tuple[str, ...]

DEPTH_LIMIT = 24  # components of a name that are looked at; no model nests deeper, a hostile file may

# What people call the attribute that holds a network; the wrappers of torch besides.
WRAPPERS = frozenset({
    *TRANSPORT, "model", "net", "network", "backbone", "encoder", "body", "trunk", "base_model", "feature_extractor",
    "student", "teacher", "ema", "ema_model", "online", "target", "core", "inner",
})  # fmt: skip

_NUMBER = re.compile(r"([0-9]+)")
_WORDS = re.compile(r"[0-9]+|[a-z]+|[A-Z][a-z]*")
# Words that people use for the same thing.
_SYNONYMS = {
    "bn": "norm", "batchnorm": "norm", "batch": "norm", "normalization": "norm",
    "stage": "layer", "stages": "layer", "layers": "layer", "blocks": "block",
    "downsample": "shortcut", "skip": "shortcut", "identity": "shortcut",
    "fc": "head", "classifier": "head", "linear": "head", "logits": "head", "heads": "head",
    "convolution": "conv",
}  # fmt: skip


def module_of(key: str) -> str:
    """The module of a key: "layer1.0.bn1.weight" is of "layer1.0.bn1"."""
    return key.rpartition(".")[0]


def is_counter(key: str) -> bool:
    """True for num_batches_tracked."""
    return key == COUNTER or key.endswith("." + COUNTER)


def heads(name: str) -> Iterator[tuple[str, str]]:
    """Every way to cut a name into a prefix and the rest, the empty prefix first: ("a.", "b.c")."""
    yield "", name
    end = -1
    for _ in range(DEPTH_LIMIT):
        end = name.find(".", end + 1)
        if end < 0:
            return
        yield name[: end + 1], name[end + 1 :]


def ancestors(module: str) -> Iterator[str]:
    """The module itself, then what holds it, up to but without the model as a whole."""
    for _ in range(DEPTH_LIMIT):
        if not module:
            return
        yield module
        module = module_of(module)


def without_common_tail(name: str, other: str) -> tuple[str, str]:
    """The two names up to where they end alike: "layer1.0.bn" and "stage1.0.bn" are "layer1" and "stage1"."""
    left, right = name.split("."), other.split(".")
    while left and right and left[-1] == right[-1]:
        left.pop()
        right.pop()
    return ".".join(left), ".".join(right)


def template(name: str) -> tuple[Template, Template]:
    """A name as the text between its numbers, and its numbers: ("layer", ".conv", ""), ("1", "2")."""
    pieces = _NUMBER.split(name)
    return tuple(pieces[0::2]), tuple(pieces[1::2])


def filled(texts: Template, numbers: Template) -> str:
    """The name of a template with these numbers."""
    return texts[0] + "".join(number + text for number, text in zip(numbers, texts[1:], strict=True))


def features(name: str, *, numbers: bool = True) -> frozenset[tuple[str, int]]:
    """The words of a name, synonyms alike, with how often they came before, and its numbers in order."""
    found: dict[str, int] = {}
    traits: list[tuple[str, int]] = []
    place = 0
    for word in _WORDS.findall(name[-400:]):
        if word.isdigit():
            if numbers:
                traits.append((word, place))
            place += 1
            continue
        word = _SYNONYMS.get(word.lower(), word.lower())
        traits.append((word, found.get(word, 0)))
        found[word] = found.get(word, 0) + 1
    return frozenset(traits)


def likeness(left: frozenset[tuple[str, int]], right: frozenset[tuple[str, int]]) -> int:
    """How alike two names are, from their features: 0 to 1000."""
    both = len(left) + len(right)
    return 2000 * len(left & right) // both if both else 1000


def unwrapped(key: str) -> str:
    """A key without the wrappers in its middle; those at its front stay: they are a prefix."""
    if not any(f".{token}." in key for token in TRANSPORT):
        return key
    parts = key.split(".")
    front = 0
    while front < len(parts) - 1 and parts[front] in TRANSPORT:
        front += 1
    return ".".join([*parts[:front], *(part for part in parts[front:-1] if part not in TRANSPORT), parts[-1]])


def unwrapped_names(keys: Iterable[str]) -> dict[str, str]:
    """The name of each key without wrappers in its middle; the key itself where two would be called alike."""
    names = {key: unwrapped(key) for key in keys}
    if all(key == name for key, name in names.items()):
        return names
    keys_of: dict[str, list[str]] = {}
    for key, name in names.items():
        keys_of.setdefault(name, []).append(key)
    return {key: name if len(keys_of[name]) == 1 and (key == name or name not in names) else key
            for key, name in names.items()}  # fmt: skip
