"""The same assets in the default Blender and in 5.0: `make venv-bpy5`, or MV4D_BPY5_PYTHON names its interpreter."""

import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.records import Clip, ClipPlan, Rejected
from pipeline.storage import Store
from render.draw import Render
from render.plan import Plan
from render.probe import ProbeAsset
from render.protocol import Loaded, Measured, fields_of
from render.supervisor import BlenderSettings
from tests.render.blender_process import REPOSITORY, BlenderProcess, Failed, make_files, picture, view
from tests.render.rows import asset_of

pytestmark = pytest.mark.blender

PYTHON = os.environ.get("MV4D_BPY5_PYTHON") or str(REPOSITORY / ".venv-bpy5" / "bin" / "python")
needs_both = pytest.mark.skipif(
    not os.access(PYTHON, os.X_OK), reason="no second Blender: `make venv-bpy5`, or set MV4D_BPY5_PYTHON"
)
NUM_FRAMES = 3
CLOSE_DB = 40.0
SAMPLES = ("octopus.usdc", "snake.usdz", "excavator.blend", "fox.fbx", "helicopter.fbx", "jack_in_the_box", "flag.glb")
REAL = ("Trex.glb", "AnimatedMorphSphere.glb", "CesiumMilkTruck.glb", "boxman.blend", "Cow.fbx")
"""Skinned, morph targets, rigid nodes, .blend and .fbx."""
SIMULATED = ("fountain", "brood", "swarm", "hung", "pudding")

Two = tuple[BlenderProcess, BlenderProcess]


@pytest.fixture(scope="module")
def blenders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Two]:
    folder = tmp_path_factory.mktemp("logs")
    default, newer = BlenderProcess(folder / "default"), BlenderProcess(folder / "newer", python=PYTHON)
    versions = [blender.ask("hello").blender_version for blender in (default, newer)]
    assert versions[0].startswith("4.5.")
    assert versions[1].startswith("5.0.")
    yield default, newer
    for blender in (default, newer):
        blender.close()


def assert_alike(blenders: Two, path: Path, folder: Path) -> None:
    """The same actions, the same motion of each of the first two, and pictures that differ by noise."""
    loaded: list[Loaded] = [blender.load(path) for blender in blenders]
    assert loaded[0] == loaded[1]
    for action in loaded[0].actions[:2]:
        times = np.linspace(action.start_s, action.end_s, NUM_FRAMES, endpoint=False).tolist()
        measured: list[Measured] = [blender.measure(action.index, times) for blender in blenders]
        assert_same_motion(*(fields_of(each) for each in measured))
        for number, blender in enumerate(blenders):
            blender.draw(folder / str(number), action.index, times, [view(30, 15)], samples=32, denoise="fast")
        for frame in range(NUM_FRAMES):
            assert psnr_db(*(picture(folder / str(number), "v030", frame) for number in range(2))) > CLOSE_DB


def assert_same_motion(one: dict[str, Any], other: dict[str, Any]) -> None:
    for name, value in one.items():
        if isinstance(value, float):
            assert other[name] == pytest.approx(value, rel=1e-4, abs=1e-5), name
        elif isinstance(value, list):
            assert other[name] == pytest.approx(value, rel=1e-4, abs=1e-5 * one["rest_diagonal"]), name
    assert one["finite"] == other["finite"]


def psnr_db(one: np.ndarray, other: np.ndarray) -> float:
    """Over what either shows, on grey."""
    shown = (one[..., 3] > 0) | (other[..., 3] > 0)
    flat = [image[..., :3] * image[..., 3:] + 0.5 * (1 - image[..., 3:]) for image in (one, other)]
    error = float(np.mean((flat[0] - flat[1])[shown] ** 2))
    return -10 * math.log10(error) if error else math.inf


@pytest.mark.slow
@needs_both
@pytest.mark.parametrize("name", SAMPLES)
def test_a_sample_is_the_same_in_both_versions(blenders: Two, samples: Path, tmp_path: Path, name: str) -> None:
    path = samples / name
    assert_alike(blenders, next(path.glob("*.gltf")) if path.is_dir() else path, tmp_path)


