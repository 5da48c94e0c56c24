import numpy as np
from scipy.spatial import cKDTree

from fourd.objects.sampling import evenly_over, nearest_on_surface, spread_over


def sheet(size: float = 1.0, height: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    corners = np.array([[0, 0, height], [size, 0, height], [size, size, height], [0, size, height]])
    return corners, np.array([[0, 1, 2], [0, 2, 3]])


def test_even_points_leave_no_gaps_and_few_stand_next_to_another() -> None:
    vertices, faces = sheet()
    even, spread = (made(vertices, faces, 400, seed=0).at(vertices, faces) for made in (evenly_over, spread_over))
    grid = np.stack(np.meshgrid(np.linspace(0.02, 0.98, 60), np.linspace(0.02, 0.98, 60)), axis=-1).reshape(-1, 2)
    grid = np.concatenate([grid, np.zeros((len(grid), 1))], axis=1)

    def largest_gap(points: np.ndarray) -> float:
        return float(cKDTree(points).query(grid)[0].max())

    def near_others(points: np.ndarray) -> float:
        return float(np.quantile(cKDTree(points).query(points, k=2)[0][:, 1], 0.05))

    assert largest_gap(even) < 0.75 * largest_gap(spread)
    # Of a spacing of 0.05.
    assert near_others(even) > 0.5 * 0.05
    assert near_others(spread) < 0.2 * 0.05


def test_both_sides_of_a_sheet_get_points() -> None:
    vertices, faces = sheet()
    both = np.concatenate([faces, faces[:, ::-1]])
    points = evenly_over(vertices, both, 200, seed=0)
    assert 80 < (points.faces < 2).sum() < 120
    assert np.allclose(points.weights.sum(axis=1), 1)
    assert len(evenly_over(vertices, faces, 0, seed=0).faces) == 0


def test_nearest_points_of_a_surface_are_as_near_as_the_nearest_of_many_samples() -> None:
    rng = np.random.default_rng(0)
    # Triangles of very different sizes, some of them lines and points.
    sizes = 10.0 ** rng.uniform(-3, 0.5, 300)
    vertices = (rng.normal(size=(300, 1, 3)) + sizes[:, None, None] * rng.normal(size=(300, 3, 3))).reshape(-1, 3)
    faces = np.arange(900).reshape(-1, 3)
    vertices[3:6] = vertices[3]
    vertices[8] = vertices[7]
    points = 2 * rng.normal(size=(50, 3))
    found = nearest_on_surface(points, vertices, faces)
    assert np.allclose(found.weights.sum(axis=1), 1)
    assert found.weights.min() >= 0
    at = np.einsum("nc,nci->ni", found.weights, vertices[faces[found.faces]])
    assert np.allclose(np.linalg.norm(at - points, axis=1), found.distances)
    samples = rng.dirichlet([0.6, 0.6, 0.6], size=(len(faces), 400))
    near = np.einsum("fsc,fci->fsi", samples, vertices[faces]).reshape(-1, 3)
    sampled = cKDTree(np.concatenate([near, vertices])).query(points)[0]
    assert (found.distances <= sampled + 1e-12).all()
    assert np.median(sampled / found.distances) < 1.05


def test_points_of_a_surface_are_found_on_it() -> None:
    vertices, faces = sheet(3.0, 1.0)
    on_it = spread_over(vertices, faces, 100, seed=1)
    points = on_it.at(vertices, faces)
    found = nearest_on_surface(points, vertices, faces)
    assert found.distances.max() < 1e-12
    assert np.allclose(np.einsum("nc,nci->ni", found.weights, vertices[faces[found.faces]]), points)
