"""The loaded asset at one moment as a still GLB: each drawn surface a plain mesh, in the hierarchy of its file."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import bpy
import numpy as np
from mathutils import Matrix

from render.blender.evaluating import Evaluator
from render.blender.importing import FARTHEST, is_helper
from render.blender.motion import Floats
from render.blender.simulating import is_emitted
from render.blender.strands import CLOUDS, is_shown
from render.blender.tracing import MAX_VERTICES
from render.protocol import BadAsset, Baked

SCENE = "object"
SAME = 1e-6
"""Poses that differ by less, as a share of their size, are equal."""
FLAT = 1e-9
"""No inverse is taken of a pose that leaves a smaller share of a volume, its size taken out."""

Node = tuple[Any, Floats]
"""An object of the written scene, and its pose in the asset's space."""


@dataclass(frozen=True, kw_only=True)
class _Surface:
    """Something that is drawn, out of reach of whatever made it."""

    original: Any
    mesh: Any
    world: Floats
    """From the mesh to the asset's space."""


@dataclass(kw_only=True)
class _Tree:
    """The scene that is written, which grows from the roots of the file's hierarchy."""

    scene: Any
    evaluator: Evaluator
    first: dict[Any, _Surface]
    """Of each original that is drawn, the surface that keeps its place in the hierarchy."""
    names: list[tuple[Any, str]] = field(default_factory=list)
    """What things of the scene are to be called once the names are free."""
    _made: dict[Any, Node | None] = field(default_factory=dict)

    def add(self, name: str, surface: _Surface | None, pose: Floats, above: Node | None) -> Node:
        """A node as near to a pose as shift, turn and scale come, which is all that glTF has; its mesh makes up for
        the rest."""
        node = bpy.data.objects.new(name, surface.mesh if surface else None)
        self.scene.collection.objects.link(node)
        self.names.append((node, name))
        node.parent, over = above or (None, np.eye(4))
        place, turn, scale = Matrix((np.linalg.inv(over) @ pose).tolist()).decompose()
        node.rotation_mode = "QUATERNION"
        node.location, node.rotation_quaternion, node.scale = place, turn, scale
        got = over @ np.array(Matrix.LocRotScale(place, turn, scale), dtype=np.float64)
        if surface:
            rest = np.linalg.inv(got) @ surface.world
            if np.abs(rest - np.eye(4)).max() > SAME * max(1.0, float(np.abs(rest).max())):
                surface.mesh.transform(Matrix(rest.tolist()))
        return node, got

    def node_of(self, original: Any) -> Node | None:
        """The node that stands for an object of the file; None for one that has no extent, and draws nothing itself."""
        if original not in self._made:
            surface = self.first.get(original)
            pose = surface.world if surface else self._pose_of(original)
            if not _is_flat(pose):
                self._made[original] = self.add(original.name, surface, pose, self.above(original))
            elif surface:
                self._made[original] = self.add(original.name, surface, np.eye(4), None)
            else:
                self._made[original] = self.above(original)
        return self._made[original]

    def above(self, original: Any) -> Node | None:
        """The node under which an object of the file belongs; None for the top."""
        parent, stage = original.parent, self.evaluator.stage
        if parent is None or stage.objects.get(parent.name) != parent:
            return None
        # What was resized hangs on an empty of ours, which belongs to no file.
        is_ours = self.evaluator.factor != 1.0 and parent.parent is None
        return None if is_ours else self.node_of(parent)

    def _pose_of(self, original: Any) -> Floats:
        evaluated = original.evaluated_get(self.evaluator.stage.view_layers[0].depsgraph)
        return _into_asset(np.array(evaluated.matrix_world, dtype=np.float64), self.evaluator.factor)


