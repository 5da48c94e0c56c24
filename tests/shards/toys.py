"""A tiny data root with drawn clips, as the stages before packing would leave it."""

import dataclasses
import functools
import hashlib
import typing
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from pipeline.cameras import look_at_origin, pinhole
from pipeline.media import encode_strip, strip_name
from pipeline.records import (
    Animation,
    Asset,
    Clip,
    ClipPlan,
    Decision,
    ImageMotion,
    Part,
    Probe,
    Record,
    SourceItem,
    content_id,
)
from pipeline.tables import Tables

R = TypeVar("R", bound=Record)

NUM_VIEWS, NUM_FRAMES, SIZE_PX = 2, 4, 24

LICENCES = {
    "cc0": ("CC0-1.0", "https://creativecommons.org/publicdomain/zero/1.0/"),
    "by": ("CC-BY-4.0", "https://creativecommons.org/licenses/by/4.0/"),
    "by-sa": ("CC-BY-SA-4.0", "https://creativecommons.org/licenses/by-sa/4.0/"),
    "by-nc": ("CC-BY-NC-4.0", "https://creativecommons.org/licenses/by-nc/4.0/"),
    "permissive": ("MIT", "https://spdx.org/licenses/MIT.html"),
}


@dataclass(frozen=True, kw_only=True)
class Toy:
    """An asset with animations, each rendered once."""

    seq: int
    licence_class: str = "by"
    num_animations: int = 2
    family: str = ""
    """Each asset its own family if empty."""
    dropped: tuple[int, ...] = ()
    """Action indices that curation turns away."""
    noai: bool | None = None
    title: str = ""
    name: str = ""
    num_views: int = NUM_VIEWS
    num_frames: int = NUM_FRAMES

    @property
    def asset_id(self) -> str:
        return hashlib.sha256(f"asset {self.seq} {self.name}".encode()).hexdigest()

    def strip(self, action: int, view: int) -> bytes:
        """The file of a view."""
        return strip(self.seq * 100 + action * 10 + view, self.num_frames)


def shape_frames(seed: int, num_frames: int = NUM_FRAMES, size_px: int = SIZE_PX) -> npt.NDArray[np.uint8]:
    """A coloured disc that moves over nothing. Shape (frame, height, width, 4), uint8."""
    rng = np.random.default_rng(seed)
    colour, start, step = rng.integers(40, 255, 3), rng.uniform(8, 12, 2), rng.uniform(-1.5, 1.5, 2)
    y, x = np.mgrid[:size_px, :size_px]
    frames = np.zeros((num_frames, size_px, size_px, 4), np.uint8)
    for frame in range(num_frames):
        centre = start + frame * step
        inside = (x - centre[0]) ** 2 + (y - centre[1]) ** 2 < 36
        frames[frame][inside] = [*colour, 255]
    return frames


@functools.cache
def strip(seed: int, num_frames: int = NUM_FRAMES) -> bytes:
    return encode_strip(shape_frames(seed, num_frames))


def filled(record: type[R], **values: Any) -> R:
    """A row with the given values, and something empty in every other field."""
    empty: dict[Any, Any] = {str: "", int: 0, float: 0.0, bool: False, int | None: None}
    hints = typing.get_type_hints(record)
    for field in dataclasses.fields(record):
        values.setdefault(field.name, empty.get(hints[field.name], ()))
    return record(**values)


def rows_of(toy: Toy) -> list[Record]:
    """All rows of an asset up to the decisions; clips' files are described, not written."""
    spdx, licence_url = LICENCES[toy.licence_class]
    item_id = content_id("item", toy.seq, toy.name)
    title = toy.title or f"Toy {toy.seq}"
    item = filled(
        SourceItem, item_id=item_id, seq=toy.seq, source="toys", name=f"toys/{toy.seq}.glb",
        title=title, spdx=spdx, licence_url=licence_url, author=f"Author {toy.seq % 3}",
        source_url=f"https://example.org/{toy.seq}", noai=toy.noai, checked_on="2026-01-31",
        tags=("toy", "disc") if toy.seq % 2 else (),
    )  # fmt: skip
    asset = filled(
        Asset, item_id=item_id, seq=toy.seq, asset_id=toy.asset_id, source="toys", name=item.name,
        title=title, format="glb", num_bytes=1000 + toy.seq, blob=f"blobs/ab/{toy.asset_id}.glb",
        spdx=spdx, licence_class=toy.licence_class, licence_url=licence_url, author=item.author,
        attribution=f'"{title}" by {item.author}; {item.source_url}; {spdx}', source_url=item.source_url,
        noai=toy.noai, checked_on=item.checked_on, tags=item.tags,
    )  # fmt: skip
    probe = filled(
        Probe, asset_id=toy.asset_id, blender_version="4.5.15", num_actions=toy.num_animations, num_vertices=8,
        num_triangles=12, family_id=toy.family or content_id("family", toy.asset_id),
    )  # fmt: skip
    rows: list[Record] = [item, asset, probe]
    for action in range(toy.num_animations):
        rows += _animation_rows(toy, action)
    return rows


