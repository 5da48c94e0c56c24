"""Real assets through probe, plan and render, with the real Blender."""

import dataclasses
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.cameras import project
from pipeline.media import read_view
from pipeline.records import Animation, Asset, Clip, ClipPlan, Record
from pipeline.storage import Store
from render.draw import Render
from render.look import Look
from render.plan import Plan
from render.probe import ProbeAsset
from render.rigs import Cameras, RigName
from render.supervisor import BlenderSettings
from render.windows import frame_times
from tests.render.rows import asset_of

pytestmark = pytest.mark.blender

BOX = np.array([[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)])
FACES = [[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3]]
Z_UP_FROM_Y_UP = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])
STILL = {"translation": [0.3, 0.2, -0.4], "scale": [2.0, 0.4, 0.8]}
FROM, TO, LENGTH_S = np.array([1.5, 1.0, 0.5]), np.array([-0.5, 2.5, 1.0]), 2.0


def two_boxes() -> bytes:
    """A glTF of a flat box that stands still and a cube that slides past it, in 2 s, along a straight line."""
    triangles = np.array([[q[0], q[i], q[i + 1]] for q in FACES for i in (1, 2)], dtype=np.uint16)
    arrays = [
        BOX.astype(np.float32),
        triangles.ravel(),
        np.array([0.0, LENGTH_S], dtype=np.float32),
        np.stack([FROM, TO]).astype(np.float32),
    ]
    views, offset = [], 0
    for array in arrays:
        views.append({"buffer": 0, "byteOffset": offset, "byteLength": array.nbytes})
        offset += array.nbytes + (-array.nbytes) % 4
    binary = b"".join(array.tobytes() + b"\0" * ((-array.nbytes) % 4) for array in arrays)
    low_high: dict[str, Any] = {"min": [-0.5] * 3, "max": [0.5] * 3}
    document = {
        "asset": {"version": "2.0"},
        "scene": 0,
        "scenes": [{"nodes": [0, 1]}],
        "nodes": [{"mesh": 0, "name": "still", **STILL}, {"mesh": 0, "name": "moving", "translation": FROM.tolist()}],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0}, "indices": 1}]}],
        "accessors": [
            {"bufferView": 0, "componentType": 5126, "count": 8, "type": "VEC3", **low_high},
            {"bufferView": 1, "componentType": 5123, "count": triangles.size, "type": "SCALAR"},
            {"bufferView": 2, "componentType": 5126, "count": 2, "type": "SCALAR", "min": [0.0], "max": [LENGTH_S]},
            {"bufferView": 3, "componentType": 5126, "count": 2, "type": "VEC3"},
        ],
        "animations": [
            {
                "name": "slide",
                "samplers": [{"input": 2, "output": 3}],
                "channels": [{"sampler": 0, "target": {"node": 1, "path": "translation"}}],
            }
        ],
        "bufferViews": views,
        "buffers": [{"byteLength": len(binary)}],
    }
    text = json.dumps(document).encode()
    text += b" " * ((-len(text)) % 4)
    chunks = struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(binary), b"BIN\0") + binary
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks


def vertices_at(time_s: float) -> np.ndarray:
    """Where the boxes' corners are by the glTF's own numbers, z up. Shape (16, 3)."""
    share = min(max(time_s / LENGTH_S, 0.0), 1.0)
    moving = BOX + (FROM + share * (TO - FROM))
    still = BOX * STILL["scale"] + STILL["translation"]
    corners: np.ndarray = np.concatenate([still, moving]) @ Z_UP_FROM_Y_UP.T
    return corners


BLENDER = BlenderSettings(sandbox="best")
Chain = tuple[ProbeAsset, Render]


@pytest.fixture
def chain(store: Store) -> Iterator[Chain]:
    probe, render = ProbeAsset(data=store.root, blender=BLENDER), Render(data=store.root, blender=BLENDER)
    yield probe, render
    render.close()


def drawn(chain: Chain, store: Store, asset: Asset, **settings: Any) -> tuple[ClipPlan, Clip]:
    """The first clip of an asset."""
    rows: list[Record] = list(chain[0].process(asset))
    (item,) = Plan.inputs(rows)
    assert item.animations, rows
    plans = [row for row in Plan(data=store.root, **settings).process(item) if isinstance(row, ClipPlan)]
    assert plans
    (clip,) = chain[1].process(plans[0])
    assert isinstance(clip, Clip), clip
    return plans[0], clip


