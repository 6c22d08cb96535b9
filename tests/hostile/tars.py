"""Files of torch before 0.1.10: a tar of sys_info, pickle, storages and tensors."""

import io
import pickle as op
import tarfile
from collections.abc import Mapping
from struct import pack

from .assembler import (
    BIAS,
    MEAN,
    VAR,
    WEIGHT,
    dict_of,
    integer,
    list_of,
    named,
    ordered_dict,
    pickled,
    text,
    tuple_of,
)
from .case import bounded, hostile, refused, sound, unreadable

DAMAGED = (
    "truncat|ends|short|beyond|past|outside|missing|storage|count|bytes|pickle|negative|tar|member|dimension|limit|"
    "lacks|without|size|stride"
)
VECTORS = {"weight": WEIGHT, "bias": BIAS, "running_mean": MEAN, "running_var": VAR}


def storages(count: int = 4, numel: int = 4, views: bytes | None = None) -> bytes:
    told = [pickled(integer(count))]
    for number, values in enumerate(VECTORS.values()):
        told.append(pickled(tuple_of(integer(100 + number), text("cpu"), named("torch", "FloatStorage"))))
        told.append(pack("<q", numel) + pack("<4f", *values))
    return b"".join(told) + (pickled(list_of()) if views is None else views)


def tensors(count: int = 4, rank: int = 1, size: int = 4, stride: int = 1, offset: int = 0, root: int = 100) -> bytes:
    told = [pickled(integer(count))]
    for number in range(4):
        told.append(pickled(tuple_of(integer(200 + number), integer(root + number), named("torch", "FloatTensor"))))
        told.append(pack("<i4x", rank) + pack("<3q", size, stride, offset))
    return b"".join(told)


def root() -> bytes:
    return pickled(
        ordered_dict([(text(f"bn.{leaf}"), integer(200 + n) + op.BINPERSID) for n, leaf in enumerate(VECTORS)])
    )


def members(**changed: bytes) -> dict[str, bytes]:
    honest = {"sys_info": pickled(dict_of([])), "pickle": root(), "storages": storages(), "tensors": tensors()}
    return honest | changed


def tar(files: Mapping[str, bytes], *, kind: bytes = tarfile.REGTYPE) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:", format=tarfile.PAX_FORMAT) as made:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.type, info.linkname = len(data) if kind == tarfile.REGTYPE else 0, kind, "/etc/passwd"
            made.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


@hostile(sound(), "model.pth.tar")
def honest() -> bytes:
    """A file as torch of 2016 wrote it."""
    return tar(members())


_WHOLE = tar(members())


@hostile(refused(), "model.pth.tar", each={str(size): size for size in (257, 400, 512, 700, 1024, 1600, 2560, 3000)})
def truncated(size: int) -> bytes:
    """Cut off in headers and members."""
    return _WHOLE[:size]


@hostile(refused(DAMAGED), "model.pth.tar", each={name: name for name in ("pickle", "storages", "tensors")})
def member_missing(name: str) -> bytes:
    """One of the members that torch needs is not there."""
    return tar({key: data for key, data in members().items() if key != name})


@hostile(
    unreadable(DAMAGED),
    "model.pth.tar",
    each={
        "more_storages_than_there_are": {"storages": storages(count=1000)},
        "negative_storages": {"storages": storages(count=-1)},
        "2_62_storages": {"storages": storages(count=1 << 62)},
        "fewer_storages": {"storages": storages(count=1)},
        "numel_too_large": {"storages": storages(numel=1 << 40)},
        "numel_negative": {"storages": storages(numel=-1)},
        "more_tensors": {"tensors": tensors(count=1000)},
        "fewer_tensors": {"tensors": tensors(count=1)},
        "rank_2_31": {"tensors": tensors(rank=(1 << 31) - 1)},
        "rank_negative": {"tensors": tensors(rank=-1)},
        "size_2_62": {"tensors": tensors(size=1 << 62)},
        "size_negative": {"tensors": tensors(size=-4)},
        "stride_2_62": {"tensors": tensors(stride=1 << 62)},
        "offset_beyond": {"tensors": tensors(offset=100)},
        "offset_negative": {"tensors": tensors(offset=-1)},
        "unknown_storage": {"tensors": tensors(root=900)},
        "storages_empty": {"storages": b""},
        "tensors_empty": {"tensors": b""},
        "pickle_empty": {"pickle": b""},
        "pickle_broken": {"pickle": root()[:40]},
    },
)
def member(changed: dict[str, bytes]) -> bytes:
    """A member lies."""
    return tar(members(**changed))


@hostile(
    bounded(),
    "model.pth.tar",
    each={
        "views_of_nothing": {"storages": storages(views=pickled(integer(1)))},
        "views_outside": {"storages": storages(views=pickled(list_of(tuple_of(*map(integer, (9, 100, 99, 99))))))},
        "views_of_themselves": {
            "storages": storages(views=pickled(list_of(tuple_of(*map(integer, (100, 100, 0, 4))))))
        },
        "sys_info_broken": {"sys_info": b"\xff"},
        "ids_of_text": {"pickle": pickled(ordered_dict([(text("bn.running_var"), text("x") + op.BINPERSID)]))},
        "ids_of_nobody": {"pickle": pickled(ordered_dict([(text("bn.running_var"), integer(9) + op.BINPERSID)]))},
    },
)
def odd_member(changed: dict[str, bytes]) -> bytes:
    """A member that torch may read otherwise."""
    return tar(members(**changed))


@hostile(
    refused(), "model.pth.tar", each={"symbolic": tarfile.SYMTYPE, "hard": tarfile.LNKTYPE, "device": tarfile.CHRTYPE}
)
def members_are_links(kind: bytes) -> bytes:
    """Links to /etc/passwd in place of the members."""
    return tar(members(), kind=kind)


@hostile(refused(), "model.pth.tar")
def tar_of_something_else() -> bytes:
    """Somebody's backup."""
    return tar({"home/notes.txt": b"milk\n" * 100, "home/photo.jpg": b"\xff\xd8\xff" * 100})


@hostile(bounded(), "model.pth.tar")
def tar_around_a_checkpoint() -> bytes:
    """A torch zip inside a tar: somebody packed it."""
    from .assembler import torch_zip

    return tar({"model.pth": torch_zip()})


def _patched(place: int, data: bytes) -> bytes:
    """The honest tar with some bytes of its first header changed and the checksum put right."""
    header = bytearray(_WHOLE[:512])
    header[place : place + len(data)] = data
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + _WHOLE[512:]


@hostile(
    refused(),
    "model.pth.tar",
    each={
        "size_2_33": _patched(124, b"77777777777\0"),
        "size_base_256": _patched(124, b"\x80" + b"\xff" * 11),
        "size_negative": _patched(124, b"\xff" * 12),
        "size_of_letters": _patched(124, b"abcdefghijk\0"),
    },
)
def header(data: bytes) -> bytes:
    """The header of the first member lies."""
    return data


@hostile(bounded(), "model.pth.tar")
def wrong_checksum() -> bytes:
    """Python's tarfile refuses it, tar itself only warns."""
    return _WHOLE[:148] + b"000000\0 " + _WHOLE[156:]


@hostile(refused(), "model.pth.tar", nasty=True)
def ten_thousand_members() -> bytes:
    """Ten thousand empty members and none that counts."""
    return tar({f"member{n}": b"" for n in range(10_000)})


@hostile(refused(), "model.pth.tar", nasty=True)
def extended_header_of_ten_megabytes() -> bytes:
    """A PAX header with a name of ten megabytes."""
    return tar({"n" * 10_000_000: b""})
