import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import curate.decide
from curate.decide import CURRENT, decide, preview
from curate.duplicates import CACHE
from curate.rules import Preset, Rule, load_preset
from curate.score import Score
from curate.scores_view import SCORES, Scope, connect_scores, scores_query
from pipeline.records import Asset, Decision, Rejected, arrow_schema
from pipeline.storage import Store
from pipeline.tables import Tables
from tests.curate.toys import NUM_FRAMES, SCORED, Root, clip_of, draw, filled, score_and_commit, square

STILL = Rule(reason="too_still", score="m_object", drop_if="<", threshold=0.01, low=0, high=1, help="")
OUT = Rule(reason="out_of_frame", score="border_touch", drop_if=">", threshold=0.1, low=0, high=1, help="")
SLOW = Rule(reason="too_still", score="motion_mean", drop_if="<", threshold=0.01, low=0, high=1, help="")
TWICE = Rule(
    reason="duplicate_animation", score="duplicate_animation", drop_if=">", threshold=0.5, low=0, high=1, help=""
)
BARE = Rule(reason="flat", score="missing_textures", drop_if=">", threshold=0.5, low=0, high=9, help="")


def preset(*rules: Rule) -> Preset:
    return Preset(name="test", description="", rules=rules)


def reasons(tables: Tables) -> dict[str, str]:
    return {row.clip_id: row.reason for row in tables.rows(Decision)}


@pytest.fixture
def root(tables: Tables) -> Root:
    return Root(tables)


def test_a_still_clip_is_dropped_and_a_moving_one_kept_by_default(store: Store, root: Root) -> None:
    """From pictures to decisions."""
    for seq, (clip_id, steps) in enumerate({"moves": range(NUM_FRAMES), "stands": [0] * NUM_FRAMES}.items()):
        root.add_asset(f"asset {seq}", seq)
        root.add_animation(f"anim {seq}", f"asset {seq}")
        clip = clip_of(clip_id=clip_id, animation_id=f"anim {seq}", asset_id=f"asset {seq}")
        root.add(draw(store, clip, [square(steps)] * 4))
        score_and_commit(root.tables, clip)
    summary = decide(root.tables, load_preset("default"))
    assert reasons(root.tables) == {"moves": "", "stands": "too_still"}
    assert (summary.num_clips, summary.num_kept, dict(summary.by_reason)) == (2, 1, {"too_still": 1})


def test_a_decision_names_the_first_failing_rule_and_all_of_them(root: Root) -> None:
    root.add_simple("bad", m_object=0.0, border_touch=1.0)
    decide(root.tables, preset(OUT, STILL))
    (row,) = root.tables.rows(Decision)
    assert row == Decision(
        clip_id="bad",
        preset=preset(OUT, STILL).preset_id,
        keep=False,
        reason="out_of_frame",
        reasons=("out_of_frame", "too_still"),
    )
    decide(root.tables, preset(STILL, OUT))
    assert root.tables.rows(Decision)[0].reasons == ("too_still", "out_of_frame")


def test_two_failing_rules_of_one_reason_are_named_once(root: Root) -> None:
    root.add_simple("bad", m_object=0.0)
    fast = dataclasses.replace(SLOW, drop_if=">")
    summary = decide(root.tables, preset(STILL, fast))
    assert root.tables.rows(Decision)[0].reasons == ("too_still",)
    assert dict(summary.by_any_reason) == {"too_still": 1}


@pytest.mark.parametrize("missing", [math.nan, math.inf, -math.inf])
def test_a_score_that_could_not_be_measured_never_fails(root: Root, missing: float) -> None:
    root.add_simple("clip", m_object=missing, border_touch=missing)
    decide(
        root.tables, preset(STILL, OUT, dataclasses.replace(STILL, drop_if=">"), dataclasses.replace(OUT, drop_if="<"))
    )
    assert reasons(root.tables) == {"clip": ""}


def test_scores_without_a_row_never_fail(root: Root) -> None:
    """No animation, no probe, no asset: as for clips that another program made."""
    root.add(clip_of(clip_id="clip", animation_id="unknown", asset_id="unknown"))
    root.add_scores("clip")
    rules = [
        Rule(reason="flat", score=name, drop_if=drop_if, threshold=0.0, low=0, high=1, help="")  # type: ignore[arg-type]
        for name, column in SCORES.items()
        for drop_if in "<>"
        if column.source in ("animations", "probes", "duplicates")
    ]
    decide(root.tables, preset(*rules))
    assert reasons(root.tables) == {"clip": ""}


