"""What is moved: an object's points, its surface, and the Gaussians on it, at frame 0."""

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fourd.gaussians import Gaussians
from fourd.losses.arap import Neighbours
from fourd.motion.binding import Binding
from fourd.motion.field import Points
from fourd.motion.graph import edges_of, nearest_edges, weld
from fourd.objects.errors import ObjectError
from fourd.objects.on_mesh import GaussiansOnMesh, OnMeshSettings, gaussians_on_surface
from fourd.objects.static import StaticObject

MAX_VERTICES = 500_000
FARTHEST = 1.5
"""From the origin; the clip's space has the object in the unit sphere over all frames."""
OPACITY = 1 / (1 + math.exp(-3.0))
"""Of a mesh whose materials are not known: 0.95."""


@dataclass(frozen=True, kw_only=True)
class Canonical:
    """An object at frame 0, ready to be moved."""

    points: Points
    """The P points that the field moves: a mesh's vertices, or the Gaussians themselves."""
    faces: NDArray[np.int64] | None
    """(F, 3) of points; None where there is no mesh."""
    gaussians: Gaussians
    binding: Binding
    has_colors: bool
    """False: the colours are still to be fitted."""
    hides_its_back: Tensor | None = None
    """(N,): Gaussians that cameras behind the surface do not see. None is that all are seen."""

    def to(self, device: torch.device | str) -> "Canonical":
        """The same on a device."""
        points = replace(self.points, **{name: value.to(device) for name, value in vars(self.points).items()})
        hidden = None if self.hides_its_back is None else self.hides_its_back.to(device)
        return replace(
            self, points=points, gaussians=self.gaussians.to(device), binding=self.binding.to(device),
            hides_its_back=hidden,
        )  # fmt: skip

    def neighbours(self, at_most: int, *, nearest: bool) -> Neighbours:
        """Of the points: along the mesh's edges, seams welded; the nearest ones where there is no mesh, or if asked.

        Args:
            at_most: Of each point.
            nearest: Take the nearest points whatever the edges.
        """
        positions = self.points.positions
        if nearest or self.faces is None:
            return Neighbours.nearest(positions, at_most)
        welded = weld(positions.detach().cpu().numpy())
        edges = edges_of(welded.of_vertex[self.faces])
        # A vertex at a seam stands for all vertices at its place, which get the edges of that place.
        of_place = Neighbours.of_edges(edges, len(welded.positions), at_most=at_most).indices
        first = np.zeros(len(welded.positions), dtype=np.int64)
        first[welded.of_vertex[::-1]] = np.arange(len(positions))[::-1]
        own = torch.as_tensor(welded.of_vertex)
        near = torch.as_tensor(first)[of_place[own]]
        # A split vertex is its own neighbour's neighbour too: held to the first at its place.
        near = torch.cat([near, torch.as_tensor(first)[own][:, None]], dim=1)
        return Neighbours(indices=near.to(positions.device))


def check_mesh(name: str, vertices: np.ndarray, faces: np.ndarray) -> None:
    """Refuse what cannot be moved, before any work.

    Args:
        name: For the message.
        vertices: Shape (V, 3).
        faces: Shape (F, 3).

    Raises:
        ObjectError: It is empty, too large, not finite, broken, or far outside of the unit sphere.
    """
    if not len(vertices) or not len(faces):
        raise ObjectError(
            name, "empty_mesh", f"{len(vertices)} vertices and {len(faces)} faces; there is nothing to move"
        )
    if len(vertices) > MAX_VERTICES:
        raise ObjectError(
            name,
            "too_many_vertices",
            f"{len(vertices):,} vertices, the limit is {MAX_VERTICES:,}; decimate the mesh (in Blender: Decimate)",
        )
    if not np.isfinite(vertices).all():
        bad = int((~np.isfinite(vertices).all(axis=1)).sum())
        raise ObjectError(name, "non_finite", f"{bad} vertices are NaN or infinite; repair the mesh")
    if faces.min() < 0 or faces.max() >= len(vertices):
        raise ObjectError(name, "bad_faces", "a face names a vertex that is not there; export the mesh anew")
    used = vertices[np.unique(faces)]
    if np.ptp(used, axis=0).max() < 1e-6:
        raise ObjectError(name, "empty_mesh", "all vertices stand at one place; there is nothing to move")
    if np.linalg.norm(used, axis=1).max() > FARTHEST:
        raise ObjectError(name, "outside", "it leaves the unit sphere; scale and centre it as the clip is")


