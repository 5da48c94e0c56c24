"""What MV-VDM is trained to do: predict the noise of all frames but the first, which it sees clean."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal, Protocol, cast

import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from jaxtyping import Bool, Float, Int
from torch import IntTensor, Tensor

CLEAN_FRAMES = 1
"""Frames at the start of every clip that are given without noise and are not scored."""


class Network(Protocol):
    """`training.model.unet.MultiViewVideoUNet`, or a wrapper of it."""

    def __call__(
        self, latents: Tensor, timestep: Tensor, text: Tensor, image_embeds: Tensor, cameras: Tensor, /
    ) -> Tensor:
        """Predict for every frame; arguments as in the UNet."""


@dataclass(frozen=True, kw_only=True)
class NoiseSchedule:
    """How noise grows with the timestep, and what the network predicts of it."""

    num_timesteps: int = 1000
    beta_start: float = 0.00085
    beta_end: float = 0.012
    beta_schedule: Literal["linear", "scaled_linear"] = "linear"
    """`linear` is what AnimateDiff's motion modules were trained with; Stable Diffusion itself has `scaled_linear`."""
    prediction: Literal["epsilon", "v_prediction", "sample"] = "epsilon"
    """The noise, as published; `v_prediction` (arXiv:2202.00512); or the clip itself, which small networks learn
    soonest, as they need not carry the noise."""
    zero_terminal_snr: bool = False
    """Rescale so that nothing of the clip is left at the last timestep (arXiv:2305.08891); needs `v_prediction`."""

    def __post_init__(self) -> None:
        if not 0.0 < self.beta_start < self.beta_end < 1.0 or self.num_timesteps < 2:
            raise ValueError(
                f"need 0 < beta_start < beta_end < 1 and two timesteps, got {self.beta_start}, {self.beta_end}, "
                f"{self.num_timesteps}"
            )
        if self.zero_terminal_snr and self.prediction == "epsilon":
            raise ValueError("at zero signal the noise says nothing of the clip: zero_terminal_snr needs v_prediction")

    @property
    def scheduler(self) -> DDPMScheduler:
        """diffusers' scheduler: adds noise, and knows the target."""
        return _scheduler(self)

    def sampler(self) -> DDIMScheduler:
        """DDIM for this schedule, as the published model is sampled; from the last timestep if that has no signal."""
        spacing = "trailing" if self.zero_terminal_snr else "leading"
        return DDIMScheduler(**self._diffusers, clip_sample=False, steps_offset=1, timestep_spacing=spacing)

    @property
    def _diffusers(self) -> dict[str, object]:
        return {
            "num_train_timesteps": self.num_timesteps,
            "beta_start": self.beta_start,
            "beta_end": self.beta_end,
            "beta_schedule": self.beta_schedule,
            "prediction_type": self.prediction,
            "rescale_betas_zero_snr": self.zero_terminal_snr,
        }

    def target(
        self,
        clean: Float[Tensor, "b v t c h w"],
        noise: Float[Tensor, "b v t c h w"],
        timesteps: Int[Tensor, " b"],
    ) -> Float[Tensor, "b v t c h w"]:
        """What a perfect network would say."""
        if self.prediction == "epsilon":
            return noise
        if self.prediction == "sample":
            return clean
        return self.scheduler.get_velocity(clean, noise, cast(IntTensor, timesteps))

    def snr(self, timesteps: Int[Tensor, " b"]) -> Float[Tensor, " b"]:
        """Signal-to-noise ratio, in variances."""
        kept = self.scheduler.alphas_cumprod.to(timesteps.device)[timesteps]
        ratio: Tensor = kept / (1 - kept)
        return ratio


@cache
def _scheduler(schedule: NoiseSchedule) -> DDPMScheduler:
    """One for all equal schedules. Not kept in them: as defaults, their attributes are read as settings."""
    return DDPMScheduler(**schedule._diffusers)


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Clips as the network sees them. The fields are tensors on one device."""

    latents: Float[Tensor, "b v t c h w"]
    """Scaled as the VAE's configuration says."""
    text: Float[Tensor, "b words context"]
    empty_text: Float[Tensor, "words context"]
    """The text encoder's states of the empty prompt."""
    image_embeds: Float[Tensor, "b v image"]
    """CLIP's embedding of each view's first frame."""
    cameras: Float[Tensor, "b v 16"]
    """`training.cameras`."""


