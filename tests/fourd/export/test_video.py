"""Videos of moving Gaussians."""

import io
from pathlib import Path

import av
import numpy as np
import torch

from fourd.export.splats import SplatSequence
from fourd.export.video import VideoSettings, write_videos
from fourd.gaussians import Gaussians


def red_ball_rising(num_frames: int = 4) -> SplatSequence:
    red = (torch.tensor([[0.9, 0.1, 0.1]]) - 0.5) / 0.28209479
    frames = [
        Gaussians(
            means=torch.tensor([[0.0, -0.5, -0.4 + 0.25 * index]]),
            quats=torch.tensor([[1.0, 0, 0, 0]]),
            log_scales=torch.full((1, 3), 0.12).log(),
            opacity_logits=torch.tensor([6.0]),
            sh=red[:, None],
        )
        for index in range(num_frames)
    ]
    return SplatSequence(frames=tuple(frames), fps=4.0)


def red_spots(path: Path) -> tuple[list[tuple[float, float]], float]:
    """Row and column of the middle of what is red in each picture, and pictures a second."""
    with av.open(io.BytesIO(path.read_bytes())) as container:
        assert container.streams.video[0].codec_context.name == "h264"
        rate = float(container.streams.video[0].average_rate or 0)
        pictures = [frame.to_ndarray(format="rgb24").astype(float) for frame in container.decode(video=0)]
    spots = []
    for picture in pictures:
        redness = np.clip(picture[..., 0] - picture[..., 1] - 40, 0, None)
        rows, columns = np.indices(redness.shape)
        spots.append(((rows * redness).sum() / redness.sum(), (columns * redness).sum() / redness.sum()))
    return spots, rate


def test_fixed_views_show_the_motion_and_the_turntable_goes_round(tmp_path: Path) -> None:
    settings = VideoSettings(size_px=64, seconds_a_turn=2.0, fixed_azimuths_deg=(0.0, 90.0), elevation_deg=0.0)
    paths = write_videos(red_ball_rising(), tmp_path, settings)
    assert [path.name for path in paths] == ["turntable.mp4", "view_000.mp4", "view_090.mp4"]
    front, rate = red_spots(tmp_path / "view_000.mp4")
    assert rate == 4.0
    rows, columns = np.array(front).T
    assert (np.diff(rows) < -4).all()
    assert np.abs(columns - 32).max() < 2
    # From azimuth 90, at +x, what is at the front is on the left.
    assert np.array(red_spots(tmp_path / "view_090.mp4")[0])[:, 1].max() < 26
    turn, _ = red_spots(tmp_path / "turntable.mp4")
    assert len(turn) == 8
    across = np.array(turn)[:, 1]
    assert abs(across[0] - 32) < 2
    assert across[2] < 26
    assert across[6] > 38
