"""`mv4d generate`: animate a static object by a prompt; clips that the 4D stage reads, and videos to look at."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from jsonargparse import ArgumentParser, Namespace
from rich.console import Console
from torch import Tensor

from pipeline.cli import EXIT_OK, command_parser, parse, pick, usage_error
from pipeline.progress_bar import progress_bar
from pipeline.records import Clip
from pipeline.running import absolute_root
from pipeline.sole_driver import sole_driver
from pipeline.storage import Store, check_folder
from training.cameras import camera_vectors
from training.data.latents import Precision
from training.sampling.clips import GRID, SHEET, ClipFiles, Wish, check_strip, is_there, write_clip
from training.sampling.folder import fingerprint, load_pipeline
from training.sampling.free_init import FreeInit
from training.sampling.images import BACKGROUND, eight_bit
from training.sampling.memory import check_clips
from training.sampling.objects import MAX_SIDE_PX, CameraAngles, ObjectViews, views_from_clip, views_from_files
from training.sampling.pipeline import MultiViewVideoPipeline


@dataclass(frozen=True, kw_only=True)
class SampleSettings:
    """What decides the frames, beside object, prompt, seed and weights."""

    num_frames: int = 16
    """Of each clip, the given one included."""
    num_inference_steps: int = 25
    """Of DDIM, in each round of FreeInit."""
    guidance: float = 7.5
    """Scale of classifier-free guidance; 1 leaves it out, for half the time."""
    negative_prompt: str = ""
    """What to move away from."""
    free_init: FreeInit = FreeInit()  # noqa: RUF009  (frozen)

    def __post_init__(self) -> None:
        if self.num_frames < 2 or self.num_inference_steps < 1 or self.guidance < 0:
            raise ValueError(
                f"need 2 frames, 1 step and no negative guidance, got {self.num_frames}, {self.num_inference_steps} "
                f"and {self.guidance}"
            )


class Generator:
    """Generates clips into a data root; those that are there already are left as they are."""

    def __init__(
        self,
        pipeline: MultiViewVideoPipeline,
        out: str,
        settings: SampleSettings,
        files: ClipFiles,
        batch_size: int = 1,
    ) -> None:
        """Nothing is sampled yet.

        Args:
            pipeline: Does the work.
            out: The data root: a folder or an fsspec URL.
            settings: Of sampling.
            files: Of the clips.
            batch_size: Clips that are sampled at once.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        self.pipeline, self._store, self._settings, self._files = pipeline, Store(out), settings, files
        self._batch_size = batch_size
        self._sampled = {**asdict(settings), "weights": fingerprint(pipeline)}
        device = pipeline.unet.device
        self._device = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type.upper()

    def rows(self, wishes: Sequence[Wish]) -> list[Clip]:
        """The rows of the clips that are to be, without their files; their ids are known before they are sampled.

        Raises:
            ValueError: A wish cannot be fulfilled by this pipeline, or does not go into memory.
        """
        for wish in wishes:
            height, width = wish.views.rgba.shape[1:3]
            self.check(wish.views.named, wish.views.num_views, (width, height), min(self._batch_size, len(wishes)))
        frames = self._settings.num_frames
        return [self._files.row(wish, self._sampled, frames, self._device) for wish in wishes]

    def missing(self, wishes: Sequence[Wish]) -> list[tuple[Wish, Clip]]:
        """Wishes whose clips are not there, each clip once."""
        rows = {row.clip_id: (wish, row) for wish, row in zip(wishes, self.rows(wishes), strict=True)}
        return [(wish, row) for wish, row in rows.values() if not is_there(self._store, row)]

    def generate(
        self, wishes: Sequence[Wish], on_progress: Callable[[int, int], None] = lambda done, total: None
    ) -> list[Clip]:
        """Sample what is not there and write it, batch by batch. Returns the clips that were written.

        Args:
            wishes: Objects of one size and number of views.
            on_progress: Called after each step with how many are done over all batches, and of how many.

        Raises:
            ValueError: A wish cannot be fulfilled by this pipeline.
            RuntimeError: The network's numbers are not finite.
        """
        missing, written = self.missing(wishes), []
        steps = self._settings.free_init.num_rounds * self._settings.num_inference_steps
        batches = [missing[start : start + self._batch_size] for start in range(0, len(missing), self._batch_size)]
        for number, batch in enumerate(batches):

            def on_step(step: int, _: Tensor, before: int = number * steps) -> None:
                on_progress(before + step + 1, len(batches) * steps)

            frames = self._frames([wish for wish, _ in batch], on_step)
            for (wish, row), shown in zip(batch, frames, strict=True):
                written.append(write_clip(self._store, row, wish.prompt, self._files.strips(wish.views, shown)))
        return written

    def check(self, named: str, num_views: int, size_px: tuple[int, int], num_clips: int = 1) -> None:
        """Refuse clips that this pipeline cannot make, before any work.

        Args:
            named: What they are made of, for the message.
            num_views: Of each.
            size_px: Width and height of their pictures.
            num_clips: That are sampled at once.

        Raises:
            ValueError: They are of a size that does not do, or do not go into memory (`MemoryShort`).
        """
        latent_px, (width, height) = self.pipeline.latent_px, size_px
        if height % latent_px or width % latent_px:
            nearest = max(1, round(height / latent_px)) * latent_px
            raise ValueError(
                f"{named}: pictures of {width} x {height} px; this pipeline takes multiples of {latent_px}: say "
                f"--size_px {nearest}"
            )
        check_strip(self._settings.num_frames, height)
        check_clips(
            self.pipeline, num_clips=num_clips, num_views=num_views, num_frames=self._settings.num_frames,
            size_px=size_px, guided=self._settings.guidance != 1,
        )  # fmt: skip

    def _frames(self, wishes: Sequence[Wish], on_step: Callable[[int, Tensor], None]) -> np.ndarray:
        """Shape (clip, view, frame, height, width, 3), uint8."""
        settings = self._settings
        latents = self.pipeline(
            [wish.prompt for wish in wishes],
            np.stack([wish.views.rgba for wish in wishes]),
            negative_prompt=settings.negative_prompt,
            cameras=torch.stack([camera_vectors(wish.views.c2w) for wish in wishes]),
            num_frames=settings.num_frames,
            num_inference_steps=settings.num_inference_steps,
            guidance=settings.guidance,
            free_init=settings.free_init,
            seeds=[wish.seed for wish in wishes],
            background=BACKGROUND,
            output_type="latent",
            on_step=on_step,
        ).frames
        if not bool(torch.isfinite(latents).all()):
            raise RuntimeError("the network's numbers are not finite: compute in float32 or bfloat16 (--compute)")
        pictures = self.pipeline.decode_latents(latents)
        return np.stack(eight_bit(pictures)).reshape(*pictures.shape[:3], *pictures.shape[-2:], 3)


