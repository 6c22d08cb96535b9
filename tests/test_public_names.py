"""What `import bnlint` offers. Adding a name is a decision; removing one breaks rules and callers."""

import subprocess
import sys

import bnlint

PUBLIC = """
Assumed BatchNorm BatchNormModule BnlintError Change Checkpoint ConfigError Finding Global KeyPlan Location
ModuleTree OptimizerState Pair PrefixChange RawFile Report Rule RuleCrashed RuleError Severity StateDict Tensor
UnreadableFile UsageError Vector batchnorm check checkpoint families load_line load_outcome open_checkpoint
pair rule state_dict tensor
""".split()


def test_the_public_names_are_these() -> None:
    assert sorted(bnlint.__all__) == PUBLIC
    assert dir(bnlint) == sorted(bnlint.__all__)


def test_every_public_name_is_there() -> None:
    for name in PUBLIC:
        assert getattr(bnlint, name) is not None


def test_importing_bnlint_imports_nothing_heavy() -> None:
    heavy = "torch numpy rich yaml pickle zipfile json re enum dataclasses typing inspect pathlib".split()
    program = "import sys; before = {*sys.modules}; import bnlint; print(*{*sys.modules} - before)"
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not set(heavy) & set(shown.stdout.split())
