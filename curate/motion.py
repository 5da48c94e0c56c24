"""How much the pictures of a clip move: Diffusion4D's motion magnitude and SSIM rule, and optical flow.

Everything compares the moving object with the object frozen at the first frame, seen from the same camera. A camera
that stands still has shown that picture already: it is frame 0 of the view. A moving camera has not, so an orbit
carries a second view, `static`, of the frozen object. Pictures are composed on a named background, because the
background decides the size of the differences and even which of two assets moves more.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from skimage.metrics import structural_similarity

from pipeline.media import compose
from pipeline.records import Clip, ImageMotion

NATIVE_PX = 256
"""SSIM and flow are measured on pictures of at most this size, the papers' own: both depend on the resolution."""
SSIM_WINDOW_PX = 7

# DIS flow cuts a picture into stripes, one a thread, and its result depends on them. One thread makes the score the
# same on every machine; clips, not pictures, are what runs in parallel here.
cv2.setNumThreads(1)


@dataclass(frozen=True, kw_only=True)
class ViewMotion:
    """Differences between a view's moving and frozen object, each a mean over all pixels of a picture and all
    frames."""

    m: float
    m_floor: float
    """Of the first frame alone, which shows the frozen object."""
    area: float
    """Share of the picture that the moving or the frozen object covers."""


def frozen_views(clip: Clip) -> dict[int, int | None]:
    """For each view with motion in it, the view that shows the object frozen; None where its own frame 0 does.

    The twin is the view `static`, for those with its cameras. A view whose camera moves otherwise is left out: nothing
    tells its motion from the camera's.
    """
    c2w = _c2w(clip)
    static = clip.view_names.index("static") if "static" in clip.view_names else None
    twins: dict[int, int | None] = {}
    for view in range(clip.num_views):
        if view == static:
            continue
        if static is not None and np.array_equal(c2w[view], c2w[static]):
            twins[view] = static
        elif (c2w[view] == c2w[view, 0]).all():
            twins[view] = None
    return twins


def front_view(clip: Clip, views: Sequence[int]) -> int:
    """The view nearest the object's front, which looks to Blender's -y; of equals one that stands still, or the first.

    Args:
        clip: Its cameras are read.
        views: Those to choose from.
    """
    c2w = _c2w(clip)
    position = c2w[:, 0, :3, 3]
    towards_front = -position[:, 1] / np.linalg.norm(position, axis=1)
    still = (c2w == c2w[:, :1]).all(axis=(1, 2, 3))
    return max(views, key=lambda view: (round(float(towards_front[view]), 9), bool(still[view]), -view))


def _c2w(clip: Clip) -> np.ndarray:
    """Shape (view, camera frame, 4, 4)."""
    return np.asarray(clip.c2w).reshape(clip.num_views, clip.num_camera_frames, 4, 4)


def view_motion(moving: np.ndarray, frozen: np.ndarray, background: float) -> ViewMotion:
    """Mean square difference to the frozen object (Diffusion4D, arXiv:2405.16645, eq. 1), in pixel values 0..1.

    Args:
        moving: Shape (frame, height, width, 4), uint8, straight alpha.
        frozen: The same, or one frame for all.
        background: Grey level that both are composed on.
    """
    num_pixels = moving.shape[1] * moving.shape[2]
    # Outside the object both pictures show the background: nothing differs there.
    rows, columns = _object_box(moving, frozen)
    moving, frozen = moving[:, rows, columns], frozen[:, rows, columns]
    change = compose(moving, background)
    change -= compose(frozen, background)
    per_frame = np.square(change, out=change).sum(axis=(1, 2, 3), dtype=np.float64) / (3 * num_pixels)
    covered = np.maximum(moving[..., 3], frozen[..., 3])
    return ViewMotion(
        m=float(per_frame.mean()),
        m_floor=float(per_frame[0]),
        area=float(covered.sum(dtype=np.int64)) / (255 * num_pixels * len(moving)),
    )


