"""The smallest glTF files that still move: cubes, their animations, and what a test wants to be odd about them."""

import json
import struct
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

CUBE = np.array([[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)], dtype=np.float32)
SIDES = {
    "-x": (0, 1, 3, 2), "+x": (4, 6, 7, 5), "-y": (0, 4, 5, 1),
    "+y": (2, 3, 7, 6), "-z": (0, 2, 6, 4), "+z": (1, 5, 7, 3),
}  # fmt: skip
"""Corners of each side, counter-clockwise seen from outside, in glTF's own axes: y up, +z towards the viewer."""


@dataclass
class TinyGltf:
    """A glTF document in the making, with one buffer."""

    document: dict[str, Any] = field(
        default_factory=lambda: {
            "asset": {"version": "2.0"},
            "scene": 0,
            "scenes": [{"nodes": []}],
            "nodes": [],
            "meshes": [],
            "materials": [],
            "accessors": [],
            "bufferViews": [],
            "animations": [],
            "images": [],
            "textures": [],
        }
    )
    binary: bytes = b""

    def view(self, data: bytes) -> int:
        """A buffer view of the bytes."""
        self.document["bufferViews"].append({"buffer": 0, "byteOffset": len(self.binary), "byteLength": len(data)})
        self.binary += data + b"\0" * (-len(data) % 4)
        return len(self.document["bufferViews"]) - 1

    def accessor(self, values: Any, kind: str) -> int:
        """An accessor of floats, or of indices if the values are integers."""
        array = np.asarray(values)
        array = array.astype(np.uint16) if array.dtype.kind in "iu" else array.astype(np.float32)
        entry: dict[str, Any] = {
            "bufferView": self.view(array.tobytes()), "componentType": 5123 if array.dtype == np.uint16 else 5126,
            "count": len(array), "type": kind,
        }  # fmt: skip
        if kind in ("VEC3", "SCALAR") and np.isfinite(array).all():
            rows = array.reshape(len(array), -1)
            entry |= {"min": rows.min(axis=0).tolist(), "max": rows.max(axis=0).tolist()}
        self.document["accessors"].append(entry)
        return len(self.document["accessors"]) - 1

    def material(self, colour: tuple[float, float, float], **extra: Any) -> int:
        """A rough material of one colour."""
        pbr = {"baseColorFactor": [*colour, 1.0], "metallicFactor": 0.0, "roughnessFactor": 1.0}
        self.document["materials"].append({"pbrMetallicRoughness": pbr, "doubleSided": True, **extra})
        return len(self.document["materials"]) - 1

    def cube(self, materials: dict[str, int] | int | None = None, points: Any = CUBE, flipped: bool = False) -> int:
        """A cube mesh, of one material or of one for each side."""
        position = self.accessor(points, "VEC3")
        pieces: dict[int | None, list[int]] = {}
        for side, corners in SIDES.items():
            material = materials[side] if isinstance(materials, dict) else materials
            first, second, third, fourth = corners[::-1] if flipped else corners
            pieces.setdefault(material, []).extend([first, second, third, first, third, fourth])
        primitives: list[dict[str, Any]] = []
        for material, indices in pieces.items():
            primitive: dict[str, Any] = {
                "attributes": {"POSITION": position},
                "indices": self.accessor(indices, "SCALAR"),
            }
            primitives.append(primitive if material is None else {**primitive, "material": material})
        self.document["meshes"].append({"primitives": primitives})
        return len(self.document["meshes"]) - 1

    def node(self, parent: int | None = None, **fields: Any) -> int:
        """A node, at the root unless it has a parent."""
        self.document["nodes"].append(fields)
        index = len(self.document["nodes"]) - 1
        siblings = self.document["scenes"][0]["nodes"]
        if parent is not None:
            siblings = self.document["nodes"][parent].setdefault("children", [])
        siblings.append(index)
        return index

    def animate(self, name: str, *channels: tuple[int, str, list[float], Any]) -> None:
        """An animation of channels (node, path, times in seconds, values)."""
        animation: dict[str, Any] = {"name": name, "samplers": [], "channels": []}
        kinds = {"rotation": "VEC4", "weights": "SCALAR"}
        for node, path, times_s, values in channels:
            output = self.accessor(np.asarray(values, dtype=np.float32), kinds.get(path, "VEC3"))
            animation["samplers"].append(
                {"input": self.accessor(np.asarray(times_s, np.float32), "SCALAR"), "output": output}
            )
            animation["channels"].append(
                {"sampler": len(animation["samplers"]) - 1, "target": {"node": node, "path": path}}
            )
        self.document["animations"].append(animation)

    def texture(self, **image: Any) -> dict[str, Any]:
        """A base colour texture of an image."""
        self.document["images"].append(image)
        self.document["textures"].append({"source": len(self.document["images"]) - 1})
        return {"baseColorTexture": {"index": len(self.document["textures"]) - 1}, "metallicFactor": 0.0}

    def save(self, path: Path) -> Path:
        """Write it as .glb."""
        path.write_bytes(self.bytes())
        return path

    def bytes(self) -> bytes:
        """It as .glb."""
        document = {key: value for key, value in self.document.items() if value or key in ("asset", "scene", "scenes")}
        document["buffers"] = [{"byteLength": len(self.binary)}]
        text = json.dumps(document).encode()
        text += b" " * (-len(text) % 4)
        chunks = struct.pack("<I4s", len(text), b"JSON") + text
        chunks += struct.pack("<I4s", len(self.binary), b"BIN\0") + self.binary
        return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks


def png(width: int, height: int, rows: bytes = b"") -> bytes:
    """A PNG that claims a size; whether it holds the rows for it is up to the caller."""
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    ]  # fmt: skip
    packed = (
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)
