"""Particles, cloth and soft bodies: played anew from their own first frame for each animation.

Blender computes a frame of a simulation from the one before, so what it shows would depend on what was shown earlier.
Here all frames are computed in order as soon as an animation is bound, and kept in memory: any of them may then be
looked at in any order, and whoever does so sees the same. What the file brought of such frames is not looked at.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import bpy

from render.protocol import BadAsset

MAX_PARTICLES = 20_000
"""Things that all particles of an asset carry, at any time of their lives."""
MAX_FRAMES = 3_000
"""From the first frame of a simulation to the last one that is shown."""
MAX_PARTICLE_STEPS = 10_000_000
"""Particles times frames: 2 s, and 260 MB of Blender's memory."""
MAX_CLOTH_STEPS = 8_000_000
"""Vertices times frames times steps a frame, of cloth and soft bodies: 40 s where nothing collides."""
SOFT_BODY_STEPS = 5
"""Steps a frame of a soft body, which chooses their number itself: as costly as cloth at Blender's default quality."""
FIRST_EMISSION = 1
"""Blender plays no particles before this frame, whenever they begin."""

_CARRYING = {"OBJECT", "COLLECTION"}
"""Ways to show particles that Cycles knows of; it draws neither halos, lines nor the paths of what is no hair."""
CLOTHS = {"CLOTH", "SOFT_BODY"}
"""Modifiers that move a mesh by themselves."""
_LEFT_OUT = {"DYNAMIC_PAINT", "FLUID"}


def reached(things: Any, seen: set[Any]) -> Iterator[Any]:
    """The objects, and those that come with them: of instanced collections, and what particles carry.

    Args:
        things: Objects.
        seen: Those met so far, which are not given again.
    """
    for thing in things:
        if thing in seen:
            continue
        seen.add(thing)
        yield thing
        if thing.instance_collection:
            yield from reached(thing.instance_collection.all_objects, seen)
        for system in thing.particle_systems:
            yield from reached(carried_by(system.settings), seen)


def carried_by(settings: Any) -> list[Any]:
    """The objects that particles show themselves as: one of its own even if it is hidden in renders."""
    if settings.render_type == "OBJECT" and settings.instance_object:
        return [settings.instance_object]
    if settings.render_type == "COLLECTION" and settings.instance_collection:
        return [thing for thing in settings.instance_collection.all_objects if not thing.hide_render]
    return []


def is_emitted(instance: Any) -> bool:
    """An instance of the depsgraph is carried by a particle that comes and goes, and not by hair."""
    return instance.particle_system is not None and instance.particle_system.settings.type != "HAIR"


def emitted_name(instance: Any) -> str:
    """Of one that is emitted: the same thing has it in all frames, and nothing else."""
    particle = ".".join(str(part) for part in instance.persistent_id if 0 <= part < 2**31 - 1)
    emitter = instance.parent.name_full if instance.parent else ""
    return f"{instance.object.name_full} of {emitter} {instance.particle_system.name} {particle}"


@dataclass(frozen=True, kw_only=True)
class _Cloth:
    cache: Any
    last: int
    """Frame at which the file ends it."""
    vertex_steps: int
    """A frame."""


