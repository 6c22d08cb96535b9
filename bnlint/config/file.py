"""A configuration file as values that know where they stand: YAML by its events, pyproject.toml beside it."""

from __future__ import annotations

import os

from bnlint.config.search import PYPROJECT
from bnlint.errors import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import yaml

MAX_BYTES = 1 << 20
MAX_VALUES = 20_000  # what an alias stands for counts each time
MAX_DEPTH = 16
TOML_TABLE = ("tool", "bnlint")


class Place:
    """A position in a configuration file; line and column count from 1."""

    __slots__ = ("column", "file", "line")

    def __init__(self, file: str, line: int = 1, column: int = 1) -> None:
        self.file = file
        self.line = line
        self.column = column

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"

    def error(self, message: str) -> ConfigError:
        """What is wrong here, ready to be raised."""
        return ConfigError(f"{self}: {message}")


class Node:
    """A value and its place: a scalar, a list of nodes, or a mapping of names to nodes.

    `key` is the place of the name that a mapping gives the value, and the value's own place elsewhere.
    """

    __slots__ = ("key", "place", "value")

    def __init__(self, value: object, place: Place, key: Place | None = None) -> None:
        self.value = value
        self.place = place
        self.key = key or place


def read(path: str, shown: str | None = None) -> Node | None:
    """What a configuration file says; None for a pyproject.toml without [tool.bnlint].

    `shown` is what messages call the file. ConfigError where it cannot be read, or says the same thing
    twice.
    """
    shown = shown or shown_path(path)
    data = _bytes(path, shown)
    if os.path.basename(path) == PYPROJECT:
        return _pyproject(data, shown)
    if path.endswith(".toml"):
        raise Place(shown).error(f"a configuration is YAML, or [tool.bnlint] in {PYPROJECT}")
    return _Yaml(shown).read(_text(data, shown))


def shown_path(path: str) -> str:
    """A path as messages name it: relative where it lies below the working directory."""
    try:
        relative = os.path.relpath(path)
    except ValueError:  # Windows: another drive
        return path
    return path if relative.startswith(os.pardir) else relative


def _bytes(path: str, shown: str) -> bytes:
    try:
        if not os.path.isfile(path):  # a pipe would block
            raise ConfigError(f"{shown}: no such file" if not os.path.exists(path) else f"{shown}: no regular file")
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{shown}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if len(data) > MAX_BYTES:
        raise ConfigError(f"{shown}: a configuration has at most {MAX_BYTES} bytes")
    return data


def _text(data: bytes, shown: str) -> str:
    data = data.removeprefix(b"\xef\xbb\xbf")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - (data.rfind(b"\n", 0, error.start) + 1) + 1
        raise Place(shown, line, column).error("a configuration is UTF-8 text") from None


# -- YAML -----------------------------------------------------------------------------------------


