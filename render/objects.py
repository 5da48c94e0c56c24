"""`mv4d object`: any 3D file as a still GLB. `mv4d convert`: an animated GLB as FBX, Alembic or USD.

Blender does both, in its sandbox: the files may come from anywhere.
"""

import hashlib
import logging
import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from pipeline.cli import EXIT_FINDINGS, EXIT_OK, command_parser, parse, usage_error
from pipeline.reasons import REASONS
from pipeline.records import ClipPlan
from pipeline.storage import Store, check_folder
from pipeline.tables import Tables
from render.draw import Shot
from render.protocol import NO_ACTION, Action, BadAsset, Bake, Baked, Convert, Converted, Loaded
from render.scratch import MAX_UNPACKED_BYTES, MAX_UNPACKED_FILES, LooseFile, StoredAsset, empty, safe_suffix
from render.supervisor import BlenderChild, BlenderSettings, child_for, close_child

logger = logging.getLogger("mv4d.render")

ALONE = {"glb", "usdz", "stl", "ply", "abc"}
"""Formats of which a file needs no other."""
BESIDE = {
    "bin", "mtl", "png", "jpg", "jpeg", "webp", "tga", "bmp", "tif", "tiff", "dds", "ktx2", "exr", "hdr", "avif",
    "blend", "usd", "usda", "usdc", "abc",
}  # fmt: skip
"""Suffixes of what other formats may need from their folder and the folders in it."""
OTHER_FORMATS = ("fbx", "abc", "usdc", "usda", "usdz")
MOVABLE_VERTICES = 500_000
"""Most that `mv4d reconstruct` and `mv4d animate` move: `fourd.canonical.MAX_VERTICES`, to which a test holds it."""


@dataclass(frozen=True, kw_only=True)
class Moment:
    """A time of an animation."""

    action_index: int
    time_s: float
    """On the file's timeline."""

    @classmethod
    def of_clip(cls, plan: ClipPlan, frame: int = 0) -> "Moment":
        """A frame of a clip, as it was drawn and as its `tracks` have it.

        Raises:
            ValueError: The clip has no such frame.
        """
        times_s = Shot.of(plan).times_s
        if not 0 <= frame < len(times_s):
            raise ValueError(f"the clip has frames 0 to {len(times_s) - 1}, got {frame}")
        return cls(action_index=plan.action_index, time_s=times_s[frame])

    @classmethod
    def of_action(cls, loaded: Loaded, name: str, frame: int = 0) -> "Moment":
        """A frame of an animation, at the file's own rate, counted from the animation's beginning.

        Raises:
            ValueError: There is no such animation, or it is shorter.
        """
        found: Action | None = next((action for action in loaded.actions if action.name == name), None)
        if found is None:
            names = ", ".join(repr(action.name) for action in loaded.actions) or "none"
            raise ValueError(f"no animation {name!r}; there are: {names}")
        last = round((found.end_s - found.start_s) * loaded.scene_fps)
        if not 0 <= frame <= last:
            raise ValueError(f"the animation {name!r} has frames 0 to {last}, got {frame}")
        return cls(action_index=found.index, time_s=found.start_s + frame / loaded.scene_fps)


def write_still(
    child: BlenderChild, asset: StoredAsset, store: Store, out: Path, *, at: Moment | None = None, name: str = ""
) -> tuple[Loaded, Baked]:
    """Write an asset as a GLB of plain meshes, in its own size and place.

    Args:
        child: Blender.
        asset: What to write.
        store: Where it lies.
        out: The GLB; it appears whole or not at all.
        at: When; None for the pose that the file states, in which no animation plays.
        name: Of the file, for people.

    Raises:
        BadAsset: Blender cannot read it, or there is nothing to draw.
    """

    def work(limit_px: int) -> tuple[Loaded, Baked]:
        loaded = child.load(asset, store, limit_px, as_drawn=False)
        empty(child.out)
        path = child.out / "object.glb"
        index, time_s = (NO_ACTION, 0.0) if at is None else (at.action_index, at.time_s)
        baked: Baked = child.call(Bake(action_index=index, time_s=time_s, out_path=str(path)))
        _hand_over(path, out)
        return loaded, baked

    return child.settle_in_memory(work)


