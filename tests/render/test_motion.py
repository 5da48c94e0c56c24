from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from render.blender import motion

TIMES_S = [0.125 * frame for frame in range(16)]


def cloud(num_points: int = 300) -> np.ndarray:
    """Points of no symmetry, in a box of about 1 x 2 x 3."""
    return np.random.default_rng(5).normal(size=(num_points, 3)) * [0.25, 0.5, 0.75] + [3.0, 1.0, -2.0]


def turned(angle_rad: float) -> np.ndarray:
    cosine, sine = np.cos(angle_rad), np.sin(angle_rad)
    return np.array([[cosine, -sine, 0.0], [sine, cosine, 0.0], [0.0, 0.0, 1.0]])


def still(rest: np.ndarray) -> np.ndarray:
    return np.stack([rest] * 16)


def spinning(rest: np.ndarray) -> np.ndarray:
    return np.stack([rest @ turned(0.2 * frame).T + [0.1 * frame, 0.0, 0.0] for frame in range(16)])


def waving(rest: np.ndarray) -> np.ndarray:
    """The upper half swings to and fro, the lower half stands."""
    upper = rest[:, 2] > np.median(rest[:, 2])
    return np.stack([rest + np.outer(upper, [0.3 * np.sin(0.4 * frame), 0.0, 0.0]) for frame in range(16)])


def numbers(points: np.ndarray) -> dict[str, Any]:
    boxes = np.stack([motion.box_of(frame) for frame in points])
    pairs = np.random.default_rng(6).integers(0, points.shape[1], size=(500, 2))
    edges = np.linalg.norm(points[:, pairs[:, 0]] - points[:, pairs[:, 1]], axis=-1)
    return motion.measured(points, boxes, edges, TIMES_S, motion.diagonal(boxes[0]))


def test_what_stands_still_has_no_motion() -> None:
    score = numbers(still(cloud()))
    for name in ("motion_mean", "motion_p95", "path_length", "rigid_share", "max_jump", "jump_ratio"):
        assert score[name] == 0.0
    assert (score["moving_start_s"], score["moving_end_s"]) == (0.0, 0.0)
    assert score["travel"] == pytest.approx(1.0)
    assert score["max_stretch"] == pytest.approx(1.0)


def test_a_rigid_move_is_explained_whole_and_stretches_nothing() -> None:
    score = numbers(spinning(cloud()))
    assert score["rigid_share"] == pytest.approx(1.0, abs=1e-9)
    assert score["max_stretch"] == pytest.approx(1.0, abs=1e-9)


def test_a_limb_that_swings_is_not_explained_by_a_rigid_move() -> None:
    assert numbers(waving(cloud()))["rigid_share"] < 0.5


def test_a_mirror_image_is_no_rigid_move() -> None:
    rest = cloud() - cloud().mean(axis=0)
    assert motion.rigid_share(np.stack([rest, rest * [-1.0, 1.0, 1.0]])) < 0.7


@pytest.mark.parametrize("scale", [1e-12, 0.37, 1e12])
@pytest.mark.parametrize("moves", [spinning, waving])
def test_size_and_place_of_the_asset_change_no_score_and_no_id(
    moves: Callable[[np.ndarray], np.ndarray], scale: float
) -> None:
    points = moves(cloud())
    other = scale * (points + np.array([5.0, -7.0, 11.0]))
    here, there = numbers(points), numbers(other)
    for name in here.keys() - {"box_min", "box_max", "rest_diagonal"}:
        assert there[name] == pytest.approx(here[name], rel=1e-6, abs=1e-9), name
    assert there["rest_diagonal"] == pytest.approx(scale * here["rest_diagonal"])
    assert motion.shape_id([1, 2], points[0]) == motion.shape_id([1, 2], other[0])
    diagonals = [score["rest_diagonal"] for score in (here, there)]
    assert motion.motion_id([1, 2], points, diagonals[0]) == motion.motion_id([1, 2], other, diagonals[1])


def test_the_mean_displacement_is_a_share_of_the_diagonal() -> None:
    rest = cloud()
    shifted = np.stack([rest, rest + np.array([0.0, 0.0, 2.0])])
    diagonal = motion.diagonal(motion.box_of(rest))
    assert motion.displacement(shifted, diagonal) == pytest.approx((1.0 / diagonal, 2.0 / diagonal))
    assert motion.path_length(shifted, diagonal) == pytest.approx(2.0 / diagonal)


def test_a_teleport_is_a_spike_of_the_centre() -> None:
    points = waving(cloud())
    points[9:] += [40.0, 0.0, 0.0]
    jumped, smooth = numbers(points), numbers(waving(cloud()))
    assert jumped["max_jump"] > 5.0
    assert jumped["jump_ratio"] > 100.0
    assert smooth["jump_ratio"] < 10.0
    assert jumped["travel"] > 5.0


def test_the_moving_span_leaves_out_the_rest_before_and_after() -> None:
    points = still(cloud())
    points[5:] += [0.1, 0.0, 0.0]
    points[6:, 0] += [0.0, 0.1, 0.0]
    score = numbers(points)
    assert (score["moving_start_s"], score["moving_end_s"]) == (TIMES_S[4], TIMES_S[6])


def test_a_torn_surface_is_stretched_however_short_its_degenerate_edges() -> None:
    lengths = np.ones((4, 1000))
    lengths[:, 0], lengths[2:, 0] = 0.0, 50.0
    assert motion.max_stretch(lengths, 10.0) == 1.0
    lengths[3, 100:200] = 7.0
    assert motion.max_stretch(lengths, 10.0) == pytest.approx(7.0)


def test_a_perfect_loop_has_no_gap() -> None:
    rest = cloud()
    assert motion.loop_gap(rest, rest.copy(), 2.0) == 0.0
    assert motion.loop_gap(rest, rest + np.array([0.0, 3.0, 4.0]), 2.0) == pytest.approx(2.5)


def test_other_motions_of_a_mesh_have_other_ids_and_the_same_shape() -> None:
    rest = cloud()
    small = still(rest)
    small[3:, :40] += [0.02, 0.0, 0.0]
    ids = {motion.motion_id([1], points, 4.0) for points in (still(rest), spinning(rest), waving(rest), small)}
    assert len(ids) == 4
    assert motion.shape_id([1], rest) == motion.shape_id([1], rest[::-1])
    assert motion.shape_id([1], rest) != motion.shape_id([2], rest)
    assert motion.shape_id([1], rest) != motion.shape_id([1], rest * [1.0, 1.0, 1.1])


def test_an_id_outlives_the_rounding_of_single_precision() -> None:
    rest = cloud(5000)
    rounded = (rest * 1e-3).astype(np.float32).astype(np.float64)
    assert motion.shape_id([1], rest) == motion.shape_id([1], rounded)


def test_corners_follow_their_boxes() -> None:
    boxes = np.array([[[0.0, 0.0, 0.0], [1.0, 2.0, 3.0]], [[1.0, 0.0, 0.0], [4.0, 2.0, 3.0]]])
    corners = motion.corners(boxes)
    assert corners.shape == (2, 8, 3)
    assert [motion.box_of(frame).tolist() for frame in corners] == boxes.tolist()
    assert len(np.unique(corners[0], axis=0)) == 8
