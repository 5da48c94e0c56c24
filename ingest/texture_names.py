"""The pictures that an FBX, a USD or a .blend names, read from its bytes without the libraries that open such files.

Only names are looked for, so a file that is not understood merely names none. They are as they stand in the file: often
places on somebody's disk.
"""

import contextlib
import io
import re
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import pyarrow as pa

from ingest.refused import Refused
from ingest.side_files import relative_path
from ingest.sniff import BROKEN_STREAM, Format, open_blend

SUFFIXES = (".png", ".jpg", ".jpeg", ".tga", ".bmp", ".tif", ".tiff", ".psd", ".dds", ".exr", ".hdr", ".webp")
MOST_NAMES = 500

_BLOCK_BYTES = 4 << 20
_MOST_BLOCKS = 1024
"""Of 4 GB a name is found; a small .blend may unpack to any length."""
_LONGEST_NAME = 1024
_MOST_TOKEN_BYTES = 64 << 20
_SUFFIX = b"(?i:" + b"|".join(re.escape(suffix.encode()) for suffix in SUFFIXES) + b")"
# A node called RelativeFilename, Filename or FileName, whose first property is a string: S and its length.
_IN_FBX = re.compile(rb"(?:Relative)?File[nN]ameS(....)", re.DOTALL)
_IN_USDA = re.compile(rb"@([^@\r\n]{1,1000}" + _SUFFIX + rb")@")
# Paths in a .blend begin with // where they are relative to it, and end with a zero byte.
_IN_BLEND = re.compile(rb"//([^\0]{1,1000}?" + _SUFFIX + rb")\0")


def texture_names(path: Path, kind: Format) -> list[str]:
    """The pictures that a file names, each once, in its own order.

    Args:
        path: Of the file.
        kind: Its format.
    """
    find = _FINDERS.get(kind)
    found: dict[str, None] = {}
    for name in find(path) if find else ():
        text = name.decode("utf-8", "replace").strip("\0 ")
        if text.lower().endswith(SUFFIXES):
            found[text] = None
        if len(found) >= MOST_NAMES:
            break
    return list(found)


def places(name: str) -> list[str]:
    """Where a picture may lie, relative to the asset's folder: as named if that is below it, else by its bare name."""
    plain = name.replace("\\", "/").removeprefix("./")
    base = plain.rpartition("/")[2]
    candidates = (plain, base, f"textures/{base}", f"Textures/{base}")
    return list(dict.fromkeys(place for candidate in candidates if (place := _safe(candidate))))


def _safe(name: str) -> str:
    try:
        return relative_path(name.replace("%", "%25"))
    except Refused:
        return ""


def _in_fbx(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        for match, block in _search(file, _IN_FBX):
            length = struct.unpack("<I", match[1])[0]
            if 0 < length <= _LONGEST_NAME:
                yield block[match.end() : match.end() + length]


def _in_blend(path: Path) -> Iterator[bytes]:
    with contextlib.suppress(*BROKEN_STREAM), open_blend(path) as file:
        for match, _ in _search(file, _IN_BLEND):
            yield match[1]


def _in_usd(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        if file.read(8) == b"PXR-USDC":
            yield from _tokens(file)
            return
    if zipfile.is_zipfile(path):
        return  # a .usdz holds its pictures
    with path.open("rb") as file:
        for match, _ in _search(file, _IN_USDA):
            yield match[1]


def _search(file: IO[bytes], pattern: re.Pattern[bytes]) -> Iterator[tuple[re.Match[bytes], bytes]]:
    """Matches and the block that each is in, which reaches at least a name's length beyond its start."""
    overlap = 2 * _LONGEST_NAME
    block = bytes(file.read(_BLOCK_BYTES))
    for _ in range(_MOST_BLOCKS):
        more = bytes(file.read(_BLOCK_BYTES))
        whole = block + more[:overlap]
        for match in pattern.finditer(whole):
            if match.start() < len(block):
                yield match, whole
        if not more:
            return
        block = more


def _tokens(file: IO[bytes]) -> Iterator[bytes]:
    """The strings of a binary USD: its section TOKENS, under LZ4."""
    try:
        section = _section(file, b"TOKENS")
        count, unpacked, packed = struct.unpack_from("<3Q", section)
        if unpacked > _MOST_TOKEN_BYTES or packed > len(section) - 24:
            return
        yield from _unpack(section[24 : 24 + packed], unpacked).split(b"\0")[:count]
    except (struct.error, OSError, ValueError, OverflowError, MemoryError):
        return


def _section(file: IO[bytes], wanted: bytes) -> bytes:
    size = file.seek(0, io.SEEK_END)
    file.seek(16)
    table = struct.unpack("<Q", file.read(8))[0]
    file.seek(table)
    for _ in range(min(struct.unpack("<Q", file.read(8))[0], 64)):
        name, start, length = struct.unpack("<16sQQ", file.read(32))
        if name.rstrip(b"\0") == wanted and start + length <= size and length <= _MOST_TOKEN_BYTES:
            file.seek(start)
            return file.read(length)
    return b""


def _unpack(packed: bytes, size: int) -> bytes:
    """LZ4 in one block, or in several that each follow their length; the first byte is their number."""
    if not packed or packed[0]:
        return b""  # several: over 127 MB of names
    return bytes(pa.decompress(packed[1:], decompressed_size=size, codec="lz4_raw", asbytes=True))


_FINDERS: dict[Format, Callable[[Path], Iterator[bytes]]] = {"fbx": _in_fbx, "blend": _in_blend, "usd": _in_usd}
PICTURES_BESIDE = frozenset(_FINDERS)
"""Formats that may name pictures beside the file."""
