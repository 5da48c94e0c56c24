"""How fast is an object's motion found, and how much faster than with a rasterizer in plain PyTorch?

On a CPU, of a real clip: steps a second, and time until the input views are 28 dB near over all frames. At steps spread
evenly over the fit, two copies of it take the next step, one drawing with ours and one with the plain rasterizer, and
their losses must agree. As pictures and gradients do too (`tests/fourd/rendering`), the plain fit would take the same
way: its time to 28 dB is that of its steps, times their number. Time is processor time of one thread.

On a GPU (--device cuda), at the published size: 4 views by up to 16 frames of 256 px in each of 750 steps of the
`animate3d` preset, then 250 steps of 4D-SDS with the full-size network, whose weights are random unless a pipeline is
given. Time is that of the clock.

    python -m benchmarks.reconstruct [--data DATA] [--asset Horse] [--plain_steps 32]
    python -m benchmarks.reconstruct --device cuda [--data DATA] [--pipeline FOLDER]

Without --data, a clip is drawn first, of a real asset (MV4D_ASSETS) or a built-in sample.
"""

import argparse
import contextlib
import copy
import dataclasses
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks import train_step
from benchmarks.measured import last_line, manifest, say
from benchmarks.reconstruct_real import named_clips
from fourd import moving
from fourd.canonical import of_mesh
from fourd.command import true_tracks
from fourd.guidance import GuidanceCameras, SdsGuidance
from fourd.looks import fit_looks
from fourd.reconstruct import Reconstruction, Step
from fourd.refine import RefineSettings, refinement
from fourd.rendering import plain, rasterization
from fourd.scoring import score_views
from fourd.settings import ReconstructionSettings, load_settings
from fourd.video import find_clip, input_views, read_video
from ingest.sources.open_source import open_source
from pipeline.storage import Store
from training.objective import NoiseSchedule
from training.sampling.folder import load_pipeline
from training.sampling.pipeline import MultiViewVideoPipeline
from training.sampling.prior import PipelinePrior
from training.start import Scratch

USUAL_ASSET = "CesiumMan"
"""Where there is one: a man who walks, and is 21 dB near as long as he stands still."""
NEAR_DB = 28.0
TILE_PX = 16
GOLDEN = 0.6180339887
LOOKS_STEPS = 2
"""Of fitting how the object looks at frame 0, which comes before the steps: so many are timed."""
PROMPT = "an animal walks"


@dataclass(frozen=True, kw_only=True)
class Size:
    """What is measured, if nothing else is asked for."""

    size_px: int
    preset: str
    sds_steps: int
    refine_px: int
    """Width of the renders that 4D-SDS is held to."""


