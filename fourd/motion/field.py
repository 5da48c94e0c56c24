"""What every motion field gives, and the hexplane field of Animate3D (Jiang et al. 2024, arXiv:2407.11398)."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from fourd.motion.heads import Head
from fourd.motion.hexplane import PENALTIES, Hexplane
from fourd.motion.rotations import (
    matrix_of_euler,
    multiply_quaternions,
    quaternion_of_matrix,
)


@dataclass(frozen=True, kw_only=True)
class Points:
    """P points that a field moves, as they are at frame 0."""

    positions: Tensor
    """(P, 3), in the clip's space."""
    quats: Tensor
    """(P, 4), w first, of any length but zero; (1, 0, 0, 0) for points that have no direction of their own."""
    log_scales: Tensor
    """(P, 3); 0 for points that have no size."""

    @classmethod
    def plain(cls, positions: Tensor) -> "Points":
        """Points without direction and size, such as vertices."""
        quats = torch.zeros(len(positions), 4, dtype=positions.dtype, device=positions.device)
        quats[:, 0] = 1.0
        return cls(positions=positions, quats=quats, log_scales=torch.zeros_like(positions))


@dataclass(frozen=True, kw_only=True)
class Motion:
    """Points at F frames."""

    positions: Tensor
    """(F, P, 3)."""
    quats: Tensor
    """(F, P, 4), w first, unit."""
    log_scales: Tensor
    """(F, P, 3)."""


class MotionField(nn.Module, ABC):
    """Moves the points that it was made for; at frame 0 it leaves them as they are, bit by bit."""

    positions: Tensor
    quats: Tensor
    log_scales: Tensor

    def __init__(self, points: Points, num_frames: int) -> None:
        super().__init__()
        if num_frames < 2:
            raise ValueError(f"motion needs at least 2 frames, got {num_frames}")
        self.num_frames = num_frames
        self.register_buffer("positions", points.positions, persistent=False)
        self.register_buffer("quats", functional.normalize(points.quats, dim=-1), persistent=False)
        self.register_buffer("log_scales", points.log_scales, persistent=False)

    def __call__(self, frames: Tensor) -> Motion:
        """The points at some frames. `frames`: shape (F,), whole numbers in 0..num_frames - 1."""
        out: Motion = super().__call__(frames)
        return out

    def forward(self, frames: Tensor) -> Motion:
        """See `__call__`."""
        frames = frames.to(self.positions.device)
        moved = self.moved(frames)
        untouched = (frames == 0)[:, None, None]
        return Motion(
            positions=torch.where(untouched, self.positions, moved.positions),
            quats=torch.where(untouched, self.quats, moved.quats),
            log_scales=torch.where(untouched, self.log_scales, moved.log_scales),
        )

    @abstractmethod
    def moved(self, frames: Tensor) -> Motion:
        """The points at frames other than 0; what it gives for frame 0 is not used."""

    @abstractmethod
    def parameter_groups(self) -> list[dict[str, object]]:
        """Parameters with their learning rates, as torch's optimizers take them."""

    def begin_frame(self, frame: int, judge: Callable[[], float]) -> None:
        """Called when a frame is first looked at, in order; a field may start it from those before.

        Args:
            frame: From 1.
            judge: Says how well the frame fits as it is; the less, the better.
        """

    def frame_parameters(self, frame: int) -> list[nn.Parameter]:
        """What decides one frame and no other."""
        del frame
        return []

    def penalties(self, frames: Tensor, wanted: Collection[str]) -> dict[str, Tensor]:
        """What the field's own form can be asked to keep small at some frames: those of the wanted that it has."""
        del frames, wanted
        return {}


