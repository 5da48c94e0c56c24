"""GLBs to static objects: geometry, colours, the way back, and files that want to do harm."""

import json
import math
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fourd.gltf import read_glb
from fourd.objects.appearance import to_srgb
from fourd.objects.errors import ObjectError
from fourd.objects.glb import read_object, read_with_looks
from fourd.objects.placement import Similarity
from tests.fourd.objects.files import CORNERS, UV, chair, textured_square
from tests.render.tiny_gltf import CUBE, TinyGltf, png

AS_IT_IS = Similarity(turn=np.eye(3), offset=np.zeros(3))


def test_each_vertex_of_each_primitive_finds_its_way_to_the_object(tmp_path: Path) -> None:
    static = read_object(chair(tmp_path / "chair.glb"))
    gltf = read_glb(static.source)
    assert [gltf.document["nodes"][part.node]["name"] for part in static.primitives] == ["seat", "back", "arm", "leg"]
    for part in static.primitives:
        entry = gltf.document["meshes"][part.mesh]["primitives"][part.primitive]
        local = gltf.array(entry["attributes"]["POSITION"])
        pose = part.object_from_primitive
        np.testing.assert_allclose(local @ pose[:3, :3].T + pose[:3, 3], static.vertices[part.vertices], atol=2e-6)
    assert len(static.faces) == 4 * 12


def test_it_lies_in_the_unit_sphere_with_z_up_and_says_how_it_came_there(tmp_path: Path) -> None:
    static = read_object(chair(tmp_path / "chair.glb"))
    assert np.linalg.norm(static.vertices, axis=1).max() == pytest.approx(1.0, abs=1e-5)
    np.testing.assert_allclose(static.vertices.min(axis=0), -static.vertices.max(axis=0), atol=1e-5)
    back = static.vertices[static.primitives[1].vertices]
    assert back[:, 2].max() > 0.5  # upwards is z
    assert back[:, 1].min() > 0.2  # and -z in the file, away from the viewer, is +y
    world = read_object(static.source, object_from_world=AS_IT_IS)
    np.testing.assert_allclose(static.vertices, static.object_from_world(world.vertices), atol=1e-5)


def test_equal_positions_are_one_vertex_over_all_materials(tmp_path: Path) -> None:
    tiny = TinyGltf()
    sides = {
        side: tiny.material((number / 6, 0, 0)) for number, side in enumerate(("+x", "-x", "+y", "-y", "+z", "-z"))
    }
    points = CUBE[[0, 1, 2, 3, 4, 5, 6, 7]]
    tiny.node(mesh=tiny.cube(sides, points))
    static = read_object(tiny.save(tmp_path / "a.glb"))
    assert len(static.primitives) == 6
    assert len(static.vertices) == 8
    assert len(np.unique(static.faces)) == 8


def test_a_mirrored_node_keeps_its_outside_outside(tmp_path: Path) -> None:
    def volume(scale: list[float]) -> float:
        tiny = TinyGltf()
        tiny.node(mesh=tiny.cube(), scale=scale)
        static = read_object(tiny.save(tmp_path / "a.glb"), object_from_world=AS_IT_IS)
        return float(np.linalg.det(static.vertices[static.faces].astype(np.float64)).sum() / 6)

    assert volume([1, 1, 1]) == pytest.approx(1.0)
    assert volume([-2, 1, 1]) == pytest.approx(2.0)


@pytest.mark.parametrize(("mode", "corners"), [(5, [0, 1, 3, 2]), (6, [0, 1, 2, 3])])
def test_strips_and_fans_are_triangles(tmp_path: Path, mode: int, corners: list[int]) -> None:
    tiny = TinyGltf()
    primitive = {"attributes": {"POSITION": tiny.accessor(CORNERS, "VEC3")}, "mode": mode}
    tiny.document["meshes"].append({"primitives": [primitive | {"indices": tiny.accessor(corners, "SCALAR")}]})
    tiny.node(mesh=0)
    static = read_object(tiny.save(tmp_path / "a.glb"), object_from_world=AS_IT_IS)
    sides = static.vertices[static.faces].astype(np.float64)
    across = np.cross(sides[:, 1] - sides[:, 0], sides[:, 2] - sides[:, 0])
    np.testing.assert_allclose(across, [[0, -1, 0]] * 2, atol=1e-6)  # both look at the viewer


def test_sparse_positions_are_read(tmp_path: Path) -> None:
    tiny = TinyGltf()
    tiny.node(mesh=tiny.cube())
    where, what = tiny.view(np.array([7], np.uint16).tobytes()), tiny.view(np.array([5, 0, 0], np.float32).tobytes())
    tiny.document["accessors"][0]["sparse"] = {
        "count": 1, "indices": {"bufferView": where, "componentType": 5123}, "values": {"bufferView": what},
    }  # fmt: skip
    static = read_object(tiny.save(tmp_path / "a.glb"), object_from_world=AS_IT_IS)
    assert static.vertices[:, 0].max() == 5.0


