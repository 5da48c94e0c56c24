"""Whether a glTF is fit for Blender, and what it holds: from its JSON and its buffers, without starting Blender.

Blender imports NaN positions, texture bombs and paths out of the folder without a word, and dies of some of the rest;
so all of that is found here, at the cost of reading the file once.
"""

from dataclasses import dataclass

from ingest.gltf import MESHOPT, Gltf, data_uri, whole_file
from ingest.image_size import Read, image_size
from ingest.json_values import Json, as_list, as_object, broken, extension, integer, integers, numbers, string, strings
from ingest.json_values import objects as objects_of
from ingest.meshes import check_meshes, check_skins, num_morph_targets
from ingest.refused import Refused
from ingest.scan import LARGEST_COORDINATE, Scan
from ingest.side_files import relative_path
from pipeline.records import Inspection

BLENDER_EXTENSIONS = frozenset({
    "EXT_mesh_gpu_instancing", "EXT_texture_webp", "KHR_animation_pointer", "KHR_draco_mesh_compression",
    "KHR_lights_punctual", "KHR_materials_anisotropy", "KHR_materials_clearcoat", "KHR_materials_emissive_strength",
    "KHR_materials_ior", "KHR_materials_pbrSpecularGlossiness", "KHR_materials_sheen", "KHR_materials_specular",
    "KHR_materials_transmission", "KHR_materials_unlit", "KHR_materials_variants", "KHR_materials_volume",
    "KHR_mesh_quantization", "KHR_texture_transform",
})  # fmt: skip
"""What the importer of Blender 4.5 accepts in `extensionsRequired` (io_scene_gltf2/io/imp/gltf2_io_gltf.py)."""

DECODED_EXTENSIONS = frozenset({*MESHOPT, "EXT_texture_avif", "KHR_texture_basisu"})
"""What the Blender process decodes before the importer sees it. Here, only its claims are checked."""

_TEXTURES = ("EXT_texture_avif", "EXT_texture_webp", "KHR_texture_basisu")
_INSTANCING = "EXT_mesh_gpu_instancing"
_MOST_SIDE_FILES = 1000
_LONGEST_NAME = 256


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What an asset may ask of the machine."""

    max_json_bytes: int = 64 << 20
    """Of a GLB's JSON chunk, or a whole .gltf."""
    max_vertices: int = 10_000_000
    max_triangles: int = 20_000_000
    max_nodes: int = 100_000
    """Instances count."""
    max_depth: int = 800
    """Of the node tree. Blender 4.5's importer recurses; it bears 950 and fails at 1000."""
    max_animations: int = 2000
    max_duration_s: float = 3600.0
    """Of an animation, from time 0."""
    max_image_side_px: int = 16384
    max_image_pixels: int = 256 << 20
    """Over all images of an asset."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value > 0:
                raise ValueError(f"limits.{name} must be positive, got {value}")


def check_json(gltf: Gltf, limits: Limits) -> None:
    """What can be said from the JSON alone, before any side file is fetched.

    Raises:
        Refused: `unsafe_uri`, `unsupported_extension`, `too_complex`, `malformed`, `no_mesh` or `no_animation`.
    """
    if len(gltf.side_files) > _MOST_SIDE_FILES:
        raise Refused("too_complex", f"it refers to {len(gltf.side_files)} files", "pack it into one .glb")
    _check_extensions(gltf)
    _check_tree(gltf, limits)
    if not any("mesh" in node for node in gltf.objects("nodes")):
        raise Refused("no_mesh", "no node has a mesh")
    animations = gltf.objects("animations")
    if not any(as_list(animation.get("channels", []), "channels") for animation in animations):
        raise Refused("no_animation", "its JSON lists no animation")
    _limit("animations", len(animations), limits.max_animations)


def inspect_gltf(gltf: Gltf, limits: Limits) -> Inspection:
    """Check everything and count what is there; `asset_id` is left empty.

    Raises:
        Refused: For every way in which the file is unfit.
    """
    check_json(gltf, limits)
    scan = Scan(gltf)
    _check_accessors(gltf, limits)
    num_vertices, num_triangles = check_meshes(gltf, scan)
    _limit("vertices", num_vertices, limits.max_vertices)
    _limit("triangles", num_triangles, limits.max_triangles)
    _check_nodes(gltf, limits)
    check_skins(gltf, scan)
    animation_names, durations_s = _check_animations(gltf, limits, scan)
    image_pixels, missing_files = _check_images(gltf, limits)
    return Inspection(
        asset_id="",
        generator=string(as_object(gltf.root["asset"], "asset"), "generator", "asset")[:_LONGEST_NAME],
        animation_names=animation_names,
        durations_s=durations_s,
        num_nodes=len(gltf.objects("nodes")),
        num_meshes=len(gltf.objects("meshes")),
        num_skins=len(gltf.objects("skins")),
        num_morph_targets=num_morph_targets(gltf),
        num_vertices=num_vertices,
        num_triangles=num_triangles,
        num_materials=len(gltf.objects("materials")),
        num_images=len(gltf.objects("images")),
        image_pixels=image_pixels,
        extensions_used=_extensions(gltf, "extensionsUsed"),
        extensions_required=_extensions(gltf, "extensionsRequired"),
        missing_files=missing_files,
    )


def _check_extensions(gltf: Gltf) -> None:
    used, required = set(_extensions(gltf, "extensionsUsed")), _extensions(gltf, "extensionsRequired")
    unsupported = [name for name in required if name not in BLENDER_EXTENSIONS | DECODED_EXTENSIONS]
    if unsupported:
        raise Refused("unsupported_extension", f"it requires {', '.join(unsupported[:5])[:_LONGEST_NAME]}")
    undeclared = [name for name in required if name not in used]
    if undeclared:
        broken(f"it requires {', '.join(undeclared)}, which `extensionsUsed` does not list")


def _extensions(gltf: Gltf, key: str) -> tuple[str, ...]:
    """Each once, in the file's order."""
    return tuple(dict.fromkeys(name[:_LONGEST_NAME] for name in strings(gltf.root, key, "the file")))


