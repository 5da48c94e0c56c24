"""From a file to one that moves: Blender, the network, the reconstruction and the exports, all real and small."""

import json
from pathlib import Path

import numpy as np
import pytest

from fourd.gltf import read_glb
from fourd.viewer.page import find_shown
from pipeline.cli import EXIT_FINDINGS, EXIT_OK, EXIT_USAGE, main
from pipeline.records import Clip
from pipeline.storage import Store
from pipeline.tables import Tables
from tests.ingest.tiny import triangle_glb
from tests.training.toys import tiny_pipeline

pytestmark = pytest.mark.blender
PRESET = """
name: short
field: {levels: [1, 4], num_followed: 2}
weights: {node_arap: 10.0, arap: 0.0}
num_gaussians: 60
arap_reduction: mean
stages: [{name: together, steps: 3, frames_per_step: 2}]
"""


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
    assert str(out / "view.html") in capsys.readouterr().out
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
    assert json.loads((out / "metrics.json").read_text())["clip_id"] == made.clip_id

    # The same command again finds all done, and refinement goes on from there.
    before = {path: path.stat().st_mtime_ns for path in (out / "data" / "clips").rglob("*.webp")}
    assert animate(samples / "toy_robot.glb", network, out, "--refine_steps", 2, "--refine_px", 24) == EXIT_OK
    assert {path: path.stat().st_mtime_ns for path in (out / "data" / "clips").rglob("*.webp")} == before
    assert (out / "refined").is_dir()


def test_what_cannot_be_animated_is_refused_with_a_reason(
    network: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken.glb"
    broken.write_bytes(triangle_glb()[:200])
    assert animate(broken, network, tmp_path / "a") == EXIT_FINDINGS
    assert "broken.glb" in capsys.readouterr().err
    assert animate(tmp_path / "none.glb", network, tmp_path / "b") == EXIT_FINDINGS
    assert animate(broken, tmp_path, tmp_path / "c") == EXIT_USAGE
    assert not (tmp_path / "c").exists()
    assert animate(broken, network, tmp_path / "d", "--num_frames", 1) == EXIT_USAGE
