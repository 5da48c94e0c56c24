"""How many more clips a second come out of our shards and latents than out of an MP4 file a view?

Real clips are drawn once (or `--data` gives some), and read in random order three ways, to the same tensors: 4 views by
16 frames from MP4 files with OpenCV's FFmpeg, one file a view, opened and decoded for every clip as Animate3D's loader
does; the same from shards; and latents with embeddings from side shards. Counted is processor time with one thread. The
files are MPEG-4 part 2, which is less work to decode than H.264, and hold just the frames that are wanted.

Waiting: a loader with two workers feeds steps that sleep as long as an H100 at 50 % MFU takes for a batch of the full
model. The machine must have two cores to itself for that.

    python -m benchmarks.loader [--data DATA] [--clips 200] [--batch 8] [--steps 60]
"""

import argparse
import csv
import itertools
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import (
    CLIPImageProcessorPil,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from benchmarks.measured import REPOSITORY, last_line, say
from ingest.sources.samples import Samples, default_cache
from pipeline.media import GREY, compose, decode_strip, strip_name
from training.data.clips import ClipDataset, ClipRecord, ClipSettings
from training.data.index import SampleIndex, Selection
from training.data.latents import LatentDataset
from training.data.order import BatchesOfRank, Draw, Stream
from training.encoders import Encoders
from training.latents import LatentSettings, LatentWriter
from training.start import letters

H100_SAMPLES_PER_S = 8.6
"""57.7 TFLOP a sample of the full model, forward and backward with frozen parents, at half of 989 TFLOP/s."""
CLIPS = ClipSettings(num_variants=1)
SELECTION = Selection(rigs=())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="", help="a data root with packed clips of 256 px; drawn if not given")
    parser.add_argument("--clips", type=int, default=200, help="clips read each way")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=60, help="steps fed to see how long they wait")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory(prefix="mv4d-bench-") as name:
        folder = Path(name)
        data = arguments.data or drawn(folder / "data")
        clips = ClipDataset(SampleIndex.open(data, SELECTION), CLIPS, strict=True)
        say(f"{len(clips)} clips; writing MP4 files and latents of them")
        movies = Mp4Clips(clips, folder / "mp4")
        settings = LatentSettings(clips=CLIPS, selection=SELECTION, num_workers=0)
        LatentWriter(data, str(folder / "latents"), stand_in_encoders(), settings).run()
        latents = LatentDataset.open(str(folder / "latents"), SELECTION, strict=True)
        ways: dict[str, Callable[[Draw], Any]] = {
            "mp4": movies.__getitem__,
            "shards": clips.__getitem__,
            "latents": latents.__getitem__,
        }
        check_alike(movies, clips)
        rates = {way: clips_per_core_s(read, len(clips), arguments.clips) for way, read in ways.items()}
        for way, rate in rates.items():
            say(f"{way}: {rate:.1f} clips a core-second")
        waiting = {
            way: waiting_share(dataset, arguments.batch, arguments.steps)
            for way, dataset in (("latents", latents), ("shards", clips))
        }
        say(f"waiting: {', '.join(f'{way} {share:.2%}' for way, share in waiting.items())} of step time")
    last_line(
        name="loader",
        value=rates["latents"] / rates["mp4"],
        unit=f"times the clips a core-second, from latents ({rates['latents']:.0f}); from shards as pictures "
        f"{rates['shards'] / rates['mp4']:.2f} times ({rates['shards']:.1f}); steps of {arguments.batch} clips at "
        f"{H100_SAMPLES_PER_S} a second wait {waiting['latents']:.2%} of their time for latents",
        baseline=f"an MP4 file a view, random access: {rates['mp4']:.1f} clips a core-second; {len(clips)} real clips, "
        "4 views by 16 frames, 256 px",
        goal="> 10, and < 1 % waiting",
    )


