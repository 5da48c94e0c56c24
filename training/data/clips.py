"""Clips as training examples: views and frames chosen, composed on a background, with MVDream's camera vectors."""

import json
import logging
import zlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypedDict, TypeVar

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from pipeline.media import GREY, compose, decode_strip, strip_name
from pipeline.revoked import DenyList
from pipeline.storage import Store
from training.cameras import camera_vectors
from training.data.index import INDEX, BrokenSample, Row, SampleIndex, ShardReader
from training.data.order import Draw

logger = logging.getLogger("mv4d.training")

Background = Literal["grey", "white", "black", "random"]
MAX_SUBSTITUTIONS = 100
"""Broken samples in a row after which it is the data set that is broken, not a sample."""


E = TypeVar("E")


class Example(TypedDict):
    """One training example; a batch has one more axis in front."""

    video: Tensor
    """Shape (view, frame, 3, height, width), float32 in -1..1."""
    cameras: Tensor
    """Shape (view, 16), float32: `training.cameras.camera_vectors`."""
    caption: str
    key: str
    num_broken: int
    """Samples that could not be read, or were taken down, and were passed over before this one was."""


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
    num_variants: int = 0
    """Views, frames and background of a clip are drawn in so many ways, which take turns from pass to pass; 0 draws
    anew in every pass. Four views of sixteen can be had in four ways, and those come in turn."""

    def __post_init__(self) -> None:
        if min(self.num_views, self.num_frames, self.size_px) < 1 or self.fps <= 0 or self.stride_jitter < 0:
            raise ValueError(f"need at least one view, frame and pixel, fps > 0 and stride_jitter >= 0, got {self}")
        if self.num_variants < 0:
            raise ValueError(f"num_variants must be at least 0, got {self.num_variants}")

    def variant_of(self, passes: int) -> int:
        """Which variant of every clip is shown in a pass over the data."""
        return passes % self.num_variants if self.num_variants else passes

    def rng(self, key: str, variant: int) -> np.random.Generator:
        """Decides what is left to chance in a variant of a clip."""
        return np.random.default_rng([self.seed, zlib.crc32(key.encode()), variant])

    def views(self, record: "ClipRecord", variant: int) -> np.ndarray:
        """Which views a variant shows. Shape (view,).

        Raises:
            BrokenSample: The clip has no so many evenly spaced views.
        """
        first = int(self.rng(record.key, 0).integers(record.num_views))
        return choose_views(record.num_views, self.num_views, first + variant)


class IndexedExamples(Dataset[E], ABC, Generic[E]):
    """Examples by their place in the stream (`training.data.order`).

    A sample whose bytes are broken is logged and the next one of the index stands in for it, unless `strict`. So it is
    for what is taken down while the run goes on: nothing of it is shown from then on.
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
        store = Store(index.root)
        self._version = store.version(INDEX)
        self.denied = [DenyList(store)]
        """What was taken down; lists of other folders may be added."""

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, draw: Draw) -> E:
        variant = self.settings.variant_of(draw.place // len(self.index))
        num_broken = num_taken_down = 0
        while num_broken < MAX_SUBSTITUTIONS and num_taken_down < len(self.index):
            index = (draw.index + num_broken + num_taken_down) % len(self.index)
            row = self.index[index]
            if any(denied.has(row.asset_id, row.clip_id) for denied in self.denied):
                if self.strict:
                    raise BrokenSample(f"{row.key} was taken down: begin anew")
                num_taken_down += 1
                continue
            try:
                return self._example_where_it_lies(index, variant, num_broken + num_taken_down)
            except BrokenSample as error:
                if self.strict:
                    raise
                logger.warning("passed over the broken sample %s: %s", row.key, error)
                num_broken += 1
        if num_taken_down == len(self.index):
            raise BrokenSample(f"all samples of {self.index.root} were taken down")
        raise BrokenSample(f"{MAX_SUBSTITUTIONS} broken samples in a row from {row.key} on: run `mv4d lint`")

    def _example_where_it_lies(self, index: int, variant: int, num_broken: int) -> E:
        """The example; if its tar was written again without what was taken down, from its new place."""
        try:
            return self.example(self.index[index], variant, num_broken=num_broken)
        except (BrokenSample, FileNotFoundError):
            version = Store(self.index.root).version(INDEX)
            if version == self._version:
                raise
            self._version = version
            self.index = self.index.moved()
            self._reader.close()
            return self.example(self.index[index], variant, num_broken=num_broken)

    @abstractmethod
    def example(self, row: Row, variant: int, *, num_broken: int = 0) -> E:
        """A variant of a sample.

        Raises:
            BrokenSample: It cannot be read.
        """

    def read(self, row: Row, name: str) -> bytes:
        """A member of a sample, by its name without the key.

        Raises:
            BrokenSample: The sample has no such member, or its bytes are not those that were packed.
        """
        if name not in row.parts:
            raise BrokenSample(f"{row.key} has no {name}")
        return self._reader.read(row.shard, row.parts[name])


class ClipDataset(IndexedExamples[Example]):
    """Examples as pictures."""

    def example(self, row: Row, variant: int, *, num_broken: int = 0) -> Example:
        """A variant of a sample; errors as in the base class."""
        record = ClipRecord.parse(self.read(row, "json"))
        strips = [self.read(row, strip_name(view)) for view in self.settings.views(record, variant)]
        return make_example(record, variant, strips, self.settings, num_broken=num_broken)


@dataclass(frozen=True, kw_only=True)
class ClipRecord:
    """What an example needs of a sample's `KEY.json`."""

    key: str
    num_views: int
    num_frames: int
    fps: float
    caption: str
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
                caption=record["text"]["caption"],
                c2w=c2w[:, 0],
            )
        except (ValueError, KeyError, TypeError) as error:
            raise BrokenSample(f"not the record of a sample: {error!r}") from error


