import math

import numpy as np
import pytest
import torch

from fourd.losses.arap import Neighbours, arap_energy
from fourd.motion.rotations import matrix_of_euler

TURN_IN_PLANE = matrix_of_euler(torch.tensor([0.0, 0.0, math.pi / 2], dtype=torch.float64))
TURN = matrix_of_euler(torch.tensor([0.4, -1.2, 2.2], dtype=torch.float64))


def cloud(shape: str) -> torch.Tensor:
    points = torch.rand(200, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) - 0.5
    if shape in ("flat patch", "line", "one place"):
        points[:, 2] = 0.1
    if shape in ("line", "one place"):
        points[:, 1] = -0.2
    if shape == "one place":
        points[:, 0] = 0.3
    return points


@pytest.mark.parametrize("shape", ["solid", "flat patch", "line", "one place"])
@pytest.mark.parametrize("turn", [TURN_IN_PLANE, TURN], ids=["in its plane", "out of it"])
def test_what_turns_and_shifts_as_one_piece_costs_nothing(shape: str, turn: torch.Tensor) -> None:
    rest = cloud(shape)
    moved = (rest @ turn.T + torch.tensor([0.1, 0.2, -0.3], dtype=torch.float64))[None]
    for count in (1, 2, 3, 8):
        energy = arap_energy(rest, moved, Neighbours.nearest(rest, count))
        assert energy.shape == (1, 200)
        assert float(energy.sum()) == pytest.approx(0.0, abs=1e-20)


def test_a_turning_mesh_costs_nothing_in_float32_either() -> None:
    rest = cloud("flat patch").float()
    energy = arap_energy(rest, (rest @ TURN_IN_PLANE.float().T)[None], Neighbours.nearest(rest, 3))
    assert float(energy.sum()) < 1e-10


def test_the_energy_is_the_formula() -> None:
    """Stretching a line of three by 2 along x: each inner edge of 1 is off by 1, and no rotation helps."""
    rest = torch.tensor([[0.0, 0, 0], [1, 0, 0], [2, 0, 0]], dtype=torch.float64)
    neighbours = Neighbours.of_edges(np.array([[0, 1], [1, 2]]), 3)
    moved = torch.stack([rest * 2, rest, rest * 0.5])
    assert torch.allclose(
        arap_energy(rest, moved, neighbours), torch.tensor([[1.0, 2, 1], [0, 0, 0], [0.25, 0.5, 0.25]]).double()
    )


def test_it_counts_every_frame_given_and_no_other() -> None:
    rest = cloud("solid")
    moved = rest.expand(4, -1, -1).clone()
    moved[3, 7] += 0.1
    energy = arap_energy(rest, moved, Neighbours.nearest(rest, 3))
    assert energy.shape == (4, 200)
    assert energy[:3].max() < 1e-20
    assert energy[3, 7] > 1e-3


def test_the_gradient_pulls_back_what_was_bent_and_leaves_the_rest() -> None:
    rest = cloud("solid")
    moved = (rest @ TURN.T)[None].clone()
    moved[0, 5] += torch.tensor([0.0, 0.0, 0.05], dtype=torch.float64)
    moved.requires_grad_()
    before = arap_energy(rest, moved, Neighbours.nearest(rest, 6)).sum()
    (gradient,) = torch.autograd.grad(before, moved)
    after = arap_energy(rest, moved - 0.02 * gradient, Neighbours.nearest(rest, 6)).sum()
    assert float(after) < float(before)
    # Rotations are the best ones, so the energy's own slope is the same as with them held (Danskin).
    step = torch.zeros_like(moved)
    step[0, 5, 2] = 1e-6
    slope = (arap_energy(rest, moved + step, Neighbours.nearest(rest, 6)).sum() - before) / 1e-6
    assert float(slope) == pytest.approx(float(gradient[0, 5, 2]), rel=1e-3)


def test_some_points_may_be_looked_at() -> None:
    rest = cloud("solid")
    moved = (rest * torch.tensor([1.0, 1.5, 1.0]))[None]
    neighbours = Neighbours.nearest(rest, 3)
    sample = torch.tensor([3, 3, 150])
    assert torch.allclose(
        arap_energy(rest, moved, neighbours, sample=sample), arap_energy(rest, moved, neighbours)[:, sample]
    )


def test_points_with_fewer_neighbours_are_filled_up_with_themselves() -> None:
    neighbours = Neighbours.of_edges(np.array([[0, 1], [0, 2], [0, 3]]), 5, at_most=2)
    assert neighbours.indices.tolist() == [[1, 2], [0, 1], [0, 2], [0, 3], [4, 4]]
    assert Neighbours.of_edges(np.zeros((0, 2), dtype=np.int64), 2).indices.shape == (2, 0)


def test_a_point_is_no_neighbour_of_its_own_even_where_many_stand_at_one_place() -> None:
    found = Neighbours.nearest(torch.zeros(6, 3), 3).indices
    assert found.shape == (6, 3)
    assert not bool((found == torch.arange(6)[:, None]).any())
