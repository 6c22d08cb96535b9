"""Things in a folder that are no regular files, and regular files of absurd sizes."""

import os
import socket
from pathlib import Path
from struct import pack

from . import safetensors
from .assembler import MAGIC, integer, legacy, pickled, torch_zip
from .case import Expected, bounded, hostile, refused, sound, unreadable

TROUBLE = Expected((2,))


@hostile(TROUBLE, "model.pth")
def fifo(path: Path) -> None:
    """Opening it would wait for a writer forever."""
    os.mkfifo(path)


@hostile(TROUBLE, "model.pth")
def socket_file(path: Path) -> None:
    """A socket."""
    here = os.getcwd()
    os.chdir(path.parent)  # the name of a socket may have a hundred bytes
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)


@hostile(
    TROUBLE, "model.pth", each={name: f"/dev/{name}" for name in ("zero", "null", "full", "random", "tty", "stdin")}
)
def link_to_a_device(path: Path, device: str) -> None:
    """A link to a device, some of which never end."""
    path.symlink_to(device)


@hostile(TROUBLE, "model.pth")
def link_to_a_fifo(path: Path) -> None:
    """A link to a FIFO beside it."""
    os.mkfifo(path.parent / "pipe")
    path.symlink_to("pipe")


@hostile(TROUBLE, "model.pth")
def link_to_itself(path: Path) -> None:
    """A link in the smallest circle."""
    path.symlink_to("model.pth")


@hostile(TROUBLE, "model.pth")
def link_in_a_circle(path: Path) -> None:
    """Two links to each other."""
    path.symlink_to("other.pth")
    (path.parent / "other.pth").symlink_to("model.pth")


@hostile(TROUBLE, "model.pth")
def link_to_nothing(path: Path) -> None:
    """A link whose target was deleted."""
    path.symlink_to("gone.pth")


@hostile(sound(), "model.pth")
def link_to_a_checkpoint(path: Path) -> None:
    """An honest link, as the cache of the Hugging Face hub makes them."""
    (path.parent / "blob").write_bytes(torch_zip())
    path.symlink_to("blob")


@hostile(TROUBLE, "model.pth")
def empty_folder(path: Path) -> None:
    """An empty folder with a checkpoint's name."""
    path.mkdir()


@hostile(TROUBLE, "model.pth")
def folder_of_nothing_to_check(path: Path) -> None:
    """A folder with a checkpoint's name and no checkpoint in it."""
    path.mkdir()
    (path / "README.md").write_text("nothing here")


@hostile(TROUBLE, "model")
def folder_around_itself(path: Path) -> None:
    """A folder that links to itself."""
    path.mkdir()
    (path / "again").symlink_to("..")


@hostile(Expected((0,)), "model.pth")
def folder_with_a_checkpoint(path: Path) -> None:
    """A folder called model.pth that holds a real one."""
    path.mkdir()
    (path / "real.pth").write_bytes(torch_zip())


def _sparse(path: Path, size: int, *pieces: tuple[int, bytes]) -> None:
    with open(path, "wb") as file:
        file.truncate(size)
        for place, data in pieces:
            file.seek(place)
            file.write(data)


TERA = 1 << 40


@hostile(refused(), nasty=True)
def sparse_zeros(path: Path) -> None:
    """Eight terabytes of nothing."""
    _sparse(path, 8 * TERA)


@hostile(unreadable(""), nasty=True)
def sparse_behind_a_zip_header(path: Path) -> None:
    """The first bytes of a torch zip, then eight terabytes of nothing."""
    _sparse(path, 8 * TERA, (0, torch_zip()[:600]))


@hostile(bounded(), nasty=True)
def sparse_around_a_zip(path: Path) -> None:
    """A whole torch zip, then four terabytes of nothing: its end is nowhere near the end."""
    _sparse(path, 4 * TERA, (0, torch_zip()))


@hostile(unreadable(""), nasty=True)
def sparse_behind_a_legacy_magic(path: Path) -> None:
    """The magic number of old torch, then eight terabytes of nothing."""
    _sparse(path, 8 * TERA, (0, pickled(integer(MAGIC))))


@hostile(sound(), nasty=True)
def sparse_behind_a_legacy_file(path: Path) -> None:
    """A whole file of old torch, then a terabyte of nothing."""
    _sparse(path, TERA, (0, legacy()))


@hostile(bounded(), "model.pkl", nasty=True, each={
    "bytes": b"\x8e" + pack("<Q", TERA), "bytearray": b"\x96" + pack("<Q", TERA), "text": b"\x8d" + pack("<Q", TERA),
})  # fmt: skip
def sparse_value_in_a_pickle(path: Path, opening: bytes) -> None:
    """A pickled value of one terabyte that is really there, as a hole."""
    _sparse(path, TERA + 100, (0, b"\x80\x05" + opening), (TERA + 11, b"."))


@hostile(bounded(), "model.pkl", nasty=True)
def sparse_line_in_a_pickle(path: Path) -> None:
    """A line of text of one terabyte in a pickle of protocol 0."""
    _sparse(path, TERA, (0, b"\x80\x02V"), (TERA - 10, b"\n."))


@hostile(refused(), "model.safetensors", nasty=True)
def sparse_header_of_a_safetensors_file(path: Path) -> None:
    """A header of one terabyte that is really there, as a hole."""
    _sparse(path, TERA + 100, (0, pack("<Q", TERA) + b"{"))


@hostile(unreadable(""), "model.safetensors", nasty=True)
def sparse_data_of_a_safetensors_file(path: Path) -> None:
    """A statistic of one terabyte, honestly told."""
    entry = safetensors.tensor(shape=[TERA // 4], begin=0, end=TERA)
    head = safetensors.file({"bn.running_mean": entry}, b"")
    _sparse(path, len(head) + TERA, (0, head))


@hostile(bounded(), "model.safetensors", nasty=True)
def sparse_weights_of_a_safetensors_file(path: Path) -> None:
    """A weight of one terabyte that nobody needs, behind a layer that somebody does."""
    header = {**safetensors.layer(), "fc.weight": safetensors.tensor(shape=[TERA // 4], begin=64, end=64 + TERA)}
    head = safetensors.file(header)
    _sparse(path, len(head) + TERA, (0, head))


@hostile(bounded(), "model.pth", each={name: f"/proc/{name}" for name in ("version", "self/status", "self/maps")})
def proc_file(path: Path, target: str) -> None:
    """A regular file that says it is empty and is not."""
    path.symlink_to(target)
