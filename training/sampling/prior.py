"""MV-VDM as a prior for 4D-SDS: `fourd.guidance.VideoPrior`, which the 4D stage asks for and does not know us by."""

import torch
from jaxtyping import Float
from torch import Tensor

from training.cameras import camera_vectors
from training.sampling.guidance import Condition
from training.sampling.pipeline import MultiViewVideoPipeline


class PipelinePrior:
    """A pipeline with a prompt. Its networks are frozen."""

    def __init__(self, pipeline: MultiViewVideoPipeline, prompt: str, negative_prompt: str = "") -> None:
        """Encodes the words once.

        Args:
            pipeline: The model; its weights get no gradient from here on.
            prompt: What the object does.
            negative_prompt: What to move away from.
        """
        self._pipeline = pipeline
        for part in (pipeline.vae, pipeline.unet, pipeline.text_encoder, pipeline.image_encoder):
            part.requires_grad_(False).eval()
        self._text, self._negative = pipeline.encode_prompts([prompt]), pipeline.encode_prompts([negative_prompt])

    def encode(self, pictures: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n c h w"]:
        """The middle of the VAE's distribution, scaled; with gradient."""
        return self._pipeline.latents_of(pictures)

    def signal_and_noise(self, timestep: int) -> tuple[float, float]:
        """Of the training schedule."""
        kept = float(self._pipeline.scheduler.alphas_cumprod[timestep])
        return kept**0.5, (1 - kept) ** 0.5

    @torch.no_grad()
    def clean(
        self,
        noisy: Float[Tensor, "v t c h w"],
        timestep: int,
        first: Float[Tensor, "v 3 h w"],
        c2w: Float[Tensor, "v 4 4"],
    ) -> tuple[Float[Tensor, "v t c h w"], Float[Tensor, "v t c h w"]]:
        """With the prompt, and without prompt and image; frame 0 means nothing."""
        pipeline = self._pipeline
        with_prompt = Condition(
            text=self._text,
            image_embeds=pipeline.encode_first_frames(first[None]),
            cameras=camera_vectors(c2w.detach().cpu().double().numpy())[None].to(noisy.device),
        )
        conditions = (with_prompt, with_prompt.without_prompt(self._negative))
        predicted = pipeline.predict(noisy[None], torch.tensor(timestep, device=noisy.device), conditions)
        ours, theirs = (self._clean(noisy, prediction[0].to(noisy), timestep) for prediction in predicted)
        return ours, theirs

    def _clean(self, noisy: Tensor, predicted: Tensor, timestep: int) -> Tensor:
        signal, share = self.signal_and_noise(timestep)
        kind = self._pipeline.scheduler.config["prediction_type"]
        if kind == "sample":
            return predicted
        if kind == "v_prediction":
            return signal * noisy - share * predicted
        return (noisy - share * predicted) / signal
