"""What importing any rendered data set has in common: the licence, the strips, the rows."""

import hashlib
import json
import math
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal

import numpy as np

from ingest.licence import LicencePolicy, PolicyName, attribution
from ingest.refused import Refused
from ingest.rendered.pictures import MAX_FRAMES, backdrop_of
from ingest.taken_down import TakenDown
from pipeline.cameras import pinhole
from pipeline.media import MAX_STRIP_PX, encode_strip, strip_name
from pipeline.records import (
    Animation,
    Asset,
    Caption,
    Clip,
    Part,
    Probe,
    Record,
    Rejected,
    SourceItem,
    content_id,
)
from pipeline.stage import Stage, rejected
from pipeline.tables import Tables

RENDERED = "rendered"
"""`format` of an asset of which only pictures came in."""

_DAMAGED = ("malformed", "truncated", "empty_file")
_AGAIN = "unpack the archive again or, if that does not help, download it again"

Rows = Asset | Probe | Animation | Clip | Caption


@dataclass(frozen=True, kw_only=True)
class RenderedClip:
    """A clip as its data set lists it: what an import takes in."""

    item: SourceItem
    model_id: str
    """The model's name in its source: a uid of Sketchfab, or a sha256."""
    action: str
    """Which of the model's animations: `00`, ...; empty where the data set knows of one only."""
    root: str
    """Folder that no file may lie outside of."""
    files: tuple[str, ...]
    """Paths below `root`; what they are is the data set's business."""
    entry: str
    """What the data set says of the clip, as JSON: unchecked. Empty if it says nothing."""
    refused: tuple[str, str] = ("", "")
    """Reason and detail, if the listing was already at fault."""

    @property
    def name(self) -> str:
        """For people."""
        return self.item.name


@dataclass(frozen=True, kw_only=True)
class Shown:
    """What a clip shows, read from its data set."""

    rig: str
    view_names: tuple[str, ...]
    frames: Iterator[np.ndarray]
    """One a view: shape (frame, height, width, 4 or 3), uint8. Read as they are asked for."""
    c2w: np.ndarray
    """OpenCV camera-to-world in our world, shape (view, camera frame, 4, 4)."""
    fov_deg: tuple[float, float]
    """Of width and height."""
    fps: float
    azimuth_deg: float
    elevation_deg: float
    caption: str = ""
    """The data set's own words."""
    facts: str = "{}"
    """JSON: where cameras and times come from, and what had to be assumed."""
    missing_textures: tuple[str, ...] = ()
    num_vertices: int = 0
    num_faces: int = 0
    num_objects: int = 0
    """Of the model, as far as the data set says; else 0."""


