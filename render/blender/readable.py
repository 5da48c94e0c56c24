"""Rewrites a glTF that Blender's importer cannot read, or reads wrongly, into one that it reads.

- Buffer views under EXT_meshopt_compression or KHR_meshopt_compression are decoded.
- Pictures in KTX2 (KHR_texture_basisu) and AVIF (EXT_texture_avif) become PNG.
- Cubic splines become polylines that hardly differ from them.
- Of several scenes without a default one, the first is it.

Other files are left as they are, byte for byte. The original stays what the asset is; the copy lives in the child's own
folder until the next asset comes.
"""

import base64
import io
import os
import struct
import zlib
from typing import Any

import numpy as np

from render.blender import cubic, gltf_file, ktx2, meshopt
from render.blender.gltf_file import GltfFile, Json
from render.protocol import BadAsset

COPY = "readable.glb"
_FLOAT = 5126
MAX_DECODED_BYTES = 1 << 30
"""Of all compressed buffer views."""
MAX_PIXELS = 256 << 20
"""Of all pictures that are decoded here."""

_BASISU, _AVIF = "KHR_texture_basisu", "EXT_texture_avif"
_PICTURES = (_BASISU, _AVIF)
_FAULTS = (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError, RecursionError, struct.error)


def readable(path: str, folder: str) -> str:
    """The path of a file that Blender reads: the same, or that of a rewritten copy.

    Args:
        path: Of a .glb or .gltf.
        folder: Where the copy goes, over the last one.

    Raises:
        BadAsset: `malformed`, `non_finite`, `image_bomb`, `too_complex`, or `unsupported_extension` where a
            decoder is missing.
    """
    try:
        file = gltf_file.read(path)
        changes = [change for needed, change in _CHANGES if needed(file.root)]
        if not changes:
            _refuse_no_numbers(file)
            return path
    except _FAULTS:
        return path  # the importer has words for what is wrong with it
    copy = os.path.join(folder, COPY)
    try:
        for change in changes:
            change(file)
        _refuse_no_numbers(file)
        file.write(copy)
    except _FAULTS as error:
        raise BadAsset("malformed", f"its JSON or buffers do not hold together: {error!r}"[:500]) from error
    return copy


def _has_meshopt(root: Json) -> bool:
    return any(
        _extension(view, name) is not None for view in root.get("bufferViews", []) for name in meshopt.EXTENSIONS
    )


def _decompress(file: GltfFile) -> None:
    """Decode the compressed views; their own fields already describe the result."""
    jobs = []
    for index, view in enumerate(file.listed("bufferViews")):
        for name in meshopt.EXTENSIONS:
            settings = _extension(view, name)
            if settings is not None:
                jobs.append((index, view, settings))
                break
    total = sum(meshopt.check(settings) for _, _, settings in jobs)
    if total > MAX_DECODED_BYTES:
        raise BadAsset("too_complex", f"its buffers decode to {total} bytes, the limit is {MAX_DECODED_BYTES}")
    for index, view, settings in jobs:
        data = bytes(file.part(settings["buffer"], settings.get("byteOffset", 0), settings["byteLength"]))
        decoded = meshopt.decode(data, settings)
        if len(decoded) < view["byteLength"]:
            raise ValueError(f"a buffer view of {view['byteLength']} bytes decodes to {len(decoded)}")
        file.replaced[index] = decoded
        _forget(view, meshopt.EXTENSIONS)
    _check_indices(file)
    _undeclare(file, meshopt.EXTENSIONS)


def _check_indices(file: GltfFile) -> None:
    """Indices that could not be looked at while they were compressed must lie within their mesh."""
    accessors = file.listed("accessors")
    primitives = [part for mesh in file.listed("meshes") for part in mesh.get("primitives", [])]
    for primitive in primitives:
        position = primitive.get("attributes", {}).get("POSITION")
        if position is None or "indices" not in primitive:
            continue
        if accessors[primitive["indices"]].get("bufferView") in file.replaced:
            largest = file.numbers(primitive["indices"]).max(initial=0.0)
            if largest >= accessors[position]["count"]:
                raise ValueError(f"index {largest:.0f} of {accessors[position]['count']} vertices")


