"""The animations of an asset, each listed once, and how to show exactly one of them.

What counts as one animation:

- glTF: all NLA tracks of one name, over all data-blocks. The importer makes one such name per glTF animation.
- FBX: one take, over all data-blocks.
- .blend: first, NLA tracks of one name, as with glTF, if somebody gave them that name. Then, the actions that were
  active when the file was saved: together they are one animation. Then every other action, on the data-block where it
  lies in an NLA track, or whose slot, name or bones it fits.
- USD and Alembic, and a .blend without actions: `timeline`, all that is sampled in time or moves by itself as cloth
  does, over the scene's range.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import bpy

from render.blender.evaluating import LAST_FRAME
from render.blender.gltf import animation_names
from render.blender.importing import OpenFile
from render.blender.simulating import CLOTHS
from render.blender.versions import LONGEST_NAME, is_whole_take
from render.protocol import Action

Block = Any
"""A data-block that can be animated: an object, a shape key, a material's node tree."""

_COLLECTIONS = (
    "objects", "shape_keys", "meshes", "armatures", "curves", "lattices", "metaballs", "materials", "node_groups",
    "textures",
)  # fmt: skip
_BONE = re.compile(r'^pose\.bones\["((?:[^"\\]|\\.)*)"\]')
_CUSTOM = re.compile(r'^(.*)\["((?:[^"\\]|\\.)*)"\]$')
_UNNAMED_TRACK = re.compile(r"^(NlaTrack|\[Action Stash\])(\.\d+)?$")
_NEVER_SEEN = {"CAMERA", "LIGHT", "LIGHT_PROBE", "SPEAKER"}
_REST = {
    "location": (0.0, 0.0, 0.0),
    "rotation_quaternion": (1.0, 0.0, 0.0, 0.0),
    "rotation_euler": (0.0, 0.0, 0.0),
    "rotation_axis_angle": (0.0, 0.0, 1.0, 0.0),
    "scale": (1.0, 1.0, 1.0),
}


@dataclass(frozen=True, kw_only=True)
class Binding:
    """An action that plays on a data-block."""

    block: Block
    action: Any
    slot: Any


@dataclass(frozen=True, kw_only=True)
class Animation:
    """One named animation, over all data-blocks that it moves."""

    name: str
    start_s: float
    end_s: float
    bindings: tuple[Binding, ...]


class Animations:
    """All animations of the file on the stage. Remembers the imported pose, and returns to it before each binding."""

    def __init__(self, file: OpenFile) -> None:
        self._blocks = [block for block in _data_blocks() if block.animation_data]
        for block in self._blocks:
            block.animation_data.use_tweak_mode = False
        self.all = _find_animations(file, self._blocks)
        bound = {binding.block: None for animation in self.all for binding in animation.bindings}
        for block in bound:
            if not block.animation_data:
                block.animation_data_create()
                self._blocks.append(block)
        self._imported = _imported_values(self.all, poses_rest=file.format == "blend")
        _ignore_viewport(self.all)
        for block in self._blocks:
            block.animation_data.use_nla = False
            for track in block.animation_data.nla_tracks:
                track.mute = True
        self.bind(None)

    def listed(self) -> list[Action]:
        """The animations as the protocol tells them."""
        return [
            Action(index=index, name=entry.name, start_s=entry.start_s, end_s=entry.end_s)
            for index, entry in enumerate(self.all)
        ]

    def bind(self, index: int | None) -> None:
        """Show one animation and nothing else, from the imported pose; None for that pose alone."""
        chosen = {} if index is None else {binding.block: binding for binding in self.all[index].bindings}
        for block in self._blocks:
            binding, animation_data = chosen.get(block), block.animation_data
            animation_data.action = binding.action if binding else None
            if binding:
                animation_data.action_slot = binding.slot
        for owner, name, value in self._imported:
            if name.startswith("["):
                owner[name[2:-2]] = value
            else:
                setattr(owner, name, value)


def _data_blocks() -> Iterator[Block]:
    """All that may be animated, but for what neither is seen nor carries anything."""
    for name in _COLLECTIONS:
        for block in getattr(bpy.data, name):
            if name == "objects" and block.type in _NEVER_SEEN and not block.children:
                continue
            yield block
            if name == "materials" and block.node_tree:
                yield block.node_tree


