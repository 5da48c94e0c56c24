"""A plain z-buffer: slow, short, and made without anything that the ground truth is made with."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Raster:
    """The nearest triangle at each pixel's centre."""

    triangle: np.ndarray
    """Shape (height, width); -1 is none."""
    weights: np.ndarray
    """Barycentric on the surface, shape (height, width, 3)."""
    depth: np.ndarray
    """Along the viewing axis, shape (height, width); infinite where there is none."""


def rasterise(
    positions: np.ndarray, triangles: np.ndarray, c2w: np.ndarray, intrinsics: tuple[float, ...], size_px: int
) -> Raster:
    """Draw triangles, each tested at the centres of the pixels in its box."""
    fx, fy, cx, cy = intrinsics
    camera = (positions - c2w[:3, 3]) @ c2w[:3, :3]
    pixels = camera[:, :2] / camera[:, 2:] * [fx, fy] + [cx, cy]
    found = Raster(
        np.full((size_px, size_px), -1), np.zeros((size_px, size_px, 3)), np.full((size_px, size_px), np.inf)
    )
    for number, corners in enumerate(triangles):
        flat = pixels[corners]
        low = np.maximum(np.ceil(flat.min(axis=0) - 0.5), 0).astype(int)
        high = np.minimum(np.floor(flat.max(axis=0) - 0.5), size_px - 1).astype(int)
        area = np.linalg.det(flat[1:] - flat[0])
        if (low > high).any() or abs(area) < 1e-9:
            continue
        rows, columns = np.mgrid[low[1] : high[1] + 1, low[0] : high[0] + 1]
        centres = np.stack([columns, rows], axis=-1) + 0.5
        sides = [
            np.linalg.det(np.stack([flat[(k + 1) % 3] - centres, flat[(k + 2) % 3] - centres], axis=-2)) / area
            for k in range(3)
        ]
        # On the screen the weights are bent: what is linear is the weight over the depth.
        bent = np.stack(sides, axis=-1) / camera[corners, 2]
        depth = 1.0 / bent.sum(axis=-1)
        here = (np.stack(sides, axis=-1) >= 0).all(axis=-1) & (depth > 0) & (depth < found.depth[rows, columns])
        found.triangle[rows[here], columns[here]] = number
        found.depth[rows[here], columns[here]] = depth[here]
        found.weights[rows[here], columns[here]] = (bent * depth[..., None])[here]
    return found
