"""Particles, cloth and soft bodies in the real child."""

import itertools
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pipeline.records import Rejected
from pipeline.storage import Store
from pipeline.truth_media import PASSES
from render.draw import Render
from render.probe import ProbeAsset
from render.protocol import Measured
from render.truth import CORRESPONDING, GroundTruth
from tests.render.blender_process import BlenderProcess, Failed, make_files, picture, view
from tests.render.rows import asset_of
from tests.render.truth_examples import BLENDER, Example, made

pytestmark = pytest.mark.blender

TIMES_S = [0.0, 0.35, 0.7, 1.0]
"""Of the actions that begin at 0: the second one lies between two of Blender's frames."""
CUBE_RADII = (math.sqrt(3) / 2 + 0.5, math.sqrt(3) / 2 + 1.5)
"""At least of the sphere around the cube alone, over the hop of 1 m and of 3 m."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("simulated")
    make_files("tests.render.simulated_files", path)
    return path


@pytest.fixture(scope="module")
def another(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BlenderProcess]:
    process = BlenderProcess(tmp_path_factory.mktemp("log") / "another.log", threads=2)
    yield process
    process.close()


def drawn(blender: BlenderProcess, out: Path, action: int, times_s: list[float] = TIMES_S) -> tuple[float, list[bytes]]:
    """The radius of an action, and two views of it: the bytes of all pictures."""
    told = blender.draw(out, action, times_s, [view(30, 20, name="a"), view(200, 5, name="b")], size_px=40)
    assert told.outside_px == 0.0
    return 1 / told.world_scale, [path.read_bytes() for path in sorted(out.glob("*.png"))]


def measured(blender: BlenderProcess, action: int) -> Measured:
    return blender.measure(action, TIMES_S)


@pytest.mark.parametrize(
    "name", ["fountain", "snow", "swarm", "brood", "nested", "flag", "hung", "pudding", "whiskers", "tufts"]
)
def test_pictures_do_not_depend_on_what_was_drawn_before_or_by_whom(
    blender: BlenderProcess, another: BlenderProcess, folder: Path, tmp_path: Path, name: str
) -> None:
    path = folder / f"{name}.blend"
    actions = [action.index for action in blender.load(path).actions]
    first = {action: (drawn(blender, tmp_path, action), measured(blender, action)) for action in actions}
    assert all(len(set(pictures)) == len(pictures) for (_, pictures), _ in first.values())
    another.load(folder / "school.blend")
    another.measure(0, [1.0, 0.5])
    another.load(path)
    for action in reversed(actions):
        measured(another, action)
        drawn(another, tmp_path, action, [0.9, 0.2])
    for action in reversed(actions):
        assert (drawn(another, tmp_path, action), measured(another, action)) == first[action]
    if len(actions) == 2:
        assert first[0][0][1] != first[1][0][1]


def alphas(out: Path, frame: int) -> np.ndarray:
    """Of both views, shape (view, height, width)."""
    return np.stack([picture(out, name, frame)[..., 3] for name in "ab"])


@pytest.mark.parametrize("name", ["fountain", "snow", "brood", "nested", "far_off"])
def test_particles_are_drawn_and_framed_in_each_action(
    blender: BlenderProcess, folder: Path, tmp_path: Path, name: str
) -> None:
    blender.load(folder / f"{name}.blend")
    radii = []
    for action in (0, 1):
        radii.append(drawn(blender, tmp_path, action)[0])
        for frame in range(len(TIMES_S)):
            edges = alphas(tmp_path, frame)
            assert max(edges[:, [0, -1]].max(), edges[:, :, [0, -1]].max()) < 0.5
        covered = [(alphas(tmp_path, frame) > 0.02).sum() for frame in range(len(TIMES_S))]
        assert covered[-1] > 1.2 * covered[0]  # they come out of the cube
        box = np.array([measured(blender, action).box_min, measured(blender, action).box_max])
        assert box[0, 2] < -1.0  # far below the cube
        assert np.linalg.norm(np.ptp(box, axis=0)) / 2 >= radii[-1] - 1e-3
    assert radii[0] > 1.5 * CUBE_RADII[0]
    assert radii[1] > radii[0] + 0.3


def test_particles_do_not_count_as_motion(blender: BlenderProcess, folder: Path) -> None:
    found = {}
    for name in ("patient", "fountain", "snow"):
        loaded = blender.load(folder / f"{name}.blend")
        assert (loaded.num_objects, loaded.num_vertices) == (1, 8)
        found[name] = measured(blender, 1)
    for measure in found.values():
        assert measure.motion_p95 == pytest.approx(3 / math.sqrt(3) * TIMES_S[-1])
        assert measure.rigid_share == pytest.approx(1.0)
        assert measure.motion_id == found["fountain"].motion_id
        assert measure.rest_diagonal == pytest.approx(math.sqrt(3))


def test_what_hair_carries_stays_and_counts(blender: BlenderProcess, folder: Path) -> None:
    loaded = blender.load(folder / "tufts.blend")
    assert loaded.num_objects == 11
    assert measured(blender, 0).rigid_share == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize("name", ["flag", "hung", "pudding"])
def test_cloth_and_soft_bodies_move_by_themselves(blender: BlenderProcess, folder: Path, name: str) -> None:
    loaded = blender.load(folder / f"{name}.blend")
    if name == "flag":
        assert [(action.name, action.end_s) for action in loaded.actions] == [("timeline", pytest.approx(250 / 24))]
    found = measured(blender, 0)
    assert found.motion_p95 > 0.1
    assert found.rigid_share < 0.9
    assert found.max_stretch < 3.0


@pytest.mark.parametrize(("name", "number"), [("million", 1_000_000), ("offspring", 1_000_100)])
def test_hosts_of_particles_are_refused(blender: BlenderProcess, folder: Path, name: str, number: int) -> None:
    with pytest.raises(Failed, match=f"too_complex: {number} particles, the limit is 20000"):
        blender.load(folder / f"{name}.blend")


def test_what_would_take_too_long_to_simulate_costs_its_action_alone(blender: BlenderProcess, folder: Path) -> None:
    blender.load(folder / "patient.blend")
    with pytest.raises(Failed, match="too_complex: a simulation over 14425 frames"):
        blender.measure(0, [600.0, 601.0])
    assert measured(blender, 1).finite
    blender.load(folder / "carpet.blend")
    with pytest.raises(Failed, match="too_complex: 45300500 vertices times steps of cloth"):
        measured(blender, 0)


# Ground truth


@pytest.fixture(scope="module")
def close_blender() -> Iterator[None]:
    yield
    Render(data="/nowhere", blender=BLENDER).close()
    GroundTruth(data="/nowhere", passes=("depth",)).close()


def example(folder: Path, tmp_path: Path, name: str) -> Example:
    store = Store(str(tmp_path / "data"))
    content = (folder / f"{name}.blend").read_bytes()
    return made(store, asset_of(store, content, suffix="blend", name=name), "ortho4")


def test_particles_that_stay_have_all_passes(folder: Path, tmp_path: Path, close_blender: None) -> None:
    found = example(folder, tmp_path, "school")
    assert set(found.truth) == set(PASSES)
    assert not found.rejected
    assert found.truth["depth"].mask_iou > 0.75  # of a cube and balls of a few pixels
    names = found.truth["object"].names
    assert names[0] == "cube"
    assert len(set(names)) == len(names) == 8
    assert all(name.startswith("ball of cube spray ") for name in names[1:])
    tracks = found.tracks()
    for number in range(1, 8):
        vertices = np.unique(tracks.triangles[tracks.objects == number])
        way = np.diff(tracks.positions[:, vertices].mean(axis=1), axis=0)
        # Each goes straight on but for what falls, in steps of equal length: no ball is taken for another.
        assert np.abs(np.diff(way[:, :2], axis=0)).max() < 1e-3
        assert np.ptp(np.diff(way[:, 2])) < 2e-3
        assert np.diff(way[:, 2]).max() < -1e-3


def test_where_particles_come_and_go_only_what_needs_to_follow_them_is_turned_away(
    folder: Path, tmp_path: Path, close_blender: None
) -> None:
    found = example(folder, tmp_path, "relay")
    assert {row.rejected_id.rpartition(":")[2] for row in found.rejected} == set(CORRESPONDING)
    assert {row.reason for row in found.rejected} == {"no_such_truth"}
    assert set(found.truth) == set(PASSES) - set(CORRESPONDING)
    assert found.truth["depth"].mask_iou > 0.75
    objects = [found.map("object", view) for view in range(4)]
    shown = [set(np.unique(np.stack([each[frame] for each in objects]))) - {0.0} for frame in range(4)]
    assert max(map(len, shown)) > 2
    for before, after in itertools.pairwise(shown):
        assert len({number for number in before & after if not np.isnan(number)}) <= 1  # the cube alone


def test_a_rejected_row_is_what_too_many_particles_leave(folder: Path, tmp_path: Path, close_blender: None) -> None:
    store = Store(str(tmp_path / "data"))
    asset = asset_of(store, (folder / "million.blend").read_bytes(), suffix="blend", name="million.blend")
    (row,) = ProbeAsset(data=store.root, blender=BLENDER).process(asset)
    assert isinstance(row, Rejected)
    assert (row.reason, row.detail) == ("too_complex", "1000000 particles, the limit is 20000")
