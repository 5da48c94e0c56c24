"""3D Gaussians, as splatting stores them (Kerbl et al. 2023, arXiv:2308.04079)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from fourd.motion.rotations import multiply_quaternions, quaternion_of_matrix
from fourd.rendering.spherical_harmonics import rotation_matrix


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

    @property
    def sh_degree(self) -> int:
        """0 to 3."""
        return {1: 0, 4: 1, 9: 2, 16: 3}[self.sh.shape[1]]

    def to(self, device: torch.device | str) -> "Gaussians":
        """The same on a device."""
        return Gaussians(**{name: value.to(device) for name, value in vars(self).items()})

    def select(self, which: Tensor) -> "Gaussians":
        """Some of them, by a mask (N,) or by indices (n,)."""
        return Gaussians(**{name: value[which] for name, value in vars(self).items()})

    def transformed(self, similarity: Tensor) -> "Gaussians":
        """The object turned, scaled and moved, its view-dependent colours with it.

        Args:
            similarity: Shape (4, 4): new space from present space.

        Raises:
            ValueError: It shears, mirrors, or does not scale equally in all directions.
        """
        linear, offset = similarity[:3, :3].double(), similarity[:3, 3].double()
        determinant = torch.linalg.det(linear)
        scale = determinant.clamp(min=0.0) ** (1 / 3)
        rotation = linear / scale
        if not torch.allclose(rotation @ rotation.mT, torch.eye(3).to(rotation), atol=1e-4):
            raise ValueError(f"Gaussians can be turned, scaled equally and moved, but not by {similarity.tolist()}")
        turn = quaternion_of_matrix(rotation).expand(len(self), 4)
        return Gaussians(
            means=(self.means.double() @ linear.mT + offset).float(),
            quats=multiply_quaternions(turn, self.quats.double()).float(),
            log_scales=self.log_scales + scale.log().float(),
            opacity_logits=self.opacity_logits,
            sh=(rotation_matrix(self.sh_degree, rotation) @ self.sh.double()).float(),
        )


def concatenate(parts: Sequence[Gaussians]) -> Gaussians:
    """All Gaussians of the parts, in order; bands that a part does not have are zero."""
    num_coefficients = max(part.sh.shape[1] for part in parts)
    padded = [functional.pad(part.sh, (0, 0, 0, num_coefficients - part.sh.shape[1])) for part in parts]
    values = {name: torch.cat([getattr(part, name) for part in parts]) for name in vars(parts[0]) if name != "sh"}
    return Gaussians(**values, sh=torch.cat(padded))