class _Yaml:
    """Builds nodes from the parser's events, because its own composer recurses in C: depth crashes it."""

    def __init__(self, shown: str) -> None:
        self.shown = shown
        self.anchors: dict[str, Node] = {}
        self.count = 0

    def read(self, text: str) -> Node:
        import yaml

        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        try:
            return self._document(yaml.parse(text, loader))
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            place = Place(self.shown, mark.line + 1, mark.column + 1) if mark else Place(self.shown)
            raise place.error(f"this is not YAML: {error.problem or error.context or error}") from None
        except yaml.YAMLError as error:
            raise Place(self.shown).error(f"this is not YAML: {str(error).splitlines()[0]}") from None

    def _document(self, events: Iterable[yaml.Event]) -> Node:
        """The one document of the file. `open` holds the lists and mappings that have not ended yet."""
        import yaml

        document: Node | None = None
        open: list[_Collection] = []
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                if document is not None:
                    raise self._place(event).error("a configuration is one YAML document")
            elif isinstance(event, yaml.CollectionStartEvent):
                if len(open) == MAX_DEPTH:
                    raise self._place(event).error(f"this is nested deeper than {MAX_DEPTH} levels")
                self._refuse_tag(event)
                open.append(_Collection(self._place(event), isinstance(event, yaml.MappingStartEvent), event.anchor))
            elif isinstance(event, (yaml.ScalarEvent, yaml.AliasEvent, yaml.CollectionEndEvent)):
                if isinstance(event, yaml.CollectionEndEvent):
                    ended = open.pop()
                    node, anchor = ended.node, ended.anchor
                elif isinstance(event, yaml.AliasEvent):
                    node, anchor = self._alias(event), None
                else:
                    node, anchor = self._scalar(event), event.anchor
                if anchor:
                    self.anchors[anchor] = node
                if open:
                    open[-1].add(node)
                else:
                    document = node
        return document if document is not None else Node({}, Place(self.shown))

    def _scalar(self, event: yaml.ScalarEvent) -> Node:
        self._refuse_tag(event)
        self._grow(1, self._place(event))
        return Node(_plain(event.value) if event.implicit[0] else event.value, self._place(event))

    def _alias(self, event: yaml.AliasEvent) -> Node:
        place = self._place(event)
        if event.anchor not in self.anchors:
            raise place.error(f"*{event.anchor} stands for nothing: no &{event.anchor} ends before it")
        named = self.anchors[event.anchor]
        self._grow(_size(named), place)
        return Node(named.value, place)

    def _grow(self, count: int, place: Place) -> None:
        self.count += count
        if self.count > MAX_VALUES:
            raise place.error(f"a configuration has at most {MAX_VALUES} values")

    def _refuse_tag(self, event: yaml.ScalarEvent | yaml.CollectionStartEvent) -> None:
        if event.tag not in (None, "!", "tag:yaml.org,2002:str"):
            raise self._place(event).error("tags have no meaning in a configuration")

    def _place(self, event: yaml.Event) -> Place:
        mark = event.start_mark
        return Place(self.shown, mark.line + 1, mark.column + 1) if mark else Place(self.shown)


class _Collection:
    """A list or mapping while its members arrive."""

    __slots__ = ("anchor", "name", "node")

    def __init__(self, place: Place, mapping: bool, anchor: str | None) -> None:
        self.node = Node({} if mapping else [], place)
        self.anchor = anchor
        self.name: Node | None = None  # the name whose value comes next

    def add(self, node: Node) -> None:
        members = self.node.value
        if isinstance(members, list):
            members.append(node)
        elif isinstance(members, dict):
            if self.name is None:
                self.name = _name(node, members)
            else:
                members[self.name.value] = Node(node.value, node.place, self.name.place)
                self.name = None


def _name(node: Node, members: dict[str, Node]) -> Node:
    """A name in a mapping: text that was not there before."""
    name = node.value
    if not isinstance(name, str):
        raise node.place.error("a name is text")
    if name == "<<":
        raise node.place.error("merge keys have no meaning in a configuration; `extends` takes over a whole file")
    if name in members:
        raise node.place.error(f"{name} is said twice, first on line {members[name].key.line}")
    return Node(name, node.place)


def _size(node: Node) -> int:
    """How many values a node holds, itself included."""
    members = node.value
    if isinstance(members, dict):
        return 1 + sum(map(_size, members.values()))
    return 1 + sum(map(_size, members)) if isinstance(members, list) else 1


_WORDS: dict[str, object] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **{word: value for stem, value in (("true", True), ("yes", True), ("on", True), ("false", False),
                                       ("no", False), ("off", False))
       for word in (stem, stem.title(), stem.upper())},
}  # fmt: skip


def _plain(text: str) -> object:
    """What an unquoted YAML scalar means. 1e-5 is a number here, as everybody expects, and 1:30 is not."""
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in "+-.0123456789" or not text.isascii() or text.lstrip("+-")[:1] in ("i", "n", "I", "N"):
        return text
    number = _reading(int, text)
    return _reading(float, text) if number is text else number


