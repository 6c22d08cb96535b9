"""Torch zip archives whose directory, headers or entries are broken or lie."""

import zlib
from collections.abc import Sequence
from struct import pack

from .assembler import (
    Directory,
    Entry,
    archive,
    archive_parts,
    layer,
    list_of,
    pickled,
    state_dict,
    torch_entries,
    torch_zip,
)
from .case import bounded, hostile, refused, sound, unreadable

TRUNCATED = r"truncat|ends|cut|short|past|beyond|outside|missing|not there|no end|no central|directory|damaged"
OUTSIDE = (
    r"runs into|empty|outside|beyond|past|end of|only|truncat|lies|directory|header|offset|overlap|not there|does not"
)


def compressed(data: bytes, size: int | None = None) -> tuple[bytes, int]:
    """A deflate stream, and the size it claims to inflate to."""
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    return deflate.compress(data) + deflate.flush(), len(data) if size is None else size


def deflated(entry: Entry, size: int | None = None) -> Entry:
    data, claimed = compressed(entry.data, size)
    return entry.but(data=data, method=8, size=claimed)


def changed(name_end: str, **fields: object) -> list[Entry]:
    """A healthy archive but for one entry."""
    return [entry.but(**fields) if str(entry.name).endswith(name_end) else entry for entry in torch_entries()]


# -- cut off -----------------------------------------------------------------------------------------

_PARTS = archive_parts(torch_entries())
_BOUNDARIES = {f"after_part_{number}": len(b"".join(_PARTS[:number])) for number in range(1, len(_PARTS) - 1)}
_INSIDE = {
    "in_local_header": 20,
    "in_data_pkl": len(_PARTS[0]) + 100,
    "in_central_header": len(b"".join(_PARTS[:-3])) - 20,
    "in_end_record": len(b"".join(_PARTS)) - 10,
    "by_one_byte": len(b"".join(_PARTS)) - 1,
}


@hostile(lambda size: refused() if size < 200 else unreadable(TRUNCATED), each=_BOUNDARIES | _INSIDE)
def truncated(size: int) -> bytes:
    """An archive that was cut off, at every structural boundary and inside every structure."""
    return torch_zip()[:size]


# -- the end of the directory lies -------------------------------------------------------------------


@hostile(
    unreadable(OUTSIDE),
    each={
        "no_entries": Directory(entries=0),
        "too_many_entries": Directory(entries=60000),
        "too_few_entries": Directory(entries=3),
        "offset_beyond_the_file": Directory(offset=1 << 30),
        "offset_in_the_data": Directory(offset=64),
        "size_beyond_the_file": Directory(size=1 << 30),
        "size_zero": Directory(size=0),
    },
)
def directory_lies(directory: Directory) -> bytes:
    """The end record names a directory that is not there."""
    return archive(torch_entries(), directory)


@hostile(bounded(), each={"disk_1": Directory(disk=1), "longer_comment": Directory(comment=b"abc", comment_length=900)})
def directory_odd(directory: Directory) -> bytes:
    """An end record that zip tools disagree about."""
    return archive(torch_entries(), directory)


@hostile(bounded())
def end_record_inside_the_comment() -> bytes:
    """Two readers find two directories: the comment of the archive is another end record."""
    empty_directory = pack("<4s4H2IH", b"PK\5\6", 0, 0, 0, 0, 0, 0, 0)
    return archive(torch_entries(), Directory(comment=empty_directory))


@hostile(bounded())
def two_archives_in_a_row() -> bytes:
    """The offsets of the second archive are relative to its own start."""
    return torch_zip() + torch_zip()


@hostile(sound())
def trailing_junk() -> bytes:
    """A thousand bytes after the end record; torch reads it without a word."""
    return torch_zip() + b"\0" * 1000


@hostile(refused())
def behind_other_bytes() -> bytes:
    """A zip glued behind something else: a zip for zip tools, not for torch."""
    return b"#!/bin/sh\nexit\n" + torch_zip()


@hostile(
    unreadable("zip64|directory|offset|beyond|outside|past|end of"), each={"beyond": 1 << 40, "huge": (1 << 64) - 1}
)
def zip64_locator(offset: int) -> bytes:
    """The zip64 locator points where no zip64 record can be."""
    locator = pack("<4sIQI", b"PK\6\7", 0, offset, 1)
    return archive(torch_entries(), Directory(entries=0xFFFF, size=0xFFFFFFFF, offset=0xFFFFFFFF, before=locator))