@dataclass(frozen=True, kw_only=True)
class ImportRendered(Stage[RenderedClip, Rows]):
    """Admit a clip by its model's licence, read it, and store it as one of ours."""

    data_set: ClassVar[str]
    """Its name, for people and for `quality`."""
    credit: ClassVar[str]
    """What stands behind an author's credit: who rendered."""
    writes: ClassVar[tuple[type[Record], ...]] = (Asset, Probe, Animation, Clip, Caption)
    resource: ClassVar[Literal["io", "cpu", "blender"]] = "cpu"

    policy: PolicyName = "open"
    """`open`: CC0, permissive, CC BY, CC BY-SA. `commercial_safe`: without BY-SA. `permissive_only`: without CC BY too.
    `research`: NC as well. `custom`: only what `allow` names."""
    allow: str = ""
    """SPDX ids or licence classes admitted beside the policy's own, by commas: `CC-BY-NC-4.0,LicenseRef-Ours`."""
    honour_noai: bool = True
    """Leave out what its author reserved from generative AI."""
    size_px: int = 256
    """Higher pictures are scaled down to this height; 0 keeps them as they are."""

    def __post_init__(self) -> None:
        if self.size_px < 0:
            raise ValueError(f"size_px must not be negative, got {self.size_px}")
        _ = self.licence_policy

    @classmethod
    def inputs(cls, rows: Sequence[Record]) -> list[RenderedClip]:
        """None: it stands at the head of its chain."""
        return []

    @classmethod
    def input_id(cls, item: RenderedClip) -> str:
        """That of the listed item."""
        return item.item.item_id

    @property
    @abstractmethod
    def storage_quality(self) -> int | None:
        """Of the strips: 0..100, or None for lossless."""

    @abstractmethod
    def read(self, item: RenderedClip) -> Shown:
        """What a clip shows.

        Raises:
            Refused: Something is wrong with its files or with what is said of it.
        """

    @cached_property
    def licence_policy(self) -> LicencePolicy:
        """What is admitted."""
        allow = tuple(entry.strip() for entry in self.allow.split(",") if entry.strip())
        return LicencePolicy(name=self.policy, allow=allow)

    @cached_property
    def _taken_down(self) -> TakenDown:
        return TakenDown(Tables(self.store))

    def process(self, item: RenderedClip) -> Iterator[Rows | Rejected]:
        """The rows of a clip, or why it was turned away."""
        try:
            yield from self._rows(item)
        except Refused as refused:
            says = f"{refused.found}; {_AGAIN}" if refused.reason in _DAMAGED else refused.detail
            detail = f"{item.item.uri}: {says}"
            yield rejected(self, item.item.item_id, refused.reason, detail, item.name)

    def _rows(self, clip: RenderedClip) -> list[Rows]:
        reason, found = clip.refused
        if reason:
            raise Refused(reason, found)
        self._taken_down.check_item(clip.item)
        asset = self._asset(clip)
        for known in filter(None, (asset.asset_id, clip.item.expected_sha256)):
            self._taken_down.check_bytes(known)
        shown = self.read(clip)
        strips = self._strips(shown)
        animation = self._animation(clip, asset.asset_id, shown, num_frames=strips.num_frames)
        clip_row = self._clip(clip, animation, shown, strips)
        self.store.remove_partial(clip_row.folder)
        for part, strip in zip(clip_row.parts, strips.files, strict=True):
            self.store.write_bytes(f"{clip_row.folder}/{part.name}", strip)
        text = json.dumps(_without_nan(asdict(clip_row)), sort_keys=True, indent=1, allow_nan=False)
        self.store.write_bytes(f"{clip_row.folder}/clip.json", text.encode())
        rows: list[Rows] = [asset, self._probe(clip, asset.asset_id, shown), animation, clip_row]
        if shown.caption:
            source = self.data_set
            rows.append(Caption(clip_id=clip_row.clip_id, kind="data_set", source=source, text=shown.caption, about=""))
        return rows

    def _asset(self, clip: RenderedClip) -> Asset:
        item, licence = clip.item, self.licence_policy.admit(clip.item, honour_noai=self.honour_noai)
        return Asset(
            item_id=item.item_id,
            seq=item.seq,
            asset_id=content_id(self.data_set, clip.model_id, length=64),
            source=item.source,
            uri=item.uri,
            name=item.name,
            title=item.title,
            format=RENDERED,
            num_bytes=0,
            blob="",
            main_file="",
            spdx=licence.spdx,
            licence_class=licence.licence_class,
            licence_text=item.licence_text,
            licence_url=licence.url,
            author=item.author,
            attribution=f"{attribution(item, licence)}; {self.credit}",
            source_url=item.source_url,
            noai=item.noai,
            checked_on=item.checked_on,
            evidence=item.evidence,
            evidence_sha256=item.evidence_sha256,
            noai_checked_on=item.noai_checked_on,
            tags=item.tags,
        )

    def _probe(self, clip: RenderedClip, asset_id: str, shown: Shown) -> Probe:
        return Probe(
            asset_id=asset_id,
            blob="",
            format=RENDERED,
            main_file="",
            blender_version="",
            num_actions=0,
            num_vertices=shown.num_vertices,
            num_triangles=shown.num_faces,
            num_objects=shown.num_objects,
            num_materials=0,
            num_images=0,
            image_pixels=0,
            missing_textures=shown.missing_textures,
            # A model is one family, whichever data set shows it.
            family_id=content_id("model", clip.model_id),
            scene_fps=math.nan,
        )

    def _animation(self, clip: RenderedClip, asset_id: str, shown: Shown, *, num_frames: int) -> Animation:
        nan = math.nan
        return Animation(
            animation_id=content_id(self.data_set, asset_id, clip.action, num_frames, shown.fps),
            asset_id=asset_id,
            action_index=int(clip.action) if clip.action.isdecimal() else 0,
            action_name="",
            window=0,
            start_s=0.0,
            duration_s=num_frames / shown.fps,
            action_duration_s=nan,
            num_frames=num_frames,
            fps=shown.fps,
            looped=False,
            motion_mean=nan,
            motion_p95=nan,
            path_length=nan,
            rigid_share=nan,
            loop_gap=nan,
            moving_start_s=nan,
            moving_end_s=nan,
            travel=nan,
            max_jump=nan,
            jump_ratio=nan,
            max_stretch=nan,
            rest_diagonal=nan,
            box_min=(nan, nan, nan),
            box_max=(nan, nan, nan),
            finite=True,
            motion_id="",
        )

    def _strips(self, shown: Shown) -> "_Strips":
        files: list[bytes] = []
        rims: list[str] = []
        shapes: set[tuple[int, ...]] = set()
        for frames in shown.frames:
            shapes.add(frames.shape)
            num_frames, height = frames.shape[:2]
            if len(shapes) > 1:
                raise Refused("wrong_count", f"its views differ in frames, size or alpha: {sorted(shapes)}")
            if num_frames > MAX_FRAMES or num_frames * height > MAX_STRIP_PX:
                found = f"{num_frames} frames of {height} pixels do not fit a strip of {MAX_STRIP_PX} pixels"
                raise Refused("too_large", found, "choose a smaller --size_px")
            if frames.shape[3] == 3:
                rims.append(backdrop_of(frames))
            files.append(encode_strip(_with_alpha(frames), quality=self.storage_quality))
        ((num_frames, height, width, _),) = shapes
        # All views stand before one backdrop; should a view be full to its rim, the others outvote it.
        backdrop = max(rims, key=rims.count) if rims else ""
        return _Strips(files=files, num_frames=num_frames, height=height, width=width, backdrop=backdrop)

    def _clip(self, clip: RenderedClip, animation: Animation, shown: Shown, strips: "_Strips") -> Clip:
        width, height = strips.width, strips.height
        settings = {"data_set": self.data_set, "name": clip.name, "size_px": self.size_px}
        settings |= {"storage_quality": self.storage_quality, **json.loads(shown.facts)}
        text = json.dumps(settings, sort_keys=True)
        c2w = np.round(shown.c2w, 9) + 0.0  # and no minus zero
        clip_id = content_id(animation.animation_id, shown.rig, text, c2w.tolist())
        fx, fy = (pinhole(fov, size)[0] for fov, size in zip(shown.fov_deg, (width, height), strict=True))
        return Clip(
            clip_id=clip_id,
            animation_id=animation.animation_id,
            asset_id=animation.asset_id,
            rig=shown.rig,
            quality=self.data_set,
            num_views=len(strips.files),
            num_frames=strips.num_frames,
            width=width,
            height=height,
            fps=shown.fps,
            seed=0,
            azimuth_deg=shown.azimuth_deg,
            elevation_deg=shown.elevation_deg,
            view_names=shown.view_names,
            c2w=tuple(c2w.ravel().tolist()),
            num_camera_frames=c2w.shape[1],
            intrinsics=(fx, fy, width / 2, height / 2),
            world_scale=math.nan,
            world_centre=(math.nan, math.nan, math.nan),
            folder=f"clips/{clip_id[:2]}/{clip_id}",
            parts=tuple(
                Part(name=strip_name(view), num_bytes=len(strip), sha256=hashlib.sha256(strip).hexdigest())
                for view, strip in enumerate(strips.files)
            ),
            texture_limit_px=0,
            blender_version="",
            device="",
            settings=text,
            backdrop=strips.backdrop,
        )


@dataclass(frozen=True, kw_only=True)
class _Strips:
    """The files of a clip's views."""

    files: list[bytes]
    num_frames: int
    height: int
    width: int
    backdrop: str
    """`#rrggbb`; empty if the pictures have alpha."""


def _with_alpha(frames: np.ndarray) -> np.ndarray:
    """Frames as RGBA; those without alpha are opaque everywhere."""
    if frames.shape[3] == 4:
        return frames
    return np.concatenate([frames, np.full((*frames.shape[:3], 1), 255, np.uint8)], axis=3)


def _without_nan(values: dict[str, Any]) -> dict[str, Any]:
    """NaN, which JSON lacks, as None."""

    def known(value: Any) -> Any:
        if isinstance(value, tuple | list):
            return [known(entry) for entry in value]
        return None if isinstance(value, float) and math.isnan(value) else value

    return {name: known(value) for name, value in values.items()}
