"""Live modules: `check(model)` asks the rules once, `watch(model)` during training. Only this room knows torch.

    import bnlint.torch

    print(bnlint.torch.check(model).findings)

    with bnlint.torch.watch(model):
        train(model)

A live module is looked at by the rules that look at a pickled one. `bnlint.torch.lightning` has a
callback for Lightning.
"""

from __future__ import annotations

try:
    import torch as _torch  # noqa: F401
except ImportError as error:
    raise ImportError("bnlint.torch looks at live modules and needs torch: pip install 'bnlint[torch]'") from error

from bnlint.torch.checking import assert_bn_healthy, check
from bnlint.torch.recalibration import recalibration_gap
from bnlint.torch.watching import BatchNormWarning, Watch, watch

__all__ = ["BatchNormWarning", "Watch", "assert_bn_healthy", "check", "recalibration_gap", "watch"]
