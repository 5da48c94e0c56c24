import io
import json
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from fourd.video import find_clip, input_views, read_video
from pipeline.cli import main as mv4d
from pipeline.media import compose, read_view
from pipeline.records import Caption, Clip, StageSettings
from pipeline.storage import Store
from pipeline.tables import Tables
from tests.training.runs import Run
from tests.training.sampling.test_objects import pictures, rendered
from tests.training.toys import tiny_pipeline
from training.generate import Generator, SampleSettings, wishes_of
from training.sampling.clips import ClipFiles
from training.sampling.folder import load_pipeline
from training.sampling.free_init import FreeInit
from training.sampling.objects import CameraAngles, views_from_files

FEW = ["--num_frames", "3", "--num_inference_steps", "2", "--free_init.num_rounds", "1"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    tiny_pipeline(tmp_path_factory.mktemp("tokenizer")).save_pretrained(folder)
    return folder


def generate(model: Path, out: Path, *options: object) -> int:
    try:
        return mv4d(["generate", "--pipeline", str(model), "--out", str(out), *FEW, *map(str, options)])
    except SystemExit as end:
        return int(end.code or 0)


def clips(out: Path) -> list[Clip]:
    return Tables(Store(str(out))).rows(Clip)


def files(out: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(out)): path.read_bytes()
        for folder in ("clips", "tables")
        for path in sorted((out / folder).rglob("*"))
        if path.is_file()
    }


def test_pictures_and_prompts_become_clips(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    views = tmp_path / "views"
    pictures(views)
    out = tmp_path / "out"
    asked = ["--images", views, "--prompt", "it walks", "it  jumps", "--seed", 1, 2, "--elevation_deg", 20]
    assert generate(model, out, *asked, "--azimuth_deg", 30) == 0
    made = {json.loads(clip.settings)["prompt"]: clip for clip in clips(out)}
    assert set(made) == {"it walks", "it jumps"}
    printed = capsys.readouterr().out
    assert all(clip.clip_id in printed for clip in made.values())

    clip = made["it walks"]
    store = Store(str(out))
    given = views_from_files([views], 4, CameraAngles(elevation_deg=(20.0,), azimuth_deg=(30.0,)))
    assert (clip.num_views, clip.num_frames, clip.width, clip.fps, clip.seed) == (4, 3, 24, 8.0, 1)
    np.testing.assert_allclose(np.reshape(clip.c2w, (4, 4, 4)), given.c2w)
    assert clip.intrinsics == pytest.approx(given.intrinsics)
    # Frame 0 is what was given, with its alpha; the rest is new.
    strips = np.stack([read_view(store, clip, view) for view in range(4)])
    visible = given.rgba[..., 3] > 0
    np.testing.assert_array_equal(strips[:, 0][visible], given.rgba[visible])
    assert not np.array_equal(strips[:, 0], strips[:, 1])
    assert clip.backdrop == ""
    about = json.loads(clip.settings)
    assert about["source"]["assumed"] == {
        "radius": 3.0,
        "fov_deg": 40.0,
        "angles_deg": [[30 + 90.0 * v, 20] for v in range(4)],
    }
    assert len(about["sampled"]["weights"]) == 16

    # What the 4D stage makes of it.
    video = read_video(store, find_clip(store, clip.clip_id[:6]), input_views(clip))
    np.testing.assert_array_equal(video.rgba.numpy(), strips.swapaxes(0, 1))
    np.testing.assert_allclose(video.c2w[1, 2], given.c2w[2], atol=1e-6)

    # Videos and sheet of the same frames, in the clip's folder.
    folder = out / clip.folder
    with av.open(io.BytesIO((folder / "grid.mp4").read_bytes())) as container:
        shown = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    assert shown.shape == (3, 48, 48, 3)
    tiles = np.concatenate([np.concatenate(list(compose(strips[row : row + 2])), axis=2) for row in (0, 2)], axis=1)
    assert np.abs(shown / 255 - tiles).mean() < 0.05
    assert Image.open(folder / "sheet.png").size == (3 * 24, 4 * 24)
    assert {path.name for path in folder.glob("v0*.mp4")} == {f"v0{view}.mp4" for view in range(4)}
    assert json.loads((folder / "clip.json").read_text())["world_scale"] is None

    captions = {row.clip_id: row for row in Tables(store).rows(Caption)}
    assert captions[clip.clip_id].text == "it walks"
    with Tables(store).connect() as con:
        ((made_by, settings_id),) = con.execute(
            "SELECT DISTINCT clips.made_by, settings_id FROM clips, settings"
        ).fetchall()
    assert made_by == f"training.generate@{settings_id}"
    (settings,) = Tables(store).rows(StageSettings)
    assert json.loads(settings.settings)["sampled"]["num_inference_steps"] == 2


def test_the_same_again_is_left_and_elsewhere_comes_out_the_same(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rendered(tmp_path / "data")
    asked = ["--data", tmp_path / "data", "--clip", "ab12", "--prompt", "it waves", "--seed", 3, 4]
    for out in (tmp_path / "a", tmp_path / "b"):
        assert generate(model, out, *asked) == 0
    once = files(tmp_path / "a")
    assert once == files(tmp_path / "b")
    assert sum(name.endswith("v00.webp") for name in once) == 2
    capsys.readouterr()
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "a").rglob("*.webp")}
    assert generate(model, tmp_path / "a", *asked) == 0
    assert capsys.readouterr().out.count("was there") == 2
    assert stamps == {path: path.stat().st_mtime_ns for path in (tmp_path / "a").rglob("*.webp")}
    # A strip that is gone is made again.
    lost = sorted(stamps)[0]
    lost.unlink()
    assert generate(model, tmp_path / "a", *asked) == 0
    assert files(tmp_path / "a") == once
    (clip, _) = clips(tmp_path / "a")
    assert (clip.asset_id, clip.world_scale, clip.azimuth_deg) == ("a" * 64, 2.0, 5.0)