def write_converted(child: BlenderChild, model: Path, out: Path, *, animation: str = "") -> Converted:
    """Write a GLB, with one of its animations, in the format of `out`'s suffix: fbx, abc, usdc, usda or usdz.

    Raises:
        BadAsset: It is no GLB that Blender reads, or has no such animation.
        ValueError: The format is none of those.
    """
    suffix = out.suffix[1:].lower()
    if suffix not in OTHER_FORMATS:
        raise ValueError(f"cannot write .{suffix}; there are: {', '.join(OTHER_FORMATS)}")
    check_folder(out.parent)
    if model.suffix.lower() != ".glb":
        raise ValueError(f"{model}: only a GLB is converted; `mv4d object` makes a still one of any 3D file")

    def work() -> Converted:
        with loose_file(model) as (file, store):
            path = child.take_in(file, store)
        empty(child.out)
        written = child.out / f"{_plain_name(out)}.{suffix}"
        converted: Converted = child.call(Convert(path=str(path), animation=animation, out_path=str(written)))
        _hand_over(written, out)
        for folder in (entry for entry in child.out.iterdir() if entry.is_dir()):  # the textures of a .usdc
            shutil.copytree(folder, out.parent / folder.name, dirs_exist_ok=True)
        return converted

    return child.settle(work)


@contextmanager
def loose_file(model: Path) -> Iterator[tuple[LooseFile, Store]]:
    """A file of this machine as an asset, together with what it may need from its own folder, as long as the block
    lasts.

    Raises:
        BadAsset: It is not there, or its folder holds too much.
    """
    if not model.is_file():
        raise BadAsset("not_found", "it is a folder" if model.is_dir() else "there is no such file")
    suffix = safe_suffix(model.suffix[1:].lower())
    with tempfile.TemporaryDirectory(prefix="mv4d-model-") as folder:
        tar_path, digest = Path(folder) / "model.tar", hashlib.sha256()
        num_bytes = 0
        with tarfile.open(tar_path, "w") as tar:
            for number, path in enumerate(_needed(model, suffix)):
                num_bytes += path.stat().st_size
                if num_bytes > MAX_UNPACKED_BYTES or number >= MAX_UNPACKED_FILES:
                    raise BadAsset("too_large", f"{model.parent} holds too much: put {model.name} into a folder of "
                                   "its own, with nothing but what it needs")  # fmt: skip
                tar.add(path.resolve() if path == model else path, path.relative_to(model.parent).as_posix())
        with tar_path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
        yield (
            LooseFile(asset_id=digest.hexdigest(), format=suffix, blob=tar_path.name, main_file=model.name),
            Store(folder),
        )


def _needed(model: Path, suffix: str) -> Iterator[Path]:
    """The model, and what lies below its folder and may belong to it. Links are not followed."""
    yield model
    if suffix in ALONE:
        return
    for folder, _, names in os.walk(model.parent):
        for name in sorted(names):
            path = Path(folder) / name
            if path != model and path.suffix[1:].lower() in BESIDE and not path.is_symlink():
                yield path


def _hand_over(written: Path, out: Path) -> None:
    with Store(str(out.parent.absolute())).writer(out.name) as target, written.open("rb") as file:
        shutil.copyfileobj(file, target, 1 << 20)
    written.unlink()


def _plain_name(out: Path) -> str:
    """Without what a path in a USD file cannot have."""
    return "".join(letter if letter.isascii() and letter.isalnum() else "_" for letter in out.stem) or "object"


