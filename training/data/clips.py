"""Clips as training examples: views and frames chosen, composed on a background, with MVDream's camera vectors."""

import json
import logging
import re
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from pipeline.media import GREY, compose, decode_strip
from training.cameras import camera_vectors
from training.data.index import BrokenSample, Row, SampleIndex, ShardReader
from training.data.order import Draw

logger = logging.getLogger("mv4d.training")

Background = Literal["grey", "white", "black", "random"]
MAX_SUBSTITUTIONS = 100
"""Broken samples in a row after which it is the data set that is broken, not a sample."""


class Example(TypedDict):
    """One training example; a batch has one more axis in front."""

    video: Tensor
    """Shape (view, frame, 3, height, width), float32 in -1..1."""
    cameras: Tensor
    """Shape (view, 16), float32: `training.cameras.camera_vectors`."""
    caption: str
    key: str
    num_broken: int
    """Samples that could not be read and were passed over before this one was."""


@dataclass(frozen=True, kw_only=True)
class ClipSettings:
    """What of a clip becomes an example."""

    num_views: int = 4
    num_frames: int = 16
    size_px: int = 256
    fps: float = 8.0
    """Frames a second of the example: every third frame of a clip with 24. Of a clip that is too short for that, frames
    are taken more densely."""
    stride_jitter: int = 0
    """The step between frames is drawn from so many frames below to so many above."""
    background: Background = "grey"
    """What the object is composed on; `random` draws one grey level for each example."""
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.num_views, self.num_frames, self.size_px) < 1 or self.fps <= 0 or self.stride_jitter < 0:
            raise ValueError(f"need at least one view, frame and pixel, fps > 0 and stride_jitter >= 0, got {self}")


class ClipDataset(Dataset[Example]):
    """Examples by their place in the stream (`training.data.order`).

    A sample whose bytes are broken is logged and the next one of the index stands in for it, unless `strict`.
    """

    def __init__(self, index: SampleIndex, settings: ClipSettings, *, strict: bool = False) -> None:
        """Nothing is read yet.

        Args:
            index: The samples.
            settings: What of them becomes an example.
            strict: Raise `BrokenSample` instead of taking another sample: for evaluation.
        """
        self.index, self.settings, self.strict = index, settings, strict
        self._reader = ShardReader(index.root)

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, draw: Draw) -> Example:
        for num_broken in range(MAX_SUBSTITUTIONS):
            row = self.index[(draw.index + num_broken) % len(self.index)]
            try:
                return self._example(row, draw.place, num_broken)
            except BrokenSample as error:
                if self.strict:
                    raise
                logger.warning("passed over the broken sample %s: %s", row.key, error)
        raise BrokenSample(f"{MAX_SUBSTITUTIONS} broken samples in a row from {row.key} on: run `mv4d lint`")

    def _example(self, row: Row, place: int, num_broken: int) -> Example:
        rng = np.random.default_rng([self.settings.seed, place])
        record = self._record(row)
        views = choose_views(record.num_views, self.settings.num_views, rng)
        strips = [self._reader.read(row.shard, _part(row, f"v{view:02d}.webp")) for view in views]
        return make_example(record, views, strips, self.settings, rng, num_broken=num_broken)

    def _record(self, row: Row) -> "ClipRecord":
        return ClipRecord.parse(self._reader.read(row.shard, _part(row, "json")))


@dataclass(frozen=True, kw_only=True)
class ClipRecord:
    """What an example needs of a sample's `KEY.json`."""

    key: str
    num_views: int
    num_frames: int
    fps: float
    title: str
    action: str
    c2w: np.ndarray
    """OpenCV camera-to-world of cameras that stand still, shape (view, 4, 4)."""

    @classmethod
    def parse(cls, content: bytes) -> "ClipRecord":
        """Read a `KEY.json`.

        Raises:
            BrokenSample: It is none, or its cameras move.
        """
        try:
            record: dict[str, Any] = json.loads(content)
            c2w = np.asarray(record["cameras"]["c2w"], dtype=np.float64)
            if c2w.shape != (record["num_views"], 1, 4, 4):
                raise ValueError(f"cameras of shape {c2w.shape}: only those that stand still can be trained on")
            return cls(
                key=record["key"],
                num_views=record["num_views"],
                num_frames=record["num_frames"],
                fps=float(record["fps"]),
                title=record["text"]["title"],
                action=record["text"]["action"],
                c2w=c2w[:, 0],
            )
        except (ValueError, KeyError, TypeError) as error:
            raise BrokenSample(f"not the record of a sample: {error!r}") from error


