"""Outlines of an object in pictures, and the small move that brings those of two silhouettes together."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from pipeline.cameras import project

DEEPEST = 1e-3
"""Nearest to a camera that a point is drawn, along its axis."""
RIM_PX = 1.5
"""Points as near to the edge of their silhouette make its outline."""
RIM_POINTS = 1000
"""Of them that count, in each view."""
SOFT_PX = 3.0
"""Pairs farther apart than this count less: limbs that are hidden in one of the two have no partner."""
FIRM = 1e-4
"""What no view tells is left as it is: least singular value that counts, as a share of the largest."""


@dataclass(frozen=True, kw_only=True)
class Outline:
    """The edge of what a camera sees."""

    points: NDArray[np.float64]
    """(n, 2): x and y of the pixels at the edge, inside."""
    normals: NDArray[np.float64]
    """(n, 2): outwards, length 1."""

    @classmethod
    def of_mask(cls, mask: NDArray[np.bool_]) -> "Outline":
        """Of a silhouette, shape (H, W), that has some pixel."""
        padded = np.pad(mask.astype(np.uint8), 1)
        inside, outside = (cv2.distanceTransform(part, cv2.DIST_L2, 5) for part in (padded, 1 - padded))
        distance = cv2.GaussianBlur(outside - inside, (5, 5), 0)[1:-1, 1:-1].astype(np.float64)
        y, x = np.nonzero(mask & (inside[1:-1, 1:-1] < RIM_PX))
        y, x = y[:: max(1, len(y) // RIM_POINTS)], x[:: max(1, len(x) // RIM_POINTS)]
        down, right = np.gradient(distance)
        normals = np.stack([right[y, x], down[y, x]], axis=1)
        length = np.linalg.norm(normals, axis=1, keepdims=True)
        return cls(points=np.stack([x, y], axis=1) + 0.5, normals=normals / np.maximum(length, 1e-6))


@dataclass(frozen=True, kw_only=True)
class SquareCameras:
    """Where pictures were taken from."""

    c2w: NDArray[np.float64]
    """(V, 4, 4)."""
    intrinsics: tuple[float, float, float, float]
    size_px: int
    """A side."""


def silhouette(pixels: np.ndarray, size_px: int) -> NDArray[np.bool_]:
    """What dense points cover of a square picture, small gaps closed.

    Args:
        pixels: Of `pipeline.cameras.project`, shape (n, 3).
        size_px: A side.

    Returns:
        Shape (size_px, size_px).
    """
    x, y, depth = pixels.T
    inside = (depth > DEEPEST) & (x >= 0) & (x < size_px) & (y >= 0) & (y < size_px)
    drawn = np.zeros((size_px, size_px), dtype=np.uint8)
    drawn[y[inside].astype(np.int64), x[inside].astype(np.int64)] = 1
    closed = cv2.morphologyEx(drawn, cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8))
    return np.asarray(closed, dtype=bool)


def closer(
    points: np.ndarray, centre: np.ndarray, wanted: list[Outline], cameras: SquareCameras
) -> NDArray[np.float64]:
    """The small move that brings an object's outlines nearer to those that are wanted.

    Each outline's points are paired with the nearest of the other, both ways; the move is what brings pairs together
    across the outline, in least squares: a step of iterative closest points (Besl and McKay 1992) with distances from
    points to lines (Chen and Medioni 1992).

    Args:
        points: On its surface, dense. Shape (n, 3).
        centre: What it turns and grows about. Shape (3,).
        wanted: One a view.
        cameras: One a view.

    Returns:
        Shape (7,): a turn as axis times angle, a shift, the logarithm of a scale; zeros where nothing is in view.
    """
    rows, apart = [np.zeros((0, 7))], [np.zeros(0)]
    for outline, pose in zip(wanted, cameras.c2w, strict=True):
        pixels = project(points, pose, cameras.intrinsics)
        drawn = silhouette(pixels, cameras.size_px)
        if not drawn.any():
            continue
        column, line = np.clip(pixels[:, :2].astype(np.int64), 0, cameras.size_px - 1).T
        depth_inside = cv2.distanceTransform(np.pad(drawn, 1).astype(np.uint8), cv2.DIST_L2, 3)[1:-1, 1:-1]
        rim = np.flatnonzero((pixels[:, 2] > DEEPEST) & (depth_inside[line, column] < RIM_PX))
        rim = rim[:: max(1, len(rim) // RIM_POINTS)]
        if not len(rim):
            continue
        back = rim[cKDTree(pixels[rim, :2]).query(outline.points)[1]]
        forth = cKDTree(outline.points).query(pixels[rim, :2])[1]
        own, other = np.concatenate([rim, back]), np.concatenate([forth, np.arange(len(outline.points))])
        normals = outline.normals[other]
        apart.append(((outline.points[other] - pixels[own, :2]) * normals).sum(axis=1))
        along = _along_normals(points[own], normals, pose, cameras.intrinsics)
        arm = points[own] - centre
        rows.append(np.column_stack([np.cross(arm, along), along, (arm * along).sum(axis=1)]))
    a, b = np.concatenate(rows), np.concatenate(apart)
    if not len(b):
        return np.zeros(7)
    weight = 1 / np.sqrt(1 + (b / SOFT_PX) ** 2)
    found: NDArray[np.float64] = np.linalg.lstsq(a * weight[:, None], b * weight, rcond=FIRM)[0]
    return found


def _along_normals(
    points: np.ndarray, normals: np.ndarray, pose: np.ndarray, intrinsics: tuple[float, float, float, float]
) -> NDArray[np.float64]:
    """How far a point's picture moves along a normal for a move of the point in the world. Shape (n, 3)."""
    x, y, depth = ((points - pose[:3, 3]) @ pose[:3, :3]).T
    across, down = intrinsics[0] * normals[:, 0] / depth, intrinsics[1] * normals[:, 1] / depth
    by_camera = np.stack([across, down, -(across * x + down * y) / depth], axis=1)
    found: NDArray[np.float64] = by_camera @ pose[:3, :3].T
    return found