def test_thresholds_are_data(root: Root) -> None:
    for number in range(5):
        root.add_simple(f"clip {number}", number, m_object=number / 100)
    assert decide(root.tables, preset(STILL)).num_kept == 4
    assert decide(root.tables, preset(STILL).override(["too_still=0.035"])).num_kept == 1
    assert decide(root.tables, preset(STILL).override(["too_still=off"])).num_kept == 5


def test_scores_of_the_mesh_and_of_the_file_decide_too(root: Root) -> None:
    root.add_simple("good", 0)
    root.add_asset("a", 1, family_id="f")
    root.add_animation("slow", "a", motion_mean=0.001)
    root.add_clip("slow clip", "slow", "a")
    decide(root.tables, preset(SLOW))
    assert reasons(root.tables) == {"good": "", "slow clip": "too_still"}


def test_the_first_of_two_equal_motions_is_kept(root: Root) -> None:
    for seq, name in enumerate(["second", "first"]):
        root.add_asset(name, 1 - seq)
        root.add_animation(f"anim {name}", name, motion_id="same")
        root.add_clip(f"clip {name}", f"anim {name}", name)
    decide(root.tables, preset(TWICE))
    assert reasons(root.tables) == {"clip first": "", "clip second": "duplicate_animation"}


def test_a_preset_without_rules_keeps_everything(root: Root) -> None:
    root.add_simple("clip", m_object=0.0)
    assert decide(root.tables, preset()).num_kept == 1
    assert reasons(root.tables) == {"clip": ""}


def test_an_empty_data_root_has_no_decisions(tables: Tables) -> None:
    summary = decide(tables, load_preset("default"))
    assert (summary.num_clips, summary.num_kept, summary.num_waiting) == (0, 0, 0)
    assert tables.rows(Decision) == []
    assert not preview(tables, load_preset("default")).any


def test_each_run_replaces_the_table(root: Root) -> None:
    root.add_simple("clip", m_object=0.0)
    for rules in ((STILL,), ()):
        decide(root.tables, preset(*rules))
    assert root.tables.store.list_files("tables/decisions") == [CURRENT]
    assert reasons(root.tables) == {"clip": ""}


def test_the_file_has_the_records_schema(root: Root) -> None:
    root.add_simple("clip")
    decide(root.tables, preset(STILL))
    schema = pq.read_schema(root.tables.store.open(CURRENT))
    assert schema.names == [*arrow_schema(Decision).names, "made_by", "made_from"]
    assert [schema.field(name) for name in arrow_schema(Decision).names] == list(arrow_schema(Decision))
    assert schema.metadata == arrow_schema(Decision).metadata


