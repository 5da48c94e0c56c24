"""Diffusion4D (arXiv:2405.16645): orbits of 24 pictures with alpha, their static twins, and fixed cameras.

A folder a model, named by Sketchfab's uid (Objaverse 1.0) or by a sha256 (Objaverse-XL), with `_az0.37` and `_el12`
behind it where azimuth or elevation were drawn. In it `multi_frame<i>.png` with `multi<i>.json`, the moving object from
a camera that goes round; `multi_static_frame<i>.png` with `static<i>.json`, the object frozen;
`front|left|right|back_frame<i>.png` with `front.json`, ..., cameras that stand still. As published the three kinds lie
in three trees (`Dynamic4D`, `Static3D`, `monocular_front`) with the same names below: folders of one name belong
together.

A camera's JSON says `origin`, `x`, `y`, `z` (right, down, forward) or `matrix_world`, and `x_fov`, `y_fov` in radians.
"""

import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from ingest.json_values import Json, as_object, broken, numbers
from ingest.refused import Refused
from ingest.rendered.clips import ImportRendered, RenderedClip, Shown
from ingest.rendered.listing import Listed
from ingest.rendered.pictures import MAX_FRAMES, file_below, read_pictures
from pipeline.cameras import from_blender, look_at_origin

STATEMENT = "Diffusion4D states no licence for its renders and nothing of opt-outs; each model keeps its own licence."
FPS = 24.0
"""The script draws the scene's frames 0, 1, ... of Blender's default rate."""
FIXED = ("front", "left", "right", "back")
SCRIPT_RADIUS, SCRIPT_FOV = 2.0, 0.6911112070083618
"""Of the script's camera; the field of view in radians, both ways."""
MAX_JSON_BYTES = 1 << 20
AIM_TOLERANCE = 1e-3

_PICTURE = re.compile(r"(multi|multi_static|front|left|right|back)_frame(\d{1,4})\.png")
_FOLDER = re.compile(r"(?P<model>[0-9A-Za-z-]+?)(?:_az(?P<az>\d(?:\.\d+)?))?(?:_el(?P<el>-?\d{1,2}))?")

Kind = Literal["orbit", "four_views", "front"]


