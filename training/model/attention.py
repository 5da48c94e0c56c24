"""The three attentions of MV-VDM, all through `F.scaled_dot_product_attention`.

Parameters that Animate3D and IP-Adapter add to a parent's attention stand in a submodule `processor`, because diffusers
keeps them there and the published files name them so.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from training.model.positions import TimeCode

MAX_ROWS = 32768
"""Sequences in one kernel call: CUDA grids end at 65,535, and 64 items of 4 views at 32 x 32 have more."""


class Grid(NamedTuple):
    """How the rows of a batch of feature maps are ordered: item, then view, then frame."""

    num_views: int
    num_frames: int


def attend(
    query: Float[Tensor, "rows q channels"],
    key: Float[Tensor, "rows k channels"],
    value: Float[Tensor, "rows k channels"],
    num_heads: int,
) -> Float[Tensor, "rows q channels"]:
    """Softmax attention with `num_heads` heads and scale 1/sqrt(channels of a head)."""
    if len(query) > MAX_ROWS:
        parts = zip(query.split(MAX_ROWS), key.split(MAX_ROWS), value.split(MAX_ROWS), strict=True)
        return torch.cat([attend(q, k, v, num_heads) for q, k, v in parts])
    q, k, v = (states.unflatten(-1, (num_heads, -1)).transpose(1, 2) for states in (query, key, value))
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


class Projections(nn.Module):
    """Query, key, value and output projections under the names that diffusers gives them."""

    def __init__(self, channels: int, context_channels: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.to_q = nn.Linear(channels, channels, bias=False)
        self.to_k = nn.Linear(context_channels, channels, bias=False)
        self.to_v = nn.Linear(context_channels, channels, bias=False)
        self.to_out = nn.ModuleList([nn.Linear(channels, channels)])


class FirstFrameAdapter(nn.Module):
    """MV2V-Adapter: a second query into the clean first frame, and an output projection that starts at zero."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.to_q_i2v = nn.Linear(channels, channels, bias=False)
        self.to_out_i2v = nn.Linear(channels, channels)


class MultiViewAttention(Projections):
    """Self-attention over all views of a frame (MVDream), which also looks at all views of the first frame.

    out = W_o (A + W_o' A' + b_o') + b_o, where A' has its own query but the keys and values of frame 0.
    """

    def __init__(self, channels: int, num_heads: int) -> None:
        super().__init__(channels, channels, num_heads)
        self.processor = FirstFrameAdapter(channels)
        self.start_adapter()

    @torch.no_grad()
    def start_adapter(self) -> None:
        """Set the adapter to where training starts: a copy of the frozen query, and no effect on the output."""
        self.processor.to_q_i2v.weight.copy_(self.to_q.weight)
        nn.init.zeros_(self.processor.to_out_i2v.weight)
        nn.init.zeros_(self.processor.to_out_i2v.bias)

    def forward(self, states: Float[Tensor, "rows pixels channels"], grid: Grid) -> Float[Tensor, "rows pixels c"]:
        """Attend; rows are ordered item, view, frame."""
        _, num_pixels, channels = states.shape
        views, frames = grid
        # (item, view, frame, pixel) -> (item, frame, view, pixel)
        tokens = states.unflatten(0, (-1, views, frames)).transpose(1, 2).reshape(-1, views * num_pixels, channels)
        key, value = self.to_k(tokens), self.to_v(tokens)
        out = attend(self.to_q(tokens), key, value, self.num_heads)
        # Every frame of an item asks the same first frame: one long row of queries, and keys stored once.
        adapted = attend(
            self.processor.to_q_i2v(tokens).unflatten(0, (-1, frames)).flatten(1, 2),
            key.unflatten(0, (-1, frames))[:, 0],
            value.unflatten(0, (-1, frames))[:, 0],
            self.num_heads,
        )
        out = self.to_out[0](out + self.processor.to_out_i2v(adapted).reshape(out.shape))
        by_frame = out.unflatten(0, (-1, frames)).unflatten(2, (views, num_pixels))
        return by_frame.transpose(1, 2).reshape(-1, num_pixels, channels)


