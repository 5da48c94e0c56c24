"""Ground truth to bytes and back: maps as PNG strips, vertex tracks as one compressed NumPy archive.

A map is a vertical strip of a view's frames, like its pictures. All but tracks are read by one rule: value = offset +
step * stored, with the pass's own offset and step (`pipeline.records.Truth`); where all channels are 0 there is none.
Only NumPy and OpenCV are needed, and any reader of 16-bit PNG will do.
"""

import io
import zipfile
from dataclasses import dataclass
from typing import Literal, get_args

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.records import Clip, Truth
from pipeline.storage import Store

FORMAT = "mv4d-truth/1"

PassName = Literal[
    "depth",
    "normal",
    "camera_normal",
    "flow_forward",
    "flow_backward",
    "view_flow_forward",
    "view_flow_backward",
    "coordinates",
    "object",
    "material",
    "tracks",
]
PASSES: tuple[PassName, ...] = get_args(PassName)
GROUPS: dict[str, tuple[PassName, ...]] = {
    "all": PASSES,
    "flow": ("flow_forward", "flow_backward"),
    "view_flow": ("view_flow_forward", "view_flow_backward"),
    "ids": ("object", "material"),
}
"""Names that stand for several passes."""
PASSES_HELP = f"Ground truth to add, by commas: {', '.join((*PASSES, *GROUPS))}. docs/ground_truth.md says what it is."
MEANINGS: dict[str, str] = {
    "depth": "distance from the camera along its viewing axis (z, not the ray's length), world units",
    "normal": "unit shading normal in the world, without normal maps, turned round on faces that are seen from behind; "
    "channels x, y, z",
    "camera_normal": "the same in the camera's axes: x right, y down, z forward",
    "flow_forward": "where the surface point is in the next frame of the view, minus where it is here, pixels; "
    "channels x, y, state: 1 hidden there, 2 seen there",
    "flow_backward": "the same for the frame before",
    "view_flow_forward": "the same for the next view at the same frame; after the last view comes the first",
    "view_flow_backward": "the same for the view before",
    "coordinates": "where the surface point is at the clip's first frame, world units; channels x, y, z",
    "object": "number of the object in `names`; each instance is one of its own",
    "material": "number of the material in `names`",
    "tracks": "positions of all vertices at all frames, and triangles: see `decode_tracks`",
}
FLOWS: tuple[PassName, ...] = GROUPS["flow"] + GROUPS["view_flow"]
NORMALS: tuple[PassName, ...] = ("normal", "camera_normal")
TRACKS_NAME = "tracks.npz"

NO_FLOW, HIDDEN, SEEN = 0, 1, 2
"""States of a flow's target: there is none; behind something, outside of the picture or seen from its other side;
visible."""
FLOW_OFFSET, FLOW_STEP = -512.0, 1 / 64
"""Those of KITTI's flow files, which most loaders know; the third channel there only says whether there is a flow."""
_PNG = [cv2.IMWRITE_PNG_COMPRESSION, 6, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_FILTERED]


def passes_of(text: str) -> tuple[PassName, ...]:
    """Passes from names and groups separated by commas, each once, in the order of `PASSES`.

    Raises:
        ValueError: There is no such pass or group.
    """
    wanted: set[str] = set()
    for entry in (entry.strip() for entry in text.split(",")):
        if entry and entry not in PASSES and entry not in GROUPS:
            raise ValueError(f"no such pass: {entry!r}; there are {', '.join((*PASSES, *GROUPS))}")
        wanted.update(GROUPS.get(entry, (entry,)))
    return tuple(name for name in PASSES if name in wanted)


def map_name(view: int, name: str) -> str:
    """File name of a view's map, in a clip's folder and after the key in a shard."""
    return f"v{view:02d}.{name}.png"


