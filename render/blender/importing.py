"""Open a 3D file in a clean Blender and set it on a stage of our own.

The stage is a fresh scene that shows what the file shows in a final render. Nothing of the file's own scene settings
(world, compositor, motion blur, output nodes) takes part, and none of its scripts runs.
"""

import ctypes
import glob
import importlib
import math
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import bpy
import numpy as np

from render.blender.gltf import import_gltf, patched
from render.blender.lighting import OwnLights
from render.blender.obj_sequence import import_obj
from render.blender.simulating import Simulations
from render.blender.versions import refuse_newer_file
from render.protocol import BadAsset

STAGE = "mv4d stage"
MAX_SUBDIVISION = 2
"""Levels of a subdivision surface; each one quadruples the faces."""

FARTHEST = 1e25
"""Coordinates beyond are not taken for numbers: single precision ends at 3e38, and lengths are squared."""
COMFORT = (1e-3, 1e4)
"""Sizes in Blender's units at which single precision does not show, with room for what moves."""

_NOT_DRAWN = {"ARMATURE", "CAMERA", "GPENCIL", "GREASEPENCIL", "LATTICE", "LIGHT", "LIGHT_PROBE", "SPEAKER"}
_WANTED_OF_LIBRARIES = ("objects", "collections", "meshes", "armatures", "actions")


@dataclass(frozen=True, kw_only=True)
class OpenFile:
    """A file on the stage, at the pose in which it was imported."""

    stage: Any
    path: str
    format: str
    fps: float
    frame_start: int
    frame_end: int
    """The scene's own range, for time-sampled caches."""
    own_lights: OwnLights
    factor: float
    """stage = factor * asset: 1 but for assets so large or small that single precision gives out on the stage."""
    simulations: Simulations

    @property
    def folder(self) -> str:
        """The folder outside of which nothing may be read."""
        return os.path.dirname(os.path.realpath(self.path))


def open_file(path: str, format: str) -> OpenFile:
    """Reset Blender, import the file and set it on the stage.

    Raises:
        BadAsset: Blender cannot read it, or it reads from outside its own folder.
    """
    if not os.path.isfile(path):
        raise BadAsset("not_found", path)
    if format not in _IMPORTERS:
        raise BadAsset("unsupported_format", f"no importer for .{format}")
    reset()
    try:
        result = _IMPORTERS[format](path)
    except (RuntimeError, RecursionError, UnicodeDecodeError) as error:
        raise BadAsset(*_reason_of(str(error))) from error
    if "FINISHED" not in result:
        raise BadAsset("import_failed", "the importer gave up without a word")
    _refuse_outside_libraries(os.path.dirname(os.path.realpath(path)))
    source = bpy.context.scene
    own_lights = OwnLights(lamps=_lamps(source), world=source.world)
    stage = _build_stage(source)
    fps = stage.render.fps / stage.render.fps_base
    factor = _to_comfort(stage)
    return OpenFile(
        stage=stage,
        path=path,
        format=format,
        fps=fps,
        frame_start=source.frame_start,
        frame_end=source.frame_end,
        own_lights=own_lights,
        factor=factor,
        simulations=Simulations(stage, fps=fps, factor=factor),
    )


def reset() -> None:
    """Factory settings, an empty file, no scripts."""
    bpy.ops.wm.read_factory_settings(use_empty=True)
    _forbid_scripts()
    _give_memory_back()


