"""Ground truth for clips: a stage of its own, so that pictures and ids do not depend on it, and it can come later."""

import hashlib
import importlib.util
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from pipeline.media import read_view
from pipeline.records import Clip, ClipPlan, Part, Record, Rejected, Truth
from pipeline.stage import Stage, rejected
from pipeline.truth_media import (
    FLOW,
    FLOWS,
    FORMAT,
    NO_FLOW,
    NORMAL,
    NORMALS,
    NUMBER,
    PASSES,
    TRACKS_NAME,
    PassName,
    Scale,
    encode_flow,
    encode_map,
    encode_tracks,
    map_name,
    scale_between,
)
from render.draw import Shot
from render.protocol import BadAsset, Trace, Traced
from render.scratch import empty
from render.supervisor import BlenderChild, BlenderSettings, child_for, close_child
from render.surfaces import Moving, read_moving

if TYPE_CHECKING:
    from render.passes import Scenery, ViewTruth

logger = logging.getLogger("mv4d.render")

CORRESPONDING: tuple[PassName, ...] = (*FLOWS, "coordinates", "tracks")
"""Passes that need to know which vertex is which from frame to frame."""
DRAWN_ALPHA = 128
"""Least alpha, of 255, of a pixel that the object covers by half."""


@dataclass(frozen=True, kw_only=True)
class DrawnClip:
    """A clip, and the plan by which it was drawn."""

    plan: ClipPlan
    clip: Clip

    @property
    def asset_id(self) -> str:
        """The asset's."""
        return self.clip.asset_id


@dataclass(frozen=True, kw_only=True)
class GroundTruth(Stage[DrawnClip, Truth]):
    """One `Truth` a pass, with its files in the clip's folder.

    The child is asked for the deformed surfaces only; the rest is geometry.
    """

    name: ClassVar[str] = "render.truth"
    version: ClassVar[int] = 1
    writes: ClassVar[tuple[type[Record], ...]] = (Truth,)
    resource: ClassVar[Literal["io", "cpu", "blender"]] = "blender"
    machine_fields: ClassVar[frozenset[str]] = frozenset({"data", "blender"})
    side: ClassVar[bool] = True

    passes: tuple[PassName, ...]
    blender: BlenderSettings = field(default_factory=BlenderSettings)

    def __post_init__(self) -> None:
        if not self.passes or not set(self.passes) <= set(PASSES):
            raise ValueError(f"passes must be some of {', '.join(PASSES)}, got {self.passes}")
        if importlib.util.find_spec("embreex") is None:
            raise ValueError("ground truth needs embreex (mv4d[data]), of which there are wheels for x86-64 only")

    @classmethod
    def inputs(cls, rows: Sequence[Record]) -> list[DrawnClip]:
        """The clips that stand beside their plans."""
        plans = {row.clip_id: row for row in rows if isinstance(row, ClipPlan)}
        clips = [row for row in rows if isinstance(row, Clip)]
        return [DrawnClip(plan=plans[clip.clip_id], clip=clip) for clip in clips if clip.clip_id in plans]

    @classmethod
    def input_id(cls, item: Any) -> str:
        """The clip's id."""
        return str(item.clip.clip_id)

    def memory_mb(self, item: DrawnClip) -> float:
        """As planned for the drawing, which needs more."""
        return item.plan.memory_mb

    def process(self, item: DrawnClip) -> Iterator[Truth | Rejected]:
        """Yield the passes of a clip; those that its geometry does not allow are turned away one by one."""
        child = child_for(self.blender)
        name = f"{item.plan.blob}: {item.plan.action_name}"
        try:
            moving = child.settle_in_memory(lambda limit_px: self._trace(child, item, limit_px))
        except BadAsset as error:
            yield rejected(self, item.clip.clip_id, error.reason, error.detail, name)
            return
        impossible = what_there_is_not(moving, item.clip.num_views)
        for wanted in self.passes:
            if wanted in impossible:
                row_id = f"{item.clip.clip_id}:{wanted}"
                yield rejected(self, row_id, "no_such_truth", impossible[wanted], name)
        yield from self._compute(item, moving, [wanted for wanted in self.passes if wanted not in impossible])

    def close(self) -> None:
        """End this worker's Blender."""
        close_child(self.blender)

    def _trace(self, child: BlenderChild, item: DrawnClip, texture_limit_px: int) -> Moving:
        plan, clip = item.plan, item.clip
        child.load(plan, self.store, texture_limit_px)
        order = Trace(
            action_index=plan.action_index,
            times_s=Shot.of(plan).times_s,
            world_scale=clip.world_scale,
            world_centre=list(clip.world_centre),
            normals=self.with_normals,
            out_folder=str(child.out),
        )
        return surfaces_of(child, order)

    @property
    def with_normals(self) -> bool:
        """A pass needs the surfaces' normals."""
        return bool(set(self.passes) & set(NORMALS))

    def _compute(self, item: DrawnClip, moving: Moving, wanted: Sequence[PassName]) -> Iterator[Truth]:
        # With Embree, which only this stage needs.
        from render.passes import agreement

        began = time.monotonic()
        clip = item.clip
        scenery = scenery_of(item, moving)
        scales = scales_of(scenery, wanted)
        parts: dict[str, list[Part]] = {name: [] for name in wanted}
        num_seen = dict.fromkeys(wanted, 0)
        masks = []
        for view in range(clip.num_views):
            encoded = encoded_view(scenery, view, read_view(self.store, clip, view)[..., 3], scales)
            masks.append(encoded.mask)
            for name, content in encoded.maps.items():
                parts[name].append(self._write(clip, map_name(view, name), content))
                num_seen[name] += encoded.num_seen[name]
        if "tracks" in wanted:
            content = encoded_tracks(moving)
            parts["tracks"].append(self._write(clip, TRACKS_NAME, content))
            num_seen["tracks"] = len(moving.poses) * len(moving.poses[0].positions)
        names = {"object": moving.object_names, "material": moving.material_names}
        event = {"kind": "truth_made", "clip_id": clip.clip_id, "seconds": round(time.monotonic() - began, 4)}
        logger.info("ground truth of %s", clip.clip_id, extra={"event": event})
        for name in wanted:
            yield Truth(
                clip_id=clip.clip_id,
                name=name,
                format=FORMAT,
                folder=clip.folder,
                parts=tuple(parts[name]),
                offset=scales[name].offset,
                step=scales[name].step,
                names=names.get(name, ()),
                mask_iou=round(agreement(masks), 6),
                num_seen=num_seen[name],
            )

    def _write(self, clip: Clip, name: str, content: bytes) -> Part:
        self.store.write_bytes(f"{clip.folder}/{name}", content)
        return Part(name=name, num_bytes=len(content), sha256=hashlib.sha256(content).hexdigest())


