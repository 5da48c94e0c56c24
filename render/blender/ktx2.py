"""Decodes KTX2 pictures in the two codings of KHR_texture_basisu, ETC1S and UASTC, to pixels.

The transcoder is a module for browsers, written against embind: it announces its classes and functions by calls, and
handles JavaScript values by numbers. `_Values` plays as much of JavaScript as a picture needs.
"""

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np

from render.blender.wasm import Decoder
from render.protocol import BadAsset

MAGIC = b"\xabKTX 20\xbb\r\n\x1a\n"
MAX_SIDE_PX = 16384

_MODULE = "basis_transcoder.wasm"
# The module's imports and exports have letters for names; the table belongs to the file with the SHA-256 in `wasm.py`.
_MALLOC, _TABLE, _CONSTRUCTORS = "O", "P", "M"
_BASIS_LZ, _ZSTANDARD = 1, 2
_COLOUR_MODELS = {163: "ETC1S", 166: "UASTC"}
_RGBA32 = 13
"""transcoder_texture_format::cTFRGBA32."""
_INSTRUCTIONS_PER_PIXEL = 5000
_CONSTRUCT = 1
_FIRST_HANDLE = 10


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a file says of itself."""

    width: int
    height: int
    coding: str


def read_header(data: bytes) -> Header:
    """Check the first bytes of a file for what KHR_texture_basisu allows.

    Raises:
        BadAsset: `malformed`, `image_bomb`, or `unsupported_extension` for other pixel formats.
    """
    if not data.startswith(MAGIC) or len(data) < 104:
        raise BadAsset("malformed", "a texture of KHR_texture_basisu is no KTX2 file")
    _, _, width, height, depth, layers, faces, levels, scheme = struct.unpack_from("<9I", data, 12)
    dfd_offset, dfd_length = struct.unpack_from("<2I", data, 48)
    if depth or layers or faces != 1 or not width or not height or levels > 16:
        raise BadAsset("malformed", f"a KTX2 texture is no plain picture: {width} x {height} x {depth}, {faces} faces")
    if max(width, height) > MAX_SIDE_PX:
        raise BadAsset("image_bomb", f"a KTX2 texture has {width} x {height} pixels, the limit is {MAX_SIDE_PX}")
    if dfd_length < 28 or dfd_offset + dfd_length > len(data):
        raise BadAsset("malformed", "a KTX2 texture ends before its own description")
    coding = _COLOUR_MODELS.get(data[dfd_offset + 12])
    if coding is None or scheme > _ZSTANDARD or (coding == "ETC1S") != (scheme == _BASIS_LZ):
        found = f"a KTX2 texture has colour model {data[dfd_offset + 12]} and supercompression {scheme}"
        raise BadAsset("unsupported_extension", f"{found}; glTF knows ETC1S and UASTC")
    if coding == "UASTC":
        _check_level(data, width, height)
    return Header(width=width, height=height, coding=coding)


def _check_level(data: bytes, width: int, height: int) -> None:
    """The size that the first level claims is exactly what its pixels need: no more is ever unpacked."""
    offset, length, unpacked = struct.unpack_from("<3Q", data, 80)
    blocks = -(-width // 4) * -(-height // 4)
    if offset + length > len(data) or unpacked != 16 * blocks:
        raise BadAsset("malformed", f"a KTX2 texture of {width} x {height} pixels claims {unpacked} bytes for them")


def decode(data: bytes) -> np.ndarray:
    """The pixels of the largest level, top row first. Shape (height, width, 4 or, without alpha, 3), uint8.

    Raises:
        BadAsset: As `read_header`, or `malformed`: the data are not what they should be.
    """
    header = read_header(data)
    num_pixels = header.width * header.height
    values = _Values()
    decoder = Decoder(
        _MODULE,
        max_bytes=3 * len(data) + 8 * (header.width + 4) * (header.height + 4),
        instructions=_INSTRUCTIONS_PER_PIXEL * (num_pixels + len(data)),
        host=values.imports(),
    )
    try:
        decoder.call(_CONSTRUCTORS)
        values.call(decoder, "initializeBasis")
        file = values.construct(decoder, "KTX2File", values.keep(data))
        if not values.call(decoder, "KTX2File.isValid", file) or not values.call(
            decoder, "KTX2File.startTranscoding", file
        ):
            raise ValueError("the transcoder refuses it")
        has_alpha = bool(values.call(decoder, "KTX2File.getHasAlpha", file))
        pixels = bytearray()
        level = layer = face = unused = 0
        options = (level, layer, face, _RGBA32, unused, -1, -1)
        if not values.call(decoder, "KTX2File.transcodeImage", file, values.keep(pixels), *options):
            raise ValueError("the transcoder fails at it")
    except (ValueError, IndexError) as error:
        raise BadAsset("malformed", f"a KTX2 texture is broken: {error}") from error
    if len(pixels) != 4 * num_pixels:
        raise BadAsset("malformed", f"a KTX2 texture decodes to {len(pixels)} bytes for {num_pixels} pixels")
    rgba = np.frombuffer(bytes(pixels), np.uint8).reshape(header.height, header.width, 4)
    return rgba if has_alpha else rgba[..., :3]


@dataclass(frozen=True)
class _View:
    """A Uint8Array over the module's memory."""

    start: int
    count: int


