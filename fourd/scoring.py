"""How good a reconstruction is: views that it was not shown, and where the surface truly went."""

from dataclasses import dataclass

import numpy as np
import torch

from fourd.losses.pictures import ssim
from fourd.moving import MovingGaussians
from fourd.objects.sampling import nearest_on_surface
from fourd.objects.static import bounding_radius
from fourd.video import MultiViewVideo
from pipeline.media import GREY

NEAR = 0.02
"""Of the radius: a vertex that is nearer than this to its true place counts as right."""
SAME_SURFACE = 0.005
"""Of the radius: how far truth's vertices may lie off the object at frame 0."""


@dataclass(frozen=True, kw_only=True)
class ViewScores:
    """Of pictures that the fit has not seen, on grey, frame 0 left out: nothing has moved there."""

    psnr_db: float
    """Mean over pictures."""
    object_psnr_db: float
    """Mean over pictures, of the pixels that the object covers in the picture or in the render."""
    ssim: float
    mask_iou: float
    num_pictures: int


@dataclass(frozen=True, kw_only=True)
class TrackScores:
    """Of vertices that belong to some face, frame 0 left out."""

    mean_error: float
    """Mean distance to the true place, as a share of the radius of the sphere round the box of frame 0's vertices."""
    share_near: float
    """Share of vertices times frames that are within 2 % of that radius."""
    still_error: float
    """What `mean_error` would be if nothing moved: how much there is to find."""
    radius: float
    num_vertices: int


def score_views(model: MovingGaussians, video: MultiViewVideo, *, background: float = GREY) -> ViewScores:
    """Score the pictures of held-out views.

    Args:
        model: The reconstruction.
        video: Of the views that it was not fitted to, all frames.
        background: Grey level that both are shown on.
    """
    width, height = video.size_px
    views = torch.arange(video.num_views)
    psnr, inside, similar, overlap = [], [], [], []
    with torch.no_grad():
        for frame in range(1, video.num_frames):
            frames = torch.tensor([frame])
            target, mask = video.colors(frames, views, background)
            _, moved = model.motion(frames.to(model.sh.device))
            render, alpha, _ = model.pictures(
                moved, video.w2c(frames, views), video.camera_matrix(width), width, height, background=background
            )
            # As 8-bit pictures, which is how they would be written and looked at.
            render = (render[0].clamp(0, 1) * 255).round() / 255
            error = (render - target[0]).square().mean(dim=-1)
            drawn, seen = alpha[0] > 0.5, mask[0] > 0.5
            either = (drawn | seen).float()
            psnr.append(_decibel(error.mean(dim=(1, 2))))
            inside.append(_decibel((error * either).sum(dim=(1, 2)) / either.sum(dim=(1, 2)).clamp(min=1)))
            similar.append(ssim(render.permute(0, 3, 1, 2), target[0].permute(0, 3, 1, 2)))
            overlap.append((drawn & seen).sum(dim=(1, 2)) / either.sum(dim=(1, 2)).clamp(min=1))
    return ViewScores(
        psnr_db=float(torch.cat(psnr).mean()),
        object_psnr_db=float(torch.cat(inside).mean()),
        ssim=float(torch.cat(similar).mean()),
        mask_iou=float(torch.cat(overlap).mean()),
        num_pictures=(video.num_frames - 1) * video.num_views,
    )


def score_tracks(tracks: np.ndarray, truth: np.ndarray, faces: np.ndarray) -> TrackScores:
    """Score where vertices went.

    Args:
        tracks: Shape (T, V, 3).
        truth: The same vertices' true places.
        faces: Shape (F, 3): vertices in none of them do not count, as nothing shows them.

    Raises:
        ValueError: The shapes differ.
    """
    if tracks.shape != truth.shape or len(tracks) < 2:
        raise ValueError(f"tracks of shape {tracks.shape} cannot be scored against {truth.shape}")
    used = np.unique(faces)
    true, found = truth[:, used].astype(np.float64), tracks[:, used].astype(np.float64)
    radius = bounding_radius(true[0])
    error = np.linalg.norm(found[1:] - true[1:], axis=-1) / radius
    still = np.linalg.norm(true[:1] - true[1:], axis=-1) / radius
    return TrackScores(
        mean_error=float(error.mean()),
        share_near=float((error <= NEAR).mean()),
        still_error=float(still.mean()),
        radius=radius,
        num_vertices=len(used),
    )


class SurfaceMismatch(ValueError):
    """A surface that is not the one that truth is of: the message says how far off it is."""

    reason = "mismatch"


def score_surface_tracks(
    model_tracks: np.ndarray,
    object_faces: np.ndarray,
    object_rest: np.ndarray,
    truth_positions: np.ndarray,
    truth_faces: np.ndarray,
) -> TrackScores:
    """Score where a surface with vertices of its own went: truth's vertices are found on it at frame 0, and followed.

    Of pieces that lie on each other at frame 0, and part, truth's vertices may follow either.

    Args:
        model_tracks: Of the object's vertices, shape (T, V, 3).
        object_faces: Shape (F, 3).
        object_rest: The object's vertices at frame 0, in the space of the truth, shape (V, 3).
        truth_positions: Shape (T, W, 3).
        truth_faces: Shape (G, 3).

    Raises:
        SurfaceMismatch: A vertex of the truth is further than 0.5 % of the radius from the object: it is another one,
            or in another pose.
        ValueError: The shapes differ.
    """
    used = np.unique(truth_faces)
    if not len(used) or not len(object_faces):
        raise ValueError("a surface without faces has no tracks to be scored")
    rest = truth_positions[0][used].astype(np.float64)
    found = nearest_on_surface(rest, object_rest.astype(np.float64), object_faces)
    off = float(found.distances.max()) / bounding_radius(rest)
    if off > SAME_SURFACE:
        raise SurfaceMismatch(
            f"the object is no frame 0 of the clip: truth has a vertex {off:.1%} of the radius off its surface; make "
            "the object anew by `mv4d object --data DATA --clip CLIP`"
        )
    corners = model_tracks[:, object_faces[found.faces]].astype(np.float64)
    tracks = np.zeros(truth_positions.shape)
    tracks[:, used] = np.einsum("nc,tnci->tni", found.weights, corners)
    return score_tracks(tracks, truth_positions, truth_faces)


def _decibel(error: torch.Tensor) -> torch.Tensor:
    return -10 * error.clamp(min=1e-10).log10()
