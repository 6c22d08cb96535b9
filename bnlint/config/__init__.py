"""The configuration of a run: found, read, put together, and asked what holds for a file."""

from __future__ import annotations

import os

from bnlint.config.search import root_of, search
from bnlint.errors import UsageError
from bnlint.finding import Severity
from bnlint.fingerprint import relative_path
from bnlint.model.state_dict import Assumed
from bnlint.rulebook import Rulebook
from bnlint.settings import NOTHING_SAID, Comparison, Override, RuleSetting, Settings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pathspec import GitIgnoreSpec

    from bnlint.config.file import Node

COMMAND_LINE = "command line"


class Config:
    """What the user wants of a run.

    `path` is the file it was read from, None where there is none; `root` the folder that its patterns
    and every fingerprint are relative to. `origins` says for each value that is not a default where it
    was said: "rules.dead-channels.severity" -> ".bnlint.yaml:4:3". `fail_on` is the severity that fails a
    run (None: none does), `min_severity` the one below which rules are not heard that nothing was said
    of, `exclude` the patterns of paths to leave out, `compare` the pairs that the configuration and the
    command line name, `model_timeout` the seconds that code may take to build a model (None: the usual).
    """

    __slots__ = (
        "_settings",
        "_specs",
        "assumed",
        "compare",
        "deep",
        "exclude",
        "fail_on",
        "ignore",
        "key",
        "max_warnings",
        "min_severity",
        "model_timeout",
        "origins",
        "overrides",
        "path",
        "preview",
        "root",
        "rulebook",
        "rules",
        "select",
    )

    def __init__(self, root: str = "", path: str | None = None, rulebook: Rulebook | None = None) -> None:
        self.root = root
        self.path = path
        self.rulebook = rulebook or Rulebook()
        self.rules: dict[str, RuleSetting] = {}
        self.overrides: list[Override] = []
        self.exclude: list[str] = []
        self.compare: list[Comparison] = []
        self.assumed = Assumed()
        self.fail_on: Severity | None = Severity.ERROR
        self.max_warnings: int | None = None
        self.min_severity = Severity.INFO
        self.model_timeout: float | None = None
        self.select: frozenset[str] | None = None
        self.ignore: frozenset[str] = frozenset()
        self.key: str | None = None
        self.deep = False
        self.preview = False
        self.origins: dict[str, str] = {}
        self._settings: dict[tuple[int, ...], Settings] = {}
        self._specs: dict[tuple[str, ...], GitIgnoreSpec] = {}

    def for_file(self, path: str) -> Settings:
        """What holds for one file. Files under the same overrides share one object."""
        overrides = [each for each in self.overrides if not each.files or self._matches(each.files, path)]
        numbers = tuple(override.number for override in overrides)
        if numbers not in self._settings:
            self._settings[numbers] = Settings(
                self.rules,
                overrides=overrides,
                select=self.select,
                ignore=self.ignore,
                assumed=self.assumed,
                key=self.key,
                deep=self.deep,
                preview=self.preview,
                min_severity=self.min_severity,
            )
        return self._settings[numbers]

    def comparisons(self, path: str) -> list[Comparison]:
        """What to compare a checkpoint with: each comparison whose checkpoint this is."""
        return [each for each in self.compare if not each.checkpoint or self._matches((each.checkpoint,), path)]

    @property
    def models_built(self) -> list[str]:
        """The user's code that built models to compare with, as it is named."""
        return list(dict.fromkeys(each.reference for each in self.compare if each.model is not None))

    def excludes(self, path: str, folder: bool = False) -> bool:
        """True for a file, or a folder with all that is in it, that the configuration leaves out."""
        return bool(self.exclude) and self._matches(self.exclude, path, folder)

    def _matches(self, patterns: Sequence[str], path: str, folder: bool = False) -> bool:
        key = tuple(patterns)
        if key not in self._specs:
            from pathspec import GitIgnoreSpec

            self._specs[key] = GitIgnoreSpec.from_lines(patterns)
        return self._specs[key].match_file(relative_path(path, self.root) + ("/" if folder else ""))


