"""How much a material hides, read from its nodes: where Cycles' pictures show a hole, there is no surface.

Understood are numbers, one picture's alpha or colour, and arithmetic between them and the shader: what importers make
of cut-out and blended materials. Anything else counts as opaque.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from render.blender.motion import Floats

LEVELS = np.linspace(0.0, 1.0, 256)
"""Values of a picture for which opacities are tabulated."""
_WRAPS = {"REPEAT": "repeat", "EXTEND": "extend", "CLIP": "clip", "MIRROR": "mirror"}
MAX_DEPTH = 64
"""Nodes in a row; deeper ones are not understood."""


class _NotUnderstood(Exception):
    """A node that is beyond us."""


@dataclass
class MaterialOpacity:
    """Opacity of a material, 0..1, and what picture decides it."""

    front: Floats
    back: Floats
    """Seen from either side, by the picture's value; one number if there is no picture."""
    node: Any = None
    """The image node."""
    output: str = ""
    """`Alpha` or `Color` of it."""


@dataclass
class _Reader:
    """Follows links backwards. All that is found depends on one picture at most."""

    backfacing: float
    node: Any = None
    output: str = ""
    depth: int = field(default=0)

    def shader(self, socket: Any) -> Floats:
        """Opacity of the shader that is plugged into a socket."""
        node, _ = _source(socket)
        if node is None or node.type == "BSDF_TRANSPARENT":
            return np.zeros(1)
        self._deeper()
        if node.type == "BSDF_PRINCIPLED":
            return np.clip(self.value(node.inputs["Alpha"]), 0.0, 1.0)
        if node.type == "MIX_SHADER":
            share = np.clip(self.value(node.inputs[0]), 0.0, 1.0)
            if (share == 0.0).all() or (share == 1.0).all():  # the other may be anything
                return self.shader(node.inputs[1 + int(share[0])])
            return (1.0 - share) * self.shader(node.inputs[1]) + share * self.shader(node.inputs[2])
        if node.type == "ADD_SHADER":
            return np.clip(self.shader(node.inputs[0]) + self.shader(node.inputs[1]) - 1.0, 0.0, 1.0)
        return np.ones(1)

    def value(self, socket: Any) -> Floats:
        """Numbers that arrive at a socket, by the picture's value."""
        node, output = _source(socket)
        if node is None:
            return np.full(1, float(socket.default_value))
        self._deeper()
        if node.type == "TEX_IMAGE" and node.image:
            return self._picture(node, output)
        if node.type == "VALUE":
            return np.full(1, float(node.outputs[0].default_value))
        if node.type == "NEW_GEOMETRY" and output == "Backfacing":
            return np.full(1, self.backfacing)
        if node.type == "LIGHT_PATH" and output.startswith("Is "):
            return np.full(1, float(output == "Is Camera Ray"))
        if node.type == "MATH":
            return self._arithmetic(node)
        raise _NotUnderstood(node.type)

    def _picture(self, node: Any, output: str) -> Floats:
        if output == "Alpha" and node.image.alpha_mode == "NONE":
            return np.ones(1)
        if (self.node or node) != node or (self.output or output) != output:
            raise _NotUnderstood("two pictures")
        self.node, self.output = node, output
        return LEVELS

    def _arithmetic(self, node: Any) -> Floats:
        first = self.value(node.inputs[0])
        second = self.value(node.inputs[1]) if node.operation not in ("ROUND", "FLOOR", "CEIL") else np.zeros(1)
        results = {
            "ADD": lambda: first + second,
            "SUBTRACT": lambda: first - second,
            "MULTIPLY": lambda: first * second,
            "DIVIDE": lambda: np.divide(first, second, out=np.zeros_like(first + second), where=second != 0),
            "MINIMUM": lambda: np.minimum(first, second),
            "MAXIMUM": lambda: np.maximum(first, second),
            "LESS_THAN": lambda: (first < second).astype(np.float64),
            "GREATER_THAN": lambda: (first > second).astype(np.float64),
            "ROUND": lambda: np.floor(first + 0.5),
            "FLOOR": lambda: np.floor(first),
            "CEIL": lambda: np.ceil(first),
        }
        if node.operation not in results:
            raise _NotUnderstood(node.operation)
        result: Floats = results[node.operation]()
        return np.clip(result, 0.0, 1.0) if node.use_clamp else result

    def _deeper(self) -> None:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise _NotUnderstood("too deep")


