"""The deformed surfaces as files: what ground truth is computed from."""

import itertools
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from render.blender.evaluating import Evaluator
from render.blender.importing import FARTHEST
from render.blender.motion import Floats
from render.blender.opacity import MaterialOpacity, opacity_of, picture_of, uv_of, wrap_of
from render.protocol import BadAsset, Opacity, Pose, Trace, Traced

MAX_VERTICES = 5_000_000
"""In a frame, of all instances: in pictures they share one mesh, and here each has its own."""
NAME_LENGTH = 200
"""Characters of a name that are passed on."""


@dataclass
class _Names:
    """Objects and materials met so far, by the numbers that triangles carry."""

    objects: dict[str, int] = field(default_factory=dict)
    materials: dict[str, int] = field(default_factory=dict)
    opacities: list[MaterialOpacity] = field(default_factory=list)

    def object_number(self, name: str, seen: dict[str, int]) -> int:
        """Of the next instance of an object in this pose; the n-th instance of a name has one number in all poses."""
        seen[name] = seen.get(name, 0) + 1
        return self.objects.setdefault(name if seen[name] == 1 else f"{name} #{seen[name]}", len(self.objects))

    def material_number(self, material: Any) -> int:
        """Of a material."""
        name = material.name_full
        if name not in self.materials:
            self.materials[name] = len(self.materials)
            self.opacities.append(opacity_of(material))
        return self.materials[name]


@dataclass(frozen=True, kw_only=True)
class _Instance:
    """Something that is drawn, and its way into the asset's space."""

    thing: Any
    mesh: Any
    linear: Floats
    place: Floats
    number: int


@dataclass
class _Surfaces:
    """All that is drawn at one moment, one piece an instance."""

    positions: list[Floats] = field(default_factory=list)
    normals: list[Floats] = field(default_factory=list)
    triangles: list[npt.NDArray[np.int32]] = field(default_factory=list)
    objects: list[npt.NDArray[np.int32]] = field(default_factory=list)
    materials: list[npt.NDArray[np.int32]] = field(default_factory=list)
    uvs: list[Floats] = field(default_factory=list)
    signature: list[tuple[int, int]] = field(default_factory=list)
    """Number of each instance and of its vertices."""
    num_vertices: int = 0


def trace(evaluator: Evaluator, request: Trace, on_pose: Callable[[int, int], None]) -> Traced:
    """Write the surfaces at each time. The animation is bound already.

    Args:
        evaluator: Of the loaded asset.
        request: What to write, and where.
        on_pose: Called after each pose with how many are done and how many there are.

    Raises:
        BadAsset: A coordinate is not finite.
    """
    names = _Names()
    poses: list[Pose] = []
    before: dict[str, np.ndarray] = {}
    signatures = set()
    for index, time_s in enumerate(request.times_s):
        evaluator.go_to(time_s)
        surfaces = _surfaces(evaluator, request, names)
        signatures.add(tuple(surfaces.signature))
        positions = np.concatenate(surfaces.positions) if surfaces.positions else np.zeros((0, 3))
        if not (np.abs(positions) < FARTHEST).all():
            raise BadAsset("non_finite", f"a vertex is not finite at {time_s} s")
        _write(request, f"positions_{index:03d}", positions, np.float32)
        if request.normals:
            _write(request, f"normals_{index:03d}", _joined(surfaces.normals, (3, 3)), np.float32)
        now = {
            "triangles": _joined(surfaces.triangles, (3,)).astype(np.int32),
            "objects": _joined(surfaces.objects, ()).astype(np.int32),
            "materials": _joined(surfaces.materials, ()).astype(np.int32),
            "uvs": _joined(surfaces.uvs, (3, 2)).astype(np.float32),
        }
        is_new = not before or not all(np.array_equal(now[kind], before[kind]) for kind in now)
        if is_new:
            for kind, values in now.items():
                _write(request, f"{kind}_{index:03d}", values, values.dtype)
        before = now
        poses.append(
            Pose(
                num_vertices=len(positions),
                num_triangles=len(now["triangles"]),
                surface=index if is_new else poses[-1].surface,
            )
        )
        on_pose(len(poses), len(request.times_s))
    return Traced(
        poses=poses,
        same_vertices=len(signatures) == 1,
        object_names=[_shown(name) for name in names.objects],
        material_names=[_shown(name) for name in names.materials],
        opacities=[_opacity(number, found, request) for number, found in enumerate(names.opacities)],
    )


def _surfaces(evaluator: Evaluator, request: Trace, names: _Names) -> _Surfaces:
    found = _Surfaces()
    seen: dict[str, int] = {}
    for name, thing, mesh, matrix in itertools.chain(evaluator.instances(), evaluator.emitted()):
        if not thing.visible_camera or thing.is_holdout or thing.is_shadow_catcher:
            continue
        instance = _Instance(
            thing=thing,
            mesh=mesh,
            linear=matrix[:3, :3] / evaluator.factor,
            place=matrix[:3, 3] / evaluator.factor,
            number=names.object_number(name, seen),
        )
        _add(found, instance, names, request)
        if found.num_vertices > MAX_VERTICES:
            raise BadAsset("too_complex", f"more than {MAX_VERTICES} vertices of all instances in a frame")
    return found


