"""Surfaces for the sample assets, made from numpy alone: grids, lathes, tubes, boxes and plates.

Lengths are in scene units, +Z is up and a creature looks along -Y, as in Blender. Angles are in degrees.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

Axis = str
"""One of "x", "y", "z"."""


@dataclass(frozen=True)
class Surface:
    """A polygon mesh."""

    vertices: np.ndarray
    """Shape (vertex, 3)."""
    faces: tuple[tuple[int, ...], ...]
    """Vertex indices of each polygon, anticlockwise seen from outside."""
    corner_uv: np.ndarray
    """Shape (corner, 2), in 0..1, the corners of all faces one after the other."""

    def moved(self, x: float = 0.0, y: float = 0.0, z: float = 0.0) -> "Surface":
        """Shifted by x, y, z."""
        return replace(self, vertices=self.vertices + np.array([x, y, z]))

    def turned(self, axis: Axis, degrees: float) -> "Surface":
        """Turned about a main axis through the origin, right-handed."""
        return replace(self, vertices=self.vertices @ rotation(axis, degrees).T)

    def scaled(self, x: float, y: float, z: float) -> "Surface":
        """Scaled about the origin; still looks outward where the factors mirror it."""
        scaled = replace(self, vertices=self.vertices * np.array([x, y, z]))
        return flipped(scaled) if x * y * z < 0 else scaled

    def warped(self, move: Callable[[np.ndarray], np.ndarray]) -> "Surface":
        """With every vertex array of shape (vertex, 3) passed through `move`."""
        return replace(self, vertices=move(self.vertices))


def rotation(axis: Axis, degrees: float) -> np.ndarray:
    """Right-handed rotation matrix about a main axis."""
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    first, second = {"x": (1, 2), "y": (2, 0), "z": (0, 1)}[axis]
    matrix = np.eye(3)
    matrix[first, first] = matrix[second, second] = cos
    matrix[second, first], matrix[first, second] = sin, -sin
    return matrix


def flipped(surface: Surface) -> Surface:
    """The same surface seen from inside."""
    corners = np.split(surface.corner_uv, np.cumsum([len(face) for face in surface.faces])[:-1])
    return Surface(
        vertices=surface.vertices,
        faces=tuple(face[::-1] for face in surface.faces),
        corner_uv=np.concatenate([corner[::-1] for corner in corners]),
    )


def outward(surface: Surface) -> Surface:
    """A closed surface with its faces looking out, whichever way they looked before."""
    volume = 0.0
    for face in surface.faces:
        points = surface.vertices[list(face)]
        for second, third in pairwise(points[1:]):
            volume += float(points[0] @ np.cross(second, third))
    return flipped(surface) if volume < 0 else surface


def welded(vertices: np.ndarray, faces: Sequence[Sequence[int]], corner_uv: np.ndarray) -> Surface:
    """Join vertices at the same place and drop what collapses: seams close and poles become triangles.

    Args:
        vertices: Shape (vertex, 3).
        faces: Vertex indices per polygon.
        corner_uv: Shape (corner, 2), in the order of the faces.
    """
    _, first, inverse = np.unique(np.round(vertices * 1e5), axis=0, return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    new_index = rank[inverse.ravel()]

    kept_faces, kept_uv, corner = [], [], 0
    for face in faces:
        new_face: list[int] = []
        new_uv: list[np.ndarray] = []
        for old in face:
            if int(new_index[old]) not in new_face:
                new_face.append(int(new_index[old]))
                new_uv.append(corner_uv[corner])
            corner += 1
        if len(new_face) >= 3:
            kept_faces.append(tuple(new_face))
            kept_uv.extend(new_uv)
    return Surface(vertices=vertices[np.sort(first)], faces=tuple(kept_faces), corner_uv=np.array(kept_uv))


def grid(points: np.ndarray, *, wrap: bool = False) -> Surface:
    """Quads over a lattice of points.

    Args:
        points: Shape (row, column, 3). u runs along the columns and v along the rows.
        wrap: Join the last column to the first.
    """
    num_rows, num_columns = points.shape[:2]
    num_steps = num_columns if wrap else num_columns - 1
    faces, uv = [], []
    for row in range(num_rows - 1):
        for column in range(num_steps):
            right = (column + 1) % num_columns
            low, high = row * num_columns, (row + 1) * num_columns
            faces.append((low + column, low + right, high + right, high + column))
            u0, u1 = column / num_steps, (column + 1) / num_steps
            v0, v1 = row / (num_rows - 1), (row + 1) / (num_rows - 1)
            uv += [(u0, v0), (u1, v0), (u1, v1), (u0, v1)]
    return welded(points.reshape(-1, 3), faces, np.array(uv))


def lathe(profile: Sequence[tuple[float, float]] | np.ndarray, segments: int = 20) -> Surface:
    """Turn a profile about +Z.

    Args:
        profile: (radius, z) from the bottom up; start and end with radius 0 for a closed body.
        segments: Faces around.
    """
    angles = np.arange(segments) / segments * 2 * np.pi
    ring = np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    radius_z = np.array(profile, dtype=float)
    points = np.empty((len(radius_z), segments, 3))
    points[..., :2] = radius_z[:, None, :1] * ring
    points[..., 2] = radius_z[:, None, 1]
    return grid(points, wrap=True)


def ellipsoid(x: float, y: float, z: float, segments: int = 16) -> Surface:
    """Half axes x, y, z about the origin."""
    angles = np.linspace(-np.pi / 2, np.pi / 2, segments // 2 + 1)
    return lathe([(float(np.cos(a)), float(np.sin(a))) for a in angles], segments).scaled(x, y, z)


def tube(
    path: Sequence[Sequence[float]] | np.ndarray,
    radii: Sequence[float] | Sequence[tuple[float, float]] | np.ndarray,
    *,
    sides: int = 12,
    up: tuple[float, float, float] = (0.0, 0.0, 1.0),
    round_ends: bool = True,
) -> Surface:
    """A closed skin around a path.

    Args:
        path: Shape (point, 3).
        radii: One per point, or a pair per point: across and along `up`.
        sides: Faces around.
        up: Roughly where the top of the first ring is; it is carried along the path without twist.
        round_ends: Close with domes (radius of the end ring) instead of flat caps.
    """
    points = np.array(path, dtype=float)
    widths = np.array(radii, dtype=float)
    widths = np.repeat(widths[:, None], 2, axis=1) if widths.ndim == 1 else widths
    tangents = np.gradient(points, axis=0)
    tangents /= np.linalg.norm(tangents, axis=1, keepdims=True)
    if round_ends:
        points, widths, tangents = _with_domes(points, widths, tangents)
    angles = np.arange(sides) / sides * 2 * np.pi
    rings, top = [], np.array(up, dtype=float)
    if abs(top @ tangents[0]) > 0.99 * np.linalg.norm(top):
        top = np.array([0.0, -1.0, 0.0])
    for point, (across, along), tangent in zip(points, widths, tangents, strict=True):
        top = top - (top @ tangent) * tangent
        top /= np.linalg.norm(top)
        side = np.cross(tangent, top)
        rings.append(point + across * np.sin(angles)[:, None] * side + along * np.cos(angles)[:, None] * top)
    rings = [np.repeat(points[:1], sides, axis=0), *rings, np.repeat(points[-1:], sides, axis=0)]
    return outward(grid(np.array(rings), wrap=True))


def _with_domes(
    points: np.ndarray, widths: np.ndarray, tangents: np.ndarray, num_rings: int = 3
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Add shrinking rings before the first and after the last point of a tube."""
    angles = np.arange(1, num_rings + 1) / num_rings * np.pi / 2
    out, shrink = np.sin(angles)[:, None], np.maximum(np.cos(angles), 1e-3)[:, None]
    before, after = widths[0].min() * out[::-1], widths[-1].min() * out
    return (
        np.concatenate([points[0] - before * tangents[0], points, points[-1] + after * tangents[-1]]),
        np.concatenate([widths[0] * shrink[::-1], widths, widths[-1] * shrink]),
        np.concatenate([np.repeat(tangents[:1], num_rings, 0), tangents, np.repeat(tangents[-1:], num_rings, 0)]),
    )


