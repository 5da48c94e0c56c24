"""A field of nodes that turn and shift, with points that follow them: embedded deformation (Sumner et al. 2007).

Beside the planes it has few numbers, each with a place and a frame, so that a fit can go from frame to frame.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from fourd.losses.arap import Neighbours, arap_energy
from fourd.motion.field import Motion, MotionField, Points, set_values
from fourd.motion.graph import Nodes, bridged, edges_of, nearest_edges, spread_nodes, weld
from fourd.motion.rotations import matrix_of_quaternion, multiply_quaternions


@dataclass(frozen=True, kw_only=True)
class NodeSettings:
    """Number and rates of nodes."""

    levels: tuple[int, ...] = (1, 10, 50, 200)
    """Nodes of each level: those of a level move with the level before, and on their own beside. A stiff object then
    needs no step for each node on the way of a motion: one node of a coarse level brings all of a leg along."""
    num_followed: int = 4
    """Nodes that a point, or a node of the next level, follows."""
    shift_rate: float = 0.004
    turn_rate: float = 0.02
    """Radians."""
    momentum: float = 0.8
    """Share of the last frame's way that a new frame begins with."""

    def __post_init__(self) -> None:
        if not self.levels or min(self.levels) < 1 or self.num_followed < 1:
            raise ValueError(f"need at least one node, and one to follow, got {self}")
        if min(self.shift_rate, self.turn_rate, self.momentum) < 0:
            raise ValueError(f"rates and momentum must not be below 0, got {self}")


