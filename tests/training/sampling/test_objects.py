import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipeline.cameras import look_at_origin, project
from pipeline.media import encode_strip, strip_name
from pipeline.records import Clip
from pipeline.storage import Store
from pipeline.tables import Tables
from tests.shards.toys import filled, shape_frames
from training.sampling.objects import CameraAngles, ObjectError, ObjectViews, views_from_clip, views_from_files

PLAIN = CameraAngles()


def disc(view: int, size_px: int = 24) -> np.ndarray:
    return shape_frames(view, 1, size_px)[0]


def pictures(folder: Path, num: int = 4, size_px: int = 24, suffix: str = "png") -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"view_{view}.{suffix}" for view in range(num)]
    for view, path in enumerate(paths):
        Image.fromarray(disc(view, size_px)).save(path)
    return paths


def rendered(root: Path, **changes: Any) -> Clip:
    """A clip as the renderer leaves it, eight views by three frames."""
    values: dict[str, Any] = {
        "clip_id": "ab12", "asset_id": "a" * 64, "rig": "mv16", "num_views": 8, "num_frames": 3, "width": 24,
        "height": 24, "azimuth_deg": 5.0, "elevation_deg": 20.0, "num_camera_frames": 1, "world_scale": 2.0,
        "view_names": tuple(f"view_{view:02d}" for view in range(8)), "intrinsics": (33.0, 33.0, 12.0, 12.0),
        "c2w": tuple(np.stack([look_at_origin(5 + 45 * view, 20, 3.0) for view in range(8)]).ravel().tolist()),
        "world_centre": (0.0, 1.0, 0.0), "folder": "clips/ab/ab12",
    }  # fmt: skip
    clip = filled(Clip, **{**values, **changes})
    store = Store(str(root))
    for view in range(8):
        store.write_bytes(f"{clip.folder}/{strip_name(view)}", encode_strip(shape_frames(view, 3)))
    Tables(store).write(Clip, "toy", [clip], made_by="toy", made_from="")
    return clip


def test_pictures_become_views_with_cameras_round_the_object(tmp_path: Path) -> None:
    views = views_from_files(pictures(tmp_path), 4, CameraAngles(elevation_deg=(20.0,), azimuth_deg=(10.0,)))
    assert views.rgba.shape == (4, 24, 24, 4)
    np.testing.assert_array_equal(views.rgba[2][disc(2)[..., 3] > 0], disc(2)[disc(2)[..., 3] > 0])
    for view in range(4):
        np.testing.assert_allclose(views.c2w[view], look_at_origin(10 + 90 * view, 20, 3.0), atol=1e-9)
    pixel = project(np.zeros((1, 3)), views.c2w[1], views.intrinsics)[0]
    np.testing.assert_allclose(pixel, [12, 12, 3], atol=1e-6)
    assert (views.rig, views.azimuth_deg, views.elevation_deg) == ("ring4", 10.0, 20.0)
    assert math.isnan(views.world_scale)


def test_a_folder_is_read_in_the_order_of_its_numbers(tmp_path: Path) -> None:
    paths = pictures(tmp_path, 12)
    (tmp_path / "notes.txt").write_text("not a picture")
    from_folder = views_from_files([tmp_path], 12, PLAIN)
    np.testing.assert_array_equal(from_folder.rgba, views_from_files(paths, 12, PLAIN).rgba)
    assert from_folder.object_id == views_from_files(paths, 12, PLAIN).object_id
    assert from_folder.object_id != views_from_files(paths[::-1], 12, PLAIN).object_id


def test_a_background_of_one_colour_is_taken_out_and_said(tmp_path: Path) -> None:
    for view, path in enumerate(pictures(tmp_path)):
        rgba = disc(view)
        white = np.where(rgba[..., 3:] > 0, rgba[..., :3], 255).astype(np.uint8)
        Image.fromarray(white).save(path)
    views = views_from_files([tmp_path], 4, PLAIN)
    wanted = np.stack([disc(view)[..., 3] for view in range(4)]) > 127
    assert ((views.rgba[..., 3] > 127) == wanted).mean() > 0.99
    assert views.facts["backgrounds"] == ["#ffffff"] * 4


def test_angles_may_be_given_one_a_view(tmp_path: Path) -> None:
    cameras = CameraAngles(elevation_deg=(0.0, 10.0, 20.0), azimuth_deg=(0.0, 50.0, 200.0))
    views = views_from_files(pictures(tmp_path, 3), 3, cameras)
    np.testing.assert_allclose(views.c2w[2], look_at_origin(200, 20, 3.0), atol=1e-9)
    assert views.rig == "given"
    with pytest.raises(ValueError, match="elevation_deg needs one number or 4"):
        views_from_files(pictures(tmp_path, 4), 4, cameras)


def test_a_clip_gives_a_frame_of_evenly_spaced_views_with_its_cameras(tmp_path: Path) -> None:
    clip = rendered(tmp_path)
    views = views_from_clip(str(tmp_path), "ab12", 4, first_view=1, frame=2)
    assert views.facts == {"clip_id": "ab12", "views": [1, 3, 5, 7], "frame": 2}
    for place, view in enumerate((1, 3, 5, 7)):
        np.testing.assert_array_equal(views.rgba[place], shape_frames(view, 3)[2])
        np.testing.assert_allclose(views.c2w[place], look_at_origin(5 + 45 * view, 20, 3.0))
    assert views.azimuth_deg == 50.0
    assert (views.object_id, views.world_scale, views.intrinsics) == (clip.asset_id, 2.0, clip.intrinsics)


