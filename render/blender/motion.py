"""How much a mesh moves, in numbers: the formulas behind `render.protocol.Measured`. NumPy only.

Points are given as trajectories of shape (frame, point, 3). Lengths come out as shares of `rest_diagonal`, the diagonal
of the box at the action's first frame, so a score does not change if the asset is moved or scaled.
"""

import hashlib

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

STILL_STEP = 1e-4
"""Share of the diagonal. No vertex moving further than this from one frame to the next means that nothing moves."""
LEAST_MEDIAN_STEP = 0.01
"""Share of the diagonal; below it, `jump_ratio` would call every start of a motion a teleport."""
SHORTEST_EDGE = 1e-5
"""Share of the diagonal. Shorter edges are degenerate, and any movement stretches them by thousands."""
QUANTUM = 1e-3
"""Ids see coordinates rounded to this share of the diagonal."""


def box_of(points: Floats) -> Floats:
    """Lower and upper corner of the box around points of shape (point, 3). Shape (2, 3)."""
    return np.stack([points.min(axis=0), points.max(axis=0)])


def union_box(boxes: Floats) -> Floats:
    """The box around boxes of shape (frame, 2, 3). Shape (2, 3)."""
    return np.stack([boxes[:, 0].min(axis=0), boxes[:, 1].max(axis=0)])


def diagonal(box: Floats) -> float:
    """Length of a box's diagonal."""
    return float(np.linalg.norm(box[1] - box[0]))


def corners(boxes: Floats) -> Floats:
    """The eight corners of each box: a trajectory to measure where vertices come and go. Shape (frame, 8, 3)."""
    picks = np.indices((2, 2, 2)).reshape(3, 8)
    return np.stack([boxes[:, picks[axis], axis] for axis in range(3)], axis=-1)


def displacement(points: Floats, scale: float) -> tuple[float, float]:
    """Distances from the first frame's positions, divided by `scale`.

    Returns:
        Their mean over points and frames, and the 95th percentile over points of each one's largest.
    """
    distance = np.linalg.norm(points - points[0], axis=-1) / scale
    return float(distance.mean()), float(np.percentile(distance.max(axis=0), 95))


def path_length(points: Floats, scale: float) -> float:
    """Mean over points of the length of the way they go."""
    return float(np.linalg.norm(np.diff(points, axis=0), axis=-1).sum(axis=0).mean() / scale)


def rigid_share(points: Floats) -> float:
    """Share of the displacement that one rigid move of all points, the best one a frame, explains.

    One minus the mean distance left over after the move, divided by the mean distance before it. The move is the
    least-squares one (Kabsch 1976, doi:10.1107/S0567739476001873).

    Returns:
        0..1; 0 if nothing moves.
    """
    still = points[0] - points[0].mean(axis=0)
    centred = points - points.mean(axis=1, keepdims=True)
    total = float(np.linalg.norm(points - points[0], axis=-1).mean())
    size = float(np.linalg.norm(still, axis=-1).max())
    if total <= 1e-9 * max(size, 1e-300):
        return 0.0
    left, _, right = np.linalg.svd(np.einsum("vi,fvj->fij", still, centred))
    turns = np.ones((len(points), 3))
    turns[:, 2] = np.sign(np.linalg.det(left @ right))
    rotation = np.einsum("fij,fj,fjk->fik", left, turns, right)
    rest = float(np.linalg.norm(centred - still @ rotation, axis=-1).mean())
    return float(np.clip(1.0 - rest / total, 0.0, 1.0))


def moving_span(points: Floats, times_s: Floats, scale: float) -> tuple[float, float]:
    """Start and end of the span outside of which no point moves, in seconds after the first time; 0, 0 if none does."""
    steps = np.linalg.norm(np.diff(points, axis=0), axis=-1).max(axis=1, initial=0.0) / scale
    moving = np.flatnonzero(steps > STILL_STEP)
    if len(moving) == 0:
        return 0.0, 0.0
    return float(times_s[moving[0]] - times_s[0]), float(times_s[moving[-1] + 1] - times_s[0])


def travel(boxes: Floats) -> float:
    """Diagonal of the box over all frames, divided by the median of the frames' own diagonals."""
    own = float(np.median([diagonal(box) for box in boxes]))
    return diagonal(union_box(boxes)) / own if own > 0 else 1.0


def jumps(points: Floats, scale: float) -> tuple[float, float]:
    """The largest step of the points' mean between neighbouring frames, and its ratio to the median step."""
    steps = np.linalg.norm(np.diff(points.mean(axis=1), axis=0), axis=-1) / scale
    if len(steps) == 0:
        return 0.0, 0.0
    largest = float(steps.max())
    return largest, largest / max(float(np.median(steps)), LEAST_MEDIAN_STEP)


