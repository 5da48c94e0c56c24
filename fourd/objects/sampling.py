"""Points spread over a surface."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class SurfacePoints:
    """N points on a mesh, by its faces."""

    faces: NDArray[np.int64]
    """(N,)."""
    weights: NDArray[np.float64]
    """(N, 3), barycentric, of the face's corners."""
    spacing: float
    """Side of the square of surface that a point stands for."""

    def at(self, vertices: np.ndarray, faces: np.ndarray) -> NDArray[np.float64]:
        """Where they are when the vertices are there. Shape (N, 3)."""
        found: NDArray[np.float64] = np.einsum("nc,nci->ni", self.weights, vertices[faces[self.faces]])
        return found


def spread_over(vertices: np.ndarray, faces: np.ndarray, count: int, *, seed: int) -> SurfacePoints:
    """Points with as much surface around each: every stretch of area of one length has one.

    Args:
        vertices: Shape (V, 3).
        faces: Shape (F, 3).
        count: How many.
        seed: Where in their stretch and triangle they stand.

    Raises:
        ValueError: The surface has no area.
    """
    corners = vertices[faces].astype(np.float64)
    areas = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1) / 2
    ends = np.cumsum(areas)
    if not len(ends) or not ends[-1] > 0:
        raise ValueError("the faces have no area")
    rng = np.random.default_rng(seed)
    places = (np.arange(count) + rng.random(count)) / max(count, 1) * ends[-1]
    chosen = np.minimum(np.searchsorted(ends, places, side="right"), len(faces) - 1)
    first, second = rng.random(count), rng.random(count)
    root = np.sqrt(first)  # uniform over the triangle (Turk 1990)
    return SurfacePoints(
        faces=chosen,
        weights=np.stack([1 - root, root * (1 - second), root * second], axis=1),
        spacing=float(np.sqrt(ends[-1] / max(count, 1))),
    )