def make_example(
    record: ClipRecord,
    views: np.ndarray,
    strips: list[bytes],
    settings: ClipSettings,
    rng: np.random.Generator,
    *,
    num_broken: int = 0,
) -> Example:
    """The example of a sample.

    Args:
        record: The sample's.
        views: Which views, shape (view,).
        strips: Their files.
        settings: What to make of them.
        rng: Decides frames and background.
        num_broken: To be said in the example.

    Raises:
        BrokenSample: A strip does not decode.
    """
    frames = choose_frames(record.num_frames, record.fps, settings, rng)
    level = background_level(settings.background, rng)
    videos = []
    for strip in strips:
        try:
            rgba = decode_strip(strip, record.num_frames)[frames]
        except ValueError as error:
            raise BrokenSample(str(error)) from error
        videos.append(_resized(compose(rgba, level), settings.size_px))
    video = np.stack(videos).transpose(0, 1, 4, 2, 3) * 2.0 - 1.0
    return Example(
        video=torch.from_numpy(np.ascontiguousarray(video, dtype=np.float32)),
        cameras=camera_vectors(record.c2w[views]),
        caption=caption_of(record.title, record.action),
        key=record.key,
        num_broken=num_broken,
    )


def choose_views(num_there: int, num_wanted: int, rng: np.random.Generator) -> np.ndarray:
    """Evenly spaced views of a ring, from a random one on: k, k + n/w, … Shape (view,).

    Raises:
        BrokenSample: The ring has no so many evenly spaced views.
    """
    if num_there % num_wanted:
        raise BrokenSample(f"{num_wanted} evenly spaced views are not to be had of {num_there}")
    step = num_there // num_wanted
    return int(rng.integers(step)) + step * np.arange(num_wanted)


def choose_frames(num_there: int, fps: float, settings: ClipSettings, rng: np.random.Generator) -> np.ndarray:
    """Evenly spaced frames, from a random one on as far as there is room. Shape (frame,).

    Raises:
        BrokenSample: There are fewer frames than wanted.
    """
    wanted = settings.num_frames
    if num_there < wanted:
        raise BrokenSample(f"{wanted} frames are not to be had of {num_there}")
    longest = (num_there - 1) // max(1, wanted - 1)
    jitter = int(rng.integers(-settings.stride_jitter, settings.stride_jitter + 1))
    stride = int(np.clip(round(fps / settings.fps) + jitter, 1, max(1, longest)))
    room = num_there - 1 - stride * (wanted - 1)
    return int(rng.integers(min(room, stride - 1) + 1)) + stride * np.arange(wanted)


def background_level(background: Background, rng: np.random.Generator) -> float:
    """The grey level of a background, 0..1."""
    levels = {"grey": GREY, "white": 1.0, "black": 0.0}
    return float(rng.random()) if background == "random" else levels[background]


def caption_of(title: str, action: str) -> str:
    """A caption from names: without the armature's name and what counts up behind an action's."""
    action = re.sub(r"[._ ]*\d+$", "", action.rpartition("|")[2])
    words = [re.sub(r"[_\s]+", " ", text).strip() for text in (title, action)]
    return ", ".join(word for word in words if word)


def _part(row: Row, name: str) -> Any:
    if name not in row.parts:
        raise BrokenSample(f"{row.key} has no {name}")
    return row.parts[name]


def _resized(frames: np.ndarray, size_px: int) -> np.ndarray:
    """Shape (frame, size_px, size_px, 3)."""
    if frames.shape[1:3] == (size_px, size_px):
        return frames
    shrinks = frames.shape[1] > size_px
    interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    resized = [cv2.resize(frame, (size_px, size_px), interpolation=interpolation) for frame in frames]
    return np.clip(np.stack(resized), 0.0, 1.0)
