"""Key contracts: what a checkpoint has to have, as YAML that is small enough to review and to commit.

    bnlint-keys: 1
    keys:
      conv1.weight: float32 [64, 3, 7, 7]
      bn1.weight: float32 [64]
    batchnorm:
      bn1: {affine: 9a0f364b9e99bb48, statistics: 3f79bb7b435b0532, batches: 10000}

`affine` and `statistics` are digests of weight and bias, and of running_mean and running_var, so that a
layer that moved is seen without its numbers.
"""

from __future__ import annotations

from bnlint.errors import UnreadableFile
from bnlint.model.batchnorm import LEAVES
from bnlint.model.digest import DIGITS, PromisedBatchNorm, digest
from bnlint.model.pair import AFFINE, STATISTICS, known_eps
from bnlint.model.state_dict import StateDict
from bnlint.model.tensor import ITEM_SIZE, Tensor
from bnlint.readers.batchnorms import groups_in
from bnlint.readers.source import Source

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import TextIO

    import yaml

    from bnlint.model.batchnorm import BatchNorm

VERSION = "1"
MAX_BYTES = 16 << 20
MAX_KEYS = 200_000
MAX_RANK = 64
MAX_DEPTH = 3  # the file, its sections, the facts of a layer
MAX_SIZE = 1 << 48
_FIELDS = ("affine", "statistics", "batches", "eps")


def write_contract(state_dict: StateDict, stream: TextIO) -> None:
    """Write the contract of a state dict: its keys, and a digest of each BatchNorm layer."""
    stream.write("# What a checkpoint has to have: `bnlint check MODEL --reference THIS` compares.\n")
    stream.write(f"bnlint-keys: {VERSION}\n")
    stream.write("keys:\n" if state_dict.tensors else "keys: {}\n")
    for key, tensor in state_dict.tensors.items():
        stream.write(f"  {quoted(key)}: {tensor.dtype} {list(tensor.shape)}\n")
    stream.write("batchnorm:\n" if state_dict.batchnorms else "batchnorm: {}\n")
    for layer in state_dict.batchnorms:
        facts = ", ".join(f"{name}: {value}" for name, value in _facts(layer))
        stream.write(f"  {quoted(layer.name)}: {{{facts}}}\n")


def _facts(layer: BatchNorm) -> Iterator[tuple[str, object]]:
    for name, leaves in (("affine", AFFINE), ("statistics", STATISTICS)):
        digits = layer.digests.get(" ".join(leaves)) if isinstance(layer, PromisedBatchNorm) else digest(layer, leaves)
        if digits is not None:
            yield name, f'"{digits}"' if digits.isdigit() else digits
    if layer.num_batches_tracked is not None:
        yield "batches", layer.num_batches_tracked
    eps = known_eps(layer)
    if eps is not None:
        yield "eps", repr(eps)


def quoted(name: str) -> str:
    """A name as YAML has it: as it is where no YAML reader could take it for something else, else in quotes."""
    plain = name.replace(".", "").replace("_", "").isalnum() and name.isascii() and name[0].isalpha()
    if plain and name.lower() not in ("true", "false", "yes", "no", "on", "off", "null", "y", "n"):
        return name
    return '"' + "".join(map(_escaped, name)) + '"'


def _escaped(character: str) -> str:
    if character in '"\\':
        return f"\\{character}"
    if character.isascii() and character.isprintable():
        return character
    code = ord(character)
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" if code < 65536 else f"\\U{code:08x}"


# -- reading ------------------------------------------------------------------------------------------


def load_contract(path: str) -> StateDict:
    """The state dict that a contract describes: tensors without storage, BatchNorm layers without numbers.

    UnreadableFile, with the line, where the file is no contract.
    """
    root = _mapping(_Reader(_text(path)).read(), 1, "a key contract")
    unknown = next((name for name in root if name not in ("bnlint-keys", "keys", "batchnorm")), None)
    if "bnlint-keys" not in root:
        raise _error(1, "is no key contract: `bnlint keys MODEL` writes one")
    if unknown is not None:
        raise _error(root[unknown].line, f"unknown section {unknown[:80]!r}")
    if root["bnlint-keys"].value != VERSION:
        raise _error(root["bnlint-keys"].line, f"this bnlint reads contracts of version {VERSION}")
    state_dict = StateDict("", dict(_tensors(root)))
    facts = _section(root, "batchnorm")
    for name, group in groups_in(state_dict.tensors).items():
        state_dict.batchnorms.append(_layer(name, group, facts.pop(name, None), state_dict))
    for name, node in facts.items():
        raise _error(node.line, f"batchnorm: the keys have no BatchNorm layer {name[:80]!r}")
    return state_dict


def _text(path: str) -> str:
    with Source(path) as source:
        if source.size > MAX_BYTES:
            raise UnreadableFile("limit", f"a key contract has at most {MAX_BYTES} bytes")
        data = source.read(0, source.size)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _error(data.count(b"\n", 0, error.start) + 1, "a key contract is UTF-8 text") from None


def _tensors(root: Mapping[str, Node]) -> Iterator[tuple[str, Tensor]]:
    for key, node in _section(root, "keys").items():
        dtype, _, shape = node.text(key).partition(" ")
        if dtype not in ITEM_SIZE:
            raise _error(node.line, f"{key[:80]}: {dtype[:40]!r} is no dtype of torch")
        yield key, Tensor(dtype, _shape(shape, node.line, key), None)


