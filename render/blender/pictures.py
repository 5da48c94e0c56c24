"""Width and height of an image file from its first bytes: Blender would decode it whole to tell."""

import struct

HEAD_BYTES = 1 << 18
"""Enough for a JPEG's thumbnails and profiles before its frame header."""


def size_of(head: bytes) -> tuple[int, int] | None:
    """Width and height, or None if the bytes do not begin like a picture that Blender reads.

    Args:
        head: The file's first `HEAD_BYTES`.
    """
    for read in (_png, _jpeg, _webp, _bmp, _dds, _psd, _tiff, _exr, _hdr, _tga):
        try:
            size = read(head)
        except (struct.error, IndexError, ValueError):
            continue
        if size is not None and min(size) > 0:
            return size
    return None


def _png(head: bytes) -> tuple[int, int] | None:
    return _pair(">II", head, 16) if head.startswith(b"\x89PNG\r\n\x1a\n") else None


def _jpeg(head: bytes) -> tuple[int, int] | None:
    at = 2 if head.startswith(b"\xff\xd8") else len(head)
    while at + 9 <= len(head):
        if head[at] != 0xFF:
            return None
        marker = head[at + 1]
        if marker == 0xFF:
            at += 1
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = _pair(">HH", head, at + 5)
            return width, height
        else:
            at += 2 + struct.unpack_from(">H", head, at + 2)[0]
    return None


def _webp(head: bytes) -> tuple[int, int] | None:
    if head[:4] != b"RIFF" or head[8:12] != b"WEBP":
        return None
    if head[12:16] == b"VP8 ":
        width, height = _pair("<HH", head, 26)
        return width & 0x3FFF, height & 0x3FFF
    if head[12:16] == b"VP8L":
        bits = struct.unpack_from("<I", head, 21)[0]
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    return int.from_bytes(head[24:27], "little") + 1, int.from_bytes(head[27:30], "little") + 1


def _bmp(head: bytes) -> tuple[int, int] | None:
    if head[:2] != b"BM":
        return None
    width, height = _pair("<ii", head, 18)
    return width, abs(height)


def _dds(head: bytes) -> tuple[int, int] | None:
    return _pair("<II", head, 12)[::-1] if head[:4] == b"DDS " else None


def _psd(head: bytes) -> tuple[int, int] | None:
    return _pair(">II", head, 14)[::-1] if head[:4] == b"8BPS" else None


def _tiff(head: bytes) -> tuple[int, int] | None:
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(head[:4])
    if order is None:
        return None
    at = struct.unpack_from(order + "I", head, 4)[0]
    sizes = {}
    for entry in range(struct.unpack_from(order + "H", head, at)[0]):
        tag, kind = _pair(order + "HH", head, at + 2 + 12 * entry)
        if tag in (256, 257):
            sizes[tag] = struct.unpack_from(order + ("H" if kind == 3 else "I"), head, at + 10 + 12 * entry)[0]
    return sizes.get(256, 0), sizes.get(257, 0)


def _exr(head: bytes) -> tuple[int, int] | None:
    if not head.startswith(b"\x76\x2f\x31\x01"):
        return None
    at = head.index(b"dataWindow\0box2i\0") + 21
    left, top, right, bottom = struct.unpack_from("<iiii", head, at)
    return right - left + 1, bottom - top + 1


def _hdr(head: bytes) -> tuple[int, int] | None:
    if not head.startswith((b"#?RADIANCE", b"#?RGBE")):
        return None
    words = head[head.index(b"\n\n") + 2 :].split(b"\n", 1)[0].split()
    return int(words[3]), int(words[1])


def _tga(head: bytes) -> tuple[int, int] | None:
    """No magic number stands at the start of a TGA: take what makes sense as one."""
    if len(head) <= 18 or head[1] > 1 or head[2] not in (1, 2, 3, 9, 10, 11) or head[16] not in (8, 15, 16, 24, 32):
        return None
    return _pair("<HH", head, 12)


def _pair(layout: str, head: bytes, at: int) -> tuple[int, int]:
    first, second = struct.unpack_from(layout, head, at)
    return first, second
