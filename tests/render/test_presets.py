"""Published systems' rendering: the settings, the command line, and a clip drawn for real."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.cameras import to_mv_video
from pipeline.cli import main
from pipeline.media import read_view
from pipeline.records import Animation, Clip, ClipPlan
from pipeline.storage import Store
from pipeline.tables import Tables
from render.presets import preset_names, read_preset
from render.probe import is_of
from render.windows import WindowSettings
from tests.render.test_end_to_end import two_boxes


def config_of(command: str, *arguments: str, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    import yaml

    with pytest.raises(SystemExit) as ended:
        main([command, *arguments, "--print_config"])
    assert ended.value.code == 0
    found: dict[str, Any] = yaml.safe_load(capsys.readouterr().out)
    return found


def flat(options: dict[str, Any], before: str = "") -> dict[str, Any]:
    """Dotted names and values."""
    found: dict[str, Any] = {}
    for key, value in options.items():
        found |= flat(value, f"{before}{key}.") if isinstance(value, dict) else {f"{before}{key}": value}
    return found


@pytest.mark.parametrize("name", preset_names())
def test_every_option_of_a_preset_reaches_every_command_that_has_it(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = flat(read_preset(name))
    build = flat(config_of("build", "--as", name, "x", capsys=capsys))
    assert {key: build.get(key, "absent") for key in wanted} == wanted
    render = flat(config_of("render", "--as", name, capsys=capsys))
    assert {key: render.get(key, "absent") for key in wanted} == wanted
    probe = flat(config_of("probe", "--as", name, capsys=capsys))
    windows = {key: value for key, value in wanted.items() if key.startswith("windows.")}
    assert {key: probe.get(key, "absent") for key in windows} == windows


def test_options_and_config_files_change_a_preset(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "mine.yaml"
    config.write_text("size_px: 64\nlook:\n  lights: grey\n")
    arguments = ("--as", "diffusion4d", "--config", str(config), "--cameras.start_jitter_deg", "180")
    found = flat(config_of("render", *arguments, capsys=capsys))
    assert (found["size_px"], found["look.lights"], found["cameras.start_jitter_deg"]) == (64, "grey", 180.0)
    assert (found["rig"], found["look.view_transform"]) == ("diffusion4d", "filmic")
    before = flat(config_of("render", "--size_px=32", "--as=diffusion4d", capsys=capsys))
    assert (before["size_px"], before["rig"]) == (32, "diffusion4d")


def test_an_unknown_preset_is_refused_with_the_names_of_the_known(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["render", "--as", "diffusion5d"])
    assert ended.value.code == 2
    assert "mv-video" in capsys.readouterr().err


def test_mv_videos_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    found = flat(config_of("render", "--as", "mv-video", capsys=capsys))
    assert (found["rig"], found["max_animations"]) == ("mv16", 6)
    assert (found["cameras.radius"], found["cameras.fov_deg"]) == (3.0, 40.0)
    assert (found["cameras.elevation_min_deg"], found["cameras.elevation_max_deg"]) == (0.0, 30.0)
    assert found["cameras.start_jitter_deg"] == 11.25
    assert (found["windows.window_s"], found["windows.long_s"]) == (2.0, 4.0)


def test_diffusion4ds_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    found = flat(config_of("render", "--as", "diffusion4d", capsys=capsys))
    assert 18.0 / math.tan(math.radians(found["cameras.fov_deg"]) / 2) == pytest.approx(50.0, abs=1e-9)
    assert math.radians(found["cameras.fov_deg"]) == pytest.approx(0.69111, abs=1e-5)
    assert found["cameras.radius"] == 2.0


@pytest.fixture(scope="module")
def probed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with one asset, measured for the usual windows and for Diffusion4D's."""
    folder = tmp_path_factory.mktemp("preset")
    (folder / "assets").mkdir()
    (folder / "assets" / "boxes.glb").write_bytes(two_boxes())
    data = str(folder / "data")
    run = ["--data", data, "--backend", "local", "--workers", "1", "--quiet", "true"]
    assert main(["ingest", str(folder / "assets"), *run, "--licence", "CC0-1.0"]) == 0
    assert main(["probe", *run]) == 0
    assert main(["probe", *run, "--as", "diffusion4d"]) == 0
    return folder / "data"


def rendered(data: Path, *arguments: str) -> list[Clip]:
    """The clips of a command, of which no other drew any."""
    tables = Tables(Store(str(data)))
    before = {clip.clip_id for clip in tables.rows(Clip)}
    run = ["--data", str(data), "--backend", "local", "--workers", "1", "--quiet", "true"]
    assert main(["render", *run, *arguments]) == 0
    return [clip for clip in Tables(Store(str(data))).rows(Clip) if clip.clip_id not in before]


