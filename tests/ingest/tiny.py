"""Tiny assets written by hand: an animated triangle as glTF and GLB, and images that are little more than a header."""

import copy
import json
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from ingest.sources.source import make_item
from pipeline.records import SourceItem

POSITIONS = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]], "<f4")
INDICES = np.array([0, 1, 2, 0], "<u2")
TIMES = np.array([0.0, 1.5], "<f4")
TRANSLATIONS = np.array([[0, 0, 0], [0, 0, 1]], "<f4")

POSITION, INDEX, TIME, TRANSLATION = 0, 1, 2, 3
"""Accessors and buffer views of the triangle."""


def triangle() -> tuple[dict[str, Any], bytearray]:
    """The JSON of an animated triangle, and its buffer."""
    parts = [array.tobytes() for array in (POSITIONS, INDICES, TIMES, TRANSLATIONS)]
    offsets = [sum(map(len, parts[:index])) for index in range(len(parts))]
    root = {
        "asset": {"version": "2.0", "generator": "by hand"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"name": "root", "children": [1]}, {"name": "child", "mesh": 0}],
        "meshes": [{"primitives": [{"attributes": {"POSITION": POSITION}, "indices": INDEX}]}],
        "animations": [
            {
                "name": "rise",
                "channels": [{"sampler": 0, "target": {"node": 1, "path": "translation"}}],
                "samplers": [{"input": TIME, "output": TRANSLATION}],
            }
        ],
        "buffers": [{"byteLength": sum(map(len, parts))}],
        "bufferViews": [
            {"buffer": 0, "byteOffset": offset, "byteLength": len(part)}
            for offset, part in zip(offsets, parts, strict=True)
        ],
        "accessors": [
            {"bufferView": 0, "componentType": 5126, "count": 3, "type": "VEC3", "min": [0, 0, 0], "max": [1, 1, 0]},
            {"bufferView": 1, "componentType": 5123, "count": 3, "type": "SCALAR"},
            {"bufferView": 2, "componentType": 5126, "count": 2, "type": "SCALAR", "min": [0], "max": [1.5]},
            {"bufferView": 3, "componentType": 5126, "count": 2, "type": "VEC3"},
        ],
    }
    return copy.deepcopy(root), bytearray(b"".join(parts))


def set_float(buffer: bytearray, accessor: int, element: int, value: float) -> None:
    """Overwrite one number of one of the triangle's accessors."""
    root, _ = triangle()
    struct.pack_into("<f", buffer, root["bufferViews"][accessor]["byteOffset"] + 4 * element, value)


def glb(root: Any, buffer: bytes | bytearray | None = None) -> bytes:
    """A GLB of some JSON and a binary chunk."""
    text = root if isinstance(root, bytes) else json.dumps(root).encode()
    chunks = _chunk(b"JSON", text, b" ") + (b"" if buffer is None else _chunk(b"BIN\0", bytes(buffer), b"\0"))
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks


def triangle_glb(*, seed: float = 0.0, num_bytes: int = 0) -> bytes:
    """The animated triangle; another seed gives other bytes, and there may be some more that mean nothing."""
    root, buffer = triangle()
    buffer += bytes(num_bytes)
    root["buffers"][0]["byteLength"] = len(buffer)
    set_float(buffer, TRANSLATION, 5, 1.0 + seed)
    return glb(root, buffer)


def write_gltf(folder: Path, name: str = "tri.gltf", *, image: bytes | None = None) -> Path:
    """The triangle as a .gltf with its `tri.bin`, and with a texture if bytes are given."""
    folder.mkdir(parents=True, exist_ok=True)
    root, buffer = triangle()
    root["buffers"][0]["uri"] = "tri.bin"
    if image is not None:
        root["images"] = [{"uri": "textures/a%20b.png"}]
        (folder / "textures").mkdir(exist_ok=True)
        (folder / "textures" / "a b.png").write_bytes(image)
    (folder / "tri.bin").write_bytes(buffer)
    (folder / name).write_text(json.dumps(root))
    return folder / name


def png(width: int, height: int) -> bytes:
    """A PNG that says so large; its pixels are missing."""
    header = struct.pack(">II5B", width, height, 1, 0, 0, 0, 0)
    body = b"IHDR" + header
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))


def item(uri: str | Path, **changes: Any) -> SourceItem:
    """A listed item under CC0."""
    values = {"source": "test", "uri": str(uri), "name": Path(str(uri)).name, "spdx": "CC0-1.0", **changes}
    return make_item(**values)


def _chunk(kind: bytes, content: bytes, padding: bytes) -> bytes:
    content += padding * (-len(content) % 4)
    return struct.pack("<I4s", len(content), kind) + content
