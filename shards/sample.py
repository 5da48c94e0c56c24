"""What a sample says of itself: the record that stands as `KEY.json` before the strips in a shard.

A reader needs nothing else to use a sample. The types of the fields never change from one sample to the next, so that
loaders which infer a schema from the first few samples are right about the rest.
"""

import dataclasses
import json
import math
import re
from dataclasses import dataclass

import numpy as np

from pipeline.records import Animation, Asset, Clip, ImageMotion
from shards.captions import Words

FORMAT = "mv4d-sample/1"
CONVENTION = (
    "world: z up, right-handed, the object inside the unit sphere at the origin; "
    "cameras: OpenCV (+x right, +y down, +z forward); c2w: camera to world; "
    "intrinsics: fx, fy, cx, cy in pixels, (0.5, 0.5) is the centre of the top left pixel"
)

Matrix = tuple[tuple[float, ...], ...]


@dataclass(frozen=True, kw_only=True)
class Text:
    """The caption, and words to make another from."""

    caption: str
    """The best there is, by the rule in `shards/captions.py`."""
    caption_source: str
    """`file:…`, `model:…` or `data_set:…` with the source's name, or `metadata`: made of the words below."""

    title: str
    """The asset's title, as its author gave it."""
    action: str
    """The animation's name in the file; empty if it is not known."""
    tags: str
    """The source's tags, separated by commas."""


@dataclass(frozen=True, kw_only=True)
class Cameras:
    """One camera a view."""

    convention: str
    """What the axes and units are, in words."""
    view_names: tuple[str, ...]
    """One name a view; `orbit` and `static` for an orbit and its frozen twin."""
    azimuth_deg: float
    """Of view 0; 0 is in front (world -y), growing counter-clockwise seen from above."""
    elevation_deg: float
    """Above the horizon."""
    intrinsics: tuple[float, ...]
    """fx, fy, cx, cy in pixels; the same for all views and frames."""
    c2w: tuple[tuple[Matrix, ...], ...]
    """Camera to world, shape (view, camera frame, 4, 4); one camera frame if cameras stand still, else one a frame."""


@dataclass(frozen=True, kw_only=True)
class Normalisation:
    """world = world_scale * (asset_point - world_centre), asset points in Blender's z-up frame."""

    world_scale: float | None
    """World units an asset unit; null if it is not known, as of imported clips."""
    world_centre: tuple[float, ...]
    """In asset units; empty if it is not known."""


@dataclass(frozen=True, kw_only=True)
class Motion:
    """How much it moves: measured on the deformed mesh, lengths as shares of the object's diagonal."""

    motion_mean: float | None
    """Mean over vertices and frames of the distance from the first frame's position."""
    motion_p95: float | None
    """95th percentile over vertices of the largest distance from the first frame's position."""
    path_length: float | None
    """Mean over vertices of the length of the way they go."""
    rigid_share: float | None
    """Share of the motion that one rigid move of the whole object explains, 0..1."""
    loop_gap: float | None
    """Mean distance between the poses at the action's two ends; 0 is a perfect loop."""
    travel: float | None
    """Diagonal of the box over all frames, divided by the median of the frames' own diagonals; 1 stays in place."""
    image_background: str
    """What the pictures were composed on for `image_m` and `image_flow_px`; empty if they were not measured."""
    image_m: float | None
    """Mean square difference to the object frozen at the first frame (arXiv:2405.16645, eq. 1), 0..1."""
    image_flow_px: float | None
    """Mean optical flow between neighbouring frames over the object, pixels a frame at 256 px."""


@dataclass(frozen=True, kw_only=True)
class Credit:
    """The asset's licence and whom to credit. `Asset.source` is left out: it may be a folder of somebody's machine."""

    spdx: str
    """SPDX id or expression."""
    licence_class: str
    """What the shard's folder is named after."""
    licence_url: str
    """Where the licence's text stands."""
    attribution: str
    """One line of credit, ready to print."""
    author: str
    """As the source names them."""
    source_url: str
    """Page where a person can see the asset and its licence."""
    checked_on: str
    """Date, ISO 8601, on which the licence was read."""


@dataclass(frozen=True, kw_only=True)
class Rendering:
    """How the pictures were made."""

    rig: str
    """Name of the set of cameras."""
    quality: str
    """Name of the render preset."""
    seed: int
    """Of cameras and sampling."""
    blender_version: str
    """Of the Blender that drew it."""
    device: str
    """What drew it: `CPU`, or the way to use a GPU and its name."""
    settings: str
    """Everything else that decides the pixels, as JSON."""


@dataclass(frozen=True, kw_only=True)
class Strip:
    """The frames of one view."""

    name: str
    """Of the member, without the key: `v00.webp`, ..."""
    num_bytes: int
    """Of the file."""
    sha256: str
    """Of the file."""


