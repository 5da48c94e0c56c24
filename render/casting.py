"""What rays meet on the surfaces of a clip: the nearest solid triangle, as Cycles' pictures show it."""

from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from embreex.mesh_construction import TriangleMesh
from embreex.rtcore_scene import EmbreeScene

from render.surfaces import Floats, Ints, Moving, Pose

MAX_LAYERS = 16
"""Holes that a ray passes through, as many as Cycles lets it."""
PAST = 1e-5
"""World units behind a hole where the ray goes on."""
HELD_TRIANGLES = 4_000_000
"""In prepared scenes; some 200 bytes each."""

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Hits:
    """The nearest solid point on each ray."""

    triangle: Ints
    """Shape (ray,); -1 where there is none."""
    weights: Floats
    """Barycentric, shape (ray, 3); 0 where there is none."""

    def only(self, which: npt.NDArray[np.intp]) -> "Hits":
        """Some of the rays."""
        return Hits(triangle=self.triangle[which], weights=self.weights[which])


def points_of(hits: Hits, pose: Pose, triangles: Ints | None = None) -> Floats:
    """Where the hit points are in a pose. Shape (ray, 3); only for rays that hit.

    Args:
        hits: Of rays that all hit something.
        pose: This one or another one, with the same vertices.
        triangles: Those that the hits speak of, if they are not the pose's own.
    """
    corners = pose.positions[(pose.surface.triangles if triangles is None else triangles)[hits.triangle]]
    return np.asarray(np.einsum("rc,rcx->rx", hits.weights, corners.astype(np.float64)))


class Caster:
    """Casts rays at poses of a clip. Prepared scenes are kept as far as memory allows."""

    def __init__(self, moving: Moving) -> None:
        self._moving = moving
        self._scenes: OrderedDict[tuple[int, tuple[float, ...]], _Scene] = OrderedDict()
        fronts = [cover.solid("front") for cover in moving.covers]
        backs = [cover.solid("back") for cover in moving.covers]
        # One more entry for triangles without a material, whose number is -1.
        self._hidden_front = np.array([side is False for side in fronts] + [False])
        self._hidden_back = np.array([side is False for side in backs] + [False])
        self._by_picture = np.array([None in sides for sides in zip(fronts, backs, strict=True)] + [False])
        self._one_sided = bool((self._hidden_front != self._hidden_back).any())

    def cast(self, pose: int, origin: Floats, directions: Floats) -> Hits:
        """The nearest solid point on each of some rays from one point.

        Args:
            pose: Number of the pose.
            origin: Shape (3,).
            directions: Shape (ray, 3), of any length.
        """
        scene = self._scene(pose, origin)
        triangle = np.full(len(directions), -1, dtype=np.int32)
        weights = np.zeros((len(directions), 3))
        going = np.arange(len(directions))
        origins = np.broadcast_to(origin, directions.shape)
        for _ in range(MAX_LAYERS):
            if scene is None or len(going) == 0:
                break
            found, share, distance = scene.first(origins, directions[going])
            meets = found >= 0
            going, found, share = going[meets], found[meets], share[meets]
            solid = self._is_solid(pose, found, share, origin)
            triangle[going[solid]], weights[going[solid]] = found[solid], share[solid]
            ahead = directions[going[~solid]]
            reach = distance[meets][~solid] + PAST / np.linalg.norm(ahead, axis=1)
            origins = origins[meets][~solid] + ahead * reach[:, None]
            going = going[~solid]
        return Hits(triangle=triangle, weights=weights)

    def faces(self, pose: int, triangles: Ints, origin: Floats) -> Bools:
        """Whether triangles show their front to a point.

        Args:
            pose: Number of the pose.
            triangles: Vertex indices, shape (triangle, 3).
            origin: Shape (3,).
        """
        corners = self._moving.poses[pose].positions[triangles].astype(np.float64)
        normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        return np.asarray(np.einsum("tx,tx->t", normals, origin - corners[:, 0]) > 0)

    def _is_solid(self, pose: int, found: Ints, share: Floats, origin: Floats) -> Bools:
        surface = self._moving.poses[pose].surface
        materials = surface.materials[found]
        solid = np.ones(len(found), dtype=bool)
        for material in np.unique(materials[self._by_picture[materials]]):
            wears = materials == material
            uv = np.einsum("rc,rcx->rx", share[wears], surface.uvs[found[wears]].astype(np.float64))
            is_front = self.faces(pose, surface.triangles[found[wears]], origin)
            solid[wears] = self._moving.covers[material].solid_at(uv, is_front)
        return solid

    def _scene(self, pose: int, origin: Floats) -> "_Scene | None":
        key = pose, tuple(origin.tolist()) if self._one_sided else ()
        if key in self._scenes:
            self._scenes.move_to_end(key)
            return self._scenes[key]
        scene = self._prepared(pose, origin)
        if scene is not None:
            held = sum(len(other.numbers) for other in self._scenes.values())
            while self._scenes and held + len(scene.numbers) > HELD_TRIANGLES:
                _, oldest = self._scenes.popitem(last=False)
                held -= len(oldest.numbers)
            self._scenes[key] = scene
        return scene

    def _prepared(self, pose: int, origin: Floats) -> "_Scene | None":
        """The triangles of a pose that are not hidden from a point as a whole."""
        surface = self._moving.poses[pose].surface
        hidden = self._hidden_back[surface.materials]
        if self._one_sided:
            is_front = self.faces(pose, surface.triangles, origin)
            hidden = np.where(is_front, self._hidden_front[surface.materials], hidden)
        numbers = np.flatnonzero(~hidden)
        return _Scene(self._moving.poses[pose], numbers) if len(numbers) else None


class _Scene:
    """Some triangles of a pose, in Embree."""

    def __init__(self, pose: Pose, numbers: npt.NDArray[np.intp]) -> None:
        self.numbers = numbers.astype(np.int32)
        self._scene = EmbreeScene(robust=True)
        triangles = np.ascontiguousarray(pose.surface.triangles[numbers], dtype=np.int32)
        self._mesh = TriangleMesh(self._scene, np.array(pose.positions), triangles)

    def first(self, origins: Floats, directions: Floats) -> tuple[Ints, Floats, Floats]:
        """Triangle (-1 for none), barycentric weights, and distance in lengths of the direction, of each ray."""
        result = self._scene.run(origins.astype(np.float32), directions.astype(np.float32), output=True)
        place = result["primID"]
        triangle = np.where(place >= 0, self.numbers[np.maximum(place, 0)], -1).astype(np.int32)
        u, v = (np.clip(result[name].astype(np.float64), 0.0, 1.0) for name in "uv")
        weights = np.stack([np.maximum(1.0 - u - v, 0.0), u, v], axis=1)
        return triangle, weights / weights.sum(axis=1, keepdims=True), result["tfar"].astype(np.float64)
