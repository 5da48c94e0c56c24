"""A static object from a GLB: all its surfaces as one mesh, with colours and the way back. Needs no Blender."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fourd.export.errors import ExportError
from fourd.gltf import Gltf, read_glb
from fourd.motion.graph import weld
from fourd.objects.appearance import to_srgb
from fourd.objects.drawn import DrawnPrimitive, drawn_primitives
from fourd.objects.errors import ObjectError
from fourd.objects.placement import Similarity
from fourd.objects.sides import hides_its_back
from fourd.objects.static import Primitive, StaticObject

MAX_VERTICES = 2_000_000
SAME_PLACE = 1e-6
"""Vertices nearer than this, of the radius, are one."""
ZUP_FROM_YUP = np.array([[1.0, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
"""glTF has y up and looks along -z; the world has z up, its front at -y."""


@dataclass(frozen=True, kw_only=True)
class ReadObject:
    """A static object with what its colours come from."""

    static: StaticObject
    drawn: tuple[DrawnPrimitive, ...]
    """One a `Primitive`, in the same order."""
    face_starts: NDArray[np.int64]
    """(number of primitives + 1,): the faces of primitive i are those from `face_starts[i]` to `face_starts[i + 1]`."""

    def put(self, object_from_world: Similarity) -> "ReadObject":
        """The same object elsewhere."""
        move = object_from_world.after(self.static.object_from_world.inverse())
        static = dataclasses.replace(
            self.static,
            vertices=move(self.static.vertices.astype(np.float64)).astype(np.float32),
            primitives=tuple(
                dataclasses.replace(part, object_from_primitive=move.matrix @ part.object_from_primitive)
                for part in self.static.primitives
            ),
            object_from_world=object_from_world,
        )
        return dataclasses.replace(self, static=static)

    def hides_its_back(self) -> NDArray[np.bool_]:
        """Faces through whose back a camera sees what is behind, shape (F,)."""
        single = [np.full(len(part.triangles), part.material.is_single_sided) for part in self.drawn]
        return hides_its_back(self.static.vertices, self.static.faces, np.concatenate(single))

    def rgba_at(self, face: np.ndarray, weights: np.ndarray) -> NDArray[np.float64]:
        """Base colour of points on faces: sRGB and how much the surface hides, 0..1.

        Args:
            face: Shape (n,).
            weights: Of the face's corners, shape (n, 3).

        Returns:
            Shape (n, 4).
        """
        found = np.zeros((len(face), 4))
        owner = np.searchsorted(self.face_starts, face, side="right") - 1
        for number in np.unique(owner):
            here, part = owner == number, self.drawn[number]
            rgba = part.rgba_at(face[here] - self.face_starts[number], weights[here])
            alpha = {"MASK": (rgba[:, 3] >= part.material.cutoff).astype(float), "BLEND": np.clip(rgba[:, 3], 0, 1)}
            found[here, :3] = to_srgb(rgba[:, :3])
            found[here, 3] = alpha.get(part.material.alpha_mode, 1.0)
        return found


def read_object(
    path: Path, *, object_from_world: Similarity | None = None, max_vertices: int = MAX_VERTICES
) -> StaticObject:
    """The surfaces of a GLB, each vertex once, in the clip's space.

    Args:
        path: A GLB without skins and active morph targets, as `mv4d object` writes it.
        object_from_world: From the file's world, z up; None puts it into the unit sphere.
        max_vertices: Most vertices over all nodes; and twice as many triangles.

    Raises:
        ObjectError: It cannot be read, is empty, too large, or has vertices that are no numbers.
    """
    return read_with_looks(path, object_from_world=object_from_world, max_vertices=max_vertices).static


def read_with_looks(
    path: Path, *, object_from_world: Similarity | None = None, max_vertices: int = MAX_VERTICES
) -> ReadObject:
    """As `read_object`, with what the colours at any point of the surface come from."""
    drawn = drawn_primitives(_opened(path), max_vertices)
    worlds = [_moved(part.positions, ZUP_FROM_YUP @ part.world) for part in drawn]
    every = np.concatenate(worlds)
    if not np.isfinite(every).all() or not np.ptp(every, axis=0).max() > 0:
        raise ObjectError(path, "empty_mesh", "all vertices stand at one place; there is nothing to move")
    placed = object_from_world or Similarity.into_unit_sphere(every)
    # In the file's own world: vertices have the same numbers wherever the object is put.
    welded = weld(every, SAME_PLACE * float(np.linalg.norm(np.ptp(every, axis=0))) / 2)
    linear = np.concatenate([part.rgba_of_vertices()[:, :3] for part in drawn])
    starts = np.cumsum([0, *(len(part.positions) for part in drawn)])
    faces = [
        welded.of_vertex[part.triangles + start].astype(np.int32)
        for part, start in zip(drawn, starts[:-1], strict=True)
    ]
    static = StaticObject(
        source=path,
        vertices=placed(welded.positions).astype(np.float32),
        faces=np.concatenate(faces),
        colors=to_srgb(_mean_by(linear, welded.of_vertex, len(welded.positions))).astype(np.float32),
        primitives=tuple(
            Primitive(
                node=part.node,
                mesh=part.mesh,
                primitive=part.primitive,
                vertices=welded.of_vertex[start : start + len(part.positions)],
                object_from_primitive=placed.matrix @ ZUP_FROM_YUP @ part.world,
            )
            for part, start in zip(drawn, starts[:-1], strict=True)
        ),
        object_from_world=placed,
    )
    face_starts = np.cumsum([0, *(len(part.triangles) for part in drawn)])
    return ReadObject(static=static, drawn=tuple(drawn), face_starts=face_starts)


def _opened(path: Path) -> Gltf:
    if not path.is_file():
        raise ObjectError(path, "not_found", "there is no such file")
    try:
        return read_glb(path)
    except ExportError as error:
        raise ObjectError.of_gltf(path, error) from error


def _moved(points: np.ndarray, pose: np.ndarray) -> NDArray[np.float64]:
    moved: NDArray[np.float64] = points @ pose[:3, :3].T + pose[:3, 3]
    return moved


def _mean_by(values: np.ndarray, group: np.ndarray, num_groups: int) -> NDArray[np.float64]:
    """Mean of each group's rows. Shape (num_groups, columns)."""
    counts = np.maximum(np.bincount(group, minlength=num_groups), 1)
    sums = [np.bincount(group, weights=column, minlength=num_groups) for column in values.T]
    return np.stack(sums, axis=1) / counts[:, None]
