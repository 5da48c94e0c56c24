"""Points of what is drawn and does not count as motion: hair, curves, point clouds, volumes, and what particles carry.

They take part in framing.
"""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from render.blender.importing import is_helper
from render.blender.motion import Floats
from render.blender.simulating import is_emitted

MESH_LIKE = {"MESH", "CURVE", "SURFACE", "FONT", "META"}
"""What has faces, or is given some."""
CLOUDS = {"CURVES", "POINTCLOUD"}
MAX_STRANDS = 5000
"""Of a particle system: of more, every n-th is looked at."""
NUM_STEPS = 4
"""Points that are looked at on a strand."""
_SIX_WAYS = math.sqrt(3.0) * np.concatenate([np.eye(3), -np.eye(3)])
"""Corners of an octahedron around the unit ball."""


def may_have_strands(things: Any) -> bool:
    """Some object is, has, or may make something of the kind."""
    return any(
        thing.type in CLOUDS | {"VOLUME"}
        or thing.instance_collection
        or any(modifier.type in {"NODES", "PARTICLE_SYSTEM"} for modifier in thing.modifiers)
        for thing in things
    )


def is_shown(instance: Any) -> bool:
    """An instance of the depsgraph is drawn: what particles carry even if the object itself is hidden in renders."""
    if instance.particle_system is not None:
        return not is_helper(instance.object)
    return not instance.object.hide_render  # an animation may say so


def strand_points(stage: Any, unseen: set[str]) -> Floats:
    """World points that enclose all of it at the present frame. Shape (point, 3)."""
    found = [np.zeros((0, 3))]
    for instance in stage.view_layers[0].depsgraph.object_instances:
        thing = instance.object
        if thing.name_full in unseen or not is_shown(instance):
            continue
        matrix = np.array(instance.matrix_world, dtype=np.float64)
        if thing.type in MESH_LIKE and is_emitted(instance):
            found.append(_transformed(np.array(thing.bound_box, dtype=np.float64), matrix))
        elif instance.show_self and thing.type in CLOUDS:
            found.append(_transformed(_cloud(thing.data), matrix))
        elif instance.show_self and thing.type == "VOLUME":
            found.append(_transformed(np.array(thing.bound_box, dtype=np.float64), matrix))
        if instance.show_particles and thing.type == "MESH":
            to_instance = matrix @ np.linalg.pinv(np.array(thing.matrix_world, dtype=np.float64))
            found += [_transformed(points, to_instance) for points in _hair(thing)]
    points = np.concatenate(found)
    return points[np.isfinite(points).all(axis=1)]


def _cloud(data: Any) -> Floats:
    points = np.zeros(3 * len(data.points), dtype=np.float32)
    if len(points):
        data.attributes["position"].data.foreach_get("vector", points)
    radius = data.attributes.get("radius")
    radii = np.full(len(data.points), 0.01, dtype=np.float32)  # what Blender draws without
    if radius and len(radii):
        radius.data.foreach_get("value", radii)
    return _thick(points.reshape(-1, 3).astype(np.float64), radii)


def _hair(thing: Any) -> Iterator[Floats]:
    """Strands of its particle systems, in the world."""
    for system in thing.particle_systems:
        settings = system.settings
        if settings.type != "HAIR" or settings.render_type != "PATH":
            continue
        num_strands = len(system.particles) + len(system.child_particles)
        last = 2**settings.display_step
        steps = sorted({round(last * part / (NUM_STEPS - 1)) for part in range(NUM_STEPS)})
        strands = range(0, num_strands, max(1, -(-num_strands // MAX_STRANDS)))
        points = [system.co_hair(thing, particle_no=strand, step=step) for strand in strands for step in steps]
        radius = settings.radius_scale * max(settings.root_radius, settings.tip_radius)
        yield _thick(np.array(points, dtype=np.float64).reshape(-1, 3), np.full(len(points), radius))


def _thick(points: Floats, radii: Any) -> Floats:
    return (points[:, None] + radii[:, None, None] * _SIX_WAYS).reshape(-1, 3)


def _transformed(points: Floats, matrix: Floats) -> Floats:
    return points @ matrix[:3, :3].T + matrix[:3, 3]
