"""What the object looks like: its light, its colours, Blender's missing-texture pink, and a fingerprint.

Measured over the object's own pixels, so the background plays no part, except in the fingerprint, which is taken on
grey.
"""

from collections.abc import Sequence

import imagehash
import numpy as np
from PIL import Image

from pipeline.media import GREY, compose
from pipeline.records import Appearance

LUMA = np.array([0.2126, 0.7152, 0.0722], np.float32)
"""Rec. 709, on the display values as they are."""
SOLID_ALPHA = 128
_SAMPLED_PX = 256
"""Pictures larger than this are sampled at every n-th pixel: the scores are means over thousands of pixels anyway."""


def key_frames(frames: np.ndarray) -> np.ndarray:
    """The first, middle and last frame, shape (3, height, width, 4)."""
    return frames[[0, len(frames) // 2, len(frames) - 1]]


def object_pixels(frames: np.ndarray) -> np.ndarray:
    """Colours of the pixels that the object covers at least by half, shape (pixel, 3), uint8.

    Args:
        frames: Shape (frame, height, width, 4), uint8, straight alpha.
    """
    step = max(1, frames.shape[1] // _SAMPLED_PX)
    sampled = frames[:, ::step, ::step]
    return sampled[sampled[..., 3] >= SOLID_ALPHA][:, :3]


def fingerprint(frames: np.ndarray) -> str:
    """Perceptual hash (DCT, 64 bits a frame) of the first, middle and last frame on grey, hexadecimal.

    Args:
        frames: Shape (frame, height, width, 4), uint8, straight alpha.
    """
    pictures = np.round(compose(key_frames(frames), GREY) * 255.0).astype(np.uint8)
    return "".join(str(imagehash.phash(Image.fromarray(picture))) for picture in pictures)


def colourfulness(pixels: np.ndarray) -> float:
    """Spread and strength of the opponent colours (Hasler and Süsstrunk 2003, eq. 5), 0 for grey, above 80 vivid.

    Args:
        pixels: Shape (pixel, 3), RGB on the paper's scale of 0..255.
    """
    red, green, blue = np.moveaxis(pixels.astype(np.float32), -1, 0)
    red_green, yellow_blue = red - green, 0.5 * (red + green) - blue
    spread = np.hypot(red_green.std(), yellow_blue.std())
    return float(spread + 0.3 * np.hypot(red_green.mean(), yellow_blue.mean()))


def magenta_share(pixels: np.ndarray) -> float:
    """Share of pixels that are lit (1, 0, 1), which Blender shows where a texture is missing.

    Args:
        pixels: Shape (pixel, 3), RGB, uint8.
    """
    red, green, blue = np.moveaxis(pixels.astype(np.int16), -1, 0)
    strong = np.maximum(red, blue)
    pink = (strong > 50) & (np.abs(red - blue) <= 0.15 * strong) & (np.minimum(red, blue) - green > 0.6 * strong)
    return float(pink.mean())


def appearance(clip_id: str, pixels: Sequence[np.ndarray], fingerprint: str) -> Appearance:
    """A clip's row from the `object_pixels` of its views; all numbers are NaN if the object is never seen."""
    colours = np.concatenate(pixels)
    if not len(colours):
        nan = float("nan")
        colours_of_nothing = {"luminance_mean": nan, "contrast": nan, "colourfulness": nan, "magenta_share": nan}
        return Appearance(clip_id=clip_id, fingerprint=fingerprint, **colours_of_nothing)
    luminance = colours.astype(np.float32) @ LUMA / 255.0
    return Appearance(
        clip_id=clip_id,
        luminance_mean=float(luminance.mean()),
        contrast=float(luminance.std()),
        colourfulness=colourfulness(colours),
        magenta_share=magenta_share(colours),
        fingerprint=fingerprint,
    )
