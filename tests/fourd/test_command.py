import dataclasses
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from fourd.__main__ import main
from fourd.canonical import of_object
from fourd.moving import MovingGaussians, read_moving
from fourd.objects.glb import ReadObject, read_object, read_with_looks
from fourd.objects.on_mesh import OnMeshSettings, gaussians_on_mesh
from fourd.objects.placement import Similarity
from fourd.objects.ply import write_ply
from fourd.settings import load_settings
from pipeline.cli import run_command
from pipeline.records import Clip, Truth
from pipeline.storage import Store
from pipeline.tables import Tables
from tests.fourd import bending_bar
from tests.fourd.objects.files import chair

QUICK = [
    "--set", "static.steps=10", "--set", "num_gaussians=400", "--set",
    # Ten steps are too few for rates that are made to fall.
    'stages=[{"name": "track", "steps": 40, "frames": "newest", "steps_per_frame": 10, "num_earlier": 0, '
    '"rate_factor": 0.3}]',
    "--quiet", "true",
]  # fmt: skip


def test_a_clip_becomes_gaussians_tracks_and_metrics(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # Drawn as sharply as the preset thinks that renders are.
    drawn = bending_bar.true_model(drawing=load_settings("cpu").drawing)
    bending_bar.data_root(str(tmp_path / "data"), model=drawn)
    out = tmp_path / "out"
    given = ["--data", str(tmp_path / "data"), "--clip", "bar0", "--out", str(out), *QUICK]
    assert run_command("reconstruct", given) == 0
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["input_views"] == [0, 2, 4, 6]
    assert metrics["held_out_views"] == [1, 3, 5, 7]
    assert metrics["held_out"]["psnr_db"] > 24
    assert metrics["tracks"]["mean_error"] < 0.4 * metrics["tracks"]["still_error"]
    frames, fps = read_moving(out / "gaussians.safetensors")
    assert (len(frames), fps, len(frames[0])) == (5, 8.0, 400)
    with np.load(out / "tracks.npz", allow_pickle=False) as tracks:
        assert tracks["positions"].shape == (5, len(bending_bar.bar()[0]), 3)
        assert tracks["faces"].shape == bending_bar.bar()[1].shape
    assert (out / "preview.png").is_file()
    assert "held-out views" in capsys.readouterr().out
    before = (out / "metrics.json").read_bytes()
    assert main(["reconstruct", *given]) == 0  # nothing is left to be done
    assert (out / "metrics.json").read_bytes() == before
    assert not list(out.glob(".*"))


@pytest.fixture(scope="module")
def bending_chair(tmp_path_factory: pytest.TempPathFactory) -> tuple[ReadObject, str]:
    """A chair in the unit sphere, and a data root with a clip of it that bends, drawn by others."""
    folder = tmp_path_factory.mktemp("chair")
    read = read_with_looks(chair(folder / "chair.glb"))
    canonical = of_object(read.static, gaussians_on_mesh(read, OnMeshSettings(num_points=12_000, on_vertices=False)))
    bending = bending_bar.Bending(canonical.points, bending_bar.NUM_FRAMES)
    # Drawn sharply: at so few pixels, the usual blur makes objects a twentieth larger.
    model = MovingGaussians(canonical, bending, load_settings("cpu").drawing)
    bending_bar.data_root(str(folder / "data"), 4, 64, model=model, world_scale=math.nan)
    return read, str(folder / "data")


SHORT = [
    "--set", "static.steps=2", "--set", "num_gaussians=1000", "--set",
    'stages=[{"name": "track", "steps": 4, "frames": "newest", "steps_per_frame": 1, "num_earlier": 0, '
    '"rate_factor": 0.3}]',
    "--quiet", "true", "--held_out", "none", "--export.videos", "false",
]  # fmt: skip


def off_by(out: Path, given: Path, read: ReadObject) -> float:
    """How far vertices are from where they truly are at frame 0, at the most, as a share of the radius."""
    parts = zip(read_object(given).primitives, read.static.primitives, strict=True)
    with np.load(out / "tracks.npz", allow_pickle=False) as tracks:
        found = tracks["positions"][0]
    return max(
        float(np.linalg.norm(found[part.vertices] - read.static.vertices[true.vertices], axis=1).max())
        for part, true in parts
    )


def test_an_object_turned_scaled_and_shifted_by_hand_is_found_once_and_recorded(
    bending_chair: tuple[ReadObject, str], tmp_path: Path
) -> None:
    read, data = bending_chair
    turn = Rotation.from_euler("xyz", [90, 12, -8], degrees=True)
    given = chair(tmp_path / "mine.glb", rotation=turn.as_quat().tolist(), scale=[40] * 3, translation=[900, -20, 7])
    out = tmp_path / "out"
    command = ["--data", data, "--clip", "bar0", "--object", str(given), "--out", str(out), *SHORT]
    assert run_command("reconstruct", command) == 0
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["placement"]["how"] == "seen"
    assert metrics["placement"]["iou"] > 0.85
    assert off_by(out, given, read) < 0.05
    assert (out / "animated.glb").is_file()
    # The record is what counts from here on: no second look is taken, whatever it says.
    record = json.loads((out / "placement.json").read_text())
    assert record["object_from_file"] == metrics["placement"]["object_from_file"]
    (out / "placement.json").write_text(json.dumps(record | {"iou": 0.777}))
    assert run_command("reconstruct", command) == 0
    assert json.loads((out / "metrics.json").read_text())["placement"]["iou"] == 0.777
    assert off_by(out, given, read) < 0.05


def test_splats_from_elsewhere_are_found_too(bending_chair: tuple[ReadObject, str], tmp_path: Path) -> None:
    read, data = bending_chair
    made = gaussians_on_mesh(read, OnMeshSettings(num_points=3000, on_vertices=False)).gaussians
    turn = Rotation.from_euler("xyz", [-90, 0, 10], degrees=True).as_matrix()
    away = Similarity(scale=3.0, turn=turn, offset=np.array([4.0, -2.0, 9.0]))
    write_ply(made.transformed(torch.as_tensor(away.matrix, dtype=torch.float32)), tmp_path / "mine.ply")
    write_ply(made, tmp_path / "right.ply")
    for name, how in (("mine.ply", "seen"), ("right.ply", "clip")):
        out = tmp_path / name[:4]
        command = ["--data", data, "--clip", "bar0", "--object", str(tmp_path / name), "--out", str(out), *SHORT]
        assert run_command("reconstruct", command) == 0
        metrics = json.loads((out / "metrics.json").read_text())
        assert metrics["placement"]["how"] == how
        assert metrics["tracks"] is None  # splats have no vertices
        frames, _ = read_moving(out / "gaussians.safetensors")
        assert (frames[0].means - made.means).norm(dim=1).mean() < (0.02 if how == "seen" else 1e-5)


def test_where_the_clip_says_the_place_tracks_are_scored(bending_chair: tuple[ReadObject, str], tmp_path: Path) -> None:
    read, data = bending_chair
    model_at = read.static.object_from_world
    store = Store(data)
    (clip,) = Tables(store).rows(Clip)
    root = str(tmp_path / "data")
    shutil.copytree(data, root)
    told = dataclasses.replace(
        clip, world_scale=model_at.scale, world_centre=tuple((-model_at.offset / model_at.scale).tolist())
    )
    Tables(Store(root)).write(Clip, "clips", [told], made_by="test@0", made_from="a")
    command = ["--data", root, "--clip", "bar0", "--object", str(read.static.source)]
    assert run_command("reconstruct", [*command, "--out", str(tmp_path / "out"), *SHORT]) == 0
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["placement"]["how"] == "clip"
    assert off_by(tmp_path / "out", read.static.source, read) < 1e-5
    assert metrics["tracks"]["num_vertices"] == 32
    assert 0 < metrics["tracks"]["mean_error"] < metrics["tracks"]["still_error"]


def test_bad_input_ends_with_a_message_and_leaves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store, _ = bending_bar.data_root(str(tmp_path / "data"), 4)
    out = tmp_path / "out"
    base = ["reconstruct", "--data", str(tmp_path / "data"), "--out", str(out)]
    for more, message in [
        (["--clip", "nothing"], "no_such_clip"),
        (["--clip", "bar0", "--views", "9"], "no_such_view"),
        (["--clip", "bar0", "--views", "a"], "numbers by commas"),
        (["--clip", "bar0", "--preset", "best"], "no preset"),
        (["--clip", "bar0", "--device", "cuda"], "no device"),
        (["--clip", "bar0", "--object", "none.glb"], "none.glb"),
    ]:
        with pytest.raises(SystemExit) as caught:
            main([*base, *more, *QUICK])
        assert caught.value.code == 2
        assert message in " ".join(capsys.readouterr().err.split())
    Tables(store).remove(Truth, lambda made_by, made_from: True)
    with pytest.raises(SystemExit):
        main([*base, "--clip", "bar0", *QUICK])
    assert "--passes tracks" in " ".join(capsys.readouterr().err.split())
    assert not out.exists() or not list(out.iterdir())
