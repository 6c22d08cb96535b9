"""Torch's zip archives, written since torch 1.6, and the TorchScript archives that look the same."""

from __future__ import annotations

from bnlint.errors import UnreadableFile
from bnlint.readers.pickle_machine import PickleMachine
from bnlint.readers.source import MemorySource
from bnlint.readers.storages import TypedStorage, storage_dtype, storage_key, storage_size
from bnlint.readers.values import Loaded
from bnlint.readers.zip_archive import ZipArchive

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from bnlint.readers.source import ByteSource

CODE_LIMIT = 16 << 20  # bytes of a source text
_RECORD_BYTES = 400  # what the directory takes for each record
_OBJECT = "data.pkl"
_CONSTANTS = "constants.pkl"  # every TorchScript archive has it, no other


def load(source: ByteSource, parent: PickleMachine | None = None) -> Loaded:
    """The object in the archive, and the constants and source texts of TorchScript.

    UnreadableFile where the bytes are not what they say they are; its code is `unsupported` for a zip
    archive of something else. `parent` is the machine in whose pickle this file is nested.
    """
    archive = ZipArchive(source)
    if parent is not None:
        parent.charge(_RECORD_BYTES * len(archive.entries))
    folder = _folder(archive)
    big_endian = _big_endian(archive, folder)
    notes = _notes(archive, folder, big_endian)
    refused = _why_torch_refuses(archive, folder)
    facts: dict[str, object] = {}
    if refused:
        notes.append(f"torch does not load this file: {refused}")
        facts["torch_refuses"] = refused
    if folder + _CONSTANTS in archive.entries:
        script = _load_script(archive, folder, big_endian, notes, parent)
        script.facts = facts
        return script
    machine, root = _run(archive, folder, _OBJECT, "data/", big_endian, parent)
    if machine.position < machine.source.size:
        notes.append(f"{machine.source.size - machine.position} bytes follow the object in data.pkl")
    if machine.python2:
        facts["python2"] = True
    return Loaded("torch-zip", root, globals=list(machine.globals.values()), facts=facts, notes=notes)


def _load_script(
    archive: ZipArchive, folder: str, big_endian: bool, notes: list[str], parent: PickleMachine | None
) -> Loaded:
    machine, root = _run(archive, folder, _OBJECT, "data/", big_endian, parent)
    _, constants = _run(archive, folder, _CONSTANTS, "constants/", big_endian, machine)
    code = {
        name[len(folder) :]: _text(archive, name)
        for name in archive.entries
        if name.startswith(f"{folder}code/") and name.endswith(".py")
    }
    return Loaded(
        "torchscript",
        root,
        globals=list(machine.globals.values()),
        notes=notes,
        code=code,
        parts={"constants": constants},
    )


def _run(
    archive: ZipArchive,
    folder: str,
    name: str,
    storages: str,
    big_endian: bool,
    parent: PickleMachine | None = None,
) -> tuple[PickleMachine, object]:
    pickle = archive.read(folder + name)
    records = _Records(archive, folder + storages, big_endian)
    machine = PickleMachine(MemorySource(pickle), persistent=records.persistent, parent=parent)
    return machine, machine.load()


def _text(archive: ZipArchive, name: str) -> Callable[[], str]:
    return lambda: archive.read(name, CODE_LIMIT).decode("utf-8", "replace")


class _Records:
    """The storages of the archive: a record each, named by its key."""

    def __init__(self, archive: ZipArchive, folder: str, big_endian: bool) -> None:
        self._archive = archive
        self._folder = folder
        self._big_endian = big_endian
        self._typed: dict[str, TypedStorage] = {}

    def persistent(self, identity: object) -> TypedStorage:
        """("storage", type, key, device, elements[, None]). A second type for a key is ignored, as in torch."""
        if type(identity) is not tuple or identity[:1] not in (("storage",), (b"storage",)) or len(identity) < 5:
            raise UnreadableFile("pickle", "the pickle refers to something that is no storage")
        _, storage_type, key, _, elements = identity[:5]
        key = storage_key(key)
        found = self._typed.get(key)
        if found is None or not found.nbytes:
            dtype = storage_dtype(storage_type)
            nbytes = storage_size(elements, dtype)
            record = self._archive.storage(self._folder + key, self._big_endian)
            if nbytes > record.nbytes:
                raise UnreadableFile(
                    "bounds", f"storage {key[:40]!r} has {record.nbytes} bytes, the pickle says {nbytes}"
                )
            found = self._typed[key] = TypedStorage(dtype, nbytes, record)
        return found


def _folder(archive: ZipArchive) -> str:
    """The folder of the archive that holds everything, with its slash; UnreadableFile where there is none."""
    folders = [
        name[: -len(_OBJECT)] for name in archive.entries if name.count("/") == 1 and name.endswith(f"/{_OBJECT}")
    ]
    if len(folders) > 1:
        raise UnreadableFile("zip", "the archive has more than one data.pkl")
    if folders:
        return folders[0]
    if _OBJECT in archive.entries:
        return ""
    raise UnreadableFile("unsupported", "a zip archive without data.pkl: no checkpoint that torch wrote")


def _big_endian(archive: ZipArchive, folder: str) -> bool:
    if f"{folder}byteorder" not in archive.entries:
        return False
    order = archive.read(f"{folder}byteorder", 64)
    if order not in (b"little", b"big"):
        raise UnreadableFile("corrupt", f"the archive's byte order is {order[:20]!r}")
    return order == b"big"


def _notes(archive: ZipArchive, folder: str, big_endian: bool) -> list[str]:
    notes = []
    if big_endian:
        notes.append("the archive is big-endian")
    if archive.trailing:
        notes.append(f"{archive.trailing} bytes follow the archive")
    return notes


def _why_torch_refuses(archive: ZipArchive, folder: str) -> str:
    """What torch asks of an archive and this one lacks, though all is there to be read; "" where it loads."""
    if not folder:
        return "data.pkl lies at the root of the archive"
    known = f"{folder}version" in archive.entries or f"{folder}.data/version" in archive.entries
    return "" if known else "the archive has no version record"
