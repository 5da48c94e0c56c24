"""Which device draws, and why: the Blender child says what it finds, and here one is chosen.

A device that was asked for and is not there is an error, never a reason to draw on another. Where `auto` was asked for,
the processor draws if there is no GPU; a GPU that is there and fails is an error again.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from render.protocol import CPU, Device

Wanted = Literal["auto", "cpu", "cuda", "optix", "hip", "oneapi", "metal"]
EngineName = Literal["cycles", "eevee"]

BEST_FIRST = ("OPTIX", "CUDA", "HIP")
"""The ways to use a GPU that `auto` takes. OptiX traces rays in hardware where the card can."""
SOFTWARE_GL = ("llvmpipe", "softpipe", "swrast", "swiftshader", "lavapipe", "software", "basic render")
"""In the names of GL that runs on the processor, which draws an EEVEE frame in minutes."""
DRIVER_VARIABLES = (
    "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "NVIDIA_VISIBLE_DEVICES", "NVIDIA_DRIVER_CAPABILITIES",
    "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "ONEAPI_DEVICE_SELECTOR", "ZE_AFFINITY_MASK",
    "__EGL_VENDOR_LIBRARY_FILENAMES", "__EGL_VENDOR_LIBRARY_DIRS",
)  # fmt: skip
"""Environment that says which GPUs a process may use, and by which driver. Ray sets the first for its actors."""


class DeviceUnavailable(RuntimeError):
    """The device that was asked for cannot be had on this machine; says what was found instead."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What draws."""

    device: Device
    why: str
    num_devices: int = 1
    """How many of this kind there are to share among children."""


def choose(wanted: Wanted, found: Sequence[Device], files: Sequence[str], rank: int = 0) -> Choice:
    """The device for Cycles.

    Args:
        wanted: The setting.
        found: What Blender finds, each GPU once for each way to use it.
        files: Device files of GPUs that the machine has.
        rank: Of the child among those of its process: the GPUs are dealt out in turn.

    Raises:
        DeviceUnavailable: It is not among those found.
    """
    if wanted == "cpu":
        return Choice(device=CPU, why="as --blender.device says")
    for kind in BEST_FIRST if wanted == "auto" else (wanted.upper(),):
        devices = [device for device in found if device.kind == kind]
        if devices:
            why = _best_of(kind, found) if wanted == "auto" else "as --blender.device says"
            return Choice(device=devices[rank % len(devices)], why=why, num_devices=len(devices))
    if wanted == "auto":
        return Choice(device=CPU, why=_no_gpu(found, files))
    advice = _advice(wanted.upper(), found, files)
    raise DeviceUnavailable(f"there is no {wanted} device: {_no_gpu(found, files)}{advice}")


def choose_gl(found: Sequence[Device]) -> Choice:
    """The device for EEVEE: the only one, if it is a GPU.

    Raises:
        DeviceUnavailable: GL runs on the processor.
    """
    device = found[0]
    if is_software_gl(device.name):
        raise DeviceUnavailable(
            f"EEVEE needs the OpenGL of a GPU, and here is {device.name}, which runs on the processor and takes "
            "minutes for a frame. Install the GPU's driver with its EGL library (in a container, start it with "
            "--gpus all and NVIDIA_DRIVER_CAPABILITIES=all), leave --blender.device at auto, or draw with "
            "--look.engine cycles"
        )
    return Choice(device=device, why="it draws OpenGL")


def is_software_gl(name: str) -> bool:
    """GL of this vendor and renderer runs on the processor."""
    return any(word in name.lower() for word in SOFTWARE_GL)


def gpu_files(folder: str = "/dev") -> list[str]:
    """Device files through which a process reaches the GPUs of this machine; empty if it has none."""
    root = Path(folder)
    nvidia = sorted(root.glob("nvidia*")) if list(root.glob("nvidia[0-9]*")) else []
    rendering = [root / "dri"] if list(root.glob("dri/renderD*")) else []
    others = [path for path in (root / "kfd", root / "dxg") if path.exists()]
    return [str(path) for path in (*nvidia, *rendering, *others)]


def kernel_cache() -> Path:
    """Where drivers keep what they compile for a GPU, for all children and runs: it takes minutes."""
    caches = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(caches) / "mv4d" / "gpu"


def cache_environment(folder: Path) -> dict[str, str]:
    """Has Cycles and the drivers keep their compiled kernels and shaders in a folder."""
    return {
        "XDG_CACHE_HOME": str(folder),
        "CUDA_CACHE_PATH": str(folder / "cuda"),
        "CUDA_CACHE_MAXSIZE": str(4 << 30),
        "OPTIX_CACHE_PATH": str(folder / "optix"),
        "__GL_SHADER_DISK_CACHE_PATH": str(folder / "gl"),
        "MESA_SHADER_CACHE_DIR": str(folder / "mesa"),
        "SYCL_CACHE_PERSISTENT": "1",
        "SYCL_CACHE_DIR": str(folder / "sycl"),
    }


def _best_of(kind: str, found: Sequence[Device]) -> str:
    others = _listed([device for device in found if device.kind != kind])
    if kind == "CUDA":
        return f"the best found{_advice('OPTIX', found, ())}"
    return f"the best found; also {others}" if others else "the only one found"


def _no_gpu(found: Sequence[Device], files: Sequence[str]) -> str:
    if found:
        return f"found {_listed(found)}"
    if files:
        return f"there is {', '.join(files)}, but Blender finds no GPU that it can use (an old driver, or an old card?)"
    return "no GPU found (no /dev/nvidia0, /dev/kfd or /dev/dri/renderD128)"


def _advice(kind: str, found: Sequence[Device], files: Sequence[str]) -> str:
    if kind == "OPTIX" and any(device.kind == "CUDA" for device in found):
        return (
            "; OptiX needs the driver's libnvoptix.so.1 (in a container, start it with NVIDIA_DRIVER_CAPABILITIES=all)"
        )
    return "" if found or files else "; in a container, start it with the GPU's devices (docker run --gpus all)"


def _listed(devices: Sequence[Device]) -> str:
    return ", ".join(device.label for device in devices)
