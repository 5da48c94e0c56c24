"""Judge the measured animations of an asset and plan a clip for each that is worth drawing."""

import dataclasses
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from pipeline.media import MAX_STRIP_PX
from pipeline.records import Animation, ClipPlan, Probe, Record, Rejected, content_id
from pipeline.stage import Stage, rejected
from render.footprint import drawing_mb
from render.look import QUALITIES, Look, QualityName
from render.rigs import RIGS, Cameras, RigName, views_of
from render.windows import WindowSettings


@dataclass(frozen=True, kw_only=True)
class AnimatedAsset:
    """An asset with all of its measured animations."""

    probe: Probe
    animations: tuple[Animation, ...]

    @property
    def asset_id(self) -> str:
        """The asset's."""
        return self.probe.asset_id


@dataclass(frozen=True, kw_only=True)
class Gate:
    """What an animation must be like to be drawn; the measures are explained in `Animation`.

    The limits lie in gaps between some 500 measured animations of 57 assets. Real idles reach a `motion_p95` of 0.008,
    what does not move has 0. Fish that are tossed in the air jump by 0.7 at 2.2 usual steps, a stray key by hundreds. A
    falling fish is 0.977 rigid, a turning cube 1.
    """

    min_motion: float = 0.005
    """Least `motion_p95`, or five times the least `motion_mean`: that is what a small part reaches that moves far."""
    allow_rigid: bool = False
    """Draw what only turns or slides as one piece."""
    max_rigid_share: float = 0.995
    """Above this share of its motion an animation counts as rigid."""
    max_travel: float = 3.0
    """Largest `travel`: beyond it the object is a speck in the picture."""
    max_jump: float = 0.5
    max_jump_ratio: float = 8.0
    """A teleport is a `max_jump` above the one with a `jump_ratio` above the other."""
    max_stretch: float = 50.0
    """Largest `max_stretch`: edges that grow more are torn skin. Sound animations of real assets reach 6, springs and
    pistons 20, a skin with one bone far away hundreds."""
    min_duration_s: float = 0.2
    """Least length of the stretch of time that a clip shows."""

    def __post_init__(self) -> None:
        limits = dataclasses.asdict(self)
        if any(value < 0 for value in limits.values()) or self.max_rigid_share > 1:
            raise ValueError(f"limits must not be negative, nor max_rigid_share above 1, got {limits}")

    def verdict(self, animation: Animation) -> tuple[str, str] | None:
        """The first reason to turn an animation away, and the number that gives it; None if there is none."""
        a = animation
        still = max(a.motion_p95, 5 * a.motion_mean) < self.min_motion
        teleports = a.max_jump > self.max_jump and a.jump_ratio > self.max_jump_ratio
        checks = (
            (not a.finite, "non_finite", "a vertex position is NaN or infinite"),
            (a.duration_s < self.min_duration_s, "too_short", f"{a.duration_s:.3f} s < {self.min_duration_s}"),
            (still, "too_still", f"motion_p95 {a.motion_p95:.5f} < {self.min_motion}, motion_mean {a.motion_mean:.5f}"),
            (teleports, "teleport", f"max_jump {a.max_jump:.3f} > {self.max_jump}, {a.jump_ratio:.1f} usual steps"),
            (a.max_stretch > self.max_stretch, "distorted", f"max_stretch {a.max_stretch:.2f} > {self.max_stretch}"),
            (a.travel > self.max_travel, "leaves_frame", f"travel {a.travel:.2f} > {self.max_travel}"),
            (
                a.rigid_share > self.max_rigid_share and not self.allow_rigid,
                "rigid_only",
                f"rigid_share {a.rigid_share:.4f} > {self.max_rigid_share}",
            ),
        )
        return next(((reason, detail) for failed, reason, detail in checks if failed), None)


