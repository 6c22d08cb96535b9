"""A baseline: the findings one already knows of, as a file to commit; only new ones fail a run.

JSON, one finding a line, sorted, so that a review shows what came and went. Findings are known by
their fingerprint (rule, path, layer): training the model further does not make them new.
"""

from __future__ import annotations

import os

from bnlint.errors import UsageError
from bnlint.fingerprint import fingerprint, relative_path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import TextIO

    from bnlint.finding import Finding
    from bnlint.report import Report

SCHEMA_VERSION = 1
LIMIT = 64 << 20  # bytes


class Entry:
    """A finding in a baseline. Rule, path and layers are for the reader; the fingerprint decides."""

    __slots__ = ("fingerprint", "layers", "path", "rule")

    def __init__(self, fingerprint: str, rule: str, path: str, layers: Iterable[str] = ()) -> None:
        self.fingerprint = fingerprint
        self.rule = rule
        self.path = path
        self.layers = tuple(layers)

    def __str__(self) -> str:
        return f"{self.rule} in {self.path}{f' at {self.layers[0]}' if self.layers else ''}"


class Baseline:
    """The entries of a baseline. `stale` are those that a run looked for and did not find any more."""

    __slots__ = ("entries", "stale")

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        self.entries = list(entries)
        self.stale: list[Entry] = []

    @classmethod
    def of(cls, report: Report) -> Baseline:
        """Everything a run found, known before or not."""
        return cls(_entry(finding, report.root) for finding in (*report.findings, *report.baselined))

    def divide(self, report: Report, complete: bool = True) -> None:
        """Put the findings of a report that are known here aside.

        An entry stands for one finding: where there is a second one at the same place, that is new.
        Where the run was not `complete`, because only some rules spoke, nothing is stale.
        """
        known: dict[str, list[Entry]] = {}
        for entry in self.entries:
            known.setdefault(entry.fingerprint, []).append(entry)
        new: list[Finding] = []
        for finding in report.findings:
            entries = known.get(fingerprint(finding, report.root))
            if entries:
                entries.pop()
                report.baselined.append(finding)
            else:
                new.append(finding)
        report.findings = new
        checked = {relative_path(file.path, report.root) for file in report.files}
        self.stale = [
            entry
            for entries in known.values()
            for entry in entries
            if complete and (entry.path in checked or not os.path.exists(os.path.join(report.root, entry.path)))
        ]

    def prune(self) -> Baseline:
        """This baseline without its stale entries."""
        return Baseline(entry for entry in self.entries if entry not in self.stale)

    def write(self, stream: TextIO) -> None:
        from json import dumps

        ordered = sorted(self.entries, key=lambda entry: (entry.path, entry.rule, entry.layers, entry.fingerprint))
        lines = [
            dumps({"rule": each.rule, "path": each.path, "layers": each.layers, "fingerprint": each.fingerprint})
            for each in ordered
        ]
        stream.write(f'{{"tool": "bnlint", "schema_version": {SCHEMA_VERSION}, "findings": [')
        stream.write("\n  " + ",\n  ".join(lines) + "\n" if lines else "")
        stream.write("]}\n")


def read_baseline(path: str) -> Baseline:
    """The baseline in a file. UsageError where there is none."""
    from json import loads

    try:
        if not os.path.isfile(path):  # a pipe would block
            raise UsageError(f"{path}: no such baseline; --write-baseline {path} makes one")
        if os.path.getsize(path) > LIMIT:
            raise UsageError(f"{path}: a baseline has at most {LIMIT >> 20} MB")
        with open(path, "rb") as file:
            content = loads(file.read(LIMIT + 1))
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}: not a baseline of bnlint: {str(error).partition(chr(10))[0]}") from None
    if not isinstance(content, dict) or content.get("tool") != "bnlint" or "findings" not in content:
        raise UsageError(f"{path}: not a baseline of bnlint")
    if content.get("schema_version") != SCHEMA_VERSION:
        raise UsageError(
            f"{path}: a baseline of version {content.get('schema_version')!r}; this bnlint knows {SCHEMA_VERSION}"
        )
    records = content["findings"]
    if not isinstance(records, list):
        raise UsageError(f"{path}: not a baseline of bnlint: findings is no list")
    return Baseline(_entry_of(record, f"{path}: entry {number}") for number, record in enumerate(records, start=1))


def _entry(finding: Finding, root: str) -> Entry:
    place = finding.location
    return Entry(fingerprint(finding, root), finding.rule, relative_path(place.path, root), place.layers)


def _entry_of(record: object, where: str) -> Entry:
    if not isinstance(record, dict):
        raise UsageError(f"{where}: not a mapping")
    for name in ("fingerprint", "rule", "path"):
        if not isinstance(record.get(name), str):
            raise UsageError(f"{where}: {name} is no text")
    layers = record.get("layers", [])
    if not isinstance(layers, list) or not all(isinstance(layer, str) for layer in layers):
        raise UsageError(f"{where}: layers is no list of text")
    return Entry(record["fingerprint"], record["rule"], record["path"], layers)
