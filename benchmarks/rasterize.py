"""How much faster does the CPU rasterizer draw Gaussians, and differentiate the pictures, than plain PyTorch?

A clip's worth of pictures, 16 frames from 4 cameras, of a ball of Gaussians. The plain rasterizer has the same formulas
as tensor operations, by tiles of 16 pixels, and leaves gradients to autograd. It draws a few of the pictures, in turns
with ours, and its time is scaled up to all. Pictures and gradients must agree. Time is processor time of one thread.

    python -m benchmarks.rasterize [--sizes 64 128] [--gaussians 5000] [--rounds 2]
"""

import argparse
import functools
import os
import statistics
import time
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.measured import last_line, say
from fourd.rendering import plain, rasterization
from pipeline.cameras import look_at_origin, pinhole

NUM_FRAMES, NUM_CAMERAS = 16, 4
NUM_PICTURES = NUM_FRAMES * NUM_CAMERAS
by_tiles = functools.partial(plain.rasterization, tile_px=16)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 128], help="pixels of a picture's side")
    parser.add_argument("--gaussians", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=2, help="times that ours draws all, and the plain one a picture")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    factors: list[float] = []
    found: list[str] = []
    for size_px in arguments.sizes:
        our_s, their_s = seconds(size_px, arguments.gaussians, arguments.rounds)
        say(f"{size_px} px: ours {our_s:.2f} s, plain {their_s:.1f} s, {their_s / our_s:.0f} times")
        factors.append(their_s / our_s)
        found.append(f"{size_px} px {our_s:.2f} s against {their_s:.0f} s")
    last_line(
        name="rasterize",
        value=min(factors),
        unit=f"times faster at the size where it is least; forward and backward of {NUM_PICTURES} pictures of "
        f"{arguments.gaussians} Gaussians: {'; '.join(found)}; processor time of one thread",
        baseline=f"plain PyTorch by tiles, {arguments.rounds} of the pictures scaled up",
        goal=">= 15",
    )


def seconds(size_px: int, num_gaussians: int, rounds: int) -> tuple[float, float]:
    """Processor seconds for all pictures, ours and plain."""
    frames = [ball(num_gaussians, seed) for seed in range(NUM_FRAMES)]
    clip = [torch.stack(values) for values in zip(*frames, strict=True)]
    viewmats, Ks = cameras(size_px)
    all_viewmats, all_Ks = viewmats.expand(NUM_FRAMES, -1, -1, -1), Ks.expand(NUM_FRAMES, -1, -1, -1)
    compare(frames[0], viewmats[:1], Ks[:1], size_px)
    ours, theirs = [], []
    for number in range(rounds):
        one = slice(number % NUM_CAMERAS, number % NUM_CAMERAS + 1)
        started = time.process_time()
        draw(rasterization, clip, all_viewmats, all_Ks, size_px)
        between = time.process_time()
        draw(by_tiles, frames[number % NUM_FRAMES], viewmats[one], Ks[one], size_px)
        theirs.append(time.process_time() - between)
        ours.append(between - started)
    return statistics.median(ours), statistics.median(theirs) * NUM_PICTURES


def ball(count: int, seed: int) -> list[Tensor]:
    """Means, quaternions, scales, opacities and colours."""
    rng = np.random.default_rng(seed)
    means = rng.normal(size=(count, 3))
    means *= 0.8 * rng.random((count, 1)) ** (1 / 3) / np.linalg.norm(means, axis=1, keepdims=True)
    scales = 0.03 * np.exp(0.3 * rng.normal(size=(count, 3)))
    parts = (means, rng.normal(size=(count, 4)), scales, 0.05 + 0.9 * rng.random(count), rng.random((count, 3)))
    return [torch.from_numpy(part).float() for part in parts]


def cameras(size_px: int) -> tuple[Tensor, Tensor]:
    """World to camera and intrinsics of a ring."""
    poses = [look_at_origin(360 * camera / NUM_CAMERAS, 15.0, 3.0) for camera in range(NUM_CAMERAS)]
    fx, fy, cx, cy = pinhole(40.0, size_px)
    K = torch.tensor([[fx, 0, cx], [0, fy, cy], [0, 0, 1.0]])
    return torch.from_numpy(np.linalg.inv(np.stack(poses))).float(), K.expand(NUM_CAMERAS, 3, 3)


def draw(rasterizer: Any, gaussians: list[Tensor], viewmats: Tensor, Ks: Tensor, size_px: int) -> list[Tensor]:
    """Pictures, and gradients of their mean square error against grey."""
    wanted = [part.clone().requires_grad_() for part in gaussians]
    pictures, _, _ = rasterizer(*wanted, viewmats, Ks, size_px, size_px)
    loss = ((pictures - 0.5) ** 2).sum()
    return [pictures.detach(), *torch.autograd.grad(loss, wanted)]


def compare(gaussians: list[Tensor], viewmats: Tensor, Ks: Tensor, size_px: int) -> None:
    ours = draw(rasterization, gaussians, viewmats, Ks, size_px)
    theirs = draw(by_tiles, gaussians, viewmats, Ks, size_px)
    for mine, other in zip(ours, theirs, strict=True):
        error = float((mine - other).norm() / other.norm())
        assert error < 1e-2, f"ours and the plain rasterizer differ by {error:.2%}"


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
