"""Drawing on exactly one device or not at all.

Cycles draws on the processor without a word if the GPU that it was meant for is not switched on. So the one device is
switched on before each draw, and looked up afterwards.
"""

from typing import Any

import bpy

from render.blender.versions import EEVEE
from render.protocol import CPU, Device, DeviceFault


def use(stage: Any, engine: str, device: Device) -> None:
    """Have the stage drawn by this engine on this device and no other.

    Raises:
        DeviceFault: It is not there, or did not get switched on.
    """
    stage.render.engine = EEVEE if engine == "eevee" else "CYCLES"
    if engine == "eevee":
        return
    stage.cycles.device = "CPU" if device == CPU else "GPU"
    if device == CPU:
        return
    preferences = cycles_preferences()
    preferences.get_devices_for_type(device.kind)  # fills the list of devices
    preferences.compute_device_type = device.kind
    for entry in preferences.devices:
        entry.use = entry.type == device.kind and entry.id == device.id
    switched_on = [(entry.type, entry.id) for entry in preferences.devices if entry.use]
    if switched_on != [(device.kind, device.id)] or not preferences.has_active_device():
        raise DeviceFault(f"{device.label} is not there any more; Blender would draw on the processor instead")


def render_still(stage: Any, device: Device) -> None:
    """Draw the stage into its file.

    Raises:
        DeviceFault: The GPU failed: its kernels did not load, or its memory did not suffice, say.
        RuntimeError: Drawing failed on the processor.
    """
    try:
        # Named as an argument of the operator, the stage would take on the other scene's frame.
        with bpy.context.temp_override(scene=stage):
            bpy.ops.render.render(write_still=True)
    except RuntimeError as error:
        if device == CPU:
            raise
        raise DeviceFault(f"{device.label}: {str(error).strip()}") from error


def cycles_preferences() -> Any:
    """Where GPUs are listed and switched on; each reset of Blender empties it."""
    return bpy.context.preferences.addons["cycles"].preferences
