import json
from pathlib import Path

import numpy as np
import pytest

from fourd.__main__ import main
from fourd.moving import read_moving
from pipeline.cli import run_command
from pipeline.records import Truth
from pipeline.tables import Tables
from tests.fourd import bending_bar

QUICK = [
    "--set", "static.steps=10", "--set", "num_gaussians=400", "--set",
    'stages=[{"name": "track", "steps": 40, "frames": "newest", "steps_per_frame": 10, "num_earlier": 0}]',
    "--quiet", "true",
]  # fmt: skip


def test_a_clip_becomes_gaussians_tracks_and_metrics(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bending_bar.data_root(str(tmp_path / "data"))
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
