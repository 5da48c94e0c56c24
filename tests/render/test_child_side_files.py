"""Files of several formats, through ingest with the pictures beside them, to the real Blender child."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ingest.sources.folder import Folder
from ingest.stage import Ingest
from pipeline.records import Asset
from pipeline.storage import Store
from render.scratch import Scratch
from tests.render.blender_process import BlenderProcess, Failed, colour, make_files, picture, view

pytestmark = pytest.mark.blender


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("formats")
    make_files("tests.render.format_files", path)
    return path


@pytest.fixture
def take(store: Store) -> Iterator[Callable[[Path], Path]]:
    """Ingests a file and gives it where the child would see it."""
    scratch = Scratch.make()

    def taken(path: Path) -> Path:
        (item,) = Folder(path=path.parent, only=path.name, licence="CC0-1.0").items()
        (asset,) = Ingest(data=store.root).process(item)
        assert isinstance(asset, Asset)
        return scratch.take_in(asset, store)

    yield taken
    scratch.remove()


@pytest.mark.parametrize(
    "name",
    ["textured_blend/asset.blend", "textured_fbx/asset.fbx", "textured_usd/asset.usdc", "textured_usd/asset.usda"],
)
def test_a_picture_beside_the_file_comes_along(
    blender: BlenderProcess, folder: Path, take: Callable[[Path], Path], tmp_path: Path, name: str
) -> None:
    """The original is moved away first, so that its author's paths lead nowhere."""
    shutil.copytree((folder / name).parent, tmp_path / "moved")
    hidden = folder.with_name("hidden")
    folder.rename(hidden)
    try:
        loaded = blender.load(take(tmp_path / "moved" / Path(name).name))
        assert (loaded.num_images, loaded.missing_textures) == (1, [])
        blender.draw(tmp_path / "out", 0, [loaded.actions[0].start_s], [view(0.0)])
    finally:
        hidden.rename(folder)
    red, green, blue = colour(picture(tmp_path / "out", "v000"))
    assert green > 3 * max(red, blue)


def test_without_its_picture_the_asset_is_one_file_and_the_texture_is_tagged(
    blender: BlenderProcess, folder: Path, take: Callable[[Path], Path], tmp_path: Path
) -> None:
    shutil.copy(folder / "textured_blend" / "asset.blend", tmp_path / "alone.blend")
    path = take(tmp_path / "alone.blend")
    assert [entry.name for entry in path.parent.iterdir()] == ["asset.blend"]
    assert blender.load(path).missing_textures == ["green.png"]


@pytest.mark.parametrize("suffix", ["usdc", "usda", "usdz"])
def test_a_usd_skeleton_and_its_blend_shapes_move_together(blender: BlenderProcess, folder: Path, suffix: str) -> None:
    (action,) = blender.load(folder / "skinned_usd" / f"asset.{suffix}").actions
    assert (action.name, action.start_s, action.end_s) == ("timeline", 0.0, 1.0)
    start, middle, end = (blender.measure(0, [time_s]) for time_s in (0.0, 0.5, 1.0))
    assert [measured.box_max[2] for measured in (start, middle, end)] == pytest.approx([0.5, 1.5, 2.5], abs=0.02)
    assert [measured.box_max[0] for measured in (start, middle, end)] == pytest.approx([0.5, 1.0, 1.5], abs=0.02)


def test_each_take_of_an_fbx_is_an_animation_and_the_first_does_not_leak(blender: BlenderProcess, folder: Path) -> None:
    actions = {action.name: action for action in blender.load(folder / "two_takes" / "asset.fbx").actions}
    assert list(actions) == ["Armature|high", "Armature|low"]
    high, low = actions.values()
    assert (high.end_s, low.end_s) == pytest.approx((2.0, 1.0))
    for action, height in ((low, 1.0), (high, 3.0), (low, 1.0)):
        ends = [blender.measure(action.index, [time_s]).box_max[2] for time_s in (0.0, action.end_s)]
        assert ends == pytest.approx([0.5, 0.5 + height], abs=0.02)


def test_each_slot_of_an_action_plays_on_the_object_that_it_is_named_after(
    blender: BlenderProcess, folder: Path
) -> None:
    """One of the two objects has no animation of its own when the file is saved."""
    actions = {action.name: action.index for action in blender.load(folder / "two_slots" / "asset.blend").actions}
    assert set(actions) == {"both", "first_hop_5"}
    both, alone = (blender.measure(actions[name], [1.0]) for name in ("both", "first_hop_5"))
    assert (both.box_min[2], both.box_max[2]) == pytest.approx((0.5, 2.5), abs=1e-4)
    assert (alone.box_min[2], alone.box_max[2]) == pytest.approx((-0.5, 5.5), abs=1e-4)


def test_all_objects_of_an_alembic_file_move(blender: BlenderProcess, folder: Path) -> None:
    loaded = blender.load(folder / "several_in_cache" / "asset.abc")
    assert loaded.num_objects == 3
    end = blender.measure(0, [1.0])
    assert (end.box_min[2], end.box_max[2]) == pytest.approx((-0.5, 3.5), abs=0.02)


def test_vertices_of_an_alembic_file_may_come_and_go(blender: BlenderProcess, folder: Path) -> None:
    blender.load(folder / "changing_cache" / "asset.abc")
    widths = [blender.measure(0, [time_s]).box_max[0] for time_s in (0.0, 1.0)]
    assert widths == pytest.approx([0.5, 4.5], abs=0.01)
    assert blender.measure(0, [0.0, 0.5, 1.0]).finite


def test_a_blend_that_links_what_is_gone_says_so(blender: BlenderProcess, folder: Path) -> None:
    with pytest.raises(Failed, match=r"missing_file: links 'linked' from library\.blend"):
        blender.load(folder / "missing_library" / "asset.blend")
