"""Where an object stands in the clip's space: told by the clip, found from silhouettes, or the unit sphere."""

import itertools
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from fourd.objects.outlines import DEEPEST, Outline, SquareCameras, closer, silhouette
from fourd.video import ClipError, MultiViewVideo
from pipeline.cameras import project
from pipeline.records import Clip

COARSE_PX, COARSE_SHARE, COARSE_STEPS = 32, 6, 3
"""All turns are compared at so many pixels a side, by every n-th point, with so many estimates of size and place."""
FINE_PX, FINE_STEPS = 128, 8
"""The best ones are, and the one as it stands."""
CLEARLY_BETTER = 0.03
"""A turned object is believed only if its silhouettes agree by so much more: most things look alike turned round."""
YAWS_DEG = tuple(range(-45, 46, 15))
ORBIT_VIEWS = 8
"""Of an orbit round frame 0."""
REFINED = 2
"""So many of the best turns are refined, besides the one as it stands."""
REFINE_STEPS, LARGEST_STEP, LEAST_STEP = 20, 0.15, 5e-4
"""Of outlines brought together; no step turns by more, in radians, nor moves or grows by more; less is the end."""


@dataclass(frozen=True, kw_only=True)
class Similarity:
    """b = scale * turn @ a + offset."""

    scale: float = 1.0
    turn: NDArray[np.float64]
    """(3, 3), a rotation."""
    offset: NDArray[np.float64]
    """(3,)."""

    @classmethod
    def identity(cls) -> "Similarity":
        """Nothing moves."""
        return cls(turn=np.eye(3), offset=np.zeros(3))

    @classmethod
    def of_clip(cls, clip: Clip) -> "Similarity | None":
        """From an asset's own space, z up, into its clip's; None if the clip does not know: it was drawn by others."""
        scale, centre = clip.world_scale, np.array(clip.world_centre)
        if not (np.isfinite(scale) and np.isfinite(centre).all() and scale > 0):
            return None
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

    @classmethod
    def of_matrix(cls, matrix: np.ndarray) -> "Similarity":
        """From a matrix of shape (4, 4).

        Raises:
            ValueError: It is none of a turn, one scale and a shift.
        """
        linear = matrix[:3, :3] if matrix.shape == (4, 4) and np.isfinite(matrix).all() else np.zeros((3, 3))
        scale = float(np.cbrt(np.linalg.det(linear)))
        if scale <= 0 or not np.allclose(linear @ linear.T, scale**2 * np.eye(3), atol=1e-6 * scale**2):
            raise ValueError("no matrix of a turn, one scale and a shift")
        return cls(scale=scale, turn=linear / scale, offset=matrix[:3, 3].copy())

    def __call__(self, points: np.ndarray) -> NDArray[np.float64]:
        """The points moved. Shape (n, 3)."""
        moved: NDArray[np.float64] = self.scale * points @ self.turn.T + self.offset
        return moved

    def after(self, first: "Similarity") -> "Similarity":
        """Both in one."""
        return Similarity(
            scale=self.scale * first.scale, turn=self.turn @ first.turn, offset=self(first.offset[None])[0]
        )

    def inverse(self) -> "Similarity":
        """The way back."""
        return Similarity(scale=1 / self.scale, turn=self.turn.T, offset=-self.turn.T @ self.offset / self.scale)

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

    @classmethod
    def of_frame_0(cls, video: MultiViewVideo, static: MultiViewVideo | None = None) -> "Silhouettes":
        """Of a video's views at frame 0 that show anything, and of an orbit round that moment.

        Args:
            video: Its first frame counts.
            static: Of one clip with it; each frame is of that moment.

        Raises:
            ClipError: Nothing is to be seen.
        """
        alpha, c2w = [video.rgba[0, ..., 3]], [video.c2w[0]]
        if static is not None:
            alpha.append(static.rgba[:: max(1, static.num_frames // ORBIT_VIEWS), 0, ..., 3])
            c2w.append(static.c2w[:: max(1, static.num_frames // ORBIT_VIEWS), 0])
        shown = torch.cat(alpha).cpu().numpy().astype(np.float64) / 255
        is_there = shown.max(axis=(1, 2)) > 0.5
        if not is_there.any():
            raise ClipError(video.clip_id, "empty", "nothing is to be seen at frame 0")
        return cls(
            alpha=shown[is_there],
            c2w=torch.cat(c2w).cpu().numpy().astype(np.float64)[is_there],
            intrinsics=video.intrinsics,
        )

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


def agreement(points: np.ndarray, seen: Silhouettes) -> float:
    """How well an object fits silhouettes as it stands: common pixels as a share of all.

    Args:
        points: On its surface, dense. Shape (n, 3).
        seen: What it should look like.
    """
    return _fitted(points, np.eye(3), seen.at_size(FINE_PX), 1).iou


def find_placement(points: np.ndarray, seen: Silhouettes) -> Found:
    """The turn, size and place at which an object fits silhouettes best.

    The 24 turns that take axes to axes are tried, then turns about the vertical by up to 45 degrees; for each, size and
    place are estimated from spreads and centres. As it stands wins unless another turn is clearly better.

    Args:
        points: On its surface, dense, z up, in the unit sphere. Shape (n, 3).
        seen: What it should look like.
    """
    coarse, fine, few = seen.at_size(COARSE_PX), seen.at_size(FINE_PX), points[::COARSE_SHARE]

    def best_of(turns: list[NDArray[np.float64]], num_refined: int) -> Found:
        ranked = sorted((_fitted(few, turn, coarse, COARSE_STEPS) for turn in turns), key=lambda one: -one.iou)
        rough = [_fitted(points, one.seen_from_given.turn, fine, FINE_STEPS) for one in ranked[:num_refined]]
        return max((refined(points, one, fine) for one in rough), key=lambda one: one.iou)

    upright = refined(points, _fitted(points, np.eye(3), fine, FINE_STEPS), fine)
    best = _clearly_better(best_of(axis_turns(), REFINED), upright)
    yawed = [_yaw(angle) @ best.seen_from_given.turn for angle in YAWS_DEG if angle]
    return _clearly_better(best_of(yawed, 1), best)


def refined(points: np.ndarray, found: Found, target: Silhouettes) -> Found:
    """A placement turned, moved and sized until outlines lie on each other; the best of all steps.

    Args:
        points: As in `find_placement`.
        found: Where to begin.
        target: Square pictures.
    """
    wanted = _wanted(target)
    cameras = SquareCameras(c2w=target.c2w, intrinsics=target.intrinsics, size_px=target.alpha.shape[1])
    outlines = [Outline.of_mask(mask) for mask in wanted]
    best, now = found, found.seen_from_given
    for _ in range(REFINE_STEPS):
        step = closer(now(points), now.offset, outlines, cameras)
        if float(np.abs(step).max()) < LEAST_STEP:
            break
        step *= min(1.0, LARGEST_STEP / max(float(np.abs(step).max()), 1e-9))
        turn = np.asarray(cv2.Rodrigues(step[:3])[0]) @ now.turn
        now = Similarity(scale=now.scale * float(np.exp(step[6])), turn=turn, offset=now.offset + step[3:6])
        iou = _overlap(_drawn(now(points), target), wanted)
        if iou > best.iou:
            best = Found(seen_from_given=now, iou=iou)
    return best


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
    wanted = _wanted(target)
    best = Found(seen_from_given=now, iou=0.0)
    for _ in range(num_steps):
        drawn = _drawn(now(points), target)
        iou = _overlap(drawn, wanted)
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


def _drawn(points: np.ndarray, target: Silhouettes) -> NDArray[np.bool_]:
    """Silhouettes of points from the target's cameras. Shape (V, H, W)."""
    size_px = target.alpha.shape[1]
    return np.stack([silhouette(project(points, c2w, target.intrinsics), size_px) for c2w in target.c2w])


def _wanted(target: Silhouettes) -> NDArray[np.bool_]:
    """What is covered. Shape (V, H, W)."""
    # What is thin never fills a coarse pixel.
    covered: NDArray[np.bool_] = target.alpha > 0.25 * target.alpha.max(axis=(1, 2), keepdims=True)
    return covered


def _overlap(drawn: np.ndarray, wanted: np.ndarray) -> float:
    return float((drawn & wanted).sum() / max((drawn | wanted).sum(), 1))
