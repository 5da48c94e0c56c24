"""Every row that passes between stages. Arrow schemas are derived from these classes and pinned by a test.

A record is a frozen dataclass with a table name and a key. Nested tuples become Arrow lists, nested dataclasses
structs. A changed column raises `SCHEMA_VERSION`.
"""

import dataclasses
import hashlib
import json
import types
import typing
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import pyarrow as pa

from pipeline.reasons import REASONS

SCHEMA_VERSION = 3

LicenceClass = Literal["cc0", "permissive", "by", "by-sa", "by-nc", "by-nc-sa", "other"]


@dataclass(frozen=True, kw_only=True)
class Record:
    """A row of `tables/<table>/`. Equal keys mean equal rows."""

    table: ClassVar[str]
    key: ClassVar[tuple[str, ...]]

    @property
    def row_id(self) -> str:
        """The key as one string, as it stands in `rejected` and `done`."""
        return ":".join(str(getattr(self, name)) for name in self.key)


@dataclass(frozen=True, kw_only=True)
class SourceItem(Record):
    """One entry of an input: a file or URL somebody wants in the data set, with what they say of its licence."""

    table: ClassVar[str] = "items"
    key: ClassVar[tuple[str, ...]] = ("item_id",)

    item_id: str
    seq: int
    """Place in the order of all inputs of this data root, from 0. Decides ties: the first one wins."""
    source: str
    """Where the entry was listed: a folder, a manifest's path, or `samples`."""
    uri: str
    """Absolute path or URL of the file."""
    name: str
    """Short name for people: the path below the folder, or the manifest's `file` or `title`."""
    title: str
    spdx: str
    """Claimed licence as given; empty if none is stated."""
    licence_text: str
    licence_url: str
    author: str
    source_url: str
    """Page where a person can see the asset and its licence."""
    noai: bool | None
    """The author's opt-out from generative AI; None if the source does not say."""
    checked_on: str
    """Date, ISO 8601, on which licence and opt-out were read."""
    evidence: str
    """Where the licence was read: a web address, a file's name with its line, or `command line`; never a whole path."""
    evidence_sha256: str
    """Of what was read there; empty if nothing was."""
    noai_checked_on: str
    """Date, ISO 8601, on which the source was read for an opt-out; empty if it has no place to state one."""
    expected_sha256: str
    """Of the main file; empty if the source does not say."""
    num_bytes: int | None
    """Of the download, as the source states it; None if it does not."""
    tags: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Asset(Record):
    """A 3D file in the blob store, with its licence. Equal bytes listed twice are two rows with one `asset_id`."""

    table: ClassVar[str] = "assets"
    key: ClassVar[tuple[str, ...]] = ("item_id",)

    item_id: str
    seq: int
    asset_id: str
    """sha256 of the stored blob; where there is none, a hash of the data set and of the model's id in it."""
    source: str
    uri: str
    name: str
    title: str
    format: str
    """Lower-case suffix without the dot: glb, gltf, fbx, blend, usd, obj, abc; `rendered` where only pictures of the
    model came in, with `blob` empty then."""
    num_bytes: int
    blob: str
    """Path below the data root. A format with side files is stored as one tar of its folder."""
    main_file: str
    """Name of the file to open inside a tar; empty for a single file."""
    spdx: str
    licence_class: str
    licence_text: str
    licence_url: str
    author: str
    attribution: str
    """One line of credit, ready to print."""
    source_url: str
    noai: bool | None
    checked_on: str
    evidence: str
    """This and the two after it as in the item."""
    evidence_sha256: str
    noai_checked_on: str
    tags: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class LicenceCheck(Record):
    """An item's source, read once more: what it says now. The newest check with changes counts before the asset's row.

    Asset rows stay as they were written, so what was known when stays known.
    """

    table: ClassVar[str] = "licence_checks"
    key: ClassVar[tuple[str, ...]] = ("item_id", "checked_at")

    item_id: str
    checked_at: str
    """Time, ISO 8601, UTC."""
    source_status: str
    """live, gone, private (behind a login, or no longer for download), unlisted (its list is there, without it), or
    unreachable (nothing can be said)."""
    changes: tuple[str, ...]
    """Against what was known before: `licence`, `noai`, `noai_lifted`, `status`. Nothing is taken from a source that
    does not answer."""
    spdx: str
    """This and those below as they are known now: as stated or, where nothing is stated, as before."""
    licence_class: str
    """Empty for a licence that we do not know, which no policy admits."""
    licence_text: str
    licence_url: str
    attribution: str
    noai: bool | None
    evidence: str
    evidence_sha256: str
    noai_checked_on: str
    detail: str
    """What was found, in words."""


