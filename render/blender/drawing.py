"""Pictures of the stage: framing over all frames, cameras, lights and Cycles."""

import math
import os
import shutil
import struct
import tempfile
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import bpy
import numpy as np
import numpy.typing as npt

from render.blender import devices, motion
from render.blender.evaluating import Evaluator, Topology, frame_of
from render.blender.importing import parent_all
from render.blender.lighting import Lighting, OwnLights
from render.blender.motion import Floats
from render.protocol import CPU, BadAsset, Draw, Drawn, Paths

BLENDER_FROM_OPENCV = np.diag([1.0, -1.0, -1.0, 1.0])
CLIP_RADIUS = 1.5
"""Nothing is farther from the origin than this many times the farthest point that is framed."""
CROP_MARGIN_PX = 2
"""Around the projected box: the pixel filter spreads by half its width."""
VIEW_TRANSFORMS = {"standard": "Standard", "filmic": "Filmic"}
COMFORT = (1e-4, 1e5)
"""Radii in Blender's units at which single precision does not show; wider than the importer's, so hardly ever left."""
FAR_OFF = 1e3
"""Radii between the origin and the object at which it begins to show."""


@dataclass(frozen=True, kw_only=True)
class Framing:
    """world = scale * (asset_point - centre)."""

    scale: float
    centre: Floats
    shapes: dict[tuple[int, float], Floats]
    """World points of each frame."""

    @property
    def radius(self) -> float:
        """Distance of the farthest point from the origin: 1 if all frames are framed."""
        return max(float(np.linalg.norm(points, axis=1).max()) for points in self.shapes.values() if len(points))


def frame_all(evaluator: Evaluator, topology: Topology, times_s: list[float], by_first_box: bool = False) -> Framing:
    """The common framing of all frames: all points lie inside the unit sphere, unless the first box decides.

    Args:
        evaluator: Of the loaded asset.
        topology: Of the loaded asset.
        times_s: Of the frames.
        by_first_box: Centre the box at the first time that shows something, and make its largest side 1.

    Raises:
        BadAsset: A coordinate is not finite, or nothing is visible.
    """
    shapes: dict[tuple[int, float], Floats] = {}
    for time_s in times_s:
        key = frame_of(time_s, evaluator.fps)
        if key not in shapes:
            evaluator.go_to(time_s)
            now = evaluator.snapshot(topology)
            if not now.finite:
                raise BadAsset("non_finite", f"a vertex is not finite at {time_s} s")
            shapes[key] = np.concatenate([now.visible(), evaluator.strands()])
    seen = [points for points in shapes.values() if len(points)]
    if not seen:
        raise BadAsset("no_mesh", "nothing is visible at these times")
    boxes = np.stack([motion.box_of(points) for points in seen])
    if by_first_box:
        centre = boxes[0].mean(axis=0)
        size = float(np.ptp(boxes[0], axis=0).max())
    else:
        centre = motion.union_box(boxes).mean(axis=0)
        size = max(float(np.linalg.norm(points - centre, axis=1).max()) for points in seen)
    scale = 1.0 / size
    world = {key: scale * (points - centre) for key, points in shapes.items()}
    return Framing(scale=scale, centre=centre, shapes=world)


