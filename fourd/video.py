"""A multi-view video to reconstruct from: pictures with alpha, cameras, and the checks that they fit together."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.cameras import check_cameras
from pipeline.media import GREY, decode_strip, strip_name
from pipeline.records import Clip
from pipeline.storage import Store
from pipeline.tables import Tables

Reason = Literal[
    "no_such_clip",
    "no_such_view",
    "no_object",
    "frames_missing",
    "damaged",
    "cameras",
    "no_alpha",
    "empty",
    "too_large",
]

LARGEST_BYTES = 8 << 30
"""Of a video in memory, 8 bits a channel."""


class ClipError(ValueError):
    """A clip that cannot be reconstructed from.

    Args:
        clip_id: Which.
        reason: Countable kind of fault.
        detail: What is wrong, and what to do.
    """

    def __init__(self, clip_id: str, reason: Reason, detail: str) -> None:
        super().__init__(f"clip {clip_id}: {detail} [{reason}]")
        self.clip_id, self.reason = clip_id, reason


@dataclass(frozen=True, kw_only=True)
class MultiViewVideo:
    """T frames of V views."""

    clip_id: str
    views: tuple[int, ...]
    """Their numbers in the clip."""
    rgba: Tensor
    """(T, V, H, W, 4), uint8, sRGB, straight alpha."""
    c2w: Tensor
    """(T, V, 4, 4), float32: OpenCV camera to world (`pipeline.cameras`)."""
    intrinsics: tuple[float, float, float, float]
    """fx, fy, cx, cy in pixels of these pictures."""
    fps: float

    def __post_init__(self) -> None:
        if self.rgba.dim() != 5 or self.rgba.shape[-1] != 4 or self.rgba.dtype != torch.uint8:
            raise ValueError(f"pictures must be (T, V, H, W, 4) uint8, got {tuple(self.rgba.shape)} {self.rgba.dtype}")
        if tuple(self.c2w.shape) != (*self.rgba.shape[:2], 4, 4):
            raise ClipError(
                self.clip_id,
                "cameras",
                f"cameras of shape {tuple(self.c2w.shape)} for {self.num_frames} frames of {self.num_views} views",
            )

    @property
    def num_frames(self) -> int:
        """T."""
        return int(self.rgba.shape[0])

    @property
    def num_views(self) -> int:
        """V."""
        return int(self.rgba.shape[1])

    @property
    def size_px(self) -> tuple[int, int]:
        """Width and height."""
        return int(self.rgba.shape[3]), int(self.rgba.shape[2])

    def colors(self, frames: Tensor, views: Tensor, background: float = GREY) -> tuple[Tensor, Tensor]:
        """Pictures on a grey level, and their alpha, float32 in 0..1.

        Args:
            frames: Shape (F,).
            views: Shape (C,).
            background: 0..1.

        Returns:
            Shapes (F, C, H, W, 3) and (F, C, H, W).
        """
        rgba = self.rgba[frames][:, views].float() / 255
        alpha = rgba[..., 3]
        return rgba[..., :3] * alpha[..., None] + background * (1 - alpha[..., None]), alpha

    def w2c(self, frames: Tensor, views: Tensor) -> Tensor:
        """World to camera, shape (F, C, 4, 4)."""
        c2w = self.c2w[frames][:, views]
        rotation = c2w[..., :3, :3].mT
        found = torch.zeros_like(c2w)
        found[..., :3, :3] = rotation
        found[..., :3, 3:] = -rotation @ c2w[..., :3, 3:]
        found[..., 3, 3] = 1.0
        return found

    def camera_matrix(self, width: int) -> Tensor:
        """Intrinsics as (3, 3) for pictures of another width."""
        fx, fy, cx, cy = (value * width / self.size_px[0] for value in self.intrinsics)
        return torch.tensor([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], dtype=torch.float32, device=self.c2w.device)

    def to(self, device: torch.device | str) -> "MultiViewVideo":
        """The same on a device."""
        return MultiViewVideo(
            clip_id=self.clip_id, views=self.views, rgba=self.rgba.to(device), c2w=self.c2w.to(device),
            intrinsics=self.intrinsics, fps=self.fps,
        )  # fmt: skip


def find_clip(store: Store, clip_id: str) -> Clip:
    """A clip of a data root by its id, or by how the id begins.

    Raises:
        ClipError: There is none, or more than one begins so.
    """
    found = Tables(store).rows(Clip, "starts_with(clip_id, ?)", [clip_id])
    exact = [clip for clip in found if clip.clip_id == clip_id] or found
    if not clip_id or not exact:
        raise ClipError(clip_id, "no_such_clip", f"not in {store.root}; `mv4d stats --sql 'FROM clips'` lists them")
    if len(exact) > 1:
        raise ClipError(clip_id, "no_such_clip", f"{len(exact)} clips of {store.root} begin so; give more of the id")
    return exact[0]


def input_views(clip: Clip, count: int = 4) -> tuple[int, ...]:
    """Evenly spaced views of a ring; all where the clip has no so many, and of an orbit the moving camera."""
    if clip.num_camera_frames > 1:
        return (0,)
    if clip.num_views % count:
        return tuple(range(clip.num_views))
    return tuple(range(0, clip.num_views, clip.num_views // count))


def read_video(store: Store, clip: Clip, views: Sequence[int], *, size_px: int = 0) -> MultiViewVideo:
    """Views of a clip.

    Args:
        store: The data root.
        clip: Of its table.
        views: Which, at least one.
        size_px: Width wanted; 0 is as it was drawn.

    Raises:
        ClipError: Views or frames are missing or damaged, or cameras do not fit.
    """
    if not views or min(views) < 0 or max(views) >= clip.num_views or len(set(views)) < len(views):
        known = f"it has views 0 to {clip.num_views - 1}"
        raise ClipError(clip.clip_id, "no_such_view", f"asked for views {list(views)}, and {known}, each once")
    c2w = camera_poses(clip)[:, list(views)]
    if clip.backdrop:
        raise ClipError(
            clip.clip_id,
            "no_alpha",
            f"its pictures have no alpha but a backdrop {clip.backdrop}; cut the object out first",
        )
    width = size_px or clip.width
    if 4 * width * width * clip.num_frames * len(views) > LARGEST_BYTES:
        raise ClipError(
            clip.clip_id,
            "too_large",
            f"over {LARGEST_BYTES >> 30} GiB of pictures; give a smaller --size_px or fewer --views",
        )
    pictures = [_read_strip(store, clip, view, width) for view in views]
    rgba = torch.from_numpy(np.stack(pictures, axis=1))
    if not bool((rgba[..., 3] > 127).any()):
        raise ClipError(clip.clip_id, "empty", "nothing is to be seen in its pictures")
    scale = width / clip.width
    fx, fy, cx, cy = (value * scale for value in clip.intrinsics)
    return MultiViewVideo(
        clip_id=clip.clip_id,
        views=tuple(views),
        rgba=rgba,
        c2w=torch.from_numpy(c2w.astype(np.float32)),
        intrinsics=(fx, fy, cx, cy),
        fps=clip.fps,
    )


def camera_poses(clip: Clip) -> NDArray[np.float64]:
    """Cameras of all frames and views, shape (T, V, 4, 4).

    Raises:
        ClipError: They are not as many as views, or no cameras.
    """
    wanted = (clip.num_views, clip.num_camera_frames, 4, 4)
    given = np.asarray(clip.c2w, dtype=np.float64)
    if given.size != np.prod(wanted) or clip.num_camera_frames not in (1, clip.num_frames):
        raise ClipError(
            clip.clip_id,
            "cameras",
            f"{given.size // 16} cameras do not match {clip.num_views} views of {clip.num_frames} frames; draw it anew",
        )
    poses = np.broadcast_to(given.reshape(wanted), (clip.num_views, clip.num_frames, 4, 4)).transpose(1, 0, 2, 3)
    try:
        check_cameras(poses, clip.intrinsics)
    except ValueError as error:
        raise ClipError(clip.clip_id, "cameras", f"{error}; render it anew") from error
    return poses


def _read_strip(store: Store, clip: Clip, view: int, width: int) -> NDArray[np.uint8]:
    name = f"{clip.folder}/{strip_name(view)}"
    try:
        frames = decode_strip(store.read_bytes(name), clip.num_frames)
    except FileNotFoundError as error:
        raise ClipError(clip.clip_id, "frames_missing", f"{name} is not in {store.root}; render it anew") from error
    except ValueError as error:
        raise ClipError(clip.clip_id, "damaged", f"{name}: {error}; render it anew") from error
    if frames.shape[1:3] != (clip.height, clip.width):
        raise ClipError(
            clip.clip_id,
            "frames_missing",
            f"{name} has frames of {frames.shape[2]}x{frames.shape[1]} pixels where {clip.width}x{clip.height} are "
            f"told: some of its {clip.num_frames} frames are missing; render it anew",
        )
    return resized(frames, width)


def resized(rgba: NDArray[np.uint8], width: int) -> NDArray[np.uint8]:
    """Pictures at another width, of the same form; colours count by their alpha. Shape (frame, height, width, 4)."""
    if rgba.shape[2] == width:
        return rgba
    height = max(1, round(rgba.shape[1] * width / rgba.shape[2]))
    shrinks = width < rgba.shape[2]
    found = []
    for frame in rgba.astype(np.float32):
        covered = np.concatenate([frame[..., :3] * (frame[..., 3:] / 255), frame[..., 3:]], axis=-1)
        small = cv2.resize(covered, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
        small[..., :3] /= np.maximum(small[..., 3:] / 255, 1e-4)
        found.append(np.clip(np.rint(small), 0, 255).astype(np.uint8))
    return np.stack(found)
