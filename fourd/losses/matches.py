"""How far points lie from the pixels that look like them: nearest in place and colour (after Besl and McKay 1992).

Pictures that are compared pixel by pixel pull at a limb only where it overlaps with where it should be. Here each pixel
of the object pulls at the nearest point that looks like it, and each visible point is pulled to the nearest such pixel,
however far.
"""

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from fourd.video import MultiViewVideo

COLOR_WEIGHT = 0.3
"""Shares of the picture's width that full intensity of one colour counts as much as."""
NEAR = 2 / 128
"""Of the picture's width. What is nearer is left to the pictures themselves."""
MOST_POINTS, MOST_PIXELS = 2000, 600
"""Drawn in each picture for a step."""
NUM_CELLS, CELL_DEPTH = 40, 0.06
"""Cells across a picture, and how far behind the foremost of its cell a point counts as visible, world units."""


class Matches:
    """The pixels of a video's object, ready to be searched."""

    def __init__(self, video: MultiViewVideo) -> None:
        self.video = video
        self._trees: dict[tuple[int, int], tuple[np.ndarray, cKDTree]] = {}

    def distance(
        self,
        frames: Tensor,
        positions: Tensor,
        colors: Tensor,
        generator: torch.Generator,
        *,
        hidden: Tensor | None = None,
    ) -> Tensor:
        """Mean squared distance of points and pixels to their matches, in shares of the picture's width, both ways.

        Args:
            frames: Shape (F,).
            positions: Of N points, shape (F, N, 3). The gradient goes to these, with matches held.
            colors: As each view sees them, shape (F, V, N, 3), 0..1.
            generator: Draws points and pixels.
            hidden: Points that a view does not see whatever stands before them, shape (F, V, N).
        """
        views = torch.arange(self.video.num_views)
        w2c, camera = self.video.w2c(frames, views), self.video.camera_matrix(1)
        seen = torch.einsum("fvab,fnb->fvna", w2c[..., :3, :3], positions) + w2c[..., None, :3, 3]
        places = seen[..., :2] / seen[..., 2:].clamp(min=1e-3) * camera.diagonal()[:2] + camera[:2, 2]
        looks = torch.cat([places.detach(), COLOR_WEIGHT * colors.detach().clamp(0, 1)], dim=-1).cpu().numpy()
        depth = seen[..., 2].detach()
        depths = (depth if hidden is None else depth.where(~hidden, torch.inf)).cpu().numpy()
        found = positions.new_zeros(())
        for row, frame in enumerate(frames.tolist()):
            for view in range(self.video.num_views):
                pixels, tree = self._pixels(frame, view)
                visible = _visible(looks[row, view, :, :2], depths[row, view])
                if not len(pixels) or not len(visible):
                    continue
                visible = visible[_some(len(visible), MOST_POINTS, generator)]
                drawn = looks[row, view][visible]
                wanted = pixels[_some(len(pixels), MOST_PIXELS, generator)]
                _, pixel_of_point = tree.query(drawn)
                _, point_of_pixel = cKDTree(drawn).query(wanted)
                at = places[row, view]
                found = found + _squared(at, visible, pixels[pixel_of_point])
                found = found + _squared(at, visible[point_of_pixel], wanted)
        return found / (len(frames) * self.video.num_views)

    def _pixels(self, frame: int, view: int) -> tuple[np.ndarray, cKDTree]:
        """The object's pixels in a picture, shape (Q, 5): where, in shares of the width, and weighted colour."""
        if (frame, view) not in self._trees:
            rgba = self.video.rgba[frame, view].cpu().numpy()
            rows, columns = np.nonzero(rgba[..., 3] > 127)
            places = (np.stack([columns, rows], axis=1) + 0.5) / self.video.size_px[0]
            looks = np.concatenate([places, COLOR_WEIGHT * rgba[rows, columns, :3] / 255], axis=1)
            self._trees[frame, view] = looks, cKDTree(looks)
        return self._trees[frame, view]


def _squared(places: Tensor, points: np.ndarray, wanted: np.ndarray) -> Tensor:
    goal = torch.as_tensor(wanted[:, :2], dtype=places.dtype, device=places.device)
    squared = (places[torch.as_tensor(points, device=places.device)] - goal).square().sum(dim=-1)
    return (squared * (squared.detach() > NEAR**2)).mean()


def _visible(places: np.ndarray, depths: np.ndarray) -> np.ndarray:
    """Indices of points that no other hides, roughly. `places`: shape (N, 2), shares of the width."""
    column, row = np.clip(places * NUM_CELLS, -1, 4 * NUM_CELLS).astype(np.int64).T + 1
    cell = row * (4 * NUM_CELLS + 2) + column
    foremost = np.full((4 * NUM_CELLS + 2) ** 2, np.inf)
    np.minimum.at(foremost, cell, depths)
    return np.flatnonzero(depths < foremost[cell] + CELL_DEPTH)


def _some(count: int, at_most: int, generator: torch.Generator) -> np.ndarray:
    return torch.randperm(count, generator=generator)[:at_most].numpy()
