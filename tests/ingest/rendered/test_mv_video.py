import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ingest.rendered.clips import RenderedClip, Rows
from ingest.rendered.command import open_rendered
from ingest.rendered.diffusion4d import ImportDiffusion4d
from ingest.rendered.listing import Claims
from ingest.rendered.mv_video import ImportMvVideo
from pipeline.cameras import project, to_mv_video
from pipeline.cli import main
from pipeline.media import read_view
from pipeline.records import Asset, Caption, Clip, Rejected, SourceItem
from pipeline.storage import Store
from pipeline.tables import Tables
from tests.ingest.rendered.scene import (
    MV_FPS,
    MV_FRAMES,
    MV_SIZE_PX,
    UIDS,
    balls,
    centre_of,
    mv_vector,
    trainers_list,
    write_video,
)

Made = tuple[Path, dict[str, Any]]
NOTHING = Claims(licence="CC-BY-4.0")


def listed(root: Path, tables: Tables, claims: Claims = NOTHING, ids: str = "") -> list[RenderedClip]:
    return list(open_rendered("mv-video", root, claims, ids).clips(tables))


def rows_of(stage: ImportMvVideo, clip: RenderedClip) -> list[Rows | Rejected]:
    return list(stage.process(clip))


def clip_of(rows: list[Rows | Rejected]) -> Clip:
    (found,) = [row for row in rows if isinstance(row, Clip)]
    return found


@pytest.fixture
def stage(store: Store) -> ImportMvVideo:
    return ImportMvVideo(data=store.root)


@pytest.fixture
def one(mv_video: Made, tmp_path: Path) -> Path:
    """A copy with one animation of one model, to be broken."""
    root, info = mv_video
    copy = tmp_path / "copy"
    shutil.copytree(root / "videos" / UIDS[0] / "00", copy / "videos" / UIDS[0] / "00")
    (copy / "uid_info_dict.json").write_text(json.dumps(info))
    return copy


def test_what_is_drawn_is_where_the_cameras_say(mv_video: Made, tables: Tables, stage: ImportMvVideo) -> None:
    clip = clip_of(rows_of(stage, listed(mv_video[0], tables)[1]))
    c2w = np.array(clip.c2w).reshape(16, 4, 4)
    errors = []
    for view in range(16):
        frames = read_view(tables.store, clip, view)
        for frame in (0, 20, 47):
            places = project(balls(frame / MV_FRAMES), c2w[view], clip.intrinsics)
            for ball in range(3):
                if (seen := centre_of(frames[frame], ball)) and not hidden(places, ball):
                    errors.append(np.hypot(seen[0] - places[ball, 0], seen[1] - places[ball, 1]))
    assert len(errors) > 80
    assert np.median(errors) < 0.3
    assert max(errors) < 1.0


def hidden(places: np.ndarray, ball: int) -> bool:
    """Whether a nearer ball overlaps it."""
    far = np.hypot(*(places[:, :2] - places[ball, :2]).T)
    return any(far[other] < 16 and places[other, 2] < places[ball, 2] for other in range(3) if other != ball)


def test_camera_vectors_are_those_of_the_published_trainer(
    mv_video: Made, tables: Tables, stage: ImportMvVideo
) -> None:
    root, info = mv_video
    for item in listed(root, tables):
        clip = clip_of(rows_of(stage, item))
        uid, action = item.name.split("/")
        angle = info[uid]["anim"][action]["angle"]
        expected = [mv_vector(angle["elv"], angle["azi_start"] + 22.5 * view) for view in range(16)]
        np.testing.assert_allclose(to_mv_video(np.array(clip.c2w).reshape(16, 4, 4)), expected, atol=1e-7)
        assert (clip.azimuth_deg, clip.elevation_deg) == (angle["azi_start"], angle["elv"])


def test_a_clip_is_complete(mv_video: Made, tables: Tables, stage: ImportMvVideo) -> None:
    rows = rows_of(stage, listed(mv_video[0], tables)[0])
    clip = clip_of(rows)
    assert (clip.rig, clip.quality, clip.num_views, clip.num_frames) == ("mv16", "mv-video", 16, MV_FRAMES)
    assert (clip.width, clip.height, clip.fps) == (MV_SIZE_PX, MV_SIZE_PX, MV_FPS)
    frames = read_view(tables.store, clip, 3)
    assert (frames[..., 3] == 255).all(), "no alpha is made up"
    assert [abs(int(clip.backdrop[i : i + 2], 16) - 127) <= 4 for i in (1, 3, 5)] == [True] * 3
    (caption,) = [row for row in rows if isinstance(row, Caption)]
    assert (caption.text, caption.kind, caption.source) == ("three balls 0, way 00", "data_set", "mv-video")
    assert json.loads(clip.settings)["assumed"] == {"radius": 3.0, "fov_deg": 40.0}


