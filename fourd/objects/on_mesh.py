"""Gaussians on a static object's mesh: on its vertices and spread over its surface, with the way back."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from fourd.gaussians import Gaussians
from fourd.objects.glb import ReadObject
from fourd.objects.sampling import evenly_over, face_normals
from fourd.rendering.spherical_harmonics import C0

OVERLAP = 0.5
"""Standard deviation of a Gaussian as a share of the distance to its neighbours: no gaps, little blur."""
THICKNESS = 0.1
"""Of a flat Gaussian, along the normal, as a share of its width."""
OPACITY = (0.01, 0.98)
"""Where the surface hides nothing, and all."""


@dataclass(frozen=True, kw_only=True)
class OnMeshSettings:
    """How many Gaussians, and of what shape."""

    num_points: int = 20_000
    """Spread over the surface, besides those on vertices."""
    on_vertices: bool = True
    """One on each vertex that a face uses."""
    flat: bool = True
    """Thin along the normal. Otherwise round, and not turned."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.num_points < 0 or not (self.num_points or self.on_vertices):
            raise ValueError("need num_points >= 0, and more than 0 without Gaussians on vertices")


@dataclass(frozen=True, kw_only=True)
class GaussiansOnMesh:
    """N Gaussians that follow V vertices."""

    gaussians: Gaussians
    vertices: NDArray[np.int64]
    """(N, 3): of the static object. One on a vertex has it three times."""
    weights: NDArray[np.float64]
    """(N, 3), sum 1: the mean is where the three vertices are, weighted so, at every frame."""
    hides_its_back: NDArray[np.bool_]
    """(N,): those that cameras behind the surface do not see."""


def gaussians_on_mesh(read: ReadObject, settings: OnMeshSettings | None = None) -> GaussiansOnMesh:
    """Gaussians that look like the object, base colours only: nothing shines on it.

    Colours of spread points come from the textures, those of vertices from `StaticObject.colors`.

    Args:
        read: The object.
        settings: How many.

    Raises:
        ValueError: The faces have no area.
    """
    static = read.static
    return gaussians_on_surface(
        static.vertices, static.faces, read.rgba_at, settings or OnMeshSettings(), vertex_colors=static.colors,
        hides_its_back=read.hides_its_back(),
    )  # fmt: skip


def gaussians_on_surface(
    vertices: np.ndarray,
    faces: np.ndarray,
    rgba_at: Callable[[np.ndarray, np.ndarray], np.ndarray],
    settings: OnMeshSettings,
    *,
    vertex_colors: np.ndarray | None = None,
    hides_its_back: np.ndarray | None = None,
) -> GaussiansOnMesh:
    """Gaussians on any surface.

    Args:
        vertices: Shape (V, 3).
        faces: Shape (F, 3).
        rgba_at: Colours and opacity, sRGB, shape (n, 4), of points given by face (n,) and corners' weights (n, 3).
        settings: How many.
        vertex_colors: Shape (V, 3), sRGB, for Gaussians on vertices; those are opaque. None is grey.
        hides_its_back: Faces that are not seen from behind, shape (F,). Of Gaussians, flat spread ones heed it.

    Raises:
        ValueError: The faces have no area.
    """
    positions, faces = vertices.astype(np.float64), faces.astype(np.int64)
    spread = evenly_over(positions, faces, settings.num_points, seed=settings.seed)
    rgba = rgba_at(spread.faces, spread.weights)
    corners, weights = faces[spread.faces], spread.weights
    widths = np.full(settings.num_points, OVERLAP * spread.spacing)
    across = face_normals(positions, corners)
    hidden = np.zeros(len(faces), dtype=bool) if hides_its_back is None or not settings.flat else hides_its_back
    hidden = hidden[spread.faces]
    if settings.on_vertices:
        used = np.unique(faces)
        colors = np.full((len(used), 3), 0.5) if vertex_colors is None else vertex_colors[used]
        corners = np.concatenate([np.repeat(used[:, None], 3, axis=1), corners])
        weights = np.concatenate([np.tile([1.0, 0.0, 0.0], (len(used), 1)), weights])
        rgba = np.concatenate([np.concatenate([colors, np.ones((len(used), 1))], axis=1), rgba])
        # Where the mesh is coarser than the spread points, those cover it; a wide one would only blur.
        least = spread.spacing if settings.num_points else math.inf
        hidden = np.concatenate([np.zeros(len(used), dtype=bool), hidden])
        widths = np.concatenate([OVERLAP * np.minimum(_edge_lengths(positions, faces)[used], least), widths])
        across = np.concatenate([_vertex_normals(positions, faces)[used], across])
    means = np.einsum("nc,nci->ni", weights, positions[corners])
    widths = np.maximum(widths, 1e-6)
    scales = np.repeat(widths[:, None], 3, axis=1)
    quats = np.tile([1.0, 0.0, 0.0, 0.0], (len(means), 1))
    if settings.flat:
        scales[:, 2] *= THICKNESS
        quats = turns_to(across)
    opacity = np.clip(rgba[:, 3], *OPACITY)
    gaussians = Gaussians(
        means=_tensor(means),
        quats=_tensor(quats),
        log_scales=_tensor(np.log(scales)),
        opacity_logits=_tensor(np.log(opacity / (1 - opacity))),
        sh=_tensor((rgba[:, None, :3] - 0.5) / C0),
    )
    return GaussiansOnMesh(gaussians=gaussians, vertices=corners, weights=weights, hides_its_back=hidden)


def turns_to(normals: np.ndarray) -> NDArray[np.float64]:
    """Quaternions, w first, of the shortest turns from z to directions of any length. Shape (n, 4)."""
    length = np.linalg.norm(normals, axis=1)
    x, y, z = np.where(length > 0, (normals / np.where(length > 0, length, 1.0)[:, None]).T, [[0.0], [0.0], [1.0]])
    quats = np.stack([1 + z, -y, x, np.zeros_like(x)], axis=1)
    quats[1 + z < 1e-9] = [0.0, 1.0, 0.0, 0.0]
    unit: NDArray[np.float64] = quats / np.linalg.norm(quats, axis=1, keepdims=True)
    return unit


def _vertex_normals(positions: np.ndarray, faces: np.ndarray) -> NDArray[np.float64]:
    """Weighted by area; not of length 1. Shape (V, 3)."""
    across, normals = face_normals(positions, faces), np.zeros_like(positions)
    for corner in range(3):
        np.add.at(normals, faces[:, corner], across)
    return normals


def _edge_lengths(positions: np.ndarray, faces: np.ndarray) -> NDArray[np.float64]:
    """Mean length of the edges at each vertex; 0 where there are none. Shape (V,)."""
    ends = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    ends = np.concatenate([ends, ends[:, ::-1]])
    lengths = np.linalg.norm(positions[ends[:, 1]] - positions[ends[:, 0]], axis=1)
    counts = np.bincount(ends[:, 0], minlength=len(positions))
    return np.bincount(ends[:, 0], weights=lengths, minlength=len(positions)) / np.maximum(counts, 1)


def _tensor(values: np.ndarray) -> torch.Tensor:
    return torch.as_tensor(values, dtype=torch.float32)
