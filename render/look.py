"""How pictures look and what they cost: light, samples, denoiser, compression."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from pipeline.media import encode_strip

QualityName = Literal["preview", "standard", "high"]

Storage = Literal["exact", "near", "small"]
"""exact: all bits. near: each colour within 1/255 of the drawn one (50 dB), in 70 to 85 % of the bytes. small: lossy
WebP of quality 95, in 30 to 50 %; it keeps colour at half resolution, which costs textured objects dearly (25 to
42 dB over the object)."""
SMALL_QUALITY = 95


@dataclass(frozen=True, kw_only=True)
class Quality:
    """What a picture may cost."""

    samples: int
    """Paths a pixel."""
    denoise: Literal["none", "fast", "accurate"]


QUALITIES: dict[str, Quality] = {
    "preview": Quality(samples=4, denoise="fast"),
    "standard": Quality(samples=32, denoise="fast"),
    "high": Quality(samples=128, denoise="accurate"),
}


@dataclass(frozen=True, kw_only=True)
class Look:
    """The light, and how the pictures are stored."""

    light_strength: float = 1.0
    """Factor on the key, fill and rim light."""
    ambient_strength: float = 0.3
    """Grey level of the surroundings, which light the object and are not seen."""
    storage: Storage = "near"
    """How colours are kept; alpha is always exact, and colour under alpha 0 never kept."""

    def __post_init__(self) -> None:
        if self.light_strength < 0 or self.ambient_strength < 0 or self.light_strength + self.ambient_strength == 0:
            raise ValueError(f"need light, got {self}")
        if self.storage not in ("exact", "near", "small"):
            raise ValueError(f"storage must be exact, near or small, got {self.storage!r}")

    def encode(self, frames: np.ndarray) -> bytes:
        """A view's frames as a strip.

        Args:
            frames: Shape (frame, height, width, 4), uint8, straight alpha.
        """
        if self.storage == "small":
            return encode_strip(frames, quality=SMALL_QUALITY)
        return encode_strip(near(frames) if self.storage == "near" else frames)


_MULTIPLES_OF_3 = ((np.arange(256) + 1) // 3 * 3).astype(np.uint8)


def near(frames: np.ndarray) -> np.ndarray:
    """Frames with each colour rounded to a multiple of 3, and none where nothing shows: they compress better."""
    rounded = frames.copy()
    rounded[..., :3] = _MULTIPLES_OF_3[frames[..., :3]]
    rounded[frames[..., 3] == 0] = 0
    return rounded
