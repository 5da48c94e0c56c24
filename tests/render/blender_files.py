"""Makes small files that only Blender can write. Run as `python -m tests.render.blender_files FOLDER`."""

import sys
from pathlib import Path
from typing import Any

import bpy

INTRUSION = "intruded.txt"
"""What a script in a file would write, if it ran."""


def main(folder: Path) -> None:
    """Write all of them."""
    for make in (
        scripted,
        action_pack,
        together,
        coming_into_sight,
        vertex_colours,
        coming_and_going,
        busy_scene,
        cached,
        takes,
        outside_library,
    ):
        bpy.ops.wm.read_factory_settings(use_empty=True)
        make(folder)


def save(path: Path) -> None:
    bpy.ops.wm.save_as_mainfile(filepath=str(path), compress=False)


def cube(name: str, x: float) -> Any:
    bpy.ops.mesh.primitive_cube_add(size=1.0, location=(x, 0.0, 0.0))
    thing = bpy.context.object
    thing.name = name
    return thing


def hop(thing: Any, height: float, last_frame: int = 24) -> Any:
    """A new action that lifts the object; it stays the active one."""
    thing.animation_data_create().action = bpy.data.actions.new(f"{thing.name}_hop_{height:g}")
    for frame, z in ((0, 0.0), (last_frame, height)):
        thing.location.z = z
        thing.keyframe_insert("location", frame=frame)
    for curve in thing.animation_data.action.fcurves:
        for key in curve.keyframe_points:
            key.interpolation = "LINEAR"
    return thing.animation_data.action


def scripted(folder: Path) -> None:
    """Scripts that would run as soon as the file is opened or evaluated."""
    thing = cube("trap", 0.0)
    hop(thing, 1.0)
    intrusion = f"open({str(folder / INTRUSION)!r}, 'a').write('x')"
    text = bpy.data.texts.new("start.py")
    text.from_string(intrusion)
    text.use_module = True
    driver = thing.driver_add("scale", 0).driver
    driver.type, driver.expression = "SCRIPTED", f"{intrusion} or 1.0"
    save(folder / "scripted.blend")


def action_pack(folder: Path) -> None:
    """One armature with a mesh, three actions of which none is active, a bone shape, and things not to be rendered."""
    bpy.ops.object.armature_add(location=(0.0, 0.0, 0.0))
    armature = bpy.context.object
    body = cube("body", 0.0)
    body.parent, body.parent_type, body.parent_bone = armature, "BONE", "Bone"
    hidden, shape, widget = cube("hidden", 20.0), cube("shape", 30.0), cube("widget", 40.0)
    hidden.hide_render = True
    widget.hide_viewport = widget.hide_render = True
    bone = armature.pose.bones["Bone"]
    bone.custom_shape = shape
    for name, height in (("nod", 1.0), ("jump", 2.0), ("fall", -3.0)):
        armature.animation_data_create().action = action = bpy.data.actions.new(name)
        action.use_fake_user = True
        for frame, y in ((0, 0.0), (24, height)):
            bone.location = (0.0, y, 0.0)
            bone.keyframe_insert("location", frame=frame)
        if name == "fall":
            bone.scale = (2.0, 2.0, 2.0)
            bone.keyframe_insert("scale", frame=0)
    armature.animation_data.action = None
    bpy.ops.object.light_add(type="SUN", location=(50.0, 0.0, 0.0))
    hop(bpy.context.object, 5.0)
    save(folder / "action_pack.blend")


def together(folder: Path) -> None:
    """Two objects that play at the same time, and an action that one of them plays alone."""
    first, second = cube("first", 0.0), cube("second", 3.0)
    alone = hop(first, 5.0)
    alone.use_fake_user = True
    hop(first, 1.0)
    hop(second, 2.0, 48)
    save(folder / "together.blend")


def coming_into_sight(folder: Path) -> None:
    """Two cubes; one is rendered from half a second on, the other hides in the viewport. Saved in edit mode."""
    shown, other = cube("shown", 0.0), cube("other", 3.0)
    hop(shown, 1.0)
    hop(other, 1.0)
    for thing, path in ((shown, "hide_render"), (other, "hide_viewport")):
        for frame, hidden in ((0, True), (12, False)):
            setattr(thing, path, hidden)
            thing.keyframe_insert(path, frame=frame)
    bpy.context.scene.frame_set(2)
    bpy.context.view_layer.objects.active = shown
    bpy.ops.object.mode_set(mode="EDIT")
    save(folder / "coming_into_sight.blend")