@dataclass(frozen=True, kw_only=True)
class TakeDown(Record):
    """Somebody asked for assets to be taken out, and for nothing of the kind to come in again."""

    table: ClassVar[str] = "takedowns"
    key: ClassVar[tuple[str, ...]] = ("takedown_id",)

    takedown_id: str
    kind: str
    """asset, url or author: what `value` is."""
    value: str
    why: str
    asked_on: str
    """Date, ISO 8601."""
    asset_ids: tuple[str, ...]
    """Of the assets that it meant then."""
    urls: tuple[str, ...]
    """Where those were fetched from on the web."""


@dataclass(frozen=True, kw_only=True)
class Inspection(Record):
    """What a glTF says of itself in its JSON alone, before Blender starts."""

    table: ClassVar[str] = "inspections"
    key: ClassVar[tuple[str, ...]] = ("asset_id",)

    asset_id: str
    generator: str
    animation_names: tuple[str, ...]
    durations_s: tuple[float, ...]
    num_nodes: int
    num_meshes: int
    num_skins: int
    num_morph_targets: int
    num_vertices: int
    num_triangles: int
    num_materials: int
    num_images: int
    image_pixels: int
    """Sum over images of width times height, from their headers."""
    extensions_used: tuple[str, ...]
    extensions_required: tuple[str, ...]
    missing_files: tuple[str, ...]
    """Images that are named and absent; the asset is kept and tagged."""


@dataclass(frozen=True, kw_only=True)
class Probe(Record):
    """What Blender found in an asset."""

    table: ClassVar[str] = "probes"
    key: ClassVar[tuple[str, ...]] = ("asset_id",)

    asset_id: str
    blob: str
    format: str
    main_file: str
    """This and the two before it as in the asset: equal for all rows with these bytes."""
    blender_version: str
    num_actions: int
    num_vertices: int
    num_triangles: int
    num_objects: int
    num_materials: int
    num_images: int
    image_pixels: int
    """Sum over the pictures that can be read of width times height."""
    missing_textures: tuple[str, ...]
    family_id: str
    """Hash of the rest geometry: equal for re-uploads and re-textured copies. Splits are drawn by it."""
    scene_fps: float


@dataclass(frozen=True, kw_only=True)
class Animation(Record):
    """One window of one action of an asset, measured on the deformed mesh.

    Lengths are shares of `rest_diagonal`, the diagonal of the box at the action's first frame, unless they say
    otherwise; so a score means the same on an ant and on a ship.
    """

    table: ClassVar[str] = "animations"
    key: ClassVar[tuple[str, ...]] = ("animation_id",)

    animation_id: str
    asset_id: str
    action_index: int
    action_name: str
    window: int
    """0: the action's first seconds; 1: its last, for long actions."""
    start_s: float
    """From the start of the file's timeline."""
    duration_s: float
    """Time from the first to the last frame of the clip, plus one frame step."""
    action_duration_s: float
    num_frames: int
    fps: float
    """Frames a second of the clip: 8 for 16 frames over 2 s; more for a short action that does not loop."""
    looped: bool
    """The action is shorter than the window and was repeated."""
    motion_mean: float
    """Mean over vertices and frames of the distance from the first frame's position."""
    motion_p95: float
    """95th percentile over vertices of the largest distance from the first frame's position."""
    path_length: float
    """Mean over vertices of the length of the way they go."""
    rigid_share: float
    """Share of the motion that one rigid move of the whole object explains, 0..1."""
    loop_gap: float
    """Mean distance between the poses at the action's two ends; 0 is a perfect loop."""
    moving_start_s: float
    moving_end_s: float
    """The span outside of which nothing moves, from the window's start."""
    travel: float
    """Diagonal of the box over all frames, divided by the median of the frames' own diagonals; 1 stays in place."""
    max_jump: float
    """Largest step of the object's centre between neighbouring frames."""
    jump_ratio: float
    """`max_jump` divided by the median step (at least 1 % of the diagonal)."""
    max_stretch: float
    """99.5th percentile over edges and frames of the length relative to the first frame."""
    rest_diagonal: float
    """In the asset's own units."""
    box_min: tuple[float, float, float]
    box_max: tuple[float, float, float]
    """Box over all frames in Blender's world, z up, before normalisation; asset units."""
    finite: bool
    """No vertex position of any frame is NaN or infinite."""
    motion_id: str
    """Hash of geometry and trajectories: equal for the same motion of the same mesh."""


