"""Where an object stands in the clip's space: told by the clip, found from silhouettes, or the unit sphere."""

import itertools
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.cameras import project
from pipeline.records import Clip

COARSE_PX, COARSE_SHARE, COARSE_STEPS = 32, 12, 3
"""All turns are compared at so many pixels a side, by every n-th point, with so many estimates of size and place."""
FINE_PX, FINE_STEPS = 192, 10
"""The best one is, and the one as it stands."""
NUM_POINTS = 40_000
"""On the surface: at `FINE_PX`, several a pixel."""
CLEARLY_BETTER = 0.03
"""A turned object is believed only if its silhouettes agree by so much more: most things look alike turned round."""
YAWS_DEG = tuple(range(-45, 46, 15))
DEEPEST = 1e-3
"""Nearest to a camera that a point is drawn, along its axis."""


@dataclass(frozen=True, kw_only=True)
class Similarity:
    """b = scale * turn @ a + offset."""

    scale: float = 1.0
    turn: NDArray[np.float64]
    """(3, 3), a rotation."""
    offset: NDArray[np.float64]
    """(3,)."""

    @classmethod
    def of_clip(cls, clip: Clip) -> "Similarity":
        """From an asset's own space, z up, into its clip's.

        Raises:
            ValueError: The clip does not know; it was drawn by others.
        """
        scale, centre = clip.world_scale, np.array(clip.world_centre)
        if not (np.isfinite(scale) and np.isfinite(centre).all() and scale > 0):
            raise ValueError(f"clip {clip.clip_id} does not say where its asset stands; compare silhouettes instead")
        return cls(scale=scale, turn=np.eye(3), offset=-scale * centre)

    @classmethod
    def into_unit_sphere(cls, points: np.ndarray) -> "Similarity":
        """The middle of the box to the origin, the farthest point to distance 1, as our renders do.

        Args:
            points: Shape (n, 3), not all at one place.
        """
        centre = (points.min(axis=0) + points.max(axis=0)) / 2
        scale = 1.0 / float(np.linalg.norm(points - centre, axis=1).max())
        return cls(scale=scale, turn=np.eye(3), offset=-scale * centre)

    def __call__(self, points: np.ndarray) -> NDArray[np.float64]:
        """The points moved. Shape (n, 3)."""
        moved: NDArray[np.float64] = self.scale * points @ self.turn.T + self.offset
        return moved

    def after(self, first: "Similarity") -> "Similarity":
        """Both in one."""
        return Similarity(
            scale=self.scale * first.scale, turn=self.turn @ first.turn, offset=self(first.offset[None])[0]
        )

    @property
    def matrix(self) -> NDArray[np.float64]:
        """(4, 4)."""
        found = np.eye(4)
        found[:3, :3], found[:3, 3] = self.scale * self.turn, self.offset
        return found


@dataclass(frozen=True, kw_only=True)
class Silhouettes:
    """What cameras see of an object at one moment."""

    alpha: NDArray[np.float64]
    """(V, H, W), in 0..1."""
    c2w: NDArray[np.float64]
    """(V, 4, 4)."""
    intrinsics: tuple[float, float, float, float]

    def __post_init__(self) -> None:
        if self.alpha.ndim != 3 or self.c2w.shape != (len(self.alpha), 4, 4):
            raise ValueError(f"{self.alpha.shape} pictures do not fit cameras of shape {self.c2w.shape}")
        if not len(self.alpha) or not (self.alpha.reshape(len(self.alpha), -1).max(axis=1) > 0).all():
            raise ValueError("a view shows nothing of the object")

    def at_size(self, size_px: int) -> "Silhouettes":
        """At so many pixels a side, whatever the shape was."""
        height, width = self.alpha.shape[1:]
        fx, fy, cx, cy = self.intrinsics
        x, y = size_px / width, size_px / height
        shrunk = [
            cv2.resize(picture.astype(np.float32), (size_px, size_px), interpolation=cv2.INTER_AREA)
            for picture in self.alpha
        ]
        return Silhouettes(alpha=np.stack(shrunk), c2w=self.c2w, intrinsics=(fx * x, fy * y, cx * x, cy * y))


@dataclass(frozen=True, kw_only=True)
class Found:
    """How an object has to be moved to look as it is seen."""

    seen_from_given: Similarity
    iou: float
    """Of silhouettes, over all views: common pixels as a share of all."""


