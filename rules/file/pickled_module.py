from collections.abc import Iterator

from bnlint import Finding, RawFile, Severity, rule


@rule(
    severity=Severity.INFO,
    needs=["unreadable-checkpoint"],
    good=lambda: [
        RawFile(format="torch-zip"),
        RawFile(format="torchscript"),
    ],
    bad=lambda: [
        RawFile(format="torch-zip", facts={"pickled_module": "vdsr.Net", "training": True}),
        RawFile(
            format="torch-legacy", facts={"pickled_module": "torch.nn.modules.container.Sequential", "training": False}
        ),
        RawFile(format="torch-legacy", facts={"pickled_module": "__main__.DnCNN"}),
    ],
)
def pickled_module(file: RawFile) -> Iterator[Finding]:
    """The file holds a whole pickled model instead of a state dict.

    It can only be loaded where its class can be imported under the same name, and only with
    `weights_only=False`, which runs whatever the pickle asks for. The model comes back in the mode it
    was saved in: 1 of 5 published ones was saved in train mode (DnCNN), so that every forward of its
    users normalises by the batch and moves the statistics.

    Common causes:
        `torch.save(model, path)`.

    Fix:
        `torch.save(model.state_dict(), path)`, and to load: build the model,
        `model.load_state_dict(torch.load(path, weights_only=True))`, `model.eval()`.

    When this is fine:
        Within one project, between runs of the same code.
    """
    kind = file.facts.get("pickled_module")
    if not kind:
        return
    training = file.facts.get("training")
    mode = ", saved in train mode" if training is True else ", saved in eval mode" if training is False else ""
    yield Finding(
        file.at(),
        f"a whole pickled {str(kind)[:80]} instead of a state dict{mode}",
        evidence={"class": str(kind)[:80], "training": training if isinstance(training, bool) else None},
    )
