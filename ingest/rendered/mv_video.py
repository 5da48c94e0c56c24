"""MV-Video, the data set of Animate3D (arXiv:2407.11398): 16 videos a clip before a grey background.

Two layouts. As published, `videos/<uid>/<animation>/view_<0..15>.mp4` beside `uid_info_dict.json`, whose entries are
`{uid: {"url", "anim": {"00": {"angle": {"elv", "azi_start"}, "text_prompt"}}}}`. And as Animate3D's trainer reads it: a
JSON list of `{"data_path": [one path a view], "text_prompt", "angle"}`, four views or as many as there are.

View i of n stands at azimuth `azi_start` + 360 i / n and elevation `elv`, in degrees. Neither the distance nor the
lens is published: what Animate3D's own code takes for its conditions stands in for them, as a setting.
"""

import itertools
import json
import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

import numpy as np

from ingest.json_values import as_list, as_object, broken, string
from ingest.refused import Refused
from ingest.rendered.clips import ImportRendered, RenderedClip, Shown
from ingest.rendered.listing import Listed
from ingest.rendered.pictures import file_below, read_video
from ingest.side_files import relative_path
from pipeline.cameras import look_at_origin
from pipeline.records import content_id

INFO = "uid_info_dict.json"
NUM_VIEWS = 16
STATEMENT = (
    "MV-Video as a data set: ODC-By-1.0. Its card: each model keeps the licence of its page; models whose owners "
    "forbid use by generative AI were left out."
)
_RIGS = {16: "mv16", 4: "ortho4"}
_PLACE = re.compile(r"(?:^|/)(?P<uid>[0-9a-f]{32})/(?P<action>\d{1,3})$")


