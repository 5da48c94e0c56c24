"""`mv4d animate`: a static model and a prompt in; an animated GLB, splats, videos and a page that plays them out."""

import contextlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rich.console import Console

from pipeline.cli import EXIT_OK, command_parser, parse, pick, usage_error
from pipeline.progress_bar import progress_bar
from pipeline.records import Clip
from pipeline.sole_driver import sole_driver
from pipeline.storage import Store, check_folder
from render.objects import loose_file, refused, write_still
from render.protocol import BadAsset
from render.still import StillViews, draw_still
from render.supervisor import BlenderSettings, child_for, close_child

if TYPE_CHECKING:
    from fourd.settings import ReconstructionSettings
    from training.generate import Generator
    from training.sampling.pipeline import MultiViewVideoPipeline

OBJECT, DATA = "object.glb", "data"


@dataclass(frozen=True, kw_only=True)
class AnimateOptions:
    """From a model to one that moves."""

    prompt: str
    """What it does: `a fox walks`."""
    pipeline: str
    """Folder of a trained model: what `mv4d train export` or `save_pretrained` wrote."""
    out: str
    """Folder for all that comes of it. The same command goes on with what is there."""
    seed: int = 0
    """Another one, another motion."""
    num_frames: int = 16
    num_inference_steps: int = 25
    guidance: float = 7.5
    """Scale of classifier-free guidance."""
    fps: float = 8.0
    """Frames a second of the motion."""
    preset: str = "cpu"
    """Of the reconstruction: a name or a YAML file."""
    refine_steps: int = 0
    """Steps of 4D-SDS after the reconstruction, in which the model judges new views; 0 leaves it out. 250 as published;
    wants a GPU."""
    refine_px: int = 256
    """Width of the renders that refinement holds to."""
    device: str = "cpu"
    """Such as cuda:0."""
    compute: Literal["float32", "bfloat16", "float16"] = "float32"
    """What the networks compute in; bfloat16 on a GPU."""
    still: StillViews = field(default_factory=StillViews)
    """The views of the model that are animated."""
    blender: BlenderSettings = field(default_factory=BlenderSettings)

    def __post_init__(self) -> None:
        if not self.prompt.strip():
            raise ValueError('say what the model does: --prompt "a fox walks"')
        if self.refine_steps < 0 or self.refine_px < 16 or self.num_frames < 2:
            raise ValueError("need refine_steps >= 0, refine_px >= 16 and num_frames >= 2")
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"the seed must lie in 0..2^63, got {self.seed}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = command_parser(
        "animate",
        "Animate a static 3D model by a prompt: draw it from four sides, have a trained model animate these views, and "
        "bring the motion back to the mesh. Writes an animated GLB, splats, videos, and a page that plays them.",
        """mv4d animate fox.glb --prompt "a fox walks" --pipeline model --out runs/fox
        mv4d animate robot.fbx --prompt "a robot waves" --pipeline model --out runs/robot --seed 3 --refine_steps 250
        mv4d animate fox.glb --prompt "it jumps" --pipeline model --out runs/jump --device cuda:0 --compute bfloat16""",
    )
    parser.add_argument("model", type=str, help="glb, gltf, fbx, obj, blend, usd, abc, stl, ply")
    parser.add_class_arguments(AnimateOptions, None)
    namespace = parse(parser, arguments)
    logging.getLogger("mv4d.fourd").setLevel(logging.INFO)
    try:
        written = animate(Path(namespace.model), pick(AnimateOptions, namespace))
    except BadAsset as error:
        return refused(namespace.model, error)
    except ValueError as error:
        usage_error(str(error))
    console = Console(highlight=False, soft_wrap=True)
    console.print("Look at:")
    for path in written:
        console.print(f"  {path}")
    return EXIT_OK


def animate(model: Path, options: AnimateOptions) -> list[Path]:
    """Do it all; what an earlier call has finished is not done again. Returns the files to look at.

    Raises:
        BadAsset: Blender cannot read or draw the model.
        ValueError: What is wrong with the pipeline folder, the settings, or what one stage gave the next.
    """
    from fourd.settings import load_settings  # the training side, torch and all, is loaded when it is needed

    settings = load_settings(options.preset)
    folder = Path(options.out)
    data = str(folder / DATA)
    check_folder(data)
    # What takes no time may fail at once: what the model's file says and the weights, Blender, then the network.
    _check_model(model, settings, options)
    generator = _generator(data, options)
    with sole_driver(Store(data)):
        still = _still(model, folder, data, options)
        clip = _generated(generator, still, data, options)
        return _reconstructed(generator.pipeline, clip, settings, options)