def _give_memory_back() -> None:
    """What the last asset took and Blender has freed: after a million vertices, the C library keeps 300 MB of it."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)


def _forbid_scripts() -> None:
    preferences = bpy.context.preferences
    preferences.filepaths.use_scripts_auto_execute = False
    preferences.system.use_gpu_subdivision = False
    if hasattr(preferences.system, "use_online_access"):
        preferences.system.use_online_access = False


def _import_fbx(path: str) -> set[str]:
    try:
        with patched("io_scene_fbx.import_fbx", "blen_read_animations", _then_play_nothing):
            return set(bpy.ops.import_scene.fbx(filepath=path, anim_offset=0.0, use_custom_props=False))
    except RuntimeError:
        if "fbx_import" not in dir(bpy.ops.wm):
            raise
        # The newer importer reads ASCII and versions before 7.1. It is twenty times as fast, too, and would come first
        # if it did not lose the animation of objects without an armature (4.5.15).
        reset()
        return set(bpy.ops.wm.fbx_import(filepath=path, anim_offset=0.0, use_custom_props=False))


def _then_play_nothing(read_animations: Callable[..., Any]) -> Callable[..., Any]:
    """As with glTF, the first take would overwrite the pose that the file states."""

    def read(*arguments: Any, **options: Any) -> Any:
        result = read_animations(*arguments, **options)
        for block in [*bpy.data.objects, *bpy.data.shape_keys, *bpy.data.cameras, *bpy.data.materials]:
            if block.animation_data:
                block.animation_data.action = None
        return result

    return read


def _import_usd(path: str) -> set[str]:
    result = bpy.ops.wm.usd_import(
        filepath=path, import_cameras=False, import_lights=False, create_world_material=False
    )
    rate = _usd_rate(path)
    render = bpy.context.scene.render
    render.fps = math.ceil(rate)
    render.fps_base = render.fps / rate
    return set(result)


def _usd_rate(path: str) -> float:
    """Frames a second. The importer takes time codes for frames, and leaves the scene at its own rate (4.5.15)."""
    bundled = os.path.join(bpy.utils.resource_path("LOCAL"), "python", "lib", "*", "site-packages")
    for folder in glob.glob(bundled):
        if folder not in sys.path:
            sys.path.append(folder)
    try:
        layer = importlib.import_module("pxr.Sdf").Layer.FindOrOpen(path)
        rate = float(layer.timeCodesPerSecond)
    except (ImportError, AttributeError, RuntimeError):
        return 24.0  # what a file means that says nothing
    return rate if 0.01 <= rate <= 10_000 else 24.0


def _import_blend(path: str) -> set[str]:
    result = set(bpy.ops.wm.open_mainfile(filepath=path, load_ui=False, use_scripts=False))
    _forbid_scripts()
    refuse_newer_file()
    if bpy.context.object and bpy.context.object.mode != "OBJECT":
        bpy.ops.object.mode_set(mode="OBJECT")
    return result


_IMPORTERS: dict[str, Callable[[str], set[str]]] = {
    "glb": import_gltf,
    "gltf": import_gltf,
    "fbx": _import_fbx,
    "blend": _import_blend,
    "usd": _import_usd,
    "usda": _import_usd,
    "usdc": _import_usd,
    "usdz": _import_usd,
    "abc": lambda path: set(bpy.ops.wm.alembic_import(filepath=path, as_background_job=False)),
    "obj": import_obj,
    "ply": lambda path: set(bpy.ops.wm.ply_import(filepath=path)),
    "stl": lambda path: set(bpy.ops.wm.stl_import(filepath=path)),
}


def _reason_of(message: str) -> tuple[str, str]:
    """Reason and detail for an importer's complaint. Of a traceback, the last line says what went wrong."""
    lines = [line.strip() for line in message.splitlines() if line.strip() and not line.startswith("Location:")]
    detail = (lines[-1] if "Traceback" in message else " | ".join(lines))[-500:]
    if "is not available on this addon version" in message:
        return "unsupported_extension", detail
    if "Missing resource" in message:
        return "missing_file", detail
    return "import_failed", detail


def _refuse_outside_libraries(folder: str) -> None:
    """Refuse what is linked from outside, and what is linked and absent, if shape or motion depend on it."""
    for library in bpy.data.libraries:
        path = os.path.realpath(bpy.path.abspath(library.filepath))
        if os.path.exists(path) and os.path.commonpath([folder, path]) != folder:
            raise BadAsset("unsafe_uri", f"links {library.filepath}")
    for kind in _WANTED_OF_LIBRARIES:
        for block in getattr(bpy.data, kind):
            if block.library and block.is_missing:
                name = os.path.basename(block.library.filepath.replace("\\", "/"))
                raise BadAsset("missing_file", f"links {block.name!r} from {name}, which is not there")


def _build_stage(source: Any) -> Any:
    stage = bpy.data.scenes.new(STAGE)
    stage.render.fps = source.render.fps
    stage.render.fps_base = source.render.fps_base
    stage.gravity, stage.use_gravity = source.gravity, source.use_gravity
    bone_shapes = _bone_shapes()
    for thing in bpy.data.objects:
        _prepare(thing, hidden=_is_unseen(thing) or thing in bone_shapes)
    for collection in bpy.data.collections:
        if not collection.library:
            collection.hide_viewport = collection.hide_render
    layers = [layer for layer in source.view_layers if layer.use]
    shown = {thing.name_full: thing for layer in layers for thing in _shown(layer.layer_collection)}
    for name in sorted(shown):
        stage.collection.objects.link(shown[name])
    return stage


