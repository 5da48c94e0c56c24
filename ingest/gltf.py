"""A glTF or GLB file, opened but not loaded: its JSON, and bytes of its buffers on demand.

Everything read from the JSON is checked for type and range on the way, because a hostile file may put anything
anywhere. What breaks the format's rules raises `Refused`; nothing else is ever raised for the content of a file.
"""

import base64
import binascii
import dataclasses
import json
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NoReturn

import numpy as np

from ingest.json_values import Json, as_object, broken, extension, integer, numbers, objects, string
from ingest.refused import Refused
from ingest.side_files import relative_path

DTYPES: dict[int, type[np.generic]] = {
    5120: np.int8, 5121: np.uint8, 5122: np.int16, 5123: np.uint16, 5125: np.uint32, 5126: np.float32,
}  # fmt: skip
COMPONENTS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT2": 4, "MAT3": 9, "MAT4": 16}

MESHOPT = ("KHR_meshopt_compression", "EXT_meshopt_compression")
"""Extensions that compress buffer views, in one JSON form."""
MESHOPT_MODES = ("ATTRIBUTES", "TRIANGLES", "INDICES")

_BLOCK_BYTES = 4 << 20
_GLB_HEADER_BYTES = 12
_CHUNK_HEADER_BYTES = 8
# Python takes some 200 bytes for a small object. Honest glTF has one object or array in 38 bytes and more; a chain of
# bare nodes, one in 11.
_BYTES_PER_BRACKET = 8
_FREE_BRACKETS = 10_000


@dataclass(frozen=True)
class SideFile:
    """A file that a glTF names by a relative URI."""

    path: str
    """Relative to the glTF's folder, as Blender resolves it."""
    needed: bool
    """Buffers are; an image may be absent."""


@dataclass(frozen=True)
class Bytes:
    """A range of a file, or bytes in memory."""

    path: Path | None
    offset: int
    num_bytes: int
    content: bytes = b""
    is_compressed: bool = False
    """It has so many bytes once the Blender process has decoded it; nothing can be read here."""

    def read(self, offset: int, count: int) -> bytes:
        """At most `count` bytes from `offset`; fewer at the end."""
        count = max(0, min(count, self.num_bytes - offset))
        if self.path is None:
            return self.content[offset : offset + count]
        with self.path.open("rb") as file:
            file.seek(self.offset + offset)
            return file.read(count)

    def part(self, offset: int, num_bytes: int) -> "Bytes":
        """A range of this range."""
        if self.path is None:
            return Bytes(None, 0, num_bytes, self.content[offset : offset + num_bytes])
        return Bytes(self.path, self.offset + offset, num_bytes)


