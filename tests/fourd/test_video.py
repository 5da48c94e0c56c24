from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fourd.video import ClipError, camera_poses, find_clip, input_views, read_video, resized
from pipeline.cameras import project
from pipeline.media import compose, encode_strip, strip_name
from pipeline.records import Clip
from pipeline.storage import Store
from tests.fourd import bending_bar


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, Clip]:
    return bending_bar.data_root(str(tmp_path_factory.mktemp("data")))


def test_a_clip_is_read_with_its_cameras_and_alpha(root: tuple[Store, Clip]) -> None:
    store, clip = root
    found = find_clip(store, "bar0")
    assert found == clip
    video = read_video(store, found, (6, 2))
    truth = bending_bar.video(8)
    assert video.views == (6, 2)
    seen = truth.rgba[:, [6, 2], ..., 3] > 0  # colour is not kept where nothing is seen
    assert torch.equal(video.rgba[seen], truth.rgba[:, [6, 2]][seen])
    frames, views = torch.tensor([3, 0]), torch.tensor([1])
    colors, alpha = video.colors(frames, views, 0.5)
    assert np.allclose(colors[0, 0].numpy(), compose(video.rgba[3, 1].numpy(), 0.5), atol=1e-6)
    assert alpha.shape == (2, 1, 48, 48)
    point = np.array([[0.3, -0.2, 0.4]])
    pixels = project(point, np.array(clip.c2w).reshape(8, 4, 4)[2], clip.intrinsics)[0]
    camera = video.w2c(frames, views)[0, 0] @ torch.tensor([0.3, -0.2, 0.4, 1.0])
    shown = video.camera_matrix(48) @ camera[:3]
    assert (shown[:2] / shown[2]).tolist() == pytest.approx(pixels[:2], abs=1e-3)


def test_smaller_pictures_keep_the_colours_of_the_object(root: tuple[Store, Clip]) -> None:
    store, clip = root
    small = read_video(store, clip, (0,), size_px=24)
    assert small.size_px == (24, 24)
    assert small.intrinsics == pytest.approx([value / 2 for value in clip.intrinsics])
    rgba = np.zeros((1, 4, 4, 4), dtype=np.uint8)
    rgba[0, 0, 0] = (200, 100, 50, 255)
    # One of four pixels: its colour as it was, a quarter of its alpha.
    assert resized(rgba, 2)[0, 0, 0].tolist() == [200, 100, 50, 64]


def test_input_views_are_evenly_spaced(root: tuple[Store, Clip]) -> None:
    _, clip = root
    assert input_views(clip) == (0, 2, 4, 6)
    assert input_views(replace(clip, num_views=3)) == (0, 1, 2)
    assert input_views(replace(clip, num_camera_frames=5)) == (0,)


def test_what_is_wrong_with_a_clip_is_said_with_a_reason(root: tuple[Store, Clip], tmp_path: Path) -> None:
    store, clip = root
    poses = np.array(clip.c2w).reshape(8, 4, 4)
    turned_away = poses.copy()
    turned_away[3, :3, :3] = poses[3, :3, :3] @ np.diag([1.0, -1.0, -1.0])
    skewed = poses.copy()
    skewed[1, 0, 0] += 0.1
    for changes, reason in [
        ({"c2w": clip.c2w[:-16]}, "cameras"),
        ({"num_camera_frames": 4}, "cameras"),
        ({"c2w": tuple(skewed.flatten())}, "cameras"),
        ({"c2w": tuple(turned_away.flatten())}, "cameras"),
        ({"c2w": (float("nan"), *clip.c2w[1:])}, "cameras"),
        ({"intrinsics": (0.0, 0.0, 24.0, 24.0)}, "cameras"),
        ({"backdrop": "#ffffff"}, "no_alpha"),
        ({"num_frames": 6}, "frames_missing"),
        ({"num_frames": 7}, "damaged"),
        ({"num_frames": 3}, "frames_missing"),
        ({"width": 100_000}, "too_large"),
    ]:
        with pytest.raises(ClipError) as caught:
            read_video(store, replace(clip, **changes), (0, 3))  # type: ignore[arg-type]
        assert caught.value.reason == reason, changes
        assert clip.clip_id in str(caught.value)
    for views in ((), (8,), (-1,), (1, 1)):
        with pytest.raises(ClipError, match="no_such_view"):
            read_video(store, clip, views)
    for name in ("", "nothing"):
        with pytest.raises(ClipError, match="no_such_clip"):
            find_clip(store, name)


def test_missing_and_damaged_frames_are_told_apart(tmp_path: Path) -> None:
    store, clip = bending_bar.data_root(str(tmp_path), 4)
    strip = f"{clip.folder}/{strip_name(1)}"
    whole = store.read_bytes(strip)
    store.write_bytes(strip, whole[: len(whole) // 2])
    with pytest.raises(ClipError, match="damaged"):
        read_video(store, clip, (0, 1))
    store.write_bytes(strip, encode_strip(np.zeros((5, 40, 48, 4), dtype=np.uint8)))
    with pytest.raises(ClipError, match="frames_missing"):
        read_video(store, clip, (0, 1))
    store.remove(strip)
    with pytest.raises(ClipError, match="frames_missing"):
        read_video(store, clip, (0, 1))
    store.write_bytes(strip, encode_strip(np.zeros((5, 48, 48, 4), dtype=np.uint8)))
    with pytest.raises(ClipError, match="empty"):
        read_video(store, clip, (1,))


def test_cameras_that_move_are_kept_frame_by_frame(root: tuple[Store, Clip]) -> None:
    _, clip = root
    moving = np.array(clip.c2w).reshape(8, 1, 4, 4)[:5].transpose(1, 0, 2, 3)
    orbit = replace(clip, num_views=1, num_camera_frames=5, c2w=tuple(moving.flatten()))
    assert np.allclose(camera_poses(orbit)[:, 0], np.array(clip.c2w).reshape(8, 4, 4)[:5])
