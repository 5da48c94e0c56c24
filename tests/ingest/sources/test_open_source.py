from pathlib import Path

import pytest

from ingest.sources.folder import Folder
from ingest.sources.manifest import Manifest
from ingest.sources.open_source import open_source
from ingest.sources.samples import Samples
from tests.ingest.tiny import triangle_glb


def test_an_argument_is_a_folder_a_manifest_a_file_or_the_samples(tmp_path: Path) -> None:
    (tmp_path / "a.glb").write_bytes(triangle_glb())
    (tmp_path / "b.glb").write_bytes(triangle_glb())
    (tmp_path / "list.csv").write_text("file\na.glb\n")
    assert isinstance(open_source(str(tmp_path)), Folder)
    assert isinstance(open_source(str(tmp_path / "list.csv")), Manifest)
    assert isinstance(open_source("samples", cache=tmp_path), Samples)
    (item,) = open_source(str(tmp_path / "b.glb"), licence="MIT", author="Ann", noai=False).items()
    assert (item.name, item.spdx, item.author, item.noai) == ("b.glb", "MIT", "Ann", False)


@pytest.mark.parametrize(("spec", "words"), [("nowhere", "no source 'nowhere'"), ("notes.txt", "neither a manifest")])
def test_anything_else_is_an_error_that_says_what_is_possible(tmp_path: Path, spec: str, words: str) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ValueError, match=words):
        open_source(str(tmp_path / spec) if spec == "notes.txt" else spec)