def test_another_size_keeps_colours_and_what_cameras_see(tmp_path: Path) -> None:
    views = views_from_files(pictures(tmp_path), 4, PLAIN)
    half = views.resized(12)
    assert half.rgba.shape == (4, 12, 12, 4)
    centre = project(np.array([[0.2, 0.1, 0.3]]), views.c2w[0], views.intrinsics)[0, :2]
    np.testing.assert_allclose(project(np.array([[0.2, 0.1, 0.3]]), half.c2w[0], half.intrinsics)[0, :2], centre / 2)
    colour = disc(0)[disc(0)[..., 3] > 0][0, :3]
    # No dark rim from the colour of what is transparent.
    assert np.abs(half.rgba[0][half.rgba[0, ..., 3] > 60][:, :3].astype(int) - colour).max() <= 4
    assert (half.rgba[0, ..., 3] == 255).any()
    assert views.resized(24) is views


def read(folder: Path, **changes: Any) -> ObjectViews:
    return views_from_files(changes.get("paths", [folder]), changes.get("num_views", 4), PLAIN)


def broken(folder: Path, kind: str) -> None:
    path = folder / "view_1.png"
    if kind == "text":
        path.write_bytes(b"not a picture")
    elif kind == "cut short":
        path.write_bytes(path.read_bytes()[:60])
    elif kind == "gif":
        Image.fromarray(disc(1)).convert("P").save(path, "GIF")
    elif kind == "two frames":
        Image.fromarray(disc(1)).save(path, "PNG", save_all=True, append_images=[Image.fromarray(disc(2))])
    elif kind == "large":
        Image.new("RGBA", (5000, 2)).save(path)
    elif kind == "other size":
        Image.fromarray(disc(1, 30)).save(path)
    elif kind == "empty":
        Image.new("RGBA", (24, 24)).save(path)
    elif kind == "blank":
        Image.new("RGB", (24, 24), (128, 128, 128)).save(path)
    elif kind == "photo":
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (24, 24, 3), np.uint8)).save(path)
    elif kind == "gone":
        path.unlink()
        path.symlink_to(folder / "nowhere.png")


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("text", "unreadable"),
        ("cut short", "unreadable"),
        ("gif", "unreadable"),
        ("two frames", "unreadable"),
        ("large", "too_large"),
        ("other size", "wrong_size"),
        ("empty", "empty"),
        ("blank", "empty"),
        ("photo", "no_transparency"),
        ("gone", "not_found"),
    ],
)
def test_a_bad_picture_is_named_with_a_reason(tmp_path: Path, kind: str, reason: str) -> None:
    pictures(tmp_path)
    broken(tmp_path, kind)
    with pytest.raises(ObjectError) as caught:
        read(tmp_path)
    assert caught.value.reason == reason
    assert str(tmp_path) in str(caught.value)


def test_a_wrong_number_of_pictures_says_what_to_do(tmp_path: Path) -> None:
    pictures(tmp_path, 3)
    with pytest.raises(ObjectError, match="--num_views 3") as caught:
        read(tmp_path)
    assert caught.value.reason == "wrong_count"


def test_wide_pictures_are_not_made_square(tmp_path: Path) -> None:
    for view, path in enumerate(pictures(tmp_path)):
        Image.fromarray(np.pad(disc(view), ((0, 0), (4, 4), (0, 0)))).save(path)
    views = read(tmp_path)
    assert views.rgba.shape[1:3] == (24, 32)
    assert views.intrinsics[2:] == (16.0, 12.0)
    with pytest.raises(ObjectError, match="crop them square"):
        views.resized(16)


@pytest.mark.parametrize(
    ("changes", "options", "reason"),
    [
        ({}, {"clip_id": "cd34"}, "not_found"),
        ({}, {"num_views": 3}, "wrong_count"),
        ({}, {"first_view": 2}, "wrong_count"),
        ({}, {"frame": 3}, "wrong_count"),
        ({"num_camera_frames": 3}, {}, "moving_cameras"),
        ({"height": 30}, {}, "wrong_size"),
        ({"num_frames": 5}, {}, "unreadable"),
        ({"folder": "clips/ab/elsewhere"}, {"folder": "gone"}, "not_found"),
    ],
)
def test_a_clip_that_does_not_do_is_refused(
    tmp_path: Path, changes: dict[str, Any], options: dict[str, Any], reason: str
) -> None:
    clip = rendered(tmp_path, **changes)
    if options.pop("folder", ""):
        Store(str(tmp_path)).remove_folder(clip.folder)
    asked = {"clip_id": "ab12", "num_views": 4, **options}
    with pytest.raises(ObjectError) as caught:
        views_from_clip(str(tmp_path), asked.pop("clip_id"), asked.pop("num_views"), **asked)
    assert caught.value.reason == reason


def test_a_data_root_of_an_older_version_is_said_to_be_one(tmp_path: Path) -> None:
    rendered(tmp_path)
    (fragment,) = (tmp_path / "tables" / "clips").glob("*.parquet")
    pq.write_table(pq.read_table(fragment).drop_columns(["backdrop"]), fragment)
    with pytest.raises(ObjectError, match="older version of mv4d, without backdrop:"):
        views_from_clip(str(tmp_path), "ab12", 4)


@pytest.mark.parametrize(
    "bad", [{"radius": 0.5}, {"fov_deg": 180.0}, {"elevation_deg": (90.0,)}, {"azimuth_deg": ()}], ids=str
)
def test_cameras_that_cannot_be_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"need|give|elevations"):
        CameraAngles(**bad)
