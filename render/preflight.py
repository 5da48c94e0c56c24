"""Look at the machine before any work: which Blender, what the sandbox lacks, what draws and why.

`python -m render.preflight` prints all of it as JSON; that is how `mv4d doctor` asks.
"""

import dataclasses
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from jsonargparse import ArgumentParser
from rich.console import Console

from pipeline.running import RunOptions
from render.devices import Choice, DeviceUnavailable, EngineName, gpu_files
from render.protocol import CPU, BadAsset, Survey
from render.supervisor import BlenderChild, BlenderSettings, BlenderUnavailable, MachineFault

Options = TypeVar("Options", bound=RunOptions)


def choose_device(settings: BlenderSettings, engine: EngineName) -> Choice:
    """What this machine draws on. Without a GPU, Blender is not even started.

    Raises:
        DeviceUnavailable: The device that was asked for is not there, or does not draw.
        BlenderUnavailable: Blender does not start.
    """
    child = BlenderChild(settings)
    try:
        return child.device_for(engine)
    finally:
        child.close()


def settle_device(options: Options, settings: BlenderSettings, engine: EngineName) -> Options:
    """Say what draws, and fit the number of workers to the GPUs where it is left open. Each node of a cluster chooses
    for itself.

    Raises:
        DeviceUnavailable, BlenderUnavailable: As `choose_device`.
    """
    if options.uses_ray:
        return options
    choice = choose_device(settings, engine)
    if not options.quiet:
        Console(stderr=True).print(f"drawing on {choice.device.label}: {choice.why}", style="dim", highlight=False)
    if options.workers or choice.device == CPU:
        return options
    workers = min(os.cpu_count() or 1, choice.num_devices * settings.children_per_gpu)
    return dataclasses.replace(options, workers=workers)


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a look at the machine found."""

    blender_version: str = ""
    """Empty if Blender does not start; `problem` says why."""
    python_version: str = ""
    problem: str = ""
    sandbox_lacks: tuple[str, ...] = ()
    gpu_files: tuple[str, ...] = ()
    gpus: tuple[str, ...] = ()
    """What Cycles can use, each GPU once for each way."""
    device: str = ""
    """What Cycles draws on with these settings; empty if it cannot."""
    why: str = ""
    gl: str = ""
    """Vendor and renderer of OpenGL."""
    gl_problem: str = ""
    """Why EEVEE cannot draw; empty if it can."""


def look(settings: BlenderSettings) -> Report:
    """Start Blender and look at everything; takes some ten seconds."""
    child = BlenderChild(settings)
    try:
        return _look(child)
    except (BlenderUnavailable, DeviceUnavailable, BadAsset, MachineFault) as error:
        welcome = child.welcome
        return Report(
            blender_version=welcome.blender_version if welcome else "",
            python_version=welcome.python_version if welcome else "",
            problem=str(error),
            sandbox_lacks=child.sandbox_lacks,
            gpu_files=tuple(gpu_files()),
        )
    finally:
        child.close()


def _look(child: BlenderChild) -> Report:
    gpus = tuple(device.label for device in child.call(Survey(engine="cycles")).devices)
    gl = child.call(Survey(engine="eevee")).devices[0].name
    device, why, gl_problem = "", "", ""
    try:
        choice = child.device_for("cycles")
        device, why = choice.device.label, choice.why
    except DeviceUnavailable as error:
        why = str(error)
    try:
        child.device_for("eevee")
    except DeviceUnavailable as error:
        gl_problem = str(error)
    return Report(
        blender_version=child.welcome.blender_version if child.welcome else "",
        python_version=child.welcome.python_version if child.welcome else "",
        sandbox_lacks=child.sandbox_lacks,
        gpu_files=tuple(gpu_files()),
        gpus=gpus,
        device=device,
        why=why,
        gl=gl,
        gl_problem=gl_problem,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a `Report`."""
    parser = ArgumentParser(prog="python -m render.preflight", description="Say what this machine draws on, as JSON.")
    parser.add_class_arguments(BlenderSettings, None)
    options = parser.instantiate(parser.parse_args(arguments))
    print(json.dumps(dataclasses.asdict(look(BlenderSettings(**vars(options)))), indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
