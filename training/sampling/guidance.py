"""How predictions under several conditions become one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

Latents = Float[Tensor, "b v t c h w"]


@dataclass(frozen=True, kw_only=True)
class Condition:
    """What the network is told beside the latents and the timestep."""

    text: Float[Tensor, "b words context"]
    image_embeds: Float[Tensor, "b v image"]
    cameras: Float[Tensor, "b v 16"]
    extra_embedding: Float[Tensor, "b embedding"] | None = None

    def without_prompt(self, negative_text: Float[Tensor, "b words context"]) -> "Condition":
        """The unconditional half: another text and no image; the cameras stay, as does the clean first frame."""
        return Condition(
            text=negative_text,
            image_embeds=torch.zeros_like(self.image_embeds),
            cameras=self.cameras,
            extra_embedding=self.extra_embedding,
        )


Predict = Callable[[Sequence[Condition]], list[Latents]]
"""The network's predictions for the current latents under each condition, in one pass."""

Guidance = Callable[[Predict, Condition, Condition], Latents]
"""Makes one prediction; is given the condition with the prompt and the one without."""


def classifier_free(scale: float) -> Guidance:
    """Classifier-free guidance: away from the prediction without the prompt; 1 leaves that out altogether."""
    if scale < 0:
        raise ValueError(f"a guidance scale must not be negative, got {scale}")

    def guide(predict: Predict, with_prompt: Condition, without_prompt: Condition) -> Latents:
        if scale == 1:
            return predict([with_prompt])[0]
        conditional, unconditional = predict([with_prompt, without_prompt])
        return unconditional + scale * (conditional - unconditional)

    return guide


def stacked(conditions: Sequence[Condition]) -> Condition:
    """Several conditions as one batch, in order."""
    extra = [condition.extra_embedding for condition in conditions if condition.extra_embedding is not None]
    if extra and len(extra) != len(conditions):
        raise ValueError("either all conditions have an extra embedding or none has")
    return Condition(
        text=torch.cat([condition.text for condition in conditions]),
        image_embeds=torch.cat([condition.image_embeds for condition in conditions]),
        cameras=torch.cat([condition.cameras for condition in conditions]),
        extra_embedding=torch.cat(extra) if extra else None,
    )
