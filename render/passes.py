"""Ground truth of a clip's pictures: one ray through each pixel's centre, against the exact surfaces."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from pipeline.cameras import project
from pipeline.truth_media import FLOWS, HIDDEN, NO_FLOW, NORMALS, SEEN
from render.casting import Caster, Hits, points_of
from render.surfaces import Floats, Moving

MARGIN_PX = 1
"""Around the projected vertices: rounding."""
BEHIND = 2e-4
"""World units. A point this little behind what a camera sees is what it sees: the diagonals of bent quads may differ
from frame to frame."""


@dataclass(frozen=True, kw_only=True)
class Scenery:
    """The surfaces of a clip and who looks at them."""

    moving: Moving
    c2w: Floats
    """Shape (view, frame, 4, 4)."""
    pose_of: npt.NDArray[np.intp]
    """Which pose a view shows at a frame. Shape (view, frame)."""
    intrinsics: tuple[float, float, float, float]
    width: int
    height: int

    @cached_property
    def caster(self) -> Caster:
        """Shared by all views, which see the same poses."""
        return Caster(self.moving)

    def neighbour(self, name: str, view: int, frame: int) -> tuple[int, int] | None:
        """View and frame that a flow leads to; None if there is none."""
        num_views, num_frames = self.pose_of.shape
        step = 1 if name.endswith("forward") else -1
        if name.startswith("view_"):
            return ((view + step) % num_views, frame) if num_views > 1 else None
        return (view, frame + step) if 0 <= frame + step < num_frames else None


@dataclass(frozen=True, kw_only=True)
class SeenPixels:
    """The pixels of a picture whose centres show a surface."""

    rows: npt.NDArray[np.intp]
    columns: npt.NDArray[np.intp]
    hits: Hits

    def only(self, which: npt.NDArray[np.intp]) -> "SeenPixels":
        """Some of them."""
        return SeenPixels(rows=self.rows[which], columns=self.columns[which], hits=self.hits.only(which))

    @property
    def centres(self) -> Floats:
        """Pixel x and y, shape (pixel, 2)."""
        return np.stack([self.columns, self.rows], axis=1) + 0.5


@dataclass(frozen=True, kw_only=True)
class ViewTruth:
    """What one view sees."""

    scenery: Scenery
    view: int
    frames: tuple[SeenPixels, ...]

    @classmethod
    def of(cls, scenery: Scenery, view: int) -> "ViewTruth":
        """Cast the rays of a view."""
        num_frames = scenery.pose_of.shape[1]
        return cls(scenery=scenery, view=view, frames=tuple(_look(scenery, view, frame) for frame in range(num_frames)))

    def mask(self) -> npt.NDArray[np.bool_]:
        """Which pixels show a surface. Shape (frame, height, width)."""
        scenery = self.scenery
        mask = np.zeros((len(self.frames), scenery.height, scenery.width), dtype=bool)
        for frame, seen in enumerate(self.frames):
            mask[frame, seen.rows, seen.columns] = True
        return mask

    def where(self, allowed: npt.NDArray[np.bool_]) -> "ViewTruth":
        """Only the pixels that are allowed, shape (frame, height, width)."""
        frames = [
            seen.only(np.flatnonzero(allowed[frame, seen.rows, seen.columns])) for frame, seen in enumerate(self.frames)
        ]
        return ViewTruth(scenery=self.scenery, view=self.view, frames=tuple(frames))

    def values(self, name: str) -> npt.NDArray[np.float32]:
        """A pass that has a value a pixel; NaN where there is none. Shape (frame, height, width) or (…, 3).

        Raises:
            ValueError: It is none of them.
        """
        scenery = self.scenery
        channels = (3,) if name in (*NORMALS, "coordinates") else ()
        shape = (len(self.frames), scenery.height, scenery.width, *channels)
        values = np.full(shape, np.nan, dtype=np.float32)
        for frame, seen in enumerate(self.frames):
            values[frame, seen.rows, seen.columns] = self._values_of(name, frame, seen)
        return values

    def flow(self, name: str) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8]]:
        """A flow in pixels, NaN where there is none, shape (frame, height, width, 2); and its state, without the last.

        Args:
            name: One of `FLOWS`; the scenery's vertices must be the same in all poses.
        """
        scenery = self.scenery
        shape = (len(self.frames), scenery.height, scenery.width)
        flow = np.full((*shape, 2), np.nan, dtype=np.float32)
        state = np.full(shape, NO_FLOW, dtype=np.uint8)
        for frame, seen in enumerate(self.frames):
            target = scenery.neighbour(name, self.view, frame)
            if target is not None and len(seen.rows):
                moved, states = self._flow_to(frame, seen, target)
                flow[frame, seen.rows, seen.columns] = moved
                state[frame, seen.rows, seen.columns] = states
        flow[state == NO_FLOW] = np.nan
        return flow, state

    def _values_of(self, name: str, frame: int, seen: SeenPixels) -> np.ndarray:
        scenery, hits = self.scenery, seen.hits
        c2w = scenery.c2w[self.view, frame]
        number = int(scenery.pose_of[self.view, frame])
        pose = scenery.moving.poses[number]
        surface = pose.surface
        if name == "depth":
            return np.asarray((points_of(hits, pose) - c2w[:3, 3]) @ c2w[:3, 2])
        if name == "coordinates":
            return points_of(hits, scenery.moving.poses[0], surface.triangles)
        if name == "object":
            return surface.objects[hits.triangle]
        if name == "material":
            return surface.materials[hits.triangle]
        if name in NORMALS:
            normals = self._normals(frame, hits)
            return normals @ c2w[:3, :3] if name == "camera_normal" else normals
        raise ValueError(f"no such pass: {name!r}")

    def _normals(self, frame: int, hits: Hits) -> Floats:
        """Unit shading normals in the world, turned round on faces that are seen from behind. Shape (pixel, 3)."""
        number = int(self.scenery.pose_of[self.view, frame])
        pose = self.scenery.moving.poses[number]
        assert pose.normals is not None
        normals = np.einsum("rc,rcx->rx", hits.weights, pose.normals[hits.triangle].astype(np.float64))
        corners = pose.positions[pose.surface.triangles[hits.triangle]].astype(np.float64)
        flat = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        lengths = np.linalg.norm(normals, axis=1, keepdims=True)
        normals = np.where(lengths > 1e-3, normals, flat)
        normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-300)
        from_behind = np.einsum("rx,rx->r", flat, self.scenery.c2w[self.view, frame, :3, 3] - corners[:, 0]) < 0
        return np.asarray(np.where(from_behind[:, None], -normals, normals))

    def _flow_to(self, frame: int, seen: SeenPixels, target: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """Flow and state of each seen pixel."""
        scenery, hits = self.scenery, seen.hits
        here, there = int(scenery.pose_of[self.view, frame]), int(scenery.pose_of[target])
        triangles = scenery.moving.poses[here].surface.triangles
        points = points_of(hits, scenery.moving.poses[there], triangles)
        camera = scenery.c2w[target]
        projected = project(points, camera, scenery.intrinsics)
        in_front = projected[:, 2] > 0
        inside = in_front & (projected[:, :2] >= 0).all(axis=1)
        inside &= (projected[:, 0] < scenery.width) & (projected[:, 1] < scenery.height)
        seen_there = np.zeros(len(points), dtype=bool)
        seen_there[inside] = self._is_seen(points[inside], camera[:3, 3], there)
        own = triangles[hits.triangle]
        caster = scenery.caster
        seen_there &= caster.faces(here, own, scenery.c2w[self.view, frame, :3, 3]) == caster.faces(
            there, own, camera[:3, 3]
        )
        state = np.where(seen_there, SEEN, np.where(in_front, HIDDEN, NO_FLOW)).astype(np.uint8)
        return projected[:, :2] - seen.centres, state

    def _is_seen(self, points: Floats, eye: Floats, pose: int) -> npt.NDArray[np.bool_]:
        """Whether nothing solid stands between an eye and points of a pose's surface."""
        scenery = self.scenery
        hits = scenery.caster.cast(pose, eye, points - eye)
        met = np.flatnonzero(hits.triangle >= 0)
        nearest = np.linalg.norm(points_of(hits.only(met), scenery.moving.poses[pose]) - eye, axis=1)
        seen = np.zeros(len(points), dtype=bool)
        seen[met] = nearest >= np.linalg.norm(points[met] - eye, axis=1) - BEHIND
        return seen


