"""A static object to be animated: its views with alpha and cameras, from files or from a clip of a data root."""

import hashlib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from pipeline.cameras import check_cameras, look_at_origin, pinhole
from pipeline.matting import cut_out, rim_colour
from pipeline.media import read_view, strip_name
from pipeline.records import Clip, content_id
from pipeline.storage import Store
from pipeline.tables import DamagedTable, Tables
from training.data.clips import choose_views

Reason = Literal[
    "not_found",
    "unreadable",
    "too_large",
    "wrong_count",
    "wrong_size",
    "no_transparency",
    "empty",
    "moving_cameras",
    "cameras",
]

FORMATS = {"PNG": (".png",), "JPEG": (".jpg", ".jpeg"), "WEBP": (".webp",)}
MAX_SIDE_PX = 4096
MAX_FILE_BYTES = 1 << 28
EVEN_RIM = 0.04
"""Largest spread of a background, 0..1, that can be taken out."""


class ObjectError(ValueError):
    """Views of an object that cannot be animated.

    Args:
        path: The file, folder or data root.
        reason: Countable kind of fault.
        detail: What is wrong, and what to do.
    """

    def __init__(self, path: str | Path, reason: Reason, detail: str) -> None:
        super().__init__(f"{path}: {detail} [{reason}]")
        self.path = str(path)
        self.reason = reason


@dataclass(frozen=True, kw_only=True)
class CameraAngles:
    """Where the cameras stood that made the pictures, as far as the pictures' maker knows."""

    elevation_deg: tuple[float, ...] = (15.0,)
    """Above the horizon: one number for all views, or one a view."""
    azimuth_deg: tuple[float, ...] = (0.0,)
    """0 faces the front, growing counter-clockwise seen from above: of the first view, with the others at equal steps
    of 360 degrees; or one a view."""
    fov_deg: float = 40.0
    """Field of view of the height. The network is not told it, the 4D stage needs it."""
    radius: float = 3.0
    """Distance to the object, which fits the unit sphere; so this too."""

    def __post_init__(self) -> None:
        if self.radius <= 1 or not 0 < self.fov_deg < 180:
            raise ValueError(f"need radius > 1 and fov_deg in 0..180, got {self.radius} and {self.fov_deg}")
        if not self.elevation_deg or not self.azimuth_deg:
            raise ValueError("give an elevation and an azimuth")
        if any(not -85 <= angle <= 85 for angle in self.elevation_deg):
            raise ValueError(f"elevations must lie in -85..85, got {self.elevation_deg}")

    def angles(self, num_views: int) -> list[tuple[float, float]]:
        """Azimuth and elevation of each view.

        Raises:
            ValueError: Neither one number nor one a view.
        """
        for name, given in (("elevation_deg", self.elevation_deg), ("azimuth_deg", self.azimuth_deg)):
            if len(given) not in (1, num_views):
                raise ValueError(f"{name} needs one number or {num_views}, one a view; got {len(given)}")
        (first, *others), steps = self.azimuth_deg, range(num_views)
        azimuths = [*self.azimuth_deg] if others else [first + 360.0 * view / num_views for view in steps]
        elevations = [*self.elevation_deg] if len(self.elevation_deg) > 1 else [*self.elevation_deg] * num_views
        return list(zip(azimuths, elevations, strict=True))


