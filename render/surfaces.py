"""The deformed surfaces of a clip, read from what the Blender child wrote. The child is not trusted with anything."""

import math
import os
import stat
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from render.protocol import BadAsset, Opacity, Traced

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int32]

MAX_COORDINATE = 1e4
"""World units. What is drawn lies in the unit sphere; only what is scaled to a point may lie elsewhere."""
LEAST_AREA = 1e-10
"""Of twice a triangle, world units squared: what is smaller is scaled down to a point to be out of sight."""
SOLID = 0.5
"""Least opacity of what counts as a surface."""
_WRAPS = ("repeat", "extend", "clip", "mirror")


@dataclass(frozen=True, kw_only=True)
class Cover:
    """How much a material hides: see `render.protocol.Opacity`."""

    front: Floats
    back: Floats
    values: npt.NDArray[np.uint8] | None
    """The picture that decides, bottom row first."""
    wrap: str
    nearest: bool

    def solid(self, side: str) -> bool | None:
        """Whether a side counts as a surface, None if its picture decides."""
        table = self.front if side == "front" else self.back
        verdicts = table >= SOLID
        return bool(verdicts[0]) if verdicts.all() or not verdicts.any() else None

    def solid_at(self, uv: Floats, is_front: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """Whether there is a surface at some points of it.

        Args:
            uv: Where they lie in the picture, shape (point, 2), v upwards.
            is_front: Whether they are seen from the front, shape (point,).
        """
        if self.values is None:
            return np.where(is_front, self.front[0] >= SOLID, self.back[0] >= SOLID)
        level = self._looked_up(uv)
        tables = [table if len(table) == 256 else np.repeat(table[:1], 256) for table in (self.front, self.back)]
        grid = np.arange(256.0)
        opacity = np.where(is_front, np.interp(level, grid, tables[0]), np.interp(level, grid, tables[1]))
        return np.asarray(opacity >= SOLID)

    def _looked_up(self, uv: Floats) -> Floats:
        """The picture's value at each point, 0..255."""
        assert self.values is not None
        height, width = self.values.shape
        place = np.clip(uv, -1e6, 1e6) * [width, height]
        if self.nearest:
            column, row = np.floor(place).astype(np.int64).T
            return self._texel(row, column)
        corner = np.floor(place - 0.5)
        share = place - 0.5 - corner
        column, row = corner.astype(np.int64).T
        low = self._texel(row, column) * (1 - share[:, 0]) + self._texel(row, column + 1) * share[:, 0]
        high = self._texel(row + 1, column) * (1 - share[:, 0]) + self._texel(row + 1, column + 1) * share[:, 0]
        return np.asarray(low * (1 - share[:, 1]) + high * share[:, 1])

    def _texel(self, row: np.ndarray, column: np.ndarray) -> Floats:
        assert self.values is not None
        height, width = self.values.shape
        found: Floats = self.values[_wrapped(row, height, self.wrap), _wrapped(column, width, self.wrap)].astype(float)
        if self.wrap == "clip":
            found[(row < 0) | (row >= height) | (column < 0) | (column >= width)] = 0.0
        return found


def _wrapped(index: np.ndarray, size: int, wrap: str) -> np.ndarray:
    if wrap == "repeat":
        return index % size
    if wrap == "mirror":
        folded = index % (2 * size)
        return np.minimum(folded, 2 * size - 1 - folded)
    return np.clip(index, 0, size - 1)


@dataclass(frozen=True, kw_only=True)
class Surface:
    """Triangles, and what each of them belongs to."""

    triangles: Ints
    """Vertex indices, shape (triangle, 3), counter-clockwise seen from the front."""
    objects: Ints
    """Shape (triangle,)."""
    materials: Ints
    """Shape (triangle,); -1 is none."""
    uvs: npt.NDArray[np.float32]
    """Shape (triangle, 3, 2): where the corners lie in the picture that decides their material's opacity."""


@dataclass(frozen=True, kw_only=True)
class Pose:
    """The surface at one moment, in the clip's world."""

    positions: npt.NDArray[np.float32]
    """Shape (vertex, 3)."""
    surface: Surface
    normals: npt.NDArray[np.float32] | None
    """Unit shading normals of the corners, shape (triangle, 3, 3), if they were asked for."""


@dataclass(frozen=True, kw_only=True)
class Moving:
    """The surfaces of all poses of a clip."""

    poses: tuple[Pose, ...]
    same_vertices: bool
    """A vertex index means the same point of the surface in all poses."""
    object_names: tuple[str, ...]
    material_names: tuple[str, ...]
    covers: tuple[Cover, ...]
    """One a material."""

    @cached_property
    def reach(self) -> float:
        """How far from the origin anything lies that has an area; 1 where the framing covers all frames."""
        reach = 1.0
        for pose in self.poses:
            corners = pose.positions[pose.surface.triangles]
            areas = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
            far = np.linalg.norm(corners[areas > LEAST_AREA], axis=-1)
            reach = max(reach, float(far.max(initial=0.0)))
        return reach if reach > 1.0 + 1e-4 else 1.0


def read_moving(folder: Path, traced: Traced, *, num_poses: int, normals: bool) -> Moving:
    """Read and check what the child wrote.

    Raises:
        BadAsset: It is not as it was ordered; the asset has got hold of the child.
    """
    _expect(len(traced.poses) == num_poses, "poses", f"{len(traced.poses)} instead of {num_poses}")
    _expect(len(traced.opacities) == len(traced.material_names), "opacities", "not one a material")
    surfaces: dict[int, Surface] = {}
    poses = []
    for index, told in enumerate(traced.poses):
        num_vertices, num_triangles = _count(told.num_vertices), _count(told.num_triangles)
        if told.surface == index:
            surfaces[index] = _surface(folder, index, num_vertices, num_triangles, traced)
        _expect(told.surface in surfaces, "poses", f"pose {index} has the triangles of pose {told.surface}")
        surface = surfaces[told.surface]
        highest = int(surface.triangles.max(initial=-1))
        _expect(len(surface.triangles) == num_triangles and highest < num_vertices, "poses", f"of pose {index}")
        positions = _read(folder, f"positions_{index:03d}", "<f4", (num_vertices, 3))
        _expect(bool((np.abs(positions) <= MAX_COORDINATE).all()), "positions", f"of pose {index} are not in reach")
        poses.append(
            Pose(
                positions=positions,
                surface=surface,
                normals=_normals(folder, index, num_triangles) if normals else None,
            )
        )
    same_size = len({len(pose.positions) for pose in poses}) == 1
    return Moving(
        poses=tuple(poses),
        same_vertices=traced.same_vertices is True and same_size,
        object_names=tuple(_name(name) for name in traced.object_names),
        material_names=tuple(_name(name) for name in traced.material_names),
        covers=tuple(_cover(folder, opacity) for opacity in traced.opacities),
    )


def _surface(folder: Path, index: int, num_vertices: int, num_triangles: int, traced: Traced) -> Surface:
    triangles = _read(folder, f"triangles_{index:03d}", "<i4", (num_triangles, 3))
    objects = _read(folder, f"objects_{index:03d}", "<i4", (num_triangles,))
    materials = _read(folder, f"materials_{index:03d}", "<i4", (num_triangles,))
    uvs = _read(folder, f"uvs_{index:03d}", "<f4", (num_triangles, 3, 2))
    for kind, values, low, count in (
        ("triangles", triangles, 0, num_vertices),
        ("objects", objects, 0, len(traced.object_names)),
        ("materials", materials, -1, len(traced.material_names)),
    ):
        _expect(bool(((values >= low) & (values < count)).all()), kind, f"of pose {index} are out of range")
    return Surface(
        triangles=triangles, objects=objects, materials=materials, uvs=np.nan_to_num(uvs, posinf=0.0, neginf=0.0)
    )


def _normals(folder: Path, index: int, num_triangles: int) -> npt.NDArray[np.float32]:
    normals = _read(folder, f"normals_{index:03d}", "<f4", (num_triangles, 3, 3))
    _expect(bool((np.abs(normals) <= 1.001).all()), "normals", f"of pose {index} are longer than 1")
    return normals


def _cover(folder: Path, opacity: Opacity) -> Cover:
    front, back = (np.asarray(side, dtype=np.float64) for side in (opacity.front, opacity.back))
    for side in (front, back):
        _expect(side.shape in ((1,), (256,)) and bool(np.isfinite(side).all()), "opacities", "no number or table")
    _expect(opacity.wrap in _WRAPS, "opacities", f"no such wrap: {opacity.wrap!r}")
    values = None
    if opacity.picture:
        _expect(os.path.basename(opacity.picture) == opacity.picture, "opacities", "no file name")
        values = _read(folder, opacity.picture, "u1", (_count(opacity.height), _count(opacity.width)))
        _expect(values.size > 0, "opacities", "an empty picture")
    _expect(values is not None or max(len(front), len(back)) == 1, "opacities", "a table without a picture")
    return Cover(front=front, back=back, values=values, wrap=opacity.wrap, nearest=opacity.nearest is True)


def _read(folder: Path, name: str, kind: str, shape: tuple[int, ...]) -> Any:
    """An array of a raw file of exactly the expected size. No link is followed."""
    try:
        file = os.open(folder / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise BadAsset("blender_crashed", f"cannot read {name} of the child: {error.strerror}") from error
    with os.fdopen(file, "rb") as opened:
        status = os.fstat(opened.fileno())
        wanted = math.prod(shape) * np.dtype(kind).itemsize
        as_ordered = stat.S_ISREG(status.st_mode) and status.st_size == wanted
        _expect(as_ordered, name, f"{status.st_size} bytes, not {wanted}")
        content = opened.read(wanted)
    _expect(len(content) == wanted, name, "shrank while it was read")
    return np.frombuffer(content, dtype=kind).reshape(shape)


def _count(value: Any) -> int:
    _expect(type(value) is int and 0 <= value < 2**31, "a count", f"is {value!r}")
    return int(value)


def _name(value: Any) -> str:
    _expect(type(value) is str, "a name", f"is {type(value).__name__}")
    return str(value)[:200]


def _expect(fulfilled: bool, what: str, detail: str) -> None:
    if not fulfilled:
        raise BadAsset("blender_crashed", f"what the child wrote is not what was ordered: {what}: {detail}")
