"""Files that are something else under a checkpoint's name: pages, pointers, text, pictures, other formats."""

import gzip
import lzma
from pathlib import Path
from struct import pack

from .assembler import torch_zip
from .case import Expected, bounded, hostile, lfs_pointer, not_a_checkpoint, refused, unsupported

OID = b"4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + OID + b"\nsize 46827520\n"


@hostile(lfs_pointer("lfs.*(46827520|44|46|4d7a)|(46827520|44|46|4d7a).*lfs"))
def pointer() -> bytes:
    """A git-lfs pointer, the most frequent broken file of all; the message has oid or size."""
    return POINTER


@hostile(lfs_pointer(), each={
    "windows_lines": POINTER.replace(b"\n", b"\r\n"),
    "no_size": POINTER.rpartition(b"size")[0],
    "more_fields": POINTER.replace(b"oid", b"ext-0-foo sha256:" + OID + b"\noid"),
    "size_of_a_thousand_digits": POINTER.replace(b"46827520", b"9" * 1000),
    "hostile_oid": POINTER.replace(OID, b"\x1b[31m::error::" + OID[:40]),
})  # fmt: skip
def pointer_variant(data: bytes) -> bytes:
    """Pointers that git-lfs would not write so."""
    return data


@hostile(lfs_pointer(), "model.safetensors")
def pointer_of_a_safetensors_file() -> bytes:
    """The same under another name."""
    return POINTER


@hostile(lfs_pointer(), "pytorch_model.bin")
def pointer_of_a_bin_file() -> bytes:
    """The same under another name."""
    return POINTER


@hostile(refused("empty|0 bytes|no bytes"))
def empty() -> bytes:
    """No bytes at all."""
    return b""


@hostile(
    refused(), each={"one": b"P", "two": b"\x80\x02", "three": b"abc", "nul": b"\0", "newline": b"\n", "stop": b"."}
)
def tiny(data: bytes) -> bytes:
    """One to three bytes."""
    return data


@hostile(not_a_checkpoint("html|page"), each={
    "doctype": b"<!DOCTYPE html><html><head><title>Google Drive - Virus scan warning</title></head></html>",
    "upper_case": b"<HTML><HEAD><TITLE>404</TITLE></HEAD></HTML>",
    "behind_blank_lines": b"\n\r\n  \t<html lang='en'><body>Sign in</body></html>" * 20,
    "behind_a_mark": b"\xef\xbb\xbf<!doctype html>\n<html></html>" * 10,
    "behind_a_comment": b"<!-- cached -->\n<html><body>busy</body></html>" * 10,
})  # fmt: skip
def html(data: bytes) -> bytes:
    """A page instead of the download."""
    return data


@hostile(not_a_checkpoint("xml|text"), each={
    "storage_error": b'<?xml version="1.0" encoding="UTF-8"?><Error><Code>AccessDenied</Code></Error>',
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"></svg>' * 4,
})  # fmt: skip
def xml(data: bytes) -> bytes:
    """An XML error page instead of the download."""
    return data


@hostile(not_a_checkpoint("text|json"), each={
    "hub": b"Entry not found",
    "password": b"Invalid username or password.",
    "json": b'{"error": "Repository not found", "status": 404}',
    "yaml": b"model:\n  name: resnet\n  layers: 18\n" * 20,
    "python": b"import torch\n\nmodel = torch.load('x')\n" * 20,
    "csv": b"epoch,loss,accuracy\n1,0.5,0.8\n" * 20,
    "conflict": b"<<<<<<< HEAD\nversion https://git-lfs.github.com/spec/v1\n=======\n>>>>>>> x\n" * 5,
    "one_long_line": b"x" * 100_000,
    "utf8": "модель не найдена\n".encode() * 30,
    "curl": b"curl: (60) SSL certificate problem: unable to get local issuer certificate\n" * 3,
    "hostile": b"\x1b[2J\x1b[31m::error file=x::pwned\r\n" * 20,
})  # fmt: skip
def text(data: bytes) -> bytes:
    """Text under a checkpoint's name."""
    return data


@hostile(not_a_checkpoint("text|path"), "easy-install.pth", each={
    "paths": b"./package-1.0.egg\n/usr/lib/python3/dist-packages\n",
    "import": b"import sys; sys.path.insert(0, '/x'); open('CANARY', 'w')\n",
})  # fmt: skip
def path_file(data: bytes) -> bytes:
    """A .pth of site-packages, given by name: Python runs its import lines, bnlint does not."""
    return data


