"""Makes .blend files of what decides how an object looks. Run as `python -m tests.render.look_files FOLDER`.

Each holds one unit cube at the origin that hops, and whatever the file is about.
"""

import sys
from pathlib import Path
from typing import Any

import bpy

from tests.render.blender_files import cube, hop, save


def main(folder: Path) -> None:
    """Write all of them."""
    for make in (
        subdivided, hidden, holes, instanced, scattered, furry, combed, spraying, lit, sky, painted, unseen, dotted,
    ):  # fmt: skip
        bpy.ops.wm.read_factory_settings(use_empty=True)
        thing = cube("cube", 0.0)
        hop(thing, 0.01)
        make(thing)
        save(folder / f"{make.__name__}.blend")


def material(thing: Any, **inputs: Any) -> Any:
    """Give it a material with these inputs."""
    made = bpy.data.materials.new(thing.name)
    made.use_nodes = True
    for name, value in inputs.items():
        made.node_tree.nodes["Principled BSDF"].inputs[name.replace("_", " ")].default_value = value
    thing.data.materials.append(made)
    return made


def subdivided(thing: Any) -> None:
    """Smooth in a render, a cube in the viewport; and an array that is there in the viewport only."""
    modifier = thing.modifiers.new("subdivision", "SUBSURF")
    modifier.levels, modifier.render_levels = 0, 5
    array = thing.modifiers.new("array", "ARRAY")
    array.count, array.show_render = 5, False


def hidden(_: Any) -> None:
    """Another cube that no render shows, and one in a collection that no render shows."""
    cube("hidden", 3.0).hide_render = True
    away = cube("away", 6.0)
    collection = bpy.data.collections.new("away")
    bpy.context.scene.collection.children.link(collection)
    bpy.context.scene.collection.objects.unlink(away)
    collection.objects.link(away)
    collection.hide_render = True


def holes(_: Any) -> None:
    """A plane that catches shadows, and a cube in front that punches a hole."""
    bpy.ops.mesh.primitive_plane_add(size=10.0, location=(0.0, 0.0, -0.5))
    bpy.context.object.is_shadow_catcher = True
    bpy.ops.mesh.primitive_cube_add(size=0.8, location=(0.0, -2.0, 0.0))
    bpy.context.object.is_holdout = True


def unseen(_: Any) -> None:
    """A panel that lights the cube red and is not seen by cameras."""
    bpy.ops.mesh.primitive_plane_add(size=4.0, location=(0.0, 0.0, 3.0))
    panel = bpy.context.object
    panel.visible_camera = False
    material(panel, Emission_Color=(1.0, 0.0, 0.0, 1.0), Emission_Strength=50.0)


def instanced(_: Any) -> None:
    """A second cube, by way of an instanced collection, 3 m to the right."""
    bpy.ops.mesh.primitive_cube_add(size=1.0)
    original = bpy.context.object
    collection = bpy.data.collections.new("things")
    bpy.context.scene.collection.objects.unlink(original)
    collection.objects.link(original)
    empty = bpy.data.objects.new("instance", None)
    empty.instance_type, empty.instance_collection, empty.location = "COLLECTION", collection, (3.0, 0.0, 0.0)
    bpy.context.scene.collection.objects.link(empty)


def scattered(thing: Any) -> None:
    """Geometry nodes put a small cube on each corner."""
    tree = bpy.data.node_groups.new("scatter", "GeometryNodeTree")
    tree.interface.new_socket("Geometry", in_out="INPUT", socket_type="NodeSocketGeometry")
    tree.interface.new_socket("Geometry", in_out="OUTPUT", socket_type="NodeSocketGeometry")
    inside, outside = tree.nodes.new("NodeGroupInput"), tree.nodes.new("NodeGroupOutput")
    small, scatter = tree.nodes.new("GeometryNodeMeshCube"), tree.nodes.new("GeometryNodeInstanceOnPoints")
    small.inputs["Size"].default_value = (0.4, 0.4, 0.4)
    tree.links.new(inside.outputs[0], scatter.inputs["Points"])
    tree.links.new(small.outputs["Mesh"], scatter.inputs["Instance"])
    tree.links.new(scatter.outputs["Instances"], outside.inputs[0])
    thing.modifiers.new("scatter", "NODES").node_group = tree


