"""Load MV-VDM from the checkpoints of its parents and of Animate3D, and write them back in the same layouts.

A file is read without running code from it, and is used only if all that is wanted is there, nothing else is, every
shape fits and every number is finite; otherwise `CheckpointError` says which file is wrong, how, and where.
"""

import os
import pickle
import re
import struct
import uuid
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from training.layouts import (
    ANIMATE3D,
    ANIMATEDIFF,
    ANIMATEDIFF_ORIGINAL,
    IP_ADAPTER,
    MVDREAM_DIFFUSERS,
    MVDREAM_LDM,
    Layout,
)
from training.model.unet import MultiViewVideoUNet

Reason = Literal["not_found", "unsafe", "damaged", "layout", "missing", "unexpected", "shape", "not_finite"]

WEIGHT_FILES = (
    "diffusion_pytorch_model.safetensors",
    "diffusion_pytorch_model.fp16.safetensors",
    "diffusion_pytorch_model.bin",
    "diffusion_pytorch_model.fp16.bin",
)
"""What diffusers calls a model's weights, the preferred first."""


class CheckpointError(ValueError):
    """A file of weights that cannot be used.

    Args:
        path: The file.
        reason: Countable kind of fault.
        detail: What is wrong, with names.
    """

    def __init__(self, path: str | Path, reason: Reason, detail: str) -> None:
        super().__init__(f"{path}: {detail} [{reason}]")
        self.path = str(path)
        self.reason = reason


def build(
    *,
    mvdream: str | Path,
    ip_adapter: str | Path,
    motion: str | Path | None = None,
    animate3d: str | Path | None = None,
    **config: Any,
) -> MultiViewVideoUNet:
    """A model from published files: from its parents, to be trained, or with Animate3D's weights, to be used.

    Args:
        mvdream: MVDream on Stable Diffusion 1.5: diffusers' folder (or its `unet`), or the original file.
        ip_adapter: `ip-adapter_sd15`, .bin or .safetensors.
        motion: AnimateDiff's motion adapter v1-5-2: diffusers' folder, or the original file.
        animate3d: `animate3d_motion_modules.ckpt`, which has motion modules of its own.
        config: Sizes that differ from the published ones.

    Raises:
        CheckpointError: A file does not hold what it should.
        ValueError: Not exactly one of `motion` and `animate3d`.
    """
    if (motion is None) == (animate3d is None):
        raise ValueError("give either motion (to train from the parents) or animate3d (which has its own), not both")
    model = MultiViewVideoUNet(**config)
    load_mvdream(model, mvdream)
    load_ip_adapter(model, ip_adapter)
    if motion is not None:
        load_motion(model, motion)
    if animate3d is not None:
        load_animate3d(model, animate3d)
    return model


def load_mvdream(model: MultiViewVideoUNet, path: str | Path) -> None:
    """Load MVDream's network, in either layout, and set the MV2V-Adapters to where training starts from it."""
    file = weights_file(path, "unet")
    tensors = read_tensors(file)
    original = any(name.startswith("model.diffusion_model.") for name in tensors)
    _copy(model, MVDREAM_LDM if original else MVDREAM_DIFFUSERS, tensors, file)
    model.start_adapters()


def load_motion(model: MultiViewVideoUNet, path: str | Path) -> None:
    """Load AnimateDiff's motion adapter, in either layout; the spatial branches stay as they are."""
    file = weights_file(path)
    tensors = read_tensors(file)
    original = any(".temporal_transformer." in name for name in tensors)
    _copy(model, ANIMATEDIFF_ORIGINAL if original else ANIMATEDIFF, tensors, file)


def load_ip_adapter(model: MultiViewVideoUNet, path: str | Path) -> None:
    """Load IP-Adapter's image projection and keys."""
    _copy(model, IP_ADAPTER, read_tensors(path), path)


