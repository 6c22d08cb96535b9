"""Hostile names: of tensors, of state dicts, of files.

Most of these files have a negative variance, so that a report prints the names.
"""

import os
from pathlib import Path

from .assembler import (
    Claim,
    byte_text,
    dict_of,
    floats,
    layer,
    ordered_dict,
    pickled,
    state_dict,
    text,
    torch_entries,
    torch_zip,
)
from .assembler import archive as zip_archive
from .case import bounded, found, hostile

DEFECT = found("negative-running-var")
NEGATIVE: Claim = floats([0.9, -0.7, 0.4, 1.1], "3")

NAMES = {
    "ansi": "\x1b[31mred\x1b[0m",
    "ansi_of_one_byte": "\x9b31mred",
    "clear_screen": "\x1b[2J\x1b[H",
    "window_title": "\x1b]0;pwned\x07",
    "hyperlink": "\x1b]8;;http://evil.example\x1b\\click\x1b]8;;\x1b\\",
    "newline": "layer1\nlayer2",
    "carriage_return": "all is well\rlayer",
    "backspace": "layer\b\b\b\b\bsafe",
    "nul": "layer\0hidden",
    "tab": "a\tb",
    "workflow_command": "x\n::error file=app.py,line=1::pwned",
    "workflow_command_at_the_start": "::error::pwned",
    "workflow_stop": "::stop-commands::x",
    "old_workflow_command": "a##[error]pwned",
    "bidi_override": "safe\u202egnirts\u202c",
    "bidi_isolate": "a\u2066b\u2069",
    "line_separator": "a\u2028b\u2029c\u0085d",
    "zero_width": "a\u200bb\u2060c\ufeff",
    "rich_markup": "[bold red]x[/bold red][link=http://evil.example]y[/link]",
    "rich_markup_unclosed": "[/nothing]",
    "html": "<script>alert(1)</script><img src=x onerror=y>",
    "xml": "]]></failure><failure message='&amp;\"'>",
    "xml_forbidden": "\x01\x02\x08\x0b\x0c\x0e\x1f\ufffe\uffff",
    "markdown": "|`*_[x](http://evil.example)|\\",
    "json": '"},{"rule":"x","a":"',
    "format": "{0} %s %(x)s {x!r} $HOME `id`",
    "percent": "%0A%0D%25",
    "quotes": "'\"`",
    "backslashes": "\\n\\x1b\\u202e",
    "spaces": "   ",
    "emoji": "\U0001f600\u200d\U0001f468",
    "combining": "e" + "\u0301" * 500,
    "surrogate": "a\ud800b",
    "private_use": "\ue000\U0010ffff",
    "tags": "a\U000e0041\U000e0042",
    "dash": "--fail-on=never",
    "glob": "*?[a-z]",
    "4000_characters": "x" * 4000,
    "4000_dots": "." * 4000,
    "dots": "..",
    "path": "../../etc/passwd",
    "python": "__class__",
    "cyrillic": "с1.bn",
}


@hostile(DEFECT, each=NAMES)
def layer_called(name: str) -> bytes:
    """A layer whose name attacks what prints it."""
    return torch_zip(layer(name, running_var=NEGATIVE))


@hostile(DEFECT)
def layer_called_nothing() -> bytes:
    """The state dict of a single BatchNorm: its keys have no prefix."""
    return torch_zip(layer("", running_var=NEGATIVE))


@hostile(bounded())
def layer_called_dot() -> bytes:
    """Keys that begin with a dot."""
    claims = {f".{name}": claim for name, claim in layer("", running_var=NEGATIVE).items()}
    return torch_zip(claims)


@hostile(
    DEFECT,
    each={
        name: NAMES[name]
        for name in ("ansi", "newline", "workflow_command", "surrogate", "nul", "4000_characters", "dots")
    },
)
def state_dict_called(name: str) -> bytes:
    """The wrapper around the state dict has the hostile name."""
    claims = layer(running_var=NEGATIVE)
    return torch_zip(claims, pickled(dict_of([(text(name), state_dict(claims))])))


@hostile(bounded(), nasty=True)
def layer_a_million_dots_deep() -> bytes:
    """A name of half a million parts."""
    return torch_zip(layer("a." * 500_000 + "bn"))


@hostile(bounded(), nasty=True)
def ten_thousand_layers_of_long_names() -> bytes:
    """Ten thousand layers whose names have two thousand characters each: 50 MB of names in a report."""
    claims = layer(running_var=NEGATIVE)
    mean = claims["bn.running_mean"].pickled() + b"q\x63"
    var = claims["bn.running_var"].pickled() + b"q\x62"
    pairs = [(text("bn.running_mean"), mean), (text("bn.running_var"), var)]
    for n in range(10_000):
        name = f"{n}." + "x" * 2000
        pairs += [(text(f"{name}.running_mean"), b"h\x63"), (text(f"{name}.running_var"), b"h\x62")]
    return torch_zip(claims, pickled(ordered_dict(pairs)))


@hostile(DEFECT)
def bytes_as_names() -> bytes:
    """Byte strings of Python 2, one of them no UTF-8."""
    pairs = [
        (byte_text(b"\xff\xfe\x1b." + name.encode()), claim.pickled())
        for name, claim in layer("", running_var=NEGATIVE).items()
    ]
    claims = layer(running_var=NEGATIVE)
    return torch_zip(claims, pickled(ordered_dict(pairs)))


@hostile(bounded())
def names_that_collide() -> bytes:
    """The same layer name as text and as bytes, once healthy and once not."""
    claims = layer()
    bad = layer(running_var=floats([1, -1, 1, 1], "9"))
    pairs = [(text(name), claim.pickled()) for name, claim in claims.items()]
    pairs += [(byte_text(name.encode()), claim.pickled()) for name, claim in bad.items()]
    both = {**claims, "other": bad["bn.running_var"]}
    return zip_archive(torch_entries(both, pickled(ordered_dict(pairs))))


@hostile(bounded())
def one_name_twice() -> bytes:
    """A pickle that sets the same key twice: the second counts, as in Python."""
    pairs = [(text(name), claim.pickled()) for name, claim in layer().items()]
    return torch_zip(data_pkl=pickled(ordered_dict([*pairs, *pairs[::-1]])))


# -- names of files ----------------------------------------------------------------------------------

_FILE_NAMES = {
    label: f"{name.replace('/', '-')}.pth"
    for label, name in NAMES.items()
    if label not in ("nul", "4000_characters", "4000_dots", "surrogate", "combining")
} | {
    "leading_dash": "-rf.pth",
    "double_dash": "--output=json.pth",
    "255_bytes": "n" * 251 + ".pth",
    "percent_encoded": "a%2e%2e%2fb.pth",
    "colon": "C:model.pth",
    "only_an_ending": ".pth",
    "upper_case": "MODEL.PTH",
    "spaces_at_the_end": "model.pth ",
    "comma": "a,b;c.pth",
}


@hostile(DEFECT, str, each=_FILE_NAMES)
def file_called(name: str) -> bytes:
    """A file whose name attacks what prints it."""
    return torch_zip(layer(running_var=NEGATIVE))


@hostile(DEFECT, "link.pth")
def file_called_no_utf8(path: Path) -> None:
    """A link to a file whose name is no UTF-8, and that file beside it."""
    folder = os.fsencode(path.parent)
    raw = os.path.join(folder, b"\xff\xfe.pth")
    with open(raw, "wb") as file:
        file.write(torch_zip(layer(running_var=NEGATIVE)))
    os.symlink(b"\xff\xfe.pth", os.fsencode(path))