def load_config(
    path: str | None = None,
    *,
    isolated: bool = False,
    preset: str | None = None,
    select: Sequence[str] = (),
    ignore: Sequence[str] = (),
    severity: Mapping[str, str] | None = None,
    momentum: float | None = None,
    eps: float | None = None,
    fail_on: str | None = None,
    max_warnings: int | None = None,
    min_severity: str | None = None,
    key: str | None = None,
    deep: bool = False,
    preview: bool = False,
    allow_code: bool = False,
    reference: str | None = None,
    shallow: bool = False,
) -> Config:
    """The configuration in force: that of `path`, or the one found from the working directory.

    `isolated` reads no file. `preset` is where to start from, in place of what the file extends. The
    other arguments are the command line's word, which goes over the file's; the file's overrides, being
    about some files or layers only, still hold. ConfigError and UsageError where something is wrong.
    """
    root, found = search() if path is None or isolated else (root_of(path), path)
    config = Config(root, None if isolated else found)
    if config.path is not None or preset is not None:
        _read_files(config, preset, allow_code)
    config.key, config.deep, config.preview = key, deep, preview
    _say(config, select, ignore, severity or {})
    _set_gate(config, fail_on, max_warnings, min_severity)
    _assume(config, momentum, eps)
    _compare(config, reference, shallow)
    return config


# -- putting files together ------------------------------------------------------------------------------


def _read_files(config: Config, preset: str | None, allow_code: bool) -> None:
    """Put what the files say into `config`, the one that is extended first."""
    from bnlint.config.search import chain

    files = chain(config.path, preset)
    config.rulebook = _rulebook(files, allow_code)
    for node in files:
        _merge(config, node)


def _rulebook(files: Iterable[Node], allow_code: bool) -> Rulebook:
    """The rules there are: bnlint's own, and those of the last `rules-folder`."""
    from bnlint.config.sections import members, text

    folder, place = None, ""
    for node in files:
        said = members(node).get("rules-folder")
        if said is not None:
            file = said.place.file
            folder = os.path.join(os.path.dirname(os.path.abspath(file)), text(said, "rules-folder"))
            place = str(said.place)
    return Rulebook(folder, allowed=allow_code, place=place)


def _merge(config: Config, node: Node) -> None:
    """Put what one file says over what the files before it said; lists grow."""
    from bnlint.config import sections

    said = sections.members(node)
    if "fail-on" in said:
        config.fail_on = sections.gate(said["fail-on"])
        config.origins["fail-on"] = str(said["fail-on"].place)
    if "min-severity" in said:
        config.min_severity = Severity.of(sections.choice(said["min-severity"], "min-severity", Severity.NAMES[1:]))
        config.origins["min-severity"] = str(said["min-severity"].place)
    if "max-warnings" in said:
        config.max_warnings = sections.whole(said["max-warnings"], "max-warnings", low=0)
        config.origins["max-warnings"] = str(said["max-warnings"].place)
    if "assume" in said:
        for name, (value, place) in sections.assumed(said["assume"]).items():
            config.assumed = _assumed(config.assumed, **{name: value})
            config.origins[f"assume.{name}"] = str(place)
    if "rules" in said:
        for name, setting in sections.rules(said["rules"], config.rulebook).items():
            config.rules[name] = config.rules.get(name, NOTHING_SAID).then(setting)
            _note_rule(config, name, setting, str(sections.members(said["rules"])[name].key))
    if "exclude" in said:
        config.exclude += sections.patterns(said["exclude"], "exclude")
        config.origins["exclude"] = str(said["exclude"].place)
    if "overrides" in said:
        for override in sections.overrides(said["overrides"], config.rulebook):
            override.number = len(config.overrides)
            config.overrides.append(override)
    if "compare" in said:
        folder = os.path.dirname(said["compare"].place.file)
        for comparison in sections.comparisons(said["compare"]):
            if not comparison.factory:
                comparison.reference = os.path.join(folder, comparison.reference)
            config.compare.append(comparison)
        config.origins["compare"] = str(said["compare"].key)