def _reading(kind: Callable[[str], object], text: str) -> object:
    try:
        return kind(text)
    except ValueError:
        return text


# -- pyproject.toml ---------------------------------------------------------------------------------


def _pyproject(data: bytes, shown: str) -> Node | None:
    if b"bnlint" not in data:
        return None
    text = _text(data, shown)
    places = _toml_places(text, shown)
    if not _may_be_about_bnlint(text, places):
        return None
    import sys

    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib  # type: ignore[import-not-found, unused-ignore]

    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _toml_place(error, shown).error(f"this is not TOML: {error}") from None
    except RecursionError:
        raise Place(shown).error("this is nested too deep") from None
    tool = table.get("tool")
    if not isinstance(tool, dict) or "bnlint" not in tool:
        return None
    return _located(tool["bnlint"], TOML_TABLE, places, Place(shown))


def _may_be_about_bnlint(text: str, places: dict[tuple[str, ...], Place]) -> bool:
    """False for a project that only depends on bnlint: tomllib takes 10 ms to import.

    What lies in one line with its table, or after a string of several lines, only tomllib can tell.
    """
    return (
        any(path[:2] == TOML_TABLE for path in places)
        or any(path[0] == "tool" and "bnlint" in text.splitlines()[place.line - 1] for path, place in places.items())
        or '"""' in text
        or "'''" in text
    )


def _toml_place(error: Exception, shown: str) -> Place:
    """Where TOML broke; the message says it in words before Python 3.14."""
    from re import search

    found = search(r"at line (\d+), column (\d+)", str(error))
    return Place(shown, int(found[1]), int(found[2])) if found else Place(shown)


def _toml_places(text: str, shown: str) -> dict[tuple[str, ...], Place]:
    """Where each table and each key at the start of a line stands; what lies inside a line stands at its key."""
    places: dict[tuple[str, ...], Place] = {}
    arrays: dict[tuple[str, ...], int] = {}  # the last index of each array of tables
    table: tuple[str, ...] = ()
    for number, line in enumerate(text.splitlines(), start=1):
        stripped = line.lstrip()
        place = Place(shown, number, len(line) - len(stripped) + 1)
        if stripped.startswith("[["):
            array = _toml_key(stripped.strip("[").partition("]")[0], arrays, open=True)
            arrays[array] = arrays.get(array, -1) + 1
            table = (*array, str(arrays[array]))
            places[table] = place
        elif stripped.startswith("["):
            table = _toml_key(stripped.strip("[").partition("]")[0], arrays)
            places[table] = place
        elif "=" in stripped and not stripped.startswith("#"):
            places.setdefault((*table, *_toml_key(stripped.partition("=")[0], {})), place)
    return places


def _toml_key(text: str, arrays: dict[tuple[str, ...], int], open: bool = False) -> tuple[str, ...]:
    """The path of a dotted key, with the index of the last table where it goes through an array of tables."""
    parts = [part.strip().strip("\"'") for part in text.split(".")]
    path: tuple[str, ...] = ()
    for number, part in enumerate(parts, start=1):
        path = (*path, part)
        if path in arrays and not (open and number == len(parts)):
            path = (*path, str(arrays[path]))
    return path


def _located(value: object, path: tuple[str, ...], places: dict[tuple[str, ...], Place], outer: Place) -> Node:
    place = places.get(path, outer)
    if isinstance(value, dict):
        return Node({name: _located(each, (*path, name), places, place) for name, each in value.items()}, place)
    if isinstance(value, list):
        members = [_located(each, (*path, str(number)), places, place) for number, each in enumerate(value)]
        return Node(members, place)
    if value is not None and not isinstance(value, (bool, int, float, str)):
        value = str(value)  # a date: 2027-06-30
    return Node(value, place)
