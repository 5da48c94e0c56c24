import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.cameras import (
    from_blender,
    look_at_origin,
    pinhole,
    project,
    to_blender,
    to_mvdream,
    to_nerf_transforms,
)

azimuths = st.floats(-720, 720)
elevations = st.floats(-89, 89)


@given(azimuths, elevations, st.floats(0.5, 10))
def test_pose_is_rigid_and_the_origin_lies_ahead_at_the_radius(azimuth: float, elevation: float, radius: float) -> None:
    c2w = look_at_origin(azimuth, elevation, radius)
    assert np.allclose(c2w[:3, :3] @ c2w[:3, :3].T, np.eye(3), atol=1e-9)
    assert np.linalg.det(c2w[:3, :3]) == pytest.approx(1)
    x, y, depth = project(np.zeros((1, 3)), c2w, pinhole(40, 256))[0]
    assert (x, y, depth) == pytest.approx((128, 128, radius))


@given(azimuths, elevations)
def test_up_in_the_world_is_up_in_the_picture(azimuth: float, elevation: float) -> None:
    pixels = project(np.array([[0, 0, 0.1], [0, 0, -0.1]]), look_at_origin(azimuth, elevation, 3), pinhole(40, 256))
    assert pixels[0, 1] < pixels[1, 1]
    assert pixels[0, 0] == pytest.approx(128, abs=1e-6)


def test_azimuth_0_stands_in_front_and_90_at_plus_x() -> None:
    assert look_at_origin(0, 0, 2)[:3, 3] == pytest.approx([0, -2, 0])
    assert look_at_origin(90, 0, 2)[:3, 3] == pytest.approx([2, 0, 0])


@given(azimuths, elevations)
def test_blender_round_trip(azimuth: float, elevation: float) -> None:
    c2w = look_at_origin(azimuth, elevation, 3)
    assert np.allclose(from_blender(to_blender(c2w)), c2w)
    # Blender looks along -z: the third column points away from the origin.
    assert np.allclose(to_blender(c2w)[:3, 2], c2w[:3, 3] / 3)


def test_mvdream_vector_is_the_one_that_animate3d_gives_the_model() -> None:
    expected = [0, -0.2588, 0.9659, 0.9659, 1, 0, 0, 0, 0, 0.9659, 0.2588, 0.2588, 0, 0, 0, 1]
    assert to_mvdream(look_at_origin(90, 15, 3.0)) == pytest.approx(expected, abs=1e-4)


def test_nerf_transforms_project_to_the_same_pixels() -> None:
    c2w, intrinsics = look_at_origin(30, 20, 3), pinhole(40, 128)
    point = np.array([[0.2, -0.3, 0.4]])
    written = to_nerf_transforms(c2w[None], intrinsics, 128, ["a.png"])
    frames = written["frames"]
    assert isinstance(frames, list)
    camera = np.linalg.inv(np.array(frames[0]["transform_matrix"])) @ [*point[0], 1]
    focal = 64 / np.tan(float(str(written["camera_angle_x"])) / 2)
    x, y = 64 + focal * camera[0] / -camera[2], 64 - focal * camera[1] / -camera[2]
    assert project(point, c2w, intrinsics)[0, :2] == pytest.approx([x, y])


@pytest.mark.parametrize(("elevation", "radius"), [(90, 1), (-90, 1), (0, 0)])
def test_cameras_without_a_meaning_are_refused(elevation: float, radius: float) -> None:
    with pytest.raises(ValueError, match="need radius"):
        look_at_origin(0, elevation, radius)
