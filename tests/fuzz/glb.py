"""Faults inside a GLB whose envelope stays whole, so that readers get as far as to them; and some in the envelope."""

import contextlib
import copy
import json
import random
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

NUMBERS = (-1, 0, 1, 3, 255, 65535, 2**31 - 1, 2**32, 2**53, -(2**31), 0.5, -0.0, 1e-38, 1e20, 1e39, 1e308)
NASTY: tuple[Any, ...] = (
    *NUMBERS, None, True, "", "x" * 5000, "\u0000", "\ud83d\ude00", "\udfff", "../../etc/passwd", "file:///etc/passwd",
    "data:,", [], {}, [[]], [0] * 1000, {"a": {"b": {}}},
)  # fmt: skip
FLOATS = (float("nan"), float("inf"), -float("inf"), 3e38, 1e30, 1e20, -1e12, 1e-44, 0.0, -1.0, 1e5)
PATHS = ("translation", "rotation", "scale", "weights", "pointer", "visibility", "")
EXTENSIONS = (
    "KHR_draco_mesh_compression", "EXT_mesh_gpu_instancing", "KHR_texture_transform", "KHR_materials_unlit",
    "KHR_lights_punctual", "KHR_animation_pointer", "KHR_materials_variants", "EXT_texture_webp",
    "KHR_materials_transmission", "KHR_mesh_quantization", "EXT_meshopt_compression", "KHR_texture_basisu",
)  # fmt: skip
COMPONENT_TYPES = (5120, 5121, 5122, 5123, 5125, 5126, 5124, 0)
TYPES = ("SCALAR", "VEC2", "VEC3", "VEC4", "MAT2", "MAT3", "MAT4", "VEC9")
JSON_CHUNK, BIN_CHUNK = b"JSON", b"BIN\0"


@dataclass
class Glb:
    """A GLB taken apart."""

    document: dict[str, Any]
    binary: bytearray

    @classmethod
    def read(cls, content: bytes) -> "Glb":
        """Take a sound GLB apart."""
        length = struct.unpack_from("<I", content, 12)[0]
        return cls(json.loads(content[20 : 20 + length]), bytearray(content[28 + length :]))

    def write(self) -> bytes:
        """Put it together again; NaN and half surrogates are written as Python does."""
        text = json.dumps(self.document).encode()
        text += b" " * (-len(text) % 4)
        body = struct.pack("<I4s", len(text), JSON_CHUNK) + text
        body += struct.pack("<I4s", len(self.binary), BIN_CHUNK) + self.binary
        return struct.pack("<4sII", b"glTF", 2, 12 + len(body)) + body

    def some(self, key: str, rng: random.Random) -> dict[str, Any]:
        """One of a top-level array; a stray object if there is none."""
        entries = self.document.get(key)
        entry = rng.choice(entries) if isinstance(entries, list) and entries else {}
        return entry if isinstance(entry, dict) else {}

    def index(self, key: str, rng: random.Random) -> int:
        """A plausible index into a top-level array, or one past its end, or none."""
        entries = self.document.get(key)
        count = len(entries) if isinstance(entries, list) else 0
        return rng.choice((rng.randrange(max(1, count)), rng.randrange(max(1, count)), count, -1))


