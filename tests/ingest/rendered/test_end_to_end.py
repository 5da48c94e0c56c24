"""Imported data sets go all the way: curated, packed, linted, shown on the contact sheet, read by training."""

import json
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest

from curate.score import Score
from pipeline.cli import main
from pipeline.records import Animation, Asset, Clip, ImageMotion, Visibility
from pipeline.schema_docs import EXAMPLE
from pipeline.storage import Store
from pipeline.tables import Tables
from shards.views import connect, rows
from tests.ingest.rendered.scene import (
    MV_FRAMES,
    SHA256,
    UIDS,
    balls,
    draw,
    looking_at_origin,
    make_diffusion4d,
    mv_eye,
    mv_vector,
)
from training.cameras import camera_vectors
from training.data.clips import ClipDataset, ClipSettings
from training.data.index import SampleIndex, Selection
from training.data.order import BatchesOfRank, Stream


@pytest.fixture(scope="module")
def root(mv_video: tuple[Path, dict[str, Any]], licences: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with both data sets, packed by the commands a user gives."""
    folder = tmp_path_factory.mktemp("root")
    renders = folder / "renders"
    make_diffusion4d(renders, UIDS[0], kinds=("dynamic", "static", "front"))
    make_diffusion4d(renders, SHA256, kinds=("dynamic", "four"))
    data = str(folder / "data")
    for command in (
        ["import", "mv-video", str(mv_video[0]), "--licences", str(licences), "--quiet", "true"],
        ["import", "diffusion4d", str(renders), "--licences", str(licences), "--quiet", "true"],
        ["curate", "--quiet", "true"],
        ["pack", "--val_share", "0", "--test_share", "0"],
        ["report"],
    ):
        assert main([*command, "--data", data]) == 0
    return Path(data)


@pytest.fixture(scope="module")
def tables(root: Path) -> Tables:
    return Tables(Store(str(root)))


def test_shards_have_no_findings_and_the_funnel_sums_up(root: Path, tables: Tables) -> None:
    assert main(["lint", "--data", str(root)]) == 0
    assert main(["stats", "--data", str(root)]) == 0
    with connect(tables) as con:
        sql = (Path(__file__).parents[3] / "shards" / "stats" / "funnel.sql").read_text()
        steps: dict[int, dict[str, int]] = {}
        for row in rows(con, sql.rstrip().rstrip(";")):
            step = steps.setdefault(row["step"], {})
            step[row["outcome"]] = step.get(row["outcome"], 0) + row["num"]
    for step in steps.values():
        assert step.get("in", 0) == step.get("on", 0) + step.get("turned away", 0) + step.get("waiting", 0)
        assert not step.get("unknown")
        assert not step.get("waiting")
    assert (steps[1]["in"], steps[1]["on"]) == (10, 6), "six clips of MV-Video, four of them without a fit licence"
    assert steps[8]["on"] == len(tables.rows(Clip)) == 6


def test_the_object_is_found_before_its_backdrop(tables: Tables) -> None:
    clips = {clip.clip_id: clip for clip in tables.rows(Clip)}
    seen = {clips[row.clip_id].quality: row for row in tables.rows(Visibility) if clips[row.clip_id].rig != "front"}
    turned = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    eyes = [mv_eye(5.0, -8.0 + 22.5 * view) for view in range(16)]
    drawn = [
        draw(balls(frame / MV_FRAMES) @ turned.T, eye, looking_at_origin(eye), np.radians(40.0), 96)[..., 3]
        for eye in eyes
        for frame in range(0, MV_FRAMES, 8)
    ]
    # A codec's colours bleed a pixel or two beyond the edge, which is much for balls of seven.
    assert 1.0 < seen["mv-video"].coverage_mean / (np.mean(drawn) / 255) < 1.6
    assert seen["mv-video"].border_touch == 0.0
    moving = {clips[row.clip_id].quality: row for row in tables.rows(ImageMotion) if not np.isnan(row.m_object)}
    assert moving["mv-video"].m_object > 0.01
    assert moving["mv-video"].m_floor < 1e-4


def test_a_clip_without_alpha_that_stands_still_is_found_still(tables: Tables) -> None:
    (clip, *_) = [clip for clip in tables.rows(Clip) if clip.backdrop]
    score = Score(data=tables.store.root)
    frames = score._read(clip, 0)
    covered = frames[..., 3].mean(axis=(1, 2)) / 255
    assert ((covered > 0.01) & (covered < 0.2)).all()


def test_the_contact_sheet_shows_them(root: Path) -> None:
    page = (root / "report.html").read_text()
    assert page.count('id="sprite-') == 6
    assert "Balls 2a7f" in page


def test_training_reads_mv_video_with_the_cameras_of_its_own_trainer(
    root: Path, mv_video: tuple[Path, dict[str, Any]], tables: Tables
) -> None:
    index = SampleIndex.open(str(root), Selection(where="title = 'Balls 2a7f'"))
    examples = ClipDataset(index, ClipSettings(num_views=4, num_frames=16, size_px=64), strict=True)
    stream = Stream(num_samples=len(index))
    angles = {name: entry["angle"] for name, entry in mv_video[1][UIDS[0]]["anim"].items()}
    allowed = [
        mv_vector(angle["elv"], angle["azi_start"] + 22.5 * view) for angle in angles.values() for view in range(16)
    ]
    for batch in BatchesOfRank(stream, batch_size=2, num_batches=3):
        for draw_ in batch:
            example = examples[draw_]
            assert example["video"].shape == (4, 16, 3, 64, 64)
            assert example["caption"].startswith("three balls 0")
            for vector in example["cameras"].numpy():
                assert min(np.abs(vector - other).max() for other in allowed) < 1e-6
            corner = example["video"][:, :, :, 0, 0]
            assert corner.abs().max() < 0.06, "grey, as MV-VDM was trained on"


def test_the_whole_clips_vectors_are_the_trainers(tables: Tables, mv_video: tuple[Path, dict[str, Any]]) -> None:
    for clip in tables.rows(Clip, "quality = 'mv-video'"):
        vectors = camera_vectors(np.array(clip.c2w).reshape(16, 4, 4)).numpy()
        angle = {"azi_start": clip.azimuth_deg, "elv": clip.elevation_deg}
        assert angle in [entry["angle"] for entry in mv_video[1][UIDS[0]]["anim"].values()]
        expected = [mv_vector(angle["elv"], angle["azi_start"] + 22.5 * view) for view in range(16)]
        np.testing.assert_allclose(vectors, expected, atol=1e-6)


def test_training_reads_four_views_and_the_front_of_diffusion4d(root: Path) -> None:
    for selection, views in (
        (Selection(rigs=("ortho4",), num_views=4), 4),
        (Selection(rigs=("front",), num_views=1), 1),
    ):
        examples = ClipDataset(
            SampleIndex.open(str(root), selection), ClipSettings(num_views=views, size_px=64), strict=True
        )
        (draw_,) = next(iter(BatchesOfRank(Stream(num_samples=len(examples)), batch_size=1, num_batches=1)))
        example = examples[draw_]
        assert example["video"].shape == (views, 16, 3, 64, 64)
        corner = example["video"][:, :, :, 0, 0]
        assert corner.abs().max() < 0.01, "composed on grey by its alpha"


def test_numbers_of_the_mesh_are_missing_and_not_large(root: Path, tables: Tables) -> None:
    assert all(np.isnan(row.motion_mean) for row in tables.rows(Animation))
    index = f"'{root}/shards/samples.parquet'"
    assert duckdb.sql(f"SELECT count(*) FROM {index} WHERE motion_mean > 0.01").fetchall() == [(0,)]
    with pytest.raises(ValueError, match="no sample"):
        SampleIndex.open(str(root), Selection(where="motion_mean > 0.01"))


def test_the_crosswalk_knows_every_name(root: Path, tables: Tables) -> None:
    with tables.connect() as con:
        found = rows(con, "SELECT DISTINCT source, uid, url, sha256, cap3d_key FROM crosswalk ORDER BY ALL")
    url = f"https://sketchfab.com/3d-models/three-balls-{UIDS[0]}"
    plain = f"https://sketchfab.com/3d-models/{UIDS[0]}"
    assert found == [
        {"source": "diffusion4d", "uid": "", "url": "", "sha256": SHA256, "cap3d_key": SHA256},
        {"source": "diffusion4d", "uid": UIDS[0], "url": plain, "sha256": "", "cap3d_key": UIDS[0]},
        {"source": "mv-video", "uid": UIDS[0], "url": url, "sha256": "", "cap3d_key": UIDS[0]},
    ]


def test_the_card_says_who_rendered(root: Path) -> None:
    card = (root / "shards" / "README.md").read_text()
    assert "6 samples of data sets that others have rendered (diffusion4d, mv-video)" in card
    assert "2 of them have no alpha" in card
    assert "Blender" not in card.split("## How it was made")[1].split("##")[0]
    assert "rendered by mv4d" not in (root / "shards" / "croissant.json").read_text()


def test_the_documented_query_joins_cap3d(root: Path, tables: Tables) -> None:
    cap3d = root.parent / "cap3d.csv"
    cap3d.write_text(f'{SHA256},"Balls, three"\n{UIDS[0]},Coloured balls\n{"f" * 32},Not here\n')
    query = EXAMPLE.replace("DATA", str(root)).replace("Cap3D_automated_Objaverse_full.csv", str(cap3d))
    with connect(tables) as con:
        found = sorted((row["uid"], row["cap3d"]) for row in rows(con, query))
    of_model = [(UIDS[0], "Coloured balls")] * 4
    assert found == [("", "Balls, three")] * 2 + of_model, "every sample once"


def test_what_was_imported_is_not_asked_of_blender(root: Path, tables: Tables) -> None:
    from render.__main__ import animated_assets, first_assets

    assert tables.rows(Asset)
    assert first_assets(tables) == []
    assert animated_assets(tables) == []


def test_a_packed_record_says_what_is_not_known(root: Path) -> None:
    import tarfile

    tars = sorted((root / "shards").rglob("mv-*.tar"))
    records = []
    for path in tars:
        with tarfile.open(path) as tar:
            for member in tar:
                if member.name.endswith(".json"):
                    opened = tar.extractfile(member)
                    assert opened
                    records.append(json.loads(opened.read()))
    assert len(records) == 6
    for record in records:
        assert record["normalisation"] == {"world_scale": None, "world_centre": []}
        assert record["motion"]["motion_mean"] is None
        assert bool(record["backdrop"]) == (record["rendering"]["quality"] == "mv-video")
        assert record["text"]["caption"]
        assert record["licence"]["attribution"].count("rendered by") == 1
    by_set = {record["rendering"]["quality"]: record["licence"]["attribution"] for record in records}
    assert "MV-Video" in by_set["mv-video"]
    assert "Diffusion4D" in by_set["diffusion4d"]
