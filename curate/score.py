"""Score a clip's pictures. Nothing is turned away here but what cannot be read: thresholds are `decide`'s business."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from curate.appearance import appearance, fingerprint, key_frames, object_pixels
from curate.motion import flow_px, front_view, frozen_views, image_motion, ssim_still, view_motion
from curate.silhouette import cut_out
from curate.visibility import coverage, touches_border, visibility
from pipeline.media import GREY, read_view
from pipeline.records import Appearance, Clip, ImageMotion, Record, Rejected, Visibility
from pipeline.stage import Stage, rejected

Scores = ImageMotion | Visibility | Appearance


@dataclass(frozen=True, kw_only=True)
class Score(Stage[Clip, Scores]):
    """Measure motion, visibility and appearance of a clip, reading each of its views once.

    Of pictures without alpha the object is cut out first, by how it differs from their backdrop.
    """

    name: ClassVar[str] = "curate.score"
    writes: ClassVar[tuple[type[Record], ...]] = (ImageMotion, Visibility, Appearance)

    background: float = GREY
    """Grey level, 0..1, on which motion is measured; it decides the size of the scores."""
    max_flow_views: int = 4
    """Optical flow costs most: it is taken in at most so many views, evenly spread. The other scores use all views."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.background <= 1.0:
            raise ValueError(f"background must lie in 0..1, got {self.background}")
        if self.max_flow_views < 1:
            raise ValueError(f"max_flow_views must be at least 1, got {self.max_flow_views}")

    @classmethod
    def inputs(cls, rows: Sequence[Record]) -> list[Clip]:
        """The clips among the rows."""
        return [row for row in rows if isinstance(row, Clip)]

    def process(self, item: Clip) -> Iterator[Scores | Rejected]:
        """One row of each judgement, or a rejection if a strip cannot be decoded."""
        try:
            rows = self._measure(item)
        except _BadStrip as error:
            yield rejected(self, item.clip_id, "malformed", str(error), item.folder)
            return
        yield from rows

    def _measure(self, clip: Clip) -> list[Scores]:
        twins = frozen_views(clip)
        front = front_view(clip, list(twins)) if twins else None
        flow_views = _spread(list(twins), self.max_flow_views)
        motions, flows_px, ssim = [], [], float("nan")
        coverages, touches, pixels, look = [], [], [], ""
        # A frozen twin is needed beside its moving view, so it is read first and kept.
        kept = {twin: self._read(clip, twin) for twin in set(twins.values()) if twin is not None}
        for view in range(clip.num_views):
            frames = kept[view] if view in kept else self._read(clip, view)
            coverages.append(coverage(frames))
            touches.append(touches_border(frames))
            pixels.append(object_pixels(key_frames(frames)))
            look = look or fingerprint(frames)
            if view not in twins:
                continue
            twin = twins[view]
            frozen = frames[:1] if twin is None else kept[twin]
            motions.append(view_motion(frames, frozen, self.background))
            if view == front:
                ssim = ssim_still(frames, frozen, self.background)
            if view in flow_views:
                flows_px.append(flow_px(frames, None if twin is None else frozen, self.background))
        return [
            image_motion(clip.clip_id, self.background, motions, ssim=ssim, flows_px=flows_px),
            visibility(clip.clip_id, coverages, touches),
            appearance(clip.clip_id, pixels, look),
        ]

    def _read(self, clip: Clip, view: int) -> np.ndarray:
        """A view's frames.

        Raises:
            _BadStrip: The strip is no image, or not of the clip's size.
        """
        try:
            frames = read_view(self.store, clip, view)
        except ValueError as error:
            raise _BadStrip(f"view {view}: {error}") from error
        if frames.shape[1:3] != (clip.height, clip.width):
            raise _BadStrip(f"view {view}: frames of {frames.shape[1:3]}, expected {(clip.height, clip.width)}")
        return cut_out(frames, clip.backdrop) if clip.backdrop else frames


class _BadStrip(Exception):
    """A view's file is at fault."""


def _spread(views: Sequence[int], most: int) -> set[int]:
    """At most so many of the views, evenly spread over them taken as a ring."""
    count = min(len(views), most)
    return {views[i * len(views) // count] for i in range(count)}
