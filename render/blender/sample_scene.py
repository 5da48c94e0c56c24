"""Objects, materials, textures and skeletons of the sample assets in Blender's data."""

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import bpy
import numpy as np

from render.blender.sample_shapes import Surface


@dataclass(frozen=True)
class Material:
    """What a piece is painted with."""

    name: str
    colour: str = "#ffffff"
    """sRGB, "#rrggbb"; ignored where `image` or `vertex_colours` is given."""
    roughness: float = 0.5
    metallic: float = 0.0
    glow: float = 0.0
    """Strength of its own light in its own colour."""
    image: np.ndarray | None = None
    """Texture of shape (height, width, 3), uint8, first row at the top (v = 1)."""
    vertex_colours: bool = False
    """Take the colour from `Piece.colours`."""


DARK = Material("dark metal", "#2b3140", roughness=0.4, metallic=0.4)
SILVER = Material("silver", "#c9d2dc", roughness=0.3, metallic=0.5)
GOLD = Material("gold", "#ffbf1f", roughness=0.25, metallic=0.6)
WHITE = Material("white", "#fafafa", roughness=0.4)
BLACK = Material("black", "#101014", roughness=0.2)


@dataclass(frozen=True)
class Piece:
    """Part of an object: a surface, its paint and the bones that carry it."""

    surface: Surface
    material: Material
    bones: tuple[str, ...] = ()
    """One bone carries the piece stiffly; several share it by distance."""
    colours: np.ndarray | None = None
    """Shape (vertex, 3), sRGB in 0..1."""


@dataclass(frozen=True)
class Bone:
    """A bone of a skeleton, in object space."""

    name: str
    head: tuple[float, float, float]
    tail: tuple[float, float, float]
    parent: str = ""


def rgb(colour: str) -> np.ndarray:
    """ "#rrggbb" as sRGB in 0..1."""
    return np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255.0


def linear(srgb: np.ndarray) -> np.ndarray:
    """Linear light from sRGB, both in 0..1."""
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def gradient(values: np.ndarray, stops: Sequence[tuple[float, str]]) -> np.ndarray:
    """Colours along a scale.

    Args:
        values: Shape (n,).
        stops: (value, colour), rising.

    Returns:
        Shape (n, 3), sRGB in 0..1.
    """
    at = [stop for stop, _ in stops]
    colours = np.array([rgb(colour) for _, colour in stops])
    return np.stack([np.interp(values, at, colours[:, channel]) for channel in range(3)], axis=-1)


def clear_scene() -> None:
    """Forget every object, mesh, material, image and action, and go to 24 frames a second."""
    collections = (
        bpy.data.objects, bpy.data.meshes, bpy.data.armatures, bpy.data.materials, bpy.data.images, bpy.data.actions,
    )  # fmt: skip
    for collection in collections:
        bpy.data.batch_remove(list(collection))
    scene = bpy.context.scene
    scene.render.fps, scene.frame_start = 24, 0
    scene.frame_set(0)


def add_object(
    name: str,
    pieces: Sequence[Piece] = (),
    *,
    parent: bpy.types.Object | None = None,
    at: tuple[float, float, float] = (0.0, 0.0, 0.0),
) -> bpy.types.Object:
    """A mesh of several pieces, or an empty where there are none.

    Args:
        at: Place of its origin, about which it turns, in the parent's space. The pieces are given about this origin.
    """
    node = bpy.data.objects.new(name, _mesh(name, pieces) if pieces else None)
    bpy.context.scene.collection.objects.link(node)
    node.location = at
    node.parent = parent
    return node


def _mesh(name: str, pieces: Sequence[Piece]) -> bpy.types.Mesh:
    starts = np.cumsum([0, *(len(piece.surface.vertices) for piece in pieces)])
    materials = list({piece.material.name: piece.material for piece in pieces}.values())
    slot_of = {material.name: slot for slot, material in enumerate(materials)}
    faces = [
        tuple(int(start) + index for index in face)
        for start, piece in zip(starts, pieces, strict=False)
        for face in piece.surface.faces
    ]
    slots = [slot_of[piece.material.name] for piece in pieces for _ in piece.surface.faces]

    mesh = bpy.data.meshes.new(name)
    mesh.from_pydata(np.concatenate([piece.surface.vertices for piece in pieces]).tolist(), [], faces)
    for material in materials:
        mesh.materials.append(_material(material))
    mesh.polygons.foreach_set("material_index", slots)
    if any(material.image is not None for material in materials):
        uv = np.concatenate([piece.surface.corner_uv for piece in pieces])
        mesh.uv_layers.new(name="UVMap").data.foreach_set("uv", uv.astype(np.float32).ravel())
    if any(material.vertex_colours for material in materials):
        colours = np.ones((starts[-1], 4), dtype=np.float32)
        for start, piece in zip(starts, pieces, strict=False):
            if piece.colours is not None:
                colours[start : start + len(piece.colours), :3] = linear(piece.colours)
        mesh.color_attributes.new("Color", "FLOAT_COLOR", "POINT").data.foreach_set("color", colours.ravel())
    # Between the 30° of a twelve-sided tube, which should look round, and the 45° of a chamfer, which should not.
    mesh.set_sharp_from_angle(angle=float(np.radians(35.0)))
    mesh.update()
    return mesh


