import base64
import json
import math
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ingest.gltf import read_gltf
from ingest.inspect import Limits, inspect_gltf
from ingest.refused import Refused
from pipeline.records import Inspection
from tests.ingest.tiny import INDEX, POSITION, TIME, TRANSLATION, glb, png, set_float, triangle, write_gltf

Change = Callable[[dict[str, Any], bytearray], None]


def inspect(content: bytes, tmp_path: Path, limits: Limits | None = None) -> Inspection:
    limits = limits or Limits()
    (tmp_path / "a.glb").write_bytes(content)
    return inspect_gltf(read_gltf(tmp_path / "a.glb", max_json_bytes=limits.max_json_bytes), limits)


def inspect_changed(change: Change, tmp_path: Path, limits: Limits | None = None) -> Inspection:
    root, buffer = triangle()
    change(root, buffer)
    return inspect(glb(root, buffer), tmp_path, limits)


def put(*path: Any, value: Any) -> Change:
    """Set one place of the triangle's JSON."""

    def change(root: dict[str, Any], _: bytearray) -> None:
        place: Any = root
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value

    return change


def number(accessor: int, element: int, value: float) -> Change:
    return lambda _, buffer: set_float(buffer, accessor, element, value)


def test_a_triangle_is_counted(tmp_path: Path) -> None:
    found = inspect_changed(lambda root, buffer: None, tmp_path)
    assert found.generator == "by hand"
    assert (found.animation_names, found.durations_s) == (("rise",), (1.5,))
    assert (found.num_nodes, found.num_meshes, found.num_vertices, found.num_triangles) == (2, 1, 3, 1)
    assert (found.num_skins, found.num_morph_targets, found.num_images, found.image_pixels) == (0, 0, 0, 0)


def test_skins_targets_and_images_are_counted(tmp_path: Path) -> None:
    def change(root: dict[str, Any], buffer: bytearray) -> None:
        matrices = np.eye(4, dtype="<f4").tobytes()
        root["bufferViews"].append({"buffer": 0, "byteOffset": len(buffer), "byteLength": 64})
        buffer += matrices
        root["accessors"].append({"bufferView": 4, "componentType": 5126, "count": 1, "type": "MAT4"})
        root["skins"] = [{"joints": [0], "inverseBindMatrices": 4}]
        root["meshes"][0]["primitives"][0]["targets"] = [{"POSITION": POSITION}] * 2
        root["materials"] = [{}]
        root["images"] = [{"uri": "data:image/png;base64," + base64.b64encode(png(64, 32)).decode()}]
        root["extensionsUsed"] = ["KHR_materials_unlit", "KHR_materials_unlit"]

    found = inspect_changed(change, tmp_path)
    assert (found.num_skins, found.num_morph_targets, found.num_materials) == (1, 2, 1)
    assert (found.num_images, found.image_pixels) == (1, 64 * 32)
    assert found.extensions_used == ("KHR_materials_unlit",)


def test_side_files_are_read_by_their_decoded_names(tmp_path: Path) -> None:
    path = write_gltf(tmp_path, image=png(8, 8))
    gltf = read_gltf(path, max_json_bytes=1 << 20)
    assert [(side.path, side.needed) for side in gltf.side_files] == [("tri.bin", True), ("textures/a b.png", False)]
    files = {side.path: tmp_path / side.path for side in gltf.side_files}
    assert inspect_gltf(gltf.with_files(files), Limits()).image_pixels == 64
    found = inspect_gltf(gltf.with_files({"tri.bin": files["tri.bin"]}), Limits())
    assert (found.missing_files, found.image_pixels) == (("textures/a b.png",), 0)
    with pytest.raises(Refused, match=r"missing_file: its buffer tri\.bin"):
        inspect_gltf(gltf, Limits())
    files["tri.bin"].write_bytes(b"short")
    with pytest.raises(Refused, match="truncated"):
        inspect_gltf(gltf.with_files(files), Limits())


