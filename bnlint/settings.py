"""What the user wants of every rule, for one file. Made by `config.py`; read by the engine."""

from __future__ import annotations

from bnlint.finding import Location, Severity
from bnlint.model.state_dict import Assumed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bnlint.model.state_dict import StateDict
    from bnlint.ruleset import Rule


class RuleSetting:
    """What was said of one rule. None: nothing was said, the rule's own default holds."""

    __slots__ = ("options", "possible", "severity")

    def __init__(
        self,
        severity: Severity | None = None,
        possible: Severity | None = None,
        options: Mapping[str, object] | None = None,
    ) -> None:
        self.severity = severity
        self.possible = possible
        self.options: Mapping[str, object] = options or {}

    def then(self, later: RuleSetting) -> RuleSetting:
        """This setting with all that `later` says put over it."""
        return RuleSetting(
            self.severity if later.severity is None else later.severity,
            self.possible if later.possible is None else later.possible,
            {**self.options, **later.options},
        )


NOTHING_SAID = RuleSetting()


class Override:
    """One entry of `overrides:`: other settings for some files, or some layers of them.

    `files` are patterns as in .gitignore, relative to the configuration's root; none means every file.
    `layers` are glob patterns of layer names; none means every layer. `expires` is a day, "2027-06-30".
    `number` counts the overrides of a run from 0; `path`, `line` and `column` say where it is written.
    `met` becomes True once a file of the run is one of its files and all of the file's findings are known,
    `used` once it decided about a finding.
    """

    __slots__ = ("column", "expires", "files", "layers", "line", "met", "number", "path", "reason", "rules", "used")

    def __init__(
        self,
        rules: Mapping[str, RuleSetting],
        *,
        files: Sequence[str] = (),
        layers: Sequence[str] = (),
        reason: str = "",
        expires: str | None = None,
        number: int = 0,
        path: str = "",
        line: int = 0,
        column: int = 0,
    ) -> None:
        self.rules = rules
        self.files = tuple(files)
        self.layers = tuple(layers)
        self.reason = reason
        self.expires = expires
        self.number = number
        self.path = path
        self.line = line
        self.column = column
        self.met = False
        self.used = False

    def at(self) -> Location:
        """The override as a place in its configuration."""
        return Location(path=self.path, line=self.line, column=self.column)

    def covers(self, layer: str | None) -> bool:
        """True where it speaks about this layer; one without layer patterns speaks about everything."""
        if not self.layers:
            return True
        if layer is None:
            return False
        from fnmatch import fnmatchcase

        return any(fnmatchcase(layer, pattern) for pattern in self.layers)


class Comparison:
    """A pair that the user wants looked at: the checkpoints that `checkpoint` names, each against `reference`.

    `checkpoint` is a path, or a pattern as in .gitignore; "" is every checkpoint of the run. `rename` maps
    regular expressions to what stands in place of them in the names of what is loaded. `different` is True
    where the two are not the same network and are known not to be; `shallow` reads keys and BatchNorm only.
    `place` says where the user asked for it: ".bnlint.yaml:12:5", or "--reference". `factory` is True where
    `reference` is no path but the user's code, "package.module:function", and `model` what that built, None
    until it ran.
    """

    __slots__ = ("checkpoint", "different", "factory", "model", "place", "reference", "rename", "shallow")

    def __init__(
        self,
        reference: str,
        checkpoint: str = "",
        *,
        rename: Mapping[str, str] | None = None,
        different: bool = False,
        shallow: bool = False,
        place: str = "--reference",
        factory: bool = False,
        model: StateDict | None = None,
    ) -> None:
        self.reference = reference
        self.checkpoint = checkpoint
        self.rename: Mapping[str, str] = rename or {}
        self.different = different
        self.shallow = shallow
        self.place = place
        self.factory = factory
        self.model = model


class Settings:
    """What the user wants, for one file.

    `rules` is what the configuration and the command line say of each rule, `overrides` what the
    configuration says of this file and its layers, in order; the later wins. `select` is the only
    rules to run (None: all), `ignore` those not to run. What a rule of its
    own accord says below `min_severity` is left unsaid.
    """

    __slots__ = ("assumed", "deep", "ignore", "key", "min_severity", "overrides", "preview", "rules", "select")

    def __init__(
        self,
        rules: Mapping[str, RuleSetting] | None = None,
        *,
        overrides: Sequence[Override] = (),
        select: frozenset[str] | None = None,
        ignore: frozenset[str] = frozenset(),
        assumed: Assumed | None = None,
        key: str | None = None,
        deep: bool = False,
        preview: bool = False,
        min_severity: Severity = Severity.INFO,
    ) -> None:
        self.rules: Mapping[str, RuleSetting] = rules or {}
        self.overrides = tuple(overrides)
        self.select = select
        self.ignore = ignore
        self.assumed = assumed or Assumed()
        self.key = key
        self.deep = deep
        self.preview = preview
        self.min_severity = min_severity

    def on(self, rule: Rule) -> bool:
        """True where the rule speaks about everything in this file, overrides aside."""
        if rule.name in self.ignore or (self.select is not None and rule.name not in self.select):
            return False
        said = self.rules.get(rule.name, NOTHING_SAID).severity
        if said is not None:
            return said > Severity.OFF
        held_back = not rule.severity or (rule.preview and not self.preview) or (rule.deep and not self.deep)
        return self.select is not None or not held_back

    def runs(self, rule: Rule) -> bool:
        """True where the rule speaks about this file, or an override lets it speak about some of it."""
        if rule.name in self.ignore or (self.select is not None and rule.name not in self.select):
            return False
        return self.on(rule) or any(override.rules.get(rule.name, NOTHING_SAID).severity for override in self.overrides)

    def of(self, rule: Rule, layer: str | None) -> tuple[RuleSetting, Override | None]:
        """What holds for this rule at this layer, and the override that said so last, if one did."""
        setting = self.rules.get(rule.name, NOTHING_SAID)
        decided: Override | None = None
        for override in self.overrides:
            if rule.name in override.rules and override.covers(layer):
                setting, decided = setting.then(override.rules[rule.name]), override
        return setting, decided
