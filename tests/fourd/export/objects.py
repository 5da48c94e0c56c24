"""Objects with a GLB behind them, and motions: what the exporters' tests work on."""

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fourd.export.glb import triangles
from fourd.gltf import Gltf, read_glb
from fourd.objects.placement import Similarity
from fourd.objects.static import Primitive, StaticObject

ZUP_FROM_YUP = np.array([[1.0, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]])


def checkers(colour: tuple[int, int, int]) -> bytes:
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[::2, ::2] = pixels[1::2, 1::2] = colour
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def box(size: tuple[float, float, float]) -> tuple[np.ndarray, ...]:
    """Positions, flat normals, UVs and faces of a box with hard edges: 24 vertices at 8 corners."""
    positions, normals, uvs, faces = [], [], [], []
    for axis in range(3):
        for sign in (-1.0, 1.0):
            along = np.roll(np.eye(3), -axis, axis=0)
            normal, first, second = sign * along[0], along[1], sign * along[2]
            start = len(positions)
            for u, v in ((0, 0), (1, 0), (1, 1), (0, 1)):
                corner = normal + (2 * u - 1) * first + (2 * v - 1) * second
                positions.append(corner * np.asarray(size) / 2)
                normals.append(normal)
                uvs.append((u, v))
            faces += [(start, start + 1, start + 2), (start, start + 2, start + 3)]
    return np.array(positions), np.array(normals), np.array(uvs), np.array(faces)


def ball(rings: int = 8, around: int = 12) -> tuple[np.ndarray, ...]:
    """A smooth sphere of radius 0.5 with a texture seam: vertices at the seam stand twice."""
    theta, phi = np.meshgrid(np.linspace(0, np.pi, rings + 1), np.linspace(0, 2 * np.pi, around + 1), indexing="ij")
    phi[:, -1] = 0.0  # the seam closes exactly
    normals = np.stack([np.sin(theta) * np.cos(phi), np.cos(theta), -np.sin(theta) * np.sin(phi)], axis=-1)
    normals[0], normals[-1] = (0, 1, 0), (0, -1, 0)
    uvs = np.stack(np.meshgrid(np.linspace(0, 1, rings + 1), np.linspace(0, 1, around + 1), indexing="ij"), axis=-1)
    faces = []
    for i in range(rings):
        for j in range(around):
            a, b = i * (around + 1) + j, (i + 1) * (around + 1) + j
            faces += [(a, b, b + 1)] * (i < rings - 1) + [(a, b + 1, a + 1)] * (i > 0)
    return 0.5 * normals.reshape(-1, 3), normals.reshape(-1, 3), uvs.reshape(-1, 2), np.array(faces)


def write_toy(path: Path) -> Path:
    """A GLB with a hierarchy: a textured box body of two materials, a ball head, and two arms that share one mesh."""
    gltf = Gltf(path=path, document={"asset": {"version": "2.0"}, "buffers": []}, binary=bytearray())
    document = gltf.document
    for name, colour in (("red cloth", (220, 60, 40)), ("blue steel", (40, 90, 220))):
        image = gltf.append("images", {"bufferView": gltf.add_view(checkers(colour)), "mimeType": "image/png"})
        texture = gltf.append("textures", {"source": image})
        pbr = {"baseColorTexture": {"index": texture}, "metallicFactor": 0.0, "roughnessFactor": 0.8}
        gltf.append("materials", {"name": name, "pbrMetallicRoughness": pbr})

    def primitive(parts: tuple[np.ndarray, ...], material: int) -> dict[str, Any]:
        positions, normals, uvs, faces = parts
        position, normal = (
            gltf.add_attributes([block.astype(np.float32)], bounds=bounds)[0]
            for block, bounds in ((positions, True), (normals, False))
        )
        uv = gltf.add_accessor(uvs.astype(np.float32))
        indices = gltf.add_accessor(faces.astype(np.uint16).reshape(-1))
        attributes = {"POSITION": position, "NORMAL": normal, "TEXCOORD_0": uv}
        return {"attributes": attributes, "indices": indices, "material": material}

    positions, normals, uvs, faces = box((1.0, 1.5, 0.6))
    lower, upper = (
        primitive((positions, normals, uvs, faces[:6]), 0),
        primitive((positions, normals, uvs, faces[6:]), 1),
    )
    gltf.append("meshes", {"name": "torso", "primitives": [lower, upper]})
    gltf.append("meshes", {"name": "skull", "primitives": [primitive(ball(), 0)]})
    gltf.append("meshes", {"name": "arm", "primitives": [primitive(box((0.25, 1.0, 0.25)), 1)]})
    half = float(np.sqrt(0.5))
    document["nodes"] = [
        {"name": "toy", "children": [1, 2, 3, 4], "translation": [0.3, 2.0, -0.4], "scale": [2.0, 2.0, 2.0]},
        {"name": "body", "mesh": 0},
        {"name": "head", "mesh": 1, "translation": [0.0, 1.3, 0.0], "rotation": [0.0, half, 0.0, half]},
        {"name": "left arm", "mesh": 2, "translation": [0.75, 0.1, 0.0]},
        {"name": "right arm", "mesh": 2, "translation": [-0.75, 0.1, 0.0], "scale": [-1.0, 1.2, 1.0]},
    ]
    document |= {"scene": 0, "scenes": [{"name": "stage", "nodes": [0]}]}
    gltf.write(path)
    return path


