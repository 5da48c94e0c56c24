"""Clips to bytes and back: a view is one vertical strip of its frames."""

import io

import numpy as np
from PIL import Image

from pipeline.records import Clip
from pipeline.storage import Store

GREY = 0.5
"""The training background of MV-VDM."""


MAX_STRIP_PX = 16_383
"""WebP's limit for the height of a strip: a view of 16 frames ends at 1023 pixels a side, of 24 at 682."""


def strip_name(view: int) -> str:
    """File name of a view's strip in a clip's folder."""
    return f"v{view:02d}.webp"


def encode_strip(frames: np.ndarray, *, quality: int | None = None) -> bytes:
    """A view's frames as one WebP, stacked top to bottom.

    Args:
        frames: Shape (frame, height, width, 4), uint8, straight alpha.
        quality: None is lossless where alpha > 0; 0..100 is lossy colour with exact alpha.

    Returns:
        The WebP file; the same frames and quality give the same bytes.
    """
    num_frames, height, width, channels = frames.shape
    if channels != 4 or frames.dtype != np.uint8:
        raise ValueError(f"frames must be uint8 RGBA, got {frames.dtype} with {channels} channels")
    image = Image.fromarray(frames.reshape(num_frames * height, width, 4), "RGBA")
    buffer = io.BytesIO()
    if quality is None:
        image.save(buffer, "WEBP", lossless=True, method=1, quality=20)
    else:
        image.save(buffer, "WEBP", quality=quality, method=2, alpha_quality=100)
    return buffer.getvalue()


def decode_strip(content: bytes, num_frames: int) -> np.ndarray:
    """The frames of a strip, shape (frame, height, width, 4), uint8, straight alpha.

    Raises:
        ValueError: The bytes are no image, or its height is not a multiple of the frame count.
    """
    try:
        with Image.open(io.BytesIO(content), formats=("WEBP", "PNG")) as image:
            pixels = np.asarray(image.convert("RGBA"))
    except (OSError, Image.DecompressionBombError) as error:
        raise ValueError(f"not a strip: {error}") from error
    height, width = pixels.shape[:2]
    if height % num_frames:
        raise ValueError(f"a strip {height} pixels high does not hold {num_frames} frames")
    return pixels.reshape(num_frames, height // num_frames, width, 4)


def read_view(store: Store, clip: Clip, view: int) -> np.ndarray:
    """One view of a clip, shape (frame, height, width, 4), uint8, straight alpha."""
    return decode_strip(store.read_bytes(f"{clip.folder}/{strip_name(view)}"), clip.num_frames)


def compose(frames: np.ndarray, background: float | tuple[float, float, float] = GREY) -> np.ndarray:
    """RGBA frames over a background.

    Args:
        frames: Shape (..., 4), uint8, straight alpha.
        background: Grey level or RGB, 0..1.

    Returns:
        Shape (..., 3), float32 in 0..1.
    """
    rgba = frames.astype(np.float32) / 255.0
    alpha = rgba[..., 3:]
    behind = np.broadcast_to(np.asarray(background, dtype=np.float32), rgba[..., :3].shape)
    blended: np.ndarray = rgba[..., :3] * alpha + behind * (1.0 - alpha)
    return blended