@hostile(not_a_checkpoint("image|png|jpe?g|gif|picture|bmp|webp|pdf"), each={
    "png": b"\x89PNG\r\n\x1a\n" + bytes(400),
    "jpeg": b"\xff\xd8\xff\xe0\0\x10JFIF\0" + bytes(400),
    "gif": b"GIF89a" + bytes(400),
})  # fmt: skip
def image(data: bytes) -> bytes:
    """A picture under a checkpoint's name."""
    return data


FORMATS = {
    "gguf": (b"GGUF" + pack("<IQQ", 3, 291, 24) + bytes(400), "gguf"),
    "ggml": (b"lmgg" + bytes(400), "ggml"),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(400), "hdf5|keras|h5"),
    "npy": (
        b"\x93NUMPY\1\0v\0{'descr': '<f4', 'fortran_order': False, 'shape': (4,), }".ljust(128) + bytes(400),
        "npy|numpy",
    ),
    "tflite": (pack("<I", 28) + b"TFL3" + bytes(400), "tflite|tensorflow lite|tensorflow-lite"),
    "onnx": (b"\x08\x07\x12\x07pytorch\x1a\x031.9:" + b"\xd0\x02" + b"\n\x05input" * 40, "onnx"),
}


def _format(name: str) -> Expected:
    return unsupported(FORMATS[name][1])


@hostile(_format, "model.{}".format, each={name: name for name in FORMATS})
def other_format(name: str) -> bytes:
    """A known format of a later version, under its own name."""
    return FORMATS[name][0]


@hostile(_format, each={name: name for name in ("gguf", "hdf5", "npy", "tflite")})
def other_format_under_a_torch_name(name: str) -> bytes:
    """The same under the name of a torch file: the bytes say what it is."""
    return FORMATS[name][0]


COMPRESSED = {
    "gz": gzip.compress(torch_zip(), mtime=0),
    "xz": lzma.compress(torch_zip()),
    "zst": b"\x28\xb5\x2f\xfd" + bytes(range(256)) * 2,
    "7z": b"7z\xbc\xaf\x27\x1c" + bytes(range(256)) * 2,
    "bz2": b"BZh91AY&SY" + bytes(range(256)) * 2,
    "rar": b"Rar!\x1a\x07\x01\0" + bytes(range(256)) * 2,
    "lz4": b"\x04\x22\x4d\x18" + bytes(range(256)) * 2,
}


@hostile(
    Expected(
        (0, 1),
        ("unsupported-format", "not-a-checkpoint", "unreadable-checkpoint"),
        None,
        "",
        ("skipped", "unreadable", "not-a-checkpoint"),
    ),
    "model.pth.{}".format,
    each={ending: ending for ending in COMPRESSED},
)
def compressed(ending: str) -> bytes:
    """A checkpoint that somebody compressed: it says so, and is not unpacked."""
    return COMPRESSED[ending]


@hostile(refused(), each={
    "zeros": bytes(4096),
    "zeros_of_a_megabyte": bytes(1 << 20),
    "ones": b"\xff" * 4096,
    "counting": bytes(range(256)) * 16,
    "noise": bytes((n * n * 7919 + n * 104729 >> 7) & 255 for n in range(5000)),
    "elf": b"\x7fELF\2\1\1" + bytes(400),
    "executable": b"MZ\x90\0" + bytes(400),
    "sqlite": b"SQLite format 3\0" + bytes(400),
    "utf16": "this is text of windows\r\n".encode("utf-16") * 20,
    "mp4": b"\0\0\0 ftypisom" + bytes(400),
    "class_file": b"\xca\xfe\xba\xbe" + bytes(400),
})  # fmt: skip
def unknown(data: bytes) -> bytes:
    """Bytes that nobody knows."""
    return data


@hostile(bounded())
def pickle_magic_and_noise() -> bytes:
    """PROTO and then anything."""
    return b"\x80\x04" + bytes(range(256)) * 8


@hostile(refused())
def half_a_download() -> bytes:
    """The end of a torch zip without its beginning."""
    return torch_zip()[700:]


@hostile(refused())
def line_ends_changed() -> bytes:
    """A torch zip that git took for text and gave other line ends."""
    return torch_zip().replace(b"\n", b"\r\n")


@hostile(refused())
def decoded_and_encoded() -> bytes:
    """A torch zip that went through a text editor."""
    return torch_zip().decode("utf-8", "replace").encode()


@hostile(refused())
def shell_script_that_is_executable(path: Path) -> None:
    """A script with execute permission."""
    path.write_bytes(b"#!/bin/sh\ntouch CANARY\n" * 10)
    path.chmod(0o755)
