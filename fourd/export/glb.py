"""Vertex tracks into an animated GLB: the object's own file, and morph targets that one animation goes through."""

import copy
import math
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fourd.export.errors import ExportError
from fourd.export.keyframes import fewest_keys, interpolated, smoothed
from fourd.export.normals import SurfaceFrame
from fourd.gltf import Gltf, read_glb
from fourd.objects.drawn import node_poses, triangles_of
from fourd.objects.static import Primitive, StaticObject, bounding_radius

STILL_SHARE = 0.1
"""Of the key tolerance: a vertex that a target moves by less is left out of it. The keys get the rest."""
START_TOLERANCE = 1e-4
"""Of the radius: how far frame 0 of the tracks may lie from the object."""


@dataclass(frozen=True, kw_only=True)
class GlbSettings:
    """How tracks become key frames. Tolerances are shares of the object's bounding radius."""

    smooth_tolerance: float = 0.0
    """Trembling is smoothed away, but no vertex moved further than this; 0 smooths nothing."""
    key_tolerance: float = 5e-4
    """The fewest key frames are kept from which no vertex is further off at any frame; 0 keeps every frame."""
    normals: bool = True
    """Morph normals (and tangents) with the surface. Without, files are half as large and lit wrongly."""
    quantise: bool = False
    """Store targets in 16 and 8 bits (KHR_mesh_quantization) where that keeps to the tolerance: half the size.

    Blender, three.js, Babylon and model-viewer read it; a viewer without the extension refuses the file."""

    def __post_init__(self) -> None:
        for name in ("smooth_tolerance", "key_tolerance"):
            if not 0.0 <= getattr(self, name) <= 0.1:
                raise ValueError(f"{name} must lie in 0..0.1, got {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True)
class GlbReport:
    """What was written."""

    path: Path
    size_bytes: int
    source_bytes: int
    """Size of the object without motion."""
    num_frames: int
    fps: float
    keys: tuple[int, ...]
    """Frames that are key frames; all others are interpolated."""
    max_error: float
    """Largest distance of any vertex at any frame from the tracks given, as a share of the radius."""
    moving_nodes: tuple[int, ...]


def write_animated_glb(
    static: StaticObject, tracks: np.ndarray, fps: float, path: Path, settings: GlbSettings | None = None
) -> GlbReport:
    """Write the object's own GLB with its motion: hierarchy, names, materials, textures and UVs stay as they are.

    Each node that moves gets a morph target a key frame; one animation drives all of them with linear keys, frame t at
    t / fps seconds. A mesh that several nodes draw is given to each by itself. Animations of the source are dropped.

    Args:
        static: The object; frame 0.
        tracks: Shape (T, V, 3), finite, in the object's space, T >= 2.
        fps: Frames a second.
        path: The .glb to write or replace.
        settings: Tolerances and what is stored.

    Raises:
        ExportError: `mismatch`: tracks and object do not belong together; `not_finite`; `unsupported`: the source has
            skins, morph targets or compression; `malformed`: the source is broken; `too_large`.
    """
    settings = settings or GlbSettings()
    radius = bounding_radius(static.vertices)
    check_tracks(static, tracks, fps, radius)
    gltf = read_glb(static.source)
    nodes = moving_parts(static, gltf)
    smooth = smoothed(tracks, tolerance=settings.smooth_tolerance * radius)
    still = STILL_SHARE * settings.key_tolerance * radius
    keys = fewest_keys(smooth, tolerance=settings.key_tolerance * radius - still)
    # From frame 0 on: the object, plus what the tracks move since.
    deltas = (smooth[keys] - smooth[0]).astype(np.float64)
    deltas[np.linalg.norm(deltas, axis=2) <= still] = 0.0

    gltf.document.pop("animations", None)
    moving = []
    for node, primitives in nodes.items():
        used = np.unique(np.concatenate([primitive.vertices for primitive in primitives]))
        if deltas[:, used].any():
            names = [f"frame {key}" for key in keys[1:]]
            _add_targets(gltf, static, primitives, deltas=deltas[1:], names=names, settings=settings, still=still)
            moving.append(node)
    if moving:
        _add_animation(gltf, moving, keys, fps)
    describe(gltf, static, fps, len(tracks))
    written = interpolated(_at_keys(static.vertices + deltas, keys, len(tracks)), keys)
    return GlbReport(
        path=path,
        size_bytes=gltf.write(path),
        source_bytes=static.source.stat().st_size,
        num_frames=len(tracks),
        fps=fps,
        keys=tuple(keys),
        max_error=float(np.linalg.norm(written - tracks, axis=2).max(initial=0.0)) / radius,
        moving_nodes=tuple(moving),
    )


def check_tracks(static: StaticObject, tracks: np.ndarray, fps: float, radius: float) -> None:
    """Whether these are tracks of this object.

    Raises:
        ExportError: `mismatch` or `not_finite`.
    """
    if not (math.isfinite(fps) and fps > 0):
        raise ValueError(f"fps must be positive, got {fps}")
    wanted = (len(static.vertices), 3)
    if tracks.ndim != 3 or tracks.shape[1:] != wanted or len(tracks) < 2:
        message = f"{static.source}: tracks have shape {tracks.shape}, not (2 or more frames, {wanted[0]}, 3)"
        raise ExportError("mismatch", f"{message}; they belong to another object")
    if not np.isfinite(tracks).all():
        frame = int(np.argmax(~np.isfinite(tracks).all(axis=(1, 2))))
        raise ExportError("not_finite", f"{static.source}: frame {frame} of the tracks has NaN or infinite positions")
    apart = float(np.linalg.norm(tracks[0] - static.vertices, axis=1).max(initial=0.0)) / radius
    if apart > START_TOLERANCE:
        message = f"{static.source}: frame 0 of the tracks lies {apart:.2g} of the radius off the object"
        raise ExportError("mismatch", f"{message}; frame 0 must be the object itself")


def moving_parts(static: StaticObject, gltf: Gltf) -> dict[int, list[Primitive]]:
    """The object's primitives by node. Afterwards each of these nodes has a mesh of its own.

    Raises:
        ExportError: `mismatch` or `unsupported`.
    """
    nodes: dict[int, list[Primitive]] = defaultdict(list)
    for primitive in static.primitives:
        nodes[primitive.node].append(primitive)
    taken = set()
    try:
        for node, primitives in nodes.items():
            entry = gltf.document["nodes"][node]
            mesh = gltf.document["meshes"][entry["mesh"]]
            if "skin" in entry or "weights" in entry or any("targets" in part for part in mesh["primitives"]):
                message = f"{static.source}: node {node} has a skin or morph targets"
                raise ExportError("unsupported", f"{message}; give the object posed, without them")
            for primitive in primitives:
                _check_primitive(static, gltf, primitive, mesh["primitives"][primitive.primitive])
            if entry["mesh"] in taken:
                entry["mesh"] = gltf.append("meshes", copy.deepcopy(mesh))
            taken.add(entry["mesh"])
    except (KeyError, IndexError, TypeError) as error:
        raise ExportError("mismatch", f"{static.source}: not the file that the object was read from") from error
    return nodes


def _check_primitive(static: StaticObject, gltf: Gltf, primitive: Primitive, entry: dict[str, Any]) -> None:
    if "KHR_draco_mesh_compression" in entry.get("extensions", {}):
        raise ExportError("unsupported", f"{static.source}: compressed; write it as a GLB without compression")
    if gltf.document["accessors"][entry["attributes"]["POSITION"]]["count"] != len(primitive.vertices):
        raise ExportError("mismatch", f"{static.source}: not the file that the object was read from")


def _add_targets(
    gltf: Gltf,
    static: StaticObject,
    primitives: list[Primitive],
    *,
    deltas: np.ndarray,
    names: list[str],
    settings: GlbSettings,
    still: float,
) -> None:
    """Morph targets on the mesh of one node.

    Args:
        gltf: What they are added to.
        static: The object.
        primitives: All of one node.
        deltas: Shape (K, V, 3), object space, since frame 0.
        names: One a target.
        settings: What is stored.
        still: Error that rounding may make, object space.
    """
    mesh = gltf.document["meshes"][gltf.document["nodes"][primitives[0].node]["mesh"]]
    surface = Surface.of(gltf, static, primitives) if settings.normals else None
    turned = [surface.turned(deltas[key]) for key in range(len(deltas))] if surface else []
    done: dict[tuple[int | None, ...], list[dict[str, int]]] = {}
    for place, primitive in enumerate(primitives):
        entry = mesh["primitives"][primitive.primitive]
        attributes = tuple(entry["attributes"].get(name) for name in ("POSITION", "NORMAL", "TANGENT"))
        if attributes not in done:
            primitive_from_object = linear_inverse(primitive)
            positions = (deltas[:, primitive.vertices] @ primitive_from_object.T).astype(np.float32)
            stretch = float(np.linalg.norm(primitive.object_from_primitive[:3, :3], 2))
            columns = {"POSITION": _stored(gltf, positions, settings.quantise, still / max(stretch, 1e-30))}
            for name in ("NORMAL", "TANGENT"):
                if surface and name in entry["attributes"]:
                    moved = np.stack([frame[place][name] for frame in turned])
                    columns[name] = _stored(gltf, moved, settings.quantise, 1.0)
            done[attributes] = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        entry["targets"] = done[attributes]
    # What is not in the object (lines, points) stands still, but must have as many targets.
    for entry in mesh["primitives"]:
        if "targets" not in entry:
            still_block = np.zeros(
                (len(names), gltf.document["accessors"][entry["attributes"]["POSITION"]]["count"], 3)
            )
            zero = gltf.add_attributes(list(still_block.astype(np.float32)), bounds=True)
            entry["targets"] = [{"POSITION": index} for index in zero]
    mesh["weights"] = [0.0] * len(names)
    extras = mesh.get("extras")
    mesh["extras"] = {**(extras if isinstance(extras, dict) else {}), "targetNames": names}


def _stored(gltf: Gltf, blocks: np.ndarray, quantise: bool, allowed: float) -> list[int]:
    """Accessors of one attribute's deltas, (K, n, 3); for positions `allowed` is the error that rounding may make."""
    largest = float(np.abs(blocks).max(initial=0.0))
    dtype = np.int8 if allowed >= 1.0 else np.int16
    if not quantise or largest > 1.0 or (dtype == np.int16 and allowed < 0.87 / np.iinfo(dtype).max):
        return gltf.add_attributes(list(blocks), bounds=True)
    for collection in ("extensionsUsed", "extensionsRequired"):
        names = gltf.document.setdefault(collection, [])
        if "KHR_mesh_quantization" not in names:
            names.append("KHR_mesh_quantization")
    integers = np.round(blocks * np.iinfo(dtype).max).astype(dtype)
    return gltf.add_attributes(list(integers), bounds=True, normalized=True)


@dataclass(frozen=True, kw_only=True)
class Surface:
    """One node's surface at rest, with the normals and tangents of its file."""

    static: StaticObject
    primitives: list[Primitive]
    frame: SurfaceFrame
    normals: list[np.ndarray]
    """For each primitive (n, 3) in its own space; zero where the file has none."""
    tangents: list[np.ndarray]

    @classmethod
    def of(cls, gltf: Gltf, static: StaticObject, primitives: list[Primitive]) -> "Surface":
        """Read it from the file."""
        mesh = gltf.document["meshes"][gltf.document["nodes"][primitives[0].node]["mesh"]]
        normals, tangents, faces, num_before = [], [], [], 0
        for primitive in primitives:
            entry = mesh["primitives"][primitive.primitive]
            count = len(primitive.vertices)
            normals.append(_directions(gltf, entry, "NORMAL", count))
            tangents.append(_directions(gltf, entry, "TANGENT", count))
            faces.append(triangles(gltf, entry, count) + num_before)
            num_before += count
        vertices = np.concatenate([primitive.vertices for primitive in primitives])
        world = [n @ linear_inverse(p) for n, p in zip(normals, primitives, strict=True)]
        frame = SurfaceFrame.of(
            static.vertices[vertices].astype(np.float64), np.concatenate(faces), vertices, _unit(np.concatenate(world))
        )
        return cls(static=static, primitives=primitives, frame=frame, normals=normals, tangents=tangents)

    def turned(self, delta: np.ndarray) -> list[dict[str, np.ndarray]]:
        """How NORMAL and TANGENT of each primitive change, (n, 3) in its own space, when vertices move by (V, 3)."""
        counts = np.cumsum([len(primitive.vertices) for primitive in self.primitives])[:-1]
        vertices = np.concatenate([primitive.vertices for primitive in self.primitives])
        moved = self.frame.positions + delta[vertices]
        world = [n @ linear_inverse(p) for n, p in zip(self.normals, self.primitives, strict=True)]
        carried = np.split(self.frame.carried(moved, _unit(np.concatenate(world)), covariant=True), counts)
        changes = [
            {"NORMAL": _change(before, after @ primitive.object_from_primitive[:3, :3])}
            for before, after, primitive in zip(self.normals, carried, self.primitives, strict=True)
        ]
        if any(tangent.any() for tangent in self.tangents):
            world = [t @ p.object_from_primitive[:3, :3].T for t, p in zip(self.tangents, self.primitives, strict=True)]
            carried = np.split(self.frame.carried(moved, _unit(np.concatenate(world)), covariant=False), counts)
            for change, before, after, primitive in zip(changes, self.tangents, carried, self.primitives, strict=True):
                change["TANGENT"] = _change(before, after @ linear_inverse(primitive).T)
        return changes


def _directions(gltf: Gltf, entry: dict[str, Any], name: str, count: int) -> np.ndarray:
    index = entry["attributes"].get(name)
    if index is None:
        return np.zeros((count, 3))
    values = gltf.array(index)[:, :3].astype(np.float64)
    if values.shape != (count, 3) or not np.isfinite(values).all():
        raise ExportError("malformed", f"{gltf.path}: {name} does not fit its mesh; write the GLB anew")
    return _unit(values)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-20)


