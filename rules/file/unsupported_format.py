from collections.abc import Iterator

from bnlint import Finding, RawFile, Severity, UnreadableFile, rule


@rule(
    severity=Severity.INFO,
    good=lambda: [
        RawFile(format="torch-zip", size=50_000_000),
        skipped("text", "is text", path="lib/site-packages/distutils-precedence.pth", named=False),
        skipped("html", "is an HTML page"),  # not-a-checkpoint speaks
        skipped("truncated", "the archive ends at byte 5000"),
        skipped("lfs", "is a git-lfs pointer", named=False),
    ],
    bad=lambda: [
        skipped("unsupported", "is a GGUF file"),
        skipped("unsupported", "is a Keras HDF5 file", named=False),
        skipped("unknown", "is in no format that bnlint knows", named=False),
        skipped("html", "is an HTML page", named=False),
        skipped("text", "is text", path="weights.pt", named=False),
    ],
)
def unsupported_format(file: RawFile) -> Iterator[Finding]:
    """The file was skipped: bnlint does not read this format here.

    Nothing is known about the BatchNorm layers in it: 0 of its layers were checked.

    Common causes:
        A format without BatchNorm as modules (GGUF, TFLite), one that needs an extra that is not
        installed, or a file of another kind that happens to be called model.bin or weights.pt.

    Fix:
        Install the extra that the message names, or export the model to safetensors:
        `safetensors.torch.save_file(model.state_dict(), "model.safetensors")`. Leave other files out
        with `exclude:` in .bnlint.yaml.

    When this is fine:
        Always, as long as you know that the file was not checked.
    """
    problem = file.problem
    if problem is None:
        return
    path_file = problem.code == "text" and file.path.endswith(".pth")  # site-packages are full of them
    if problem.code == "unsupported" or (file.foreign and not file.named and not path_file):
        yield Finding(file.at(), f"{problem}; skipped", evidence={"code": problem.code, "format": file.format})


def skipped(code: str, message: str, *, path: str = "model.pth", named: bool = True) -> RawFile:
    return RawFile(path, size=900, status="skipped", problem=UnreadableFile(code, message), named=named)
