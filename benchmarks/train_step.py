"""How much faster is a training step than one of a straightforward implementation on diffusers?

Both are the same network with the same weights, batch and noise, and their losses must agree. The straightforward one
encodes pictures, prompt and first frames with the frozen networks in each step, repeats the first frame's tokens for
every frame before it projects them, as an attention processor of diffusers does, runs eagerly, and uses plain AdamW
without fusing. Ours takes cached latents and embeddings, projects the first frame once, and on a GPU compiles and has a
fused optimizer. Steps alternate, so a machine that gets slower hits both.

On a CPU the sizes are reduced (the encoders' in proportion to the network's); on a GPU they are the published ones, in
bf16, and the share of the GPU's peak is given (MFU: work of the network, forward and backward, and nothing else).

    python -m benchmarks.train_step [--steps 5] [--batch 1]
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from lightning.fabric.utilities.throughput import get_available_flops
from torch import Tensor
from transformers import (
    CLIPImageProcessorPil,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from benchmarks.measured import last_line, say
from training.cameras import ring
from training.encoders import Encoders
from training.model.attention import Grid, MultiViewAttention, attend
from training.model.unet import MultiViewVideoUNet
from training.objective import Batch, Objective
from training.reporting import flops_per_sample
from training.start import letters

CAPTION = "a red fox walks"


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Of the network and of what stands before it."""

    size_px: int
    views: int
    frames: int
    unet: dict[str, Any]
    vae: tuple[int, ...]
    text: dict[str, int]
    vision: dict[str, int]


