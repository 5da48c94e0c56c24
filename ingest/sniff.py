"""What kind of 3D file this is, by its first bytes; web pages and other impostors are told apart.

The suffix is believed only where a format has no magic number (OBJ), or to say more clearly what is wrong.
"""

import contextlib
import gzip
import io
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal, cast

import pyarrow as pa

from ingest.refused import Refused

Format = Literal["glb", "gltf", "fbx", "blend", "usd", "obj", "abc"]

SUFFIXES = (".glb", ".gltf", ".fbx", ".blend", ".usd", ".usda", ".usdc", ".usdz", ".obj", ".abc")
"""Of files that a folder source lists."""

OLDEST_FBX = 7100
"""Blender 4.5 reads binary FBX from version 7.1 on."""

BROKEN_STREAM = (OSError, EOFError, ValueError, zlib.error)

_HEAD_BYTES = 4096
_GZIP, _ZSTANDARD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_OTHER_FILES = {
    b"\x89PNG": "a PNG image", b"\xff\xd8\xff": "a JPEG image", b"GIF8": "a GIF image", b"%PDF": "a PDF document",
    b"\x7fELF": "a program", b"MZ": "a program", b"ustar": "a tar archive",
}  # fmt: skip
_ARCHIVES = {
    b"PK\x03\x04": "zip", b"Rar!": "RAR", b"7z\xbc\xaf\x27\x1c": "7-Zip", b"\xfd7zXZ": "xz", b"BZh": "bzip2",
    b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "Zstandard",
}  # fmt: skip


@dataclass(frozen=True)
class Kind:
    """A recognised file."""

    format: Format
    suffix: str
    """For the blob, without the dot: the format, or which of USD's encodings."""


