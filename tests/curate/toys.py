"""Small clips whose motion is known, and tables of made-up scores."""

import dataclasses
import typing
from collections.abc import Sequence
from typing import Any, TypeVar

import cv2
import numpy as np

from curate.score import Score
from pipeline.cameras import look_at_origin
from pipeline.media import encode_strip, strip_name
from pipeline.records import Animation, Appearance, Asset, Clip, ImageMotion, Probe, Record, Visibility
from pipeline.storage import Store
from pipeline.tables import Tables

R = TypeVar("R", bound=Record)

NUM_FRAMES = 8
SIZE_PX = 64
SCORED = "curate.score@first"
"""`made_by` of the scores that `add_clip` writes."""


def filled(record: type[R], **values: Any) -> R:
    """A row with the given values; the other columns are empty, zero or 0.5."""
    hints = typing.get_type_hints(record)
    empty = {str: "", int: 1, float: 0.5, bool: True, bool | None: None, int | None: None}
    for field in dataclasses.fields(record):
        values.setdefault(field.name, empty.get(hints[field.name], ()))
    return record(**values)


def texture(size_px: int, seed: int = 0) -> np.ndarray:
    """Soft coloured blotches, shape (size_px, size_px, 3), uint8."""
    noise = np.random.default_rng(seed).integers(0, 256, (size_px, size_px, 3), dtype=np.uint8)
    soft = cv2.GaussianBlur(noise, (0, 0), max(1.0, size_px / 16))
    return cv2.normalize(soft, soft, 0, 255, cv2.NORM_MINMAX)


def square(
    steps_px: Sequence[int],
    *,
    side_px: int = 24,
    size_px: int = SIZE_PX,
    left_px: int = 8,
    colour: Sequence[int] | None = None,
) -> np.ndarray:
    """A square that stands `steps_px[i]` pixels to the right of its place in frame i; textured if no colour is given.

    Returns:
        Shape (frame, size_px, size_px, 4), uint8.
    """
    frames = np.zeros((len(steps_px), size_px, size_px, 4), np.uint8)
    top = (size_px - side_px) // 2
    plain = np.asarray(colour or (0, 0, 0), np.uint8)
    skin = texture(side_px) if colour is None else np.broadcast_to(plain, (side_px, side_px, 3))
    for frame, step in zip(frames, steps_px, strict=True):
        left = left_px + step
        frame[top : top + side_px, left : left + side_px, :3] = skin
        frame[top : top + side_px, left : left + side_px, 3] = 255
    return frames


def clip_of(
    *, num_views: int = 4, num_frames: int = NUM_FRAMES, size_px: int = SIZE_PX, orbit: bool = False, **values: Any
) -> Clip:
    """A clip's row, with cameras that stand round the object, or go round it."""
    names: tuple[str, ...] = ("orbit", "static")
    if orbit:
        turns = np.stack([look_at_origin(360.0 / num_frames * frame, 15.0, 3.0) for frame in range(num_frames)])
        c2w, num_views = np.stack([turns, turns]), 2
    else:
        c2w = np.stack([look_at_origin(360.0 / num_views * view, 15.0, 3.0) for view in range(num_views)])
        names = tuple(f"view_{view:02d}" for view in range(num_views))
    known: dict[str, Any] = {
        "num_camera_frames": num_frames if orbit else 1,
        "num_views": num_views,
        "num_frames": num_frames,
        "width": size_px,
        "height": size_px,
        "fps": 8.0,
        "view_names": names,
        "c2w": tuple(float(number) for number in c2w.ravel()),
        "intrinsics": (90.0, 90.0, size_px / 2, size_px / 2),
        "world_centre": (0.0, 0.0, 0.0),
        "clip_id": "0123456789abcdef",
    }
    known |= values
    return filled(Clip, **({"folder": f"clips/{known['clip_id'][:2]}/{known['clip_id']}", "rig": "mv16"} | known))


def draw(store: Store, clip: Clip, views: Sequence[np.ndarray]) -> Clip:
    """Write a clip's strips, without loss."""
    for view, frames in enumerate(views):
        store.write_bytes(f"{clip.folder}/{strip_name(view)}", encode_strip(frames))
    return clip


class Root:
    """Tables of a data root, filled row by row; ids are short words."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._pending: dict[tuple[type[Record], str], list[Record]] = {}
        self._num_files = 0

    @property
    def tables(self) -> Tables:
        """The tables, with all that was added."""
        for (record, made_by), rows in self._pending.items():
            self._tables.write(record, f"{self._num_files:06d}", rows, made_by=made_by, made_from="")
            self._num_files += 1
        self._pending = {}
        return self._tables

    def add(self, *rows: Record, made_by: str = "test@1") -> None:
        """Rows of any tables."""
        for row in rows:
            self._pending.setdefault((type(row), made_by), []).append(row)

    def add_asset(
        self, asset_id: str, seq: int, family_id: str = "", missing_textures: tuple[str, ...] = (), **values: Any
    ) -> None:
        """An asset that was probed."""
        known: dict[str, Any] = {
            "item_id": f"item {seq}",
            "name": f"{asset_id}.glb",
            "licence_class": "by",
            "noai": None,
        }
        self.add(
            filled(Asset, **(known | {"asset_id": asset_id, "seq": seq} | values)),
            filled(
                Probe, asset_id=asset_id, family_id=family_id or f"family {asset_id}", missing_textures=missing_textures
            ),
        )

    def add_animation(self, animation_id: str, asset_id: str, **values: Any) -> None:
        """An animation of an asset that moves well, in a way of its own."""
        known = {"animation_id": animation_id, "asset_id": asset_id, "motion_id": f"motion {animation_id}", "window": 0}
        self.add(filled(Animation, **(known | values)))

    def add_clip(self, clip_id: str, animation_id: str, asset_id: str, *, rig: str = "mv16", **values: Any) -> None:
        """A clip without pictures, and scores that no preset minds but for the values given."""
        self.add(clip_of(clip_id=clip_id, animation_id=animation_id, asset_id=asset_id, rig=rig))
        self.add_scores(clip_id, **values)

    def add_scores(self, clip_id: str, *, made_by: str = SCORED, **values: Any) -> None:
        """The rows of all judgements of a clip."""
        good = {"border_touch": 0.0, "magenta_share": 0.0, "ssim_still": 0.8, "fingerprint": f"look of {clip_id}"}
        for record in (ImageMotion, Visibility, Appearance):
            names = {field.name for field in dataclasses.fields(record)}
            mine = {name: value for name, value in (good | values).items() if name in names}
            self.add(filled(record, clip_id=clip_id, **mine), made_by=made_by)

    def add_simple(self, clip_id: str, seq: int = 0, **values: Any) -> None:
        """A clip of an asset and an animation of its own."""
        self.add_asset(f"asset of {clip_id}", seq)
        self.add_animation(f"animation of {clip_id}", f"asset of {clip_id}")
        self.add_clip(clip_id, f"animation of {clip_id}", f"asset of {clip_id}", **values)


def score_and_commit(tables: Tables, clip: Clip) -> None:
    """What a run does with a clip."""
    stage = Score(data=tables.store.root)
    tables.commit(stage, clip.clip_id, list(stage.process(clip)))
