"""What the render stage and its Blender child say to each other: one JSON object a line.

The parent writes `{"id": 7, "call": "load", "with": {…}}`, the fields of a request below. The child answers with any
number of `{"id": 7, "event": "image", "done": 3, "total": 64}`, each of which restarts the deadline of the phase, and
then with `{"id": 7, "ok": {…}}`, the fields of the reply, or `{"id": 7, "error": {"reason": …, "detail": …}}`, where
the reason is one of `pipeline.reasons`. The child keeps the last asset loaded until the next `load`.

Standard library only: the child may run under another interpreter than the parent.
"""

import dataclasses
import json
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Hello:
    """Asks who is there. Answered by `Welcome`."""


@dataclass(frozen=True, kw_only=True)
class Welcome:
    """The child is up and has imported bpy."""

    blender_version: str
    python_version: str
    draco: bool
    """Compressed glTF can be read."""


@dataclass(frozen=True, kw_only=True)
class Load:
    """Reset Blender and import a file. Answered by `Loaded`."""

    path: str
    format: str


@dataclass(frozen=True, kw_only=True)
class Action:
    """One named animation of the loaded asset, over all objects that it moves."""

    index: int
    name: str
    start_s: float
    end_s: float


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """What is in the file."""

    actions: list[Action]
    num_vertices: int
    num_triangles: int
    num_objects: int
    num_materials: int
    num_images: int
    missing_textures: list[str]
    family_id: str
    scene_fps: float


@dataclass(frozen=True, kw_only=True)
class Measure:
    """Evaluate the deformed mesh at the given times of one action. Answered by `Measured`."""

    action_index: int
    times_s: list[float]
    """On the file's timeline, one a clip frame."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Geometric motion over the given times; the meaning of each number is in `pipeline.records.Animation`."""

    motion_mean: float
    motion_p95: float
    path_length: float
    rigid_share: float
    loop_gap: float
    """Between the action's own two ends, whatever the given times."""
    moving_start_s: float
    moving_end_s: float
    travel: float
    max_jump: float
    jump_ratio: float
    max_stretch: float
    rest_diagonal: float
    box_min: list[float]
    box_max: list[float]
    finite: bool
    motion_id: str


@dataclass(frozen=True, kw_only=True)
class View:
    """A camera, moving or not, for one strip of frames."""

    name: str
    c2w: list[list[float]]
    """Row-major OpenCV camera-to-world of 16 numbers in the normalised world, one a frame, or one for all."""
    frozen: bool
    """Show the object as it is at the first time, in every frame: the static twin."""


@dataclass(frozen=True, kw_only=True)
class Draw:
    """Render one action from several views. Answered by `Drawn`, with an `image` event after each picture."""

    action_index: int
    times_s: list[float]
    views: list[View]
    size_px: int
    fov_deg: float
    samples: int
    denoise: str
    """`none`, `fast` or `accurate`."""
    light_strength: float
    ambient_strength: float
    seed: int
    threads: int
    """Cores this child may use; 0 for all."""
    out_folder: str
    """`<view name>_<frame 3 digits>.png` are written here, RGBA, 8 bit, straight alpha, `size_px` square."""


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """The pictures are there."""

    world_scale: float
    world_centre: list[float]
    """world = world_scale * (asset_point - world_centre): all frames' vertices lie inside the unit sphere."""
    draw_s: float
    """Seconds inside Blender's own render calls."""
    prepare_s: float
    """Seconds for everything else in the child."""
    outside_px: float
    """How far the object's projection leaves the picture in the worst view and frame, pixels; 0 is inside."""


REQUESTS: dict[str, tuple[type[Any], type[Any]]] = {
    "hello": (Hello, Welcome),
    "load": (Load, Loaded),
    "measure": (Measure, Measured),
    "draw": (Draw, Drawn),
}
"""call: (request, reply)."""


class BadAsset(Exception):
    """The loaded file is at fault; says a reason of `pipeline.reasons` and a detail."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


def to_line(message: dict[str, Any]) -> bytes:
    """One message as a line of bytes. NaN is not allowed: a measure that is not finite is said so by its flag."""
    return json.dumps(message, allow_nan=False, separators=(",", ":")).encode() + b"\n"


def fields_of(message: Any) -> dict[str, Any]:
    """A request's or reply's fields as plain JSON values."""
    return dataclasses.asdict(message)


def read_request(call: str, values: dict[str, Any]) -> Any:
    """The request of a call, nested dataclasses included."""
    request = REQUESTS[call][0](**values)
    if isinstance(request, Draw):
        views = [View(**view) if isinstance(view, dict) else view for view in request.views]
        return dataclasses.replace(request, views=views)
    return request


def read_reply(call: str, values: dict[str, Any]) -> Any:
    """The reply to a call, nested dataclasses included."""
    if call == "load":
        values = {**values, "actions": [Action(**action) for action in values["actions"]]}
    return REQUESTS[call][1](**values)