def box(x: float, y: float, z: float, chamfer: float = 0.1) -> Surface:
    """A box with edge lengths x, y, z about the origin, and its edges cut at 45°.

    Args:
        chamfer: Share of the shortest edge that the cut takes off at each end.
    """
    cut = chamfer * min(x, y, z)
    corners = np.array([(1, 1), (1, -1), (-1, -1), (-1, 1)])[::-1]
    half = np.array([x, y]) / 2
    inner = corners * (half - cut)
    outer = np.array(
        [
            point
            for index, (sx, sy) in enumerate(corners)
            for point in ([(0.0, sy), (sx, 0.0)] if index % 2 == 0 else [(sx, 0.0), (0.0, sy)])
        ]
    )
    outer = np.repeat(inner, 2, axis=0) + outer * cut
    rows = [
        np.column_stack([ring, np.full(8, height)])
        for ring, height in (
            (np.repeat(inner, 2, axis=0), -z / 2),
            (outer, -z / 2 + cut),
            (outer, z / 2 - cut),
            (np.repeat(inner, 2, axis=0), z / 2),
        )
    ]
    sides = grid(np.array(rows), wrap=True)
    caps = [_indices_of(sides.vertices, np.column_stack([inner, np.full(4, height)])) for height in (-z / 2, z / 2)]
    square = np.array([(0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0)])
    return outward(
        Surface(
            vertices=sides.vertices,
            faces=(*sides.faces, caps[0][::-1], caps[1]),
            corner_uv=_box_uv(sides, np.concatenate([square, square])),
        )
    )


