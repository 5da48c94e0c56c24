"""Gaussians on a mesh: where they are, what colour they have, and that they follow it."""

from pathlib import Path

import numpy as np
import pytest

from fourd.objects.glb import read_with_looks
from fourd.objects.on_mesh import GaussiansOnMesh, OnMeshSettings, gaussians_on_mesh, turns_to
from fourd.rendering.spherical_harmonics import C0
from tests.fourd.objects.files import chair, textured_square


def colours(made: GaussiansOnMesh) -> np.ndarray:
    return np.asarray(made.gaussians.sh[:, 0] * C0 + 0.5)


def test_every_vertex_and_as_many_points_as_asked_for(tmp_path: Path) -> None:
    read = read_with_looks(chair(tmp_path / "a.glb"))
    made = gaussians_on_mesh(read, OnMeshSettings(num_points=500))
    assert len(made.gaussians) == 32 + 500
    np.testing.assert_allclose(made.gaussians.means[:32], read.static.vertices, atol=1e-6)
    np.testing.assert_allclose(made.weights.sum(axis=1), 1.0)
    assert len(gaussians_on_mesh(read, OnMeshSettings(num_points=500, on_vertices=False)).gaussians) == 500


def test_the_same_seed_gives_the_same_points(tmp_path: Path) -> None:
    read = read_with_looks(chair(tmp_path / "a.glb"))
    first, again, other = (gaussians_on_mesh(read, OnMeshSettings(num_points=50, seed=seed)) for seed in (1, 1, 2))
    assert (first.gaussians.means == again.gaussians.means).all()
    assert not (first.gaussians.means == other.gaussians.means).all()


def test_points_are_spread_by_area(tmp_path: Path) -> None:
    read = read_with_looks(chair(tmp_path / "a.glb"))
    made = gaussians_on_mesh(read, OnMeshSettings(num_points=2000, on_vertices=False))
    corners = read.static.vertices[read.static.faces].astype(np.float64)
    areas = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    share = areas[:12].sum() / areas.sum()  # the seat's
    on_seat = np.isin(made.vertices[:, 0], read.static.primitives[0].vertices).mean()
    assert on_seat == pytest.approx(share, abs=0.01)


def test_they_follow_the_mesh(tmp_path: Path) -> None:
    read = read_with_looks(chair(tmp_path / "a.glb"))
    made = gaussians_on_mesh(read, OnMeshSettings(num_points=200))
    vertices = read.static.vertices.astype(np.float64)
    bend = np.array([[1.0, 0.2, 0.0], [0.0, 1.0, 0.0], [0.3, 0.0, 2.0]])
    tracks = np.stack([vertices, vertices @ bend.T + [1, 2, 3]])
    moved = np.einsum("nc,tnci->tni", made.weights, tracks[:, made.vertices])
    means = np.asarray(made.gaussians.means, dtype=np.float64)
    np.testing.assert_allclose(moved[0], means, atol=1e-6)
    np.testing.assert_allclose(moved[1], means @ bend.T + [1, 2, 3], atol=1e-5)


def test_colours_between_vertices_come_from_the_picture(tmp_path: Path) -> None:
    """The corners are all black; the picture's middle is red."""
    pixels = np.zeros((8, 8, 3))
    pixels[2:6, 2:6, 0] = 255
    read = read_with_looks(textured_square(pixels, sampler={"magFilter": 9728}).save(tmp_path / "a.glb"))
    made = gaussians_on_mesh(read, OnMeshSettings(num_points=4000, on_vertices=False))
    red = colours(made)[:, 0]
    assert ((red < 0.01) | (red > 0.99)).all()
    assert (red > 0.5).mean() == pytest.approx(0.25, abs=0.02)
    assert np.abs(np.asarray(made.gaussians.means)[red > 0.5]).max() < 0.5 * np.abs(read.static.vertices).max() + 0.01


def test_they_are_solid_but_for_what_is_cut_out(tmp_path: Path) -> None:
    pixels = np.full((4, 4, 4), 255)
    pixels[:, :2, 3] = 0
    tiny = textured_square(pixels, sampler={"magFilter": 9728}, alphaMode="MASK")
    made = gaussians_on_mesh(read_with_looks(tiny.save(tmp_path / "a.glb")), OnMeshSettings(on_vertices=False))
    opacity = np.asarray(made.gaussians.opacity_logits.sigmoid())
    left = np.asarray(made.gaussians.means)[:, 0] < 0
    assert opacity[~left].min() > 0.97
    assert opacity[left].max() < 0.02


def test_flat_ones_lie_on_the_surface_without_gaps(tmp_path: Path) -> None:
    read = read_with_looks(textured_square(np.zeros((2, 2, 3))).save(tmp_path / "a.glb"))
    made = gaussians_on_mesh(read, OnMeshSettings(num_points=400))
    w, x, y, z = np.asarray(made.gaussians.quats).T
    thin = np.stack([2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)], axis=1)
    np.testing.assert_allclose(thin, [[0, -1, 0]] * len(thin), atol=1e-5)
    scales = np.exp(np.asarray(made.gaussians.log_scales))
    assert (scales[:, 2] < 0.2 * scales[:, 0]).all()
    spacing = np.sqrt(2.0 / 400)  # a square of 2 x 1 in the unit sphere's units: both triangles
    assert scales[-1, 0] == pytest.approx(0.5 * spacing, rel=0.05)


def test_turns_bring_z_to_any_direction() -> None:
    directions = np.array([[0, 0, 1], [0, 0, -2], [1, 0, 0], [0.3, -0.4, -5], [0, 0, 0], [1e-9, 0, -1]])
    w, x, y, z = turns_to(directions).T
    turned = np.stack([2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)], axis=1)
    expected = directions / np.maximum(np.linalg.norm(directions, axis=1, keepdims=True), 1e-12)
    expected[4] = [0, 0, 1]
    np.testing.assert_allclose(turned, expected, atol=1e-6)


def test_settings_that_make_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="num_points"):
        OnMeshSettings(num_points=0, on_vertices=False)