@dataclass(frozen=True, kw_only=True)
class SampleRecord:
    """`KEY.json`: one animation of one asset, seen by all cameras of its rig."""

    format: str
    """`mv4d-sample/1`."""
    key: str
    """Name of the sample's members up to the first dot; unique over the whole data set."""
    clip_id: str
    """animation + rig + render settings + seed."""
    animation_id: str
    """asset + action + window."""
    asset_id: str
    """sha256 of the asset's file."""
    family_id: str
    """Hash of the rest geometry: equal for re-uploads and re-textured copies. Splits are drawn by it."""
    split: str
    """`train`, `val` or `test`."""
    num_views: int
    """Strips of the sample."""
    num_frames: int
    """Frames of each strip, stacked top to bottom."""
    width: int
    """Of a frame, pixels."""
    height: int
    """Of a frame, pixels."""
    fps: float
    """Frames a second."""
    action_index: int
    """Place of the action in the file."""
    window: int
    """0: the action's first seconds; 1: its last, for long actions."""
    start_s: float
    """Of the window, from the start of the file's timeline."""
    duration_s: float
    """Time from the first to the last frame, plus one frame step."""
    looped: bool
    """The action is shorter than the window and was repeated."""
    backdrop: str
    """`#rrggbb` that the object stands before where the pictures have no alpha; empty if they have, as a rule."""
    text: Text
    """The caption, and words to make another from."""
    cameras: Cameras
    """Poses and intrinsics."""
    normalisation: Normalisation
    """The way back from world to asset units."""
    motion: Motion
    """Motion scores."""
    licence: Credit
    """Licence and credit."""
    rendering: Rendering
    """Rig, settings, Blender."""
    parts: tuple[Strip, ...]
    """The other members, one a view."""

    def to_json(self) -> bytes:
        """The bytes of `KEY.json`: the same record, the same bytes."""
        text = json.dumps(dataclasses.asdict(self), ensure_ascii=True, allow_nan=False, separators=(",", ":"))
        return text.encode() + b"\n"


def sample_key(asset_id: str, action_index: int, window: int, clip_id: str) -> str:
    """The name of a sample: readable, sortable, without dots, which would end a WebDataset key.

    Raises:
        ValueError: The ids hold other characters than letters, digits, `-` and `_`.
    """
    key = f"{asset_id[:12]}_{action_index:03d}_{window}_{clip_id[:8]}"
    if not re.fullmatch(r"[A-Za-z0-9_-]+", key):
        raise ValueError(f"{key!r} is no sample key: ids must be letters, digits, - and _")
    return key


def sample_record(
    clip: Clip,
    animation: Animation,
    asset: Asset,
    image_motion: ImageMotion | None,
    *,
    family_id: str,
    split: str,
    caption: Words,
) -> SampleRecord:
    """The record of a clip."""
    c2w = np.asarray(clip.c2w, dtype=np.float64).reshape(clip.num_views, clip.num_camera_frames, 4, 4)
    return SampleRecord(
        format=FORMAT,
        key=sample_key(clip.asset_id, animation.action_index, animation.window, clip.clip_id),
        clip_id=clip.clip_id,
        animation_id=clip.animation_id,
        asset_id=clip.asset_id,
        family_id=family_id,
        split=split,
        num_views=clip.num_views,
        num_frames=clip.num_frames,
        width=clip.width,
        height=clip.height,
        fps=clip.fps,
        action_index=animation.action_index,
        window=animation.window,
        start_s=animation.start_s,
        duration_s=animation.duration_s,
        looped=animation.looped,
        backdrop=clip.backdrop,
        text=Text(
            caption=caption.text,
            caption_source=caption.source,
            title=asset.title,
            action=animation.action_name,
            tags=", ".join(asset.tags),
        ),
        cameras=Cameras(
            convention=CONVENTION,
            view_names=clip.view_names,
            azimuth_deg=clip.azimuth_deg,
            elevation_deg=clip.elevation_deg,
            intrinsics=clip.intrinsics,
            c2w=c2w.tolist(),
        ),
        normalisation=Normalisation(
            world_scale=_finite(clip.world_scale),
            world_centre=clip.world_centre if math.isfinite(clip.world_scale) else (),
        ),
        motion=_motion(animation, image_motion),
        licence=Credit(
            spdx=asset.spdx,
            licence_class=asset.licence_class,
            licence_url=asset.licence_url,
            attribution=asset.attribution,
            author=asset.author,
            source_url=asset.source_url,
            checked_on=asset.checked_on,
        ),
        rendering=Rendering(
            rig=clip.rig,
            quality=clip.quality,
            seed=clip.seed,
            blender_version=clip.blender_version,
            device=clip.device,
            settings=clip.settings,
        ),
        parts=tuple(
            Strip(name=part.name, num_bytes=part.num_bytes, sha256=part.sha256)
            for part in sorted(clip.parts, key=lambda part: part.name)
        ),
    )


def _motion(animation: Animation, image_motion: ImageMotion | None) -> Motion:
    names = ("motion_mean", "motion_p95", "path_length", "rigid_share", "loop_gap", "travel")
    return Motion(
        **{name: _finite(getattr(animation, name)) for name in names},
        image_background=image_motion.background if image_motion else "",
        image_m=_finite(image_motion.m) if image_motion else None,
        image_flow_px=_finite(image_motion.flow_px) if image_motion else None,
    )


def _finite(value: float) -> float | None:
    """JSON has no NaN."""
    return value if math.isfinite(value) else None