class NodeMotion(MotionField):
    """position' = Σ weight (R (position - node) + node'); the points' turns are the weighted mean of the nodes'."""

    def __init__(self, points: Points, num_frames: int, settings: NodeSettings, faces: np.ndarray | None) -> None:
        """Nodes are spread over the surface, or over the points where there is none.

        Args:
            points: What to move.
            num_frames: Of the clip.
            settings: Number and rates.
            faces: Shape (F, 3), indices of points; None where there are points only.
        """
        super().__init__(points, num_frames)
        self.settings = settings
        welded = weld(points.positions.detach().cpu().numpy())
        edges = nearest_edges(welded.positions, 6) if faces is None else edges_of(welded.of_vertex[faces])
        edges = bridged(welded.positions, edges)
        spread = [
            spread_nodes(welded.positions, edges, count, settings.num_followed)
            for count in sorted({min(count, len(welded.positions)) for count in settings.levels})
        ]
        followers = [nodes.indices for nodes in spread[1:]] + [welded.of_vertex]
        self.levels = nn.ModuleList(
            [
                _Level(welded.positions[nodes.indices], nodes, follower, points.positions, num_frames)
                for nodes, follower in zip(spread, followers, strict=True)
            ]
        )

    def begin_frame(self, frame: int, judge: Callable[[], float]) -> None:
        """Start a frame where the one before is and some way on, or as any earlier frame, whichever fits best.

        Many motions come back to where they were. The way on is tried with the settings' momentum, none and all of it.
        """
        own = self.frame_parameters(frame)
        earlier = [self.frame_parameters(number) for number in range(frame)]
        last, before = earlier[-1], earlier[max(0, frame - 2)]
        with torch.no_grad():
            starts: list[Sequence[Tensor]] = [
                [a + share * (a - b) for a, b in zip(last, before, strict=True)]
                for share in (self.settings.momentum, 0.0, 1.0)
            ]
            starts += earlier[:-1]
            found = []
            for start in starts:
                set_values(own, start)
                found.append(judge())
            set_values(own, starts[found.index(min(found))])

    def frame_parameters(self, frame: int) -> list[nn.Parameter]:
        """The frame's turns and shifts."""
        return [values[frame] for level in self._levels() for values in (level.turns, level.shifts)]

    def nodes_at(self, frames: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Where the nodes of each level are and how they are turned. Shapes (F, M, 3) and (F, M, 4)."""
        found: list[tuple[Tensor, Tensor]] = []
        for number, level in enumerate(self._levels()):
            turns, shifts = level.at(frames)
            if number == 0:
                places, quats = level.positions + shifts, turns
            else:
                carried, carried_quats = self._levels()[number - 1].carry(*found[-1], level.positions)
                places, quats = carried + shifts, multiply_quaternions(turns, carried_quats)
            found.append((places, quats))
        return found

    def moved(self, frames: Tensor) -> Motion:
        """The points by the formula above."""
        positions, quats = self._levels()[-1].carry(*self.nodes_at(frames)[-1], self.positions)
        return Motion(
            positions=positions,
            quats=multiply_quaternions(quats, self.quats.expand(len(frames), -1, -1)),
            log_scales=self.log_scales.expand(len(frames), -1, -1),
        )

    def parameter_groups(self) -> list[dict[str, object]]:
        """Turns and shifts with their rates."""
        levels = self._levels()
        return [
            {"params": [turn for level in levels for turn in level.turns], "lr": self.settings.turn_rate},
            {"params": [shift for level in levels for shift in level.shifts], "lr": self.settings.shift_rate},
        ]

    def penalties(self, frames: Tensor, wanted: Collection[str]) -> dict[str, Tensor]:
        """`node_arap`: what nodes do otherwise than their neighbours' turns say. `acceleration`: change of speed."""
        finest = self._levels()[-1]
        found = {}
        if "node_arap" in wanted:
            places, quats = self.nodes_at(frames)[-1]
            energy = arap_energy(finest.positions, places, finest.neighbours, rotations=matrix_of_quaternion(quats))
            found["node_arap"] = energy.mean(dim=1).sum()
        inner = frames[(frames > 0) & (frames < self.num_frames - 1)]
        if "acceleration" in wanted and len(inner):
            before, here, after = (self.nodes_at(inner + step)[-1][0] for step in (-1, 0, 1))
            found["acceleration"] = (before - 2 * here + after).square().sum(dim=-1).mean()
        return found

    def _levels(self) -> list["_Level"]:
        return [level for level in self.levels if isinstance(level, _Level)]


class _Level(nn.Module):
    """M nodes with turns and shifts of their own for each frame, and what follows them."""

    positions: Tensor
    of_follower: Tensor
    weights: Tensor

    def __init__(self, places: np.ndarray, nodes: Nodes, followers: np.ndarray, like: Tensor, num_frames: int) -> None:
        super().__init__()
        positions = torch.as_tensor(places, dtype=like.dtype, device=like.device)
        self.register_buffer("positions", positions, persistent=False)
        of_follower = torch.as_tensor(nodes.of_point[followers], device=like.device)
        self.register_buffer("of_follower", of_follower, persistent=False)
        weights = torch.as_tensor(nodes.weights[followers], dtype=like.dtype, device=like.device)
        self.register_buffer("weights", weights, persistent=False)
        self.neighbours = Neighbours.of_edges(nodes.edges, len(positions), device=like.device)
        # A parameter for each frame: Adam moves whatever it has moved before, and leaves alone what has no gradient.
        self.turns = nn.ParameterList([nn.Parameter(torch.zeros_like(positions)) for _ in range(num_frames)])
        self.shifts = nn.ParameterList([nn.Parameter(torch.zeros_like(positions)) for _ in range(num_frames)])

    def at(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """The nodes' own turns as quaternions, shape (F, M, 4), and shifts, shape (F, M, 3)."""
        turns = torch.stack([self.turns[int(frame)] for frame in frames])
        return quaternion_of_vector(turns), torch.stack([self.shifts[int(frame)] for frame in frames])

    def carry(self, places: Tensor, quats: Tensor, followers: Tensor) -> tuple[Tensor, Tensor]:
        """Followers, at rest (P, 3), with the nodes: positions (F, P, 3) and unit quaternions (F, P, 4)."""
        rotations = matrix_of_quaternion(quats)
        # Σ w (R p + (node' - R node)): a matrix and a vector a point, blended by weights.
        offsets = places - (rotations @ self.positions[:, :, None]).squeeze(-1)
        # Opposite quaternions are the same turn: all are taken from the side of the first.
        quats = quats * torch.where((quats * quats[:, :1]).sum(dim=-1, keepdim=True) < 0, -1.0, 1.0)
        table = torch.cat([rotations.flatten(-2), offsets, quats], dim=-1).transpose(0, 1)
        blended = functional.embedding_bag(
            self.of_follower, table.flatten(1), mode="sum", per_sample_weights=self.weights
        )
        matrix, offset, turn = blended.unflatten(1, table.shape[1:]).transpose(0, 1).split([9, 3, 4], dim=-1)
        positions = (matrix.unflatten(-1, (3, 3)) @ followers[:, :, None]).squeeze(-1) + offset
        return positions, functional.normalize(turn, dim=-1)


def quaternion_of_vector(vectors: Tensor) -> Tensor:
    """Unit quaternions, shape (..., 4), of turns about a vector by its length in radians, shape (..., 3)."""
    angle = (vectors.square().sum(dim=-1, keepdim=True) + 1e-24).sqrt()
    return torch.cat([(angle / 2).cos(), vectors / angle * (angle / 2).sin()], dim=-1)