def _indices_of(vertices: np.ndarray, points: np.ndarray) -> tuple[int, ...]:
    return tuple(int(np.argmin(np.linalg.norm(vertices - point, axis=1))) for point in points)


def _box_uv(sides: Surface, cap_uv: np.ndarray) -> np.ndarray:
    """Each of the four walls shows the whole picture; walls and cuts take turns around the grid."""
    uv = sides.corner_uv.copy()
    uv[:, 0] = uv[:, 0] * 4 % 1.0
    return np.concatenate([uv, cap_uv])


def plate(outline: Sequence[tuple[float, float]] | np.ndarray, thickness: float) -> Surface:
    """An outline in the XY plane (anticlockwise, may be concave), extruded along Z about z = 0."""
    flat = np.array(outline, dtype=float)
    count = len(flat)
    vertices = np.concatenate(
        [np.column_stack([flat, np.full(count, height)]) for height in (-thickness / 2, thickness / 2)]
    )
    low, size = flat.min(axis=0), np.ptp(flat, axis=0)
    planar = (flat - low) / size
    faces: list[tuple[int, ...]] = [tuple(range(count))[::-1], tuple(range(count, 2 * count))]
    uv = [planar[::-1], planar]
    for index in range(count):
        following = (index + 1) % count
        faces.append((index, following, following + count, index + count))
        uv.append(planar[[index, following, following, index]])
    return outward(Surface(vertices=vertices, faces=tuple(faces), corner_uv=np.concatenate(uv)))


def upright(outline: Sequence[tuple[float, float]] | np.ndarray, thickness: float) -> Surface:
    """A `plate` whose outline is given as (y, z), as for a fin or a sign seen from the side."""
    return plate(outline, thickness).turned("x", 90).turned("z", 90)


def mirrored(surface: Surface) -> Surface:
    """The other side's twin, x negated."""
    return surface.scaled(-1, 1, 1)


def spline(points: Sequence[Sequence[float]] | np.ndarray, num_points: int) -> np.ndarray:
    """A Catmull-Rom curve through points of any dimension, sampled evenly in the points' index.

    Returns:
        Shape (num_points, dimension).
    """
    knots = np.array(points, dtype=float)
    padded = np.concatenate([2 * knots[:1] - knots[1:2], knots, 2 * knots[-1:] - knots[-2:-1]])
    at = np.linspace(0, len(knots) - 1, num_points)
    index = np.minimum(at.astype(int), len(knots) - 2)
    t = (at - index)[:, None]
    p0, p1, p2, p3 = (padded[index + offset] for offset in range(4))
    return np.asarray(p1 + 0.5 * t * (p2 - p0 + t * (2 * p0 - 5 * p1 + 4 * p2 - p3 + t * (3 * (p1 - p2) + p3 - p0))))


def ring_of(surface: Surface, count: int, axis: Axis = "z", start_deg: float = 0.0) -> list[Surface]:
    """Copies turned evenly about an axis."""
    return [surface.turned(axis, start_deg + 360.0 * index / count) for index in range(count)]
