"""A GLB as its JSON and its bytes, so that what is added leaves all else as it was (glTF 2.0, section 4.4)."""

import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fourd.export.errors import ExportError
from fourd.files import written_beside

MAX_BYTES = 2 << 30
"""Largest GLB that is read or written; the format itself ends at 4 GiB."""
ARRAY_BUFFER = 34962
"""Target of a buffer view with vertex attributes."""

_MAGIC, _JSON, _BIN = 0x46546C67, 0x4E4F534A, 0x004E4942
_DTYPES: dict[int, Any] = {
    5120: np.int8,
    5121: np.uint8,
    5122: np.int16,
    5123: np.uint16,
    5125: np.uint32,
    5126: np.float32,
}
_COMPONENT_TYPES: dict[Any, int] = {np.dtype(dtype): code for code, dtype in _DTYPES.items()}
_WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT4": 16}
_TYPES = {width: name for name, width in _WIDTHS.items()}


@dataclass
class Gltf:
    """A GLB in memory. `document` may be edited; `binary` only grows."""

    path: Path
    """Where it was read from, for messages."""
    document: dict[str, Any]
    binary: bytearray

    def array(self, accessor: int) -> np.ndarray:
        """An accessor's values, shape (count, width); normalised integers become floats in -1..1.

        Raises:
            ExportError: `malformed`: it points outside the file; `unsupported`: a kind that is not read here.
        """
        try:
            entry = self.document["accessors"][natural(accessor)]
            dtype, width = np.dtype(_DTYPES[entry["componentType"]]), _WIDTHS[entry["type"]]
            count = entry["count"]
            if "bufferView" in entry:
                values = self._strided(entry["bufferView"], entry.get("byteOffset", 0), count, dtype, width)
            else:
                self._limit(count * width * dtype.itemsize)
                values = np.zeros((count, width), dtype)
            if "sparse" in entry:
                values = self._with_sparse(values, entry["sparse"])
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            if isinstance(error, ExportError):
                raise
            message = f"{self.path}: accessor {accessor} does not lie in the file; write the GLB anew"
            raise ExportError("malformed", message) from error
        if entry.get("normalized") and dtype.kind in "iu":
            return np.maximum(values.astype(np.float32) / np.iinfo(dtype).max, -1.0)
        return values

    def _strided(self, view: int, offset: int, count: int, dtype: np.dtype, width: int) -> np.ndarray:
        entry = self.document["bufferViews"][natural(view)]
        if entry.get("extensions"):
            raise ExportError("unsupported", f"{self.path}: compressed; write it as a GLB without compression")
        if entry["buffer"] != 0 or "uri" in self.document["buffers"][0]:
            raise ExportError("unsupported", f"{self.path}: data outside the file; write it as one GLB")
        row = dtype.itemsize * width
        stride = entry.get("byteStride", row)
        start = entry.get("byteOffset", 0) + offset
        end = start + (stride * (count - 1) + row if count else 0)
        if min(offset, count, start) < 0 or stride < row or end > len(self.binary):
            raise IndexError("outside")
        shape, strides = (count, width), (stride, dtype.itemsize)
        flat = np.frombuffer(self.binary, np.uint8)
        return np.ndarray(shape, dtype, flat[start:end].tobytes(), strides=strides).copy()

    def _with_sparse(self, values: np.ndarray, sparse: dict[str, Any]) -> np.ndarray:
        count, indices, changed = sparse["count"], sparse["indices"], sparse["values"]
        where = self._strided(
            indices["bufferView"], indices.get("byteOffset", 0), count, np.dtype(_DTYPES[indices["componentType"]]), 1
        )
        values[where[:, 0]] = self._strided(
            changed["bufferView"], changed.get("byteOffset", 0), count, values.dtype, values.shape[1]
        )
        return values

    def _limit(self, num_bytes: int) -> None:
        if not 0 <= num_bytes <= MAX_BYTES:
            raise ExportError("too_large", f"{self.path}: an accessor claims {num_bytes} bytes")

    def add_view(self, data: bytes, *, stride: int | None = None, target: int | None = None) -> int:
        """A new buffer view of the bytes; its index."""
        self.binary += b"\0" * (-len(self.binary) % 4)
        view: dict[str, Any] = {"buffer": 0, "byteOffset": len(self.binary), "byteLength": len(data)}
        if stride is not None:
            view["byteStride"] = stride
        if target is not None:
            view["target"] = target
        self.binary += data
        views: list[dict[str, Any]] = self.document.setdefault("bufferViews", [])
        views.append(view)
        return len(views) - 1

    def add_accessor(self, values: np.ndarray, *, bounds: bool = False, **more: Any) -> int:
        """A new accessor of the values, shape (count, width) or (count,), in a buffer view of its own; its index."""
        rows = values.reshape(len(values), -1)
        entry: dict[str, Any] = {"bufferView": self.add_view(rows.tobytes())}
        entry |= self._description(rows, bounds) | more
        return self.append("accessors", entry)

    def add_attributes(self, blocks: list[np.ndarray], *, bounds: bool = False, **more: Any) -> list[int]:
        """Accessors of vertex attributes, each (count, width) and all of one type, in one buffer view; their indices.

        An attribute that is zero at most vertices is stored sparsely. Rows begin at multiples of four bytes.
        """
        entries: list[dict[str, Any]] = []
        dense: list[np.ndarray] = []
        for block in blocks:
            moved = np.flatnonzero(block.any(axis=1))
            index_type = np.uint16 if len(block) <= 65536 else np.uint32
            entry = self._description(block, bounds) | more
            if len(moved) * (block[0].nbytes + np.dtype(index_type).itemsize) < 0.8 * block.nbytes:
                # An accessor that changes nothing needs a first entry all the same: `count` may not be 0.
                where = (moved if len(moved) else np.zeros(1, np.int64)).astype(index_type)
                entry["sparse"] = {
                    "count": len(where),
                    "indices": {
                        "bufferView": self.add_view(where.tobytes()),
                        "componentType": _COMPONENT_TYPES[where.dtype],
                    },
                    "values": {"bufferView": self.add_view(np.ascontiguousarray(block[where]).tobytes())},
                }
            else:
                padding = -block[0].nbytes % 4 // block.itemsize
                padded = np.pad(block, ((0, 0), (0, padding)))
                entry["byteOffset"] = sum(other.nbytes for other in dense)
                dense.append(padded)
            entries.append(entry)
        if dense:
            view = self.add_view(
                b"".join(block.tobytes() for block in dense),
                stride=dense[0][0].nbytes,
                target=ARRAY_BUFFER,
            )
            for entry in entries:
                if "sparse" not in entry:
                    entry["bufferView"] = view
        return [self.append("accessors", entry) for entry in entries]

    def add_vertex_attribute(self, values: np.ndarray) -> int:
        """A new accessor of (count, width) values for the vertices, rows a multiple of four bytes; its index."""
        view = self.add_view(np.ascontiguousarray(values).tobytes(), stride=values[0].nbytes, target=ARRAY_BUFFER)
        return self.append("accessors", {"bufferView": view, **self._description(values, False)})

    @staticmethod
    def _description(rows: np.ndarray, bounds: bool) -> dict[str, Any]:
        described = {
            "componentType": _COMPONENT_TYPES[rows.dtype],
            "count": len(rows),
            "type": _TYPES[rows.shape[1]],
        }
        if bounds:
            described |= {"min": rows.min(axis=0).tolist(), "max": rows.max(axis=0).tolist()}
        return described

    def append(self, collection: str, entry: dict[str, Any]) -> int:
        """Put an entry at the end of a collection such as `nodes`; its index."""
        entries: list[dict[str, Any]] = self.document.setdefault(collection, [])
        entries.append(entry)
        return len(entries) - 1

    def write(self, path: Path) -> int:
        """Write the GLB, whole or not at all; its size in bytes.

        Raises:
            ExportError: `too_large`.
        """
        self.binary += b"\0" * (-len(self.binary) % 4)
        self.document["buffers"] = [{"byteLength": len(self.binary)}, *self.document.get("buffers", [])[1:]]
        text = json.dumps(self.document, separators=(",", ":"), allow_nan=False, ensure_ascii=False).encode()
        text += b" " * (-len(text) % 4)
        size = 12 + 8 + len(text) + 8 + len(self.binary)
        if size > MAX_BYTES:
            raise ExportError("too_large", f"{path} would have {size / 1e9:.1f} GB; allow a larger --key_tolerance")
        with written_beside(path) as aside, aside.open("wb") as file:
            file.write(struct.pack("<III", _MAGIC, 2, size))
            file.write(struct.pack("<II", len(text), _JSON) + text)
            file.write(struct.pack("<II", len(self.binary), _BIN) + self.binary)
        return size


