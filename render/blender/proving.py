"""Which devices there are, and whether they draw what they should."""

import contextlib
import importlib
import os
import tempfile
from typing import Any

import bpy

from render.blender.devices import cycles_preferences, render_still, use
from render.blender.drawing import read_tga
from render.blender.importing import reset
from render.protocol import Device, DeviceFault

KINDS = ("OPTIX", "CUDA", "HIP", "METAL", "ONEAPI")
PROOF_PX = 16
PROOF_COLOUR = (0.2, 0.4, 0.8)
PROOF_TOLERANCE = 3
"""In steps of 1/255."""


def found(engine: str) -> list[Device]:
    """What there is to draw on. Looking at GL draws a first picture, which takes seconds without a GPU."""
    reset()
    if engine == "eevee":
        return [_gl()]
    preferences = cycles_preferences()
    devices = []
    for kind in KINDS:
        with contextlib.suppress(ValueError):  # not built into this Blender
            entries = preferences.get_devices_for_type(kind)
            devices += [Device(kind=kind, name=entry.name, id=entry.id) for entry in entries if entry.type == kind]
    return devices


def prove(engine: str, device: Device) -> None:
    """Draw a square of one colour and look whether it is there.

    Raises:
        DeviceFault: It is not.
    """
    reset()
    stage = bpy.context.scene
    _set_up_proof(stage)
    use(stage, engine, device)
    with tempfile.TemporaryDirectory() as folder:
        stage.render.filepath = os.path.join(folder, "proof.tga")
        render_still(stage, device)
        drawn = read_tga(stage.render.filepath)
    middle = drawn[PROOF_PX // 2, PROOF_PX // 2]
    wanted = [round(255 * value) for value in (*PROOF_COLOUR, 1.0)]
    if max(abs(int(is_) - should) for is_, should in zip(middle, wanted, strict=True)) > PROOF_TOLERANCE:
        raise DeviceFault(f"{device.label} drew {middle.tolist()} instead of {wanted}")


def _set_up_proof(stage: Any) -> None:
    mesh = bpy.data.meshes.new("proof")
    mesh.from_pydata([(-1, -1, 0), (1, -1, 0), (1, 1, 0), (-1, 1, 0)], [], [(0, 1, 2, 3)])
    material = bpy.data.materials.new("proof")
    material.use_nodes = True
    nodes = material.node_tree.nodes
    nodes.clear()
    light, output = nodes.new("ShaderNodeEmission"), nodes.new("ShaderNodeOutputMaterial")
    light.inputs["Color"].default_value = (*PROOF_COLOUR, 1.0)
    material.node_tree.links.new(light.outputs["Emission"], output.inputs["Surface"])
    mesh.materials.append(material)
    camera = bpy.data.cameras.new("proof")
    camera.type, camera.ortho_scale = "ORTHO", 1.0
    stage.camera = bpy.data.objects.new("camera", camera)
    stage.camera.location.z = 1.0
    for thing in (stage.camera, bpy.data.objects.new("proof", mesh)):
        stage.collection.objects.link(thing)
    render = stage.render
    render.resolution_x = render.resolution_y = PROOF_PX
    render.resolution_percentage = 100
    render.film_transparent = True
    render.dither_intensity = 0.0
    render.image_settings.file_format, render.image_settings.color_mode = "TARGA_RAW", "RGBA"
    stage.view_settings.view_transform = "Raw"
    stage.cycles.samples, stage.cycles.use_denoising = 1, False
    stage.eevee.taa_render_samples = 1


def _gl() -> Device:
    """Who draws GL. In a Blender without a window, that can be asked once something has been drawn."""
    stage = bpy.context.scene
    _set_up_proof(stage)
    stage.render.engine = "BLENDER_WORKBENCH"
    with tempfile.TemporaryDirectory() as folder:
        stage.render.filepath = os.path.join(folder, "first.tga")
        bpy.ops.render.render(write_still=True)
    platform: Any = importlib.import_module("gpu").platform  # part of Blender, and of no use before
    return Device(kind="GL", name=f"{platform.vendor_get()} {platform.renderer_get()}")
