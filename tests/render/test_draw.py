import dataclasses
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.media import decode_strip, read_view
from pipeline.records import Clip, ClipPlan, Rejected, from_dict
from pipeline.storage import Store
from render import draw as draw_module
from render import supervisor
from render.draw import Render
from render.look import Look, near
from render.plan import AnimatedAsset, Plan
from render.rigs import RigName
from render.supervisor import BlenderChild, BlenderSettings
from tests.render.rows import action, animation, probe, toy_asset

FAST = BlenderSettings(load_s=2.0, image_s=2.0)


@pytest.fixture
def stage(store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[Render]:
    child = BlenderChild(FAST, module="fake_child", readable=(Path(__file__).parent,))
    monkeypatch.setattr(draw_module, "child_for", lambda settings: child)
    yield Render(data=store.root, blender=FAST)
    child.close()


def plan_for(store: Store, rig: RigName = "ortho4", **order: Any) -> ClipPlan:
    asset = toy_asset(store, action("walk", 0.0, 3.0), **order)
    item = AnimatedAsset(
        probe=probe(asset_id=asset.asset_id, blob=asset.blob), animations=(animation(asset_id=asset.asset_id),)
    )
    (plan,) = Plan(data=store.root, rig=rig, size_px=8).process(item)
    assert isinstance(plan, ClipPlan)
    return plan


def clip_of(stage: Render, plan: ClipPlan) -> Clip:
    (clip,) = stage.process(plan)
    assert isinstance(clip, Clip)
    return clip


def test_a_clip_is_a_strip_a_view_and_its_record(stage: Render, store: Store) -> None:
    clip = clip_of(stage, plan_for(store))
    assert clip.folder == f"clips/{clip.clip_id[:2]}/{clip.clip_id}"
    assert sorted(store.list_files(clip.folder)) == [
        f"{clip.folder}/{name}" for name in ("clip.json", *(part.name for part in clip.parts))
    ]
    for part in clip.parts:
        content = store.read_bytes(f"{clip.folder}/{part.name}")
        assert (part.num_bytes, part.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    assert from_dict(Clip, json.loads(store.read_bytes(f"{clip.folder}/clip.json"))) == clip


def test_each_picture_ends_up_in_its_view_and_frame(stage: Render, store: Store) -> None:
    clip = clip_of(stage, plan_for(store))
    for view in range(4):
        frames = read_view(store, clip, view)
        assert frames.shape == (16, 8, 8, 4)
        wanted = [[20 * frame % 256, 40 * view, 7, 255] for frame in range(16)]
        assert np.abs(frames[:, 0, 0].astype(int) - wanted).max() <= 1  # stored within 1/255


def test_a_clip_says_what_light_shone_on_it(stage: Render, store: Store) -> None:
    plan = plan_for(store)
    light = json.loads(clip_of(stage, plan).settings)["light"]
    assert light == dataclasses.asdict(Look().light(plan.clip_id))
    own = json.loads(clip_of(stage, plan_for(store, drawn={"own_light": True})).settings)
    assert own["light"] == {"own": True}
    assert own.items() >= json.loads(plan.settings).items()


def test_standing_cameras_are_stored_once_and_moving_ones_by_frame(stage: Render, store: Store) -> None:
    still, moving = clip_of(stage, plan_for(store)), clip_of(stage, plan_for(store, "orbit24"))
    assert (still.num_camera_frames, len(still.c2w)) == (1, 4 * 16)
    assert (moving.num_camera_frames, len(moving.c2w), moving.num_frames) == (24, 2 * 24 * 16, 24)
    assert moving.view_names == ("orbit", "static")
    assert still.view_names == ("view_00", "view_01", "view_02", "view_03")


def test_the_same_plan_gives_the_same_bytes(stage: Render, store: Store) -> None:
    plan = plan_for(store)
    first = clip_of(stage, plan)
    files = {name: store.read_bytes(name) for name in store.list_files("clips")}
    assert clip_of(stage, plan) == first
    assert {name: store.read_bytes(name) for name in store.list_files("clips")} == files


@pytest.mark.parametrize(
    ("order", "reason"),
    [
        ({"draw": {"do": "segfault"}}, "blender_crashed"),
        ({"draw": {"do": "refuse"}}, "import_failed"),
        ({"drawn": {"outside_px": 3.0}}, "out_of_frame"),
        ({"do": "refuse"}, "import_failed"),
    ],
)
def test_a_failure_costs_the_clip(stage: Render, store: Store, order: dict[str, Any], reason: str) -> None:
    bad = plan_for(store, **order)
    (row,) = stage.process(bad)
    assert isinstance(row, Rejected)
    assert (row.rejected_id, row.reason, row.name) == (bad.clip_id, reason, f"{bad.blob}: action 0")
    assert not store.list_files("clips")
    clip_of(stage, plan_for(store))


@pytest.mark.parametrize(
    ("textures", "limit_px"),  # their longest side, and the one that fits
    [((4096, 4096), 1024), ((4096, 512), 256), ((512, 512), 256), ((4096, 100), None), ((256, 256), None)],
)
def test_what_takes_too_much_memory_is_drawn_with_smaller_textures(
    stage: Render, store: Store, monkeypatch: pytest.MonkeyPatch, textures: tuple[int, int], limit_px: int | None
) -> None:
    monkeypatch.setattr(supervisor, "memory_limit_mb", lambda settings: 300)
    plan = plan_for(store, fits_px=textures[1], loaded={"largest_picture_px": textures[0]})
    for _ in range(2):  # whatever the child did before
        (row,) = stage.process(plan)
        if isinstance(row, Clip):
            assert row.texture_limit_px == limit_px
        else:
            assert (row.reason, limit_px) == ("out_of_memory", None)
    assert clip_of(stage, plan_for(store)).texture_limit_px == 0


def test_a_picture_that_was_not_ordered_is_a_fault_of_ours(stage: Render, store: Store) -> None:
    with pytest.raises(RuntimeError, match="instead of 8 px RGBA"):
        list(stage.process(plan_for(store, draw={"size_px": 9})))


def test_each_clip_says_what_it_cost(stage: Render, store: Store, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "mv4d.render"):
        clip_of(stage, plan_for(store))
    events = [record.__dict__["event"] for record in caplog.records if "event" in record.__dict__]
    drawn = next(event for event in events if event["kind"] == "clip_drawn")
    assert drawn["num_images"] == 64
    assert {"load_s", "child_s", "draw_s", "prepare_s", "encode_s", "write_s"} <= drawn.keys()


def test_how_blender_is_run_is_no_part_of_the_settings() -> None:
    one = Render(data="/a", blender=BlenderSettings(threads=4, sandbox="off"))
    assert one.settings_id == Render(data="/b").settings_id


def frames_with_noise() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (4, 32, 32, 4), dtype=np.uint8)


def test_near_storage_changes_no_visible_colour_by_more_than_one() -> None:
    frames = frames_with_noise()
    frames[..., 3] = np.where(frames[..., 3] < 60, 0, frames[..., 3])
    stored = near(frames)
    shown = frames[..., 3] > 0
    assert np.abs(stored[shown].astype(int) - frames[shown]).max() == 1
    assert np.array_equal(stored[..., 3], frames[..., 3])
    assert not stored[~shown].any()


def test_exact_storage_is_exact_and_small_storage_is_smaller() -> None:
    frames = np.repeat(frames_with_noise()[:, :4, :4], 8, axis=1).repeat(8, axis=2)
    frames[..., 3] = 255
    exact, near_, small = (Look(storage=storage).encode(frames) for storage in ("exact", "near", "small"))
    assert np.array_equal(decode_strip(exact, 4), frames)
    assert np.array_equal(decode_strip(near_, 4), near(frames))
    noise = frames_with_noise()
    noise[..., 3] = 255
    assert (
        len(Look(storage="small").encode(noise))
        < len(Look(storage="near").encode(noise))
        < len(Look(storage="exact").encode(noise))
    )
    assert small


def test_a_look_without_light_is_refused() -> None:
    with pytest.raises(ValueError, match="need light"):
        Look(light_strength=0.0, ambient_strength=0.0)