def test_an_embedded_gltf_is_read(tmp_path: Path) -> None:
    root, buffer = triangle()
    root["buffers"][0]["uri"] = "data:application/octet-stream;base64," + base64.b64encode(buffer).decode()
    (tmp_path / "a.glb").write_text(json.dumps(root))
    gltf = read_gltf(tmp_path / "a.glb", max_json_bytes=1 << 20)
    assert inspect_gltf(gltf, Limits()).num_vertices == 3
    assert gltf.side_files == []


NAN, INF = math.nan, math.inf
BAD_INDEX: Change = lambda root, buffer: struct.pack_into(  # noqa: E731
    "<H", buffer, root["bufferViews"][INDEX]["byteOffset"], 3
)


@pytest.mark.parametrize(
    ("reason", "change"),
    [
        ("non_finite", number(POSITION, 4, NAN)),
        ("non_finite", number(POSITION, 8, -INF)),
        ("non_finite", number(POSITION, 0, 3e38)),
        ("non_finite", number(TIME, 1, NAN)),
        ("non_finite", number(TRANSLATION, 2, NAN)),
        ("non_finite", put("nodes", 0, "translation", value=[0, NAN, 0])),
        ("non_finite", put("nodes", 0, "scale", value=[1, 10**400, 1])),
        ("non_finite", put("nodes", 0, "matrix", value=[1e30] * 16)),
        ("absurd_duration", number(TIME, 1, 3601.0)),
        ("absurd_duration", number(TIME, 0, -4000.0)),
        ("malformed", BAD_INDEX),
        ("malformed", put("accessors", POSITION, "count", value=4)),
        ("malformed", put("accessors", POSITION, "count", value=2**31 - 1)),
        ("malformed", put("accessors", POSITION, "count", value=-1)),
        ("malformed", put("accessors", POSITION, "count", value=True)),
        ("malformed", put("accessors", POSITION, "byteOffset", value=4)),
        ("malformed", put("accessors", POSITION, "type", value="VEC5")),
        ("malformed", put("accessors", POSITION, "componentType", value=1)),
        ("malformed", put("accessors", POSITION, "bufferView", value=9)),
        ("malformed", put("accessors", POSITION, "sparse", value={"count": 1})),
        ("malformed", put("bufferViews", POSITION, "byteLength", value=10**6)),
        ("malformed", put("bufferViews", POSITION, "byteStride", value=4)),
        ("malformed", put("bufferViews", POSITION, "buffer", value=1)),
        ("malformed", put("buffers", 0, "byteLength", value=10**6)),
        ("malformed", put("buffers", 0, "uri", value="data:,text")),
        ("malformed", put("nodes", 1, "mesh", value=1)),
        ("malformed", put("nodes", 1, "mesh", value=False)),
        ("malformed", put("nodes", 1, "children", value=[0])),
        ("malformed", put("nodes", 0, "children", value=[1, 1])),
        ("malformed", put("nodes", 0, "children", value=[0])),
        ("malformed", put("nodes", 0, "children", value=[7])),
        ("malformed", put("scenes", 0, "nodes", value=[7])),
        ("malformed", put("meshes", 0, "primitives", 0, "attributes", "POSITION", value=99)),
        ("malformed", put("meshes", 0, "primitives", 0, "attributes", "NORMAL", value=TIME)),
        ("malformed", put("animations", 0, "samplers", 0, "input", value=INDEX)),
        ("malformed", put("animations", 0, "channels", 0, "sampler", value=1)),
        ("malformed", put("animations", 0, "samplers", 0, "interpolation", value="CUBICSPLINE")),
        ("malformed", put("extensionsRequired", value=["KHR_texture_transform"])),
        ("malformed", put("nodes", value={})),
        ("malformed", put("nodes", value=[[]])),
        ("malformed", put("images", value=[{"bufferView": 17}])),
        ("malformed", put("textures", value=[{"source": 0}])),
        ("unsupported_extension", put("extensionsRequired", value=["MSFT_texture_dds"])),
        ("malformed", put("extensionsRequired", value=["EXT_meshopt_compression"])),
        ("unsupported_format", put("asset", "version", value="1.0")),
        ("not_an_asset", lambda root, buffer: root.pop("asset")),
        ("unsafe_uri", put("images", value=[{"uri": "../up.png"}])),
        ("unsafe_uri", put("images", value=[{"uri": "%2e%2e/up.png"}])),
        ("unsafe_uri", put("buffers", 0, "uri", value="file:///etc/passwd")),
        ("missing_file", put("buffers", 0, "uri", value="gone.bin")),
        ("no_mesh", lambda root, buffer: root["nodes"][1].pop("mesh")),
        ("no_mesh", put("meshes", 0, "primitives", 0, "mode", value=1)),
        ("no_animation", lambda root, buffer: root.pop("animations")),
        ("no_animation", put("animations", value=[{"channels": []}])),
        ("too_complex", put("nodes", value=[{}] * 100_001)),
    ],
)
def test_a_fault_is_found_and_classified(reason: str, change: Change, tmp_path: Path) -> None:
    with pytest.raises(Refused) as refusal:
        inspect_changed(change, tmp_path)
    assert refusal.value.reason == reason, refusal.value.detail


