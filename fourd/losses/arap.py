"""As rigid as possible (Sorkine and Alexa 2007), in the form of SC-GS (Huang et al. 2024, arXiv:2312.14937)."""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from fourd.motion.rotations import best_rotation


@dataclass(frozen=True, kw_only=True)
class Neighbours:
    """For each of P points, its neighbours."""

    indices: Tensor
    """(P, K), int64; the point itself where it has fewer: an edge of no length costs nothing."""

    @classmethod
    def nearest(cls, points: Tensor, count: int) -> "Neighbours":
        """The `count` nearest of each point. `points`: shape (P, 3)."""
        found = np.zeros((len(points), 0), dtype=np.int64)
        count = min(count, len(points) - 1)
        if count > 0:
            places = points.detach().cpu().double().numpy()
            # Of points at one place any may come first; a point is no neighbour of its own.
            _, near = cKDTree(places).query(places, k=count + 1)
            is_own = near == np.arange(len(places))[:, None]
            is_own[~is_own.any(axis=1), -1] = True
            found = near[~is_own].reshape(len(places), count)
        return cls(indices=torch.as_tensor(found, dtype=torch.int64, device=points.device))

    @classmethod
    def of_edges(
        cls, edges: np.ndarray, num_points: int, *, at_most: int = 12, device: torch.device | str = "cpu"
    ) -> "Neighbours":
        """Those that edges lead to, the first `at_most` of each point.

        Args:
            edges: Shape (E, 2), each once.
            num_points: P.
            at_most: K, if some point has so many.
            device: Where they are wanted.
        """
        both = np.concatenate([edges, edges[:, ::-1]]) if len(edges) else np.zeros((0, 2), dtype=np.int64)
        both = both[np.argsort(both[:, 0], kind="stable")]
        degree = np.bincount(both[:, 0], minlength=num_points)
        place = np.arange(len(both)) - np.repeat(np.cumsum(degree) - degree, degree)
        width = min(at_most, int(degree.max(initial=0)))
        indices = np.repeat(np.arange(num_points)[:, None], width, axis=1)
        kept = place < width
        indices[both[kept, 0], place[kept]] = both[kept, 1]
        return cls(indices=torch.as_tensor(indices, dtype=torch.int64, device=device))


def arap_energy(
    rest: Tensor,
    moved: Tensor,
    neighbours: Neighbours,
    *,
    sample: Tensor | None = None,
    rotations: Tensor | None = None,
) -> Tensor:
    """Σ_j ‖(p'_i − p'_j) − R_i (p_i − p_j)‖² for each frame and point: 0 if all of it turns and shifts as one piece.

    R_i is the rotation that fits the point's edges best, of any rank: a flat patch that turns in its own plane, a line
    and a point without neighbours cost nothing. No point counts as unmoved for having one coordinate left as it was.

    Args:
        rest: p, shape (P, 3).
        moved: p', shape (F, P, 3).
        neighbours: Of all points.
        sample: Points i to look at, shape (S,); None is all.
        rotations: R_i if they are known, shape (F, S, 3, 3): the gradient goes through them then.

    Returns:
        Shape (F, S).
    """
    at = torch.arange(len(rest), device=rest.device) if sample is None else sample
    near = neighbours.indices[at]
    rest_edges = rest[at, None] - rest[near]
    # One index_select and not fancy indexing: its gradient is three times as fast.
    found = moved.index_select(1, near.reshape(-1)).unflatten(1, near.shape)
    edges = moved.index_select(1, at)[:, :, None] - found
    if rotations is None:
        rotations = best_rotation(torch.einsum("ska,fskb->fsab", rest_edges, edges.detach()))
    return (edges - torch.einsum("fsab,skb->fska", rotations, rest_edges)).square().sum(dim=(-2, -1))
