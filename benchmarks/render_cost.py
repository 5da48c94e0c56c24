"""What does a picture cost, everything included, against a plain script at Diffusion4D's settings?

Ours: the stages as always (probe, plan, render, with the strips encoded and written), 16 cameras and some frames of
each asset, one Blender child for all. Theirs: one process an asset, which imports Blender and the asset, puts it into a
unit box, lights it with four suns, and draws from an orbit with 128 paths a pixel, the default denoiser, their bounces
and a pixel filter 0.01 wide, to PNG. Both get one core, and all processor time is counted. A clip has 256 pictures, an
asset of theirs 48 (24 of the orbit that moves, 24 of its still twin): what is paid once is spread over these.

The error is measured on one and the same scene, ours: same mesh, camera, lights and size, drawn with our settings and
with theirs, against 512 paths without denoiser through a pixel filter 1.5 wide: what a picture without steps looks
like. As their filter is another, theirs is also compared with its own converged picture, steps at the edges included.
Usage: python -m benchmarks.render_cost [--assets 12] [--frames 2] [--device cpu]
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from benchmarks.measured import REPOSITORY, Studio, foreground_psnr, last_line, say
from benchmarks.quality import CONVERGED
from pipeline.records import Asset, Clip, ClipPlan
from render.draw import Shot
from render.look import QUALITIES

DeviceName = Literal["cpu", "cuda", "optix", "hip"]
OURS = "preview"
THEIRS = "diffusion4d"
OUR_PICTURES = 256
"""Of a clip."""
THEIR_PICTURES = 48
"""Of an asset: 24 frames of two orbits."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Processor seconds of one asset."""

    once: float
    """To start, import and measure."""
    picture: float

    def each(self, num_pictures: int) -> float:
        """A picture's, with what is paid once spread over so many."""
        return self.picture + self.once / num_pictures


@dataclass(frozen=True, kw_only=True)
class Likeness:
    """dB over what the object covers."""

    ours: float
    theirs: float
    theirs_own: float
    """Against their own settings with 512 paths and no denoiser: noise alone, steps at the edges allowed."""


def main(num_assets: int, num_frames: int, device: DeviceName) -> None:
    ours: list[Cost] = []
    theirs: list[Cost] = []
    likeness: list[Likeness] = []
    num_bytes = 0
    with Studio(num_frames=num_frames, device=device, rig="mv16", quality=OURS, size_px=256) as studio:
        start_s = studio.started()
        for name, asset in studio.assets(num_assets, formats=("glb", "gltf")):
            before = studio.core_s()
            plan = studio.plan(asset)
            if plan is None:
                continue
            measured = studio.core_s()
            clips = [row for row in studio.render.process(plan) if isinstance(row, Clip)]
            drawn = studio.core_s()
            if not clips:
                continue
            num_pictures = plan.num_views * plan.num_frames
            num_bytes += sum(part.num_bytes for part in clips[0].parts) // num_pictures
            ours.append(Cost(once=measured - before, picture=(drawn - measured) / num_pictures))
            theirs.append(plain(studio, asset, device))
            likeness.append(compare(studio, plan))
            say(
                f"{name}: ours {ours[-1].once:.2f} + {ours[-1].picture:.3f} a picture, {likeness[-1].ours:.1f} dB; "
                f"theirs {theirs[-1].once:.2f} + {theirs[-1].picture:.2f}, {likeness[-1].theirs:.1f} dB "
                f"(their own filter {likeness[-1].theirs_own:.1f} dB)"
            )
    ours = [replace(cost, once=cost.once + start_s / len(ours)) for cost in ours]
    our_s = statistics.mean(cost.each(OUR_PICTURES) for cost in ours)
    their_s = statistics.mean(cost.each(THEIR_PICTURES) for cost in theirs)
    say(f"Blender's start took {start_s:.1f} core-s, spread over {len(ours)} assets")
    say(f"a picture is stored in {num_bytes / len(ours) / 1e3:.1f} kB")
    ours_marginal, theirs_marginal = (statistics.mean(cost.picture for cost in costs) for costs in (ours, theirs))
    say(f"one more picture: ours {ours_marginal:.3f} core-s, theirs {theirs_marginal:.2f}")
    say(f"all included: ours {our_s:.3f} ({OUR_PICTURES} pictures), theirs {their_s:.2f} ({THEIR_PICTURES} pictures)")
    for which in ("ours", "theirs", "theirs_own"):
        values = [getattr(entry, which) for entry in likeness]
        say(f"{which}: median {statistics.median(values):.1f} dB, worst {min(values):.1f} dB")
    num_closer = sum(entry.ours > entry.theirs for entry in likeness)
    say(f"ours is closer to the converged picture for {num_closer} of {len(likeness)} assets")
    last_line(
        name="render_cost",
        value=their_s / our_s,
        unit="times cheaper a picture, all overheads included",
        baseline=f"plain script at Diffusion4D's settings: {their_s:.2f} core-s, ours ({OURS}) {our_s:.3f}",
        goal=">= 15 at lower error",
    )


def compare(studio: Studio, plan: ClipPlan) -> Likeness:
    """The first picture of a plan, at our settings and at theirs, against converged ones."""
    views, frames = slice(0, 1), slice(0, 1)
    seed = Shot.of(plan).request("", 1).seed + 1
    their_paths = replace(QUALITIES[THEIRS].paths, adaptive_threshold=0.0)
    ours, theirs = (studio.draw(plan, QUALITIES[name], views=views, frames=frames).pictures for name in (OURS, THEIRS))
    converged, their_converged = (
        studio.draw(plan, quality, views=views, frames=frames, seed=seed).pictures
        for quality in (CONVERGED, replace(CONVERGED, paths=their_paths))
    )
    return Likeness(
        ours=foreground_psnr(ours, converged),
        theirs=foreground_psnr(theirs, converged),
        theirs_own=foreground_psnr(theirs, their_converged),
    )