def _animation_rows(toy: Toy, action: int) -> list[Record]:
    animation_id = content_id("animation", toy.asset_id, action)
    clip_id = content_id("clip", animation_id)
    motion = 0.01 * (action + 1) + 0.001 * toy.seq
    animation = filled(
        Animation, animation_id=animation_id, asset_id=toy.asset_id, action_index=action,
        action_name=f"Walk.{action:03d}", duration_s=2.0, action_duration_s=2.5, num_frames=toy.num_frames, fps=8.0,
        motion_mean=motion, motion_p95=2 * motion, path_length=3 * motion, rigid_share=0.1, travel=1.1,
        motion_id=content_id("motion", animation_id),
    )  # fmt: skip
    azimuths = [360.0 * view / toy.num_views for view in range(toy.num_views)]
    c2w = np.stack([look_at_origin(azimuth, 15.0, 3.0) for azimuth in azimuths])
    plan = filled(
        ClipPlan, clip_id=clip_id, animation_id=animation_id, asset_id=toy.asset_id,
        action_index=action, action_name=animation.action_name, start_s=0.0,
        duration_s=2.0, action_duration_s=2.5, looped=False, rig="toy", quality="draft", size_px=SIZE_PX,
        num_views=toy.num_views, num_frames=toy.num_frames, fps=8.0, seed=1, azimuth_deg=0.0, elevation_deg=15.0,
        settings='{"samples":16}',
    )  # fmt: skip
    contents = [toy.strip(action, view) for view in range(toy.num_views)]
    clip = filled(
        Clip, clip_id=clip_id, animation_id=animation_id, asset_id=toy.asset_id, rig="toy", quality="draft",
        num_views=toy.num_views, num_frames=toy.num_frames, width=SIZE_PX, height=SIZE_PX, fps=8.0, seed=1,
        azimuth_deg=0.0, elevation_deg=15.0, view_names=tuple(f"view_{view:02d}" for view in range(toy.num_views)),
        c2w=tuple(c2w.ravel().tolist()), num_camera_frames=1, intrinsics=pinhole(40.0, SIZE_PX), world_scale=0.5,
        world_centre=(0.0, 0.0, 1.0), folder=f"clips/{clip_id[:2]}/{clip_id}",
        parts=tuple(
            Part(name=strip_name(view), num_bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
            for view, content in enumerate(contents)
        ),
        blender_version="4.5.15", device="CPU", settings='{"samples":16}',
    )  # fmt: skip
    score = filled(
        ImageMotion, clip_id=clip_id, background="grey 0.5", m=motion / 10, m_object=motion, flow_px=1.0,
    )  # fmt: skip
    keep = action not in toy.dropped
    reason = "" if keep else "flat"
    decision = Decision(clip_id=clip_id, preset="toy@1", keep=keep, reason=reason, reasons=(reason,) if reason else ())
    return [animation, plan, clip, score, decision]


def commit(tables: Tables, toys: Iterable[Toy], *, skip: Sequence[type[Record]] = ()) -> None:
    """Write the rows of assets, one fragment a table and asset, and the clips' files; decisions stand in one file."""
    decisions = {row.clip_id: row for row in tables.rows(Decision)}
    for toy in toys:
        by_type: dict[type[Record], list[Record]] = {}
        for row in rows_of(toy):
            if type(row) not in skip:
                by_type.setdefault(type(row), []).append(row)
        decisions |= {row.clip_id: row for row in by_type.pop(Decision, []) if isinstance(row, Decision)}
        for record, rows in by_type.items():
            fragment = f"toy-{content_id(toy.asset_id)}"
            tables.write(record, fragment, rows, made_by="toy@1", made_from=toy.asset_id)
        actions = {row.animation_id: row.action_index for row in by_type[Animation] if isinstance(row, Animation)}
        for clip in by_type.get(Clip, []):
            assert isinstance(clip, Clip)
            for view in range(toy.num_views):
                content = toy.strip(actions[clip.animation_id], view)
                tables.store.write_bytes(f"{clip.folder}/{strip_name(view)}", content)
    if decisions:
        tables.write(Decision, "current", list(decisions.values()), made_by="toy@1", made_from="")


def shard_bytes(tables: Tables) -> dict[str, bytes]:
    """Every tar below `shards/` by its path."""
    return {path: tables.store.read_bytes(path) for path in tables.store.list_files("shards", ".tar")}
