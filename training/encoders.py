"""What the frozen parents make of pictures and words: the VAE's latents, CLIP's embeddings."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from jaxtyping import Float
from torch import Tensor, nn
from transformers import CLIPImageProcessorPil, CLIPTextModel, CLIPTokenizer, CLIPVisionModelWithProjection
from transformers.image_processing_utils import BaseImageProcessor

from training.model.patches import CosinePatches
from training.sampling.images import eight_bit

# What the two libraries raise for folders that hold something else, or half of it.
LOADING_FAULTS = (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError, SyntaxError)


@dataclass(frozen=True, kw_only=True, eq=False)
class Encoders:
    """The networks that training does not touch."""

    vae: AutoencoderKL | CosinePatches
    text_encoder: CLIPTextModel
    tokenizer: CLIPTokenizer
    image_encoder: CLIPVisionModelWithProjection
    feature_extractor: BaseImageProcessor
    device: torch.device | str = "cpu"

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        image_encoder: str | Path = "",
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> Self:
        """Load them as diffusers lays them out.

        Args:
            folder: Has `vae`, `text_encoder`, `tokenizer` and perhaps `image_encoder` and `feature_extractor`: MVDream
                on Stable Diffusion 1.5, or a pipeline of ours.
            image_encoder: CLIP's, if it is not there: IP-Adapter's `models/image_encoder`.
            device: Where they compute.
            dtype: What they compute in.

        Raises:
            FileNotFoundError: A folder is not there.
            ValueError: A folder does not hold what it should.
        """
        folder = Path(folder)
        vision = Path(image_encoder) if str(image_encoder) else folder / "image_encoder"
        loaded_vision = _load(CLIPVisionModelWithProjection, vision, dtype=dtype).to(device)
        prepares = folder / "feature_extractor"
        return cls(
            vae=_load(_kind_of_vae(folder / "vae"), folder / "vae", torch_dtype=dtype).to(device),
            text_encoder=_load(CLIPTextModel, folder / "text_encoder", dtype=dtype).to(device),
            tokenizer=_load(CLIPTokenizer, folder / "tokenizer"),
            image_encoder=loaded_vision,
            # IP-Adapter's folder has none: it is CLIP's own.
            feature_extractor=_load(CLIPImageProcessorPil, prepares)
            if prepares.is_dir()
            else _clip_processor(loaded_vision.config.image_size),
            device=device,
        )

    @torch.no_grad()
    def prompts(self, prompts: Sequence[str]) -> Float[Tensor, "b words context"]:
        """The text encoder's last states, padded to its full length."""
        tokens = self.tokenizer(
            list(prompts),
            padding="max_length",
            max_length=self.tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        )
        states: Tensor = self.text_encoder(tokens.input_ids.to(self.device))[0]
        return states

    @torch.no_grad()
    def first_frames(self, views: Float[Tensor, "b v 3 h w"]) -> Float[Tensor, "b v image"]:
        """CLIP's projected embedding of each picture (0..1), prepared from bytes."""
        prepared = self.feature_extractor(images=eight_bit(views), return_tensors="pt").pixel_values
        embeds: Tensor = self.image_encoder(prepared.to(self.device, self.image_encoder.dtype)).image_embeds
        return embeds.unflatten(0, views.shape[:2])

    @torch.no_grad()
    def pictures(self, pictures: Float[Tensor, "*n 3 h w"], *, at_once: int | None = None) -> Float[Tensor, "*n c h w"]:
        """The middle of the VAE's distribution of each picture (0..1), scaled; float32.

        Args:
            pictures: Colours in 0..1.
            at_once: How many are encoded together; all if None.
        """
        flat = pictures.reshape(-1, *pictures.shape[-3:])
        latents = torch.cat([self.latents(part).float() for part in flat.split(at_once or len(flat))])
        return latents.unflatten(0, pictures.shape[:-3])

    def latents(self, pictures: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n c h w"]:
        """The same with a gradient to the pictures, in their type, all together."""
        pixels = (pictures * 2 - 1).to(self.device, self.vae.dtype)
        middle: Tensor = self.vae.encode(pixels).latent_dist.mode()
        return middle.to(pictures.dtype) * self.vae.config["scaling_factor"]

    def fingerprint(self) -> str:
        """Hash of all weights, of the precision that they are in, and of how words and pictures are prepared."""
        digest = hashlib.sha256()
        for part in (self.vae, self.text_encoder, self.image_encoder):
            hash_weights(digest, part)
        digest.update(repr(sorted(self.tokenizer.get_vocab().items())).encode())
        prepares = self.feature_extractor.to_dict()
        # Made anew, the processor has an enum where one that was read from a file has its number.
        plain = {name: int(value) if isinstance(value, int) else value for name, value in prepares.items()}
        digest.update(repr([(name, plain.get(name)) for name in PREPARES]).encode())
        digest.update(repr(self.vae.config["scaling_factor"]).encode())
        return digest.hexdigest()[:16]


def hash_weights(digest: "hashlib._Hash", network: nn.Module) -> None:
    """Add the names, shapes, precision and numbers of a network's weights to a hash."""
    for name, tensor in sorted(network.state_dict().items()):
        content = tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(content.data)


PREPARES = ("size", "crop_size", "resample", "image_mean", "image_std")
"""Settings of an image processor that decide what CLIP sees."""


def _kind_of_vae(folder: Path) -> type[AutoencoderKL] | type[CosinePatches]:
    try:
        config = json.loads((folder / "config.json").read_bytes())
        return CosinePatches if config["_class_name"] == CosinePatches.__name__ else AutoencoderKL
    except (OSError, ValueError, KeyError, TypeError):
        return AutoencoderKL  # which says what is wrong


def _load(kind: Any, folder: Path, **options: Any) -> Any:
    """A part from its folder; weights without running code from them, and nothing from the network."""
    if not folder.is_dir():
        raise FileNotFoundError(
            f"no folder {folder}: give one with vae, text_encoder and tokenizer as diffusers lays them out, and "
            "image_encoder there or as an option of its own"
        )
    try:
        part = kind.from_pretrained(str(folder), local_files_only=True, **options)
    except LOADING_FAULTS as error:
        raise ValueError(f"{folder} holds no {kind.__name__}: {error}") from error
    return part.eval().requires_grad_(False) if isinstance(part, nn.Module) else part


def _clip_processor(size_px: int) -> BaseImageProcessor:
    return CLIPImageProcessorPil(size={"shortest_edge": size_px}, crop_size={"height": size_px, "width": size_px})