@dataclass(frozen=True, kw_only=True)
class ClipPlan(Record):
    """A clip to render: an animation that passed the gate, with its rig, settings and seed."""

    table: ClassVar[str] = "plans"
    key: ClassVar[tuple[str, ...]] = ("clip_id",)

    clip_id: str
    animation_id: str
    asset_id: str
    blob: str
    format: str
    main_file: str
    action_index: int
    action_name: str
    start_s: float
    duration_s: float
    action_duration_s: float
    looped: bool
    rig: str
    quality: str
    size_px: int
    num_views: int
    num_frames: int
    fps: float
    seed: int
    azimuth_deg: float
    """Of view 0; 0 is in front (Blender's -y), growing counter-clockwise seen from above."""
    elevation_deg: float
    settings: str
    """The look and the rig as JSON: everything else that decides the pixels."""
    memory_mb: int
    """What a renderer is expected to take for it, in MB: so many of them fit on a machine at once."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """A file of a clip or of a sample."""

    name: str
    num_bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Clip(Record):
    """A rendered clip: views by frames of RGBA, with cameras. World: z up, the object inside the unit sphere."""

    table: ClassVar[str] = "clips"
    key: ClassVar[tuple[str, ...]] = ("clip_id",)

    clip_id: str
    animation_id: str
    asset_id: str
    rig: str
    quality: str
    num_views: int
    num_frames: int
    width: int
    height: int
    fps: float
    seed: int
    azimuth_deg: float
    elevation_deg: float
    view_names: tuple[str, ...]
    """One name a view: `view_00`..., or `orbit` and `static` for an orbit and its frozen twin."""
    c2w: tuple[float, ...]
    """OpenCV camera-to-world, row-major, shape (view, camera frame, 4, 4). Camera frames: `num_camera_frames`."""
    num_camera_frames: int
    """1 where cameras stand still, `num_frames` where they move."""
    intrinsics: tuple[float, float, float, float]
    """fx, fy, cx, cy in pixels; the pixel centre of the top left pixel is (0.5, 0.5)."""
    world_scale: float
    """world = world_scale * (asset_point - world_centre), asset points in Blender's z-up frame; NaN if not known."""
    world_centre: tuple[float, float, float]
    folder: str
    """`clips/ab/<clip_id>` below the data root."""
    parts: tuple[Part, ...]
    """The files in `folder`: a vertical strip of frames a view, `v00.webp`, ..."""
    texture_limit_px: int
    """The asset's pictures were scaled down to so many pixels a side, for it did not fit into the renderer's memory
    limit otherwise; 0 if they are as they came."""
    blender_version: str
    device: str
    """What drew it: `CPU`, or the way to use a GPU and its name. Only the processor draws the same bytes each time."""
    settings: str
    """As in the plan, with what the renderer resolved; of an imported clip, what was told and what was assumed."""
    backdrop: str
    """`#rrggbb` that the object stands before where the pictures have no alpha (it is 255 everywhere then), measured on
    their rims; empty for pictures with alpha, which all of our own are."""


@dataclass(frozen=True, kw_only=True)
class Truth(Record):
    """One pass of ground truth for a clip: what is known of each pixel beside its colour. docs/ground_truth.md."""

    table: ClassVar[str] = "truth"
    key: ClassVar[tuple[str, ...]] = ("clip_id", "name")

    clip_id: str
    name: str
    """The pass: depth, normal, flow_forward, ..."""
    format: str
    """`mv4d-truth/1`."""
    folder: str
    """`clips/ab/<clip_id>` below the data root, where the clip's own files are."""
    parts: tuple[Part, ...]
    """The files in `folder`: a vertical strip of frames a view, `v00.depth.png`, ..., or `tracks.npz`."""
    offset: float
    step: float
    """value = offset + step * stored; nothing is stored as 0 in all channels. Not for tracks."""
    names: tuple[str, ...]
    """Of objects or materials, by their number; empty for other passes."""
    mask_iou: float
    """How well the surface that all passes are made from agrees with the pictures: pixels whose centre it covers, and
    pixels of at least half alpha; common ones as a share of all. 0..1."""
    num_seen: int
    """Pixels with a value, over all views and frames; vertices times frames for tracks."""


