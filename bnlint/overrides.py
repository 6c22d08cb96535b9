"""What there is to say of the overrides in a configuration, once a run has shown what they decided.

Rules in all but place: a rule in rules/ never sees a configuration.
"""

from __future__ import annotations

from bnlint.finding import Finding, Severity
from bnlint.ruleset import rule
from bnlint.settings import Override, RuleSetting

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


def _override(expires: str | None = None, *, met: bool = True, used: bool = True) -> Override:
    """An override for the examples."""
    override = Override(
        {"default-running-stats": RuleSetting(Severity.OFF)},
        files=["models/legacy/*.pth"],
        reason="converted from Caffe, statistics folded into gamma and beta",
        expires=expires,
        path=".bnlint.yaml",
        line=12,
        column=5,
    )
    override.met, override.used = met, used
    return override


@rule(
    severity=Severity.WARNING,
    good=lambda: [_override(), _override("9999-12-31")],
    bad=lambda: [_override("2020-02-29")],
)
def expired_override(override: Override) -> Iterator[Finding]:
    """An override has expired.

    Somebody set a day until which these findings are fine. That day is over, the override still holds,
    and the model it is about may be in use with what the findings say is wrong with it.

    Common causes:
        The model was to be replaced or trained again by then, and was not.

    Fix:
        Look at the findings again without the override. If they are still fine, set a later `expires`
        and say in `reason` what changed; otherwise remove the override.

    When this is fine:
        Never for long. An override that is right for good needs no `expires`.
    """
    if override.expires is None:
        return
    from datetime import date

    days = (date.today() - date.fromisoformat(override.expires)).days
    if days > 0:
        yield Finding(
            override.at(),
            f"this override expired on {override.expires}, {days} day{'' if days == 1 else 's'} ago",
            evidence={"expires": override.expires, "days": days},
        )


@rule(
    severity=Severity.INFO,
    good=lambda: [_override(), _override(met=False, used=False)],
    bad=lambda: [_override(used=False)],
)
def unused_override(override: Override) -> Iterator[Finding]:
    """An override decides nothing.

    Files that it is about were checked, and with all of them the result would be the same without it.
    What nobody needs hides the next finding that somebody does. Looked at only where every rule spoke
    and every file was given (not with `--select` or `--force-exclude`), and only for overrides that set
    severities: what an option decides cannot be seen in the result.

    Common causes:
        The model was repaired, the layers were renamed, or a pattern was mistyped: the name of a layer
        has no `.weight` at its end, and `backbone.*` does not match `module.backbone.layer1`.

    Fix:
        Remove the override, or correct its `layers`.

    When this is fine:
        One configuration serves several checkouts, and only some of them hold the model.
    """
    decidable = all(not setting.options and setting.severity is not None for setting in override.rules.values())
    if override.met and not override.used and decidable:
        rules = ", ".join(override.rules)
        yield Finding(
            override.at(),
            f"this override changes no finding of {rules}" + (" at its layers" if override.layers else ""),
            evidence={"rules": list(override.rules)},
        )


RULES = (expired_override, unused_override)
for _rule in RULES:
    _rule.family = "config"
