"""What differs between the versions of Blender that the child runs in, 4.5 and 5.0. No other file asks for the version.

What both have in common is used everywhere: F-curves through layers, strips and channel bags (`Action.fcurves` is gone
in 5.0), and scenes without a compositor (`Scene.node_tree` is gone). Importers get every option that matters by name.
"""

from typing import Any

import bpy

from render.protocol import BadAsset

OLDEST = (4, 5)
"""Older ones have no slotted actions."""

EEVEE = "BLENDER_EEVEE" if bpy.app.version >= (5, 0, 0) else "BLENDER_EEVEE_NEXT"
"""What `render.engine` calls the EEVEE of 4.2 and later."""

LONGEST_NAME = bpy.types.ID.bl_rna.properties["name"].length_max - 1
"""Bytes at which the name of a data-block is cut off: 63 in 4.5, 255 in 5.0."""

_ONE_SLOT = "Slot"


def refuse_old() -> None:
    """Make sure that this Blender is one that we know.

    Raises:
        RuntimeError: It is too old.
    """
    if bpy.app.version < OLDEST:
        raise RuntimeError(f"Blender {bpy.app.version_string} is too old: 4.5 or newer is needed")


def is_whole_take(action: Any, slot: Any) -> bool:
    """The FBX importer in Python made this action: a take on one data-block, which the action's name begins with.

    Its only slot has the action's name in 4.5, and the same name everywhere in 5.0. The importer in C++ names slots
    after data-blocks instead.
    """
    return slot.name_display == action.name or (slot.name_display == _ONE_SLOT and len(action.slots) == 1)


def refuse_newer_file() -> None:
    """Refuse an open .blend of a later version: Blender reads it, and leaves out what it does not know.

    Raises:
        BadAsset: The file was saved by a later version than this one.
    """
    saved, own = tuple(bpy.data.version)[:2], bpy.app.version[:2]
    if saved > own:
        theirs, ours = (".".join(map(str, version)) for version in (saved, own))
        raise BadAsset("unsupported_version", f"saved by Blender {theirs}, and this is {ours}")
