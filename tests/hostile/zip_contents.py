"""Zip archives that are something else than a torch checkpoint, or hold something else than one."""

from .assembler import Entry, archive, call, integers, layer, list_of, named, pickled, text, torch_entries, torch_zip
from .case import Expected, bounded, hostile, refused, unreadable, unsupported


def _plain(*names: str) -> bytes:
    return archive([Entry(name, b"x" * 60) for name in names], align=1)


@hostile(refused(), each={
    "office": _plain("[Content_Types].xml", "word/document.xml", "_rels/.rels"),
    "jar": _plain("META-INF/MANIFEST.MF", "Main.class"),
    "photos": _plain("IMG_0001.JPG", "IMG_0002.JPG"),
})  # fmt: skip
def zip_of_something_else(data: bytes) -> bytes:
    """A zip that no checkpoint ever was."""
    return data


def _known(name: str) -> Expected:
    return unsupported({"npz": "npz|numpy", "keras": "keras", "pt2": "export|pt2", "package": "package"}[name])


@hostile(_known, each={name: name for name in ("npz", "keras", "pt2", "package")})
def zip_of_a_known_format(name: str) -> bytes:
    """Checkpoints all the same, of formats that come with a later version."""
    return {
        "npz": _plain("weight.npy", "running_mean.npy"),
        "keras": _plain("metadata.json", "config.json", "model.weights.h5"),
        "pt2": _plain(
            "model/archive_format", "model/data/weights/model_weights_config.json", "model/models/model.json"
        ),
        "package": _plain("net/.data/extern_modules", "net/.data/version", "net/model/model.pkl"),
    }[name]


@hostile(refused(), each={
    "empty_archive": b"PK\5\6" + b"\0" * 18,
    "spanned": b"PK\7\x08" + b"\0" * 300,
    "magic_only": b"PK\3\4",
    "magic_and_zeros": b"PK\3\4" + b"\0" * 4096,
    "magic_and_text": b"PK\3\4" + b"not a zip at all " * 100,
})  # fmt: skip
def hardly_a_zip(data: bytes) -> bytes:
    """The first four bytes are all there is of the zip."""
    return data


@hostile(bounded())
def storages_named_by_a_path() -> bytes:
    """data.pkl asks for the record ../../../../etc/passwd, and the archive has it."""
    claims = layer(running_var=layer()["bn.running_var"].but(key="../../../../etc/passwd"))
    return torch_zip(claims)


@hostile(unreadable("missing|no record|not in|without|lacks|absent"))
def storages_outside_the_archive() -> bytes:
    """data.pkl asks for a record by an absolute path that the archive does not have."""
    claims = layer(running_var=layer()["bn.running_var"].but(key="/etc/passwd"))
    return archive([entry for entry in torch_entries(claims) if "passwd" not in str(entry.name)])


@hostile(bounded())
def constants_only() -> bytes:
    """A frozen TorchScript archive: the names are gone and BatchNorm is folded away."""
    root = pickled(named("__torch__", "Net") + b"\x29\x81" + b"}" + b"b")
    constant = pickled(call(named("torch.jit._pickle", "build_intlist"), list_of(integers((1,)))))
    code = b"class Net(Module):\n  __parameters__ = []\n"
    entries = [Entry("net/data.pkl", root), Entry("net/constants.pkl", constant), Entry("net/code/__torch__.py", code)]
    return archive([*entries, Entry("net/version", b"3\n"), Entry("net/byteorder", b"little")])


@hostile(unreadable("pickle|opcode|stack|unexpected"))
def data_pkl_is_text() -> bytes:
    """Text where the pickle should be."""
    return torch_zip(data_pkl=b"this is not a pickle\n" * 20)


@hostile(bounded())
def data_pkl_is_a_zip() -> bytes:
    """An archive in the archive."""
    return torch_zip(data_pkl=torch_zip())


@hostile(bounded())
def keys_that_are_text_only() -> bytes:
    """A pickle of plain text in an honest archive."""
    return torch_zip({}, pickled(text("hello")))
