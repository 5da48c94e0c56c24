"""An autoencoder without training: each patch of a picture as its lowest cosine frequencies."""

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.autoencoders.vae import DecoderOutput, DiagonalGaussianDistribution
from diffusers.models.modeling_outputs import AutoencoderKLOutput
from diffusers.models.modeling_utils import ModelMixin
from jaxtyping import Float
from torch import Tensor, nn


class CosinePatches(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """Stands where a diffusers `AutoencoderKL` stands, for networks that are trained from scratch on small machines.

    With all frequencies it loses nothing: the network works on pixels. With the lowest few it blurs, and a picture of
    64 px is no more work than one of 32. A frequency k steps above the mean is enlarged by 1 + k: pictures have so much
    less of it, and noise has as much of each.

    Args:
        patch_px: Side of a patch: pixels of one latent.
        num_frequencies: Kept of the `patch_px` squared frequencies of each colour, lowest first.
        scaling_factor: Brings latents near to a variance of 1.
    """

    @register_to_config
    def __init__(self, *, patch_px: int = 8, num_frequencies: int = 16, scaling_factor: float = 1.0) -> None:
        super().__init__()
        if patch_px < 1 or not 1 <= num_frequencies <= patch_px**2 or scaling_factor <= 0:
            raise ValueError(
                f"need a pixel a patch, 1 to {patch_px**2} frequencies and a positive scale, got {patch_px}, "
                f"{num_frequencies}, {scaling_factor}"
            )
        filters, gains = cosines(patch_px, num_frequencies)
        self.cosines = nn.Parameter(filters, requires_grad=False)
        self.gains = nn.Parameter(gains, requires_grad=False)

    def encode(self, pictures: Float[Tensor, "n 3 height width"]) -> AutoencoderKLOutput:
        """Latents of 3 times `num_frequencies` channels, as a distribution without spread."""
        mean = F.conv2d(pictures, self.cosines, stride=self.config["patch_px"]) * self.gains
        certain = torch.full_like(mean, -30.0)
        return AutoencoderKLOutput(latent_dist=DiagonalGaussianDistribution(torch.cat([mean, certain], dim=1)))

    def decode(self, latents: Float[Tensor, "n channels h w"]) -> DecoderOutput:
        """Pictures again."""
        waves = latents / self.gains
        return DecoderOutput(sample=F.conv_transpose2d(waves, self.cosines, stride=self.config["patch_px"]))


def cosines(
    patch_px: int, num_frequencies: int
) -> tuple[Float[Tensor, "channels 3 patch patch"], Float[Tensor, "channels 1 1"]]:
    """Filters of the discrete cosine transform (type II, orthonormal), colour by colour, lowest frequencies first.

    Returns:
        The filters, and 1 + the steps of each above the mean.
    """
    place = torch.arange(patch_px, dtype=torch.float64)
    wave = torch.cos(torch.pi / patch_px * (place[None] + 0.5) * place[:, None]) * (2 / patch_px) ** 0.5
    wave[0] /= 2**0.5
    pairs = sorted(((i, j) for i in range(patch_px) for j in range(patch_px)), key=lambda pair: (sum(pair), pair))
    planes = torch.stack([wave[i][:, None] * wave[j] for i, j in pairs[:num_frequencies]])
    filters = torch.zeros(3, num_frequencies, 3, patch_px, patch_px, dtype=torch.float64)
    for colour in range(3):
        filters[colour, :, colour] = planes
    gains = torch.tensor([1.0 + sum(pair) for pair in pairs[:num_frequencies]]).repeat(3)
    return filters.flatten(0, 1).float(), gains[:, None, None]
