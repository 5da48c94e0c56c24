"""A network small enough for a test, with the same classes and the same names as the published one."""

import json
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from torch import Tensor
from transformers import (
    CLIPImageProcessorPil,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from training.model.unet import MultiViewVideoUNet
from training.objective import NoiseSchedule
from training.sampling.pipeline import MultiViewVideoPipeline

TINY: dict[str, Any] = {
    "block_out_channels": (16, 32),
    "attention_levels": (0,),
    "layers_per_block": 1,
    "num_attention_heads": 2,
    "motion_num_attention_heads": 2,
    "cross_attention_dim": 12,
    "image_embed_dim": 10,
    "norm_num_groups": 8,
}


def tiny_unet(seed: int = 0, **changes: Any) -> MultiViewVideoUNet:
    """A network with every weight at random, the ones that start at zero too."""
    torch.manual_seed(seed)
    model = MultiViewVideoUNet(**{**TINY, **changes})
    scramble(model, seed)
    return model.eval()


@torch.no_grad()
def scramble(model: torch.nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        parameter.copy_(1 + 0.1 * noise if "norm" in name and name.endswith("weight") else 0.2 * noise)


def inputs(
    items: int = 2, views: int = 3, frames: int = 4, size: tuple[int, int] = (4, 4), seed: int = 1
) -> dict[str, Tensor]:
    """What the tiny network is called with."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    return {
        "latents": normal(items, views, frames, 4, *size),
        "timestep": torch.randint(1000, (items,), generator=generator),
        "text": normal(items, 5, TINY["cross_attention_dim"]),
        "image_embeds": normal(items, views, TINY["image_embed_dim"]),
        "cameras": normal(items, views, 16),
    }


def tiny_tokenizer(folder: Path) -> CLIPTokenizer:
    """CLIP's tokenizer, from a vocabulary of single letters in the true files."""
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    words = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({word: number for number, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "CLIPTokenizer", "model_max_length": 12})
    )
    return CLIPTokenizer.from_pretrained(folder)


def tiny_pipeline(folder: Path, schedule: NoiseSchedule | None = None) -> MultiViewVideoPipeline:
    """Every component of the true class, with random weights; pictures of 8 px give latents of 4 x 4."""
    torch.manual_seed(7)
    text = CLIPTextConfig(
        vocab_size=54,
        hidden_size=12,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=12,
        bos_token_id=52,
        eos_token_id=53,
    )
    vision = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=16,
        projection_dim=10,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=16,
        patch_size=8,
    )
    vae = AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=4,
    )
    pipeline = MultiViewVideoPipeline(
        vae=vae.eval(),
        text_encoder=CLIPTextModel(text).eval(),
        tokenizer=tiny_tokenizer(folder),
        image_encoder=CLIPVisionModelWithProjection(vision).eval(),
        feature_extractor=CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}),
        unet=tiny_unet(),
        scheduler=(schedule or NoiseSchedule()).sampler(),
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def pictures(items: int = 1, views: int = 4, size: int = 8, seed: int = 2) -> Tensor:
    """Random colours inside, grey around, in 0..1; shape (item, view, 3, size, size)."""
    inside = torch.rand(items, views, 3, size - 2, size - 2, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.pad(inside, (1, 1, 1, 1), value=0.5)