@dataclass(frozen=True)
class Accessor:
    """An accessor, checked against its buffer view."""

    index: int
    count: int
    dtype: type[np.generic]
    num_components: int
    view: Bytes | None
    offset: int
    stride: int
    sparse: "tuple[Accessor, Accessor] | None" = None
    """Indices and values that replace some of the elements."""
    claimed: tuple[float, float] | None = None
    """Smallest and largest number as the JSON states them, where the elements are compressed."""

    @property
    def is_float(self) -> bool:
        """True for float32, the only component type that can hold NaN."""
        return self.dtype is np.float32

    @property
    def num_bytes(self) -> int:
        """What reading all of it costs."""
        own = self.stride * self.count if self.view else 0
        return own + (self.sparse[0].num_bytes + self.sparse[1].num_bytes if self.sparse else 0)

    def blocks(self) -> Iterator[np.ndarray]:
        """The stored elements a few megabytes at a time, each of shape (n, components); then the sparse values."""
        dtype = np.dtype(self.dtype).newbyteorder("<")
        size = dtype.itemsize * self.num_components
        per_block = max(1, _BLOCK_BYTES // self.stride)
        for first in range(0, self.count if self.view else 0, per_block):
            assert self.view
            count = min(per_block, self.count - first)
            data = self.view.read(self.offset + first * self.stride, (count - 1) * self.stride + size)
            strides = (self.stride, dtype.itemsize)
            yield np.ndarray((count, self.num_components), dtype, data, strides=strides)
        if self.sparse:
            yield from self.sparse[1].blocks()


@dataclass(frozen=True)
class Gltf:
    """An open glTF."""

    root: Json
    chunk: Bytes | None
    """GLB's binary chunk."""
    files: Mapping[str, Path] = field(default_factory=dict)
    """Relative path of a side file to its copy on this machine."""
    _arrays: dict[str, list[Json]] = field(default_factory=dict, repr=False)

    def with_files(self, files: Mapping[str, Path]) -> "Gltf":
        """The same glTF, with its side files."""
        return Gltf(self.root, self.chunk, files)

    def objects(self, key: str) -> list[Json]:
        """A top-level array of objects, such as `nodes`."""
        if key not in self._arrays:
            self._arrays[key] = objects(self.root, key, "the file")
        return self._arrays[key]

    def index(self, parent: Json, key: str, into: str, where: str) -> int | None:
        """An index into a top-level array; None if it is absent."""
        return integer(parent, key, where, below=len(self.objects(into))) if key in parent else None

    @cached_property
    def side_files(self) -> list[SideFile]:
        """The files that it names, each once, in its own order.

        Raises:
            Refused: `unsafe_uri`.
        """
        found: dict[str, SideFile] = {}
        for key in ("buffers", "images"):
            for index, entry in enumerate(self.objects(key)):
                uri = string(entry, "uri", f"{key}[{index}]")
                if uri and not uri.startswith("data:"):
                    path = relative_path(uri)
                    found.setdefault(path, SideFile(path, needed=key == "buffers"))
        return list(found.values())

    @cached_property
    def buffers(self) -> list[Bytes | None]:
        """The buffers; None where no bytes are named.

        Raises:
            Refused: `missing_file`, `truncated` or `malformed`.
        """
        return [self._buffer(index, entry) for index, entry in enumerate(self.objects("buffers"))]

    @cached_property
    def num_buffer_bytes(self) -> int:
        """Of all buffers together."""
        return sum(buffer.num_bytes for buffer in self.buffers if buffer)

    def _buffer(self, index: int, entry: Json) -> Bytes | None:
        where = f"buffers[{index}]"
        is_fallback = any((extension(entry, name, where) or {}).get("fallback") is True for name in MESHOPT)
        if is_fallback and "uri" not in entry:
            return None
        declared = integer(entry, "byteLength", where, default=0)
        uri = string(entry, "uri", where)
        if not uri:
            buffer = self.chunk if index == 0 else None
            if buffer and buffer.num_bytes < declared:
                broken(f"{where} says {declared} bytes, and the binary chunk has {buffer.num_bytes}")
            return buffer
        if uri.startswith("data:"):
            buffer = data_uri(uri, where)
        else:
            path = relative_path(uri)
            if path not in self.files:
                raise Refused("missing_file", f"its buffer {path} is not there")
            buffer = whole_file(self.files[path])
        if buffer.num_bytes < declared:
            raise Refused("truncated", f"{where} says {declared} bytes, and there are {buffer.num_bytes}")
        return buffer

    @cached_property
    def views(self) -> list[Bytes]:
        """The buffer views, each inside its buffer."""
        return [self._view(index, entry) for index, entry in enumerate(self.objects("bufferViews"))]

    def _view(self, index: int, entry: Json) -> Bytes:
        where = f"bufferViews[{index}]"
        for name in MESHOPT:
            compressed = extension(entry, name, where)
            if compressed is not None:
                return self._compressed_view(entry, compressed, f"{name} of {where}")
        return self._stored(entry, where)

    def _stored(self, entry: Json, where: str) -> Bytes:
        number = integer(entry, "buffer", where, below=len(self.buffers))
        buffer = self.buffers[number]
        if buffer is None:
            broken(f"{where} lies in buffers[{number}], which has no bytes")
        offset = integer(entry, "byteOffset", where, default=0)
        length = integer(entry, "byteLength", where)
        if offset + length > buffer.num_bytes:
            broken(f"{where} ends at byte {offset + length} of a buffer of {buffer.num_bytes}")
        return buffer.part(offset, length)

    def _compressed_view(self, entry: Json, compressed: Json, where: str) -> Bytes:
        """What it will be; the compressed bytes must be there, and promise enough."""
        self._stored(compressed, where)
        length = integer(entry, "byteLength", where)
        promised = integer(compressed, "count", where) * integer(compressed, "byteStride", where)
        if string(compressed, "mode", where) not in MESHOPT_MODES:
            broken(f"{where} has the unknown mode {string(compressed, 'mode', where)[:40]!r}")
        if promised < length:
            broken(f"{where} promises {promised} bytes for a view of {length}")
        return Bytes(None, 0, length, is_compressed=True)

    @cached_property
    def accessors(self) -> list[Accessor]:
        """The accessors, each inside its buffer view."""
        return [self._accessor(index, entry) for index, entry in enumerate(self.objects("accessors"))]

    def _accessor(self, index: int, entry: Json) -> Accessor:
        where = f"accessors[{index}]"
        kind = string(entry, "type", where)
        if kind not in COMPONENTS:
            broken(f"{where} has the unknown type {kind[:40]!r}")
        count = integer(entry, "count", where)
        accessor = self._located(index, entry, where, count, COMPONENTS[kind])
        if "sparse" not in entry:
            return accessor
        where = f"{where}.sparse"
        sparse = as_object(entry["sparse"], where)
        replaced = integer(sparse, "count", where, below=count + 1)
        indices, values = (as_object(sparse.get(key), f"{where}.{key}") for key in ("indices", "values"))
        values = {**values, "componentType": entry["componentType"]}
        return dataclasses.replace(
            accessor,
            sparse=(
                self._located(index, indices, f"{where}.indices", replaced, 1),
                self._located(index, values, f"{where}.values", replaced, COMPONENTS[kind]),
            ),
        )

    def _located(self, index: int, entry: Json, where: str, count: int, num_components: int) -> Accessor:
        component = integer(entry, "componentType", where)
        if component not in DTYPES:
            broken(f"{where} has the unknown componentType {component}")
        dtype = DTYPES[component]
        item = np.dtype(dtype).itemsize
        size = item * num_components
        offset = integer(entry, "byteOffset", where, default=0)
        number = self.index(entry, "bufferView", "bufferViews", where)
        if number is None:
            return Accessor(index, count, dtype, num_components, None, 0, size)
        view = self.views[number]
        stride = integer(self.objects("bufferViews")[number], "byteStride", where, default=0) or size
        if stride < size or stride % item:
            broken(f"{where} has elements of {size} bytes in a view with byteStride {stride}")
        if count and offset + (count - 1) * stride + size > view.num_bytes:
            broken(f"{where} wants {count} elements, more than the {view.num_bytes} bytes of its view hold")
        if view.is_compressed:
            return Accessor(index, count, dtype, num_components, None, 0, size, claimed=_claimed(entry, where))
        return Accessor(index, count, dtype, num_components, view, offset, stride)


def read_gltf(path: Path, *, max_json_bytes: int) -> Gltf:
    """Open a file and parse its JSON.

    Raises:
        Refused: `truncated`, `malformed`, `non_finite`, `too_complex`, `unsupported_format` or `not_an_asset`.
    """
    file = whole_file(path)
    if file.read(0, 4) == b"glTF":
        text, chunk = _read_glb(file, max_json_bytes)
    else:
        _check_json_size(file.num_bytes, max_json_bytes)
        text, chunk = file.read(0, file.num_bytes), None
    root = as_object(_parse(text), "the file")
    if "asset" not in root:
        raise Refused("not_an_asset", "it is JSON without `asset`, so no glTF")
    version = string(as_object(root["asset"], "asset"), "version", "asset")
    if version != "2.0":
        raise Refused("unsupported_format", f"it is glTF {version[:40]!r}; Blender reads 2.0", "convert it to glTF 2.0")
    return Gltf(root, chunk)


def _claimed(entry: Json, where: str) -> tuple[float, float]:
    low, high = numbers(entry, "min", where), numbers(entry, "max", where)
    return min(low, default=0.0), max(high, default=-1.0)


def whole_file(path: Path) -> Bytes:
    """All bytes of a file."""
    return Bytes(path, 0, path.stat().st_size)


def data_uri(uri: str, where: str) -> Bytes:
    """The content of a `data:` URI in base64, the only kind that Blender reads."""
    header, comma, body = uri.partition(",")
    if not comma or not header.endswith(";base64"):
        broken(f"{where} has a data: URI that is not base64")
    try:
        content = base64.b64decode(body)
    except (binascii.Error, ValueError):
        broken(f"{where} has a data: URI with broken base64")
    return Bytes(None, 0, len(content), content)


def _read_glb(file: Bytes, max_json_bytes: int) -> tuple[bytes, Bytes | None]:
    header = file.read(0, _GLB_HEADER_BYTES)
    if len(header) < _GLB_HEADER_BYTES:
        raise Refused("truncated", f"it is {file.num_bytes} bytes long: not even a GLB header")
    version, length = struct.unpack_from("<II", header, 4)
    if version != 2:
        raise Refused("unsupported_format", f"it is GLB version {version}; Blender reads 2", "convert it to glTF 2.0")
    chunks = _chunks(file)
    ends = [chunk.offset + chunk.num_bytes for _, chunk in chunks]
    if length != file.num_bytes:
        found = f"its header says {length} bytes, and the file has {file.num_bytes}"
        whole = bool(ends) and ends[-1] == file.num_bytes
        raise Refused("malformed" if whole or length < file.num_bytes else "truncated", found)
    if not chunks or chunks[0][0] != b"JSON":
        broken("its first chunk is not JSON")
    if max(ends) > file.num_bytes:
        broken("a chunk's length reaches past the end of the file")
    _check_json_size(chunks[0][1].num_bytes, max_json_bytes)
    binary = chunks[1][1] if len(chunks) > 1 and chunks[1][0] == b"BIN\0" else None
    return chunks[0][1].read(0, max_json_bytes), binary


def _chunks(file: Bytes) -> list[tuple[bytes, Bytes]]:
    """The chunks of a GLB that matter, JSON and binary, as their headers claim: lengths are not checked."""
    found: list[tuple[bytes, Bytes]] = []
    offset = _GLB_HEADER_BYTES
    while offset + _CHUNK_HEADER_BYTES <= file.num_bytes and len(found) < 2:
        length, kind = struct.unpack("<I4s", file.read(offset, _CHUNK_HEADER_BYTES))
        found.append((kind, Bytes(file.path, offset + _CHUNK_HEADER_BYTES, length)))
        offset += _CHUNK_HEADER_BYTES + length
    return found


def _check_json_size(num_bytes: int, max_json_bytes: int) -> None:
    if num_bytes > max_json_bytes:
        raise Refused("too_complex", f"its JSON has {num_bytes} bytes; the limit is {max_json_bytes}",
                      "convert it to .glb if buffers are embedded, or raise --limits.max_json_bytes")  # fmt: skip


def _parse(text: bytes) -> object:
    brackets = text.count(b"{") + text.count(b"[")
    if brackets > _FREE_BRACKETS + len(text) // _BYTES_PER_BRACKET:
        raise Refused("too_complex", f"its JSON has {brackets} objects and arrays in {len(text)} bytes")
    try:
        parsed: object = json.loads(text.decode("utf-8"), parse_constant=_not_json)
    except UnicodeDecodeError:
        broken("its JSON is not UTF-8")
    except RecursionError:
        broken("its JSON is nested too deeply")
    except ValueError as error:
        broken(f"its JSON cannot be parsed: {str(error)[:200]!a}")
    return parsed


def _not_json(word: str) -> NoReturn:
    raise Refused("non_finite", f"its JSON contains {word}, which JSON does not know")
