"""A picture of a fit beside what it is fitted to."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fourd.files import written_beside
from fourd.moving import MovingGaussians
from fourd.video import MultiViewVideo


def draw_below(
    model: MovingGaussians, video: MultiViewVideo, frames: Tensor, view: int, path: Path, *, background: float
) -> None:
    """Write a picture: frames of a video's view, and under them what a model shows there.

    Args:
        model: The Gaussians.
        video: Of any views.
        frames: Shape (F,).
        view: Which of the video's.
        path: The file.
        background: Grey level.
    """
    views = torch.tensor([view])
    width, height = video.size_px
    with torch.no_grad():
        target, _ = video.colors(frames, views, background)
        _, moved = model.motion(frames)
        render, _, _ = model.pictures(
            moved, video.w2c(frames, views), video.camera_matrix(width), width, height, background=background
        )
    rows = [torch.cat(list(pictures[:, 0]), dim=1) for pictures in (target, render)]
    pixels = (torch.cat(rows).clamp(0, 1) * 255).round().byte().cpu().numpy()
    with written_beside(path) as beside:
        Image.fromarray(np.ascontiguousarray(pixels)).save(beside)
