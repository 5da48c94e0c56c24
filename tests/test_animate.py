"""From a file to one that moves: Blender, the network, the reconstruction and the exports, all real and small."""

import json
from pathlib import Path

import numpy as np
import pytest

from fourd.gltf import read_glb
from fourd.viewer.page import find_shown
from pipeline.cli import EXIT_OK, main
from pipeline.records import Clip
from pipeline.storage import Store
from pipeline.tables import Tables
from tests.fourd.short_preset import PRESET
from tests.training.toys import tiny_pipeline

pytestmark = pytest.mark.blender


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    tiny_pipeline(tmp_path_factory.mktemp("tokenizer")).save_pretrained(folder)
    return folder


def animate(model: Path, network: Path, out: Path, *options: object) -> int:
    preset = out.parent / "short.yaml"
    preset.write_text(PRESET)
    given = [
        "--prompt", "it walks", "--pipeline", network, "--out", out, "--preset", preset, "--num_frames", 3,
        "--num_inference_steps", 2, "--still.size_px", 24, "--still.quality", "preview", *options,
    ]  # fmt: skip
    try:
        return main(["animate", str(model), *map(str, given)])
    except SystemExit as end:
        return int(end.code or 0)


def test_a_model_becomes_one_that_moves(
    network: Path, samples: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert animate(samples / "toy_robot.glb", network, out) == EXIT_OK
    said = capsys.readouterr()
    assert str(out / "view.html") in said.out
    for done in ("generating: 6/6 steps", "reconstructing: 3/3 steps"):
        assert done in said.err
    (still,), (made,) = (
        [clip for clip in Tables(Store(str(out / "data"))).rows(Clip) if (clip.quality == "generated") == generated]
        for generated in (False, True)
    )
    assert (still.num_frames, still.num_views, made.num_frames, made.num_views) == (1, 4, 3, 4)
    assert made.c2w == still.c2w
    source, moving = read_glb(out / "object.glb").document, read_glb(out / "animated.glb").document
    assert [node.get("name") for node in moving["nodes"]] == [node.get("name") for node in source["nodes"]]
    assert find_shown(out).glb == (out / "animated.glb").read_bytes()
    with np.load(out / "tracks.npz") as tracks:
        assert tracks["positions"].shape[0] == 3
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["clip_id"] == made.clip_id
    assert metrics["placement"]["how"] == "clip"

    # The same command again finds all done, and refinement goes on from there.
    before = {path: path.stat().st_mtime_ns for path in (out / "data" / "clips").rglob("*.webp")}
    assert animate(samples / "toy_robot.glb", network, out, "--refine_steps", 2, "--refine_px", 24) == EXIT_OK
    assert {path: path.stat().st_mtime_ns for path in (out / "data" / "clips").rglob("*.webp")} == before
    assert (out / "refined").is_dir()
    said = capsys.readouterr()
    assert "refining: 2/2 steps" in said.err
    assert "generating" not in said.err
