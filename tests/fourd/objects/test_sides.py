"""Which faces cameras see through from behind."""

from pathlib import Path

import numpy as np
import pytest

from fourd.objects.glb import read_with_looks
from fourd.objects.on_mesh import OnMeshSettings, gaussians_on_mesh
from fourd.objects.sides import hides_its_back
from tests.fourd.objects.files import textured_square

CUBE = np.array([[x, y, z] for x in (0.0, 1.0) for y in (0.0, 1.0) for z in (0.0, 1.0)])
OUTWARDS = np.array(
    [
        [0, 1, 3], [0, 3, 2], [4, 6, 7], [4, 7, 5], [0, 4, 5], [0, 5, 1],
        [2, 3, 7], [2, 7, 6], [0, 2, 6], [0, 6, 4], [1, 5, 7], [1, 7, 3],
    ]
)  # fmt: skip
FIN = np.array([[3.0, 0, 0], [4, 0, 0], [4, 0, 1]])


def hidden(vertices: np.ndarray, faces: np.ndarray, *, single: bool = True) -> list[bool]:
    return hides_its_back(vertices, faces, np.full(len(faces), single)).tolist()


def test_no_camera_sees_the_back_of_a_closed_surface() -> None:
    assert not any(hidden(CUBE, OUTWARDS))


def test_a_shell_that_is_turned_inside_out_is_seen_through() -> None:
    assert all(hidden(CUBE, OUTWARDS[:, ::-1]))


def test_an_open_box_is_seen_through_but_not_the_closed_one_beside_it() -> None:
    vertices = np.concatenate([CUBE, CUBE + np.array([5.0, 0, 0]), FIN])
    faces = np.concatenate([OUTWARDS, OUTWARDS[:-1] + 8, [[16, 17, 18]]])
    assert hidden(vertices, faces) == [False] * 12 + [True] * 11 + [True]
    only_fin = np.arange(len(faces)) == 23
    assert hides_its_back(vertices, faces, only_fin).tolist() == only_fin.tolist()


def test_a_fin_that_shares_an_edge_with_a_closed_body_leaves_it_open() -> None:
    vertices = np.concatenate([CUBE, [[2.0, 2.0, 2.0]]])
    assert all(hidden(vertices, np.concatenate([OUTWARDS, [[6, 7, 8]]])))


def test_double_sided_materials_hide_nothing() -> None:
    assert not any(hidden(FIN, np.array([[0, 1, 2]]), single=False))


@pytest.mark.parametrize("double", [True, False])
def test_gaussians_know_it_from_the_file(double: bool, tmp_path: Path) -> None:
    square = textured_square(np.full((2, 2, 3), 128), doubleSided=double).save(tmp_path / "a.glb")
    made = gaussians_on_mesh(read_with_looks(square), OnMeshSettings(num_points=20))
    # Those on the four vertices are seen from everywhere.
    assert made.hides_its_back.tolist() == [False] * 4 + [not double] * 20
    round_ones = gaussians_on_mesh(read_with_looks(square), OnMeshSettings(num_points=20, flat=False))
    assert not round_ones.hides_its_back.any()
