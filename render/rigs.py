"""Rigs: where the cameras stand.

- `mv16`: 16 cameras that stand still, 22.5 degrees apart; the first one's azimuth is drawn from -11.25 to 11.25 and one
  elevation from 0 to 30 degrees for each clip (MV-Video's rig).
- `ortho4`: front, left, back and right, at 15 degrees elevation: the same for all clips, unless `Cameras` widens it.
- `orbit16`, `orbit24`: one camera that goes round once while the object moves, a step of 360/N a frame; and beside it
  the static twin: the same cameras, the object frozen at its first frame. Drawn as for `mv16`.
- `front`: one camera in front, at 15 degrees elevation.
- `random`: cameras that stand still anywhere on the sphere, each drawn for itself.

All that is drawn is drawn from the clip's id, so an id and its settings give the same cameras on any machine.
"""

import math
import random
from dataclasses import dataclass
from typing import Literal

import numpy as np

from pipeline.cameras import look_at_origin

RigName = Literal["mv16", "ortho4", "orbit16", "orbit24", "front", "random"]


@dataclass(frozen=True, kw_only=True)
class Rig:
    """The shape of a rig."""

    num_views: int
    start_jitter_deg: float
    """The first azimuth is drawn from minus this to this."""
    elevation_deg: tuple[float, float]
    """Range from which one elevation is drawn."""
    num_frames: int = 0
    """Frames of an orbit; 0 where cameras stand still, which suits any number."""
    scattered: bool = False
    """Each camera is drawn for itself, evenly over the sphere's surface."""


RIGS: dict[str, Rig] = {
    "mv16": Rig(num_views=16, start_jitter_deg=11.25, elevation_deg=(0.0, 30.0)),
    "ortho4": Rig(num_views=4, start_jitter_deg=0.0, elevation_deg=(15.0, 15.0)),
    "orbit16": Rig(num_views=2, start_jitter_deg=11.25, elevation_deg=(0.0, 30.0), num_frames=16),
    "orbit24": Rig(num_views=2, start_jitter_deg=11.25, elevation_deg=(0.0, 30.0), num_frames=24),
    "front": Rig(num_views=1, start_jitter_deg=0.0, elevation_deg=(15.0, 15.0)),
    "random": Rig(num_views=8, start_jitter_deg=180.0, elevation_deg=(-80.0, 80.0), scattered=True),
}


@dataclass(frozen=True, kw_only=True)
class Cameras:
    """Lens and place of the cameras, and what to change about a rig."""

    radius: float = 3.0
    """Distance to the origin; the object fits the unit sphere."""
    fov_deg: float = 40.0
    start_jitter_deg: float | None = None
    """Draw the first azimuth from minus this to this; None for the rig's own."""
    elevation_min_deg: float | None = None
    elevation_max_deg: float | None = None
    """Draw the elevation from here; None for the rig's own."""
    num_random_views: int = 8
    """Cameras of the rig `random`."""

    def __post_init__(self) -> None:
        if not 0 < self.fov_deg < 180 or self.radius * math.sin(math.radians(self.fov_deg) / 2) < 1:
            raise ValueError(
                f"the unit sphere does not fit the picture: need radius * sin(fov_deg / 2) >= 1, got radius "
                f"{self.radius} and fov_deg {self.fov_deg}"
            )
        if self.start_jitter_deg is not None and not 0 <= self.start_jitter_deg <= 180:
            raise ValueError(f"start_jitter_deg must lie in 0..180, got {self.start_jitter_deg}")
        for angle in (self.elevation_min_deg, self.elevation_max_deg):
            if angle is not None and not -85 <= angle <= 85:
                raise ValueError(f"elevations must lie in -85..85, got {angle}")
        if not 1 <= self.num_random_views <= 100:
            raise ValueError(f"num_random_views must lie in 1..100, got {self.num_random_views}")

    def applied_to(self, rig: Rig) -> Rig:
        """The rig as changed by these settings.

        Raises:
            ValueError: The lowest elevation would be above the highest.
        """
        low, high = rig.elevation_deg
        low = low if self.elevation_min_deg is None else self.elevation_min_deg
        high = high if self.elevation_max_deg is None else self.elevation_max_deg
        if low > high:
            raise ValueError(f"the lowest elevation, {low}, is above the highest, {high}")
        return Rig(
            num_views=self.num_random_views if rig.scattered else rig.num_views,
            start_jitter_deg=rig.start_jitter_deg if self.start_jitter_deg is None else self.start_jitter_deg,
            elevation_deg=(low, high),
            num_frames=rig.num_frames,
            scattered=rig.scattered,
        )


@dataclass(frozen=True, kw_only=True)
class RigView:
    """A camera's place for one strip of frames: one place a frame where it moves, else one for all."""

    name: str
    azimuth_deg: tuple[float, ...]
    elevation_deg: float
    frozen: bool = False
    """The object stays as it is at the first frame."""

    def c2w(self, radius: float) -> np.ndarray:
        """Camera-to-world of each place, rounded so that processors agree on all digits. Shape (place, 4, 4)."""
        exact = np.stack([look_at_origin(angle, self.elevation_deg, radius) for angle in self.azimuth_deg])
        rounded: np.ndarray = np.round(exact, 9) + 0.0  # and no minus zero
        return rounded


def views_of(name: str, cameras: Cameras, clip_id: str) -> tuple[RigView, ...]:
    """The views of a clip. Angles are rounded to a thousandth of a degree: they are printed and compared.

    Raises:
        KeyError: There is no such rig.
    """
    rig = cameras.applied_to(RIGS[name])
    draw = random.Random(f"{clip_id}:cameras")
    start, elevation = _draw_place(draw, rig)
    if rig.num_frames:
        azimuths = tuple(_turned(start, index / rig.num_frames) for index in range(rig.num_frames))
        return (
            RigView(name="orbit", azimuth_deg=azimuths, elevation_deg=elevation),
            RigView(name="static", azimuth_deg=azimuths, elevation_deg=elevation, frozen=True),
        )
    views = []
    for view in range(rig.num_views):
        azimuth = _turned(start, view / rig.num_views)
        if rig.scattered and view:
            azimuth, elevation = _draw_place(draw, rig)
        views.append(RigView(name=f"view_{view:02d}", azimuth_deg=(azimuth,), elevation_deg=elevation))
    return tuple(views)


def _draw_place(draw: random.Random, rig: Rig) -> tuple[float, float]:
    azimuth = draw.uniform(-rig.start_jitter_deg, rig.start_jitter_deg)
    low, high = rig.elevation_deg
    if rig.scattered:  # on a sphere, equal heights are equal areas
        height = draw.uniform(math.sin(math.radians(low)), math.sin(math.radians(high)))
        elevation = math.degrees(math.asin(height))
    else:
        elevation = draw.uniform(low, high)
    return round(azimuth, 3), round(elevation, 3)


def _turned(azimuth_deg: float, share: float) -> float:
    return round(azimuth_deg + 360.0 * share, 3)
