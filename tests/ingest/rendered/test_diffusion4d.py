import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ingest.rendered.clips import RenderedClip
from ingest.rendered.command import open_rendered
from ingest.rendered.diffusion4d import ImportDiffusion4d
from ingest.rendered.listing import Claims
from pipeline.cameras import project
from pipeline.media import read_view
from pipeline.records import Asset, Clip, Probe, Rejected, SourceItem
from pipeline.storage import Store
from pipeline.tables import Tables
from tests.ingest.rendered.scene import D4D_FRAMES, SHA256, UIDS, balls, centre_of, make_diffusion4d

CLAIMS = Claims(licence="CC-BY-4.0")
TURNED = f"{UIDS[0]}_az0.37_el12"


def listed(root: Path, tables: Tables, claims: Claims = CLAIMS) -> dict[str, RenderedClip]:
    return {clip.name: clip for clip in open_rendered("diffusion4d", root, claims).clips(tables)}


def clip_of(stage: ImportDiffusion4d, item: RenderedClip) -> Clip:
    (found,) = [row for row in stage.process(item) if isinstance(row, Clip)]
    return found


def rejected_of(stage: ImportDiffusion4d, item: RenderedClip) -> Rejected:
    (row,) = stage.process(item)
    assert isinstance(row, Rejected)
    return row


@pytest.fixture
def stage(store: Store) -> ImportDiffusion4d:
    return ImportDiffusion4d(data=store.root)


@pytest.fixture
def one(tmp_path: Path) -> Path:
    """One model with all kinds of pictures in one folder, as the script writes them; to be broken."""
    root = tmp_path / "output"
    make_diffusion4d(root, UIDS[0], kinds=("dynamic", "static", "four"), trees=False)
    return root


def errors_of(tables: Tables, clip: Clip, moves: dict[str, bool]) -> list[float]:
    """Distances in pixels between where balls are seen and where the cameras put them."""
    c2w = np.array(clip.c2w).reshape(clip.num_views, clip.num_camera_frames, 4, 4)
    errors = []
    for view, name in enumerate(clip.view_names):
        frames = read_view(tables.store, clip, view)
        for frame in range(0, clip.num_frames, 5):
            time = frame / D4D_FRAMES if moves[name] else 0.0
            places = project(balls(time), c2w[view, min(frame, clip.num_camera_frames - 1)], clip.intrinsics)
            for ball in range(3):
                far = np.hypot(*(places[:, :2] - places[ball, :2]).T)
                is_free = all(far[other] > 14 for other in range(3) if other != ball)
                if is_free and (seen := centre_of(frames[frame], ball)):
                    errors.append(float(np.hypot(seen[0] - places[ball, 0], seen[1] - places[ball, 1])))
    return errors


@pytest.mark.parametrize("name", [UIDS[0], TURNED])
def test_an_orbit_is_seen_from_where_its_files_say(
    name: str, diffusion4d: Path, tables: Tables, stage: ImportDiffusion4d
) -> None:
    clip = clip_of(stage, listed(diffusion4d, tables)[f"{name}/orbit"])
    assert (clip.rig, clip.view_names, clip.num_camera_frames) == ("orbit24", ("orbit", "static"), D4D_FRAMES)
    errors = errors_of(tables, clip, {"orbit": True, "static": False})
    assert len(errors) > 10
    assert max(errors) < 0.4


def test_pictures_keep_their_alpha(diffusion4d: Path, tables: Tables, stage: ImportDiffusion4d) -> None:
    clip = clip_of(stage, listed(diffusion4d, tables)[f"{UIDS[0]}/front"])
    with Image.open(diffusion4d / "monocular_front" / UIDS[0] / "front_frame7.png") as image:
        source = np.asarray(image)
    stored = read_view(tables.store, clip, 0)[7]
    np.testing.assert_array_equal(stored[..., 3], source[..., 3])
    solid = source[..., 3] > 0
    np.testing.assert_array_equal(stored[solid], source[solid])
    assert clip.backdrop == ""
    assert (clip.rig, clip.num_views, clip.fps) == ("front", 1, 24.0)


