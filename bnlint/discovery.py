"""Paths, folders and patterns -> the files to look at."""

from __future__ import annotations

import os
from stat import S_ISDIR, S_ISREG

from bnlint.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    Excludes = Callable[[str, bool], bool]

# The names under which checkpoints are met in a folder. A file named on the command line may have any name.
CHECKPOINT_ENDINGS = (
    ".pth", ".pt", ".ckpt", ".safetensors", ".bin", ".pth.tar", ".tar", ".th", ".torch", ".pkl", ".pickle",
    ".jit", ".ptl", ".pt2", ".index.json", ".onnx", ".h5", ".hdf5", ".keras", ".npz", ".npy", ".joblib",
    ".pdparams", ".gguf",
)  # fmt: skip
INDEX_ENDING = ".index.json"
INDEX_LIMIT = 64 << 20  # bytes; the index of a model of 10 000 tensors has one megabyte


class Target:
    """A file to look at. `named` is True where the user gave this very path, not a folder or pattern it is in."""

    __slots__ = ("named", "path")

    def __init__(self, path: str, named: bool = True) -> None:
        self.path = path
        self.named = named

    def __repr__(self) -> str:
        return f"<{self.path}{'' if self.named else ' (met)'}>"


class Discovery:
    """What the given paths come to: files in order, and a sentence for each path that cannot be looked at.

    `empty` has a sentence for each folder or pattern in which there is nothing to check.
    """

    __slots__ = ("_excludes", "_force_exclude", "_seen", "empty", "targets", "trouble")

    def __init__(self, excludes: Excludes, force_exclude: bool = False) -> None:
        self._excludes = excludes
        self._force_exclude = force_exclude
        self._seen: set[str] = set()
        self.targets: list[Target] = []
        self.trouble: list[str] = []
        self.empty: list[str] = []

    def add(self, path: str) -> None:
        """Take in a path as the user wrote it."""
        try:
            mode = os.stat(path).st_mode
        except (OSError, ValueError) as error:
            if _is_pattern(path):
                self._add_pattern(path)
            else:
                self.trouble.append(f"{path}: {_why(path, error)}")
            return
        if S_ISDIR(mode):
            self._add_folder(path)
        elif not S_ISREG(mode):
            self.trouble.append(f"{path}: not a regular file")
        elif not (self._force_exclude and self._excludes(path, False)):
            self._take(path, named=not self._force_exclude)

    def _add_folder(self, folder: str) -> None:
        if self._excludes(folder, True):
            return
        empty = True
        for path in self._walk(folder, os.path.realpath(folder), set()):
            empty = False
            if path is not None:
                self._take(path.removeprefix(os.path.join(os.curdir, "")), named=False)
        if empty:
            self.empty.append(f"{folder}: holds nothing to check")

    def _walk(self, folder: str, top: str, walked: set[tuple[int, int]]) -> Iterator[str | None]:
        """The checkpoints below a folder in the order of their names; None for what is excluded.

        Links are followed out of `top`, where the walk began, and no folder is `walked` twice: links may go
        in circles, and a few of them can make more paths than there are files in the world.
        """
        try:
            status = os.stat(folder)
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            self.trouble.append(f"{folder}: cannot be listed: {error.strerror}")
            return
        here = (status.st_dev, status.st_ino)
        if here in walked:
            return
        walked.add(here)
        shards = _shards([entry.path for entry in entries if entry.name.endswith(INDEX_ENDING)])
        for entry in entries:
            if entry.name.startswith(".") or entry.name == "__pycache__" or entry.path in shards:
                continue
            if os.path.isdir(entry.path):
                if self._excludes(entry.path, True):
                    yield None
                elif not (entry.is_symlink() and _is_within(entry.path, top)):
                    yield from self._walk(entry.path, top, walked)
            elif entry.name.lower().endswith(CHECKPOINT_ENDINGS) and _is_file(entry.path):
                yield None if self._excludes(entry.path, False) else entry.path

    def _add_pattern(self, pattern: str) -> None:
        """A pattern that the shell left as it is: on Windows, in a quoted argument, or from a file of paths."""
        from glob import glob

        matches = sorted(glob(pattern, recursive=True))
        if not matches:
            self.empty.append(f"{pattern}: matches nothing")
        any_name = "." in os.path.basename(pattern)
        for path in matches:
            if os.path.isdir(path):
                if not pattern.endswith("**"):
                    self._add_folder(path)
            elif (any_name or path.lower().endswith(CHECKPOINT_ENDINGS)) and not self._excludes(path, False):
                self._take(path, named=False)

    def _take(self, path: str, named: bool) -> None:
        identity = os.path.abspath(path)
        if identity not in self._seen:
            self._seen.add(identity)
            self.targets.append(Target(path, named))

    def drop_listed_shards(self) -> None:
        """Leave out files that an index among the targets lists: they are checked once, through the index."""
        indexes = [target.path for target in self.targets if target.path.endswith(INDEX_ENDING)]
        if indexes:
            shards = {os.path.abspath(path) for path in _shards(indexes)}
            self.targets = [target for target in self.targets if os.path.abspath(target.path) not in shards]


