"""All that people look at and open, made from what a reconstruction has found."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from fourd.export.glb import GlbSettings, write_animated_glb
from fourd.export.skeleton import SkeletonSettings
from fourd.export.skinned_glb import write_skinned_glb
from fourd.export.splats import SUFFIX, SplatSequence, write_ply_frames, write_splats
from fourd.export.video import VideoSettings, write_videos
from fourd.gaussians import Gaussians
from fourd.objects.static import StaticObject
from fourd.viewer.page import find_shown, write_page

ANIMATED, SPLATS, PAGE, PLY_FOLDER = "animated.glb", f"object{SUFFIX}", "view.html", "ply"


@dataclass(frozen=True, kw_only=True)
class ExportSettings:
    """What is written beside Gaussians and tracks."""

    mesh: Literal["morph", "skeleton"] = "morph"
    """morph: a morph target a key frame, exact. skeleton: bones fitted to the motion; smaller, and easier to edit."""
    ply: bool = False
    """Also a splat .ply for each frame, for viewers that know nothing else."""
    videos: bool = True
    """MP4: a turntable and four fixed views."""
    glb: GlbSettings = field(default_factory=GlbSettings)
    skeleton: SkeletonSettings = field(default_factory=SkeletonSettings)
    video: VideoSettings = field(default_factory=VideoSettings)


def export_result(
    folder: Path,
    gaussians: list[Gaussians],
    fps: float,
    *,
    static: StaticObject | None = None,
    tracks: np.ndarray | None = None,
    settings: ExportSettings | None = None,
) -> list[Path]:
    """Write the animated GLB, the splat sequence, videos and the page that plays them; their paths.

    Args:
        folder: Where all goes.
        gaussians: Frame by frame.
        fps: Frames a second.
        static: The mesh at frame 0; without one there is no GLB.
        tracks: Of its vertices, shape (T, V, 3).
        settings: What is wanted.

    Raises:
        ExportError: The mesh cannot carry the motion.
    """
    settings = settings or ExportSettings()
    sequence = SplatSequence(frames=tuple(gaussians), fps=fps)
    written = []
    if static is not None and tracks is not None:
        if settings.mesh == "skeleton":
            write_skinned_glb(static, tracks, fps, folder / ANIMATED, settings.skeleton)
        else:
            write_animated_glb(static, tracks, fps, folder / ANIMATED, settings.glb)
        written.append(folder / ANIMATED)
    write_splats(sequence, folder / SPLATS)
    written.append(folder / SPLATS)
    if settings.ply:
        written += write_ply_frames(sequence, folder / PLY_FOLDER)
    if settings.videos:
        written += write_videos(sequence, folder, settings.video)
    write_page(find_shown(folder), folder / PAGE)
    return [folder / PAGE, *written]
