"""Vertex tracks into a GLB with a fitted skeleton: the object's own file, its meshes bound to bones."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from fourd.export.glb import check_tracks, describe, moving_parts, object_from_gltf
from fourd.export.joints import Hierarchy, hang_together
from fourd.export.skeleton import Skeleton, SkeletonSettings, fit_skeleton
from fourd.gltf import Gltf, read_glb
from fourd.objects.drawn import node_poses
from fourd.objects.static import StaticObject, bounding_radius


@dataclass(frozen=True, kw_only=True)
class SkinnedReport:
    """What was written."""

    path: Path
    size_bytes: int
    num_bones: int
    max_error: float
    """Largest distance of any vertex at any frame from the tracks, as a share of the radius."""
    mean_error: float
    joint_error: float
    """Largest distance, root mean square over the frames, by which a joint comes apart, as a share of the radius."""


def write_skinned_glb(
    static: StaticObject, tracks: np.ndarray, fps: float, path: Path, settings: SkeletonSettings | None = None
) -> SkinnedReport:
    """Write the object's own GLB with a skeleton fitted to its motion; everything else stays as it is.

    Bones form one tree under a node, `skeleton`, each with its own axis y from its joint towards its children's; they
    are numbered from the root on. Frame t is at t / fps seconds, keys are linear. How near the bones come to the tracks
    is in the report: what bends without bones, such as cloth, is better off with `write_animated_glb`.

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
    fitted = fit_skeleton(tracks, settings)
    skeleton, hierarchy = hang_together(fitted, static.vertices.astype(np.float64), static.faces)
    gltf.document.pop("animations", None)
    rest, joints = _add_bones(gltf, static, skeleton, hierarchy, fps)
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
        joint_error=float(hierarchy.apart.max()) / radius,
    )


def _add_bones(
    gltf: Gltf, static: StaticObject, skeleton: Skeleton, hierarchy: Hierarchy, fps: float
) -> tuple[np.ndarray, list[int]]:
    """Nodes for the bones with their animation; rest poses in the file's world, (B, 4, 4), and the nodes."""
    to_object = object_from_gltf(gltf, static)
    num_frames, num_bones = skeleton.translations.shape[:2]
    moves = np.tile(np.eye(4), (num_frames, num_bones, 1, 1))
    moves[..., :3, :3], moves[..., :3, 3] = skeleton.rotations, skeleton.translations
    moves = np.linalg.inv(to_object) @ moves @ to_object
    rest = _rest_poses(hierarchy, np.linalg.inv(to_object))
    # Frame by frame and, last, at rest.
    local = _by_parent(np.concatenate([moves @ rest, rest[None]]), hierarchy.parents)
    quats = Rotation.from_matrix(local[..., :3, :3].reshape(-1, 3, 3)).as_quat().reshape(-1, num_bones, 4)
    for frame in range(1, num_frames):  # the short way from key to key
        quats[frame] *= np.where((quats[frame] * quats[frame - 1]).sum(axis=1, keepdims=True) < 0, -1.0, 1.0)

    root = gltf.append("nodes", {"name": "skeleton"})
    joints = [
        gltf.append(
            "nodes",
            {
                "name": f"bone {bone}",
                "translation": local[-1, bone, :3, 3].tolist(),
                "rotation": quats[-1, bone].tolist(),
            },
        )
        for bone in range(num_bones)
    ]
    for bone, parent in enumerate(hierarchy.parents):
        gltf.document["nodes"][joints[parent] if parent >= 0 else root].setdefault("children", []).append(joints[bone])
    gltf.document["scenes"][gltf.document.get("scene", 0)]["nodes"].append(root)

    times = gltf.add_accessor((np.arange(num_frames) / fps).astype(np.float32), bounds=True)
    samplers, channels = [], []
    for bone, node in enumerate(joints):
        for name, values in (("translation", local[:-1, bone, :3, 3]), ("rotation", quats[:-1, bone])):
            output = gltf.add_accessor(np.ascontiguousarray(values, np.float32))
            samplers.append({"input": times, "output": output, "interpolation": "LINEAR"})
            channels.append({"sampler": len(samplers) - 1, "target": {"node": node, "path": name}})
    gltf.append("animations", {"name": "motion", "samplers": samplers, "channels": channels})
    return rest, joints


def _rest_poses(hierarchy: Hierarchy, world_from_object: np.ndarray) -> np.ndarray:
    """Bones at rest in the file's world, (B, 4, 4): at their heads, y towards their tails, z to the front."""
    heads, tails = (
        points @ world_from_object[:3, :3].T + world_from_object[:3, 3] for points in (hierarchy.heads, hierarchy.tails)
    )
    along = tails - heads
    length = np.linalg.norm(along, axis=1, keepdims=True)
    along = np.where(length > 1e-12, along / np.maximum(length, 1e-12), [0.0, 1.0, 0.0])
    # A bone that itself points to the front has the top at its back.
    front = np.where(np.abs(along[:, 2:]) < 0.9, [0.0, 0.0, 1.0], [0.0, -1.0, 0.0])
    across = np.cross(along, front)
    across /= np.linalg.norm(across, axis=1, keepdims=True)
    rest = np.tile(np.eye(4), (len(heads), 1, 1))
    rest[:, :3, :3] = np.stack([across, along, np.cross(across, along)], axis=-1)
    rest[:, :3, 3] = heads
    return rest


def _by_parent(world: np.ndarray, parents: np.ndarray) -> np.ndarray:
    """Poses (T, B, 4, 4) in the space of the parent, where there is one."""
    local = world.copy()
    child = np.flatnonzero(parents >= 0)
    local[:, child] = np.linalg.inv(world[:, parents[child]]) @ world[:, child]
    return local
