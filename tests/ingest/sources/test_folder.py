import os
from pathlib import Path

from ingest.fetch import local_path
from ingest.sources.folder import Folder
from tests.ingest.tiny import triangle_glb, write_gltf


def test_3d_files_are_listed_sorted_and_side_files_are_not(tmp_path: Path) -> None:
    for name in ("z.GLB", "b/x.fbx", "a.blend", "b/a.usdz", "b.obj", ".hidden.glb", ".git/y.glb", "readme.md", "t.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    write_gltf(tmp_path / "c")
    items = list(Folder(path=tmp_path).items())
    assert [item.name for item in items] == ["a.blend", "b.obj", "z.GLB", "b/a.usdz", "b/x.fbx", "c/tri.gltf"]
    assert items[3].uri == str(tmp_path / "b" / "a.usdz")
    assert items[3].title == "a"
    assert {item.source for item in items} == {str(tmp_path)}
    assert list(Folder(path=tmp_path).items()) == items


def test_the_default_licence_counts_only_where_nothing_is_said(tmp_path: Path) -> None:
    for folder in ("silent", "spoken", "unclear"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.glb").write_bytes(triangle_glb())
    (tmp_path / "spoken" / "LICENSE").write_text("MIT License\n")
    (tmp_path / "unclear" / "LICENSE").write_text("Ask me first.\n")
    items = Folder(path=tmp_path, licence="CC0-1.0", author="Ann", noai=False).items()
    claims = {item.name: (item.spdx, item.licence_text) for item in items}
    assert claims["silent/a.glb"] == ("CC0-1.0", "")
    assert claims["spoken/a.glb"] == ("MIT", "MIT License")
    assert claims["unclear/a.glb"] == ("", "Ask me first.")


def test_links_that_run_in_circles_do_no_harm(tmp_path: Path) -> None:
    (tmp_path / "a.glb").touch()
    (tmp_path / "loop").symlink_to(tmp_path)
    assert [item.name for item in Folder(path=tmp_path).items()] == ["a.glb"]


def test_a_name_that_is_no_text_can_be_stored_and_found(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/\xff.glb"
    with open(path, "wb") as file:
        file.write(triangle_glb())
    (item,) = Folder(path=tmp_path).items()
    item.uri.encode()
    item.name.encode()
    found = local_path(item.uri)
    assert found
    assert found.read_bytes() == triangle_glb()
