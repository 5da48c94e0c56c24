from pathlib import Path

import pytest

from ingest.refused import Refused
from ingest.side_files import material_files, relative_path, texture_files


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("a.bin", "a.bin"),
        ("./textures/a.png", "textures/a.png"),
        ("a%20b.png", "a b.png"),
        ("textures\\a.png", "textures/a.png"),
        ("a//b.png", "a/b.png"),
        ("..a.png", "..a.png"),
        ("Ä.png", "Ä.png"),
    ],
)
def test_a_safe_uri_is_resolved_as_blender_does(uri: str, path: str) -> None:
    assert relative_path(uri) == path


@pytest.mark.parametrize(
    "uri",
    [
        "../a.png", "a/../../b.png", "a/../b.png", "%2e%2e/a.png", "..\\a.png", "..%5ca.png", "/etc/passwd",
        "%2fetc/passwd", "\\\\server\\share", "//host/a.png", "file:///etc/passwd", "http://host/a.png", "C:\\a.png",
        "c%3a/a.png", "javascript:x", ".", "./", "a\0b", "a%00b", "a\nb", "x" * 2000, "é" * 200,
    ],
)  # fmt: skip
def test_an_unsafe_uri_is_refused(uri: str) -> None:
    with pytest.raises(Refused, match="unsafe_uri"):
        relative_path(uri)


def test_an_obj_names_its_materials(tmp_path: Path) -> None:
    obj = tmp_path / "a.obj"
    obj.write_bytes(
        b"# x\nmtllib a.mtl my other.mtl\r\nv 0 0 0\nvn 0 0 1\nf 1 1 1\n  mtllib\ttab.mtl\n" + b"v" * 100_000
    )
    assert material_files(obj) == ["a.mtl", "my other.mtl", "tab.mtl"]


def test_a_material_names_its_textures_behind_their_options(tmp_path: Path) -> None:
    mtl = tmp_path / "a.mtl"
    mtl.write_text(
        "newmtl m\nKd 1 1 1\nmap_Kd -s 1 1 1 -o 0.5 wood 100%.png\nmap_Bump -bm 0.2 tex\\bump.png\n"
        "refl -type sphere sky.png\nnorm n.png\nmap_Kd -clamp on wood 100%.png\nmap_Ks\n"
    )
    assert texture_files(mtl) == ["wood 100%.png", "tex/bump.png", "sky.png", "n.png"]


def test_a_material_may_not_name_files_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "a.mtl").write_text("map_Kd /etc/passwd\n")
    with pytest.raises(Refused, match="unsafe_uri"):
        texture_files(tmp_path / "a.mtl")
