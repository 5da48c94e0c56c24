"""LPIPS (Zhang et al. 2018, arXiv:1801.03924) on VGG-16, from a file of weights that the user has.

The file is a .safetensors or torch file with torchvision's names for VGG-16's convolutions (`features.0.weight`, …) and
LPIPS' own for its five layers of weights (`lin0.model.1.weight`, …). None comes with the program.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

BLOCKS = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))
"""Numbers of the convolutions in torchvision's VGG-16, block by block; each block's last output is compared."""
CHANNELS = (64, 128, 256, 512, 512)
MEAN = (0.485, 0.456, 0.406)
SPREAD = (0.229, 0.224, 0.225)
LARGEST_BYTES = 2 << 30


class WeightsError(ValueError):
    """A file of LPIPS weights that cannot be used.

    Args:
        path: The file.
        reason: Countable kind of fault: not_found, damaged, layout, not_finite, too_large.
        detail: What is wrong.
    """

    def __init__(self, path: Path, reason: str, detail: str) -> None:
        super().__init__(f"{path}: {detail} [{reason}]")
        self.path, self.reason = path, reason


class Lpips(nn.Module):
    """Distance of pictures as people see it; 0 for equal ones."""

    mean: Tensor
    spread: Tensor

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        """`tensors`: as in the module's docstring; `load_lpips` reads and checks them."""
        super().__init__()
        self.names = {name: name.replace(".", "_") for name in wanted_shapes()}
        for name, flat in self.names.items():
            self.register_buffer(flat, tensors[name].float())
        self.register_buffer("mean", torch.tensor(MEAN)[:, None, None])
        self.register_buffer("spread", torch.tensor(SPREAD)[:, None, None])

    def forward(self, render: Tensor, target: Tensor) -> Tensor:
        """Distance of each pair. Shape (picture,), of pictures (picture, 3, height, width) in 0..1."""
        total = render.new_zeros(len(render))
        for number, (mine, other) in enumerate(zip(self._features(render), self._features(target), strict=True)):
            apart = (functional.normalize(mine, dim=1, eps=1e-10) - functional.normalize(other, dim=1, eps=1e-10)) ** 2
            weights = self._tensor(f"lin{number}.model.1.weight")
            total = total + functional.conv2d(apart, weights).mean(dim=(1, 2, 3))
        return total

    def _features(self, pictures: Tensor) -> list[Tensor]:
        here = (pictures - self.mean) / self.spread
        found = []
        for number, block in enumerate(BLOCKS):
            if number:
                here = functional.max_pool2d(here, 2)
            for layer in block:
                weight, bias = self._tensor(f"features.{layer}.weight"), self._tensor(f"features.{layer}.bias")
                here = functional.conv2d(here, weight, bias, padding=1).relu()
            found.append(here)
        return found

    def _tensor(self, name: str) -> Tensor:
        return self.get_buffer(self.names[name])


def wanted_shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors that a file must have."""
    shapes: dict[str, tuple[int, ...]] = {}
    before = 3
    for number, (block, channels) in enumerate(zip(BLOCKS, CHANNELS, strict=True)):
        for layer in block:
            shapes[f"features.{layer}.weight"] = (channels, before, 3, 3)
            shapes[f"features.{layer}.bias"] = (channels,)
            before = channels
        shapes[f"lin{number}.model.1.weight"] = (1, channels, 1, 1)
    return shapes


def load_lpips(path: str | Path) -> Lpips:
    """LPIPS with the weights of a file; no code of the file runs.

    Raises:
        WeightsError: It is absent, damaged, or not what LPIPS on VGG-16 needs.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(path, "not_found", "no such file of LPIPS weights")
    if path.stat().st_size > LARGEST_BYTES:
        raise WeightsError(path, "too_large", f"over {LARGEST_BYTES >> 30} GiB, and LPIPS on VGG-16 is not")
    try:
        tensors = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except (SafetensorError, OSError, RuntimeError, ValueError, KeyError, EOFError, TypeError) as error:
        raise WeightsError(path, "damaged", f"neither a safetensors file nor plain tensors: {error}") from error
    for name, shape in wanted_shapes().items():
        tensor = tensors.get(name) if isinstance(tensors, dict) else None
        if not isinstance(tensor, Tensor) or tuple(tensor.shape) != shape:
            raise WeightsError(path, "layout", f"{name} of shape {shape} is not in it")
        if not torch.isfinite(tensor).all():
            raise WeightsError(path, "not_finite", f"{name} has values that are not finite")
    return Lpips(tensors)