def colours_at(path: Path, uv: np.ndarray) -> np.ndarray:
    """sRGB of a square at places (x to the right, y upwards, 0..1)."""
    read = read_with_looks(path, object_from_world=AS_IT_IS)
    x, y = uv.T
    below = x >= y
    weights = np.where(below[:, None], np.stack([1 - x, x - y, y], 1), np.stack([1 - y, x, y - x], 1))
    return read.rgba_at(np.where(below, 0, 1), weights)


def test_texture_factor_and_vertex_colours_multiply_as_light(tmp_path: Path) -> None:
    half = np.full((4, 3), 0.5)
    tiny = textured_square(np.full((2, 2, 3), 188), factor=(0.5, 1.0, 0.25, 1.0), colors=half)
    static = read_object(tiny.save(tmp_path / "a.glb"))
    light = ((188 / 255 + 0.055) / 1.055) ** 2.4
    expected = [1.055 * (light * part) ** (1 / 2.4) - 0.055 for part in (0.25, 0.5, 0.125)]
    np.testing.assert_allclose(static.colors, [expected] * 4, atol=1e-5)


def test_a_picture_stands_upright_and_is_read_between_vertices(tmp_path: Path) -> None:
    pixels = [[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 255, 255]]]
    path = textured_square(pixels, sampler={"magFilter": 9728}).save(tmp_path / "a.glb")
    seen = colours_at(path, np.array([[0.2, 0.8], [0.8, 0.8], [0.2, 0.3], [0.8, 0.3]]))
    np.testing.assert_allclose(seen[:, :3], [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1]], atol=1e-6)


def test_neighbouring_pixels_are_mixed_as_light(tmp_path: Path) -> None:
    clamped = {"wrapS": 33071, "wrapT": 33071}
    path = textured_square([[[0, 0, 0], [255, 255, 255]]], sampler=clamped).save(tmp_path / "a.glb")
    seen = colours_at(path, np.array([[0.1, 0.5], [0.5, 0.5], [0.9, 0.5]]))
    np.testing.assert_allclose(seen[:, 0], [0.0, to_srgb(np.array(0.5)), 1.0], atol=1e-6)


@pytest.mark.parametrize(
    ("mode", "expected"),
    [(10497, [0, 1, 0, 1, 0, 1]), (33071, [0, 0, 0, 1, 1, 1]), (33648, [1, 0, 0, 1, 1, 0])],
    ids=["repeat", "clamp", "mirror"],
)
def test_beyond_the_edge_of_a_picture(tmp_path: Path, mode: int, expected: list[int]) -> None:
    """Three times the picture from left to right, beginning one to the left of it."""
    wide = UV * [3, 1] - [1, 0]
    pixels, sampler = [[[0, 0, 0], [255, 255, 255]]], {"wrapS": mode, "wrapT": mode, "magFilter": 9728}
    path = textured_square(pixels, uv=wide, sampler=sampler).save(tmp_path / "a.glb")
    seen = colours_at(path, np.stack([(np.arange(6) + 0.5) / 6, np.full(6, 0.5)], axis=1))
    np.testing.assert_allclose(seen[:, 0], expected, atol=1e-6)


def test_texture_coordinates_are_moved_as_the_extension_says(tmp_path: Path) -> None:
    change = {"offset": [0.25, 0.5], "rotation": 0.7, "scale": [0.5, 1.5]}
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (16, 16, 3))
    moved = textured_square(pixels, change=change).save(tmp_path / "moved.glb")
    turn = np.array([[math.cos(0.7), math.sin(0.7), 0.25], [-math.sin(0.7), math.cos(0.7), 0.5]])
    by_hand = np.concatenate([UV * [0.5, 1.5], np.ones((4, 1))], axis=1) @ turn.T
    plain = textured_square(pixels, uv=by_hand.astype(np.float32)).save(tmp_path / "plain.glb")
    places = rng.random((50, 2))
    np.testing.assert_allclose(colours_at(moved, places), colours_at(plain, places), atol=1e-3)
    assert np.ptp(colours_at(moved, places)[:, 0]) > 0.3


def test_what_a_picture_cuts_out_hides_nothing(tmp_path: Path) -> None:
    pixels = [[[255, 0, 0, 255], [255, 0, 0, 0]]]
    path = textured_square(pixels, sampler={"magFilter": 9728}, alphaMode="MASK").save(tmp_path / "a.glb")
    assert colours_at(path, np.array([[0.25, 0.2], [0.75, 0.2]]))[:, 3].tolist() == [1.0, 0.0]