def _material(paint: Material) -> bpy.types.Material:
    """A node material; one already made under the same name is used again."""
    if paint.name in bpy.data.materials:
        return bpy.data.materials[paint.name]
    material = bpy.data.materials.new(paint.name)
    material.use_nodes = True
    nodes, links = material.node_tree.nodes, material.node_tree.links
    shader = nodes["Principled BSDF"]
    colour = (*(float(channel) for channel in linear(rgb(paint.colour))), 1.0)
    shader.inputs["Base Color"].default_value = colour
    shader.inputs["Roughness"].default_value = paint.roughness
    shader.inputs["Metallic"].default_value = paint.metallic
    material.diffuse_color = colour
    if paint.glow:
        shader.inputs["Emission Color"].default_value = colour
        shader.inputs["Emission Strength"].default_value = paint.glow
    if paint.image is not None:
        texture = nodes.new("ShaderNodeTexImage")
        texture.image = _image(paint.name, paint.image)
        links.new(texture.outputs["Color"], shader.inputs["Base Color"])
    elif paint.vertex_colours:
        attribute = nodes.new("ShaderNodeVertexColor")
        attribute.layer_name = "Color"
        links.new(attribute.outputs["Color"], shader.inputs["Base Color"])
    return material


def _image(name: str, pixels: np.ndarray) -> bpy.types.Image:
    """A packed PNG. Packing our own bytes keeps Blender from encoding them, so exporters copy them unchanged."""
    data = png_bytes(pixels)
    image = bpy.data.images.new(name, pixels.shape[1], pixels.shape[0])
    image.filepath_raw = f"//{name}.png"
    image.pack(data=data, data_len=len(data))
    image.source = "FILE"
    return image


def png_bytes(pixels: np.ndarray) -> bytes:
    """An 8-bit RGB PNG of pixels of shape (height, width, 3), with nothing in it but the picture."""
    height, width = pixels.shape[:2]
    rows = np.zeros((height, 1 + width * 3), dtype=np.uint8)  # a zero before each row: no filter
    rows[:, 1:] = pixels.reshape(height, -1)
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows.tobytes(), 9)),
        (b"IEND", b""),
    )
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + body


def add_skeleton(name: str, bones: Sequence[Bone]) -> bpy.types.Object:
    """An armature. Bones exist only in edit mode, so this one needs an operator."""
    armature = bpy.data.armatures.new(name)
    rig = bpy.data.objects.new(name, armature)
    bpy.context.scene.collection.objects.link(rig)
    bpy.context.view_layer.objects.active = rig
    bpy.ops.object.mode_set(mode="EDIT")
    for bone in bones:
        edit_bone = armature.edit_bones.new(bone.name)
        edit_bone.head, edit_bone.tail = bone.head, bone.tail
        edit_bone.parent = armature.edit_bones[bone.parent] if bone.parent else None
    bpy.ops.object.mode_set(mode="OBJECT")
    return rig


def add_skin(name: str, pieces: Sequence[Piece], bones: Sequence[Bone], rig: bpy.types.Object) -> bpy.types.Object:
    """A mesh carried by a skeleton."""
    skin = add_object(name, pieces, parent=rig)
    groups = {bone.name: skin.vertex_groups.new(name=bone.name) for bone in bones}
    segment_of = {bone.name: bone for bone in bones}
    start = 0
    for piece in pieces:
        weights = bone_weights(piece.surface.vertices, [segment_of[bone] for bone in piece.bones])
        for column, bone_name in enumerate(piece.bones):
            for offset in np.flatnonzero(weights[:, column] > 0.0):
                groups[bone_name].add([start + int(offset)], float(weights[offset, column]), "REPLACE")
        start += len(piece.surface.vertices)
    skin.modifiers.new("Armature", "ARMATURE").object = rig
    return skin


def bone_weights(vertices: np.ndarray, bones: Sequence[Bone]) -> np.ndarray:
    """Share of each bone in each vertex: the inverse fourth power of the distance, at most four bones a vertex.

    Args:
        vertices: Shape (vertex, 3).

    Returns:
        Shape (vertex, bone); rows sum up to 1.
    """
    distances = np.empty((len(vertices), len(bones)))
    for column, bone in enumerate(bones):
        head, along = np.array(bone.head), np.array(bone.tail) - np.array(bone.head)
        share = np.clip((vertices - head) @ along / (along @ along), 0.0, 1.0)
        distances[:, column] = np.linalg.norm(vertices - head - share[:, None] * along, axis=1)
    weights = 1.0 / (distances + 1e-3) ** 4
    fourth = np.sort(weights, axis=1)[:, -min(4, len(bones))][:, None]
    weights[weights < np.maximum(fourth, 0.02 * weights.max(axis=1, keepdims=True))] = 0.0
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def add_shape_key(node: bpy.types.Object, name: str, vertices: np.ndarray) -> None:
    """A morph target that puts the object's vertices at the given places, shape (vertex, 3). Values may reach -1."""
    if node.data.shape_keys is None:
        node.shape_key_add(name="Basis")
    key = node.shape_key_add(name=name, from_mix=False)
    key.data.foreach_set("co", vertices.astype(np.float32).ravel())
    key.slider_min, key.slider_max, key.value = -1.0, 1.0, 0.0


def rest_vertices(node: bpy.types.Object) -> np.ndarray:
    """Undeformed vertices, shape (vertex, 3), in the order of the pieces."""
    flat = np.empty(len(node.data.vertices) * 3, dtype=np.float32)
    node.data.vertices.foreach_get("co", flat)
    return flat.reshape(-1, 3).astype(float)
