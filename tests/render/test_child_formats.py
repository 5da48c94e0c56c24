"""The real Blender child on .blend, FBX, USD and Alembic files, which Blender itself writes first."""

from pathlib import Path

import numpy as np
import pytest

from tests.render.blender_files import INTRUSION
from tests.render.blender_process import BlenderProcess, Failed, colour, make_files, picture, view

pytestmark = pytest.mark.blender

TIMES_S = [0.0, 0.25, 0.5, 0.75]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("files")
    make_files("tests.render.blender_files", path)
    (path / INTRUSION).unlink(missing_ok=True)  # Blender evaluated the driver while it made the file
    return path


def test_no_script_of_a_file_ever_runs(blender: BlenderProcess, folder: Path, tmp_path: Path) -> None:
    assert [entry.name for entry in blender.load(folder / "scripted.blend").actions] == ["trap_hop_1"]
    blender.measure(0, TIMES_S)
    blender.draw(tmp_path, 0, TIMES_S[:1], [view(0)])
    assert not (folder / INTRUSION).exists()


def test_each_action_of_a_pack_plays_on_the_armature_whose_bones_it_moves(
    blender: BlenderProcess, folder: Path
) -> None:
    loaded = blender.load(folder / "action_pack.blend")
    assert sorted(entry.name for entry in loaded.actions) == ["fall", "jump", "nod"]
    assert loaded.num_objects == 1, "neither bone shapes nor hidden objects are drawn"
    ways = {
        entry.name: [blender.measure(entry.index, [time_s]).box_min[2] for time_s in (0.0, 1.0)]
        for entry in loaded.actions
    }
    climbs = {name: end - start for name, (start, end) in ways.items()}
    assert climbs == pytest.approx({"nod": 1.0, "jump": 2.0, "fall": -3.0}, abs=1e-4)


def test_a_pack_is_at_rest_where_an_action_says_nothing(blender: BlenderProcess, folder: Path) -> None:
    """The file was saved with the scale that the last action left behind."""
    for entry in blender.load(folder / "action_pack.blend").actions:
        size = np.ptp(
            np.array([blender.measure(entry.index, [0.0]).box_min, blender.measure(entry.index, [0.0]).box_max]), axis=0
        )
        assert size == pytest.approx([2.0 if entry.name == "fall" else 1.0] * 3, abs=1e-4)


def test_actions_that_are_active_together_are_one_animation(blender: BlenderProcess, folder: Path) -> None:
    loaded = blender.load(folder / "together.blend")
    assert [(entry.name, entry.end_s) for entry in loaded.actions] == [
        ("first_hop_1 and 1 more", 2.0),
        ("first_hop_5", 1.0),
    ]
    both, alone = blender.measure(0, [1.0]), blender.measure(1, [1.0])
    assert both.box_max[2] == pytest.approx(1.5, abs=1e-4)
    assert both.box_min[2] == pytest.approx(0.5, abs=1e-4)
    assert alone.box_max[2] == pytest.approx(5.5, abs=1e-4)


def test_an_object_is_there_when_a_render_would_show_it(blender: BlenderProcess, folder: Path, tmp_path: Path) -> None:
    blender.load(folder / "coming_into_sight.blend")
    early, late = blender.measure(0, [0.25]), blender.measure(0, [0.75])
    assert early.box_min[0] == pytest.approx(2.5, abs=1e-4)
    assert late.box_min[0] == pytest.approx(-0.5, abs=1e-4)
    assert late.box_max[0] == pytest.approx(3.5, abs=1e-4)
    assert blender.draw(tmp_path, 0, [0.25, 0.75], [view(0)]).outside_px == 0.0
    covered = [picture(tmp_path, "v000", frame)[..., 3].sum() for frame in range(2)]
    assert covered[1] == pytest.approx(2 * covered[0], rel=0.2)


def test_vertex_colours_are_shown_where_there_is_no_material(
    blender: BlenderProcess, folder: Path, tmp_path: Path
) -> None:
    blender.load(folder / "vertex_colours.blend")
    blender.draw(tmp_path, 0, [0.0], [view(0)])
    red, green, blue = colour(picture(tmp_path, "v000"))
    assert green > 0.4
    assert green > 3 * max(red, blue)


def test_vertices_that_come_and_go_are_measured_by_their_boxes(
    blender: BlenderProcess, folder: Path, tmp_path: Path
) -> None:
    assert blender.load(folder / "coming_and_going.blend").actions
    measured = blender.measure(0, TIMES_S)
    assert measured.finite
    assert measured.max_stretch == 1.0
    assert measured.box_max[0] - measured.box_min[0] == pytest.approx(4.0, abs=0.01)
    assert 0.1 < measured.motion_mean < 1.0
    drawn = blender.draw(tmp_path, 0, TIMES_S, [view(0)])
    covered = [picture(tmp_path, "v000", frame)[..., 3].sum() for frame in range(4)]
    assert drawn.outside_px == 0.0
    assert covered[0] < covered[1] < covered[3]


def test_nothing_of_the_files_scene_gets_into_the_picture(
    blender: BlenderProcess, folder: Path, tmp_path: Path
) -> None:
    blender.load(folder / "busy_scene.blend")
    blender.draw(tmp_path, 0, TIMES_S, [view(0)])
    image = picture(tmp_path, "v000")
    assert image.shape == (48, 48, 4)
    assert image[0, 0, 3] == 0.0
    assert np.ptp(colour(image)) < 0.02
    assert 0.2 < colour(image).mean() < 0.9
    assert not (folder / "composited").exists()


@pytest.mark.parametrize("suffix", ["abc", "usdc"])
def test_what_is_sampled_in_time_is_one_timeline(blender: BlenderProcess, folder: Path, suffix: str) -> None:
    loaded = blender.load(folder / f"cached.{suffix}")
    assert [entry.name for entry in loaded.actions] == ["timeline"]
    action = loaded.actions[0]
    assert action.end_s - action.start_s == pytest.approx(1.0, abs=0.05)
    ends = [blender.measure(0, [time_s]) for time_s in (action.start_s, action.end_s)]
    assert [end.box_max[2] for end in ends] == pytest.approx([0.5, 2.5], abs=0.02)
    assert blender.measure(0, [(action.start_s + action.end_s) / 2]).motion_mean == 0.0
    assert blender.measure(0, [action.start_s, action.end_s]).motion_mean > 0.1


def test_an_fbx_take_moves_all_its_objects(blender: BlenderProcess, folder: Path) -> None:
    loaded = blender.load(folder / "takes.fbx")
    assert len(loaded.actions) == 1
    action = loaded.actions[0]
    start, end = blender.measure(0, [action.start_s]), blender.measure(0, [action.end_s])
    assert (start.box_max[2], end.box_max[2]) == pytest.approx((0.5, 3.5), abs=0.02)
    assert end.box_min[2] == pytest.approx(0.5, abs=0.02)


def test_a_library_outside_the_folder_is_refused(blender: BlenderProcess, folder: Path) -> None:
    with pytest.raises(Failed, match="unsafe_uri"):
        blender.load(folder / "inside" / "linking.blend")