def _check_model(model: Path, settings: "ReconstructionSettings", options: AnimateOptions) -> None:
    from fourd.canonical import MAX_VERTICES
    from fourd.checks import check_memory
    from fourd.export.errors import ExportError
    from fourd.gltf import read_glb
    from fourd.objects.drawn import check_size
    from fourd.rendering.rasterize import check_device

    if not model.is_file():
        raise ValueError(f"{model}: there is no such file")
    check_device(options.device)
    if model.suffix.lower() == ".glb":
        with contextlib.suppress(ExportError):  # Blender has words for what is no GLB
            check_size(read_glb(model), MAX_VERTICES)
    if options.device == "cpu":
        size_px = (options.still.size_px, options.still.size_px)
        check_memory(
            str(model), settings, num_frames=options.num_frames, num_views=_num_views(options), size_px=size_px,
            num_gaussians=settings.num_gaussians,
        )  # fmt: skip


def _generator(data: str, options: AnimateOptions) -> "Generator":
    from training.generate import Generator, SampleSettings
    from training.sampling.clips import ClipFiles
    from training.sampling.folder import load_pipeline

    sampling = SampleSettings(
        num_frames=options.num_frames, num_inference_steps=options.num_inference_steps, guidance=options.guidance
    )
    files = ClipFiles(fps=options.fps)
    pipeline = load_pipeline(options.pipeline, device=options.device, compute=options.compute)
    generator = Generator(pipeline, data, sampling, files)
    size_px = (options.still.size_px, options.still.size_px)
    generator.check(f"--still.size_px {options.still.size_px}", _num_views(options), size_px)
    return generator


def _num_views(options: AnimateOptions) -> int:
    return options.still.plan("model", "").num_views


def _still(model: Path, folder: Path, data: str, options: AnimateOptions) -> Clip:
    child = child_for(options.blender)
    try:
        with loose_file(model) as (file, store):
            made_of = folder / "object.json"
            facts = {"sha256": file.asset_id, "model": model.name}
            if not (folder / OBJECT).exists() or not made_of.exists() or json.loads(made_of.read_text()) != facts:
                write_still(child, file, store, folder / OBJECT)
                _check_object(folder / OBJECT)
                made_of.write_text(json.dumps(facts))
        return draw_still(folder / OBJECT, data, options.still, options.blender)
    finally:
        close_child(options.blender)


def _check_object(path: Path) -> None:
    """Refuse what the reconstruction could not move, before the network is asked; the GLB goes again."""
    from fourd.canonical import check_mesh
    from fourd.objects.glb import read_with_looks

    try:
        static = read_with_looks(path).static
        check_mesh(str(path), static.vertices, static.faces)
    except ValueError:
        path.unlink()
        raise


def _generated(generator: "Generator", still: Clip, data: str, options: AnimateOptions) -> Clip:
    from training.generate import wishes_of
    from training.sampling.objects import views_from_clip

    wishes = wishes_of(views_from_clip(data, still.clip_id, still.num_views), [options.prompt], [options.seed])
    with progress_bar("generating", "steps") as on_progress:
        generator.generate(wishes, on_progress)
    (clip,) = generator.rows(wishes)
    return clip


def _reconstructed(
    pipeline: "MultiViewVideoPipeline", clip: Clip, settings: "ReconstructionSettings", options: AnimateOptions
) -> list[Path]:
    from fourd.command import ReconstructOptions, export_moving, print_metrics, reconstruct_clip, step_text
    from fourd.guidance import GuidanceCameras, SdsGuidance
    from fourd.refine import RefineSettings, refinement
    from training.sampling.prior import PipelinePrior

    folder = Path(options.out)
    plain = ReconstructOptions(
        data=str(folder / DATA), clip=clip.clip_id, out=str(folder), object=str(folder / OBJECT), held_out="none",
        preset=options.preset, device=options.device,
    )  # fmt: skip
    done = reconstruct_clip(plain, settings)
    print_metrics(done.metrics, Console(stderr=True))
    if not options.refine_steps:
        return done.written
    cameras = GuidanceCameras(num_views=len(done.video.views), size_px=done.video.size_px[0])
    fit = refinement(
        done.model,
        done.video,
        settings,
        SdsGuidance(PipelinePrior(pipeline, options.prompt), cameras=cameras, seed=options.seed),
        RefineSettings(steps=options.refine_steps, size_px=options.refine_px),
        folder=folder / "refined",
        prior=f"{options.pipeline} {options.prompt}",
    )
    with progress_bar("refining", "steps") as on_progress:
        on_progress(fit.step, fit.num_steps)
        model = fit.run(lambda step: on_progress(step.step, fit.num_steps, step_text(step)))
    return export_moving(model, done.static, clip.fps, folder, plain.export)