@dataclass(frozen=True, kw_only=True)
class ObjectViews:
    """An object that stands still, seen from a few sides."""

    object_id: str
    """The asset's where it is known; else a hash of the pictures."""
    named: str
    """For people: the file, the folder, or the folder of the clip."""
    rgba: np.ndarray
    """Shape (view, height, width, 4), uint8, straight alpha."""
    c2w: np.ndarray
    """OpenCV camera-to-world, shape (view, 4, 4)."""
    intrinsics: tuple[float, float, float, float]
    azimuth_deg: float
    """Of view 0."""
    elevation_deg: float
    rig: str
    view_names: tuple[str, ...]
    world_scale: float
    """As in the clip; NaN if not known."""
    world_centre: tuple[float, float, float]
    facts: dict[str, Any]
    """Where the pictures come from and what was assumed, for JSON."""

    @property
    def num_views(self) -> int:
        """How many sides."""
        return len(self.rgba)

    def resized(self, size_px: int) -> "ObjectViews":
        """The same at another size; averaged with premultiplied alpha.

        Raises:
            ObjectError: `wrong_size`: the pictures are not square.
        """
        height, width = self.rgba.shape[1:3]
        if (height, width) == (size_px, size_px):
            return self
        if height != width:
            found = f"its pictures are {width} x {height} px: crop them square, or leave out --size_px"
            raise ObjectError(self.named, "wrong_size", found)
        values = torch.from_numpy(self.rgba).permute(0, 3, 1, 2).float() / 255
        light = torch.cat([values[:, :3] * values[:, 3:], values[:, 3:]], dim=1)
        light = F.interpolate(light, (size_px, size_px), mode="bicubic", antialias=True, align_corners=False)
        alpha = light[:, 3:]
        colour = torch.where(alpha > 1 / 510, light[:, :3] / alpha.clamp_min(1 / 510), 0.0)
        rgba = (torch.cat([colour, alpha], dim=1).clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
        fx, fy, cx, cy = (number * size_px / height for number in self.intrinsics)
        return ObjectViews(**{**vars(self), "rgba": rgba, "intrinsics": (fx, fy, cx, cy)})


def views_from_files(paths: Sequence[str | Path], num_views: int, cameras: CameraAngles) -> ObjectViews:
    """An object from its pictures, one a view.

    Args:
        paths: The files in the order of the views; or one folder, whose pictures are taken in the order of their names,
            numbers by their value.
        num_views: How many there must be.
        cameras: Where they were taken from.

    Raises:
        ObjectError: A picture is absent, cannot be read, does not go with the others, or has neither alpha nor an even
            background.
        ValueError: The angles do not go with the number of views.
    """
    files = [Path(path) for path in paths]
    for path in files:
        if not path.exists():
            raise ObjectError(path, "not_found", "there is no such file or folder")
    named = files[0] if len(files) == 1 else files[0].parent
    if len(files) == 1 and files[0].is_dir():
        files = _pictures_in(files[0])
    if not files:
        raise ObjectError(named, "not_found", "there is no PNG, JPEG or WebP picture in it")
    if len(files) != num_views:
        found = f"{len(files)} pictures for {num_views} views: give one a view, or say --num_views {len(files)}"
        raise ObjectError(named, "wrong_count", found)
    pictures = [_read_picture(path) for path in files]
    shapes = sorted({picture.shape[:2] for picture in pictures})
    if len(shapes) > 1:
        sizes = ", ".join(f"{width} x {height}" for height, width in shapes)
        raise ObjectError(named, "wrong_size", f"all views need the same size, these are {sizes} px")
    cut = [_with_alpha(path, picture) for path, picture in zip(files, pictures, strict=True)]
    angles = cameras.angles(num_views)
    c2w = np.stack([look_at_origin(azimuth, elevation, cameras.radius) for azimuth, elevation in angles])
    height, width = shapes[0]
    focal = pinhole(cameras.fov_deg, height)[0]
    hashes = [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]
    return ObjectViews(
        object_id=content_id("pictures", hashes, length=64),
        named=str(named),
        rgba=np.stack([rgba for rgba, _ in cut]),
        c2w=np.round(c2w, 9) + 0.0,  # and no minus zero
        intrinsics=(focal, focal, width / 2, height / 2),
        azimuth_deg=angles[0][0],
        elevation_deg=angles[0][1],
        rig=_rig_name(num_views) if len(cameras.azimuth_deg) == 1 else "given",
        view_names=tuple(f"view_{view:02d}" for view in range(num_views)),
        world_scale=math.nan,
        world_centre=(math.nan, math.nan, math.nan),
        facts={
            "pictures": hashes,
            "backgrounds": [background for _, background in cut],
            "assumed": {"radius": cameras.radius, "fov_deg": cameras.fov_deg, "angles_deg": angles},
        },
    )


def views_from_clip(data: str, clip_id: str, num_views: int, *, first_view: int = 0, frame: int = 0) -> ObjectViews:
    """An object from one frame of a clip, seen by evenly spaced ones of its cameras.

    Args:
        data: The data root.
        clip_id: Of a clip whose cameras stand still.
        num_views: How many of its views.
        first_view: The first of them; the others follow at equal steps.
        frame: Which of the clip's.

    Raises:
        ObjectError: There is no such clip, it has no such views or frame, or its files are damaged.
    """
    store = Store(data)
    try:
        rows = Tables(store).rows(Clip, "clip_id = ?", [clip_id])
    except DamagedTable as error:
        raise ObjectError(data, "unreadable", str(error)) from error
    if not rows:
        advice = f"no clip {clip_id!r} in its tables: `mv4d stats --data {data} --sql 'SELECT clip_id FROM clips'`"
        raise ObjectError(data, "not_found", advice)
    (clip,) = rows
    named = f"{data}/{clip.folder}"
    if clip.num_camera_frames != 1:
        raise ObjectError(
            named, "moving_cameras", f"its rig {clip.rig} moves its cameras: take a clip of mv16 or ortho4"
        )
    if num_views < 1 or clip.num_views % num_views:
        found = f"{num_views} evenly spaced views are not to be had of its {clip.num_views}"
        raise ObjectError(named, "wrong_count", found)
    if not 0 <= first_view < clip.num_views // num_views:
        found = f"of {clip.num_views} views, {num_views} can begin with 0 to {clip.num_views // num_views - 1}"
        raise ObjectError(named, "wrong_count", f"{found}, not with {first_view}")
    if not 0 <= frame < clip.num_frames:
        raise ObjectError(named, "wrong_count", f"it has {clip.num_frames} frames, and no frame {frame}")
    views = choose_views(clip.num_views, num_views, first_view).tolist()
    c2w = _cameras_of(clip, named)[views]
    return ObjectViews(
        object_id=clip.asset_id,
        named=named,
        rgba=np.stack([_frame_of(store, clip, view, frame, named) for view in views]),
        c2w=c2w,
        intrinsics=clip.intrinsics,
        azimuth_deg=clip.azimuth_deg + 360.0 * first_view / clip.num_views,
        elevation_deg=clip.elevation_deg,
        rig=clip.rig if num_views == clip.num_views else _rig_name(num_views),
        view_names=tuple(clip.view_names[view] for view in views),
        world_scale=clip.world_scale,
        world_centre=clip.world_centre,
        facts={"clip_id": clip_id, "views": views, "frame": frame},
    )


def _cameras_of(clip: Clip, named: str) -> np.ndarray:
    if len(clip.c2w) != 16 * clip.num_views:
        found = f"{len(clip.c2w) // 16} cameras do not match its {clip.num_views} views; draw it anew"
        raise ObjectError(named, "cameras", found)
    c2w = np.asarray(clip.c2w).reshape(clip.num_views, 4, 4)
    try:
        check_cameras(c2w, clip.intrinsics)
    except ValueError as error:
        raise ObjectError(named, "cameras", f"{error}; render it anew") from error
    return c2w


def _frame_of(store: Store, clip: Clip, view: int, frame: int, named: str) -> np.ndarray:
    try:
        rgba = read_view(store, clip, view)[frame]
    except FileNotFoundError as error:
        raise ObjectError(named, "not_found", f"its {strip_name(view)} is not there; render the clip anew") from error
    except ValueError as error:
        raise ObjectError(named, "unreadable", f"its {strip_name(view)}: {error}; render the clip anew") from error
    if rgba.shape[:2] != (clip.height, clip.width):
        raise ObjectError(named, "wrong_size", f"its view {view} is not as large as its row says")
    if clip.backdrop:
        red, green, blue = (int(clip.backdrop[place : place + 2], 16) / 255 for place in (1, 3, 5))
        rgba = cut_out(rgba[..., :3], (red, green, blue))
    if not rgba[..., 3].any():
        raise ObjectError(named, "empty", f"nothing is seen in view {view}, frame {frame}")
    return rgba


def _pictures_in(folder: Path) -> list[Path]:
    suffixes = {suffix for of_format in FORMATS.values() for suffix in of_format}
    found = [path for path in folder.iterdir() if path.suffix.lower() in suffixes and not path.name.startswith(".")]
    return sorted(
        found, key=lambda path: [int(part) if part.isdecimal() else part for part in _NUMBERS.split(path.name)]
    )


_NUMBERS = re.compile(r"(\d+)")


def _read_picture(path: Path) -> np.ndarray:
    """Shape (height, width, 4 or 3), uint8: 3 if it has no transparency."""
    if not path.is_file():
        raise ObjectError(path, "not_found", "no such picture")
    if path.stat().st_size > MAX_FILE_BYTES:
        raise ObjectError(path, "too_large", f"the file is over {MAX_FILE_BYTES >> 20} MiB")
    try:
        with Image.open(path, formats=tuple(FORMATS)) as image:
            width, height = image.size
            if max(width, height) > MAX_SIDE_PX:
                found = f"{width} x {height} px; the limit is {MAX_SIDE_PX} a side: scale it down"
                raise ObjectError(path, "too_large", found)
            if getattr(image, "n_frames", 1) > 1:
                raise ObjectError(path, "unreadable", "it has several frames: give one picture a view")
            pixels = np.asarray(image.convert("RGBA" if image.has_transparency_data else "RGB"))
    except ObjectError:
        raise
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ObjectError(path, "unreadable", f"no PNG, JPEG or WebP that can be decoded: {error}") from error
    return pixels[..., :3] if pixels.shape[2] == 4 and pixels[..., 3].min() == 255 else pixels


def _with_alpha(path: Path, picture: np.ndarray) -> tuple[np.ndarray, str]:
    """The picture with alpha, and the colour of the background that was taken out; empty if it had alpha."""
    if picture.shape[2] == 4:
        rgba, taken_out = picture, ""
    else:
        colour, spread = rim_colour(picture)
        if spread > EVEN_RIM:
            found = "it has no transparency, and its background is not of one colour: cut the object out, save as PNG"
            raise ObjectError(path, "no_transparency", found)
        rgba, taken_out = cut_out(picture, colour), "#" + "".join(f"{round(255 * part):02x}" for part in colour)
    if not rgba[..., 3].any():
        raise ObjectError(path, "empty", "nothing is to be seen in it")
    return rgba, taken_out


def _rig_name(num_views: int) -> str:
    return f"ring{num_views}"
