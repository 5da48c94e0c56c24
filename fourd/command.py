"""`mv4d reconstruct` (`python -m fourd reconstruct`): from a rendered clip to a moving object; needs no weights."""

import dataclasses
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from fourd.canonical import Canonical, of_gaussians, of_mesh, of_object
from fourd.checks import check_memory
from fourd.export.errors import ExportError
from fourd.export.result import ExportSettings, export_result
from fourd.files import written_beside
from fourd.gaussians import Gaussians
from fourd.moving import MovingGaussians, save_moving, save_tracks
from fourd.objects.glb import ReadObject
from fourd.objects.loading import (
    Placed,
    Placement,
    find_place,
    hash_of,
    load_object,
    put,
    read_placed,
    write_placed,
)
from fourd.objects.on_mesh import OnMeshSettings, gaussians_on_mesh
from fourd.objects.placement import Silhouettes, Similarity
from fourd.objects.static import StaticObject
from fourd.reconstruct import Reconstruction, Step
from fourd.rendering.rasterize import check_device
from fourd.scoring import SurfaceMismatch, score_surface_tracks, score_tracks, score_views
from fourd.settings import ReconstructionSettings, load_settings, preset_names
from fourd.video import ClipError, MultiViewVideo, find_clip, input_views, read_video
from pipeline.cli import EXIT_OK, command_parser, parse, pick, usage_error
from pipeline.progress_bar import progress_bar
from pipeline.records import Clip, Truth
from pipeline.storage import Store, check_folder
from pipeline.tables import Tables
from pipeline.truth_media import TRACKS_NAME, Tracks, read_tracks

logger = logging.getLogger("mv4d.fourd")

GAUSSIANS = "gaussians.safetensors"
TRACKS = "tracks.npz"
METRICS = "metrics.json"
PLACEMENT = "placement.json"


@dataclass(frozen=True, kw_only=True)
class ReconstructOptions:
    """What to reconstruct, and from what."""

    data: str = "data"
    """Data root: a folder or an fsspec URL."""
    clip: str
    """Id of a clip, or how it begins."""
    out: str
    """Folder for Gaussians, tracks, previews and metrics. The same command goes on with what is there."""
    object: str = ""
    """The object at frame 0: a .glb (`mv4d object` makes one of any 3D file), or a splat .ply; empty takes the clip's
    ground-truth mesh (`mv4d render --passes tracks`), without its colours."""
    placement: Placement = "auto"
    """Where the object stands. clip: where the clip puts its asset; a .ply is in the clip's space. seen: turn, size and
    place are found from the outlines at frame 0. auto: the first if the outlines agree with it."""
    preset: str = "cpu"
    """How: a name or a YAML file."""
    views: str = ""
    """Input views, by commas; empty is four evenly spaced ones, or the moving camera of an orbit."""
    held_out: str = ""
    """Views to score by; empty is up to eight of the others, `none` is none."""
    size_px: int = 0
    """Width of the pictures; 0 is as they are."""
    device: str = "cpu"
    """`cuda` needs gsplat."""
    threads: int = 0
    """Of the processor; 0 is all cores that this process may use."""
    quiet: bool = False
    """No progress display."""
    export: ExportSettings = field(default_factory=ExportSettings)
    """What is written to be looked at and opened elsewhere. The animated GLB needs an --object that is a .glb."""

    def __post_init__(self) -> None:
        if self.size_px < 0 or self.threads < 0:
            raise ValueError("size_px and threads must not be below 0")
        if self.size_px and self.size_px < 16:
            raise ValueError(f"size_px must be at least 16, got {self.size_px}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = command_parser(
        "reconstruct",
        "Find how an object moves in a multi-view clip: Gaussians of all frames, and where each vertex goes. The "
        f"object at frame 0 is given. Presets: {', '.join(preset_names())}, or a YAML file.",
        """mv4d reconstruct --data data --clip 3f2a --out runs/fox
        mv4d reconstruct --data data --clip 3f2a --out runs/fox --preset animate3d --views 0,4,8,12
        mv4d reconstruct --data data --clip 3f2a --out runs/fox --object fox.glb --set weights.node_arap=1000""",
    )
    parser.add_class_arguments(ReconstructOptions, None)
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        type=str,
        help="Another setting of the preset: name=value. May be repeated.",
    )
    namespace = parse(parser, arguments)
    options = pick(ReconstructOptions, namespace)
    logging.getLogger("mv4d.fourd").setLevel(logging.INFO)
    try:
        done = reconstruct_clip(options, load_settings(options.preset, namespace.set))
    except ValueError as error:
        usage_error(str(error))
    print_metrics(done.metrics, Console())
    print_files(done.written, Console())
    return EXIT_OK


