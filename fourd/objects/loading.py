"""A static object of any kind, by its file."""

from pathlib import Path

import numpy as np
import torch

from fourd.gaussians import Gaussians
from fourd.objects.errors import ObjectError
from fourd.objects.glb import LEAST_IOU, MAX_VERTICES, not_shown, read_object
from fourd.objects.placement import Silhouettes, Similarity, find_placement
from fourd.objects.ply import read_ply
from fourd.objects.static import StaticObject

BY_BLENDER = {"gltf", "fbx", "obj", "blend", "usd", "usda", "usdc", "usdz", "abc", "stl"}
"""Suffixes of what `mv4d object` reads."""
STRAYS = 0.005
"""Share of Gaussians at either end of each axis that are taken for strays."""


def load_object(
    path: Path, *, object_from_world: Similarity | None = None, max_vertices: int = MAX_VERTICES
) -> StaticObject | Gaussians:
    """The mesh of a GLB, or the Gaussians of a .ply as they stand in the file.

    Args:
        path: The file; its suffix says what it is.
        object_from_world: Of a GLB, as in `read_object`.
        max_vertices: Of a GLB.

    Raises:
        ObjectError: It is of another kind, cannot be read, is empty or too large.
    """
    suffix = path.suffix[1:].lower()
    if suffix == "glb":
        return read_object(path, object_from_world=object_from_world, max_vertices=max_vertices)
    if suffix == "ply":
        return read_ply(path)
    if suffix in BY_BLENDER:
        detail = f"is not read here; make a GLB of it first: mv4d object {path.name} --out {path.stem}.glb"
        raise ObjectError(path, "unsupported", detail)
    raise ObjectError(path, "unsupported", "is no kind of 3D file; give a .glb, or a .ply of Gaussians")


def gaussians_as_seen(path: Path, gaussians: Gaussians, seen: Silhouettes) -> tuple[Gaussians, Similarity]:
    """Gaussians turned, sized and placed so that they look as cameras see them, and how they were moved.

    Args:
        path: Of their file, for messages.
        gaussians: As they stand in the file, whatever way is up.
        seen: What they should look like.

    Raises:
        ObjectError: The views do not show them.
    """
    points = gaussians.means[gaussians.opacity_logits > 0].detach().cpu().numpy().astype(np.float64)
    if len(points) < 2:
        raise ObjectError(path, "empty_mesh", "has no two solid Gaussians; there is nothing to move")
    # Fitted scenes have strays far out, which decide neither size nor place.
    low, high = np.quantile(points, STRAYS, axis=0), np.quantile(points, 1 - STRAYS, axis=0)
    kept = points[((points >= low) & (points <= high)).all(axis=1)]
    if not len(kept) or not np.ptp(kept, axis=0).max() > 0:
        raise ObjectError(path, "empty_mesh", "all Gaussians stand at one place; there is nothing to move")
    upright = Similarity.into_unit_sphere(kept)
    found = find_placement(upright(kept), seen)
    if found.iou < LEAST_IOU:
        raise ObjectError(path, "mismatch", not_shown(found.iou))
    moved = found.seen_from_given.after(upright)
    return gaussians.transformed(torch.as_tensor(moved.matrix, dtype=gaussians.means.dtype)), moved