def test_a_run_that_fails_leaves_the_old_decisions(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    root.add_simple("clip")
    decide(root.tables, preset(STILL))
    before = root.tables.store.read_bytes(CURRENT)

    def broken(*arguments: Any) -> Iterator[Any]:
        raise OSError("disk full")
        yield

    monkeypatch.setattr(curate.decide, "_decisions", broken)
    with pytest.raises(OSError, match="disk full"):
        decide(root.tables, preset(OUT))
    assert root.tables.store.read_bytes(CURRENT) == before
    assert root.tables.store.list_files("tables/decisions") == [CURRENT]


def test_merging_tables_changes_no_decision(root: Root) -> None:
    for number in range(20):
        root.add_simple(f"clip {number}", number, m_object=number / 1000)
        assert number % 7 or root.tables
    decide(root.tables, preset(STILL, TWICE))
    before = root.tables.rows(Decision)
    assert root.tables.compact(at_least=2)
    decide(root.tables, preset(STILL, TWICE))
    assert root.tables.rows(Decision) == before


def test_many_batches_make_one_table(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curate.decide, "BATCH_ROWS", 2)
    for number in range(7):
        root.add_simple(f"clip {number}", number, m_object=number / 300)
    summary = decide(root.tables, preset(STILL))
    assert (summary.num_clips, summary.num_kept) == (7, 4)
    assert len(root.tables.rows(Decision)) == 7


def test_clips_without_scores_wait_and_unreadable_ones_are_counted(root: Root) -> None:
    root.add_simple("scored")
    for clip_id in ("waiting", "broken"):
        root.add(clip_of(clip_id=clip_id))
    root.add(filled(Rejected, rejected_id="broken", stage=Score.name, reason="malformed"))
    summary = decide(root.tables, preset(STILL))
    assert (summary.num_clips, summary.num_unread, summary.num_waiting) == (1, 1, 1)
    assert set(reasons(root.tables)) == {"scored"}


def test_rows_that_stand_more_than_once_count_once(root: Root) -> None:
    """As for a moment while tables are merged, or after a crash until the next merge."""
    for _ in range(3):
        root.add_simple("clip", m_object=0.0)
        assert root.tables
    summary = decide(root.tables, preset(STILL))
    assert (summary.num_clips, dict(summary.by_reason), summary.num_waiting) == (1, {"too_still": 1}, 0)
    assert len(pq.read_table(root.tables.store.open(CURRENT))) == 1


def test_scores_of_several_settings_are_not_mixed(root: Root) -> None:
    root.add_simple("clip", m_object=0.0)
    for number in range(5):
        root.add_simple(f"only first {number}", number + 1)
    root.add_scores("clip", made_by="curate.score@second", m_object=0.5)
    root.add_asset("later", 9)
    root.add_animation("later", "later")
    root.add(clip_of(clip_id="only second", animation_id="later", asset_id="later"))
    root.add_scores("only second", made_by="curate.score@second")
    with pytest.raises(ValueError, match=r"several settings; choose one .*: curate\.score@first, curate\.score@second"):
        decide(root.tables, preset(STILL))
    first = decide(root.tables, preset(STILL), Scope(scored_by=SCORED))
    assert (first.num_clips, first.num_kept, first.num_waiting) == (6, 5, 1)
    second = decide(root.tables, preset(STILL), Scope(scored_by="curate.score@second"))
    assert (second.num_clips, second.num_kept, second.num_waiting) == (2, 2, 5)


def test_only_clips_of_one_renderer_are_decided(root: Root) -> None:
    root.add_simple("mine")
    root.add(clip_of(clip_id="others"), made_by="render@2")
    root.add_scores("others")
    summary = decide(root.tables, preset(STILL, SLOW, TWICE), Scope(rendered_by="render@2"))
    assert set(reasons(root.tables)) == {"others"}
    assert (summary.num_clips, summary.num_waiting) == (1, 0)


def test_a_remote_data_root_is_decided_too(tmp_path: Path) -> None:
    root = Root(Tables(Store(f"memory://{tmp_path.name}")))
    root.add_simple("good", 0)
    root.add_simple("bad", 1, m_object=0.0)
    for _ in range(2):
        assert decide(root.tables, preset(STILL, TWICE)).num_kept == 1
    assert reasons(root.tables) == {"bad": "too_still", "good": ""}
    assert not preview(root.tables, preset(STILL, TWICE)).any


def test_preview_says_what_would_change_and_writes_nothing(root: Root) -> None:
    root.add_simple("dropped then", 0, m_object=0.02)
    root.add_simple("restored", 1, border_touch=1.0)
    root.add_simple("same", 2)
    root.add_simple("other reason", 3, m_object=0.0, border_touch=1.0)
    decide(root.tables, preset(OUT, STILL))
    root.add_simple("new and good", 4)
    root.add_simple("new and bad", 5, m_object=0.0)
    files = {path: root.tables.store.read_bytes(path) for path in root.tables.store.list_files("")}

    stricter = preset(STILL, TWICE).override(["too_still=0.03"])
    changes = preview(root.tables, stricter)
    assert dict(changes.dropped) == {"too_still": 1}
    assert dict(changes.restored) == {"out_of_frame": 1}
    assert dict(changes.regrouped) == {("out_of_frame", "too_still"): 1}
    assert (changes.num_same, changes.added_kept, dict(changes.added_dropped)) == (1, 1, {"too_still": 1})
    assert (changes.before, changes.after) == (preset(OUT, STILL).preset_id, stricter.preset_id)
    assert changes.examples == {"dropped": ("dropped then",), "restored": ("restored",)}
    assert changes.any
    assert {path: root.tables.store.read_bytes(path) for path in root.tables.store.list_files("")} == files
    assert not root.tables.store.exists(CACHE)

    decide(root.tables, stricter)
    assert reasons(root.tables) == {
        "dropped then": "too_still",
        "restored": "",
        "same": "",
        "other reason": "too_still",
        "new and good": "",
        "new and bad": "too_still",
    }
    again = preview(root.tables, stricter)
    assert not again.any
    assert again.num_same == 6


def test_preview_of_a_narrower_scope_counts_what_goes(root: Root) -> None:
    for seq in range(3):
        root.add_simple(f"clip {seq}", seq)
    decide(root.tables, preset(STILL))
    assert preview(root.tables, preset(STILL), Scope(up_to_seq=1)).removed == 2


def test_up_to_seq_takes_assets_by_their_first_place(root: Root) -> None:
    for seq in range(4):
        root.add_simple(f"clip {seq}", seq)
    root.add(filled(Asset, item_id="again", asset_id="asset of clip 3", seq=0))
    root.add(clip_of(clip_id="of nobody", asset_id="not known yet"))
    root.add_scores("of nobody")
    root.add_scores("lost, and being drawn again")
    summary = decide(root.tables, preset(STILL), Scope(up_to_seq=2))
    assert set(reasons(root.tables)) == {"clip 0", "clip 1", "clip 3"}
    assert (summary.num_clips, summary.num_waiting) == (3, 0)


CLIPS = st.lists(
    st.fixed_dictionaries(
        {
            "motion": st.sampled_from("abc"),
            "family": st.sampled_from("fg"),
            "look": st.sampled_from("xyz"),
            "m_object": st.sampled_from([0.0, 0.005, 0.5, math.nan]),
            "motion_mean": st.sampled_from([0.001, 0.1]),
            "missing": st.booleans(),
            "border_touch": st.sampled_from([0.0, 1.0]),
        }
    ),
    min_size=1,
    max_size=6,
)
ALL_RULES = preset(
    OUT, STILL, SLOW, BARE, TWICE, dataclasses.replace(TWICE, reason="duplicate_look", score="duplicate_look")
)


def fill(root: Root, clips: list[dict[str, Any]], start: int = 0) -> None:
    for seq, clip in enumerate(clips, start):
        lacks = ("skin.png",) if clip["missing"] else ()
        root.add_asset(f"asset {seq}", seq, family_id=clip["family"], missing_textures=lacks)
        root.add_animation(f"anim {seq}", f"asset {seq}", motion_id=clip["motion"], motion_mean=clip["motion_mean"])
        scores = {"m_object": clip["m_object"], "border_touch": clip["border_touch"], "fingerprint": clip["look"]}
        root.add_clip(f"clip {seq}", f"anim {seq}", f"asset {seq}", **scores)


PROPERTY = settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@PROPERTY
@given(clips=CLIPS)
def test_the_fast_query_decides_as_the_rules_do_on_the_wide_view(
    clips: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = Root(Tables(Store(str(tmp_path_factory.mktemp("root")))))
    fill(root, clips)
    with connect_scores(root.tables, Scope(), SCORES, save=False) as con:
        wide = con.sql(scores_query()).to_arrow_table().to_pylist()
    expected = {row["clip_id"]: [r.reason for r in ALL_RULES.rules if r.fails(row[r.score])] for row in wide}
    decide(root.tables, ALL_RULES)
    found = {row.clip_id: row for row in root.tables.rows(Decision)}
    assert {clip_id: list(row.reasons) for clip_id, row in found.items()} == {
        clip_id: list(dict.fromkeys(failing)) for clip_id, failing in expected.items()
    }
    assert all(row.keep == (not row.reasons) for row in found.values())


@PROPERTY
@given(early=CLIPS, late=CLIPS)
def test_decisions_on_early_clips_do_not_depend_on_later_ones(
    early: list[dict[str, Any]], late: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = Root(Tables(Store(str(tmp_path_factory.mktemp("root")))))
    fill(root, early)
    decide(root.tables, ALL_RULES)
    alone = root.tables.rows(Decision)
    fill(root, late, start=len(early))
    decide(root.tables, ALL_RULES, Scope(up_to_seq=len(early)))
    assert root.tables.rows(Decision) == alone
    decide(root.tables, ALL_RULES)
    everything = {row.clip_id: row for row in root.tables.rows(Decision)}
    assert [everything[row.clip_id] for row in alone] == alone
    assert len(everything) == len(early) + len(late)