def test_what_decides_the_frames_decides_the_id_and_nothing_else(model: Path, tmp_path: Path) -> None:
    pictures(tmp_path)
    views = views_from_files([tmp_path], 4, CameraAngles())
    pipeline = load_pipeline(model)
    plain = SampleSettings(num_frames=3, num_inference_steps=2, free_init=FreeInit(num_rounds=1))

    def ids(settings: SampleSettings = plain, seed: int = 0, prompt: str = "walks", **files: object) -> str:
        made = Generator(pipeline, str(tmp_path), settings, ClipFiles(**files), batch_size=2)  # type: ignore[arg-type]
        return made.rows(wishes_of(views, [prompt], [seed]))[0].clip_id

    others = [
        ids(SampleSettings(num_frames=3, num_inference_steps=3, free_init=FreeInit(num_rounds=1))),
        ids(SampleSettings(num_frames=3, num_inference_steps=2)), ids(seed=1), ids(prompt="jumps"),
        ids(alpha="opaque"), ids(fps=12.0),
    ]  # fmt: skip
    assert len({ids(), *others}) == 7
    assert ids() == ids()


def test_batches_change_nothing_but_the_time(model: Path, tmp_path: Path) -> None:
    pictures(tmp_path)
    views = views_from_files([tmp_path], 4, CameraAngles())
    settings = SampleSettings(num_frames=3, num_inference_steps=2, free_init=FreeInit(num_rounds=2))
    told: list[tuple[int, int]] = []
    for out, batch_size in (("one", 1), ("three", 3)):
        made = Generator(load_pipeline(model), str(tmp_path / out), settings, ClipFiles(), batch_size)
        written = made.generate(
            wishes_of(views, ["walks"], [1, 2, 3, 1]), lambda done, total: told.append((done, total))
        )
        assert len(written) == 3
    assert told == [(step, 12) for step in range(1, 13)] + [(step, 4) for step in range(1, 5)]
    for clip in clips(tmp_path / "one"):
        strips = [read_view(Store(str(tmp_path / out)), clip, 2).astype(int) for out in ("one", "three")]
        assert np.abs(strips[0] - strips[1]).mean() < 0.5


def test_opaque_clips_say_their_background(model: Path, tmp_path: Path) -> None:
    pictures(tmp_path / "views")
    assert generate(model, tmp_path, "--images", tmp_path / "views", "--prompt", "walks", "--alpha", "opaque") == 0
    (clip,) = clips(tmp_path)
    assert clip.backdrop == "#808080"
    strip = read_view(Store(str(tmp_path)), clip, 0)
    assert (strip[..., 3] == 255).all()
    assert (strip[0, 0, 0] == (128, 128, 128, 255)).all()


def test_the_command_that_is_advised_for_a_run_works(
    unbroken: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures(tmp_path / "views")
    asked = ["--images", tmp_path / "views", "--prompt", "walks"]
    assert generate(unbroken.folder, tmp_path / "out", *asked) == 2
    said = " ".join(capsys.readouterr().err.split())
    command = said.split("`mv4d ")[1].split("`")[0].split()
    assert mv4d([*command[:-1], str(tmp_path / "model")]) == 0
    assert generate(tmp_path / "model", tmp_path / "out", *asked) == 0
    assert len(clips(tmp_path / "out")) == 1


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--images", "VIEWS"], "say what the object does"),
        (["--prompt", "walks"], "either as --images"),
        (["--prompt", "walks", "--images", "VIEWS", "--data", "VIEWS", "--clip", "ab12"], "either as --images"),
        (["--prompt", "walks", "--clip", "ab12"], "--data"),
        (["--prompt", "walks", "--images", "VIEWS", "--num_views", 3], "4 pictures for 3 views"),
        (["--prompt", "a", "b", "c", "--seed", 1, 2, "--images", "VIEWS"], "2 seeds for 3 prompts"),
        (["--prompt", "walks", "--images", "VIEWS", "--size_px", 9], "--size_px 8"),
        (["--prompt", "walks", "--images", "VIEWS", "--num_frames", 1], "2 frames"),
        (["--prompt", "walks", "--images", "VIEWS", "--num_frames", 700], "do not fit"),
        (["--prompt", "walks", "--images", "VIEWS", "--device", "abacus"], "--device abacus"),
        (["--prompt", "walks", "--images", "VIEWS", "--batch_size", 0], "batch_size"),
        (["--prompt", "walks", "--images", "VIEWS", "--pipeline", "VIEWS"], "model_index.json"),
        (["--prompt", "walks", "--images", "VIEWS", "--azimuth_deg", 1, 2], "azimuth_deg needs one number or 4"),
    ],
    ids=str,
)
def test_wrong_usage_ends_with_2_and_writes_nothing(
    options: list[object], complaint: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    views = tmp_path / "views"
    pictures(views)
    given = [views if option == "VIEWS" else option for option in options]
    if "--prompt" not in options:
        given += ["--prompt", " "]
    assert generate(model, tmp_path / "out", *given) == 2
    assert complaint in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out" / "clips").exists()