def _shape(text: str, line: int, key: str) -> tuple[int, ...]:
    inside = text[1:-1].strip()
    sizes = [size.strip() for size in inside.split(",")] if inside else []
    right = text[:1] == "[" and text[-1:] == "]" and len(sizes) <= MAX_RANK
    if not right or not all(size.isascii() and size.isdigit() and int(size[:18]) < MAX_SIZE for size in sizes):
        raise _error(line, f"{key[:80]}: {text[:40]!r} is no shape, such as [64, 3, 7, 7]")
    return tuple(map(int, sizes))


def _layer(name: str, group: Mapping[str, Tensor], node: Node | None, owner: StateDict) -> BatchNorm:
    facts = {} if node is None else _mapping(node, node.line, f"batchnorm: {name[:80]}")
    for field, fact in facts.items():
        if field not in _FIELDS:
            raise _error(fact.line, f"batchnorm: {name[:80]}: unknown {field[:40]!r}; allowed: {', '.join(_FIELDS)}")
    digests = {
        " ".join(leaves): _digest(facts[field], name)
        for field, leaves in (("affine", AFFINE), ("statistics", STATISTICS))
        if field in facts
    }
    tensors = {leaf: group[leaf] for leaf in LEAVES if leaf in group}
    batches = _number(facts["batches"], name) if "batches" in facts else None
    eps = _number(facts["eps"], name) if "eps" in facts else None
    return PromisedBatchNorm(
        name, tensors, owner, digests=digests, counted=None if batches is None else int(batches), eps=eps
    )


def _digest(node: Node, name: str) -> str:
    digits = node.text(name)
    if len(digits) != DIGITS or digits.strip("0123456789abcdef"):
        raise _error(node.line, f"batchnorm: {name[:80]}: {digits[:40]!r} is no digest")
    return digits


def _number(node: Node, name: str) -> float:
    try:
        number = float(node.text(name))
    except ValueError:
        number = -1.0
    if not 0 <= number < MAX_SIZE:
        raise _error(node.line, f"batchnorm: {name[:80]}: {node.text(name)[:40]!r} is no number")
    return number


class Node:
    """A value of the file and its line: text, or a mapping of names to nodes."""

    __slots__ = ("line", "value")

    def __init__(self, value: str | dict[str, Node], line: int) -> None:
        self.value = value
        self.line = line

    def text(self, what: str) -> str:
        if not isinstance(self.value, str):
            raise _error(self.line, f"{what[:80]}: one value is wanted, not a mapping")
        return self.value


def _section(root: Mapping[str, Node], name: str) -> dict[str, Node]:
    return dict(_mapping(root[name], root[name].line, name)) if name in root else {}


def _mapping(node: Node, line: int, what: str) -> dict[str, Node]:
    if not isinstance(node.value, dict):
        raise _error(line, f"{what} is a mapping")
    return node.value


class _Reader:
    """Builds nodes from the parser's events: mappings of text, and nothing else of YAML."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._root: Node | None = None
        self._open: list[tuple[dict[str, Node], str | None]] = []  # mappings, each with the name that was said last
        self._values = 0

    def read(self) -> Node:
        import yaml

        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        try:
            for event in yaml.parse(self._text, loader):
                self._take(event, event.start_mark.line + 1 if event.start_mark else 1)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line = 1 if mark is None else mark.line + 1
            raise _error(line, f"is not YAML: {error.problem or error.context}") from None
        except yaml.YAMLError:
            raise _error(1, "is not YAML: it holds characters that YAML does not allow") from None
        return self._root or Node("", 1)

    def _take(self, event: yaml.Event, line: int) -> None:
        import yaml

        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) or getattr(event, "tag", None):
            raise _error(line, "a key contract has no anchors, aliases or tags")
        if isinstance(event, yaml.SequenceStartEvent):
            raise _error(line, "a key contract has no lists")
        if isinstance(event, yaml.DocumentStartEvent) and self._root is not None:
            raise _error(line, "a key contract is one YAML document")
        if isinstance(event, yaml.ScalarEvent):
            self._put(Node(event.value, line))
        elif isinstance(event, yaml.MappingStartEvent):
            mapping: dict[str, Node] = {}
            self._put(Node(mapping, line))
            self._open.append((mapping, None))
            if len(self._open) > MAX_DEPTH:
                raise _error(line, "a key contract is not nested so deeply")
        elif isinstance(event, yaml.MappingEndEvent):
            self._open.pop()

    def _put(self, node: Node) -> None:
        """Take the root, a name, or the value of the name before."""
        self._values += 1
        if self._values > 4 * MAX_KEYS:
            raise UnreadableFile("limit", f"a key contract has at most {MAX_KEYS} keys")
        if not self._open:
            self._root = node
            return
        members, name = self._open[-1]
        if name is not None:
            members[name] = node
            self._open[-1] = members, None
            return
        name = node.text("a name")
        if name in members:
            raise _error(node.line, f"{name[:80]!r} is said twice")
        self._open[-1] = members, name


def _error(line: int, message: str) -> UnreadableFile:
    return UnreadableFile("contract", f"line {line}: {message}")
