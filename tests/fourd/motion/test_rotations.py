import math

import pytest
import torch

from fourd.motion.rotations import (
    best_rotation,
    matrix_of_euler,
    matrix_of_quaternion,
    multiply_quaternions,
    quaternion_of_matrix,
)


def quats(count: int) -> torch.Tensor:
    return torch.randn(count, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_matrices_and_quaternions_go_both_ways() -> None:
    given = torch.nn.functional.normalize(quats(200), dim=-1)
    found = quaternion_of_matrix(matrix_of_quaternion(given))
    assert torch.allclose((found * given).sum(dim=-1).abs(), torch.ones(200, dtype=torch.float64), atol=1e-12)


def test_half_turns_are_as_exact_as_others() -> None:
    half = torch.tensor([[0.0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1], [0, 0.6, 0.8, 0]], dtype=torch.float64)
    found = quaternion_of_matrix(matrix_of_quaternion(half))
    assert torch.allclose((found * half).sum(dim=-1).abs(), torch.ones(4, dtype=torch.float64), atol=1e-12)


def test_a_product_of_quaternions_is_the_product_of_matrices() -> None:
    left, right = quats(50), quats(50).flip(0)
    together = matrix_of_quaternion(multiply_quaternions(left, right))
    assert torch.allclose(together, matrix_of_quaternion(left) @ matrix_of_quaternion(right), atol=1e-12)


def test_euler_angles_turn_about_x_then_y_then_z() -> None:
    one = torch.eye(3, dtype=torch.float64) * (math.pi / 2)
    about_x, about_y, about_z = matrix_of_euler(one)
    assert torch.allclose(
        about_x @ torch.tensor([0.0, 1, 0], dtype=torch.float64), torch.eye(3).double()[2], atol=1e-12
    )
    assert torch.allclose(
        about_y @ torch.tensor([0.0, 0, 1], dtype=torch.float64), torch.eye(3).double()[0], atol=1e-12
    )
    assert torch.allclose(
        about_z @ torch.tensor([1.0, 0, 0], dtype=torch.float64), torch.eye(3).double()[1], atol=1e-12
    )
    angles = torch.tensor([0.3, -0.8, 1.9], dtype=torch.float64)
    parts = matrix_of_euler(torch.diag(angles))
    assert torch.allclose(matrix_of_euler(angles), parts[2] @ parts[1] @ parts[0], atol=1e-12)


@pytest.mark.parametrize("rank", [0, 1, 2, 3])
def test_the_best_rotation_is_one_whatever_the_rank(rank: int) -> None:
    edges = torch.randn(20, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    edges[:, rank:] = 0.0
    turn = matrix_of_quaternion(quats(1))[0]
    found = best_rotation(edges.T @ (edges @ turn.T))
    assert torch.allclose(found @ found.T, torch.eye(3, dtype=torch.float64), atol=1e-12)
    assert torch.linalg.det(found) == pytest.approx(1.0)
    assert torch.allclose(edges @ found.T, edges @ turn.T, atol=1e-12)


def test_a_mirror_image_is_met_by_a_rotation_not_a_reflection() -> None:
    edges = torch.randn(20, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    mirrored = edges * torch.tensor([1.0, 1.0, -1.0], dtype=torch.float64)
    assert torch.linalg.det(best_rotation(edges.T @ mirrored)) == pytest.approx(1.0)
