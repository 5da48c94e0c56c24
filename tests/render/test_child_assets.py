"""The real Blender child on real and on hostile assets."""

import csv
import filecmp
from pathlib import Path

import numpy as np
import pytest

from tests.render.blender_process import BlenderProcess, Failed, picture, view
from tests.render.gltf_reference import GltfReference

pytestmark = pytest.mark.blender

REFUSED = {
    "accessor_overrun.glb": "import_failed", "bad_json.gltf": "import_failed", "bad_length_header.glb": "import_failed",
    "deep_chain.glb": "import_failed", "empty_scene.gltf": "no_mesh", "html_404.glb": "import_failed",
    "image_bomb.glb": "image_bomb", "inf_positions.glb": "non_finite", "nan_positions.glb": "non_finite",
    "no_mesh.glb": "no_mesh",
    "node_cycle.glb": "import_failed", "truncated.glb": "import_failed", "zero_bytes.glb": "import_failed",
    "unknown_required_ext.glb": "unsupported_extension",
}  # fmt: skip
"""While loading."""
NOT_FINITE = {"nan_animation.glb"}
TOO_LONG = {"million_seconds.glb"}
SPECKS = {"leaves_frame.glb", "teleport_key.glb"}
"""They go so far that little is seen of them."""


def times_of(start_s: float, end_s: float, num: int = 4) -> list[float]:
    return [start_s + (end_s - start_s) * frame / num for frame in range(num)]


@pytest.mark.parametrize(
    "name",
    [
        "Horse.glb", "RobotExpressive.glb", "lumberjack.glb", "bird.glb", "boxman.glb", "KhronosFox.glb",
        "CesiumMan.glb", "morph-stress-test.glb", "character.glb", "Animation_NodeMisc_07/Animation_NodeMisc_07.gltf",
        "03_all_animations/03_all_animations.gltf", "06_parent-inverse-anim/06_parent-inverse-anim.gltf",
        "07_nla-anim/07_nla-anim.gltf",
    ],
)  # fmt: skip
def test_blender_puts_the_vertices_where_the_gltf_says(blender: BlenderProcess, real_assets: Path, name: str) -> None:
    reference = GltfReference(real_assets / name)
    actions = blender.load(real_assets / name).actions
    assert [action.name for action in actions] == reference.names
    for action in actions[:: max(1, len(actions) // 3)]:
        for share in (0.0, 0.37, 1.0):
            time_s = action.start_s + share * (action.end_s - action.start_s)
            points = reference.points(action.index, time_s)
            measured = blender.measure(action.index, [time_s])
            tolerance = 2e-3 * float(np.linalg.norm(np.ptp(points, axis=0)))
            assert measured.box_min == pytest.approx(points.min(axis=0), abs=tolerance)
            assert measured.box_max == pytest.approx(points.max(axis=0), abs=tolerance)


def test_every_gltf_lists_as_many_actions_as_it_has_animations(blender: BlenderProcess, real_assets: Path) -> None:
    with (real_assets / "catalog.csv").open() as file:
        rows = [
            row for row in csv.DictReader(file) if row["format"] in ("glb", "gltf") and "hostile" not in row["category"]
        ]
    for row in [row for row in rows if row["gltf_animations"] in {"0", "1", "2", "3", "4", "5", "34"}]:
        assert len(blender.load(real_assets / row["file"]).actions) == int(row["gltf_animations"]), row["file"]


def test_a_character_is_the_same_in_blend_and_in_glb(blender: BlenderProcess, real_assets: Path) -> None:
    boxes = []
    for name in ("boxman.glb", "boxman.blend"):
        actions = {action.name: action for action in blender.load(real_assets / name).actions}
        assert len(actions) >= 33
        run = actions["run"]
        measured = blender.measure(run.index, times_of(run.start_s, run.end_s))
        boxes.append([*measured.box_min, *measured.box_max])
    assert boxes[0] == pytest.approx(boxes[1], abs=0.05)


def test_what_was_drawn_before_decides_no_pixel(blender: BlenderProcess, real_assets: Path, tmp_path: Path) -> None:
    def draw(process: BlenderProcess, folder: Path) -> None:
        action = process.load(real_assets / "CesiumMan.glb").actions[0]
        process.draw(folder, 0, times_of(action.start_s, action.end_s, 2), [view(0, 15), view(90, 15)], denoise="fast")

    for name in ("koi.glb", "Cow.fbx"):
        blender.load(real_assets / name)
        blender.draw(tmp_path / "other", 0, [0.5], [view(0)], seed=3)
    draw(blender, tmp_path / "after")
    fresh = BlenderProcess(tmp_path / "log")
    draw(fresh, tmp_path / "fresh")
    assert fresh.close() == 0
    names = [path.name for path in (tmp_path / "fresh").iterdir()]
    assert len(names) == 4
    assert filecmp.cmpfiles(tmp_path / "fresh", tmp_path / "after", names, shallow=False)[0] == names


def hostile(folder: Path) -> list[Path]:
    return sorted((folder / "hostile").iterdir())


def test_hostile_files_that_cannot_be_opened_say_why(blender: BlenderProcess, real_assets: Path) -> None:
    for path in [path for path in hostile(real_assets) if path.name in REFUSED]:
        with pytest.raises(Failed) as failed:
            blender.load(path)
        assert failed.value.reason == REFUSED[path.name], path.name
        assert failed.value.detail


def test_hostile_files_that_can_be_opened_give_a_reason_or_a_picture(
    blender: BlenderProcess, real_assets: Path, tmp_path: Path
) -> None:
    for path in [path for path in hostile(real_assets) if path.name not in REFUSED]:
        action = blender.load(path).actions[0]
        times_s = times_of(action.start_s, action.end_s)
        if path.name in TOO_LONG:
            with pytest.raises(Failed, match="absurd_duration"):
                blender.draw(tmp_path, 0, times_s, [view(0)])
            continue
        assert blender.measure(0, times_s).finite == (path.name not in NOT_FINITE), path.name
        if path.name in NOT_FINITE:
            with pytest.raises(Failed, match="non_finite"):
                blender.draw(tmp_path, 0, times_s, [view(0)])
        else:
            blender.draw(tmp_path / path.name, 0, times_s, [view(0)])
            shown = picture(tmp_path / path.name, "v000")[..., 3].max() > 0.0
            assert shown or path.name in SPECKS, path.name


@pytest.mark.parametrize("name", ["huge_scale.glb", "tiny_scale.glb"])
def test_a_horse_of_any_size_looks_like_the_horse(
    blender: BlenderProcess, real_assets: Path, tmp_path: Path, name: str
) -> None:
    images, families = [], []
    for path in (real_assets / "Horse.glb", real_assets / "hostile" / name):
        loaded = blender.load(path)
        gallop = next(action for action in loaded.actions if action.name.endswith("Gallop"))
        blender.draw(tmp_path / path.name, gallop.index, [0.2], [view(60, 15, name="v")])
        images.append(picture(tmp_path / path.name, "v"))
        families.append(loaded.family_id)
    assert families[0] == families[1]
    assert np.abs(images[0] - images[1]).mean() < 0.002
    assert (images[0][..., 3] > 0.5).mean() > 0.05