@pytest.mark.blender
def test_a_clip_drawn_as_diffusion4d_draws(probed: Path) -> None:
    (clip,) = rendered(probed, "--as", "diffusion4d", "--size_px", "24")
    assert (clip.num_frames, clip.fps, clip.num_camera_frames) == (24, 24.0, 24)
    assert clip.view_names == ("orbit", "static", "front", "left", "right", "back")
    places = np.reshape(clip.c2w, (6, 24, 4, 4))[..., :3, 3]
    assert places[0, 1] == pytest.approx([0.5396, -1.9258, 0.0], abs=5e-5)
    angles = 2 * np.pi * (1 - np.arange(24) / 23)
    assert np.allclose(places[0], -2 * np.stack([np.sin(angles), np.cos(angles), 0 * angles], axis=1), atol=1e-6)
    assert np.array_equal(places[0], places[1])
    # The largest side of the first frame's box: from -0.7 to 2 m.
    assert clip.world_scale == pytest.approx(1 / 2.7, abs=1e-5)
    drawn = json.loads(clip.settings)
    suns = {sun["name"]: sun["strength"] for sun in drawn["light"]["suns"]}
    assert suns["key"] in (3, 4, 5)
    assert suns["bottom"] in (1, 2, 3)
    assert drawn["quality"]["samples"] == 128
    assert drawn["quality"]["paths"]["filter_width_px"] == 0.01
    store = Store(str(probed))
    orbit, static, front = (read_view(store, clip, view) for view in range(3))
    assert np.array_equal(orbit[0], static[0])
    assert np.array_equal(static[0], static[23])  # as in the published samples
    assert np.array_equal(front[0], orbit[0])
    assert not np.array_equal(front[12], front[0])


@pytest.mark.blender
def test_a_clip_drawn_as_mv_video_draws(probed: Path) -> None:
    (clip,) = rendered(probed, "--as", "mv-video", "--size_px", "16", "--quality", "preview")
    assert (clip.num_views, clip.num_frames, clip.fps) == (16, 16, 8.0)
    vectors = to_mv_video(np.reshape(clip.c2w, (16, 4, 4)))
    for index in range(16):
        a, e = np.radians(clip.azimuth_deg + 22.5 * index), np.radians(clip.elevation_deg)
        assert vectors[index][[3, 7, 11]] == pytest.approx(
            [np.cos(e) * np.cos(a), np.cos(e) * np.sin(a), np.sin(e)], abs=1e-8
        )


@pytest.mark.blender
def test_a_preset_draws_only_what_was_measured_for_it(probed: Path) -> None:
    tables = Tables(Store(str(probed)))
    animations = tables.rows(Animation)
    assert len(animations) == 2
    theirs = [row for row in animations if is_of(row, WindowSettings(**read_preset("diffusion4d")["windows"]))]
    assert [row.num_frames for row in theirs] == [24]
    planned = {row.animation_id for row in tables.rows(ClipPlan) if row.rig == "diffusion4d"}
    assert planned == {row.animation_id for row in theirs}
    with pytest.raises(SystemExit) as ended:
        main(["render", "--data", str(probed), "--as", "mv-video", "--windows.num_frames", "48", "--quiet", "true"])
    assert ended.value.code == 2


@pytest.mark.blender
def test_a_folder_of_pictures_lights_the_clips_and_a_broken_one_stops_before_the_work(
    probed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from tests.render.panoramas import radiance, sky

    (tmp_path / "broken.hdr").write_bytes(b"nothing")
    options = ["--as", "mv-video", "--rig", "front", "--size_px", "16", "--quality", "preview", "--look.lights", "hdri"]
    run = ["--data", str(probed), "--backend", "local", "--quiet", "true"]
    with pytest.raises(SystemExit) as ended:
        main(["render", *run, *options, "--look.hdri_folder", str(tmp_path)])
    assert ended.value.code == 2
    assert "broken.hdr is no HDR picture" in " ".join(capsys.readouterr().err.split())
    (tmp_path / "broken.hdr").write_bytes(radiance(sky()))
    (clip,) = rendered(probed, *options, "--look.hdri_folder", str(tmp_path))
    light = json.loads(clip.settings)["light"]
    assert light["picture"] in json.loads(clip.settings)["look"]["hdris"]
    assert 0 <= light["turn_deg"] <= 360
    (tmp_path / "moved").mkdir()
    (tmp_path / "broken.hdr").rename(tmp_path / "moved" / "sky.hdr")
    assert rendered(probed, *options, "--look.hdri_folder", str(tmp_path / "moved")) == []
