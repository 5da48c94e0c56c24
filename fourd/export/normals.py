"""Normals and tangents that go with the surface: hard edges stay hard, smooth ones smooth, painted ones as painted."""

from dataclasses import dataclass

import numpy as np

SAME_NORMAL = 1e-3
"""Corners of one vertex whose normals differ by less are one smooth surface, cut by a texture seam at most."""


@dataclass(frozen=True, kw_only=True)
class SurfaceFrame:
    """A mesh at rest, with what is needed to carry directions along when it moves."""

    positions: np.ndarray
    """(n, 3) at rest, one a vertex of the file."""
    faces: np.ndarray
    """(F, 3)."""
    groups: np.ndarray
    """(n,): vertices of one group share their faces."""

    @classmethod
    def of(cls, positions: np.ndarray, faces: np.ndarray, points: np.ndarray, normals: np.ndarray) -> "SurfaceFrame":
        """The mesh at rest.

        Args:
            positions: Shape (n, 3).
            faces: Shape (F, 3).
            points: Shape (n,), equal for vertices in one place.
            normals: Shape (n, 3), unit; vertices in one place with equal normals share their faces.
        """
        rounded = np.round(normals / SAME_NORMAL).astype(np.int64)
        _, groups = np.unique(np.column_stack([points, rounded]), axis=0, return_inverse=True)
        return cls(positions=positions, faces=faces, groups=groups.ravel())

    def carried(self, moved: np.ndarray, directions: np.ndarray, *, covariant: bool) -> np.ndarray:
        """Directions at rest as they are on the moved surface, unit length.

        Each face maps its edges to the moved edges and its normal to the moved normal; a vertex takes the mean of what
        its faces make of its direction, weighted by their areas at rest. Where no face has an area, nothing changes.

        Args:
            moved: Shape (n, 3).
            directions: Shape (n, 3), unit.
            covariant: True for normals, which stay at right angles to the surface; False for tangents, which lie in it.
        """
        rest, rest_area = _face_bases(self.positions, self.faces)
        now, now_area = _face_bases(moved, self.faces)
        usable = (rest_area > 1e-12 * max(rest_area.max(initial=0.0), 1e-30)) & (now_area > 1e-9 * rest_area)
        rest, now, faces, area = rest[usable], now[usable], self.faces[usable], rest_area[usable]
        # Columns of the bases: two edges and the unit normal. The face maps by now @ inv(rest).
        if covariant:
            maps = np.linalg.inv(now).transpose(0, 2, 1) @ rest.transpose(0, 2, 1)
        else:
            maps = now @ np.linalg.inv(rest)
        total = np.zeros((int(self.groups.max(initial=-1)) + 1, 9))
        weighted = (maps * area[:, None, None]).reshape(-1, 9)
        for corner in range(3):
            np.add.at(total, self.groups[faces[:, corner]], weighted)
        mean = total[self.groups].reshape(-1, 3, 3)
        result: np.ndarray = np.einsum("nij,nj->ni", mean, directions)
        length = np.linalg.norm(result, axis=1, keepdims=True)
        return np.where(length > 1e-20, result / np.maximum(length, 1e-20), directions)


def _face_bases(positions: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two edges and the unit normal as columns, (F, 3, 3), and twice the area, (F,)."""
    corners = positions[faces].astype(np.float64)
    first, second = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    normal = np.cross(first, second)
    area = np.linalg.norm(normal, axis=1)
    normal = normal / np.maximum(area, 1e-30)[:, None]
    return np.stack([first, second, normal], axis=2), area
