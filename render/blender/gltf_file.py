"""A glTF file in memory, to be changed before Blender's importer sees it: its JSON, and the bytes of its buffers.

The file is a stranger's. Whatever is wrong with it raises KeyError, IndexError, TypeError or ValueError here.
"""

import base64
import json
import mmap
import os
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import numpy as np

Json = dict[str, Any]

DTYPES = {5120: "<i1", 5121: "<u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
COMPONENTS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT2": 4, "MAT3": 9, "MAT4": 16}
_JSON, _BINARY = b"JSON", b"BIN\0"
_ALIGNMENT = 8
_MOST_ELEMENTS = 1 << 26


@dataclass
class GltfFile:
    """The JSON, where the file lies, and what replaces some of its buffer views."""

    root: Json
    folder: str
    chunk: memoryview
    """GLB's binary chunk; empty for .gltf."""
    replaced: dict[int, bytes] = field(default_factory=dict)
    """View: the bytes that stand for its own."""
    _buffers: dict[int, memoryview] = field(default_factory=dict)

    def listed(self, key: str) -> list[Json]:
        """A top-level array."""
        return self.root.get(key) or []

    def view(self, index: int) -> bytes | memoryview:
        """The bytes of a buffer view."""
        if index in self.replaced:
            return self.replaced[index]
        view = self.listed("bufferViews")[index]
        return self.part(view["buffer"], view.get("byteOffset", 0), view["byteLength"])

    def part(self, buffer: int, offset: int, count: int) -> memoryview:
        """Bytes of a buffer."""
        whole = self._buffer(buffer)
        if min(buffer, offset, count) < 0 or offset + count > len(whole):
            raise ValueError(f"bytes {offset} to {offset + count} of a buffer of {len(whole)}")
        return whole[offset : offset + count]

    def _buffer(self, index: int) -> memoryview:
        if index not in self._buffers:
            uri = self.listed("buffers")[index].get("uri")
            if not uri:
                self._buffers[index] = self.chunk
            elif uri.startswith("data:"):
                self._buffers[index] = memoryview(base64.b64decode(uri.partition(",")[2]))
            else:
                self._buffers[index] = memoryview(self.file(uri).read_bytes())
        return self._buffers[index]

    def file(self, uri: str) -> Path:
        """A file beside this one.

        Raises:
            ValueError: It lies elsewhere, or is not there.
        """
        path = os.path.realpath(os.path.join(self.folder, unquote(uri.replace("\\", "/"))))
        if os.path.commonpath([self.folder, path]) != self.folder or not os.path.isfile(path):
            raise ValueError(f"no such file beside it: {uri[:100]!r}")
        return Path(path)

    def add_view(self, data: bytes) -> int:
        """A new buffer view."""
        views = self.root.setdefault("bufferViews", [])
        views.append({"buffer": 0, "byteLength": len(data)})
        self.replaced[len(views) - 1] = data
        return len(views) - 1

    def add_accessor(self, values: np.ndarray, kind: str) -> int:
        """A new accessor of float32. Values have shape (n, components)."""
        rows = np.ascontiguousarray(values, dtype="<f4")
        entry = {"bufferView": self.add_view(rows.tobytes()), "componentType": 5126, "count": len(rows), "type": kind}
        bounds = {"min": rows.min(axis=0).tolist(), "max": rows.max(axis=0).tolist()} if len(rows) else {}
        self.root.setdefault("accessors", []).append({**entry, **bounds})
        return len(self.root["accessors"]) - 1

    def numbers(self, accessor: int) -> np.ndarray:
        """The values of an accessor, normalised integers as fractions. Shape (n, components), float64."""
        entry = self.listed("accessors")[accessor]
        count, width = entry["count"], COMPONENTS[entry["type"]]
        values = self._elements(entry, count, width, entry["componentType"])
        if "sparse" in entry:
            sparse = entry["sparse"]
            places = self._elements(sparse["indices"], sparse["count"], 1, sparse["indices"]["componentType"])
            values = values.copy()
            values[places[:, 0]] = self._elements(sparse["values"], sparse["count"], width, entry["componentType"])
        numbers = values.astype(np.float64)
        if entry.get("normalized") and values.dtype.kind in "iu":
            numbers = np.maximum(numbers / np.iinfo(values.dtype).max, -1.0)
        return numbers

    def _elements(self, entry: Json, count: int, width: int, component: int) -> np.ndarray:
        dtype = np.dtype(DTYPES[component])
        if not 0 <= count <= _MOST_ELEMENTS:
            raise ValueError(f"an accessor of {count} elements")
        if "bufferView" not in entry:
            return np.zeros((count, width), dtype)
        stride = self.listed("bufferViews")[entry["bufferView"]].get("byteStride") or dtype.itemsize * width
        data = self.view(entry["bufferView"])
        return np.ndarray((count, width), dtype, data, entry.get("byteOffset", 0), (stride, dtype.itemsize))

    def write(self, path: str) -> None:
        """Write it as .glb: all views in one buffer, pictures beside the original by their full path."""
        parts = [self.view(index) for index in range(len(self.listed("bufferViews")))]
        offset = 0
        for view, part in zip(self.listed("bufferViews"), parts, strict=True):
            view |= {"buffer": 0, "byteOffset": offset, "byteLength": len(part)}
            offset += len(part) + -len(part) % _ALIGNMENT
        for image in self.listed("images"):
            uri = image.get("uri", "")
            if uri and not uri.startswith("data:"):
                image["uri"] = quote(os.path.join(self.folder, unquote(uri.replace("\\", "/"))))
        self.root["buffers"] = [{"byteLength": offset}]
        text = json.dumps(self.root).encode()
        text += b" " * (-len(text) % _ALIGNMENT)
        with open(path, "wb") as file:
            file.write(struct.pack("<4sII", b"glTF", 2, 28 + len(text) + offset))
            file.write(struct.pack("<I4s", len(text), _JSON) + text + struct.pack("<I4s", offset, _BINARY))
            for part in parts:
                file.write(part)
                file.write(bytes(-len(part) % _ALIGNMENT))


def read(path: str) -> GltfFile:
    """Open a .glb or .gltf."""
    with open(path, "rb") as opened:
        content = memoryview(mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ))
    folder = os.path.dirname(os.path.realpath(path))
    if bytes(content[:4]) != b"glTF":
        return GltfFile(json.loads(bytes(content)), folder, memoryview(b""))
    length = struct.unpack_from("<I", content, 12)[0]
    root, rest = json.loads(bytes(content[20 : 20 + length])), content[20 + length :]
    size, kind = struct.unpack_from("<I4s", rest) if len(rest) >= 8 else (0, b"")
    return GltfFile(root, folder, rest[8 : 8 + size] if kind == _BINARY else memoryview(b""))
