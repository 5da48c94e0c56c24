"""Write the scene of a sample as a file whose bytes depend on nothing but the scene."""

import contextlib
import datetime
import importlib
import os
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import bpy

from render.blender.sample_blend import write_blend


def export_scene(path: Path, *, keep_constant_curves: bool = False) -> None:
    """Write the current scene in the format that the suffix names.

    Args:
        path: .glb, .gltf (with .bin and textures beside it), .fbx, .usdc, .usdz, .blend or .obj; its folder exists.
        keep_constant_curves: glTF only: write curves that never change, which the exporter otherwise drops.

    Raises:
        ValueError: No exporter for the suffix.
    """
    with quiet_stdout():
        match path.suffix:
            case ".glb" | ".gltf":
                _export_gltf(path, keep_constant_curves)
            case ".fbx":
                _export_fbx(path)
            case ".usdc" | ".usdz":
                _export_usd(path)
            case ".blend":
                write_blend(path)
            case ".obj":
                bpy.ops.wm.obj_export(filepath=str(path), export_animation=False)
                _drop_obj_paths(path)
            case _:
                raise ValueError(f"no exporter for {path.name}")


@contextlib.contextmanager
def quiet_stdout() -> Iterator[None]:
    """Send file descriptor 1 to nowhere: Blender prints progress from C, past `sys.stdout`."""
    saved, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    try:
        yield
    finally:
        os.dup2(saved, 1)
        os.close(saved)
        os.close(nowhere)


def _export_gltf(path: Path, keep_constant_curves: bool) -> None:
    bpy.ops.export_scene.gltf(
        filepath=str(path),
        export_format="GLB" if path.suffix == ".glb" else "GLTF_SEPARATE",
        # Tracks of one name are one animation, also across objects and shape keys.
        export_animation_mode="NLA_TRACKS",
        export_merge_animation="NLA_TRACK",
        export_optimize_animation_size=not keep_constant_curves,
        export_optimize_animation_keep_anim_object=keep_constant_curves,
        export_morph_normal=True,
        export_vertex_color="MATERIAL",
    )


def _export_fbx(path: Path) -> None:
    """FBX: a skeleton's actions one stack each, the moves of loose parts as one stack."""
    # An add-on of Blender, on the path only once bpy is imported.
    export_fbx_bin = importlib.import_module("io_scene_fbx.export_fbx_bin")
    fbx_utils = importlib.import_module("io_scene_fbx.fbx_utils")
    skinned = any(node.type == "ARMATURE" for node in bpy.context.scene.objects)
    clock = SimpleNamespace(datetime=SimpleNamespace(now=lambda: datetime.datetime(2000, 1, 1)))
    # The exporter writes the time of day, and makes ids and the order of curves from hash(), which Python salts.
    with _replaced(export_fbx_bin, "datetime", clock), _replaced(fbx_utils, "hash", _steady_hash):
        bpy.ops.export_scene.fbx(
            filepath=str(path),
            object_types={"ARMATURE", "MESH", "EMPTY"},
            bake_anim_use_all_actions=skinned,
            bake_anim_use_nla_strips=False,
            bake_anim_simplify_factor=0.05,
            add_leaf_bones=False,
            path_mode="COPY",
            embed_textures=True,
        )


def _steady_hash(key: Any) -> int:
    text = repr(key).encode()
    return zlib.crc32(text) << 20 ^ zlib.crc32(text[::-1])


@contextlib.contextmanager
def _replaced(module: ModuleType, name: str, value: Any) -> Iterator[None]:
    """Set a module's global for a while; one that was not there before is removed again."""
    missing = object()
    before = module.__dict__.get(name, missing)
    setattr(module, name, value)
    try:
        yield
    finally:
        if before is missing:
            delattr(module, name)
        else:
            setattr(module, name, before)


def _export_usd(path: Path) -> None:
    bpy.ops.wm.usd_export(
        filepath=str(path),
        export_animation=True,
        export_armatures=True,
        export_shapekeys=True,
        export_materials=True,
        export_textures=True,
        export_textures_mode="NEW",
        generate_preview_surface=True,
        export_lights=False,
        export_cameras=False,
        convert_world_material=False,
        export_custom_properties=False,
    )
    if path.suffix == ".usdz":
        _clear_zip_times(path)


def _clear_zip_times(path: Path) -> None:
    """Set every member's time of a zip to 1980. Done in place, as USD wants members stored at multiples of 64 bytes."""
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        members, directory = archive.infolist(), archive.start_dir
    for member in members:
        struct.pack_into("<HH", content, member.header_offset + 10, 0, 0x21)
        struct.pack_into("<HH", content, directory + 12, 0, 0x21)
        name_length, extra_length, comment_length = struct.unpack_from("<HHH", content, directory + 28)
        directory += 46 + name_length + extra_length + comment_length
    path.write_bytes(content)


def _drop_obj_paths(path: Path) -> None:
    """Comments of .obj and .mtl name the Blender file; the rest is plain numbers."""
    for text_file in (path, path.with_suffix(".mtl")):
        text = text_file.read_text()
        text_file.write_text(re.sub(r"^#.*\n", "", text, flags=re.MULTILINE))
