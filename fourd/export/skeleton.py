"""A skeleton fitted to vertex tracks: rigid bones, at most four weights a vertex (Le and Deng 2012, SSDR)."""

from dataclasses import dataclass
from itertools import combinations

import numpy as np

from fourd.objects.static import bounding_radius

MAX_BONES = 256
"""What a byte numbers."""
MAX_WEIGHTS = 4
"""What glTF's JOINTS_0 holds, and what every player reads."""
FEWEST = 3
"""Vertices of a bone: how fewer turn cannot be told."""
LEAST_WEIGHT = 1e-4
"""Weights below are rounding."""
IN_VAIN = 4
"""Splits in a row that leave no more bones than there have been, as what is split falls together again."""
CHUNK = 4096
"""Vertices whose weights are solved for at a time."""


@dataclass(frozen=True, kw_only=True)
class SkeletonSettings:
    """How many bones, and how long they are fitted."""

    max_bones: int = 32
    """Bones are added where the error is largest until there are so many. A file may have more: parts of the surface
    that lie apart and move alike are one bone here, and get one each there."""
    tolerance: float = 0.005
    """Or until no vertex is further off at any frame: a share of the object's bounding radius."""
    num_rounds: int = 12
    """Of fitting weights and poses in turn."""

    def __post_init__(self) -> None:
        if not (1 <= self.max_bones <= MAX_BONES and self.tolerance >= 0 and self.num_rounds >= 1):
            raise ValueError(f"need 1..{MAX_BONES} bones, a tolerance of at least 0 and at least one round, got {self}")


@dataclass(frozen=True, kw_only=True)
class Skeleton:
    """B bones that move V vertices over T frames; at frame 0 all stand at rest."""

    rotations: np.ndarray
    """(T, B, 3, 3); at frame 0 the identity."""
    translations: np.ndarray
    """(T, B, 3); a vertex p at rest goes to rotation @ p + translation, by each of its bones."""
    joints: np.ndarray
    """(V, 4), bones of each vertex."""
    weights: np.ndarray
    """(V, 4), not negative, sum 1."""

    def posed(self, vertices: np.ndarray) -> np.ndarray:
        """Where the bones take the vertices (V, 3) at each frame: (T, V, 3)."""
        result = np.zeros((len(self.rotations), *vertices.shape))
        for place in range(self.joints.shape[1]):
            bone = self.joints[:, place]
            moved = np.einsum("tvij,vj->tvi", self.rotations[:, bone], vertices) + self.translations[:, bone]
            result += self.weights[:, place, None] * moved
        return result


def fit_skeleton(tracks: np.ndarray, settings: SkeletonSettings | None = None) -> Skeleton:
    """Bones, poses and weights that come near the tracks; frame 0 is the rest pose.

    Vertices are first put into clusters that move rigidly, split where they do not; then weights (exact least squares
    over all choices of at most four bones near the best) and poses (weighted Procrustes, eq. 7 to 9) in turn.

    Args:
        tracks: Shape (T, V, 3), finite.
        settings: How many bones.
    """
    settings = settings or SkeletonSettings()
    tracks = tracks.astype(np.float64)
    rest, allowed = tracks[0], settings.tolerance * bounding_radius(tracks[0])
    owner = np.zeros(len(rest), np.int64)
    best: Skeleton | None = None
    best_error, most_bones, in_vain = np.inf, 0, 0
    while True:
        owner = _clustered(tracks, owner)
        skeleton = _alternated(tracks, _rigid(tracks, owner), settings.num_rounds)
        distance = np.linalg.norm(skeleton.posed(rest) - tracks, axis=2)
        error = float(distance.max())
        if error < best_error:
            best, best_error = skeleton, error
        num_bones = int(owner.max()) + 1
        in_vain = 0 if num_bones > most_bones else in_vain + 1
        most_bones = max(most_bones, num_bones)
        if error <= allowed or num_bones >= min(settings.max_bones, len(rest)) or in_vain == IN_VAIN:
            assert best is not None
            return best
        owner = _split(rest, owner, distance.max(axis=0), allowed, settings.max_bones)


