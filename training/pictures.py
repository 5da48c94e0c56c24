"""Sampled clips as one picture: what was there above what was sampled, view by view, frames from left to right."""

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from training.objective import CLEAN_FRAMES
from training.sampling.images import eight_bit


def sheet(
    truth: Float[Tensor, "v t 3 h w"], sampled: Float[Tensor, "v t 3 h w"], gap_px: int = 2
) -> Float[Tensor, "3 height width"]:
    """All frames of a clip, two rows a view: the clip itself above the sampled one; colours in 0..1."""
    rows = torch.stack([truth, sampled], dim=1).flatten(0, 1)
    framed = torch.nn.functional.pad(rows, (0, gap_px, 0, gap_px), value=1.0)
    return torch.cat([torch.cat(list(row), dim=-1) for row in framed], dim=-2)


def as_image(picture: Float[Tensor, "3 height width"]) -> Image.Image:
    """For a file."""
    return Image.fromarray(eight_bit(picture[None])[0])


def psnr(truth: Float[Tensor, "*n t 3 h w"], sampled: Float[Tensor, "*n t 3 h w"]) -> float:
    """Peak signal-to-noise ratio in dB over the frames that were not given; colours in 0..1."""
    error = (truth - sampled)[..., CLEAN_FRAMES:, :, :, :].float().square().mean()
    return float(-10 * np.log10(max(float(error), 1e-10)))