def test_four_of_sixteen_views_and_every_third_frame(mv_video: Made, tables: Tables, store: Store) -> None:
    item = listed(mv_video[0], tables)[0]
    whole = clip_of(rows_of(ImportMvVideo(data=store.root), item))
    few = clip_of(rows_of(ImportMvVideo(data=store.root, num_views=4, every=3, size_px=48), item))
    assert (few.rig, few.num_views, few.num_frames, few.fps, few.height) == ("ortho4", 4, 16, 8.0, 48)
    assert few.clip_id != whole.clip_id
    c2w = np.array(whole.c2w).reshape(16, 16)
    np.testing.assert_array_equal(np.array(few.c2w).reshape(4, 16), c2w[::4])
    assert few.intrinsics[0] == pytest.approx(whole.intrinsics[0] / 2)


def test_the_trainers_list_gives_four_views(
    mv_video: Made, tables: Tables, stage: ImportMvVideo, tmp_path: Path
) -> None:
    root, info = mv_video
    path = root / "train_4view.json"
    path.write_text(json.dumps(trainers_list(root, info)))
    items = listed(path, tables)
    assert len(items) == 6
    clip = clip_of(rows_of(stage, items[0]))
    angle = info[UIDS[0]]["anim"]["00"]["angle"]
    expected = [mv_vector(angle["elv"], angle["azi_start"] + 22.5 + 90.0 * view) for view in range(4)]
    np.testing.assert_allclose(to_mv_video(np.array(clip.c2w).reshape(4, 4, 4)), expected, atol=1e-7)
    assert clip.rig == "ortho4"
    # The second view of the list is view 5 of the published ones.
    published = clip_of(rows_of(stage, listed(root, tables)[0]))
    np.testing.assert_array_equal(read_view(tables.store, clip, 1), read_view(tables.store, published, 5))


def test_licences_come_from_elsewhere_or_the_clip_stays_out(
    mv_video: Made, tables: Tables, stage: ImportMvVideo, licences: Path
) -> None:
    items = listed(mv_video[0], tables, Claims(licences=str(licences)))
    by_uid = {item.model_id: item for item in items}
    rows = rows_of(stage, by_uid[UIDS[0]])
    (asset,) = [row for row in rows if isinstance(row, Asset)]
    assert (asset.spdx, asset.licence_class, asset.author, asset.title) == ("CC-BY-4.0", "by", "Ann", "Balls 2a7f")
    assert asset.evidence == "models.csv, line 2"
    assert asset.evidence_sha256
    assert asset.source_url == f"https://sketchfab.com/3d-models/three-balls-{UIDS[0]}"
    assert "ODC-By-1.0" in asset.licence_text
    assert asset.attribution.endswith("rendered by MV-Video (ODC-By-1.0, https://opendatacommons.org/licenses/by/1-0/)")
    assert asset.noai is False, "its card says that models with an opt-out were left out"
    for uid, reason in ((UIDS[1], "licence_not_allowed"), (UIDS[2], "licence_unknown")):
        (rejected,) = rows_of(stage, by_uid[uid])
        assert isinstance(rejected, Rejected)
        assert (rejected.reason, rejected.rejected_id) == (reason, by_uid[uid].item.item_id)
    research = ImportMvVideo(data=stage.data, policy="research")
    assert clip_of(rows_of(research, by_uid[UIDS[1]]))


def test_an_opt_out_that_was_read_counts_before_what_the_card_says(
    mv_video: Made, tables: Tables, stage: ImportMvVideo, tmp_path: Path
) -> None:
    path = tmp_path / "models.csv"
    path.write_text(f"uid,license,noai\n{UIDS[0]},CC0-1.0,true\n")
    items = listed(mv_video[0], tables, Claims(licences=str(path), licence="CC-BY-4.0"))
    reasons = [row.reason for item in items for row in rows_of(stage, item) if isinstance(row, Rejected)]
    assert reasons == ["noai", "noai"]