def _change(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """From unit vectors to `after` made unit; what is rounding only, and where the file had nothing, is zero."""
    change = np.where(np.abs(before).any(axis=1, keepdims=True), _unit(after) - before, 0.0)
    return np.where(np.abs(change).max(axis=1, keepdims=True) > 1e-4, change, 0.0).astype(np.float32)


def linear_inverse(primitive: Primitive) -> np.ndarray:
    """(3, 3) from the object's directions to the primitive's; where its node flattens it, the nearest there is."""
    return np.linalg.pinv(primitive.object_from_primitive[:3, :3], rcond=1e-9)


def triangles(gltf: Gltf, entry: dict[str, Any], num_vertices: int) -> np.ndarray:
    """A primitive's faces, (F, 3) indices of its own vertices; none for lines and points.

    Raises:
        ExportError: `malformed`: an index points to no vertex.
    """
    corners = gltf.array(entry["indices"])[:, 0] if "indices" in entry else np.arange(num_vertices)
    corners = corners.astype(np.int64)
    if len(corners) and not 0 <= corners.min() <= corners.max() < num_vertices:
        raise ExportError("malformed", f"{gltf.path}: a face has a corner that is no vertex; write the GLB anew")
    return triangles_of(corners, entry.get("mode", 4))


def _add_animation(gltf: Gltf, nodes: list[int], keys: list[int], fps: float) -> None:
    """One animation: at key k target k is on and all others off, linear between."""
    times = (np.asarray(keys) / fps).astype(np.float32)
    # Row 0 is frame 0, where no target is on.
    weights = np.eye(len(keys), dtype=np.float32)[:, 1:]
    sampler = {
        "input": gltf.add_accessor(times, bounds=True),
        "output": gltf.add_accessor(weights.reshape(-1)),
        "interpolation": "LINEAR",
    }
    channels = [{"sampler": 0, "target": {"node": node, "path": "weights"}} for node in nodes]
    gltf.append("animations", {"name": "motion", "samplers": [sampler], "channels": channels})


def describe(gltf: Gltf, static: StaticObject, fps: float, num_frames: int) -> None:
    """Write down in the GLB what it does not know: the frame rate, and its place in the clip's space."""
    matrix = object_from_gltf(gltf, static)
    extras = gltf.document["asset"].get("extras")
    gltf.document["asset"]["extras"] = {
        **(extras if isinstance(extras, dict) else {}),
        "mv4d": {"fps": fps, "num_frames": num_frames, "object_from_gltf": matrix.tolist()},
    }


def object_from_gltf(gltf: Gltf, static: StaticObject) -> np.ndarray:
    """(4, 4): from the world of the file, y up, to the object's space."""
    poses = node_poses(gltf)
    placed = np.hstack([primitive.object_from_primitive for primitive in static.primitives])
    given = np.hstack([poses[primitive.node] for primitive in static.primitives])
    # Least squares over all nodes, as one of them may be flat.
    matrix: np.ndarray = placed @ np.linalg.pinv(given)
    return matrix


def _at_keys(positions: np.ndarray, keys: list[int], num_frames: int) -> np.ndarray:
    result = np.zeros((num_frames, *positions.shape[1:]))
    result[keys] = positions
    return result
