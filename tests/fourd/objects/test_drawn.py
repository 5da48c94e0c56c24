"""What a GLB draws: poses, scenes, attributes, and what is refused of them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fourd.gltf import read_glb
from fourd.objects import drawn
from fourd.objects.drawn import check_shows, check_size, drawn_primitives, node_poses
from fourd.objects.errors import ObjectError
from fourd.objects.glb import read_with_looks
from tests.fourd.objects.files import CORNERS, textured_square
from tests.render.tiny_gltf import TinyGltf

QUARTER_ABOUT_Y = [0.0, np.sqrt(0.5), 0.0, np.sqrt(0.5)]


def poses(tiny: TinyGltf, path: Path) -> dict[int, np.ndarray]:
    return node_poses(read_glb(tiny.save(path)))


def refused(tiny: TinyGltf, path: Path) -> ObjectError:
    with pytest.raises(ObjectError) as caught:
        drawn_primitives(read_glb(tiny.save(path)), 1000)
    assert str(path) in str(caught.value)
    return caught.value


def test_a_node_turns_sizes_and_shifts_within_its_parent(tmp_path: Path) -> None:
    tiny = TinyGltf()
    arm = tiny.node(translation=[1, 2, 3], rotation=QUARTER_ABOUT_Y, scale=[2, 3, 4])
    hand = tiny.node(arm, translation=[1, 0, 0], scale=[1, 1, 5])
    found = poses(tiny, tmp_path / "a.glb")
    # About y, x goes to -z and z to x.
    wanted = np.array([[0, 0, 4, 1], [0, 3, 0, 2], [-2, 0, 0, 3], [0, 0, 0, 1.0]])
    np.testing.assert_allclose(found[arm], wanted, atol=1e-12)
    inner = np.diag([1.0, 1, 5, 1])
    inner[0, 3] = 1.0
    np.testing.assert_allclose(found[hand], wanted @ inner, atol=1e-12)


def test_a_turn_about_a_slanted_axis_is_the_quaternions(tmp_path: Path) -> None:
    # A third of a turn about the diagonal takes x to y, y to z and z to x; quaternions need not be of length 1.
    tiny = TinyGltf()
    node = tiny.node(rotation=[2.0, 2.0, 2.0, 2.0])
    found = poses(tiny, tmp_path / "a.glb")[node]
    np.testing.assert_allclose(found[:3, :3], [[0, 0, 1], [1, 0, 0], [0, 1, 0]], atol=1e-12)
    tiny.document["nodes"][node]["rotation"] = [0.0, 0.0, 0.0, 0.0]
    assert "rotation is none" in str(refused(tiny, tmp_path / "a.glb"))


def test_a_matrix_stands_column_by_column(tmp_path: Path) -> None:
    tiny = TinyGltf()
    node = tiny.node(matrix=[1, 0, 0, 0, 0, 0, 1, 0, 0, -1, 0, 0, 7, 8, 9, 1])
    found = poses(tiny, tmp_path / "a.glb")[node]
    np.testing.assert_array_equal(found, [[1, 0, 0, 7], [0, 0, -1, 8], [0, 1, 0, 9], [0, 0, 0, 1]])


@pytest.mark.parametrize("fields", [{"translation": [1e30, 0, 0]}, {"scale": [1e30, 1, 1]}])
def test_a_pose_out_of_all_bounds_is_refused(tmp_path: Path, fields: dict[str, Any]) -> None:
    tiny = TinyGltf()
    tiny.node(mesh=tiny.cube(), **fields)
    assert "pose is not finite" in str(refused(tiny, tmp_path / "a.glb"))


def test_without_scenes_all_that_nobody_holds_is_drawn_once(tmp_path: Path) -> None:
    tiny = TinyGltf()
    cube = tiny.cube()
    parent = tiny.node(translation=[1, 0, 0])
    child = tiny.node(parent, mesh=cube)
    other = tiny.node(mesh=cube)
    tiny.document["nodes"].reverse()
    last = len(tiny.document["nodes"]) - 1
    parent, child, other = (last - number for number in (parent, child, other))
    tiny.document["nodes"][parent]["children"] = [child]
    del tiny.document["scenes"], tiny.document["scene"]
    gltf = read_glb(tiny.save(tmp_path / "a.glb"))
    assert sorted(node_poses(gltf)) == [0, 1, 2]
    assert [part.node for part in drawn_primitives(gltf, 1000)] == sorted([child, other])
    assert node_poses(gltf)[child][0, 3] == 1.0


def test_more_nodes_than_can_be_meant_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = TinyGltf()
    for _ in range(4):
        tiny.node(mesh=tiny.cube())
    monkeypatch.setattr(drawn, "MAX_NODES", 3)
    assert refused(tiny, tmp_path / "a.glb").reason == "too_large"


@pytest.mark.parametrize(
    "name", ["KHR_mesh_quantization", "KHR_texture_transform", "EXT_texture_webp", "KHR_materials_unlit",
             "KHR_materials_specular"],
)  # fmt: skip
def test_extensions_that_are_understood_may_be_required(tmp_path: Path, name: str) -> None:
    tiny = TinyGltf()
    tiny.node(mesh=tiny.cube())
    tiny.document["extensionsRequired"] = [name]
    assert len(drawn_primitives(read_glb(tiny.save(tmp_path / "a.glb")), 1000)) == 1


def test_colours_of_vertices_run_over_a_triangle(tmp_path: Path) -> None:
    colors = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1]], dtype=np.float32)
    tiny = textured_square([[[255, 255, 255]]], colors=colors)
    (part,) = read_with_looks(tiny.save(tmp_path / "a.glb")).drawn
    found = part.rgba_at(np.array([0, 0]), np.array([[0.5, 0.5, 0.0], [0.25, 0.25, 0.5]]))
    np.testing.assert_allclose(found, [[0.5, 0.5, 0, 1], [0.25, 0.25, 0.5, 1]], atol=1e-6)


@pytest.mark.parametrize(
    ("name", "values", "kind"),
    [
        ("TEXCOORD_0", np.zeros((3, 2)), "VEC2"),
        ("TEXCOORD_0", np.zeros(4), "SCALAR"),
        ("TEXCOORD_0", np.full((4, 2), np.nan), "VEC2"),
        ("COLOR_0", np.zeros((4, 2)), "VEC2"),
        ("COLOR_0", np.full((4, 3), np.inf), "VEC3"),
        ("POSITION", np.zeros((4, 2)), "VEC2"),
    ],
)
def test_attributes_that_do_not_fit_are_refused(tmp_path: Path, name: str, values: np.ndarray, kind: str) -> None:
    tiny = textured_square([[[255, 255, 255]]])
    attributes = tiny.document["meshes"][0]["primitives"][0]["attributes"]
    attributes[name] = tiny.accessor(values, kind)
    assert refused(tiny, tmp_path / "a.glb").reason == "malformed"


def test_the_second_set_of_coordinates_is_taken_if_the_texture_names_it(tmp_path: Path) -> None:
    tiny = textured_square([[[255, 0, 0], [0, 0, 255]]], uv=np.full((4, 2), 0.25))
    tiny.document["materials"][0]["pbrMetallicRoughness"]["baseColorTexture"]["texCoord"] = 1
    attributes = tiny.document["meshes"][0]["primitives"][0]["attributes"]
    attributes["TEXCOORD_1"] = tiny.accessor(np.full((4, 2), [0.75, 0.5]), "VEC2")
    (part,) = read_with_looks(tiny.save(tmp_path / "a.glb")).drawn
    np.testing.assert_allclose(part.rgba_of_vertices()[:, :3], np.tile([0.0, 0.0, 1.0], (4, 1)), atol=1e-6)


@pytest.mark.parametrize("where", ["node", "mesh"])
def test_morph_targets_in_use_are_refused_wherever_their_weights_stand(tmp_path: Path, where: str) -> None:
    tiny = TinyGltf()
    cube = tiny.cube()
    node = tiny.node(mesh=cube)
    (part,) = tiny.document["meshes"][cube]["primitives"]
    part["targets"] = [{"POSITION": part["attributes"]["POSITION"]}]
    holder = tiny.document["nodes"][node] if where == "node" else tiny.document["meshes"][cube]
    holder["weights"] = [0.0]
    assert drawn_primitives(read_glb(tiny.save(tmp_path / "a.glb")), 1000)
    holder["weights"] = [0.5]
    assert "morph targets" in str(refused(tiny, tmp_path / "a.glb"))


def test_too_many_triangles_are_refused_as_too_many_vertices_are(tmp_path: Path) -> None:
    tiny = TinyGltf()
    cube = tiny.cube()
    tiny.node(mesh=cube)
    tiny.document["accessors"][tiny.document["meshes"][cube]["primitives"][0]["indices"]]["count"] = 6001
    assert refused(tiny, tmp_path / "a.glb").reason == "too_many_vertices"


def test_corners_that_are_no_whole_numbers_are_refused(tmp_path: Path) -> None:
    tiny = TinyGltf()
    cube = tiny.cube()
    tiny.node(mesh=cube)
    tiny.document["meshes"][cube]["primitives"][0]["indices"] = tiny.accessor(np.zeros((3, 1)), "SCALAR")
    assert "names a vertex that is not there" in str(refused(tiny, tmp_path / "a.glb"))


def test_compression_is_told_even_if_it_is_not_required(tmp_path: Path) -> None:
    tiny = TinyGltf()
    cube = tiny.cube()
    tiny.node(mesh=cube)
    tiny.document["meshes"][cube]["primitives"][0]["extensions"] = {"KHR_draco_mesh_compression": {}}
    assert refused(tiny, tmp_path / "a.glb").reason == "unsupported"


def test_corners_that_make_no_triangle_are_left_out(tmp_path: Path) -> None:
    tiny = TinyGltf()
    cube = tiny.cube()
    tiny.node(mesh=cube)
    tiny.document["meshes"][cube]["primitives"][0]["indices"] = tiny.accessor([0, 1, 2, 3, 4], "SCALAR")
    (part,) = drawn_primitives(read_glb(tiny.save(tmp_path / "a.glb")), 1000)
    assert part.triangles.tolist() == [[0, 1, 2]]


def test_points_are_counted_by_place_and_only_if_there_are_many(tmp_path: Path) -> None:
    tiny = TinyGltf()
    points = np.concatenate([CORNERS, CORNERS, -0.0 * CORNERS[:1], CORNERS + 5])  # 4 places, the same, one of them, 4
    mesh = {"primitives": [{"attributes": {"POSITION": tiny.accessor(points, "VEC3")}}]}
    tiny.document["meshes"] += [mesh, mesh]  # each accessor counts once
    tiny.node(mesh=0)
    gltf = read_glb(tiny.save(tmp_path / "a.glb"))
    check_size(gltf, 8)
    with pytest.raises(ObjectError, match=r"8 vertices, the limit is 7; decimate") as caught:
        check_size(gltf, 7)
    assert caught.value.reason == "too_many_vertices"
    gltf.document["accessors"][0]["count"] = "many"
    check_size(gltf, 7)  # whoever reads it has words for that


def test_what_a_viewer_poses_by_itself_is_shown(tmp_path: Path) -> None:
    tiny = TinyGltf()
    cube = tiny.cube()
    tiny.node(mesh=cube, skin=0, weights=[1.0])
    check_shows(read_glb(tiny.save(tmp_path / "a.glb")))
    # A view in meshopt's form is unpacked by the page.
    position = tiny.document["meshes"][cube]["primitives"][0]["attributes"]["POSITION"]
    view = tiny.document["bufferViews"][tiny.document["accessors"][position]["bufferView"]]
    view |= {"extensions": {"EXT_meshopt_compression": {}}, "byteLength": 1 << 20}
    check_shows(read_glb(tiny.save(tmp_path / "a.glb")))


def test_what_breaks_the_rules_is_not_shown(tmp_path: Path) -> None:
    tiny = TinyGltf()
    node = tiny.node(mesh=tiny.cube())
    tiny.document["nodes"][node]["mesh"] = 7
    with pytest.raises(ObjectError, match="breaks the rules of glTF") as caught:
        check_shows(read_glb(tiny.save(tmp_path / "a.glb")))
    assert caught.value.reason == "malformed"
