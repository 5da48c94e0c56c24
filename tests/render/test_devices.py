import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.cli import EXIT_MACHINE, main
from pipeline.running import RunOptions
from pipeline.storage import Store
from render import preflight, supervisor
from render.devices import Choice, DeviceUnavailable, choose, choose_gl, gpu_files, is_software_gl
from render.protocol import CPU, Device, Prove, Proved, Survey, Surveyed
from render.supervisor import BlenderChild, BlenderSettings, MachineFault, child_for, close_child
from tests.render.test_sandbox import needs_kernel
from tests.render.test_supervisor import HERE, asset

OPTIX = [Device(kind="OPTIX", name="NVIDIA L4", id=f"CUDA_NVIDIA L4_0000:{bus}:00_OptiX") for bus in ("31", "38")]
CUDA = [Device(kind="CUDA", name="NVIDIA L4", id=f"CUDA_NVIDIA L4_0000:{bus}:00") for bus in ("31", "38")]
HIP = [Device(kind="HIP", name="AMD Radeon RX 7900 XTX", id="HIP_AMD Radeon RX 7900 XTX_0000:03:00")]
ONEAPI = [Device(kind="ONEAPI", name="Intel(R) Arc(TM) A770 Graphics", id="ONEAPI_Intel(R) Arc(TM) A770_0000:03:00")]
NVIDIA_FILES = ["/dev/nvidia0", "/dev/nvidiactl", "/dev/nvidia-uvm"]


@pytest.mark.parametrize(
    ("found", "kind"),
    [([*HIP, *CUDA, *OPTIX], "OPTIX"), ([*CUDA, *HIP], "CUDA"), ([*HIP], "HIP"), ([*ONEAPI], "CPU"), ([], "CPU")],
)
def test_auto_takes_the_best_that_is_there(found: list[Device], kind: str) -> None:
    assert choose("auto", found, []).device.kind == kind


def test_a_choice_says_why() -> None:
    assert choose("auto", [*CUDA, *OPTIX], NVIDIA_FILES).why == ("the best found; also CUDA NVIDIA L4, CUDA NVIDIA L4")
    assert "libnvoptix" in choose("auto", CUDA, NVIDIA_FILES).why
    assert "no GPU found" in choose("auto", [], []).why
    assert "/dev/nvidia0" in choose("auto", [], NVIDIA_FILES).why
    assert "ONEAPI Intel" in choose("auto", ONEAPI, []).why
    assert choose("cpu", [*CUDA, *OPTIX], NVIDIA_FILES).device == CPU


@pytest.mark.parametrize("wanted", ["optix", "cuda", "hip", "oneapi", "metal"])
def test_a_device_that_is_asked_for_and_absent_is_an_error_that_names_what_there_is(wanted: Any) -> None:
    others = [device for device in (*OPTIX, *CUDA, *HIP, *ONEAPI) if device.kind != wanted.upper()]
    with pytest.raises(DeviceUnavailable, match=f"no {wanted} device: found .*NVIDIA L4"):
        choose(wanted, others, NVIDIA_FILES)
    with pytest.raises(DeviceUnavailable, match="no GPU found"):
        choose(wanted, [], [])


def test_gpus_are_dealt_out_in_turn() -> None:
    assert [choose("optix", [*OPTIX, *CUDA], [], rank).device for rank in range(4)] == [*OPTIX, *OPTIX]
    assert choose("auto", OPTIX, []).num_devices == 2


@pytest.mark.parametrize(
    ("name", "software"),
    [
        ("Mesa/X.org llvmpipe (LLVM 15.0.6, 256 bits)", True),
        ("Mesa softpipe", True),
        ("VMware, Inc. Software Rasterizer", True),
        ("Google Inc. (Google) ANGLE (Google, Vulkan 1.3.0 (SwiftShader Device (LLVM 10.0.0)))", True),
        ("Mesa zink Vulkan 1.3(llvmpipe (LLVM 19.1.1, 256 bits))", True),
        ("Microsoft Corporation Microsoft Basic Render Driver", True),
        ("NVIDIA Corporation NVIDIA H100 PCIe/PCIe/SSE2", False),
        ("AMD AMD Radeon RX 7900 XTX (radeonsi, navi31, LLVM 17.0.6, DRM 3.57)", False),
        ("Intel Mesa Intel(R) Arc(tm) A770 Graphics (DG2)", False),
    ],
)
def test_software_gl_is_known_by_its_name(name: str, software: bool) -> None:
    assert is_software_gl(name) == software
    found = [Device(kind="GL", name=name)]
    if software:
        with pytest.raises(DeviceUnavailable, match="Install the GPU's driver"):
            choose_gl(found)
    else:
        assert choose_gl(found).device == found[0]