def mutate_glb(content: bytes, names: Sequence[str], rng: random.Random) -> bytes:
    """The file with faults of the given names, envelope last."""
    glb = Glb.read(content)
    envelope = [name for name in dict.fromkeys(names) if name in _ENVELOPE]
    for name in names:
        if name not in _ENVELOPE:
            # After another fault, the place for this one may be gone.
            with contextlib.suppress(LookupError, TypeError, ValueError, AttributeError, struct.error):
                _INSIDE[name](glb, rng)
    changed = glb.write()
    for name in envelope:
        changed = _ENVELOPE[name](changed, rng)
    return changed


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every (container, key) of a JSON value."""
    for key in list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield value, key
        yield from _places(value[key])


def _value(glb: Glb, rng: random.Random) -> None:
    container, key = rng.choice(list(_places(glb.document)))
    container[key] = copy.deepcopy(rng.choice(NASTY))


def _number(glb: Glb, rng: random.Random) -> None:
    places = [place for place in _places(glb.document) if type(place[0][place[1]]) in (int, float)]
    container, key = rng.choice(places or [({"": 0}, "")])
    container[key] = rng.choice((*NUMBERS, container[key] + 1, container[key] - 1))


def _delete(glb: Glb, rng: random.Random) -> None:
    container, key = rng.choice(list(_places(glb.document)))
    del container[key]


def _duplicate(glb: Glb, rng: random.Random) -> None:
    lists = [value for place in _places(glb.document) if isinstance(value := place[0][place[1]], list) and value]
    chosen = rng.choice(lists or [[0]])
    chosen.insert(rng.randrange(len(chosen) + 1), copy.deepcopy(rng.choice(chosen)))


def _swap(glb: Glb, rng: random.Random) -> None:
    (first, a), (second, b) = rng.choice(list(_places(glb.document))), rng.choice(list(_places(glb.document)))
    first[a], second[b] = copy.deepcopy(second[b]), copy.deepcopy(first[a])


def _accessor(glb: Glb, rng: random.Random) -> None:
    accessor = glb.some("accessors", rng)
    key = rng.choice(("count", "type", "componentType", "byteOffset", "bufferView", "sparse", "normalized", "min"))
    count = accessor.get("count", 0)
    accessor[key] = {
        "count": rng.choice((0, 1, count - 1 if isinstance(count, int) else 1, 7, 10**6, 2**31)),
        "type": rng.choice(TYPES), "componentType": rng.choice(COMPONENT_TYPES),
        "byteOffset": rng.choice((1, 2, 4, 12, 10**6)), "bufferView": glb.index("bufferViews", rng), "normalized": True,
        "min": [rng.choice(NUMBERS)] * 3,
        "sparse": {
            "count": rng.choice((1, 2, 100)),
            "indices": {"bufferView": glb.index("bufferViews", rng), "componentType": rng.choice(COMPONENT_TYPES)},
            "values": {"bufferView": glb.index("bufferViews", rng), "byteOffset": rng.choice((0, 0, 4))},
        },
    }[key]  # fmt: skip
    if rng.random() < 0.2:
        accessor.pop("bufferView", None)


def _view(glb: Glb, rng: random.Random) -> None:
    view = glb.some("bufferViews", rng)
    key = rng.choice(("byteOffset", "byteLength", "byteStride", "buffer", "target"))
    values = (0, 1, 3, 4, 8, 252, len(glb.binary), len(glb.binary) // 2, -4, 2**32)
    view[key] = rng.choice(values)


def _nodes(glb: Glb, rng: random.Random) -> None:
    node = glb.some("nodes", rng)
    what = rng.randrange(7)
    if what == 0:
        node["children"] = [glb.index("nodes", rng) for _ in range(rng.randint(1, 4))]
    elif what == 1:
        node[rng.choice(("mesh", "skin", "camera"))] = glb.index(rng.choice(("meshes", "skins")), rng)
    elif what == 2:
        node[rng.choice(("translation", "scale"))] = [rng.choice((0, -1, 1e-20, 1e17, 1, 1e6)) for _ in range(3)]
    elif what == 3:
        node["rotation"] = [rng.choice((0, 0, 1, 1e10)) for _ in range(4)]
    elif what == 4:
        node["matrix"] = [rng.choice((0, 1, -1, 1e6, 1e-8)) for _ in range(16)]
    elif what == 5:
        node["name"] = rng.choice(("", "a" * 3000, "\u0000", "\ud83d\ude00" * 40, "../x", "a\nb", "\u202e"))
    else:
        nodes = glb.document["nodes"] if isinstance(glb.document.get("nodes"), list) else []
        first = len(nodes)
        depth = rng.choice((50, 300, 790))
        nodes.extend({"children": [first + step + 1]} for step in range(depth - 1))
        nodes.append({})
        node.setdefault("children", []).append(first)


def _animation(glb: Glb, rng: random.Random) -> None:
    animation = glb.some("animations", rng)
    samplers, channels = animation.get("samplers") or [{}], animation.get("channels") or [{}]
    sampler, channel = rng.choice(samplers), rng.choice(channels)
    if (
        not isinstance(sampler, dict)
        or not isinstance(channel, dict)
        or not isinstance(channel.get("target", {}), dict)
    ):
        return
    what = rng.randrange(7)
    if what == 0:
        sampler["input"], sampler["output"] = sampler.get("output", 0), sampler.get("input", 0)
    elif what == 1:
        sampler[rng.choice(("input", "output"))] = glb.index("accessors", rng)
    elif what == 2:
        sampler["interpolation"] = rng.choice(("STEP", "LINEAR", "CUBICSPLINE", "BEZIER", ""))
    elif what == 3:
        channel.setdefault("target", {})["path"] = rng.choice(PATHS)
    elif what == 4:
        channel.setdefault("target", {})["node"] = glb.index("nodes", rng)
    elif what == 5:
        channel["sampler"] = rng.randrange(len(samplers) + 1)
    else:
        _floats_of(glb, sampler.get("input"), rng)


def _skin(glb: Glb, rng: random.Random) -> None:
    skin = glb.some("skins", rng)
    joints = skin.get("joints")
    joints = joints if isinstance(joints, list) and joints else [0]
    what = rng.randrange(6)
    if what == 0:
        rng.shuffle(joints)
    elif what == 1:
        joints.append(rng.choice(joints))
    elif what == 2:
        joints[rng.randrange(len(joints))] = glb.index("nodes", rng)
    elif what == 3:
        del joints[rng.randrange(len(joints)) :]
    elif what == 4:
        skin[rng.choice(("skeleton", "inverseBindMatrices"))] = glb.index("accessors", rng)
    else:
        _floats_of(glb, skin.get("inverseBindMatrices"), rng)


def _primitive(glb: Glb, rng: random.Random) -> None:
    mesh = glb.some("meshes", rng)
    primitives = mesh.get("primitives")
    primitive = rng.choice(primitives) if isinstance(primitives, list) and primitives else {}
    attributes = primitive.setdefault("attributes", {}) if isinstance(primitive, dict) else {}
    what = rng.randrange(7)
    if what == 0 and isinstance(attributes, dict):
        name = rng.choice((*attributes, "JOINTS_0", "WEIGHTS_0", "COLOR_0", "TEXCOORD_7", "_X", "POSITION"))
        attributes[name] = glb.index("accessors", rng)
    elif what == 1 and isinstance(attributes, dict) and attributes:
        del attributes[rng.choice(list(attributes))]
    elif what == 2:
        primitive["mode"] = rng.randrange(8)
    elif what == 3:
        primitive["indices"] = glb.index("accessors", rng)
    elif what == 4:
        primitive["targets"] = [{"POSITION": glb.index("accessors", rng)} for _ in range(rng.choice((1, 2, 200)))]
    elif what == 5:
        mesh["weights"] = [rng.choice((0, 1, -1e6, 1e17)) for _ in range(rng.randint(0, 5))]
    else:
        primitive["material"] = glb.index("materials", rng)


def _material(glb: Glb, rng: random.Random) -> None:
    material = glb.some("materials", rng)
    texture = {"index": glb.index("textures", rng), "texCoord": rng.choice((0, 1, 7, 100))}
    what = rng.randrange(5)
    if what == 0:
        material.setdefault("pbrMetallicRoughness", {})["baseColorTexture"] = texture
    elif what == 1:
        material[rng.choice(("normalTexture", "occlusionTexture", "emissiveTexture"))] = texture
    elif what == 2:
        material["alphaMode"], material["alphaCutoff"] = rng.choice(("MASK", "BLEND", "X")), rng.choice(NUMBERS)
    elif what == 3:
        material["emissiveFactor"] = [rng.choice((1e6, -1, 1e30, 0))] * 3
    else:
        glb.some("textures", rng)["source"] = glb.index("images", rng)


def _image(glb: Glb, rng: random.Random) -> None:
    """Embedded pictures that lie about their size, end early, or are something else."""
    image = glb.some("images", rng)
    views = glb.document.get("bufferViews")
    number = image.get("bufferView")
    if not isinstance(number, int) or not isinstance(views, list) or not 0 <= number < len(views):
        image["uri"] = rng.choice(("missing.png", "../x.png", "data:image/png;base64,AAAA", "data:image/png;base64,!"))
        return
    view = views[number]
    start, length = view.get("byteOffset", 0), view.get("byteLength", 0)
    if not isinstance(start, int) or not isinstance(length, int) or not 0 <= start < len(glb.binary) or length < 24:
        return
    what = rng.randrange(4)
    if what == 0 and glb.binary[start : start + 4] == b"\x89PNG":
        size = rng.choice((0, 1, 16384, 16000, 100_000, 2**31))
        struct.pack_into(">I", glb.binary, start + rng.choice((16, 20)), size)
    elif what == 1:
        view["byteLength"] = rng.randrange(length)
    elif what == 2:
        image["mimeType"] = rng.choice(("image/jpeg", "image/webp", "image/ktx2", "text/html", ""))
    else:
        at = start + rng.randrange(length)
        glb.binary[at : at + 16] = rng.randbytes(16)
        del glb.binary[len(glb.binary) :]


def _floats(glb: Glb, rng: random.Random) -> None:
    accessors = glb.document.get("accessors")
    floats = [
        index
        for index, accessor in enumerate(accessors if isinstance(accessors, list) else [])
        if isinstance(accessor, dict) and accessor.get("componentType") == 5126
    ]
    if floats:
        _floats_of(glb, rng.choice(floats), rng)


def _floats_of(glb: Glb, index: Any, rng: random.Random) -> None:
    """Odd numbers in an accessor's stored floats."""
    where = _stored(glb, index)
    if where is None:
        return
    start, length = where
    for _ in range(rng.choice((1, 1, 5))):
        at = start + rng.randrange(max(1, length // 4)) * 4
        if at + 4 <= len(glb.binary):
            struct.pack_into("<f", glb.binary, at, rng.choice(FLOATS))


def _integers(glb: Glb, rng: random.Random) -> None:
    """Odd numbers in an accessor's stored indices or joints."""
    accessors = glb.document.get("accessors")
    whole = [
        index
        for index, accessor in enumerate(accessors if isinstance(accessors, list) else [])
        if isinstance(accessor, dict) and accessor.get("componentType") in (5121, 5123, 5125)
    ]
    where = _stored(glb, rng.choice(whole)) if whole else None
    if where is None:
        return
    start, length = where
    for _ in range(rng.choice((1, 1, 5))):
        at = start + rng.randrange(max(1, length // 2)) * 2
        if at + 2 <= len(glb.binary):
            struct.pack_into("<H", glb.binary, at, rng.choice((0, 1, 255, 256, 32767, 65535)))


def _stored(glb: Glb, index: Any) -> tuple[int, int] | None:
    """Offset and length of an accessor's buffer view in the binary chunk."""
    try:
        accessor = glb.document["accessors"][index]
        view = glb.document["bufferViews"][accessor["bufferView"]]
        start, length = int(view.get("byteOffset", 0)), int(view["byteLength"])
    except (LookupError, TypeError, ValueError, AttributeError):
        return None
    return (start, length) if 0 <= start < len(glb.binary) and 0 < length <= len(glb.binary) else None


def _extension(glb: Glb, rng: random.Random) -> None:
    name = rng.choice(EXTENSIONS)
    glb.document["extensionsUsed"] = [name]
    if rng.random() < 0.5:
        glb.document["extensionsRequired"] = [name]
    body: Any = {
        "KHR_draco_mesh_compression": {"bufferView": glb.index("bufferViews", rng), "attributes": {"POSITION": 0}},
        "EXT_mesh_gpu_instancing": {"attributes": {"TRANSLATION": glb.index("accessors", rng)}},
        "KHR_texture_transform": {"offset": [1e9, 0], "scale": [0, 0], "texCoord": 9},
        "KHR_materials_transmission": {"transmissionFactor": rng.choice(NUMBERS)},
        "EXT_texture_webp": {"source": glb.index("images", rng)},
    }.get(name, copy.deepcopy(rng.choice(NASTY)))
    places = [value for place in _places(glb.document) if isinstance(value := place[0][place[1]], dict)]
    key = rng.choice(("nodes", "meshes", "materials", "textures", ""))
    holder = glb.some(key, rng) if key else rng.choice(places or [{}])
    holder["extensions"] = {name: body}


_INSIDE: dict[str, Callable[[Glb, random.Random], None]] = {
    "value": _value,
    "number": _number,
    "delete": _delete,
    "duplicate": _duplicate,
    "swap": _swap,
    "accessor": _accessor,
    "view": _view,
    "nodes": _nodes,
    "animation": _animation,
    "skin": _skin,
    "primitive": _primitive,
    "material": _material,
    "image": _image,
    "floats": _floats,
    "integers": _integers,
    "extension": _extension,
}


def _lengths(content: bytes, rng: random.Random) -> bytes:
    changed = bytearray(content)
    json_length = min(struct.unpack_from("<I", content, 12)[0], len(content) - 28)
    at = rng.choice((8, 12, 20 + json_length))
    value = struct.unpack_from("<I", content, at)[0]
    struct.pack_into("<I", changed, at, rng.choice((0, 1, value + 4, max(0, value - 4), 2**31, 2**32 - 1)))
    return bytes(changed)


def _chunks(content: bytes, rng: random.Random) -> bytes:
    json_length = struct.unpack_from("<I", content, 12)[0]
    text, binary = content[12 : 20 + json_length], content[20 + json_length :]
    parts = rng.choice(
        ([binary, text], [text], [text, text, binary], [text, binary, binary], [text, b"\0" * 8, binary])
    )
    body = b"".join(parts)
    return struct.pack("<4sII", b"glTF", rng.choice((2, 2, 2, 1, 3)), 12 + len(body)) + body


_ENVELOPE: dict[str, Callable[[bytes, random.Random], bytes]] = {"lengths": _lengths, "chunks": _chunks}
GLB_MUTATORS = (*_INSIDE, *_ENVELOPE)
