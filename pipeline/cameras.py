"""Cameras in one convention, and converters for the border.

World: z up, right-handed, the object inside the unit sphere at the origin. Azimuth 0 looks at the object's front
from Blender's -y; it grows counter-clockwise seen from above. Elevation is above the horizon. Cameras are OpenCV's:
+x right, +y down, +z forward. `c2w` maps camera points to the world; `intrinsics` are in pixels, with (0.5, 0.5) the
centre of the top left pixel.
"""

import numpy as np

BLENDER_FROM_OPENCV = np.diag([1.0, -1.0, -1.0, 1.0])
"""Blender's and NeRF's cameras look along -z with +y up: the same axes, two of them turned round."""


def look_at_origin(azimuth_deg: float, elevation_deg: float, radius: float) -> np.ndarray:
    """Camera-to-world of a camera on a sphere that looks at the origin, world up kept up. Shape (4, 4).

    Raises:
        ValueError: The camera stands straight above or below, or at the origin.
    """
    if radius <= 0 or abs(elevation_deg) >= 90:
        raise ValueError(f"need radius > 0 and |elevation| < 90, got {radius} and {elevation_deg}")
    azimuth, elevation = np.radians(azimuth_deg - 90.0), np.radians(elevation_deg)
    direction = np.array([np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)])
    forward = -direction
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    c2w = np.eye(4)
    c2w[:3, :4] = np.stack([right, np.cross(forward, right), forward, radius * direction], axis=1)
    return c2w


def pinhole(fov_deg: float, size_px: int) -> tuple[float, float, float, float]:
    """fx, fy, cx, cy of a square image with the given field of view, which is the same both ways."""
    if not 0.0 < fov_deg < 180.0:
        raise ValueError(f"fov_deg must lie in 0..180, got {fov_deg}")
    focal = 0.5 * size_px / np.tan(np.radians(fov_deg) / 2)
    return float(focal), float(focal), size_px / 2, size_px / 2


def check_cameras(c2w: np.ndarray, intrinsics: tuple[float, float, float, float]) -> None:
    """Refuse what are no cameras of an object at the origin.

    Args:
        c2w: Shape (..., 4, 4).
        intrinsics: fx, fy, cx, cy.

    Raises:
        ValueError: Poses are not rigid or not finite, there is no focal length, or a camera looks away.
    """
    rotation = c2w[..., :3, :3]
    is_rigid = (
        np.isfinite(c2w).all()
        and np.allclose(rotation @ rotation.swapaxes(-1, -2), np.eye(3), atol=1e-4)
        and (np.linalg.det(rotation) > 0).all()
        and np.allclose(c2w[..., 3, :], (0, 0, 0, 1), atol=1e-6)
    )
    if not is_rigid or not np.isfinite(intrinsics).all() or min(intrinsics[:2]) <= 0:
        raise ValueError("its cameras are no rigid poses with a focal length")
    depth = -(rotation.swapaxes(-1, -2) @ c2w[..., :3, 3:])[..., 2, 0]
    if (depth <= 0).any():
        raise ValueError("a camera looks away from the object")


def project(points: np.ndarray, c2w: np.ndarray, intrinsics: tuple[float, float, float, float]) -> np.ndarray:
    """Pixel x, pixel y and depth of world points.

    Args:
        points: Shape (n, 3).
        c2w: Shape (4, 4).
        intrinsics: fx, fy, cx, cy.

    Returns:
        Shape (n, 3); depth is along the viewing axis, and x, y mean nothing where it is not positive.
    """
    w2c = np.linalg.inv(c2w)
    camera = points @ w2c[:3, :3].T + w2c[:3, 3]
    fx, fy, cx, cy = intrinsics
    depth = camera[:, 2]
    with np.errstate(divide="ignore", invalid="ignore"):
        x, y = fx * camera[:, 0] / depth + cx, fy * camera[:, 1] / depth + cy
    return np.stack([x, y, depth], axis=1)


def to_blender(c2w: np.ndarray) -> np.ndarray:
    """Blender's `matrix_world` of an OpenCV camera; also NeRF's `transform_matrix`. Shape (..., 4, 4)."""
    return c2w @ BLENDER_FROM_OPENCV


def from_blender(matrix_world: np.ndarray) -> np.ndarray:
    """OpenCV camera-to-world of a Blender or NeRF camera. Shape (..., 4, 4)."""
    return matrix_world @ BLENDER_FROM_OPENCV


def to_mvdream(c2w: np.ndarray) -> np.ndarray:
    """The 16-vector that MVDream and Animate3D are trained on: OpenGL axes, position on the unit sphere.

    Animate3D counts azimuth from +x, where MVDream's own vector counts from 90 degrees further; this is Animate3D's,
    for cameras whose azimuth 0 is our front: its azimuth a is our azimuth a + 90.

    Args:
        c2w: Shape (..., 4, 4), cameras that look at the origin.

    Returns:
        Shape (..., 16), row-major.
    """
    matrix = to_blender(c2w).copy()
    position = matrix[..., :3, 3]
    matrix[..., :3, 3] = position / np.linalg.norm(position, axis=-1, keepdims=True)
    return matrix.reshape(*matrix.shape[:-2], 16)


def to_mv_video(c2w: np.ndarray) -> np.ndarray:
    """The 16-vector of MV-Video's `angle` for our views: both count azimuth 0 as the front, which is +x there.

    The same numbers as `to_mvdream` after a quarter turn of the world.

    Args:
        c2w: Shape (..., 4, 4), cameras that look at the origin.

    Returns:
        Shape (..., 16), row-major.
    """
    quarter_turn = np.array([[0.0, -1.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]])
    return to_mvdream(quarter_turn @ c2w)


def to_nerf_transforms(
    c2w: np.ndarray, intrinsics: tuple[float, float, float, float], size_px: int, file_names: list[str]
) -> dict[str, object]:
    """A NeRF `transforms.json` with relative file names.

    Args:
        c2w: Shape (n, 4, 4).
        intrinsics: fx, fy, cx, cy in pixels.
        size_px: Width and height.
        file_names: One relative path a camera.
    """
    fx, fy, cx, cy = intrinsics
    frames = [
        {"file_path": name, "transform_matrix": matrix.tolist()}
        for name, matrix in zip(file_names, to_blender(c2w), strict=True)
    ]
    angle = 2 * float(np.arctan(size_px / (2 * fx)))
    return {
        "camera_angle_x": angle,
        "fl_x": fx,
        "fl_y": fy,
        "cx": cx,
        "cy": cy,
        "w": size_px,
        "h": size_px,
        "frames": frames,
    }