def draw(
    evaluator: Evaluator,
    topology: Topology,
    own_lights: OwnLights,
    request: Draw,
    on_image: Callable[[int, int], None],
) -> Drawn:
    """Render all views and frames into the request's folder. The animation is bound already.

    Args:
        evaluator: Of the loaded asset.
        topology: Of the loaded asset.
        own_lights: Of the loaded asset.
        request: What to draw.
        on_image: Called after each picture with how many are done and how many there are.

    Raises:
        BadAsset: The geometry cannot be framed.
    """
    started = time.perf_counter()
    framing = frame_all(evaluator, topology, request.times_s, by_first_box=request.framing == "first_box")
    pictures = _plan(request, evaluator.fps)
    num_files = sum(len(picture.paths) for picture in pictures)
    outside_px, draw_s, done = 0.0, 0.0, 0
    with (
        tempfile.TemporaryDirectory() as scratch,
        Lighting(evaluator.stage, request.light, own_lights) as lighting,
        _Studio(evaluator, request, framing, scratch) as studio,
    ):
        frame = None
        for picture in pictures:
            if picture.frame != frame:
                frame = picture.frame
                evaluator.stage.frame_set(frame[0], subframe=frame[1])
            box, outside = projected_box(framing.shapes[frame], picture.c2w, request.fov_deg, request.size_px)
            outside_px = max(outside_px, outside)
            image = np.zeros((request.size_px, request.size_px, 4), dtype=np.uint8)
            if box is not None:
                render_started = time.perf_counter()
                crop = studio.render(picture.c2w, box)
                draw_s += time.perf_counter() - render_started
                left, top, right, bottom = box
                image[top:bottom, left:right] = crop
            write_png(picture.paths[0], image)
            for path in picture.paths[1:]:
                shutil.copyfile(picture.paths[0], path)
            for _ in picture.paths:
                done += 1
                on_image(done, num_files)
    return Drawn(
        world_scale=framing.scale,
        world_centre=framing.centre.tolist(),
        own_light=lighting.is_own,
        draw_s=draw_s,
        prepare_s=time.perf_counter() - started - draw_s,
        outside_px=outside_px,
    )


@dataclass(frozen=True, kw_only=True)
class _Picture:
    """One render; several files if the same thing is seen by the same camera again."""

    frame: tuple[int, float]
    c2w: Floats
    paths: list[str]


def _plan(request: Draw, fps: float) -> list[_Picture]:
    """Pictures in the order of rendering, frame outer and view inner: Blender syncs the scene once a frame."""
    keys = [frame_of(time_s, fps) for time_s in request.times_s]
    pictures: dict[tuple[tuple[int, float], tuple[float, ...]], _Picture] = {}
    for index, own_key in enumerate(keys):
        for view in request.views:
            if os.path.basename(view.name) != view.name or not view.name:
                raise ValueError(f"a view's name is a file name's beginning, got {view.name!r}")
            if len(view.c2w) not in (1, len(keys)):
                raise ValueError(f"view {view.name} has {len(view.c2w)} cameras for {len(keys)} frames")
            key = keys[0] if view.frozen else own_key
            camera = tuple(view.c2w[index if len(view.c2w) > 1 else 0])
            c2w = np.array(camera).reshape(4, 4)
            picture = pictures.setdefault((key, camera), _Picture(frame=key, c2w=c2w, paths=[]))
            picture.paths.append(os.path.join(request.out_folder, f"{view.name}_{index:03d}.png"))
    rank = {key: place for place, key in enumerate(dict.fromkeys(keys))}
    return sorted(pictures.values(), key=lambda picture: rank[picture.frame])


def projected_box(
    points: Floats, c2w: Floats, fov_deg: float, size_px: int
) -> tuple[tuple[int, int, int, int] | None, float]:
    """Left, top, right and bottom pixel of what the points cover, margin included, and how far they leave the picture.

    The box is None if nothing is in the picture.
    """
    camera = (points - c2w[:3, 3]) @ c2w[:3, :3]
    depth = camera[:, 2]
    if len(points) == 0 or depth.max() <= 0:
        return None, 0.0
    if depth.min() <= 1e-3:
        return (0, 0, size_px, size_px), float(size_px)
    focal = 0.5 * size_px / math.tan(math.radians(fov_deg) / 2)
    pixels = camera[:, :2] * (focal / depth)[:, None] + size_px / 2
    low, high = pixels.min(axis=0), pixels.max(axis=0)
    outside = max(0.0, float(-low.min()), float(high.max() - size_px))
    left, top = (int(value) for value in np.clip(np.floor(low) - CROP_MARGIN_PX, 0, size_px))
    right, bottom = (int(value) for value in np.clip(np.ceil(high) + CROP_MARGIN_PX, 0, size_px))
    if left >= right or top >= bottom:
        return None, outside
    return (left, top, right, bottom), outside