@dataclass(frozen=True, kw_only=True)
class Scale:
    """value = offset + step * stored."""

    offset: float
    step: float
    bits: Literal[8, 16] = 16

    def stored(self, values: np.ndarray) -> np.ndarray:
        """Values as they are stored; 0 for NaN, and never 0 for anything else. Outside of the range: its end.

        Args:
            values: Any shape, float.
        """
        exact = (np.nan_to_num(values, nan=self.offset) - self.offset) / self.step
        rounded = np.clip(np.rint(exact), 1, 2**self.bits - 1)
        rounded[np.isnan(values)] = 0
        return np.asarray(rounded.astype(np.uint8 if self.bits == 8 else np.uint16))

    def value(self, stored: np.ndarray) -> npt.NDArray[np.float32]:
        """What is stored, as values; no value is not told from any other."""
        return np.asarray(self.offset + self.step * stored.astype(np.float64), dtype=np.float32)


FLOW = Scale(offset=FLOW_OFFSET, step=FLOW_STEP)
NUMBER = Scale(offset=-1.0, step=1.0)


def scale_between(low: float, high: float, *, bits: Literal[8, 16] = 16) -> Scale:
    """From low to high in as many steps as there are."""
    step = (high - low) / (2**bits - 2)
    return Scale(offset=low - step, step=step, bits=bits)


NORMAL = scale_between(-1.0, 1.0, bits=8)


def encode_map(stored: np.ndarray) -> bytes:
    """A strip as PNG.

    Args:
        stored: Shape (frame, height, width) or (frame, height, width, 3), uint8 or uint16.
    """
    strip = stored.reshape(-1, *stored.shape[2:])
    done, png = cv2.imencode(".png", strip[..., ::-1] if strip.ndim == 3 else strip, _PNG)
    if not done:
        raise ValueError(f"no PNG can be made of {strip.shape} {strip.dtype}")
    return png.tobytes()


def decode_map(content: bytes, num_frames: int) -> np.ndarray:
    """What is stored in a strip. Shape (frame, height, width) or (frame, height, width, 3), uint8 or uint16.

    Raises:
        ValueError: The bytes are no PNG, or its height is not a multiple of the frame count.
    """
    found = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED) if content else None
    if found is None:
        raise ValueError("not a PNG")
    strip = np.asarray(found)
    if strip.shape[0] % num_frames:
        raise ValueError(f"a strip {strip.shape[0]} pixels high does not hold {num_frames} frames")
    strip = strip[..., ::-1] if strip.ndim == 3 else strip
    return strip.reshape(num_frames, -1, *strip.shape[1:])


def encode_flow(flow: np.ndarray, state: np.ndarray) -> bytes:
    """A flow as PNG. What is longer than 511 pixels is left out.

    Args:
        flow: Shape (frame, height, width, 2), pixels.
        state: Shape (frame, height, width): `NO_FLOW`, `HIDDEN` or `SEEN`.
    """
    fits = (state != NO_FLOW) & (np.abs(np.nan_to_num(flow, nan=1e9)) < -FLOW_OFFSET - 1).all(axis=-1)
    stored = np.zeros((*state.shape, 3), dtype=np.uint16)
    stored[fits, :2] = FLOW.stored(flow[fits])
    stored[fits, 2] = state[fits]
    return encode_map(stored)


def decode_flow(content: bytes, num_frames: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8]]:
    """Flow in pixels, NaN where there is none, shape (frame, height, width, 2); and its state, without the last axis.

    Raises:
        ValueError: As `decode_map`.
    """
    stored = decode_map(content, num_frames)
    state = stored[..., 2].astype(np.uint8)
    flow = FLOW.value(stored[..., :2])
    flow[state == NO_FLOW] = np.nan
    return flow, state


def decode_values(content: bytes, num_frames: int, scale: Scale) -> npt.NDArray[np.float32]:
    """Values of any map but a flow, NaN where there is none. Shape (frame, height, width) or (…, 3).

    Raises:
        ValueError: As `decode_map`.
    """
    stored = decode_map(content, num_frames)
    values = scale.value(stored)
    values[(stored == 0).all(axis=-1) if stored.ndim == 4 else stored == 0] = np.nan
    return values


