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

NO_ACTION = -1
"""Instead of an action's index: the pose that the file states."""


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
class Device:
    """What computes the pictures."""

    kind: str
    """`CPU`; `CUDA`, `OPTIX`, `HIP`, `ONEAPI` or `METAL`, as Cycles calls its ways to use a GPU; `GL` for EEVEE."""
    name: str = ""
    """As the driver says; empty for the processor."""
    id: str = ""
    """Cycles' own name of this one device; empty for others."""

    @property
    def label(self) -> str:
        """`CPU`, or kind and name: `OPTIX NVIDIA L4`."""
        return f"{self.kind} {self.name}".strip()


CPU = Device(kind="CPU")


@dataclass(frozen=True, kw_only=True)
class Survey:
    """Look for devices. Answered by `Surveyed`. Forgets the loaded asset."""

    engine: str
    """`cycles` or `eevee`."""


@dataclass(frozen=True, kw_only=True)
class Surveyed:
    """What there is: for Cycles all GPUs, one entry a way to use it; for EEVEE the one that GL draws on."""

    devices: list[Device]


@dataclass(frozen=True, kw_only=True)
class Prove:
    """Draw a tiny picture on a device and look at it. Answered by `Proved`. Forgets the loaded asset."""

    engine: str
    device: Device


@dataclass(frozen=True, kw_only=True)
class Proved:
    """The device draws what it should."""


@dataclass(frozen=True, kw_only=True)
class Load:
    """Reset Blender and import a file. Answered by `Loaded`."""

    path: str
    format: str
    texture_limit_px: int = 0
    """Scale pictures down to at most so many pixels a side; 0 leaves them alone."""
    as_drawn: bool = True
    """Have Cycles hide faces from behind where the materials say so, which exporters do not understand."""


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
    image_pixels: int
    """Sum over the pictures in the file of width times height."""
    largest_picture_px: int
    """Longest side of any of them."""
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
class Sun:
    """Parallel light from far away."""

    name: str
    rotation_deg: list[float]
    """Blender's Euler angles about x, y and z; with three zeros it shines straight down."""
    strength: float
    """W/m2."""
    angle_deg: float
    """Apparent diameter: how soft the shadows are."""
    shadow: bool


@dataclass(frozen=True, kw_only=True)
class Light:
    """All that lights a clip. It stands still in the world, whatever the cameras and the object do."""

    suns: list[Sun]
    ambient_strength: float
    """Grey level of the surroundings, or factor on their picture."""
    picture: str
    """File of an equirectangular HDR picture of the surroundings; empty for grey ones."""
    turn_deg: float
    """The picture's middle is seen in this azimuth, from the origin; 0 is the way to the front camera."""
    own: bool
    """The asset's own lights and world instead, if it has any."""


@dataclass(frozen=True, kw_only=True)
class Paths:
    """How far light is followed, and how a pixel gathers it."""

    max_bounces: int = 4
    diffuse_bounces: int = 2
    glossy_bounces: int = 2
    transmission_bounces: int = 4
    transparent_bounces: int = 16
    """Surfaces one behind the other that are seen through."""
    caustics: bool = False
    clamp_indirect: float = 4.0
    """Brightest sample after a bounce; 0 for no limit."""
    light_tree: bool = True
    """Without it, samples go to the suns by lot, not by their part in the light: up to a sixth cheaper, and noisier by
    as much."""
    adaptive_threshold: float = 0.0
    """Noise at which a pixel gets no more samples; 0 gives all to each. Blender looks after each 16."""
    adaptive_min_samples: int = 0
    """Before that, it does not look; 0 leaves it to Blender, which waits for 39 at 0.05 and for 64 at 0.01."""
    filter_width_px: float = 1.5
    """Width of the pixel filter (Blackman-Harris)."""


@dataclass(frozen=True, kw_only=True)
class Draw:
    """Render one action from several views. Answered by `Drawn`, with an `image` event after each picture."""

    action_index: int
    """`NO_ACTION` for one frame of the pose that the file states."""
    times_s: list[float]
    views: list[View]
    size_px: int
    fov_deg: float
    samples: int
    denoise: str
    """`none`, `fast` or `accurate`."""
    paths: Paths
    light: Light
    view_transform: str
    """`standard` or `filmic`."""
    framing: str
    """`all_frames`: the farthest vertex of any frame is at distance 1. `first_box`: the largest side of the box at the
    first time is 1, and what moves may leave the picture."""
    seed: int
    threads: int
    """Cores this child may use; 0 for all."""
    engine: str = "cycles"
    """`cycles` or `eevee`."""
    device: Device = CPU
    """Chosen from those surveyed, and proved."""
    out_folder: str
    """`<view name>_<frame 3 digits>.png` are written here, RGBA, 8 bit, straight alpha, `size_px` square."""


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """The pictures are there."""

    world_scale: float
    world_centre: list[float]
    """world = world_scale * (asset_point - world_centre), as the framing says."""
    own_light: bool
    """The asset's own lights were used."""
    draw_s: float
    """Seconds inside Blender's own render calls."""
    prepare_s: float
    """Seconds for everything else in the child."""
    outside_px: float
    """How far the object's projection leaves the picture in the worst view and frame, pixels; 0 is inside."""


