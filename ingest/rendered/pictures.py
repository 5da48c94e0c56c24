"""Pictures and videos of unknown origin -> frames, within limits."""

import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

# What libav says of a broken video goes to standard error, in the midst of the progress display; it is read once, when
# the first video is opened. Its fault is in the `Rejected` row anyway.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")

import cv2

from ingest.refused import Refused

MAX_SIDE_PX = 4096
MAX_FRAMES = 1000
MAX_FILE_BYTES = 1 << 30


@dataclass(frozen=True)
class Video:
    """A decoded video."""

    frames: np.ndarray
    """Shape (frame, height, width, 3), RGB, uint8."""
    fps: float


def file_below(root: Path, relative: str) -> Path:
    """A file of a data set.

    Args:
        root: The data set's folder.
        relative: As the data set names it, already found to stay below its folder by its letters.

    Raises:
        Refused: `missing_file`; `unsafe_uri` if a link leads out of the data set; `empty_file` or `too_large`.
    """
    path = root / relative
    if not path.is_file():
        raise Refused("missing_file", f"{relative} is not there")
    if not os.path.realpath(path).startswith(os.path.realpath(root).rstrip("/") + "/"):
        raise Refused("unsafe_uri", f"{relative} is a link that leads out of the data set")
    num_bytes = path.stat().st_size
    if num_bytes == 0:
        raise Refused("empty_file", f"{relative} has zero bytes")
    if num_bytes > MAX_FILE_BYTES:
        raise Refused("too_large", f"{relative} has {num_bytes} bytes; the limit is {MAX_FILE_BYTES}")
    return path


def read_video(path: Path, size_px: int) -> Video:
    """All frames of an MP4, scaled down to a height.

    Args:
        path: The file.
        size_px: Higher frames are scaled down to it; 0 leaves them as they are.

    Raises:
        Refused: `malformed`, `truncated` or `too_large`.
    """
    _check_mp4(path)
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    try:
        if not capture.isOpened():
            raise Refused("malformed", f"{path.name} is no video that can be decoded")
        width, height = int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)), int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT))
        promised, fps = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), float(capture.get(cv2.CAP_PROP_FPS))
        _check_size(path, width, height)
        if not 1.0 <= fps <= 1000.0:
            raise Refused("malformed", f"{path.name} claims {fps} frames a second")
        if promised > MAX_FRAMES:
            raise Refused("too_large", f"{path.name} has {promised} frames; the limit is {MAX_FRAMES}")
        frames: list[np.ndarray] = []
        while len(frames) <= MAX_FRAMES:
            found, frame = capture.read()
            if not found:
                break
            frames.append(scaled(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), size_px))
    finally:
        capture.release()
    if len(frames) > MAX_FRAMES:
        raise Refused("too_large", f"{path.name} has more frames than the limit of {MAX_FRAMES}")
    if not frames or len({frame.shape for frame in frames}) != 1:
        raise Refused("malformed", f"{path.name} holds no frame, or frames of several sizes")
    if len(frames) < promised:
        raise Refused("truncated", f"{path.name} promises {promised} frames, and {len(frames)} can be decoded")
    return Video(np.stack(frames), fps)


def read_pictures(paths: Sequence[Path], size_px: int) -> np.ndarray:
    """PNGs of equal size and kind, scaled down to a height.

    Args:
        paths: One a frame.
        size_px: Higher pictures are scaled down to it; 0 leaves them as they are.

    Returns:
        Shape (frame, height, width, 4 or 3), uint8: straight alpha, or none if the files have none.

    Raises:
        Refused: `malformed`, `truncated`, `too_large`; `wrong_count` if sizes or kinds differ.
    """
    frames = [scaled(_read_picture(path), size_px) for path in paths]
    shapes = sorted({frame.shape for frame in frames})
    if len(shapes) != 1:
        raise Refused("wrong_count", f"its pictures differ in size or in having alpha: {shapes[:4]}")
    return np.stack(frames)


def backdrop_of(frames: np.ndarray) -> str:
    """The colour that the outermost pixels of most frames have, as `#rrggbb`.

    Args:
        frames: Shape (frame, height, width, 3), uint8.
    """
    rim = np.concatenate(
        [frames[:, [0, -1]].reshape(-1, 3), frames[:, :, [0, -1]].reshape(-1, 3)],
    )
    return "#" + "".join(f"{int(value):02x}" for value in np.median(rim, axis=0))


def scaled(frame: np.ndarray, size_px: int) -> np.ndarray:
    """A frame scaled down to a height, its shape kept; averaged with premultiplied alpha. uint8 in and out."""
    height, width = frame.shape[:2]
    if not 0 < size_px < height:
        return frame
    size = (max(1, round(width * size_px / height)), size_px)
    if frame.shape[2] == 3:
        return np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA))
    alpha = frame[..., 3:].astype(np.float32) / 255.0
    light = np.concatenate([frame[..., :3].astype(np.float32) * alpha, alpha], axis=2)
    light = np.asarray(cv2.resize(light, size, interpolation=cv2.INTER_AREA))
    colour = np.divide(light[..., :3], light[..., 3:], out=np.zeros_like(light[..., :3]), where=light[..., 3:] > 0)
    whole = np.concatenate([np.clip(colour, 0.0, 255.0), light[..., 3:] * 255.0], axis=2)
    return np.asarray(np.rint(whole), np.uint8)


def _read_picture(path: Path) -> np.ndarray:
    try:
        with Image.open(path, formats=("PNG",)) as image:
            _check_size(path, *image.size)
            has_alpha = image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info
            return np.asarray(image.convert("RGBA" if has_alpha else "RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        with path.open("rb") as file:
            begins_well = file.read(8) == b"\x89PNG\r\n\x1a\n"
            file.seek(max(0, path.stat().st_size - 12))
            ends_well = file.read(8)[4:] == b"IEND"
        reason = "truncated" if begins_well and not ends_well else "malformed"
        raise Refused(reason, f"{path.name} cannot be decoded: {error}") from None


def _check_size(path: Path, width: int, height: int) -> None:
    if not (0 < width <= MAX_SIDE_PX and 0 < height <= MAX_SIDE_PX):
        raise Refused("too_large", f"{path.name} is {width} x {height} pixels; the limit is {MAX_SIDE_PX} a side")


def _check_mp4(path: Path) -> None:
    """Whether the file is an MP4 (a playlist could name other files), and whole by its own boxes.

    Raises:
        Refused: `malformed` or `truncated`.
    """
    num_bytes, place, kinds = path.stat().st_size, 0, set()
    with path.open("rb") as file:
        while place < num_bytes:
            file.seek(place)
            header = file.read(16)
            if len(header) < 8:
                raise Refused("truncated", f"{path.name} ends within the head of a box")
            size, kind = struct.unpack(">I4s", header[:8])
            if place == 0 and kind != b"ftyp":
                raise Refused("malformed", f"{path.name} is no MP4")
            if size == 1 and len(header) == 16:
                size = struct.unpack(">Q", header[8:])[0]
            size = num_bytes - place if size == 0 else size
            if size < 8:
                raise Refused("malformed", f"{path.name} has a box of {size} bytes")
            if place + size > num_bytes:
                raise Refused("truncated", f"{path.name} lacks the last {place + size - num_bytes} bytes")
            kinds.add(kind)
            place += size
    if not {b"moov", b"mdat"} <= kinds:
        raise Refused("truncated", f"{path.name} has no table of contents or no content (moov, mdat)")
