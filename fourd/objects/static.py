"""A static mesh with the way back to the GLB it was read from."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fourd.objects.placement import Similarity


@dataclass(frozen=True, kw_only=True)
class Primitive:
    """A primitive of the GLB, drawn by one node."""

    node: int
    """Index of the node that draws it; a mesh that several nodes draw has a primitive for each."""
    mesh: int
    primitive: int
    """Index within the mesh."""
    vertices: NDArray[np.int64]
    """(n,): for each vertex of the primitive, its vertex in `StaticObject`, where equal positions are one."""
    object_from_primitive: NDArray[np.float64]
    """(4, 4): from the primitive's POSITION to the object's space: the node's pose, z up, scale and offset."""


@dataclass(frozen=True, kw_only=True)
class StaticObject:
    """A mesh in the clip's space: z up, inside the unit sphere."""

    source: Path
    """The GLB."""
    vertices: NDArray[np.float32]
    """(V, 3)."""
    faces: NDArray[np.int32]
    """(F, 3), counter-clockwise from outside."""
    colors: NDArray[np.float32]
    """(V, 3), sRGB in 0..1: texture, vertex colour and material together."""
    primitives: tuple[Primitive, ...]
    object_from_world: Similarity
    """From the GLB's world, z up: where it was put, and how it was turned and scaled."""


def bounding_radius(vertices: np.ndarray) -> float:
    """Radius of the sphere round the middle of the bounding box, which shares and tolerances are of."""
    middle = (vertices.min(axis=0) + vertices.max(axis=0)) / 2
    return max(float(np.linalg.norm(vertices - middle, axis=1).max()), 1e-9)