def harm(path: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """A textured square whose JSON somebody changed."""
    tiny = textured_square(np.full((2, 2, 3), 100), colors=np.ones((4, 3)))
    tiny.node(name="parent")
    change(tiny.document)
    return tiny.save(path)


def put(*keys: Any) -> Callable[[dict[str, Any]], None]:
    """Set a value deep in a document: the last of the keys."""

    def change(document: dict[str, Any]) -> None:
        *way, last, value = keys
        entry: Any = document
        for key in way:
            entry = entry[key]
        entry[last] = value

    return change


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (put("nodes", 0, "children", [0]), "malformed"),
        (put("nodes", 1, "children", [0]), "malformed"),
        (put("nodes", 0, "children", [7]), "malformed"),
        (put("nodes", 0, "children", ["a"]), "malformed"),
        (put("nodes", 0, "scale", [1e400, 1, 1]), "malformed"),
        (put("nodes", 0, "rotation", [0, 0, 0, 0]), "malformed"),
        (put("nodes", 0, "matrix", [1, 2, 3]), "malformed"),
        (put("nodes", 0, "mesh", 3), "malformed"),
        (put("nodes", 0, "skin", 0), "unsupported"),
        (put("scene", 4), "malformed"),
        (put("meshes", 0, "primitives", 0, "material", -1), "malformed"),
        (put("meshes", 0, "primitives", 0, "material", 9), "malformed"),
        (put("meshes", 0, "primitives", 0, "mode", 9), "malformed"),
        (put("meshes", 0, "primitives", 0, "attributes", {}), "malformed"),
        (put("meshes", 0, "primitives", 0, "attributes", "TEXCOORD_0", 0), None),
        (put("meshes", 0, "primitives", 0, "attributes", "POSITION", 1), "malformed"),
        (put("meshes", 0, "primitives", 0, "indices", 0), "malformed"),
        (put("meshes", 0, "primitives", 0, "mode", 1), "empty_mesh"),
        (put("meshes", 0, "primitives", []), "empty_mesh"),
        (put("accessors", 0, "count", 3_000_000_000), "too_many_vertices"),
        (put("accessors", 0, "count", -1), "malformed"),
        (put("accessors", 0, "count", 4.5), "malformed"),
        (put("accessors", 0, "count", 3), "malformed"),
        (put("accessors", 0, "byteOffset", 1 << 40), "malformed"),
        (put("accessors", 0, "bufferView", 99), "malformed"),
        (put("accessors", 3, "count", 60_000_000), "too_many_vertices"),
        (put("bufferViews", 1, "byteStride", 0), "malformed"),
        (put("bufferViews", 0, "byteLength", 1 << 40), "malformed"),
        (put("bufferViews", 0, "byteOffset", 4), "malformed"),
        (put("images", 0, {"uri": "/etc/passwd"}), "unsupported"),
        (put("textures", 0, "source", 5), "malformed"),
        (put("materials", 0, "pbrMetallicRoughness", "baseColorFactor", [1, 2]), "malformed"),
        (put("extensionsRequired", ["KHR_draco_mesh_compression"]), "unsupported"),
    ],
)
def test_a_file_that_breaks_the_rules_is_refused_by_name(
    tmp_path: Path, change: Callable[[dict[str, Any]], None], reason: str | None
) -> None:
    path = harm(tmp_path / "harm.glb", change)
    if reason is None:
        read_object(path)
        return
    with pytest.raises(ObjectError, match=r"harm\.glb") as caught:
        read_object(path)
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    "place",
    [
        ("scene",),
        ("scenes", 0, "nodes", 0),
        ("nodes", 0, "mesh"),
        ("meshes", 0, "primitives", 0, "attributes", "POSITION"),
        ("meshes", 0, "primitives", 0, "indices"),
        ("accessors", 0, "bufferView"),
        ("materials", 0, "pbrMetallicRoughness", "baseColorTexture", "index"),
        ("textures", 0, "source"),
        ("textures", 0, "sampler"),
        ("images", 0, "bufferView"),
    ],
    ids=str,
)
@pytest.mark.parametrize("index", [-1, True])
def test_an_index_counts_from_the_beginning(tmp_path: Path, place: tuple[str | int, ...], index: int) -> None:
    """Python would take -1 for the last entry, and True for the second."""
    tiny = textured_square(np.full((2, 2, 3), 100), sampler={})
    for name in ("scenes", "nodes", "meshes", "bufferViews", "accessors", "textures", "samplers", "images"):
        tiny.document[name] = [*tiny.document[name], *tiny.document[name][-1:]]
    path = tiny.save(tmp_path / "a.glb")
    read_object(path)
    put(*place, index)(tiny.document)
    with pytest.raises(ObjectError) as caught:
        read_object(tiny.save(path))
    assert caught.value.reason == "malformed"


