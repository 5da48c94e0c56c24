"""Features of a point in space and time, from planes: HexPlane (Cao and Johnson 2023, arXiv:2301.09632).

Six planes a scale, one for each pair of the axes x, y, z and t; a point's feature is the product of what it finds in
the six, and the scales' features stand side by side.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

AXES = ((0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3))
"""The planes' order: xy, xz, xt, yz, yt, zt."""
TIME = 3
PENALTIES = ("plane_tv", "time_smoothness", "time_l1")
"""What can be kept small."""


class Hexplane(nn.Module):
    """Multi-scale planes, asked for fixed points at whole frames."""

    def __init__(self, scales: Sequence[tuple[int, int]], num_features: int, generator: torch.Generator) -> None:
        """Planes of space begin between 0.1 and 0.5, planes of time at 1, so that all frames begin alike.

        Args:
            scales: Cells along each axis of space, and along time.
            num_features: Of each plane.
            generator: Draws the first values.
        """
        super().__init__()
        self.planes = nn.ModuleList()
        for space, time in scales:
            sizes = (space, space, space, time)
            planes = []
            for first, second in AXES:
                # (1, features, second axis, first axis): the last axis is grid_sample's x.
                plane = torch.ones(1, num_features, sizes[second], sizes[first])
                if second != TIME:
                    plane.uniform_(0.1, 0.5, generator=generator)
                planes.append(nn.Parameter(plane))
            self.planes.append(nn.ParameterList(planes))

    @property
    def num_features(self) -> int:
        """Numbers a point has."""
        return sum(int(planes[0].shape[1]) for planes in self.scales())

    def scales(self) -> list[nn.ParameterList]:
        """The six planes of each scale."""
        return [planes for planes in self.planes if isinstance(planes, nn.ParameterList)]

    def forward(self, points: Tensor, times: Tensor) -> Tensor:
        """Features of all points at all times. Shape (time, point, feature).

        Time is looked up once for each time and not for each point: what is left then are lines along one axis of
        space. It gives what `sample` gives for each pair, at a fraction of the cost.

        Args:
            points: Shape (point, 3), in -1..1; beyond it the rim counts.
            times: Shape (time,), in -1..1.
        """
        features = []
        for planes in self.scales():
            in_space: list[Tensor] = []
            in_time: list[Tensor] = []
            for (first, second), plane in zip(AXES, planes, strict=True):
                if second == TIME:
                    in_time.append(_along(_at_times(plane, times), points[:, first]))
                else:
                    in_space.append(_bilinear(plane, points[:, [first, second]]))
            features.append(
                math.prod(in_space[1:], start=in_space[0])[:, None] * math.prod(in_time[1:], start=in_time[0])
            )
        return torch.cat(features, dim=-1).transpose(0, 1)

    def sample(self, coordinates: Tensor) -> Tensor:
        """Features of points x, y, z, t, one by one: the plain form of `forward`. Shape (point, feature)."""
        features = []
        for planes in self.scales():
            found = [
                functional.grid_sample(
                    plane, coordinates[None, None, :, list(axes)], align_corners=True, padding_mode="border"
                )[0, :, 0]
                for axes, plane in zip(AXES, planes, strict=True)
            ]
            features.append(math.prod(found[1:], start=found[0]))
        return torch.cat(features, dim=0).mT

    def penalties(self) -> dict[str, Tensor]:
        """How rough the planes are (Wu et al. 2024, arXiv:2310.08528, after K-Planes, arXiv:2301.10241).

        `plane_tv`: squared differences of neighbouring cells in planes of space. `time_smoothness`: squared second
        differences along time. `time_l1`: distance of planes of time from 1, where nothing moves.
        """
        in_space, in_time, from_one = [], [], []
        for planes in self.scales():
            for (_, second), plane in zip(AXES, planes, strict=True):
                if second == TIME:
                    if plane.shape[2] > 2:
                        in_time.append(plane.diff(n=2, dim=2).square().mean())
                    from_one.append((1 - plane).abs().mean())
                else:
                    in_space.append(2 * (plane.diff(dim=2).square().mean() + plane.diff(dim=3).square().mean()))
        zero = self.scales()[0][0].new_zeros(())
        return {
            "plane_tv": sum(in_space, start=zero),
            "time_smoothness": sum(in_time, start=zero),
            "time_l1": sum(from_one, start=zero),
        }


def _cells(at: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """The cell below each place in -1..1 of an axis with so many cells, and how far it is on to the next, 0..1."""
    place = ((at + 1) / 2 * (size - 1)).clamp(0, size - 1)
    below = place.detach().floor().long().clamp(max=max(size - 2, 0))
    return below, place - below


def _at_times(plane: Tensor, times: Tensor) -> Tensor:
    """Shape (width, time, feature): a plane (1, feature, height, width) whose height is time, cut at times in -1..1."""
    rows = plane[0].permute(1, 2, 0)
    below, share = _cells(times, len(rows))
    above = (below + 1).clamp(max=len(rows) - 1)
    return torch.lerp(rows[below], rows[above], share[:, None, None].to(rows.dtype)).transpose(0, 1)


def _along(lines: Tensor, at: Tensor) -> Tensor:
    """Shape (point, time, feature): lines (width, time, feature) at places in -1..1."""
    below, share = _cells(at, len(lines))
    above = (below + 1).clamp(max=len(lines) - 1)
    found = _weighted(lines.flatten(1), torch.stack([below, above], dim=1), torch.stack([1 - share, share], dim=1))
    return found.unflatten(1, lines.shape[1:])


def _bilinear(plane: Tensor, at: Tensor) -> Tensor:
    """Shape (point, feature): a plane (1, feature, height, width) at points (point, 2), x first, in -1..1."""
    height, width = plane.shape[2:]
    (left, x), (top, y) = _cells(at[:, 0], width), _cells(at[:, 1], height)
    right, bottom = (left + 1).clamp(max=width - 1), (top + 1).clamp(max=height - 1)
    corners = torch.stack([top * width + left, top * width + right, bottom * width + left, bottom * width + right], 1)
    shares = torch.stack([(1 - x) * (1 - y), x * (1 - y), (1 - x) * y, x * y], dim=1)
    return _weighted(plane[0].flatten(1).T, corners, shares)


def _weighted(rows: Tensor, indices: Tensor, weights: Tensor) -> Tensor:
    """Sums of some rows, by weights: one pass over memory each way, where gathering along the last axis takes many."""
    return functional.embedding_bag(indices, rows.contiguous(), mode="sum", per_sample_weights=weights.to(rows.dtype))