def test_fixed_views_go_round_from_the_front(one: Path, tables: Tables, stage: ImportDiffusion4d) -> None:
    items = listed(one, tables)
    assert set(items) == {f"{UIDS[0]}/orbit", f"{UIDS[0]}/four_views"}
    clip = clip_of(stage, items[f"{UIDS[0]}/four_views"])
    assert (clip.rig, clip.num_views, clip.num_camera_frames) == ("ortho4", 4, 1)
    position = np.array(clip.c2w).reshape(4, 4, 4)[:, :3, 3]
    np.testing.assert_allclose(position[0], [0.0, -2.0, 0.0], atol=1e-6)
    azimuth = np.degrees(np.arctan2(position[:, 0], -position[:, 1]))
    np.testing.assert_allclose(np.diff(azimuth) % 360.0, 90.0, atol=1e-4)
    assert max(errors_of(tables, clip, dict.fromkeys(clip.view_names, True))) < 0.4


def test_without_files_the_scripts_own_cameras_can_be_taken(tmp_path: Path, tables: Tables, store: Store) -> None:
    for root, with_files in ((tmp_path / "with", True), (tmp_path / "without", False)):
        make_diffusion4d(root, UIDS[0], azimuth=0.37, elevation=12, json_files=with_files)
    told = ImportDiffusion4d(data=store.root)
    name = f"{TURNED}/orbit"
    rejected = rejected_of(told, listed(tmp_path / "without", tables)[name])
    assert (rejected.reason, "--cameras script" in rejected.detail) == ("missing_file", True)
    guessed = ImportDiffusion4d(data=store.root, cameras="script")
    c2w = [
        np.array(clip_of(stage, listed(tmp_path / folder, tables)[name]).c2w)
        for stage, folder in ((told, "with"), (guessed, "without"))
    ]
    np.testing.assert_allclose(c2w[0], c2w[1], atol=1e-6)
    front = clip_of(guessed, listed(tmp_path / "without", tables)[f"{TURNED}/front"])
    assert max(errors_of(tables, front, {"front": True})) < 0.4
    assert json.loads(front.settings)["cameras"] == "script"


def test_what_is_known_of_the_model_comes_along(
    diffusion4d: Path, tables: Tables, stage: ImportDiffusion4d, licences: Path
) -> None:
    items = listed(diffusion4d, tables, Claims(licences=str(licences)))
    rows = list(stage.process(items[f"{SHA256}/orbit"]))
    (asset,) = [row for row in rows if isinstance(row, Asset)]
    (probe,) = [row for row in rows if isinstance(row, Probe)]
    assert (asset.spdx, asset.author, asset.noai, asset.noai_checked_on) == ("MIT", "Cem", None, "")
    assert "states no licence" in asset.licence_text
    assert (probe.num_vertices, probe.num_objects, probe.missing_textures) == (24, 3, ("a",))
    (clip,) = [row for row in rows if isinstance(row, Clip)]
    assert clip.view_names == ("orbit",), "its static twin was not there"
    by_name = {item.name: item for item in tables.rows(SourceItem)}
    assert by_name[f"{SHA256}/orbit"].expected_sha256 == SHA256
    assert {clip_of(stage, items[f"{name}/orbit"]).asset_id for name in (UIDS[0], TURNED)} != {asset.asset_id}


def frame_missing(folder: Path) -> None:
    (folder / "multi_frame9.png").unlink()


def last_frames_missing(folder: Path) -> None:
    for frame in (22, 23):
        (folder / f"multi_frame{frame}.png").unlink()


def twin_is_shorter(folder: Path) -> None:
    (folder / "multi_static_frame23.png").unlink()


def picture_cut_short(folder: Path) -> None:
    path = folder / "multi_frame3.png"
    path.write_bytes(path.read_bytes()[:-40])


def no_picture(folder: Path) -> None:
    (folder / "multi_frame3.png").write_bytes(b"GIF89a, or so it says")


def a_bomb(folder: Path) -> None:
    Image.new("L", (9000, 9000)).save(folder / "multi_frame3.png")


def of_another_size(folder: Path) -> None:
    Image.new("RGBA", (32, 32)).save(folder / "multi_frame3.png")


def without_alpha(folder: Path) -> None:
    with Image.open(folder / "multi_frame3.png") as image:
        opaque = image.convert("RGB")
    opaque.save(folder / "multi_frame3.png")


