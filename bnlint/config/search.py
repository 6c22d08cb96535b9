"""Which files a configuration is made of: the one found from the working directory, and all that it extends."""

from __future__ import annotations

import os

from bnlint.errors import ConfigError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bnlint.config.file import Node

YAML_NAMES = (".bnlint.yaml", ".bnlint.yml", "bnlint.yaml")
PYPROJECT = "pyproject.toml"


def search() -> tuple[str, str | None]:
    """The root of this run, and its configuration file if there is one.

    The nearest YAML from the working directory up to the repository's root, else the nearest
    pyproject.toml with [tool.bnlint]. Outside a repository only the working directory is looked at.
    """
    start = _working_directory()
    folders = _folders_of_repository(start)
    for folder in folders or [start]:
        found = _yaml_in(folder)
        if found is not None:
            return folder, found
    for folder in folders or [start]:
        found = os.path.join(folder, PYPROJECT)
        if os.path.isfile(found):
            from bnlint.config.file import read

            if read(found) is not None:
                return folder, found
    return (folders[-1] if folders else start), None


def _working_directory() -> str:
    try:
        return os.getcwd()
    except FileNotFoundError:
        raise UsageError("the working directory does not exist any more") from None


def _folders_of_repository(start: str) -> list[str]:
    """The folders from `start` up to the root of its repository; none outside a repository."""
    folders, folder = [], start
    while True:
        folders.append(folder)
        if os.path.exists(os.path.join(folder, ".git")):
            return folders
        parent = os.path.dirname(folder)
        if parent == folder:
            return []
        folder = parent


def _yaml_in(folder: str) -> str | None:
    found = [path for path in (os.path.join(folder, name) for name in YAML_NAMES) if os.path.isfile(path)]
    if len(found) > 1:
        names = " and ".join(os.path.basename(path) for path in found)
        raise ConfigError(f"{folder}: there are {names}; keep one")
    return found[0] if found else None


def root_of(path: str) -> str:
    """The folder of a configuration named on the command line, where the working directory is in it.

    Elsewhere (a shared file, ci/bnlint.yaml) its patterns are about the repository one works in.
    """
    start = _working_directory()
    folder = os.path.dirname(os.path.abspath(path))
    if start == folder or start.startswith(os.path.join(folder, "")):
        return folder
    folders = _folders_of_repository(start)
    return folders[-1] if folders else start


def chain(path: str | None, preset: str | None) -> list[Node]:
    """The configuration in `path` and all that it extends, the last one extended first.

    `preset` is where to start from, in place of the one that the files name.
    """
    from bnlint.config.file import read
    from bnlint.config.sections import KEYS, PRESETS, entries, text
    from bnlint.nearest import did_you_mean

    if preset is not None and preset not in PRESETS:
        allowed = ", ".join(PRESETS)
        raise UsageError(f"--preset: there is no {preset}; allowed: {allowed}{did_you_mean(preset, PRESETS)}")
    nodes: list[Node] = []
    seen: set[str] = set()
    while path is not None:
        seen.add(os.path.realpath(path))
        node = read(path)
        if node is None:
            raise ConfigError(f"{path}: there is no [tool.bnlint] in it")
        nodes.append(node)
        extends = entries(node, "a configuration", KEYS).get("extends")
        if extends is None:
            break
        word = text(extends, "extends")
        if word in PRESETS:
            preset = preset or word
            break
        path = _extended(path, word, extends, seen)
    if preset is not None:
        starting_point = read(_preset_file(preset), f"preset {preset}")
        assert starting_point is not None  # only a pyproject.toml can be about something else
        nodes.append(starting_point)
    return nodes[::-1]


def _extended(path: str, word: str, extends: Node, seen: set[str]) -> str:
    """The file that `path` extends by the name of `word`."""
    from bnlint.config.sections import PRESETS
    from bnlint.nearest import did_you_mean

    extended = os.path.join(os.path.dirname(path), word)
    if os.path.realpath(extended) in seen:
        raise extends.place.error("extends goes in a circle")
    if not os.path.isfile(extended):
        hint = did_you_mean(word, PRESETS)
        raise extends.place.error(f"extends: {word} is no file; presets are {', '.join(PRESETS)}{hint}")
    return extended


def _preset_file(name: str) -> str:
    return os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "presets", f"{name}.yaml")
