"""Colours of a GLB's surfaces: base colour texture, factor and vertex colours together (glTF 2.0, section 3.9)."""

import io
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fourd.gltf import Gltf, natural
from fourd.objects.errors import ObjectError

MAX_PIXELS = 64 << 20
"""Of one texture."""
_CLAMP, _MIRROR = 33071, 33648
_NEAREST = 9728
_FORMATS = ("PNG", "JPEG", "WEBP")


@dataclass(frozen=True, kw_only=True)
class Texture:
    """A picture, and how it lies on a surface."""

    rgba: NDArray[np.float32]
    """(height, width, 4), linear, straight alpha; top row first."""
    coordinates: int
    """Which TEXCOORD places it."""
    transform: NDArray[np.float64]
    """(2, 3), of texture coordinates (KHR_texture_transform)."""
    wrap: tuple[int, int]
    nearest: bool

    def at(self, uv: np.ndarray) -> NDArray[np.float64]:
        """Linear RGBA, shape (n, 4), at texture coordinates of shape (n, 2)."""
        place = uv @ self.transform[:, :2].T + self.transform[:, 2]
        height, width = self.rgba.shape[:2]
        x, y = place[:, 0] * width - 0.5, place[:, 1] * height - 0.5
        if self.nearest:
            x, y = np.rint(x), np.rint(y)
        left, top = np.floor(x), np.floor(y)
        right_share, low_share = (x - left)[:, None], (y - top)[:, None]
        columns = [_wrapped(left + step, width, self.wrap[0]) for step in (0, 1)]
        rows = [_wrapped(top + step, height, self.wrap[1]) for step in (0, 1)]
        above, below = (
            self.rgba[row, columns[0]] * (1 - right_share) + self.rgba[row, columns[1]] * right_share for row in rows
        )
        mixed: NDArray[np.float64] = above * (1 - low_share) + below * low_share
        return mixed


@dataclass(frozen=True, kw_only=True)
class Material:
    """What decides the base colour, and how much of it shows."""

    factor: NDArray[np.float64]
    """(4,), linear."""
    texture: Texture | None
    alpha_mode: str
    """OPAQUE, MASK or BLEND."""
    cutoff: float
    is_single_sided: bool = False
    """Not seen from behind."""


PLAIN = Material(factor=np.ones(4), texture=None, alpha_mode="OPAQUE", cutoff=0.5)


def materials_of(gltf: Gltf) -> list[Material]:
    """The materials of a file, in its order. Each picture is decoded once.

    Raises:
        ObjectError: A texture is too large, or of a kind that is not read here.
    """
    decoded: dict[int, NDArray[np.float32]] = {}
    return [_material(gltf, entry, decoded) for entry in gltf.document.get("materials", [])]


def to_srgb(linear: np.ndarray) -> NDArray[np.float64]:
    """Linear light in 0..1 as sRGB (IEC 61966-2-1)."""
    clipped = np.clip(linear, 0.0, 1.0)
    return np.where(clipped <= 0.0031308, 12.92 * clipped, 1.055 * clipped ** (1 / 2.4) - 0.055)


def to_linear(srgb: np.ndarray) -> NDArray[np.float32]:
    """sRGB in 0..1 as linear light."""
    values = srgb.astype(np.float32)
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4).astype(np.float32)


def _material(gltf: Gltf, entry: dict[str, Any], decoded: dict[int, NDArray[np.float32]]) -> Material:
    look = entry.get("pbrMetallicRoughness", {})
    factor, reference = look.get("baseColorFactor", [1.0] * 4), look.get("baseColorTexture")
    glossy = entry.get("extensions", {}).get("KHR_materials_pbrSpecularGlossiness")
    if glossy is not None:
        factor, reference = glossy.get("diffuseFactor", [1.0] * 4), glossy.get("diffuseTexture")
    factor = np.array(factor, dtype=np.float64)
    if factor.shape != (4,) or not np.isfinite(factor).all():
        raise ValueError("a base colour is no colour")
    return Material(
        factor=factor,
        texture=None if reference is None else _texture(gltf, reference, decoded),
        alpha_mode=str(entry.get("alphaMode", "OPAQUE")),
        cutoff=float(entry.get("alphaCutoff", 0.5)),
        is_single_sided=not entry.get("doubleSided", False),
    )


def _texture(gltf: Gltf, reference: dict[str, Any], decoded: dict[int, NDArray[np.float32]]) -> Texture:
    entry = gltf.document["textures"][natural(reference["index"])]
    source = entry.get("extensions", {}).get("EXT_texture_webp", entry).get("source", entry.get("source"))
    if source is None:
        raise ObjectError(gltf.path, "unsupported", "a texture of a kind that is not read here; run `mv4d object`")
    if source not in decoded:
        decoded[source] = _picture(gltf, gltf.document["images"][natural(source)])
    sampler = gltf.document["samplers"][natural(entry["sampler"])] if "sampler" in entry else {}
    change = reference.get("extensions", {}).get("KHR_texture_transform", {})
    return Texture(
        rgba=decoded[source],
        coordinates=int(change.get("texCoord", reference.get("texCoord", 0))),
        transform=_transform(change),
        wrap=(int(sampler.get("wrapS", 0)), int(sampler.get("wrapT", 0))),
        nearest=sampler.get("magFilter") == _NEAREST,
    )


def _transform(change: dict[str, Any]) -> NDArray[np.float64]:
    """Offset after turn after scale, as the extension says."""
    angle = float(change.get("rotation", 0.0))
    scale, offset = np.array(change.get("scale", [1, 1]), float), np.array(change.get("offset", [0, 0]), float)
    if scale.shape != (2,) or offset.shape != (2,) or not np.isfinite([angle, *scale, *offset]).all():
        raise ValueError("a texture's transform is none")
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    return np.concatenate([turn * scale, offset[:, None]], axis=1)


def _picture(gltf: Gltf, entry: dict[str, Any]) -> NDArray[np.float32]:
    if "bufferView" not in entry:
        detail = "a texture outside of the file; run `mv4d object`, which puts all into one file"
        raise ObjectError(gltf.path, "unsupported", detail)
    view = gltf.document["bufferViews"][natural(entry["bufferView"])]
    start, length = view.get("byteOffset", 0), view["byteLength"]
    if min(start, length) < 0 or start + length > len(gltf.binary):
        raise IndexError("a picture outside of the file")
    try:
        with Image.open(io.BytesIO(gltf.binary[start : start + length]), formats=_FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                detail = f"a texture of {image.width} x {image.height} pixels; make it smaller"
                raise ObjectError(gltf.path, "too_large", detail)
            pixels = np.asarray(image.convert("RGBA"))
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ObjectError(gltf.path, "malformed", f"a texture cannot be read ({error}); export it anew") from error
    table = np.arange(256, dtype=np.float32) / 255
    return np.concatenate([to_linear(table)[pixels[..., :3]], table[pixels[..., 3:]]], axis=2)


def _wrapped(index: np.ndarray, size: int, mode: int) -> NDArray[np.int64]:
    """Texel indices within a picture's side."""
    whole = np.nan_to_num(index, nan=0.0, posinf=0.0, neginf=0.0)
    if mode == _CLAMP:
        return np.clip(whole, 0, size - 1).astype(np.int64)
    if mode == _MIRROR:
        phase = np.mod(whole, 2 * size).astype(np.int64)
        return np.where(phase < size, phase, 2 * size - 1 - phase)
    return np.mod(whole, size).astype(np.int64)
