"""Smoothing and key frames."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fourd.export.keyframes import fewest_keys, interpolated, smoothed


def wobble(seed: int, num_frames: int, num_vertices: int = 5) -> np.ndarray:
    steps = np.random.default_rng(seed).normal(size=(num_frames, num_vertices, 3))
    return np.cumsum(steps, axis=0)


def worst(tracks: np.ndarray, keys: list[int]) -> float:
    return float(np.linalg.norm(interpolated(tracks, keys) - tracks, axis=2).max())


@given(seed=st.integers(0, 10**6), num_frames=st.integers(2, 9), tolerance=st.floats(0, 6))
@settings(max_examples=60)
def test_no_fewer_keys_would_do(seed: int, num_frames: int, tolerance: float) -> None:
    tracks = wobble(seed, num_frames)
    keys = fewest_keys(tracks, tolerance=tolerance)
    assert keys[0] == 0
    assert keys[-1] == num_frames - 1
    assert worst(tracks, keys) <= tolerance + 1e-9
    inner = range(1, num_frames - 1)
    fewer = [[0, *some, num_frames - 1] for count in range(len(keys) - 2) for some in combinations(inner, count)]
    assert all(worst(tracks, choice) > tolerance for choice in fewer)


def test_a_witness_vertex_does_not_stand_for_all() -> None:
    tracks = np.zeros((5, 2000, 3))
    tracks[:, :300, 0] = 1e-3 * np.array([0, 1, 0, 1, 0])[:, None]  # these bend most
    assert fewest_keys(tracks, tolerance=2e-3) == [0, 4]
    tracks[:, 1999, 1] = np.array([0, 0.4, 0.8, 1.2, 1.6]) + np.array([0, 2.4e-3, 3.2e-3, 2.4e-3, 0])
    assert len(fewest_keys(tracks, tolerance=2e-3)) > 2


def test_a_straight_way_needs_two_keys_and_zero_tolerance_keeps_a_crooked_one_whole() -> None:
    line = np.linspace(0, 1, 7)[:, None, None] * np.ones((1, 4, 3))
    assert fewest_keys(line, tolerance=1e-9) == [0, 6]
    assert fewest_keys(wobble(0, 6), tolerance=0.0) == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("tolerance", [0.01, 0.1, 10.0])
def test_smoothing_keeps_frame_0_and_the_tolerance(tolerance: float) -> None:
    rng = np.random.default_rng(1)
    time = np.linspace(0, 1, 16)[:, None, None]
    clean = np.sin(3 * time) * rng.normal(size=(1, 50, 3))
    noisy = clean + 0.02 * rng.normal(size=(16, 50, 3))
    smooth = smoothed(noisy, tolerance=tolerance)
    assert np.array_equal(smooth[0], noisy[0])
    assert np.linalg.norm(smooth - noisy, axis=2).max() <= tolerance * (1 + 1e-9)
    jerk = [np.abs(np.diff(tracks, n=2, axis=0)).mean() for tracks in (smooth, noisy)]
    assert jerk[0] < (0.9 if tolerance < 0.1 else 0.5) * jerk[1]
    if tolerance >= 0.1:
        assert np.abs(smooth - clean)[1:].mean() < np.abs(noisy - clean)[1:].mean()


def test_a_straight_way_is_smooth_already() -> None:
    line = np.linspace(0, 1, 7)[:, None, None] * np.ones((1, 4, 3))
    line += 5.0
    assert smoothed(line, tolerance=1.0, strength=50.0) == pytest.approx(line, abs=1e-12)
    assert np.array_equal(smoothed(wobble(0, 6), tolerance=0.0), wobble(0, 6))