@pytest.mark.parametrize(
    "change",
    [
        put("nodes", 0, "scale", value=[1e12, 1e12, 1e12]),
        put("nodes", 0, "scale", value=[1e-12, 1e-12, 1e-12]),
        put("images", value=[{"uri": "not_there.png"}]),
        put("animations", 0, "name", value="\ud800 half a pair"),
        put("extensionsUsed", value=["ANY_thing"]),
        put("meshes", 0, "primitives", 0, "extras", value={"x": None}),
        lambda root, buffer: root["meshes"][0]["primitives"][0].pop("indices"),
        lambda root, buffer: root["animations"].append({"name": "empty", "channels": [], "samplers": []}),
    ],
)
def test_what_is_odd_but_valid_passes(change: Change, tmp_path: Path) -> None:
    json.dumps(inspect_changed(change, tmp_path).animation_names, ensure_ascii=False).encode()


@pytest.mark.parametrize(
    ("limits", "setting"),
    [
        (Limits(max_vertices=2), "max_vertices"),
        (Limits(max_nodes=1), "max_nodes"),
        (Limits(max_depth=1), "max_depth"),
        (Limits(max_json_bytes=100), "max_json_bytes"),
    ],
)
def test_a_limit_names_the_setting_that_raises_it(limits: Limits, setting: str, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="too_complex") as refusal:
        inspect_changed(lambda root, buffer: None, tmp_path, limits)
    assert f"--limits.{setting}" in refusal.value.detail


def test_a_limit_below_one_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"limits\.max_depth"):
        Limits(max_depth=0)


@pytest.mark.parametrize(("width", "height", "count"), [(16385, 1, 1), (16384, 16384, 2)])
def test_textures_that_would_decode_to_too_much_are_refused(
    width: int, height: int, count: int, tmp_path: Path
) -> None:
    def change(root: dict[str, Any], buffer: bytearray) -> None:
        root["bufferViews"].append({"buffer": 0, "byteOffset": len(buffer), "byteLength": len(png(1, 1))})
        root["images"] = [{"bufferView": 4, "mimeType": "image/png"}] * count
        buffer += png(width, height)

    with pytest.raises(Refused, match="image_bomb"):
        inspect_changed(change, tmp_path)


def chain(depth: int) -> Change:
    def change(root: dict[str, Any], buffer: bytearray) -> None:
        first = len(root["nodes"])
        root["nodes"] += [{"children": [first + index + 1]} for index in range(depth)]
        root["nodes"][-1]["children"] = [0]

    return change


def test_a_deep_chain_is_walked_without_recursion(tmp_path: Path) -> None:
    assert inspect_changed(chain(20_000), tmp_path, Limits(max_depth=30_000)).num_nodes == 20_002
    with pytest.raises(Refused, match="too_complex: it has 3002 levels"):
        inspect_changed(chain(3000), tmp_path)
    assert inspect_changed(chain(700), tmp_path).num_nodes == 702


def test_a_loop_apart_from_the_scene_is_found(tmp_path: Path) -> None:
    def change(root: dict[str, Any], buffer: bytearray) -> None:
        root["nodes"] += [{"children": [3]}, {"children": [2]}]

    with pytest.raises(Refused, match="2 nodes hang in a loop"):
        inspect_changed(change, tmp_path)


