import math
from pathlib import Path

import duckdb
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from curate.rules import Preset, Rule, load_preset, parse_preset, preset_names
from curate.scores_view import SCORES
from pipeline.reasons import REASONS

GOOD = """\
name: mine
description: A test.
rules:
  - reason: too_still
    score: m_object
    drop_if: "<"
    threshold: 0.01
    low: 0
    high: 0.1
    help: It stands still.
  - reason: out_of_frame
    score: border_touch
    drop_if: ">"
    threshold: 0
    low: 0
    high: 1
    help: It leaves.
"""


def rule(**values: object) -> Rule:
    known = {"reason": "too_still", "score": "m", "drop_if": "<", "threshold": 0.5, "low": 0.0, "high": 1.0, "help": ""}
    return Rule(**(known | values))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_loads_and_explains_itself(name: str) -> None:
    preset = load_preset(name)
    assert preset.name == name
    assert len(preset.description) > 40
    for entry in preset.rules:
        assert entry.score in SCORES
        assert entry.reason in REASONS
        assert len(entry.help) > 20
        assert entry.low <= entry.threshold <= entry.high


def test_the_presets_of_the_papers_are_there() -> None:
    assert set(preset_names()) == {"default", "diffusion4d", "4diffusion", "mv-video"}


def test_a_preset_is_read_from_a_users_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(GOOD)
    preset = load_preset(str(path))
    assert [entry.reason for entry in preset.rules] == ["too_still", "out_of_frame"]
    assert preset.rules[0].threshold == 0.01


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("score: m_object", "score: beauty", r"x\.yaml, line 4, rule 1: unknown score 'beauty'; known: m, "),
        ("score: border_touch", "score: beauty", r"x\.yaml, line 11, rule 2: unknown score"),
        ("reason: too_still", "reason: boring", r"line 4, rule 1: unknown reason 'boring'"),
        ("reason: too_still", "reason: [too_still]", r"line 4, rule 1: reason must be text"),
        ('drop_if: "<"', 'drop_if: "<="', r"line 4, rule 1: drop_if must be '<' or '>', got '<='"),
        ("threshold: 0.01", "threshold: 1e-2", r"line 4, rule 1: threshold must be a finite number such as .* '1e-2'"),
        ("threshold: 0.01", "threshold: .nan", r"rule 1: threshold must be a finite number"),
        ("threshold: 0.01", "threshold: true", r"rule 1: threshold must be a finite number"),
        ("low: 0\n    high: 0.1", "low: 0.2\n    high: 0.1", r"rule 1: low must be below high"),
        ("    help: It stands still.\n", "", r"line 4, rule 1: lacks help"),
        ("help: It leaves.", "help: It leaves.\n    unless: x", r"line 11, rule 2: unknown unless; known: drop_if"),
        ("name: mine\n", "", r"x\.yaml: lacks name"),
        ("rules:", "rules: {}\nx:", r"x\.yaml: unknown x"),
        (GOOD, "name: [", r"x\.yaml: not YAML"),
        (GOOD, "just words", r"x\.yaml: expected a mapping"),
        (GOOD, "name: a\ndescription: b\nrules: 3", r"x\.yaml: rules must be a list"),
        (GOOD, "name: a\ndescription: b\nrules: [3]", r"x\.yaml, line 3, rule 1: expected a mapping, got 3"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_its_place(before: str, after: str, message: str) -> None:
    assert before in GOOD
    with pytest.raises(ValueError, match=message):
        parse_preset(GOOD.replace(before, after, 1), "x.yaml")


def test_two_rules_for_the_same_end_of_a_score_are_a_mistake() -> None:
    with pytest.raises(ValueError, match=r"x\.yaml: two rules for too_still\.m_object <"):
        parse_preset(GOOD + GOOD[GOOD.index("  - reason: too_still") : GOOD.index("  - reason: out")], "x.yaml")


def test_an_unknown_preset_and_a_missing_file_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no preset 'nice'; there are 4diffusion, default, .*\.yaml file"):
        load_preset("nice")
    with pytest.raises(ValueError, match=r"cannot read the preset .*absent\.yaml"):
        load_preset(str(tmp_path / "absent.yaml"))


def test_thresholds_are_data() -> None:
    preset = parse_preset(GOOD, "x.yaml")
    stricter = preset.override(["too_still=0.02", "out_of_frame.border_touch = 0.5"])
    assert [entry.threshold for entry in stricter.rules] == [0.02, 0.5]
    assert [entry.threshold for entry in preset.rules] == [0.01, 0]


def test_a_rule_is_switched_off() -> None:
    preset = parse_preset(GOOD, "x.yaml").override(["too_still=off"])
    assert [entry.reason for entry in preset.rules] == ["out_of_frame"]


def test_the_last_setting_wins() -> None:
    assert parse_preset(GOOD, "x.yaml").override(["too_still=1", "too_still=2"]).rules[0].threshold == 2.0


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("too_still", "expected reason=number"),
        ("flat=1", "names no rule of preset 'mine'; choose from: too_still.m_object, out_of_frame.border_touch"),
        ("too_still=much", "could not convert"),
        ("too_still=nan", "threshold must be a finite number"),
    ],
)
def test_a_bad_setting_is_refused(setting: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_preset(GOOD, "x.yaml").override([setting])


def test_a_reason_of_two_rules_needs_its_score() -> None:
    preset = Preset(name="two", description="", rules=(rule(score="m"), rule(score="flow_px")))
    with pytest.raises(ValueError, match=r"names several rules .* too_still\.m, too_still\.flow_px"):
        preset.override(["too_still=1"])
    assert preset.override(["too_still.flow_px=1"]).rules[1].threshold == 1.0


def test_the_id_tells_what_decides_and_nothing_else() -> None:
    preset = parse_preset(GOOD, "x.yaml")
    reworded = parse_preset(GOOD.replace("It leaves.", "Gone.").replace("high: 0.1", "high: 0.2"), "y.yaml")
    reordered = Preset(name="mine", description="", rules=preset.rules[::-1])
    assert preset.preset_id == reworded.preset_id
    assert preset.preset_id.startswith("mine@")
    assert len({preset.preset_id, preset.override(["too_still=0.02"]).preset_id, reordered.preset_id}) == 3


def test_a_missing_score_never_fails() -> None:
    for drop_if in "<>":
        for score in (None, math.nan, math.inf, -math.inf):
            assert not rule(drop_if=drop_if).fails(score)


def test_a_score_at_the_threshold_passes() -> None:
    assert not rule(threshold=0.5).fails(0.5)
    assert not rule(threshold=0.5, drop_if=">").fails(0.5)


SCORE = st.none() | st.floats() | st.sampled_from([0.0, 0.5, -0.0, 1e-300])
CONNECTION = duckdb.connect()


@example(score=math.nan, drop_if=">", threshold=0.0)
@example(score=math.inf, drop_if=">", threshold=0.0)
@example(score=-math.inf, drop_if="<", threshold=0.0)
@given(score=SCORE, drop_if=st.sampled_from("<>"), threshold=st.floats(allow_nan=False, allow_infinity=False))
def test_sql_and_python_agree(score: float | None, drop_if: str, threshold: float) -> None:
    tested = rule(drop_if=drop_if, threshold=threshold)
    query = f"SELECT coalesce({tested.sql}, false) FROM (SELECT ?::DOUBLE AS m)"
    assert CONNECTION.execute(query, [score]).fetchall() == [(tested.fails(score),)]
