"""What the drawn surfaces look like: stand-ins for missing textures, vertex colours, faces seen from behind."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import bpy

from render.blender import pictures
from render.protocol import BadAsset

MAX_PIXELS = 256 << 20
"""Over all pictures of an asset: 4 GB in Blender's memory at worst."""
GREY = (0.5, 0.5, 0.5, 1.0)
BLACK = (0.0, 0.0, 0.0, 1.0)
FLAT_NORMAL = (0.5, 0.5, 1.0, 1.0)
ROUGH_NO_METAL = (1.0, 0.8, 0.0, 1.0)
"""In glTF's order: occlusion, roughness, metalness."""
GHOST = 0.05
"""Opacity below which a surface does not count as visible."""
BARE = (0.6, 0.6, 0.6, 1.0)
"""Base colour of what has no material."""


@dataclass(frozen=True, kw_only=True)
class Looks:
    """What the drawn objects wear."""

    materials: list[Any]
    missing_textures: list[str]
    pictures: dict[Any, list[Any]]
    """Each image that can be read, with the nodes that show it."""
    num_pixels: int
    """Over all pictures in the file that can be read."""
    largest_side_px: int

    @property
    def num_images(self) -> int:
        """Missing ones count."""
        return len(self.pictures) + len(self.missing_textures)

    def replace_broken(self) -> None:
        """Decode the images, which Cycles would do anyway, and replace those that fail."""
        for image, nodes in list(self.pictures.items()):
            if min(image.size) == 0:
                _replace(image, nodes)
                del self.pictures[image]


def dress(things: Iterable[Any], folder: str) -> Looks:
    """Make materials drawable: fill empty slots, replace pictures that cannot be read, and count.

    Args:
        things: The objects that are drawn.
        folder: Of the asset; pictures outside of it count as missing.

    Raises:
        BadAsset: The pictures would decode to more than `MAX_PIXELS`.
    """
    worn: dict[Any, list[Any]] = {}
    for thing in things:
        _fill_slots(thing)
        for material in [slot.material for slot in thing.material_slots] + list(thing.data.materials):
            if material:
                worn.setdefault(material, []).append(thing.data)
    for material, wearers in worn.items():
        _show_vertex_colours(material, wearers)
    _undo_inverted_opacity(list(worn))
    nodes = [node for material in worn for node in _nodes(material.node_tree if material.use_nodes else None, set())]
    shown: dict[Any, list[Any]] = {}
    for node in nodes:
        if node.type == "TEX_IMAGE" and node.image:
            shown.setdefault(node.image, []).append(node)
    missing, num_pixels, largest_side_px = [], 0, 0
    for image in list(shown):
        size = _picture_size(image, folder)
        if size is None:
            missing.append(_shown_name(image))
            _replace(image, shown.pop(image))
        else:
            num_pixels += size[0] * size[1]
            largest_side_px = max(largest_side_px, *size)
    if num_pixels > MAX_PIXELS:
        raise BadAsset("image_bomb", f"the textures have {num_pixels} pixels, the limit is {MAX_PIXELS}")
    return Looks(
        materials=list(worn),
        missing_textures=sorted(missing),
        pictures=shown,
        num_pixels=num_pixels,
        largest_side_px=largest_side_px,
    )


def _fill_slots(thing: Any) -> None:
    """Give what has no material, or one without a surface, its vertex colours or plain grey."""
    if thing.library or thing.data.library:
        return
    if not thing.material_slots:
        thing.data.materials.append(_bare(thing.data))
    for slot in thing.material_slots:
        if slot.material is None or (slot.material.use_nodes and _surface(slot.material) is None):
            slot.material = _bare(thing.data)


def _surface(material: Any) -> Any | None:
    """The socket that is plugged into the material's surface."""
    output = material.node_tree.get_output_node("CYCLES") if material.node_tree else None
    links = output.inputs["Surface"].links if output else ()
    return links[0].from_socket if links else None


def _bare(data: Any) -> Any:
    coloured = _has_colours(data)
    name = "bare, vertex colours" if coloured else "bare"
    if name in bpy.data.materials:
        return bpy.data.materials[name]
    material = bpy.data.materials.new(name)
    material.use_nodes = True
    shader = material.node_tree.nodes["Principled BSDF"]
    shader.inputs["Base Color"].default_value = BARE
    shader.inputs["Roughness"].default_value = 0.8
    if coloured:
        _plug_colours(material, shader.inputs["Base Color"])
    return material


def _has_colours(data: Any) -> bool:
    return len(getattr(data, "color_attributes", ())) > 0


def _plug_colours(material: Any, socket: Any) -> None:
    node = material.node_tree.nodes.new("ShaderNodeVertexColor")  # no layer name: each mesh's own active one
    material.node_tree.links.new(node.outputs["Color"], socket)


