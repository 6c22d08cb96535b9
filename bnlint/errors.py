"""What can go wrong, as one tree.

BnlintError
    UsageError         the command line asks for something that cannot be; exit code 2
    ConfigError        a .bnlint.yaml is wrong; names file:line:column; exit code 2
    RuleError          a rule is not written the way a rule is written; exit code 2
    RuleCrashed        a rule raised while it looked at something; the run goes on, exit code 2
    UnreadableFile     bytes that are not what they say they are; becomes a finding, never a traceback
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


class BnlintError(Exception):
    """Everything bnlint itself raises."""


class UsageError(BnlintError):
    """The command line asks for something that cannot be."""


class ConfigError(BnlintError):
    """A configuration is wrong. The message starts with file:line:column."""


class RuleError(BnlintError):
    """A rule is not written the way a rule is written. The message says where and how."""


class RuleCrashed(BnlintError):
    """A rule raised. `rule` is its name, `where` what it looked at."""

    def __init__(self, rule: str, where: str, error: BaseException) -> None:
        super().__init__(f"rule {rule} crashed at {where}: {type(error).__name__}: {error}")
        self.rule = rule
        self.where = where


class UnreadableFile(BnlintError):
    """A file whose bytes cannot be read as what they say they are.

    `code` is one word for machines: `io`, `empty`, `truncated`, `zip`, `pickle`, `json`, `bounds`,
    `dtype`, `missing`, `limit`, `path`, `corrupt` for a damaged checkpoint; `contract` for a damaged key
    contract; `lfs`, `html`, `text`, `image` for something else under a checkpoint's name; `unsupported`
    for a known format that this version does not read; `unknown` for bytes nobody knows. `offset` is the
    byte where it went wrong, where there is one. The message holds no path of this machine, unless
    `open_checkpoint` put that of the file in front. `globals` holds what a damaged pickle had named until then.
    """

    def __init__(self, code: str, message: str, offset: int | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.offset = offset
        self.globals: Sequence[object] = ()
