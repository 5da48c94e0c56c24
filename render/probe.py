"""Open assets in Blender and measure the windows of their actions, before anything is drawn."""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from pipeline.records import Animation, Asset, Probe, Record, Rejected, content_id
from pipeline.stage import Stage, rejected
from render.footprint import measuring_mb
from render.protocol import Action, BadAsset, Loaded, Measure, Measured
from render.supervisor import BlenderChild, BlenderSettings, child_for, close_child
from render.windows import Window, WindowSettings, frame_times, looped, windows_of

Found = Probe | Animation | Rejected


@dataclass(frozen=True, kw_only=True)
class ProbeAsset(Stage[Asset, Probe | Animation]):
    """One `Probe` an asset and one `Animation` a window of each action; nothing is judged by its motion here.

    A crash, hang or leak costs the asset. An action without a length, with an absurd one or beyond `max_actions` is
    turned away by itself.
    """

    name: ClassVar[str] = "render.probe"
    version: ClassVar[int] = 2
    writes: ClassVar[tuple[type[Record], ...]] = (Probe, Animation)
    resource: ClassVar[Literal["io", "cpu", "blender"]] = "blender"
    machine_fields: ClassVar[frozenset[str]] = frozenset({"data", "blender"})

    windows: WindowSettings = field(default_factory=WindowSettings)
    max_actions: int = 200
    """Actions that are measured, in the file's order."""
    max_duration_s: float = 3600.0
    """Longer actions are turned away: their key times are in the wrong unit."""
    blender: BlenderSettings = field(default_factory=BlenderSettings)

    def __post_init__(self) -> None:
        if self.max_actions < 1 or self.max_duration_s <= 0:
            raise ValueError(f"need max_actions >= 1 and max_duration_s > 0, got {self}")

    @classmethod
    def inputs(cls, rows: Sequence[Record]) -> list[Asset]:
        """The assets."""
        return [row for row in rows if isinstance(row, Asset)]

    @classmethod
    def input_id(cls, item: Any) -> str:
        """The same bytes listed twice are one piece of work."""
        return str(item.asset_id)

    def memory_mb(self, asset: Asset) -> float:
        """Estimated by the file's size."""
        return measuring_mb(asset)

    def process(self, asset: Asset) -> Iterator[Found]:
        """Yield what is in an asset."""
        child = child_for(self.blender)
        try:
            yield from child.settle(lambda: self._measure_all(child, asset))
        except BadAsset as error:
            yield rejected(self, asset.asset_id, error.reason, error.detail, asset.blob)

    def close(self) -> None:
        """End this worker's Blender."""
        close_child(self.blender)

    def _measure_all(self, child: BlenderChild, asset: Asset) -> list[Found]:
        loaded = child.load(asset, self.store)
        if loaded.num_vertices == 0:
            raise BadAsset("no_mesh", "")
        if not loaded.actions:
            raise BadAsset("no_animation", "")
        rows: list[Found] = [_probe_row(asset, loaded, child)]
        for action in loaded.actions:
            rows += self._measure_action(child, asset, action)
        return rows

    def _measure_action(self, child: BlenderChild, asset: Asset, action: Action) -> list[Found]:
        first_id = self._animation_id(asset, action, 0)
        name = f"{asset.blob}: {action.name}"
        length = action.end_s - action.start_s
        if action.index >= self.max_actions:
            detail = f"action {action.index} of an asset, of which {self.max_actions} are measured"
            return [rejected(self, first_id, "too_complex", detail, name)]
        if length > self.max_duration_s:
            return [rejected(self, first_id, "absurd_duration", f"{length:.0f} s", name)]
        if length <= 1e-6:
            return [rejected(self, first_id, "too_short", f"all keys are at {action.start_s:.3f} s", name)]
        return [self._measure_window(child, asset, action, window) for window in windows_of(action, self.windows)]

    def _measure_window(self, child: BlenderChild, asset: Asset, action: Action, window: Window) -> Found:
        animation_id = self._animation_id(asset, action, window.index)
        try:
            measured = self._measure(child, action, window)
            repeated = looped(window, measured, self.windows)
            if repeated:
                window, measured = repeated, self._measure(child, action, repeated)
        except BadAsset as error:
            if child.pid is None:  # it takes Blender down: no more of this asset
                raise
            return rejected(self, animation_id, error.reason, error.detail, f"{asset.blob}: {action.name}")
        return self._animation_row(asset, action, window, measured)

    def _measure(self, child: BlenderChild, action: Action, window: Window) -> Measured:
        times = frame_times(
            start_s=window.start_s,
            duration_s=window.duration_s,
            num_frames=self.windows.num_frames,
            action_duration_s=action.end_s - action.start_s,
            looped=window.looped,
        )
        measured: Measured = child.call(Measure(action_index=action.index, times_s=times))
        return measured

    def _animation_id(self, asset: Asset, action: Action, window: int) -> str:
        return animation_id(asset.asset_id, action.name, action.index, window, self.windows)

    def _animation_row(self, asset: Asset, action: Action, window: Window, measured: Measured) -> Animation:
        numbers = dataclasses.asdict(measured)
        for corner in ("box_min", "box_max"):
            x, y, z = numbers[corner]
            numbers[corner] = (x, y, z)
        return Animation(
            animation_id=self._animation_id(asset, action, window.index),
            asset_id=asset.asset_id,
            action_index=action.index,
            action_name=action.name,
            window=window.index,
            start_s=window.start_s,
            duration_s=window.duration_s,
            action_duration_s=action.end_s - action.start_s,
            num_frames=self.windows.num_frames,
            fps=self.windows.num_frames / window.duration_s,
            looped=window.looped,
            **numbers,
        )


def animation_id(asset_id: str, action_name: str, action_index: int, window: int, windows: WindowSettings) -> str:
    """The id of a window of an action."""
    return content_id(asset_id, action_name, action_index, window, dataclasses.asdict(windows))


def is_of(row: Animation, windows: WindowSettings) -> bool:
    """The animation was measured with these windows."""
    return row.animation_id == animation_id(row.asset_id, row.action_name, row.action_index, row.window, windows)


def _probe_row(asset: Asset, loaded: Loaded, child: BlenderChild) -> Probe:
    return Probe(
        asset_id=asset.asset_id,
        blob=asset.blob,
        format=asset.format,
        main_file=asset.main_file,
        blender_version=child.welcome.blender_version if child.welcome else "",
        num_actions=len(loaded.actions),
        num_vertices=loaded.num_vertices,
        num_triangles=loaded.num_triangles,
        num_objects=loaded.num_objects,
        num_materials=loaded.num_materials,
        num_images=loaded.num_images,
        image_pixels=loaded.image_pixels,
        missing_textures=tuple(loaded.missing_textures),
        family_id=loaded.family_id,
        scene_fps=loaded.scene_fps,
    )
