import math

import numpy as np
import pytest
import torch

from fourd.motion.field import Points
from fourd.motion.graph import bridged, edges_of, nearest_edges, spread_nodes, weld
from fourd.motion.nodes import NodeMotion, NodeSettings, quaternion_of_vector
from fourd.motion.rotations import matrix_of_quaternion

GRID = np.stack(np.meshgrid(np.arange(8.0), np.arange(6.0), indexing="ij"), axis=-1).reshape(-1, 2) / 8
SHEET = np.concatenate([GRID, np.zeros((48, 1))], axis=1)


def field(levels: tuple[int, ...] = (1, 4, 12)) -> NodeMotion:
    return NodeMotion(Points.plain(torch.as_tensor(SHEET)), 5, NodeSettings(levels=levels), None)


def levels_of(made: NodeMotion) -> list[torch.nn.Module]:
    return list(made.levels)


def test_one_node_of_the_first_level_moves_all_as_one_piece() -> None:
    made = field()
    first = made._levels()[0]
    vector = torch.tensor([[0.2, 1.1, -0.7]], dtype=torch.float64)
    shift = torch.tensor([[0.3, 0.0, -0.1]], dtype=torch.float64)
    with torch.no_grad():
        first.turns[2].copy_(vector)
        first.shifts[2].copy_(shift)
    moved = made(torch.tensor([2]))
    turn = matrix_of_quaternion(quaternion_of_vector(vector))[0]
    wanted = (made.positions - first.positions) @ turn.T + first.positions + shift
    assert torch.allclose(moved.positions[0], wanted, atol=1e-12)
    assert torch.allclose(matrix_of_quaternion(moved.quats[0]), turn.expand(48, 3, 3), atol=1e-12)
    penalties = made.penalties(torch.tensor([2]), ["node_arap"])
    assert list(penalties) == ["node_arap"]
    assert float(penalties["node_arap"].detach()) == pytest.approx(0.0, abs=1e-20)


def test_bending_costs_and_so_does_changing_speed() -> None:
    made = field()
    with torch.no_grad():
        made._levels()[-1].shifts[3][0, 2] += 0.1
    penalties = made.penalties(torch.arange(5), ["node_arap", "acceleration"])
    assert float(penalties["node_arap"].detach()) > 1e-4
    assert float(penalties["acceleration"].detach()) > 1e-5


def test_a_new_frame_goes_on_as_the_last_ones_did() -> None:
    made = NodeMotion(Points.plain(torch.as_tensor(SHEET)), 5, NodeSettings(levels=(3,), momentum=1.0), None)
    level = made._levels()[0]
    with torch.no_grad():
        level.shifts[1].fill_(0.1)
        level.shifts[2].fill_(0.3)
    made.begin_frame(3, lambda: 1.0)
    assert torch.allclose(level.shifts[3], torch.full_like(level.shifts[3], 0.5))


def test_a_new_frame_starts_as_an_earlier_one_if_that_fits_better() -> None:
    made = NodeMotion(Points.plain(torch.as_tensor(SHEET)), 5, NodeSettings(levels=(1, 3)), None)
    with torch.no_grad():
        for frame, shift in ((1, 0.1), (2, 0.4), (3, 0.2)):
            made._levels()[0].shifts[frame].fill_(shift)
            made._levels()[1].turns[frame].fill_(10 * shift)
    looked_at = []

    def off_by() -> float:
        first, newest = made(torch.tensor([1, 4])).positions
        looked_at.append(float((newest - first).abs().mean().detach()))
        return looked_at[-1]

    made.begin_frame(4, off_by)
    assert torch.equal(made(torch.tensor([4])).positions, made(torch.tensor([1])).positions)
    assert all(torch.equal(made.frame_parameters(4)[i], made.frame_parameters(1)[i]) for i in range(4))
    # On at the settings' pace, not at all, at full pace, and as frames 0, 1 and 2.
    assert len(looked_at) == 6


def test_turns_of_no_length_have_gradients() -> None:
    vectors = torch.zeros(1, 3, requires_grad=True)
    quaternion_of_vector(vectors).sum().backward()
    assert vectors.grad is not None
    assert torch.allclose(vectors.grad, torch.full((1, 3), 0.5))
    assert float(quaternion_of_vector(torch.tensor([0.0, math.pi, 0.0]))[2]) == pytest.approx(1.0)


def test_seams_are_welded_so_that_both_sides_move_together() -> None:
    doubled = np.concatenate([SHEET, SHEET[:6]])
    made = NodeMotion(Points.plain(torch.as_tensor(doubled)), 3, NodeSettings(levels=(10,)), None)
    with torch.no_grad():
        for shift in made._levels()[0].shifts:
            shift.normal_(generator=torch.Generator().manual_seed(0))
    moved = made(torch.tensor([1])).positions[0]
    assert torch.equal(moved[:6], moved[48:])


def test_points_follow_nodes_along_the_surface_not_through_the_air() -> None:
    """A U of two long arms: the tips are next to each other, and follow nodes of their own arm only."""
    height = np.linspace(0, 1, 41)
    left = np.stack([np.zeros(41), height], axis=1)
    right = np.stack([np.full(41, 0.05), height], axis=1)
    positions = np.concatenate([left[::-1], right])
    positions = np.concatenate([positions, np.zeros((82, 1))], axis=1)
    edges = np.stack([np.arange(81), np.arange(1, 82)], axis=1)
    nodes = spread_nodes(positions, edges, 12)
    followed = positions[nodes.indices[nodes.of_point[0]]]
    assert (followed[nodes.weights[0] > 0.01, 0] == 0.0).all()
    assert nodes.weights.sum(axis=1) == pytest.approx(np.ones(82))


def test_separate_pieces_are_linked_to_what_is_next_to_them() -> None:
    apart = np.concatenate([SHEET, SHEET[:6] + np.array([0, 0, 0.3])])
    edges = nearest_edges(SHEET, 4)
    linked = bridged(apart, np.concatenate([edges, edges_of(np.array([[48, 49, 50], [51, 52, 53], [50, 51, 51]]))]))
    assert np.isfinite(spread_nodes(apart, linked, 8).weights).all()
    nodes = spread_nodes(apart, linked, 54, 1)
    assert sorted(nodes.indices.tolist()) == list(range(54))


def test_welding_joins_equal_places_only() -> None:
    welded = weld(np.array([[0.0, 0, 0], [1, 0, 0], [0, 0, 0], [1, 0, 1e-3]]))
    assert len(welded.positions) == 3
    assert welded.of_vertex[0] == welded.of_vertex[2]
    assert welded.of_vertex[1] != welded.of_vertex[3]


def test_bridges_join_all_pieces_even_if_they_are_nearest_to_each_other_in_pairs() -> None:
    # Two pairs of points: each point's nearest other piece is its partner.
    positions = np.array([[0.0, 0, 0], [0.1, 0, 0], [5.0, 0, 0], [5.1, 0, 0]])
    joined = bridged(positions, np.zeros((0, 2), dtype=np.int64))
    nodes = spread_nodes(positions, joined, 4)
    assert np.isfinite(nodes.weights).all()
    assert {tuple(edge) for edge in joined} >= {(0, 1), (2, 3), (1, 2)}
