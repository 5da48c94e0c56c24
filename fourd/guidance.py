"""4D-SDS: what a multi-view video model would change about renders (Animate3D, arXiv:2407.11398)."""

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from fourd.moving import MovingGaussians
from pipeline.cameras import look_at_origin, pinhole
from pipeline.media import GREY

FIRST = 1
"""Frames at the start that the model is given clean: the static object, which is not to change."""


class VideoPrior(Protocol):
    """A diffusion model of multi-view videos, with the prompt that it is asked for."""

    def encode(self, pictures: Tensor) -> Tensor:
        """Latents of pictures (n, 3, height, width) in 0..1, with gradient. Shape (n, channel, h, w)."""

    def signal_and_noise(self, timestep: int) -> tuple[float, float]:
        """Shares of a latent and of noise that a noised latent is made of."""

    def clean(self, noisy: Tensor, timestep: int, first: Tensor, c2w: Tensor) -> tuple[Tensor, Tensor]:
        """The latents that noisy ones come from, as the model sees it with the prompt and without it.

        Args:
            noisy: Shape (view, frame, channel, h, w), frame 0 clean.
            timestep: How noisy.
            first: Frame 0 of each view, shape (view, 3, height, width), 0..1.
            c2w: OpenCV camera-to-world, shape (view, 4, 4).
        """


@dataclass(frozen=True, kw_only=True)
class SdsSettings:
    """The published ones."""

    guidance: float = 5.0
    """s of ε̂ = ε_c + s (ε_c − ε_u): what is usually written as a scale of s + 1."""
    rescale: float = 0.25
    """Share of the guided result that is brought back to the spread of the unguided one."""
    min_timestep: int = 20
    max_timestep: int = 200
    """Drawn from here, both ends included."""
    encode_at_once: int = 8
    """Pictures that go through the autoencoder together: less memory, the same gradient."""

    def __post_init__(self) -> None:
        if not 0 <= self.min_timestep <= self.max_timestep or not 0 <= self.rescale <= 1 or self.encode_at_once < 1:
            raise ValueError(
                f"need 0 <= min_timestep <= max_timestep, rescale in 0..1 and encode_at_once >= 1, got {self}"
            )


@dataclass(frozen=True, kw_only=True)
class GuidanceCameras:
    """Where the object is looked at from: one elevation, azimuths at equal steps, one lens."""

    num_views: int = 4
    size_px: int = 256
    elevation_deg: tuple[float, float] = (0.0, 30.0)
    """Half the time uniform in the angle, half the time in its sine: even over the sphere's surface."""
    fov_deg: tuple[float, float] = (15.0, 60.0)
    distance: tuple[float, float] = (0.8, 1.0)
    """Times 1 / tan(fov / 2)."""

    def __post_init__(self) -> None:
        if self.num_views < 1 or self.size_px < 1:
            raise ValueError(f"need a view and a pixel, got {self}")
        for name in ("elevation_deg", "fov_deg", "distance"):
            low, high = getattr(self, name)
            if not low <= high:
                raise ValueError(f"{name} goes from low to high, got {low} and {high}")
        if not -85 <= self.elevation_deg[0] <= self.elevation_deg[1] <= 85:
            raise ValueError(f"elevations must lie in -85..85, got {self.elevation_deg}")
        if not 0 < self.fov_deg[0] <= self.fov_deg[1] < 180 or self.distance[0] <= 0:
            raise ValueError(f"need fov_deg in 0..180 and distance > 0, got {self}")

    def draw(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """OpenCV camera-to-world (view, 4, 4), and intrinsics (3, 3) in pixels; float32, on the CPU."""
        # All five are drawn each time: what one draw comes to moves none of the others.
        by_sine, along, start, lens, away = torch.rand(5, generator=generator, dtype=torch.float64).tolist()
        low, high = (math.radians(angle) for angle in self.elevation_deg)
        elevation = low + along * (high - low)
        if by_sine < 0.5:
            elevation = math.asin(math.sin(low) + along * (math.sin(high) - math.sin(low)))
        fov_deg = self.fov_deg[0] + lens * (self.fov_deg[1] - self.fov_deg[0])
        distance = self.distance[0] + away * (self.distance[1] - self.distance[0])
        radius = distance / math.tan(math.radians(fov_deg) / 2)
        azimuths = [360.0 * (start + view / self.num_views) for view in range(self.num_views)]
        c2w = np.stack([look_at_origin(azimuth, math.degrees(elevation), radius) for azimuth in azimuths])
        fx, fy, cx, cy = pinhole(fov_deg, self.size_px)
        camera = torch.tensor([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]])
        return torch.from_numpy(c2w.astype(np.float32)), camera


