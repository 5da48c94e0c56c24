"""Rigs: where the cameras stand.

- `mv16`: 16 cameras that stand still, 22.5 degrees apart; the first one's azimuth is drawn from -11.25 to 11.25 and one
  elevation from 0 to 30 degrees for each clip (MV-Video's rig).
- `ortho4`: front, left, back and right, at 15 degrees elevation: the same for all clips, unless `Cameras` widens it.
- `orbit16`, `orbit24`: one camera that goes round once while the object moves, a step of 360/N a frame; and beside it
  the static twin: the same cameras, the object frozen at its first frame. Drawn as for `mv16`.
- `front`: one camera in front, at 15 degrees elevation.
- `random`: cameras that stand still anywhere on the sphere, each drawn for itself.
- `diffusion4d`: the three sets of pictures of Diffusion4D's script in one clip of 24 frames: the orbit and its static
  twin, as `orbit24`; and from four cameras that stand still at elevation 0, the moving object in front, left, right and
  back.

All that is drawn is drawn from the clip's id, so an id and its settings give the same cameras on any machine.
"""

import math
import random
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from pipeline.cameras import look_at_origin

RigName = Literal["mv16", "ortho4", "orbit16", "orbit24", "front", "random", "diffusion4d"]

FOUR_VIEWS = {"front": 0.0, "left": 90.0, "right": 270.0, "back": 180.0}
"""Azimuths of cameras, degrees; left and right are the object's."""


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
    four_views: bool = False
    """Beside the orbit, the moving object is seen from `FOUR_VIEWS`."""


RIGS: dict[str, Rig] = {
    "mv16": Rig(num_views=16, start_jitter_deg=11.25, elevation_deg=(0.0, 30.0)),
    "ortho4": Rig(num_views=4, start_jitter_deg=0.0, elevation_deg=(15.0, 15.0)),
    "orbit16": Rig(num_views=2, start_jitter_deg=11.25, elevation_deg=(0.0, 30.0), num_frames=16),
    "orbit24": Rig(num_views=2, start_jitter_deg=11.25, elevation_deg=(0.0, 30.0), num_frames=24),
    "front": Rig(num_views=1, start_jitter_deg=0.0, elevation_deg=(15.0, 15.0)),
    "random": Rig(num_views=8, start_jitter_deg=180.0, elevation_deg=(-80.0, 80.0), scattered=True),
    "diffusion4d": Rig(num_views=6, start_jitter_deg=0.0, elevation_deg=(0.0, 0.0), num_frames=24, four_views=True),
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
    orbit_closes: bool = False
    """An orbit of N frames takes steps of 360/(N-1): the last frame is seen from where the first is (Diffusion4D)."""
    elevation_law: Literal["degrees", "diffusion4d"] = "degrees"
    """diffusion4d: an elevation e in these settings stands for atan(e / 180), as in that script, where 5, 15 and 30
    give 1.59, 4.76 and 9.46 degrees. Records always say the true angle."""
    framing: Literal["all_frames", "first_box"] = "all_frames"
    """all_frames: nothing ever leaves the picture. first_box: the box of the first frame alone is scaled so that its
    largest side is 1 (Diffusion4D); what moves may leave the picture, and is for curation to find."""

    def __post_init__(self) -> None:
        fits = self.framing == "first_box" or self.radius * math.sin(math.radians(self.fov_deg) / 2) >= 1
        if self.radius <= 1 or not 0 < self.fov_deg < 180 or not fits:
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
        return replace(
            rig,
            num_views=self.num_random_views if rig.scattered else rig.num_views,
            start_jitter_deg=rig.start_jitter_deg if self.start_jitter_deg is None else self.start_jitter_deg,
            elevation_deg=(low, high),
        )

    def true_elevation_deg(self, elevation_deg: float) -> float:
        """Of an elevation by the law of these settings."""
        if self.elevation_law == "degrees":
            return elevation_deg
        return round(math.degrees(math.atan(elevation_deg / 180.0)), 6)


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
    """The views of a clip. What is drawn is rounded to a thousandth of a degree: it is printed and compared.

    Raises:
        KeyError: There is no such rig.
    """
    rig = cameras.applied_to(RIGS[name])
    draw = random.Random(f"{clip_id}:cameras")
    start, elevation = _draw_place(draw, rig, cameras)
    if rig.num_frames:
        num_steps = rig.num_frames - 1 if cameras.orbit_closes else rig.num_frames
        azimuths = tuple(_turned(start, index / num_steps) for index in range(rig.num_frames))
        orbit = RigView(name="orbit", azimuth_deg=azimuths, elevation_deg=elevation)
        still = FOUR_VIEWS.items() if rig.four_views else ()
        return (
            orbit,
            replace(orbit, name="static", frozen=True),
            *(RigView(name=side, azimuth_deg=(angle,) * rig.num_frames, elevation_deg=0.0) for side, angle in still),
        )
    views = []
    for view in range(rig.num_views):
        azimuth = _turned(start, view / rig.num_views)
        if rig.scattered and view:
            azimuth, elevation = _draw_place(draw, rig, cameras)
        views.append(RigView(name=f"view_{view:02d}", azimuth_deg=(azimuth,), elevation_deg=elevation))
    return tuple(views)


def _draw_place(draw: random.Random, rig: Rig, cameras: Cameras) -> tuple[float, float]:
    azimuth = draw.uniform(-rig.start_jitter_deg, rig.start_jitter_deg)
    low, high = rig.elevation_deg
    if rig.scattered:  # on a sphere, equal heights are equal areas
        height = draw.uniform(math.sin(math.radians(low)), math.sin(math.radians(high)))
        elevation = math.degrees(math.asin(height))
    else:
        elevation = draw.uniform(low, high)
    return round(azimuth, 3), cameras.true_elevation_deg(round(elevation, 3))


def _turned(azimuth_deg: float, share: float) -> float:
    return round(azimuth_deg + 360.0 * share, 6)
