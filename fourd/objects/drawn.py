"""What a GLB draws: every triangle primitive of every node in its scene, with poses, coordinates and colours."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fourd.export.errors import ExportError
from fourd.gltf import Gltf, natural
from fourd.objects.appearance import PLAIN, Material, Texture, materials_of
from fourd.objects.errors import ObjectError

MAX_NODES = 100_000
MAX_DEPTH = 500
FARTHEST = 1e18
"""Coordinates beyond are not taken for numbers: their squares leave single precision."""
FAULTS = (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError)
"""What reading a document that breaks the rules may raise."""
_UNPOSED = "has {}; run `mv4d object` on it, which poses it"
_DRACO = "KHR_draco_mesh_compression"


@dataclass(frozen=True, kw_only=True)
class DrawnPrimitive:
    """A primitive, drawn by one node."""

    node: int
    mesh: int
    primitive: int
    world: NDArray[np.float64]
    """(4, 4), from POSITION to the file's world, y up."""
    positions: NDArray[np.float64]
    """(n, 3), as in the file."""
    triangles: NDArray[np.int64]
    """(m, 3), counter-clockwise from outside as the node draws them."""
    material: Material
    uv: NDArray[np.float64] | None
    """(n, 2), for the base colour's texture."""
    colors: NDArray[np.float64] | None
    """(n, 4), linear: COLOR_0."""

    def rgba_at(self, triangle: np.ndarray, weights: np.ndarray) -> NDArray[np.float64]:
        """Linear base colour of points on triangles.

        Args:
            triangle: Shape (k,).
            weights: Of their corners, shape (k, 3).

        Returns:
            Shape (k, 4), straight alpha.
        """
        corners = self.triangles[triangle]
        rgba = np.tile(self.material.factor, (len(triangle), 1))
        if self.colors is not None:
            rgba = rgba * np.einsum("kc,kci->ki", weights, self.colors[corners])
        if self.uv is not None and self.material.texture is not None:
            rgba = rgba * self.material.texture.at(np.einsum("kc,kci->ki", weights, self.uv[corners]))
        return rgba

    def rgba_of_vertices(self) -> NDArray[np.float64]:
        """Linear base colour of the vertices. Shape (n, 4)."""
        rgba = np.tile(self.material.factor, (len(self.positions), 1))
        if self.colors is not None:
            rgba = rgba * self.colors
        if self.uv is not None and self.material.texture is not None:
            rgba = rgba * self.material.texture.at(self.uv)
        return rgba


def drawn_primitives(gltf: Gltf, max_vertices: int) -> list[DrawnPrimitive]:
    """All of a file's scene, in the order of nodes, primitives of a mesh in its own.

    Args:
        gltf: The file.
        max_vertices: Over all nodes; the file's counts are looked at before anything is read.

    Raises:
        ObjectError: It is not posed yet, compressed, too large, broken, or draws nothing.
    """
    try:
        _refuse_compressed(gltf)
        poses = dict(sorted(node_poses(gltf).items()))
        _refuse_too_many(gltf, poses, max_vertices)
        materials = materials_of(gltf)
        drawn = [part for node, world in poses.items() for part in _of_node(gltf, node, world, materials)]
    except FAULTS as error:
        raise _broken(gltf, error) from error
    if not sum(len(part.triangles) for part in drawn):
        raise ObjectError(gltf.path, "empty_mesh", "draws no triangle; there is nothing to move")
    return drawn


def _refuse_compressed(gltf: Gltf) -> None:
    required = set(gltf.document.get("extensionsRequired", []))
    unknown = required - {"KHR_mesh_quantization", "KHR_texture_transform", "EXT_texture_webp", "KHR_materials_unlit"}
    unknown -= {name for name in required if name.startswith("KHR_materials_")}
    if unknown:
        what = ", ".join(sorted(map(str, unknown)))
        raise ObjectError(gltf.path, "unsupported", f"needs {what}; run `mv4d object` on it")


def check_shows(gltf: Gltf) -> None:
    """Refuse a GLB of which a viewer would show nothing; skins, morph targets and meshopt are fine.

    Raises:
        ObjectError: It breaks the rules, draws no triangle, needs Draco, or has vertices that are no numbers.
    """
    num_corners = 0
    try:
        for node in node_poses(gltf):
            if (mesh := gltf.document["nodes"][node].get("mesh")) is None:
                continue
            for part in gltf.document["meshes"][natural(mesh)]["primitives"]:
                if part.get("mode", 4) >= 4:
                    num_corners += _check_shown(gltf, node, part)
    except FAULTS as error:
        raise _broken(gltf, error) from error
    if num_corners < 3:
        raise ObjectError(gltf.path, "empty_mesh", "draws no triangle; there is nothing to show")


