"""What the child knows between requests: the asset that is loaded."""

import dataclasses
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import bpy
import numpy as np

from render.blender import motion, proving
from render.blender.actions import Animations
from render.blender.backfaces import find_shells, hide_backfaces
from render.blender.baking import bake
from render.blender.converting import convert
from render.blender.drawing import draw
from render.blender.evaluating import Evaluator, Topology
from render.blender.importing import FARTHEST, open_file, reset
from render.blender.lighting import OwnLights, examine
from render.blender.materials import Looks, dress, is_ghost
from render.blender.shrinking import shrink_pictures
from render.blender.simulating import Simulations, carried_by, reached
from render.blender.strands import MESH_LIKE
from render.blender.tracing import trace
from render.blender.versions import refuse_old
from render.protocol import (
    NO_ACTION,
    BadAsset,
    Bake,
    Baked,
    Convert,
    Converted,
    Draw,
    Drawn,
    Examine,
    Hello,
    Load,
    Loaded,
    Measure,
    Measured,
    Prove,
    Proved,
    Survey,
    Surveyed,
    Trace,
    Traced,
    Welcome,
)

OnImage = Callable[[int, int], None]

SMALLEST_REST = 1e-6
"""Share of the largest box. What grows out of a point has no diagonal at its first frame to measure by."""


@dataclass(frozen=True, kw_only=True)
class _Asset:
    animations: Animations
    simulations: Simulations
    evaluator: Evaluator
    topology: Topology
    looks: Looks
    own_lights: OwnLights
    rest_s: float
    """When the file's timeline begins."""