def _is_unseen(thing: Any) -> bool:
    """It shows nothing of itself: hidden, of a kind without a surface, or a helper of somebody's composition."""
    return bool(thing.hide_render or thing.type in _NOT_DRAWN or is_helper(thing))


def is_helper(thing: Any) -> bool:
    """It takes part in somebody's composition, and cameras do not see it as an object."""
    return bool(thing.is_holdout or thing.is_shadow_catcher or not thing.visible_camera)


def _lamps(source: Any) -> tuple[Any, ...]:
    """The lights that a final render of the scene would use, in the order of their names."""
    shown = [thing for layer in source.view_layers if layer.use for thing in _shown(layer.layer_collection)]
    lamps = {thing.name_full: thing for thing in shown if thing.type == "LIGHT"}
    return tuple(lamps[name] for name in sorted(lamps) if not lamps[name].hide_render and not lamps[name].library)


def _shown(layer_collection: Any) -> list[Any]:
    """Objects that a final render of the view layer shows, by the flags of their collections."""
    collection = layer_collection.collection
    if layer_collection.exclude or collection.hide_render:
        return []
    here = [] if layer_collection.indirect_only or layer_collection.holdout else list(collection.objects)
    return here + [thing for child in layer_collection.children for thing in _shown(child)]


def _prepare(thing: Any, hidden: bool) -> None:
    """Make evaluation agree with a final render: the same objects, modifiers and levels."""
    if thing.library:
        return
    thing.hide_render = hidden
    thing.hide_viewport = hidden and not thing.animation_data  # which may show it later
    thing.show_instancer_for_viewport = thing.show_instancer_for_render
    if thing.type == "ARMATURE" and not thing.data.library:
        thing.data.pose_position = "POSE"
    for modifier in thing.modifiers:
        modifier.show_viewport = modifier.show_render
        if modifier.type in {"SUBSURF", "MULTIRES"}:
            levels = min(modifier.render_levels, MAX_SUBDIVISION)
            modifier.levels = modifier.render_levels = levels


def _to_comfort(stage: Any) -> float:
    """Resize an asset of extreme size, and say by how much.

    At a scale of 1e13, armatures no longer deform: the determinant of their matrix is infinite in single precision. The
    factor is a power of two, which costs no digit. Assets of ordinary size are left alone, for the sake of constraints
    that refer to the world.
    """
    size = max((_size(thing) for thing in stage.objects if thing.type == "MESH"), default=0.0)
    if not 0.0 < size < FARTHEST or COMFORT[0] <= size <= COMFORT[1]:
        return 1.0
    factor = 2.0 ** -round(math.log2(size))
    parent_all(stage, "resized").scale = (factor,) * 3
    return factor


def parent_all(stage: Any, name: str) -> Any:
    """A new empty that carries everything on the stage, poses unchanged."""
    things = list(stage.collection.objects)
    things += [modifier.object for thing in things for modifier in thing.modifiers if getattr(modifier, "object", None)]
    roots = {_root(thing).name_full: _root(thing) for thing in things}
    parent = bpy.data.objects.new(name, None)
    stage.collection.objects.link(parent)
    for root in roots.values():
        root.parent = parent
        root.matrix_parent_inverse.identity()
    return parent


def _root(thing: Any) -> Any:
    while thing.parent:
        thing = thing.parent
    return thing


def _size(thing: Any) -> float:
    """Largest extent of an object's own mesh, scaled by its parents: an order of magnitude."""
    positions = np.zeros(3 * len(thing.data.vertices), dtype=np.float32)
    thing.data.vertices.foreach_get("co", positions)
    size = float(np.ptp(positions.reshape(-1, 3).astype(np.float64), axis=0).max()) if len(positions) else 0.0
    while thing:
        inverse = np.array(thing.matrix_parent_inverse)
        size *= max(abs(value) for value in thing.scale) * float(np.abs(inverse[:3, :3]).max())
        thing = thing.parent
    return size


def _bone_shapes() -> set[Any]:
    """Objects that only stand for bones in the viewport."""
    poses = [thing.pose for thing in bpy.data.objects if thing.pose]
    return {bone.custom_shape for pose in poses for bone in pose.bones if bone.custom_shape}
