"""The contact sheet: one HTML page with playing clips, by which a person judges the curation.

The page carries everything (sprites, scores, program) and opens from disk: no server, no network. It decides
again in the browser whenever a threshold moves. Its source is `contact_sheet.html`, `.css` and `.js`, inlined
as they are.
"""

import base64
import hashlib
import html
import io
import json
import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

_WEBP_MAX_PX = 16383


@dataclass(frozen=True, kw_only=True)
class SheetClip:
    """A rendered clip as the page shows it."""

    clip_id: str
    title: str
    """The asset's title, or its file name."""
    animation: str
    rig: str
    licence: str
    author: str
    source_url: str
    """Shown as a link only if it is http or https."""
    scores: Mapping[str, float | None]
    """None and non-finite mean that the score is missing; a missing score never fails a rule."""
    tags: tuple[str, ...]
    """Facts to filter by that decide nothing, such as `missing_texture`."""
    sprite: bytes
    """WebP from `sprite`: one column a view, one row a frame."""
    num_views: int
    """Columns of the sprite, not views of the clip."""
    num_frames: int
    fps: float

    def __post_init__(self) -> None:
        if self.num_views < 1 or self.num_frames < 1:
            raise ValueError(f"a sprite needs views and frames, got {self.num_views} x {self.num_frames}")
        if not (math.isfinite(self.fps) and self.fps > 0.0):
            raise ValueError(f"fps must be positive, got {self.fps}")


@dataclass(frozen=True, kw_only=True)
class SheetRule:
    """A clip is dropped with `reason` if `score` `op` `threshold`; the first rule that fails decides."""

    reason: str
    score: str
    op: Literal["<", ">"]
    threshold: float
    low: float
    """Left end of the slider and of the histogram; scores beyond the ends are counted in the outer bins."""
    high: float
    help: str
    """One sentence for a person: what the rule turns away."""

    def __post_init__(self) -> None:
        if self.op not in ("<", ">"):
            raise ValueError(f"op must be < or >, got {self.op!r}")
        if not all(map(math.isfinite, (self.threshold, self.low, self.high))) or self.low >= self.high:
            raise ValueError(f"{self.reason}: threshold, low < high must be finite numbers, got {self}")


@dataclass(frozen=True, kw_only=True)
class SheetReject:
    """A file or an animation that never became a clip."""

    name: str
    stage: str
    reason: str
    detail: str
    advice: str


@dataclass(frozen=True, kw_only=True)
class SheetStep:
    """One bar of the funnel. The page adds the last one, curation, itself and keeps it live."""

    label: str
    num_in: int
    num_out: int
    """May exceed `num_in` where a step multiplies, as assets into animations do."""
    losses: Mapping[str, int] = field(default_factory=dict)
    """Reason: how many inputs it turned away."""


