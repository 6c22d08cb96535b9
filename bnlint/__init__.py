"""bnlint: the static linter for BatchNorm in PyTorch.

Everything a rule or a caller may use is named here and nowhere else. Importing this module imports
neither torch nor numpy, and nothing that a run does not need: names are looked up when first asked for.
"""

from __future__ import annotations

__version__ = "0.1.0"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bnlint.api import check as check
    from bnlint.api import open_checkpoint as open_checkpoint
    from bnlint.errors import BnlintError as BnlintError
    from bnlint.errors import ConfigError as ConfigError
    from bnlint.errors import RuleCrashed as RuleCrashed
    from bnlint.errors import RuleError as RuleError
    from bnlint.errors import UnreadableFile as UnreadableFile
    from bnlint.errors import UsageError as UsageError
    from bnlint.finding import Finding as Finding
    from bnlint.finding import Location as Location
    from bnlint.finding import Severity as Severity
    from bnlint.matching import families as families
    from bnlint.matching import load_line as load_line
    from bnlint.matching import load_outcome as load_outcome
    from bnlint.model.batchnorm import BatchNorm as BatchNorm
    from bnlint.model.checkpoint import Checkpoint as Checkpoint
    from bnlint.model.checkpoint import OptimizerState as OptimizerState
    from bnlint.model.examples import batchnorm as batchnorm
    from bnlint.model.examples import checkpoint as checkpoint
    from bnlint.model.examples import pair as pair
    from bnlint.model.examples import state_dict as state_dict
    from bnlint.model.examples import tensor as tensor
    from bnlint.model.key_plan import KeyPlan as KeyPlan
    from bnlint.model.key_plan import PrefixChange as PrefixChange
    from bnlint.model.module import BatchNormModule as BatchNormModule
    from bnlint.model.module import ModuleTree as ModuleTree
    from bnlint.model.pair import Change as Change
    from bnlint.model.pair import Pair as Pair
    from bnlint.model.raw_file import Global as Global
    from bnlint.model.raw_file import RawFile as RawFile
    from bnlint.model.state_dict import Assumed as Assumed
    from bnlint.model.state_dict import StateDict as StateDict
    from bnlint.model.tensor import Tensor as Tensor
    from bnlint.model.tensor import Vector as Vector
    from bnlint.report import Report as Report
    from bnlint.ruleset import Rule as Rule
    from bnlint.ruleset import rule as rule

_HOME = {
    "api": ("check", "open_checkpoint"),
    "errors": ("BnlintError", "ConfigError", "RuleCrashed", "RuleError", "UnreadableFile", "UsageError"),
    "finding": ("Finding", "Location", "Severity"),
    "matching": ("families", "load_line", "load_outcome"),
    "model.batchnorm": ("BatchNorm",),
    "model.checkpoint": ("Checkpoint", "OptimizerState"),
    "model.examples": ("batchnorm", "checkpoint", "pair", "state_dict", "tensor"),
    "model.key_plan": ("KeyPlan", "PrefixChange"),
    "model.module": ("BatchNormModule", "ModuleTree"),
    "model.pair": ("Change", "Pair"),
    "model.raw_file": ("Global", "RawFile"),
    "model.state_dict": ("Assumed", "StateDict"),
    "model.tensor": ("Tensor", "Vector"),
    "report": ("Report",),
    "ruleset": ("Rule", "rule"),
}
__all__ = sorted(name for names in _HOME.values() for name in names)


def __getattr__(name: str) -> object:
    for home, names in _HOME.items():
        if name in names:
            value = getattr(__import__(f"bnlint.{home}", fromlist=[name]), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
