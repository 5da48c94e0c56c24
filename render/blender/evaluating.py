"""The deformed mesh as points in the asset's own space: Blender's world, z up, before any normalisation."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from render.blender import motion
from render.blender.importing import FARTHEST
from render.blender.motion import Floats
from render.blender.simulating import emitted_name, is_emitted
from render.blender.strands import MESH_LIKE, is_shown, may_have_strands, strand_points
from render.protocol import BadAsset

LAST_FRAME = 1_048_574
"""Blender's timeline ends here, and silently shows its last frame for what lies beyond."""
MAX_POINTS = 200_000
"""Statistics of larger meshes are taken over every n-th vertex and edge. Boxes are always over all."""

COLLAPSED = 1e-5
"""An instance smaller than this share of the largest one is a point."""


@dataclass(frozen=True, kw_only=True)
class Topology:
    """What the geometry consists of while its vertices move."""

    signature: tuple[tuple[str, int], ...]
    """Name and number of vertices of each drawn instance, in the order of evaluation."""
    used: tuple[npt.NDArray[np.int64] | None, ...]
    """Of each instance, the vertices that belong to a face, or None for all: only faces are drawn."""
    edges: npt.NDArray[np.int64]
    """Pairs of indices into the points, thinned to `MAX_POINTS`."""
    step: int
    """Statistics see every `step`-th point."""
    num_vertices: int
    num_triangles: int

    @property
    def counts(self) -> list[int]:
        """Numbers that go into ids."""
        return [self.num_vertices, self.num_triangles, len(self.signature)]


@dataclass(frozen=True, kw_only=True)
class Track:
    """The geometry over some frames."""

    boxes: Floats
    """Shape (frame, 2, 3); over all vertices."""
    framed_boxes: Floats
    """The same over all that is framed: with hair, particles and so on."""
    points: Floats
    """Shape (frame, point, 3): sampled vertices, or the boxes' corners where vertices come and go."""
    edge_lengths: Floats
    """Shape (frame, edge); no edges where vertices come and go."""
    visible: npt.NDArray[np.bool_]
    """Shape (frame,). Where nothing is visible, the box is that of another frame."""
    finite: bool
    """False if any coordinate is not a number; the arrays are empty then."""


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """The geometry at one frame, in the asset's own space."""

    parts: list[Floats]
    """Vertices of each drawn instance, shape (point, 3); only those of faces, if the topology is the known one."""
    same: bool
    """The topology is the known one."""

    @property
    def finite(self) -> bool:
        """All coordinates are numbers of some sense."""
        return all((np.abs(part) < FARTHEST).all() for part in self.parts)

    def visible(self) -> Floats:
        """The vertices that take part in framing. Shape (point, 3).

        What is scaled down to a point is out of sight, as a sword between two fights, wherever that point lies.
        """
        extents = [float(np.ptp(part, axis=0).max()) for part in self.parts]
        largest = max(extents, default=0.0)
        kept = [part for part, extent in zip(self.parts, extents, strict=True) if extent > COLLAPSED * largest]
        return np.concatenate(kept) if kept else np.zeros((0, 3))