class Session:
    """One Blender with at most one asset in it."""

    def __init__(self) -> None:
        self._asset: _Asset | None = None

    def answer(self, request: Any, on_image: OnImage) -> Any:
        """The reply to any request of the protocol.

        Raises:
            BadAsset: The asset is at fault.
            ValueError: The request is.
        """
        answers: dict[type[Any], Callable[[], Any]] = {
            Hello: self.hello,
            Load: lambda: self.load(request),
            Measure: lambda: self.measure(request),
            Draw: lambda: self.draw(request, on_image),
            Examine: lambda: examine(request.path, request.max_width_px),
            Trace: lambda: self.trace(request, on_image),
            Survey: lambda: self.survey(request),
            Prove: lambda: self.prove(request),
            Bake: lambda: self.bake(request),
            Convert: lambda: self.convert(request),
        }
        if type(request) not in answers:
            raise ValueError(f"no such request: {type(request).__name__}")
        return answers[type(request)]()

    def hello(self) -> Welcome:
        """Who is there; an empty Blender."""
        self._asset = None
        refuse_old()
        reset()
        return Welcome(
            blender_version=bpy.app.version_string,
            python_version=".".join(map(str, sys.version_info[:3])),
            draco=_reads_draco(),
        )

    def survey(self, request: Survey) -> Surveyed:
        """What there is to draw on."""
        self._asset = None
        return Surveyed(devices=proving.found(request.engine))

    def prove(self, request: Prove) -> Proved:
        """A device draws what it should."""
        self._asset = None
        proving.prove(request.engine, request.device)
        return Proved()

    def load(self, request: Load) -> Loaded:
        """Forget the last asset and open another."""
        self._asset = None
        file = open_file(request.path, request.format)
        animations = Animations(file)
        things = _drawn(file.stage)
        looks = dress(things, file.folder)
        if request.texture_limit_px:
            shrink_pictures(request.texture_limit_px)
        ghosts = {thing.name_full for thing in things if is_ghost(thing)}
        evaluator = Evaluator(file.stage, file.fps, file.factor, ghosts, may_move=not file.simulations.in_world)
        evaluator.go_to(file.frame_start / file.fps)
        topology = evaluator.topology()
        if request.as_drawn:
            shells = find_shells((thing, mesh, matrix) for _, thing, mesh, matrix in evaluator.instances())
            hide_backfaces(looks.materials, shells)
        rest = evaluator.snapshot(topology)
        points = np.concatenate(rest.parts)
        if rest.finite and len(rest.visible()) == 0:
            raise BadAsset("no_mesh", "all vertices are one point")
        self._asset = _Asset(
            animations=animations,
            simulations=file.simulations,
            evaluator=evaluator,
            topology=topology,
            looks=looks,
            own_lights=file.own_lights,
            rest_s=file.frame_start / file.fps,
        )
        return Loaded(
            actions=animations.listed(),
            num_vertices=topology.num_vertices,
            num_triangles=topology.num_triangles,
            num_objects=len(topology.signature),
            num_materials=len(looks.materials),
            num_images=looks.num_images,
            image_pixels=looks.num_pixels,
            largest_picture_px=looks.largest_side_px,
            missing_textures=looks.missing_textures,
            family_id=motion.shape_id(topology.counts, np.where(np.abs(points) < FARTHEST, points, 0.0)),
            scene_fps=file.fps,
        )

    def measure(self, request: Measure) -> Measured:
        """Motion of one action at the given times."""
        if not request.times_s:
            raise ValueError("no times to measure at")
        asset = self._bound(request.action_index, request.times_s)
        action = asset.animations.all[request.action_index]
        track = asset.evaluator.track(asset.topology, [*request.times_s, action.start_s, action.end_s])
        if not track.finite:
            return _NOT_FINITE
        diagonals = [motion.diagonal(box) for box in track.boxes]
        at_rest = diagonals[-2] if track.visible[-2] else 0.0
        scale = at_rest if at_rest > SMALLEST_REST * max(diagonals) else max(diagonals)
        if scale == 0.0:
            raise BadAsset("no_mesh", "all vertices are one point")
        points = track.points[:-2]
        numbers: dict[str, Any] = motion.measured(
            points, track.framed_boxes[:-2], track.edge_lengths[:-2], request.times_s, scale
        )
        return Measured(
            **numbers,
            loop_gap=motion.loop_gap(track.points[-2], track.points[-1], scale),
            finite=True,
            motion_id=motion.motion_id(asset.topology.counts, points, scale),
        )

    def draw(self, request: Draw, on_image: OnImage) -> Drawn:
        """Pictures of one action."""
        if not request.times_s or not request.views:
            raise ValueError("no frames or no views to draw")
        asset = self._bound(request.action_index, request.times_s)
        if request.action_index == NO_ACTION:
            request = dataclasses.replace(request, times_s=[asset.rest_s])
        asset.looks.replace_broken()
        return draw(asset.evaluator, asset.topology, asset.own_lights, request, on_image)

    def trace(self, request: Trace, on_pose: OnImage) -> Traced:
        """Deformed surfaces of one action."""
        asset = self._bound(request.action_index, request.times_s)
        asset.looks.replace_broken()
        return trace(asset.evaluator, request, on_pose)

    def bake(self, request: Bake) -> Baked:
        """The asset as a still GLB."""
        asset = self._bound(request.action_index, [request.time_s])
        self._asset = None
        asset.looks.replace_broken()
        asset.evaluator.go_to(asset.rest_s if request.action_index == NO_ACTION else request.time_s)
        return bake(asset.evaluator, request.out_path)

    def convert(self, request: Convert) -> Converted:
        """A GLB in another format."""
        self._asset = None
        return convert(request)

    def _bound(self, action_index: int, times_s: list[float]) -> _Asset:
        if self._asset is None:
            raise ValueError("no asset is loaded")
        if action_index == NO_ACTION:
            self._asset.animations.bind(None)
            return self._asset
        if not 0 <= action_index < len(self._asset.animations.all):
            raise ValueError(f"there is no action {action_index}")
        self._asset.animations.bind(action_index)
        until_s = max(self._asset.animations.all[action_index].end_s, *times_s)
        self._asset.simulations.play(action_index, until_s)
        return self._asset


_NOT_FINITE = Measured(
    motion_mean=0.0, motion_p95=0.0, path_length=0.0, rigid_share=0.0, loop_gap=0.0, moving_start_s=0.0,
    moving_end_s=0.0, travel=0.0, max_jump=0.0, jump_ratio=0.0, max_stretch=0.0, rest_diagonal=0.0,
    box_min=[0.0] * 3, box_max=[0.0] * 3, finite=False, motion_id="",
)  # fmt: skip


def _drawn(stage: Any) -> list[Any]:
    """The objects that are drawn at some time. What particles carry is, even if it is hidden itself."""
    things = list(reached(stage.objects, set()))
    carried = {part for thing in things for system in thing.particle_systems for part in carried_by(system.settings)}
    return [thing for thing in things if thing.type in MESH_LIKE and (thing in carried or not thing.hide_render)]


def _reads_draco() -> bool:
    try:
        from io_scene_gltf2.io.com.draco import dll_exists
    except ImportError:
        return False
    return bool(dll_exists(quiet=True))