def furry(thing: Any) -> None:
    """Particle hair of 1 m on all sides."""
    settings = thing.modifiers.new("fur", "PARTICLE_SYSTEM").particle_system.settings
    settings.type, settings.count, settings.hair_length = "HAIR", 300, 1.0
    settings.root_radius = settings.tip_radius = 5.0


def combed(_: Any) -> None:
    """A curves object: one thick strand that goes up by 2 m."""
    curves = bpy.data.hair_curves.new("strand")
    curves.add_curves([3])
    for index, point in enumerate(curves.points):
        point.position, point.radius = (0.0, 0.0, index * 1.0), 0.1
    bpy.context.scene.collection.objects.link(bpy.data.objects.new("strand", curves))


def dotted(thing: Any) -> None:
    """Geometry nodes make a fat point of each corner of a cube of 4 m, which they leave out."""
    tree = bpy.data.node_groups.new("dots", "GeometryNodeTree")
    tree.interface.new_socket("Geometry", in_out="INPUT", socket_type="NodeSocketGeometry")
    tree.interface.new_socket("Geometry", in_out="OUTPUT", socket_type="NodeSocketGeometry")
    inside, outside = tree.nodes.new("NodeGroupInput"), tree.nodes.new("NodeGroupOutput")
    large, dots, join = (
        tree.nodes.new(kind)
        for kind in ("GeometryNodeMeshCube", "GeometryNodeMeshToPoints", "GeometryNodeJoinGeometry")
    )
    large.inputs["Size"].default_value = (4.0, 4.0, 4.0)
    dots.inputs["Radius"].default_value = 0.3
    tree.links.new(large.outputs["Mesh"], dots.inputs["Mesh"])
    tree.links.new(dots.outputs["Points"], join.inputs[0])
    tree.links.new(inside.outputs[0], join.inputs[0])
    tree.links.new(join.outputs[0], outside.inputs[0])
    thing.modifiers.new("dots", "NODES").node_group = tree


def spraying(thing: Any) -> None:
    """Particles that fly off."""
    settings = thing.modifiers.new("spray", "PARTICLE_SYSTEM").particle_system.settings
    settings.type, settings.count, settings.frame_start, settings.frame_end = "EMITTER", 500, 0, 10
    settings.normal_factor, settings.particle_size = 5.0, 0.3


def lit(_: Any) -> None:
    """A strong green lamp in front, and one that is hidden and red."""
    for colour, is_hidden in (((0.0, 1.0, 0.0), False), ((1.0, 0.0, 0.0), True)):
        bpy.ops.object.light_add(type="SUN", rotation=(1.2, 0.0, 0.0))
        bpy.context.object.data.color, bpy.context.object.data.energy = colour, 3.0
        bpy.context.object.hide_render = is_hidden
    bpy.ops.object.camera_add(location=(0.0, 0.0, 50.0))


def sky(_: Any) -> None:
    """A world with a blue picture, and no lamp."""
    world = bpy.data.worlds.new("sky")
    bpy.context.scene.world = world
    world.use_nodes = True
    picture = bpy.data.images.new("sky", 8, 4, float_buffer=True)
    picture.pixels.foreach_set([0.0, 0.0, 2.0, 1.0] * 32)
    picture.pack()
    node = world.node_tree.nodes.new("ShaderNodeTexEnvironment")
    node.image = picture
    world.node_tree.links.new(node.outputs["Color"], world.node_tree.nodes["Background"].inputs["Color"])


def painted(thing: Any) -> None:
    """Green vertex colours, and a white material that does not look at them."""
    for entry in thing.data.color_attributes.new("Col", "FLOAT_COLOR", "POINT").data:
        entry.color = (0.0, 0.5, 0.0, 1.0)
    material(thing)


if __name__ == "__main__":
    main(Path(sys.argv[-1]))