def load_animate3d(model: MultiViewVideoUNet, path: str | Path) -> None:
    """Load Animate3D's motion modules and MV2V-Adapters."""
    _copy(model, ANIMATE3D, read_tensors(path), path)


def save(model: MultiViewVideoUNet, path: str | Path, layout: Layout = ANIMATE3D) -> None:
    """Write the weights that belong to a layout as its published file has them; `.safetensors` or a torch file.

    A whole model as diffusers stores it is `model.save_pretrained(folder)`.
    """
    state = model.state_dict()
    tensors = {theirs: state[ours].detach().cpu().contiguous() for ours, theirs in layout.table(model).items()}
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        if path.suffix == ".safetensors":
            save_file(tensors, beside, metadata={"format": "pt"})
        else:
            torch.save(_as_published(tensors, layout), beside)
        with beside.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def weights_file(path: str | Path, subfolder: str = "") -> Path:
    """The file of weights that a path names: itself, or the one in a diffusers folder.

    Raises:
        CheckpointError: There is none.
    """
    path = Path(path)
    if path.is_file():
        return path
    for folder in (path / subfolder, path):
        for name in WEIGHT_FILES:
            if (folder / name).is_file():
                return folder / name
    wanted = f"no such file, and no folder with {' or '.join(WEIGHT_FILES[::2])}"
    raise CheckpointError(path, "not_found", wanted)


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """Every tensor of a file under its full name, on the CPU; no code of the file runs.

    Takes safetensors and torch files, flat, inside `state_dict`, or one level deep (joined with a dot), and with the
    `module.` that DistributedDataParallel puts before every name.

    Raises:
        CheckpointError: The file is absent, damaged, not only tensors, or would run code.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(path, "not_found", "no such file")
    with path.open("rb") as file:
        start = file.read(4)
    is_torch_file = start.startswith((b"PK\x03\x04", b"\x80"))
    found = _flat(path, read_torch_file(path) if is_torch_file else _read_safetensors(path))
    if all(name.startswith("module.") for name in found):
        found = {name.removeprefix("module."): tensor for name, tensor in found.items()}
    return found


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, RuntimeError, KeyError, AttributeError) as error:
        raise CheckpointError(
            path, "damaged", f"is neither a whole safetensors file nor a torch file: {error}"
        ) from error


# What a damaged pickle can raise inside the restricted unpickler; found by changing bytes at random.
UNPICKLING_FAULTS = (
    ArithmeticError, AssertionError, AttributeError, EOFError, LookupError, MemoryError, OSError, RuntimeError,
    TypeError, ValueError, pickle.UnpicklingError, struct.error, zipfile.BadZipFile,
)  # fmt: skip


def read_torch_file(path: str | Path) -> Any:
    """Tensors and plain values in whatever order a torch file has them, on the CPU; no code of the file runs.

    Raises:
        CheckpointError: The file is absent, damaged (every checksum is looked at), or would run code.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(path, "not_found", "no such file")
    try:
        if zipfile.is_zipfile(path):
            _check_zip(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except CheckpointError:
        raise
    except UNPICKLING_FAULTS as error:
        if isinstance(error, pickle.UnpicklingError) and "GLOBAL" in str(error):
            raise CheckpointError(path, "unsafe", "holds more than tensors and would have to run code") from error
        raise CheckpointError(path, "damaged", f"is not a whole torch file ({type(error).__name__})") from error


def check_torch_file(path: str | Path) -> None:
    """Compare a torch file with its checksums, without loading it.

    Raises:
        CheckpointError: It is absent or damaged.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(path, "not_found", "no such file")
    try:
        if not zipfile.is_zipfile(path):
            raise CheckpointError(path, "damaged", "is not a whole torch file")
        _check_zip(path)
    except UNPICKLING_FAULTS as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(path, "damaged", f"is not a whole torch file ({type(error).__name__})") from error


FOLDER_BIT = 0x10
"""Of a zip entry's attributes, as DOS had them."""


def _check_zip(path: Path) -> None:
    """Torch stores without compression and with checksums, but does not look at these when it reads."""
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            # Torch takes an entry that is marked as a folder for empty and leaves its tensor's memory as it was.
            if entry.compress_type != zipfile.ZIP_STORED or entry.external_attr & FOLDER_BIT:
                raise CheckpointError(
                    path, "damaged", f"{entry.filename} is compressed or a folder, unlike torch's files"
                )
        broken = archive.testzip()
    if broken is not None:
        raise CheckpointError(path, "damaged", f"the checksum of {broken} is wrong")


def _flat(path: Path, content: Any) -> dict[str, Tensor]:
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping):
        raise CheckpointError(path, "layout", f"holds a {type(content).__name__}, not named tensors")
    flat: dict[str, Tensor] = {}
    for name, value in content.items():
        is_group = isinstance(value, Mapping)
        inside = {f"{name}.{part}": inner for part, inner in value.items()} if is_group else {name: value}
        for full_name, tensor in inside.items():
            if not isinstance(full_name, str) or not isinstance(tensor, Tensor):
                raise CheckpointError(path, "layout", f"{full_name!r} is a {type(tensor).__name__}, not a tensor")
            flat[full_name] = tensor
    if not flat:
        raise CheckpointError(path, "layout", "holds no tensors")
    return flat