def view_missing(root: Path, folder: Path) -> None:
    (folder / "view_7.mp4").unlink()


def cut_short(root: Path, folder: Path) -> None:
    path = folder / "view_4.mp4"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def zero_bytes(root: Path, folder: Path) -> None:
    (folder / "view_4.mp4").write_bytes(b"")


def no_video(root: Path, folder: Path) -> None:
    (folder / "view_4.mp4").write_bytes(b"<html>log in</html>" * 100)


def a_playlist(root: Path, folder: Path) -> None:
    (folder / "view_4.mp4").write_bytes(b"#EXTM3U\n#EXTINF:1,\n/etc/passwd\n")


def noise_inside(root: Path, folder: Path) -> None:
    path = folder / "view_4.mp4"
    content = bytearray(path.read_bytes())
    place = content.index(b"mdat") + 4
    rng = np.random.default_rng(0)
    content[place : place + 4000] = rng.integers(0, 256, 4000, np.uint8).tobytes()
    path.write_bytes(bytes(content))


def table_of_contents_gone(root: Path, folder: Path) -> None:
    path = folder / "view_4.mp4"
    path.write_bytes(path.read_bytes().replace(b"moov", b"free"))


def too_few_frames(root: Path, folder: Path) -> None:
    for view in range(16):
        write_video(folder / f"view_{view}.mp4", [np.full((32, 32, 4), 200, np.uint8)] * 30)


def one_of_another_size(root: Path, folder: Path) -> None:
    write_video(folder / "view_9.mp4", [np.full((32, 48, 4), 200, np.uint8)] * MV_FRAMES)


def link_out(root: Path, folder: Path) -> None:
    outside = root.parent / "elsewhere.mp4"
    (folder / "view_4.mp4").rename(outside)
    (folder / "view_4.mp4").symlink_to(outside)


def entry_gone(root: Path, folder: Path) -> None:
    (root / "uid_info_dict.json").write_text(json.dumps({UIDS[1]: {}}))


def angle(value: object, key: str = "elv") -> Any:
    def change(root: Path, folder: Path) -> None:
        info = json.loads((root / "uid_info_dict.json").read_text())
        info[UIDS[0]]["anim"]["00"]["angle"][key] = value
        (root / "uid_info_dict.json").write_text(json.dumps(info))

    return change


def angles_gone(root: Path, folder: Path) -> None:
    (root / "uid_info_dict.json").write_text(json.dumps({UIDS[0]: {"anim": {"00": ["elv", 3]}}}))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (view_missing, ("missing_file", "view_7.mp4")),
        (cut_short, ("truncated", "view_4.mp4")),
        (zero_bytes, ("empty_file", "view_4.mp4")),
        (no_video, ("malformed", "view_4.mp4")),
        (a_playlist, ("malformed", "view_4.mp4")),
        (table_of_contents_gone, ("truncated", "view_4.mp4")),
        (too_few_frames, ("wrong_count", "30 frames")),
        (one_of_another_size, ("wrong_count", "(48, 32, 48, 3)")),
        (link_out, ("unsafe_uri", "view_4.mp4")),
        (entry_gone, ("missing_file", "uid_info_dict.json")),
        (angle("steep"), ("malformed", "elv")),
        (angle(95.0), ("malformed", "elv")),
        (angle(float("nan"), "azi_start"), ("malformed", "azi_start")),
        (angles_gone, ("malformed", "entry")),
    ],
)
def test_what_is_broken_is_turned_away_with_its_reason(
    change: Any, expected: tuple[str, str], one: Path, tables: Tables, stage: ImportMvVideo
) -> None:
    assert clip_of(rows_of(stage, listed(one, tables)[0])), "it is whole before"
    change(one, one / "videos" / UIDS[0] / "00")
    (item,) = listed(one, tables)
    (row,) = rows_of(stage, item)
    assert isinstance(row, Rejected)
    assert row.reason == expected[0]
    assert expected[1] in row.detail
    assert row.name == f"{UIDS[0]}/00"


def test_damaged_content_never_raises(one: Path, tables: Tables, stage: ImportMvVideo) -> None:
    noise_inside(one, one / "videos" / UIDS[0] / "00")
    (item,) = listed(one, tables)
    (*_, last) = rows_of(stage, item)
    assert isinstance(last, Rejected | Caption), "a decoder may repair it, or it is turned away"


