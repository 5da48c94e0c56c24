"""FreeInit (arXiv:2312.07537): sample several times, each from noise with the last result's low frequencies."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

TIME_AND_SPACE = (-4, -2, -1)
"""Axes of time, height and width in `b v t c h w`."""


@dataclass(frozen=True, kw_only=True)
class FreeInit:
    """How often to begin again, and which frequencies to keep."""

    num_rounds: int = 3
    """1 is plain sampling."""
    order: int = 4
    """Of the Butterworth filter: how sharply it cuts."""
    spatial_stop: float = 0.25
    """Frequency of half gain across a picture, as a share of the highest."""
    temporal_stop: float = 0.25
    """The same along time."""

    def __post_init__(self) -> None:
        if self.num_rounds < 1 or self.order < 1:
            raise ValueError(f"num_rounds and order must be at least 1, got {self.num_rounds} and {self.order}")
        for name in ("spatial_stop", "temporal_stop"):
            if not 0.0 < getattr(self, name) <= 1.0:
                raise ValueError(f"{name} must lie in 0..1, without 0, got {getattr(self, name)}")

    def low_pass(self, num_frames: int, height: int, width: int) -> Float[Tensor, "t 1 h w"]:
        """Gain of each frequency, zero frequency in the middle."""

        def offsets(length: int) -> Tensor:
            return 2 * torch.arange(length) / length - 1

        time = self.spatial_stop / self.temporal_stop * offsets(num_frames)
        squared = time[:, None, None].square() + offsets(height)[:, None].square() + offsets(width).square()
        return (1 / (1 + (squared / self.spatial_stop**2) ** self.order))[:, None]

    def mix(
        self, low_from: Float[Tensor, "b v t c h w"], high_from: Float[Tensor, "b v t c h w"]
    ) -> Float[Tensor, "b v t c h w"]:
        """The low frequencies of one and the high ones of the other."""
        num_frames, height, width = (low_from.shape[axis] for axis in TIME_AND_SPACE)
        gain = self.low_pass(num_frames, height, width).to(low_from.device)

        def spectrum(clips: Tensor) -> Tensor:
            return torch.fft.fftshift(torch.fft.fftn(clips.float(), dim=TIME_AND_SPACE), dim=TIME_AND_SPACE)

        mixed = spectrum(low_from) * gain + spectrum(high_from) * (1 - gain)
        back = torch.fft.ifftn(torch.fft.ifftshift(mixed, dim=TIME_AND_SPACE), dim=TIME_AND_SPACE)
        return back.real.to(low_from.dtype)
