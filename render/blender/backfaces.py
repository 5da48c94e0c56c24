"""Faces that are not to be seen from behind. Cycles knows no such thing, so the material is told.

Besides curtains and capes there is one common use: a toon outline is a shell around the character, turned inside out.
From a camera one sees through its near side and the rest of it stands out as a rim. Light has to see through all of
it, or it is night inside.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np

from render.blender.motion import Floats

INSIDE_OUT = 0.4
"""Share of a surface's volume, counted from the middle of each object, by which the faces of a shell look inwards."""
ENCLOSED = 0.5
"""Share of the other faces' area that a shell has in its box."""


def hide_backfaces(materials: Iterable[Any], shells: set[Any]) -> None:
    """Make faces of single-sided materials transparent from behind, and shells transparent to all but the camera."""
    for material in materials:
        if not material.use_backface_culling or not material.use_nodes or material.library:
            continue
        tree = material.node_tree
        output = tree.get_output_node("CYCLES")
        if not output or not output.inputs["Surface"].links:
            continue
        mix = tree.nodes.new("ShaderNodeMixShader")
        hidden = tree.nodes.new("ShaderNodeNewGeometry").outputs["Backfacing"]
        if material in shells:
            light = tree.nodes.new("ShaderNodeMath")
            light.operation, light.inputs[0].default_value = "SUBTRACT", 1.0
            tree.links.new(tree.nodes.new("ShaderNodeLightPath").outputs["Is Camera Ray"], light.inputs[1])
            either = tree.nodes.new("ShaderNodeMath")
            either.operation = "MAXIMUM"
            tree.links.new(hidden, either.inputs[0])
            tree.links.new(light.outputs["Value"], either.inputs[1])
            hidden = either.outputs["Value"]
        tree.links.new(hidden, mix.inputs[0])
        tree.links.new(output.inputs["Surface"].links[0].from_socket, mix.inputs[1])
        tree.links.new(tree.nodes.new("ShaderNodeBsdfTransparent").outputs["BSDF"], mix.inputs[2])
        tree.links.new(mix.outputs["Shader"], output.inputs["Surface"])


def find_shells(parts: Iterable[tuple[Any, Any, Floats]]) -> set[Any]:
    """Single-sided materials whose faces are a shell around the asset, turned inside out.

    Args:
        parts: Drawn object, its evaluated mesh, and its matrix to the world.
    """
    faces: dict[Any, list[Floats]] = {}
    volumes: dict[Any, Floats] = {}
    for thing, mesh, matrix in parts:
        centres, normals, slots = _faces_of(mesh, matrix)
        for slot in np.unique(slots):
            material = thing.material_slots[slot].material if slot < len(thing.material_slots) else None
            centre, normal = centres[slots == slot], normals[slots == slot]
            outwards = np.einsum("fi,fi->f", centre - centre.mean(axis=0), normal)
            key = material and material.original
            faces.setdefault(key, []).append(np.hstack([centre, np.linalg.norm(normal, axis=1)[:, None]]))
            volumes[key] = volumes.get(key, 0.0) + np.array([outwards.sum(), np.abs(outwards).sum()])
    together = {material: np.concatenate(pieces) for material, pieces in faces.items()}
    return {
        material
        for material, (outwards, either_way) in volumes.items()
        if material is not None
        and material.use_backface_culling
        and outwards < -INSIDE_OUT * either_way
        and _encloses(together[material], [other for name, other in together.items() if name != material])
    }


def _encloses(shell: Floats, others: list[Floats]) -> bool:
    """Most of the area of the other faces lies in the shell's box. A face is its centre and its area."""
    if not others:
        return False
    rest = np.concatenate(others)
    low, high = shell[:, :3].min(axis=0), shell[:, :3].max(axis=0)
    inside = ((rest[:, :3] >= low) & (rest[:, :3] <= high)).all(axis=1)
    return bool(rest[inside, 3].sum() > ENCLOSED * rest[:, 3].sum())


def _faces_of(mesh: Any, matrix: Floats) -> tuple[Floats, Floats, np.ndarray]:
    """Centres and area-weighted normals in the world, and material indices, of a mesh's faces."""
    num_faces = len(mesh.polygons)
    centres, normals = (np.empty(3 * num_faces, dtype=np.float32) for _ in range(2))
    areas, slots = np.empty(num_faces, dtype=np.float32), np.empty(num_faces, dtype=np.int32)
    mesh.polygons.foreach_get("center", centres)
    mesh.polygons.foreach_get("normal", normals)
    mesh.polygons.foreach_get("area", areas)
    mesh.polygons.foreach_get("material_index", slots)
    weighted = normals.reshape(-1, 3).astype(np.float64) * areas[:, None]
    linear = matrix[:3, :3]
    cofactors = np.linalg.det(linear) * np.linalg.pinv(linear).T
    return centres.reshape(-1, 3) @ linear.T + matrix[:3, 3], weighted @ cofactors.T, slots
