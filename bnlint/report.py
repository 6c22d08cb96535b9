"""What a run found: files, findings, what was silenced, and what to exit with."""

from __future__ import annotations

from bnlint.finding import Severity

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from bnlint.errors import RuleCrashed
    from bnlint.finding import Finding
    from bnlint.ruleset import Rule

EXIT_CLEAN, EXIT_FINDINGS, EXIT_TROUBLE = 0, 1, 2


class FileResult:
    """One file of a run, as the report lists it.

    `kind` is "checkpoint", "source" or "pair"; `format` and `status` as in RawFile; `note` says what
    a reader should know (which wrapper was read), None where there is nothing to say. `state_dicts` are
    the places of the state dicts in it, the one read as the model first.
    """

    __slots__ = ("batchnorm_layers", "channels", "format", "kind", "note", "path", "state_dicts", "status")

    def __init__(
        self,
        path: str,
        *,
        kind: str = "checkpoint",
        format: str | None = None,
        status: str = "checked",
        batchnorm_layers: int = 0,
        channels: int = 0,
        note: str | None = None,
        state_dicts: Sequence[str] = (),
    ) -> None:
        self.path = path
        self.kind = kind
        self.format = format
        self.status = status
        self.batchnorm_layers = batchnorm_layers
        self.channels = channels
        self.note = note
        self.state_dicts = list(state_dicts)


class Gate:
    """When a run fails: findings at or over `fail_on` (None: never), or more than `max_warnings` warnings."""

    __slots__ = ("fail_on", "max_warnings")

    def __init__(self, fail_on: Severity | None = Severity.ERROR, max_warnings: int | None = None) -> None:
        self.fail_on = fail_on
        self.max_warnings = max_warnings

    def fails(self, findings: Iterable[Finding]) -> bool:
        severities = [finding.gravity for finding in findings]
        if self.fail_on is not None and any(severity >= self.fail_on for severity in severities):
            return True
        return self.max_warnings is not None and severities.count(Severity.WARNING) > self.max_warnings


class Report:
    """What a run found.

    `findings` are in the order of the files, within a file the gravest first. `suppressed` holds the
    findings an override or an ignore comment silenced, with the reason; `baselined` those a baseline
    knew. `crashes` and `trouble` (one sentence each: a path that does not exist, a folder that holds
    nothing) make the exit code 2. `rules` are the rules of this run by name. `root` is the folder that
    fingerprints are relative to. `executed` names the user's code that ran.
    """

    __slots__ = (
        "baselined",
        "crashes",
        "executed",
        "files",
        "findings",
        "gate",
        "root",
        "rules",
        "suppressed",
        "trouble",
    )

    def __init__(
        self,
        files: Sequence[FileResult] = (),
        findings: Sequence[Finding] = (),
        *,
        suppressed: Sequence[tuple[Finding, str]] = (),
        baselined: Sequence[Finding] = (),
        crashes: Sequence[RuleCrashed] = (),
        trouble: Sequence[str] = (),
        rules: dict[str, Rule] | None = None,
        gate: Gate | None = None,
        root: str = "",
        executed: Sequence[str] = (),
    ) -> None:
        self.files = list(files)
        self.findings = list(findings)
        self.suppressed = list(suppressed)
        self.baselined = list(baselined)
        self.crashes = list(crashes)
        self.trouble = list(trouble)
        self.rules = rules or {}
        self.gate = gate or Gate()
        self.root = root
        self.executed = list(executed)

    @property
    def failed(self) -> bool:
        """True where the gate does not let this pass."""
        return self.gate.fails(self.findings)

    @property
    def exit_code(self) -> int:
        """0 clean, 1 findings at or over the gate, 2 something could not be done."""
        if self.crashes or self.trouble:
            return EXIT_TROUBLE
        return EXIT_FINDINGS if self.failed else EXIT_CLEAN

    def count(self, severity: Severity) -> int:
        """How many findings have exactly this severity."""
        return sum(finding.gravity == severity for finding in self.findings)