def _add(found: _Surfaces, instance: _Instance, names: _Names, request: Trace) -> None:
    """Add an instance; of its vertices those that belong to a face."""
    thing, mesh, number = instance.thing, instance.mesh, instance.number
    mesh.calc_loop_triangles()
    num_triangles = len(mesh.loop_triangles)
    corners, polygons = np.empty(3 * num_triangles, dtype=np.int32), np.empty(num_triangles, dtype=np.int32)
    mesh.loop_triangles.foreach_get("loops", corners)
    mesh.loop_triangles.foreach_get("polygon_index", polygons)
    corner_vertices = np.empty(len(mesh.loops), dtype=np.int32)
    mesh.loops.foreach_get("vertex_index", corner_vertices)
    used, triangles = np.unique(corner_vertices[corners], return_inverse=True)
    # A mirror turns triangles round, and their fronts stay outside.
    order = np.array([0, 2, 1] if np.linalg.det(instance.linear) < 0 else [0, 1, 2])
    corners = corners.reshape(-1, 3)[:, order]
    local = np.empty(3 * len(mesh.vertices), dtype=np.float32)
    mesh.attributes["position"].data.foreach_get("vector", local)
    points = local.reshape(-1, 3)[used].astype(np.float64) @ instance.linear.T + instance.place
    found.positions.append(request.world_scale * (points - np.array(request.world_centre)))
    found.triangles.append((triangles.reshape(-1, 3)[:, order] + found.num_vertices).astype(np.int32))
    found.objects.append(np.full(num_triangles, number, dtype=np.int32))
    materials = _materials(thing, mesh, polygons, names)
    found.materials.append(materials)
    found.uvs.append(_uvs(mesh, corners, materials, names))
    if request.normals:
        found.normals.append(_normals(mesh, instance.linear)[corners])
    found.signature.append((number, len(mesh.vertices)))
    found.num_vertices += len(used)


def _materials(thing: Any, mesh: Any, polygons: np.ndarray, names: _Names) -> npt.NDArray[np.int32]:
    """Of each triangle."""
    slots = np.empty(len(mesh.polygons), dtype=np.int32)
    mesh.polygons.foreach_get("material_index", slots)
    worn = [slot.material for slot in thing.material_slots]
    numbers = np.array([names.material_number(material) if material else -1 for material in worn] or [-1])
    return numbers[np.clip(slots[polygons], 0, len(numbers) - 1)].astype(np.int32)


def _uvs(mesh: Any, corners: np.ndarray, materials: np.ndarray, names: _Names) -> Floats:
    """Of each corner of each triangle, in the picture that decides its opacity. Shape (triangle, 3, 2)."""
    uvs = np.zeros((len(corners), 3, 2))
    for number in np.unique(materials[materials >= 0]):
        found = names.opacities[number]
        if found.node is not None:
            wears = materials == number
            uvs[wears] = uv_of(found, mesh)[corners[wears]]
    return uvs


def _normals(mesh: Any, linear: Floats) -> Floats:
    """Unit shading normals of all corners in the world. Shape (corner, 3)."""
    local = np.empty(3 * len(mesh.loops), dtype=np.float32)
    mesh.corner_normals.foreach_get("vector", local)
    normals = local.reshape(-1, 3).astype(np.float64) @ np.linalg.pinv(linear)
    lengths = np.linalg.norm(normals, axis=1, keepdims=True)
    return np.divide(normals, lengths, out=np.zeros_like(normals), where=lengths > 0)


def _opacity(number: int, found: MaterialOpacity, request: Trace) -> Opacity:
    front, back = found.front.tolist(), found.back.tolist()
    if found.node is None or min(found.node.image.size) == 0:
        return Opacity(front=front, back=back, picture="", width=0, height=0, wrap="repeat", nearest=False)
    values = picture_of(found)
    name = f"opacity_{number:03d}"
    _write(request, name, values, np.uint8)
    return Opacity(
        front=front,
        back=back,
        picture=name,
        width=values.shape[1],
        height=values.shape[0],
        wrap=wrap_of(found),
        nearest=found.node.interpolation == "Closest",
    )


def _joined(pieces: list[Any], shape: tuple[int, ...]) -> np.ndarray:
    return np.concatenate(pieces) if pieces else np.zeros((0, *shape))


def _write(request: Trace, name: str, values: np.ndarray, kind: Any) -> None:
    values.astype(np.dtype(kind).newbyteorder("<")).tofile(os.path.join(request.out_folder, name))


def _shown(name: str) -> str:
    return name[:NAME_LENGTH].encode("utf-8", "replace").decode()
