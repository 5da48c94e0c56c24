"""Generated frames -> a clip as the renderer writes them, with videos to look at beside it."""

import hashlib
import io
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from PIL import Image

from pipeline.matting import cut_out
from pipeline.media import MAX_STRIP_PX, compose, encode_strip, strip_name
from pipeline.mp4 import MAX_SIDE_PX, encode_mp4
from pipeline.records import Caption, Clip, Part, Record, StageSettings, content_id
from pipeline.storage import Store
from pipeline.tables import Tables
from training.sampling.images import BACKGROUND
from training.sampling.objects import ObjectViews

STAGE = "training.generate"
GENERATED = "generated"
"""`quality` of a clip that a network made."""

GRID, SHEET = "grid.mp4", "sheet.png"


@dataclass(frozen=True, kw_only=True)
class Wish:
    """One clip to be generated."""

    views: ObjectViews
    prompt: str
    seed: int


@dataclass(frozen=True, kw_only=True)
class ClipFiles:
    """How generated frames become clips."""

    fps: float = 8.0
    """Frames a second; the published model was trained on 16 frames of 2 seconds."""
    alpha: Literal["estimate", "opaque"] = "estimate"
    """estimate: take the grey background out of the generated frames (pipeline/matting.py says how, and where it
    fails). opaque: leave it in; the clip says its colour."""
    tolerance: float = 0.05
    """Of the estimate: largest difference of a colour channel, 0..1, that still is background."""

    def __post_init__(self) -> None:
        if not 0 < self.fps <= 1000 or not 0 < self.tolerance < 0.5:
            raise ValueError(f"need fps in 0..1000 and tolerance in 0..0.5, got {self.fps} and {self.tolerance}")

    def row(self, wish: Wish, sampled: dict[str, Any], num_frames: int, device: str) -> Clip:
        """The clip's row before there are files: its id depends on nothing that is drawn from the noise.

        Args:
            wish: What is generated.
            sampled: Settings that decide the frames, for JSON.
            num_frames: Of the clip.
            device: What computes; does not count for the id.
        """
        views = wish.views
        height, width = views.rgba.shape[1:3]
        settings = {"prompt": wish.prompt, "sampled": sampled, "files": asdict(self), "source": views.facts}
        text = json.dumps(settings, sort_keys=True)
        animation_id = content_id(GENERATED, views.object_id, wish.prompt, num_frames, self.fps)
        clip_id = content_id(animation_id, views.rig, text, wish.seed, views.c2w.tolist(), views.intrinsics)
        return Clip(
            clip_id=clip_id,
            animation_id=animation_id,
            asset_id=views.object_id,
            rig=views.rig,
            quality=GENERATED,
            num_views=views.num_views,
            num_frames=num_frames,
            width=width,
            height=height,
            fps=self.fps,
            seed=wish.seed,
            azimuth_deg=views.azimuth_deg,
            elevation_deg=views.elevation_deg,
            view_names=views.view_names,
            c2w=tuple(views.c2w.ravel().tolist()),
            num_camera_frames=1,
            intrinsics=views.intrinsics,
            world_scale=views.world_scale,
            world_centre=views.world_centre,
            folder=f"clips/{clip_id[:2]}/{clip_id}",
            parts=(),
            texture_limit_px=0,
            blender_version="",
            device=device,
            settings=text,
            backdrop="" if self.alpha == "estimate" else GREY_HEX,
        )

    def strips(self, views: ObjectViews, frames: np.ndarray) -> np.ndarray:
        """Frames as they are stored: the first as it was given, the others from the network.

        Args:
            views: The object, frame 0.
            frames: Shape (view, frame, height, width, 3), uint8, on grey.

        Returns:
            Shape (view, frame, height, width, 4), uint8.
        """
        if self.alpha == "estimate":
            later = cut_out(frames[:, 1:], (BACKGROUND,) * 3, tolerance=self.tolerance)
            return np.concatenate([views.rgba[:, None], later], axis=1)
        first = np.rint(compose(views.rgba[:, None], BACKGROUND) * 255).astype(np.uint8)
        shown = np.concatenate([first, frames[:, 1:]], axis=1)
        return np.concatenate([shown, np.full((*shown.shape[:-1], 1), 255, np.uint8)], axis=-1)


GREY_HEX = "#" + f"{round(BACKGROUND * 255):02x}" * 3


