"""Random Gaussians before cameras on a ring."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.cameras import look_at_origin, pinhole


@dataclass(frozen=True, kw_only=True)
class Scene:
    means: Tensor
    quats: Tensor
    scales: Tensor
    opacities: Tensor
    colors: Tensor
    viewmats: Tensor
    Ks: Tensor
    backgrounds: Tensor
    size: tuple[int, int]

    @property
    def parameters(self) -> list[Tensor]:
        return [self.means, self.quats, self.scales, self.opacities, self.colors, self.backgrounds]

    def rendered(self, rasterization: Any, **options: Any) -> tuple[Tensor, Tensor, dict[str, Any]]:
        *gaussians, backgrounds = self.parameters
        return rasterization(*gaussians, self.viewmats, self.Ks, *self.size, backgrounds=backgrounds, **options)

    def to(self, dtype: torch.dtype) -> "Scene":
        """A copy whose parameters want gradients."""
        names = ("means", "quats", "scales", "opacities", "colors", "backgrounds")
        copies = {name: getattr(self, name).detach().to(dtype).clone().requires_grad_() for name in names}
        return Scene(**copies, viewmats=self.viewmats.to(dtype), Ks=self.Ks.to(dtype), size=self.size)


def random_scene(
    seed: int,
    *,
    num_gaussians: int = 150,
    num_cameras: int = 2,
    size: tuple[int, int] = (37, 29),
    scale: float = 0.08,
    num_channels: int = 3,
    sh_degree: int | None = None,
) -> Scene:
    """A ball of Gaussians; a few are huge, tiny, needles, opaque, invisible, off screen or behind a camera."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    means = normal(num_gaussians, 3)
    means *= 0.8 * torch.rand(num_gaussians, 1, generator=generator) / means.norm(dim=-1, keepdim=True)
    scales = scale * torch.exp(0.4 * normal(num_gaussians, 3))
    opacities = 0.02 + 0.97 * torch.rand(num_gaussians, generator=generator)
    means[:8] *= 12
    scales[8:11] *= 20
    scales[11:14] *= 1e-4
    scales[14:18] *= torch.tensor([30.0, 0.05, 0.05])
    opacities[18:20], opacities[20:30] = 0.0, 1.0
    shape = (num_channels,) if sh_degree is None else ((sh_degree + 1) ** 2, 3)
    colors = 0.4 * normal(num_gaussians, *shape)
    if sh_degree is None:
        colors = torch.sigmoid(4 * colors)
    turn = 360 * float(torch.rand((), generator=generator))
    poses = [look_at_origin(turn + 360 * camera / num_cameras, 20.0, 2.5) for camera in range(num_cameras)]
    focal, _, _, _ = pinhole(50.0, min(size))
    # Off the middle, and not square.
    K = [[focal, 0.0, 0.45 * size[0]], [0.0, 1.1 * focal, 0.53 * size[1]], [0.0, 0.0, 1.0]]
    return Scene(
        means=means,
        quats=normal(num_gaussians, 4) * math.e,
        scales=scales,
        opacities=opacities,
        colors=colors,
        viewmats=torch.from_numpy(np.linalg.inv(np.stack(poses))).float(),
        Ks=torch.tensor(K).expand(num_cameras, 3, 3).contiguous(),
        backgrounds=torch.rand(num_cameras, colors.shape[-1], generator=generator),
        size=size,
    )


def stacked(scenes: list[Scene]) -> Scene:
    """Scenes as a batch."""
    names = ("means", "quats", "scales", "opacities", "colors", "viewmats", "Ks", "backgrounds")
    return Scene(**{n: torch.stack([getattr(scene, n) for scene in scenes]) for n in names}, size=scenes[0].size)
