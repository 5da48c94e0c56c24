"""What is refused before a fit begins: an object and a video that do not belong together, too little memory."""

import torch

from fourd.errors import ReconstructionError
from fourd.moving import MovingGaussians
from fourd.settings import ReconstructionSettings
from fourd.video import MultiViewVideo
from pipeline.machine import free_memory_mb
from pipeline.media import GREY

LEAST_OVERLAP = 0.35
"""Of the two outlines at frame 0, common pixels as a share of all: below it cameras do not match."""


def check_memory(
    named: str,
    settings: ReconstructionSettings,
    *,
    num_frames: int,
    num_views: int,
    size_px: tuple[int, int],
    num_gaussians: int,
    num_points: int = 0,
) -> None:
    """Refuse what would not fit into the processor's memory, before any of it is made.

    Args:
        named: The clip, for the message.
        settings: Of the fit.
        num_frames: Of the clip.
        num_views: That are fitted to.
        size_px: Width and height of their pictures.
        num_gaussians: Of the object.
        num_points: That the field moves; 0 if not known yet.

    Raises:
        ReconstructionError: It would not, by a rough count.
    """
    per_step = max(min(stage.frames_per_step or num_frames, num_frames) for stage in settings.stages)
    width, height = size_px
    pictures = per_step * num_views * width * height * 80 * settings.drawing.supersampling**2
    gaussians = per_step * num_gaussians * (600 + 150 * num_views)
    needed_mb = (pictures + gaussians + per_step * num_points * 900) / 2**20
    free_mb = free_memory_mb()
    if needed_mb > 0.9 * free_mb:
        raise ReconstructionError(
            named,
            "memory",
            f"a step would take about {needed_mb:,.0f} MB and {free_mb:,.0f} MB are free: give fewer --views, a "
            "smaller --size_px or fewer Gaussians (--set num_gaussians=...)",
        )


def check_overlap(model: MovingGaussians, video: MultiViewVideo) -> None:
    """Refuse an object that is not where the pictures of frame 0 show it.

    Raises:
        ReconstructionError: Outlines have too little in common.
    """
    frames, views = torch.zeros(1, dtype=torch.int64), torch.arange(video.num_views)
    width, height = video.size_px
    with torch.no_grad():
        _, mask = video.colors(frames, views)
        _, at_rest = model.motion(frames)
        _, alpha, _ = model.pictures(
            at_rest, video.w2c(frames, views), video.camera_matrix(width), width, height, background=GREY
        )
    seen, drawn = mask > 0.5, alpha > 0.5
    overlap = float((seen & drawn).sum() / (seen | drawn).sum().clamp(min=1))
    if overlap < LEAST_OVERLAP:
        raise ReconstructionError(
            video.clip_id,
            "cameras",
            f"at frame 0 object and pictures have {overlap:.0%} of their outline in common: cameras, or the object's "
            "orientation and size, do not match the clip",
        )
