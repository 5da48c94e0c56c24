"""Width and height of an image from its header: PNG, JPEG, WebP, AVIF and KTX2, what a glTF may carry."""

import re
import struct
from collections.abc import Callable

Read = Callable[[int, int], bytes]
"""read(offset, n): at most n bytes from there; fewer at the end."""

_MOST_JPEG_SEGMENTS = 2000
_AVIF_BYTES = 1 << 16
"""Enough for the properties before the first picture data."""


def image_size(read: Read) -> tuple[int, int] | None:
    """Width and height in pixels; None if the header is of another kind, or broken."""
    head = read(0, 32)
    try:
        return _size(head, read)
    except struct.error:
        return None


def _size(head: bytes, read: Read) -> tuple[int, int] | None:
    size = None
    if head.startswith(b"\x89PNG\r\n\x1a\n") and head[12:16] == b"IHDR":
        size = _pair(struct.unpack_from(">II", head, 16))
    elif head.startswith(b"\xff\xd8"):
        size = _jpeg_size(read)
    elif head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        size = _webp_size(head)
    elif head.startswith(b"\xabKTX 20\xbb\r\n\x1a\n"):
        size = _pair(struct.unpack_from("<II", head, 20))
    elif head[4:8] == b"ftyp" and head[8:12] in (b"avif", b"avis"):
        size = _avif_size(read(0, _AVIF_BYTES))
    return size


def _jpeg_size(read: Read) -> tuple[int, int] | None:
    offset = 2
    for _ in range(_MOST_JPEG_SEGMENTS):
        marker = read(offset, 9)
        if len(marker) < 4 or marker[0] != 0xFF:
            return None
        code = marker[1]
        if code == 0xFF:  # padding before a marker
            offset += 1
        elif code == 0x01 or 0xD0 <= code <= 0xD8:  # these stand alone
            offset += 2
        elif 0xC0 <= code <= 0xCF and code not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack_from(">HH", marker, 5)
            return int(width), int(height)
        else:
            offset += 2 + struct.unpack_from(">H", marker, 2)[0]
    return None


def _webp_size(head: bytes) -> tuple[int, int] | None:
    chunk = head[12:16]
    if chunk == b"VP8X":
        return int.from_bytes(head[24:27], "little") + 1, int.from_bytes(head[27:30], "little") + 1
    if chunk == b"VP8L":
        bits = struct.unpack_from("<I", head, 21)[0]
        return (bits & 0x3FFF) + 1, ((bits >> 14) & 0x3FFF) + 1
    if chunk == b"VP8 ":
        width, height = struct.unpack_from("<HH", head, 26)
        return width & 0x3FFF, height & 0x3FFF
    return None


def _avif_size(start: bytes) -> tuple[int, int] | None:
    """The largest of its `ispe` properties: a grid has one for each tile, and one for the whole."""
    sizes = [_pair(struct.unpack_from(">II", start, found.end() + 4)) for found in re.finditer(b"ispe", start)]
    return max(sizes, key=lambda size: size[0] * size[1], default=None)


def _pair(values: tuple[int, ...]) -> tuple[int, int]:
    return int(values[0]), int(values[1])
