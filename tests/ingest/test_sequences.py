from pathlib import Path

import pytest

from ingest.refused import Refused
from ingest.sequences import frames_of, grouped, is_sequence
from ingest.sources.folder import Folder
from ingest.sources.manifest import Manifest
from ingest.sources.open_source import open_source
from ingest.stage import Ingest
from pipeline.records import Asset, Rejected
from pipeline.storage import Store

FACES = "f 1 2 3\n"


def write(folder: Path, name: str, height: float = 0.0, faces: str = FACES) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(f"v 0 0 {height}\nv 1 0 0\nv 0 1 0\n{faces}")
    return folder / name


def listed(folder: Path) -> list[str]:
    return [item.name for item in Folder(path=folder).items()]


def test_numbered_files_of_the_same_faces_are_one_item(tmp_path: Path) -> None:
    for number in range(8, 13):
        write(tmp_path, f"walk_{number:03d}.obj", number)
        write(tmp_path, f"run{number}.obj", number)
    write(tmp_path, "table.obj")
    write(tmp_path / "inner", "walk_001.obj")
    (tmp_path / "run10.glb").write_bytes(b"glTF")
    assert listed(tmp_path) == ["run10.glb", "run#.obj", "table.obj", "walk_###.obj", "inner/walk_001.obj"]


@pytest.mark.parametrize(
    "names",
    [["tree_1.obj", "tree_2.obj"], ["a_1.obj", "b_2.obj", "c_3.obj"], ["a_1.obj", "a_02.obj", "a_003.obj"]],
    ids=["too few", "other names", "other zeros"],
)
def test_what_only_looks_like_a_sequence_is_listed_file_by_file(names: list[str], tmp_path: Path) -> None:
    for name in names:
        write(tmp_path, name)
    assert sorted(listed(tmp_path)) == sorted(names)


def test_numbered_files_of_other_faces_are_different_things(tmp_path: Path) -> None:
    paths = [write(tmp_path, f"tree_{number}.obj", faces=FACES * number) for number in range(1, 5)]
    assert list(grouped(paths)) == paths


def test_frames_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for number in (2, 9, 10, 11, 3, 4, 5, 6, 7, 8):
        write(tmp_path, f"run{number}.obj", number)
    assert [path.name for path in frames_of(tmp_path / "run#.obj")] == [f"run{number}.obj" for number in range(2, 12)]
    assert frames_of(tmp_path) == frames_of(tmp_path / "run#.obj")


def test_a_gap_is_named(tmp_path: Path) -> None:
    for number in (1, 2, 4, 5):
        write(tmp_path, f"run{number}.obj", number)
    with pytest.raises(Refused, match="missing_file: frame 3"):
        frames_of(tmp_path / "run#.obj")


def test_a_folder_of_two_sequences_must_say_which(tmp_path: Path) -> None:
    for number in range(5):
        write(tmp_path, f"run{number}.obj")
        write(tmp_path, f"walk{number}.obj")
    with pytest.raises(Refused, match="2 kinds"):
        frames_of(tmp_path)
    with pytest.raises(Refused, match="fewer than two"):
        frames_of(tmp_path / "fly#.obj")


def test_a_file_whose_name_has_the_mark_is_a_file(tmp_path: Path) -> None:
    assert not is_sequence(write(tmp_path, "nr#1.obj"))
    assert is_sequence(tmp_path / "nr#.obj")
    assert not is_sequence(tmp_path / "nr#.glb")


@pytest.mark.parametrize("named", ["run/r_##.obj", "run"])
def test_a_manifest_names_a_pattern_or_a_folder(named: str, tmp_path: Path, store: Store) -> None:
    for number in range(4):
        write(tmp_path / "run", f"r_{number:02d}.obj", number)
    (tmp_path / "list.csv").write_text(f"file,spdx\n{named},CC0-1.0\n")
    (item,) = Manifest(path=tmp_path / "list.csv").items()
    (asset,) = Ingest(data=store.root).process(item)
    assert isinstance(asset, Asset)
    assert (asset.format, asset.main_file) == ("obj", "asset_000000.obj")


def test_a_pattern_is_a_source(tmp_path: Path) -> None:
    for number in range(4):
        write(tmp_path, f"r_{number:02d}.obj", number)
    source = open_source(str(tmp_path / "r_##.obj"), licence="CC0-1.0")
    assert [item.name for item in source.items()] == ["r_##.obj"]


def test_all_frames_count_against_the_limit(tmp_path: Path, store: Store) -> None:
    for number in range(4):
        write(tmp_path, f"r_{number:02d}.obj", number)
    (item,) = Folder(path=tmp_path, licence="CC0-1.0").items()
    (rejected,) = Ingest(data=store.root, max_bytes=100).process(item)
    assert isinstance(rejected, Rejected)
    assert rejected.reason == "too_large"
