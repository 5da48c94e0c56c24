"""All ground truth of one picture side by side: `python -m render.truth_sheet DATA CLIP_ID sheet.png`."""

import argparse
import colorsys
import sys
from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image, ImageDraw

from pipeline.cameras import project
from pipeline.cli import EXIT_OK, usage_error
from pipeline.media import GREY, compose, read_view
from pipeline.records import Clip, Truth
from pipeline.storage import Store
from pipeline.tables import Tables
from pipeline.truth_media import FLOWS, HIDDEN, NORMALS, PASSES, read_flow, read_map, read_tracks

TITLE_PX = 14
COLUMNS = 4


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the sheet of one view and frame."""
    parser = argparse.ArgumentParser(prog="python -m render.truth_sheet", description=__doc__)
    parser.add_argument("data", help="Data root.")
    parser.add_argument("clip", help="Id of the clip, or its beginning.")
    parser.add_argument("png", help="File to write.")
    parser.add_argument("--view", type=int, default=0)
    parser.add_argument("--frame", type=int, default=0)
    chosen = parser.parse_args(arguments)
    tables = Tables(Store(chosen.data))
    clips = tables.rows(Clip, "starts_with(clip_id, ?)", [chosen.clip])
    if len(clips) != 1:
        usage_error(f"{len(clips)} clips begin with {chosen.clip!r}")
    rows = {row.name: row for row in tables.rows(Truth, "clip_id = ?", [clips[0].clip_id])}
    sheet(tables.store, clips[0], rows, view=chosen.view, frame=chosen.frame).save(chosen.png)
    return EXIT_OK


def sheet(store: Store, clip: Clip, rows: dict[str, Truth], *, view: int, frame: int) -> Image.Image:
    """The picture and each of its passes in colours, with their names."""
    picture = np.rint(compose(read_view(store, clip, view)[frame], GREY) * 255).astype(np.uint8)
    panels = [("picture", picture)]
    panels += [
        (name, coloured(store, clip, rows[name], picture, view=view, frame=frame)) for name in PASSES if name in rows
    ]
    columns = min(COLUMNS, len(panels))
    tall, wide = clip.height + TITLE_PX, clip.width
    canvas = Image.new("RGB", (columns * wide, -(-len(panels) // columns) * tall), "white")
    draw = ImageDraw.Draw(canvas)
    for number, (name, panel) in enumerate(panels):
        left, top = number % columns * wide, number // columns * tall
        draw.text((left + 2, top + 1), name, fill="black")
        canvas.paste(Image.fromarray(panel), (left, top + TITLE_PX))
    return canvas


def coloured(store: Store, clip: Clip, truth: Truth, picture: np.ndarray, *, view: int, frame: int) -> np.ndarray:
    """A pass as colours. Shape (height, width, 3), uint8."""
    if truth.name == "tracks":
        return _dotted(store, clip, truth, picture, view=view, frame=frame)
    if truth.name in FLOWS:
        flow, state = (found[frame] for found in read_flow(store, clip, truth, view))
        return _flow_colours(flow, state)
    values = read_map(store, clip, truth, view)[frame]
    if truth.name in NORMALS or truth.name == "coordinates":
        reach = 1.0 if truth.name in NORMALS else max(1e-6, float(np.nanmax(np.abs(values), initial=0.0)))
        return np.rint(np.nan_to_num(values / reach / 2 + 0.5, nan=1.0) * 255).astype(np.uint8)
    if truth.name == "depth":
        near, far = np.nanmin(values, initial=np.inf), np.nanmax(values, initial=0.0)
        grey = np.nan_to_num(1.0 - 0.85 * (values - near) / max(far - near, 1e-6), nan=0.0)
        return np.repeat(np.rint(grey * 255).astype(np.uint8)[..., None], 3, axis=-1)
    return _number_colours(values)


def _flow_colours(flow: np.ndarray, state: np.ndarray) -> np.ndarray:
    """Direction as hue, length as saturation; darker where the target is hidden."""
    length = np.linalg.norm(flow, axis=-1)
    longest = max(float(np.nanmax(length, initial=0.0)), 1e-6)
    hue = (np.degrees(np.arctan2(flow[..., 1], flow[..., 0])) % 360) / 2
    value = np.where(state == HIDDEN, 130, 255)
    hsv = np.stack([np.nan_to_num(hue), np.nan_to_num(length / longest * 255), value], axis=-1)
    return np.asarray(cv2.cvtColor(hsv.astype(np.uint8), cv2.COLOR_HSV2RGB))


def _number_colours(values: np.ndarray) -> np.ndarray:
    """Neighbouring numbers get colours far apart."""
    colours = np.full((*values.shape, 3), 255, dtype=np.uint8)
    for number in np.unique(values[~np.isnan(values)]):
        red, green, blue = colorsys.hsv_to_rgb(float(number) * 0.618034 % 1.0, 0.65, 0.85)
        colours[values == number] = [int(255 * red), int(255 * green), int(255 * blue)]
    return colours


def _dotted(store: Store, clip: Clip, truth: Truth, picture: np.ndarray, *, view: int, frame: int) -> np.ndarray:
    """Vertices where the camera would see them, hidden ones too."""
    c2w = np.array(clip.c2w).reshape(clip.num_views, clip.num_camera_frames, 4, 4)[view, frame % clip.num_camera_frames]
    pose = 0 if clip.view_names[view] == "static" else frame
    pixels = project(read_tracks(store, truth).positions[pose].astype(np.float64), c2w, clip.intrinsics)
    inside = (pixels[:, :2] >= 0).all(axis=1) & (pixels[:, 0] < clip.width) & (pixels[:, 1] < clip.height)
    columns, rows = pixels[inside & (pixels[:, 2] > 0), :2].astype(int).T
    dotted = picture // 2 + 96
    dotted[rows, columns] = [200, 30, 30]
    return dotted


if __name__ == "__main__":
    sys.exit(main())
