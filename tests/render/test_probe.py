from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.records import Animation, Probe, Rejected
from pipeline.storage import Store
from render import probe as probe_module
from render.probe import ProbeAsset
from render.supervisor import BlenderChild, BlenderSettings
from tests.render.rows import action, asset_of, toy_asset

FAST = BlenderSettings(load_s=2.0, measure_s=2.0)


@pytest.fixture
def stage(store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[ProbeAsset]:
    child = BlenderChild(FAST, module="fake_child", readable=(Path(__file__).parent,))
    monkeypatch.setattr(probe_module, "child_for", lambda settings: child)
    yield ProbeAsset(data=store.root, blender=FAST, max_actions=4)
    child.close()


def reasons(rows: list[object]) -> dict[str, str]:
    """What was turned away: last part of its name, and why."""
    return {row.name.split(": ")[-1]: row.reason for row in rows if isinstance(row, Rejected)}


def test_an_asset_gives_a_probe_and_an_animation_for_each_window(stage: ProbeAsset, store: Store) -> None:
    asset = toy_asset(store, action("walk", 0.0, 3.0), action("dance", 1.0, 9.0))
    rows = list(stage.process(asset))
    assert isinstance(rows[0], Probe)
    assert (rows[0].asset_id, rows[0].blob, rows[0].num_actions) == (asset.asset_id, asset.blob, 2)
    found = [(row.action_name, row.window, row.start_s) for row in rows if isinstance(row, Animation)]
    assert found == [("walk", 0, 0.0), ("dance", 0, 1.0), ("dance", 1, 7.0)]
    assert len({row.row_id for row in rows if isinstance(row, Animation)}) == 3
    assert rows == list(stage.process(asset))


def test_a_short_action_is_repeated_only_if_its_ends_meet(stage: ProbeAsset, store: Store) -> None:
    asset = toy_asset(
        store,
        action("wave", 0.0, 1.0, measured={"loop_gap": 0.0}),
        action("fall", 0.0, 1.0, measured={"loop_gap": 0.5}),
    )
    rows = [row for row in stage.process(asset) if isinstance(row, Animation)]
    assert [(row.looped, row.duration_s, row.fps) for row in rows] == [(True, 2.0, 8.0), (False, 1.0, 16.0)]
    assert all(row.action_duration_s == 1.0 for row in rows)


def test_each_action_that_is_not_measured_is_accounted_for(stage: ProbeAsset, store: Store) -> None:
    names = ("pose", "endless", "fine", "also fine", "one too many", "two too many")
    spans = ((1.0, 1.0), (0.0, 1e6), (0.0, 2.0), (0.0, 2.0), (0.0, 2.0), (0.0, 2.0))
    asset = toy_asset(store, *(action(name, *span) for name, span in zip(names, spans, strict=True)))
    rows = list(stage.process(asset))
    assert reasons(list(rows)) == {
        "pose": "too_short",
        "endless": "absurd_duration",
        "one too many": "too_complex",
        "two too many": "too_complex",
    }
    assert [row.action_name for row in rows if isinstance(row, Animation)] == ["fine", "also fine"]


def test_a_refused_action_costs_itself_and_a_crash_the_asset(stage: ProbeAsset, store: Store) -> None:
    refused = toy_asset(store, action("bad", 0.0, 2.0, do="refuse"), action("good", 0.0, 2.0))
    rows = list(stage.process(refused))
    assert reasons(list(rows)) == {"bad": "import_failed"}
    assert [row.action_name for row in rows if isinstance(row, Animation)] == ["good"]
    crash = toy_asset(store, action("good", 0.0, 2.0), action("bad", 0.0, 2.0, do="segfault"))
    (row,) = stage.process(crash)
    assert isinstance(row, Rejected)
    assert (row.rejected_id, row.reason) == (crash.asset_id, "blender_crashed")
    assert len(list(stage.process(refused))) == 3


@pytest.mark.parametrize(
    ("order", "reason"),
    [({}, "no_animation"), ({"loaded": {"num_vertices": 0}}, "no_mesh"), ({"do": "refuse"}, "import_failed")],
)
def test_an_asset_without_anything_to_measure_is_turned_away(
    stage: ProbeAsset, store: Store, order: dict[str, object], reason: str
) -> None:
    asset = toy_asset(store, **order)
    (row,) = stage.process(asset)
    assert isinstance(row, Rejected)
    assert (row.rejected_id, row.reason) == (asset.asset_id, reason)


def test_the_same_bytes_listed_twice_are_one_piece_of_work(store: Store) -> None:
    first, second = (asset_of(store, b"x", name=name) for name in ("a.glb", "b.glb"))
    assert first.item_id != second.item_id
    assert ProbeAsset.input_id(first) == ProbeAsset.input_id(second)


def test_how_blender_is_run_is_no_part_of_the_settings() -> None:
    one = ProbeAsset(data="/a", blender=BlenderSettings(threads=4, memory_mb=9000))
    assert one.settings_id == ProbeAsset(data="/b").settings_id
    assert one.settings_id != ProbeAsset(data="/a", max_actions=3).settings_id
