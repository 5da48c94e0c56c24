"""Vertex tracks into a GLB with a fitted skeleton: the object's own file, its meshes bound to bones."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from fourd.export.glb import bounding_radius, check_tracks, describe, moving_parts, object_from_gltf
from fourd.export.skeleton import Skeleton, SkeletonSettings, fit_skeleton
from fourd.gltf import Gltf, read_glb
from fourd.objects.drawn import node_poses
from fourd.objects.static import StaticObject


@dataclass(frozen=True, kw_only=True)
class SkinnedReport:
    """What was written."""

    path: Path
    size_bytes: int
    num_bones: int
    max_error: float
    """Largest distance of any vertex at any frame from the tracks, as a share of the radius."""
    mean_error: float


def write_skinned_glb(
    static: StaticObject, tracks: np.ndarray, fps: float, path: Path, settings: SkeletonSettings | None = None
) -> SkinnedReport:
    """Write the object's own GLB with a skeleton fitted to its motion; everything else stays as it is.

    Bones stand beside each other under one node, `skeleton`; frame t is at t / fps seconds, keys are linear. How near
    they come to the tracks is in the report: what bends without bones, such as cloth, is better off with
    `write_animated_glb`.

    Args:
        static: The object; frame 0.
        tracks: Shape (T, V, 3), finite, in the object's space, T >= 2.
        fps: Frames a second.
        path: The .glb to write or replace.
        settings: How many bones.

    Raises:
        ExportError: As `write_animated_glb`.
    """
    radius = bounding_radius(static.vertices)
    check_tracks(static, tracks, fps, radius)
    gltf = read_glb(static.source)
    nodes = moving_parts(static, gltf)
    skeleton = fit_skeleton(tracks, settings)
    gltf.document.pop("animations", None)
    rest, joints = _add_bones(gltf, static, skeleton, fps)
    poses = node_poses(gltf)
    for node, primitives in nodes.items():
        binds = np.linalg.inv(rest) @ poses[node]
        columns = binds.transpose(0, 2, 1).reshape(-1, 16).astype(np.float32)  # glTF counts by columns
        # Named, the root would make Blender guess a bind pose from these matrices, which drops the node's scale.
        skin = {"joints": joints, "inverseBindMatrices": gltf.add_accessor(columns)}
        gltf.document["nodes"][node]["skin"] = gltf.append("skins", skin)
        mesh = gltf.document["meshes"][gltf.document["nodes"][node]["mesh"]]
        for primitive in primitives:
            attributes = mesh["primitives"][primitive.primitive]["attributes"]
            weights = skeleton.weights[primitive.vertices].astype(np.float32)
            # A joint without weight is to be 0.
            bones = np.where(weights > 0, skeleton.joints[primitive.vertices], 0).astype(np.uint8)
            mesh["primitives"][primitive.primitive]["attributes"] = {
                **attributes,
                "JOINTS_0": gltf.add_vertex_attribute(bones),
                "WEIGHTS_0": gltf.add_vertex_attribute(weights / weights.sum(axis=1, keepdims=True)),
            }
    describe(gltf, static, fps, len(tracks))
    distance = np.linalg.norm(skeleton.posed(tracks[0].astype(np.float64)) - tracks, axis=2) / radius
    return SkinnedReport(
        path=path,
        size_bytes=gltf.write(path),
        num_bones=skeleton.rotations.shape[1],
        max_error=float(distance.max()),
        mean_error=float(distance.mean()),
    )


def _add_bones(gltf: Gltf, static: StaticObject, skeleton: Skeleton, fps: float) -> tuple[np.ndarray, list[int]]:
    """Nodes for the bones with their animation; rest poses in the file's world, (B, 4, 4), and the nodes."""
    to_object = object_from_gltf(gltf, static)
    num_frames, num_bones = skeleton.translations.shape[:2]
    moves = np.tile(np.eye(4), (num_frames, num_bones, 1, 1))
    moves[..., :3, :3], moves[..., :3, 3] = skeleton.rotations, skeleton.translations
    moves = np.linalg.inv(to_object) @ moves @ to_object
    rest = np.tile(np.eye(4), (num_bones, 1, 1))
    for bone in range(num_bones):
        share = (skeleton.weights * (skeleton.joints == bone)).sum(axis=1)
        middle = (share[:, None] * static.vertices).sum(axis=0) / max(float(share.sum()), 1e-12)
        rest[bone, :3, 3] = (np.linalg.inv(to_object) @ [*middle, 1.0])[:3]
    world = moves @ rest
    root = gltf.append("nodes", {"name": "skeleton"})
    joints = [
        gltf.append("nodes", {"name": f"bone {bone}", "translation": rest[bone, :3, 3].tolist()})
        for bone in range(num_bones)
    ]
    gltf.document["nodes"][root]["children"] = joints
    gltf.document["scenes"][gltf.document.get("scene", 0)]["nodes"].append(root)

    quats = Rotation.from_matrix(world[..., :3, :3].reshape(-1, 3, 3)).as_quat().reshape(num_frames, num_bones, 4)
    for frame in range(1, num_frames):  # the short way from key to key
        quats[frame] *= np.where((quats[frame] * quats[frame - 1]).sum(axis=1, keepdims=True) < 0, -1.0, 1.0)
    times = gltf.add_accessor((np.arange(num_frames) / fps).astype(np.float32), bounds=True)
    samplers, channels = [], []
    for bone, node in enumerate(joints):
        for name, values in (("translation", world[:, bone, :3, 3]), ("rotation", quats[:, bone])):
            output = gltf.add_accessor(np.ascontiguousarray(values, np.float32))
            samplers.append({"input": times, "output": output, "interpolation": "LINEAR"})
            channels.append({"sampler": len(samplers) - 1, "target": {"node": node, "path": name}})
    gltf.append("animations", {"name": "motion", "samplers": samplers, "channels": channels})
    return rest, joints