def natural(number: Any) -> int:
    """An index as it stands in a file; Python would take -1 for the last entry.

    Raises:
        IndexError: It is none.
    """
    if not isinstance(number, int) or isinstance(number, bool) or number < 0:
        raise IndexError(f"{number!r} is no index")
    return number


def read_glb(path: Path) -> Gltf:
    """A GLB of version 2.

    Raises:
        ExportError: `malformed` or `too_large`.
        OSError: It cannot be opened.
    """
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise ExportError("too_large", f"{path} has {size / 1e9:.1f} GB; at most {MAX_BYTES / 1e9:.0f} are read")
    content = path.read_bytes()
    try:
        magic, version, length = struct.unpack_from("<III", content)
        json_length, json_type = struct.unpack_from("<II", content, 12)
        if (magic, version, json_type) != (_MAGIC, 2, _JSON) or length > len(content) or 20 + json_length > length:
            raise ValueError("header")
        document = json.loads(content[20 : 20 + json_length])
        if not isinstance(document, dict) or not isinstance(document.get("asset"), dict):
            raise ValueError("no asset")
        binary = b""
        if 28 + json_length <= length:
            bin_length, bin_type = struct.unpack_from("<II", content, 20 + json_length)
            if bin_type != _BIN or 28 + json_length + bin_length > length:
                raise ValueError("chunk")
            binary = content[28 + json_length : 28 + json_length + bin_length]
    except (struct.error, ValueError, RecursionError) as error:
        raise ExportError("malformed", f"{path} is no GLB of version 2, or is cut off; write it anew") from error
    return Gltf(path=path, document=document, binary=bytearray(binary))
