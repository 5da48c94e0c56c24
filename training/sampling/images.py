"""Pictures in: whatever a caller has, as tensors on the background that the model knows."""

import warnings
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

Pictures = Tensor | np.ndarray | Sequence[Image.Image] | Sequence[Sequence[Image.Image]]
"""One object's views or several objects': PIL images, or numbers in 0..1 as (…, view, channel, height, width) tensors
or (…, view, height, width, channel) arrays; uint8 arrays are 0..255."""

BACKGROUND = 0.5
"""Grey, as in training; Animate3D fails on objects in front of white."""


def view_pictures(
    pictures: Pictures, background: float = BACKGROUND, size_px: int | None = None
) -> Float[Tensor, "b v 3 h w"]:
    """Colours in 0..1, transparent parts filled with the background.

    Args:
        pictures: Of one object or of several; all with the same number of views and the same size.
        background: Grey level behind pictures with alpha.
        size_px: Resize to this square, if given.

    Raises:
        ValueError: Shapes or values that are none of a picture.
    """
    values = _as_tensor(pictures)
    if values.ndim == 4:
        values = values[None]
    if values.ndim != 5 or values.shape[2] not in (3, 4):
        raise ValueError(f"pictures must be views by 3 or 4 channels by height by width, got {tuple(values.shape)}")
    if not (torch.isfinite(values).all() and values.min() >= 0.0 and values.max() <= 1.0):
        raise ValueError("pictures must lie in 0..1; for 0..255 pass uint8, and for -1..1 rescale")
    if values.shape[2] == 4:
        alpha = values[:, :, 3:]
        values = values[:, :, :3] * alpha + background * (1 - alpha)
    if size_px is not None and values.shape[-2:] != (size_px, size_px):
        resized = F.interpolate(
            values.flatten(0, 1), (size_px, size_px), mode="bicubic", antialias=True, align_corners=False
        )
        values = resized.clamp(0, 1).unflatten(0, values.shape[:2])
    _warn_of_background(values, background)
    return values


def eight_bit(pictures: Float[Tensor, "*n 3 h w"]) -> list[UInt8[np.ndarray, "h w 3"]]:
    """Each picture as bytes: what CLIP's image processor divides by 255, as it would not know of 0..1."""
    levels = (pictures.float().clamp(0, 1) * 255).round().to(torch.uint8)
    return list(levels.reshape(-1, *levels.shape[-3:]).permute(0, 2, 3, 1).cpu().numpy())


def _as_tensor(pictures: Pictures) -> Tensor:
    if isinstance(pictures, Tensor):
        return pictures.float() / 255 if pictures.dtype == torch.uint8 else pictures.float()
    if isinstance(pictures, np.ndarray):
        return _as_tensor(torch.from_numpy(np.moveaxis(pictures, -1, -3).copy()))
    if not len(pictures):
        raise ValueError("there are no pictures")
    if isinstance(pictures[0], Image.Image):
        return _from_pil([picture for picture in pictures if isinstance(picture, Image.Image)])
    rows = [_as_tensor(row) for row in pictures if not isinstance(row, Image.Image)]
    if len({row.shape for row in rows}) != 1:
        raise ValueError(f"all objects need the same views and sizes, got {sorted({tuple(row.shape) for row in rows})}")
    return torch.stack(rows)


def _from_pil(pictures: Sequence[Image.Image]) -> Tensor:
    with_alpha = any(picture.has_transparency_data for picture in pictures)
    arrays = [np.asarray(picture.convert("RGBA" if with_alpha else "RGB")) for picture in pictures]
    if len({array.shape for array in arrays}) != 1:
        raise ValueError(f"all views need the same size, got {sorted({picture.size for picture in pictures})}")
    return _as_tensor(np.stack(arrays))


def _warn_of_background(pictures: Tensor, background: float) -> None:
    corners = pictures[..., [0, 0, -1, -1], [0, -1, 0, -1]]
    level = float(corners.median())
    if abs(level - background) > 0.1:
        warnings.warn(
            f"the corners of the pictures are at {level:.2f}, the model was trained on a background of "
            f"{background:.2f}; pass pictures with alpha, or on that background",
            stacklevel=3,
        )