def extent(mask: np.ndarray) -> np.ndarray:
    """Left, top, right and bottom edge of what a mask covers, in pixels."""
    ys, xs = np.nonzero(mask)
    return np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])


@pytest.mark.parametrize("rig", ["mv16", "orbit16", "random"])
def test_cameras_and_frames_put_known_vertices_where_the_pictures_show_them(
    chain: Chain, store: Store, rig: RigName
) -> None:
    cameras = Cameras(num_random_views=4)
    settings = {"rig": rig, "quality": "preview", "size_px": 96, "cameras": cameras, "look": Look(storage="exact")}
    plan, clip = drawn(chain, store, asset_of(store, two_boxes()), **settings)
    times = frame_times(
        start_s=plan.start_s,
        duration_s=plan.duration_s,
        num_frames=plan.num_frames,
        action_duration_s=plan.action_duration_s,
        looped=plan.looped,
    )
    assert max(times) - min(times) > 1.8  # all of the slide is shown
    c2w = np.array(clip.c2w).reshape(clip.num_views, clip.num_camera_frames, 4, 4)
    worst = 0.0
    for view in range(clip.num_views):
        frozen = clip.view_names[view] == "static"
        for frame, picture in enumerate(read_view(store, clip, view)):
            asset_points = vertices_at(times[0] if frozen else times[frame])
            world = clip.world_scale * (asset_points - np.array(clip.world_centre))
            assert np.linalg.norm(world, axis=1).max() <= 1 + 1e-5
            pixels = project(world, c2w[view, frame % clip.num_camera_frames], clip.intrinsics)[:, :2]
            wanted = np.concatenate([pixels.min(axis=0), pixels.max(axis=0)])
            worst = max(worst, float(np.abs(extent(picture[..., 3] > 64) - wanted).max()))
    assert worst < 1.0


@pytest.fixture
def character(real_assets: Path, store: Store) -> Asset:
    return asset_of(store, (real_assets / "CesiumMan.glb").read_bytes(), name="CesiumMan.glb")


SMALL: dict[str, Any] = {"rig": "ortho4", "quality": "preview", "size_px": 48}


def test_a_real_character_comes_out_in_frame_and_moving(chain: Chain, store: Store, character: Asset) -> None:
    _, clip = drawn(chain, store, character, **SMALL)
    for view in range(clip.num_views):
        frames = read_view(store, clip, view)
        covered = frames[..., 3] > 128
        assert 0.03 < covered.mean() < 0.6
        assert not covered[:, [0, -1]].any()
        assert not covered[:, :, [0, -1]].any()
        assert (covered[0] != covered[8]).sum() > 5
        assert frames[..., :3][covered].std() > 10  # textured and lit
    assert clip.blender_version.startswith(("4.", "5."))


def test_the_same_pixels_again_in_another_child_after_other_work(chain: Chain, store: Store, character: Asset) -> None:
    _, first = drawn(chain, store, character, **SMALL)
    files = {name: store.read_bytes(name) for name in store.list_files(first.folder)}
    chain[1].close()
    other = asset_of(store, two_boxes())
    drawn(chain, store, other, **SMALL)
    drawn(chain, store, character, **(SMALL | {"size_px": 32}))
    _, again = drawn(chain, store, character, **SMALL)
    assert dataclasses.asdict(again) == dataclasses.asdict(first)
    assert {name: store.read_bytes(name) for name in store.list_files(first.folder)} == files


def test_measures_do_not_depend_on_what_was_measured_before(chain: Chain, store: Store, real_assets: Path) -> None:
    asset = asset_of(store, (real_assets / "Crab.glb").read_bytes(), name="Crab.glb")
    rows = list(chain[0].process(asset))
    list(chain[0].process(asset_of(store, two_boxes())))
    assert list(chain[0].process(asset)) == rows
    animations = [row for row in rows if isinstance(row, Animation)]
    assert len({row.motion_id for row in animations}) == len(animations) == 10