def make_example(
    record: ClipRecord, variant: int, strips: list[bytes], settings: ClipSettings, *, num_broken: int = 0
) -> Example:
    """The example of a sample.

    Args:
        record: The sample's.
        variant: Which of the ways to show it.
        strips: The files of `settings.views(record, variant)`.
        settings: What to make of them.
        num_broken: To be said in the example.

    Raises:
        BrokenSample: A strip does not decode.
    """
    rng = settings.rng(record.key, variant)
    frames = choose_frames(record.num_frames, record.fps, settings, rng)
    level = background_level(settings.background, rng)
    video = torch.empty(len(strips), len(frames), 3, settings.size_px, settings.size_px)
    for view, strip in enumerate(strips):
        try:
            rgba = decode_strip(strip, record.num_frames)[frames]
        except ValueError as error:
            raise BrokenSample(str(error)) from error
        _compose_into(video[view], rgba, level)
    return Example(
        video=video,
        cameras=camera_vectors(record.c2w[settings.views(record, variant)]),
        caption=record.caption,
        key=record.key,
        num_broken=num_broken,
    )


def choose_views(num_there: int, num_wanted: int, turn: int) -> np.ndarray:
    """Evenly spaced views of a ring: k, k + n/w, …, where k counts with the turn. Shape (view,).

    Raises:
        BrokenSample: The ring has no so many evenly spaced views.
    """
    if num_there % num_wanted:
        raise BrokenSample(f"{num_wanted} evenly spaced views are not to be had of {num_there}")
    step = num_there // num_wanted
    return turn % step + step * np.arange(num_wanted)


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


def _compose_into(video: Tensor, rgba: np.ndarray, level: float) -> None:
    """Frames on a grey level as `pipeline.media.compose` has them, in -1..1.

    Args:
        video: Is filled; shape (frame, 3, size, size), float32.
        rgba: Shape (frame, height, width, 4), uint8, straight alpha.
        level: 0..1.
    """
    if rgba.shape[1:3] != video.shape[2:]:
        video.copy_(torch.from_numpy(_resized(compose(rgba, level), video.shape[-1])).permute(0, 3, 1, 2))
        video.mul_(2.0).sub_(1.0)
        return
    # In place and channels first: a third of the time, which is more than decoding takes.
    frames = torch.from_numpy(rgba).permute(0, 3, 1, 2)
    alpha = frames[:, 3:].float().mul_(2.0 / 255.0)
    video.copy_(frames[:, :3]).div_(255.0).sub_(level).mul_(alpha).add_(2.0 * level - 1.0)


def _resized(frames: np.ndarray, size_px: int) -> np.ndarray:
    """Shape (frame, size_px, size_px, 3)."""
    shrinks = frames.shape[1] > size_px
    interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    resized = [cv2.resize(frame, (size_px, size_px), interpolation=interpolation) for frame in frames]
    return np.clip(np.stack(resized), 0.0, 1.0)
