"""A scene of coloured balls of known places, drawn in the published layouts with the data sets' own camera formulas.

Nothing here comes from the code under test: each data set's cameras are written down as its own code has them.
"""

import csv
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

COLOURS = np.array([[230, 30, 30], [30, 210, 30], [40, 60, 240]], np.uint8)
BALL = 0.12
GREY = 127
UIDS = ("2a7f866be31e43b89074f304a31ff82d", "900cafbf2ee3444d823026bd417010f0", "aa" * 16)
SHA256 = "5c" * 32

MV_SIZE_PX, MV_FRAMES, MV_FPS = 96, 48, 24
MV_RADIUS, MV_FOV_DEG = 3.0, 40.0
D4D_SIZE_PX, D4D_FRAMES = 64, 24
D4D_FOV = 0.6911112070083618


def balls(time: float) -> np.ndarray:
    """Centres in Blender's world, z up, front at -y; shape (3, 3). The first stands in front, the third goes up."""
    return np.array([[0.0, -0.35, 0.0], [0.3, 0.0, 0.1 + 0.1 * time], [-0.25, 0.2, -0.3 + 0.55 * time]])


def draw(centres: np.ndarray, eye: np.ndarray, axes: np.ndarray, fov: float, size_px: int) -> np.ndarray:
    """The balls as discs, the nearest on top. Shape (size, size, 4), uint8.

    Args:
        centres: World points.
        eye: Where the camera is.
        axes: Rows right, up, forward.
        fov: Radians, both ways.
        size_px: Side.
    """
    focal = 0.5 * size_px / np.tan(fov / 2)
    seen = (centres - eye) @ axes.T
    y, x = np.mgrid[:size_px, :size_px] + 0.5
    picture = np.zeros((size_px, size_px, 4), np.uint8)
    for index in np.argsort(-seen[:, 2]):
        right, up, depth = seen[index]
        inside = (x - size_px / 2 - focal * right / depth) ** 2 + (y - size_px / 2 + focal * up / depth) ** 2
        picture[inside < (focal * BALL / depth) ** 2] = [*COLOURS[index], 255]
    return picture


def looking_at_origin(eye: np.ndarray) -> np.ndarray:
    """Rows right, up, forward."""
    forward = -eye / np.linalg.norm(eye)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    return np.stack([right, np.cross(right, forward), forward])


def mv_eye(elevation_deg: float, azimuth_deg: float) -> np.ndarray:
    """MV-Video's: azimuth from +x, its object's front."""
    e, a = np.radians([elevation_deg, azimuth_deg])
    return MV_RADIUS * np.array([np.cos(e) * np.cos(a), np.cos(e) * np.sin(a), np.sin(e)])


def mv_vector(elevation_deg: float, azimuth_deg: float) -> np.ndarray:
    """The 16 numbers that its trainer makes: right, up, backward, and the place on the unit sphere."""
    eye = mv_eye(elevation_deg, azimuth_deg) / MV_RADIUS
    right, up, forward = looking_at_origin(eye)
    matrix = np.eye(4)
    matrix[:3] = np.stack([right, up, -forward, eye], axis=1)
    return matrix.reshape(16)


def make_mv_video(
    root: Path, uids: Sequence[str] = UIDS, *, actions: Sequence[str] = ("00", "01"), views: int = 16
) -> dict[str, Any]:
    """The published layout; gives what stands in `uid_info_dict.json`. Only the first model's pictures are its own."""
    # The object in MV-Video's world: its front, our -y, is +x there.
    turned = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    info: dict[str, Any] = {}
    for number, uid in enumerate(uids):
        anim: dict[str, Any] = {}
        for action in actions:
            elevation, start = 5.0 + 7.0 * number + int(action), -8.0 + 5.0 * number
            anim[action] = {
                "angle": {"elv": elevation, "azi_start": start},
                "text_prompt": f"three balls {number}, \n way {action}",
            }
            folder = root / "videos" / uid / action
            if number:  # other angles, the same pictures
                shutil.copytree(root / "videos" / uids[0] / action, folder)
                continue
            folder.mkdir(parents=True)
            for view in range(views):
                eye = mv_eye(elevation, start + 360.0 / 16 * view)
                frames = [
                    draw(
                        balls(t / MV_FRAMES) @ turned.T, eye, looking_at_origin(eye), np.radians(MV_FOV_DEG), MV_SIZE_PX
                    )
                    for t in range(MV_FRAMES)
                ]
                write_video(folder / f"view_{view}.mp4", frames)
        info[uid] = {"url": f"https://sketchfab.com/3d-models/three-balls-{uid}", "anim": anim}
    (root / "uid_info_dict.json").write_text(json.dumps(info))
    return info


def write_video(path: Path, frames: Sequence[np.ndarray], fps: int = MV_FPS) -> None:
    height, width = frames[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), fps, (width, height))
    for frame in frames:
        colour = frame[..., :3].copy()
        colour[frame[..., 3] == 0] = GREY
        writer.write(cv2.cvtColor(colour, cv2.COLOR_RGB2BGR))
    writer.release()
    assert path.stat().st_size > 0