def sds_loss(
    prior: VideoPrior, pictures: Tensor, c2w: Tensor, settings: SdsSettings, generator: torch.Generator
) -> Tensor:
    """Half the squared distance of the renders' latents to what the model makes of them when they are noised.

    With z0 the latents, V views, F frames, of which the first is given clean: ẑ0 from ε̂ = ε_c + s (ε_c − ε_u);
    f = std(ẑ0 of ε_c) / std(ẑ0 of ε̂) over frames 1 and later; ẑ0 ← r f ẑ0 + (1 − r) ẑ0; frame 0 of ẑ0 ← that of z0;
    L = ½ Σ (z0 − sg ẑ0)² / (V F) · F / (F − 1). Frame 0 gets no gradient.

    Args:
        prior: The model.
        pictures: Shape (view, frame, 3, height, width), 0..1.
        c2w: Of the views, shape (view, 4, 4).
        settings: s, r and the timesteps.
        generator: On the CPU; decides timestep and noise.

    Raises:
        ValueError: There is one frame only, which is given.
    """
    views, frames = pictures.shape[:2]
    if frames <= FIRST:
        raise ValueError(f"renders of {frames} frames have nothing to be guided: the first is given")
    latents = encoded(prior, pictures, settings.encode_at_once)
    timestep = int(torch.randint(settings.min_timestep, settings.max_timestep + 1, (), generator=generator))
    given, later = latents.detach().split([FIRST, frames - FIRST], dim=1)
    noise = torch.randn(later.shape, generator=generator, dtype=later.dtype).to(later.device)
    with torch.no_grad():
        signal, share = prior.signal_and_noise(timestep)
        noisy = torch.cat([given, signal * later + share * noise], dim=1)
        with_prompt, without = prior.clean(noisy, timestep, pictures[:, 0].detach(), c2w)
        with_prompt, without = with_prompt[:, FIRST:].to(later), without[:, FIRST:].to(later)
        guided = with_prompt + settings.guidance * (with_prompt - without)
        factor = with_prompt.std() / guided.std().clamp_min(1e-8)
        target = torch.cat([given, settings.rescale * factor * guided + (1 - settings.rescale) * guided], dim=1)
    return 0.5 * (latents - target).square().sum() / (views * frames) * (frames / (frames - FIRST))


def encoded(prior: VideoPrior, pictures: Tensor, at_once: int) -> Tensor:
    """Latents (view, frame, channel, h, w); those of frame 0 without gradient.

    A part at a time, computed again in the backward pass: 64 pictures of 256 px would keep tens of GiB.
    """
    with torch.no_grad():
        first = prior.encode(pictures[:, 0])
    parts = [
        checkpoint(prior.encode, part, use_reentrant=False) for part in pictures[:, FIRST:].flatten(0, 1).split(at_once)
    ]
    later = torch.cat(parts).unflatten(0, (len(pictures), -1))
    return torch.cat([first[:, None], later], dim=1)


class SdsGuidance:
    """4D-SDS as a further loss of a reconstruction; what a step draws depends on seed and step alone."""

    def __init__(
        self,
        prior: VideoPrior,
        *,
        weight: float = 0.01,
        settings: SdsSettings | None = None,
        cameras: GuidanceCameras | None = None,
        background: float = GREY,
        seed: int = 0,
    ) -> None:
        """Args:
        prior: The model, with the prompt; without words for the view.
        weight: Of the loss.
        settings: The published ones if None.
        cameras: The published ones if None.
        background: Grey level of the renders: what the model was trained on.
        seed: Of cameras, timesteps and noise.
        """
        self.prior, self.weight, self.background, self.seed = prior, weight, background, seed
        self.settings, self.cameras = settings or SdsSettings(), cameras or GuidanceCameras()

    def __call__(self, model: MovingGaussians, step: int) -> Tensor:
        """The loss of all frames, seen by the step's own cameras."""
        generator = torch.Generator().manual_seed(self.seed * 2_000_003 + step)
        c2w, camera = (drawn.to(model.sh.device) for drawn in self.cameras.draw(generator))
        frames = torch.arange(model.field.num_frames, device=model.sh.device)
        _, moved = model.motion(frames)
        w2c, size = torch.linalg.inv(c2w), self.cameras.size_px
        colors, _, _ = model.pictures(
            moved, w2c.expand(len(frames), *w2c.shape), camera, size, size, background=self.background
        )
        pictures = colors.clamp(0, 1).permute(1, 0, 4, 2, 3)
        return self.weight * sds_loss(self.prior, pictures, c2w, self.settings, generator)
