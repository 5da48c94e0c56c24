"""What the real Blender child spends, and that sparing it leaves the pictures alone."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from render.look import QUALITIES
from render.protocol import Paths, fields_of
from tests.render.blender_process import BlenderProcess, picture, view
from tests.render.tiny_gltf import TinyGltf

pytestmark = pytest.mark.blender

CORES = os.sched_getaffinity(0)


@pytest.fixture(scope="module")
def cube(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tiny = TinyGltf()
    node = tiny.node(mesh=tiny.cube(tiny.material((0.8, 0.3, 0.1))), name="cube")
    tiny.animate("turn", (node, "rotation", [0.0, 1.0], [[0, 0, 0, 1], [0, 0.7071, 0, 0.7071]]))
    return tiny.save(tmp_path_factory.mktemp("cube") / "cube.glb")


@pytest.fixture(scope="module")
def blender(cube: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BlenderProcess]:
    process = BlenderProcess(tmp_path_factory.mktemp("log") / "child.log")
    process.load(cube)
    yield process
    assert process.close() == 0


@pytest.fixture(scope="module")
def wide(cube: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BlenderProcess]:
    """A child that may use two cores."""
    process = BlenderProcess(tmp_path_factory.mktemp("log") / "child.log", threads=2)
    process.load(cube)
    yield process
    assert process.close() == 0


def shot(blender: BlenderProcess, folder: Path, **changes: Any) -> np.ndarray:
    blender.draw(folder, 0, [0.4], [view(30.0, 20.0, name="v")], **changes)
    return picture(folder, "v")


def preset(name: str) -> dict[str, Any]:
    quality = QUALITIES[name]
    return {"samples": quality.samples, "denoise": quality.denoise, "paths": fields_of(quality.paths)}


@pytest.mark.skipif(len(CORES) < 2, reason="with one core, there are no idle workers to spare")
def test_a_child_with_one_thread_has_no_idle_workers_and_may_run_anywhere(cube: Path, tmp_path: Path) -> None:
    def number_of_threads(cores: set[int]) -> int:
        os.sched_setaffinity(0, cores)
        process = BlenderProcess(tmp_path / "child.log")
        os.sched_setaffinity(0, CORES)
        process.load(cube)
        shot(process, tmp_path / "out")
        running = psutil.Process(process.pid)
        assert set(running.cpu_affinity()) == cores
        number = running.num_threads()
        assert process.close() == 0
        return number

    assert number_of_threads(CORES) == number_of_threads({min(CORES)})


@pytest.mark.parametrize("name", ["preview", "standard", "high"])
def test_threads_change_no_bit(blender: BlenderProcess, wide: BlenderProcess, tmp_path: Path, name: str) -> None:
    one = shot(blender, tmp_path / "one", **preset(name))
    two = shot(wide, tmp_path / "two", threads=2, **preset(name))
    assert np.array_equal(one, two)


def test_a_threshold_ends_pixels_early_but_not_before_the_least_samples(
    blender: BlenderProcess, tmp_path: Path
) -> None:
    def error(samples: int, **paths: Any) -> float:
        drawn = shot(blender, tmp_path, samples=samples, paths=fields_of(Paths(**paths)))
        return float(np.sqrt(((drawn - converged) ** 2).mean()))

    converged = shot(blender, tmp_path, samples=512)
    whole = error(64)
    assert error(64, adaptive_threshold=10.0, adaptive_min_samples=1) > 1.3 * whole
    assert error(64, adaptive_threshold=10.0, adaptive_min_samples=64) == whole
    assert error(64, adaptive_threshold=1e-4, adaptive_min_samples=1) == pytest.approx(whole, rel=0.1)