def check_strip(num_frames: int, height: int) -> None:
    """Whether a view's frames fit its file.

    Raises:
        ValueError: They do not.
    """
    if num_frames * height > MAX_STRIP_PX:
        raise ValueError(
            f"{num_frames} frames of {height} px do not fit a view's strip of {MAX_STRIP_PX} px: choose a smaller "
            "--size_px or fewer frames"
        )


def write_clip(store: Store, row: Clip, prompt: str, rgba: np.ndarray) -> Clip:
    """Write a clip's files, then its rows; the clip is there when its row is.

    Args:
        store: The data root.
        row: Of `ClipFiles.row`.
        prompt: Becomes its caption.
        rgba: Shape (view, frame, height, width, 4), uint8.
    """
    files = {strip_name(view): encode_strip(strip) for view, strip in enumerate(rgba)}
    clip = Clip(**{**vars(row), "parts": tuple(_part(name, content) for name, content in files.items())})
    store.remove_partial(clip.folder)
    for name, content in {**files, **previews(rgba, clip.fps), "clip.json": clip_json(clip)}.items():
        store.write_bytes(f"{clip.folder}/{name}", content)
    caption = Caption(clip_id=clip.clip_id, kind="prompt", source=GENERATED, text=prompt, about="")
    about = json.loads(clip.settings)
    settings = json.dumps({name: about[name] for name in ("sampled", "files")}, sort_keys=True)
    settings_id = content_id(STAGE, settings, length=10)
    stage = StageSettings(stage=STAGE, settings_id=settings_id, settings=settings)
    rows: list[tuple[Record, str]] = [(stage, settings_id), (caption, clip.clip_id), (clip, clip.clip_id)]
    for record, name in rows:
        origin = {"made_by": f"{STAGE}@{settings_id}", "made_from": "" if record is stage else clip.animation_id}
        Tables(store).write(type(record), f"{STAGE}-{name}", [record], **origin)
    return clip


def is_there(store: Store, row: Clip) -> bool:
    """Whether a clip was generated before, with all its files."""
    found = Tables(store).rows(Clip, "clip_id = ?", [row.clip_id])
    return any(all(store.exists(f"{clip.folder}/{part.name}") for part in clip.parts) for clip in found)


def clip_json(clip: Clip) -> bytes:
    """The row as `clip.json` beside the strips; NaN, which JSON lacks, as null."""
    values = {name: _known(value) for name, value in asdict(clip).items()}
    return json.dumps(values, sort_keys=True, indent=1, allow_nan=False).encode()


def previews(rgba: np.ndarray, fps: float) -> dict[str, bytes]:
    """Files to look at, by name: a video a view, one of all views, and a sheet with a row a view.

    Args:
        rgba: Shape (view, frame, height, width, 4), uint8.
        fps: Of the videos.
    """
    shown = np.rint(compose(rgba, BACKGROUND) * 255).astype(np.uint8)
    files = {f"v{view:02d}.mp4": encode_mp4(frames, fps) for view, frames in enumerate(shown)}
    files[GRID] = encode_mp4(_tiled(shown), fps)
    sheet = io.BytesIO()
    rows = [np.concatenate(list(frames), axis=1) for frames in shown]
    Image.fromarray(np.concatenate(rows, axis=0)).save(sheet, "PNG")
    files[SHEET] = sheet.getvalue()
    return files


def _tiled(shown: np.ndarray) -> np.ndarray:
    """All views in one picture a frame, as near to a square as they go; (frame, height, width, 3)."""
    num_views, num_frames, height, width = shown.shape[:4]
    columns = math.ceil(math.sqrt(num_views))
    rows = math.ceil(num_views / columns)
    tiles = np.full((rows * columns, num_frames, height, width, 3), round(BACKGROUND * 255), np.uint8)
    tiles[:num_views] = shown
    grid = tiles.reshape(rows, columns, num_frames, height, width, 3).transpose(2, 0, 3, 1, 4, 5)
    step = math.ceil(max(rows * height, columns * width) / MAX_SIDE_PX)
    return np.ascontiguousarray(grid.reshape(num_frames, rows * height, columns * width, 3)[:, ::step, ::step])


def _part(name: str, content: bytes) -> Part:
    return Part(name=name, num_bytes=len(content), sha256=hashlib.sha256(content).hexdigest())


def _known(value: Any) -> Any:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_known(entry) for entry in value]
    return None if isinstance(value, float) and math.isnan(value) else value
