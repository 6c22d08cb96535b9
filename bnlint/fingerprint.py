"""What a finding is called from one run to the next: by rule, path and layer, never by a value."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bnlint.finding import Finding


def fingerprint(finding: Finding, root: str = "") -> str:
    """32 hexadecimal digits that stay the same when the model is trained further or the folder is moved.

    They hash the rule, the path relative to `root` (the working directory where it is empty) and the
    layers with the state dict they are in. Two findings of one rule at one layer share a fingerprint.
    """
    from hashlib import sha256

    place = finding.location
    parts = (finding.rule, relative_path(place.path, root), place.state_dict or "", *place.layers)
    return sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:32]


def relative_path(path: str, root: str = "") -> str:
    """`path` relative to `root` with forward slashes; the absolute path where it lies on another drive."""
    try:
        relative = os.path.relpath(path, root or os.curdir)
    except ValueError:  # Windows: another drive
        relative = os.path.abspath(path)
    return relative.replace(os.sep, "/")
