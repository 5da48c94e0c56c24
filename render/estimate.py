"""What rendering would cost: exact counts, and seconds and bytes foreseen from some pictures of some of the clips.

A picture's cost grows with the pixels that the object may cover, which are known before anything is drawn: the box of
all frames is measured. How much a pixel costs is learned from assets that are spread over the input, and so is what it
takes to load an asset. How far these disagree gives the interval.
"""

import contextlib
import math
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import mean, stdev

import numpy as np
import numpy.typing as npt
import psutil
from rich.console import Console
from rich.table import Table

from pipeline.cameras import pinhole
from pipeline.progress_bar import progress_bar
from pipeline.records import Animation, ClipPlan, Probe, Rejected
from render.draw import Render, Shot, read_pictures
from render.plan import AnimatedAsset, Plan
from render.protocol import CPU, BadAsset, Draw, Drawn, Trace, View
from render.scratch import empty
from render.supervisor import BlenderChild, child_for
from render.truth import GroundTruth, encoded_tracks, encoded_view, scales_of, surfaces_of, what_there_is_not

NUM_CALIBRATED = 20
"""Assets of which some pictures are drawn."""
PICTURES_A_CLIP = 16
"""Drawn of each of them, from up to 8 cameras."""
CALIBRATE_S = 600.0
"""By the clock: after so long, no further asset is drawn for an estimate."""
CONFIDENCE = 1.96
"""Standard errors on each side: 95 of 100 estimates hold the truth in their interval."""
LEAST_SPREAD = 0.1
"""Of the costs of single clips about what is foreseen, as a share, however few of them were drawn."""


@dataclass(frozen=True, kw_only=True)
class Counts:
    """What would be drawn; exact, and known at once."""

    num_assets: int
    num_animations: int
    turned_away: Counter[str]
    clips: list["PlannedClip"]

    @property
    def num_pictures(self) -> int:
        """Over all clips."""
        return sum(clip.num_pictures for clip in self.clips)


@dataclass(frozen=True, kw_only=True)
class PlannedClip:
    """A clip to be drawn, and what its cost is foreseen from."""

    plan: ClipPlan
    probe: Probe
    box_px: float
    """Pixels of the rectangle around the object in a picture: the mean over the cameras, for the box of all frames."""

    @property
    def num_pictures(self) -> int:
        """Views times frames."""
        return self.plan.num_views * self.plan.num_frames

    @property
    def work(self) -> float:
        """What the cost of a picture is proportional to: pixels, and a share of them for what each picture takes."""
        return self.box_px + 0.1 * self.plan.size_px**2


@dataclass(frozen=True, kw_only=True)
class Trial:
    """Some pictures of a clip, drawn, encoded and thrown away."""

    clip: PlannedClip
    load_s: float
    """Of a core; of a GPU, where one draws."""
    picture_s: float
    picture_bytes: float
    on_gpu: bool
    truth_s: float = 0.0
    """For the ground truth of a picture, of whatever `load_s` is."""
    truth_bytes: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A foreseen number, and how far off it may be in 95 of 100 cases."""

    value: float
    error: float

    def text(self, factor: float = 1.0) -> str:
        """Both, multiplied, to two digits of the error."""
        error = self.error * factor
        decimals = max(0, 1 - math.floor(math.log10(error))) if error > 0 else 2
        return f"{self.value * factor:.{decimals}f} ± {error:.{decimals}f}"

    def __add__(self, other: "Interval") -> "Interval":
        """The sum of two whose errors have nothing to do with each other."""
        return Interval(value=self.value + other.value, error=math.hypot(self.error, other.error))


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What drawing some clips would cost."""

    seconds: Interval
    """Of cores, or of GPUs where these draw."""
    num_bytes: Interval
    truth_seconds: Interval
    """The part of `seconds` that goes into ground truth."""
    truth_bytes: Interval
    """The part of `num_bytes` that is ground truth."""
    num_trials: int
    on_gpu: bool


def count(plan: Plan, assets: Sequence[AnimatedAsset]) -> Counts:
    """Plan everything; nothing is drawn."""
    turned_away: Counter[str] = Counter()
    clips = []
    for asset in assets:
        by_id = {row.animation_id: row for row in asset.animations}
        for row in plan.process(asset):
            if isinstance(row, Rejected):
                turned_away[row.reason] += 1
            else:
                box_px = mean_box_px(row, by_id[row.animation_id])
                clips.append(PlannedClip(plan=row, probe=asset.probe, box_px=box_px))
    return Counts(
        num_assets=len(assets),
        num_animations=sum(len(asset.animations) for asset in assets),
        turned_away=turned_away,
        clips=clips,
    )