def vertex_colours(folder: Path) -> None:
    """A green cube that has no material."""
    thing = cube("cube", 0.0)
    hop(thing, 1.0)
    colours = thing.data.color_attributes.new("Col", "BYTE_COLOR", "CORNER")
    for entry in colours.data:
        entry.color = (0.0, 0.6, 0.0, 1.0)
    save(folder / "vertex_colours.blend")


def coming_and_going(folder: Path) -> None:
    """An array that grows, so there are other vertices in every frame."""
    thing = cube("cube", 0.0)
    array = thing.modifiers.new("array", "ARRAY")
    for frame, count in ((0, 1), (24, 5)):
        array.count = count
        array.keyframe_insert("count", frame=frame)
    save(folder / "coming_and_going.blend")


def busy_scene(folder: Path) -> None:
    """A scene with motion blur, a red sky, and an output node that writes a file; a red lamp, too."""
    thing = cube("cube", 0.0)
    hop(thing, 1.0)
    scene = bpy.context.scene
    scene.render.use_motion_blur = True
    scene.render.resolution_percentage = 10
    scene.view_settings.exposure = 5.0
    scene.world = bpy.data.worlds.new("sky")
    scene.world.use_nodes = True
    scene.world.node_tree.nodes["Background"].inputs[0].default_value = (5.0, 0.0, 0.0, 1.0)
    scene.use_nodes = True
    output = scene.node_tree.nodes.new("CompositorNodeOutputFile")
    output.base_path = str(folder / "composited")
    layers = scene.node_tree.nodes["Render Layers"]
    scene.node_tree.links.new(layers.outputs["Image"], output.inputs[0])
    bpy.ops.object.light_add(type="SUN")
    bpy.context.object.data.color, bpy.context.object.data.energy = (1.0, 0.0, 0.0), 50.0
    save(folder / "busy_scene.blend")


def cached(folder: Path) -> None:
    """A cube that slides and one that bends, sampled in time at 30 frames a second."""
    scene = bpy.context.scene
    scene.render.fps, scene.frame_start, scene.frame_end = 30, 0, 30
    hop(cube("slides", 0.0), 1.0, 30)
    bends = cube("bends", 3.0)
    bends.shape_key_add(name="Basis")
    key = bends.shape_key_add(name="Up")
    for point in key.data:
        point.co.z += 2.0
    for frame, value in ((0, 0.0), (30, 1.0)):
        key.value = value
        key.keyframe_insert("value", frame=frame)
    bpy.ops.wm.alembic_export(filepath=str(folder / "cached.abc"), start=0, end=30, as_background_job=False)
    bpy.ops.wm.usd_export(filepath=str(folder / "cached.usdc"), export_animation=True)


def takes(folder: Path) -> None:
    """Two objects and a shape key in one take."""
    first, second, third = cube("first", 0.0), cube("second", 3.0), cube("third", 6.0)
    hop(first, 1.0)
    hop(second, 2.0)
    third.shape_key_add(name="Basis")
    key = third.shape_key_add(name="Up")
    for point in key.data:
        point.co.z += 3.0
    for frame, value in ((0, 0.0), (24, 1.0)):
        key.value = value
        key.keyframe_insert("value", frame=frame)
    bpy.context.scene.frame_start, bpy.context.scene.frame_end = 0, 24
    bpy.ops.export_scene.fbx(
        filepath=str(folder / "takes.fbx"), bake_anim_use_all_actions=False, bake_anim_use_nla_strips=False
    )


def outside_library(folder: Path) -> None:
    """A file that links its cube from a file outside its own folder."""
    cube("linked", 0.0)
    save(folder / "library.blend")
    (folder / "inside").mkdir()
    bpy.ops.wm.read_factory_settings(use_empty=True)
    with bpy.data.libraries.load(str(folder / "library.blend"), link=True) as (_, wanted):
        wanted.objects = ["linked"]
    bpy.context.scene.collection.objects.link(wanted.objects[0])
    save(folder / "inside" / "linking.blend")


if __name__ == "__main__":
    main(Path(sys.argv[-1]))
