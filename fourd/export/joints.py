"""How the bones of a fitted skeleton hang together: parents, and the points where they turn about each other."""

from dataclasses import dataclass, replace

import numpy as np
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components, depth_first_order, minimum_spanning_tree, shortest_path
from scipy.spatial import cKDTree

from fourd.export.skeleton import MAX_BONES, Skeleton
from fourd.objects.sampling import face_normals
from fourd.objects.static import bounding_radius

SHARED_FLOOR = 1e-3
"""Of the smaller bone's surface: what two bones that share nothing count as sharing."""
CLOSENESS = 0.05
"""Of the radius: so much of a gap, or of a joint that comes apart, counts as e times less that is shared."""
PULL = 0.01
"""How strongly a joint is drawn to where its bones meet: as much as a turn of a tenth of a radian holds it."""
PART_GAP = 0.05
"""Of the radius, or thrice what vertices are apart: parts of a bone's surface with more between them lie apart."""
PART_SHARE = 0.001
"""Of all surface: smaller parts make no bone of their own."""
SAMPLES = 30_000
"""Vertices by which gaps between bones are measured."""


@dataclass(frozen=True, kw_only=True)
class Hierarchy:
    """A tree of B bones, parents before children."""

    parents: np.ndarray
    """(B,); -1 for the first, which is the root."""
    heads: np.ndarray
    """(B, 3): where a bone turns about its parent, at rest; of the root, the middle of its surface."""
    tails: np.ndarray
    """(B, 3): where it points to: the middle of its children's heads, or of its own surface where it has none."""
    apart: np.ndarray
    """(B,): how far a bone's head and the same point of its parent come apart, root mean square over the frames."""


def hang_together(skeleton: Skeleton, vertices: np.ndarray, faces: np.ndarray) -> tuple[Skeleton, Hierarchy]:
    """Give bones that stand beside each other parents, joints and an order; the motion stays as it is.

    A bone that holds parts of the surface which lie apart, such as both feet that stand still, becomes one for each.

    A joint is the point that both of its bones carry to the same places, by least squares over all frames, drawn a
    little to where both hold the surface (as Le and Deng 2014, Robust and Accurate Skeletal Rigging from Mesh
    Sequences, place joints). The tree is the spanning tree that joins the bones which share most of the surface
    (Schaefer and Yuksel 2007, Example-Based Skeleton Extraction), lie next to each other, and whose joints hold. The
    root is the bone that all surface is fewest joints away from.

    Args:
        skeleton: B bones; those that no vertex follows are dropped.
        vertices: At rest, shape (V, 3), float64.
        faces: Shape (F, 3); of a cloud of points (0, 3).

    Returns:
        The skeleton with its bones in the order of the tree, and the tree.
    """
    radius = bounding_radius(vertices)
    areas = _vertex_areas(vertices, faces)
    skeleton, weights = _without_idle(_parted(skeleton, vertices, faces, areas))
    held = csr_matrix(weights.multiply(areas[:, None]))
    mass = np.asarray(held.sum(axis=0)).ravel()
    middles = (held.T @ vertices) / mass[:, None]
    shared, meeting, gaps = _contacts(weights, held, vertices, mass)
    joints, apart = _joints(skeleton, meeting)
    share = shared / np.minimum(mass[:, None], mass[None])
    cost = (gaps + apart) / (CLOSENESS * radius) - np.log(share + SHARED_FLOOR)
    order, parents = _tree(cost, mass)
    place = np.argsort(order)
    above = np.array([-1 if parent < 0 else int(place[parent]) for parent in parents[order]])
    heads = np.where(above[:, None] < 0, middles[order], joints[order, parents[order]])
    children = [heads[above == bone] for bone in range(len(order))]
    tails = [mine.mean(axis=0) if len(mine) else middles[order[bone]] for bone, mine in enumerate(children)]
    arranged = replace(
        skeleton,
        rotations=skeleton.rotations[:, order],
        translations=skeleton.translations[:, order],
        joints=np.where(skeleton.weights > 0, place[skeleton.joints], 0),
    )
    hierarchy = Hierarchy(
        parents=above, heads=heads, tails=np.stack(tails),
        apart=np.where(above < 0, 0.0, apart[order, parents[order]]),
    )  # fmt: skip
    return arranged, hierarchy