def plain(studio: Studio, asset: Asset, device: DeviceName) -> Cost:
    """Run the plain script on one core for two pictures of an asset, in a process of its own."""
    blob = Path(studio.render.store.root) / asset.blob
    with tempfile.TemporaryDirectory(prefix="mv4d-plain-") as folder:
        path = Path(folder) / f"asset.{asset.format}"
        if asset.main_file:
            with tarfile.open(blob) as tar:
                tar.extractall(folder, filter="data")
            path = Path(folder) / asset.main_file
        else:
            path.write_bytes(blob.read_bytes())
        command = [sys.executable, "-m", "benchmarks.render_cost", "--plain", str(path), "--device", device]
        with (Path(folder) / "said").open("w+") as said:
            process = subprocess.Popen(command, stdout=said, stderr=subprocess.DEVNULL, cwd=REPOSITORY)
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            said.seek(0)
            lines = said.read().splitlines()
    if process.returncode:
        raise RuntimeError(f"the plain script ended with {process.returncode}")
    picture_s = json.loads(next(line for line in lines if line.startswith("[")))
    return Cost(once=used.ru_utime + used.ru_stime - sum(picture_s), picture=statistics.mean(picture_s))


def plain_script(path: str, device: DeviceName, num_pictures: int = 2) -> None:
    """What a straightforward renderer does; prints the processor seconds of each picture."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    import bpy
    from mathutils import Vector

    bpy.ops.wm.read_factory_settings(use_empty=True)
    bpy.ops.import_scene.gltf(filepath=path, merge_vertices=True)
    scene = bpy.context.scene
    things = list(scene.objects)
    corners = [
        thing.matrix_world @ Vector(corner) for thing in things if thing.type == "MESH" for corner in thing.bound_box
    ]
    low, high = (Vector([pick(corner[axis] for corner in corners) for axis in range(3)]) for pick in (min, max))
    root = bpy.data.objects.new("root", None)
    scene.collection.objects.link(root)
    for thing in things:
        if thing.parent is None:
            thing.parent = root
    scale = 1.0 / max(high - low)
    root.scale, root.location = (scale,) * 3, -scale * (low + high) / 2
    for energy, rotation_deg in ((4.0, (45, 0, -45)), (3.0, (45, 0, 135)), (4.0, (-45, 0, -225)), (2.0, (180, 0, 0))):
        lamp = bpy.data.lights.new("sun", "SUN")
        lamp.energy, lamp.use_shadow = energy, False
        sun = bpy.data.objects.new("sun", lamp)
        sun.rotation_euler = [math.radians(angle) for angle in rotation_deg]
        scene.collection.objects.link(sun)
    camera = bpy.data.objects.new("camera", bpy.data.cameras.new("camera"))
    camera.data.lens, camera.data.sensor_width = 50.0, 36.0
    scene.collection.objects.link(camera)
    scene.camera = camera
    scene.render.engine = "CYCLES"
    scene.render.resolution_x = scene.render.resolution_y = 256
    scene.render.resolution_percentage = 100
    scene.render.film_transparent = True
    scene.render.image_settings.file_format, scene.render.image_settings.color_mode = "PNG", "RGBA"
    cycles = scene.cycles
    if device != "cpu":
        preferences = bpy.context.preferences.addons["cycles"].preferences
        preferences.compute_device_type = device.upper()
        preferences.refresh_devices()
        for entry in preferences.devices:
            entry.use = entry.type == device.upper()
        cycles.device = "GPU"
    cycles.samples, cycles.use_denoising, cycles.filter_width = 128, True, 0.01
    cycles.diffuse_bounces, cycles.glossy_bounces = 1, 1
    cycles.transparent_max_bounces, cycles.transmission_bounces = 3, 3
    taken = []
    for frame in range(num_pictures):
        # Halfway round, so that side and front take part; theirs are spread over the whole turn.
        turn = 2 * math.pi * frame * 0.3
        camera.location = (2 * math.sin(turn), -2 * math.cos(turn), 0.0)
        camera.rotation_euler = (-camera.location).to_track_quat("-Z", "Y").to_euler()
        scene.frame_set(frame)
        scene.render.filepath = str(Path(path).with_name(f"picture_{frame}.png"))
        started = cost_so_far(device)
        bpy.ops.render.render(write_still=True)
        taken.append(cost_so_far(device) - started)
    print(json.dumps(taken), flush=True)


def cost_so_far(device: DeviceName) -> float:
    """Seconds: of the processor, or of the clock where a GPU draws."""
    return time.process_time() if device == "cpu" else time.monotonic()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.render_cost")
    parser.add_argument("--assets", type=int, default=12)
    parser.add_argument("--frames", type=int, default=2, help="of a clip of ours, each from 16 cameras")
    parser.add_argument("--device", default="cpu", help="cpu, or cuda, optix, hip: then seconds are those of the clock")
    parser.add_argument("--plain", default="", metavar="FILE", help="only run the plain script on an asset")
    options = parser.parse_args()
    if options.plain:
        plain_script(options.plain, options.device)
    else:
        main(options.assets, options.frames, options.device)