def sprite(views: Sequence[npt.NDArray[np.uint8]], *, thumb_px: int = 64, max_views: int = 4) -> bytes:
    """WebP with one column a view and one row a frame, small enough to carry thousands in a page.

    Args:
        views: Each (frame, height, width, 4), straight alpha, equally many frames. At most `max_views` are
            used, evenly spread over the sequence taken as a ring.
        thumb_px: Side of a cell. Frames that are not square are centred in it.
        max_views: Most columns.

    Raises:
        ValueError: No views, views of different lengths, or a sprite larger than WebP allows.
    """
    if not views:
        raise ValueError("a sprite needs at least one view")
    num_views, num_frames = min(len(views), max_views), len(views[0])
    picked = [views[i * len(views) // num_views] for i in range(num_views)]
    if any(view.ndim != 4 or view.shape[3] != 4 or len(view) != num_frames for view in picked):
        shapes = [view.shape for view in picked]
        raise ValueError(f"views must be (frame, height, width, 4) of one length, got {shapes}")
    if num_frames < 1 or max(num_frames, num_views) * thumb_px > _WEBP_MAX_PX:
        raise ValueError(f"{num_views} views x {num_frames} frames of {thumb_px} px do not fit a WebP image")
    sheet = np.zeros((num_frames * thumb_px, num_views * thumb_px, 4), np.uint8)
    for column, view in enumerate(picked):
        for row, frame in enumerate(view):
            cell = _thumbnail(frame, thumb_px)
            top = row * thumb_px + (thumb_px - cell.shape[0]) // 2
            left = column * thumb_px + (thumb_px - cell.shape[1]) // 2
            sheet[top : top + cell.shape[0], left : left + cell.shape[1]] = cell
    buffer = io.BytesIO()
    Image.fromarray(sheet).save(buffer, "WEBP", quality=60, method=4)
    return buffer.getvalue()


def _thumbnail(frame: npt.NDArray[np.uint8], thumb_px: int) -> npt.NDArray[np.uint8]:
    """The frame scaled to fit a square, averaged with premultiplied alpha, so that edges stay clean."""
    height, width = frame.shape[:2]
    scale = thumb_px / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    # In bytes: 0.2 ms for 256 px, 2.4 ms in floats, and over a background the two differ by at most 2 of 255.
    premultiplied = cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGBA2mRGBA)
    small = cv2.resize(premultiplied, size, interpolation=cv2.INTER_AREA if scale < 1.0 else cv2.INTER_LINEAR)
    return np.asarray(cv2.cvtColor(small, cv2.COLOR_mRGBA2RGBA), np.uint8)


def write_contact_sheet(
    path: str | Path,
    *,
    clips: Iterable[SheetClip],
    rules: Sequence[SheetRule],
    rejects: Iterable[SheetReject],
    funnel: Sequence[SheetStep],
    preset: str,
    heading: str,
) -> None:
    """Write the page; the same input gives the same bytes.

    Clips are taken one at a time. Their sprites go straight to disk, into a file beside `path` that is
    renamed at the end; only the text and the numbers stay in memory.

    Args:
        path: The `.html` file to write or replace.
        clips: In the order in which the page first shows them.
        rules: In the order in which they decide.
        rejects: What never became a clip.
        funnel: The steps before curation.
        preset: Name of the preset that the thresholds come from.
        heading: Name of the data set.
    """
    path = Path(path)
    head, tail = _page(heading)
    score_columns: dict[str, int] = {}
    for rule in rules:
        score_columns.setdefault(rule.score, len(score_columns))
    rows: list[dict[str, Any]] = []
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with aside.open("w", encoding="utf-8", errors="replace", newline="\n") as file:
            file.write(head)
            for index, clip in enumerate(clips):
                encoded = base64.b64encode(clip.sprite).decode("ascii")
                file.write(f'<script type="text/plain" id="sprite-{index}">{encoded}</script>\n')
                rows.append(_row(clip, score_columns))
            contents = {
                "preset": preset,
                "scores": list(score_columns),
                "rules": [asdict(rule) for rule in rules],
                "clips": rows,
                "rejects": [asdict(reject) for reject in rejects],
                "funnel": [asdict(step) for step in funnel],
            }
            file.write(f'<script type="application/json" id="data">{_inert_json(contents)}</script>\n')
            file.write(tail)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def _row(clip: SheetClip, score_columns: dict[str, int]) -> dict[str, Any]:
    """What the page knows about a clip besides its sprite; a score that is new gets the next column."""
    for score in clip.scores:
        score_columns.setdefault(score, len(score_columns))
    values = [clip.scores.get(score) for score in score_columns]
    return {
        "id": clip.clip_id,
        "title": clip.title,
        "animation": clip.animation,
        "rig": clip.rig,
        "licence": clip.licence,
        "author": clip.author,
        "url": clip.source_url,
        "scores": [None if value is None or not math.isfinite(value) else float(value) for value in values],
        "tags": list(clip.tags),
        "views": clip.num_views,
        "frames": clip.num_frames,
        "fps": float(clip.fps),
    }


def _inert_json(contents: object) -> str:
    """JSON that cannot end the script element it stands in. ASCII, as file names may hold lone surrogates."""
    return json.dumps(contents, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def _page(heading: str) -> tuple[str, str]:
    """The page before and after its data; its security policy admits this style and this program alone."""
    source = Path(__file__)
    style = source.with_suffix(".css").read_text("utf-8")
    program = source.with_suffix(".js").read_text("utf-8")
    parts = {
        "style": style,
        "program": program,
        "style_hash": _csp_hash(style),
        "program_hash": _csp_hash(program),
        "heading": html.escape(heading),
    }
    before, after = source.with_suffix(".html").read_text("utf-8").split("{{data}}\n")

    def fill(text: str) -> str:  # in one pass, so that nothing in a part is taken for a placeholder
        return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], text)

    return fill(before), fill(after)


def _csp_hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