def test_each_of_several_primitives_has_its_own_vertices(tmp_path: Path) -> None:
    """A square after a cube: unlike in number, so that none can stand for the other."""
    tiny = TinyGltf()
    tiny.node(mesh=tiny.cube())
    tiny.document["meshes"].append({"primitives": [{"attributes": {"POSITION": tiny.accessor(CORNERS, "VEC3")}}]})
    tiny.document["meshes"][-1]["primitives"][0]["indices"] = tiny.accessor([0, 1, 2, 0, 2, 3], "SCALAR")
    tiny.node(mesh=1, translation=[0, 3, 0])
    static = read_object(tiny.save(tmp_path / "a.glb"))
    for part, points in zip(static.primitives, (CUBE, CORNERS), strict=True):
        placed = np.asarray(points) @ part.object_from_primitive[:3, :3].T + part.object_from_primitive[:3, 3]
        np.testing.assert_allclose(static.vertices[part.vertices], placed, atol=1e-6)


def test_corners_beyond_the_vertices_are_refused(tmp_path: Path) -> None:
    tiny = TinyGltf()
    primitive = {"attributes": {"POSITION": tiny.accessor(CORNERS, "VEC3")}}
    tiny.document["meshes"].append({"primitives": [primitive | {"indices": tiny.accessor([0, 1, 4], "SCALAR")}]})
    tiny.node(mesh=0)
    with pytest.raises(ObjectError, match="not there"):
        read_object(tiny.save(tmp_path / "a.glb"))


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e30])
def test_vertices_that_are_no_numbers_are_refused(tmp_path: Path, value: float) -> None:
    points = CUBE.copy()
    points[3, 1] = value
    tiny = TinyGltf()
    tiny.node(mesh=tiny.cube(None, points))
    with pytest.raises(ObjectError) as caught:
        read_object(tiny.save(tmp_path / "a.glb"))
    assert caught.value.reason == "non_finite"


def test_the_limit_on_vertices_is_a_setting(tmp_path: Path) -> None:
    path = chair(tmp_path / "a.glb")
    assert len(read_object(path, max_vertices=32).vertices) == 32
    with pytest.raises(ObjectError, match="32 vertices") as caught:
        read_object(path, max_vertices=31)
    assert caught.value.reason == "too_many_vertices"


def test_a_long_chain_of_nodes_is_refused(tmp_path: Path) -> None:
    tiny = TinyGltf()
    above = tiny.node()
    for _ in range(2000):
        above = tiny.node(above)
    tiny.node(above, mesh=tiny.cube())
    with pytest.raises(ObjectError):
        read_object(tiny.save(tmp_path / "a.glb"))


def test_a_picture_that_would_fill_the_memory_is_refused(tmp_path: Path) -> None:
    tiny = textured_square(np.zeros((2, 2, 3)))
    tiny.document["images"][0]["bufferView"] = tiny.view(png(60_000, 60_000))
    with pytest.raises(ObjectError) as caught:
        read_object(tiny.save(tmp_path / "a.glb"))
    assert caught.value.reason in ("too_large", "malformed")


@pytest.mark.parametrize("content", [b"", b"glTF", b"PK\x03\x04" * 20, struct.pack("<4sII", b"glTF", 2, 4000)])
def test_what_is_no_glb_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.glb"
    path.write_bytes(content)
    with pytest.raises(ObjectError) as caught:
        read_object(path)
    assert caught.value.reason == "malformed"


@given(data=st.data())
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_the_json_says_the_answer_is_an_object_or_a_refusal(tmp_path: Path, data: st.DataObject) -> None:
    """One value anywhere in the document becomes another."""
    tiny = textured_square(np.full((2, 2, 3), 100), colors=np.ones((4, 3)), change={"scale": [2, 2]}, sampler={})
    document = json.loads(json.dumps(tiny.document))
    places = [(owner, key) for owner, key in _places(document) if key != "version"]
    owner, key = data.draw(st.sampled_from(places))
    owner[key] = data.draw(
        st.sampled_from(
            [None, -1, 0, 1, 2, 99, 1 << 70, 1e300, True, "a", [], {}, [1], [[]], {"a": 1}, [0, 0, 0], [1] * 16]
        )
    )
    tiny.document = document
    try:
        static = read_object(tiny.save(tmp_path / "a.glb"))
    except ObjectError:
        return
    assert np.isfinite(static.vertices).all()
    assert np.isfinite(static.colors).all()


def _places(value: Any) -> list[tuple[Any, Any]]:
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for key, inner in pairs for place in [(value, key), *_places(inner)]]
