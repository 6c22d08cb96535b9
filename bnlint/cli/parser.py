"""argparse, the way bnlint speaks: one line per error, with the option that was probably meant."""

from __future__ import annotations

from argparse import ArgumentParser, RawDescriptionHelpFormatter

from bnlint.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn


class Parser(ArgumentParser):
    """The parser of one command."""

    def __init__(self, command: str, description: str, epilog: str | None = None) -> None:
        super().__init__(
            prog=f"bnlint {command}",
            description=description,
            epilog=epilog,
            allow_abbrev=False,
            formatter_class=lambda prog: RawDescriptionHelpFormatter(prog, max_help_position=30),
        )

    def error(self, message: str) -> NoReturn:
        unknown = message.removeprefix("unrecognized arguments: ")
        if unknown != message:
            from bnlint.nearest import did_you_mean

            word = unknown.split()[0]
            message = f"there is no option {word}{did_you_mean(word, self._option_string_actions)}"
        raise UsageError(f"{self.prog.removeprefix('bnlint ')}: {message}; `{self.prog} --help` lists the options")
