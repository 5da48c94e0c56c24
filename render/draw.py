"""Draw planned clips in Blender and store them: a WebP strip a view, and `clip.json`."""

import dataclasses
import hashlib
import json
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from PIL import Image

from pipeline.cameras import pinhole
from pipeline.media import strip_name
from pipeline.records import Clip, ClipPlan, Part, Record, Rejected
from pipeline.stage import Stage, rejected
from render.environments import blob_of
from render.look import Look, Quality
from render.protocol import BadAsset, Draw, Drawn, View
from render.rigs import Cameras, RigView, views_of
from render.scratch import empty
from render.supervisor import BlenderChild, BlenderSettings, child_for, close_child
from render.windows import frame_times

logger = logging.getLogger("mv4d.render")

MAX_OUTSIDE_PX = 1.0
"""The framing puts every vertex into the picture; more than rounding outside it means that something is amiss."""


@dataclass(frozen=True, kw_only=True)
class Render(Stage[ClipPlan, Clip]):
    """One `Clip` a plan, with its files under `clips/`. All that decides the pixels is in the plan.

    For each clip a log record of `mv4d.render` carries `event`, a dict of the seconds spent on loading, drawing,
    preparing, encoding and writing.
    """

    name: ClassVar[str] = "render.draw"
    version: ClassVar[int] = 1
    writes: ClassVar[tuple[type[Record], ...]] = (Clip,)
    resource: ClassVar[Literal["io", "cpu", "blender"]] = "blender"
    machine_fields: ClassVar[frozenset[str]] = frozenset({"data", "blender"})

    blender: BlenderSettings = field(default_factory=BlenderSettings)

    @classmethod
    def inputs(cls, rows: Sequence[Record]) -> list[ClipPlan]:
        """The plans."""
        return [row for row in rows if isinstance(row, ClipPlan)]

    def memory_mb(self, plan: ClipPlan) -> float:
        """As planned."""
        return plan.memory_mb

    def process(self, plan: ClipPlan) -> Iterator[Clip | Rejected]:
        """Yield the clip of a plan."""
        child = child_for(self.blender)
        try:
            yield child.settle_in_memory(lambda limit_px: self._draw(child, plan, limit_px))
        except BadAsset as error:
            name = f"{plan.blob}: {plan.action_name}"
            yield rejected(self, plan.clip_id, error.reason, error.detail, name)

    def close(self) -> None:
        """End this worker's Blender."""
        close_child(self.blender)

    def order(self, child: BlenderChild, shot: "Shot") -> Draw:
        """What to ask of a child that has the shot's asset loaded, and whose device was asked for before."""
        device = child.device_for(shot.look.engine).device
        request = dataclasses.replace(shot.request(str(child.out), self.blender.threads), device=device)
        if request.light.picture:
            picture = child.lend(blob_of(request.light.picture), self.store)
            request = dataclasses.replace(request, light=dataclasses.replace(request.light, picture=str(picture)))
        return request

    def _draw(self, child: BlenderChild, plan: ClipPlan, texture_limit_px: int) -> Clip:
        clock, shot = _Clock(), Shot.of(plan)
        device = child.device_for(shot.look.engine).device
        child.load(plan, self.store, texture_limit_px)
        clock.lap("load_s")
        empty(child.out)
        drawn: Drawn = child.call(self.order(child, shot))
        clock.lap("child_s")
        if drawn.outside_px > MAX_OUTSIDE_PX and shot.cameras.framing == "all_frames":
            raise BadAsset("out_of_frame", f"{drawn.outside_px:.1f} px outside of the picture")
        strips = [shot.look.encode(read_pictures(child.out, view.name, plan)) for view in shot.views]
        empty(child.out)
        clock.lap("encode_s")
        version = child.welcome.blender_version if child.welcome else ""
        clip = shot.clip(drawn, strips, blender_version=version, device=device.label, texture_limit_px=texture_limit_px)
        self.store.remove_partial(clip.folder)
        for part, strip in zip(clip.parts, strips, strict=True):
            self.store.write_bytes(f"{clip.folder}/{part.name}", strip)
        text = json.dumps(dataclasses.asdict(clip), sort_keys=True, indent=1)
        self.store.write_bytes(f"{clip.folder}/clip.json", text.encode())
        clock.lap("write_s")
        event = {
            "kind": "clip_drawn",
            "clip_id": plan.clip_id,
            "num_images": plan.num_views * plan.num_frames,
            "draw_s": round(drawn.draw_s, 4),
            "prepare_s": round(drawn.prepare_s, 4),
            **clock.laps,
        }
        logger.info("drew %s of %s", plan.action_name, plan.blob, extra={"event": event})
        return clip