def discover(
    paths: Sequence[str],
    excludes: Excludes = lambda path, folder: False,
    *,
    force_exclude: bool = False,
    allow_empty: bool = False,
) -> Discovery:
    """The files that `paths` come to. `excludes(path, folder)` is True for a file, or a folder, to leave out.

    A path that does not exist, is no regular file, or is a folder or pattern that holds nothing to check
    becomes a sentence in `trouble`; the last kind does not with `allow_empty`. With `force_exclude` also
    files named outright are left out, and those count as met in a folder:
    hooks name every file. UsageError where there are no paths at all.
    """
    if not paths and not allow_empty:
        raise UsageError("nothing to check: name a file or a folder")
    found = Discovery(excludes, force_exclude)
    for path in paths:
        found.add(path)
    found.drop_listed_shards()
    if not allow_empty:
        found.trouble += found.empty
    return found


def read_paths(source: str) -> list[str]:
    """The paths in a file, or on standard input for "-": separated by NUL bytes if there are any, else by lines."""
    import sys

    try:
        if source == "-":
            data = sys.stdin.buffer.read()
        else:
            with open(source, "rb") as file:
                data = file.read()
    except OSError as error:
        raise UsageError(f"--files-from: {source}: {error.strerror}") from None
    lines = data.split(b"\0") if b"\0" in data else data.splitlines()
    return [os.fsdecode(line) for line in lines if line]


def is_path_file(path: str) -> bool:
    """True for the text `.pth` files that tell Python's site module where packages lie."""
    if not path.endswith(".pth"):
        return False
    if os.path.basename(os.path.dirname(os.path.abspath(path))) in ("site-packages", "dist-packages"):
        return True
    try:
        with open(path, "rb") as file:
            lines = [line.strip() for line in file.read(1 << 16).splitlines()]
    except OSError:
        return False
    telling = [os.fsdecode(line) for line in lines if line and not line.startswith(b"#")]
    return bool(telling) and all(_is_path_line(line, os.path.dirname(path)) for line in telling)


def _is_path_line(line: str, folder: str) -> bool:
    return line.startswith(("import ", "import\t")) or ("\0" not in line and os.path.isdir(os.path.join(folder, line)))


def _shards(indexes: Iterable[str]) -> set[str]:
    """The files that indexes of sharded checkpoints list. What is wrong with an index, its reader says."""
    shards: set[str] = set()
    for index in indexes:
        shards.update(os.path.join(os.path.dirname(index), name) for name in _shard_names(index))
        shards.discard(index)  # an index that lists itself is wrong, and is to be looked at
    return shards


def _shard_names(index: str) -> set[str]:
    from json import loads

    try:
        if not os.path.isfile(index) or os.path.getsize(index) > INDEX_LIMIT:
            return set()
        with open(index, "rb") as file:
            content = loads(file.read())
    except (OSError, ValueError, RecursionError):
        return set()
    weights = content.get("weight_map") if isinstance(content, dict) else None
    names = weights.values() if isinstance(weights, dict) else ()
    # An index speaks about its own folder only: it is not to hide files elsewhere.
    return {name for name in names if isinstance(name, str) and name == os.path.basename(name)}


def _is_file(path: str) -> bool:
    """True for a regular file, and for a link to nothing: that one was to be a file."""
    return os.path.isfile(path) or (os.path.islink(path) and not os.path.exists(path))


def _is_within(path: str, folder: str) -> bool:
    """True where `path` really lies in `folder`, which is a real path."""
    return os.path.join(os.path.realpath(path), "").startswith(os.path.join(folder, ""))


def _is_pattern(path: str) -> bool:
    return any(sign in path for sign in "*?[")


def _why(path: str, error: OSError | ValueError) -> str:
    if isinstance(error, ValueError):
        return "no path: there is a null byte in it"
    if not isinstance(error, FileNotFoundError):
        return error.strerror or str(error)
    return f"a link to {os.readlink(path)}, which does not exist" if os.path.islink(path) else "no such file or folder"
