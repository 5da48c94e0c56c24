"""Named animations of the sample assets: curves sampled at every frame, one action with a slot for all it moves."""

from collections.abc import Mapping
from typing import Any

import bpy
import mathutils
import numpy as np

FPS = 24

Curves = dict[str, np.ndarray]
"""data path: values of shape (frame, component)."""


def wave(num_frames: int, cycles: float, amplitude: float, phase: float = 0.0) -> np.ndarray:
    """A sine over frames 0..num_frames; whole `cycles` loop without a seam. `phase` is in cycles."""
    share = np.arange(num_frames + 1) / num_frames
    return np.asarray(amplitude * np.sin(2 * np.pi * (cycles * share + phase)))


def eased(num_frames: int, *keys: tuple[float, float]) -> np.ndarray:
    """Values over frames 0..num_frames that start and stop gently at each (frame, value)."""
    frames = np.arange(num_frames + 1, dtype=float)
    at = np.array([frame for frame, _ in keys], dtype=float)
    values = np.array([value for _, value in keys], dtype=float)
    index = np.clip(np.searchsorted(at, frames, side="right") - 1, 0, len(at) - 2)
    share = np.clip((frames - at[index]) / (at[index + 1] - at[index]), 0.0, 1.0)
    smooth = share * share * (3 - 2 * share)
    return np.asarray(values[index] + (values[index + 1] - values[index]) * smooth)


def steady(num_frames: int, per_clip: float) -> np.ndarray:
    """Grows evenly from 0 to `per_clip` over frames 0..num_frames."""
    return np.linspace(0.0, per_clip, num_frames + 1)


def moves(
    *,
    location: tuple[Any, Any, Any] | None = None,
    rotation_deg: tuple[Any, Any, Any] | None = None,
    scale: tuple[Any, Any, Any] | None = None,
) -> Curves:
    """Curves of an object; each component is an array over frames or a constant."""
    curves: Curves = {}
    if location is not None:
        curves["location"] = _columns(*location)
    if rotation_deg is not None:
        curves["rotation_euler"] = np.radians(_columns(*rotation_deg))
    if scale is not None:
        curves["scale"] = _columns(*scale)
    return curves


def morphs(**values: np.ndarray) -> Curves:
    """Curves of shape keys, by name."""
    return {f'key_blocks["{name}"].value': np.asarray(track)[:, None] for name, track in values.items()}


def poses(
    rig: bpy.types.Object,
    rotations_deg: Mapping[str, tuple[Any, Any, Any]],
    shifts: Mapping[str, tuple[Any, Any, Any]] | None = None,
) -> Curves:
    """Curves of a skeleton.

    Args:
        rig: The armature; its bones rest unturned.
        rotations_deg: Per bone, angles about the armature's own X, then Y, then Z axis, on top of its parent's pose.
            Each is an array over frames or a constant. The axes are the armature's, so that a nod is about X whatever
            the bone's roll is.
        shifts: Per bone, a displacement along the armature's axes.
    """
    curves: Curves = {}
    for name, angles in rotations_deg.items():
        rest = rig.data.bones[name].matrix_local.to_quaternion()
        quaternions, last = [], mathutils.Quaternion()
        for euler in np.radians(_columns(*angles)):
            turn = rest.inverted() @ mathutils.Euler(euler).to_quaternion() @ rest
            last = -turn if turn.dot(last) < 0 else turn
            quaternions.append(tuple(last))
        curves[f'pose.bones["{name}"].rotation_quaternion'] = np.array(quaternions)
    for name, shift in (shifts or {}).items():
        rest_matrix = np.array(rig.data.bones[name].matrix_local.to_3x3())
        curves[f'pose.bones["{name}"].location'] = _columns(*shift) @ rest_matrix
    return curves


def _columns(*components: Any) -> np.ndarray:
    """Arrays and constants as columns of one array; all constant means a single frame."""
    return np.stack(np.broadcast_arrays(*(np.atleast_1d(np.asarray(c, dtype=float)) for c in components)), axis=-1)


def add_action(name: str, curves_of: Mapping[Any, Curves]) -> bpy.types.Action:
    """Make an action and bind it to everything it moves.

    Every owner gets a muted NLA track of the same name, as Blender's glTF importer leaves them, and the first action of
    a file stays the active one.

    Args:
        name: Unique in the file.
        curves_of: For each object, or shape-key block, its curves.
    """
    action = bpy.data.actions.new(name)
    strip = action.layers.new("Layer").strips.new(type="KEYFRAME")
    num_frames = max(len(values) for curves in curves_of.values() for values in curves.values())
    for owner, curves in curves_of.items():
        slot = action.slots.new(owner.id_type, owner.name)
        bag = strip.channelbag(slot, ensure=True)
        for path, values in curves.items():
            full = np.broadcast_to(values, (num_frames, values.shape[1]))
            for component in range(full.shape[1]):
                _add_curve(bag, path, component, full[:, component])
        _bind(owner, action, slot)
    scene = bpy.context.scene
    scene.frame_end = max(scene.frame_end if len(bpy.data.actions) > 1 else 0, num_frames - 1)
    return action


def _add_curve(bag: Any, path: str, component: int, values: np.ndarray) -> None:
    curve = bag.fcurves.new(path, index=component)
    curve.keyframe_points.add(len(values))
    curve.keyframe_points.foreach_set("co", np.column_stack([np.arange(len(values)), values]).ravel())
    linear = bpy.types.Keyframe.bl_rna.properties["interpolation"].enum_items["LINEAR"].value
    curve.keyframe_points.foreach_set("interpolation", np.full(len(values), linear, dtype=np.int32))
    curve.update()


def _bind(owner: Any, action: bpy.types.Action, slot: Any) -> None:
    data = owner.animation_data_create()
    track = data.nla_tracks.new()
    track.name = action.name
    strip = track.strips.new(action.name, 0, action)
    strip.action_slot = slot
    track.mute = True
    if data.action is None:
        data.action = action
        data.action_slot = slot