def _copy(model: MultiViewVideoUNet, layout: Layout, tensors: Mapping[str, Tensor], path: str | Path) -> None:
    matched = match(model, layout, tensors, path)
    for ours, tensor in matched.items():
        if not torch.isfinite(tensor).all():
            raise CheckpointError(path, "not_finite", f"{layout.table(model)[ours]} has values that are not finite")
    state = model.state_dict()
    with torch.no_grad():
        for ours, tensor in matched.items():
            state[ours].copy_(tensor)


def match(
    model: MultiViewVideoUNet, layout: Layout, tensors: Mapping[str, Tensor], path: str | Path
) -> dict[str, Tensor]:
    """The tensors of a file under our names, if they are exactly those that the layout wants.

    Raises:
        CheckpointError: Names are missing or unexpected, or a tensor has another shape or kind.
    """
    table = layout.table(model)
    missing = sorted(set(table.values()) - set(tensors))
    extra = [name for name in set(tensors) - set(table.values()) if not re.match(layout.bystanders, name)]
    if missing:
        also = f"; {_some(extra)} unexpected" if extra else ""
        raise CheckpointError(path, "missing", f"for {layout.name}, {_some(missing)} missing{also}")
    if extra:
        raise CheckpointError(path, "unexpected", f"for {layout.name}, {_some(extra)} unexpected")
    state = model.state_dict()
    for ours, theirs in table.items():
        tensor = tensors[theirs]
        if tensor.layout != torch.strided or not tensor.is_floating_point():
            raise CheckpointError(path, "shape", f"{theirs} is {tensor.dtype}, {tensor.layout}, not plain numbers")
        if tensor.shape != state[ours].shape:
            shapes = f"{tuple(tensor.shape)} in the file, {tuple(state[ours].shape)} in the model"
            raise CheckpointError(path, "shape", f"{theirs} is {shapes}")
    return {ours: tensors[theirs] for ours, theirs in table.items()}


def _some(names: Iterable[str]) -> str:
    ordered = sorted(names)
    listed = ", ".join(ordered[:5]) + (f" and {len(ordered) - 5} more" if len(ordered) > 5 else "")
    return f"{listed} ({len(ordered)}) {'is' if len(ordered) == 1 else 'are'}"


def _as_published(tensors: dict[str, Tensor], layout: Layout) -> dict[str, Any]:
    if layout.wrapper:
        return {layout.wrapper: tensors}
    if not layout.nested:
        return dict(tensors)
    nested: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        first, _, rest = name.partition(".")
        nested.setdefault(first, {})[rest] = tensor
    return nested
