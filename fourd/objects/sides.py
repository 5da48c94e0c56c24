"""Surfaces that are seen from one side only (glTF 2.0, section 3.9.6: `doubleSided`)."""

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components


def hides_its_back(vertices: np.ndarray, faces: np.ndarray, is_single_sided: np.ndarray) -> NDArray[np.bool_]:
    """Faces through whose back a camera sees what is behind: fins, capes, and shells that are turned inside out.

    Backs of a closed surface are never seen, so its faces do not count.

    Args:
        vertices: Shape (V, 3), equal places welded.
        faces: Shape (F, 3), counter-clockwise from the side that is seen.
        is_single_sided: Of the faces' materials, shape (F,).

    Returns:
        Shape (F,).
    """
    if not is_single_sided.any():
        return np.zeros(len(faces), dtype=bool)
    ends = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]).astype(np.int64)
    owner = np.tile(np.arange(len(faces)), 3)
    graph = coo_matrix((np.ones(len(ends)), (ends[:, 0], ends[:, 1])), shape=(len(vertices), len(vertices)))
    num_pieces, of_vertex = connected_components(graph, directed=False)
    piece = of_vertex[faces[:, 0]]
    # Of a closed surface, each edge is gone along in both directions.
    has_length = ends[:, 0] != ends[:, 1]
    there = ends[has_length, 0] * len(vertices) + ends[has_length, 1]
    back = ends[has_length, 1] * len(vertices) + ends[has_length, 0]
    is_loose = ~np.isin(back, there)
    is_open = np.zeros(num_pieces, dtype=bool)
    is_open[piece[owner[has_length][is_loose]]] = True
    corners = vertices[faces].astype(np.float64)
    volumes = np.einsum("fi,fi->f", corners[:, 0], np.cross(corners[:, 1], corners[:, 2]))
    is_inside_out = np.bincount(piece, weights=volumes, minlength=num_pieces) < 0
    return np.asarray(is_single_sided & (is_open | is_inside_out)[piece])
