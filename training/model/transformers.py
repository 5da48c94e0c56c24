"""The two transformers that stand between the ResNets: one over the pixels of a picture, one over time and views."""

from diffusers.models.attention import FeedForward
from jaxtyping import Float
from torch import Tensor, nn

from training.model.attention import Grid, MultiViewAttention, SpatioTemporalAttention, TextImageAttention


class SpatialBlock(nn.Module):
    """Multi-view self-attention, attention to text and image, feed-forward; each after a LayerNorm, each added."""

    def __init__(self, channels: int, context_channels: int, num_heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.attn1 = MultiViewAttention(channels, num_heads)
        self.norm2 = nn.LayerNorm(channels)
        self.attn2 = TextImageAttention(channels, context_channels, num_heads)
        self.norm3 = nn.LayerNorm(channels)
        self.ff = FeedForward(channels, activation_fn="geglu")

    def forward(self, states: Tensor, text: Tensor, image: Tensor, grid: Grid) -> Tensor:
        """Shape (rows, pixels, channels) in and out."""
        states = states + self.attn1(self.norm1(states), grid)
        states = states + self.attn2(self.norm2(states), text, image)
        added: Tensor = states + self.ff(self.norm3(states))
        return added


class SpatialTransformer(nn.Module):
    """Stable Diffusion's transformer over one feature map, here over all views of a frame together."""

    def __init__(self, channels: int, context_channels: int, num_heads: int, num_groups: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(num_groups, channels, eps=1e-6)
        self.proj_in = nn.Conv2d(channels, channels, kernel_size=1)
        self.transformer_blocks = nn.ModuleList([SpatialBlock(channels, context_channels, num_heads)])
        self.proj_out = nn.Conv2d(channels, channels, kernel_size=1)

    def forward(
        self,
        maps: Float[Tensor, "rows channels h w"],
        text: Float[Tensor, "rows words context"],
        image: Float[Tensor, "rows tokens context"],
        grid: Grid,
    ) -> Float[Tensor, "rows channels h w"]:
        """Transform; rows are ordered item, view, frame."""
        states = self.proj_in(self.norm(maps)).flatten(2).transpose(1, 2)
        for block in self.transformer_blocks:
            states = block(states, text, image, grid)
        projected: Tensor = self.proj_out(states.transpose(1, 2).unflatten(2, maps.shape[2:]))
        return projected + maps


class MotionBlock(nn.Module):
    """Two spatiotemporal attentions and a feed-forward; each after a LayerNorm, each added."""

    def __init__(self, channels: int, num_heads: int, num_time_codes: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.attn1 = SpatioTemporalAttention(channels, num_heads, num_time_codes)
        self.norm2 = nn.LayerNorm(channels)
        self.attn2 = SpatioTemporalAttention(channels, num_heads, num_time_codes)
        self.norm3 = nn.LayerNorm(channels)
        self.ff = FeedForward(channels, activation_fn="geglu")

    def forward(self, states: Tensor, grid: Grid, pixel_code: Tensor) -> Tensor:
        """Shape (rows, frames, channels) in and out."""
        states = states + self.attn1(self.norm1(states), grid, pixel_code)
        states = states + self.attn2(self.norm2(states), grid, pixel_code)
        added: Tensor = states + self.ff(self.norm3(states))
        return added


class MotionModule(nn.Module):
    """AnimateDiff's motion module with Animate3D's attention; normalised over a view's frames and pixels together."""

    def __init__(self, channels: int, num_heads: int, num_groups: int, num_time_codes: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(num_groups, channels, eps=1e-6)
        self.proj_in = nn.Linear(channels, channels)
        self.transformer_blocks = nn.ModuleList([MotionBlock(channels, num_heads, num_time_codes)])
        self.proj_out = nn.Linear(channels, channels)

    def forward(
        self, maps: Float[Tensor, "rows channels h w"], grid: Grid, pixel_code: Float[Tensor, "pixels channels"]
    ) -> Float[Tensor, "rows channels h w"]:
        """Transform; rows are ordered item, view, frame."""
        height, width = maps.shape[2:]
        videos = maps.unflatten(0, (-1, grid.num_frames)).transpose(1, 2)
        # (item and view, channel, frame, h, w) -> (item, view and pixel; frame; channel)
        states = self.norm(videos).permute(0, 3, 4, 2, 1).flatten(0, 2)
        states = self.proj_in(states)
        for block in self.transformer_blocks:
            states = block(states, grid, pixel_code)
        states = self.proj_out(states).unflatten(0, (-1, height, width))
        return states.permute(0, 3, 4, 1, 2).reshape(maps.shape) + maps
