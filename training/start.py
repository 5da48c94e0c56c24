"""Where a training run starts: the network, and the frozen encoders round it, as one sampling pipeline."""

import json
import string
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import (
    CLIPImageProcessorPil,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from training.checkpoints import CheckpointError, build
from training.encoders import Encoders
from training.model.patches import CosinePatches
from training.model.unet import MultiViewVideoUNet
from training.objective import NoiseSchedule
from training.sampling.pipeline import MultiViewVideoPipeline


@dataclass(frozen=True, kw_only=True)
class Scratch:
    """A small network with random weights, and encoders that need no training: for a CPU, and for trying things out.

    Text and first frame go through CLIP's networks at a tiny size with fixed random weights, which tell one prompt or
    picture from another, but know nothing. Pictures go through `training.model.patches.CosinePatches`.
    """

    block_out_channels: tuple[int, ...] = (32, 64)
    """Channels of each level, finest first."""
    attention_levels: tuple[int, ...] = (0, 1)
    """Levels whose layers look at all views of a frame, at text and at the first frame."""
    layers_per_block: int = 1
    num_heads: int = 1
    """Of all attentions."""
    norm_num_groups: int = 8
    patch_px: int = 8
    """Side of the patch of pixels that is one latent."""
    num_frequencies: int = 16
    """Kept of each patch and colour; `patch_px` squared keeps the pixels as they are."""
    scaling_factor: float = 1.0
    """Brings latents near to a variance of 1."""
    carries_clip: bool = False
    """As `MultiViewVideoUNet` has it; for the objective to predict the clip itself."""
    condition_width: int = 32
    """Numbers of a word and of a picture, as the network is told them."""
    max_letters: int = 48
    """Longer captions are cut."""

    def build(self, schedule: NoiseSchedule, seed: int) -> MultiViewVideoPipeline:
        """Everything anew, the same for the same seed."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            unet = MultiViewVideoUNet(
                in_channels=3 * self.num_frequencies,
                out_channels=3 * self.num_frequencies,
                block_out_channels=self.block_out_channels,
                attention_levels=self.attention_levels,
                layers_per_block=self.layers_per_block,
                num_attention_heads=self.num_heads,
                motion_num_attention_heads=self.num_heads,
                cross_attention_dim=self.condition_width,
                image_embed_dim=self.condition_width,
                norm_num_groups=self.norm_num_groups,
                carries_clip=self.carries_clip,
            )
            return MultiViewVideoPipeline(
                vae=CosinePatches(
                    patch_px=self.patch_px, num_frequencies=self.num_frequencies, scaling_factor=self.scaling_factor
                ),
                text_encoder=self._text_encoder(),
                tokenizer=letters(self.max_letters),
                image_encoder=self._image_encoder(),
                feature_extractor=CLIPImageProcessorPil(
                    size={"shortest_edge": PICTURE_PX}, crop_size={"height": PICTURE_PX, "width": PICTURE_PX}
                ),
                unet=unet,
                scheduler=schedule.sampler(),
            )

    def _text_encoder(self) -> CLIPTextModel:
        width = self.condition_width
        return CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(vocabulary()),
                hidden_size=width,
                intermediate_size=2 * width,
                num_hidden_layers=2,
                num_attention_heads=2,
                max_position_embeddings=self.max_letters,
                bos_token_id=len(vocabulary()) - 2,
                eos_token_id=len(vocabulary()) - 1,
            )
        )

    def _image_encoder(self) -> CLIPVisionModelWithProjection:
        width = self.condition_width
        return CLIPVisionModelWithProjection(
            CLIPVisionConfig(
                hidden_size=width,
                intermediate_size=2 * width,
                projection_dim=width,
                num_hidden_layers=2,
                num_attention_heads=2,
                image_size=PICTURE_PX,
                patch_size=PICTURE_PX // 4,
            )
        )


@dataclass(frozen=True, kw_only=True)
class Published:
    """Published weights of the parents, as Animate3D was trained from them: docs/training.md says where to get them."""

    mvdream: str
    """diffusers' folder of MVDream on Stable Diffusion 1.5, with `unet`, `vae`, `text_encoder` and `tokenizer`."""
    ip_adapter: str
    """`ip-adapter_sd15.safetensors` or `.bin`."""
    image_encoder: str
    """Folder of CLIP ViT-H, the image encoder of IP-Adapter."""
    motion: str | None = None
    """AnimateDiff's motion adapter v1-5-2, to train from the parents."""
    animate3d: str | None = None
    """`animate3d_motion_modules.ckpt`, to go on from the published model. Give one of the two."""

    def build(self, schedule: NoiseSchedule) -> MultiViewVideoPipeline:
        """Read everything; the encoders in float32.

        Raises:
            CheckpointError: A file of weights is not there or does not hold what it should.
            FileNotFoundError: A folder of an encoder is not there.
            ValueError: It does not hold what it should.
        """
        encoders = Encoders.load(self.mvdream, image_encoder=self.image_encoder)
        return MultiViewVideoPipeline(
            vae=encoders.vae,
            text_encoder=encoders.text_encoder,
            tokenizer=encoders.tokenizer,
            image_encoder=encoders.image_encoder,
            feature_extractor=encoders.feature_extractor,
            unet=build(mvdream=self.mvdream, ip_adapter=self.ip_adapter, motion=self.motion, animate3d=self.animate3d),
            scheduler=schedule.sampler(),
        )


@dataclass(frozen=True, kw_only=True)
class Start:
    """Exactly one of three ways to begin."""

    scratch: Scratch | None = None
    """Small and untrained."""
    published: Published | None = None
    """From the published weights of others."""
    folder: str | None = None
    """From what `MultiViewVideoPipeline.save_pretrained` or `python -m training export` wrote."""

    def __post_init__(self) -> None:
        if sum(way is not None for way in (self.scratch, self.published, self.folder)) != 1:
            raise ValueError("start needs exactly one of scratch, published and folder")

    def build(self, schedule: NoiseSchedule, seed: int = 0) -> MultiViewVideoPipeline:
        """The network and its encoders, on the CPU; everything but the network is frozen.

        Raises:
            CheckpointError: Weights are missing or do not fit.
        """
        if self.scratch is not None:
            pipeline = self.scratch.build(schedule, seed)
        elif self.published is not None:
            pipeline = self.published.build(schedule)
        else:
            assert self.folder is not None
            if not (Path(self.folder) / "model_index.json").is_file():
                raise CheckpointError(self.folder, "not_found", "no folder with model_index.json")
            pipeline = MultiViewVideoPipeline.from_pretrained(self.folder)
            pipeline.scheduler = schedule.sampler()
        for part in (pipeline.vae, pipeline.text_encoder, pipeline.image_encoder):
            part.requires_grad_(False).eval()
        pipeline.set_progress_bar_config(disable=True)
        return pipeline


PICTURE_PX = 32
"""Side of what the tiny image encoder sees."""


def vocabulary() -> dict[str, int]:
    """Letters, digits and some signs, inside and at the end of a word, and CLIP's two marks."""
    signs = string.ascii_lowercase + string.digits + ",.-'"
    words = [*signs, *(sign + "</w>" for sign in signs), "<|startoftext|>", "<|endoftext|>"]
    return {word: number for number, word in enumerate(words)}


def letters(max_letters: int) -> CLIPTokenizer:
    """CLIP's tokenizer with single letters for words."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "vocab.json").write_text(json.dumps(vocabulary()))
        Path(folder, "merges.txt").write_text("#version: 0.2\n")
        Path(folder, "tokenizer_config.json").write_text(
            json.dumps({"tokenizer_class": "CLIPTokenizer", "model_max_length": max_letters})
        )
        return CLIPTokenizer.from_pretrained(folder)