FULL = Sizes(
    size_px=256,
    views=4,
    frames=16,
    unet={},
    vae=(128, 256, 512, 512),
    text={"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12},
    vision={
        "hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 16,
        "projection_dim": 1024, "image_size": 224, "patch_size": 14,
    },
)  # fmt: skip
"""Stable Diffusion 1.5 with CLIP-L and CLIP ViT-H."""
REDUCED = Sizes(
    size_px=64,
    views=4,
    frames=8,
    unet={"block_out_channels": (64, 128, 256, 256), "norm_num_groups": 16},
    vae=(24, 48, 96, 96),
    text={"hidden_size": 768, "intermediate_size": 768, "num_hidden_layers": 2, "num_attention_heads": 12},
    vision={
        "hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 6, "num_attention_heads": 4,
        "projection_dim": 1024, "image_size": 56, "patch_size": 14,
    },
)  # fmt: skip
"""A fifth of the channels."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=5, help="timed steps of each")
    parser.add_argument("--batch", type=int, default=1)
    arguments = parser.parse_args()
    has_gpu = torch.cuda.is_available()
    device, sizes = ("cuda", FULL) if has_gpu else ("cpu", REDUCED)
    if not has_gpu:
        torch.set_num_threads(1)
    torch.manual_seed(0)
    clips = video(sizes, arguments.batch, device)
    encoders = random_encoders(sizes, device, torch.bfloat16 if has_gpu else torch.float32)
    cached = encode(encoders, clips)
    ours = Training(network(sizes, device), ours=True)
    theirs = Training(network(sizes, device), ours=False)
    theirs.network.load_state_dict(ours.network.state_dict())

    def our_step(number: int) -> float:
        return ours.step(cached, number)

    def their_step(number: int) -> float:
        with straightforward_attention():
            return theirs.step(encode(encoders, clips), number)

    took: dict[str, list[float]] = {"ours": [], "theirs": []}
    for number in range(arguments.steps + WARM_UP):
        (mine, mine_s), (other, other_s) = timed(our_step, number), timed(their_step, number)
        assert abs(mine - other) < 0.02 * abs(other), f"losses differ in step {number}: {mine:.5f} and {other:.5f}"
        say(f"step {number}: ours {mine_s:.3f} s, straightforward {other_s:.3f} s, loss {mine:.5f} and {other:.5f}")
        if number >= WARM_UP:
            took["ours"].append(mine_s)
            took["theirs"].append(other_s)
    mine_s, other_s = (statistics.median(took[name]) for name in ("ours", "theirs"))
    shapes = [tuple(part.shape[1:]) for part in (cached.latents, cached.text, cached.image_embeds, cached.cameras)]
    work = arguments.batch * flops_per_sample(ours.network, shapes, "animate3d")
    peak = get_available_flops(torch.device(device), torch.bfloat16) if has_gpu else None
    mfu = f"MFU {work / mine_s / peak:.1%}, " if peak else ""
    where = torch.cuda.get_device_name() if has_gpu else "a CPU, one thread, reduced size"
    last_line(
        name="train_step",
        value=other_s / mine_s,
        unit=f"times faster ({mine_s:.3f} s, {mfu}{work / mine_s / 1e12:.3f} TFLOP/s; {where})",
        baseline=f"straightforward on diffusers: {other_s:.3f} s; batch {arguments.batch}, {sizes.views} views by "
        f"{sizes.frames} frames, {sizes.size_px} px, median of {arguments.steps} steps in turns",
        goal=">= 2.5 and MFU >= 45 % on an H100",
    )


WARM_UP = 2


class Training:
    """A network with its optimizer."""

    def __init__(self, network: MultiViewVideoUNet, *, ours: bool) -> None:
        self.network, self.objective = network, Objective(text_dropout=0.0)
        self.trained = network.train_only("animate3d")
        on_gpu = self.trained[0].is_cuda
        self.optimizer = torch.optim.AdamW(self.trained, lr=1e-5, fused=True if ours and on_gpu else None)
        if ours and on_gpu:
            network.compile()

    def step(self, batch: Batch, number: int) -> float:
        """Forward, backward, update; gives the loss."""
        device = batch.latents.device.type
        draw = self.objective.draw(batch, [number * 100 + item for item in range(len(batch.latents))])
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            loss = self.objective.loss(self.network, batch, draw).mean
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.trained, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return float(loss.detach())


def timed(step: Callable[[int], float], number: int) -> tuple[float, float]:
    """What a step gives, and seconds: of the processor on a CPU, of the clock on a GPU."""
    clock = time.perf_counter if torch.cuda.is_available() else time.process_time
    started = clock()
    loss = step(number)  # waits for the GPU, as the loss is read
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return loss, clock() - started


def repeated_first_frame(module: MultiViewAttention, states: Tensor, grid: Grid) -> Tensor:
    """As `MultiViewAttention.forward`, written as a processor that sees one frame a row."""
    _, num_pixels, channels = states.shape
    views, frames = grid
    tokens = states.unflatten(0, (-1, views, frames)).transpose(1, 2).reshape(-1, views * num_pixels, channels)
    first = tokens.unflatten(0, (-1, frames))[:, :1].expand(-1, frames, -1, -1).reshape(tokens.shape)
    out = attend(module.to_q(tokens), module.to_k(tokens), module.to_v(tokens), module.num_heads)
    adapted = attend(module.processor.to_q_i2v(tokens), module.to_k(first), module.to_v(first), module.num_heads)
    out = module.to_out[0](out + module.processor.to_out_i2v(adapted))
    by_frame = out.unflatten(0, (-1, frames)).unflatten(2, (views, num_pixels))
    return by_frame.transpose(1, 2).reshape(-1, num_pixels, channels)


@contextmanager
def straightforward_attention() -> Iterator[None]:
    """Networks attend in the straightforward way inside the block."""
    ours = MultiViewAttention.forward
    MultiViewAttention.forward = repeated_first_frame  # type: ignore[method-assign]
    try:
        yield
    finally:
        MultiViewAttention.forward = ours  # type: ignore[method-assign]


def network(sizes: Sizes, device: str) -> MultiViewVideoUNet:
    """Random weights, those of the adapters too."""
    with torch.device(device):
        model = MultiViewVideoUNet(**sizes.unet)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "to_out_i2v" in name:
                parameter.normal_(std=0.02)
    return model.train()


def video(sizes: Sizes, batch: int, device: str) -> Tensor:
    """Pictures in 0..1, shape (item, view, frame, 3, height, width)."""
    generator = torch.Generator().manual_seed(1)
    shape = (batch, sizes.views, sizes.frames, 3, sizes.size_px, sizes.size_px)
    return torch.rand(shape, generator=generator).to(device)


def encode(encoders: Encoders, clips: Tensor, at_once: int = 16) -> Batch:
    """Everything that the network is told of some clips."""
    text = encoders.prompts([CAPTION] * len(clips) + [""]).float()
    views = clips.shape[1]
    return Batch(
        latents=encoders.pictures(clips, at_once=at_once),
        text=text[:-1],
        empty_text=text[-1],
        image_embeds=encoders.first_frames(clips[:, :, 0]).float(),
        cameras=ring(views).expand(len(clips), -1, -1).to(clips.device),
    )


def random_encoders(sizes: Sizes, device: str, dtype: torch.dtype) -> Encoders:
    """The frozen networks with random weights."""
    side = sizes.vision["image_size"]
    blocks: Sequence[int] = sizes.vae
    tokenizer = letters(77)
    parts = (
        AutoencoderKL(
            block_out_channels=tuple(blocks),
            down_block_types=("DownEncoderBlock2D",) * len(blocks),
            up_block_types=("UpDecoderBlock2D",) * len(blocks),
            layers_per_block=2,
            latent_channels=4,
            norm_num_groups=8,
        ),
        CLIPTextModel(CLIPTextConfig(vocab_size=49408, max_position_embeddings=77, **sizes.text)),
        CLIPVisionModelWithProjection(CLIPVisionConfig(**sizes.vision)),
    )
    vae, text, vision = (part.eval().requires_grad_(False).to(device, dtype) for part in parts)
    return Encoders(
        vae=vae,
        text_encoder=text,
        tokenizer=tokenizer,
        image_encoder=vision,
        feature_extractor=CLIPImageProcessorPil(
            size={"shortest_edge": side}, crop_size={"height": side, "width": side}
        ),
        device=device,
    )


if __name__ == "__main__":
    main()
