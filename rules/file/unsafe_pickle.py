from collections.abc import Iterator

from bnlint import Finding, Global, RawFile, Severity, rule


@rule(
    severity=Severity.ERROR,
    needs=["unreadable-checkpoint"],
    security_severity="8.8",
    good=lambda: [
        RawFile(),
        naming(
            Global("collections", "OrderedDict", 12, called=True),
            Global("torch._utils", "_rebuild_tensor_v2", 60, called=True),
            Global("torch", "FloatStorage", 110),
            Global("torch", "float8_e4m3fn", 150),
            Global("numpy.core.multiarray", "scalar", 200, called=True),
            Global("numpy", "dtype", 230, called=True),
            Global("_codecs", "encode", 260, called=True),
            Global("__builtin__", "set", 290, called=True),
        ),
        naming(Global("__torch__.torch.nn.modules.batchnorm", "BatchNorm2d", 7, called=True)),
    ],
    bad=lambda: [
        naming(Global("posix", "system", 11, called=True)),
        naming(Global("builtins", "eval", 11, called=True)),
        naming(Global("subprocess", "Popen", 11, called=True)),
        naming(Global("commands", "getoutput", 11, called=True)),  # Python 2's name for it
        naming(Global("pkgutil", "resolve_name", 11, called=True)),
        naming(Global("numpy.testing._private.utils", "runstring", 11, called=True)),
        naming(Global("torch.hub", "load", 11, called=True)),
        naming(Global("torch.serialization", "os.system", 11, called=True)),
        naming(Global("<copyreg extension>", "240", 3)),
        naming(Global("<computed>", "Instance", 40, called=True)),
        naming(Global("os", "system", 11)),  # for another function to call
        naming(Global("vdsr", "Net", 11, called=True)),  # info: a class of someone's own
        naming(Global("argparse", "Namespace", 11, called=True), Global("torch.optim.adam", "Adam", 99, called=True)),
        naming(Global("builtins", "getattr", 11, called=True)),  # info: how a bound method is pickled
    ],
)
def unsafe_pickle(file: RawFile, *, shown: int = 3) -> Iterator[Finding]:
    """Loading the file with pickle would run code, or import more than tensors need.

    A pickle is a program: `torch.load(path, weights_only=False)` imports what it names and calls it
    with any arguments. bnlint runs nothing of it and reads the names in three tiers. What torch and
    numpy write to rebuild tensors is passed over. What runs code or reaches files, processes and
    networks is an error: os, subprocess, eval, everything in torch, numpy and the standard library that
    is called and not known to be harmless, copyreg extensions, and calls of a computed result. Other
    classes and functions are an info, since their own authors need them: 20 of 89 published
    checkpoints are refused by torch's weights_only because of one.

    Common causes:
        `torch.save(model)` instead of the state dict, and hyperparameters, callbacks, an optimizer or
        an argparse.Namespace saved beside it (info). An error has no innocent cause but one: models
        traced with torch.fx are rebuilt by running Python text from the file.

    Fix:
        Load with `torch.load(path, weights_only=True)`, the default since torch 2.6. Do not use
        weights_only=False on a file with an error here, whoever sent it. To get rid of the names, load
        the file in a sandbox once and save tensors only: `safetensors.torch.save_file(sd, "model.safetensors")`.

    When this is fine:
        Info: in files of your own. This is no virus scanner; what a class does when it is made is not
        known, and a file without findings here is not proved to be harmless.
    """
    found = {tier: [each for each in file.globals if each.tier == tier] for tier in ("danger", "note")}
    if found["danger"]:
        calls = "calls" if any(each.called for each in found["danger"]) else "names"
        yield naming_finding(file, f"loading it with pickle {calls}", found["danger"], shown, Severity.ERROR)
    elif found["note"]:
        authors_own_first = sorted(found["note"], key=lambda each: each.module.startswith("torch."))
        yield naming_finding(file, "loading it with pickle imports", authors_own_first, shown, Severity.INFO)


def naming_finding(file: RawFile, told: str, globals: list[Global], shown: int, severity: Severity) -> Finding:
    listed = ", ".join(f"{in_words(each)} (byte {each.offset})" for each in globals[:shown])
    rest = len(globals) - shown
    return Finding(
        file.at(),
        f"{told} {listed}" + (f" and {rest} more" if rest > 0 else ""),
        evidence={
            "names": [str(each)[:80] for each in globals[:100]],
            "offsets": [each.offset for each in globals[:100]],
            "called": [each.called for each in globals[:100]],
            "count": len(globals),
        },
        severity=severity,
    )


def in_words(name: Global) -> str:
    """The name as a message has it; two of the machine's own stand for what has no name."""
    if name.module == "<computed>":
        return f"the result of another call ({name.name[:80]})"
    return f"copyreg extension {name.name[:80]}" if name.module == "<copyreg extension>" else str(name)[:80]


def naming(*globals: Global) -> RawFile:
    return RawFile(format="torch-zip", globals=globals)