def _clustered(tracks: np.ndarray, owner: np.ndarray, rounds: int = 8) -> np.ndarray:
    """Vertices to the bone that explains their whole way best, over and over; bones with too few of them go."""
    for _ in range(rounds):
        skeleton = _rigid(tracks, owner)
        errors = np.stack([
            ((np.einsum("tij,vj->tvi", skeleton.rotations[:, bone], tracks[0])
              + skeleton.translations[:, bone, None] - tracks) ** 2).sum(axis=(0, 2))
            for bone in range(skeleton.rotations.shape[1])
        ])  # fmt: skip
        chosen = errors.argmin(axis=0)
        few = np.bincount(chosen, minlength=len(errors)) < min(FEWEST, int(np.bincount(chosen).max()))
        errors[few] = np.inf
        chosen = np.unique(errors.argmin(axis=0), return_inverse=True)[1].ravel()
        if np.array_equal(chosen, owner):
            break
        owner = chosen
    return owner


def _rigid(tracks: np.ndarray, owner: np.ndarray) -> Skeleton:
    """Each vertex moved by its own bone alone, each bone by the best rigid motion of its vertices."""
    num_bones = int(owner.max()) + 1
    rotations, translations = np.zeros((len(tracks), num_bones, 3, 3)), np.zeros((len(tracks), num_bones, 3))
    for bone in range(num_bones):
        mine = owner == bone
        rotations[:, bone], translations[:, bone] = _procrustes(tracks[0, mine], tracks[:, mine], np.ones(mine.sum()))
    joints = np.zeros((len(owner), MAX_WEIGHTS), np.int64)
    weights = np.zeros((len(owner), MAX_WEIGHTS))
    joints[:, 0], weights[:, 0] = owner, 1.0
    return Skeleton(rotations=rotations, translations=translations, joints=joints, weights=weights)


