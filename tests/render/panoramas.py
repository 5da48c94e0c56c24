"""HDR pictures, made by code."""

import struct

import numpy as np


def sky(turn_deg: float = 0.0, height: int = 16) -> np.ndarray:
    """A dim panorama with a bright patch, in the middle or so many degrees to its right. Shape (h, 2 h, 3), float32."""
    pixels = np.full((height, 2 * height, 3), 0.05, dtype=np.float32)
    column = round((0.5 + turn_deg / 360) * 2 * height)
    pixels[height // 4 : 3 * height // 4, column - 2 : column + 2] = 30.0
    return pixels


def radiance(pixels: np.ndarray) -> bytes:
    """A Radiance .hdr without compression."""
    height, width = pixels.shape[:2]
    mantissa, exponent = np.frexp(pixels.max(axis=-1))
    scale = np.where(mantissa > 0, mantissa * 256.0 / np.maximum(pixels.max(axis=-1), 1e-30), 0.0)
    rgbe = np.dstack([pixels * scale[..., None], exponent + 128]).astype(np.uint8)
    return f"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y {height} +X {width}\n".encode() + rgbe.tobytes()


def openexr(pixels: np.ndarray) -> bytes:
    """An OpenEXR of 32-bit floats without compression."""
    height, width = pixels.shape[:2]
    channels = b"".join(name + struct.pack("<BIIII", 0, 2, 0, 1, 1) for name in (b"B", b"G", b"R")) + b"\0"
    box = struct.pack("<4i", 0, 0, width - 1, height - 1)
    attributes = [
        (b"channels", b"chlist", channels), (b"compression", b"compression", b"\0"), (b"dataWindow", b"box2i", box),
        (b"displayWindow", b"box2i", box), (b"lineOrder", b"lineOrder", b"\0"),
        (b"pixelAspectRatio", b"float", struct.pack("<f", 1.0)),
        (b"screenWindowCenter", b"v2f", struct.pack("<2f", 0.0, 0.0)),
        (b"screenWindowWidth", b"float", struct.pack("<f", 1.0)),
    ]  # fmt: skip
    head = struct.pack("<II", 20000630, 2)
    head += b"".join(
        name + b"\0" + kind + b"\0" + struct.pack("<I", len(value)) + value for name, kind, value in attributes
    )
    head += b"\0"
    lines = [
        struct.pack("<ii", row, 12 * width) + pixels[row, :, ::-1].T.astype("<f4").tobytes() for row in range(height)
    ]
    places = len(head) + 8 * height + np.arange(height) * len(lines[0])
    return head + places.astype("<u8").tobytes() + b"".join(lines)
