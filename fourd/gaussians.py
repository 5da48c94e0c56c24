"""3D Gaussians, as splatting stores them (Kerbl et al. 2023, arXiv:2308.04079)."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Gaussians:
    """N Gaussians in the clip's space: z up, the object inside the unit sphere. All float32, on one device."""

    means: Tensor
    """(N, 3)."""
    quats: Tensor
    """(N, 4), w first; of any length but zero."""
    log_scales: Tensor
    """(N, 3), natural logarithm of the standard deviation along each axis."""
    opacity_logits: Tensor
    """(N,), opacity before the sigmoid."""
    sh: Tensor
    """(N, K, 3), spherical harmonics of colour, K = 1, 4, 9 or 16; colour = 0.5 + their sum, sRGB."""

    def __len__(self) -> int:
        return len(self.means)