def mean_box_px(plan: ClipPlan, animation: Animation) -> float:
    """Pixels of the rectangle around the box of all frames, which is scaled into the unit sphere: mean over views."""
    shot = Shot.of(plan)
    low, high = np.array(animation.box_min), np.array(animation.box_max)
    half = (high - low) / 2
    corners = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]) * half
    corners = corners / max(float(np.linalg.norm(half)), 1e-12)
    focal = plan.size_px / 2 / math.tan(math.radians(shot.cameras.fov_deg) / 2)
    c2w = np.concatenate([np.array(view.c2w).reshape(-1, 4, 4) for view in shot.request("", 1).views])
    seen = np.einsum("cpi,cij->cpj", corners[None] - c2w[:, None, :3, 3], c2w[:, :3, :3])
    pixels = np.clip(focal * seen[..., :2] / np.maximum(seen[..., 2:], 1e-3), -plan.size_px / 2, plan.size_px / 2)
    return float(np.ptp(pixels, axis=1).prod(axis=-1).mean())


def calibrate(
    render: Render, clips: Sequence[PlannedClip], truth: GroundTruth | None = None, *, quiet: bool = False
) -> list[Trial]:
    """Draw some pictures of one clip each of up to `NUM_CALIBRATED` assets; nothing is written to the data root.

    Assets that fail to load or draw are passed over.

    Args:
        render: What draws them.
        clips: To choose from.
        truth: What adds ground truth to them, if it is wanted.
        quiet: Show no progress.
    """
    chosen = spread(clips, NUM_CALIBRATED)
    trials = []
    until = time.monotonic() + CALIBRATE_S
    child = child_for(render.blender)
    try:
        with progress_bar("drawing for the estimate", "clips", quiet=quiet) as on_progress:
            on_progress(0, len(chosen))
            for number, clip in enumerate(chosen, start=1):
                if time.monotonic() > until:
                    break
                with contextlib.suppress(BadAsset):
                    trials.append(try_out(render, child, clip, truth))
                on_progress(number, len(chosen))
    finally:
        render.close()
    return trials