def _check_tree(gltf: Gltf, limits: Limits) -> None:
    """Nodes form trees: none has two parents, none is its own ancestor. Without recursion, as trees may be deep."""
    nodes = gltf.objects("nodes")
    _limit("nodes", len(nodes), limits.max_nodes)
    below = [integers(node, "children", f"nodes[{index}]", below=len(nodes)) for index, node in enumerate(nodes)]
    parent: dict[int, int] = {}
    for index, kids in enumerate(below):
        for child in kids:
            if child in parent:
                broken(f"nodes[{child}] has two parents, nodes[{parent[child]}] and nodes[{index}]")
            parent[child] = index
    level = [index for index in range(len(nodes)) if index not in parent]
    depth = visited = 0
    while level:
        depth, visited = depth + 1, visited + len(level)
        level = [child for index in level for child in below[index]]
    if visited < len(nodes):
        broken(f"{len(nodes) - visited} nodes hang in a loop: one is its own ancestor")
    _limit("levels of nodes", depth, limits.max_depth, setting="max_depth")
    for index, scene in enumerate(gltf.objects("scenes")):
        integers(scene, "nodes", f"scenes[{index}]", below=len(nodes))


def _check_accessors(gltf: Gltf, limits: Limits) -> None:
    for accessor in gltf.accessors:
        # Blender makes an array of zeros for an accessor without data, however long.
        if accessor.view is None:
            what = f"elements in accessors[{accessor.index}]"
            _limit(what, accessor.count, limits.max_vertices, setting="max_vertices")
        for block in accessor.sparse[0].blocks() if accessor.sparse else ():
            if block.size and int(block.max()) >= accessor.count:
                broken(f"accessors[{accessor.index}].sparse points at element {int(block.max())} of {accessor.count}")


def _check_nodes(gltf: Gltf, limits: Limits) -> None:
    total = len(gltf.objects("nodes"))
    for index, node in enumerate(gltf.objects("nodes")):
        where = f"nodes[{index}]"
        for key, into in (("mesh", "meshes"), ("skin", "skins"), ("camera", "cameras")):
            gltf.index(node, key, into, where)
        numbers(node, "weights", where)
        for key, count in (("translation", 3), ("rotation", 4), ("scale", 3), ("matrix", 16)):
            largest = max(map(abs, numbers(node, key, where, count)), default=0.0)
            if largest > LARGEST_COORDINATE:
                raise Refused("non_finite", f"{where} has {largest:g} in its {key}")
        instancing = extension(node, _INSTANCING, where)
        attributes = as_object((instancing or {}).get("attributes", {}), where)
        counts = [
            gltf.accessors[integer(attributes, key, where, below=len(gltf.accessors))].count for key in attributes
        ]
        total += max(counts, default=0)
    _limit("nodes and instances", total, limits.max_nodes, setting="max_nodes")


