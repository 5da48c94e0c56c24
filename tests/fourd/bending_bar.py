"""A bar that bends: its true motion is a formula, and its pictures are made by the rasterizer."""

from dataclasses import replace

import numpy as np
import torch

from fourd.canonical import Canonical, of_mesh
from fourd.light import even_light
from fourd.motion.field import Motion, MotionField, Points
from fourd.moving import Drawing, MovingGaussians
from fourd.video import MultiViewVideo
from pipeline.cameras import look_at_origin, pinhole
from pipeline.media import encode_strip, strip_name
from pipeline.records import Clip, Truth
from pipeline.storage import Store
from pipeline.tables import Tables
from pipeline.truth_media import TRACKS_NAME, encode_tracks

NUM_FRAMES = 5
LENGTH, AROUND = 16, 8


def bar() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vertices (V, 3), faces (F, 3) and colours (V, 3) of a closed, flat tube along x."""
    along, angle = np.meshgrid(np.linspace(-0.7, 0.7, LENGTH), np.arange(AROUND) * 2 * np.pi / AROUND, indexing="ij")
    vertices = np.stack([along, 0.25 * np.cos(angle), 0.1 * np.sin(angle)], axis=-1).reshape(-1, 3)
    ring = np.arange(AROUND)
    quads = [
        np.stack([row * AROUND + ring, row * AROUND + (ring + 1) % AROUND,
                  (row + 1) * AROUND + (ring + 1) % AROUND, (row + 1) * AROUND + ring], axis=1)
        for row in range(LENGTH - 1)
    ]  # fmt: skip
    quad = np.concatenate(quads)
    caps = [np.stack([np.full(AROUND - 2, 0), ring[2:], ring[1:-1]], axis=1)]
    last = (LENGTH - 1) * AROUND
    caps.append(np.stack([np.full(AROUND - 2, last), last + ring[1:-1], last + ring[2:]], axis=1))
    faces = np.concatenate([quad[:, [0, 1, 2]], quad[:, [0, 2, 3]], *caps])
    colors = 0.5 + 0.4 * np.stack([np.sin(9 * along), np.sin(7 * along + 2 * angle), np.cos(angle)], axis=-1)
    return vertices, faces, colors.reshape(-1, 3)


def bent(points: torch.Tensor, frame: int) -> torch.Tensor:
    """Where points (P, 3) of the bar are: it bends about y, more and more, and is lifted."""
    curve = 0.9 * frame / (NUM_FRAMES - 1)
    if frame == 0:
        return points
    angle = curve * points[:, 0]
    radius = 1 / curve - points[:, 2]
    x, z = radius * angle.sin(), 1 / curve - radius * angle.cos()
    return torch.stack([x, points[:, 1], z + 0.02 * frame], dim=1)


class Bending(MotionField):
    """The true motion."""

    def moved(self, frames: torch.Tensor) -> Motion:
        positions = torch.stack([bent(self.positions, int(frame)) for frame in frames])
        half = 0.5 * 0.9 * frames[:, None] / (NUM_FRAMES - 1) * self.positions[None, :, 0]
        zero = torch.zeros_like(half)
        quats = torch.stack([half.cos(), zero, -half.sin(), zero], dim=-1)
        return Motion(positions=positions, quats=quats, log_scales=self.log_scales.expand_as(positions))

    def parameter_groups(self) -> list[dict[str, object]]:
        return []


def true_model(num_gaussians: int = 1500, drawing: Drawing | None = None) -> MovingGaussians:
    vertices, faces, colors = bar()
    canonical = of_mesh("bar", vertices, faces, num_gaussians=num_gaussians, colors=colors)
    return MovingGaussians(canonical, Bending(canonical.points, NUM_FRAMES), drawing)


def lit_model(drawing: Drawing) -> MovingGaussians:
    """The true motion under a lamp above and to the left."""
    model = true_model(drawing=drawing)
    assert model.light is not None
    with torch.no_grad():
        model.light.copy_(0.7 * even_light())
        model.light[2], model.light[3] = 0.9, 0.5
    return model


def canonical(num_gaussians: int = 700, *, colored: bool = True) -> Canonical:
    vertices, faces, colors = bar()
    made = of_mesh("bar", vertices, faces, num_gaussians=num_gaussians, seed=1, colors=colors if colored else None)
    return replace(made, points=Points.plain(made.points.positions))


def video(
    num_views: int = 4, size_px: int = 48, first_deg: float = 0.0, model: MovingGaussians | None = None
) -> MultiViewVideo:
    azimuths = first_deg + np.arange(num_views) * 360 / num_views
    c2w = np.stack([look_at_origin(azimuth, 15.0, 3.0) for azimuth in azimuths]).astype(np.float32)
    empty = torch.zeros(NUM_FRAMES, num_views, size_px, size_px, 4, dtype=torch.uint8)
    made = MultiViewVideo(
        clip_id="bar", views=tuple(range(num_views)), rgba=empty, intrinsics=pinhole(40.0, size_px), fps=8.0,
        c2w=torch.from_numpy(c2w).expand(NUM_FRAMES, -1, -1, -1).clone(),
    )  # fmt: skip
    model, views = model or true_model(), torch.arange(num_views)
    with torch.no_grad():
        for frame in range(NUM_FRAMES):
            frames = torch.tensor([frame])
            _, moved = model.motion(frames)
            colors, alpha, _ = model.pictures(
                moved, made.w2c(frames, views), made.camera_matrix(size_px), size_px, size_px, background=0.0
            )
            straight = colors / alpha[..., None].clamp(min=1 / 255)
            rgba = torch.cat([straight.clamp(0, 1), alpha[..., None].clamp(0, 1)], dim=-1)
            made.rgba[frame] = (rgba[0] * 255).round().byte()
    return made


def data_root(
    root: str, num_views: int = 8, size_px: int = 48, *, model: MovingGaussians | None = None, world_scale: float = 1.0
) -> tuple[Store, Clip]:
    """A data root with the bar, or another model of a mesh that bends, as a clip and its tracks."""
    model = model or true_model()
    shown = video(num_views, size_px, model=model)
    store = Store(root)
    folder = "clips/ba/bar0bar0bar0bar0"
    clip = Clip(
        clip_id="bar0bar0bar0bar0", animation_id="a", asset_id="b", rig="ring", quality="preview", num_views=num_views,
        num_frames=NUM_FRAMES, width=size_px, height=size_px, fps=8.0, seed=0, azimuth_deg=0.0, elevation_deg=15.0,
        view_names=tuple(f"view_{view:02d}" for view in range(num_views)), num_camera_frames=1,
        c2w=tuple(shown.c2w[0].double().flatten().tolist()), intrinsics=shown.intrinsics, world_scale=world_scale,
        world_centre=(0.0, 0.0, 0.0), folder=folder, parts=(), texture_limit_px=0, blender_version="", device="CPU",
        settings="{}", backdrop="",
    )  # fmt: skip
    for view in range(num_views):
        store.write_bytes(f"{folder}/{strip_name(view)}", encode_strip(shown.rgba[:, view].numpy()))
    rest, faces = model.canonical.points.positions.double(), model.canonical.faces
    assert faces is not None
    positions = np.stack([bent(rest, frame).numpy() for frame in range(NUM_FRAMES)])
    none = np.zeros(len(faces), dtype=np.int64)
    store.write_bytes(f"{folder}/{TRACKS_NAME}", encode_tracks(positions, faces, none, none))
    truth = Truth(
        clip_id=clip.clip_id, name="tracks", format="mv4d-truth/1", folder=folder, parts=(), offset=0.0, step=0.0,
        names=(), mask_iou=1.0, num_seen=0,
    )  # fmt: skip
    tables = Tables(store)
    tables.write(Clip, "clips", [clip], made_by="test@0", made_from="a")
    tables.write(Truth, "truth", [truth], made_by="test@0", made_from="a")
    return store, clip
