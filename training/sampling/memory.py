"""Whether weights and clips go into memory: counted before anything long begins, rather too little than too much."""

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from pipeline.machine import free_memory_mb
from training.sampling.pipeline import MultiViewVideoPipeline

LIVING = 20
"""Tensors as large as the widest layer's that a transformer block holds at once, at least: its feed-forward part takes
eight times its width and four times again, the skip connections the rest."""
LIVING_IN_VAE = 3
DECODED_AT_ONCE = 16
"""Pictures: `MultiViewVideoPipeline.decode_latents`."""
SHARE = 0.9
"""Of the free memory that may be planned with."""


class MemoryShort(ValueError):
    """What is asked for does not go into memory; the message says what would."""

    def __init__(self, what: str, needed_mb: float, free_mb: float, advice: str) -> None:
        super().__init__(f"{what} about {needed_mb:,.0f} MB, and {free_mb:,.0f} MB are free: {advice} [memory]")
        self.reason = "memory"


def check_weights(folder: Path, device: torch.device, dtype: torch.dtype) -> None:
    """Refuse a pipeline folder whose weights do not go into memory, before they are read.

    Raises:
        MemoryShort: They do not.
    """
    needed_mb = _num_weights(folder) * dtype.itemsize / 2**20
    if needed_mb > SHARE * (free_mb := _free_mb(device)):
        advice = "say --compute bfloat16, or end other programs" if dtype.itemsize > 2 else "end other programs"
        raise MemoryShort(f"{folder}: its weights, as {str(dtype)[6:]}, take", needed_mb, free_mb, advice)


def check_clips(
    pipeline: MultiViewVideoPipeline, *, num_clips: int, num_views: int, num_frames: int, size_px: tuple[int, int],
    guided: bool,
) -> None:  # fmt: skip
    """Refuse clips that do not go into memory at once, before any is sampled.

    Args:
        pipeline: Its weights are in memory.
        num_clips: That are sampled at once.
        num_views: Of each.
        num_frames: Of each.
        size_px: Width and height of their pictures.
        guided: By classifier-free guidance, which asks the network twice.

    Raises:
        MemoryShort: They do not.
    """
    width, height = size_px
    count, num_bytes = num_clips * num_views * num_frames, pipeline.unet.dtype.itemsize
    cells = (width // pipeline.latent_px) * (height // pipeline.latent_px)
    network = count * (2 if guided else 1) * cells * pipeline.unet.config["block_out_channels"][0] * num_bytes * LIVING
    channels = pipeline.vae.config.get("block_out_channels", (3,))[0]
    vae = min(count, DECODED_AT_ONCE) * width * height * channels * num_bytes * LIVING_IN_VAE
    pictures = count * 3 * width * height * 4
    needed_mb = max(network, vae + pictures) / 2**20
    if needed_mb > SHARE * (free_mb := _free_mb(pipeline.unet.device)):
        size = f"{num_frames} frames and {width} x {height} px"
        what = f"sampling {num_clips} clips of {num_views} views, {size} at once takes"
        raise MemoryShort(what, needed_mb, free_mb, "make the batch, the pictures or the number of frames smaller")


def _num_weights(folder: Path) -> int:
    """Of all parts; files that are none are left for their readers to complain about."""
    total = 0
    for path in folder.glob("*/*.safetensors"):
        try:
            with safe_open(path, framework="pt") as file:
                total += sum(torch.Size(file.get_slice(name).get_shape()).numel() for name in file.keys())  # noqa: SIM118 - no mapping
        except (SafetensorError, OSError):
            continue
    return total


def _free_mb(device: torch.device) -> float:
    return torch.cuda.mem_get_info(device)[0] / 2**20 if device.type == "cuda" else free_memory_mb()