def _show_vertex_colours(material: Any, wearers: list[Any]) -> None:
    """Most importers read vertex colours without showing them. Where the base colour is none, they are it."""
    surface = _surface(material) if material.use_nodes else None
    if surface is None or surface.node.type != "BSDF_PRINCIPLED" or not all(map(_has_colours, wearers)):
        return
    socket = surface.node.inputs["Base Color"]
    red, green, blue, _ = socket.default_value
    if not socket.links and red == green == blue and red >= 0.5:
        _plug_colours(material, socket)


def _undo_inverted_opacity(materials: list[Any]) -> None:
    """Many FBX files state their opacity upside down. Nobody makes all of an asset invisible on purpose."""
    sockets = [_opacity_socket(material) for material in materials]
    if all(socket and socket.default_value == 0.0 for socket in sockets):
        for socket in sockets:
            socket.default_value = 1.0


def is_ghost(thing: Any) -> bool:
    """An object that can hardly be seen, such as a collision box: no part in framing."""
    sockets = [_opacity_socket(slot.material) for slot in thing.material_slots]
    return bool(sockets) and all(socket and socket.default_value < GHOST for socket in sockets)


def _opacity_socket(material: Any) -> Any:
    """Where the material states one opacity for all of it; None if it has a texture for that, or animates."""
    surface = _surface(material) if material and material.use_nodes else None
    alpha = surface.node.inputs.get("Alpha") if surface else None
    return alpha if alpha and not alpha.links and not _is_animated(material) else None


def _is_animated(material: Any) -> bool:
    return any(block.animation_data for block in (material, material.node_tree))


def _nodes(tree: Any | None, seen: set[Any]) -> Iterator[Any]:
    """All nodes of a tree and of the groups in it."""
    if tree is None or tree in seen:
        return
    seen.add(tree)
    for node in tree.nodes:
        yield node
        if node.type == "GROUP":
            yield from _nodes(node.node_tree, seen)


def _picture_size(image: Any, folder: str) -> tuple[int, int] | None:
    """Width and height; None if the picture is absent, outside of the folder, or none that Blender reads."""
    if image.source == "GENERATED":
        return image.generated_width, image.generated_height
    if image.packed_file:
        return pictures.size_of(bytes(image.packed_file.data[: pictures.HEAD_BYTES]))
    if image.source in {"TILED", "SEQUENCE", "MOVIE"}:
        return (1, 1) if _inside(os.path.dirname(_path_of(image)), folder) else None
    path = _path_of(image)
    if not os.path.isfile(path):
        path = _beside(os.path.basename(path.replace("\\", "/")), folder)
        if not path:
            return None
        image.filepath = path
    if not _inside(path, folder):
        return None
    with open(path, "rb") as file:
        return pictures.size_of(file.read(pictures.HEAD_BYTES))


def _path_of(image: Any) -> str:
    return os.path.realpath(bpy.path.abspath(image.filepath, library=image.library))


def _inside(path: str, folder: str) -> bool:
    return os.path.commonpath([folder, os.path.realpath(path)]) == folder


def _beside(name: str, folder: str) -> str:
    """Files often name a picture by its place on their author's disk, and it lies beside them; empty if not."""
    places = (os.path.join(folder, sub, name) for sub in ("", "textures", "Textures"))
    return next((place for place in places if name and os.path.isfile(place)), "")


def _shown_name(image: Any) -> str:
    """A short name for people: not the path on somebody's disk."""
    name = os.path.basename(image.filepath.replace("\\", "/")) or image.name
    return name.encode("utf-8", "replace").decode()


def _replace(image: Any, nodes: list[Any]) -> None:
    """Put one colour in the picture's place; Cycles would draw magenta."""
    stand_in = bpy.data.images.new("stand-in", 4, 4)
    stand_in.generated_color = _colour_for(image, nodes)
    stand_in.colorspace_settings.name = image.colorspace_settings.name or "sRGB"  # empty if it did not decode
    image.user_remap(stand_in)


def _colour_for(image: Any, nodes: list[Any]) -> tuple[float, float, float, float]:
    reached = {socket for node in nodes for socket in _reached(node)}
    if "Normal Map" in reached:
        return FLAT_NORMAL
    if reached and all(name.startswith("Emission") for name in reached):
        return BLACK
    return ROUGH_NO_METAL if image.colorspace_settings.name == "Non-Color" else GREY


def _reached(node: Any) -> set[str]:
    """Names of the shader inputs that a texture node's colour arrives at."""
    names, queue, seen = set(), [node], {node}
    while queue:
        for link in [link for output in queue.pop().outputs for link in output.links]:
            target = link.to_node
            if target.type == "NORMAL_MAP":
                names.add("Normal Map")
            elif any(output.type == "SHADER" for output in target.outputs):
                names.add(link.to_socket.name)
            elif target not in seen:
                seen.add(target)
                queue.append(target)
    return names