def _find_animations(file: OpenFile, blocks: list[Block]) -> list[Animation]:
    if file.format in {"glb", "gltf"}:
        groups = _in_order(_by_track(blocks, unnamed_too=True), animation_names(file.path))
    elif file.format == "fbx":
        groups = _by_take()
    elif file.format == "blend":
        groups = _by_blend(blocks)
    else:
        groups = {}
    if groups:
        return [_animation(name, groups[name], file.fps) for name in groups]
    active = _active(blocks)
    if active or _moves_by_itself():
        start, end = file.frame_start / file.fps, file.frame_end / file.fps
        return [Animation(name="timeline", start_s=start, end_s=end, bindings=tuple(active))]
    return []


def _animation(name: str, bindings: list[Binding], fps: float) -> Animation:
    ranges = [_range_of(binding) for binding in bindings]
    start, end = min(start for start, _ in ranges), max(end for _, end in ranges)
    return Animation(name=name, start_s=start / fps, end_s=end / fps, bindings=tuple(bindings))


def _range_of(binding: Binding) -> tuple[float, float]:
    """First and last frame. Blender cuts an action's range off where its timeline ends; its curves know better."""
    start, end = binding.action.frame_range
    if end < LAST_FRAME:
        return start, end
    ranges = [curve.range() for curve in _curves(binding.action, binding.slot)]
    return min([start, *(low for low, _ in ranges)]), max([end, *(high for _, high in ranges)])


def _by_track(blocks: list[Block], unnamed_too: bool) -> dict[str, list[Binding]]:
    """NLA tracks of one name belong together. The importer stacks them last first."""
    groups: dict[str, list[Binding]] = {}
    for block in blocks:
        for track in reversed(block.animation_data.nla_tracks):
            strips = [strip for strip in track.strips if strip.action]
            if strips and (unnamed_too or not _UNNAMED_TRACK.match(track.name)):
                binding = Binding(block=block, action=strips[0].action, slot=strips[0].action_slot)
                groups.setdefault(track.name, []).append(binding)
    return groups


def _in_order(groups: dict[str, list[Binding]], names: list[str]) -> dict[str, list[Binding]]:
    """Sorted as the names are; what is not among them comes last."""
    rank = {name: place for place, name in reversed(list(enumerate(names)))}
    return {name: groups[name] for name in sorted(groups, key=lambda name: rank.get(name, len(names)))}


def _by_take() -> dict[str, list[Binding]]:
    """The importer names an action `data-block|take|layer`, cut off at the longest name.

    The newer one makes one action of a take, with a slot for each data-block, of its name.
    """
    groups: dict[str, list[Binding]] = {}
    found = []
    for action in bpy.data.actions:
        for slot in action.slots:
            owners = [block for block in _data_blocks() if _type_of(block) == slot.target_id_type]
            if is_whole_take(action, slot):
                owners = [block for block in owners if action.name.startswith(block.name + "|")]
                owners = sorted(owners, key=lambda block: len(block.name))[-1:]
                take = action.name[len(owners[0].name) + 1 :] if owners else ""
            else:
                owners = [block for block in owners if slot.name_display == block.name]
                take = action.name
            found += [(take, Binding(block=block, action=action, slot=slot)) for block in owners]
    for take, binding in sorted(found, key=lambda pair: -len(pair[0])):
        cut_off = len(binding.action.name.encode()) >= LONGEST_NAME
        whole = next((name for name in groups if name.startswith(take)), take) if cut_off else take
        groups.setdefault(whole, []).append(binding)
    return dict(sorted(groups.items()))


def _by_blend(blocks: list[Block]) -> dict[str, list[Binding]]:
    groups = _by_track(blocks, unnamed_too=False)
    listed = {binding.action for group in groups.values() for binding in group}
    active = [binding for binding in _active(blocks) if binding.action not in listed]
    if active:
        names = list(dict.fromkeys(binding.action.name for binding in active))
        name = names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
        groups[_unused(name, groups)] = active
        listed |= {binding.action for binding in active}
    for action in bpy.data.actions:
        bindings = [] if action in listed else _fitting(action, blocks)
        if bindings:
            groups[_unused(action.name, groups)] = bindings
    return groups


def _active(blocks: list[Block]) -> list[Binding]:
    return [
        Binding(block=block, action=block.animation_data.action, slot=block.animation_data.action_slot)
        for block in blocks
        if block.animation_data.action and block.animation_data.action_slot
    ]


