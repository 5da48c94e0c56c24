"""Views of an object that stands still: a clip of one frame, drawn as other clips are."""

import hashlib
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.records import Clip, ClipPlan, Rejected, content_id
from pipeline.storage import Store
from pipeline.tables import Tables
from render.draw import Render
from render.look import Look, QualityName
from render.plan import pixel_settings
from render.protocol import NO_ACTION, BadAsset
from render.rigs import Cameras, RigName, views_of
from render.supervisor import BlenderSettings


@dataclass(frozen=True, kw_only=True)
class StillViews:
    """Cameras and look."""

    rig: RigName = "ortho4"
    size_px: int = 256
    quality: QualityName = "standard"
    cameras: Cameras = field(default_factory=Cameras)
    look: Look = field(default_factory=Look)

    def __post_init__(self) -> None:
        if not 8 <= self.size_px <= 4096:
            raise ValueError(f"size_px must lie in 8..4096, got {self.size_px}")

    def plan(self, asset_id: str, blob: str) -> ClipPlan:
        """The plan of a GLB that stands still."""
        animation_id = content_id(asset_id, "still")
        look = self.look.for_clip(animation_id, self.rig, 0)
        settings = pixel_settings(self.cameras, look, self.quality, self.size_px)
        clip_id = content_id(animation_id, self.rig, settings, 0)
        views = views_of(self.rig, self.cameras, clip_id)
        return ClipPlan(
            clip_id=clip_id,
            animation_id=animation_id,
            asset_id=asset_id,
            blob=blob,
            format="glb",
            main_file="",
            action_index=NO_ACTION,
            action_name="",
            start_s=0.0,
            duration_s=1.0,
            action_duration_s=1.0,
            looped=False,
            rig=self.rig,
            quality=self.quality,
            size_px=self.size_px,
            num_views=len(views),
            num_frames=1,
            fps=1.0,
            seed=0,
            azimuth_deg=views[0].azimuth_deg[0],
            elevation_deg=views[0].elevation_deg,
            settings=settings,
            memory_mb=0,
        )


def draw_still(model: Path, data: str, views: StillViews, blender: BlenderSettings) -> Clip:
    """Draw a GLB, into a data root of its own or any other; what is there is not drawn again.

    Args:
        model: A GLB of plain meshes, as `render.objects.write_still` makes it.
        data: The data root.
        views: Cameras and look.
        blender: How Blender is run.

    Raises:
        BadAsset: Blender cannot draw it.
    """
    store = Store(data)
    with model.open("rb") as file:
        asset_id = hashlib.file_digest(file, "sha256").hexdigest()
    plan = views.plan(asset_id, f"blobs/{asset_id[:2]}/{asset_id}.glb")
    tables, stage = Tables(store), Render(data=data, blender=blender)
    for clip in tables.rows(Clip, "clip_id = ?", [plan.clip_id]):
        if all(store.exists(f"{clip.folder}/{part.name}") for part in clip.parts):
            return clip
    with store.writer(plan.blob) as target, model.open("rb") as file:
        shutil.copyfileobj(file, target, 1 << 20)
    tables.write(ClipPlan, f"still-{plan.clip_id}", [plan], made_by="render.still", made_from=asset_id)
    (row,) = stage.process(plan)
    if isinstance(row, Rejected):
        raise BadAsset(row.reason, row.detail)
    tables.commit(stage, plan.clip_id, [row])
    return row
