"""Blender's glTF importer, with three of its faults (4.5.15) kept from doing harm.

Its functions are changed while it runs, since no option reaches these places.
"""

import contextlib
import importlib
import json
import struct
from collections.abc import Callable, Iterator
from typing import Any

import bpy
import numpy as np

from render.blender.readable import readable

SAME_SCALE = 1e-3
"""Bind matrices whose scales differ by less are taken to belong together."""


def import_gltf(path: str) -> set[str]:
    """Import a file. No animation is left playing."""
    wanted = {
        # The default heuristic shortens the bones of a scaled armature, and what hangs on them ends up elsewhere.
        "bone_heuristic": "TEMPERANCE",
        "disable_bone_shape": True,
        "import_pack_images": False,
        "import_webp_texture": True,
    }
    known = bpy.ops.import_scene.gltf.get_rna_type().properties.keys()
    options = {key: wanted[key] for key in wanted if key in known}
    package = "io_scene_gltf2.blender.imp."
    with (
        patched(package + "animation", "restore_animation_on_object", _play_nothing),
        patched(package + "vnode", "pick_bind_pose", _then_mend_bind_pose),
    ):
        return set(bpy.ops.import_scene.gltf(filepath=readable(path, bpy.app.tempdir), **options))


def animation_names(path: str) -> list[str]:
    """Names of the file's animations in its own order, as the importer calls them; empty if they cannot be read."""
    try:
        with open(path, "rb") as file:
            head = file.read(20)
            is_binary = head[:4] == b"glTF"
            text = file.read(struct.unpack_from("<I", head, 12)[0]) if is_binary else head + file.read()
        animations = json.loads(text).get("animations", [])
        return [str(entry.get("name") or f"Anim_{index}") for index, entry in enumerate(animations)]
    except (OSError, ValueError, AttributeError, struct.error):
        return []


@contextlib.contextmanager
def patched(module_name: str, name: str, change: Callable[[Any], Any]) -> Iterator[None]:
    """Change a function of an importer while it runs."""
    module = importlib.import_module(module_name)
    original = getattr(module, name)
    setattr(module, name, change(original))
    try:
        yield
    finally:
        setattr(module, name, original)


def _play_nothing(restore: Callable[..., Any]) -> Callable[..., Any]:
    """The importer leaves the first animation playing. Blender evaluates it before the import returns, and its pose
    overwrites the one that the file states, which holds for all that another animation does not move."""
    return lambda *_: None


def _then_mend_bind_pose(pick_bind_pose: Callable[..., Any]) -> Callable[..., Any]:
    """The importer chains bones by the ratios of their bind matrices. A joint without vertices may have any matrix: at
    another scale than the rest (Rigify's controls by way of Sketchfab), it blows up all bones below it."""

    def pick(gltf: Any) -> None:
        pick_bind_pose(gltf)
        for skin in gltf.data.skins or []:
            if skin.inverse_bind_matrices is not None:
                _mend_skin(gltf, skin)

    return pick


def _mend_skin(gltf: Any, skin: Any) -> None:
    from io_scene_gltf2.io.imp.gltf2_io_binary import BinaryData
    from mathutils import Matrix, Quaternion, Vector

    stored = BinaryData.get_data_from_accessor(gltf, skin.inverse_bind_matrices)
    inverse_binds = {
        joint: np.array(gltf.matrix_gltf_to_blender(matrix), dtype=np.float64)
        for joint, matrix in zip(skin.joints, stored, strict=False)
        if gltf.vnodes[joint].type == type(gltf.vnodes[joint]).Bone
    }
    scales = {joint: np.cbrt(abs(np.linalg.det(matrix[:3, :3]))) for joint, matrix in inverse_binds.items()}
    usual = float(np.median(list(scales.values()))) if scales else 0.0
    if not usual > 0.0 or not np.isfinite(usual):
        return
    good = [joint for joint in inverse_binds if abs(scales[joint] / usual - 1.0) < SAME_SCALE]
    if len(good) == len(inverse_binds) or not good:
        return
    worlds: dict[Any, np.ndarray] = {}
    for joint in inverse_binds:
        if joint not in good:
            near = next((bone for bone in _ancestors(gltf, joint) if bone in good), good[0])
            to_joint = np.linalg.inv(_world(gltf, joint, worlds)) @ _world(gltf, near, worlds)
            inverse_binds[joint] = to_joint @ inverse_binds[near]
    for joint, inverse_bind in inverse_binds.items():
        bone = gltf.vnodes[joint]
        parent = inverse_binds.get(bone.parent)
        if parent is None and gltf.vnodes[bone.parent].type == type(bone).Bone:
            continue  # a bone that is no joint of this skin: the importer takes the default pose
        local = (np.eye(4) if parent is None else parent) @ np.linalg.inv(inverse_bind)
        place, turn, _ = Matrix(local.tolist()).decompose()
        bone.bind_trans, bone.bind_rot = place, turn
        bone.editbone_trans, bone.editbone_rot = Vector(place), Quaternion(turn)


def _ancestors(gltf: Any, node: Any) -> Iterator[Any]:
    while (node := gltf.vnodes[node].parent) is not None:
        yield node


def _world(gltf: Any, node: Any, known: dict[Any, np.ndarray]) -> np.ndarray:
    """Place and turn of a node in the default pose, without scale, relative to its armature."""
    if node not in known:
        from mathutils import Matrix

        vnode = gltf.vnodes[node]
        place, turn, _ = vnode.base_trs
        local = np.array(Matrix.Translation(place) @ turn.to_matrix().to_4x4(), dtype=np.float64)
        is_bone = vnode.parent is not None and gltf.vnodes[vnode.parent].type == type(vnode).Bone
        known[node] = _world(gltf, vnode.parent, known) @ local if is_bone else local
    return known[node]