@dataclass(frozen=True, kw_only=True)
class ImportMvVideo(ImportRendered):
    """Make a clip of the videos of an animation. They have no alpha: their backdrop is measured and recorded."""

    name: ClassVar[str] = "ingest.mv_video"
    data_set: ClassVar[str] = "mv-video"
    credit: ClassVar[str] = "rendered by MV-Video (ODC-By-1.0, https://opendatacommons.org/licenses/by/1-0/)"

    num_views: int = 0
    """Keep so many, evenly spaced: 4 of 16 take a quarter of the room. 0 keeps all."""
    num_frames: int = 48
    """Keep so many from the first on; a video with fewer is turned away."""
    every: int = 1
    """Keep every n-th of them: 3 gives the 16 frames at 8 a second that the published trainer takes."""
    radius: float = 3.0
    """Distance of the cameras, which the data set does not tell."""
    fov_deg: float = 40.0
    """Field of view of their height, which it does not tell either."""
    quality: int = 90
    """Of the stored strips, 0..100: the videos are lossy already."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_views < 0 or self.num_frames < 1 or self.every < 1 or not 0 <= self.quality <= 100:
            raise ValueError(
                f"need num_views >= 0, num_frames and every >= 1, quality in 0..100, got {self.num_views}, "
                f"{self.num_frames}, {self.every} and {self.quality}"
            )
        if self.radius <= 0 or not 0 < self.fov_deg < 180:
            raise ValueError(f"need radius > 0 and fov_deg in 0..180, got {self.radius} and {self.fov_deg}")

    @property
    def storage_quality(self) -> int | None:
        """As set."""
        return self.quality

    def read(self, item: RenderedClip) -> Shown:
        """The chosen views; cameras from the angles."""
        if not item.entry:
            raise Refused("missing_file", f"{INFO} tells nothing of it, so its cameras are not known")
        entry = as_object(json.loads(item.entry), "its entry")
        elevation, azimuth = _angles(entry)
        there = len(item.files)
        wanted = self.num_views or there
        if there == 0 or there % wanted:
            raise Refused(
                "wrong_count", f"it has {there} views, of which {wanted} evenly spaced ones are not to be had"
            )
        chosen = range(0, there, there // wanted)
        root = Path(item.root)
        missing = [item.files[view] for view in chosen if not (root / item.files[view]).is_file()]
        if missing:
            names = ", ".join(PurePosixPath(name).name for name in missing)
            raise Refused("missing_file", f"{len(missing)} of {wanted} views are not there: {names[:200]}")
        paths = [file_below(root, item.files[view]) for view in chosen]
        azimuths = [azimuth + 360.0 * view / there for view in chosen]
        first = read_video(paths[0], self.size_px)
        height, width = first.frames.shape[1:3]
        return Shown(
            rig=_RIGS.get(wanted, f"ring{wanted}"),
            view_names=tuple(f"view_{view:02d}" for view in range(wanted)),
            frames=self._views(first.frames, paths[1:]),
            c2w=np.stack([look_at_origin(angle, elevation, self.radius) for angle in azimuths])[:, None],
            fov_deg=(_fov_of_width(self.fov_deg, width / height), self.fov_deg),
            fps=first.fps / self.every,
            azimuth_deg=azimuth,
            elevation_deg=elevation,
            caption=" ".join(string(entry, "text_prompt", "its entry").split()),
            facts=json.dumps({"assumed": {"radius": self.radius, "fov_deg": self.fov_deg}, "every": self.every}),
        )

    def _views(self, first: np.ndarray, others: list[Path]) -> Iterator[np.ndarray]:
        for frames in itertools.chain([first], (read_video(path, self.size_px).frames for path in others)):
            if len(frames) < self.num_frames:
                raise Refused("wrong_count", f"a view has {len(frames)} frames; {self.num_frames} are wanted")
            yield frames[: self.num_frames : self.every]


def list_mv_video(path: Path) -> tuple[Path, Iterator[Listed]]:
    """The folder that all files lie in, and the clips: the published layout's by uid, a trainer's list as it stands.

    Raises:
        ValueError: There is neither.
    """
    if path.is_dir():
        if not (path / INFO).is_file():
            raise ValueError(
                f"{path} has no {INFO}: give the folder that holds it beside `videos/`, or a trainer's list"
            )
        if not (path / "videos").is_dir():
            raise ValueError(f"{path} has no folder `videos`: unpack multi_view_video_*.tar.gz there")
        return path, _published(path)
    if path.is_file() and path.suffix.lower() == ".json":
        return path.parent, _trainers_list(path)
    raise ValueError(f"{path} is neither MV-Video's folder nor a .json list: check the path")


def _published(root: Path) -> Iterator[Listed]:
    info = _read_json(root / INFO)
    if not isinstance(info, dict):
        raise ValueError(f"{root / INFO} is no JSON object by uid: download it again")
    for uid in _folders(root / "videos"):
        about = info.get(uid)
        about = about if isinstance(about, dict) else {}
        animations = about.get("anim")
        url = about.get("url")
        for action in _folders(root / "videos" / uid):
            entry = animations.get(action) if isinstance(animations, dict) else None
            place = f"videos/{uid}/{action}"
            yield Listed(
                model_id=uid,
                action=action,
                name=f"{uid}/{action}",
                place=place,
                files=tuple(f"{place}/view_{view}.mp4" for view in range(NUM_VIEWS)),
                entry="" if entry is None else json.dumps(entry),
                url=url if isinstance(url, str) and url.startswith(("https://", "http://")) else "",
            )


def _trainers_list(path: Path) -> Iterator[Listed]:
    entries = _read_json(path)
    if not isinstance(entries, list):
        raise ValueError(f"{path} is no JSON list of clips")
    for number, entry in enumerate(entries):
        try:
            names = as_list(as_object(entry, "the entry").get("data_path"), "`data_path` of the entry")
            files = tuple(_below(str(name), path.parent) for name in names)
            place = PurePosixPath(files[0]).parent if files else PurePosixPath(".")
        except Refused as refused:
            fault = (refused.reason, f"entry {number} of {path.name}: {refused.found}")
            name = f"{path.name}:{number}"
            yield Listed(model_id="", action="", name=name, place=".", files=(), entry="", refused=fault)
            continue
        match = _PLACE.search(str(place))
        yield Listed(
            model_id=match["uid"] if match else content_id("place", str(place), length=32),
            action=match["action"] if match else "",
            name=f"{match['uid']}/{match['action']}" if match else f"{path.name}:{number}",
            place=str(place),
            files=files,
            entry=json.dumps(entry),
        )


def _below(name: str, root: Path) -> str:
    """A path of a list as one below its folder.

    Raises:
        Refused: `unsafe_uri`: it lies elsewhere.
    """
    base = os.path.abspath(root).rstrip("/") + "/"
    return relative_path(name.removeprefix(base))


def _angles(entry: dict[str, Any]) -> tuple[float, float]:
    """Elevation and first azimuth in degrees.

    Raises:
        Refused: `malformed`.
    """
    angle = as_object(entry.get("angle"), "`angle` of its entry")
    values = []
    for key, limit in (("elv", 89.0), ("azi_start", 360.0)):
        value = angle.get(key)
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= limit:
            broken(f"`{key}` of its entry is {str(value)[:40]}, not a number of degrees up to {limit:g}")
        values.append(float(value))
    return values[0], values[1]


def _fov_of_width(fov_deg: float, aspect: float) -> float:
    return math.degrees(2 * math.atan(aspect * math.tan(math.radians(fov_deg) / 2)))


def _folders(path: Path) -> list[str]:
    """Names of the folders in a folder, sorted; hidden ones are passed over."""
    with os.scandir(path) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no JSON: {error}; download it again") from None
