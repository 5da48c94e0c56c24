"""Presets: rules over scores, as data. A rule turns a clip away for a reason if a score is beyond a threshold.

A preset is a YAML file: one of `presets/`, or the user's own of the same form.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml

from curate.scores_view import SCORES
from pipeline.reasons import REASONS
from pipeline.records import content_id

MAX_RULES = 60
"""Which rules a clip fails is a bit mask in 64 bits."""


@dataclass(frozen=True, kw_only=True)
class Rule:
    """Drop a clip for `reason` if `score` lies beyond `threshold`. A score that could not be measured never fails."""

    reason: str
    """A key of `pipeline.reasons.REASONS`."""
    score: str
    """A key of `curate.scores_view.SCORES`."""
    drop_if: Literal["<", ">"]
    threshold: float
    low: float
    """Left end of the slider on the contact sheet; it does not decide."""
    high: float
    help: str
    """One sentence for a person: what the rule turns away."""

    def __post_init__(self) -> None:
        for name in ("reason", "score", "help"):
            if not isinstance(getattr(self, name), str):
                raise ValueError(f"{name} must be text, got {getattr(self, name)!r}")
        if self.reason not in REASONS:
            raise ValueError(f"unknown reason {self.reason!r}; known: {', '.join(REASONS)}")
        if self.score not in SCORES:
            raise ValueError(f"unknown score {self.score!r}; known: {', '.join(SCORES)}")
        if self.drop_if not in ("<", ">"):
            raise ValueError(f"drop_if must be '<' or '>', got {self.drop_if!r}")
        for name in ("threshold", "low", "high"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                # YAML 1.1 takes 1e-3 for a word; 1.0e-3 is a number.
                raise ValueError(f"{name} must be a finite number such as 0.05 or 1.0e-3, got {value!r}")
        if self.low >= self.high:
            raise ValueError(f"low must be below high, got {self.low} and {self.high}")

    @property
    def key(self) -> str:
        """What `--set` calls the rule where its reason alone is not enough."""
        return f"{self.reason}.{self.score}"

    def fails(self, score: float | None) -> bool:
        """Whether a clip with this score is turned away."""
        if score is None or not math.isfinite(score):
            return False
        return score < self.threshold if self.drop_if == "<" else score > self.threshold

    @property
    def sql(self) -> str:
        """The same over the columns of the score's source: true, false or NULL."""
        score = SCORES[self.score].sql
        return f"(isfinite({score}) AND {score} {self.drop_if} {float(self.threshold)!r}::DOUBLE)"


@dataclass(frozen=True, kw_only=True)
class Preset:
    """Rules in the order in which they give a clip its reason."""

    name: str
    description: str
    rules: tuple[Rule, ...]

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("a preset needs a name")
        if len(self.rules) > MAX_RULES:
            raise ValueError(f"at most {MAX_RULES} rules, got {len(self.rules)}")
        keys = [(rule.key, rule.drop_if) for rule in self.rules]
        for key in keys:
            if keys.count(key) > 1:
                raise ValueError(f"two rules for {key[0]} {key[1]}")

    @property
    def preset_id(self) -> str:
        """`name@hash` of what decides: reasons, scores, operators and thresholds in their order."""
        decisive = [(rule.reason, rule.score, rule.drop_if, float(rule.threshold)) for rule in self.rules]
        return f"{self.name}@{content_id(decisive, length=8)}"

    def override(self, settings: Sequence[str]) -> "Preset":
        """The preset with other thresholds.

        Args:
            settings: `reason=number`, or `reason=off` to leave the rule out; `reason.score=…` where several rules
                share the reason.

        Raises:
            ValueError: A setting is not of this form, or names no rule or several.
        """
        rules = list(self.rules)
        for setting in settings:
            name, equals, value = (part.strip() for part in setting.partition("="))
            if not equals:
                raise ValueError(f"--set {setting!r}: expected reason=number or reason=off")
            found = [rule for rule in rules if name in (rule.reason, rule.key)]
            if len(found) != 1:
                choices = ", ".join(rule.key for rule in found or rules) or "no rules"
                problem = "names several rules" if found else "names no rule"
                raise ValueError(f"--set {setting!r} {problem} of preset {self.name!r}; choose from: {choices}")
            place = rules.index(found[0])
            if value == "off":
                del rules[place]
                continue
            try:
                rules[place] = replace(found[0], threshold=float(value))
            except ValueError as error:
                raise ValueError(f"--set {setting!r}: {error}") from error
        return replace(self, rules=tuple(rules))


def preset_names() -> list[str]:
    """The presets that come with the program."""
    return sorted(path.name.removesuffix(".yaml") for path in _folder().iterdir() if path.name.endswith(".yaml"))


def load_preset(name_or_path: str, settings: Sequence[str] = ()) -> Preset:
    """A preset by name, or from a file (`.yaml` or `.yml`), with other thresholds where `settings` say so.

    Raises:
        ValueError: There is no such preset, or something is wrong with it; the message names the file and line.
    """
    if name_or_path.endswith((".yaml", ".yml")):
        try:
            text = Path(name_or_path).read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"cannot read the preset {name_or_path}: {error}") from error
        where = name_or_path
    else:
        if name_or_path not in preset_names():
            raise ValueError(
                f"no preset {name_or_path!r}; there are {', '.join(preset_names())}, or give the path of a .yaml file"
            )
        text = (_folder() / f"{name_or_path}.yaml").read_text("utf-8")
        where = f"presets/{name_or_path}.yaml"
    return parse_preset(text, where).override(settings)


def parse_preset(text: str, where: str) -> Preset:
    """A preset from YAML.

    Args:
        text: The YAML.
        where: Name of the file, for messages.

    Raises:
        ValueError: It is no preset; the message names the file and line.
    """
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"{where}: not YAML: {error}") from error
    if not isinstance(values, Mapping):
        raise ValueError(f"{where}: expected a mapping with name, description and rules")
    _check_keys(values, {"name", "description", "rules"}, where)
    if not isinstance(values["rules"], list):
        raise ValueError(f"{where}: rules must be a list")
    lines = _rule_lines(root)
    rules = [
        _parse_rule(entry, f"{where}, line {line}, rule {number}")
        for number, (entry, line) in enumerate(zip(values["rules"], lines, strict=True), 1)
    ]
    try:
        return Preset(name=str(values["name"]), description=str(values["description"]), rules=tuple(rules))
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _parse_rule(entry: Any, where: str) -> Rule:
    if not isinstance(entry, Mapping):
        raise ValueError(f"{where}: expected a mapping, got {entry!r}")
    _check_keys(entry, {field.name for field in fields(Rule)}, where)
    try:
        return Rule(**entry)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _check_keys(entry: Mapping[Any, Any], expected: set[str], where: str) -> None:
    given = {str(key) for key in entry}
    if missing := expected - given:
        raise ValueError(f"{where}: lacks {', '.join(sorted(missing))}")
    if unknown := given - expected:
        raise ValueError(f"{where}: unknown {', '.join(sorted(unknown))}; known: {', '.join(sorted(expected))}")


def _rule_lines(root: yaml.Node | None) -> list[int]:
    """The line of each entry of `rules`, from 1."""
    assert isinstance(root, yaml.MappingNode)
    for key, value in root.value:
        if key.value == "rules":
            return [entry.start_mark.line + 1 for entry in value.value]
    return []


def _folder() -> Any:
    return resources.files("curate") / "presets"