def camera_missing(folder: Path) -> None:
    (folder / "multi11.json").unlink()


def camera(**values: Any) -> Any:
    def change(folder: Path) -> None:
        path = folder / "multi5.json"
        told = json.loads(path.read_text()) | values
        path.write_text(json.dumps({key: value for key, value in told.items() if value is not None}))

    return change


def no_json(folder: Path) -> None:
    (folder / "multi5.json").write_text("[" * 100_000)


def link_out(folder: Path) -> None:
    outside = folder.parent.parent / "secret.png"
    shutil.move(folder / "multi_frame3.png", outside)
    (folder / "multi_frame3.png").symlink_to(outside)


EYE = [[1, 0, 0, 0.0], [0, 0, -1, -2.0], [0, 1, 0, 0.0], [0, 0, 0, 1]]
AWAY = {"x": [1, 0, 0], "y": [0, 0, 1], "z": [0, -1, 0], "origin": [0, -2, 0], "matrix_world": None}


@pytest.mark.parametrize(
    ("change", "reason", "says"),
    [
        (frame_missing, "missing_file", "multi_frame9.png"),
        (last_frames_missing, "wrong_count", "22 of multi_frame"),
        (twin_is_shorter, "wrong_count", "23 of multi_static_frame"),
        (picture_cut_short, "truncated", "multi_frame3.png"),
        (no_picture, "malformed", "multi_frame3.png"),
        (a_bomb, "too_large", "9000 x 9000"),
        (of_another_size, "wrong_count", "(32, 32, 4)"),
        (without_alpha, "wrong_count", "(64, 64, 3)"),
        (link_out, "unsafe_uri", "multi_frame3.png"),
        (camera_missing, "missing_file", "multi11.json"),
        (camera(x_fov=1.2), "malformed", "field of view"),
        (camera(x_fov="wide"), "malformed", "x_fov"),
        (camera(matrix_world=[[1, 2], [3]], origin=None), "malformed", "matrix_world"),
        (camera(matrix_world=EYE), "malformed", "say different things"),
        (camera(matrix_world=None, origin=[1e999, 0, 0]), "non_finite", "origin"),
        (camera(matrix_world=None, origin=[0, 0, 0]), "malformed", "does not look at the origin"),
        (camera(**AWAY), "malformed", "looks away"),
        (camera(matrix_world=None, x=[0, 0, 0]), "malformed", "without axes"),
        (camera(matrix_world=None, origin=None), "malformed", "neither"),
        (no_json, "malformed", "multi5.json"),
    ],
)
def test_what_is_broken_is_turned_away_with_its_reason(change: Any, reason: str, says: str, one: Path) -> None:
    tables = Tables(Store(str(one.parent / "data")))
    stage, name = ImportDiffusion4d(data=tables.store.root), f"{UIDS[0]}/orbit"
    assert clip_of(stage, listed(one, tables)[name]), "it is whole before"
    change(one / UIDS[0])
    row = rejected_of(stage, listed(one, tables)[name])
    assert row.reason == reason
    assert says in row.detail
    assert clip_of(stage, listed(one, tables)[f"{UIDS[0]}/four_views"]), "the other pictures are still good"


def test_a_static_orbit_alone_is_no_clip(tmp_path: Path, tables: Tables, stage: ImportDiffusion4d) -> None:
    make_diffusion4d(tmp_path / "set", UIDS[0], kinds=("static",))
    row = rejected_of(stage, listed(tmp_path / "set", tables)[f"{UIDS[0]}/orbit"])
    assert (row.reason, "frozen" in row.detail) == ("missing_file", True)


def test_one_name_twice_gives_two_clips(diffusion4d: Path, tmp_path: Path, tables: Tables) -> None:
    for part in ("a", "b"):
        make_diffusion4d(tmp_path / "set" / part, UIDS[0], kinds=("front",))
    assert set(listed(tmp_path / "set", tables)) == {f"{UIDS[0]}/front", f"b/monocular_front/{UIDS[0]}/front"}


def test_a_folder_without_pictures_is_said_so(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(ValueError, match=r"unpack|check the path"):
            open_rendered("diffusion4d", path, CLAIMS)
