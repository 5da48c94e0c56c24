"""A static object of any kind, by its file, and where it stands in a clip."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from fourd.files import written_beside
from fourd.gaussians import Gaussians
from fourd.motion.rotations import matrix_of_quaternion
from fourd.objects.errors import ObjectError
from fourd.objects.glb import ReadObject, read_with_looks
from fourd.objects.placement import CLEARLY_BETTER, Silhouettes, Similarity, agreement, find_placement
from fourd.objects.ply import read_ply
from fourd.objects.sampling import spread_over

BY_BLENDER = {"gltf", "fbx", "obj", "blend", "usd", "usda", "usdc", "usdz", "abc", "stl"}
"""Suffixes of what `mv4d object` reads."""
NUM_POINTS = 20_000
"""On the surface, to compare silhouettes by: at 128 pixels a side, several a pixel."""
WITHIN = 1.5
"""Standard deviations from its middle, to which a solid Gaussian hides what lies behind."""
STRAYS = 0.005
"""Share of Gaussians at either end of each axis that are taken for strays."""
LEAST_IOU = 0.5
"""Silhouettes that agree less do not show the object."""
AGREES = 0.8
"""Silhouettes that agree as well show the object where it stands: no other place is looked for."""
MAX_RECORD_BYTES = 1 << 16

Placement = Literal["auto", "clip", "seen"]
"""clip: where the clip says. seen: where silhouettes of frame 0 show it. auto: the first, if they agree with it."""


@dataclass(frozen=True, kw_only=True)
class Placed:
    """Where an object stands in the clip's space, and how that is known."""

    matrix: NDArray[np.float64]
    """(4, 4): from the file's own space: of a GLB its world, z up; of a .ply as its numbers are."""
    how: Literal["clip", "seen"]
    iou: float
    """Of silhouettes at frame 0, over all views: common pixels as a share of all."""

    @property
    def object_from_file(self) -> Similarity:
        """What the matrix says: the same bits whether it was found now or read from a record."""
        return Similarity.of_matrix(self.matrix)

    def as_json(self) -> dict[str, Any]:
        """For people and for `from_json`."""
        return {"how": self.how, "iou": round(self.iou, 4), "object_from_file": self.matrix.tolist()}

    @classmethod
    def from_json(cls, value: Any) -> "Placed":
        """The way back.

        Raises:
            ValueError: It is nothing of this kind.
        """
        try:
            how, iou = value["how"], float(value["iou"])
            matrix = np.array(value["object_from_file"], dtype=np.float64)
        except (KeyError, TypeError) as error:
            raise ValueError(f"no placement: {error}") from error
        if how not in ("clip", "seen") or not 0 <= iou <= 1:
            raise ValueError(f"no placement: {how!r} with {iou}")
        Similarity.of_matrix(matrix)
        return cls(matrix=matrix, how=how, iou=iou)


def load_object(path: Path) -> ReadObject | Gaussians:
    """The mesh of a GLB in the unit sphere, or the Gaussians of a .ply as they stand in the file.

    Raises:
        ObjectError: It is of another kind, cannot be read, is empty or too large.
    """
    suffix = path.suffix[1:].lower()
    if suffix == "glb":
        return read_with_looks(path)
    if suffix == "ply":
        return read_ply(path)
    if suffix in BY_BLENDER:
        detail = f"is not read here; make a GLB of it first: mv4d object {path.name} --out {path.stem}.glb"
        raise ObjectError(path, "unsupported", detail)
    raise ObjectError(path, "unsupported", "is no kind of 3D file; give a .glb, or a .ply of Gaussians")


def find_place(
    path: Path,
    loaded: ReadObject | Gaussians,
    seen: Silhouettes,
    *,
    told: Similarity | None = None,
    wanted: Placement = "auto",
) -> Placed:
    """Where an object stands.

    Args:
        path: Its file, for messages.
        loaded: What `load_object` gave.
        seen: What it looks like at frame 0.
        told: From the file's space, where the clip says so; None if it does not.
        wanted: Which way to go.

    Raises:
        ObjectError: The views do not show it, or the clip does not say.
    """
    if wanted == "clip" and told is None:
        detail = "the clip does not say where it stands: it was drawn of something else; use --placement seen"
        raise ObjectError(path, "mismatch", detail)
    points, unit_from_file = _points_in_unit_sphere(path, loaded)
    by_clip = None
    if told is not None:
        iou = agreement(told(unit_from_file.inverse()(points)), seen)
        by_clip = Placed(matrix=told.matrix, how="clip", iou=iou)
        if wanted == "clip" or (wanted == "auto" and by_clip.iou >= AGREES):
            return by_clip
    found = find_placement(points, seen)
    if by_clip is not None and wanted == "auto" and found.iou <= by_clip.iou + CLEARLY_BETTER:
        return by_clip
    if found.iou < LEAST_IOU:
        detail = f"the views do not show this object: outlines agree by {found.iou:.0%} at best; give its own views"
        raise ObjectError(path, "mismatch", detail)
    return Placed(matrix=found.seen_from_given.after(unit_from_file).matrix, how="seen", iou=found.iou)