def _look(scenery: Scenery, view: int, frame: int) -> SeenPixels:
    """Cast a ray through each pixel's centre that may show something."""
    c2w = scenery.c2w[view, frame]
    pose = int(scenery.pose_of[view, frame])
    rows, columns = _candidates(scenery, c2w, pose)
    fx, fy, cx, cy = scenery.intrinsics
    rays = np.stack([(columns + 0.5 - cx) / fx, (rows + 0.5 - cy) / fy, np.ones(len(rows))], axis=1)
    hits = scenery.caster.cast(pose, c2w[:3, 3], rays @ c2w[:3, :3].T)
    met = np.flatnonzero(hits.triangle >= 0)
    return SeenPixels(rows=rows[met], columns=columns[met], hits=hits.only(met))


def _candidates(scenery: Scenery, c2w: Floats, pose: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Rows and columns of the pixels in the box around all vertices."""
    projected = project(scenery.moving.poses[pose].positions, c2w, scenery.intrinsics)
    low, high = np.zeros(2), np.array([scenery.width, scenery.height], dtype=float)
    if len(projected) and projected[:, 2].min() > 1e-3:
        low = np.clip(np.floor(projected[:, :2].min(axis=0)) - MARGIN_PX, 0, high)
        high = np.clip(np.ceil(projected[:, :2].max(axis=0)) + MARGIN_PX, low, high)
    rows, columns = np.mgrid[int(low[1]) : int(high[1]), int(low[0]) : int(high[0])]
    return rows.ravel(), columns.ravel()


def agreement(masks: Sequence[tuple[int, int]]) -> float:
    """IoU from (intersection, union) counts; 1 if nothing is there on either side."""
    union = sum(pair[1] for pair in masks)
    return sum(pair[0] for pair in masks) / union if union else 1.0


def look_at_all(scenery: Scenery) -> Iterator[ViewTruth]:
    """What each view sees, one after the other."""
    for view in range(scenery.pose_of.shape[0]):
        yield ViewTruth.of(scenery, view)


__all__ = ["FLOWS", "Scenery", "SeenPixels", "ViewTruth", "agreement", "look_at_all"]