def static_of(path: Path) -> StaticObject:
    """The static object of a GLB without skins, by the plainest way there is."""
    gltf = read_glb(path)
    document, parts = gltf.document, []

    def visit(index: int, world: np.ndarray) -> None:
        node = document["nodes"][index]
        world = world @ local_matrix(node)
        for k, entry in enumerate(document["meshes"][node["mesh"]]["primitives"] if "mesh" in node else ()):
            points = gltf.array(entry["attributes"]["POSITION"]).astype(np.float64)
            parts.append((index, node["mesh"], k, points, world, triangles(gltf, entry, len(points))))
        for child in node.get("children", ()):
            visit(child, world)

    for root in document["scenes"][document.get("scene", 0)]["nodes"]:
        visit(root, ZUP_FROM_YUP)
    placed = np.concatenate([points @ world[:3, :3].T + world[:3, 3] for _, _, _, points, world, _ in parts])
    middle = (placed.min(axis=0) + placed.max(axis=0)) / 2
    scale = 0.95 / np.linalg.norm(placed - middle, axis=1).max()
    offset = -scale * middle
    vertices, owner = np.unique((scale * placed + offset).astype(np.float32), axis=0, return_inverse=True)
    primitives, faces, start = [], [], 0
    for node, mesh, k, points, world, corners in parts:
        own = owner.ravel()[start : start + len(points)]
        start += len(points)
        matrix = np.eye(4)
        matrix[:3, :3], matrix[:3, 3] = scale * world[:3, :3], scale * world[:3, 3] + offset
        primitives.append(Primitive(node=node, mesh=mesh, primitive=k, vertices=own, object_from_primitive=matrix))
        faces.append(own[corners])
    return StaticObject(
        source=path,
        vertices=vertices,
        faces=np.concatenate(faces).astype(np.int32),
        colors=np.full_like(vertices, 0.5),
        primitives=tuple(primitives),
        object_from_world=Similarity(scale=float(scale), turn=np.eye(3), offset=offset),
    )


def local_matrix(node: dict[str, Any]) -> np.ndarray:
    if "matrix" in node:
        return np.array(node["matrix"], dtype=np.float64).reshape(4, 4).T
    x, y, z, w = node.get("rotation", (0, 0, 0, 1))
    matrix = np.eye(4)
    matrix[:3, :3] = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    matrix[:3, :3] *= np.asarray(node.get("scale", (1, 1, 1)))
    matrix[:3, 3] = node.get("translation", (0, 0, 0))
    return matrix


def turn_z(angle: float) -> np.ndarray:
    return np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1.0]])


def bent(vertices: np.ndarray, num_frames: int = 9) -> np.ndarray:
    """(T, V, 3): the upper part turns to and fro about z and sways; frame 0 is the object."""
    frames = []
    for t in range(num_frames):
        phase = np.sin(2 * np.pi * t / num_frames)
        share = np.clip((vertices[:, 2] + 0.2) / 0.8, 0, 1)
        angle = 0.8 * phase * share
        x, y, z = vertices.T
        frames.append(
            np.stack(
                [
                    x * np.cos(angle) - y * np.sin(angle) + 0.15 * phase * share,
                    x * np.sin(angle) + y * np.cos(angle),
                    z,
                ],
                1,
            )
        )
    return np.stack(frames).astype(np.float32)
