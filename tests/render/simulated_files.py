"""Makes .blend files with simulations in them. Run as `python -m tests.render.simulated_files FOLDER`.

Each holds one unit cube at the origin that hops by 1 m or, in its other action, by 3 m.
"""

import sys
from pathlib import Path
from typing import Any

import bpy

from tests.render.blender_files import cube, hop, save


def main(folder: Path) -> None:
    """Write all of them."""
    for make in (
        fountain, snow, swarm, brood, nested, school, relay, million, offspring, patient, flag, hung, pudding, carpet,
        whiskers, tufts, far_off,
    ):  # fmt: skip
        bpy.ops.wm.read_factory_settings(use_empty=True)
        thing = cube("cube", 0.0)
        hop(thing, 3.0).use_fake_user = True
        hop(thing, 1.0)
        make(thing)
        save(folder / f"{make.__name__}.blend")


def ball() -> Any:
    """A ball of 1 m, hidden in renders: only what particles carry of it is seen."""
    bpy.ops.mesh.primitive_ico_sphere_add(subdivisions=1, radius=1.0)
    thing = bpy.context.object
    thing.name, thing.hide_render = "ball", True
    return thing


def emitter(thing: Any, **settings: Any) -> Any:
    """Balls of 5 to 10 cm radius that the cube throws about, 60 over the first second."""
    system = thing.modifiers.new("spray", "PARTICLE_SYSTEM").particle_system
    options = {
        "count": 60, "frame_start": 1, "frame_end": 24, "lifetime": 30, "normal_factor": 4.0, "particle_size": 0.1,
        "size_random": 0.5, "render_type": "OBJECT",
    }  # fmt: skip
    for name, value in (options | settings).items():
        setattr(system.settings, name, value)
    if system.settings.render_type == "OBJECT":
        system.settings.instance_object = ball()
    return system


def fountain(thing: Any) -> None:
    """Particles that fly off and fall, with the frames of another simulation baked into the file."""
    system = emitter(thing)
    system.settings.normal_factor = 0.0
    bpy.ops.ptcache.bake_all(bake=True)
    system.settings.normal_factor = 4.0


def snow(thing: Any) -> None:
    """Particles that carry what is in a collection that is not in the scene itself."""
    flakes = bpy.data.collections.new("flakes")
    flake = ball()
    flake.hide_render = False
    flakes.objects.link(flake)
    bpy.context.scene.collection.objects.unlink(flake)
    emitter(thing, render_type="COLLECTION", instance_collection=flakes)


def swarm(thing: Any) -> None:
    """Particles that follow each other."""
    emitter(thing, physics_type="BOIDS")


def brood(thing: Any) -> None:
    """Particles of which the viewport shows fewer than a render does, each with children."""
    emitter(thing, count=20, display_percentage=10, child_type="SIMPLE", child_percent=1, rendered_child_count=5)


def nested(thing: Any) -> None:
    """The fountain, by way of an instanced collection."""
    emitter(thing)
    collection = bpy.data.collections.new("fountain")
    collection.objects.link(thing)
    bpy.context.scene.collection.objects.unlink(thing)
    empty = bpy.data.objects.new("instance", None)
    empty.instance_type, empty.instance_collection = "COLLECTION", collection
    bpy.context.scene.collection.objects.link(empty)


def school(thing: Any) -> None:
    """Seven balls that are there in all frames from 2 on; the hop begins at frame 3."""
    emitter(thing, count=7, frame_end=1, lifetime=500, normal_factor=1.0)
    thing.animation_data.action = bpy.data.actions.new("late hop")
    for frame, z in ((3, 0.0), (27, 1.0)):
        thing.location.z = z
        thing.keyframe_insert("location", frame=frame)


def relay(thing: Any) -> None:
    """Always as many balls as before, of which each lives for two frames."""
    emitter(thing, count=300, frame_end=300, lifetime=4, normal_factor=1.0, size_random=0.0)
    thing.animation_data.action = bpy.data.actions.new("late hop")
    for frame, z in ((12, 0.0), (36, 1.0)):
        thing.location.z = z
        thing.keyframe_insert("location", frame=frame)


def million(thing: Any) -> None:
    """More particles than anybody wants to see."""
    emitter(thing, count=1_000_000, frame_end=1, lifetime=1000)


def offspring(thing: Any) -> None:
    """Few particles with a great many children."""
    emitter(thing, count=100, child_type="SIMPLE", rendered_child_count=10_000)


def patient(thing: Any) -> None:
    """An action ten minutes after the particles begin."""
    emitter(thing)
    thing.animation_data.action = bpy.data.actions.new("late")
    for frame in (14_400, 14_424):
        thing.location.z = frame - 14_400
        thing.keyframe_insert("location", frame=frame)


def grid(cuts: int = 12) -> Any:
    """A sheet of 2 m, 1 m above the cube."""
    bpy.ops.mesh.primitive_grid_add(x_subdivisions=cuts, y_subdivisions=cuts, size=2.0, location=(0.0, 0.0, 1.0))
    return bpy.context.object


def flag(thing: Any) -> None:
    """Cloth that falls on a cube that does not move; there is no action."""
    thing.animation_data_clear()
    for action in list(bpy.data.actions):
        bpy.data.actions.remove(action)
    thing.modifiers.new("solid", "COLLISION")
    grid().modifiers.new("cloth", "CLOTH")


def hung(thing: Any) -> None:
    """Cloth that hangs on the hopping cube."""
    sheet = grid()
    sheet.parent = thing
    corners = sheet.vertex_groups.new(name="held")
    corners.add([index for index, vertex in enumerate(sheet.data.vertices) if vertex.co.x < -0.99], 1.0, "REPLACE")
    sheet.modifiers.new("cloth", "CLOTH").settings.vertex_group_mass = "held"


def pudding(_: Any) -> None:
    """A soft body that falls."""
    sheet = grid()
    sheet.modifiers.new("soft", "SOFT_BODY")
    sheet.soft_body.use_goal = False


def carpet(_: Any) -> None:
    """Cloth of 90,000 vertices."""
    grid(300).modifiers.new("cloth", "CLOTH").settings.quality = 20


def whiskers(thing: Any) -> None:
    """Hair that swings."""
    system = thing.modifiers.new("fur", "PARTICLE_SYSTEM").particle_system
    system.settings.type, system.settings.count, system.settings.hair_length = "HAIR", 100, 1.0
    system.settings.root_radius = system.settings.tip_radius = 5.0
    system.use_hair_dynamics = True


def tufts(thing: Any) -> None:
    """Ten hairs that carry balls, which do not come and go."""
    emitter(thing, type="HAIR", count=10, hair_length=1.0)


def far_off(thing: Any) -> None:
    """The fountain, ten kilometres away."""
    emitter(thing)
    thing.parent = bpy.data.objects.new("far", None)
    thing.parent.location.x = 10_000.0
    bpy.context.scene.collection.objects.link(thing.parent)


if __name__ == "__main__":
    main(Path(sys.argv[-1]))
