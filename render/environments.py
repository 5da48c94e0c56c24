"""HDR pictures of real surroundings: from a folder into the data root, where every worker finds them.

A picture is named by the hash of its bytes. It is decoded once, in the sandbox, before any work starts: these files,
too, may come from strangers.
"""

import dataclasses
import hashlib
import os

from pipeline.storage import Store
from render.look import Look
from render.protocol import BadAsset, Examine, Examined
from render.supervisor import BlenderChild, BlenderSettings

FOLDER = "environments"
SUFFIXES = ("hdr", "exr")
MAX_BYTES = 1 << 29
MAX_WIDTH_PX = 8192
SKEW = 0.02
"""How much the sides may differ from 2 to 1."""


def blob_of(name: str) -> str:
    """Where a picture of `Look.hdris` lies in the data root."""
    return f"{FOLDER}/{name}"


def with_pictures(look: Look, store: Store, settings: BlenderSettings) -> Look:
    """The look with the pictures of its folder in the data root, known by content; unchanged if it has no folder.

    Raises:
        ValueError: There are no pictures in the folder, or one is broken, too large or no panorama.
        BlenderUnavailable: They cannot be looked at on this machine.
    """
    if not look.hdri_folder:
        return look
    source = Store(look.hdri_folder)
    paths = [path for path in source.list_files("") if path.lower().endswith(SUFFIXES)]
    if not paths:
        raise ValueError(f"there are no .hdr or .exr pictures in {look.hdri_folder}")
    child = BlenderChild(settings)
    try:
        names = {_take_in(path, source, store, child) for path in paths}
    finally:
        child.close()
    return dataclasses.replace(look, hdri_folder="", hdris=tuple(sorted(names | set(look.hdris))))


def copy_pictures(look: Look, store: Store, other: Store) -> None:
    """Put the pictures of a look into another data root."""
    for name in look.hdris:
        other.write_bytes(blob_of(name), store.read_bytes(blob_of(name)))


def _take_in(path: str, source: Store, store: Store, child: BlenderChild) -> str:
    if source.size(path) > MAX_BYTES:
        raise ValueError(f"{path} has more than {MAX_BYTES >> 20} MB")
    content = source.read_bytes(path)
    name = f"{hashlib.sha256(content).hexdigest()}.{path.rpartition('.')[2].lower()}"
    if store.exists(blob_of(name)):  # it was looked at then
        return name
    _examine(path, source, child)
    store.write_bytes(blob_of(name), content)
    return name


def _examine(path: str, source: Store, child: BlenderChild) -> None:
    try:
        found: Examined = child.call(Examine(path=str(child.lend(path, source)), max_width_px=MAX_WIDTH_PX))
    except BadAsset as error:
        raise ValueError(f"{os.path.basename(path)} is no HDR picture that Blender reads: {error.detail}") from error
    if abs(found.width - 2 * found.height) > SKEW * found.width:
        raise ValueError(
            f"{os.path.basename(path)} is no panorama: {found.width} x {found.height} pixels, not twice as wide as high"
        )
    if found.mean <= 0.0:
        raise ValueError(f"{os.path.basename(path)} gives no light, or an infinite one")
