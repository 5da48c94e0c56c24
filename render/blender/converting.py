"""An animated GLB as FBX, Alembic or USD."""

import math
import os
from typing import Any

import bpy

from render.blender.actions import Animations
from render.blender.importing import open_file
from render.protocol import BadAsset, Convert, Converted

RATES = (24, 25, 30, 48, 50, 60, 100, 120)
"""Frames a second, tried in this order until all keys lie on whole frames; the last one if they never do."""
ON_FRAME = 1e-3
"""A key so near to a whole frame lies on it: key times are single precision."""
ASIDE = 1e-5
"""Of a skeleton's extent: ten times what Blender's FBX importer takes for one place."""


def convert(request: Convert) -> Converted:
    """Write one animation of a GLB in the format of the suffix, sampled at every frame.

    Raises:
        BadAsset: It cannot be read, has nothing to draw, or has no such animation.
    """
    file = open_file(request.path, "glb")
    if not any(thing.type == "MESH" and thing.data.polygons for thing in bpy.data.objects):
        raise BadAsset("no_mesh", "no face to draw")
    animations = Animations(file)
    names = [entry.name for entry in animations.all]
    if request.animation and request.animation not in names:
        raise BadAsset("no_animation", f"no animation {request.animation!r}; there are: {', '.join(names) or 'none'}")
    # Not the stage: without a window, objects learn their poses in this scene alone (4.5.15).
    scene, rate, last = bpy.context.scene, float(RATES[0]), 0.0
    if names:
        index = names.index(request.animation) if request.animation else 0
        rate = _set_rate(scene, file.fps)
        animations.bind(index)
        last = animations.all[index].end_s * rate
    scene.frame_start, scene.frame_end = 0, math.ceil(last - ON_FRAME)
    scene.frame_set(0)
    _EXPORTERS[os.path.splitext(request.out_path)[1]](request.out_path, scene, bool(names))
    return Converted(animation=names[index] if names else "", fps=rate, num_frames=scene.frame_end + 1)


def _set_rate(scene: Any, imported_fps: float) -> float:
    """Give the scene a rate at which keys lie on whole frames, and move the keys there."""
    curves = [
        curve
        for action in bpy.data.actions
        for layer in action.layers
        for strip in layer.strips
        for bag in strip.channelbags
        for curve in bag.fcurves
    ]
    times_s = {round(point.co.x / imported_fps, 6) for curve in curves for point in curve.keyframe_points}
    rate = next((rate for rate in RATES if all(abs(t * rate - round(t * rate)) < ON_FRAME for t in times_s)), RATES[-1])
    for curve in curves:
        for point in curve.keyframe_points:
            for handle in (point.handle_left, point.co, point.handle_right):
                handle.x *= rate / imported_fps
        curve.update()
    scene.render.fps, scene.render.fps_base = rate, 1.0
    return float(rate)


def _write_fbx(path: str, scene: Any, animated: bool) -> None:
    for thing in {thing.data: thing for thing in scene.objects if thing.type == "ARMATURE"}.values():
        _loosen_bones(thing)
    bpy.ops.export_scene.fbx(
        filepath=path,
        object_types={"ARMATURE", "MESH", "EMPTY"},
        bake_anim=animated,
        bake_anim_use_all_actions=False,
        bake_anim_use_nla_strips=False,
        bake_anim_simplify_factor=0.0,
        add_leaf_bones=False,
        path_mode="COPY",
        embed_textures=True,
    )


def _loosen_bones(armature: Any) -> None:
    """Move every other bone of a chain a hair's breadth aside.

    Blender's FBX importer joins a bone to a parent that ends where it begins, and then shows nothing of how it shifts
    (4.5.15: `child_connect`). It has a bone end on its own axis, as far away as its children begin.
    """
    bpy.context.view_layer.objects.active = armature
    bpy.ops.object.mode_set(mode="EDIT")
    bones = armature.data.edit_bones
    step = ASIDE * max((abs(x) for bone in bones for x in bone.tail), default=0.0)
    for bone in bones:
        if len(bone.parent_recursive) % 2:
            across = bone.parent.y_axis.cross(bone.y_axis)
            aside = step * (across.normalized() if across.length > 1e-3 else bone.x_axis)
            bone.head, bone.tail = bone.head + aside, bone.tail + aside
    bpy.ops.object.mode_set(mode="OBJECT")


def _write_alembic(path: str, scene: Any, animated: bool) -> None:
    bpy.ops.wm.alembic_export(
        filepath=path, start=scene.frame_start, end=scene.frame_end, as_background_job=False, evaluation_mode="RENDER"
    )


def _write_usd(path: str, scene: Any, animated: bool) -> None:
    for thing in scene.objects:  # readers go by the mesh's name, in USD a thing of its own
        if thing.type == "MESH":
            thing.data.name = thing.name
    bpy.ops.wm.usd_export(
        filepath=path,
        export_animation=animated,
        # Every frame's points: exact, where blend shapes are read by few programs.
        export_shapekeys=False,
        export_armatures=False,
        export_textures_mode="NEW",
        generate_preview_surface=True,
        convert_world_material=False,
        export_custom_properties=False,
        export_lights=False,
        export_cameras=False,
    )


_EXPORTERS = {
    ".fbx": _write_fbx,
    ".abc": _write_alembic,
    ".usdc": _write_usd,
    ".usda": _write_usd,
    ".usdz": _write_usd,
}