class Simulations:
    """All simulations on a stage, at most one animation of which is played."""

    def __init__(self, stage: Any, *, fps: float, factor: float) -> None:
        """Forget what was simulated before, and switch off what takes no part.

        Args:
            stage: Nothing of it has been evaluated yet.
            fps: Its rate.
            factor: By which the asset was resized; other than 1 there are no simulations, as forces do not follow.

        Raises:
            BadAsset: There are more particles than `MAX_PARTICLES`.
        """
        self._stage, self._fps = stage, fps
        self._particles: list[Any] = []
        self._cloths: list[_Cloth] = []
        self._num_particles = 0
        self._played: tuple[int, int] | None = None
        ours = set(reached(stage.objects, set())) if factor == 1.0 else set()
        for thing in bpy.data.objects:
            if not thing.library:
                self._find(thing, is_ours=thing in ours)
        if self._num_particles > MAX_PARTICLES:
            raise BadAsset("too_complex", f"{self._num_particles} particles, the limit is {MAX_PARTICLES}")
        if self:
            self._forget()

    def __bool__(self) -> bool:
        return bool(self._particles or self._cloths)

    @property
    def in_world(self) -> bool:
        """There are particles: they are where they were played, and do not follow if their emitter is put elsewhere."""
        return bool(self._particles)

    def play(self, action_index: int, until_s: float) -> None:
        """Have everything simulated up to a time, for an animation that is bound; nothing is done twice.

        Args:
            action_index: Which animation it is.
            until_s: On the file's timeline; the last one that will be looked at.

        Raises:
            BadAsset: That is too much to simulate.
        """
        last = math.ceil(until_s * self._fps) + 1
        if not self or self._played == (action_index, last):
            return
        self._played = None
        self._forget()
        self._stage.frame_start, self._stage.frame_end = FIRST_EMISSION, max(last, FIRST_EMISSION)
        for cloth in self._cloths:
            cloth.cache.frame_end = max(cloth.cache.frame_start, min(cloth.last, last))
        starts = [max(FIRST_EMISSION, int(system.settings.frame_start)) for system in self._particles]
        first = min([*starts, *(cloth.cache.frame_start for cloth in self._cloths)])
        self._refuse_too_long(first, last)
        self._stage.frame_set(first - 1)  # else the first frame is not computed anew, or the fraction of a frame stays
        with bpy.context.temp_override(scene=self._stage, view_layer=self._stage.view_layers[0]):
            bpy.ops.ptcache.bake_all(bake=True)
        self._played = action_index, last

    def _find(self, thing: Any, is_ours: bool) -> None:
        for modifier in thing.modifiers:
            if modifier.type == "PARTICLE_SYSTEM":
                system = modifier.particle_system
                if system.settings.type == "HAIR":
                    system.use_hair_dynamics = False  # `bake_all` passes it over
                    continue
                wanted = is_ours and system.settings.type == "EMITTER" and bool(carried_by(system.settings))
            elif modifier.type in CLOTHS:
                system, wanted = None, is_ours and thing.type == "MESH"
            else:
                wanted, system = modifier.type not in _LEFT_OUT, None
            modifier.show_viewport = modifier.show_render = modifier.show_render and wanted
            if not modifier.show_render:
                continue
            if system:
                self._particles.append(system)
                self._num_particles += _prepare_particles(system)
            elif modifier.type in CLOTHS:
                self._cloths.append(_cloth_of(thing, modifier))

    def _forget(self) -> None:
        with bpy.context.temp_override(scene=self._stage, view_layer=self._stage.view_layers[0]):
            bpy.ops.ptcache.free_bake_all()

    def _refuse_too_long(self, first: int, last: int) -> None:
        num_frames = last - first + 1
        if num_frames > MAX_FRAMES:
            raise BadAsset("too_complex", f"a simulation over {num_frames} frames, the limit is {MAX_FRAMES}")
        steps = sum(_num_of(system.settings) * (1 + system.settings.subframes) for system in self._particles)
        if steps * num_frames > MAX_PARTICLE_STEPS:
            detail = f"{steps} steps of particles a frame over {num_frames} frames, the limit is {MAX_PARTICLE_STEPS}"
            raise BadAsset("too_complex", detail)
        vertex_steps = sum(
            cloth.vertex_steps * max(0, cloth.cache.frame_end - cloth.cache.frame_start + 1) for cloth in self._cloths
        )
        if vertex_steps > MAX_CLOTH_STEPS:
            detail = f"{vertex_steps} vertices times steps of cloth, the limit is {MAX_CLOTH_STEPS}"
            raise BadAsset("too_complex", detail)


def _prepare_particles(system: Any) -> int:
    """Make evaluation show what a render shows, and count the things that are carried."""
    settings = system.settings
    if not settings.library:
        settings.display_method, settings.display_percentage = "RENDER", 100
        settings.child_percent = settings.rendered_child_count
    _keep_in_memory(system.point_cache)
    whole = settings.render_type == "COLLECTION" and settings.use_whole_collection
    return _num_of(settings) * (len(carried_by(settings)) if whole else 1)


def _num_of(settings: Any) -> int:
    """Particles and their children."""
    num_children = settings.rendered_child_count if settings.child_type != "NONE" else 0
    return int(settings.count) * (1 + int(num_children))


def _cloth_of(thing: Any, modifier: Any) -> _Cloth:
    _keep_in_memory(modifier.point_cache)
    steps = modifier.settings.quality if modifier.type == "CLOTH" else SOFT_BODY_STEPS
    num_vertices = len(thing.data.vertices)
    for before in list(thing.modifiers)[: thing.modifiers.find(modifier.name)]:
        if before.type in {"SUBSURF", "MULTIRES"} and before.show_render:
            num_vertices *= 4**before.levels
    return _Cloth(cache=modifier.point_cache, last=modifier.point_cache.frame_end, vertex_steps=num_vertices * steps)


def _keep_in_memory(cache: Any) -> None:
    """Neither files that were baked beside the asset, nor any of our own."""
    cache.use_disk_cache = cache.use_external = False
    cache.frame_step = 1