def _refuse_no_numbers(file: GltfFile) -> None:
    """NaN and infinity in positions: Blender puts such a vertex at the origin and says nothing."""
    accessors = file.listed("accessors")
    parts = [part for mesh in file.listed("meshes") for part in mesh.get("primitives", [])]
    used = {part.get("attributes", {}).get("POSITION") for part in parts}
    for number in sorted(used - {None}):
        if accessors[number]["componentType"] == _FLOAT and not np.isfinite(file.numbers(number)).all():
            raise BadAsset("non_finite", f"accessor {number}, of positions, has NaN or infinity")


def _has_pictures(root: Json) -> bool:
    return any(_extension(texture, name) is not None for texture in root.get("textures", []) for name in _PICTURES)


def _repaint(file: GltfFile) -> None:
    """PNG in place of what Blender does not read, unless the texture names a picture of an older kind as well."""
    wanted: dict[int, str] = {}
    for texture in file.listed("textures"):
        for name in _PICTURES:
            settings = _extension(texture, name)
            if settings is not None and "source" not in texture:
                texture["source"] = settings["source"]
                wanted[settings["source"]] = name
        _forget(texture, _PICTURES)
    num_pixels = 0
    for index, name in wanted.items():
        image = file.listed("images")[index]
        data = _picture_bytes(file, image)
        if data is None:
            continue  # it is missing, and is counted as such later
        width, height = _size(data, name)
        num_pixels += width * height
        if num_pixels > MAX_PIXELS:
            raise BadAsset("image_bomb", f"its textures have {num_pixels} pixels, the limit is {MAX_PIXELS}")
        pixels = ktx2.decode(data) if name == _BASISU else _decode_avif(data)
        image.pop("uri", None)
        image |= {"bufferView": file.add_view(png(pixels)), "mimeType": "image/png"}
    _undeclare(file, _PICTURES)


def _picture_bytes(file: GltfFile, image: Json) -> bytes | None:
    if "bufferView" in image:
        return bytes(file.view(image["bufferView"]))
    uri = image["uri"]
    if uri.startswith("data:"):
        return base64.b64decode(uri.partition(",")[2])
    try:
        return file.file(uri).read_bytes()
    except ValueError:
        return None


def _size(data: bytes, name: str) -> tuple[int, int]:
    if name == _BASISU:
        header = ktx2.read_header(data)
        return header.width, header.height
    with _pillow().open(io.BytesIO(data), formats=["AVIF"]) as image:
        width, height = image.size
    return int(width), int(height)


def _decode_avif(data: bytes) -> np.ndarray:
    try:
        with _pillow().open(io.BytesIO(data), formats=["AVIF"]) as image:
            return np.asarray(image.convert("RGBA" if image.has_transparency_data else "RGB"))
    except OSError as error:
        raise BadAsset("malformed", f"an AVIF texture is broken: {error}") from error


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError:
        found = "it has AVIF textures, and Blender's interpreter lacks the decoder: `pip install pillow` there"
        raise BadAsset("unsupported_extension", found) from None
    return Image


def png(pixels: np.ndarray) -> bytes:
    """A PNG, lightly compressed: it is read once.

    Args:
        pixels: Shape (height, width, 3 or 4), uint8.
    """
    height, width, channels = pixels.shape
    rows = np.zeros((height, 1 + width * channels), np.uint8)
    rows[:, 1:] = pixels.reshape(height, -1)
    header = struct.pack(">IIBBBBB", width, height, 8, 6 if channels == 4 else 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes(), 1)), (b"IEND", b""))
    packed = (
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def _has_cubic(root: Json) -> bool:
    samplers = (sampler for animation in root.get("animations", []) for sampler in animation.get("samplers", []))
    return any(sampler.get("interpolation") == "CUBICSPLINE" for sampler in samplers)


def _has_no_default(root: Json) -> bool:
    return len(root.get("scenes", [])) > 1 and "scene" not in root


def _take_first_scene(file: GltfFile) -> None:
    file.root["scene"] = 0


_CHANGES = (
    (_has_meshopt, _decompress),
    (_has_pictures, _repaint),
    (_has_cubic, cubic.straighten),
    (_has_no_default, _take_first_scene),
)
"""(whether it is needed, what it does), in the order in which one builds on another."""


def _extension(entry: Json, name: str) -> Any:
    return entry.get("extensions", {}).get(name)


def _forget(entry: Json, names: tuple[str, ...]) -> None:
    for name in names:
        entry.get("extensions", {}).pop(name, None)


def _undeclare(file: GltfFile, names: tuple[str, ...]) -> None:
    for key in ("extensionsUsed", "extensionsRequired"):
        file.root[key] = [name for name in file.root.get(key) or [] if name not in names]
