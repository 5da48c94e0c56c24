"""The surface as a graph: welded vertices, edges, and nodes spread evenly over it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix, csr_matrix
from scipy.sparse.csgraph import connected_components, dijkstra
from scipy.spatial import cKDTree

WELD_TOLERANCE = 1e-5
"""Vertices that are nearer than this, in the clip's space, are one: files split vertices where textures have seams."""
NUM_BRIDGES = 6
"""Links from each separate piece of a mesh to the vertices around it."""


@dataclass(frozen=True, kw_only=True)
class Welded:
    """Vertices with those at equal places made one."""

    positions: NDArray[np.float64]
    """(W, 3)."""
    of_vertex: NDArray[np.int64]
    """(V,): for each vertex, its welded one."""


def weld(vertices: np.ndarray, tolerance: float = WELD_TOLERANCE) -> Welded:
    """Join vertices at equal places. `vertices`: shape (V, 3)."""
    cells = np.round(vertices.astype(np.float64) / tolerance).astype(np.int64)
    _, first, of_vertex = np.unique(cells, axis=0, return_index=True, return_inverse=True)
    return Welded(positions=vertices[first].astype(np.float64), of_vertex=of_vertex.reshape(-1))


def edges_of(faces: np.ndarray) -> NDArray[np.int64]:
    """Each edge of triangles once, lower index first. Shape (E, 2); edges of no length are left out."""
    pairs = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]).astype(np.int64)
    pairs = np.sort(pairs, axis=1)
    found: NDArray[np.int64] = np.unique(pairs[pairs[:, 0] != pairs[:, 1]], axis=0)
    return found


def nearest_edges(positions: np.ndarray, count: int) -> NDArray[np.int64]:
    """Each point's nearest `count` others as edges, each once. Shape (E, 2)."""
    count = min(count, len(positions) - 1)
    if count < 1:
        return np.zeros((0, 2), dtype=np.int64)
    _, found = cKDTree(positions).query(positions, k=count + 1)
    pairs = np.stack([np.repeat(np.arange(len(positions)), count + 1), found.reshape(-1)], axis=1)
    return edges_of(pairs[:, [0, 1, 1]])


def bridged(positions: np.ndarray, edges: np.ndarray) -> NDArray[np.int64]:
    """The edges and, for each separate piece, links to the nearest points of other pieces: eyes stay in their head.

    Args:
        positions: Shape (P, 3).
        edges: Shape (E, 2).
    """
    edges = edges.astype(np.int64)
    while True:
        num_pieces, piece = connected_components(_graph(positions, edges), directed=False)
        if num_pieces < 2:
            return edges
        # Two pieces that are each other's nearest are one by then, but may still be apart from the rest.
        links = [_links(positions, piece == number) for number in range(num_pieces)]
        edges = edges_of(np.concatenate([edges, *links])[:, [0, 1, 1]])


def _links(positions: np.ndarray, is_inside: np.ndarray) -> NDArray[np.int64]:
    inside, outside = np.flatnonzero(is_inside), np.flatnonzero(~is_inside)
    distance, found = cKDTree(positions[outside]).query(positions[inside])
    nearest = np.argsort(distance, kind="stable")[:NUM_BRIDGES]
    return np.stack([inside[nearest], outside[found[nearest]]], axis=1)


@dataclass(frozen=True, kw_only=True)
class Nodes:
    """M nodes on a surface, and how points follow them."""

    indices: NDArray[np.int64]
    """(M,): the point that each node is."""
    of_point: NDArray[np.int64]
    """(P, K): the nodes that each point follows."""
    weights: NDArray[np.float64]
    """(P, K), sum 1."""
    edges: NDArray[np.int64]
    """(E, 2): nodes that some point follows together."""


def spread_nodes(positions: np.ndarray, edges: np.ndarray, num_nodes: int, num_followed: int = 4) -> Nodes:
    """Nodes as far from each other as can be along the surface, and weights of the points (Sumner et al. 2007, eq. 4).

    Along the surface and not through the air: a hand that rests on a thigh does not follow the thigh.

    Args:
        positions: Shape (P, 3).
        edges: Shape (E, 2), of a graph that hangs together: see `bridged`.
        num_nodes: At most.
        num_followed: Nodes that a point follows.
    """
    graph = _graph(positions, edges)
    num_nodes = min(num_nodes, len(positions))
    chosen = [int(np.argmax(np.linalg.norm(positions - positions.mean(axis=0), axis=1)))]
    rows = [dijkstra(graph, directed=False, indices=chosen[0])]
    nearest = rows[0].copy()
    while len(chosen) < num_nodes:
        chosen.append(int(np.argmax(nearest)))
        rows.append(dijkstra(graph, directed=False, indices=chosen[-1]))
        np.minimum(nearest, rows[-1], out=nearest)
    distance = np.stack(rows, axis=1)
    count = min(num_followed, num_nodes)
    order = np.argsort(distance, axis=1, kind="stable")[:, : count + 1]
    sorted_distance = np.take_along_axis(distance, order, axis=1)
    reach = sorted_distance[:, -1:] * (1.0 if num_nodes > count else 2.0) + 1e-9
    weights = np.square(np.clip(1 - sorted_distance[:, :count] / reach, 1e-4, 1.0))
    of_point = order[:, :count]
    pairs = [of_point[:, [a, b, b]] for a in range(count) for b in range(a + 1, count)]
    node_edges = edges_of(np.concatenate(pairs)) if pairs else np.zeros((0, 2), dtype=np.int64)
    return Nodes(
        indices=np.array(chosen, dtype=np.int64),
        of_point=of_point.astype(np.int64),
        weights=weights / weights.sum(axis=1, keepdims=True),
        edges=node_edges,
    )


def _graph(positions: np.ndarray, edges: np.ndarray) -> csr_matrix:
    lengths = np.linalg.norm(positions[edges[:, 0]] - positions[edges[:, 1]], axis=1)
    size = len(positions)
    return coo_matrix((np.maximum(lengths, 1e-9), (edges[:, 0], edges[:, 1])), shape=(size, size)).tocsr()