@dataclass(frozen=True, kw_only=True)
class Reconstructed:
    """What came of a clip."""

    model: MovingGaussians
    static: StaticObject | None
    """The mesh at frame 0, if it came from a file."""
    video: MultiViewVideo
    """That it was fitted to."""
    metrics: dict[str, Any]
    written: list[Path]
    """Files to look at, the page first."""


def reconstruct_clip(options: ReconstructOptions, settings: ReconstructionSettings) -> Reconstructed:
    """Reconstruct a clip of a data root, score it, and write everything.

    Raises:
        ClipError: The clip, its frames or its cameras do not do.
        ObjectError: The object cannot be moved.
        ReconstructionError: Both do not belong together, or memory would not do.
    """
    folder = Path(options.out)
    check_device(options.device)
    check_folder(folder)
    if options.threads:
        torch.set_num_threads(options.threads)
    store = Store(options.data)
    clip = find_clip(store, options.clip)
    views = _numbers(clip, options.views) or input_views(clip)
    _check_memory(options, settings, clip, len(views))
    truth = true_tracks(store, clip)
    loaded = load_object(Path(options.object)) if options.object else None
    video = read_video(store, clip, views, size_px=options.size_px).to(options.device)
    orbit = _static_orbit(store, clip, options)
    held_out = _held_out(store, clip, views, options)
    placed, static = None, None
    if loaded is None:
        canonical, identity = _true_mesh(clip, truth, settings), ""
    else:
        record, sha256 = folder / PLACEMENT, hash_of(Path(options.object))
        placed = _place(options, clip, loaded, Silhouettes.of_frame_0(video, orbit), sha256)
        canonical, static = _canonical(options, settings, put(loaded, placed.object_from_file))
        identity = json.dumps([sha256, placed.matrix.tolist()])
    fit = Reconstruction(video, canonical.to(options.device), settings, folder, static=orbit, identity=identity)
    if placed is not None:
        write_placed(placed, record, clip_id=clip.clip_id, sha256=sha256)
    model = _run(fit, options)
    metrics = {
        "clip_id": clip.clip_id,
        "preset": settings.name,
        "input_views": list(views),
        "size_px": list(video.size_px),
        "placement": placed.as_json() if placed else None,
        "steps": fit.step,
        "num_gaussians": len(canonical.gaussians),
        "settings": dataclasses.asdict(settings),
        "input": dataclasses.asdict(score_views(model, video)),
        "held_out": dataclasses.asdict(score_views(model, held_out)) if held_out else None,
        "held_out_views": list(held_out.views) if held_out else [],
        "tracks": _track_scores(model, truth, static),
    }
    save_moving(model, folder / GAUSSIANS, fps=clip.fps)
    save_tracks(model, folder / TRACKS, fps=clip.fps)
    with written_beside(folder / METRICS) as beside:
        beside.write_text(json.dumps(metrics, indent=2, allow_nan=False) + "\n")
    written = export_moving(model, static, clip.fps, folder, options.export)
    return Reconstructed(model=model, static=static, video=video, metrics=metrics, written=written)


def export_moving(
    model: MovingGaussians, static: StaticObject | None, fps: float, folder: Path, settings: ExportSettings
) -> list[Path]:
    """Write all that people look at; a mesh that cannot carry the motion costs the GLB alone, and the log says so."""
    frames = [model.at_frame(frame).to("cpu") for frame in range(model.field.num_frames)]
    tracks = model.tracks().cpu().numpy()
    try:
        return export_result(folder, frames, fps, static=static, tracks=tracks, settings=settings)
    except ExportError as error:
        logger.warning("no animated GLB: %s", error)
        return export_result(folder, frames, fps, settings=settings)


def true_tracks(store: Store, clip: Clip) -> Tracks | None:
    """The clip's ground-truth tracks; None if they were not asked for when it was drawn.

    Raises:
        ClipError: They are in the table and cannot be read.
    """
    rows = Tables(store).rows(Truth, "clip_id = ? AND name = 'tracks'", [clip.clip_id])
    if not rows:
        return None
    try:
        tracks = read_tracks(store, rows[0])
    except (FileNotFoundError, ValueError) as error:
        raise ClipError(clip.clip_id, "damaged", f"{rows[0].folder}/{TRACKS_NAME}: {error}; render it anew") from error
    if len(tracks.positions) != clip.num_frames:
        detail = f"tracks of {len(tracks.positions)} frames for {clip.num_frames} of the pictures; render it anew"
        raise ClipError(clip.clip_id, "frames_missing", detail)
    return tracks


def _check_memory(options: ReconstructOptions, settings: ReconstructionSettings, clip: Clip, num_views: int) -> None:
    if options.device != "cpu":
        return
    width = options.size_px or clip.width
    check_memory(
        f"clip {clip.clip_id}", settings, num_frames=clip.num_frames, num_views=num_views,
        size_px=(width, round(clip.height * width / max(clip.width, 1))), num_gaussians=settings.num_gaussians,
    )  # fmt: skip