def bake(evaluator: Evaluator, path: str) -> Baked:
    """Write the stage as it stands. The names of all that was loaded are lost: nothing else can be asked of it.

    Raises:
        BadAsset: There is nothing to draw, or too much, or a coordinate is not finite.
    """
    left_out = sorted(set(_left_out(evaluator)))
    surfaces = list(_surfaces(evaluator))
    if not surfaces:
        raise BadAsset("no_mesh", "no face to draw")
    first: dict[Any, _Surface] = {}
    for surface in surfaces:
        first.setdefault(surface.original, surface)
    tree = _Tree(scene=_cleared_scene(), evaluator=evaluator, first=first)
    for surface in surfaces:
        original = surface.original
        if first[original] is surface:
            tree.node_of(original)
        else:  # one of many: under the same parent, as the object itself may be turned and scaled
            above, flat = tree.above(original), _is_flat(surface.world)
            tree.add(original.name, surface, np.eye(4) if flat else surface.world, None if flat else above)
        tree.names.append((surface.mesh, original.data.name if original.data else original.name))
    for owner in [*bpy.data.objects, *bpy.data.meshes]:
        if owner.library is None and (owner, owner.name) not in tree.names:
            owner.name = "original"
    for thing, name in tree.names:
        thing.name = name
    _export(tree.scene, path)
    return Baked(
        num_nodes=len(tree.scene.objects),
        num_vertices=sum(len(surface.mesh.vertices) for surface in surfaces),
        num_triangles=sum(len(surface.mesh.loops) - 2 * len(surface.mesh.polygons) for surface in surfaces),
        left_out=left_out,
    )


def _surfaces(evaluator: Evaluator) -> Iterator[_Surface]:
    num_vertices, depsgraph = 0, evaluator.stage.view_layers[0].depsgraph
    for _, thing, mesh, matrix in evaluator.instances():
        if is_helper(thing):
            continue
        num_vertices += len(mesh.vertices)
        if num_vertices > MAX_VERTICES:
            raise BadAsset("too_complex", f"more than {MAX_VERTICES} vertices of all instances")
        own = bpy.data.meshes.new_from_object(thing, preserve_all_data_layers=True, depsgraph=depsgraph)
        for index, slot in enumerate(thing.material_slots):
            if slot.link == "OBJECT" and slot.material and index < len(own.materials):
                own.materials[index] = slot.material.original
        points = np.empty(3 * len(own.vertices), dtype=np.float32)
        own.vertices.foreach_get("co", points)
        if not (np.abs(points) < FARTHEST).all() or not np.isfinite(matrix).all():
            raise BadAsset("non_finite", f"a vertex of {thing.name_full!r} is not finite")
        yield _Surface(original=thing.original, mesh=own, world=_into_asset(matrix, evaluator.factor))


def _into_asset(stage_pose: Floats, factor: float) -> Floats:
    """A pose on the stage, which is `factor` times as large as the asset, in the asset's space."""
    pose = stage_pose.copy()
    pose[:3] /= factor
    return pose


def _is_flat(pose: Floats) -> bool:
    size = float(np.abs(pose[:3, :3]).max())
    return size == 0.0 or abs(float(np.linalg.det(pose[:3, :3] / size))) < FLAT


def _left_out(evaluator: Evaluator) -> Iterator[str]:
    """What is drawn and has no faces that stay: named by kind."""
    for instance in evaluator.stage.view_layers[0].depsgraph.object_instances:
        thing = instance.object
        if thing.name_full in evaluator.unseen or not is_shown(instance):
            continue
        if is_emitted(instance):
            yield "particles"
        elif thing.type in CLOUDS | {"VOLUME"} and instance.show_self:
            yield {"CURVES": "hair", "POINTCLOUD": "points", "VOLUME": "volumes"}[thing.type]
        for system in thing.particle_systems if instance.show_particles else ():
            if system.settings.type == "HAIR" and system.settings.render_type == "PATH":
                yield "hair"


def _cleared_scene() -> Any:
    """The file's own scene, emptied: without a window, Blender tells objects their poses in no other (4.5.15)."""
    scene = bpy.context.scene
    scene.name = SCENE
    for owned in (scene.collection.children, scene.collection.objects):
        for thing in list(owned):
            owned.unlink(thing)
    return scene


def _export(scene: Any, path: str) -> None:
    scene.frame_set(0)
    bpy.ops.export_scene.gltf(
        filepath=path,
        export_format="GLB",
        use_active_scene=True,
        export_animations=False,
        export_skins=False,
        export_morph=False,
        export_cameras=False,
        export_lights=False,
        export_extras=False,
        export_vertex_color="MATERIAL",
        export_image_format="AUTO",
    )