def trainers_list(root: Path, info: dict[str, Any]) -> list[dict[str, Any]]:
    """What a converter makes of it for the trainer: views k, k + 4, ... with the first one's azimuth."""
    return [
        {
            "data_path": [f"videos/{uid}/{action}/view_{view}.mp4" for view in range(k, 16, 4)],
            "text_prompt": entry["text_prompt"],
            "angle": {**entry["angle"], "azi_start": entry["angle"]["azi_start"] + 22.5 * k},
        }
        for uid, about in info.items()
        for action, entry in about["anim"].items()
        for k in (1,)
    ]


def d4d_eye(turn: float, azimuth: float, elevation: float) -> np.ndarray:
    """Diffusion4D's: `turn` from 0 to 1 over an orbit."""
    phi = 2 * np.pi - 2 * np.pi * turn + 2 * np.pi * azimuth
    direction = np.array([np.sin(phi), np.cos(phi), -elevation / 180.0])
    return np.asarray(-2.0 * direction / np.linalg.norm(direction))


def d4d_json(eye: np.ndarray) -> dict[str, Any]:
    """A camera as the script writes it: Blender's matrix, and right, down, forward."""
    right, up, forward = looking_at_origin(eye)
    matrix = np.eye(4)
    matrix[:3] = np.stack([right, up, -forward, eye], axis=1)
    return {
        "matrix_world": np.float32(matrix).tolist(),
        "format_version": 6,
        "max_depth": 5.0,
        "bbox": [[-0.5, -0.5, -0.5], [0.5, 0.5, 0.5]],
        "origin": np.float32(eye).tolist(),
        "x_fov": D4D_FOV,
        "y_fov": D4D_FOV,
        "x": np.float32(right).tolist(),
        "y": np.float32(-up).tolist(),
        "z": np.float32(forward).tolist(),
    }


def make_diffusion4d(
    root: Path,
    model: str,
    *,
    azimuth: float = 0.0,
    elevation: int = 0,
    kinds: Sequence[str] = ("dynamic", "static", "front"),
    trees: bool = True,
    json_files: bool = True,
) -> str:
    """The pictures of a model, in the hub's three trees or in one folder as the script writes them; gives the name."""
    name = model + (f"_az{azimuth:.2f}" if azimuth else "") + (f"_el{elevation}" if elevation else "")
    tree_of = {"dynamic": "Dynamic4D", "static": "Static3D", "front": "monocular_front", "four": "four"}
    fixed = {"front": 0.0, "left": 0.25, "right": 0.75, "back": 0.5}
    for kind in kinds:
        folder = root / tree_of[kind] / name if trees else root / name
        folder.mkdir(parents=True, exist_ok=True)
        if kind in ("dynamic", "static"):
            prefix, stem = ("multi_frame", "multi") if kind == "dynamic" else ("multi_static_frame", "static")
            for i in range(D4D_FRAMES):
                eye = d4d_eye(i / (D4D_FRAMES - 1), azimuth, elevation)
                write_picture(folder / f"{prefix}{i}.png", eye, i if kind == "dynamic" else 0)
                if json_files:
                    (folder / f"{stem}{i}.json").write_text(json.dumps(d4d_json(eye)))
            (folder / "metadata.json").write_text(
                json.dumps(
                    {"vert_count": 24, "poly_count": 36, "object_count": 3, "missing_textures": {"files": ["a"]}}
                )
            )
        else:
            for view in ("front",) if kind == "front" else fixed:
                eye = d4d_eye(fixed[view], azimuth, 0.0)
                for i in range(D4D_FRAMES):
                    write_picture(folder / f"{view}_frame{i}.png", eye, i)
                if json_files:
                    (folder / f"{view}.json").write_text(json.dumps(d4d_json(eye)))
    return name


def write_picture(path: Path, eye: np.ndarray, frame: int) -> None:
    picture = draw(balls(frame / D4D_FRAMES), eye, looking_at_origin(eye), D4D_FOV, D4D_SIZE_PX)
    picture[picture[..., 3] == 0, :3] = 17  # colour under no alpha is not black in the published pictures
    Image.fromarray(picture).save(path)


def write_licences(path: Path, models: dict[str, tuple[str, str]]) -> Path:
    """A table of models: id to licence and author."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["uid", "license", "author", "title", "tags"])
        for model, (licence, author) in models.items():
            writer.writerow([model, licence, author, f"Balls {model[:4]}", "ball,toy"])
    return path


def centre_of(frame: np.ndarray, ball: int) -> tuple[float, float] | None:
    """Where a ball is seen, in pixels with the centre of the first at (0.5, 0.5); None if it is (partly) hidden."""
    colour = frame[..., :3].astype(int) - COLOURS[ball].astype(int)
    near = (np.abs(colour).max(axis=2) < 60) & (frame[..., 3] > 127)
    if near.sum() < 12:
        return None
    y, x = np.nonzero(near)
    return float(x.mean() + 0.5), float(y.mean() + 0.5)