def sniff(path: Path, name: str) -> Kind:
    """The kind of a file.

    Args:
        path: The bytes.
        name: The name it was listed under, for its suffix.

    Raises:
        Refused: `empty_file`, `not_an_asset`, `unsupported_format` or `malformed`.
    """
    suffix = Path(name.partition("?")[0]).suffix.lower()
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    if not head:
        raise Refused("empty_file", "it has zero bytes")
    compressed = _decompressed_head(path, head)
    if compressed.startswith(b"BLENDER"):
        return Kind("blend", "blend")
    kind = _by_magic(head) or _usdz(path, head)
    if kind:
        return kind
    raise_if_web_page(head)
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{"):
        return _json(path, suffix)
    if suffix == ".obj" and _looks_like_obj(head):
        return Kind("obj", "obj")
    raise _impostor(head, suffix)


def raise_if_web_page(head: bytes) -> None:
    """Refuse HTML and XML error pages by their first bytes.

    Raises:
        Refused: `not_an_asset`.
    """
    start = head[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype html", b"<html", b"<head", b"<body")) or (
        start.startswith(b"<") and b"<html" in start
    ):
        raise Refused("not_an_asset", "it is an HTML page, not a 3D file")
    if start.startswith(b"<?xml") and any(mark in start for mark in (b"<error", b"accessdenied", b"nosuchkey")):
        raise Refused("not_an_asset", "it is a server's XML error message, not a 3D file")


def _by_magic(head: bytes) -> Kind | None:
    if head.startswith(b"glTF"):
        return Kind("glb", "glb")
    if head.startswith(b"Kaydara FBX Binary"):
        return _binary_fbx(head)
    if head.startswith(b"PXR-USDC"):
        return Kind("usd", "usdc")
    if head.startswith(b"#usda"):
        return Kind("usd", "usda")
    if head.startswith(b"Ogawa"):
        return Kind("abc", "abc")
    if head.startswith(b"\x89HDF\r\n\x1a\n"):
        raise Refused("unsupported_format", "it is an Alembic file in HDF5, which Blender no longer reads",
                      "write it again as Ogawa, Alembic's present encoding, or convert it to .glb")  # fmt: skip
    if head.lstrip(b"\xef\xbb\xbf \r\n").startswith(b"; FBX"):
        raise Refused("unsupported_format", "it is FBX in ASCII, which Blender does not read",
                      "save it as binary FBX 7.4, or convert it to .glb")  # fmt: skip
    return None


def _binary_fbx(head: bytes) -> Kind:
    if len(head) < 27:
        raise Refused("truncated", f"it is {len(head)} bytes long: not even an FBX header")
    version = struct.unpack_from("<I", head, 23)[0]
    if version < OLDEST_FBX:
        raise Refused("unsupported_format", f"it is FBX {version / 1000:.1f}; Blender reads 7.1 and later",
                      "save it as binary FBX 7.4, or convert it to .glb")  # fmt: skip
    return Kind("fbx", "fbx")


def _decompressed_head(path: Path, head: bytes) -> bytes:
    """The first bytes, decompressed where a .blend may be compressed: by gzip up to 2.9, by Zstandard since."""
    if not head.startswith((_GZIP, _ZSTANDARD)):
        return head[:16]
    try:
        with open_blend(path) as file:
            return file.read(16)
    except BROKEN_STREAM:
        return b""


@contextlib.contextmanager
def open_blend(path: Path) -> Iterator[IO[bytes]]:
    """A .blend, decompressed on the way. Reading raises one of `BROKEN_STREAM` where it is damaged."""
    with path.open("rb") as file:
        head = file.read(4)
        file.seek(0)
        if head.startswith(_GZIP):
            with gzip.open(file, "rb") as unzipped:
                yield cast(IO[bytes], unzipped)
        elif head == _ZSTANDARD:
            with pa.CompressedInputStream(pa.PythonFile(file, "r"), "zstd") as stream:
                yield stream
        else:
            yield file


def _usdz(path: Path, head: bytes) -> Kind | None:
    if not head.startswith(b"PK\x03\x04"):
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            first = archive.infolist()[0].filename.lower()
    except (zipfile.BadZipFile, OSError, IndexError, ValueError, NotImplementedError, io.UnsupportedOperation):
        raise Refused("truncated", "it is a zip archive without its directory, which stands at the end") from None
    return Kind("usd", "usdz") if first.endswith((".usd", ".usda", ".usdc")) else None


def _json(path: Path, suffix: str) -> Kind:
    """glTF in JSON, or a server's error message: told apart by the key every glTF has."""
    if suffix == ".gltf":
        return Kind("gltf", "gltf")
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            if b'"asset"' in block:
                return Kind("gltf", "gltf")
    raise Refused("not_an_asset", "it is JSON, but no glTF: a server's error message, perhaps")


def _looks_like_obj(head: bytes) -> bool:
    if b"\0" in head:
        return False
    words = {line.split(maxsplit=1)[0] for line in head.splitlines() if line.split()}
    return bool(words & {b"v", b"vn", b"vt", b"f", b"o", b"g", b"mtllib", b"usemtl", b"#"})


def _impostor(head: bytes, suffix: str) -> Refused:
    if head.startswith(b"version https://git-lfs.github.com/spec/"):
        return Refused("not_an_asset", "it is a Git LFS pointer, not the file itself", "fetch it with `git lfs pull`")
    for magic, what in _ARCHIVES.items():
        if head.startswith(magic):
            return Refused("unsupported_format", f"it is a {what} archive", "unpack it and list the 3D file inside")
    if b"<COLLADA" in head:
        return Refused("unsupported_format", "it is COLLADA, which we do not import")
    for magic, what in _OTHER_FILES.items():
        if head.startswith(magic) or (magic == b"ustar" and head[257:262] == magic):
            return Refused("not_an_asset", f"it is {what}, not a 3D file")
    if suffix in SUFFIXES:
        return Refused("malformed", f"it does not begin as a {suffix} file does, but with {head[:8].hex(' ')}",
                       "fetch it again from its source")  # fmt: skip
    return Refused("unsupported_format", f"no importer reads {suffix or 'a file without a suffix'}")