def _zip64(entries: Sequence[Entry], count: int, size: int | None = None) -> bytes:
    parts = archive_parts(entries)
    body, central = b"".join(parts[: 2 * len(entries)]), b"".join(parts[2 * len(entries) : -3])
    told = len(central) if size is None else size
    record = pack("<4sQ2H2I4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, told, len(body))
    locator = pack("<4sIQI", b"PK\6\7", 0, len(body) + len(central), 1)
    return archive(entries, Directory(entries=0xFFFF, size=0xFFFFFFFF, offset=0xFFFFFFFF, before=record + locator))


@hostile(sound())
def zip64_honest() -> bytes:
    """A small archive with zip64 records."""
    return _zip64(torch_entries(), len(torch_entries()))


@hostile(unreadable(OUTSIDE + "|entries|limit"), each={"count": (1 << 64) - 1, "count_2_63": 1 << 63})
def zip64_entries(count: int) -> bytes:
    """A zip64 record that claims more entries than the universe has bytes."""
    return _zip64(torch_entries(), count)


@hostile(unreadable(OUTSIDE + "|limit"))
def zip64_directory_size() -> bytes:
    """A zip64 record whose directory has 2^63 bytes."""
    return _zip64(torch_entries(), len(torch_entries()), 1 << 63)


@hostile(sound())
def zip64_entry() -> bytes:
    """An entry whose sizes stand in a zip64 field, as torch writes them over 4 GB."""
    claims = layer()
    extra = pack("<2HQQ", 1, 16, 16, 16)
    wanted = "data/" + claims["bn.running_var"].key
    return archive(changed(wanted, size=0xFFFFFFFF, compressed_size=0xFFFFFFFF, extra=extra))


@hostile(
    unreadable(OUTSIDE + "|zip64|extra|size|bytes"),
    each={
        "huge": pack("<2HQQ", 1, 16, 1 << 63, 1 << 63),
        "short": pack("<2HI", 1, 4, 7),
        "length_lies": pack("<2HQ", 1, 4000, 16),
        "absent": b"",
    },
)
def zip64_field(extra: bytes) -> bytes:
    """An entry whose sizes are in a zip64 field that lies."""
    return archive(changed("data/3", size=0xFFFFFFFF, compressed_size=0xFFFFFFFF, extra=extra))


# -- entries lie -------------------------------------------------------------------------------------


@hostile(
    unreadable(OUTSIDE + "|size|bytes|deflate|stored|encrypt|method|compress|duplicate|twice|name"),
    each={
        "size_beyond_the_file": {"size": 1 << 31, "compressed_size": 1 << 31},
        "sizes_differ_though_stored": {"size": 4000},
        "offset_beyond_the_file": {"offset": 1 << 31},
        "offset_at_no_header": {"offset": 7},
        "offset_of_another_entry": {"offset": 0},
        "encrypted": {"flags": 0x0809},
        "method_bzip2": {"method": 12},
        "method_unknown": {"method": 4711},
        "local_extra_beyond_the_file": {"local_extra_length": 65535},
        "central_name_too_long": {"name_length": 65000},
        "central_extra_too_long": {"extra_length": 65000},
        "central_comment_too_long": {"comment_length": 65000},
    },
)
def statistics_entry(fields: dict[str, object]) -> bytes:
    """The entry of a statistic lies about itself."""
    return archive(changed("data/3", **fields))


@hostile(
    unreadable(OUTSIDE + "|size|bytes|encrypt|method|compress|short"),
    each={
        "size_beyond_the_file": {"size": 1 << 31, "compressed_size": 1 << 31},
        "size_too_small": {"size": 40, "compressed_size": 40},
        "size_zero": {"size": 0, "compressed_size": 0},
        "offset_beyond_the_file": {"offset": 1 << 31},
        "encrypted": {"flags": 0x0809},
        "method_unknown": {"method": 4711},
    },
)
def data_pkl_entry(fields: dict[str, object]) -> bytes:
    """The entry of data.pkl lies about itself."""
    return archive(changed("data.pkl", **fields))


@hostile(bounded())
def local_name_differs() -> bytes:
    """The local header has another name than the directory (CVE-2025-1944); torch does not look."""
    return archive(changed("data.pkl", local_name=b"model/harmless"))


@hostile(sound())
def wrong_crc() -> bytes:
    """A wrong checksum: torch ignores it, and writes 0 where it was told to."""
    return archive([entry.but(crc=0xDEADBEEF) for entry in torch_entries()])


@hostile(sound())
def deflated_whole() -> bytes:
    """An archive that somebody unpacked and zipped again."""
    return archive([deflated(entry) for entry in torch_entries()], align=1)


@hostile(sound())
def entries_in_reverse() -> bytes:
    """data.pkl comes last."""
    return archive(torch_entries()[::-1])


@hostile(sound())
def not_aligned() -> bytes:
    """No padding between the entries."""
    return archive([entry.but(local_extra=b"") for entry in torch_entries()])


@hostile(sound())
def stem_of_any_text() -> bytes:
    """The folder inside the archive is the file's name at the time it was saved."""
    return archive(torch_entries(stem="модель – копия (2)"))


@hostile(unreadable("two|twice|duplicate|several|more than one|both"))
def two_data_pkl_of_one_name() -> bytes:
    """Two readers may pick different ones."""
    return archive([*torch_entries(), Entry("model/data.pkl", pickled(list_of()))])


@hostile(unreadable("two|twice|duplicate|several|more than one|both"))
def two_data_pkl_in_two_folders() -> bytes:
    """Which one is the checkpoint? torch refuses."""
    return archive([*torch_entries(), Entry("other/data.pkl", pickled(list_of()))])


@hostile(unreadable("two|twice|duplicate|several|more than one|both"))
def two_records_of_one_name() -> bytes:
    """Two copies of a statistic, which two readers may tell apart."""
    return archive([*torch_entries(), Entry("model/data/3", pack("<4f", -1, -1, -1, -1))])


@hostile(unreadable("overlap|two entries|same bytes|share"))
def overlapping_entries() -> bytes:
    """One entry lies inside another."""
    inner = torch_entries()
    return archive([*inner, Entry("model/data/9", b"", offset=0, shares=True, size=16, compressed_size=16)])


@hostile(unreadable("missing|no record|not in|without|lacks|absent"))
def record_missing() -> bytes:
    """data.pkl names a record that the archive does not have."""
    return archive([entry for entry in torch_entries() if not str(entry.name).endswith("data/3")])


@hostile(unreadable("short|bytes|outside|beyond|past|needs"))
def record_too_short() -> bytes:
    """The record of a statistic holds three of its four numbers."""
    return archive(changed("data/3", data=pack("<3f", 1, 1, 1)))


@hostile(sound())
def record_longer_than_told() -> bytes:
    """A record may be larger than what data.pkl says of it."""
    return archive(changed("data/3", data=pack("<9f", *range(1, 10))))


@hostile(refused("data.pkl|zip|checkpoint|torch"))
def no_data_pkl() -> bytes:
    """A torch archive without its pickle."""
    return archive([entry for entry in torch_entries() if not str(entry.name).endswith("data.pkl")])


@hostile(bounded())
def data_pkl_at_the_root() -> bytes:
    """No folder in the archive; torch 2.13 refuses it."""
    return archive([entry.but(name=str(entry.name).partition("/")[2]) for entry in torch_entries()])


@hostile(bounded())
def no_version() -> bytes:
    """torch refuses an archive without `version`; its tensors are all there."""
    return archive([entry for entry in torch_entries() if not str(entry.name).endswith("version")])


@hostile(bounded())
def data_pkl_is_a_folder() -> bytes:
    """The archive has a folder where the pickle should be."""
    return archive([Entry("model/data.pkl/", b""), *torch_entries()[1:]])


@hostile(unreadable("pickle|empty|ends|truncat|short"))
def data_pkl_empty() -> bytes:
    """A data.pkl of no bytes."""
    return archive(changed("data.pkl", data=b""))


@hostile(sound())
def big_endian() -> bytes:
    """An archive of a big-endian machine, honestly so."""
    swapped = {
        name: claim.but(data=b"".join(claim.data[i : i + item][::-1] for i in range(0, len(claim.data), item)))
        for name, claim in layer().items()
        for item in [8 if name.endswith("tracked") else 4]
    }
    return archive(
        [entry.but(data=b"big") if "byteorder" in str(entry.name) else entry for entry in torch_entries(swapped)]
    )


@hostile(refused("byteorder|byte order|endian"))
def byteorder_unknown() -> bytes:
    """A byte order that no machine has; torch raises on it too."""
    return archive(changed("byteorder", data=b"middle"))


@hostile(bounded())
def entry_names_that_climb() -> bytes:
    """Other entries try to leave the archive; nothing is ever unpacked, and torch refuses it."""
    climbing = [Entry("../../../etc/passwd", b"x"), Entry("/etc/shadow", b"x"), Entry("model/../../x", b"x")]
    return archive([*torch_entries(), *climbing])


@hostile(bounded())
def entry_name_not_utf8() -> bytes:
    """A name that is not the UTF-8 it says it is."""
    return archive([*torch_entries(), Entry(b"model/data/\xff\xfe\x80", b"x")])


@hostile(unreadable("deflate|inflat|compress|corrupt|damaged|truncat|short|ends|bytes|zip"), each={
    "garbage": b"\xff" * 50,
    "cut": compressed(pickled(state_dict(layer())))[0][:60],
    "empty": b"",
})  # fmt: skip
def deflate_stream(data: bytes) -> bytes:
    """The deflate stream of data.pkl is broken."""
    return archive(changed("data.pkl", data=data, method=8, size=len(pickled(state_dict(layer())))))


@hostile(
    unreadable("deflate|inflat|size|bytes|short|long|more|pickle|does not end"), each={"longer": 90, "shorter": 100_000}
)
def deflate_size(size: int) -> bytes:
    """data.pkl inflates to another size than the directory says."""
    return archive(
        [deflated(entry, size) if str(entry.name).endswith("data.pkl") else entry for entry in torch_entries()]
    )