def object_main(arguments: Sequence[str] | None = None) -> int:
    """Any 3D file, or the asset of a clip, as a still GLB."""
    parser = command_parser(
        "object",
        "Write any 3D file that Blender reads as a still GLB: plain meshes with textures, as reconstruct wants it.",
        """mv4d object dragon.fbx --out dragon.glb
        mv4d object dragon.fbx --animation Walk --frame 12 --out dragon.glb
        mv4d object --data data --clip 3f9c0a --out dragon.glb""",
    )
    parser.add_argument("model", nargs="?", type=str, default="", help="glb, gltf, fbx, obj, blend, usd, abc, stl, ply")
    parser.add_argument("--out", type=str, required=True, help="The GLB to write.")
    parser.add_argument("--animation", type=str, default="", help="Its pose is taken; without, the file's own.")
    parser.add_argument("--frame", type=int, default=0, help="Of the animation at the file's rate, or of the clip.")
    parser.add_argument("--data", type=str, default="", help="Data root, for --clip.")
    parser.add_argument("--clip", type=str, default="", help="Take this clip's asset, as its frame 0 shows it.")
    parser.add_class_arguments(BlenderSettings, "blender")
    options = parse(parser, arguments)
    out = Path(options.out)
    if out.suffix.lower() != ".glb":
        usage_error(f"--out must end in .glb, got {out}; `mv4d convert` writes other formats")
    if bool(options.model) == bool(options.clip) or bool(options.clip) != bool(options.data):
        usage_error("give a MODEL, or --data and --clip")
    if options.frame and not (options.animation or options.clip):
        usage_error("--frame is of an --animation or of a --clip")
    child = child_for(options.blender)
    try:
        check_folder(out.parent)
        if options.clip:
            plan = _plan_of(options.data, options.clip)
            _, baked = write_still(child, plan, Store(options.data), out, at=Moment.of_clip(plan, options.frame))
        else:
            with loose_file(Path(options.model)) as (file, store):
                at = None
                if options.animation:
                    loaded = child.settle(lambda: child.load(file, store, as_drawn=False))
                    at = Moment.of_action(loaded, options.animation, options.frame)
                _, baked = write_still(child, file, store, out, at=at)
    except BadAsset as error:
        return refused(options.model or options.clip, error)
    except ValueError as error:
        usage_error(f"{options.model or options.clip}: {error}")
    finally:
        close_child(options.blender)
    if baked.num_vertices > MOVABLE_VERTICES:
        logger.warning(
            f"{out} has {baked.num_vertices:,} vertices; `mv4d reconstruct` and `mv4d animate` refuse an object with "
            f"more than {MOVABLE_VERTICES:,} at different places. To have it moved, decimate it first (in Blender: the "
            "modifier Decimate)."
        )
    left_out = f"; left out: {', '.join(baked.left_out)}" if baked.left_out else ""
    print(f"{out}: {baked.num_nodes} nodes, {baked.num_vertices} vertices, {baked.num_triangles} triangles{left_out}")
    return EXIT_OK


def convert_main(arguments: Sequence[str] | None = None) -> int:
    """An animated GLB in another format."""
    parser = command_parser(
        "convert",
        "Write an animated GLB as FBX, Alembic (.abc) or USD (.usdc, .usda, .usdz), sampled at every frame.",
        """mv4d convert dragon.glb --out dragon.fbx
        mv4d convert dragon.glb --animation Walk --out dragon.usdz""",
    )
    parser.add_argument("model", type=str, help="GLB")
    parser.add_argument("--out", type=str, required=True, help="What to write; its suffix is the format.")
    parser.add_argument("--animation", type=str, default="", help="Which one, by name; the first one without.")
    parser.add_class_arguments(BlenderSettings, "blender")
    options = parse(parser, arguments)
    try:
        converted = write_converted(
            child_for(options.blender), Path(options.model), Path(options.out), animation=options.animation
        )
    except BadAsset as error:
        return refused(options.model, error)
    except ValueError as error:
        usage_error(str(error))
    finally:
        close_child(options.blender)
    what = f"{converted.animation!r}, {converted.num_frames} frames at {converted.fps:g}/s"
    print(f"{options.out}: {what if converted.animation else 'no animation'}")
    return EXIT_OK


def _plan_of(data: str, clip_id: str) -> ClipPlan:
    found = [plan for plan in Tables(Store(data)).rows(ClipPlan) if plan.clip_id.startswith(clip_id)]
    if len({plan.clip_id for plan in found}) != 1:
        what = "no clip" if not found else f"{len(found)} clips"
        raise ValueError(f"{what} of this id in {data} that was drawn here")
    return found[0]


def refused(name: str, error: BadAsset) -> int:
    """Say why Blender turns a file away and what to do; returns the exit code."""
    console = Console(stderr=True)
    console.print(f"[bold red]{error.reason}:[/] {escape(name)}: {escape(error.detail)}", highlight=False)
    if error.reason in REASONS:
        console.print(REASONS[error.reason][1], highlight=False)
    return EXIT_FINDINGS
