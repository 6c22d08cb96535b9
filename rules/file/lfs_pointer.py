from collections.abc import Iterator

from bnlint import Finding, RawFile, Severity, UnreadableFile, rule


@rule(
    severity=Severity.ERROR,
    good=lambda: [
        RawFile(format="torch-zip", size=50_000_000),
        RawFile(size=900, status="not-a-checkpoint", problem=UnreadableFile("text", "is text")),
    ],
    bad=lambda: [
        pointer(lfs_oid="sha256:" + "4d7a" * 16, lfs_size=102_530_333),
        pointer(),
    ],
)
def lfs_pointer(file: RawFile) -> Iterator[Finding]:
    """The file is a git-lfs pointer: three lines of text in place of the checkpoint.

    Loading it fails with "invalid load key, 'v'": the v of "version https://git-lfs.github.com/spec/v1",
    in 12 of 12 threads found with that message. The pointer has some 130 bytes whatever the model has.

    Common causes:
        git-lfs was not installed when the repository was cloned, or a CI job checks out without it.

    Fix:
        `git lfs install && git lfs pull`; in GitHub Actions `with: {lfs: true}` for actions/checkout.

    When this is fine:
        Where a job does not need the models: hosted hooks never pull. Turn the rule off there.
    """
    if file.problem is None or file.problem.code != "lfs":
        return
    oid, size = file.facts.get("lfs_oid"), file.facts.get("lfs_size")
    told = ", ".join([*([str(oid)[:80]] if oid else []), *([f"{size} bytes"] if size else [])])
    yield Finding(
        file.at(),
        "is a git-lfs pointer, not the checkpoint" + (f" ({told})" if told else ""),
        evidence={"oid": str(oid)[:80] if oid else None, "size": size if isinstance(size, int) else None},
    )


def pointer(**facts: object) -> RawFile:
    problem = UnreadableFile("lfs", "is a git-lfs pointer")
    return RawFile(size=133, status="not-a-checkpoint", problem=problem, facts=facts)