@dataclass(frozen=True, kw_only=True)
class Tracks:
    """The surface of a clip's object over its frames."""

    positions: npt.NDArray[np.float32]
    """Shape (frame, vertex, 3), world."""
    triangles: npt.NDArray[np.int64]
    """Vertex indices, shape (triangle, 3), counter-clockwise seen from the front; as at the first frame."""
    objects: npt.NDArray[np.int64]
    """Number of each triangle's object, shape (triangle,)."""
    materials: npt.NDArray[np.int64]
    """Number of each triangle's material, shape (triangle,); -1 is none."""
    max_error: float
    """Farthest that a coordinate may be from the exact one, world units."""


def encode_tracks(positions: np.ndarray, triangles: np.ndarray, objects: np.ndarray, materials: np.ndarray) -> bytes:
    """Tracks as an .npz: 16 bits a coordinate within the box of all frames, as differences to the frame before.

    Args:
        positions: Shape (frame, vertex, 3).
        triangles: Shape (triangle, 3).
        objects: Shape (triangle,).
        materials: Shape (triangle,).
    """
    points = positions.reshape(-1, 3)
    low, high = (points.min(axis=0), points.max(axis=0)) if len(points) else (np.zeros(3), np.zeros(3))
    low, high = low.astype(np.float64), high.astype(np.float64)
    step = np.where(high > low, (high - low) / 65535, 1.0)
    # Frame by frame: in double precision, all of a large mesh would not fit.
    levels = np.stack([np.rint((frame - low) / step).astype(np.uint16) for frame in positions])
    moved = np.diff(levels, axis=0, prepend=np.zeros_like(levels[:1]))
    arrays = {
        "moved": moved,
        "low": low.astype("<f8"),
        "step": step.astype("<f8"),
        "triangles": triangles.astype("<u4"),
        "objects": objects.astype("<i4"),
        "materials": materials.astype("<i4"),
    }
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def decode_tracks(content: bytes) -> Tracks:
    """The tracks of an .npz; what is in it is checked, and nothing in it is run.

    Raises:
        ValueError: It is not what `encode_tracks` makes.
    """
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            moved, low, step = file["moved"], file["low"], file["step"]
            triangles, objects, materials = (
                file[name].astype(np.int64) for name in ("triangles", "objects", "materials")
            )
    except (KeyError, ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"no tracks: {error}") from error
    if moved.dtype != np.uint16 or moved.ndim != 3 or moved.shape[2] != 3 or low.shape != (3,) or step.shape != (3,):
        raise ValueError(f"no tracks: positions of shape {moved.shape} and type {moved.dtype}")
    if triangles.ndim != 2 or triangles.shape[1] != 3 or not len(triangles) == len(objects) == len(materials):
        raise ValueError(
            f"no tracks: {triangles.shape} triangles, {objects.shape} objects, {materials.shape} materials"
        )
    if triangles.size and triangles.max() >= moved.shape[1]:
        raise ValueError("no tracks: a triangle has a vertex that is not there")
    levels = np.cumsum(moved, axis=0, dtype=np.uint16)
    return Tracks(
        positions=(low + step * levels).astype(np.float32),
        triangles=triangles,
        objects=objects,
        materials=materials,
        max_error=float(step.max() / 2) + 1e-6,
    )


def scale_of(truth: Truth) -> Scale:
    """How the maps of a pass are read."""
    return Scale(offset=truth.offset, step=truth.step)


def read_map(store: Store, clip: Clip, truth: Truth, view: int) -> npt.NDArray[np.float32]:
    """A view's values of any map but a flow, NaN where there is none. Shape (frame, height, width) or (…, 3)."""
    content = store.read_bytes(f"{truth.folder}/{map_name(view, truth.name)}")
    return decode_values(content, clip.num_frames, scale_of(truth))


def read_flow(
    store: Store, clip: Clip, truth: Truth, view: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8]]:
    """A view's flow and its state: see `decode_flow`."""
    return decode_flow(store.read_bytes(f"{truth.folder}/{map_name(view, truth.name)}"), clip.num_frames)


def read_tracks(store: Store, truth: Truth) -> Tracks:
    """The tracks of a clip."""
    return decode_tracks(store.read_bytes(f"{truth.folder}/{TRACKS_NAME}"))
