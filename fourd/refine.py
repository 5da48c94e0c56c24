"""Refine a reconstruction by 4D-SDS, held to its own renders (Animate3D, arXiv:2407.11398, section 4)."""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from fourd.guidance import SdsGuidance
from fourd.motion.field import HexplaneSettings
from fourd.moving import MovingGaussians
from fourd.reconstruct import Reconstruction
from fourd.settings import ReconstructionSettings, Stage
from fourd.video import MultiViewVideo
from pipeline.media import GREY

RENDERED_AT_ONCE = 4
"""Frames."""


@dataclass(frozen=True, kw_only=True)
class RefineSettings:
    """The stage after reconstruction."""

    steps: int = 250
    size_px: int = 1024
    """Width of the renders that the object is held to: the reconstruction's own, not the video, which is coarser."""
    frames_per_step: int = 0
    """Of those renders in each step; 0 is all. The model always looks at all."""

    def __post_init__(self) -> None:
        if self.steps < 1 or self.size_px < 1 or self.frames_per_step < 0:
            raise ValueError(f"need a step, a pixel and no negative number of frames, got {self}")

    def applied_to(self, settings: ReconstructionSettings) -> ReconstructionSettings:
        """The settings of the fit: one stage on all frames; the Gaussians of a hexplane may change their size."""
        stage = Stage(name="refine", steps=self.steps, frames_per_step=self.frames_per_step)
        field = settings.field
        if isinstance(field, HexplaneSettings):
            field = replace(field, moves_scales=True)
        # Pictures are far larger than those of the reconstruction: each pixel once will do.
        drawing = replace(settings.drawing, supersampling=1)
        return replace(settings, field=field, stages=(stage,), drawing=drawing)


def own_renders(
    model: MovingGaussians, video: MultiViewVideo, size_px: int, background: float = GREY
) -> MultiViewVideo:
    """What the cameras of a video see of a reconstruction, with alpha, at another width; as exact as 8 bits are."""
    width, height = size_px, max(1, round(size_px * video.size_px[1] / video.size_px[0]))
    views = torch.arange(video.num_views)
    shown = []
    with torch.no_grad():
        for frames in torch.arange(video.num_frames).split(RENDERED_AT_ONCE):
            _, moved = model.motion(frames)
            colors, alpha, _ = model.pictures(
                moved, video.w2c(frames, views), video.camera_matrix(width), width, height, background=background
            )
            whole = alpha.clamp(0, 1)[..., None]
            straight = (colors - background * (1 - whole)) / whole.clamp_min(1 / 255)
            rgba = torch.cat([straight.clamp(0, 1), whole], dim=-1)
            shown.append((rgba * 255).round().to(torch.uint8))
    fx, fy, cx, cy = (value * width / video.size_px[0] for value in video.intrinsics)
    return replace(video, rgba=torch.cat(shown), intrinsics=(fx, fy, cx, cy))


def refinement(
    model: MovingGaussians,
    video: MultiViewVideo,
    reconstructed_by: ReconstructionSettings,
    guidance: SdsGuidance,
    settings: RefineSettings,
    *,
    folder: Path | None = None,
    prior: str = "",
) -> Reconstruction:
    """A fit that goes on from a reconstruction, to be run; or to be gone on with, if the folder holds it.

    Args:
        model: The reconstruction; it is left as it is.
        video: That it was fitted to: gives the cameras.
        reconstructed_by: Its settings: losses, weights and rates stay.
        guidance: 4D-SDS.
        settings: Of this stage.
        folder: For checkpoints, previews and events, another one than the reconstruction's; None keeps nothing.
        prior: Names the model and the prompt, so that no other one's fit is gone on with.

    Raises:
        ReconstructionError: Memory would not do, or the folder holds another fit.
    """
    renders = own_renders(model, video, settings.size_px, reconstructed_by.background)
    about = [prior, _hash(model), guidance.weight, guidance.settings, guidance.cameras, guidance.seed]
    fit = Reconstruction(
        renders,
        model.canonical,
        settings.applied_to(reconstructed_by),
        folder,
        guidance=guidance,
        identity=f"refine {about}",
    )
    if not fit.is_resumed:
        fit.model.load_state_dict(model.state_dict())
        fit.has_looks, fit.newest = True, video.num_frames - 1
    return fit


def _hash(model: MovingGaussians) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
