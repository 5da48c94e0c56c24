"""How the object sits in the pictures: how much of them it covers, and whether it touches their border.

Both are read from the alpha channel, so lights, textures and background play no part.
"""

from collections.abc import Sequence

import numpy as np

from pipeline.records import Visibility

TOUCH_ALPHA = 128
"""A border pixel is touched if the object covers half of it; the soft rim of a renderer's pixel filter is not a
touch."""


def coverage(frames: np.ndarray) -> np.ndarray:
    """Share of each picture that the object covers, shape (frame,), 0..1.

    Args:
        frames: Shape (frame, height, width, 4), uint8, straight alpha.
    """
    return frames[..., 3].mean(axis=(1, 2), dtype=np.float64) / 255.0


def touches_border(frames: np.ndarray) -> np.ndarray:
    """Whether the object touches the outermost pixels of each picture, shape (frame,), bool.

    Args:
        frames: Shape (frame, height, width, 4), uint8, straight alpha.
    """
    solid = frames[..., 3] >= TOUCH_ALPHA
    rows = solid[:, [0, -1], :].any(axis=(1, 2))
    columns = solid[:, :, [0, -1]].any(axis=(1, 2))
    return np.logical_or(rows, columns)


def visibility(clip_id: str, coverages: Sequence[np.ndarray], touches: Sequence[np.ndarray]) -> Visibility:
    """A clip's row from the `coverage` and `touches_border` of all its views."""
    covered = np.concatenate(coverages)
    return Visibility(
        clip_id=clip_id,
        coverage_min=float(covered.min()),
        coverage_mean=float(covered.mean()),
        coverage_max=float(covered.max()),
        border_touch=float(np.concatenate(touches).mean()),
    )
