"""Makes files with pictures beside them and several animations. Run as `python -m tests.render.format_files FOLDER`."""

import sys
from pathlib import Path
from typing import Any

import bpy

from tests.render.blender_files import cube, hop, save


def main(folder: Path) -> None:
    """Write all of them, each into a folder of its own."""
    for make in (
        textured_blend, textured_fbx, textured_usd, skinned_usd, two_takes, two_slots, several_in_cache, changing_cache,
        missing_library,
    ):  # fmt: skip
        bpy.ops.wm.read_factory_settings(use_empty=True)
        place = folder / make.__name__
        place.mkdir(parents=True)
        make(place)


def painted(folder: Path, name: str) -> Any:
    """A cube that hops, with a green picture that lies beside it."""
    thing = cube("painted", 0.0)
    hop(thing, 1.0)
    image = bpy.data.images.new("green", 8, 8)
    image.generated_color = (0.02, 0.7, 0.02, 1.0)
    image.filepath_raw, image.file_format = str(folder / name), "PNG"
    (folder / name).parent.mkdir(exist_ok=True)
    image.save()
    material = bpy.data.materials.new("paint")
    material.use_nodes = True
    node = material.node_tree.nodes.new("ShaderNodeTexImage")
    node.image = bpy.data.images.load(str(folder / name))
    shader = material.node_tree.nodes["Principled BSDF"]
    material.node_tree.links.new(node.outputs["Color"], shader.inputs["Base Color"])
    thing.data.materials.append(material)
    return node.image


def textured_blend(folder: Path) -> None:
    """Compressed, as artists save it."""
    image = painted(folder, "maps/green.png")
    save(folder / "asset.blend")
    image.filepath = bpy.path.relpath(image.filepath)
    bpy.ops.wm.save_as_mainfile(filepath=str(folder / "asset.blend"), compress=True)


def textured_fbx(folder: Path) -> None:
    """It names the picture by a place on its author's disk."""
    painted(folder, "green.png")
    bpy.context.scene.frame_start, bpy.context.scene.frame_end = 0, 24
    bpy.ops.export_scene.fbx(filepath=str(folder / "asset.fbx"), path_mode="ABSOLUTE")


def textured_usd(folder: Path) -> None:
    """Binary and text, with the picture in `textures`."""
    painted(folder, "textures/green.png")
    bpy.context.scene.frame_start, bpy.context.scene.frame_end = 0, 24
    for suffix in ("usdc", "usda"):
        bpy.ops.wm.usd_export(
            filepath=str(folder / f"asset.{suffix}"), export_animation=True, export_textures_mode="KEEP"
        )


def skinned_usd(folder: Path) -> None:
    """A cube on a bone that rises, with a blend shape that widens it; as .usdc, .usda and .usdz."""
    bpy.ops.object.armature_add()
    armature = bpy.context.object
    thing = cube("body", 0.0)
    thing.parent = armature
    thing.modifiers.new("skin", "ARMATURE").object = armature
    thing.vertex_groups.new(name="Bone").add(range(8), 1.0, "REPLACE")
    thing.shape_key_add(name="Basis")
    key = thing.shape_key_add(name="wide")
    for point in key.data:
        point.co.x *= 3.0
    bone = armature.pose.bones["Bone"]
    bpy.context.scene.frame_start, bpy.context.scene.frame_end = 0, 24
    for frame, share in ((0, 0.0), (24, 1.0)):
        bone.location = (0.0, 2.0 * share, 0.0)
        bone.keyframe_insert("location", frame=frame)
        key.value = share
        key.keyframe_insert("value", frame=frame)
    for suffix in ("usdc", "usda", "usdz"):
        bpy.ops.wm.usd_export(filepath=str(folder / f"asset.{suffix}"), export_animation=True, export_shapekeys=True)


def two_takes(folder: Path) -> None:
    """An armature whose actions are the takes of an FBX."""
    bpy.ops.object.armature_add()
    armature = bpy.context.object
    body = cube("body", 0.0)
    body.parent = armature
    body.modifiers.new("skin", "ARMATURE").object = armature
    body.vertex_groups.new(name="Bone").add(range(8), 1.0, "REPLACE")
    bone = armature.pose.bones["Bone"]
    for name, height, last in (("low", 1.0, 24), ("high", 3.0, 48)):
        armature.animation_data_create().action = action = bpy.data.actions.new(name)
        action.use_fake_user = True
        for frame, y in ((0, 0.0), (last, height)):
            bone.location = (0.0, y, 0.0)
            bone.keyframe_insert("location", frame=frame)
    bpy.ops.export_scene.fbx(
        filepath=str(folder / "asset.fbx"), bake_anim_use_all_actions=True, bake_anim_use_nla_strips=False,
        add_leaf_bones=False,
    )  # fmt: skip


def two_slots(folder: Path) -> None:
    """One action with a slot for each of two cubes; another, for one of them alone, was active when it was saved."""
    first, second = cube("first", 0.0), cube("second", 3.0)
    both = bpy.data.actions.new("both")
    both.use_fake_user = True
    for thing, height in ((first, 1.0), (second, 2.0)):
        thing.animation_data_create().action = both
        for frame, z in ((0, 0.0), (24, height)):
            thing.location.z = z
            thing.keyframe_insert("location", frame=frame)
        thing.location.z = 0.0
    second.animation_data_clear()
    hop(first, 5.0)
    save(folder / "asset.blend")


def several_in_cache(folder: Path) -> None:
    """Three cubes of which two move, one under the other."""
    first, second, _ = cube("first", 0.0), cube("second", 3.0), cube("third", 6.0)
    hop(first, 1.0)
    hop(second, 2.0)
    second.parent = first
    bpy.context.scene.frame_start, bpy.context.scene.frame_end = 0, 24
    bpy.ops.wm.alembic_export(filepath=str(folder / "asset.abc"), start=0, end=24, as_background_job=False)


def changing_cache(folder: Path) -> None:
    """The number of vertices grows."""
    array = cube("cube", 0.0).modifiers.new("array", "ARRAY")
    bpy.context.scene.frame_start, bpy.context.scene.frame_end = 0, 24
    for frame, count in ((0, 1), (24, 5)):
        array.count = count
        array.keyframe_insert("count", frame=frame)
    bpy.ops.wm.alembic_export(filepath=str(folder / "asset.abc"), start=0, end=24, as_background_job=False)


def missing_library(folder: Path) -> None:
    """It links its cube from a file that is gone."""
    hop(cube("linked", 0.0), 1.0)
    save(folder / "library.blend")
    bpy.ops.wm.read_factory_settings(use_empty=True)
    with bpy.data.libraries.load(str(folder / "library.blend"), link=True) as (_, wanted):
        wanted.objects = ["linked"]
    bpy.context.scene.collection.objects.link(wanted.objects[0])
    hop(cube("own", 3.0), 1.0)
    save(folder / "asset.blend")
    (folder / "library.blend").unlink()


if __name__ == "__main__":
    main(Path(sys.argv[-1]))