def _procrustes(rest: np.ndarray, target: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rotations (T, 3, 3) and translations (T, 3) with least sum of |target - w (R rest + t)|^2 (Le and Deng, eq. 9).

    Args:
        rest: Shape (n, 3).
        target: Shape (T, n, 3), what is left for this bone.
        weights: Shape (n,), of this bone.
    """
    total = max(float((weights**2).sum()), 1e-12)
    rest_middle = (weights[:, None] ** 2 * rest).sum(axis=0) / total
    middle = (weights[:, None] * target).sum(axis=1) / total
    left = (rest - rest_middle) * weights[:, None]
    right = target - weights[:, None] * middle[:, None]
    u, _, vt = np.linalg.svd(np.einsum("ni,tnj->tij", left, right))
    # Where vertices lie on a line or in a point many turns fit alike; a reflection never does.
    flip = np.ones((len(target), 3))
    flip[:, 2] = np.sign(np.linalg.det(u) * np.linalg.det(vt))
    rotations: np.ndarray = np.einsum("tji,tj,tkj->tik", vt, flip, u)
    rotations[0] = np.eye(3)
    translations = middle - rotations @ rest_middle
    translations[0] = 0.0
    return rotations, translations


def _split(rest: np.ndarray, owner: np.ndarray, error: np.ndarray, allowed: float, max_bones: int) -> np.ndarray:
    """A new bone out of each that has a vertex too far off, worst first: the vertices nearest to that one."""
    owner = owner.copy()
    num_bones = int(owner.max()) + 1
    worst = sorted(range(num_bones), key=lambda bone: -float(error[owner == bone].max(initial=0.0)))
    # At most as many again, so that each new bone is fitted before the next are placed.
    for bone in worst[: max_bones - num_bones]:
        mine = np.flatnonzero(owner == bone)
        if len(mine) < 2 or error[mine].max() <= allowed:
            continue
        seed = mine[error[mine].argmax()]
        distance = np.linalg.norm(rest[mine] - rest[seed], axis=1)
        near = mine[distance <= np.quantile(distance, 0.4)]
        owner[near if len(near) < len(mine) else near[:1]] = owner.max() + 1
    return np.unique(owner, return_inverse=True)[1].ravel()


def _alternated(tracks: np.ndarray, skeleton: Skeleton, num_rounds: int) -> Skeleton:
    """Weights and poses in turn."""
    rotations, translations = skeleton.rotations.copy(), skeleton.translations.copy()
    joints, weights = skeleton.joints, skeleton.weights
    rest = tracks[0]
    for _ in range(num_rounds):
        joints, weights = _fitted_weights(tracks, rotations, translations)
        current = Skeleton(rotations=rotations, translations=translations, joints=joints, weights=weights)
        left = tracks - current.posed(rest)
        for bone in range(rotations.shape[1]):
            vertices, place = np.nonzero((joints == bone) & (weights > 1e-6))
            if len(vertices) < 3:
                continue
            weight = weights[vertices, place]
            before = np.einsum("tij,vj->tvi", rotations[:, bone], rest[vertices]) + translations[:, bone, None]
            target = left[:, vertices] + weight[:, None] * before
            rotations[:, bone], translations[:, bone] = _procrustes(rest[vertices], target, weight)
            after = np.einsum("tij,vj->tvi", rotations[:, bone], rest[vertices]) + translations[:, bone, None]
            left[:, vertices] = target - weight[:, None] * after
    joints, weights = _fitted_weights(tracks, rotations, translations)
    return Skeleton(rotations=rotations, translations=translations, joints=joints, weights=weights)


def _fitted_weights(
    tracks: np.ndarray, rotations: np.ndarray, translations: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Joints (V, 4) and weights (V, 4): convex, least squares over all frames."""
    num_bones = rotations.shape[1]
    parts = []
    for start in range(0, tracks.shape[1], CHUNK):
        target = tracks[:, start : start + CHUNK]
        moved = np.einsum("tbij,vj->vbti", rotations, target[0]) + translations.transpose(1, 0, 2)
        # From the vertex's own way: a convex sum of these differences is the error itself.
        apart = (moved - target.transpose(1, 0, 2)[:, None]).reshape(target.shape[1], num_bones, -1)
        parts.append(_convex(apart))
    joints, weights = (np.concatenate(column) for column in zip(*parts, strict=True))
    missing = MAX_WEIGHTS - joints.shape[1]
    return np.pad(joints, ((0, 0), (0, missing))), np.pad(weights, ((0, 0), (0, missing)))


def _convex(apart: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each row of (n, B, d) up to four of the B vectors and convex weights whose sum is short.

    The vectors are chosen one by one, each the one towards which a step shortens the sum most (Frank and Wolfe with the
    best step); the weights of the chosen are then exact: all subsets are solved and the best admissible is taken.
    """
    count, num_bones = apart.shape[:2]
    rows, num_chosen = np.arange(count), min(MAX_WEIGHTS, num_bones)
    chosen = np.zeros((count, num_chosen), np.int64)
    chosen[:, 0] = (apart**2).sum(axis=2).argmin(axis=1)
    now = apart[rows, chosen[:, 0]]
    for place in range(1, num_chosen):
        step = apart - now[:, None]
        length = np.maximum((step**2).sum(axis=2), 1e-30)
        share = np.clip(-(now[:, None] * step).sum(axis=2) / length, 0.0, 1.0)
        short = ((now[:, None] + share[..., None] * step) ** 2).sum(axis=2)
        np.put_along_axis(short, chosen[:, :place], np.inf, axis=1)
        chosen[:, place] = short.argmin(axis=1)
        now = now + share[rows, chosen[:, place], None] * step[rows, chosen[:, place]]
    picked = apart[rows[:, None], chosen]
    gram = np.einsum("nad,nbd->nab", picked, picked)
    scale = np.maximum(np.trace(gram, axis1=1, axis2=2), 1e-30)
    gram = gram / scale[:, None, None]
    best, weights = np.full(count, np.inf), np.zeros((count, num_chosen))
    for size in range(1, num_chosen + 1):
        for subset in combinations(range(num_chosen), size):
            part = gram[:, subset][:, :, subset] + 1e-9 * np.eye(size)
            solved = np.linalg.solve(part, np.ones((count, size, 1)))[..., 0]
            solved = solved / solved.sum(axis=1, keepdims=True)
            error = np.einsum("na,nab,nb->n", solved, part, solved)
            better = (solved >= 0).all(axis=1) & (error < best)
            best[better] = error[better]
            weights[better] = 0.0
            weights[np.ix_(better, subset)] = solved[better]
    weights[weights < LEAST_WEIGHT] = 0.0
    return chosen, weights / weights.sum(axis=1, keepdims=True)