class _Studio:
    """The stage with camera and render settings, for the length of one draw."""

    def __init__(self, evaluator: Evaluator, request: Draw, framing: Framing, scratch: str) -> None:
        self.stage = evaluator.stage
        self.may_move = evaluator.may_move
        self.request = request
        self.scratch = scratch
        self.scale = framing.scale / evaluator.factor
        """world = scale * (stage_point - centre)."""
        self.centre = framing.centre * evaluator.factor
        self.clip_radius = CLIP_RADIUS * framing.radius
        self.made: list[Any] = []

    def __enter__(self) -> "_Studio":
        size = 1.0 / self.scale
        is_far_off = float(np.abs(self.centre).max()) > FAR_OFF * size
        if self.may_move and (is_far_off or not COMFORT[0] <= size <= COMFORT[1]):
            self._normalise()
        set_look(self.stage, self.request)
        camera = bpy.data.cameras.new("camera")
        camera.sensor_fit, camera.sensor_width = "AUTO", 36.0
        camera.lens = 18.0 / math.tan(math.radians(self.request.fov_deg) / 2)
        self.camera = self._add("camera", camera)
        self.camera.rotation_mode = "QUATERNION"
        self.stage.camera = self.camera
        self.stage.render.use_persistent_data = True
        return self

    def __exit__(self, *_: object) -> None:
        self.stage.render.use_persistent_data = False  # and with it, what Cycles keeps of this draw is freed
        for thing in self.made:
            for child in thing.children:
                child.parent = None
            data = thing.data
            bpy.data.objects.remove(thing)
            if data:
                bpy.data.cameras.remove(data)
        self.made = []

    def render(self, c2w: Floats, box: tuple[int, int, int, int]) -> npt.NDArray[np.uint8]:
        """Straight RGBA of the box, shape (height, width, 4)."""
        place = c2w @ BLENDER_FROM_OPENCV
        distance = float(np.linalg.norm(c2w[:3, 3]))
        place[:3, 3] = c2w[:3, 3] / self.scale + self.centre
        self.camera.matrix_world = place.T.tolist()
        self.camera.data.clip_start = max(distance - self.clip_radius, 1e-2) / self.scale
        self.camera.data.clip_end = (distance + self.clip_radius) / self.scale
        left, top, right, bottom = box
        render, size = self.stage.render, self.request.size_px
        # A quarter of a pixel keeps Blender's rounding down on the right side.
        render.border_min_x, render.border_max_x = (left + 0.25) / size, min(1.0, (right + 0.25) / size)
        render.border_min_y, render.border_max_y = (size - bottom + 0.25) / size, min(1.0, (size - top + 0.25) / size)
        render.filepath = os.path.join(self.scratch, "picture.tga")
        devices.render_still(self.stage, self.request.device)
        return read_tga(render.filepath)

    def _add(self, name: str, data: Any) -> Any:
        thing = bpy.data.objects.new(name, data)
        self.stage.collection.objects.link(thing)
        self.made.append(thing)
        return thing

    def _normalise(self) -> None:
        """Bring the asset itself into the unit sphere; else only the camera goes where the asset is.

        The latter costs nothing and leaves constraints alone that refer to the world.
        """
        parent = parent_all(self.stage, "normalised")
        self.made.append(parent)
        parent.scale = (self.scale,) * 3
        parent.location = (-self.scale * self.centre).tolist()
        self.scale, self.centre = 1.0, np.zeros(3)