@dataclass(frozen=True, kw_only=True)
class Plan(Stage[AnimatedAsset, ClipPlan]):
    """One `ClipPlan` or one `Rejected` for each animation of an asset."""

    name: ClassVar[str] = "render.plan"
    version: ClassVar[int] = 1
    writes: ClassVar[tuple[type[Record], ...]] = (ClipPlan,)
    resource: ClassVar[Literal["io", "cpu", "blender"]] = "io"

    rig: RigName = "mv16"
    cameras: Cameras = field(default_factory=Cameras)
    quality: QualityName = "standard"
    look: Look = field(default_factory=Look)
    size_px: int = 256
    gate: Gate = field(default_factory=Gate)
    max_animations: int = 6
    """Actions of an asset that are drawn; 0 is no limit."""
    choose: Literal["by_seed", "first"] = "by_seed"
    """Which are drawn, where there are more. by_seed: any of those that pass the gate. first: the file's first, and no
    others in their place if the gate turns them away."""
    seed: int = 0

    def __post_init__(self) -> None:
        if not 8 <= self.size_px <= 4096 or self.max_animations < 0:
            raise ValueError(f"need 8 <= size_px <= 4096 and max_animations >= 0, got {self}")
        if self.rig not in RIGS or self.quality not in QUALITIES:
            raise ValueError(f"no such rig or quality: {self.rig}, {self.quality}")
        num_frames = RIGS[self.rig].num_frames or WindowSettings().num_frames
        if self.size_px * num_frames > MAX_STRIP_PX:
            most = MAX_STRIP_PX // num_frames
            raise ValueError(f"a view of {num_frames} frames is one strip, which ends at {most} px a side in WebP")
        if self.choose not in ("by_seed", "first"):
            raise ValueError(f"choose must be by_seed or first, got {self.choose!r}")
        self.cameras.applied_to(RIGS[self.rig])
        if self.look.hdri_folder:
            raise ValueError("the pictures of hdri_folder have to be taken into the data root first")

    @classmethod
    def inputs(cls, rows: Sequence[Record]) -> list[AnimatedAsset]:
        """The assets among the rows, each with its animations in the file's order."""
        animations = sorted(
            (row for row in rows if isinstance(row, Animation)), key=lambda row: (row.action_index, row.window)
        )
        return [
            AnimatedAsset(probe=row, animations=tuple(found for found in animations if found.asset_id == row.asset_id))
            for row in rows
            if isinstance(row, Probe)
        ]

    @classmethod
    def input_id(cls, item: Any) -> str:
        """The asset's id, and a hash of its animations: those that are measured later are another piece of work."""
        return f"{item.probe.asset_id}:{content_id(sorted(row.animation_id for row in item.animations))}"

    def process(self, item: AnimatedAsset) -> Iterator[ClipPlan | Rejected]:
        """Yield a row for each animation."""
        verdicts = self._verdicts(item)
        passed = {row.action_index for row in item.animations if row.animation_id not in verdicts}
        every = {row.action_index for row in item.animations}
        drawn = self._drawn(item.probe.asset_id, every if self.choose == "first" else passed)
        for row in item.animations:
            verdict = verdicts.get(row.animation_id)
            if verdict is None and row.action_index not in drawn:
                verdict = "not_drawn", f"{len(drawn & passed)} of {len(passed)} actions are drawn"
            if verdict is None:
                yield self._clip_plan(item.probe, row)
            else:
                reason, detail = verdict
                yield rejected(self, row.animation_id, reason, detail, f"{item.probe.blob}: {row.action_name}")

    def _verdicts(self, item: AnimatedAsset) -> dict[str, tuple[str, str]]:
        """Reason and detail for each animation that is not worth drawing."""
        verdicts: dict[str, tuple[str, str]] = {}
        first_with: dict[str, Animation] = {}
        for row in item.animations:
            verdict = self.gate.verdict(row)
            if verdict is None:
                first = first_with.setdefault(row.motion_id, row)
                if first is not row:
                    verdict = "duplicate_animation", f"moves like {first.action_name!r}, window {first.window}"
            if verdict is not None:
                verdicts[row.animation_id] = verdict
        return verdicts

    def _drawn(self, asset_id: str, actions: set[int]) -> set[int]:
        """Drawn by hash: what an action is drawn for does not depend on which others there are."""
        order = sorted(actions)
        if self.choose == "by_seed":
            order = sorted(actions, key=lambda index: content_id(asset_id, index, self.seed))
        return set(order[: self.max_animations or None])

    def _clip_plan(self, probe: Probe, row: Animation) -> ClipPlan:
        look = self.look.for_clip(row.animation_id, self.rig, self.seed)
        settings = pixel_settings(self.cameras, look, self.quality, self.size_px)
        clip_id = content_id(row.animation_id, self.rig, settings, self.seed)
        views = views_of(self.rig, self.cameras, clip_id)
        num_frames = RIGS[self.rig].num_frames or row.num_frames
        return ClipPlan(
            clip_id=clip_id,
            animation_id=row.animation_id,
            asset_id=row.asset_id,
            blob=probe.blob,
            format=probe.format,
            main_file=probe.main_file,
            action_index=row.action_index,
            action_name=row.action_name,
            start_s=row.start_s,
            duration_s=row.duration_s,
            action_duration_s=row.action_duration_s,
            looped=row.looped,
            rig=self.rig,
            quality=self.quality,
            size_px=self.size_px,
            num_views=len(views),
            num_frames=num_frames,
            fps=num_frames / row.duration_s,
            seed=self.seed,
            azimuth_deg=views[0].azimuth_deg[0],
            elevation_deg=views[0].elevation_deg,
            settings=settings,
            memory_mb=drawing_mb(probe, size_px=self.size_px, num_frames=num_frames),
        )


def pixel_settings(cameras: Cameras, look: Look, quality: QualityName, size_px: int) -> str:
    """Everything but animation, rig and seed that decides the pixels, numbers instead of names: JSON of a `ClipPlan`.

    Args:
        cameras: As they were asked for.
        look: Of this clip, as `Look.for_clip` gives it.
        quality: Of drawing.
        size_px: A side.
    """
    parts = {
        "cameras": dataclasses.asdict(cameras),
        "look": dataclasses.asdict(look),
        "quality": dataclasses.asdict(QUALITIES[quality]),
        "size_px": size_px,
    }
    return json.dumps(parts, sort_keys=True)