def opacity_of(material: Any) -> MaterialOpacity:
    """The opacity of a material as camera rays meet it."""
    output = material.node_tree.get_output_node("CYCLES") if material.use_nodes and material.node_tree else None
    if output is None:
        return MaterialOpacity(np.ones(1), np.ones(1))
    front, back = _Reader(backfacing=0.0), _Reader(backfacing=1.0)
    try:
        sides = front.shader(output.inputs["Surface"]), back.shader(output.inputs["Surface"])
    except _NotUnderstood:
        return MaterialOpacity(np.ones(1), np.ones(1))
    node, channel = front.node or back.node, front.output or back.output
    if front.node and back.node and (front.node != back.node or front.output != back.output):
        return MaterialOpacity(np.ones(1), np.ones(1))
    return MaterialOpacity(sides[0], sides[1], node, channel)


def _source(socket: Any) -> tuple[Any, str]:
    """The node that feeds a socket and the name of its output; None where nothing does."""
    for _ in range(MAX_DEPTH):
        if not socket.links:
            return None, ""
        link = socket.links[0]
        if link.from_node.type != "REROUTE":
            return link.from_node, link.from_socket.name
        socket = link.from_node.inputs[0]
    raise _NotUnderstood("a loop")


def picture_of(found: MaterialOpacity) -> np.ndarray:
    """The values that decide an opacity. Shape (height, width), uint8, bottom row first."""
    image = found.node.image
    width, height = image.size
    pixels = np.empty(width * height * 4, dtype=np.float32)
    image.pixels.foreach_get(pixels)
    rgba = pixels.reshape(height, width, 4)
    if found.output == "Alpha":
        values = rgba[..., 3]
    else:
        colour = rgba[..., :3]
        if image.colorspace_settings.name == "sRGB" and not image.is_float:
            colour = np.where(colour <= 0.04045, colour / 12.92, ((colour + 0.055) / 1.055) ** 2.4)
        values = colour @ np.array([0.2126, 0.7152, 0.0722], dtype=np.float32)
    return np.rint(np.clip(values, 0.0, 1.0) * 255).astype(np.uint8)


def wrap_of(found: MaterialOpacity) -> str:
    """How the picture goes on beyond its edge."""
    return _WRAPS.get(found.node.extension, "repeat")


def uv_of(found: MaterialOpacity, mesh: Any) -> Floats:
    """Where each corner of a mesh lies in the picture. Shape (corner, 2)."""
    layer, change = _uv_source(found.node, mesh)
    uv = np.zeros(2 * len(mesh.loops), dtype=np.float32)
    if layer is not None:
        layer.uv.foreach_get("vector", uv)
    return uv.reshape(-1, 2).astype(np.float64) @ change[:, :2].T + change[:, 2]


def _uv_source(node: Any, mesh: Any) -> tuple[Any, Floats]:
    """The layer that a picture is looked up by, and what is done to it. Shape of the latter: (2, 3)."""
    change = np.eye(2, 3)
    source, _ = _source(node.inputs["Vector"])
    if source is not None and source.type == "MAPPING" and source.vector_type == "POINT":
        place, turn, size = (np.array(source.inputs[name].default_value) for name in ("Location", "Rotation", "Scale"))
        cosine, sine = np.cos(turn[2]), np.sin(turn[2])
        change = np.array([[cosine * size[0], -sine * size[1], place[0]], [sine * size[0], cosine * size[1], place[1]]])
        source, _ = _source(source.inputs["Vector"])
    layers = mesh.uv_layers
    if source is not None and source.type == "UVMAP" and source.uv_map in layers:
        return layers[source.uv_map], change
    rendered = next((layer for layer in layers if layer.active_render), None)
    return rendered, change
