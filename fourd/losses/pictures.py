"""Differences between renders and the video's pictures."""

import torch
from torch import Tensor
from torch.nn import functional


def mean_squared(render: Tensor, target: Tensor) -> Tensor:
    """Of two tensors of one shape, colours or masks."""
    return functional.mse_loss(render, target)


def psnr_db(render: Tensor, target: Tensor) -> Tensor:
    """Of colours in 0..1, over everything; at most 100 dB."""
    return -10 * functional.mse_loss(render, target).clamp(min=1e-10).log10()


def ssim(render: Tensor, target: Tensor, *, window_px: int = 11, sigma_px: float = 1.5) -> Tensor:
    """Structural similarity of each picture (Wang et al. 2004): Gaussian window, K1 = 0.01, K2 = 0.03, no padding.

    Args:
        render: Shape (picture, channel, height, width), 0..1.
        target: The same.
        window_px: Side of the window; pictures must not be smaller.
        sigma_px: Of the window.

    Returns:
        Shape (picture,).
    """
    offsets = torch.arange(window_px, dtype=render.dtype, device=render.device) - (window_px - 1) / 2
    line = torch.exp(-offsets.square() / (2 * sigma_px**2))
    line = line / line.sum()
    channels = render.shape[1]
    across, down = line.expand(channels, 1, 1, -1), line[:, None].expand(channels, 1, -1, 1)

    def blurred(picture: Tensor) -> Tensor:
        return functional.conv2d(functional.conv2d(picture, across, groups=channels), down, groups=channels)

    mean_a, mean_b = blurred(render), blurred(target)
    var_a = blurred(render * render) - mean_a * mean_a
    var_b = blurred(target * target) - mean_b * mean_b
    covariance = blurred(render * target) - mean_a * mean_b
    c1, c2 = 0.01**2, 0.03**2
    similar = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    size = (mean_a.square() + mean_b.square() + c1) * (var_a + var_b + c2)
    return (similar / size).mean(dim=(1, 2, 3))


def depth_roughness(depth: Tensor, alpha: Tensor, colors: Tensor, *, edge_factor: float = 10.0) -> Tensor:
    """Mean difference of neighbouring pixels' depth, less where the picture has an edge (Godard et al. 2017, eq. 5).

    Only pairs count that are both covered: the rim of the object is no roughness.

    Args:
        depth: Shape (picture, height, width), world units.
        alpha: The same shape, 0..1.
        colors: Shape (picture, height, width, 3), the video's.
        edge_factor: How much a colour edge excuses.
    """
    total = depth.new_zeros(())
    for axis in (1, 2):
        step = depth.diff(dim=axis).abs()
        length = alpha.shape[axis]
        covered = (alpha.narrow(axis, 0, length - 1) > 0.5) & (alpha.narrow(axis, 1, length - 1) > 0.5)
        edge = torch.exp(-edge_factor * colors.diff(dim=axis).abs().mean(dim=-1))
        total = total + (step * edge * covered).sum() / covered.sum().clamp(min=1)
    return total


def shrunk(pictures: Tensor, size_px: int) -> Tensor:
    """Pictures at another size, by averaging. Shape (..., size, size, channel) of (..., height, width, channel)."""
    if pictures.shape[-3:-1] == (size_px, size_px):
        return pictures
    flat = pictures.flatten(0, -4).permute(0, 3, 1, 2)
    found = functional.interpolate(flat, size=(size_px, size_px), mode="area")
    return found.permute(0, 2, 3, 1).unflatten(0, pictures.shape[:-3])
