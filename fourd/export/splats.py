"""Moving Gaussians as files: a .ply a frame, and the whole sequence in one small file.

The small file is a safetensors file, so any program that knows that format opens it. Its metadata has `format`
("mv4d.splats"), `version` ("1"), `fps` and `num_frames`; T frames, N Gaussians, K coefficients; its tensors:

| name | type and shape | meaning |
|---|---|---|
| `bounds` | f32 (T, 2, 3) | lowest and highest position of each frame |
| `positions` | u16 (T, N, 3) | low + q / 65535 * (high - low) |
| `rotations` | u32 (T or 1, N) | unit quaternion by its three smallest parts, 10 bits each |
| `log_scale_bounds` | f32 (2,) | lowest and highest |
| `log_scales` | u16 (T or 1, N, 3) | as positions |
| `opacities` | u8 (T or 1, N) | after the sigmoid, 255 is 1 |
| `sh` | f16 (T or 1, N, K, 3) | as `Gaussians.sh` |

What is the same in all frames is stored once. A rotation's bits 30-31 say which of w, x, y, z is left out (the largest,
made positive); then from bit 20, 10 and 0 the others in their order, (p * sqrt(2) + 1) / 2 * 1023.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from fourd.export.errors import ExportError
from fourd.files import written_beside
from fourd.gaussians import Gaussians
from fourd.objects.ply import write_ply

FORMAT, VERSION = "mv4d.splats", "1"
SUFFIX = ".splats.safetensors"
MAX_BYTES = 4 << 30
"""Largest compact sequence that is read."""
_DTYPES = {
    "bounds": "F32", "positions": "U16", "rotations": "U32", "log_scale_bounds": "F32", "log_scales": "U16",
    "opacities": "U8", "sh": "F16",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class SplatSequence:
    """Gaussians that move; every frame has the same ones in the same order."""

    frames: tuple[Gaussians, ...]
    fps: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.fps) and self.fps > 0):
            raise ValueError(f"fps must be positive, got {self.fps}")
        if not self.frames or len(self.frames[0]) == 0:
            raise ExportError("mismatch", "a splat sequence needs at least one frame with at least one Gaussian")
        for index, frame in enumerate(self.frames):
            for name, value in vars(frame).items():
                if value.shape != vars(self.frames[0])[name].shape:
                    wanted = tuple(vars(self.frames[0])[name].shape)
                    message = f"frame {index}: {name} has shape {tuple(value.shape)}, frame 0 {wanted}"
                    raise ExportError("mismatch", f"{message}; all frames must be the same Gaussians, moved")
                if not bool(torch.isfinite(value).all()):
                    raise ExportError("not_finite", f"frame {index}: {name} has NaN or infinite values")


def write_splats(sequence: SplatSequence, path: Path) -> int:
    """Write the sequence in one file; its size in bytes."""
    content = splats_bytes(sequence)
    with written_beside(path) as aside:
        aside.write_bytes(content)
    return len(content)


def splats_bytes(sequence: SplatSequence) -> bytes:
    """The small file in memory."""
    metadata = {
        "format": FORMAT,
        "version": VERSION,
        "fps": repr(float(sequence.fps)),
        "num_frames": str(len(sequence.frames)),
    }
    return save(pack(sequence), metadata)


def pack(sequence: SplatSequence) -> dict[str, np.ndarray]:
    """The tensors of the small file."""

    def stacked(name: str) -> np.ndarray:
        values = np.stack([vars(frame)[name].detach().cpu().numpy() for frame in sequence.frames]).astype(np.float32)
        return values[:1] if (values == values[:1]).all() else values

    means = np.stack([frame.means.detach().cpu().numpy() for frame in sequence.frames]).astype(np.float32)
    low, high = means.min(axis=1), means.max(axis=1)
    log_scales = stacked("log_scales")
    scale_low, scale_high = log_scales.min(), log_scales.max()
    return {
        "bounds": np.stack([low, high], axis=1),
        "positions": _to_steps(means, low[:, None], high[:, None]),
        "rotations": pack_rotations(stacked("quats")),
        "log_scale_bounds": np.array([scale_low, scale_high], np.float32),
        "log_scales": _to_steps(log_scales, scale_low, scale_high),
        "opacities": np.round(255 / (1 + np.exp(-stacked("opacity_logits")))).astype(np.uint8),
        "sh": np.clip(stacked("sh"), -60000, 60000).astype(np.float16),
    }


def read_splats(path: Path) -> SplatSequence:
    """The sequence of one small file; float32 on the CPU.

    Raises:
        ExportError: `malformed`, `unsupported` (another format or version), `too_large` or `not_finite`.
        OSError: It cannot be opened.
    """
    fps, tensors = read_packed(path)
    low, high = tensors["bounds"][:, :1], tensors["bounds"][:, 1:]
    means = low + tensors["positions"] / np.float32(65535) * (high - low)
    scale_low, scale_high = tensors["log_scale_bounds"]
    # The ends stand for opacities that 8 bits cannot tell from 0 and 1.
    opacity = np.clip(tensors["opacities"] / 255.0, 1e-3, 1 - 1e-3)
    values = {
        "means": means,
        "quats": unpack_rotations(tensors["rotations"]),
        "log_scales": scale_low + tensors["log_scales"] / np.float32(65535) * (scale_high - scale_low),
        "opacity_logits": np.log(opacity / (1 - opacity)),
        "sh": tensors["sh"],
    }
    whole = {name: torch.from_numpy(np.ascontiguousarray(value, np.float32)) for name, value in values.items()}
    frames = tuple(
        Gaussians(**{name: value[min(index, len(value) - 1)] for name, value in whole.items()})
        for index in range(len(means))
    )
    return SplatSequence(frames=frames, fps=fps)


def read_packed(path: Path) -> tuple[float, dict[str, np.ndarray]]:
    """Frames a second, and the tensors as they are in the file, checked.

    Raises:
        ExportError: `malformed`, `unsupported` or `too_large`.
        OSError: It cannot be opened.
    """
    if path.stat().st_size > MAX_BYTES:
        raise ExportError("too_large", f"{path} has over {MAX_BYTES >> 30} GiB; export fewer frames or Gaussians")
    try:
        with safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
            if (metadata.get("format"), metadata.get("version")) != (FORMAT, VERSION):
                message = f"{path} is no {FORMAT} file of version {VERSION}, but says {json.dumps(metadata)[:100]}"
                raise ExportError("unsupported", message)
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
            dtypes = {name: file.get_slice(name).get_dtype() for name in shapes}
            fps, num_frames = float(metadata["fps"]), int(metadata["num_frames"])
            _check_layout(shapes, dtypes, fps, num_frames)
            tensors = {name: file.get_tensor(name) for name in shapes}
    except (SafetensorError, KeyError, IndexError, ValueError) as error:
        if isinstance(error, ExportError):
            raise
        raise ExportError("malformed", f"{path} is not as a {FORMAT} file is: {error}; export it anew") from error
    for name in ("bounds", "log_scale_bounds", "sh"):
        if not np.isfinite(tensors[name]).all():
            raise ExportError("malformed", f"{path}: {name} has NaN or infinite values; export it anew")
    return fps, tensors


def _check_layout(shapes: dict[str, tuple[int, ...]], dtypes: dict[str, str], fps: float, num_frames: int) -> None:
    if dtypes != _DTYPES:
        raise ValueError(f"its tensors are {dtypes}")
    if not (math.isfinite(fps) and fps > 0 and num_frames >= 1):
        raise ValueError(f"fps {fps}, {num_frames} frames")
    count = shapes["positions"][1]
    times = {name: num_frames if shapes[name][:1] == (num_frames,) else 1 for name in shapes}
    coefficients = shapes["sh"][2]
    wanted = {
        "bounds": (num_frames, 2, 3),
        "positions": (num_frames, count, 3),
        "rotations": (times["rotations"], count),
        "log_scale_bounds": (2,),
        "log_scales": (times["log_scales"], count, 3),
        "opacities": (times["opacities"], count),
        "sh": (times["sh"], count, coefficients, 3),
    }
    if shapes != wanted or count < 1 or coefficients not in (1, 4, 9, 16):
        raise ValueError(f"its tensors have the shapes {shapes}")


def pack_rotations(quats: np.ndarray) -> np.ndarray:
    """Quaternions (..., 4), w first, of any length but zero, as uint32 (...)."""
    unit = quats / np.maximum(np.linalg.norm(quats, axis=-1, keepdims=True), 1e-20)
    largest = np.abs(unit).argmax(axis=-1)
    sign = np.where(np.take_along_axis(unit, largest[..., None], axis=-1) < 0, -1.0, 1.0)
    others = (np.arange(3) + (np.arange(3) >= largest[..., None])).astype(np.int64)
    rest = np.take_along_axis(unit * sign, others, axis=-1)
    steps = np.clip(np.round((rest * math.sqrt(2) + 1) / 2 * 1023), 0, 1023).astype(np.uint32)
    packed: np.ndarray = (
        (largest.astype(np.uint32) << 30) | (steps[..., 0] << 20) | (steps[..., 1] << 10) | steps[..., 2]
    )
    return packed


def unpack_rotations(packed: np.ndarray) -> np.ndarray:
    """Unit quaternions (..., 4), w first, float32."""
    largest = (packed >> 30).astype(np.int64)
    steps = np.stack([(packed >> shift) & 1023 for shift in (20, 10, 0)], axis=-1)
    rest = (steps.astype(np.float64) / 1023 * 2 - 1) / math.sqrt(2)
    quats = np.empty((*packed.shape, 4))
    others = np.arange(3) + (np.arange(3) >= largest[..., None])
    np.put_along_axis(quats, others, rest, axis=-1)
    left_out = np.sqrt(np.maximum(1 - (rest**2).sum(axis=-1, keepdims=True), 0))
    np.put_along_axis(quats, largest[..., None], left_out, axis=-1)
    return (quats / np.linalg.norm(quats, axis=-1, keepdims=True)).astype(np.float32)


def _to_steps(values: np.ndarray, low: np.ndarray | float, high: np.ndarray | float) -> np.ndarray:
    span = np.maximum(np.asarray(high, np.float64) - low, 1e-12)
    return np.round((values - low) / span * 65535).astype(np.uint16)


def write_ply_frames(sequence: SplatSequence, folder: Path) -> list[Path]:
    """Write a .ply a frame, `frame_000.ply` and on; sorted by name they are in order. Their paths."""
    digits = max(3, len(str(len(sequence.frames) - 1)))
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"frame_{index:0{digits}d}.ply" for index in range(len(sequence.frames))]
    for path, frame in zip(paths, sequence.frames, strict=True):
        write_ply(frame, path)
    return paths