def ssim_still(moving: np.ndarray, frozen: np.ndarray, background: float) -> float:
    """The smaller of two SSIMs to the frozen object, at T/4 and at T/2 (the same paper, section 3.1).

    One number serves both rules: above 0.95 both are, and the clip is still; below 0.4 one is, and it changes
    drastically. The paper leaves open which pairs, colours and window are meant. Here: frame 0 against T/4 and T/2,
    RGB on `background`, values 0..1, a uniform window of 7 pixels, pictures of at most 256 pixels.

    Args:
        moving: Shape (frame, height, width, 4), uint8, straight alpha.
        frozen: The same, or one frame for all.
        background: Grey level that both are composed on.
    """
    similar = []
    for frame in (len(moving) // 4, len(moving) // 2):
        pair = [_picture(moving[frame], background), _picture(frozen[min(frame, len(frozen) - 1)], background)]
        similar.append(float(_ssim(*pair)))
    return min(similar)


def flow_px(frames: np.ndarray, frozen: np.ndarray | None, background: float) -> float:
    """Mean length of the optical flow over the object, in pixels of a picture 256 pixels wide.

    OpenCV's dense inverse search, fast preset. From each frame to the next where the camera stands still. Where it
    moves, from each frozen picture to the moving one: a distance from the first pose then, not a speed.

    Args:
        frames: Shape (frame, height, width, 4), uint8, straight alpha.
        frozen: The same with the object frozen, or None if the camera stands still.
        background: Grey level that the pictures are composed on.

    Returns:
        NaN if there is no pair of frames, or no object in any of them.
    """
    estimator = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    after = [_grey(frame, background) for frame in frames]
    sources = frames[:-1] if frozen is None else frozen[1:]
    before = after[:-1] if frozen is None else [_grey(frame, background) for frame in sources]
    length, area = 0.0, 0.0
    for source, first, second in zip(sources, before, after[1:], strict=True):
        flow = estimator.calc(first, second, np.zeros((*first.shape, 2), np.float32))
        weight = _shrink(np.ascontiguousarray(source[..., 3])).astype(np.float32)
        length += float((cv2.magnitude(flow[..., 0], flow[..., 1]) * weight).sum())
        area += float(weight.sum())
    return length / area * NATIVE_PX / min(frames.shape[2], NATIVE_PX) if area else float("nan")


def image_motion(
    clip_id: str, background: float, views: Sequence[ViewMotion], *, ssim: float, flows_px: Sequence[float]
) -> ImageMotion:
    """A clip's row from its views; NaN stands for what cannot be measured."""
    m = _mean([view.m for view in views])
    area = _mean([view.area for view in views])
    return ImageMotion(
        clip_id=clip_id,
        background=f"grey {background:g}",
        m=m,
        m_floor=_mean([view.m_floor for view in views]),
        # All of the difference lies on the object, so its mean there is the mean over the picture by the object's
        # share.
        m_object=m / area if area > 0.0 else m,
        ssim_still=ssim,
        flow_px=_mean([flow for flow in flows_px if not np.isnan(flow)]),
    )


def _ssim(first: np.ndarray, second: np.ndarray) -> Any:
    return structural_similarity(first, second, win_size=SSIM_WINDOW_PX, data_range=1.0, channel_axis=2)  # type: ignore[no-untyped-call]


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else float("nan")


def _object_box(*stacks: np.ndarray) -> tuple[slice, slice]:
    """Rows and columns outside of which no frame of any stack shows the object."""
    seen = np.logical_or.reduce([(stack[..., 3] > 0).any(axis=0) for stack in stacks])
    rows, columns = np.flatnonzero(seen.any(axis=1)), np.flatnonzero(seen.any(axis=0))
    if not rows.size:
        return slice(0, 0), slice(0, 0)
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def _picture(frame: np.ndarray, background: float) -> np.ndarray:
    return _shrink(compose(frame, background))


def _grey(frame: np.ndarray, background: float) -> np.ndarray:
    """Luma over the background, uint8: what optical flow wants, at a tenth of the cost of composing three colours."""
    luma = cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGBA2GRAY).astype(np.float32)
    behind = 255.0 * background
    luma = behind + (luma - behind) * (frame[..., 3].astype(np.float32) / 255.0)
    return np.rint(_shrink(luma)).astype(np.uint8)


def _shrink(picture: np.ndarray) -> np.ndarray:
    height, width = picture.shape[:2]
    if width <= NATIVE_PX:
        return picture
    size = (NATIVE_PX, max(1, round(height * NATIVE_PX / width)))
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