def test_interleaved_and_sparse_numbers_are_scanned(tmp_path: Path) -> None:
    def interleave(root: dict[str, Any], buffer: bytearray) -> None:
        root["bufferViews"].append({"buffer": 0, "byteOffset": len(buffer), "byteLength": 68, "byteStride": 28})
        root["accessors"][POSITION] = {"bufferView": 4, "componentType": 5126, "count": 3, "type": "VEC3"}
        between = np.full((3, 7), NAN, "<f4")
        between[:, :3] = [[0, 0, 0], [1, 0, 0], [0, 1, 0]]
        buffer += between.tobytes()[:68]

    assert inspect_changed(interleave, tmp_path).num_vertices == 3

    def sparse(value: float, place: int) -> Change:
        def change(root: dict[str, Any], buffer: bytearray) -> None:
            start = len(buffer)
            buffer += struct.pack("<Hxx3f", place, value, 0, 0)
            root["bufferViews"] += [
                {"buffer": 0, "byteOffset": start, "byteLength": 2},
                {"buffer": 0, "byteOffset": start + 4, "byteLength": 12},
            ]
            root["accessors"][POSITION]["sparse"] = {
                "count": 1,
                "indices": {"bufferView": 4, "componentType": 5123},
                "values": {"bufferView": 5},
            }

        return change

    assert inspect_changed(sparse(5.0, 2), tmp_path).num_vertices == 3
    with pytest.raises(Refused, match="non_finite"):
        inspect_changed(sparse(NAN, 2), tmp_path)
    with pytest.raises(Refused, match="malformed"):
        inspect_changed(sparse(5.0, 3), tmp_path)


def test_more_blocks_than_one_are_scanned(tmp_path: Path) -> None:
    def change(root: dict[str, Any], buffer: bytearray) -> None:
        count = 400_000  # 4.8 MB: two blocks
        positions = np.zeros((count, 3), "<f4")
        positions[-1, 2] = NAN
        root["bufferViews"].append({"buffer": 0, "byteOffset": len(buffer), "byteLength": positions.nbytes})
        root["accessors"][POSITION] = {"bufferView": 4, "componentType": 5126, "count": count, "type": "VEC3"}
        buffer += positions.tobytes()

    with pytest.raises(Refused, match="non_finite"):
        inspect_changed(change, tmp_path)


def test_a_duration_reaches_from_the_first_key_to_the_last(tmp_path: Path) -> None:
    assert inspect_changed(number(TIME, 0, 1.0), tmp_path).durations_s == (0.5,)


def test_an_accessor_without_data_may_not_ask_for_the_machines_memory(tmp_path: Path) -> None:
    def change(root: dict[str, Any], buffer: bytearray) -> None:
        root["accessors"].append({"componentType": 5126, "count": 2**40, "type": "VEC3"})

    with pytest.raises(Refused, match="too_complex"):
        inspect_changed(change, tmp_path)


def test_instances_count_as_nodes(tmp_path: Path) -> None:
    def change(root: dict[str, Any], buffer: bytearray) -> None:
        root["accessors"].append({"componentType": 5126, "count": 1_000_000, "type": "VEC3"})
        root["nodes"][1]["extensions"] = {"EXT_mesh_gpu_instancing": {"attributes": {"TRANSLATION": 4}}}

    with pytest.raises(Refused, match="1000002 nodes and instances"):
        inspect_changed(change, tmp_path)


def test_many_accessors_over_the_same_bytes_are_refused_before_they_cost_time(tmp_path: Path) -> None:
    def change(root: dict[str, Any], buffer: bytearray) -> None:
        count = 1_000_000
        root["bufferViews"].append({"buffer": 0, "byteOffset": len(buffer), "byteLength": 12 * count})
        buffer += bytes(12 * count)
        again = {"bufferView": 4, "componentType": 5126, "count": count, "type": "VEC3"}
        root["accessors"] += [again] * 5000
        root["meshes"][0]["primitives"] = [{"attributes": {"POSITION": 4 + index}} for index in range(5000)]

    started = time.monotonic()
    with pytest.raises(Refused, match="over and over"):
        inspect_changed(change, tmp_path, Limits(max_vertices=10**12))
    assert time.monotonic() - started < 20
