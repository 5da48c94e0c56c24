from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from curate.duplicates import CACHE, find_duplicates
from curate.scores_view import Scope, connect_scores
from pipeline.records import Asset
from pipeline.storage import Store
from pipeline.tables import Tables
from tests.curate.toys import Root, clip_of, filled

SCORES = ["duplicate_animation", "duplicate_look"]


def duplicates(tables: Tables, *, save: bool = False) -> dict[str, tuple[bool, bool]]:
    """clip_id: (duplicate_animation, duplicate_look)."""
    with connect_scores(tables, Scope(), SCORES, save=save) as con:
        return {row[0]: (row[1], row[2]) for row in con.execute("FROM duplicates").fetchall()}


@pytest.fixture
def root(tables: Tables) -> Root:
    return Root(tables)


def add(
    root: Root, clip_id: str, seq: int, *, motion: str, family: str = "", look: str = "", rig: str = "mv16"
) -> None:
    root.add_asset(f"asset {clip_id}", seq, family_id=family)
    root.add_animation(f"anim {clip_id}", f"asset {clip_id}", motion_id=motion)
    root.add_clip(clip_id, f"anim {clip_id}", f"asset {clip_id}", rig=rig, fingerprint=look or f"look {clip_id}")


def test_the_first_of_a_motion_is_none(root: Root) -> None:
    add(root, "late", 7, motion="walk")
    add(root, "first", 3, motion="walk")
    add(root, "later", 9, motion="walk")
    add(root, "other", 5, motion="run")
    assert duplicates(root.tables) == {"late": (True, False), "later": (True, False)}


def test_inside_an_asset_the_action_decides_and_then_the_window(root: Root) -> None:
    root.add_asset("fox", 0)
    for animation_id, action_index, window in (("a", 1, 0), ("b", 0, 1), ("c", 0, 0)):
        root.add_animation(animation_id, "fox", action_index=action_index, window=window, motion_id="same")
        root.add_clip(f"clip {animation_id}", animation_id, "fox")
    assert set(duplicates(root.tables)) == {"clip a", "clip b"}


def test_two_rigs_and_two_cameras_of_an_animation_are_no_duplicates(root: Root) -> None:
    root.add_asset("fox", 0)
    root.add_animation("walk", "fox")
    root.add_clip("round", "walk", "fox", rig="orbit16", fingerprint="x")
    root.add_clip("fixed", "walk", "fox", fingerprint="x")
    root.add_clip("fixed again", "walk", "fox", fingerprint="x")
    assert duplicates(root.tables) == {}


def test_every_clip_of_the_first_animation_is_first(root: Root) -> None:
    add(root, "copy", 1, motion="same", family="f", look="x")
    root.add_asset("fox", 0, family_id="f")
    root.add_animation("walk", "fox", motion_id="same")
    for clip_id in ("one", "two"):
        root.add_clip(clip_id, "walk", "fox", fingerprint="x")
    assert duplicates(root.tables) == {"copy": (True, True)}


def test_clips_of_different_rigs_are_not_compared(root: Root) -> None:
    add(root, "one", 0, motion="walk", family="f", look="x")
    add(root, "two", 1, motion="walk", family="f", look="x", rig="orbit16")
    assert duplicates(root.tables) == {}


def test_a_look_is_a_duplicate_only_within_a_geometry(root: Root) -> None:
    add(root, "one", 0, motion="a", family="fox", look="x")
    add(root, "two", 1, motion="b", family="fox", look="x")
    add(root, "three", 2, motion="c", family="box", look="x")
    add(root, "four", 3, motion="d", family="fox", look="y")
    assert duplicates(root.tables) == {"two": (False, True)}


def test_what_could_not_be_hashed_equals_nothing(root: Root) -> None:
    for seq in range(3):
        root.add_asset(f"a{seq}", seq)
        root.add_animation(f"m{seq}", f"a{seq}", motion_id="")
        root.add_clip(f"c{seq}", f"m{seq}", f"a{seq}", fingerprint="")
    assert duplicates(root.tables) == {}


def test_only_scored_clips_are_compared(root: Root) -> None:
    """A clip that cannot be read is no first: nothing would be left of the motion."""
    root.add_asset("unread", 0)
    root.add_animation("anim", "unread", motion_id="walk")
    root.add(clip_of(clip_id="broken", animation_id="anim", asset_id="unread", rig="mv16"))
    add(root, "good", 1, motion="walk")
    assert duplicates(root.tables) == {}


def test_bytes_listed_twice_count_where_they_came_first(root: Root) -> None:
    add(root, "one", 4, motion="walk")
    add(root, "two", 6, motion="walk")
    root.add(filled(Asset, item_id="again", asset_id="asset two", seq=2))
    assert set(duplicates(root.tables)) == {"one"}


def test_rows_that_stand_twice_are_no_duplicates(root: Root) -> None:
    """As for a moment while tables are merged."""
    for _ in range(2):
        add(root, "one", 0, motion="walk", look="x")
        assert root.tables
    assert duplicates(root.tables) == {}


def test_the_answer_is_kept_until_a_table_changes(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    add(root, "one", 0, motion="walk")
    add(root, "two", 1, motion="walk")
    searches = []

    def counted(*arguments: Any, **named: Any) -> None:
        searches.append(1)
        find_duplicates(*arguments, **named)

    monkeypatch.setattr("curate.duplicates.find_duplicates", counted)
    assert duplicates(root.tables, save=False) == {"two": (True, False)}
    assert not root.tables.store.exists(CACHE)
    for _ in range(2):
        assert duplicates(root.tables, save=True) == {"two": (True, False)}
    assert len(searches) == 2
    add(root, "three", 2, motion="walk")
    assert set(duplicates(root.tables, save=True)) == {"two", "three"}
    assert len(searches) == 3


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(motions=st.lists(st.sampled_from("abc"), min_size=1, max_size=7), data=st.data())
def test_whatever_the_order_of_arrival_one_clip_of_each_motion_is_left(
    motions: list[str], data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = Root(Tables(Store(str(tmp_path_factory.mktemp("root")))))
    for seq in data.draw(st.permutations(range(len(motions)))):
        add(root, f"clip {seq}", seq, motion=motions[seq])
    firsts = {f"clip {motions.index(motion)}" for motion in motions}
    assert {f"clip {seq}" for seq in range(len(motions))} - set(duplicates(root.tables)) == firsts