def _vertex_areas(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """A third of the area of each vertex's triangles, (V,), above 0: a cloud of points has a tree too."""
    thirds = np.linalg.norm(face_normals(vertices, faces), axis=1) / 6
    areas = np.bincount(faces.ravel(), weights=np.repeat(thirds, 3), minlength=len(vertices))
    return areas + 1e-6 * max(float(areas.sum()), 1e-12) / len(areas)


def _parted(skeleton: Skeleton, vertices: np.ndarray, faces: np.ndarray, areas: np.ndarray) -> Skeleton:
    """The same motion with a bone for each part of a bone's surface that lies apart from its others."""
    spacing = float(np.median(cKDTree(vertices).query(vertices, k=2)[0][:, 1]))
    gap = max(PART_GAP * bounding_radius(vertices), 3 * spacing)
    num_bones = skeleton.rotations.shape[1]
    joints, mine = skeleton.joints.copy(), [*range(num_bones)]
    first = skeleton.joints[np.arange(len(vertices)), skeleton.weights.argmax(axis=1)]
    for bone in range(num_bones):
        held = np.flatnonzero(first == bone)
        if not len(held):
            continue
        part = _parts(vertices[held], _within(faces, held, len(vertices)), gap)
        sizes = np.bincount(part, weights=areas[held])
        # Small parts go with the large one next to them.
        large = [number for number in np.argsort(-sizes, kind="stable") if sizes[number] >= PART_SHARE * areas.sum()]
        for number in large[1 : 1 + MAX_BONES - len(mine)]:
            near = cKDTree(vertices[held[part == number]])
            other = cKDTree(vertices[held[np.isin(part, large) & (part != number)]])
            rows, columns = np.nonzero(skeleton.joints == bone)
            at = vertices[rows]
            theirs = near.query(at)[0] < other.query(at)[0]
            joints[rows[theirs], columns[theirs]] = len(mine)
            mine.append(bone)
    return replace(
        skeleton, rotations=skeleton.rotations[:, mine], translations=skeleton.translations[:, mine], joints=joints
    )


def _within(faces: np.ndarray, held: np.ndarray, num_vertices: int) -> np.ndarray:
    """Edges (E, 2) of faces between some vertices, by their places among these."""
    place = np.full(num_vertices, -1)
    place[held] = np.arange(len(held))
    edges = place[np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]]])]
    return edges[(edges >= 0).all(axis=1)]


def _parts(points: np.ndarray, edges: np.ndarray, gap: float) -> np.ndarray:
    """Which part each point belongs to, (n,): points are together along edges, and in cells that touch."""
    cells, cell = np.unique(np.floor(points / gap).astype(np.int64), axis=0, return_inverse=True)
    touching = cKDTree(cells).query_pairs(1.8, output_type="ndarray")
    rows = np.concatenate([edges[:, 0], np.arange(len(points)), touching[:, 0] + len(points)])
    columns = np.concatenate([edges[:, 1], cell.ravel() + len(points), touching[:, 1] + len(points)])
    size = len(points) + len(cells)
    graph = csr_matrix((np.ones(len(rows)), (rows, columns)), shape=(size, size))
    found: np.ndarray = connected_components(graph, directed=False)[1][: len(points)]
    return np.unique(found, return_inverse=True)[1].ravel()


