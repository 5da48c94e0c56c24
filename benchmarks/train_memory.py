"""How much memory and work does a sample of each training recipe take?

Counted on tensors without content, for one sample: no GPU is needed, and nothing is trained. Memory that lies between
the passes is what the network keeps for its backward pass, each tensor once, in the numbers it computes in; attention
keeps its inputs and its output, as flash attention does. What a kernel needs beside that while it runs is not counted.

    python -m benchmarks.train_memory [RECIPE ...]
"""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
import yaml
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx
from torch.autograd.graph import saved_tensors_hooks

from benchmarks.measured import REPOSITORY, last_line, say
from training.data.clips import ClipSettings
from training.model.unet import MultiViewVideoUNet
from training.objective import NoiseSchedule
from training.reporting import flops_per_sample
from training.start import Scratch

GIB = 2**30
PUBLISHED = [(4, 16, 4, 32, 32), (77, 768), (4, 1024), (4, 16)]
"""Latents, text, image embeddings and cameras of 4 views by 16 frames at 256 px."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="*", type=Path, help="other recipes to count beside those of training/configs")
    configs = REPOSITORY / "training" / "configs"
    for path in [*sorted(configs.glob("*.yaml")), *parser.parse_args().recipes]:
        figures = recipe_figures(yaml.safe_load(path.read_text()))
        say(f"{path.stem}: " + ", ".join(f"{name} {value:,.3f}" for name, value in figures.items()))
    paper = yaml.safe_load((configs / "paper.yaml").read_text())
    whole = {**paper, "model": {**paper["model"], "recompute_levels": ()}}
    last_line(
        name="training.activations_per_sample",
        value=recipe_figures(paper)["activations_gib"],
        unit="GiB",
        baseline=f"{recipe_figures(whole)['activations_gib']:.1f} GiB with nothing computed again",
        goal="two samples of paper.yaml beside 15 GiB of states on a GPU of 80 GB: 30",
    )


def recipe_figures(recipe: dict[str, Any]) -> dict[str, float]:
    """Sizes in GiB, work in TFLOP, of a recipe for one device."""
    unet, shapes = network(recipe)
    train, levels = recipe["model"].get("train", "animate3d"), recipe["model"].get("recompute_levels", ())
    trained = sum(parameter.numel() for parameter in unet.train_only(train))
    everything = sum(parameter.numel() for parameter in unet.parameters())
    halves = recipe["trainer"].get("precision") == "bf16-mixed"
    unet.checkpoint_levels(levels)
    kept = kept_bytes(unet, shapes, torch.bfloat16 if halves else torch.float32)
    with torch.device("meta"):
        flops = flops_per_sample(unet, shapes, train)
    return {
        "trained_m": trained / 1e6,
        "parameters_m": everything / 1e6,
        "weights_gib": 4 * everything / GIB,
        "gradients_gib": 4 * trained / GIB,
        "moments_gib": 8 * trained / GIB,
        "average_gib": 4 * trained / GIB,
        "activations_gib": kept / GIB,
        "tflop": flops / 1e12,
    }


def network(recipe: dict[str, Any]) -> tuple[MultiViewVideoUNet, list[tuple[int, ...]]]:
    """The recipe's network without content, and the shapes of a sample as it sees it."""
    start = recipe["model"]["start"]
    if "scratch" not in start:
        with torch.device("meta"):
            return MultiViewVideoUNet(), PUBLISHED
    settings = Scratch(**start["scratch"])
    clips = ClipSettings(**recipe["data"].get("clips", {}))
    schedule = NoiseSchedule(**recipe["model"].get("objective", {}).get("schedule", {}))
    unet = nn.Module.to(settings.build(schedule, seed=0).unet, "meta")
    side, width = clips.size_px // settings.patch_px, settings.condition_width
    latents = (clips.num_views, clips.num_frames, 3 * settings.num_frequencies, side, side)
    return unet, [latents, (settings.max_letters, width), (clips.num_views, width), (clips.num_views, 16)]


def kept_bytes(unet: MultiViewVideoUNet, shapes: list[tuple[int, ...]], dtype: torch.dtype) -> int:
    """What lies between the passes over one sample, weights aside."""
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, nn.Parameter):
            # Held, so that no other tensor comes to lie in its place.
            kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    with torch.device("meta"), flash_attention(), saved_tensors_hooks(keep, lambda tensor: tensor):
        latents, *others = (torch.empty(1, *shape, dtype=dtype) for shape in shapes)
        nn.Module.to(unet, dtype)
        unet(latents, torch.zeros(1, dtype=torch.long), *others)
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


@contextmanager
def flash_attention() -> Iterator[None]:
    """Attention that keeps what flash attention keeps; without content, torch would keep all scores."""
    with mock.patch.object(F, "scaled_dot_product_attention", _Flash.apply):
        yield


class _Flash(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        out = torch.empty_like(query)
        ctx.save_for_backward(query, key, value, out)
        return out


if __name__ == "__main__":
    main()
