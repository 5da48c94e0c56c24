"""Light on the stage: suns and surroundings of the request, or what the asset brought along."""

import math
from dataclasses import dataclass
from typing import Any

import bpy
import numpy as np

from render.blender import pictures
from render.protocol import BadAsset, Examined, Light

PICTURE_COLOURS = "Linear Rec.709"
"""What the numbers in .hdr and .exr files mean."""


@dataclass(frozen=True, kw_only=True)
class OwnLights:
    """Lamps and world that the asset's file would be rendered with. They take no part unless they are asked for."""

    lamps: tuple[Any, ...]
    world: Any | None

    @property
    def shine(self) -> bool:
        """There is a lamp, or a world that is more than one colour: every .blend file has that."""
        return bool(self.lamps) or (self.world is not None and bool(_pictures(self.world)) and self.world_is_whole)

    @property
    def world_is_whole(self) -> bool:
        """No picture of the world is missing; Cycles would light the object magenta."""
        return self.world is not None and all(min(image.size) > 0 for image in _pictures(self.world))


def _pictures(world: Any) -> list[Any]:
    nodes = world.node_tree.nodes if world.use_nodes and world.node_tree else ()
    return [node.image for node in nodes if node.type in {"TEX_ENVIRONMENT", "TEX_IMAGE"} and node.image]


class Lighting:
    """What shines on a stage, for the length of one draw."""

    def __init__(self, stage: Any, light: Light, own: OwnLights) -> None:
        self._stage = stage
        self._light = light
        self._own = own
        self.is_own = light.own and own.shine
        self._made: list[Any] = []

    def __enter__(self) -> "Lighting":
        if self.is_own:
            for lamp in self._own.lamps:
                lamp.hide_render = lamp.hide_viewport = False
        else:
            for sun in self._light.suns:
                data = bpy.data.lights.new(sun.name, "SUN")
                data.energy, data.angle, data.use_shadow = sun.strength, math.radians(sun.angle_deg), sun.shadow
                thing = bpy.data.objects.new(sun.name, data)
                x, y, z = (math.radians(angle) for angle in sun.rotation_deg)
                thing.rotation_euler = (x, y, z)
                self._stage.collection.objects.link(thing)
                self._made.append(thing)
        if self.is_own and self._own.world_is_whole:
            self._stage.world = self._own.world
        else:
            self._stage.world = self._surroundings()
        return self

    def __exit__(self, *_: object) -> None:
        for lamp in self._own.lamps:
            lamp.hide_render = lamp.hide_viewport = True
        for thing in self._made:
            bpy.data.lights.remove(thing.data)  # and its object with it
        world, self._stage.world = self._stage.world, None
        if world != self._own.world:
            pictures = _pictures(world)
            bpy.data.worlds.remove(world)
            for picture in pictures:
                bpy.data.images.remove(picture)
        self._made = []

    def _surroundings(self) -> Any:
        world = bpy.data.worlds.new("surroundings")
        world.use_nodes = True
        tree = world.node_tree
        background = tree.nodes["Background"]
        background.inputs["Color"].default_value = (1.0, 1.0, 1.0, 1.0)
        background.inputs["Strength"].default_value = self._light.ambient_strength
        if self._light.picture:
            picture = tree.nodes.new("ShaderNodeTexEnvironment")
            picture.image = bpy.data.images.load(self._light.picture)
            picture.image.colorspace_settings.name = PICTURE_COLOURS
            turn = tree.nodes.new("ShaderNodeMapping")
            # Blender has the picture's middle at +x, which is azimuth 90 here.
            turn.inputs["Rotation"].default_value = (0.0, 0.0, math.radians(90.0 - self._light.turn_deg))
            directions = tree.nodes.new("ShaderNodeTexCoord")
            tree.links.new(directions.outputs["Generated"], turn.inputs["Vector"])
            tree.links.new(turn.outputs["Vector"], picture.inputs["Vector"])
            tree.links.new(picture.outputs["Color"], background.inputs["Color"])
        return world


def examine(path: str, max_width_px: int) -> Examined:
    """Decode a picture of surroundings whole.

    Raises:
        BadAsset: Blender cannot read it, or it is too large.
    """
    with open(path, "rb") as file:
        size = pictures.size_of(file.read(pictures.HEAD_BYTES))
    if size is None:
        raise BadAsset("malformed", "it does not begin like one")
    if max(size) > max_width_px:
        raise BadAsset("image_bomb", f"{size[0]} x {size[1]} pixels, the limit is {max_width_px} a side")
    image = bpy.data.images.load(path)
    try:
        image.colorspace_settings.name = PICTURE_COLOURS
        values = np.empty(len(image.pixels), dtype=np.float32)
        if len(values) == 0 or min(image.size) == 0:
            raise BadAsset("malformed", "it cannot be decoded")
        image.pixels.foreach_get(values)
        colours = values.reshape(-1, image.channels)[:, :3]
        finite = bool(np.isfinite(colours).all() and (colours >= 0.0).all())
        mean = float(colours.mean(dtype=np.float64)) if finite else 0.0
        return Examined(width=image.size[0], height=image.size[1], mean=mean)
    finally:
        bpy.data.images.remove(image)
