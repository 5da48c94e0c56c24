"""The whole way from pictures and prompts to clips, as a diffusers pipeline."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, cast

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.utils.outputs import BaseOutput
from jaxtyping import Float, Int
from PIL import Image
from torch import IntTensor, Tensor
from transformers import CLIPTextModel, CLIPTokenizer, CLIPVisionModelWithProjection
from transformers.image_processing_utils import BaseImageProcessor

from training.cameras import rings
from training.encoders import Encoders
from training.model.patches import CosinePatches
from training.model.unet import MultiViewVideoUNet
from training.objective import CLEAN_FRAMES
from training.sampling.free_init import FreeInit
from training.sampling.guidance import Condition, Guidance, classifier_free, stacked
from training.sampling.images import BACKGROUND, Pictures, eight_bit, view_pictures


@dataclass
class ClipOutput(BaseOutput):
    """Generated clips, and what to call again with to get the same."""

    frames: Any
    """`pt`: tensor (b, v, t, 3, h, w) in 0..1; `np`: the same with channels last; `pil`: lists of views of frames;
    `latent`: the latents (b, v, t, c, h, w)."""
    seeds: list[int]


class MultiViewVideoPipeline(DiffusionPipeline):
    """Animate objects that are seen from a few sides (Animate3D, arXiv:2407.11398).

    Args:
        vae: Pictures to latents and back.
        text_encoder: CLIP's, for the prompt.
        tokenizer: Of the text encoder.
        image_encoder: CLIP's, for the first frame of each view.
        feature_extractor: Prepares pictures for the image encoder.
        unet: The network.
        scheduler: `training.objective.NoiseSchedule.sampler`.
    """

    model_cpu_offload_seq = "text_encoder->image_encoder->unet->vae"  # type: ignore[assignment]

    vae: AutoencoderKL | CosinePatches
    text_encoder: CLIPTextModel
    tokenizer: CLIPTokenizer
    image_encoder: CLIPVisionModelWithProjection
    feature_extractor: BaseImageProcessor
    unet: MultiViewVideoUNet
    scheduler: DDIMScheduler

    def __init__(
        self,
        *,
        vae: AutoencoderKL | CosinePatches,
        text_encoder: CLIPTextModel,
        tokenizer: CLIPTokenizer,
        image_encoder: CLIPVisionModelWithProjection,
        feature_extractor: BaseImageProcessor,
        unet: MultiViewVideoUNet,
        scheduler: DDIMScheduler,
    ) -> None:
        super().__init__()
        self.register_modules(
            vae=vae,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            image_encoder=image_encoder,
            feature_extractor=feature_extractor,
            unet=unet,
            scheduler=scheduler,
        )

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | Sequence[str],
        pictures: Pictures,
        *,
        negative_prompt: str | Sequence[str] = "",
        elevation_deg: float | Sequence[float] = 15.0,
        azimuth_deg: float | Sequence[float] = 0.0,
        cameras: Float[Tensor, "b v 16"] | None = None,
        num_frames: int = 16,
        num_inference_steps: int = 25,
        guidance: float | Guidance = 7.5,
        free_init: FreeInit | None = FreeInit(),  # noqa: B008  (frozen)
        seeds: Sequence[int] | None = None,
        size_px: int | None = None,
        background: float = BACKGROUND,
        output_type: Literal["pil", "pt", "np", "latent"] = "pil",
        decode_batch: int = 16,
        on_step: Callable[[int, Float[Tensor, "b v t c h w"]], None] | None = None,
    ) -> ClipOutput:
        """Generate a clip an object.

        Args:
            prompt: What each object does; one prompt stands for all objects.
            pictures: The views of one object, or of several: frame 0 of the clips.
            negative_prompt: What to move away from; one stands for all.
            elevation_deg: Of the cameras that took the pictures, for all objects or for each.
            azimuth_deg: Of each object's first view; the others follow at equal steps of 360 degrees.
            cameras: Instead of the two angles, `training.cameras.camera_vectors`.
            num_frames: Of each clip, the given one included.
            num_inference_steps: Of DDIM, in each round of FreeInit.
            guidance: A scale of classifier-free guidance, or a function.
            free_init: None, or 1 round, for plain sampling.
            seeds: One an object; drawn if not given. An object's clip depends on its own seed alone.
            size_px: Resize the pictures to this square.
            background: Grey level behind pictures with alpha.
            output_type: What to return.
            decode_batch: Pictures that the VAE decodes at once.
            on_step: Called after each step with its number, from 0, and the latents.

        Raises:
            ValueError: Numbers of prompts, pictures, angles and seeds that do not fit, or bad pictures.
        """
        views = view_pictures(pictures, background, size_px)
        items, num_views = views.shape[:2]
        if any(side % self.latent_px for side in views.shape[-2:]):
            raise ValueError(
                f"the sides of pictures must be multiples of {self.latent_px} px, got {tuple(views.shape[-2:])}"
            )
        if num_frames <= CLEAN_FRAMES or num_inference_steps < 1:
            raise ValueError(f"need two frames and one step, got {num_frames} and {num_inference_steps}")
        prompts, negatives = _one_each(prompt, items, "prompts"), _one_each(negative_prompt, items, "negative prompts")
        seeds = [int(seed) for seed in (torch.randint(2**31, (items,)) if seeds is None else seeds)]
        if len(seeds) != items:
            raise ValueError(f"{len(seeds)} seeds for {items} objects")
        if cameras is None:
            cameras = rings(items, num_views, elevation_deg, azimuth_deg)
        elif cameras.shape != (items, num_views, 16):
            raise ValueError(f"cameras must have the shape {(items, num_views, 16)}, got {tuple(cameras.shape)}")

        device = self._execution_device
        with_prompt = Condition(
            text=self.encode_prompts(prompts),
            image_embeds=self.encode_first_frames(views),
            cameras=cameras.to(device),
        )
        without_prompt = with_prompt.without_prompt(self.encode_prompts(negatives))
        latents = self.denoise(
            self.encode_pictures(views)[:, :, None],
            (with_prompt, without_prompt),
            classifier_free(guidance) if isinstance(guidance, int | float) else guidance,
            free_init or FreeInit(num_rounds=1),
            num_frames,
            num_inference_steps,
            [torch.Generator().manual_seed(seed) for seed in seeds],
            on_step,
        )
        frames = latents if output_type == "latent" else self._finish(latents, output_type, decode_batch)
        self.maybe_free_model_hooks()
        return ClipOutput(frames=frames, seeds=seeds)

    @property
    def latent_px(self) -> int:
        """Side of the square of pixels that is one latent."""
        if isinstance(self.vae, CosinePatches):
            return int(self.vae.config["patch_px"])
        return int(2 ** (len(self.vae.config["block_out_channels"]) - 1))

    @torch.no_grad()
    def denoise(
        self,
        first: Float[Tensor, "b v 1 c h w"],
        conditions: tuple[Condition, Condition],
        guide: Guidance,
        free_init: FreeInit,
        num_frames: int,
        num_steps: int,
        generators: list[torch.Generator],
        on_step: Callable[[int, Tensor], None] | None = None,
    ) -> Float[Tensor, "b v t c h w"]:
        """Clips as latents, from latents of their first frames.

        Args:
            first: Clean, scaled.
            conditions: With the prompt and without it.
            guide: Makes one prediction of those under the conditions.
            free_init: How often to begin again.
            num_frames: Of the clips.
            num_steps: Of DDIM, in each round.
            generators: One an item, on the CPU.
            on_step: As in the call.
        """
        shape = (*first.shape[1:2], num_frames - CLEAN_FRAMES, *first.shape[3:])
        drawn = _noise(shape, generators).to(first.device)
        later = drawn
        last = torch.full((len(first),), self.scheduler.config["num_train_timesteps"] - 1, device=first.device)
        with self.progress_bar(total=free_init.num_rounds * num_steps) as progress:
            for number in range(free_init.num_rounds):
                if number:
                    noised = self.scheduler.add_noise(later, drawn, cast(IntTensor, last))
                    later = free_init.mix(noised, _noise(shape, generators).to(first.device))
                self.scheduler.set_timesteps(num_steps, device=first.device)
                for step, timestep in enumerate(self.scheduler.timesteps):
                    # The clean frame is given anew in each step and never denoised.
                    latents = torch.cat([first, later], dim=2)

                    predicted = guide(partial(self.predict, latents, timestep), *conditions)
                    predicted = predicted[:, :, CLEAN_FRAMES:].to(later)
                    (later, *_) = self.scheduler.step(predicted, timestep, later, return_dict=False)
                    progress.update()
                    if on_step is not None:
                        on_step(number * num_steps + step, torch.cat([first, later], dim=2))
        return torch.cat([first, later], dim=2)

    def predict(
        self, latents: Float[Tensor, "b v t c h w"], timestep: Int[Tensor, ""], conditions: Sequence[Condition]
    ) -> list[Float[Tensor, "b v t c h w"]]:
        """The network's predictions under each condition, in one pass."""
        condition = stacked(conditions)
        repeated = torch.cat([latents] * len(conditions))
        predicted = self.unet(
            repeated,
            timestep.expand(len(repeated)),
            condition.text,
            condition.image_embeds,
            condition.cameras,
            extra_embedding=condition.extra_embedding,
        )
        return list(predicted.chunk(len(conditions)))

    def encode_prompts(self, prompts: Sequence[str]) -> Float[Tensor, "b words context"]:
        """The text encoder's last states, padded to its full length."""
        return self._encoders.prompts(prompts)

    def encode_first_frames(self, views: Float[Tensor, "b v 3 h w"]) -> Float[Tensor, "b v image"]:
        """CLIP's projected embedding of each picture, prepared from bytes."""
        return self._encoders.first_frames(views)

    def encode_pictures(self, views: Float[Tensor, "b v 3 h w"]) -> Float[Tensor, "b v c h w"]:
        """The middle of the VAE's distribution, scaled; float32."""
        return self._encoders.pictures(views)

    def latents_of(self, pictures: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n c h w"]:
        """The same with a gradient to the pictures, in their type."""
        return self._encoders.latents(pictures)

    @property
    def _encoders(self) -> Encoders:
        return Encoders(
            vae=self.vae,
            text_encoder=self.text_encoder,
            tokenizer=self.tokenizer,
            image_encoder=self.image_encoder,
            feature_extractor=self.feature_extractor,
            device=self._execution_device,
        )

    def decode_latents(self, latents: Float[Tensor, "*n c h w"], batch: int = 16) -> Float[Tensor, "*n 3 h w"]:
        """Pictures in 0..1, float32 on the CPU, `batch` at a time."""
        flat = latents.reshape(-1, *latents.shape[-3:]).to(self.vae.dtype) / self.vae.config["scaling_factor"]
        pictures = torch.cat([self.vae.decode(part).sample.float().cpu() for part in flat.split(batch)])
        return (pictures / 2 + 0.5).clamp(0, 1).unflatten(0, latents.shape[:-3])

    def _finish(self, latents: Tensor, output_type: str, decode_batch: int) -> Any:
        pictures = self.decode_latents(latents, decode_batch)
        if output_type == "pt":
            return pictures
        if output_type == "np":
            return np.moveaxis(pictures.numpy(), -3, -1)
        return [[[Image.fromarray(picture) for picture in eight_bit(view)] for view in item] for item in pictures]


def _noise(shape: tuple[int, ...], generators: Sequence[torch.Generator]) -> Tensor:
    """Drawn on the CPU, so that a seed means the same on any device."""
    return torch.stack([torch.randn(shape, generator=generator) for generator in generators])


def _one_each(given: str | Sequence[str], items: int, what: str) -> list[str]:
    texts = [given] * items if isinstance(given, str) else list(given)
    if len(texts) != items:
        raise ValueError(f"{len(texts)} {what} for {items} objects")
    return texts
