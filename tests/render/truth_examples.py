"""Clips with all of their ground truth, from the real stages."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.media import read_view
from pipeline.records import Asset, Clip, ClipPlan, Rejected, Truth
from pipeline.storage import Store
from pipeline.truth_media import PASSES, Tracks, read_flow, read_map, read_tracks
from render.draw import Render
from render.plan import Gate, Plan
from render.probe import ProbeAsset
from render.rigs import RigName
from render.supervisor import BlenderSettings
from render.truth import DrawnClip, GroundTruth
from render.windows import WindowSettings

SIZE_PX = 64
BLENDER = BlenderSettings(sandbox="best")


@dataclass(frozen=True)
class Example:
    """A drawn clip with all of its ground truth."""

    store: Store
    item: DrawnClip
    truth: dict[str, Truth]
    rejected: list[Rejected]

    @property
    def clip(self) -> Clip:
        return self.item.clip

    def map(self, name: str, view: int) -> np.ndarray:
        return read_map(self.store, self.clip, self.truth[name], view).astype(np.float64)

    def flow(self, name: str, view: int) -> tuple[np.ndarray, np.ndarray]:
        flow, state = read_flow(self.store, self.clip, self.truth[name], view)
        return flow.astype(np.float64), state

    def tracks(self) -> Tracks:
        return read_tracks(self.store, self.truth["tracks"])

    def c2w(self, view: int, frame: int) -> np.ndarray:
        clip = self.clip
        cameras = np.array(clip.c2w).reshape(clip.num_views, clip.num_camera_frames, 4, 4)
        camera: np.ndarray = cameras[view, frame % clip.num_camera_frames]
        return camera

    def pose(self, view: int, frame: int) -> int:
        return 0 if self.clip.view_names[view] == "static" else frame

    def alpha(self, view: int) -> np.ndarray:
        return read_view(self.store, self.clip, view)[..., 3]

    def unprojected(self, view: int, frame: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """World points of the pixels that have a depth, with their rows and columns."""
        depth = self.map("depth", view)[frame]
        rows, columns = np.nonzero(~np.isnan(depth))
        fx, fy, cx, cy = self.clip.intrinsics
        rays = np.stack([(columns + 0.5 - cx) / fx, (rows + 0.5 - cy) / fy, np.ones(len(rows))], axis=1)
        c2w = self.c2w(view, frame)
        return rays * depth[rows, columns][:, None] @ c2w[:3, :3].T + c2w[:3, 3], rows, columns


def made(store: Store, asset: Asset, rig: RigName, *, num_frames: int = 4, passes: Any = PASSES) -> Example:
    """Draw the first clip of an asset and make its ground truth."""
    probe = ProbeAsset(data=store.root, blender=BLENDER, windows=WindowSettings(num_frames=num_frames))
    gate = Gate(allow_rigid=True, min_motion=0.0)
    plan = Plan(data=store.root, rig=rig, quality="preview", size_px=SIZE_PX, gate=gate)
    render, truth = Render(data=store.root, blender=BLENDER), GroundTruth(data=store.root, passes=passes)
    (item,) = Plan.inputs(list(probe.process(asset)))
    planned = next(row for row in plan.process(item) if isinstance(row, ClipPlan))
    (clip,) = render.process(planned)
    assert isinstance(clip, Clip), clip
    drawn = DrawnClip(plan=planned, clip=clip)
    rows = list(truth.process(drawn))
    found = {row.name: row for row in rows if isinstance(row, Truth)}
    return Example(store, drawn, found, [row for row in rows if isinstance(row, Rejected)])
