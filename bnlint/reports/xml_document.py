"""How an XML report is written."""

from __future__ import annotations

from xml.etree.ElementTree import indent, tostring

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TextIO
    from xml.etree.ElementTree import Element


def write_document(root: Element, stream: TextIO) -> None:
    """Write it with a declaration, in ASCII, so that it is right in whatever encoding the stream has."""
    indent(root)
    text = tostring(root, encoding="us-ascii", xml_declaration=False).decode("ascii")
    stream.write(f'<?xml version="1.0" encoding="UTF-8"?>\n{text}\n')