def _check_animations(gltf: Gltf, limits: Limits, scan: Scan) -> tuple[tuple[str, ...], tuple[float, ...]]:
    """Names and durations. A duration reaches from the first key of any channel to the last."""
    names, durations = [], []
    for index, animation in enumerate(gltf.objects("animations")):
        where = f"animations[{index}]"
        names.append((string(animation, "name", where) or f"animation_{index}")[:_LONGEST_NAME])
        samplers = objects_of(animation, "samplers", where)
        spans = [
            _check_channel(gltf, channel, samplers, where, scan) for channel in objects_of(animation, "channels", where)
        ]
        keyed = [(low, high) for low, high in spans if low <= high]
        start, end = min((low for low, _ in keyed), default=0.0), max((high for _, high in keyed), default=0.0)
        if max(abs(start), abs(end)) > limits.max_duration_s:
            found = (
                f"{where} ({names[-1]!r}) runs from {start:g} s to {end:g} s; the limit is {limits.max_duration_s:g} s"
            )
            advice = "check the unit of its key times, or raise --limits.max_duration_s"
            raise Refused("absurd_duration", found, advice)
        durations.append(end - start)
    return tuple(names), tuple(durations)


def _check_channel(gltf: Gltf, channel: Json, samplers: list[Json], where: str, scan: Scan) -> tuple[float, float]:
    """First and last key time in seconds; (0, -1) without keys."""
    target = as_object(channel.get("target", {}), f"a target of {where}")
    gltf.index(target, "node", "nodes", f"a target of {where}")
    sampler = samplers[integer(channel, "sampler", f"a channel of {where}", below=len(samplers))]
    where = f"a sampler of {where}"
    times = integer(sampler, "input", where, below=len(gltf.accessors))
    keys = integer(sampler, "output", where, below=len(gltf.accessors))
    num_times, num_keys = gltf.accessors[times].count, gltf.accessors[keys].count
    if not gltf.accessors[times].is_float or gltf.accessors[times].num_components != 1:
        broken(f"{where} has key times that are not float32 scalars")
    if num_keys < num_times * (3 if string(sampler, "interpolation", where) == "CUBICSPLINE" else 1):
        broken(f"{where} has {num_keys} keys for {num_times} times")
    scan.check_finite(times, f"key times of {where}")
    scan.check_finite(keys, f"keys of {where}")
    return scan.span(times)


def _check_images(gltf: Gltf, limits: Limits) -> tuple[int, tuple[str, ...]]:
    """Pixels in all, and the names of absent images. An image whose header cannot be read counts as no pixels."""
    total, missing = 0, set()
    for index, image in enumerate(gltf.objects("images")):
        where = f"images[{index}]"
        uri = string(image, "uri", where)
        if uri and not uri.startswith("data:") and relative_path(uri) not in gltf.files:
            missing.add(relative_path(uri))
            continue
        read = _reader(gltf, image, uri, where)
        width, height = (read and image_size(read)) or (0, 0)
        if max(width, height) > limits.max_image_side_px:
            found = f"{where} is {width} x {height} pixels; the limit is {limits.max_image_side_px}"
            raise Refused("image_bomb", found, "resize it, or raise --limits.max_image_side_px")
        total += width * height
    if total > limits.max_image_pixels:
        found = f"its images have {total} pixels in all; the limit is {limits.max_image_pixels}"
        raise Refused("image_bomb", found, "resize them, or raise --limits.max_image_pixels")
    for index, texture in enumerate(gltf.objects("textures")):
        for entry in (texture, *(extension(texture, name, f"textures[{index}]") for name in _TEXTURES)):
            gltf.index(entry or {}, "source", "images", f"textures[{index}]")
        gltf.index(texture, "sampler", "samplers", f"textures[{index}]")
    return total, tuple(sorted(missing))


def _reader(gltf: Gltf, image: Json, uri: str, where: str) -> Read | None:
    view = gltf.index(image, "bufferView", "bufferViews", where)
    if view is not None:
        return gltf.views[view].read
    if uri.startswith("data:"):
        return data_uri(uri, where).read
    return whole_file(gltf.files[relative_path(uri)]).read if uri else None


def _limit(what: str, found: int, limit: int, *, setting: str = "") -> None:
    if found > limit:
        advice = f"simplify it, or raise --limits.{setting or 'max_' + what}"
        raise Refused("too_complex", f"it has {found} {what}; the limit is {limit}", advice)
