"""How Gaussians follow the points that a field moves."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from fourd.motion.field import Motion
from fourd.motion.rotations import multiply_quaternions


@dataclass(frozen=True, kw_only=True)
class Binding:
    """Each of N Gaussians stands at a weighted mean of K points, and turns as they do."""

    points: Tensor
    """(N, K), int64."""
    weights: Tensor
    """(N, K), sum 1: barycentric where the points are a triangle's corners."""

    @classmethod
    def one_to_one(cls, count: int, device: torch.device | str = "cpu") -> "Binding":
        """Gaussian i is point i, with its own direction and size."""
        points = torch.arange(count, device=device)[:, None]
        return cls(points=points, weights=torch.ones(count, 1, device=device))

    @property
    def is_one_to_one(self) -> bool:
        """Each Gaussian follows one point only."""
        return self.points.shape[1] == 1

    def to(self, device: torch.device | str) -> "Binding":
        """The same on a device."""
        return Binding(points=self.points.to(device), weights=self.weights.to(device))

    def carry(self, motion: Motion, quats: Tensor, log_scales: Tensor) -> Motion:
        """Where the Gaussians are.

        Args:
            motion: Of the points.
            quats: The Gaussians' own at frame 0, shape (N, 4): the points' turns go on top of them.
            log_scales: The Gaussians' own, shape (N, 3): the points' changes are added.
        """
        table = torch.cat([motion.positions, motion.quats, motion.log_scales], dim=-1).transpose(0, 1)
        carried = functional.embedding_bag(
            self.points, table.flatten(1), mode="sum", per_sample_weights=self.weights
        ).unflatten(1, table.shape[1:])
        positions, turns, growth = carried.transpose(0, 1).split([3, 4, 3], dim=-1)
        return Motion(
            positions=positions,
            quats=multiply_quaternions(functional.normalize(turns, dim=-1), quats.expand(len(turns), -1, -1)),
            log_scales=log_scales + growth,
        )
