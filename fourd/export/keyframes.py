"""Tracks made smooth, and as few key frames as a tolerance allows."""

from itertools import pairwise

import numpy as np

WITNESSES = 256
"""Vertices looked at first: if one of them is too far off, the others need not be looked at."""


def smoothed(tracks: np.ndarray, *, tolerance: float, strength: float = 1.0) -> np.ndarray:
    """Tracks with less trembling; no point moves further than `tolerance`, and frame 0 stays exactly.

    Whittaker's smoother (Whittaker 1922; Eilers 2003, "A perfect smoother", eq. 3): least sum of squared changes and
    `strength` times the squared second differences, with frame 0 held. What it changes by more than the tolerance is
    changed by the tolerance.

    Args:
        tracks: Shape (T, V, 3).
        tolerance: In the tracks' units; 0 changes nothing.
        strength: Weight of the second differences.

    Returns:
        Shape (T, V, 3), in the tracks' type.
    """
    if tolerance < 0 or strength < 0:
        raise ValueError(f"tolerance and strength must not be negative, got {tolerance} and {strength}")
    num_frames = len(tracks)
    if num_frames < 3 or tolerance == 0 or strength == 0:
        return tracks.copy()
    bends = np.diff(np.eye(num_frames), n=2, axis=0)
    system = np.eye(num_frames) + strength * bends.T @ bends
    flat = tracks.reshape(num_frames, -1).astype(np.float64)
    # Frame 0 is known: its column goes to the right side.
    free = np.linalg.solve(system[1:, 1:], flat[1:] - np.outer(system[1:, 0], flat[0]))
    change = (free - flat[1:]).reshape(num_frames - 1, -1, 3)
    length = np.linalg.norm(change, axis=2, keepdims=True)
    change *= np.minimum(1.0, tolerance / np.maximum(length, 1e-30))
    result = tracks.copy()
    result[1:] = tracks[1:] + change
    return result


def fewest_keys(tracks: np.ndarray, *, tolerance: float) -> list[int]:
    """The fewest frames from which linear interpolation gives all others within the tolerance; first and last are in.

    Exact, by dynamic programming over the segments between two keys. Among equally short choices the one whose
    worst error is least.

    Args:
        tracks: Shape (T, V, 3), T >= 1.
        tolerance: Largest distance of any vertex at any frame, in the tracks' units.

    Returns:
        Frames in order.
    """
    if tolerance < 0:
        raise ValueError(f"tolerance must not be negative, got {tolerance}")
    num_frames = len(tracks)
    witnesses = _witnesses(tracks)
    best: list[tuple[int, float, int]] = [(0, 0.0, -1)]  # keys before, worst error, the key before
    for end in range(1, num_frames):
        choices: list[tuple[int, float, int]] = []
        for start in range(end):
            # A longer way than one already found needs no look.
            if choices and best[start][0] + 1 > min(choices)[0]:
                continue
            error = _segment_error(witnesses, start, end, tolerance)
            if error <= tolerance and witnesses.shape[1] < tracks.shape[1]:
                error = _segment_error(tracks, start, end, tolerance)
            if error <= tolerance:
                choices.append((best[start][0] + 1, max(best[start][1], error), start))
        best.append(min(choices))
    keys = [num_frames - 1]
    while keys[-1] > 0:
        keys.append(best[keys[-1]][2])
    return keys[::-1]


def interpolated(tracks: np.ndarray, keys: list[int]) -> np.ndarray:
    """What linear interpolation between the keys gives at every frame, shape (T, V, 3), float64."""
    result = tracks.astype(np.float64)
    for start, end in pairwise(keys):
        for frame in range(start + 1, end):
            share = (frame - start) / (end - start)
            result[frame] = (1 - share) * result[start] + share * result[end]
    return result


def _segment_error(tracks: np.ndarray, start: int, end: int, enough: float) -> float:
    """Largest distance between the frames inside a segment and the line; stops at the first over `enough`."""
    worst = 0.0
    for frame in range(start + 1, end):
        share = (frame - start) / (end - start)
        line = (1 - share) * tracks[start].astype(np.float64) + share * tracks[end]
        worst = max(worst, float(np.sqrt(((tracks[frame] - line) ** 2).sum(axis=1).max(initial=0.0))))
        if worst > enough:
            break
    return worst


def _witnesses(tracks: np.ndarray) -> np.ndarray:
    """The vertices that bend most, (T, W, 3)."""
    if tracks.shape[1] <= WITNESSES or len(tracks) < 3:
        return tracks
    bend = (np.diff(tracks, n=2, axis=0) ** 2).sum(axis=2).max(axis=0)
    return tracks[:, np.argpartition(bend, -WITNESSES)[-WITNESSES:]]