class _Clock:
    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.monotonic()

    def lap(self, name: str) -> None:
        now = time.monotonic()
        self.laps[name] = round(now - self._last, 4)
        self._last = now


@dataclass(frozen=True, kw_only=True)
class Shot:
    """A plan with its settings read and its cameras placed."""

    plan: ClipPlan
    cameras: Cameras
    look: Look
    quality: Quality
    views: tuple[RigView, ...]

    @classmethod
    def of(cls, plan: ClipPlan) -> "Shot":
        """The shot of a plan."""
        settings = json.loads(plan.settings)
        cameras = Cameras(**settings["cameras"])
        return cls(
            plan=plan,
            cameras=cameras,
            look=Look.of(settings["look"]),
            quality=Quality.of(settings["quality"]),
            views=views_of(plan.rig, cameras, plan.clip_id),
        )

    @property
    def times_s(self) -> list[float]:
        """When the frames are, on the file's timeline."""
        plan = self.plan
        return frame_times(
            start_s=plan.start_s,
            duration_s=plan.duration_s,
            num_frames=plan.num_frames,
            action_duration_s=plan.action_duration_s,
            looped=plan.looped,
        )

    def request(self, out_folder: str, threads: int) -> Draw:
        """What to ask of Blender."""
        plan = self.plan
        return Draw(
            action_index=plan.action_index,
            times_s=self.times_s,
            views=[
                View(name=view.name, c2w=self._c2w(view).reshape(-1, 16).tolist(), frozen=view.frozen)
                for view in self.views
            ],
            size_px=plan.size_px,
            fov_deg=self.cameras.fov_deg,
            samples=self.quality.samples,
            denoise=self.quality.denoise,
            paths=self.quality.paths,
            light=self.look.light(plan.clip_id),
            view_transform=self.look.view_transform,
            engine=self.look.engine,
            framing=self.cameras.framing,
            seed=int(plan.clip_id[:7], 16),
            threads=threads,
            out_folder=out_folder,
        )

    def clip(
        self, drawn: Drawn, strips: Sequence[bytes], *, blender_version: str, device: str, texture_limit_px: int
    ) -> Clip:
        """The record of what was drawn."""
        plan = self.plan
        c2w = np.stack([self._c2w(view) for view in self.views])
        x, y, z = drawn.world_centre
        return Clip(
            clip_id=plan.clip_id,
            animation_id=plan.animation_id,
            asset_id=plan.asset_id,
            rig=plan.rig,
            quality=plan.quality,
            num_views=len(self.views),
            num_frames=plan.num_frames,
            width=plan.size_px,
            height=plan.size_px,
            fps=plan.fps,
            seed=plan.seed,
            azimuth_deg=plan.azimuth_deg,
            elevation_deg=plan.elevation_deg,
            view_names=tuple(view.name for view in self.views),
            c2w=tuple(c2w.ravel().tolist()),
            num_camera_frames=c2w.shape[1],
            intrinsics=pinhole(self.cameras.fov_deg, plan.size_px),
            world_scale=drawn.world_scale,
            world_centre=(x, y, z),
            folder=f"clips/{plan.clip_id[:2]}/{plan.clip_id}",
            parts=tuple(
                Part(name=strip_name(view), num_bytes=len(strip), sha256=hashlib.sha256(strip).hexdigest())
                for view, strip in enumerate(strips)
            ),
            texture_limit_px=texture_limit_px,
            blender_version=blender_version,
            device=device,
            settings=json.dumps(json.loads(plan.settings) | {"light": self._light(drawn)}, sort_keys=True),
            backdrop="",
        )

    def _light(self, drawn: Drawn) -> dict[str, Any]:
        """What shone: the drawn values of the rig, or that it was the asset's own."""
        if drawn.own_light:
            return {"own": True}
        return dataclasses.asdict(self.look.light(self.plan.clip_id)) | {"own": False}

    def _c2w(self, view: RigView) -> np.ndarray:
        return view.c2w(self.cameras.radius)


def read_pictures(folder: Path, view_name: str, plan: ClipPlan) -> np.ndarray:
    """The pictures of a view, shape (frame, height, width, 4), uint8, straight alpha.

    Raises:
        RuntimeError: A picture is not as it was ordered.
    """
    frames = []
    for frame in range(plan.num_frames):
        path = folder / f"{view_name}_{frame:03d}.png"
        with Image.open(path, formats=("PNG",)) as image:
            if image.size != (plan.size_px, plan.size_px) or image.mode != "RGBA":
                raise RuntimeError(f"{path.name}: {image.size} {image.mode} instead of {plan.size_px} px RGBA")
            frames.append(np.asarray(image))
    return np.stack(frames)