@pytest.mark.slow
@needs_both
@pytest.mark.parametrize("name", REAL)
def test_a_real_asset_is_the_same_in_both_versions(blenders: Two, real_assets: Path, tmp_path: Path, name: str) -> None:
    assert_alike(blenders, next(real_assets.rglob(name)), tmp_path)


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("simulated")
    make_files("tests.render.simulated_files", folder)
    return folder


@pytest.mark.slow
@needs_both
@pytest.mark.parametrize("name", SIMULATED)
def test_a_simulation_is_the_same_in_both_versions(blenders: Two, simulated: Path, tmp_path: Path, name: str) -> None:
    assert_alike(blenders, simulated / f"{name}.blend", tmp_path)
    folders = [tmp_path / "0", tmp_path / "again"]
    for folder, actions in zip(folders, ((0, 1, 0), (1, 0)), strict=True):  # and whatever was drawn before in 5.0
        for action in actions:
            blenders[1].draw(folder, action, [0.3, 0.8], [view(30, 15)])
    assert len({(folder / "v030_001.png").read_bytes() for folder in folders}) == 1


SAVE = """
import bpy, sys
bpy.ops.wm.read_factory_settings(use_empty=True)
bpy.ops.mesh.primitive_cube_add()
bpy.ops.wm.save_as_mainfile(filepath=sys.argv[1], compress=sys.argv[2] == "compressed")
"""


@pytest.fixture
def save(tmp_path: Path) -> Callable[[str, str], Path]:
    def save(python: str, how: str) -> Path:
        path = tmp_path / f"{how}.blend"
        subprocess.run([python, "-c", SAVE, str(path), how], check=True, capture_output=True, timeout=120)
        return path

    return save


def test_a_file_of_a_later_version_is_refused(save: Callable[[str, str], Path], tmp_path: Path) -> None:
    path = save(sys.executable, "plain")
    content = path.read_bytes()
    assert content.startswith((b"BLENDER-v4", b"BLENDER_v4"))
    path.write_bytes(content[:9] + b"499" + content[12:])
    blender = BlenderProcess(tmp_path / "log")
    with pytest.raises(Failed, match=r"unsupported_version: saved by Blender 4\.99, and this is 4\.5"):
        blender.load(path)
    blender.close()


@pytest.mark.slow
@needs_both
def test_a_run_with_another_interpreter_says_which_blender_drew(samples: Path, store: Store) -> None:
    settings = BlenderSettings(blender_python=PYTHON)
    asset = asset_of(store, (samples / "toy_robot.glb").read_bytes())
    probe = ProbeAsset(data=store.root, blender=settings)
    (item,) = Plan.inputs([row for row in probe.process(asset) if not isinstance(row, Rejected)])
    plan = Plan(data=store.root, rig="front", quality="preview", size_px=32, max_animations=1)
    render = Render(data=store.root, blender=settings)
    clips = [clip for row in plan.process(item) if isinstance(row, ClipPlan) for clip in render.process(row)]
    render.close()
    assert [(clip.blender_version, clip.device) for clip in clips if isinstance(clip, Clip)] == [("5.0.1", "CPU")]


@pytest.mark.slow
@needs_both
@pytest.mark.parametrize("how", ["plain", "compressed"])
def test_a_file_of_a_newer_blender_is_refused_by_the_older(
    blenders: Two, save: Callable[[str, str], Path], how: str
) -> None:
    path = save(PYTHON, how)
    with pytest.raises(Failed, match=r"unsupported_version: saved by Blender 5\.0, and this is 4\.5"):
        blenders[0].load(path)
    assert blenders[1].load(path).num_triangles == 12


@pytest.mark.slow
@needs_both
def test_a_file_of_an_older_blender_is_read_by_the_newer(blenders: Two, save: Callable[[str, str], Path]) -> None:
    assert blenders[1].load(save(sys.executable, "plain")).num_triangles == 12
