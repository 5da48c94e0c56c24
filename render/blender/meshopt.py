"""Decodes buffer views of EXT_meshopt_compression and KHR_meshopt_compression, which have one JSON form."""

from typing import Any

from render.blender.wasm import Decoder
from render.protocol import BadAsset

EXTENSIONS = ("KHR_meshopt_compression", "EXT_meshopt_compression")

_MODULE = "meshopt_decoder.wasm"
_MODES = {
    "ATTRIBUTES": "meshopt_decodeVertexBuffer",
    "TRIANGLES": "meshopt_decodeIndexBuffer",
    "INDICES": "meshopt_decodeIndexSequence",
}
_FILTERS = {
    "OCTAHEDRAL": ("meshopt_decodeFilterOct", (4, 8)),
    "QUATERNION": ("meshopt_decodeFilterQuat", (8,)),
    "EXPONENTIAL": ("meshopt_decodeFilterExp", range(4, 257, 4)),
    "COLOR": ("meshopt_decodeFilterColor", (4, 8)),
}
"""filter: (function, the strides that it takes)."""
_MOST_COUNT = 1 << 28
_INSTRUCTIONS_PER_BYTE = 1000


def check(settings: dict[str, Any]) -> int:
    """Bytes that a view decodes to; its object must say nothing that the extension forbids.

    Raises:
        BadAsset: `malformed`.
    """
    mode, filter_name = settings.get("mode"), settings.get("filter", "NONE")
    stride, count = settings.get("byteStride"), settings.get("count")
    if not isinstance(stride, int) or not isinstance(count, int) or not 0 <= count <= _MOST_COUNT:
        raise BadAsset("malformed", f"a compressed buffer view has count {count!r} and byteStride {stride!r}")
    fits = {
        "ATTRIBUTES": 4 <= stride <= 256 and stride % 4 == 0,
        "TRIANGLES": stride in (2, 4) and count % 3 == 0,
        "INDICES": stride in (2, 4),
    }
    if mode not in fits or not fits[mode]:
        raise BadAsset("malformed", f"a compressed buffer view has mode {mode!r}, byteStride {stride}, count {count}")
    if filter_name != "NONE" and (
        mode != "ATTRIBUTES" or filter_name not in _FILTERS or stride not in _FILTERS[filter_name][1]
    ):
        raise BadAsset("malformed", f"a compressed buffer view has the filter {filter_name!r} at byteStride {stride}")
    return stride * count


def decode(data: bytes, settings: dict[str, Any]) -> bytes:
    """The decoded bytes of a buffer view.

    Args:
        data: The compressed bytes.
        settings: The extension's object, as `check` passed it.

    Raises:
        BadAsset: `malformed`: the data are not what they should be.
    """
    stride, count = settings["byteStride"], settings["count"]
    padded = -(-count // 4) * 4  # filters work on four elements at a time
    decoder = Decoder(
        _MODULE,
        max_bytes=len(data) + padded * stride,
        instructions=_INSTRUCTIONS_PER_BYTE * (len(data) + padded * stride),
    )
    try:
        decoder.call("__wasm_call_ctors")
        target, source = decoder.call("sbrk", padded * stride), decoder.call("sbrk", len(data) + 4)
        if min(target, source) < 0:
            raise ValueError("it decodes to more than fits into memory")
        decoder.write(source, data)
        status = decoder.call(_MODES[settings["mode"]], target, count, stride, source, len(data))
        if status:
            raise ValueError(f"status {status}")
        filter_name = settings.get("filter", "NONE")
        if filter_name != "NONE":
            decoder.call(_FILTERS[filter_name][0], target, padded, stride)
    except ValueError as error:
        raise BadAsset("malformed", f"a buffer view's meshopt compression is broken: {error}") from error
    return decoder.read(target, count * stride)
