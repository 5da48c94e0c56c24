"""Blender's own Z and normal passes of one picture: `python -m tests.render.cycles_passes JSON`. Imports bpy."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import bpy
import numpy as np

from pipeline.records import ClipPlan, from_dict
from render.blender import drawing
from render.blender.session import Session
from render.draw import Shot
from render.protocol import Load

LOOK, RENDER = drawing.set_look, drawing._Studio.render


def main() -> None:
    """Draw it with a pixel filter so narrow that each pixel is sampled at its centre, and save `passes.npz`."""
    order: dict[str, Any] = json.loads(sys.argv[1])
    out = Path(order["out"])
    plan = from_dict(ClipPlan, order["plan"])
    session = Session()
    session.hello()
    session.load(Load(path=order["asset"], format=plan.format))
    (out / "pictures").mkdir()
    request = Shot.of(plan).request(str(out / "pictures"), 1)
    request.views[:] = [request.views[order["view"]]]
    number = 0

    def set_look(stage: Any, *arguments: Any) -> None:
        LOOK(stage, *arguments)
        add_passes(stage, str(out))

    def render(studio: Any, c2w: Any, box: tuple[int, int, int, int]) -> np.ndarray:
        nonlocal number
        if number == order["frame"]:
            RENDER(studio, c2w, box)
            depth, normal = (read(out / f"{name}0000.exr") for name in ("depth", "normal"))
            np.savez(out / "passes.npz", depth=depth[..., 0] * studio.scale, normal=normal[..., :3])
        number += 1
        left, top, right, bottom = box
        return np.zeros((bottom - top, right - left, 4), dtype=np.uint8)

    drawing.set_look, drawing._Studio.render = set_look, render
    session.draw(request, lambda done, total: None)
    os._exit(0)


def add_passes(stage: Any, folder: str) -> None:
    """Have the whole picture drawn, and its Z and normals written as EXR files."""
    stage.cycles.filter_width = 0.01
    stage.cycles.use_denoising = False
    stage.render.use_border = False
    stage.render.use_compositing = True
    layer = stage.view_layers[0]
    layer.use_pass_z = layer.use_pass_normal = True
    stage.use_nodes = True
    tree = stage.node_tree
    tree.nodes.clear()
    source, files = tree.nodes.new("CompositorNodeRLayers"), tree.nodes.new("CompositorNodeOutputFile")
    source.scene = stage
    files.base_path = folder
    files.format.file_format, files.format.color_depth, files.format.color_mode = "OPEN_EXR", "32", "RGB"
    files.file_slots.clear()
    for name, output in (("depth", "Depth"), ("normal", "Normal")):
        files.file_slots.new(name)
        tree.links.new(source.outputs[output], files.inputs[name])


def read(path: Path) -> np.ndarray:
    """Top row first, shape (height, width, 4)."""
    (found,) = path.parent.glob(f"{path.stem.rstrip('0')}*.exr")
    image = bpy.data.images.load(str(found))
    image.colorspace_settings.name = "Non-Color"
    width, height = image.size
    pixels = np.empty(4 * width * height, dtype=np.float32)
    image.pixels.foreach_get(pixels)
    return pixels.reshape(height, width, 4)[::-1].copy()


if __name__ == "__main__":
    main()