def _place(
    options: ReconstructOptions, clip: Clip, loaded: ReadObject | Gaussians, seen: Silhouettes, sha256: str
) -> Placed:
    """Where the object stands: as an earlier run found it, or found now."""
    known = read_placed(Path(options.out) / PLACEMENT, clip_id=clip.clip_id, sha256=sha256)
    if known is not None and options.placement in ("auto", known.how):
        return known
    told = Similarity.of_clip(clip) if isinstance(loaded, ReadObject) else Similarity.identity()
    return find_place(Path(options.object), loaded, seen, told=told, wanted=options.placement)


def _canonical(
    options: ReconstructOptions, settings: ReconstructionSettings, loaded: ReadObject | Gaussians
) -> tuple[Canonical, StaticObject | None]:
    if isinstance(loaded, Gaussians):
        return of_gaussians(options.object, loaded), None
    wanted = OnMeshSettings(num_points=settings.num_gaussians, on_vertices=False, seed=settings.seed)
    return of_object(loaded.static, gaussians_on_mesh(loaded, wanted)), loaded.static


def _true_mesh(clip: Clip, truth: Tracks | None, settings: ReconstructionSettings) -> Canonical:
    if truth is None:
        raise ClipError(
            clip.clip_id,
            "no_object",
            "no mesh is stored with it: `mv4d render --passes tracks` with the options it was drawn with adds one, "
            "or give --object",
        )
    return of_mesh(
        f"clip {clip.clip_id}",
        truth.positions[0],
        truth.triangles,
        num_gaussians=settings.num_gaussians,
        seed=settings.seed,
    )


def _run(fit: Reconstruction, options: ReconstructOptions) -> MovingGaussians:
    with progress_bar("reconstructing", "steps", quiet=options.quiet) as on_progress:
        on_progress(fit.step, fit.num_steps)
        model = fit.run(lambda step: on_progress(step.step, fit.num_steps, step_text(step)))
        on_progress(fit.step, fit.step)  # a stage may end early
    return model


def step_text(step: Step) -> str:
    """What a progress display says of a step."""
    return f"frame {step.newest_frame}, {step.psnr_db:.1f} dB, {step.rate:.1f}/s"


def _numbers(clip: Clip, text: str) -> tuple[int, ...]:
    try:
        return tuple(int(number) for number in text.split(",") if number.strip())
    except ValueError as error:
        raise ClipError(clip.clip_id, "no_such_view", f"views are numbers by commas, got {text!r}") from error


def _held_out(store: Store, clip: Clip, views: Sequence[int], options: ReconstructOptions) -> MultiViewVideo | None:
    if options.held_out == "none":
        return None
    wanted = list(_numbers(clip, options.held_out))
    if not wanted:
        others = [view for view in range(clip.num_views) if view not in views and clip.view_names[view] != "static"]
        wanted = others[:: max(1, -(-len(others) // 8))]
    return read_video(store, clip, wanted, size_px=options.size_px).to(options.device) if wanted else None


def _static_orbit(store: Store, clip: Clip, options: ReconstructOptions) -> MultiViewVideo | None:
    if "static" not in clip.view_names:
        return None
    view = clip.view_names.index("static")
    return read_video(store, clip, [view], size_px=options.size_px).to(options.device)


def _track_scores(model: MovingGaussians, truth: Tracks | None, static: StaticObject | None) -> dict[str, Any] | None:
    if truth is None or model.canonical.faces is None:
        return None
    tracks = model.tracks().cpu().numpy()
    if static is None:
        return dataclasses.asdict(score_tracks(tracks, truth.positions, truth.triangles))
    try:
        found = score_surface_tracks(tracks, static.faces, static.vertices, truth.positions, truth.triangles)
    except SurfaceMismatch as error:
        logger.info("tracks are not scored: %s", error)
        return None
    return dataclasses.asdict(found)


def print_metrics(metrics: dict[str, Any], console: Console) -> None:
    """What came of it, in a few lines."""
    console.print(f"[bold]{metrics['clip_id']}[/] by {metrics['preset']}, {metrics['steps']} steps", highlight=False)
    for name in ("input", "held_out"):
        if found := metrics[name]:
            text = f"{found['psnr_db']:.2f} dB, SSIM {found['ssim']:.4f}, mask IoU {found['mask_iou']:.3f}"
            console.print(f"  {name.replace('_', '-')} views: {text}", highlight=False)
    if found := metrics["tracks"]:
        text = f"{100 * found['mean_error']:.2f} % of the radius off, {100 * found['share_near']:.1f} % within 2 %"
        console.print(f"  vertices: {text} (standing still: {100 * found['still_error']:.2f} %)", highlight=False)


def print_files(written: Sequence[Path], console: Console) -> None:
    """What there is to look at."""
    console.print("Look at:", highlight=False)
    for path in written:
        console.print(f"  {path}", highlight=False, soft_wrap=True)