@dataclass(frozen=True, kw_only=True)
class Caption(Record):
    """Words about a clip, and where they came from. A clip may have several: `shards.captions` says which is packed."""

    table: ClassVar[str] = "captions"
    key: ClassVar[tuple[str, ...]] = ("clip_id", "source")

    clip_id: str
    kind: str
    """`file`: joined from a list, such as Cap3D's. `model`: a video-language model looked at the clip. `data_set`: of
    the data set that the clip was imported from. `prompt`: what the clip was generated from; not packed. Captions made
    of names and tags are not stored: packing makes them."""
    source: str
    """Which file, model or data set; `generated` for a prompt."""
    text: str
    about: str
    """What led from the list to the clip: `uid 2a7f…`, `sha256 …`; empty for other kinds."""


@dataclass(frozen=True, kw_only=True)
class ImageMotion(Record):
    """How much the pictures of a clip move."""

    table: ClassVar[str] = "image_motion"
    key: ClassVar[tuple[str, ...]] = ("clip_id",)

    clip_id: str
    background: str
    """What the pictures were composed on: part of the score's meaning."""
    m: float
    """Mean square difference to the object frozen at the first frame (Diffusion4D, arXiv:2405.16645, eq. 1), 0..1."""
    m_floor: float
    """The same for the first frame itself, which shows the frozen object: render noise. Already part of `m`."""
    m_object: float
    """`m` over the pixels that the object covers: does not shrink with a small object."""
    ssim_still: float
    """Smaller of two front-view SSIMs, frame 0 to T/4 and 0 to T/2. Above 0.95 is still (same paper, section 3.1)."""
    flow_px: float
    """Mean optical flow between neighbouring frames over the object, pixels a frame at 256 px."""


@dataclass(frozen=True, kw_only=True)
class Visibility(Record):
    """How the object sits in the pictures of a clip."""

    table: ClassVar[str] = "visibility"
    key: ClassVar[tuple[str, ...]] = ("clip_id",)

    clip_id: str
    coverage_min: float
    coverage_mean: float
    coverage_max: float
    """Share of the picture that the object covers, over views and frames, 0..1."""
    border_touch: float
    """Share of (view, frame) pictures whose border pixels the object touches, 0..1."""


@dataclass(frozen=True, kw_only=True)
class Appearance(Record):
    """What the object looks like: blank, flat, and its fingerprint."""

    table: ClassVar[str] = "appearance"
    key: ClassVar[tuple[str, ...]] = ("clip_id",)

    clip_id: str
    luminance_mean: float
    contrast: float
    """Standard deviation of luminance over the object's pixels, 0..1."""
    colourfulness: float
    """Hasler and Süsstrunk 2003, over the object's pixels."""
    magenta_share: float
    """Share of the object's pixels in Blender's missing-texture colour."""
    fingerprint: str
    """Perceptual hash over view 0's first, middle and last frame, hexadecimal."""


@dataclass(frozen=True, kw_only=True)
class Decision(Record):
    """Whether a scored clip is kept. The result of a query: each run of it replaces the whole table."""

    table: ClassVar[str] = "decisions"
    key: ClassVar[tuple[str, ...]] = ("clip_id",)

    clip_id: str
    preset: str
    """`name@hash` of the rules that decided."""
    keep: bool
    reason: str
    """The first failing rule's, in the preset's order; empty if the clip is kept."""
    reasons: tuple[str, ...]
    """Those of all failing rules, each once."""


@dataclass(frozen=True, kw_only=True)
class SamplePart:
    """A member of a shard's tar."""

    name: str
    """Without the key: `json`, `v00.webp`, ..."""
    offset: int
    """Of the first data byte in the tar."""
    num_bytes: int
    crc32: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Sample(Record):
    """One training example in a shard: the index for exact random access."""

    table: ClassVar[str] = "samples"
    key: ClassVar[tuple[str, ...]] = ("sample_key",)

    sample_key: str
    clip_id: str
    asset_id: str
    shard: str
    """Path below the data root: `shards/<licence class>/<split>/mv-000000.tar`."""
    split: str
    licence_class: str
    offset: int
    """Of the sample's first tar header."""
    num_bytes: int
    """To the end of its last member, padding included."""
    parts: tuple[SamplePart, ...]


@dataclass(frozen=True, kw_only=True)
class Rejected(Record):
    """An input that a stage turned away, with a countable reason and enough to act on."""

    table: ClassVar[str] = "rejected"
    key: ClassVar[tuple[str, ...]] = ("stage", "rejected_id")

    rejected_id: str
    """Id of what was turned away: item, asset, animation or clip."""
    stage: str
    reason: str
    """A key of `pipeline.reasons.REASONS`."""
    detail: str
    name: str
    """The file: the item's name or, for what is known by its content, the blob; then the action. `rejected_named` shows
    the item's name for both."""

    def __post_init__(self) -> None:
        if self.reason not in REASONS:
            raise ValueError(f"unknown reason {self.reason!r}; add it to pipeline/reasons.py")


