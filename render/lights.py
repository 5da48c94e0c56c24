"""Lighting rigs: what shines on a clip. Nothing of it is Blender's default of the day.

- `studio`: key, fill and rim from the front left, right and back, with soft shadows, and grey surroundings. How strong
  each of the three is, is drawn for each clip.
- `diffusion4d`: the four suns of Diffusion4D's script, energies and directions as there, and the dark grey world of
  the Blender that it ran in. They throw no shadows, as the script asks, though it asks by a switch that Cycles did not
  heed before Blender 4: its pictures may have them.
- `grey`: the surroundings alone, the same from everywhere.
- `hdri`: a picture of real surroundings, chosen and turned for each clip.

All that is drawn is drawn from the clip's id, rounded, and recorded in the clip.
"""

import random
from dataclasses import dataclass
from typing import Literal

from render.protocol import Light, Sun

LightsName = Literal["studio", "diffusion4d", "grey", "hdri"]


@dataclass(frozen=True, kw_only=True)
class Lamp:
    """A sun of a rig."""

    name: str
    rotation_deg: tuple[float, float, float]
    strengths: tuple[float, ...]
    """W/m2; one of them is drawn."""
    angle_deg: float
    shadow: bool


def _from(azimuth_deg: float, elevation_deg: float) -> tuple[float, float, float]:
    """Rotation of a sun that stands where a camera of these angles would."""
    return 90.0 - elevation_deg, 0.0, azimuth_deg


_SHARP_DEG = 0.526
"""The sun's own size, which new lamps have in Blender."""

LAMPS: dict[LightsName, tuple[Lamp, ...]] = {
    "studio": (
        Lamp(name="key", rotation_deg=_from(-40, 42), strengths=(1.75,), angle_deg=10.0, shadow=True),
        Lamp(name="fill", rotation_deg=_from(75, 20), strengths=(0.85,), angle_deg=10.0, shadow=True),
        Lamp(name="rim", rotation_deg=_from(190, 25), strengths=(1.4,), angle_deg=10.0, shadow=True),
    ),
    "diffusion4d": (
        Lamp(name="key", rotation_deg=(45, 0, -45), strengths=(3, 4, 5), angle_deg=_SHARP_DEG, shadow=False),
        Lamp(name="fill", rotation_deg=(45, 0, 135), strengths=(2, 3, 4), angle_deg=_SHARP_DEG, shadow=False),
        Lamp(name="rim", rotation_deg=(-45, 0, -225), strengths=(3, 4, 5), angle_deg=_SHARP_DEG, shadow=False),
        Lamp(name="bottom", rotation_deg=(180, 0, 0), strengths=(1, 2, 3), angle_deg=_SHARP_DEG, shadow=False),
    ),
    "grey": (),
    "hdri": (),
}
AMBIENT: dict[LightsName, float] = {"studio": 0.38, "diffusion4d": 0.0509, "grey": 0.8, "hdri": 1.0}
"""Grey level of the surroundings, or factor on their picture."""


def light_of(
    name: LightsName,
    clip_id: str,
    *,
    strength: float = 1.0,
    ambient: float = 1.0,
    jitter: float = 0.0,
    shadows: bool | None = None,
    picture: str = "",
    turn_deg: float | None = None,
    own: bool = False,
) -> Light:
    """The light of a clip.

    Args:
        name: The rig.
        clip_id: What everything is drawn from.
        strength: Factor on the lamps.
        ambient: Factor on the surroundings.
        jitter: `studio` lamps are drawn from 1 - jitter to 1 + jitter of their strength, each for itself.
        shadows: Of all lamps; None as the rig has it.
        picture: Of the surroundings.
        turn_deg: Of the picture; None draws it.
        own: The asset's own lights go first.
    """
    draw = random.Random(f"{clip_id}:lights")
    suns = []
    for lamp in LAMPS[name]:
        drawn = draw.choice(lamp.strengths) * strength
        if name == "studio":
            drawn *= draw.uniform(1 - jitter, 1 + jitter)
        suns.append(
            Sun(
                name=lamp.name,
                rotation_deg=list(lamp.rotation_deg),
                strength=round(drawn, 4),
                angle_deg=lamp.angle_deg,
                shadow=lamp.shadow if shadows is None else shadows,
            )
        )
    turn = draw.uniform(0, 360) if turn_deg is None else turn_deg
    return Light(
        suns=suns,
        ambient_strength=round(AMBIENT[name] * ambient, 4),
        picture=picture,
        turn_deg=round(turn, 3) if picture else 0.0,
        own=own,
    )