def max_stretch(edge_lengths: Floats, scale: float) -> float:
    """99.5th percentile over edges and frames of the length relative to the first frame.

    Args:
        edge_lengths: Shape (frame, edge).
        scale: Edges whose first length is under `SHORTEST_EDGE` of it are left out.
    """
    usable = edge_lengths[0] > SHORTEST_EDGE * scale
    if len(edge_lengths) < 2 or not usable.any():
        return 1.0
    return float(np.percentile(edge_lengths[1:, usable] / edge_lengths[0, usable], 99.5))


def loop_gap(first: Floats, last: Floats, scale: float) -> float:
    """Mean distance between two poses, each of shape (point, 3)."""
    return float(np.linalg.norm(last - first, axis=-1).mean() / scale)


def measured(
    points: Floats, boxes: Floats, edge_lengths: Floats, times_s: list[float], scale: float
) -> dict[str, float | list[float]]:
    """The numbers of `render.protocol.Measured` that depend on the given times alone, by their names there.

    Args:
        points: Shape (frame, point, 3).
        boxes: Of all that is framed, shape (frame, 2, 3).
        edge_lengths: Shape (frame, edge).
        times_s: One a frame.
        scale: The diagonal at rest.
    """
    mean, p95 = displacement(points, scale)
    start_s, end_s = moving_span(points, np.asarray(times_s), scale)
    largest, ratio = jumps(points, scale)
    box = union_box(boxes)
    return {
        "motion_mean": mean,
        "motion_p95": p95,
        "path_length": path_length(points, scale),
        "rigid_share": rigid_share(points),
        "moving_start_s": start_s,
        "moving_end_s": end_s,
        "travel": travel(boxes),
        "max_jump": largest,
        "jump_ratio": ratio,
        "max_stretch": max_stretch(edge_lengths, scale),
        "rest_diagonal": scale,
        "box_min": box[0].tolist(),
        "box_max": box[1].tolist(),
    }


def shape_id(counts: list[int], points: Floats) -> str:
    """Hash of a geometry that is equal for copies, whatever their place, size, materials and vertex order.

    What is hashed are the counts and the first four moments of the points in the unit cube around their box: few
    numbers over many points, so that the rounding of a scaled copy's coordinates hardly ever tips one over the edge.

    Args:
        counts: Numbers of vertices, faces and so on.
        points: Shape (point, 3).
    """
    box = box_of(points)
    unit = (points - box.mean(axis=0)) / max(float((box[1] - box[0]).max()), 1e-300)
    powers = [(i, j, k) for i in range(5) for j in range(5) for k in range(5) if 0 < i + j + k <= 4]
    by_axis = [[unit[:, axis] ** power for power in range(5)] for axis in range(3)]
    moments = [float((by_axis[0][i] * by_axis[1][j] * by_axis[2][k]).mean()) for i, j, k in powers]
    return _hash("shape", counts, [*moments, *(box[1] - box[0]) / max(float((box[1] - box[0]).max()), 1e-300)])


def motion_id(counts: list[int], points: Floats, scale: float) -> str:
    """Hash of a geometry with its trajectories: equal for the same motion of the same mesh.

    What is hashed of the trajectories are four weighted sums over the points, with fixed weights of plus and minus one,
    in quanta of the diagonal.

    Args:
        counts: Numbers of vertices, faces and so on.
        points: Shape (frame, point, 3).
        scale: Diagonal at rest, in the points' unit.
    """
    num_points = points.shape[1]
    weights = np.random.default_rng(20240607).integers(0, 2, size=(4, num_points)) * 2.0 - 1.0
    shape = points[0] - points[0].mean(axis=0)
    sums = [
        np.einsum("wv,vc->wc", weights, shape) / np.sqrt(num_points),
        *(np.einsum("wv,vc->wc", weights, frame - points[0]) / np.sqrt(num_points) for frame in points[1:]),
        (points - points[0]).mean(axis=1),
    ]
    return _hash("motion", counts, np.concatenate([part.ravel() for part in sums]) / scale)


def _hash(kind: str, counts: list[int], values: "Floats | list[float]") -> str:
    quantised = np.rint(np.clip(np.asarray(values, dtype=np.float64) / QUANTUM, -1e15, 1e15)).astype(np.int64)
    text = f"{kind}:{','.join(map(str, counts))}:{','.join(map(str, quantised))}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]