def surfaces_of(child: BlenderChild, order: Trace) -> Moving:
    """The deformed surfaces of an asset that the child has loaded; they are written to its own folder.

    Raises:
        BadAsset: As `call`; or what was written is not what was ordered.
    """
    empty(child.out)
    traced: Traced = child.call(order)
    moving = read_moving(child.out, traced, num_poses=len(order.times_s), normals=order.normals)
    empty(child.out)
    return moving


def what_there_is_not(moving: Moving, num_views: int) -> dict[str, str]:
    """The passes that surfaces and cameras do not allow, and why."""
    impossible: dict[str, str] = {}
    if not moving.same_vertices:
        impossible |= dict.fromkeys(CORRESPONDING, "vertices come and go between frames")
    if num_views == 1:
        impossible |= dict.fromkeys(("view_flow_forward", "view_flow_backward"), "there is one view only")
    return impossible


def scenery_of(item: DrawnClip, moving: Moving) -> "Scenery":
    """The surfaces of a clip before its cameras."""
    from render.passes import Scenery

    clip = item.clip
    c2w = np.array(clip.c2w).reshape(clip.num_views, clip.num_camera_frames, 4, 4)
    frames = np.arange(clip.num_frames)
    frozen = np.array([view.frozen for view in Shot.of(item.plan).views])
    return Scenery(
        moving=moving,
        c2w=np.broadcast_to(c2w, (clip.num_views, clip.num_frames, 4, 4)),
        pose_of=np.where(frozen[:, None], 0, frames[None, :]),
        intrinsics=clip.intrinsics,
        width=clip.width,
        height=clip.height,
    )


@dataclass(frozen=True, kw_only=True)
class EncodedView:
    """The maps of a view."""

    maps: dict[PassName, bytes]
    num_seen: dict[PassName, int]
    """Pixels that have a value."""
    mask: tuple[int, int]
    """Pixels that both the surface and the picture cover, and that one of them does."""


def encoded_view(
    scenery: "Scenery", view: int, alpha: npt.NDArray[np.uint8], scales: Mapping[PassName, Scale]
) -> EncodedView:
    """Compute and encode the maps of a view.

    Args:
        scenery: The surfaces before the cameras.
        view: Which camera.
        alpha: Of the pictures, shape (frame, height, width).
        scales: Of the passes that are wanted; tracks are left out.
    """
    from render.passes import ViewTruth

    truth = ViewTruth.of(scenery, view)
    covered, drawn = truth.mask(), alpha >= DRAWN_ALPHA
    # Where nothing at all is drawn, a hole was not understood.
    truth = truth.where(alpha > 0)
    maps: dict[PassName, bytes] = {}
    num_seen: dict[PassName, int] = {}
    for name, scale in scales.items():
        if name != "tracks":
            maps[name], num_seen[name] = _encoded(truth, name, scale)
    return EncodedView(maps=maps, num_seen=num_seen, mask=(int((covered & drawn).sum()), int((covered | drawn).sum())))


def scales_of(scenery: "Scenery", wanted: Sequence[PassName]) -> dict[PassName, Scale]:
    """How passes are stored in a clip."""
    return {name: _scale_of(name, scenery.c2w, scenery.moving.reach) for name in wanted}


def _scale_of(name: str, c2w: np.ndarray, reach: float) -> Scale:
    """How a pass is stored in a clip whose object lies within `reach` of the origin."""
    if name == "depth":
        distances = np.linalg.norm(c2w[..., :3, 3], axis=-1)
        return scale_between(max(float(distances.min()) - reach, 0.0), float(distances.max()) + reach)
    if name in NORMALS:
        return NORMAL
    if name in ("object", "material"):
        return NUMBER
    return FLOW if name in FLOWS else scale_between(-reach, reach)


def _encoded(truth: "ViewTruth", name: PassName, scale: Scale) -> tuple[bytes, int]:
    """A view's strip, and how many pixels have a value."""
    if name in FLOWS:
        flow, state = truth.flow(name)
        return encode_flow(flow, state), int((state != NO_FLOW).sum())
    values = truth.values(name)
    stored = scale.stored(values)
    return encode_map(stored), int((~np.isnan(values if values.ndim == 3 else values[..., 0])).sum())


def encoded_tracks(moving: Moving) -> bytes:
    """All surfaces, as one archive."""
    surface = moving.poses[0].surface
    positions = np.stack([pose.positions for pose in moving.poses])
    return encode_tracks(positions, surface.triangles, surface.objects, surface.materials)