@dataclass
class Evaluator:
    """Evaluates the stage at any time. Meshes that nothing can deform are read once."""

    stage: Any
    fps: float
    factor: float
    """stage = factor * asset."""
    unseen: set[str] = field(default_factory=set)
    """Full names of objects that take no part."""
    may_move: bool = True
    """The stage may be put elsewhere and resized as a whole, and everything follows."""
    rigid_meshes: dict[str, Floats] = field(default_factory=dict)
    with_strands: bool = False
    """Something may be drawn that does not count as motion."""

    def __post_init__(self) -> None:
        self.with_strands = may_have_strands(self.stage.objects)

    def strands(self) -> Floats:
        """Points that enclose what is drawn and does not count as motion at the present frame. Shape (point, 3)."""
        return strand_points(self.stage, self.unseen) / self.factor if self.with_strands else np.zeros((0, 3))

    def go_to(self, time_s: float) -> None:
        """Move the stage to a time on the file's timeline.

        Raises:
            BadAsset: Blender's timeline does not reach that far.
        """
        frame, subframe = frame_of(time_s, self.fps)
        if abs(frame) > LAST_FRAME:
            raise BadAsset("absurd_duration", f"{time_s} s is beyond Blender's timeline")
        self.stage.frame_set(frame, subframe=subframe)

    def topology(self) -> Topology:
        """The topology at the present frame.

        Raises:
            BadAsset: There are no faces.
        """
        signature, used, edges, num_points, num_triangles = [], [], [], 0, 0
        for name, _, mesh, _ in self.instances():
            corner_vertices = np.empty(len(mesh.loops), dtype=np.int32)
            mesh.loops.foreach_get("vertex_index", corner_vertices)
            in_face = np.zeros(len(mesh.vertices), dtype=bool)
            in_face[corner_vertices] = True
            keep = None if in_face.all() else np.flatnonzero(in_face)
            ends = np.empty(2 * len(mesh.edges), dtype=np.int32)
            mesh.edges.foreach_get("vertices", ends)
            place = np.cumsum(in_face, dtype=np.int64) - 1 + num_points
            pairs = ends.reshape(-1, 2)
            edges.append(place[pairs[in_face[pairs].all(axis=1)]])
            signature.append((name, len(mesh.vertices)))
            used.append(keep)
            num_points += int(in_face.sum())
            num_triangles += len(mesh.loops) - 2 * len(mesh.polygons)
        if num_triangles == 0:
            raise BadAsset("no_mesh", "no face to draw")
        all_edges = np.concatenate(edges)
        return Topology(
            signature=tuple(signature),
            used=tuple(used),
            edges=all_edges[:: max(1, math.ceil(len(all_edges) / MAX_POINTS))],
            step=max(1, math.ceil(num_points / MAX_POINTS)),
            num_vertices=num_points,
            num_triangles=num_triangles,
        )

    def snapshot(self, topology: Topology) -> Snapshot:
        """All drawn vertices at the present frame."""
        parts: list[Floats] = []
        signature = []
        for name, thing, mesh, matrix in self.instances():
            linear = matrix[:3, :3].T / self.factor
            parts.append(self._local(thing, mesh) @ linear + matrix[:3, 3] / self.factor)
            signature.append((name, len(mesh.vertices)))
        same = tuple(signature) == topology.signature
        if same:
            parts = [part if keep is None else part[keep] for part, keep in zip(parts, topology.used, strict=True)]
        return Snapshot(parts=parts, same=same)

    def track(self, topology: Topology, times_s: list[float]) -> Track:
        """The geometry at the given times, each evaluated once."""
        boxes: list[Floats] = []
        framed: list[Floats] = []
        points: list[Floats] = []
        lengths: list[Floats] = []
        same = True
        seen: dict[tuple[int, float], int] = {}
        for time_s in times_s:
            key = frame_of(time_s, self.fps)
            if key in seen:
                continue
            self.go_to(time_s)
            now = self.snapshot(topology)
            if not now.finite:
                return _NOT_FINITE
            seen[key] = len(boxes)
            visible = now.visible()
            boxes.append(_box_of(visible))
            framed.append(_box_of(np.concatenate([visible, self.strands()])))
            same &= now.same
            if same:
                every = np.concatenate(now.parts)
                ends = every[topology.edges]
                points.append(every[:: topology.step])
                lengths.append(np.linalg.norm(ends[:, 1] - ends[:, 0], axis=-1))
        order = [seen[frame_of(time_s, self.fps)] for time_s in times_s]
        shown = np.stack(boxes)[order]
        visible = np.isfinite(shown[:, 0, 0])
        shown = _without_gaps(shown, visible)
        whole = np.stack(framed)[order]
        return Track(
            boxes=shown,
            framed_boxes=_without_gaps(whole, np.isfinite(whole[:, 0, 0])),
            points=np.stack(points)[order] if same else motion.corners(shown),
            edge_lengths=np.stack(lengths)[order] if same else np.zeros((len(order), 0)),
            visible=visible,
            finite=True,
        )

    def instances(self) -> Iterator[tuple[str, Any, Any, Floats]]:
        """Name, evaluated object, evaluated mesh and world matrix of all surfaces that count as motion."""
        return self._surfaces(emitted=False)

    def emitted(self) -> Iterator[tuple[str, Any, Any, Floats]]:
        """The same of what particles carry. Each has one name in all frames."""
        return self._surfaces(emitted=True) if self.with_strands else iter(())

    def _surfaces(self, emitted: bool) -> Iterator[tuple[str, Any, Any, Floats]]:
        for instance in self.stage.view_layers[0].depsgraph.object_instances:
            thing = instance.object
            if thing.type not in MESH_LIKE or not instance.show_self or thing.name_full in self.unseen:
                continue
            if is_emitted(instance) != emitted or not is_shown(instance):
                continue
            name = emitted_name(instance) if emitted else thing.name_full
            matrix = np.array(instance.matrix_world, dtype=np.float64)
            if thing.type == "MESH":
                if len(thing.data.polygons):
                    yield name, thing, thing.data, matrix
                continue
            mesh = thing.to_mesh()
            if mesh is not None and len(mesh.polygons):
                yield name, thing, mesh, matrix
            thing.to_mesh_clear()

    def _local(self, thing: Any, mesh: Any) -> Floats:
        original = thing.original
        rigid = thing.type == "MESH" and not original.modifiers and original.type == "MESH"
        rigid = rigid and original.data is not None and original.data.shape_keys is None
        if rigid and original.name_full in self.rigid_meshes:
            return self.rigid_meshes[original.name_full]
        buffer = np.empty(3 * len(mesh.vertices), dtype=np.float32)
        mesh.attributes["position"].data.foreach_get("vector", buffer)
        local = buffer.reshape(-1, 3).astype(np.float64)
        if rigid:
            self.rigid_meshes[original.name_full] = local
        return local


def frame_of(time_s: float, fps: float) -> tuple[int, float]:
    """Whole frame and fraction of a time on the timeline."""
    exact = round(time_s * fps, 4)
    whole = math.floor(exact)
    return whole, round(exact - whole, 4)


def _box_of(points: Floats) -> Floats:
    """NaN around nothing."""
    return motion.box_of(points) if len(points) else np.full((2, 3), np.nan)


def _without_gaps(boxes: Floats, visible: npt.NDArray[np.bool_]) -> Floats:
    """Where nothing is visible, the box of the last frame that shows something, or else of the first."""
    shown = np.flatnonzero(visible)
    if len(shown) == 0:
        return np.zeros_like(boxes)
    last = np.searchsorted(shown, np.arange(len(boxes)), side="right") - 1
    return boxes[shown[np.maximum(last, 0)]]


_NOT_FINITE = Track(
    boxes=np.zeros((0, 2, 3)),
    framed_boxes=np.zeros((0, 2, 3)),
    points=np.zeros((0, 0, 3)),
    edge_lengths=np.zeros((0, 0)),
    visible=np.zeros(0, dtype=bool),
    finite=False,
)
