"""What a file is, by its first bytes; its name only breaks ties.

The order is that of torch: four bytes decide for a zip, everything that is nothing else is a pickle.
"""

from __future__ import annotations

from bnlint.errors import UnreadableFile

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from bnlint.readers.source import ByteSource

HEAD = 512  # bytes; a tar's magic stands at 257, a git-lfs pointer has some 130
INDEX_ENDING = ".index.json"
LFS_POINTER = b"version https://git-lfs.github.com/spec/"
TORCH_MAGIC = b"l\xfc\x9cF\xf9 j\xa8P\x19."  # 0x1950a86a20f9469cfc6c as LONG1, then STOP
TORCH_MAGIC_AS_TEXT = b"L119547037146038801333356L\n."  # the same in protocols 0 and 1
PICKLE_PROTOCOLS = range(2, 6)

_EXPORT = "which this version does not read: save the weights with torch.save or safetensors"
_NOTHING = "a deployment format without BatchNorm statistics"
_DISTRIBUTED = (
    "is a part of a distributed checkpoint, which this version does not read:"
    " convert it with torch.distributed.checkpoint.format_utils.dcp_to_torch_save"
)
_ONNX = f"is an ONNX model, {_EXPORT}"
# Magic, code of the problem, the report's name of the format where it has one, what the file is.
_BY_MAGIC: tuple[tuple[bytes, str, str | None, str], ...] = (
    (b"\x89PNG\r\n\x1a\n", "image", None, "is a PNG image, not a checkpoint"),
    (b"\xff\xd8\xff", "image", None, "is a JPEG image, not a checkpoint"),
    (b"GIF8", "image", None, "is a GIF image, not a checkpoint"),
    (b"II*\0", "image", None, "is a TIFF image, not a checkpoint"),
    (b"MM\0*", "image", None, "is a TIFF image, not a checkpoint"),
    (b"%PDF", "text", None, "is a PDF document, not a checkpoint"),
    (b"\x89HDF\r\n\x1a\n", "unsupported", "keras-h5", f"is an HDF5 file (Keras), {_EXPORT}"),
    (b"\x93NUMPY", "unsupported", "npy", f"is a numpy array (.npy), {_EXPORT}"),
    (b"GGUF", "unsupported", None, f"is a GGUF file, {_NOTHING}"),
    (b"lmgg", "unsupported", None, f"is a GGML file, {_NOTHING}"),
    (b"tjgg", "unsupported", None, f"is a GGML file, {_NOTHING}"),
    (b"\x1f\x8b", "unsupported", None, "is compressed by gzip: unpack it first"),
    (b"BZh", "unsupported", None, "is compressed by bzip2: unpack it first"),
    (b"\xfd7zXZ\0", "unsupported", None, "is compressed by xz: unpack it first"),
    (b"\x28\xb5\x2f\xfd", "unsupported", None, "is compressed by zstd: unpack it first"),
    (b"\x04\x22\x4d\x18", "unsupported", None, "is compressed by lz4: unpack it first"),
    (b"7z\xbc\xaf\x27\x1c", "unsupported", None, "is a 7z archive: unpack it first"),
    (b"Rar!\x1a\x07", "unsupported", None, "is a RAR archive: unpack it first"),
)
_ZLIB = (b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda")
_TENSORFLOW_INDEX = b"\x57\xfb\x80\x8b\x24\x75\x47\xdb"  # its last bytes
# Formats without a magic of their own.
_BY_ENDING = {
    ".onnx": _ONNX,
    ".msgpack": f"is a flax file (msgpack), {_EXPORT}",
    ".pb": f"is a TensorFlow graph, {_EXPORT}",
    ".meta": f"is a part of a TensorFlow checkpoint, {_EXPORT}",
    ".caffemodel": f"is a Caffe model, {_EXPORT}",
    ".params": f"is an MXNet file, {_EXPORT}",
    ".weights": f"is a Darknet file, {_EXPORT}",
    ".t7": f"is a torch7 file, {_EXPORT}",
    ".mlmodel": f"is a Core ML model, {_NOTHING}",
    ".engine": f"is a TensorRT engine, {_NOTHING}",
    ".trt": f"is a TensorRT engine, {_NOTHING}",
}
# What only such a zip archive holds.
_ZIPS = (
    (
        ("model_weights_config.json", "serialized_exported_program.json", "archive_format"),
        "torch-export",
        "a torch.export program (.pt2)",
    ),
    (("extern_modules",), "torch-package", "a torch.package archive"),
    (("model.weights.h5",), "keras", "a Keras model (.keras)"),
)
_WEIGHTS = (".pth", ".pt", ".ckpt", ".safetensors", ".bin", ".th", ".pkl", ".h5", ".onnx")
_MARKUP = (b"<!", b"<html", b"<head", b"<body", b"<?xml", b"<error", b"<script", b"<svg")
_BLANKS = b"\xef\xbb\xbf \t\r\n"
_CONTROLS = bytes(byte for byte in range(32) if byte not in b"\t\n\f\r\33")


class Stranger(UnreadableFile):
    """A file that is no checkpoint, or none that this version reads.

    `format` is the report's name for what it is, `facts` what a git-lfs pointer says: `lfs_oid`, `lfs_size`.
    """

    def __init__(
        self, code: str, message: str, format: str | None = None, facts: Mapping[str, object] | None = None
    ) -> None:
        super().__init__(code, message)
        self.format = format
        self.facts = facts or {}


def sniff(source: ByteSource, name: str) -> str:
    """Which reader reads this: torch-zip, torch-legacy, torch-tar, pickle, safetensors or index.

    Stranger for everything else: `lfs`, `html`, `text`, `image`, `unsupported`, `unknown`.
    """
    name = name.lower()
    if name.endswith((".distcp", ".metadata")):
        raise Stranger("unsupported", _DISTRIBUTED, "torch-dcp")
    head = source.read(0, min(source.size, HEAD))
    if head.startswith((b"PK\3\4", b"PK\5\6", b"PK\7\x08")):
        return "torch-zip"
    if TORCH_MAGIC in head[:40] or head.startswith(TORCH_MAGIC_AS_TEXT):
        return "torch-legacy"
    if _is_safetensors(source, head):
        return "safetensors"
    if head[257:262] == b"ustar":
        return "torch-tar"
    if head[:1] == b"\x80" and (len(head) == 1 or head[1] in PICKLE_PROTOCOLS):
        return "pickle"
    if name.endswith(INDEX_ENDING) and head.lstrip(_BLANKS)[:1] == b"{":
        return "index"
    stranger = _stranger(source, head, name)
    if stranger is None and _is_old_pickle(head):
        return "pickle"
    if stranger is None and name.endswith(".safetensors"):
        return "safetensors"  # with a damaged header: its reader says how
    raise stranger or _nameless(head)


def zip_stranger(source: ByteSource) -> Stranger:
    """What a zip archive is that is no checkpoint of torch."""
    from bnlint.readers.zip_archive import ZipArchive

    names = list(ZipArchive(source).entries)
    files = {name.rpartition("/")[2] for name in names}
    for marks, format, what in _ZIPS:
        if not files.isdisjoint(marks):
            return Stranger("unsupported", f"is {what}, {_EXPORT}", format)
    if files and all(name.endswith(".npy") for name in files):
        return Stranger("unsupported", f"is a numpy archive (.npz), {_EXPORT}", "npz")
    inside = next((name for name in names if name.endswith(_WEIGHTS)), None)
    if inside is not None:
        return Stranger("unsupported", f"is a zip archive that holds {inside[:80]!r}: unpack it first")
    return Stranger("unknown", "is a zip archive without data.pkl: no checkpoint that torch wrote")


def tar_stranger(source: ByteSource) -> Stranger:
    """What a tar archive is that is no checkpoint of torch."""
    first = source.read(0, 100).partition(b"\0")[0].decode("utf-8", "replace")
    if first.endswith(_WEIGHTS):
        return Stranger("unsupported", f"is a tar archive that holds {first!r}: unpack it first")
    return Stranger("unknown", f"is a tar archive that begins with {first!r}: no checkpoint that torch wrote")


def _is_safetensors(source: ByteSource, head: bytes) -> bool:
    """True for a length that can be one, and the brace that opens the header."""
    return head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= max(source.size, 1 << 27)


def _is_old_pickle(head: bytes) -> bool:
    """True for what opens a pickle of protocol 0 or 1: a container that is remembered, a name, a value."""
    if head[:2] in (b"}q", b"]q") or (head[:3] in (b"(dp", b"(lp", b"(tp") and head[3:4].isdigit()):
        return True
    opened = head.lstrip(b"(")
    opcode = opened[:1]
    first, second, rest = (*opened[1:].split(b"\n", 2), b"", b"")[:3]
    if opcode in (b"c", b"i"):
        follows = rest[:1] in b"q().t" or (rest[:1] == b"p" and rest[1:2].isdigit())
        return follows and _is_dotted_name(first) and _is_dotted_name(second)
    if opcode == b"S":
        return len(first) > 1 and first[:1] in (b"'", b'"') and first[:1] == first[-1:]
    remembered = second[:1] == b"p" and second[1:].isdigit()
    return remembered and (opcode == b"V" or (opcode in (b"I", b"L", b"F") and first[:1].isdigit()))


def _is_dotted_name(line: bytes) -> bool:
    return all(part.isidentifier() for part in line.decode("ascii", "replace").split("."))


def _stranger(source: ByteSource, head: bytes, name: str) -> Stranger | None:
    """What the file is where it is something else than a checkpoint that this version reads."""
    if head.startswith(LFS_POINTER):
        return Stranger("lfs", "is a git-lfs pointer, not the file itself: run `git lfs pull`", facts=_lfs_facts(head))
    for magic, code, format, sentence in _BY_MAGIC:
        if head.startswith(magic):
            return Stranger(code, sentence, format)
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return Stranger("image", "is a WebP image, not a checkpoint")
    if head.lstrip(_BLANKS)[:7].lower().startswith(_MARKUP):
        return Stranger("html", "is an HTML or XML page, not a checkpoint: a download that failed?")
    if head[4:8] == b"TFL3":
        return Stranger("unsupported", f"is a TFLite model, {_NOTHING}")
    if _opens_onnx(head):
        return Stranger("unsupported", _ONNX, "onnx")
    if _is_text(head):
        if _is_old_pickle(head):
            return None  # protocol 0 is text
        what = "JSON" if head.lstrip(_BLANKS)[:1] in (b"{", b"[") else "text"
        return Stranger("text", f"is {what}, not a checkpoint")
    if head.startswith(_ZLIB):
        return Stranger("unsupported", "is compressed by zlib, as joblib does: save it without compress=")
    if source.size >= 48 and source.read(source.size - 8, 8) == _TENSORFLOW_INDEX:
        return Stranger("unsupported", f"is the index of a TensorFlow checkpoint, {_EXPORT}")
    if ".data-0000" in name:
        return Stranger("unsupported", f"is a part of a TensorFlow checkpoint, {_EXPORT}")
    for ending, sentence in _BY_ENDING.items():
        if name.endswith(ending):
            return Stranger("unsupported", sentence, "onnx" if ending == ".onnx" else None)
    return None


def _nameless(head: bytes) -> Stranger:
    if not any(head):
        return Stranger("unknown", "begins with zeros: a download or copy that was interrupted?")
    return Stranger("unknown", "is in no format that bnlint knows")


def _opens_onnx(head: bytes) -> bool:
    """True for the first fields of an ONNX model: ir_version, then a producer, a domain or the graph."""
    return head[:1] == b"\x08" and len(head) > 2 and 0 < head[1] < 32 and head[2] in (0x12, 0x1A, 0x3A)


def _is_text(head: bytes) -> bool:
    """True for UTF-8 without control characters, and for anything with the mark of UTF-16."""
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return True
    if len(head.translate(None, _CONTROLS)) < len(head):
        return False
    try:
        head.decode("utf-8")
    except UnicodeDecodeError as error:
        return len(head) == HEAD and error.start >= HEAD - 3  # a character cut in two
    return True


def _lfs_facts(head: bytes) -> dict[str, object]:
    said = dict(line.split(" ", 1) for line in head.decode("ascii", "replace").splitlines() if " " in line)
    facts: dict[str, object] = {}
    if said.get("oid", "").startswith("sha256:"):
        facts["lfs_oid"] = said["oid"][:71]
    if said.get("size", "").isdecimal():
        facts["lfs_size"] = int(said["size"][:20])
    return facts