def _check_shown(gltf: Gltf, node: int, part: dict[str, Any]) -> int:
    """How many corners of triangles a primitive has."""
    accessors, position = gltf.document["accessors"], natural(part["attributes"]["POSITION"])
    if _DRACO in part.get("extensions", {}):
        raise ObjectError(gltf.path, "unsupported", "compressed by Draco; run `mv4d object` on it")
    view = gltf.document["bufferViews"][natural(accessors[position].get("bufferView", 0))]
    if not view.get("extensions"):
        bad = int((~np.isfinite(gltf.array(position)).all(axis=1)).sum())
        if bad:
            raise ObjectError(gltf.path, "non_finite", f"{bad} vertices of node {node} are no numbers; repair it")
    return int(accessors[natural(part["indices"]) if "indices" in part else position]["count"])


def _broken(gltf: Gltf, error: Exception) -> ObjectError:
    if isinstance(error, ObjectError):
        return error
    if isinstance(error, ExportError):
        return ObjectError.of_gltf(gltf.path, error)
    detail = f"breaks the rules of glTF ({type(error).__name__}: {error}); export it anew, or run `mv4d object`"
    return ObjectError(gltf.path, "malformed", detail)


def node_poses(gltf: Gltf) -> dict[int, NDArray[np.float64]]:
    """World pose of every node of the scene."""
    nodes = gltf.document.get("nodes", [])
    if len(nodes) > MAX_NODES:
        raise ObjectError(gltf.path, "too_large", f"{len(nodes)} nodes, the limit is {MAX_NODES}")
    scenes = gltf.document.get("scenes", [])
    if scenes:
        roots = scenes[natural(gltf.document.get("scene", 0))].get("nodes", [])
    else:
        children = {child for entry in nodes for child in entry.get("children", [])}
        roots = [number for number in range(len(nodes)) if number not in children]
    poses: dict[int, NDArray[np.float64]] = {}
    waiting = [(number, np.eye(4), 0) for number in roots]
    while waiting:
        number, above, depth = waiting.pop()
        if natural(number) >= len(nodes) or number in poses or depth > MAX_DEPTH:
            raise ValueError(f"node {number} has two parents, is its own ancestor, or is not there")
        poses[number] = above @ _local(nodes[number])
        waiting += [(child, poses[number], depth + 1) for child in nodes[number].get("children", [])]
    return poses