def _fitting(action: Any, blocks: list[Block]) -> list[Binding]:
    """For each slot the data-block it was stashed on, is named after, or whose bones or keys it moves."""
    bindings = []
    for slot in action.slots:
        block = _stashed_on(action, blocks) or _named_like(slot, blocks) or _owner_of_bones(action, slot) or None
        if block and _type_of(block) == slot.target_id_type:
            bindings.append(Binding(block=block, action=action, slot=slot))
    return bindings


def _stashed_on(action: Any, blocks: list[Block]) -> Block | None:
    for block in blocks:
        for track in block.animation_data.nla_tracks:
            if any(strip.action == action for strip in track.strips):
                return block
    return None


def _named_like(slot: Any, blocks: list[Block]) -> Block | None:
    users = [block for block in slot.users() if block in blocks]
    kind = slot.target_id_type  # of a block that may have no animation yet
    named = [block for block in _data_blocks() if block.name == slot.name_display and _type_of(block) == kind]
    return (users or named or [None])[0]


def _owner_of_bones(action: Any, slot: Any) -> Block | None:
    """The armature with the most of the bones that the action moves, if it has at least half of them."""
    bones = {match.group(1) for curve in _curves(action, slot) if (match := _BONE.match(curve.data_path))}
    armatures = [thing for thing in bpy.data.objects if thing.type == "ARMATURE"]
    if not bones or not armatures:
        return None
    best = max(armatures, key=lambda thing: len(bones & set(thing.data.bones.keys())))
    return best if 2 * len(bones & set(best.data.bones.keys())) >= len(bones) else None


def _curves(action: Any, slot: Any) -> list[Any]:
    """F-curves of a slot, whether the action has layers or, before 4.4, only curves."""
    bags = [bag for layer in action.layers for strip in layer.strips if (bag := strip.channelbag(slot))]
    return [curve for bag in bags for curve in bag.fcurves]


def _type_of(block: Block) -> str:
    return str(block.id_type)


def _unused(name: str, groups: dict[str, list[Binding]]) -> str:
    return name if name not in groups else f"{name} (action)"


def _moves_by_itself() -> bool:
    """A mesh or transform is read from a cache file, frame by frame, or is cloth."""
    return any(
        any(modifier.type in {"MESH_SEQUENCE_CACHE", *CLOTHS} and modifier.show_render for modifier in thing.modifiers)
        or any(constraint.type == "TRANSFORM_CACHE" for constraint in thing.constraints)
        for thing in bpy.data.objects
    )


def _ignore_viewport(animations: list[Animation]) -> None:
    """A render heeds `hide_render` alone, but evaluation would heed an animated `hide_viewport`."""
    for binding in (binding for animation in animations for binding in animation.bindings):
        for curve in _curves(binding.action, binding.slot):
            if curve.data_path == "hide_viewport":
                curve.mute = True


def _imported_values(animations: list[Animation], poses_rest: bool) -> list[tuple[Any, str, Any]]:
    """Owner, property and value of everything that some animation moves, as it stands before any of them is evaluated.

    Args:
        animations: All of the file.
        poses_rest: Take the rest pose for bones instead of their present one: a .blend is saved in the middle of an
            animation, where glTF and FBX state a pose of their own.
    """
    paths = {
        (binding.block, curve.data_path): None
        for animation in animations
        for binding in animation.bindings
        for curve in _curves(binding.action, binding.slot)
    }
    values = []
    for block, path in paths:
        try:
            if custom := _CUSTOM.match(path):
                owner = block.path_resolve(custom.group(1)) if custom.group(1) else block
                name, value = f'["{custom.group(2)}"]', owner[custom.group(2)]
                name = f"[{name[1:-1]}]"
            else:
                owner_path, _, name = path.rpartition(".")
                owner = block.path_resolve(owner_path) if owner_path else block
                value = getattr(owner, name)
        except (ValueError, KeyError, AttributeError):
            continue  # a channel for something that the file does not have: Blender passes over it too
        if poses_rest and _BONE.match(path) and name in _REST:
            value = _REST[name]
        elif hasattr(value, "__len__") and not isinstance(value, str):
            value = tuple(value)
        values.append((owner, name, value))
    return values