def set_look(stage: Any, request: Draw) -> None:
    """Every setting that decides the pixels, so that none is Blender's default of the day."""
    render, cycles = stage.render, stage.cycles
    devices.use(stage, request.engine, request.device)
    render.resolution_x = render.resolution_y = request.size_px
    render.resolution_percentage = 100
    render.film_transparent = True
    cycles.film_transparent_glass, cycles.film_exposure = False, 1.0
    render.use_border = render.use_crop_to_border = True
    render.threads_mode = "FIXED" if request.threads else "AUTO"
    if request.threads:
        render.threads = request.threads
    render.use_compositing = render.use_sequencer = render.use_motion_blur = render.use_freestyle = False
    render.dither_intensity = 0.0
    render.use_file_extension = True
    render.image_settings.file_format = "TARGA_RAW"
    render.image_settings.color_mode = "RGBA"
    render.image_settings.color_depth = "8"
    stage.display_settings.display_device = "sRGB"
    view = stage.view_settings
    view.view_transform, view.look = VIEW_TRANSFORMS[request.view_transform], "None"
    view.exposure, view.gamma = 0.0, 1.0
    view.use_curve_mapping = False
    cycles.samples, cycles.time_limit = request.samples, 0.0
    cycles.seed, cycles.use_animated_seed = request.seed % 2**31, False
    cycles.use_auto_tile = False
    cycles.sampling_pattern = "BLUE_NOISE"
    follow_paths(cycles, request.paths)
    cycles.use_denoising = request.denoise != "none"
    if request.denoise != "none":
        cycles.denoiser = "OPENIMAGEDENOISE"
        cycles.denoising_input_passes = "RGB_ALBEDO_NORMAL"
        cycles.denoising_use_gpu = request.device != CPU  # the same network, and a core less for each child
        fast = request.denoise == "fast"
        cycles.denoising_prefilter = "FAST" if fast else "ACCURATE"
        cycles.denoising_quality = "FAST" if fast else "HIGH"
    follow_eevee(stage, request)


def follow_eevee(stage: Any, request: Draw) -> None:
    """The same for EEVEE: as many samples a pixel, shadows from all lights, and darker corners."""
    eevee = stage.eevee
    stage.render.filter_size = request.paths.filter_width_px
    eevee.taa_render_samples = request.samples
    eevee.use_shadows, eevee.shadow_ray_count, eevee.shadow_step_count = True, 1, 6
    eevee.use_raytracing, eevee.ray_tracing_method = True, "SCREEN"
    eevee.use_fast_gi, eevee.fast_gi_method = True, "AMBIENT_OCCLUSION_ONLY"
    eevee.clamp_surface_direct, eevee.clamp_surface_indirect = 0.0, request.paths.clamp_indirect
    eevee.use_overscan = False


def follow_paths(cycles: Any, paths: Paths) -> None:
    """How far light is followed, and how a pixel gathers it."""
    cycles.pixel_filter_type, cycles.filter_width = "BLACKMAN_HARRIS", paths.filter_width_px
    cycles.use_adaptive_sampling = paths.adaptive_threshold > 0.0
    cycles.adaptive_threshold = paths.adaptive_threshold
    cycles.adaptive_min_samples = paths.adaptive_min_samples
    cycles.use_light_tree = paths.light_tree
    cycles.max_bounces, cycles.diffuse_bounces = paths.max_bounces, paths.diffuse_bounces
    cycles.glossy_bounces, cycles.transmission_bounces = paths.glossy_bounces, paths.transmission_bounces
    cycles.volume_bounces, cycles.transparent_max_bounces = 0, paths.transparent_bounces
    cycles.caustics_reflective = cycles.caustics_refractive = paths.caustics
    cycles.blur_glossy, cycles.light_sampling_threshold = 1.0, 0.01
    cycles.sample_clamp_direct, cycles.sample_clamp_indirect = 0.0, paths.clamp_indirect


def read_tga(path: str) -> npt.NDArray[np.uint8]:
    """RGBA of an uncompressed 32-bit TGA, top row first. Shape (height, width, 4)."""
    with open(path, "rb") as file:
        data = file.read()
    id_length, _, kind = data[0], data[1], data[2]
    width, height, bits, flags = struct.unpack_from("<HHBB", data, 12)
    if kind != 2 or bits != 32:
        raise OSError(f"{path} is not an uncompressed 32-bit TGA")
    pixels = np.frombuffer(data, np.uint8, 4 * width * height, 18 + id_length).reshape(height, width, 4)
    return pixels[:, :, [2, 1, 0, 3]] if flags & 0x20 else pixels[::-1, :, [2, 1, 0, 3]]


def write_png(path: str, rgba: npt.NDArray[np.uint8]) -> None:
    """A PNG with hardly any compression: it is read once and thrown away."""
    height, width = rgba.shape[:2]
    rows = np.zeros((height, 1 + 4 * width), dtype=np.uint8)
    rows[:, 1:] = rgba.reshape(height, -1)
    header = struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes(), 1)), (b"IEND", b"")]
    with open(path, "wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        for name, body in chunks:
            file.write(struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)))
