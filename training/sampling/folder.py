"""A sampling pipeline from a folder that somebody else may have written."""

import hashlib
import json
from pathlib import Path
from typing import cast

import diffusers.utils.logging
import torch
import transformers.utils.logging
from diffusers.schedulers.scheduling_ddim import DDIMScheduler

from pipeline.records import content_id
from training.checkpoints import CheckpointError
from training.data.latents import Precision
from training.encoders import LOADING_FAULTS, Encoders, hash_weights
from training.model.unet import MultiViewVideoUNet
from training.sampling.memory import check_weights
from training.sampling.pipeline import MultiViewVideoPipeline

INDEX = "model_index.json"
PARTS = ("unet", "vae", "text_encoder", "tokenizer", "image_encoder", "feature_extractor", "scheduler")


def load_pipeline(
    folder: str | Path, *, device: torch.device | str = "cpu", compute: Precision = "float32"
) -> MultiViewVideoPipeline:
    """What `save_pretrained` or `mv4d train export` wrote, ready to sample.

    Only the parts that the pipeline has are read, as the classes that they must be, whatever the folder's index names;
    nothing is fetched from the network.

    Args:
        folder: The folder.
        device: Where it computes.
        compute: What the networks compute in.

    Raises:
        CheckpointError: It is another kind of folder, or a part is missing or damaged.
        MemoryShort: Its weights do not go into memory.
    """
    folder = Path(folder)
    _check_kind(folder)
    dtype = getattr(torch, compute)
    check_weights(folder, torch.device(device), dtype)
    for library in (diffusers.utils.logging, transformers.utils.logging):
        library.disable_progress_bar()  # one for each part that is loaded
    try:
        encoders = Encoders.load(folder, device=device, dtype=dtype)
        unet = MultiViewVideoUNet.from_pretrained(str(folder / "unet"), local_files_only=True, torch_dtype=dtype)
        scheduler = DDIMScheduler.from_pretrained(str(folder / "scheduler"), local_files_only=True)
    except LOADING_FAULTS as error:
        # The libraries' own advice is for programmers: what is wrong with the file comes first.
        detail = f"{str(error).split('. If you')[0].strip()}; fetch or export the folder anew"
        raise CheckpointError(folder, "damaged", detail) from error
    pipeline = MultiViewVideoPipeline(
        vae=encoders.vae,
        text_encoder=encoders.text_encoder,
        tokenizer=encoders.tokenizer,
        image_encoder=encoders.image_encoder,
        feature_extractor=encoders.feature_extractor,
        unet=cast(MultiViewVideoUNet, unet.eval().requires_grad_(False).to(device)),
        scheduler=scheduler,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def fingerprint(pipeline: MultiViewVideoPipeline) -> str:
    """Hash of all that a clip depends on beside the call: weights with their precision, and settings of the parts."""
    encoders = Encoders(
        vae=pipeline.vae,
        text_encoder=pipeline.text_encoder,
        tokenizer=pipeline.tokenizer,
        image_encoder=pipeline.image_encoder,
        feature_extractor=pipeline.feature_extractor,
    ).fingerprint()
    digest = hashlib.sha256()
    hash_weights(digest, pipeline.unet)
    configs = [
        {name: value for name, value in part.config.items() if not name.startswith("_")}
        for part in (pipeline.unet, pipeline.scheduler)
    ]
    return content_id(encoders, digest.hexdigest(), json.loads(json.dumps(configs, default=str)))


def _check_kind(folder: Path) -> None:
    """Say what a folder is that is none of ours.

    Raises:
        CheckpointError: It is none.
    """
    if folder.is_file():
        raise CheckpointError(folder, "layout", "a file, not a folder with model_index.json: see docs/training.md")
    if not folder.is_dir():
        raise CheckpointError(folder, "not_found", "no such folder")
    if not (folder / INDEX).is_file():
        if (folder / "checkpoints").is_dir():
            config = folder / "logs" / "config.yaml"
            export = f"mv4d train export --config {config} --to {folder / 'model'}"
            raise CheckpointError(folder, "layout", f"a training run: write its pipeline with `{export}`")
        raise CheckpointError(folder, "layout", "it has no model_index.json: give what save_pretrained wrote")
    try:
        kind = json.loads((folder / INDEX).read_bytes())["_class_name"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(folder, "damaged", f"its {INDEX} cannot be read: {error!r}") from error
    if kind != MultiViewVideoPipeline.__name__:
        raise CheckpointError(folder, "layout", f"a pipeline of the kind {kind}, not {MultiViewVideoPipeline.__name__}")
    missing = [part for part in PARTS if not (folder / part).is_dir()]
    if missing:
        raise CheckpointError(folder, "missing", f"it has no folder {', '.join(missing)}")