@dataclass(frozen=True, kw_only=True)
class Done(Record):
    """The ledger: a stage has dealt with an input under these settings. Written last, read by resume."""

    table: ClassVar[str] = "done"
    key: ClassVar[tuple[str, ...]] = ("stage", "settings_id", "input_id")

    stage: str
    settings_id: str
    input_id: str
    num_rows: int
    num_rejected: int


@dataclass(frozen=True, kw_only=True)
class StageSettings(Record):
    """The resolved settings behind a `settings_id`."""

    table: ClassVar[str] = "settings"
    key: ClassVar[tuple[str, ...]] = ("stage", "settings_id")

    stage: str
    settings_id: str
    settings: str
    """JSON."""


RECORDS: tuple[type[Record], ...] = (
    SourceItem, Asset, LicenceCheck, TakeDown, Inspection, Probe, Animation, ClipPlan, Clip, Truth, Caption,
    ImageMotion, Visibility, Appearance, Decision, Sample, Rejected, Done, StageSettings,
)  # fmt: skip


def arrow_type(annotation: Any) -> pa.DataType:
    """The Arrow type of a field's annotation.

    Raises:
        TypeError: No Arrow type is defined for it.
    """
    plain = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}
    if annotation in plain:
        return plain[annotation]
    if dataclasses.is_dataclass(annotation):
        return pa.struct([_arrow_field(field) for field in _typed_fields(typing.cast(type, annotation))])
    if typing.get_origin(annotation) is tuple:
        return pa.list_(arrow_type(typing.get_args(annotation)[0]))
    raise TypeError(f"no Arrow type for {annotation}")


_SCHEMAS: dict[type[Record], pa.Schema] = {}


def arrow_schema(record: type[Record]) -> pa.Schema:
    """The Arrow schema of a record's table; its metadata name the record and the schema version."""
    if record not in _SCHEMAS:
        metadata = {"record": record.__name__, "schema_version": str(SCHEMA_VERSION)}
        _SCHEMAS[record] = pa.schema([_arrow_field(field) for field in _typed_fields(record)], metadata=metadata)
    return _SCHEMAS[record]


def to_table(rows: list[Record], record: type[Record]) -> pa.Table:
    """Rows of one record type as an Arrow table.

    Raises:
        ValueError: A column that must have a value is None in some row.
    """
    table = pa.Table.from_pylist([dataclasses.asdict(row) for row in rows], schema=arrow_schema(record))
    for field, column in zip(table.schema, table.columns, strict=True):
        if column.null_count and not field.nullable:
            raise ValueError(f"{record.__name__}.{field.name} must not be None")
    return table


def from_dict(record: type[Any], values: dict[str, Any]) -> Any:
    """A record (or nested dataclass) from a row as Arrow or JSON gives it; unknown columns are passed over."""
    known = {}
    for name, annotation in _typed_fields(record):
        known[name] = _from_value(annotation, values[name])
    return record(**known)


def content_id(*parts: object, length: int = 16) -> str:
    """Hexadecimal id of the parts: equal parts, equal id, on any machine."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def _typed_fields(record: type) -> list[tuple[str, Any]]:
    hints = typing.get_type_hints(record)
    return [(field.name, hints[field.name]) for field in dataclasses.fields(record)]


def _split_optional(annotation: Any) -> tuple[Any, bool]:
    if typing.get_origin(annotation) in (types.UnionType, typing.Union):
        inner = [arg for arg in typing.get_args(annotation) if arg is not type(None)]
        return inner[0], True
    return annotation, False


def _arrow_field(field: tuple[str, Any]) -> pa.Field:
    annotation, optional = _split_optional(field[1])
    return pa.field(field[0], arrow_type(annotation), nullable=optional)


def _from_value(annotation: Any, value: Any) -> Any:
    annotation, optional = _split_optional(annotation)
    if value is None and optional:
        return None
    if typing.get_origin(annotation) is tuple:
        inner = typing.get_args(annotation)[0]
        return tuple(_from_value(inner, entry) for entry in value)
    if dataclasses.is_dataclass(annotation):
        return from_dict(typing.cast(type, annotation), value)
    return value
