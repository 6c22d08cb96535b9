from collections.abc import Iterator

from bnlint import Finding, Global, RawFile, Severity, UnreadableFile, rule


@rule(
    severity=Severity.ERROR,
    good=lambda: [
        RawFile(format="torch-zip", size=50_000_000),
        broken("lfs", "is a git-lfs pointer"),
        broken("html", "is an HTML page"),
        broken("unsupported", "is a GGUF file"),
        broken("unknown", "is in no format that bnlint knows", format=None),
        broken("truncated", "the pickle ends at byte 30", size=30),  # not-a-checkpoint speaks
    ],
    bad=lambda: [
        broken("truncated", "the archive ends in the middle of data/4", 4096),
        broken("empty", "is empty", size=0, format=None),
        broken("zip", "two entries are called archive/data.pkl", 880),
        broken("pickle", "opcode 0xff is unknown", 17),
        broken("bounds", "a tensor reaches byte 5000 of a storage of 4096 bytes"),
        broken("missing", "tensor data 'data/7' is not in the archive"),
        broken("limit", "a tuple of 9000000 elements is over the limit"),
        broken("json", "the header is no JSON object", size=77, format="safetensors"),
        broken("io", "cannot be read: permission denied", format=None),
        hostile(),
        RawFile(format="torch-zip", facts={"torch_refuses": "the archive has no version record"}),
    ],
)
def unreadable_checkpoint(file: RawFile) -> Iterator[Finding]:
    """The file says that it is a checkpoint, and it cannot be read.

    bnlint reads strictly: every length is compared with what is there before it is used. torch.load
    may still read such a file, or read something else than another program does: it takes archives with
    two entries of one name, local headers that disagree and 1000 bytes of trailing junk without a word.
    Where it is torch that refuses a file and bnlint can read it (a zip archive that was packed again,
    without its `version` record or its folder), the file is checked, and this is a warning.

    Common causes:
        A download or a copy that broke off. A disk that filled up while the file was written: the last
        checkpoint of the run is cut short. A file that was made by hand, or to do harm.

    Fix:
        Download or copy the file again and compare sizes or checksums. If it was written by your own
        run, take the checkpoint before it and load it with `torch.load(path, weights_only=True)`.

    When this is fine:
        Never. If torch loads a file that bnlint cannot read and the file is honest, it is a defect of
        bnlint.
    """
    problem = file.problem
    refused = file.facts.get("torch_refuses")
    if refused:
        yield Finding(
            file.at(),
            f"torch does not load this file: {refused}",
            evidence={"code": "missing", "bytes": file.size, "format": file.format},
            severity=Severity.WARNING,
        )
    if problem is None or not file.damaged or file.stub:
        return
    offset = "" if problem.offset is None else f" (byte {problem.offset})"
    dangers = [str(each)[:80] for each in file.globals if each.tier == "danger"]
    code = f"; before that its pickle has {', '.join(dangers[:3])}, which would run code" if dangers else ""
    yield Finding(
        file.at(),
        f"{problem}{offset}{code}",
        evidence={
            "code": problem.code,
            "offset": problem.offset,
            "bytes": file.size,
            "format": file.format,
            "danger": dangers[:100],
        },
    )


def broken(
    code: str, message: str, offset: int | None = None, *, size: int = 5000, format: str | None = "torch-zip"
) -> RawFile:
    problem = UnreadableFile(code, message, offset)
    return RawFile(size=size, format=format, status="unreadable", problem=problem)


def hostile() -> RawFile:
    file = broken("pickle", "the pickle ends without STOP", 60)
    file.globals = [Global("os", "system", 2, called=True)]
    return file
