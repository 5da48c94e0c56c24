"""Points on a surface: spread over it, or nearest to others."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

CANDIDATES, ROUNDS = 16, 8
"""Points for each that is wanted, and how often those are moved to the middle of what they stand for."""
PAIRS_AT_ONCE = 2_000_000


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


def face_normals(positions: np.ndarray, faces: np.ndarray) -> NDArray[np.float64]:
    """Normals as long as twice a face's area. Shape (F, 3)."""
    first, second, third = positions[faces].swapaxes(0, 1)
    found: NDArray[np.float64] = np.cross(second - first, third - first)
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
    areas = np.linalg.norm(face_normals(vertices.astype(np.float64), faces), axis=1) / 2
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


def evenly_over(vertices: np.ndarray, faces: np.ndarray, count: int, *, seed: int) -> SurfacePoints:
    """As `spread_over`, and as far from each other as can be, so that no gaps are left.

    Of more points than are wanted, each takes in those that are nearest to it and moves to their middle, some times
    over (Lloyd 1982). Nearness counts the direction of the surface: two sides of a sheet have points of their own.
    """
    many = spread_over(vertices, faces, count * CANDIDATES, seed=seed)
    if not count:
        return many
    normals = face_normals(vertices.astype(np.float64), faces[many.faces])
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-300)
    spacing = many.spacing * CANDIDATES**0.5
    features = np.concatenate([many.at(vertices, faces), spacing * normals], axis=1)
    middles = features[CANDIDATES // 2 :: CANDIDATES]
    for _ in range(ROUNDS):
        _, nearest = cKDTree(middles).query(features)
        sizes = np.maximum(np.bincount(nearest, minlength=count), 1)[:, None]
        sums = [np.bincount(nearest, weights=column, minlength=count) for column in features.T]
        middles = np.stack(sums, axis=1) / sizes
    _, chosen = cKDTree(features).query(middles)
    return SurfacePoints(faces=many.faces[chosen], weights=many.weights[chosen], spacing=spacing)


@dataclass(frozen=True, kw_only=True)
class NearestPoints:
    """Where a surface is nearest to N points."""

    faces: NDArray[np.int64]
    """(N,)."""
    weights: NDArray[np.float64]
    """(N, 3), barycentric, of the face's corners."""
    distances: NDArray[np.float64]
    """(N,)."""


def nearest_on_surface(points: np.ndarray, vertices: np.ndarray, faces: np.ndarray) -> NearestPoints:
    """The nearest points of a surface, exactly.

    Args:
        points: Shape (N, 3).
        vertices: Shape (V, 3).
        faces: Shape (F, 3), at least one.
    """
    corners = vertices[faces].astype(np.float64)
    middles = corners.mean(axis=1)
    reach = np.linalg.norm(corners - middles[:, None], axis=2).max(axis=1)
    best_faces = cKDTree(middles).query(points)[1]
    best_weights, best = _nearest_of(points, corners[best_faces])
    # A face that is nearer has its middle within that distance and its own reach. Faces of like reach go together:
    # else a large one would make every search wide.
    classes = np.floor(np.log2(np.maximum(reach, 1e-12))).astype(np.int64)
    for size in np.unique(classes):
        members = np.flatnonzero(classes == size)
        near = cKDTree(middles[members]).query_ball_point(points, best + reach[members].max())
        counts = np.array([len(found) for found in near])
        for some in np.array_split(np.arange(len(points)), 1 + counts.sum() // PAIRS_AT_ONCE):
            owner = np.repeat(some, counts[some])
            if not len(owner):
                continue
            face = members[np.concatenate([near[one] for one in some]).astype(np.int64)]
            weights, distance = _nearest_of(points[owner], corners[face])
            order = np.lexsort((distance, owner))
            first = order[np.unique(owner[order], return_index=True)[1]]
            first = first[distance[first] < best[owner[first]]]
            at = owner[first]
            best_faces[at], best_weights[at], best[at] = face[first], weights[first], distance[first]
    return NearestPoints(faces=best_faces.astype(np.int64), weights=best_weights, distances=best)


def _nearest_of(points: np.ndarray, corners: np.ndarray) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weights (N, 3) and distances (N,) of the point of each triangle (N, 3, 3) that is nearest to each point (N, 3).

    It is the foot of the perpendicular where that lies inside, and otherwise on one of the three sides.
    """
    first, second, third = corners.swapaxes(0, 1)
    ways = [_inside(points, first, second, third)]
    for start, end in ((0, 1), (1, 2), (2, 0)):
        side = corners[:, end] - corners[:, start]
        along = np.einsum("ni,ni->n", points - corners[:, start], side)
        share = np.clip(along / np.maximum(np.einsum("ni,ni->n", side, side), 1e-300), 0, 1)
        weights = np.zeros((len(points), 3))
        weights[:, start], weights[:, end] = 1 - share, share
        ways.append(weights)
    tried = np.stack(ways)
    distances = np.linalg.norm(np.einsum("wnc,nci->wni", tried, corners) - points, axis=2)
    best = distances.argmin(axis=0)
    at = np.arange(len(points))
    return tried[best, at], distances[best, at]


def _inside(points: np.ndarray, first: np.ndarray, second: np.ndarray, third: np.ndarray) -> NDArray[np.float64]:
    """Weights of the foot of the perpendicular; of the first corner where it is outside, or the triangle is a line."""
    across = np.cross(second - first, third - first)
    area = np.maximum(np.einsum("ni,ni->n", across, across), 1e-300)
    of_second = np.einsum("ni,ni->n", np.cross(points - first, third - first), across) / area
    of_third = np.einsum("ni,ni->n", np.cross(second - first, points - first), across) / area
    weights = np.stack([1 - of_second - of_third, of_second, of_third], axis=1)
    weights[~(weights >= 0).all(axis=1)] = (1.0, 0.0, 0.0)
    return weights