def wishes_of(views: ObjectViews, prompts: Sequence[str], seeds: Sequence[int]) -> list[Wish]:
    """A wish a prompt, each with its seed.

    Args:
        views: The object.
        prompts: What it is to do.
        seeds: One for all prompts, or one a prompt; several for a single prompt give it as many clips.

    Raises:
        ValueError: Their numbers do not fit, or a prompt says nothing.
    """
    if not prompts or any(not prompt.strip() for prompt in prompts):
        raise ValueError('say what the object does: --prompt "a fox walks"')
    if len(seeds) not in (1, len(prompts)) and len(prompts) > 1:
        raise ValueError(f"{len(seeds)} seeds for {len(prompts)} prompts: give one for all, or one a prompt")
    if any(not 0 <= seed < 2**63 for seed in seeds):
        raise ValueError("seeds must lie in 0..2^63")
    count = max(len(prompts), len(seeds))
    pairs = zip(list(prompts) * (count // len(prompts)), list(seeds) * (count // len(seeds)), strict=True)
    return [Wish(views=views, prompt=" ".join(prompt.split()), seed=seed) for prompt, seed in pairs]


SUMMARY = """Animate a static object by a prompt, with a trained pipeline.

The object comes as pictures from evenly spaced sides (PNG with transparency is best; a background of one colour is
taken out), or as a frame of a clip that `mv4d render` made, with its cameras. Each prompt becomes a clip in a data
root: strips with alpha and cameras for `mv4d reconstruct --data OUT --clip ID`, and beside them a video a view
(v00.mp4, …), one of all views (grid.mp4) and a sheet of all frames (sheet.png).

The same object, prompt, seed, weights and settings give the same clip id; what is there is not generated again."""

EXAMPLES = """mv4d generate --pipeline model --images front.png left.png back.png right.png --prompt "a fox walks"
mv4d generate --pipeline model --images views/ --prompt "it walks" "it jumps" --seed 1 2 --elevation_deg 20
mv4d generate --pipeline model --data data --clip 7ca99d93d5f24558 --prompt "a robot waves" --out generated
mv4d generate --pipeline model --images views/ --prompt "it waves" --seed 1 2 3 4 --batch_size 4 --compute bfloat16
mv4d generate --pipeline model --images views/ --prompt "it walks" --free_init.num_rounds 1   a third of the time"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Generate clips; returns the exit code."""
    parser = command_parser("generate", SUMMARY, EXAMPLES)
    add = parser.add_argument
    add("--pipeline", type=str, required=True, help="What `mv4d train export` or save_pretrained wrote.")
    add("--prompt", type=str, nargs="+", required=True, help="What the object does; several give a clip each.")
    add(
        "--seed", type=int, nargs="+", default=[0], help="One for all prompts, or one a prompt; several for one prompt."
    )
    add("--images", type=str, nargs="+", default=[], help="The views in order, round the object; or their folder.")
    add("--data", type=str, default="", help="Data root with a rendered clip of the object.")
    add("--clip", type=str, default="", help="Id of the clip.")
    add("--first_view", type=int, default=0, help="The first of the clip's views that is taken.")
    add("--frame", type=int, default=0, help="The clip's frame that is animated.")
    add("--num_views", type=int, default=4, help="Sides of the object; the published model knows four.")
    add("--size_px", type=int, default=0, help="Scale the pictures to this square; 0 keeps them as they are.")
    add("--out", type=str, default="generated", help="Data root for the clips: a folder or fsspec URL.")
    add("--device", type=str, default="auto", help="Such as cpu or cuda:0; auto takes a GPU if there is.")
    add("--compute", type=Precision, default="float32", help="What the networks compute in.")
    add("--batch_size", type=int, default=1, help="Clips sampled at once; takes so many times the memory.")
    camera_options(parser)
    parser.add_class_arguments(SampleSettings, None)
    parser.add_class_arguments(ClipFiles, None)
    options = parse(parser, arguments)
    settings, files = pick(SampleSettings, options), pick(ClipFiles, options)
    try:
        # What costs nothing is checked first: the pictures before the weights are read.
        device, out = _device(options.device), absolute_root(options.out)
        check_folder(out)
        wishes = wishes_of(_views(options), options.prompt, options.seed)
        pipeline = load_pipeline(options.pipeline, device=device, compute=options.compute)
        generator = Generator(pipeline, out, settings, files, options.batch_size)
        rows = generator.rows(wishes)
        with sole_driver(Store(out)), progress_bar("sampling", "steps") as on_progress:
            written = {clip.clip_id for clip in generator.generate(wishes, on_progress)}
    except ValueError as error:
        usage_error(str(error))
    _print(options.out, list(zip(wishes, rows, strict=True)), written)
    return EXIT_OK


ANGLES = {
    "elevation_deg": "Of the cameras, above the horizon: one number for all views, or one a view.",
    "azimuth_deg": "Of the first view, 0 in front, with the others at equal steps of 360 degrees counter-clockwise "
    "seen from above; or one a view.",
}


def camera_options(parser: ArgumentParser) -> None:
    """The options of `CameraAngles`, its angles as words of their own: `--azimuth_deg 0 90 200`."""
    plain = CameraAngles()
    for name, text in ANGLES.items():
        parser.add_argument(f"--{name}", type=float, nargs="+", default=list(getattr(plain, name)), help=text)
    parser.add_class_arguments(CameraAngles, None, skip=set(ANGLES))


def _views(options: Namespace) -> ObjectViews:
    if bool(options.images) == bool(options.clip):
        raise ValueError("give the object either as --images or as --data with --clip")
    if options.num_views < 1 or not 0 <= options.size_px <= MAX_SIDE_PX:
        given = f"{options.num_views} and {options.size_px}"
        raise ValueError(f"need num_views >= 1 and size_px in 0..{MAX_SIDE_PX}, got {given}")
    if options.images:
        angles = {name: tuple(getattr(options, name)) for name in ANGLES}
        views = views_from_files(options.images, options.num_views, pick(CameraAngles, options, **angles))
    else:
        if not options.data:
            raise ValueError("--clip needs the data root that has it: --data")
        views = views_from_clip(
            options.data, options.clip, options.num_views, first_view=options.first_view, frame=options.frame
        )
    return views.resized(options.size_px) if options.size_px else views


def _device(name: str) -> torch.device:
    """Raises: ValueError: There is no such device."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"--device {name} cannot be used here: {str(error).splitlines()[0]}") from error
    return device


def _print(out: str, wanted: Sequence[tuple[Wish, Clip]], written: set[str]) -> None:
    console = Console(highlight=False, soft_wrap=True)
    for wish, clip in wanted:
        state = "" if clip.clip_id in written else "  [dim](was there)[/]"
        console.print(f"[bold]{clip.clip_id}[/]  seed {wish.seed}  {wish.prompt}{state}")
    (_, first), *_ = wanted
    console.print(f"look at  {out}/{first.folder}/{GRID} and {SHEET}")
    console.print(f"go on:   mv4d reconstruct --data {out} --clip {first.clip_id}")


if __name__ == "__main__":
    sys.exit(main())