@dataclass(frozen=True, kw_only=True)
class ImportDiffusion4d(ImportRendered):
    """Make a clip of the pictures of a model: an orbit with its static twin, four fixed views, or the front alone."""

    name: ClassVar[str] = "ingest.diffusion4d"
    data_set: ClassVar[str] = "diffusion4d"
    credit: ClassVar[str] = "rendered by Diffusion4D (https://huggingface.co/datasets/hw-liang/Diffusion4D)"

    num_frames: int = 24
    """So many must be there; 0 takes as many as there are."""
    cameras: Literal["recorded", "script"] = "recorded"
    """recorded: from the JSON files, without which a clip is turned away. script: where a folder has none of them,
    those that the published script uses for a folder of that name."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.num_frames <= MAX_FRAMES:
            raise ValueError(f"num_frames must lie in 0..{MAX_FRAMES}, got {self.num_frames}")
        if self.cameras not in ("recorded", "script"):
            raise ValueError(f"cameras must be recorded or script, got {self.cameras!r}")

    @property
    def storage_quality(self) -> int | None:
        """Lossless, as the source is."""
        return None

    def read(self, item: RenderedClip) -> Shown:
        """The pictures of one kind; cameras from their files."""
        entry = json.loads(item.entry)
        folders: dict[str, str] = entry["folders"]
        root = Path(item.root)
        metadata = _metadata(root, folders.values())
        shown = self._orbit if entry["kind"] == "orbit" else self._fixed
        return shown(root, folders, entry, metadata)

    def _orbit(self, root: Path, folders: dict[str, str], entry: Json, metadata: Json) -> Shown:
        if "multi" not in folders:
            raise Refused("missing_file", "it has the frozen object's orbit alone; the moving one's is not there")
        prefixes = [prefix for prefix in ("multi", "multi_static") if prefix in folders]
        views = [self._frames(root, folders[prefix], prefix) for prefix in prefixes]
        if len({len(paths) for paths in views}) > 1:
            raise Refused("wrong_count", f"the orbit has {len(views[0])} frames and its static twin {len(views[1])}")
        num_frames = len(views[0])
        found = [
            self._cameras(root, folders[prefix], [f"{_json_stem(prefix)}{i}.json" for i in range(num_frames)], entry)
            for prefix in prefixes
        ]
        names = {"multi": "orbit", "multi_static": "static"}
        return self._shown(
            rig=f"orbit{num_frames}",
            view_names=tuple(names[prefix] for prefix in prefixes),
            views=views,
            c2w=np.stack([camera.c2w for camera in found]),
            fov_deg=_one_lens(found),
            recorded=all(camera.recorded for camera in found),
            metadata=metadata,
        )

    def _fixed(self, root: Path, folders: dict[str, str], entry: Json, metadata: Json) -> Shown:
        prefixes = FIXED if entry["kind"] == "four_views" else ("front",)
        if "front" not in folders:
            raise Refused("missing_file", f"of its fixed views only {', '.join(folders)} are there, and no front")
        views = [self._frames(root, folders[prefix], prefix) for prefix in prefixes]
        if len({len(paths) for paths in views}) > 1:
            raise Refused("wrong_count", f"its views have {[len(paths) for paths in views]} frames")
        found = [self._cameras(root, folders[prefix], [f"{prefix}.json"], entry) for prefix in prefixes]
        # In the order in which they stand round the object, from the front on, as in our rigs.
        azimuths = [_angles_of(camera.c2w[0])[0] for camera in found]
        order = sorted(range(len(found)), key=lambda view: round(azimuths[view] - azimuths[0], 3) % 360.0)
        return self._shown(
            rig="ortho4" if entry["kind"] == "four_views" else "front",
            view_names=tuple(prefixes[view] for view in order),
            views=[views[view] for view in order],
            c2w=np.stack([found[view].c2w for view in order]),
            fov_deg=_one_lens(found),
            recorded=all(camera.recorded for camera in found),
            metadata=metadata,
        )

    def _shown(
        self,
        *,
        rig: str,
        view_names: tuple[str, ...],
        views: Sequence[Sequence[Path]],
        c2w: np.ndarray,
        fov_deg: tuple[float, float],
        recorded: bool,
        metadata: Json,
    ) -> Shown:
        azimuth, elevation = _angles_of(c2w[0, 0])
        return Shown(
            rig=rig,
            view_names=view_names,
            frames=(read_pictures(paths, self.size_px) for paths in views),
            c2w=c2w,
            fov_deg=fov_deg,
            fps=FPS,
            azimuth_deg=round(azimuth, 6),
            elevation_deg=round(elevation, 6),
            facts=json.dumps({"cameras": "recorded" if recorded else "script"}),
            missing_textures=_missing_textures(metadata),
            num_vertices=_count(metadata, "vert_count"),
            num_faces=_count(metadata, "poly_count"),
            num_objects=_count(metadata, "object_count"),
        )

    def _frames(self, root: Path, folder: str, prefix: str) -> list[Path]:
        """The pictures of a kind, in order.

        Raises:
            Refused: `missing_file` if one is missing among them, `wrong_count` if they are not as many as wanted.
        """
        numbers_there = sorted(
            int(match[2])
            for name in os.listdir(root / folder)
            if (match := _PICTURE.fullmatch(name)) and match[1] == prefix
        )
        last = self.num_frames or (numbers_there[-1] + 1 if numbers_there else 0)
        missing = sorted(set(range(min(last, MAX_FRAMES))) - set(numbers_there))
        if not numbers_there or (missing and missing[0] < numbers_there[-1]):
            names = ", ".join(f"{prefix}_frame{number}.png" for number in missing[:5])
            raise Refused("missing_file", f"{len(missing)} pictures are not there: {names}")
        if len(numbers_there) != last:
            raise Refused("wrong_count", f"there are {len(numbers_there)} of {prefix}_frame*.png; {last} are wanted")
        return [file_below(root, f"{folder}/{prefix}_frame{number}.png") for number in numbers_there]

    def _cameras(self, root: Path, folder: str, names: Sequence[str], entry: Json) -> "_Cameras":
        there = [(root / folder / name).is_file() for name in names]
        if not any(there) and self.cameras == "script" and entry["kind"] != "four_views":
            return _script_cameras(entry, len(names))
        if not all(there):
            missing = [name for name, is_there in zip(names, there, strict=True) if not is_there]
            advice = "" if any(there) else "pass --cameras script for those that the published script uses"
            raise Refused("missing_file", f"{len(missing)} cameras are not there: {', '.join(missing[:5])}", advice)
        read = [_read_camera(file_below(root, f"{folder}/{name}")) for name in names]
        fovs = np.array([fov for _, fov in read])
        if np.ptp(fovs, axis=0).max() > 1e-4:
            broken("its cameras change their field of view from frame to frame")
        return _Cameras(np.stack([c2w for c2w, _ in read]), (float(fovs[0, 0]), float(fovs[0, 1])), True)


@dataclass(frozen=True)
class _Cameras:
    """The cameras of a view."""

    c2w: np.ndarray
    """Shape (camera frame, 4, 4)."""
    fov: tuple[float, float]
    """Radians, of width and height."""
    recorded: bool


def list_diffusion4d(path: Path) -> tuple[Path, Iterator[Listed]]:
    """The folder that all files lie in, and the clips, by the names of the models' folders.

    Raises:
        ValueError: It is no folder, or there are no pictures of Diffusion4D's in it.
    """
    if not path.is_dir():
        raise ValueError(f"{path} is not a folder: check the path, and unpack the archives first")
    groups = _groups(path)
    if not groups:
        raise ValueError(f"{path} holds no multi_frame0.png, front_frame0.png or the like: unpack the archives there")
    return path, _clips(groups)


def _groups(root: Path) -> dict[str, dict[str, str]]:
    """Folders by name: for each kind of picture, where it lies below the root."""
    groups: dict[str, dict[str, str]] = {}
    for folder, subfolders, files in os.walk(root):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        kinds = sorted({match[1] for name in files if (match := _PICTURE.fullmatch(name))})
        if not kinds:
            continue
        relative = os.path.relpath(folder, root)
        name = os.path.basename(folder)
        if groups.get(name, {}).keys() & set(kinds):
            name = relative  # the same kind of the same name a second time: a clip of its own
        groups.setdefault(name, {}).update(dict.fromkeys(kinds, relative))
    return groups


def _clips(groups: dict[str, dict[str, str]]) -> Iterator[Listed]:
    for name, folders in sorted(groups.items()):
        match = _FOLDER.fullmatch(os.path.basename(name))
        kinds: list[Kind] = []
        if "multi" in folders or "multi_static" in folders:
            kinds.append("orbit")
        if all(prefix in folders for prefix in FIXED):
            kinds.append("four_views")
        elif any(prefix in folders for prefix in FIXED):
            kinds.append("front")
        for kind in kinds:
            entry = {
                "kind": kind,
                "folders": folders,
                "azimuth_turns": float(match["az"] or 0) if match else 0.0,
                "elevation": int(match["el"] or 0) if match else 0,
            }
            place = next(iter(folders.values()))
            yield Listed(
                model_id=match["model"] if match else os.path.basename(name),
                action="",
                name=f"{name}/{kind}",
                place=place,
                files=tuple(folders.values()),
                entry=json.dumps(entry, sort_keys=True),
            )


def _json_stem(prefix: str) -> str:
    return {"multi": "multi", "multi_static": "static"}[prefix]


def _read_json(path: Path) -> Json:
    if path.stat().st_size > MAX_JSON_BYTES:
        raise Refused("too_large", f"{path.name} has more than {MAX_JSON_BYTES} bytes")
    try:
        return as_object(json.loads(path.read_bytes()), path.name)
    except (ValueError, RecursionError) as error:
        broken(f"{path.name} is no JSON: {error}")


def _read_camera(path: Path) -> tuple[np.ndarray, tuple[float, float]]:
    """OpenCV camera-to-world, shape (4, 4), and the fields of view in radians.

    Raises:
        Refused: `malformed` or `non_finite`.
    """
    camera = _read_json(path)
    fov = tuple(value for key in ("x_fov", "y_fov") for value in numbers({key: [camera.get(key)]}, key, path.name, 1))
    if not all(0.0 < angle < math.pi for angle in fov):
        broken(f"{path.name} has a field of view of {fov} radians")
    poses = []
    if "matrix_world" in camera:
        rows = camera["matrix_world"]
        if not isinstance(rows, list) or len(rows) != 4:
            broken(f"{path.name} has no 4 x 4 `matrix_world`")
        matrix = np.array([numbers({"row": row}, "row", f"matrix_world of {path.name}", 4) for row in rows])
        poses.append(from_blender(matrix))
    if "origin" in camera:
        columns = [numbers(camera, key, path.name, 3) for key in ("x", "y", "z", "origin")]
        if not all(columns):
            broken(f"{path.name} lacks one of `x`, `y`, `z` and `origin`")
        pose = np.eye(4)
        pose[:3] = np.array(columns).T
        poses.append(pose)
    if not poses:
        broken(f"{path.name} has neither `matrix_world` nor `origin`")
    c2w = _rigid(poses[0], path.name)
    if len(poses) == 2 and not np.allclose(c2w, _rigid(poses[1], path.name), atol=1e-3):
        broken(f"`matrix_world` and `origin`, `x`, `y`, `z` of {path.name} say different things")
    return c2w, (fov[0], fov[1])


def _rigid(pose: np.ndarray, name: str) -> np.ndarray:
    """The nearest pose without scale or shear, as the axes of a JSON are rounded.

    Raises:
        Refused: `malformed`: it is far from one, or does not look at the origin.
    """
    lengths = np.linalg.norm(pose[:3, :3], axis=0)
    if not lengths.min() > 1e-6:
        broken(f"{name} has a camera without axes")
    axes = pose[:3, :3] / lengths
    if np.abs(axes.T @ axes - np.eye(3)).max() > 1e-3 or np.linalg.det(axes) < 0:
        broken(f"{name} has axes that are not at right angles, or mirrored")
    left, _, right = np.linalg.svd(axes)
    rigid = np.eye(4)
    rigid[:3, :3] = left @ right
    rigid[:3, 3] = pose[:3, 3]
    distance = float(np.linalg.norm(rigid[:3, 3]))
    if distance < 1e-3 or np.linalg.norm(np.cross(rigid[:3, 2], rigid[:3, 3])) > AIM_TOLERANCE * distance:
        broken(f"{name} has a camera that does not look at the origin")
    if rigid[:3, 2] @ rigid[:3, 3] > 0:
        broken(f"{name} has a camera that looks away from the object")
    return rigid


def _script_cameras(entry: Json, num_frames: int) -> _Cameras:
    """What the published script uses: once round, the last frame where the first is; `elevation` e means atan(e / 180).

    One camera, where the orbit begins, for `front`.
    """
    elevation = math.degrees(math.atan(entry["elevation"] / 180.0)) if num_frames > 1 else 0.0
    turns = [frame / max(1, num_frames - 1) - entry["azimuth_turns"] for frame in range(num_frames)]
    c2w = np.stack([look_at_origin(360.0 * turn, elevation, SCRIPT_RADIUS) for turn in turns])
    return _Cameras(c2w, (SCRIPT_FOV, SCRIPT_FOV), False)


def _one_lens(views: Sequence[_Cameras]) -> tuple[float, float]:
    """Degrees, of width and height."""
    if np.ptp(np.array([view.fov for view in views]), axis=0).max() > 1e-4:
        broken("its views have different fields of view")
    return math.degrees(views[0].fov[0]), math.degrees(views[0].fov[1])


def _angles_of(c2w: np.ndarray) -> tuple[float, float]:
    """Azimuth and elevation in degrees of a camera that looks at the origin; azimuth in -180..180, 0 in front."""
    x, y, z = c2w[:3, 3]
    azimuth = math.degrees(math.atan2(x, -y)) + 0.0
    return azimuth, math.degrees(math.atan2(z, math.hypot(x, y)))


def _metadata(root: Path, folders: Iterable[str]) -> Json:
    """What the script has counted in the model; nothing if it is not there or not readable, as nothing hangs on it."""
    for folder in dict.fromkeys(folders):
        try:
            return _read_json(file_below(root, f"{folder}/metadata.json"))
        except Refused:
            continue
    return {}


def _count(metadata: Json, key: str) -> int:
    value = metadata.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53 else 0


def _missing_textures(metadata: Json) -> tuple[str, ...]:
    found = metadata.get("missing_textures")
    files = found.get("files") if isinstance(found, dict) else found
    names = files if isinstance(files, list) else []
    return tuple(str(name)[:200].encode("utf-8", "replace").decode() for name in names[:100])