SIZES = {
    "cpu": Size(size_px=128, preset="cpu", sds_steps=0, refine_px=128),
    "cuda": Size(size_px=256, preset="animate3d", sds_steps=250, refine_px=1024),
}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="", help="data root with tracks")
    parser.add_argument("--asset", default="", help="how its name begins; a walking man, or the first")
    parser.add_argument("--device", choices=SIZES, default="cpu")
    parser.add_argument("--preset", help="name or YAML file; cpu, and animate3d on a GPU")
    parser.add_argument("--set", action="append", default=[], help="another setting of the preset: name=value")
    parser.add_argument("--size_px", type=int, help="pixels of a picture's side; 128, and 256 on a GPU")
    parser.add_argument("--steps", type=int, default=0, help="at most; 0 is all of the preset's")
    parser.add_argument("--every", type=int, default=50, help="steps between looks at how near the views are")
    parser.add_argument("--plain_steps", type=int, default=32, help="taken with the plain rasterizer; not on a GPU")
    parser.add_argument("--sds_steps", type=int, help="of 4D-SDS; none, and 250 on a GPU")
    parser.add_argument("--refine_px", type=int, help="width that 4D-SDS draws what it holds to; 1024 on a GPU")
    parser.add_argument("--pipeline", default="", help="folder of the network; random weights if not given")
    given = parser.parse_args(arguments)
    if given.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: there is no CUDA device here; leave it out to measure on the processor")
    if given.device == "cpu" and given.plain_steps < 1:
        parser.error("--plain_steps: at least one, or there is nothing to compare with")
    if given.device == "cpu":
        torch.set_num_threads(1)
    usual = SIZES[given.device]
    size = Size(
        size_px=usual.size_px if given.size_px is None else given.size_px,
        preset=given.preset or usual.preset,
        sds_steps=usual.sds_steps if given.sds_steps is None else given.sds_steps,
        refine_px=usual.refine_px if given.refine_px is None else given.refine_px,
    )
    pipeline = network(given.pipeline, given.device) if size.sds_steps else None
    with tempfile.TemporaryDirectory(prefix="mv4d-bench-") as folder:
        store = Store(given.data or drawn(given.asset, size.size_px, Path(folder)))
        name, fit = prepared(store, given.asset, load_settings(size.preset, given.set), size.size_px, given.device)
    clock = Clock(given.device)
    warm_up(fit)
    pairs = Pairs(wanted=given.plain_steps if given.device == "cpu" else 0, clock=clock)
    course = run(fit, clock, pairs, given.steps or fit.num_steps, given.every)
    video = fit.video
    about = f"{name}, {video.num_views} views by {video.num_frames} frames of {size.size_px} px, preset {size.preset}"
    say(f"{about}: {course.rate:.2f} steps/s, {course.steps} in {course.seconds:.0f} s, {course.best_db:.2f} dB")
    found = [f"{course.seconds:.1f} s for {course.steps} steps, {course.rate:.2f} a second", course.way()]
    if pipeline is not None:
        sds_s = refined(fit, pipeline, size, clock)
        say(f"4D-SDS: {size.sds_steps} steps in {sds_s:.1f} s")
        found.append(f"{size.sds_steps} steps of 4D-SDS {sds_s:.1f} s")
    if given.device == "cuda":
        last_line(
            name="reconstruct",
            value=course.seconds,
            unit=f"s ({'; '.join(found)}; {about}; {torch.cuda.get_device_name()})",
            baseline="Animate3D: 1,200 s on an A800, and as much for 4D-SDS",
            goal="< 60 for 750 steps, < 300 for 250 steps of 4D-SDS",
        )
        return
    last_line(
        name="reconstruct",
        value=pairs.factor,
        unit=f"times the steps a second ({'; '.join(found)}; {about}; processor time of one thread)",
        baseline=f"plain PyTorch by tiles: {course.rate / pairs.factor:.3f} steps a second, {pairs.way(fit, course)}",
        goal=">= 10",
    )


class Clock:
    """Seconds of work: of the processor on a CPU, of the clock on a GPU."""

    def __init__(self, device: str) -> None:
        self.device, self._paused = device, 0.0

    def now(self) -> float:
        """Since some moment, without pauses; waits for the GPU."""
        if self.device == "cuda":
            torch.cuda.synchronize()
            return time.perf_counter() - self._paused
        return time.process_time() - self._paused

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """What is done inside does not count."""
        began = self.now()
        yield
        self._paused += self.now() - began


@dataclass(frozen=True, kw_only=True)
class Course:
    """How a fit went."""

    steps: int
    seconds: float
    """Of all, with fitting looks before the first step."""
    rate: float
    """Steps a second, without that."""
    still_db: float
    """PSNR of the input views over all frames but 0 after the first step."""
    best_db: float
    near: tuple[int, float] | None
    """The step at which it was first seen at 28 dB, and the seconds until there."""

    def way(self) -> str:
        """To 28 dB, in words."""
        ends = f"from {self.still_db:.1f} to {self.best_db:.1f} dB"
        if self.near is None:
            return f"{NEAR_DB:.0f} dB not reached, {ends}"
        return f"{NEAR_DB:.0f} dB after {self.near[1]:.1f} s, {self.near[0]} steps; {ends}"


class CutError(Exception):
    """Raised to end a fit before its last step."""


