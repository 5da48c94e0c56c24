"""The network: latents of views by frames in, their noise out."""

from collections.abc import Iterable, Sequence
from typing import Literal, Self, cast

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.embeddings import ImageProjection, MultiIPAdapterImageProjection, TimestepEmbedding, Timesteps
from diffusers.models.modeling_utils import ModelMixin
from jaxtyping import Float, Int
from torch import Tensor, nn

from training.model.attention import Grid, MultiViewAttention
from training.model.blocks import Block, BlockSizes, Context, DownBlock, MidBlock, UpBlock

CAMERA_NUMBERS = 16
"""A 4 x 4 camera-to-world, row by row: `training.cameras`."""

NEW_OR_FINE_TUNED = ("i2v.", "motion_modules.")
"""Parameters with one of these in their name are Animate3D's; all others belong to its frozen parents."""


class MultiViewVideoUNet(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """MV-VDM (Animate3D, arXiv:2407.11398): noise of all frames of all views at once.

    Args:
        in_channels: Channels of the latents.
        out_channels: Channels of the prediction.
        block_out_channels: Channels of each level, finest first.
        attention_levels: Levels whose layers have a spatial transformer; the middle has one always.
        layers_per_block: ResNets of a level on the way down; one more on the way up.
        num_attention_heads: Heads of the spatial transformers.
        motion_num_attention_heads: Heads of the motion modules.
        cross_attention_dim: Width of the text states.
        image_embed_dim: Width of CLIP's image embedding.
        num_image_tokens: Tokens that are made of one image embedding.
        norm_num_groups: Groups of every GroupNorm.
        num_time_codes: Rows of the time code that a checkpoint carries; more frames than that are computed.
        carries_clip: Add to what the layers compute a share of the given latents and one of their clean first frame,
            both learnt for each channel, timestep and camera. For networks from scratch that predict the clip itself:
            they begin with a clip that stands still, and what is left to the layers is motion.
    """

    _supports_gradient_checkpointing = True

    @register_to_config
    def __init__(
        self,
        *,
        in_channels: int = 4,
        out_channels: int = 4,
        block_out_channels: Sequence[int] = (320, 640, 1280, 1280),
        attention_levels: Sequence[int] = (0, 1, 2),
        layers_per_block: int = 2,
        num_attention_heads: int = 8,
        motion_num_attention_heads: int = 8,
        cross_attention_dim: int = 768,
        image_embed_dim: int = 1024,
        num_image_tokens: int = 4,
        norm_num_groups: int = 32,
        num_time_codes: int = 32,
        carries_clip: bool = False,
    ) -> None:
        super().__init__()
        levels = range(len(block_out_channels))
        if not levels or layers_per_block < 1:
            raise ValueError("the network needs at least one level and one layer a level")
        if not set(attention_levels) <= set(levels):
            raise ValueError(f"attention_levels must be among {list(levels)}, got {list(attention_levels)}")
        for channels in block_out_channels:
            for name, number in (
                ("norm_num_groups", norm_num_groups),
                ("num_attention_heads", num_attention_heads),
                ("motion_num_attention_heads", motion_num_attention_heads),
                ("the parts of a position code", 4),
            ):
                if channels % number:
                    raise ValueError(f"{channels} channels cannot be divided by {name} = {number}")

        first, last = block_out_channels[0], block_out_channels[-1]
        embedding = 4 * first
        self.conv_in = nn.Conv2d(in_channels, first, kernel_size=3, padding=1)
        self.time_proj = Timesteps(first, flip_sin_to_cos=True, downscale_freq_shift=0)
        self.time_embedding = TimestepEmbedding(first, embedding)
        self.camera_embedding = TimestepEmbedding(CAMERA_NUMBERS, embedding)
        self.encoder_hid_proj = MultiIPAdapterImageProjection(
            [ImageProjection(image_embed_dim, cross_attention_dim, num_image_tokens)]
        )

        sizes = BlockSizes(
            embedding_channels=embedding,
            context_channels=cross_attention_dim,
            num_heads=num_attention_heads,
            num_motion_heads=motion_num_attention_heads,
            num_groups=norm_num_groups,
            num_time_codes=num_time_codes,
        )
        # IP-Adapter numbers its layers down, up, middle: the order in which diffusers registers them.
        self.down_blocks = nn.ModuleList()
        self.up_blocks = nn.ModuleList()
        skips = [first]
        channels = first
        for level in levels:
            block = DownBlock(
                sizes,
                channels,
                block_out_channels[level],
                layers_per_block,
                has_attention=level in attention_levels,
                halves=level != levels[-1],
            )
            channels = block_out_channels[level]
            skips += [channels] * (layers_per_block + (level != levels[-1]))
            self.down_blocks.append(block)
        self.mid_block = MidBlock(sizes, last)
        for level in reversed(levels):
            own_skips = [skips.pop() for _ in range(layers_per_block + 1)]
            self.up_blocks.append(
                UpBlock(
                    sizes,
                    channels,
                    block_out_channels[level],
                    own_skips,
                    has_attention=level in attention_levels,
                    doubles=level != 0,
                )
            )
            channels = block_out_channels[level]

        self.conv_norm_out = nn.GroupNorm(norm_num_groups, first, eps=1e-5)
        self.conv_out = nn.Conv2d(first, out_channels, kernel_size=3, padding=1)
        self.carried = nn.Linear(embedding, 2 * out_channels) if carries_clip else None
        if self.carried is not None:
            nn.init.zeros_(self.carried.weight)
            with torch.no_grad():
                self.carried.bias.copy_(torch.tensor([0.0, 1.0]).repeat_interleave(out_channels))

    def forward(
        self,
        latents: Float[Tensor, "b v t c h w"],
        timestep: Int[Tensor, " b"],
        text: Float[Tensor, "b words context"],
        image_embeds: Float[Tensor, "b v image"],
        cameras: Float[Tensor, "b v 16"],
        *,
        extra_embedding: Float[Tensor, "b embedding"] | None = None,
    ) -> Float[Tensor, "b v t c h w"]:
        """Predict what the objective asks for (noise, or v), for every frame.

        Args:
            latents: Frame 0 clean, the others noised. Any number of views and frames, any height and width.
            timestep: One an item, shared by its views and frames, the clean one too.
            text: The text encoder's states, shared by all views.
            image_embeds: CLIP's embedding of each view's first frame; zeros for "no image".
            cameras: `training.cameras`.
            extra_embedding: Added to the embedding of time and camera, for further conditions.
        """
        items, views, frames = latents.shape[:3]
        dtype = self.conv_in.weight.dtype
        embedding = self.time_embedding(self.time_proj(timestep).to(dtype))[:, None]
        embedding = embedding + self.camera_embedding(cameras.to(dtype))
        if extra_embedding is not None:
            embedding = embedding + extra_embedding[:, None].to(dtype)
        (image,) = self.encoder_hid_proj([image_embeds.to(dtype)])
        context = Context(
            embedding=per_frame(embedding, frames),
            text=per_frame(text.to(dtype)[:, None].expand(-1, views, -1, -1), frames),
            image=per_frame(image, frames),
            grid=Grid(views, frames),
        )

        maps = self.conv_in(latents.to(dtype).flatten(0, 2))
        skips = [maps]
        for down_block in self.down_blocks:
            skips += down_block(skips[-1], context)
        maps = self.mid_block(skips[-1], context)
        for up_block in self.up_blocks:
            maps = up_block(maps, skips, context)
        out: Tensor = self.conv_out(F.silu(self.conv_norm_out(maps)))
        out = out.unflatten(0, (items, views, frames))
        if self.carried is None:
            return out
        shares = self.carried(F.silu(embedding))[:, :, None, :, None, None].chunk(2, dim=3)
        return out + shares[0] * latents.to(dtype) + shares[1] * latents[:, :, :1].to(dtype)

    @torch.no_grad()
    def start_adapters(self) -> None:
        """Set every MV2V-Adapter to its start, which depends on the frozen queries: call it when those are loaded."""
        for module in self.modules():
            if isinstance(module, MultiViewAttention):
                module.start_adapter()

    def train_only(self, part: Literal["animate3d", "all"]) -> list[nn.Parameter]:
        """Freeze the rest and return what trains: Animate3D's own parts (846 tensors at full size), or everything."""
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(part == "all" or is_animate3d(name))
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def checkpoint_levels(self, levels: Iterable[int] | Literal["all"]) -> None:
        """Compute ResNets, transformers and motion modules of these levels again in the backward pass.

        Args:
            levels: Level 0 has the finest maps, most of the memory and a third of the work. The middle belongs to the
                deepest level.
        """
        deepest = len(self.down_blocks) - 1
        chosen = set(range(deepest + 1)) if levels == "all" else {int(level) for level in levels}
        if not chosen <= set(range(deepest + 1)):
            raise ValueError(f"levels must lie in 0..{deepest}, got {sorted(chosen)}")
        places: list[tuple[int, nn.Module]] = [*enumerate(self.down_blocks), (deepest, self.mid_block)]
        places += [(deepest - place, block) for place, block in enumerate(self.up_blocks)]
        for level, block in places:
            assert isinstance(block, Block)
            block.gradient_checkpointing = level in chosen

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str, **options: object) -> Self:  # type: ignore[override]
        """Load a folder that `save_pretrained` wrote; unlike diffusers' own, refuses one with missing or extra weights.

        Raises:
            ValueError: Names of weights that are missing, unexpected or of another shape.
        """
        wants_report = options.pop("output_loading_info", False)
        loaded = super().from_pretrained(pretrained_model_name_or_path, **options, output_loading_info=True)
        model, report = cast(tuple[Self, dict[str, list[str]]], loaded)
        faults = {kind: report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys") if report[kind]}
        if faults:
            raise ValueError(f"{pretrained_model_name_or_path} is not a whole MV-VDM: {faults}")
        return (model, report) if wants_report else model  # type: ignore[return-value]


def is_animate3d(name: str) -> bool:
    """True for weights of Animate3D's own checkpoint, False for those of its parents."""
    return any(part in name for part in NEW_OR_FINE_TUNED)


def per_frame(states: Float[Tensor, "b v ..."], num_frames: int) -> Float[Tensor, "rows ..."]:
    """One row a frame, in the order item, view, frame."""
    return states.flatten(0, 1).repeat_interleave(num_frames, dim=0)