def _local(entry: dict[str, Any]) -> NDArray[np.float64]:
    if "matrix" in entry:
        pose = np.array(entry["matrix"], dtype=np.float64).reshape(4, 4).T
    else:
        x, y, z, w = np.array(entry.get("rotation", [0, 0, 0, 1]), dtype=np.float64)
        length = np.sqrt(x * x + y * y + z * z + w * w)
        if not length > 0:
            raise ValueError("a node's rotation is none")
        x, y, z, w = x / length, y / length, z / length, w / length
        turn = np.array(
            [
                [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
                [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
                [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
            ]
        )
        pose = np.eye(4)
        size = np.array(entry.get("scale", [1, 1, 1]), dtype=np.float64)
        pose[:3, 3] = entry.get("translation", [0, 0, 0])
        pose[:3, :3] = turn * np.where(np.isfinite(size), size, FARTHEST)
    if not (np.abs(pose) < FARTHEST).all():
        raise ValueError("a node's pose is not finite")
    return pose


def _refuse_too_many(gltf: Gltf, poses: dict[int, NDArray[np.float64]], max_vertices: int) -> None:
    document, num_vertices, num_corners = gltf.document, 0, 0
    for node in poses:
        entry = document["nodes"][node]
        if "mesh" not in entry:
            continue
        if "skin" in entry:
            raise ObjectError(gltf.path, "unsupported", _UNPOSED.format("a skin"))
        mesh = document["meshes"][natural(entry["mesh"])]
        weights = entry.get("weights", mesh.get("weights", []))
        if any(weights) and any(part.get("targets") for part in mesh["primitives"]):
            raise ObjectError(gltf.path, "unsupported", _UNPOSED.format("morph targets"))
        for part in mesh["primitives"]:
            if _DRACO in part.get("extensions", {}):
                raise ObjectError(gltf.path, "unsupported", "compressed; run `mv4d object` on it")
            if part.get("mode", 4) < 4:
                continue
            num_vertices += document["accessors"][natural(part["attributes"]["POSITION"])]["count"]
            if "indices" in part:
                num_corners += document["accessors"][natural(part["indices"])]["count"]
    if num_vertices > max_vertices or num_corners > 6 * max_vertices:
        detail = (
            f"{num_vertices:,} vertices and {num_corners // 3:,} triangles, the limit is {max_vertices:,} and twice as "
            "many; decimate the mesh (in Blender: the modifier Decimate)"
        )
        raise ObjectError(gltf.path, "too_many_vertices", detail)


def check_size(gltf: Gltf, max_vertices: int) -> None:
    """Refuse a GLB whose meshes have more points than that at different places, whatever poses, skins and nodes make
    of them. A file that breaks the rules is let through: whoever reads it all has words for that.

    Raises:
        ObjectError: `too_many_vertices`.
    """
    meshes, places = gltf.document.get("meshes", []), 0
    try:
        numbers = {part["attributes"]["POSITION"] for mesh in meshes for part in mesh["primitives"]}
        counts = {number: gltf.document["accessors"][natural(number)]["count"] for number in numbers}
        # Vertices are split at seams, at hard edges once a face: only if there are many are places counted.
        if sum(counts.values()) > max_vertices:
            places = sum(_num_places(gltf.array(number)) for number in numbers)
    except FAULTS:
        return
    if places > max_vertices:
        detail = (
            f"{places:,} vertices, the limit is {max_vertices:,}; decimate the mesh (in Blender: the modifier Decimate)"
        )
        raise ObjectError(gltf.path, "too_many_vertices", detail)


def _num_places(positions: np.ndarray) -> int:
    """How many of the rows differ, by a hash: comparing rows takes ten times as long."""
    bits = (positions.astype(np.float32) + np.float32(0)).view(np.uint32).astype(np.uint64)
    odd = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9], dtype=np.uint64)
    return len(np.unique((bits * odd[: bits.shape[1]]).sum(axis=1, dtype=np.uint64)))


def _of_node(gltf: Gltf, node: int, world: NDArray[np.float64], materials: list[Material]) -> Iterator[DrawnPrimitive]:
    mesh = gltf.document["nodes"][node].get("mesh")
    if mesh is None:
        return
    for number, part in enumerate(gltf.document["meshes"][mesh]["primitives"]):
        mode = part.get("mode", 4)
        if mode < 4:  # points and lines
            continue
        attributes = part["attributes"]
        positions = gltf.array(attributes["POSITION"]).astype(np.float64)
        if positions.shape[1] != 3:
            raise ValueError("positions are no points")
        if not (np.abs(positions) < FARTHEST).all():
            bad = int((~(np.abs(positions) < FARTHEST).all(axis=1)).sum())
            raise ObjectError(gltf.path, "non_finite", f"{bad} vertices of node {node} are no numbers; repair it")
        corners = gltf.array(part["indices"])[:, 0] if "indices" in part else np.arange(len(positions))
        if corners.dtype.kind not in "iu" or (
            len(corners) and not 0 <= corners.min() <= corners.max() < len(positions)
        ):
            raise ValueError(f"a triangle of node {node} names a vertex that is not there")
        triangles = triangles_of(corners.astype(np.int64), mode)
        if np.linalg.det(world[:3, :3]) < 0:
            triangles = triangles[:, [0, 2, 1]]
        chosen = part.get("material")
        material = PLAIN if chosen is None else materials[natural(chosen)]
        yield DrawnPrimitive(
            node=node,
            mesh=mesh,
            primitive=number,
            world=world,
            positions=positions,
            triangles=triangles,
            material=material,
            uv=_uv(gltf, attributes, material.texture, len(positions)),
            colors=_with_alpha(_attribute(gltf, attributes, "COLOR_0", len(positions))),
        )


def _attribute(gltf: Gltf, attributes: dict[str, int], name: str, count: int) -> NDArray[np.float64] | None:
    if name not in attributes:
        return None
    values = gltf.array(attributes[name]).astype(np.float64)
    if len(values) != count or values.shape[1] < 2 or not np.isfinite(values).all():
        raise ValueError(f"{name} has values of shape {values.shape} for {count} vertices, or some are no numbers")
    return values


def _uv(gltf: Gltf, attributes: dict[str, int], texture: Texture | None, count: int) -> NDArray[np.float64] | None:
    values = _attribute(gltf, attributes, f"TEXCOORD_{texture.coordinates}", count) if texture else None
    if values is None:
        return None
    placed: NDArray[np.float64] = values[:, :2]
    return placed


def _with_alpha(colors: NDArray[np.float64] | None) -> NDArray[np.float64] | None:
    if colors is None or colors.shape[1] == 4:
        return colors
    if colors.shape[1] != 3:
        raise ValueError("vertex colours have neither 3 nor 4 parts")
    return np.concatenate([colors[:, :3], np.ones((len(colors), 1))], axis=1)


def triangles_of(corners: NDArray[np.int64], mode: int) -> NDArray[np.int64]:
    """Corners of a list (4), a strip (5) or a fan (6) by threes; of points and lines (0 to 3) none. Shape (m, 3)."""
    if mode in range(4):
        return np.zeros((0, 3), np.int64)
    if mode == 4:
        whole: NDArray[np.int64] = corners[: len(corners) // 3 * 3].reshape(-1, 3)
        return whole
    count = max(len(corners) - 2, 0)
    if mode == 5:
        strip = np.stack([corners[:count], corners[1 : count + 1], corners[2 : count + 2]], axis=1)
        strip[1::2] = strip[1::2][:, [1, 0, 2]]
        return strip
    if mode == 6:
        return np.stack([corners[1 : count + 1], corners[2 : count + 2], np.repeat(corners[:1], count)], axis=1)
    raise ValueError(f"no such mode of primitives: {mode}")