def _note_rule(config: Config, name: str, setting: RuleSetting, origin: str) -> None:
    for word in ("severity", "possible"):
        if getattr(setting, word) is not None:
            config.origins[f"rules.{name}.{word}"] = origin
    for option in setting.options:
        config.origins[f"rules.{name}.{option}"] = origin


# -- the command line's word -------------------------------------------------------------------------------


def _say(
    config: Config,
    select: Sequence[str],
    ignore: Sequence[str],
    severity: Mapping[str, str],
) -> None:
    """Put the command line's word about rules over the files'."""
    for option, names in (("--select", select), ("--ignore", ignore), ("--severity", severity)):
        for name in names:
            _expect_rule(config, option, name)
    config.ignore = frozenset(ignore)
    if select:
        config.select = frozenset(select)
        for name in select:  # who asks for a rule by name wants to hear it
            said = config.rules.get(name)
            if said is not None and said.severity == Severity.OFF:
                config.rules[name] = RuleSetting(None, said.possible, said.options)
    for name, level in severity.items():
        setting = RuleSetting(_level(level, "--severity", Severity.NAMES))
        config.rules[name] = config.rules.get(name, NOTHING_SAID).then(setting)
        _note_rule(config, name, setting, COMMAND_LINE)


def _set_gate(config: Config, fail_on: str | None, max_warnings: int | None, min_severity: str | None) -> None:
    """Put the command line's word about what is shown, and what fails, over the files'."""
    if min_severity is not None:
        config.min_severity = _level(min_severity, "--min-severity", Severity.NAMES[1:])
        config.origins["min-severity"] = COMMAND_LINE
    if fail_on is not None:
        config.fail_on = None if fail_on == "never" else _level(fail_on, "--fail-on", (*Severity.NAMES[1:], "never"))
        config.origins["fail-on"] = COMMAND_LINE
    if max_warnings is not None:
        if max_warnings < 0:
            raise UsageError(f"--max-warnings is at least 0, not {max_warnings}")
        config.max_warnings = max_warnings
        config.origins["max-warnings"] = COMMAND_LINE


def _expect_rule(config: Config, option: str, name: str) -> None:
    if name not in config.rulebook.names:
        from bnlint.nearest import did_you_mean

        hint = did_you_mean(name, config.rulebook.names) or "; `bnlint rules` lists them all"
        raise UsageError(f"{option}: there is no rule called {name}{hint}")


def _level(word: str, option: str, allowed: Sequence[str]) -> Severity:
    if word not in allowed:
        from bnlint.nearest import did_you_mean

        raise UsageError(f"{option}: {word} is no severity; allowed: {', '.join(allowed)}{did_you_mean(word, allowed)}")
    return Severity.of(word)


def _assume(config: Config, momentum: float | None, eps: float | None) -> None:
    for name, value in (("momentum", momentum), ("eps", eps)):
        if value is not None:
            if not 0 <= value <= 1:
                raise UsageError(f"--{name} lies between 0 and 1, not at {value}")
            config.assumed = _assumed(config.assumed, **{name: value})
            config.origins[f"assume.{name}"] = COMMAND_LINE


def _compare(config: Config, reference: str | None, shallow: bool) -> None:
    """Compare every checkpoint with `reference`; `shallow` holds for the configuration's pairs too."""
    for comparison in config.compare:
        comparison.shallow = comparison.shallow or shallow
    if reference is not None:
        config.compare.append(Comparison(reference, shallow=shallow))
        config.origins["compare"] = COMMAND_LINE
    elif shallow and not config.compare:
        raise UsageError("--shallow: there is nothing to compare; name a reference with --reference FILE")


def _assumed(before: Assumed, momentum: float | None = None, eps: float | None = None) -> Assumed:
    """`before` with another momentum or eps."""
    said = before.momentum if before.momentum_given else None
    return Assumed(said if momentum is None else momentum, before.eps if eps is None else eps)
