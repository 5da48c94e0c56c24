"""Gaussians that a field moves: their pictures, and the files that hold them."""

import json
import math
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from fourd.canonical import Canonical
from fourd.files import written_beside
from fourd.gaussians import Gaussians
from fourd.light import even_light, lit
from fourd.motion.field import Motion, MotionField
from fourd.motion.rotations import matrix_of_quaternion
from fourd.rendering import rasterization
from fourd.rendering.spherical_harmonics import C0

FORMAT = "mv4d-gaussians4d/1"


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """How Gaussians become pixels."""

    supersampling: int = 1
    """Each pixel is the mean of so many across, and down."""
    eps2d: float = 0.3
    """Added to the variances of Gaussians on the picture, in (finer) pixels squared: see `rasterization`."""
    is_lit: bool = False
    """Colours on a mesh are base colours, under a light that is fitted with them: they change as the surface turns."""

    def __post_init__(self) -> None:
        if not 1 <= self.supersampling <= 8 or self.eps2d < 0:
            raise ValueError(f"supersampling must be 1 to 8 and eps2d not below 0, got {self}")


class MovingGaussians(nn.Module):
    """A canonical object, the field that moves it, and how it looks."""

    def __init__(self, canonical: Canonical, field: MotionField, drawing: Drawing | None = None) -> None:
        super().__init__()
        self.drawing = drawing or Drawing()
        self.canonical = canonical
        self.field = field
        gaussians = canonical.gaussians
        self.sh = nn.Parameter(gaussians.sh.clone())
        self.opacity_logits = nn.Parameter(gaussians.opacity_logits.clone())
        self.log_scales = nn.Parameter(gaussians.log_scales.clone())
        # Without a mesh no one knows where a Gaussian's surface faces.
        is_lit = self.drawing.is_lit and canonical.faces is not None and gaussians.sh_degree == 0
        self.light = nn.Parameter(even_light(gaussians.sh.device)) if is_lit else None

    def motion(self, frames: Tensor) -> tuple[Motion, Motion]:
        """Points and Gaussians at some frames; at frame 0 both are the object's own, bit by bit."""
        frames = frames.to(self.sh.device)
        points = self.field(frames)
        own = self.canonical.gaussians
        if self.canonical.binding.is_one_to_one:
            growth = points.log_scales - self.field.log_scales
            return points, replace(points, log_scales=self.log_scales + growth)
        carried = self.canonical.binding.carry(points, own.quats, self.log_scales)
        untouched = (frames == 0)[:, None, None]
        return points, Motion(
            positions=torch.where(untouched, own.means, carried.positions),
            quats=torch.where(untouched, own.quats, carried.quats),
            log_scales=torch.where(untouched, self.log_scales, carried.log_scales),
        )

    def at_frame(self, frame: int) -> Gaussians:
        """The Gaussians at one frame, without gradient; light is that of frame 0, so that colours stay as they are."""
        with torch.no_grad():
            _, moved = self.motion(torch.tensor([frame], device=self.sh.device))
            sh = self.sh.detach()
            if self.light is not None:
                normals = normals_of(self.canonical.gaussians.quats)
                sh = (lit(self.base_colors(), self.light, normals[None])[0, :, None] - 0.5) / C0
        return Gaussians(
            means=moved.positions[0], quats=moved.quats[0], log_scales=moved.log_scales[0],
            opacity_logits=self.opacity_logits.detach(), sh=sh,
        )  # fmt: skip

    def base_colors(self) -> Tensor:
        """Colours of the first band, sRGB, not below 0. Shape (N, 3)."""
        return (0.5 + C0 * self.sh[:, 0]).clamp(min=0)

    def colors(self, moved: Motion, w2c: Tensor) -> Tensor:
        """Colours as cameras see them, without bands above the first.

        Args:
            moved: The Gaussians: `motion(frames)[1]`.
            w2c: Shape (F, C, 4, 4).

        Returns:
            sRGB, shape (F, C, N, 3).
        """
        colors = self.base_colors()
        if self.light is None:
            return colors.expand(*w2c.shape[:2], *colors.shape)
        # Shading pulls at nothing: outlines and colours say where things are, and it would double a step's time.
        return lit(colors, self.light, normals_of(moved.quats.detach()), _towards(moved, w2c))

    def hidden(self, moved: Motion, w2c: Tensor) -> Tensor | None:
        """Gaussians that show a camera a back which is not seen, shape (F, C, N); None if there is no such surface."""
        hides_its_back = self.canonical.hides_its_back
        if hides_its_back is None:
            return None
        normals = normals_of(moved.quats.detach())
        return hides_its_back & ((_towards(moved, w2c) * normals[:, None]).sum(dim=-1) < 0)

    def tracks(self) -> Tensor:
        """Where the points are at all frames, without gradient. Shape (T, P, 3)."""
        with torch.no_grad():
            frames = torch.arange(self.field.num_frames, device=self.sh.device)
            return torch.cat([self.field(frames[i : i + 4]).positions for i in range(0, len(frames), 4)])

    def pictures(
        self,
        moved: Motion,
        w2c: Tensor,
        camera: Tensor,
        width: int,
        height: int,
        *,
        background: float,
        with_depth: bool = False,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Renders of Gaussians at F frames by C cameras.

        Args:
            moved: The Gaussians: `motion(frames)[1]`.
            w2c: Shape (F, C, 4, 4).
            camera: Intrinsics, shape (3, 3).
            width: Pixels.
            height: Pixels.
            background: Grey level.
            with_depth: Render depth as well.

        Returns:
            Colours (F, C, H, W, 3), alpha (F, C, H, W) and depth (F, C, H, W) or None.
        """
        num_frames, num_cameras = w2c.shape[:2]
        finer = self.drawing.supersampling
        camera = camera * camera.new_tensor([[finer], [finer], [1]])
        degree = math.isqrt(self.sh.shape[1]) - 1
        # Without bands above the first the colour is known at once.
        colors = self.sh if degree else self.base_colors()
        colors = colors.expand(num_frames, *colors.shape) if self.light is None else self.colors(moved, w2c)
        means, quats, scales = moved.positions, moved.quats, moved.log_scales.exp()
        opacities = self.opacity_logits.sigmoid().expand(num_frames, -1)
        cameras = camera.expand(num_frames, num_cameras, 3, 3)
        backgrounds = torch.full((num_frames, num_cameras, 3), background, device=w2c.device)
        hidden = self.hidden(moved, w2c)
        if hidden is not None:
            # The rasterizer has one opacity for all cameras: here each is a batch of its own.
            means, quats, scales = (
                of_frame[:, None].expand(-1, num_cameras, -1, -1) for of_frame in (means, quats, scales)
            )
            opacities = torch.where(hidden, 0.0, opacities[:, None])
            if self.light is None:
                colors = colors[:, None].expand(-1, num_cameras, *[-1] * (colors.dim() - 1))
            w2c, cameras, backgrounds = w2c[:, :, None], cameras[:, :, None], backgrounds[:, :, None]
        rendered, alpha, _ = rasterization(
            means.contiguous(),
            quats.contiguous(),
            scales.contiguous(),
            opacities.contiguous(),
            colors.contiguous(),
            w2c.contiguous(),
            cameras.contiguous(),
            width * finer,
            height * finer,
            eps2d=self.drawing.eps2d,
            sh_degree=degree if degree else None,
            backgrounds=backgrounds,
            render_mode="RGB+ED" if with_depth else "RGB",
        )
        if hidden is not None:
            rendered, alpha = rendered.squeeze(2), alpha.squeeze(2)
        rendered, alpha = averaged(rendered, finer), averaged(alpha, finer)
        return rendered[..., :3], alpha[..., 0], rendered[..., 3] if with_depth else None


def _towards(moved: Motion, w2c: Tensor) -> Tensor:
    """From Gaussians to cameras, shape (F, C, N, 3), without gradient."""
    eyes = -(w2c[..., :3, :3].mT @ w2c[..., :3, 3:]).squeeze(-1)
    return eyes[:, :, None] - moved.positions.detach()[:, None]


def normals_of(quats: Tensor) -> Tensor:
    """The z axes that quaternions of any length but zero turn to: across flat Gaussians. Shape (..., 3)."""
    return matrix_of_quaternion(quats)[..., 2]


def averaged(pictures: Tensor, count: int) -> Tensor:
    """The means of squares of count x count pixels. Shape (..., height / count, width / count, channel)."""
    if count == 1:
        return pictures
    # Two to four times as fast as `sum` over so short an axis, there and back; for a count of 2 to 4 the same bits.
    rows = reduce(torch.add, pictures.unflatten(-2, (-1, count)).unbind(-2))
    return reduce(torch.add, rows.unflatten(-3, (-1, count)).unbind(-3)) / count**2


def save_moving(model: MovingGaussians, path: Path, *, fps: float) -> None:
    """Write the Gaussians of all frames as safetensors: `means` (T, N, 3), `quats` (T, N, 4), `log_scales` (T, N, 3),
    `opacity_logits` (N,), `sh` (N, K, 3); `format`, `fps` and `num_frames` in the header."""
    frames = [model.at_frame(frame) for frame in range(model.field.num_frames)]
    tensors = {
        "means": torch.stack([gaussians.means for gaussians in frames]),
        "quats": torch.stack([gaussians.quats for gaussians in frames]),
        "log_scales": torch.stack([gaussians.log_scales for gaussians in frames]),
        "opacity_logits": frames[0].opacity_logits,
        "sh": frames[0].sh,
    }
    header = {"format": FORMAT, "fps": json.dumps(fps), "num_frames": json.dumps(len(frames))}
    cpu = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with written_beside(path) as beside:
        save_file(cpu, beside, metadata=header)


class MovingFileError(ValueError):
    """A file of moving Gaussians that cannot be read: the message names it and what is wrong."""

    def __init__(self, path: Path, reason: str, detail: str) -> None:
        super().__init__(f"{path}: {detail} [{reason}]")
        self.reason = reason


def read_moving(path: Path) -> tuple[list[Gaussians], float]:
    """Gaussians frame by frame, and frames a second, of a file that `save_moving` wrote.

    Raises:
        MovingFileError: It is absent, damaged, or no such file.
    """
    if not path.is_file():
        raise MovingFileError(path, "not_found", "no such file")
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except (SafetensorError, OSError, ValueError) as error:
        raise MovingFileError(path, "damaged", f"not a whole safetensors file: {error}") from error
    if header.get("format") != FORMAT:
        raise MovingFileError(path, "layout", f"not of format {FORMAT}; `mv4d reconstruct` writes such files")
    means = tensors.get("means", torch.zeros(0))
    if means.dim() != 3:
        raise MovingFileError(path, "layout", f"means of shape {tuple(means.shape)}")
    num_frames, count = means.shape[:2]
    num_coefficients = next((size for size in (1, 4, 9, 16) if tensors.get("sh", means).shape[1] == size), 1)
    wanted: dict[str, tuple[int, ...]] = {
        "means": (num_frames, count, 3), "quats": (num_frames, count, 4), "log_scales": (num_frames, count, 3),
        "opacity_logits": (count,), "sh": (count, num_coefficients, 3),
    }  # fmt: skip
    for name, shape in wanted.items():
        tensor = tensors.get(name)
        if tensor is None or tuple(tensor.shape) != shape or tensor.dtype != torch.float32:
            raise MovingFileError(path, "layout", f"{name} is not float32 of shape {shape}")
        if not bool(torch.isfinite(tensor).all()):
            raise MovingFileError(path, "non_finite", f"{name} has values that are not finite")
    frames = [
        Gaussians(
            means=tensors["means"][frame], quats=tensors["quats"][frame], log_scales=tensors["log_scales"][frame],
            opacity_logits=tensors["opacity_logits"], sh=tensors["sh"],
        )
        for frame in range(num_frames)
    ]  # fmt: skip
    return frames, float(header.get("fps", "8"))


def save_tracks(model: MovingGaussians, path: Path, *, fps: float) -> None:
    """Write where the points are as .npz: `positions` (T, P, 3) float32, `faces` (F, 3) int64, `fps`."""
    faces = model.canonical.faces if model.canonical.faces is not None else np.zeros((0, 3), dtype=np.int64)
    with written_beside(path) as beside, open(beside, "wb") as file:
        np.savez_compressed(file, positions=model.tracks().cpu().numpy(), faces=faces, fps=np.float64(fps))
