from pathlib import Path

import pytest

from ingest.licence_files import statement_of
from tests.ingest.tiny import glb, triangle

SPDX = "SPDX-License-" + "Identifier:"
HOLDER = "SPDX-FileCopyright" + "Text:"


def write(path: Path, **asset: object) -> Path:
    root, buffer = triangle()
    root["asset"].update(asset)
    path.write_bytes(glb(root, buffer))
    return path


def test_a_sidecar_counts_before_the_file_and_the_file_before_the_folder(tmp_path: Path) -> None:
    fox = write(tmp_path / "fox.glb", extras={"license": "CC-BY-4.0", "author": "Ann"})
    owl = write(tmp_path / "owl.glb")
    (tmp_path / "LICENSE.md").write_text("# MIT License\n\nCopyright (c) 2020 Bob\n")
    assert (statement_of(fox).spdx, statement_of(fox).author) == ("CC-BY-4.0", "Ann")
    assert statement_of(owl).spdx == "MIT"
    (tmp_path / "fox.glb.license").write_text(f"{HOLDER} 2021 Cleo\n\n{SPDX} CC0-1.0\n")
    assert statement_of(fox).spdx == "CC0-1.0"
    (tmp_path / "owl.LICENSE.md").write_text("Creative Commons Attribution 4.0 International")
    assert statement_of(owl).spdx == "CC-BY-4.0"


def test_the_holder_named_by_reuse_is_the_author(tmp_path: Path) -> None:
    fox = write(tmp_path / "fox.glb")
    (tmp_path / "fox.glb.license").write_text(f"{HOLDER} © 2021 Cleo Doe\n{SPDX} CC0-1.0\n")
    assert statement_of(fox).author == "Cleo Doe"


def test_sketchfabs_extras_are_read(tmp_path: Path) -> None:
    extras = {
        "author": "NORBERTO-3D (https://sketchfab.com/norberto3d)",
        "license": "CC-BY-NC-4.0 (http://creativecommons.org/licenses/by-nc/4.0/)",
        "source": "https://sketchfab.com/3d-models/x",
        "title": "phoenix bird",
    }
    said = statement_of(write(tmp_path / "bird.glb", extras=extras))
    assert (said.spdx, said.title, said.source_url) == ("CC-BY-NC-4.0", "phoenix bird", extras["source"])


@pytest.mark.parametrize(
    ("rights", "spdx", "silent"),
    [
        ("CC-BY 4.0 Model by PixelMannen", "CC-BY-4.0", False),
        ("2020 somebody", "", True),
        ("(c) 2020 somebody. All rights reserved.", "", False),
    ],
)
def test_a_copyright_line_is_a_licence_only_if_it_names_one(
    tmp_path: Path, rights: str, spdx: str, silent: bool
) -> None:
    said = statement_of(write(tmp_path / "fox.glb", copyright=rights))
    assert said.spdx == spdx
    assert (said.licence_text == "") == silent


def test_several_licence_files_settle_nothing(tmp_path: Path) -> None:
    fox = write(tmp_path / "fox.glb")
    (tmp_path / "LICENSE-MIT").write_text("MIT License")
    (tmp_path / "LICENSE-CC").write_text("CC0-1.0")
    assert statement_of(fox).spdx == ""


def test_a_broken_file_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "fox.glb").write_bytes(b"glTF")
    assert statement_of(tmp_path / "fox.glb").licence_text == ""
