from collections.abc import Iterator

from bnlint import Finding, RawFile, Severity, UnreadableFile, rule


@rule(
    severity=Severity.ERROR,
    good=lambda: [
        RawFile(format="torch-zip", size=50_000_000),
        RawFile(format="safetensors", size=150),  # small and readable
        broken("truncated", "the archive ends at byte 5000", format="torch-zip", size=5000),
        broken("html", "is an HTML page", size=900, named=False),
        broken("unknown", "is in no format that bnlint knows", size=900, named=False),
        broken("lfs", "is a git-lfs pointer", size=130),
        broken("unsupported", "is a GGUF file", size=5000),
        broken("bounds", "a gap lies before tensor 'a'", format="safetensors", size=77),  # all there, and damaged
    ],
    bad=lambda: [
        broken("html", "is an HTML page", size=12_000),
        broken("text", "is text", size=300),
        broken("image", "is a PNG image", size=80_000),
        broken("unknown", "is in no format that bnlint knows", size=900),
        broken("truncated", "the zip archive has no end", format="torch-zip", size=120),
        broken("truncated", "the pickle ends at byte 30", format="torch-legacy", size=30, named=False),
    ],
)
def not_a_checkpoint(file: RawFile) -> Iterator[Finding]:
    """Something else lies under a checkpoint's name: a web page, text, an image, the first bytes of a file.

    torch.load answers with "invalid load key, '<'", which says nothing about the cause. A web page of
    some kilobytes in place of a model of megabytes is what most such reports end with (clipseg#5,
    LIMO#3, PPGNet#2, smoothquant#13).

    Common causes:
        A download link that leads to a page: Google Drive's confirmation, a login, GitHub's /blob/
        instead of /raw/, an XML error of a storage bucket. A download that broke off at once: a file of
        less than 200 bytes that starts like a checkpoint.

    Fix:
        Download the file itself and look at it: `head -c 200 model.pth`. For Google Drive use
        `gdown FILE_ID`, for GitHub the /raw/ link, for Hugging Face /resolve/.

    When this is fine:
        Never for a file that was named to be checked. Files met in a folder are skipped with an info
        (unsupported-format).
    """
    problem = file.problem
    if problem is None:
        return
    if file.foreign and file.named:
        message = str(problem)
    elif file.stub:
        message = f"has only {file.size} bytes of a {file.format} file: {problem}"
    else:
        return
    yield Finding(file.at(), message, evidence={"code": problem.code, "bytes": file.size, "offset": problem.offset})


def broken(code: str, message: str, *, size: int, format: str | None = None, named: bool = True) -> RawFile:
    return RawFile(size=size, format=format, status="unreadable", problem=UnreadableFile(code, message), named=named)
