"""Colours, opacities and sizes of Gaussians from pictures of frame 0."""

from typing import Any

import torch
from torch import Tensor

from fourd.canonical import nearest_gaussians
from fourd.losses.pictures import mean_squared
from fourd.moving import MovingGaussians
from fourd.rendering.spherical_harmonics import C0
from fourd.settings import StaticSettings
from fourd.video import MultiViewVideo

MOST_GROWN, MOST_SHRUNK = 0.7, 0.2
"""Of a size's logarithm: what no view shows must not grow over what one does, nor leave holes in the surface."""
MOST_FADED = 1.0
"""Of an opacity's logit, below the object's own: a surface stays one."""


def fit_looks(
    model: MovingGaussians, videos: list[MultiViewVideo], settings: StaticSettings, background: float
) -> float:
    """Fit how the object looks to frame 0 of videos; nothing moves.

    Args:
        model: Its looks are changed.
        videos: The input and, if there is one, the static orbit.
        settings: Steps and rates.
        background: Grey level.

    Returns:
        PSNR of frame 0 at the end, dB.
    """
    pairs = nearest_gaussians(model.canonical, 6)
    with torch.no_grad():
        _start_colors(model, videos[0])
    given = model.sh.detach().clone()
    smoothness = settings.change_smoothness if model.canonical.has_colors else settings.smoothness
    looks = looks_of(model)
    fitted_later = [tensor.requires_grad for tensor in looks]
    for tensor in looks:
        tensor.requires_grad_(True)
    optimizer = torch.optim.Adam(look_groups(model, settings), eps=1e-15)
    error = torch.zeros(())
    for step in range(settings.steps):
        video = videos[step % len(videos)]
        # Of the static orbit every frame shows the first pose, each from another side.
        shown = 0 if step % len(videos) == 0 else (step // len(videos)) % video.num_frames
        frames, views = torch.tensor([shown]), torch.arange(video.num_views)
        target, mask = video.colors(frames, views, background)
        _, at_rest = model.motion(torch.zeros(1, dtype=torch.int64, device=model.sh.device))
        width, height = video.size_px
        render, alpha, _ = model.pictures(
            at_rest, video.w2c(frames, views), video.camera_matrix(width), width, height, background=background
        )
        error = mean_squared(render, target)
        change = model.sh - given
        rough = (change[pairs[:, 0]] - change[pairs[:, 1]]).square().mean()
        loss = 100 * error + 100 * mean_squared(alpha, mask) + smoothness * rough
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        keep_looks(model)
    for tensor, is_fitted in zip(looks, fitted_later, strict=True):
        tensor.requires_grad_(is_fitted)
        tensor.grad = None
    return float(-10 * error.detach().clamp(min=1e-10).log10())


def looks_of(model: MovingGaussians) -> list[Tensor]:
    """What a fit of looks changes."""
    looks: list[Tensor] = [model.sh, model.log_scales, model.opacity_logits]
    return looks if model.light is None else [*looks, model.light]


def look_groups(model: MovingGaussians, settings: StaticSettings) -> list[dict[str, Any]]:
    """Looks with their learning rates, as torch's optimizers take them."""
    rates = (settings.color_rate, settings.size_rate, settings.opacity_rate, settings.light_rate)
    return [{"params": [tensor], "lr": rate} for tensor, rate in zip(looks_of(model), rates, strict=False)]


def keep_looks(model: MovingGaussians) -> None:
    """Hold sizes and opacities near the object's own."""
    own = model.canonical.gaussians
    with torch.no_grad():
        model.log_scales.clamp_(own.log_scales - MOST_SHRUNK, own.log_scales + MOST_GROWN)
        model.opacity_logits.clamp_(own.opacity_logits - MOST_FADED, own.opacity_logits.clamp(min=8.0))


def _start_colors(model: MovingGaussians, video: MultiViewVideo) -> None:
    """Begin at the object's mean colour where it has none of its own."""
    if model.canonical.has_colors:
        return
    rgba = video.rgba[0].float() / 255
    mean = (rgba[..., :3] * rgba[..., 3:]).sum(dim=(0, 1, 2)) / rgba[..., 3].sum().clamp(min=1)
    model.sh[:, 0] = (mean - 0.5) / C0
