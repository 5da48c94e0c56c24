"""Where an object stands: told by a clip, or found from silhouettes."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch

from fourd.gaussians import Gaussians
from fourd.objects.errors import ObjectError
from fourd.objects.glb import ReadObject, read_object, read_with_looks
from fourd.objects.loading import Placed, find_place, load_object, put, read_placed, write_placed
from fourd.objects.on_mesh import OnMeshSettings, gaussians_on_mesh
from fourd.objects.placement import Silhouettes, Similarity, axis_turns
from fourd.objects.sampling import spread_over
from fourd.objects.static import StaticObject
from pipeline.cameras import look_at_origin, pinhole, project
from tests.fourd.objects.files import chair
from tests.render.tiny_gltf import TinyGltf

SIZE_PX = 128


def seen(vertices: np.ndarray, faces: np.ndarray, azimuths_deg: tuple[float, ...] = (0, 90, 180, 270)) -> Silhouettes:
    """Silhouettes of a mesh: a great many of its points, drawn."""
    points = spread_over(vertices, faces, 120_000, seed=1).at(vertices, faces)
    intrinsics = pinhole(40.0, SIZE_PX)
    cameras = np.stack([look_at_origin(azimuth, 15.0, 3.2) for azimuth in azimuths_deg])
    alpha = np.zeros((len(cameras), SIZE_PX, SIZE_PX))
    for view, c2w in enumerate(cameras):
        x, y, _ = np.floor(project(points, c2w, intrinsics)).astype(int).T
        alpha[view, np.clip(y, 0, SIZE_PX - 1), np.clip(x, 0, SIZE_PX - 1)] = 1.0
    return Silhouettes(alpha=alpha, c2w=cameras, intrinsics=intrinsics)


def as_seen(path: Path, views: Silhouettes) -> StaticObject:
    """The object of a GLB where views show it."""
    loaded = load_object(path)
    found = put(loaded, find_place(path, loaded, views, wanted="seen").object_from_file)
    assert isinstance(found, ReadObject)
    return found.static


def farthest(found: StaticObject, vertices: np.ndarray) -> float:
    return float(np.linalg.norm(found.vertices - vertices, axis=1).max())


def test_there_are_24_turns_of_axes_and_none_comes_first() -> None:
    turns = axis_turns()
    assert len({turn.tobytes() for turn in turns}) == 24
    np.testing.assert_array_equal(turns[0], np.eye(3))
    for turn in turns:
        np.testing.assert_allclose(turn @ turn.T, np.eye(3))
        assert np.linalg.det(turn) == pytest.approx(1.0)


def test_one_after_the_other_is_both() -> None:
    rng = np.random.default_rng(0)
    first = Similarity(scale=2.0, turn=axis_turns()[7], offset=rng.random(3))
    second = Similarity(scale=0.3, turn=axis_turns()[11], offset=rng.random(3))
    points = rng.random((5, 3))
    np.testing.assert_allclose(second.after(first)(points), second(first(points)))
    homogeneous = np.concatenate([points, np.ones((5, 1))], axis=1)
    np.testing.assert_allclose((homogeneous @ second.matrix.T)[:, :3], second(points))


def test_the_clip_says_where_its_asset_stands(tmp_path: Path) -> None:
    told = SimpleNamespace(clip_id="c", world_scale=0.5, world_centre=(1.0, 2.0, 3.0))
    placed = Similarity.of_clip(cast(Any, told))
    assert placed is not None
    static = read_object(chair(tmp_path / "a.glb"), object_from_world=placed)
    np.testing.assert_allclose(static.object_from_world.matrix, placed.matrix)
    np.testing.assert_allclose(placed.offset, [-0.5, -1.0, -1.5])
    nothing = SimpleNamespace(clip_id="c", world_scale=float("nan"), world_centre=(0, 0, 0))
    assert Similarity.of_clip(cast(Any, nothing)) is None


def test_there_and_back_is_nowhere() -> None:
    there = Similarity(scale=2.0, turn=axis_turns()[7], offset=np.array([1.0, 2.0, 3.0]))
    np.testing.assert_allclose(there.inverse().after(there).matrix, np.eye(4), atol=1e-12)
    np.testing.assert_allclose(Similarity.of_matrix(there.matrix).matrix, there.matrix)


@pytest.mark.parametrize(
    "matrix", [np.diag([1.0, 1, -1, 1]), np.diag([1.0, 2, 1, 1]), np.full((4, 4), np.nan), np.eye(3)]
)
def test_a_matrix_that_mirrors_or_stretches_is_no_similarity(matrix: np.ndarray) -> None:
    with pytest.raises(ValueError, match="no matrix"):
        Similarity.of_matrix(matrix)


@pytest.mark.parametrize("number", [0, 13, 22])
def test_turn_size_and_place_are_found_from_silhouettes(tmp_path: Path, number: int) -> None:
    static = read_object(chair(tmp_path / "a.glb"))
    moved = Similarity(scale=0.8, turn=axis_turns()[number], offset=np.array([0.1, -0.05, 0.08]))
    wanted = moved(static.vertices.astype(np.float64))
    found = as_seen(static.source, seen(wanted, static.faces))
    assert farthest(found, wanted) < 0.04


def test_a_turn_about_the_vertical_is_found_too(tmp_path: Path) -> None:
    static = read_object(chair(tmp_path / "a.glb"))
    angle = np.radians(30.0)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    wanted = Similarity(turn=turn, offset=np.zeros(3))(static.vertices.astype(np.float64))
    assert farthest(as_seen(static.source, seen(wanted, static.faces)), wanted) < 0.03


def test_the_way_from_the_file_turns_along(tmp_path: Path) -> None:
    static = read_object(chair(tmp_path / "a.glb"))
    moved = Similarity(scale=0.8, turn=axis_turns()[13], offset=np.array([0.1, -0.05, 0.08]))
    found = as_seen(static.source, seen(moved(static.vertices.astype(np.float64)), static.faces))
    corners = np.array([[x, y, z, 1.0] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)])
    for part in found.primitives:
        by_matrix = (corners @ part.object_from_primitive.T)[:, :3]
        np.testing.assert_allclose(by_matrix, found.vertices[part.vertices], atol=1e-5)


def test_what_looks_alike_turned_round_is_left_as_it_stands(tmp_path: Path) -> None:
    tiny = TinyGltf()
    tiny.node(mesh=tiny.cube())
    static = read_object(tiny.save(tmp_path / "a.glb"))
    found = as_seen(static.source, seen(static.vertices.astype(np.float64), static.faces))
    assert farthest(found, static.vertices) < 0.03


def test_one_view_is_enough_for_an_object_that_stands_right(tmp_path: Path) -> None:
    static = read_object(chair(tmp_path / "a.glb"))
    found = as_seen(static.source, seen(static.vertices.astype(np.float64), static.faces, (20.0,)))
    assert farthest(found, static.vertices) < 0.05


def test_views_of_something_else_are_refused(tmp_path: Path) -> None:
    static = read_object(chair(tmp_path / "a.glb"))
    views = seen(static.vertices.astype(np.float64), static.faces)
    stripes = np.zeros_like(views.alpha)
    stripes[:, ::16] = 1.0
    with pytest.raises(ObjectError, match="do not show this object") as caught:
        as_seen(static.source, dataclasses.replace(views, alpha=stripes))
    assert caught.value.reason == "mismatch"


def test_an_empty_view_is_refused() -> None:
    with pytest.raises(ValueError, match="shows nothing"):
        Silhouettes(alpha=np.zeros((1, 8, 8)), c2w=np.eye(4)[None], intrinsics=(8, 8, 4, 4))


def test_gaussians_are_brought_to_their_views_whatever_way_is_up(tmp_path: Path) -> None:
    """A .ply as fitted scenes have it: y down, somewhere, with strays."""
    read = read_with_looks(chair(tmp_path / "a.glb"))
    made = gaussians_on_mesh(read, OnMeshSettings(num_points=20_000, on_vertices=False)).gaussians
    away = Similarity(scale=3.0, turn=axis_turns()[17], offset=np.array([4.0, -2.0, 9.0]))
    elsewhere = made.transformed(torch.as_tensor(away.matrix, dtype=torch.float32))
    elsewhere.means[::2000] += 100.0
    static, path = read.static, tmp_path / "a.ply"
    placed = find_place(path, elsewhere, seen(static.vertices.astype(np.float64), static.faces))
    back = put(elsewhere, placed.object_from_file)
    assert isinstance(back, Gaussians)
    solid = np.ones(len(back), dtype=bool)
    solid[::2000] = False
    apart = np.linalg.norm((back.means - made.means).numpy()[solid], axis=1)
    assert apart.max() < 0.05
    np.testing.assert_allclose(
        placed.object_from_file(elsewhere.means.numpy()[solid]), back.means.numpy()[solid], atol=1e-4
    )


def test_what_the_clip_says_is_taken_if_silhouettes_agree(tmp_path: Path) -> None:
    path = chair(tmp_path / "a.glb")
    loaded = read_with_looks(path)
    views = seen(loaded.static.vertices.astype(np.float64), loaded.static.faces)
    told = loaded.static.object_from_world
    np.testing.assert_array_equal(find_place(path, loaded, views, told=told).matrix, told.matrix)
    wrong = Similarity(turn=axis_turns()[13], offset=np.zeros(3)).after(told)
    found = find_place(path, loaded, views, told=wrong)
    assert (found.how, find_place(path, loaded, views, told=wrong, wanted="clip").how) == ("seen", "clip")
    assert farthest(loaded.put(found.object_from_file).static, loaded.static.vertices) < 0.04
    with pytest.raises(ObjectError, match="--placement seen") as caught:
        find_place(path, loaded, views, wanted="clip")
    assert caught.value.reason == "mismatch"


def test_a_record_is_of_one_clip_and_one_file(tmp_path: Path) -> None:
    record = tmp_path / "placement.json"
    assert read_placed(record, clip_id="c", sha256="a") is None
    there = Similarity(scale=2.0, turn=axis_turns()[7], offset=np.array([1.0, 2.0, 3.0]))
    write_placed(Placed(matrix=there.matrix, how="seen", iou=0.9), record, clip_id="c", sha256="a")
    back = read_placed(record, clip_id="c", sha256="a")
    assert back is not None
    np.testing.assert_array_equal(back.matrix, there.matrix)
    assert read_placed(record, clip_id="d", sha256="a") is None
    assert read_placed(record, clip_id="c", sha256="b") is None


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", "[" * 20_000, '{"clip_id": "c", "object_sha256": "a", "how": "guessed"}', "NaN"]
)
def test_a_damaged_record_is_named(tmp_path: Path, content: str) -> None:
    record = tmp_path / "placement.json"
    record.write_text(content)
    with pytest.raises(ObjectError, match="delete it") as caught:
        read_placed(record, clip_id="c", sha256="a")
    assert caught.value.reason == "malformed"