def spread(clips: Sequence[PlannedClip], number: int) -> list[PlannedClip]:
    """Up to so many clips, each of another asset: at even steps from the least to the most work a picture, of those
    without textures and of the others; in an order of which any beginning is spread over the whole.
    """
    by_asset: dict[str, list[PlannedClip]] = {}
    for clip in clips:
        by_asset.setdefault(clip.plan.asset_id, []).append(clip)
    one_each = [mine[len(mine) // 2] for mine in by_asset.values()]
    number = min(number, len(one_each))
    in_order = sorted(one_each, key=lambda clip: (clip.probe.num_images > 0, clip.work))
    places = sorted(range(number), key=lambda place: (place * 0.6180339887) % 1.0)
    return [in_order[(2 * place + 1) * len(in_order) // (2 * number)] for place in places]


def try_out(render: Render, child: BlenderChild, clip: PlannedClip, truth: GroundTruth | None = None) -> Trial:
    """Load a clip's asset, draw and encode some of its pictures, with their ground truth if it is wanted.

    Raises:
        BadAsset: It fails.
    """
    shot = Shot.of(clip.plan)
    on_gpu = child.device_for(shot.look.engine).device != CPU
    assert child.out.exists()  # it runs, and its start is no part of this
    before = spent_s(child, on_gpu)
    child.load(clip.plan, render.store)
    loaded = spent_s(child, on_gpu)
    empty(child.out)
    request = render.order(child, shot)
    views = evenly(len(request.views), 8)
    frames = evenly(len(request.times_s), math.ceil(PICTURES_A_CLIP / len(views)))
    request = replace(
        request,
        views=[_at(request.views[view], frames) for view in views],
        times_s=[request.times_s[frame] for frame in frames],
    )
    told: Drawn = child.call(request)
    part = replace(clip.plan, num_frames=len(frames))
    pictures = [read_pictures(child.out, view.name, part) for view in request.views]
    strips = [shot.look.encode(strip) for strip in pictures]
    drawn = spent_s(child, on_gpu)
    empty(child.out)
    num_pictures = len(views) * len(frames)
    truth_s, truth_bytes = 0.0, 0.0
    if truth:
        cost = _truth_of(truth, child, request, told, [strip[..., 3] for strip in pictures])
        traced = cost.traced_s / len(frames) / clip.plan.num_views
        truth_s = traced + (spent_s(child, on_gpu) - drawn - cost.traced_s) / num_pictures
        truth_bytes = cost.map_bytes / num_pictures + cost.track_bytes / len(frames) / clip.plan.num_views
    return Trial(
        clip=clip,
        load_s=max(0.0, loaded - before),  # less than nothing if another child took over in between
        picture_s=(drawn - loaded) / num_pictures,
        picture_bytes=sum(map(len, strips)) / num_pictures,
        on_gpu=on_gpu,
        truth_s=truth_s,
        truth_bytes=truth_bytes,
    )


@dataclass(frozen=True, kw_only=True)
class _TruthCost:
    """Of the ground truth of some pictures."""

    traced_s: float
    """For the surfaces, which all views share."""
    map_bytes: int
    track_bytes: int


def _truth_of(
    truth: GroundTruth, child: BlenderChild, request: Draw, drawn: Drawn, alphas: Sequence[npt.NDArray[np.uint8]]
) -> _TruthCost:
    """Make the ground truth of what was just drawn, as `GroundTruth` would, and throw it away."""
    # With Embree, which only ground truth needs.
    from render.passes import Scenery

    on_gpu = request.device != CPU
    before = spent_s(child, on_gpu)
    order = Trace(
        action_index=request.action_index,
        times_s=request.times_s,
        world_scale=drawn.world_scale,
        world_centre=drawn.world_centre,
        normals=truth.with_normals,
        out_folder=request.out_folder,
    )
    moving = surfaces_of(child, order)
    impossible = what_there_is_not(moving, len(request.views))
    wanted = [name for name in truth.passes if name not in impossible]
    num_frames = len(request.times_s)
    shape = (len(request.views), num_frames, 4, 4)
    cameras = [np.array(view.c2w).reshape(-1, 4, 4) for view in request.views]
    frozen = np.array([view.frozen for view in request.views])
    scenery = Scenery(
        moving=moving,
        c2w=np.broadcast_to(np.stack([np.broadcast_to(c2w, shape[1:]) for c2w in cameras]), shape),
        pose_of=np.where(frozen[:, None], 0, np.arange(num_frames)[None, :]),
        intrinsics=pinhole(request.fov_deg, request.size_px),
        width=request.size_px,
        height=request.size_px,
    )
    track_bytes = len(encoded_tracks(moving)) if "tracks" in wanted else 0
    traced = spent_s(child, on_gpu)
    scales = scales_of(scenery, wanted)
    encoded = [encoded_view(scenery, view, alpha, scales) for view, alpha in enumerate(alphas)]
    map_bytes = sum(len(content) for view in encoded for content in view.maps.values())
    return _TruthCost(traced_s=traced - before, map_bytes=map_bytes, track_bytes=track_bytes)


def evenly(count: int, most: int) -> list[int]:
    """Up to `most` of so many indices, evenly spread."""
    number = min(count, most)
    return [(2 * place + 1) * count // (2 * number) for place in range(number)]


def _at(view: View, frames: Sequence[int]) -> View:
    return view if len(view.c2w) == 1 else replace(view, c2w=[view.c2w[frame] for frame in frames])


def spent_s(child: BlenderChild, on_gpu: bool) -> float:
    """Seconds so far: of the cores that this process and its child used; or of the clock, while a GPU draws."""
    if on_gpu or child.pid is None:
        return time.monotonic() if on_gpu else time.process_time()
    used = psutil.Process(child.pid).cpu_times()
    return float(time.process_time() + used.user + used.system)


def estimate(clips: Sequence[PlannedClip], trials: Sequence[Trial]) -> Estimate:
    """What all clips would cost.

    Raises:
        ValueError: Nothing was tried.
    """
    if not trials:
        raise ValueError("no clip could be drawn to estimate from")
    drawing, num_bytes, truth_seconds, truth_bytes = (
        foresee(clips, {trial.clip.plan.asset_id: getattr(trial, name) / trial.clip.work for trial in trials})
        for name in ("picture_s", "picture_bytes", "truth_s", "truth_bytes")
    )
    return Estimate(
        seconds=drawing + truth_seconds + foresee_loads(clips, trials),
        num_bytes=num_bytes + truth_bytes,
        truth_seconds=truth_seconds,
        truth_bytes=truth_bytes,
        num_trials=len(trials),
        on_gpu=any(trial.on_gpu for trial in trials),
    )


def foresee(clips: Sequence[PlannedClip], rates: Mapping[str, float]) -> Interval:
    """The sum over all pictures of something that grows with their work.

    Args:
        clips: All of them.
        rates: How much for a unit of work, by `asset_id`, where it was tried.
    """
    usual = mean(rates.values())
    if usual == 0.0:
        return Interval(value=0.0, error=0.0)
    of_asset: dict[str, float] = defaultdict(float)
    for clip in clips:
        of_asset[clip.plan.asset_id] += clip.num_pictures * clip.work
    tried = {asset_id: rates[asset_id] * work for asset_id, work in of_asset.items() if asset_id in rates}
    others = {asset_id: usual * work for asset_id, work in of_asset.items() if asset_id not in rates}
    return _sum_of(list(tried.values()), list(others.values()), [rate / usual for rate in rates.values()])


def foresee_loads(clips: Sequence[PlannedClip], trials: Sequence[Trial]) -> Interval:
    """Seconds to load all assets, each once."""
    probes = {clip.plan.asset_id: clip.probe for clip in clips}
    tried = {trial.clip.plan.asset_id: trial.load_s for trial in trials}
    rates = [trial.load_s / load_work(trial.clip.probe) for trial in trials]
    usual = mean(rates)
    others = [usual * load_work(probe) for asset_id, probe in probes.items() if asset_id not in tried]
    return _sum_of(list(tried.values()), others, [rate / usual for rate in rates])


def load_work(probe: Probe) -> float:
    """What the time to load an asset is proportional to, in about seconds."""
    return 0.3 + 0.1 * probe.num_actions + 2e-5 * probe.num_vertices + 2e-8 * probe.image_pixels


def _sum_of(tried: Sequence[float], others: Sequence[float], ratios: Sequence[float]) -> Interval:
    """Of what was tried and what was not, where `ratios` say how far what was tried differs from what was foreseen."""
    spread = max(stdev(ratios), LEAST_SPREAD) if len(ratios) > 1 else 1.0
    variance = (LEAST_SPREAD**2) * sum(value**2 for value in tried)
    variance += spread**2 * (sum(value**2 for value in others) + sum(others) ** 2 / len(ratios))
    return Interval(value=sum(tried) + sum(others), error=CONFIDENCE * math.sqrt(variance))


def print_counts(counts: Counts, console: Console) -> None:
    """What would be drawn, as a table."""
    rows = [
        ("assets", f"{counts.num_assets}"),
        ("animations", f"{counts.num_animations}"),
        *((f"  turned away: {reason}", f"{number}") for reason, number in counts.turned_away.most_common()),
        ("clips", f"{len(counts.clips)}"),
        ("pictures", f"{counts.num_pictures}"),
    ]
    _print_table("What would be drawn", rows, console)


def print_estimate(found: Estimate, num_workers: int, console: Console) -> None:
    """The cost as a table."""
    unit = "GPU" if found.on_gpu else "core"
    with_truth = found.truth_bytes.value > 0
    rows = [
        (f"{unit} hours", found.seconds.text(1 / 3600)),
        *([("  of which for ground truth", found.truth_seconds.text(1 / 3600))] if with_truth else ()),
        (f"hours with {num_workers} workers", found.seconds.text(1 / 3600 / num_workers)),
        ("size of the clips, MB", found.num_bytes.text(1e-6)),
        *([("  of which ground truth", found.truth_bytes.text(1e-6))] if with_truth else ()),
    ]
    _print_table("What it would cost", rows, console)
    console.print(f"foreseen from pictures of {found.num_trials} assets, drawn just now", style="dim", highlight=False)


def _print_table(title: str, rows: Sequence[tuple[str, str]], console: Console) -> None:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for row in rows:
        table.add_row(*row)
    console.print(f"[bold]{title}[/bold]")
    console.print(table)
