"""What a network that knows nothing of a clip, or stands still, would reach: numbers to hold a loss against.

Both are the best linear predictors, so a network has to have learnt something to be below them:

- **blind** has no condition at all: no first frame, no text, no camera. It knows mean and variance of each latent over
  the data, each for itself.
- **still** knows the first frame, and how far later frames lie from it on average.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from training.objective import CLEAN_FRAMES, NoiseSchedule


@dataclass
class LatentMoments:
    """Sums over clips, for each channel and place of a frame."""

    count: Tensor
    """Frames that were added."""
    total: Float[Tensor, "c h w"]
    squares: Float[Tensor, "c h w"]
    steps: Float[Tensor, "c h w"]
    """Of squared distances from the first frame."""

    @classmethod
    def zero(cls, shape: tuple[int, ...], device: torch.device) -> "LatentMoments":
        """Nothing yet; float64 where the device has it."""
        dtype = torch.float32 if device.type == "mps" else torch.float64
        return cls(torch.zeros((), dtype=dtype, device=device), *(torch.zeros(shape, dtype=dtype, device=device),) * 3)

    def add(self, latents: Float[Tensor, "b v t c h w"]) -> None:
        """Take in the frames that are predicted."""
        first, later = latents[:, :, :CLEAN_FRAMES].to(self.total), latents[:, :, CLEAN_FRAMES:].to(self.total)
        self.count = self.count + later[..., 0, 0, 0].numel()
        self.total = self.total + later.sum(dim=(0, 1, 2))
        self.squares = self.squares + later.square().sum(dim=(0, 1, 2))
        self.steps = self.steps + (later - first[:, :, -1:]).square().sum(dim=(0, 1, 2))

    def losses(self, schedule: NoiseSchedule, timesteps: Int[Tensor, " n"]) -> dict[str, Float[Tensor, " n"]]:
        """Mean square error of both predictors at each timestep, of what the objective predicts."""
        mean = self.total / self.count
        spreads = {
            "blind": (self.squares / self.count - mean.square()).clamp_min(0),
            "still": self.steps / self.count,
        }
        return {name: linear_error(spread, schedule, timesteps) for name, spread in spreads.items()}


def linear_error(
    variance: Float[Tensor, "..."], schedule: NoiseSchedule, timesteps: Int[Tensor, " n"]
) -> Float[Tensor, " n"]:
    """Least mean square error of a linear predictor of what the objective predicts.

    With x_t = a x + s noise and var(x) = v, the best guess of the clip x is off by v s^2 / (a^2 v + s^2); the noise
    that follows from it by a^2/s^2 times that, and v-prediction's target by 1/s^2 times that.

    Args:
        variance: Of each number about what the predictor knows of it.
        schedule: Of the noise.
        timesteps: At which.
    """
    signal = schedule.scheduler.alphas_cumprod.to(timesteps.device)[timesteps].to(variance)
    noise = 1 - signal
    flat = variance.flatten()
    off = flat / (signal[:, None] * flat + noise[:, None])
    share = {"epsilon": signal, "v_prediction": torch.ones_like(signal), "sample": noise}[schedule.prediction]
    return share * off.mean(dim=1)
