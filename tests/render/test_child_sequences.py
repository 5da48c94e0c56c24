"""A sequence of .obj files, from a folder through ingest to the real Blender child."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from ingest.sources.folder import Folder
from ingest.stage import Ingest
from pipeline.records import Asset, Rejected
from pipeline.storage import Store
from render.scratch import Scratch
from render.supervisor import BlenderChild, BlenderSettings
from tests.render.blender_process import BlenderProcess, Failed, colour, picture, view
from tests.render.tiny_gltf import CUBE, SIDES

pytestmark = pytest.mark.blender


def obj(points: np.ndarray, second: np.ndarray) -> str:
    """Two objects of the same faces; the first one has a vertex that no face uses, and a red material."""
    lines = ["mtllib look.mtl"]
    for place, (name, corners) in enumerate((("first", points), ("second", second))):
        lines += [f"o {name}", *(f"v {x:.6f} {y:.6f} {z:.6f}" for x, y, z in corners)]
        first = 1 + sum(1 for line in lines if line.startswith("v ")) - len(corners)
        lines += ["v 9 9 9"] if place == 0 else []
        lines += ["usemtl red"]
        lines += ["f " + " ".join(str(first + corner) for corner in side) for side in SIDES.values()]
    return "\n".join(lines) + "\n"


def write_sequence(folder: Path, num_frames: int, way: Callable[[int], float]) -> None:
    """One cube rises by `way`, the other stands at x = 3."""
    folder.mkdir(exist_ok=True)
    (folder / "look.mtl").write_text("newmtl red\nKd 0.8 0.05 0.05\n")
    for frame in range(num_frames):
        content = obj(CUBE + np.float32([0, way(frame), 0]), CUBE + np.float32([3, 0, 0]))
        (folder / f"hop_{frame + 7:04d}.obj").write_text(content)


Take = Callable[..., tuple[Asset, Path]]


@pytest.fixture
def take() -> Iterator[Take]:
    """Ingests a folder; gives the asset, and its first file where the child would see it."""
    scratch = Scratch.make()

    def taken(store: Store, folder: Path, **settings: float) -> tuple[Asset, Path]:
        asset = ingested(store, folder, **settings)
        return asset, scratch.take_in(asset, store)

    yield taken
    scratch.remove()


def ingested(store: Store, folder: Path, **settings: float) -> Asset:
    (item,) = Folder(path=folder, licence="CC0-1.0").items()
    assert item.name == "hop_####.obj"
    (asset,) = Ingest(data=store.root, **settings).process(item)
    assert isinstance(asset, Asset)
    return asset


def test_each_frame_is_where_its_file_says_and_between_them_the_way_is_straight(
    blender: BlenderProcess, take: Take, store: Store, tmp_path: Path
) -> None:
    write_sequence(tmp_path / "hop", 12, lambda frame: 0.1 * frame**2)
    _, path = take(store, tmp_path / "hop", sequence_fps=12.0)
    loaded = blender.load(path)
    assert loaded.num_objects == 2
    assert loaded.num_vertices == 16
    assert [(action.name, action.start_s, action.end_s) for action in loaded.actions] == [("timeline", 0.0, 11 / 12)]
    for frame in (0.0, 1.0, 4.0, 7.5, 11.0):
        low, high = 0.1 * np.floor(frame) ** 2, 0.1 * np.ceil(frame) ** 2
        measured = blender.measure(0, [frame / 12])
        assert measured.box_max[2] == pytest.approx(0.5 + low + (frame % 1) * (high - low), abs=1e-4)
        assert measured.box_max[0] == pytest.approx(3.5, abs=1e-5)


def test_its_material_is_the_first_frames(blender: BlenderProcess, take: Take, store: Store, tmp_path: Path) -> None:
    write_sequence(tmp_path / "hop", 4, lambda frame: 0.2 * frame)
    _, path = take(store, tmp_path / "hop")
    assert blender.load(path).num_materials == 1
    blender.draw(tmp_path / "out", 0, [0.1], [view(0.0)])
    red, green, blue = colour(picture(tmp_path / "out", "v000"))
    assert red > 2 * max(green, blue)


def test_frames_of_other_faces_are_refused_by_both(
    blender: BlenderProcess, take: Take, store: Store, tmp_path: Path
) -> None:
    write_sequence(tmp_path / "hop", 4, lambda frame: 0.2 * frame)
    _, path = take(store, tmp_path / "hop")
    last = path.parent / "asset_000003.obj"
    last.write_text(last.read_text().replace("f 1 2 4 3", "f 2 1 4 3"))
    with pytest.raises(Failed, match="malformed: frame 3"):
        blender.load(path)
    broken = tmp_path / "hop" / "hop_0009.obj"
    broken.write_text(broken.read_text() + "f 1 2 3\n")
    (item,) = list(Folder(path=tmp_path / "hop", only="hop_####.obj", licence="CC0-1.0").items())
    (rejected,) = Ingest(data=store.root).process(item)
    assert isinstance(rejected, Rejected)
    assert (rejected.reason, "frame 2" in rejected.detail) == ("malformed", True)


def test_the_same_frames_are_the_same_asset_whatever_they_are_called(store: Store, tmp_path: Path) -> None:
    write_sequence(tmp_path / "hop", 4, lambda frame: 0.2 * frame)
    first = ingested(store, tmp_path / "hop")
    for file in (tmp_path / "hop").glob("*.obj"):
        file.rename(file.with_name(file.name.replace("hop_00", "hop_01")))
    second = ingested(store, tmp_path / "hop")
    slower = ingested(store, tmp_path / "hop", sequence_fps=10.0)
    assert first.asset_id == second.asset_id != slower.asset_id


def test_the_supervised_child_reads_it_from_the_store(store: Store, tmp_path: Path) -> None:
    write_sequence(tmp_path / "hop", 4, lambda frame: 0.2 * frame)
    child = BlenderChild(BlenderSettings(sandbox="best"))
    try:
        loaded = child.load(ingested(store, tmp_path / "hop"), store)
    finally:
        child.close()
    assert [(action.name, action.end_s) for action in loaded.actions] == [("timeline", 0.125)]
    assert loaded.scene_fps == 24.0