def set_values(parameters: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    """Give parameters the values of tensors."""
    with torch.no_grad():
        for parameter, value in zip(parameters, values, strict=True):
            parameter.copy_(value)


@dataclass(frozen=True, kw_only=True)
class HexplaneSettings:
    """Size and rates of a hexplane field."""

    scales: tuple[tuple[int, int], ...] = ((50, 8), (100, 16))
    """Cells along each axis of space and along time, scale by scale. (100, 8) for the second is the paper's text."""
    num_features: int = 16
    """Of each plane."""
    head_width: int = 32
    bound: float = 1.0
    """Half the side of the box that the planes span."""
    has_global: bool = True
    """A turn and a shift of everything beside each point's own motion."""
    moves_scales: bool = False
    """Gaussians may change their size."""
    grid_rate: float = 0.01
    head_rate: float = 1e-4
    global_rate: float = 1e-3
    global_turn_rate: float = 1e-4

    def __post_init__(self) -> None:
        if not self.scales or min(min(scale) for scale in self.scales) < 1 or self.num_features < 1:
            raise ValueError(f"a hexplane needs scales of at least one cell and features, got {self}")
        if self.bound <= 0 or min(self.grid_rate, self.head_rate, self.global_rate, self.global_turn_rate) < 0:
            raise ValueError(f"bound must be above 0 and rates not below it, got {self}")


class HexplaneMotion(MotionField):
    """position' = R position + t + Δ, quaternion' = normalise(quaternion of R·R(q) + Δ), log-scale' = log-scale + Δ.

    Δ comes from heads on the point's own feature, R = Rz Ry Rx and t from heads on the mean feature of all points.
    """

    def __init__(self, points: Points, num_frames: int, settings: HexplaneSettings, generator: torch.Generator) -> None:
        super().__init__(points, num_frames)
        self.settings = settings
        self.planes = Hexplane(settings.scales, settings.num_features, generator)
        width = self.planes.num_features
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(torch.randint(2**31, (), generator=generator)))
            self.shift_head = Head(width, settings.head_width, 3)
            self.turn_head = Head(width, settings.head_width, 4)
            self.scale_head = Head(width, settings.head_width, 3)
            self.global_turn_head = Head(width, settings.head_width, 3)
            self.global_shift_head = Head(width, settings.head_width, 3)

    def moved(self, frames: Tensor) -> Motion:
        """The points by the formulas above."""
        times = -1.0 + 2.0 * frames.to(self.positions.dtype) / (self.num_frames - 1)
        features = self.planes(self.positions / self.settings.bound, times)
        positions = self.positions.expand(len(frames), -1, -1)
        quats = self.quats.expand(len(frames), -1, -1)
        if self.settings.has_global:
            mean = features.mean(dim=1)
            turn = matrix_of_euler(2 * torch.pi * self.global_turn_head(mean).sigmoid() - torch.pi)
            shift = 2 * self.global_shift_head(mean).sigmoid() - 1
            positions = positions @ turn.mT + shift[:, None]
            quats = multiply_quaternions(quaternion_of_matrix(turn)[:, None], quats)
        log_scales = self.log_scales.expand(len(frames), -1, -1)
        if self.settings.moves_scales:
            log_scales = log_scales + self.scale_head(features)
        return Motion(
            positions=positions + self.shift_head(features),
            quats=functional.normalize(quats + self.turn_head(features), dim=-1),
            log_scales=log_scales,
        )

    def parameter_groups(self) -> list[dict[str, object]]:
        """Planes, heads and global heads, each with its rate."""
        heads = [*self.shift_head.parameters(), *self.turn_head.parameters(), *self.scale_head.parameters()]
        return [
            {"params": list(self.planes.parameters()), "lr": self.settings.grid_rate},
            {"params": heads, "lr": self.settings.head_rate},
            {"params": list(self.global_shift_head.parameters()), "lr": self.settings.global_rate},
            {"params": list(self.global_turn_head.parameters()), "lr": self.settings.global_turn_rate},
        ]

    def penalties(self, frames: Tensor, wanted: Collection[str]) -> dict[str, Tensor]:
        """Those of 4DGaussians, of the planes as a whole: `plane_tv`, `time_smoothness`, `time_l1`."""
        del frames
        if not any(name in wanted for name in PENALTIES):
            return {}
        return {name: value for name, value in self.planes.penalties().items() if name in wanted}