@dataclass(frozen=True, kw_only=True)
class Trace:
    """Write the deformed surfaces at the given times of one action. Answered by `Traced`."""

    action_index: int
    times_s: list[float]
    """One a pose."""
    world_scale: float
    world_centre: list[float]
    """As in `Drawn`: everything is written in the clip's world."""
    normals: bool
    """Write the corners' shading normals too."""
    out_folder: str
    """Raw little-endian files are written here, one of each kind a pose (3 digits): `positions_000`, float32 (vertex,
    3); `normals_000`, float32 (triangle, corner, 3); and, where the surface is another than at the pose before,
    `triangles_000`, int32 (triangle, 3); `objects_000` and `materials_000`, int32 (triangle); `uvs_000`, float32
    (triangle, corner, 2), by which a triangle's own opacity picture is looked up. Triangles wind counter-clockwise seen
    from their front."""


@dataclass(frozen=True, kw_only=True)
class Pose:
    """What was written of one pose."""

    num_vertices: int
    num_triangles: int
    surface: int
    """The pose whose files hold the triangles: this one or an earlier one."""


@dataclass(frozen=True, kw_only=True)
class Opacity:
    """How much a material hides of what is behind it, 0..1."""

    front: list[float]
    back: list[float]
    """Seen from either side: one number; or 256, by the value of the picture from 0 to 1."""
    picture: str
    """File of uint8 (height, width), bottom row first; empty if there is none."""
    width: int
    height: int
    wrap: str
    """Beyond the picture's edge: `repeat`, `extend`, `clip` or `mirror`."""
    nearest: bool
    """Take the nearest value instead of interpolating."""


@dataclass(frozen=True, kw_only=True)
class Traced:
    """The surfaces are there."""

    poses: list[Pose]
    same_vertices: bool
    """A vertex index means the same point of the surface in all poses."""
    object_names: list[str]
    """One an instance that is drawn."""
    material_names: list[str]
    opacities: list[Opacity]
    """One a material."""


@dataclass(frozen=True, kw_only=True)
class Examine:
    """Decode a picture of surroundings. Answered by `Examined`; the loaded asset stays."""

    path: str
    max_width_px: int
    """Wider ones are refused before they are decoded."""


@dataclass(frozen=True, kw_only=True)
class Examined:
    """What is in the picture."""

    width: int
    height: int
    mean: float
    """Over all colours; 0.0 if a value is infinite, negative or no number."""


@dataclass(frozen=True, kw_only=True)
class Bake:
    """Write the loaded asset at one moment as a still GLB. Answered by `Baked`. Forgets the asset, which has to be
    loaded with `as_drawn` False."""

    action_index: int
    """`NO_ACTION` for the pose that the file states."""
    time_s: float
    """On the file's timeline; not looked at without an action."""
    out_path: str


@dataclass(frozen=True, kw_only=True)
class Baked:
    """The file is there: y up, as glTF has it, in the asset's own size and place."""

    num_nodes: int
    num_vertices: int
    """As Blender counts them; the file has one for each pair of normal and texture coordinates too."""
    num_triangles: int
    left_out: list[str]
    """Kinds of what is drawn and is no surface: hair, particles, points, volumes."""


@dataclass(frozen=True, kw_only=True)
class Convert:
    """Write a GLB in another format, with one of its animations. Answered by `Converted`. Forgets the loaded asset."""

    path: str
    animation: str
    """Name; empty for the first one."""
    out_path: str
    """Its suffix is the format: .fbx, .abc, .usdc, .usda or .usdz."""


@dataclass(frozen=True, kw_only=True)
class Converted:
    """The file is there."""

    animation: str
    """Name; empty if there is none."""
    fps: float
    """Of the file's frames; the first one lies at 0 s."""
    num_frames: int


REQUESTS: dict[str, tuple[type[Any], type[Any]]] = {
    "hello": (Hello, Welcome),
    "survey": (Survey, Surveyed),
    "prove": (Prove, Proved),
    "load": (Load, Loaded),
    "measure": (Measure, Measured),
    "draw": (Draw, Drawn),
    "examine": (Examine, Examined),
    "trace": (Trace, Traced),
    "bake": (Bake, Baked),
    "convert": (Convert, Converted),
}
"""call: (request, reply)."""


class BadAsset(Exception):
    """The loaded file is at fault; says a reason of `pipeline.reasons` and a detail."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class DeviceFault(Exception):
    """The device that was asked for is not there, or failed to draw: no asset is to blame."""


def to_line(message: dict[str, Any]) -> bytes:
    """One message as a line of bytes. NaN is not allowed: a measure that is not finite is said so by its flag."""
    return json.dumps(message, allow_nan=False, separators=(",", ":")).encode() + b"\n"


def fields_of(message: Any) -> dict[str, Any]:
    """A request's or reply's fields as plain JSON values."""
    return dataclasses.asdict(message)


def read_request(call: str, values: dict[str, Any]) -> Any:
    """The request of a call, nested dataclasses included."""
    if "device" in values:
        values = {**values, "device": Device(**values["device"])}
    request = REQUESTS[call][0](**values)
    if isinstance(request, Draw):
        return dataclasses.replace(
            request,
            views=[View(**view) for view in values["views"]],
            paths=Paths(**values["paths"]),
            light=Light(**{**values["light"], "suns": [Sun(**sun) for sun in values["light"]["suns"]]}),
        )
    return request


def read_reply(call: str, values: dict[str, Any]) -> Any:
    """The reply to a call, nested dataclasses included."""
    if call == "load":
        values = {**values, "actions": [Action(**action) for action in values["actions"]]}
    if call == "survey":
        values = {"devices": [Device(**device) for device in values["devices"]]}
    if call == "trace":
        poses = [Pose(**pose) for pose in values["poses"]]
        values = {**values, "poses": poses, "opacities": [Opacity(**opacity) for opacity in values["opacities"]]}
    return REQUESTS[call][1](**values)
