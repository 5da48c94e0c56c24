"""Ground truth on request, for clips that exist already."""

from pathlib import Path

import pytest

from pipeline.records import Asset, Clip, Truth
from pipeline.storage import Store
from pipeline.tables import Tables
from render.__main__ import main, probe_main
from tests.render.rows import asset_of

pytestmark = pytest.mark.blender

OPTIONS = ["--rig", "ortho4", "--quality", "preview", "--size_px", "32", "--quiet", "true", "--workers", "1"]


def render(store: Store, *more: str) -> int:
    return main(["--data", store.root, *OPTIONS, *more])


def files(store: Store) -> dict[str, bytes]:
    return {path: store.read_bytes(path) for path in store.list_files("clips")}


def test_it_comes_later_without_a_picture_being_drawn_again(store: Store, tables: Tables, real_assets: Path) -> None:
    asset = asset_of(store, (real_assets / "BoxAnimated.glb").read_bytes())
    tables.write(Asset, "toy", [asset], made_by="toy@1", made_from=asset.item_id)
    windows = ["--windows.num_frames", "3"]
    assert probe_main(["--data", store.root, "--quiet", "true", "--workers", "1", *windows]) == 0
    assert render(store) == 0
    drawn, clips = files(store), tables.rows(Clip)
    assert clips
    assert not tables.rows(Truth)
    times = {path: Path(store.path(path)).stat().st_mtime_ns for path in drawn}
    assert render(store, "--passes", "depth") == 0
    assert render(store, "--passes", "depth,tracks") == 0
    assert {path: Path(store.path(path)).stat().st_mtime_ns for path in drawn} == times
    assert {path: content for path, content in files(store).items() if path in drawn} == drawn
    assert tables.rows(Clip) == clips
    assert {(row.clip_id, row.name) for row in tables.rows(Truth)} == {
        (clip.clip_id, name) for clip in clips for name in ("depth", "tracks")
    }


def test_a_pass_that_there_is_not_is_refused_before_anything_is_done(
    store: Store, tables: Tables, real_assets: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asset = asset_of(store, (real_assets / "BoxAnimated.glb").read_bytes())
    tables.write(Asset, "toy", [asset], made_by="toy@1", made_from=asset.item_id)
    assert probe_main(["--data", store.root, "--quiet", "true", "--workers", "1"]) == 0
    with pytest.raises(SystemExit):
        render(store, "--passes", "depth,albedo")
    assert "no such pass: 'albedo'" in capsys.readouterr().err
    assert not tables.rows(Clip)