def run(fit: Reconstruction, clock: Clock, pairs: "Pairs", num_steps: int, every: int) -> Course:
    """The fit to its end or to `num_steps`, with time, nearness, and pairs of steps on the way."""
    began, times = clock.now(), list[float]()
    seen: list[tuple[int, float, float]] = []
    paired = pairs.steps(num_steps)

    def on_step(step: Step) -> None:
        times.append(clock.now() - began)
        is_last = step.step >= num_steps
        with clock.paused():
            if step.step == 1 or step.step % every == 0 or is_last or fit.is_done:
                psnr_db = score_views(fit.model, fit.video).psnr_db
                seen.append((step.step, times[-1], psnr_db))
                say(f"step {step.step}: {times[-1]:.1f} s, {psnr_db:.2f} dB")
            if step.step in paired:
                pairs.take(fit, step.step)
        if is_last:
            raise CutError

    with contextlib.suppress(CutError):
        fit.run(on_step)
    return Course(
        steps=len(times),
        seconds=times[-1],
        rate=(len(times) - 1) / max(times[-1] - times[0], 1e-9),
        still_db=seen[0][2],
        best_db=max(psnr_db for *_, psnr_db in seen),
        near=next(((step, seconds) for step, seconds, psnr_db in seen if psnr_db >= NEAR_DB), None),
    )


class Pairs:
    """Steps of a fit that are taken twice: drawn by ours, and by plain PyTorch."""

    def __init__(self, *, wanted: int, clock: Clock) -> None:
        self.wanted, self.clock = wanted, clock
        self.taken: list[tuple[int, float, float]] = []
        """Step, our seconds, plain seconds."""

    def steps(self, num_steps: int) -> set[int]:
        """After which ones: evenly spread over all, and over a new frame's steps, which begin with small pictures."""
        distance = num_steps / self.wanted if self.wanted else 0.0
        # Each somewhere else between its neighbours: multiples of the golden section repeat no rhythm.
        return {int(distance * (number + number * GOLDEN % 1)) + 1 for number in range(self.wanted)}

    @property
    def factor(self) -> float:
        """How much longer the plain steps take."""
        return sum(plain_s for *_, plain_s in self.taken) / sum(our_s for _, our_s, _ in self.taken)

    def take(self, fit: Reconstruction, step: int) -> None:
        """The next step of two copies of a fit."""
        our_s, ours = self._step(fit, rasterization)
        plain_s, theirs = self._step(fit, by_tiles)
        assert abs(ours - theirs) < 1e-3 * theirs, f"losses differ after step {step}: {ours:.6f} and {theirs:.6f}"
        say(f"step {step + 1}: ours {our_s:.3f} s, plain {plain_s:.2f} s, loss {ours:.5f} and {theirs:.5f}")
        self.taken.append((step, our_s, plain_s))

    def _step(self, fit: Reconstruction, rasterizer: Any) -> tuple[float, float]:
        copied, found = copy.deepcopy(fit), list[tuple[float, float]]()

        def on_step(step: Step) -> None:
            found.append((self.clock.now() - began, step.loss))
            raise CutError

        with drawn_by(rasterizer), contextlib.suppress(CutError):
            began = self.clock.now()
            copied.run(on_step)
        return found[0]

    def way(self, fit: Reconstruction, course: Course) -> str:
        """The plain fit's time to 28 dB, in words."""
        if course.near is None:
            return f"{len(self.taken)} steps timed"
        step, our_s = course.near
        until = [plain_s for taken, _, plain_s in self.taken if taken <= step] or [row[2] for row in self.taken]
        plain_s = looks_s(fit, self.clock) + step * sum(until) / len(until)
        return f"28 dB after {plain_s:,.0f} s, {plain_s / our_s:.0f} times ours, from {len(self.taken)} steps timed"


def looks_s(fit: Reconstruction, clock: Clock) -> float:
    """Plain seconds of fitting how the object looks at frame 0."""
    static, background = fit.settings.static, fit.settings.background
    if not static.steps or not (static.always or not fit.model.canonical.has_colors):
        return 0.0
    few = dataclasses.replace(static, steps=min(LOOKS_STEPS, static.steps))
    with drawn_by(by_tiles):
        began = clock.now()
        fit_looks(copy.deepcopy(fit.model), [fit.video], few, background)
        return (clock.now() - began) * static.steps / few.steps


def by_tiles(
    *inputs: Any, eps2d: float, sh_degree: int | None, backgrounds: Tensor, render_mode: str
) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """As `fourd.rendering.rasterization` for a batch of frames, frame by frame in plain PyTorch."""
    assert render_mode == "RGB", "the plain rasterizer draws no depth"
    *tensors, width, height = inputs
    drawn = [
        plain.rasterization(
            *frame, width, height, eps2d=eps2d, sh_degree=sh_degree, backgrounds=background, tile_px=TILE_PX
        )
        for *frame, background in zip(*tensors, backgrounds, strict=True)
    ]
    return torch.stack([colors for colors, _, _ in drawn]), torch.stack([alphas for _, alphas, _ in drawn]), {}


