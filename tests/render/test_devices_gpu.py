"""On a machine with a GPU: `pytest tests/render/test_devices_gpu.py -v`. Elsewhere all of it is skipped."""

import dataclasses
import math
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.media import read_view
from pipeline.records import Animation, Clip, ClipPlan, Probe
from pipeline.storage import Store
from render.devices import DeviceUnavailable, gpu_files
from render.draw import Render
from render.look import Look
from render.plan import Plan
from render.probe import ProbeAsset
from render.protocol import CPU, Device, Survey
from render.supervisor import BlenderChild, BlenderSettings
from tests.render.rows import asset_of
from tests.render.test_sandbox import missing_here

pytestmark = [
    pytest.mark.blender,
    pytest.mark.skipif(not gpu_files(), reason="no GPU: no /dev/nvidia0, /dev/kfd or /dev/dri/renderD128"),
]
SETTINGS = BlenderSettings(sandbox="best" if missing_here() else "require")
SIZE_PX = 96


@pytest.fixture(scope="module")
def found() -> list[Device]:
    child = BlenderChild(SETTINGS)
    devices: list[Device] = child.call(Survey(engine="cycles")).devices
    child.close()
    return devices


@pytest.fixture(scope="module")
def plan(samples: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, ClipPlan]:
    """A clip of a skinned sample, measured without any GPU."""
    store = Store(str(tmp_path_factory.mktemp("gpu")))
    asset = asset_of(store, (samples / "toy_robot.glb").read_bytes())
    stage = ProbeAsset(data=store.root, blender=dataclasses.replace(SETTINGS, device="cpu"))
    rows = list(stage.process(asset))
    stage.close()
    return store, planned(store, rows)


def planned(store: Store, rows: list[Any], **look: Any) -> ClipPlan:
    plan = Plan(data=store.root, rig="front", quality="high", size_px=SIZE_PX, max_animations=1, look=Look(**look))
    (item,) = Plan.inputs([row for row in rows if isinstance(row, (Probe, Animation))])
    return next(row for row in plan.process(item) if isinstance(row, ClipPlan))


def drawn(store: Store, plan: ClipPlan, **settings: Any) -> tuple[Clip, np.ndarray]:
    """The clip and its only view, floats in 0..1."""
    stage = Render(data=store.root, blender=dataclasses.replace(SETTINGS, **settings))
    started = time.monotonic()
    (clip,) = stage.process(plan)
    stage.close()
    assert isinstance(clip, Clip)
    print(f"{clip.device}: {clip.num_frames} frames in {time.monotonic() - started:.2f} s, start and import included")
    return clip, read_view(store, clip, 0).astype(np.float64) / 255


def psnr_db(one: np.ndarray, other: np.ndarray) -> float:
    """Over what either shows, on grey."""
    shown = (one[..., 3] > 0) | (other[..., 3] > 0)
    flat = [image[..., :3] * image[..., 3:] + 0.5 * (1 - image[..., 3:]) for image in (one, other)]
    error = float(np.mean((flat[0] - flat[1])[shown] ** 2))
    return -10 * math.log10(error) if error else math.inf


@pytest.mark.parametrize("kind", ["OPTIX", "CUDA", "HIP", "ONEAPI"])
def test_a_gpu_draws_what_the_processor_draws(found: list[Device], plan: tuple[Store, ClipPlan], kind: str) -> None:
    if not any(device.kind == kind for device in found):
        pytest.skip(f"Blender finds no {kind} device, but {[device.label for device in found]}")
    _, by_processor = drawn(*plan, device="cpu")
    clip, by_gpu = drawn(*plan, device=kind.lower())
    assert clip.device.startswith(f"{kind} ")
    assert psnr_db(by_gpu, by_processor) > 38.0


def test_auto_takes_a_gpu_and_proves_it(found: list[Device]) -> None:
    assert found, "there are device files, and Blender finds no GPU that it can use"
    child = BlenderChild(SETTINGS)
    choice = child.device_for("cycles")
    child.close()
    print(choice)
    assert choice.device != CPU
    assert choice.device in found


def test_compiled_kernels_outlast_the_child(found: list[Device]) -> None:
    seconds = []
    for _ in range(2):
        child = BlenderChild(SETTINGS)
        _ = child.out
        started = time.monotonic()
        child.device_for("cycles")
        seconds.append(time.monotonic() - started)
        child.close()
    print(f"choosing and proving took {seconds[0]:.1f} s, and {seconds[1]:.1f} s in a second child")
    assert seconds[1] < 30.0


def test_two_children_share_the_gpus(found: list[Device], plan: tuple[Store, ClipPlan]) -> None:
    outcomes: list[np.ndarray] = []
    threads = [threading.Thread(target=lambda: outcomes.append(drawn(*plan)[1])) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) == 2
    assert psnr_db(*outcomes) > 38.0


@pytest.fixture
def eevee() -> Iterator[BlenderChild]:
    child = BlenderChild(SETTINGS)
    try:
        child.device_for("eevee")
    except DeviceUnavailable as error:
        child.close()
        pytest.skip(str(error))
    yield child
    child.close()


def test_eevee_draws_the_same_shape_and_much_the_same_colours(
    eevee: BlenderChild, plan: tuple[Store, ClipPlan]
) -> None:
    store, with_cycles = plan
    settings = with_cycles.settings.replace('"engine": "cycles"', '"engine": "eevee"')
    assert settings != with_cycles.settings
    clip, by_eevee = drawn(store, dataclasses.replace(with_cycles, settings=settings, clip_id="e" * 16))
    _, by_cycles = drawn(store, with_cycles, device="cpu")
    assert clip.device.startswith("GL ")
    both = np.minimum(by_eevee[..., 3], by_cycles[..., 3]).sum()
    assert both / np.maximum(by_eevee[..., 3], by_cycles[..., 3]).sum() > 0.97
    assert psnr_db(by_eevee, by_cycles) > 20.0
