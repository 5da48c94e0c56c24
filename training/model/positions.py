"""Position codes without parameters, computed for whatever size is asked for."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

BASE = 10000.0


def sin1d(length: int, channels: int) -> Float[Tensor, "length channels"]:
    """Sine and cosine of positions 0, 1, …, even channels sine, odd ones cosine; float64."""
    position = torch.arange(length, dtype=torch.float64)[:, None]
    frequency = torch.exp(torch.arange(0, channels, 2, dtype=torch.float64) * (-math.log(BASE) / channels))
    return torch.stack([torch.sin(position * frequency), torch.cos(position * frequency)], dim=-1).flatten(1)


def sin2d(
    height: int, width: int, channels: int, device: torch.device, dtype: torch.dtype
) -> Float[Tensor, "pixels channels"]:
    """DETR's normalised code: half of the channels for the row, half for the column.

    Positions 1..n become fractions of the side times 2 pi, so a picture of another size gets the same range of codes.

    Args:
        height: Rows.
        width: Columns.
        channels: A multiple of 4.
        device: Where to compute it.
        dtype: Of the result; the sines are computed in float32 at least.
    """
    if channels % 4:
        raise ValueError(f"a two-dimensional code needs a multiple of 4 channels, got {channels}")
    exact = torch.promote_types(dtype, torch.float32)
    half = channels // 2
    period = BASE ** (2 * torch.arange(half // 2, device=device, dtype=exact) / half)

    def one_axis(length: int) -> Tensor:
        position = torch.arange(1, length + 1, device=device, dtype=exact) / (length + 1e-6) * (2 * math.pi)
        angle = position[:, None] / period
        return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)

    rows = one_axis(height)[:, None].expand(height, width, half)
    columns = one_axis(width)[None, :].expand(height, width, half)
    return torch.cat([rows, columns], dim=-1).flatten(0, 1).to(dtype)


class TimeCode(nn.Module):
    """`sin1d` over frames. The published files carry its first rows, and they are used as they were loaded."""

    pe: Tensor

    def __init__(self, channels: int, num_rows: int) -> None:
        super().__init__()
        self.channels = channels
        # `sin1d` computes on whatever device is the default, which may be meta.
        self.register_buffer("pe", sin1d(num_rows, channels)[None].to(torch.get_default_dtype()))

    def forward(self, num_frames: int) -> Float[Tensor, "t channels"]:
        """The code of frames 0, 1, …; beyond the stored rows it is computed."""
        stored = self.pe[0, :num_frames]
        if num_frames <= len(stored):
            return stored
        return torch.cat([stored, sin1d(num_frames, self.channels)[len(stored) :].to(stored)])