def _without_idle(skeleton: Skeleton) -> tuple[Skeleton, csr_matrix]:
    """Bones that some vertex follows, and the weights as a matrix (V, B)."""
    rows, columns = np.nonzero(skeleton.weights)
    bones, place = np.unique(skeleton.joints[rows, columns], return_inverse=True)
    joints = np.zeros_like(skeleton.joints)
    joints[rows, columns] = place
    kept = replace(
        skeleton,
        rotations=skeleton.rotations[:, bones],
        translations=skeleton.translations[:, bones],
        joints=joints,
    )
    entries = (skeleton.weights[rows, columns], (rows, place))
    return kept, csr_matrix(entries, shape=(len(skeleton.weights), len(bones)))


def _contacts(
    weights: csr_matrix, held: csr_matrix, vertices: np.ndarray, mass: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What pairs of bones share of the surface (B, B), where they meet (B, B, 3), and how wide apart they are (B, B).

    They meet in the middle of what they share, weighted by both; where that is little, between their nearest vertices.
    """
    num_bones = weights.shape[1]
    shared = (held.T @ weights).toarray()
    moments = np.stack([(held.multiply(x[:, None]).T @ weights).toarray() for x in vertices.T], axis=-1)
    rng = np.random.default_rng(0)
    regions = []
    for column in weights.T.tocsr():
        mine = column.indices[column.data >= 0.5 * column.data.max()]
        count = min(len(mine), max(16, SAMPLES // num_bones))
        regions.append(vertices[np.sort(rng.choice(mine, count, replace=False))])
    sizes = np.array([len(region) for region in regions])
    starts, points = np.cumsum(sizes) - sizes, np.concatenate(regions)
    gaps, between = np.zeros((num_bones, num_bones)), np.zeros((num_bones, num_bones, 3))
    for bone, region in enumerate(regions):
        distance, nearest = cKDTree(region).query(points)
        closest = [
            start + int(distance[start : start + size].argmin()) for start, size in zip(starts, sizes, strict=True)
        ]
        gaps[bone] = distance[closest]
        between[bone] = (points[closest] + region[nearest[closest]]) / 2
    floor = SHARED_FLOOR * np.minimum(mass[:, None], mass[None])
    meeting = (moments + floor[..., None] * between) / (shared + floor)[..., None]
    return shared, meeting, gaps


def _joints(skeleton: Skeleton, meeting: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each pair of bones the point that both carry alike (B, B, 3), and how far it comes apart (B, B), rms.

    Least mean over frames of |(R - R') c + t - t'|^2, plus `PULL` times the squared distance from where they meet.
    """
    num_frames, num_bones = skeleton.translations.shape[:2]
    moves = np.concatenate([skeleton.rotations, skeleton.translations[..., None]], axis=-1)
    rows = moves.transpose(0, 2, 1, 3).reshape(3 * num_frames, 4 * num_bones)
    products = (rows.T @ rows / num_frames).reshape(num_bones, 4, num_bones, 4).transpose(0, 2, 1, 3)
    own = products[np.arange(num_bones), np.arange(num_bones)]
    # The error of a point (c, 1) is this quadratic form.
    form = own[:, None] + own[None] - products - products.swapaxes(-1, -2)
    right = PULL * meeting - form[..., :3, 3]
    joints = np.linalg.solve(form[..., :3, :3] + PULL * np.eye(3), right[..., None])[..., 0]
    points = np.concatenate([joints, np.ones((num_bones, num_bones, 1))], axis=-1)
    squared = np.einsum("abi,abij,abj->ab", points, form, points)
    return joints, np.sqrt(np.maximum(squared, 0.0))


def _tree(cost: np.ndarray, mass: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bones with parents before children, and each bone's parent, -1 for the root; by bone."""
    # Of a matrix, zeros are no edges: all costs are brought above it, which changes no tree.
    above = cost - cost.min() + 1.0
    np.fill_diagonal(above, 0.0)
    tree = minimum_spanning_tree(above)
    steps = shortest_path(tree, directed=False, unweighted=True)
    root = int(np.lexsort((-mass, steps @ mass))[0])
    order, parents = depth_first_order(tree, root, directed=False)
    return order, np.where(np.arange(len(mass)) == root, -1, parents)