class ImageKeys(nn.Module):
    """IP-Adapter's keys and values; lists of one, as diffusers allows several adapters."""

    def __init__(self, context_channels: int, channels: int) -> None:
        super().__init__()
        self.to_k_ip = nn.ModuleList([nn.Linear(context_channels, channels, bias=False)])
        self.to_v_ip = nn.ModuleList([nn.Linear(context_channels, channels, bias=False)])


class TextImageAttention(Projections):
    """Cross-attention to the prompt, plus IP-Adapter's to the image tokens with the same query, weight 1."""

    def __init__(self, channels: int, context_channels: int, num_heads: int) -> None:
        super().__init__(channels, context_channels, num_heads)
        self.processor = ImageKeys(context_channels, channels)

    def forward(
        self,
        states: Float[Tensor, "rows pixels channels"],
        text: Float[Tensor, "rows words context"],
        image: Float[Tensor, "rows tokens context"],
    ) -> Float[Tensor, "rows pixels channels"]:
        """Attend to both contexts and add."""
        query = self.to_q(states)
        keys = self.processor
        out = attend(query, self.to_k(text), self.to_v(text), self.num_heads)
        out = out + attend(query, keys.to_k_ip[0](image), keys.to_v_ip[0](image), self.num_heads)
        projected: Tensor = self.to_out[0](out)
        return projected


class AlphaBlender(nn.Module):
    """One learnt number, as the logit of the share that the spatial branch has."""

    def __init__(self) -> None:
        super().__init__()
        self.mix_factor = nn.Parameter(torch.zeros(1))

    def forward(self, spatial: Tensor, temporal: Tensor) -> Tensor:
        """alpha x spatial + (1 - alpha) x temporal."""
        return torch.lerp(temporal, spatial, torch.sigmoid(self.mix_factor).to(spatial.dtype))


class SpatialBranch(nn.Module):
    """Attention over views and pixels beside AnimateDiff's over time."""

    def __init__(self, channels: int, num_time_codes: int) -> None:
        super().__init__()
        self.to_q_sp = nn.Linear(channels, channels, bias=False)
        self.to_k_sp = nn.Linear(channels, channels, bias=False)
        self.to_v_sp = nn.Linear(channels, channels, bias=False)
        self.to_out_sp = nn.Linear(channels, channels)
        self.time_pos_embed = TimeCode(channels, num_time_codes)
        self.alpha_blender = AlphaBlender()


class SpatioTemporalAttention(Projections):
    """Self-attention along time, blended with self-attention over all views and pixels of a frame.

    The time code goes into the temporal branch only, the code of rows and columns into the spatial one only.
    """

    def __init__(self, channels: int, num_heads: int, num_time_codes: int) -> None:
        super().__init__(channels, channels, num_heads)
        self.processor = SpatialBranch(channels, num_time_codes)

    def forward(
        self,
        states: Float[Tensor, "rows t channels"],
        grid: Grid,
        pixel_code: Float[Tensor, "pixels channels"],
    ) -> Float[Tensor, "rows t channels"]:
        """Attend; rows are ordered item, view, pixel."""
        branch = self.processor
        views, frames = grid
        num_pixels, channels = pixel_code.shape

        timed = states + branch.time_pos_embed(frames)
        temporal = self.to_out[0](attend(self.to_q(timed), self.to_k(timed), self.to_v(timed), self.num_heads))

        # (item, view and pixel, frame) -> (item and frame, view and pixel)
        by_frame = states.unflatten(0, (-1, views * num_pixels)).transpose(1, 2)
        placed = by_frame.reshape(-1, views, num_pixels, channels) + pixel_code
        placed = placed.flatten(1, 2)
        spatial = branch.to_out_sp(
            attend(branch.to_q_sp(placed), branch.to_k_sp(placed), branch.to_v_sp(placed), self.num_heads)
        )
        spatial = spatial.unflatten(0, (-1, frames)).transpose(1, 2).reshape(states.shape)
        blended: Tensor = branch.alpha_blender(spatial, temporal)
        return blended
