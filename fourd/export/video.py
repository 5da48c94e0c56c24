"""Moving Gaussians as videos: a turn round the object while it moves, and fixed views."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from fourd.export.splats import SplatSequence
from fourd.files import written_beside
from fourd.gaussians import Gaussians
from fourd.rendering import rasterization
from pipeline.cameras import look_at_origin, pinhole
from pipeline.media import GREY
from pipeline.mp4 import encode_mp4


@dataclass(frozen=True, kw_only=True)
class VideoSettings:
    """How the videos are drawn. The cameras are those of the clips: on a sphere, looking at the origin."""

    size_px: int = 512
    radius: float = 3.0
    fov_deg: float = 40.0
    elevation_deg: float = 15.0
    fixed_azimuths_deg: tuple[float, ...] = (0.0, 90.0, 180.0, 270.0)
    """A video each."""
    seconds_a_turn: float = 6.0
    """The motion is repeated until the camera is round."""
    background: float = GREY

    def __post_init__(self) -> None:
        if not 16 <= self.size_px <= 4096:
            raise ValueError(f"size_px must lie in 16..4096, got {self.size_px}")
        if self.seconds_a_turn <= 0 or not 0.0 <= self.background <= 1.0:
            raise ValueError(f"need seconds_a_turn > 0 and background in 0..1, got {self}")
        look_at_origin(0.0, self.elevation_deg, self.radius)
        pinhole(self.fov_deg, self.size_px)


def write_videos(sequence: SplatSequence, folder: Path, settings: VideoSettings | None = None) -> list[Path]:
    """`turntable.mp4` and `view_<azimuth>.mp4` for each fixed view, H.264; their paths."""
    settings = settings or VideoSettings()
    num_frames = len(sequence.frames)
    num_pictures = max(num_frames, round(settings.seconds_a_turn * sequence.fps))
    turn = [(index % num_frames, 360.0 * index / num_pictures) for index in range(num_pictures)]
    ways = {"turntable.mp4": turn}
    for azimuth in settings.fixed_azimuths_deg:
        ways[f"view_{azimuth:03.0f}.mp4"] = [(frame, azimuth) for frame in range(num_frames)]
    for name, way in ways.items():
        pictures = np.stack([_picture(sequence.frames[frame], azimuth, settings) for frame, azimuth in way])
        with written_beside(folder / name) as aside:
            aside.write_bytes(encode_mp4(pictures, sequence.fps))
    return [folder / name for name in ways]


@torch.no_grad()
def _picture(gaussians: Gaussians, azimuth_deg: float, settings: VideoSettings) -> np.ndarray:
    """Shape (size_px, size_px, 3), uint8."""
    means = gaussians.means
    w2c = np.linalg.inv(look_at_origin(azimuth_deg, settings.elevation_deg, settings.radius))
    fx, fy, cx, cy = pinhole(settings.fov_deg, settings.size_px)
    image, _, _ = rasterization(
        means,
        gaussians.quats,
        gaussians.log_scales.exp(),
        gaussians.opacity_logits.sigmoid(),
        gaussians.sh,
        torch.from_numpy(w2c[None]).to(means),
        torch.tensor([[[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]]]).to(means),
        settings.size_px,
        settings.size_px,
        sh_degree=gaussians.sh_degree,
        backgrounds=means.new_full((1, 3), settings.background),
    )
    return (image[0].clamp(0.0, 1.0) * 255.0).round().to(torch.uint8).cpu().numpy()