class _Values:
    """The functions that the module announces, and the values that it holds by handle."""

    def __init__(self) -> None:
        self._held: dict[int, Any] = {}
        self._callers: list[int] = []
        self._classes: dict[int, str] = {}
        self._functions: dict[str, tuple[int, int]] = {}

    def keep(self, value: Any) -> int:
        """A handle for a value."""
        handle = _FIRST_HANDLE + len(self._held)
        self._held[handle] = value
        return handle

    def call(self, decoder: Decoder, name: str, *arguments: int) -> Any:
        """Call an announced function, or a method with its object first."""
        invoker, context = self._functions[name]
        return decoder.call_indirect(_TABLE, invoker, context, *arguments)

    construct = call

    def imports(self) -> dict[str, Any]:
        """What the module imports, by its letters."""
        return {
            "K": _stop, "G": _stop, "w": self._class, "v": self._constructor, "d": self._method, "i": self._function,
            "F": _copy, "D": _grow, "h": self._text, "g": self._property, "n": self._number, "r": self._named,
            "x": self._named, "j": self._caller, "q": self._create, "p": self._invoke,
        }  # fmt: skip

    def _class(self, decoder: Decoder, kind: int, *rest: int) -> None:
        self._classes[kind] = decoder.text(rest[-3])

    def _constructor(self, _: Decoder, kind: int, _count: int, _types: int, _sig: int, invoker: int, made: int) -> None:
        self._functions.setdefault(self._classes[kind], (invoker, made))

    def _method(self, decoder: Decoder, kind: int, name: int, *rest: int) -> None:
        _count, _types, _signature, invoker, context, _virtual, _async = rest
        self._functions[f"{self._classes[kind]}.{decoder.text(name)}"] = (invoker, context)

    def _function(self, decoder: Decoder, name: int, *rest: int) -> None:
        _count, _types, _signature, invoker, function, _async = rest
        self._functions[decoder.text(name)] = (invoker, function)

    def _text(self, decoder: Decoder, address: int) -> int:
        return self.keep(decoder.text(address))

    def _named(self, decoder: Decoder, address: int) -> int:
        """`Module.HEAP8` and `Uint8Array`: stand-ins, as only views over the module's memory are made of them."""
        return self.keep(decoder.text(address))

    def _property(self, _: Decoder, owner: int, key: int) -> int:
        value, name = self._held[owner], self._held[key]
        return self.keep(len(value) if name in ("length", "byteLength") else name)

    def _number(self, _: Decoder, handle: int, _type: int, _destructors: int) -> float:
        return float(self._held[handle])

    def _caller(self, _: Decoder, _count: int, _types: int, kind: int) -> int:
        self._callers.append(kind)
        return len(self._callers) - 1

    def _create(self, decoder: Decoder, caller: int, _callee: int, _destructors: int, arguments: int) -> float:
        """`new Uint8Array(memory, start, count)`."""
        if self._callers[caller] != _CONSTRUCT:
            raise ValueError("the transcoder calls what we do not know")
        _memory, start, count = (decoder.words(arguments + 8 * place, 1)[0] for place in range(3))
        return float(self.keep(_View(start, count)))

    def _invoke(
        self, decoder: Decoder, _caller: int, target: int, _name: int, _destructors: int, arguments: int
    ) -> float:
        """`target.set(source)`, the one method that is ever called."""
        to, source = self._held[target], self._held[decoder.words(arguments, 1)[0]]
        if isinstance(to, _View):
            decoder.write(to.start, bytes(source[: to.count]))
        else:
            to[:] = decoder.read(source.start, source.count)
        return 0.0


def _stop(*_: Any) -> None:
    raise ValueError("the transcoder gives up")


def _copy(decoder: Decoder, to: int, source: int, count: int) -> None:
    decoder.write(to, decoder.read(source, count))


def _grow(decoder: Decoder, num_bytes: int) -> int:
    return int(decoder.grow_to(num_bytes & 0xFFFFFFFF))
