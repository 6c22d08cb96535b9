"""`bnlint init`: write a commented .bnlint.yaml."""

from __future__ import annotations

import sys

from bnlint.cli.parser import Parser
from bnlint.config.sections import PRESETS
from bnlint.outputs import open_output

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

# A line that starts with "# " is prose; what else starts with "#" is a setting that can be taken in as it stands.
TEMPLATE = """\
# What bnlint looks for in this repository. `bnlint config` shows the settings in force, `bnlint rules` the
# rules, `bnlint explain RULE` one of them, and `bnlint schema config` the JSON Schema of this file.

# Where to start: recommended (the rules' own defaults), strict, quiet, or another configuration file.
extends: {preset}

# From which severity on a run fails: error, warning, info, or never.
fail-on: error
#max-warnings: 0
#min-severity: warning

# What findings of a rule are: off, info, warning or error; or a mapping that also sets the rule's options.
rules:
#  missing-num-batches-tracked: off
#  dead-channels: {{severity: warning, fraction: 0.25}}

# What a state dict cannot say: how your BatchNorm layers are built, where it is not torch's default.
#assume: {{momentum: 0.03, eps: 0.001}}

# Paths to leave out, as in .gitignore.
#exclude: ["third_party/**"]

# Other settings for some files, or for some layers of them. Each needs a reason; after the day in
# `expires`, and once it decides nothing any more, the override itself is reported.
#overrides:
#  - files: ["models/legacy/*.pth"]
#    layers: ["backbone.*"]
#    rules: {{default-running-stats: off}}
#    reason: converted from Caffe, statistics folded into gamma and beta
#    expires: 2027-06-30

# Your own rules. They are Python, so they run only where the command line says --allow-code.
#rules-folder: ci/bnlint_rules
"""


def main(argv: Sequence[str]) -> int:
    parser = Parser("init", "Write a configuration with every setting explained.")
    parser.add_argument("path", nargs="?", default=".bnlint.yaml", metavar="PATH", help=".bnlint.yaml where left out")
    parser.add_argument("--preset", choices=PRESETS, default="recommended", help="where to start")
    parser.add_argument("--force", action="store_true", help="replace a file that exists")
    said = parser.parse_args(argv)
    with open_output(said.path, said.force) as stream:
        stream.write(TEMPLATE.format(preset=said.preset))
    sys.stdout.write(f"wrote {said.path}\n")
    return 0
