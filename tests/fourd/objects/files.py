"""Small GLBs for the tests of static objects."""

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.render.tiny_gltf import TinyGltf

CORNERS = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], dtype=np.float32)
UV = np.array([[0, 1], [1, 1], [1, 0], [0, 0]], dtype=np.float32)
"""The picture upright, as glTF has it: v grows downwards."""


def picture(pixels: Any) -> bytes:
    """A PNG of the pixels."""
    buffer = io.BytesIO()
    Image.fromarray(np.asarray(pixels, dtype=np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def textured_square(
    pixels: Any, *, uv: np.ndarray = UV, sampler: dict[str, int] | None = None, change: dict[str, Any] | None = None,
    factor: tuple[float, ...] = (1, 1, 1, 1), colors: np.ndarray | None = None, **material: Any,
) -> TinyGltf:  # fmt: skip
    """A square of the picture in the plane of the screen."""
    tiny = TinyGltf()
    image = tiny.view(picture(pixels))
    look = tiny.texture(bufferView=image, mimeType="image/png")
    if sampler is not None:
        tiny.document["samplers"] = [sampler]
        tiny.document["textures"][0]["sampler"] = 0
    if change is not None:
        look["baseColorTexture"]["extensions"] = {"KHR_texture_transform": change}
    tiny.document["materials"].append({"pbrMetallicRoughness": look | {"baseColorFactor": list(factor)}, **material})
    attributes = {"POSITION": tiny.accessor(CORNERS, "VEC3"), "TEXCOORD_0": tiny.accessor(uv, "VEC2")}
    if colors is not None:
        attributes["COLOR_0"] = tiny.accessor(colors, "VEC4" if colors.shape[1] == 4 else "VEC3")
    indices = tiny.accessor([0, 1, 2, 0, 2, 3], "SCALAR")
    tiny.document["meshes"].append({"primitives": [{"attributes": attributes, "indices": indices, "material": 0}]})
    tiny.node(mesh=0, name="square")
    return tiny


def chair(path: Path, **pose: Any) -> Path:
    """Boxes that look alike from no two sides; in another pose of the whole, if one is given."""
    tiny = TinyGltf()
    wood = tiny.material((0.6, 0.3, 0.1), name="wood")
    red = tiny.material((0.8, 0.0, 0.0), name="red")
    rig = tiny.node(name="rig", **(pose or {"translation": [3, 2, 1]}))
    tiny.node(rig, mesh=tiny.cube(wood), name="seat", scale=[1, 0.15, 1])
    tiny.node(rig, mesh=tiny.cube(wood), name="back", translation=[0, 0.6, -0.45], scale=[0.9, 1.2, 0.1])
    tiny.node(rig, mesh=tiny.cube(red), name="arm", translation=[0.45, 0.3, 0.1], scale=[0.12, 0.4, 0.8])
    tiny.node(rig, mesh=tiny.cube(red), name="leg", translation=[-0.4, -0.5, 0.4], scale=[0.12, 0.9, 0.12])
    return tiny.save(path)
