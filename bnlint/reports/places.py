"""Places as review tools want them: a path or URI seen from the root of the repository, and a name of its own."""

from __future__ import annotations

import os

from bnlint.fingerprint import relative_path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bnlint.finding import Finding


def uri(path: str, root: str) -> dict[str, str]:
    """A SARIF artifactLocation: relative to the root of the sources, or absolute where the file lies elsewhere."""
    from urllib.parse import quote

    relative = relative_path(path, root)
    if not relative.startswith("../") and not os.path.isabs(relative):
        return {"uri": quote(relative, errors="surrogatepass"), "uriBaseId": "%SRCROOT%"}
    absolute = os.path.abspath(os.path.join(root, path)).replace(os.sep, "/")
    return {"uri": f"file:///{quote(absolute.lstrip('/'), safe='/:', errors='surrogatepass')}"}


class Ordinals:
    """Numbers findings with the same fingerprint, for media in which a fingerprint stands for one finding."""

    def __init__(self) -> None:
        self._seen: dict[str, int] = {}

    def next(self, fingerprint: str) -> int:
        """1 for the first finding of that fingerprint, 2 for the next."""
        self._seen[fingerprint] = number = self._seen.get(fingerprint, 0) + 1
        return number


def line_of(finding: Finding) -> int:
    """The line a review tool shows a finding at; a binary has only a first one."""
    return finding.location.line or 1