@dataclass(frozen=True, kw_only=True)
class Draw:
    """All that is left to chance in one training step."""

    timesteps: Int[Tensor, " b"]
    noise: Float[Tensor, "b v later c h w"]
    """Of all frames but the clean one; float32."""
    drops_text: Bool[Tensor, " b"]
    drops_image: Bool[Tensor, " b"]


@dataclass(frozen=True, kw_only=True)
class Loss:
    """The loss of one batch."""

    mean: Float[Tensor, ""]
    """To go down: weighted, float32."""
    per_item: Float[Tensor, " b"]
    """Mean square error of each item, unweighted and without gradient."""
    timesteps: Int[Tensor, " b"]


@dataclass(frozen=True, kw_only=True)
class Objective:
    """Denoising with the first frame clean (Animate3D, arXiv:2407.11398)."""

    schedule: NoiseSchedule = NoiseSchedule()
    text_dropout: float = 0.1
    """Share of items that are trained with the empty prompt, for guidance."""
    image_dropout: float = 0.0
    """Share of items whose image embedding is zero, as the unconditional half of sampling has it; 0 as published."""
    min_snr_gamma: float | None = None
    """Weight timesteps by min(SNR, gamma) (arXiv:2303.09556, which uses 5); none as published."""

    def __post_init__(self) -> None:
        for name in ("text_dropout", "image_dropout"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} must lie in 0..1, got {getattr(self, name)}")
        if self.min_snr_gamma is not None and self.min_snr_gamma <= 0:
            raise ValueError(f"min_snr_gamma must be positive, got {self.min_snr_gamma}")

    def draw(self, batch: Batch, seeds: Sequence[int], timesteps: Int[Tensor, " b"] | None = None) -> Draw:
        """Draw on the CPU, each item from its own seed.

        So an item's noise depends on its seed alone: not on its neighbours in the batch, the rank, or the device.

        Args:
            batch: Gives shape, type and device.
            seeds: One an item.
            timesteps: Fixed ones, for validation; drawn uniformly if not given.

        Raises:
            ValueError: Not one seed an item, or no frame to predict.
        """
        items, views, frames, *rest = batch.latents.shape
        if len(seeds) != items:
            raise ValueError(f"{len(seeds)} seeds for {items} items")
        if frames <= CLEAN_FRAMES:
            raise ValueError(f"clips of {frames} frames have nothing to predict: the first is given")
        times, noises, uniform = [], [], []
        for seed in seeds:
            generator = torch.Generator().manual_seed(seed)
            times.append(torch.randint(self.schedule.num_timesteps, (), generator=generator))
            uniform.append(torch.rand(2, generator=generator))
            noises.append(torch.randn(views, frames - CLEAN_FRAMES, *rest, generator=generator))
        chance = torch.stack(uniform)
        device = batch.latents.device
        return Draw(
            timesteps=(torch.stack(times) if timesteps is None else timesteps).to(device),
            noise=torch.stack(noises).to(device),
            drops_text=(chance[:, 0] < self.text_dropout).to(device),
            drops_image=(chance[:, 1] < self.image_dropout).to(device),
        )

    def loss(self, network: Network, batch: Batch, draw: Draw) -> Loss:
        """Noise the later frames, predict, compare; in float32 whatever the network computes in."""
        latents = batch.latents.float()
        first, later = latents[:, :, :CLEAN_FRAMES], latents[:, :, CLEAN_FRAMES:]
        noisy = self.schedule.scheduler.add_noise(later, draw.noise, cast(IntTensor, draw.timesteps))
        predicted = network(
            torch.cat([first, noisy], dim=2),
            draw.timesteps,
            torch.where(draw.drops_text[:, None, None], batch.empty_text.to(batch.text), batch.text),
            torch.where(draw.drops_image[:, None, None], 0.0, batch.image_embeds),
            batch.cameras,
        )
        target = self.schedule.target(later, draw.noise, draw.timesteps)
        error = (predicted[:, :, CLEAN_FRAMES:].float() - target).square().flatten(1).mean(dim=1)
        return Loss(
            mean=(error * self.weights(draw.timesteps)).mean(), per_item=error.detach(), timesteps=draw.timesteps
        )

    def weights(self, timesteps: Int[Tensor, " b"]) -> Float[Tensor, " b"]:
        """Each item's weight in the loss; 1 without min-SNR."""
        if self.min_snr_gamma is None:
            return torch.ones_like(timesteps, dtype=torch.float32)
        snr = self.schedule.snr(timesteps)
        capped = snr.clamp(max=self.min_snr_gamma)
        return (
            capped / {"epsilon": snr, "v_prediction": snr + 1, "sample": torch.ones_like(snr)}[self.schedule.prediction]
        )
