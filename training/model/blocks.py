"""The levels of the UNet: ResNet, then a spatial transformer where the level has one, then a motion module."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from diffusers.models.downsampling import Downsample2D
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.upsampling import Upsample2D
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from training.model.attention import Grid
from training.model.positions import sin2d
from training.model.transformers import MotionModule, SpatialTransformer

Maps = Float[Tensor, "rows channels h w"]


@dataclass(frozen=True, kw_only=True)
class Context:
    """What all blocks see beside the feature maps; rows are ordered item, view, frame."""

    embedding: Float[Tensor, "rows embedding"]
    text: Float[Tensor, "rows words context"]
    image: Float[Tensor, "rows tokens context"]
    grid: Grid


@dataclass(frozen=True, kw_only=True)
class BlockSizes:
    """What all blocks have in common."""

    embedding_channels: int
    context_channels: int
    num_heads: int
    num_motion_heads: int
    num_groups: int
    num_time_codes: int


class Block(nn.Module):
    """Layers, and how to run them: kept as they are, or computed again in the backward pass."""

    def __init__(self, sizes: BlockSizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.gradient_checkpointing = False
        """The name by which diffusers' `enable_gradient_checkpointing` finds and sets it."""

    def _run(self, layer: Callable[..., Tensor], *inputs: object) -> Tensor:
        if self.gradient_checkpointing and torch.is_grad_enabled():
            recomputed: Tensor = checkpoint(layer, *inputs, use_reentrant=False)
            return recomputed
        return layer(*inputs)

    def _resnet(self, in_channels: int, out_channels: int) -> ResnetBlock2D:
        return ResnetBlock2D(
            in_channels=in_channels,
            out_channels=out_channels,
            temb_channels=self.sizes.embedding_channels,
            groups=self.sizes.num_groups,
            eps=1e-5,
        )

    def _attention(self, channels: int) -> SpatialTransformer:
        sizes = self.sizes
        return SpatialTransformer(channels, sizes.context_channels, sizes.num_heads, sizes.num_groups)

    def _motion(self, channels: int) -> MotionModule:
        sizes = self.sizes
        return MotionModule(channels, sizes.num_motion_heads, sizes.num_groups, sizes.num_time_codes)

    def _transform(self, attention: nn.Module | None, motion: nn.Module, maps: Maps, context: Context) -> Maps:
        if attention is not None:
            maps = self._run(attention, maps, context.text, context.image, context.grid)
        return self._run(motion, maps, context.grid, pixel_code(maps))


def pixel_code(maps: Maps) -> Float[Tensor, "pixels channels"]:
    """The position code of these maps' pixels. Not kept between calls: it costs a few small kernels a block."""
    _, channels, height, width = maps.shape
    return sin2d(height, width, channels, maps.device, maps.dtype)


def paired(attentions: nn.ModuleList, motion_modules: nn.ModuleList) -> list[tuple[nn.Module | None, nn.Module]]:
    """Each motion module with the transformer before it, if the level has any."""
    before: Sequence[nn.Module | None] = list(attentions) or [None] * len(motion_modules)
    return list(zip(before, motion_modules, strict=True))


class DownBlock(Block):
    """One level on the way down; halves the maps at its end."""

    def __init__(
        self,
        sizes: BlockSizes,
        in_channels: int,
        out_channels: int,
        num_layers: int,
        *,
        has_attention: bool,
        halves: bool,
    ) -> None:
        super().__init__(sizes)
        inputs = [in_channels] + [out_channels] * (num_layers - 1)
        self.resnets = nn.ModuleList([self._resnet(channels, out_channels) for channels in inputs])
        self.attentions = nn.ModuleList([self._attention(out_channels) for _ in inputs if has_attention])
        self.motion_modules = nn.ModuleList([self._motion(out_channels) for _ in inputs])
        self.downsamplers = nn.ModuleList(
            [Downsample2D(out_channels, use_conv=True, padding=1, name="op")] if halves else []
        )

    def forward(self, maps: Maps, context: Context) -> list[Maps]:
        """The maps after each layer and after halving: the skips for the way up, the last to go on with."""
        skips = []
        for resnet, (attention, motion) in zip(self.resnets, paired(self.attentions, self.motion_modules), strict=True):
            maps = self._run(resnet, maps, context.embedding)
            maps = self._transform(attention, motion, maps, context)
            skips.append(maps)
        for downsampler in self.downsamplers:
            maps = downsampler(maps)
            skips.append(maps)
        return skips


class MidBlock(Block):
    """The middle: ResNet, transformer, motion module, ResNet."""

    def __init__(self, sizes: BlockSizes, channels: int) -> None:
        super().__init__(sizes)
        self.resnets = nn.ModuleList([self._resnet(channels, channels) for _ in range(2)])
        self.attentions = nn.ModuleList([self._attention(channels)])
        self.motion_modules = nn.ModuleList([self._motion(channels)])

    def forward(self, maps: Maps, context: Context) -> Maps:
        """Same shape in and out."""
        maps = self._run(self.resnets[0], maps, context.embedding)
        maps = self._transform(self.attentions[0], self.motion_modules[0], maps, context)
        return self._run(self.resnets[1], maps, context.embedding)


class UpBlock(Block):
    """One level on the way up; takes the skips of its level and doubles the maps at its end."""

    def __init__(
        self,
        sizes: BlockSizes,
        in_channels: int,
        out_channels: int,
        skip_channels: Sequence[int],
        *,
        has_attention: bool,
        doubles: bool,
    ) -> None:
        super().__init__(sizes)
        inputs = [in_channels] + [out_channels] * (len(skip_channels) - 1)
        self.resnets = nn.ModuleList(
            [self._resnet(own + skip, out_channels) for own, skip in zip(inputs, skip_channels, strict=True)]
        )
        self.attentions = nn.ModuleList([self._attention(out_channels) for _ in inputs if has_attention])
        self.motion_modules = nn.ModuleList([self._motion(out_channels) for _ in inputs])
        self.upsamplers = nn.ModuleList([Upsample2D(out_channels, use_conv=True)] if doubles else [])

    def forward(self, maps: Maps, skips: list[Maps], context: Context) -> Maps:
        """Takes as many skips off the end of the list as it has layers, and then the size of the next one."""
        for resnet, (attention, motion) in zip(self.resnets, paired(self.attentions, self.motion_modules), strict=True):
            maps = self._run(joining(resnet), maps, skips.pop(), context.embedding)
            maps = self._transform(attention, motion, maps, context)
        for upsampler in self.upsamplers:
            # A side that does not halve evenly comes back to its own size, not to twice the half.
            maps = upsampler(maps, tuple(skips[-1].shape[2:]))
        return maps


def joining(resnet: nn.Module) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """The ResNet of maps and skip; joined inside, so that checkpointing keeps no joined copy."""

    def run(maps: Tensor, skip: Tensor, embedding: Tensor) -> Tensor:
        out: Tensor = resnet(torch.cat([maps, skip], dim=1), embedding)
        return out

    return run
