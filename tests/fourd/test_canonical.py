import numpy as np
import pytest
import torch

from fourd.canonical import MAX_VERTICES, check_mesh, of_gaussians, of_mesh
from fourd.gaussians import Gaussians
from fourd.motion.rotations import matrix_of_quaternion
from fourd.objects.errors import ObjectError
from tests.fourd.bending_bar import bar

VERTICES, FACES, COLORS = bar()


def test_gaussians_lie_on_the_surface_flat_and_coloured_as_it_is() -> None:
    made = of_mesh("bar", VERTICES, FACES, num_gaussians=400, colors=COLORS)
    corners = torch.as_tensor(VERTICES, dtype=torch.float32)[made.binding.points]
    means = (made.binding.weights[..., None] * corners).sum(dim=1)
    assert torch.allclose(means, made.gaussians.means, atol=1e-6)
    normals = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    thin = matrix_of_quaternion(made.gaussians.quats)[..., 2]
    assert torch.allclose((torch.nn.functional.normalize(normals, dim=-1) * thin).sum(-1), torch.ones(400), atol=1e-4)
    colors = 0.5 + 0.28209479177387814 * made.gaussians.sh[:, 0]
    assert torch.allclose(
        colors,
        (made.binding.weights[..., None] * torch.as_tensor(COLORS).float()[made.binding.points]).sum(1),
        atol=1e-5,
    )


@pytest.mark.parametrize(
    ("vertices", "faces", "reason"),
    [
        (VERTICES[:0], FACES[:0], "empty_mesh"),
        (VERTICES, FACES[:0], "empty_mesh"),
        (VERTICES * 0, FACES, "empty_mesh"),
        (np.broadcast_to(np.float32(0.0), (2_000_000, 3)), FACES, "too_many_vertices"),
        (np.where(np.arange(len(VERTICES))[:, None] == 7, np.nan, VERTICES), FACES, "non_finite"),
        (VERTICES[:50], FACES, "bad_faces"),
        (VERTICES * 5, FACES, "outside"),
    ],
)
def test_a_mesh_that_cannot_be_moved_is_refused_with_a_reason(
    vertices: np.ndarray, faces: np.ndarray, reason: str
) -> None:
    with pytest.raises(ObjectError, match=reason) as caught:
        check_mesh("bar.glb", vertices, faces)
    assert caught.value.reason == reason
    assert "bar.glb" in str(caught.value)


def test_faces_without_area_are_refused() -> None:
    with pytest.raises(ObjectError, match="no area"):
        of_mesh("line", VERTICES, np.repeat(FACES[:, :1], 3, axis=1) * [1, 1, 1], num_gaussians=10)


def test_bad_gaussians_are_refused() -> None:
    made = of_mesh("bar", VERTICES, FACES, num_gaussians=10).gaussians
    none = Gaussians(**{name: tensor[:0] for name, tensor in vars(made).items()})
    with pytest.raises(ObjectError, match="empty_mesh"):
        of_gaussians("none.ply", none)
    bad = Gaussians(**{**vars(made), "means": made.means * torch.nan})
    with pytest.raises(ObjectError, match="non_finite"):
        of_gaussians("bad.ply", bad)
    many = Gaussians(
        **{name: tensor[:1].expand(MAX_VERTICES + 1, *tensor.shape[1:]) for name, tensor in vars(made).items()}
    )
    with pytest.raises(ObjectError, match="too_many_vertices"):
        of_gaussians("many.ply", many)


def test_neighbours_reach_across_seams() -> None:
    """A sheet of two quads whose common edge is doubled, as textures do it."""
    left = np.array([[0.0, 0, 0], [0.5, 0, 0], [0.5, 0.5, 0], [0, 0.5, 0]])
    vertices = np.concatenate([left, left + np.array([0.5, 0, 0])])
    faces = np.array([[0, 1, 2], [0, 2, 3], [4, 5, 6], [4, 6, 7]])
    made = of_mesh("sheet", vertices, faces, num_gaussians=10)
    near = made.neighbours(8, nearest=False).indices
    # Vertex 1 and vertex 4 stand at one place: both reach both sides.
    places = {tuple(vertices[i]) for i in near[1].tolist()}
    assert places == {tuple(vertices[i]) for i in near[4].tolist()}
    assert {(0.0, 0.0, 0.0), (1.0, 0.0, 0.0)} <= places