def of_mesh(
    name: str,
    vertices: np.ndarray,
    faces: np.ndarray,
    *,
    num_gaussians: int,
    seed: int = 0,
    colors: np.ndarray | None = None,
) -> Canonical:
    """A mesh with flat Gaussians spread evenly over its surface.

    Args:
        name: For messages.
        vertices: Shape (V, 3), in the clip's space.
        faces: Shape (F, 3).
        num_gaussians: How many.
        seed: Where within their triangles they stand.
        colors: Of the vertices, shape (V, 3), sRGB; None if they are to be fitted.

    Raises:
        ObjectError: See `check_mesh`.
    """
    check_mesh(name, vertices, faces)

    def rgba_at(face: np.ndarray, weights: np.ndarray) -> np.ndarray:
        rgba = np.full((len(face), 4), [0.5, 0.5, 0.5, OPACITY])
        if colors is not None:
            rgba[:, :3] = np.einsum("nc,nci->ni", weights, colors[faces[face]])
        return rgba

    settings = OnMeshSettings(num_points=num_gaussians, on_vertices=False, seed=seed)
    try:
        made = gaussians_on_surface(vertices, faces, rgba_at, settings)
    except ValueError as error:
        raise ObjectError(name, "empty_mesh", f"{error}; there is nothing to see") from error
    return _moved_by_vertices(vertices, faces, made, has_colors=colors is not None)


def of_object(static: StaticObject, on_mesh: GaussiansOnMesh) -> Canonical:
    """An object that was read from a file, with the Gaussians on it.

    Raises:
        ObjectError: See `check_mesh`.
    """
    check_mesh(str(static.source), static.vertices, static.faces)
    return _moved_by_vertices(static.vertices, static.faces, on_mesh, has_colors=True)


def _moved_by_vertices(
    vertices: np.ndarray, faces: np.ndarray, on_mesh: GaussiansOnMesh, *, has_colors: bool
) -> Canonical:
    return Canonical(
        points=Points.plain(torch.as_tensor(vertices, dtype=torch.float32)),
        faces=faces.astype(np.int64),
        gaussians=on_mesh.gaussians,
        binding=Binding(
            points=torch.as_tensor(on_mesh.vertices), weights=torch.as_tensor(on_mesh.weights, dtype=torch.float32)
        ),
        has_colors=has_colors,
        hides_its_back=torch.as_tensor(on_mesh.hides_its_back) if on_mesh.hides_its_back.any() else None,
    )


def of_gaussians(name: str, gaussians: Gaussians) -> Canonical:
    """Gaussians without a mesh: each is a point of its own.

    Raises:
        ObjectError: There are none, too many, or some are not finite.
    """
    if not len(gaussians):
        raise ObjectError(name, "empty_mesh", "no Gaussians; there is nothing to move")
    if len(gaussians) > MAX_VERTICES:
        raise ObjectError(name, "too_many_vertices", f"{len(gaussians):,} Gaussians, the limit is {MAX_VERTICES:,}")
    if not all(bool(torch.isfinite(tensor).all()) for tensor in vars(gaussians).values()):
        raise ObjectError(name, "non_finite", "some Gaussians are NaN or infinite; repair the file")
    return Canonical(
        points=Points(positions=gaussians.means, quats=gaussians.quats, log_scales=gaussians.log_scales),
        faces=None,
        gaussians=gaussians,
        binding=Binding.one_to_one(len(gaussians), gaussians.means.device),
        has_colors=True,
    )


def nearest_gaussians(canonical: Canonical, count: int) -> Tensor:
    """Pairs of Gaussians that lie next to each other on the object at frame 0. Shape (E, 2)."""
    edges = nearest_edges(canonical.gaussians.means.detach().cpu().numpy().astype(np.float64), count)
    return torch.as_tensor(edges, device=canonical.gaussians.means.device)