def put(loaded: ReadObject | Gaussians, object_from_file: Similarity) -> ReadObject | Gaussians:
    """The object in its place.

    Args:
        loaded: What `load_object` gave.
        object_from_file: Of `Placed`.
    """
    if isinstance(loaded, ReadObject):
        return loaded.put(object_from_file)
    return loaded.transformed(torch.as_tensor(object_from_file.matrix, dtype=loaded.means.dtype))


def _points_in_unit_sphere(path: Path, loaded: ReadObject | Gaussians) -> tuple[NDArray[np.float64], Similarity]:
    """Points of what is seen of the object, dense, and how they came there from the file's space."""
    if isinstance(loaded, ReadObject):
        vertices, faces = loaded.static.vertices.astype(np.float64), loaded.static.faces
        try:
            spread = spread_over(vertices, faces, NUM_POINTS, seed=0)
        except ValueError as error:
            raise ObjectError(path, "empty_mesh", f"{error}; there is nothing to see") from error
        is_solid = loaded.rgba_at(spread.faces, spread.weights)[:, 3] > 0.5
        points = spread.at(vertices, faces)
        return points[is_solid] if is_solid.any() else points, loaded.static.object_from_world
    points = _points_of(loaded)
    if len(points) < 2:
        raise ObjectError(path, "empty_mesh", "has no two solid Gaussians; there is nothing to move")
    # Fitted scenes have strays far out, which decide neither size nor place.
    low, high = np.quantile(points, STRAYS, axis=0), np.quantile(points, 1 - STRAYS, axis=0)
    kept = points[((points >= low) & (points <= high)).all(axis=1)]
    if not len(kept) or not np.ptp(kept, axis=0).max() > 0:
        raise ObjectError(path, "empty_mesh", "all Gaussians stand at one place; there is nothing to move")
    unit_from_file = Similarity.into_unit_sphere(kept)
    return unit_from_file(kept), unit_from_file


def _points_of(gaussians: Gaussians) -> NDArray[np.float64]:
    """Points within solid Gaussians, some in each, shape (n, 3)."""
    solid = torch.nonzero(gaussians.opacity_logits > 0)[:, 0].cpu()
    if not len(solid):
        return np.zeros((0, 3))
    solid = solid[:: max(1, len(solid) // NUM_POINTS)].repeat(max(1, NUM_POINTS // len(solid)))
    inside = torch.randn(len(solid), 3, generator=torch.Generator().manual_seed(0))
    inside *= WITHIN / inside.norm(dim=1, keepdim=True) * torch.linspace(0, 1, len(solid))[:, None] ** (1 / 3)
    turns = matrix_of_quaternion(gaussians.quats.detach().cpu()[solid])
    spread = (turns @ (gaussians.log_scales.detach().cpu()[solid].exp() * inside)[:, :, None])[:, :, 0]
    return (gaussians.means.detach().cpu()[solid] + spread).numpy().astype(np.float64)


def write_placed(placed: Placed, record: Path, *, clip_id: str, sha256: str) -> None:
    """Keep what was found.

    Args:
        placed: Of `find_place`.
        record: The file to write.
        clip_id: Of the clip that shows the object.
        sha256: Of the object's file.
    """
    content = {"clip_id": clip_id, "object_sha256": sha256, **placed.as_json()}
    with written_beside(record) as beside:
        beside.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")


def read_placed(record: Path, *, clip_id: str, sha256: str) -> Placed | None:
    """What was found before for the same clip and file; None if nothing was.

    Raises:
        ObjectError: The record is damaged.
    """
    if not record.is_file():
        return None
    try:
        with record.open("rb") as file:
            content = json.loads(file.read(MAX_RECORD_BYTES))
        if (content["clip_id"], content["object_sha256"]) != (clip_id, sha256):
            return None
        return Placed.from_json(content)
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ObjectError(record, "malformed", f"{error}; delete it to find the place anew") from error


def hash_of(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