def drawn(data: Path, num_assets: int = 8) -> str:
    """Clips of some built-in samples, drawn, judged and packed as always."""
    say(f"drawing {num_assets} of the built-in samples")
    samples = Samples(cache=default_cache())
    next(samples.items())
    with samples.manifest.open(newline="") as whole:
        rows = list(csv.DictReader(whole))
    good = [row for row in rows if row["expect"] == "clips"][:num_assets]
    data.mkdir(parents=True)
    with (data / "few.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows({**row, "file": str(samples.manifest.parent / row["file"])} for row in good)
    subprocess.run(
        [
            *(sys.executable, "-m", "pipeline", "build", str(data / "few.csv"), "--data", str(data)),
            *("--rig", "ortho4", "--quality", "preview", "--val_share", "0", "--test_share", "0"),
        ],
        cwd=REPOSITORY,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return str(data)


class Mp4Clips:
    """The same clips as one MP4 file a view on grey, as MV-Video is published."""

    def __init__(self, clips: ClipDataset, folder: Path) -> None:
        self._cameras: list[Tensor] = []
        self._paths: list[list[Path]] = []
        folder.mkdir()
        for place in range(len(clips)):
            row = clips.index[place]
            record = ClipRecord.parse(clips.read(row, "json"))
            paths = []
            for view in CLIPS.views(record, 0):
                frames = compose(decode_strip(clips.read(row, strip_name(view)), record.num_frames), GREY)
                paths.append(folder / f"{row.key}-{view:02d}.mp4")
                write_mp4(paths[-1], frames[: CLIPS.num_frames])
            self._paths.append(paths)
            self._cameras.append(clips.example(row, 0)["cameras"])

    def __getitem__(self, draw: Draw) -> dict[str, Tensor]:
        video = np.stack([read_mp4(path, CLIPS.num_frames) for path in self._paths[draw.index]])
        video = video[..., ::-1].transpose(0, 1, 4, 2, 3).astype(np.float32) / 127.5 - 1.0
        return {"video": torch.from_numpy(np.ascontiguousarray(video)), "cameras": self._cameras[draw.index]}


def write_mp4(path: Path, frames: np.ndarray) -> None:
    """Frames of shape (frame, height, width, 3), RGB in 0..1."""
    height, width = frames.shape[1:3]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), CLIPS.fps, (width, height))
    for frame in (frames[..., ::-1] * 255).round().astype(np.uint8):
        writer.write(np.ascontiguousarray(frame))
    writer.release()


def read_mp4(path: Path, num_frames: int) -> np.ndarray:
    """The first frames of a file, shape (frame, height, width, 3), uint8 BGR; one thread."""
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    frames = [capture.read()[1] for _ in range(num_frames)]
    capture.release()
    return np.stack(frames)


def check_alike(movies: Mp4Clips, clips: ClipDataset) -> None:
    """Both ways must give the same clips, but for what MP4 loses."""
    for index in range(len(clips)):
        draw = Draw(index=index, place=index)
        mine, theirs = clips[draw]["video"], movies[draw]["video"]
        error = float((mine - theirs).abs().mean())
        assert mine.shape == theirs.shape == (4, 16, 3, CLIPS.size_px, CLIPS.size_px), mine.shape
        assert error < 0.05, f"clip {index} differs by {error:.3f}"


def clips_per_core_s(read: Callable[[Draw], Any], num_there: int, num_read: int) -> float:
    """Clips read in random order a second of processor time."""
    order = np.random.default_rng(0).integers(num_there, size=num_read)
    for index in order[:4]:
        read(Draw(index=int(index), place=0))
    started = time.process_time()
    for index in order:
        read(Draw(index=int(index), place=0))
    return num_read / (time.process_time() - started)


def waiting_share(dataset: ClipDataset | LatentDataset, batch: int, num_steps: int) -> float:
    """The share of time in which steps of an H100's length wait for a loader with two workers."""
    warm_up = 5
    batches = BatchesOfRank(Stream(num_samples=len(dataset)), batch_size=batch, num_batches=num_steps + warm_up)
    loader: Iterator[Any] = iter(DataLoader(dataset, batch_sampler=batches, num_workers=2, prefetch_factor=4))
    for _ in range(warm_up):
        next(loader)
        time.sleep(batch / H100_SAMPLES_PER_S)
    waited, started = 0.0, time.monotonic()
    for _ in itertools.repeat(None, num_steps):
        before = time.monotonic()
        next(loader)
        waited += time.monotonic() - before
        time.sleep(batch / H100_SAMPLES_PER_S)
    return waited / (time.monotonic() - started)


def stand_in_encoders() -> Encoders:
    """Random weights, few of them; what comes out has the sizes of the published encoders."""
    torch.manual_seed(0)
    blocks: Sequence[int] = (8, 8, 8, 8)
    tokenizer = letters(77)
    return Encoders(
        vae=AutoencoderKL(
            block_out_channels=tuple(blocks),
            down_block_types=("DownEncoderBlock2D",) * len(blocks),
            up_block_types=("UpDecoderBlock2D",) * len(blocks),
            latent_channels=4,
            norm_num_groups=4,
        ).eval(),
        text_encoder=CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(tokenizer), hidden_size=768, intermediate_size=64, num_hidden_layers=1,
                num_attention_heads=8, max_position_embeddings=77, bos_token_id=len(tokenizer) - 2,
                eos_token_id=len(tokenizer) - 1,
            )
        ).eval(),
        tokenizer=tokenizer,
        image_encoder=CLIPVisionModelWithProjection(
            CLIPVisionConfig(
                hidden_size=64, intermediate_size=64, projection_dim=1024, num_hidden_layers=1, num_attention_heads=4,
                image_size=32, patch_size=8,
            )
        ).eval(),
        feature_extractor=CLIPImageProcessorPil(
            size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
        ),
    )  # fmt: skip


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