@contextlib.contextmanager
def drawn_by(rasterizer: Any) -> Iterator[None]:
    """Moving Gaussians are drawn by another rasterizer inside the block."""
    before = moving.rasterization
    moving.rasterization = rasterizer
    try:
        yield
    finally:
        moving.rasterization = before


def warm_up(fit: Reconstruction) -> None:
    """A step of a copy: kernels are compiled before anything is timed."""

    def on_step(step: Step) -> None:
        raise CutError

    with contextlib.suppress(CutError):
        copy.deepcopy(fit).run(on_step)


def drawn(asset: str, size_px: int, folder: Path) -> str:
    """A data root with a clip of one asset, seen from four sides, with tracks."""
    items = {item.name: item for item in open_source(str(manifest())).items()}
    item = items[chosen(list(items), asset, str(manifest()))]
    command = [sys.executable, "-m", "pipeline", "build", item.uri, "--licence", item.spdx]
    command += ["--data", str(folder / "data"), "--rig", "ortho4", "--size_px", str(size_px), "--max_animations", "1"]
    subprocess.run([*command, "--passes", "tracks", "--policy", "open"], check=True, stdout=sys.stderr)
    return str(folder / "data")


def chosen(names: list[str], asset: str, where: str) -> str:
    """The first name that begins as asked for."""
    wanted = [asset] if asset else [USUAL_ASSET, ""]
    found = [name for beginning in wanted for name in names if name.startswith(beginning)]
    if not found:
        raise SystemExit(f"{where} has nothing whose name begins with {asset!r}")
    return found[0]


def prepared(
    store: Store, asset: str, settings: ReconstructionSettings, size_px: int, device: str
) -> tuple[str, Reconstruction]:
    """Name of an asset and the fit of its clip, before any step: the true mesh at frame 0 and four views."""
    clips = dict(named_clips(store))
    name = chosen(sorted(clips), asset, str(store.root))
    clip = find_clip(store, clips[name])
    truth = true_tracks(store, clip)
    if truth is None:
        raise SystemExit(f"clip {clip.clip_id} has no tracks: `mv4d render --passes tracks` adds them")
    mesh = of_mesh(name, truth.positions[0], truth.triangles, num_gaussians=settings.num_gaussians)
    video = read_video(store, clip, input_views(clip), size_px=size_px)
    return name, Reconstruction(video.to(device), mesh.to(device), settings)


def network(folder: str, device: str) -> MultiViewVideoPipeline:
    """A pipeline of a folder; else with random weights, of the published size on a GPU and tiny on a CPU."""
    if folder:
        return load_pipeline(folder, device=device, compute="bfloat16" if device == "cuda" else "float32")
    if device == "cpu":
        return Scratch().build(NoiseSchedule(), seed=0)
    encoders = train_step.random_encoders(train_step.FULL, device, torch.bfloat16)
    return MultiViewVideoPipeline(
        vae=encoders.vae,
        text_encoder=encoders.text_encoder,
        tokenizer=encoders.tokenizer,
        image_encoder=encoders.image_encoder,
        feature_extractor=encoders.feature_extractor,
        unet=train_step.network(train_step.FULL, device).to(torch.bfloat16),
        scheduler=NoiseSchedule().sampler(),
    )


def refined(fit: Reconstruction, pipeline: MultiViewVideoPipeline, size: Size, clock: Clock) -> float:
    """Seconds of refining what was fitted by 4D-SDS."""
    cameras = GuidanceCameras(num_views=fit.video.num_views, size_px=size.size_px)
    guidance = SdsGuidance(PipelinePrior(pipeline, PROMPT), cameras=cameras)
    settings = RefineSettings(steps=size.sds_steps, size_px=size.refine_px)
    refining = refinement(fit.model, fit.video, fit.settings, guidance, settings)
    warm_up(refining)
    began = clock.now()
    refining.run()
    return clock.now() - began


if __name__ == "__main__":
    main()
