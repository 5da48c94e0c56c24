"""How pictures look and what they cost: light, samples, denoiser, compression."""

import dataclasses
import re
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from pipeline.media import encode_strip
from pipeline.records import content_id
from render.devices import EngineName
from render.lights import LAMPS, LightsName, light_of
from render.protocol import Light, Paths

QualityName = Literal["preview", "standard", "high", "diffusion4d"]

Storage = Literal["exact", "near", "small"]
"""exact: all bits. near: each colour within 1/255 of the drawn one (50 dB), in 70 to 85 % of the bytes. small: lossy
WebP of quality 95, in 30 to 50 %; it keeps colour at half resolution, which costs textured objects dearly (25 to
42 dB over the object)."""
SMALL_QUALITY = 95


@dataclass(frozen=True, kw_only=True)
class Quality:
    """What a picture may cost."""

    samples: int
    """Most paths a pixel."""
    denoise: Literal["none", "fast", "accurate"]
    paths: Paths = field(default_factory=Paths)

    @classmethod
    def of(cls, values: dict[str, Any]) -> "Quality":
        """The quality from its fields as JSON values."""
        return cls(**{**values, "paths": Paths(**values["paths"])})


QUALITIES: dict[str, Quality] = {
    "preview": Quality(samples=4, denoise="fast"),
    # The threshold saves up to two fifths at equal error: the background and flat surfaces end after 16 paths.
    "standard": Quality(samples=64, denoise="fast", paths=Paths(adaptive_threshold=0.03, adaptive_min_samples=1)),
    "high": Quality(samples=256, denoise="accurate", paths=Paths(adaptive_threshold=0.01, adaptive_min_samples=1)),
    # Theirs where their script says so, and Blender 3.2's own where it does not.
    "diffusion4d": Quality(
        samples=128,
        denoise="accurate",
        paths=Paths(
            max_bounces=12,
            diffuse_bounces=1,
            glossy_bounces=1,
            transmission_bounces=3,
            transparent_bounces=3,
            caustics=True,
            clamp_indirect=10.0,
            light_tree=False,
            adaptive_threshold=0.01,
            filter_width_px=0.01,
        ),
    ),
}


@dataclass(frozen=True, kw_only=True)
class Look:
    """What draws, the light, and how the pictures are stored."""

    engine: EngineName = "cycles"
    """cycles: paths of light, on a processor or a GPU. eevee: several times as fast, with light and shadow made to look
    alike; needs a GPU, and draws as many samples a pixel as the quality says."""
    lights: LightsName = "studio"
    """studio: soft key, fill and rim. diffusion4d: the four suns of its script. grey: the surroundings alone. hdri:
    pictures of real surroundings."""
    light_strength: float = 1.0
    """Factor on the lamps."""
    ambient_strength: float = 1.0
    """Factor on the surroundings, which light the object and are not seen."""
    light_jitter: float = 0.1
    """Each lamp of `studio` is drawn from 1 minus this to 1 plus this of its strength, for each clip."""
    shadows: bool | None = None
    """Whether lamps throw shadows; None as the rig has it."""
    hdri_folder: str = ""
    """Folder of .hdr and .exr pictures for `hdri`. They are copied into the data root; their bytes, not their names,
    decide which clip gets which."""
    hdris: tuple[str, ...] = ()
    """Pictures that were copied into the data root before, as `sha256.suffix`."""
    hdri_turn_deg: float | None = None
    """Azimuth at which the picture's middle is seen; None draws it for each clip."""
    own_lights: bool = False
    """Light an asset that has lights or a world of its own with those instead."""
    view_transform: Literal["standard", "filmic"] = "standard"
    """From light to colour. standard: sRGB, cut off at white. filmic: the default of Blender 2.8 to 3.6, duller."""
    storage: Storage = "near"
    """How colours are kept; alpha is always exact, and colour under alpha 0 never kept."""

    def __post_init__(self) -> None:
        strengths = (self.ambient_strength,) if self.lights in ("grey", "hdri") else (
            self.light_strength, self.ambient_strength,
        )  # fmt: skip
        if min(self.light_strength, self.ambient_strength) < 0 or not sum(strengths) > 0:
            raise ValueError(f"need light, got {self}")
        if not 0 <= self.light_jitter < 1:
            raise ValueError(f"light_jitter must lie in 0..1, got {self.light_jitter}")
        if self.engine not in ("cycles", "eevee"):
            raise ValueError(f"engine must be cycles or eevee, got {self.engine!r}")
        if self.storage not in ("exact", "near", "small"):
            raise ValueError(f"storage must be exact, near or small, got {self.storage!r}")
        if self.lights not in LAMPS or self.view_transform not in ("standard", "filmic"):
            raise ValueError(f"no such lights or view transform: {self.lights}, {self.view_transform}")
        has_pictures = bool(self.hdri_folder or self.hdris)
        if has_pictures != (self.lights == "hdri"):
            raise ValueError("hdri_folder (or hdris) and lights=hdri go together")
        for name in self.hdris:
            if not re.fullmatch(r"[0-9a-f]{64}\.(hdr|exr)", name):
                raise ValueError(f"hdris are sha256.hdr or sha256.exr, got {name!r}")
        if self.hdri_turn_deg is not None and not -360 <= self.hdri_turn_deg <= 360:
            raise ValueError(f"hdri_turn_deg must lie in -360..360, got {self.hdri_turn_deg}")

    @classmethod
    def of(cls, values: dict[str, Any]) -> "Look":
        """The look from its fields as JSON values."""
        return cls(**{**values, "hdris": tuple(values["hdris"])})

    def for_clip(self, *ids: str | int) -> "Look":
        """The look of one clip: of the pictures, the one that is drawn for it.

        Drawn by hash, so a picture that is added takes only the clips that it wins.
        """
        if len(self.hdris) < 2:
            return self
        return dataclasses.replace(self, hdris=(min(self.hdris, key=lambda name: content_id(*ids, name)),))

    def light(self, clip_id: str) -> Light:
        """What shines on a clip; `picture` is a name of `hdris`."""
        return light_of(
            self.lights,
            clip_id,
            strength=self.light_strength,
            ambient=self.ambient_strength,
            jitter=self.light_jitter,
            shadows=self.shadows,
            picture=self.hdris[0] if self.hdris else "",
            turn_deg=self.hdri_turn_deg,
            own=self.own_lights,
        )

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
    rounded = _MULTIPLES_OF_3[frames]
    rounded[..., 3] = frames[..., 3]
    rounded.view(np.uint32)[frames[..., 3:] == 0] = 0
    return rounded
