"""Numbered .obj files as one animation: the first one's mesh, with the positions of each as an absolute shape key.

Blender's own importer reads every frame, so that vertices are in the same order whatever it leaves out.
"""

import json
import math
import os
import re
from typing import Any

import bpy
import numpy as np

from render.protocol import BadAsset

MOST_POSITIONS = 50_000_000
"""Vertices by frames: 600 MB in Blender's memory."""

_FIRST_FRAME = re.compile(r"(.*_)0{6}\.obj", re.DOTALL)
_FACTS = "sequence.json"
_NEW = ("objects", "meshes", "materials", "images")


def import_obj(path: str) -> set[str]:
    """Import one .obj file, or all of a sequence whose first frame it is.

    Raises:
        BadAsset: The frames are not of the same faces, or too large together.
    """
    frames, fps = _frames(path)
    result = set(bpy.ops.wm.obj_import(filepath=path))
    if len(frames) > 1 and "FINISHED" in result:
        _animate(frames, fps)
    return result


def _frames(path: str) -> tuple[list[str], float]:
    """The files of a sequence and their rate; none for an ordinary file."""
    folder, name = os.path.split(path)
    found, facts = _FIRST_FRAME.fullmatch(name), os.path.join(folder, _FACTS)
    if not found or not os.path.isfile(facts):
        return [], 0.0
    with open(facts, "rb") as file:
        fps = float(json.load(file)["fps"])
    sibling = re.compile(re.escape(found[1]) + r"\d{6}\.obj")
    return [os.path.join(folder, entry) for entry in sorted(os.listdir(folder)) if sibling.fullmatch(entry)], fps


def _animate(frames: list[str], fps: float) -> None:
    things = sorted((thing for thing in bpy.data.objects if thing.type == "MESH"), key=lambda thing: thing.name)
    names = [thing.name for thing in things]
    total = len(frames) * sum(len(thing.data.vertices) for thing in things)
    if total > MOST_POSITIONS:
        raise BadAsset("too_complex", f"{len(frames)} frames of {total // len(frames)} vertices")
    for place, thing in enumerate(things):  # their names are wanted for the same objects of the other frames
        thing.name = f"sequence {place}"
    faces = [_faces(thing.data) for thing in things]
    for thing in things:
        thing.shape_key_add(name="0")
    for place, frame in enumerate(frames[1:], start=1):
        before = {kind: set(getattr(bpy.data, kind)) for kind in _NEW}
        bpy.ops.wm.obj_import(filepath=frame)
        found = sorted(set(bpy.data.objects) - before["objects"], key=lambda thing: thing.name)
        found = [thing for thing in found if thing.type == "MESH"]
        alike = len(found) == len(things) and all(map(np.array_equal, faces, (_faces(thing.data) for thing in found)))
        if not alike:
            raise BadAsset("malformed", f"frame {place} has other vertices or faces than the first")
        for thing, moved in zip(things, found, strict=True):
            thing.shape_key_add(name=str(place)).data.foreach_set("co", _positions(moved.data))
        for kind in _NEW:
            bpy.data.batch_remove(set(getattr(bpy.data, kind)) - before[kind])
    for thing, name in zip(things, names, strict=True):
        thing.name = name
        _play(thing.data.shape_keys)
    scene = bpy.context.scene
    scene.render.fps = math.ceil(fps)
    scene.render.fps_base = scene.render.fps / fps
    scene.frame_start, scene.frame_end = 0, len(frames) - 1


def _faces(mesh: Any) -> np.ndarray:
    """The vertex of each corner, and the first corner of each face, after their numbers."""
    corners = np.empty(len(mesh.loops), np.int32)
    mesh.loops.foreach_get("vertex_index", corners)
    starts = np.empty(len(mesh.polygons), np.int32)
    mesh.polygons.foreach_get("loop_start", starts)
    return np.concatenate([[len(mesh.vertices), len(corners)], corners, starts])


def _positions(mesh: Any) -> np.ndarray:
    positions = np.empty(3 * len(mesh.vertices), np.float32)
    mesh.vertices.foreach_get("co", positions)
    return positions


def _play(keys: Any) -> None:
    """One key a frame, and straight ways between them."""
    keys.use_relative = False
    for place, key in enumerate(keys.key_blocks):
        key.interpolation = "KEY_LINEAR"
        keys.eval_time = key.frame
        keys.keyframe_insert("eval_time", frame=place)
    for layer in keys.animation_data.action.layers:
        for curve in layer.strips[0].channelbag(keys.animation_data.action_slot).fcurves:
            for point in curve.keyframe_points:
                point.interpolation = "LINEAR"