def find_placement(points: np.ndarray, seen: Silhouettes) -> Found:
    """The turn, size and place at which an object fits silhouettes best.

    The 24 turns that take axes to axes are tried, then turns about the vertical by up to 45 degrees; for each, size and
    place are estimated from spreads and centres. As it stands wins unless another turn is clearly better.

    Args:
        points: On its surface, dense, z up, in the unit sphere. Shape (n, 3).
        seen: What it should look like.
    """
    coarse, fine, few = seen.at_size(COARSE_PX), seen.at_size(FINE_PX), points[::COARSE_SHARE]

    def best_of(turns: list[NDArray[np.float64]]) -> Found:
        found = [_fitted(few, turn, coarse, COARSE_STEPS) for turn in turns]
        turn = max(found, key=lambda one: one.iou).seen_from_given.turn
        return _fitted(points, turn, fine, FINE_STEPS)

    upright = _fitted(points, np.eye(3), fine, FINE_STEPS)
    best = _clearly_better(best_of(axis_turns()), upright)
    yawed = [_yaw(angle) @ best.seen_from_given.turn for angle in YAWS_DEG if angle]
    return _clearly_better(best_of(yawed), best)


def _clearly_better(new: Found, old: Found) -> Found:
    return new if new.iou > old.iou + CLEARLY_BETTER else old


def axis_turns() -> list[NDArray[np.float64]]:
    """The 24 rotations that take axes to axes; none comes first."""
    turns = []
    for order in itertools.permutations(range(3)):
        for signs in itertools.product((1.0, -1.0), repeat=3):
            turn = np.zeros((3, 3))
            turn[range(3), order] = signs
            if np.linalg.det(turn) > 0:
                turns.append(turn)
    return turns


def _yaw(angle_deg: float) -> NDArray[np.float64]:
    cosine, sine = np.cos(np.radians(angle_deg)), np.sin(np.radians(angle_deg))
    return np.array([[cosine, -sine, 0.0], [sine, cosine, 0.0], [0.0, 0.0, 1.0]])


def _fitted(points: np.ndarray, turn: np.ndarray, target: Silhouettes, num_steps: int) -> Found:
    """Size and place for a turn, from the silhouettes' spread and centres; the best of all steps."""
    now = Similarity(turn=turn, offset=np.zeros(3))
    # What is thin never fills a coarse pixel.
    wanted = target.alpha > 0.5 * target.alpha.max(axis=(1, 2), keepdims=True)
    best = Found(seen_from_given=now, iou=0.0)
    for _ in range(num_steps):
        drawn = np.stack([_silhouette(now(points), c2w, target) for c2w in target.c2w])
        iou = float((drawn & wanted).sum() / max((drawn | wanted).sum(), 1))
        if iou > best.iou:
            best = Found(seen_from_given=now, iou=iou)
        if not drawn.any(axis=(1, 2)).all():
            break
        grow = float(np.clip(_spread(wanted) / max(_spread(drawn), 1e-3), 0.5, 2.0))
        shift = _shift(drawn, wanted, now, target)
        now = Similarity(scale=now.scale * grow, turn=turn, offset=now.offset + shift)
    return best


def _shift(drawn: np.ndarray, wanted: np.ndarray, now: Similarity, target: Silhouettes) -> NDArray[np.float64]:
    """The move that brings the centres of silhouettes together, to first order, least squares over views."""
    fx, fy = target.intrinsics[:2]
    rows, right = [], []
    for have, want, c2w in zip(drawn, wanted, target.c2w, strict=True):
        depth = max(float(c2w[:3, 2] @ (now.offset - c2w[:3, 3])), DEEPEST)
        rows += [fx / depth * c2w[:3, 0], fy / depth * c2w[:3, 1]]
        right += list(_centre(want) - _centre(have))
    found: NDArray[np.float64] = np.linalg.lstsq(np.array(rows), np.array(right), rcond=1e-3)[0]
    return found


def _spread(masks: np.ndarray) -> float:
    """Root mean square distance of silhouettes' pixels from their centres, hardly changed by legs drawn too wide.

    Args:
        masks: Shape (V, H, W).
    """
    apart = [np.argwhere(mask)[:, ::-1] - _centre(mask) for mask in masks]
    return float(np.sqrt(np.mean([(distance**2).sum(axis=1).mean() for distance in apart])))


def _centre(mask: np.ndarray) -> NDArray[np.float64]:
    """Pixel x and y of a silhouette's centre."""
    y, x = np.nonzero(mask)
    return np.array([x.mean(), y.mean()])


def _silhouette(points: np.ndarray, c2w: np.ndarray, target: Silhouettes) -> NDArray[np.bool_]:
    size_px = target.alpha.shape[1]
    x, y, depth = project(points, c2w, target.intrinsics).T
    inside = (depth > DEEPEST) & (x >= 0) & (x < size_px) & (y >= 0) & (y < size_px)
    drawn = np.zeros((size_px, size_px), dtype=np.uint8)
    drawn[y[inside].astype(np.int64), x[inside].astype(np.int64)] = 1
    closed = cv2.morphologyEx(drawn, cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8))
    return np.asarray(closed, dtype=bool)