def test_the_device_files_of_gpus(tmp_path: Path) -> None:
    assert gpu_files(str(tmp_path)) == []
    (tmp_path / "dri").mkdir()
    for name in ("nvidiactl", "dri/card0", "null"):  # a driver without a card; a screen that draws nothing
        (tmp_path / name).touch()
    assert gpu_files(str(tmp_path)) == []
    for name in ("nvidia0", "nvidia-uvm", "dri/renderD128", "kfd"):
        (tmp_path / name).touch()
    names = [Path(path).name for path in gpu_files(str(tmp_path))]
    assert names == ["nvidia-uvm", "nvidia0", "nvidiactl", "dri", "kfd"]


class FakeGpuChild(BlenderChild):
    """A child whose answers about devices were recorded."""

    def __init__(self, found: list[Device], **settings: Any) -> None:
        super().__init__(BlenderSettings(**settings), module="fake_child", readable=(HERE,))
        self.found, self.asked = found, list[str]()

    def call(self, request: Any) -> Any:
        self.asked.append(type(request).__name__)
        return Surveyed(devices=self.found) if isinstance(request, Survey) else Proved()


@pytest.fixture
def nvidia(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine with device files of a GPU, and a place for compiled kernels."""
    for module in (supervisor, preflight):
        monkeypatch.setattr(module, "gpu_files", lambda: ["/dev/full"])
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


def test_a_gpu_is_looked_for_and_proved_once(nvidia: Path) -> None:
    child = FakeGpuChild([*OPTIX, *CUDA])
    assert child.device_for("cycles").device == OPTIX[0]
    assert child.device_for("cycles").device == OPTIX[0]
    assert child.asked == ["Survey", "Prove"]


def test_without_device_files_nobody_looks() -> None:
    child = FakeGpuChild([*OPTIX])
    if gpu_files():
        pytest.skip("this machine has a GPU")
    assert child.device_for("cycles").device == CPU
    assert child.asked == []


def test_the_processor_is_taken_at_its_word(nvidia: Path) -> None:
    child = FakeGpuChild([*OPTIX], device="cpu")
    assert child.device_for("cycles").device == CPU
    assert child.asked == []


def test_only_a_child_that_may_use_a_gpu_is_let_near_one(nvidia: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    found = {}
    for device in ("auto", "cpu"):
        child = BlenderChild(BlenderSettings(device=device), module="fake_child", readable=(HERE,))  # type: ignore[arg-type]
        _, pid = child.out, child.pid
        command = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
        environment = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
        found[device] = (
            "/dev/full" in command,
            "--data_mb" in command,
            "CUDA_VISIBLE_DEVICES=3" in environment,
            f"CUDA_CACHE_PATH={nvidia}/cache/mv4d/gpu/cuda" in environment,
            any("AWS" in line for line in environment),
        )
        child.close()
    assert found == {"auto": (True, False, True, True, False), "cpu": (False, True, True, False, False)}


@needs_kernel
def test_the_sandbox_opens_device_files_for_their_driver_and_no_others(tmp_path: Path) -> None:
    (tmp_path / "ask.py").write_text(
        "import fcntl, json, os, sys\n"
        "def ask(path):\n"
        "    try:\n"
        "        with open(path, 'rb+', buffering=0) as file:\n"
        "            fcntl.ioctl(file, 0x5413)\n"
        "    except OSError as error:\n"
        "        return error.strerror\n"
        "print(json.dumps([ask('/dev/full'), os.listdir('/sys/class') and 'listed']))\n"
    )
    arguments = ["--mode", "require", "--read", str(tmp_path), "--read", "/sys/class"]

    def ask(*device: str) -> list[str]:
        done = subprocess.run(
            [sys.executable, "-m", "render.sandbox", *arguments, *device, "--", "ask"], capture_output=True, text=True,
            cwd=HERE.parents[1], env={"PYTHONPATH": f"{HERE.parents[1]}:{tmp_path}"}, check=True,
        )  # fmt: skip
        return list(json.loads(done.stdout.splitlines()[-1]))

    assert ask("--device", "/dev/full")[0] == os.strerror(25)  # ENOTTY: the driver was asked
    assert ask()[0] == os.strerror(13)


def test_children_of_one_process_rank_from_zero() -> None:
    settings = [BlenderSettings(load_s=float(number)) for number in (1001, 1002, 1003)]
    ranks = [child_for(setting).rank for setting in settings]
    assert len(set(ranks)) == 3
    close_child(settings[1])
    again = BlenderSettings(load_s=1004.0)
    assert child_for(again).rank == ranks[1]
    for setting in (*settings, again):
        close_child(setting)


def test_a_gpu_that_fails_is_a_fault_of_the_machine_and_costs_the_child(nvidia: Path, store: Store) -> None:
    child = BlenderChild(BlenderSettings(), module="fake_child", readable=(HERE,))
    with pytest.raises(MachineFault, match="OPTIX NVIDIA L4: Out of memory"):
        child.load(asset(store, "refuse", reason="device_fault", detail="OPTIX NVIDIA L4: Out of memory"), store)
    assert child.pid is None


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Choice]]:
    """What the preflight finds."""
    found = {"cycles": Choice(device=OPTIX[0], why="the best found", num_devices=2)}
    monkeypatch.setattr(preflight, "choose_device", lambda settings, engine: found[engine])
    return found  # type: ignore[return-value]


def test_the_number_of_workers_fits_the_gpus_unless_it_is_given(
    recorded: dict[str, Choice], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    blender = BlenderSettings(children_per_gpu=3)
    settled = preflight.settle_device(RunOptions(), blender, "cycles")
    assert settled.workers == 6
    assert "drawing on OPTIX NVIDIA L4: the best found" in capsys.readouterr().err
    assert preflight.settle_device(RunOptions(workers=5), blender, "cycles").workers == 5
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    assert preflight.settle_device(RunOptions(), blender, "cycles").workers == 4
    recorded["cycles"] = Choice(device=CPU, why="no GPU found")
    assert preflight.settle_device(RunOptions(), blender, "cycles").workers == 0
    assert preflight.settle_device(RunOptions(backend="ray"), blender, "cycles") == RunOptions(backend="ray")


@pytest.mark.blender
@pytest.mark.skipif(bool(gpu_files()), reason="this machine has a GPU")
def test_eevee_without_a_gpu_is_refused_before_any_work_and_soon() -> None:
    started = time.monotonic()
    with pytest.raises(DeviceUnavailable, match=r"EEVEE needs the OpenGL of a GPU|does not draw"):
        preflight.choose_device(BlenderSettings(sandbox="best"), "eevee")
    assert time.monotonic() - started < 60.0


@pytest.mark.blender
@pytest.mark.skipif(bool(gpu_files()), reason="this machine has a GPU")
def test_an_absent_device_ends_the_command_with_its_own_code(
    samples: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["build", str(samples / "windmill.glb"), "--data", str(tmp_path / "data"), "--licence", "CC0-1.0"]
    assert main([*arguments, "--blender.device", "optix"]) == EXIT_MACHINE
    said = " ".join(capsys.readouterr().err.split())
    assert "there is no optix device: no GPU found" in said
    assert not (tmp_path / "data" / "tables").exists()


@pytest.mark.blender
def test_the_processor_proves_itself_and_a_gpu_that_is_not_there_does_not() -> None:
    child = BlenderChild(BlenderSettings(device="cpu"))
    child.call(Prove(engine="cycles", device=CPU))
    with pytest.raises(MachineFault, match="Blender would draw on the processor instead"):
        child.call(Prove(engine="cycles", device=OPTIX[0]))
    child.close()


@pytest.mark.ray
def test_a_ray_actor_hands_its_gpu_on_to_its_child(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = pytest.importorskip("ray")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    ray.init(
        num_cpus=1, num_gpus=2, include_dashboard=False, object_store_memory=100 * 2**20, log_to_driver=False,
        _node_ip_address="127.0.0.1", runtime_env={"env_vars": {"PYTHONPATH": str(HERE.parents[1])}},
    )  # fmt: skip
    try:
        own, childs = ray.get(ray.remote(num_cpus=1, num_gpus=0.5)(visible_gpus).remote())
    finally:
        ray.shutdown()
    assert own in ("0", "1")
    assert childs == own


def visible_gpus() -> list[str]:
    """The GPUs that this process may see, and those that a child of it may."""
    child = BlenderChild(BlenderSettings(), module="fake_child", readable=(HERE,))
    _, pid = child.out, child.pid
    environment = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
    child.close()
    name = "CUDA_VISIBLE_DEVICES="
    return [os.environ[name[:-1]], *(line[len(name) :] for line in environment if line.startswith(name))]
