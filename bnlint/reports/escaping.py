"""Names out of a file are attacker's text: each medium gets them so that they cannot act in it.

A layer may be called "\\x1b]0;owned\\x07", "%0A::add-mask::x", "<img src=x>" or "x\\u202egpj.exe".
`visible` is for whatever a person reads; the others take its result one step further for their medium.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TextIO

# Longer than any name of a network that was built by hand; what is longer floods whoever reads it.
LONGEST = 1000


def visible(text: str) -> str:
    r"""`text` on one line, with everything that does not print written as an escape: "a\nb" as "a\\nb".

    That covers terminal control, line breaks, bidirectional and other invisible formatting, lone
    surrogates and whatever XML does not allow. "##" is broken up because build servers obey "##[...]"
    and "##vso[...]" anywhere in a line. What is longer than LONGEST loses its middle.
    """
    if len(text) > LONGEST:
        half = LONGEST // 2
        text = f"{text[:half]}...({len(text) - 2 * half} more characters)...{text[-half:]}"
    if not text.isprintable():
        text = "".join([each if each.isprintable() else _escape(each) for each in text])
    return text.replace("##", "#\\x23") if "##" in text else text


def _escape(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


def no_command(line: str) -> str:
    """A line of a log that GitHub Actions does not take for a workflow command: those begin with "::"."""
    return line.replace("::", ":\\x3a", 1) if line.lstrip().startswith("::") else line


def well_formed(text: str) -> str:
    """`text` exactly, but for lone surrogates, which strict JSON parsers refuse: they become an escape."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode("utf-8")


def encodable(text: str, stream: TextIO) -> str:
    """`text` with escapes for what the encoding of `stream` cannot write."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    if text.isascii() or encoding.lower().startswith("utf"):
        return text
    return text.encode(encoding, "backslashreplace").decode(encoding)


def workflow_data(text: str) -> str:
    """The message of a GitHub workflow command."""
    return visible(text).replace("%", "%25")


def workflow_property(text: str) -> str:
    """The value of a property (`file=`, `title=`) of a GitHub workflow command."""
    return workflow_data(text).replace(":", "%3A").replace(",", "%2C")


def sarif_message(text: str) -> str:
    """The text of a SARIF message, in which "[words](target)" would be a link."""
    return visible(text).replace("](", "] (")


def markdown_code(text: str) -> str:
    """A code span: in one, GitHub and GitLab make no link, mention, image, issue reference or HTML."""
    shown = visible(text)
    fence = "`"
    while fence in shown:
        fence += "`"
    padding = " " if not shown or shown[0] in "` " or shown[-1] in "` " else ""
    return f"{fence}{padding}{shown}{padding}{fence}"


# What makes markup, a mention, a reference or a link somewhere in GitHub's or GitLab's markdown.
_ACTS_IN_MARKDOWN = frozenset("\\`*[]<>|#~!@&$^{}")


def markdown_prose(text: str) -> str:
    """A sentence: as it is where it is plain words, as a code span where markdown could find something in it."""
    shown = visible(text)
    if _ACTS_IN_MARKDOWN.isdisjoint(shown) and "://" not in shown and "www." not in shown.lower():
        return shown.replace("_", "\\_")
    words = shown.strip(" ")
    return shown.replace(words, markdown_code(words))  # the spaces around them stay outside


def markdown_text(text: str) -> str:
    """Prose that has code spans of its own, which stay code spans."""
    *pairs, last = text.split("`")
    if len(pairs) % 2:
        return markdown_prose(text)
    written = ""
    for number, part in enumerate([*pairs, last]):
        shown = markdown_code(part) if number % 2 else markdown_prose(part)
        apart = " " if written.endswith("`") and shown.startswith("`") else ""  # else the two would be read as one
        written += apart + shown
    return written
