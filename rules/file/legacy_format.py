from collections.abc import Iterator

from bnlint import Finding, RawFile, Severity, rule


@rule(
    severity=Severity.INFO,
    needs=["unreadable-checkpoint"],
    good=lambda: [
        RawFile(format="torch-zip"),
        RawFile(format="torch-legacy"),  # torch before 1.6: said in the notes
        RawFile(format="torch-legacy", facts={"python2": False}),
    ],
    bad=lambda: [
        RawFile(format="torch-legacy", facts={"python2": True}),
        RawFile(format="pickle", facts={"python2": True}),
    ],
)
def legacy_format(file: RawFile) -> Iterator[Finding]:
    """The file was written by Python 2: its keys or strings are bytes.

    `torch.load` without an encoding raises "'ascii' codec can't decode byte" or gives keys such as
    b"state_dict" that match 0 keys of any model (pytorch#19203, pytorch PR#14743, DSB2017#14).

    Common causes:
        A checkpoint of 2016 to 2019. The container of torch before 1.6 alone loads fine and is not
        reported.

    Fix:
        `torch.load(path, map_location="cpu", encoding="latin1")`, once, and save what you need of it
        with today's torch: `torch.save(model.state_dict(), "model.pth")`.

    When this is fine:
        Where the loading code already passes the encoding.
    """
    if file.facts.get("python2"):
        yield Finding(file.at(), "written by Python 2: keys or strings are bytes", evidence={"python2": True})