@pytest.mark.parametrize(
    "path",
    ["../../../etc/passwd", "/etc/passwd", "videos/../../x.mp4", "https://example.org/x.mp4", "file:///etc/passwd"],
)
def test_paths_of_a_list_may_not_lead_out_of_its_folder(
    path: str, mv_video: Made, tables: Tables, stage: ImportMvVideo, tmp_path: Path
) -> None:
    root, info = mv_video
    entries = trainers_list(root, info)
    entries[0]["data_path"][2] = path
    target = root / "evil.json"
    target.write_text(json.dumps(entries))
    items = listed(target, tables)
    (row,) = rows_of(stage, items[0])
    assert isinstance(row, Rejected)
    assert (row.reason, len(items)) == ("unsafe_uri", 6)
    assert "entry 0 of evil.json" in row.detail


def test_absolute_paths_inside_the_folder_are_fine(mv_video: Made, tables: Tables, stage: ImportMvVideo) -> None:
    root, info = mv_video
    entries = trainers_list(root, info)[:1]
    entries[0]["data_path"] = [str(root / path) for path in entries[0]["data_path"]]
    (root / "absolute.json").write_text(json.dumps(entries))
    (item,) = listed(root / "absolute.json", tables)
    assert item.name == f"{UIDS[0]}/00"
    assert clip_of(rows_of(stage, item))


@pytest.mark.parametrize(
    ("content", "says"),
    [(None, "neither MV-Video's folder nor a .json list"), ("{", "no JSON"), ("{}", "no JSON list"), ("[]", "no clip")],
)
def test_a_list_that_is_none_is_said_so(content: str | None, says: str, tmp_path: Path) -> None:
    path = tmp_path / "list.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ValueError, match=says):
        open_rendered("mv-video", path, NOTHING)


def test_the_command_goes_on_where_it_was_and_looks_again_when_told(
    one: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, videos = tmp_path / "root", one / "videos" / UIDS[0]
    shutil.copytree(videos / "00", videos / "01")
    kept = (videos / "01" / "view_3.mp4").read_bytes()
    (videos / "01" / "view_3.mp4").unlink()
    command = ["import", "mv-video", str(one), "--licence", "CC0-1.0", "--data", str(data), "--quiet", "true"]
    tables = Tables(Store(str(data)))

    def outcome() -> tuple[int, Counter[str]]:
        return len(tables.rows(Clip)), Counter(row.reason for row in tables.rows(Rejected))

    assert main([*command, "--dry-run"]) == 0
    assert outcome() == (0, Counter())
    assert main(command) == 0
    assert outcome() == (1, Counter(missing_file=1))
    assert len(tables.rows(SourceItem)) == 2
    first = {path: path.stat().st_mtime_ns for path in (data / "clips").rglob("*.webp")}
    assert main(command) == 0, "nothing is done twice"
    assert {path: path.stat().st_mtime_ns for path in (data / "clips").rglob("*.webp")} == first
    (videos / "01" / "view_3.mp4").write_bytes(kept)
    assert main([*command, "--retry-rejected", "missing_file"]) == 0
    assert outcome() == (2, Counter())


def test_ids_choose_models(mv_video: Made, tables: Tables, tmp_path: Path) -> None:
    path = tmp_path / "high_quality_uid.txt"
    path.write_text(f"{UIDS[1]}\n")
    assert {item.model_id for item in listed(mv_video[0], tables, ids=str(path))} == {UIDS[1]}
    path.write_text("f" * 32)
    with pytest.raises(ValueError, match="no clip of the models"):
        listed(mv_video[0], tables, ids=str(path))


def test_settings_that_cannot_be_are_refused(store: Store) -> None:
    for wrong in ({"num_views": -1}, {"every": 0}, {"fov_deg": 0.0}, {"quality": 101}, {"size_px": -1}):
        with pytest.raises(ValueError, match=r"need|must"):
            ImportMvVideo(data=store.root, **wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="allow"):
        ImportMvVideo(data=store.root, policy="custom")


def test_a_model_is_one_family_whatever_shows_it(mv_video: Made, tables: Tables, stage: ImportMvVideo) -> None:
    item = listed(mv_video[0], tables)[0]
    mine = stage._probe(item, "a", stage.read(item))
    theirs = ImportDiffusion4d(data=stage.data)._probe(item, "b", stage.read(item))
    assert mine.family_id == theirs.family_id
