"""The batches of a training run: the same global batches for any number of ranks, workers and restarts.

Where a run stands is one number, the place in the stream of samples (`training.data.order`). It is a multiple of
nothing but the steps taken, so it is counted by them, saved with them, and prefetched batches do not matter.
"""

import logging
import math
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pyarrow as pa
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, Dataset, default_collate

from pipeline.revoked import DenyList
from pipeline.storage import Store
from training.data.clips import ClipDataset, ClipSettings
from training.data.index import SIDE_BY_SIDE, SampleIndex, Selection, folder_of
from training.data.latents import LatentDataset
from training.data.order import BatchesOfRank, Draw, Stream
from training.data.seen import credited_rows, write_seen

logger = logging.getLogger("mv4d.training")

Batch = dict[str, Any]
"""Fields of `training.data.clips.Example` or of `training.data.latents.EncodedExample`, with an axis for the items in
front, and `place`: each item's place in the stream."""


class ClipBatches(LightningDataModule):
    """Clips of our shards, as pictures or as latents that were computed before.

    Args:
        shards: Folder or URL of the shards, or of the data root that holds them.
        global_batch: Samples of one optimizer step, over all ranks. Gradients are accumulated over as many batches as
            that takes, so a run means the same on any number of devices.
        batch_size: Samples that one device computes at once.
        latents: Folder that `python -m training.latents` wrote; then nothing is decoded or encoded in training.
        clips: What of a clip becomes an example. Latents bring their own.
        split: Split that is trained on.
        val_split: Split that is validated on.
        test_split: Split of `test`.
        rigs: Names of rigs; empty for all.
        licence_classes: `cc0`, `permissive`, `by`, …; empty for all that were packed.
        where: SQL over the columns of `samples.parquet`, such as `motion_mean > 0.01 AND rigid_share < 0.9`.
        num_val: Samples that are validated on, the first of the split; 0 for all.
        passes: Length of the run in passes over the data, in place of `trainer.max_steps`.
        window_shards: Shuffle within so many shards, taken in random order; 0 shuffles all samples at once.
        num_workers: Processes a rank that read and decode; 0 reads between steps.
        seed: Of order, views, frames and backgrounds.
    """

    def __init__(
        self,
        shards: str,
        *,
        global_batch: int,
        batch_size: int = 1,
        latents: str | None = None,
        clips: ClipSettings = ClipSettings(),  # noqa: B008  (frozen)
        split: str = "train",
        val_split: str = "val",
        test_split: str = "test",
        rigs: tuple[str, ...] = SIDE_BY_SIDE,
        licence_classes: tuple[str, ...] = (),
        where: str = "",
        num_val: int = 16,
        passes: float | None = None,
        window_shards: int = 0,
        num_workers: int = 2,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if global_batch < 1 or batch_size < 1 or global_batch % batch_size:
            raise ValueError(
                f"global_batch and batch_size must be at least 1, and global_batch ({global_batch}) a multiple of "
                f"batch_size ({batch_size})"
            )
        if num_val < 0 or num_workers < 0 or (passes is not None and passes <= 0):
            raise ValueError("num_val and num_workers must not be negative, and passes must be positive")
        self.shards, self.latents, self.clips = shards, latents, replace(clips, seed=seed)
        self.global_batch, self.batch_size = global_batch, batch_size
        self.splits = {"train": split, "val": val_split, "test": test_split}
        self.rigs, self.licence_classes, self.where = rigs, licence_classes, where
        self.num_val, self.passes, self.window_shards = num_val, passes, window_shards
        self.num_workers, self.seed = num_workers, seed
        self.waited_s = 0.0
        """Time that training has spent in waiting for batches."""
        self._datasets: dict[str, ClipDataset | LatentDataset] = {}
        self._start_place, self._start_step = 0, 0
        self._credits: pa.Table | None = None
        self._stand_ins: set[str] = set()

    def setup(self, stage: str) -> None:
        """Open the index of the splits that the stage needs, and tell the trainer how long a step is.

        Raises:
            MisconfigurationException: There are no such samples, or the batch cannot be divided among the devices.
        """
        for split in {"fit": ("train", "val"), "validate": ("val",), "test": ("test",)}.get(stage, ("val",)):
            if split not in self._datasets:
                self._datasets[split] = self._open(split)
        if stage == "fit":
            self._credits = credited_rows(self.latents or self.shards, self._selection("train"))
            self._set_length()

    def _selection(self, split: str) -> Selection:
        clips = self.clips
        return Selection(
            split=self.splits[split],
            rigs=self.rigs,
            licence_classes=self.licence_classes,
            num_views=clips.num_views,
            num_frames=clips.num_frames,
            where=self.where,
        )

    def _open(self, split: str) -> ClipDataset | LatentDataset:
        selection, strict = self._selection(split), split != "train"
        try:
            if self.latents is not None:
                found = LatentDataset.open(self.latents, selection, strict=strict)
                found.denied.append(DenyList(Store(folder_of(self.shards))))
                return found
            return ClipDataset(SampleIndex.open(self.shards, selection), self.clips, strict=strict)
        except (FileNotFoundError, ValueError) as error:
            advice = "" if split == "train" else f"; --data.{split}_split train takes those that are trained on"
            raise MisconfigurationException(f"{error}{advice}") from error

    def _set_length(self) -> None:
        trainer = self._trainer
        at_once = self.batch_size * trainer.world_size
        if self.global_batch % at_once:
            raise MisconfigurationException(
                f"a global batch of {self.global_batch} cannot be divided into batches of {self.batch_size} on "
                f"{trainer.world_size} devices: change data.global_batch, data.batch_size or trainer.devices"
            )
        if trainer.accumulate_grad_batches not in (1, self.global_batch // at_once):
            raise MisconfigurationException("leave trainer.accumulate_grad_batches alone: data.global_batch decides")
        trainer.accumulate_grad_batches = self.global_batch // at_once
        if self.passes is not None:
            if trainer.max_steps > 0:
                raise MisconfigurationException("give the length either as data.passes or as trainer.max_steps")
            steps = math.ceil(self.passes * self.num_samples / self.global_batch)
            trainer.fit_loop.epoch_loop.max_steps = steps
        if trainer.max_steps < 1:
            raise MisconfigurationException("how long is the run? Give trainer.max_steps or data.passes")
        if isinstance(trainer.val_check_interval, int):
            # Lightning counts batches, of which a step has as many as there are accumulated.
            trainer.val_check_interval *= trainer.accumulate_grad_batches

    @property
    def num_samples(self) -> int:
        """Of the training split."""
        return len(self._datasets["train"])

    @property
    def place(self) -> int:
        """Samples that the steps so far have been trained on, all ranks and runs together."""
        return self._start_place + (self._trainer.global_step - self._start_step) * self.global_batch

    def state_dict(self) -> dict[str, Any]:
        """Where the run stands in the stream."""
        return {"place": self.place, "step": self._trainer.global_step, **self._stream_identity()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there, whatever the number of ranks, the batch size or the workers are now."""
        self._start_place, self._start_step = state_dict["place"], state_dict["step"]
        if "train" in self._datasets:
            changed = [name for name, value in self._stream_identity().items() if state_dict.get(name) != value]
            if changed:
                logger.warning("%s of the data changed: the order differs from here on", " and ".join(changed))

    def _stream_identity(self) -> dict[str, int]:
        return {"num_samples": self.num_samples, "seed": self.seed}

    def train_dataloader(self) -> DataLoader[Batch]:
        """The batches from the present place to the end of the run."""
        trainer = self._trainer
        num_batches = max(0, trainer.max_steps - trainer.global_step) * trainer.accumulate_grad_batches
        batches = self._batches(self.stream, num_batches, start=self.place)
        return self._loader(self._datasets["train"], batches, self.num_workers)

    @property
    def stream(self) -> Stream:
        """The order of the training split."""
        data = self._datasets["train"]
        return Stream(
            num_samples=len(data),
            seed=self.seed,
            shard_starts=data.index.shard_starts if self.window_shards else (),
            window_shards=self.window_shards,
        )

    def on_shown(self, batch: Batch) -> None:
        """Take note of samples that stood in for others."""
        self._stand_ins |= {key for key, num in zip(batch["key"], batch["num_broken"].tolist(), strict=True) if num}

    def write_seen(self) -> None:
        """Write into the run's folder what it has been shown since it began or went on, with the credits."""
        found: list[set[str] | None] = [self._stand_ins]
        if torch.distributed.is_initialized():
            found = [None] * self._trainer.world_size
            torch.distributed.all_gather_object(found, self._stand_ins)
        self._stand_ins = set().union(*(keys for keys in found if keys))
        if self._trainer.is_global_zero:
            assert self._credits is not None
            write_seen(
                self._trainer.default_root_dir,
                self._credits,
                self.stream,
                start=self._start_place,
                end=self.place,
                stand_ins=self._stand_ins,
            )

    def val_dataloader(self) -> DataLoader[Batch]:
        """The first samples of the validation split, in the index's order."""
        return self._evaluation("val")

    def test_dataloader(self) -> DataLoader[Batch]:
        """The same of the test split."""
        return self._evaluation("test")

    def predict_dataloader(self) -> DataLoader[Batch]:
        """The clips of the validation split, to be sampled anew."""
        return self._evaluation("val")

    def examples(self, split: str, num: int) -> Batch:
        """The first samples of a split as one batch, the same on all ranks."""
        data = _Placed(self._datasets[split])
        return _collate([data[Draw(index=place, place=place)] for place in range(min(num, len(data)))])

    def num_evaluated(self, split: str) -> int:
        """Samples of a split that are evaluated; places from there on fill the last batch and do not count."""
        there = len(self._datasets[split])
        return min(self.num_val, there) if self.num_val else there

    def empty_text(self) -> torch.Tensor | None:
        """The text encoder's states of the empty prompt, if the latents bring them."""
        found = next(iter(self._datasets.values()))
        return found.empty_text() if isinstance(found, LatentDataset) else None

    def _evaluation(self, split: str) -> DataLoader[Batch]:
        data = self._datasets[split]
        num_batches = math.ceil(self.num_evaluated(split) / (self.batch_size * self._trainer.world_size))
        stream = Stream(num_samples=len(data), shuffle=False)
        return self._loader(data, self._batches(stream, num_batches), num_workers=0)

    def _batches(self, stream: Stream, num_batches: int, start: int = 0) -> BatchesOfRank:
        trainer = self._trainer
        return BatchesOfRank(
            stream,
            batch_size=self.batch_size,
            num_batches=num_batches,
            start=start,
            rank=trainer.global_rank,
            num_ranks=trainer.world_size,
        )

    def _loader(self, data: ClipDataset | LatentDataset, batches: BatchesOfRank, num_workers: int) -> DataLoader[Batch]:
        # The clients of object stores have threads, which a forked process does not.
        context = "fork" if Store(data.index.root).is_local else "forkserver"
        return _TimedLoader(
            _Placed(data),
            batch_sampler=batches,
            num_workers=num_workers,
            collate_fn=_collate,
            pin_memory=torch.cuda.is_available(),
            multiprocessing_context=context if num_workers else None,
            on_wait=self._waited,
        )

    def _waited(self, seconds: float) -> None:
        self.waited_s += seconds

    @property
    def _trainer(self) -> Any:
        if self.trainer is None:
            raise MisconfigurationException("batches need a trainer, which says how many ranks there are")
        return self.trainer


class _Placed(Dataset[Batch]):
    """Examples that know their place in the stream: the noise of a training step is drawn from it."""

    def __init__(self, examples: ClipDataset | LatentDataset) -> None:
        self.examples = examples

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, draw: Draw) -> Batch:
        return {**self.examples[draw], "place": draw.place}


def _collate(examples: list[Batch]) -> Batch:
    batch: Batch = default_collate(examples)
    return batch


class _TimedLoader(DataLoader[Batch]):
    """Says how long each batch was waited for."""

    def __init__(self, *args: Any, on_wait: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.on_wait = on_wait

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        batches = super().__iter__()
        while True:
            start = time.perf_counter()
            try:
                batch = next(batches)
            except StopIteration:
                return
            self.on_wait(time.perf_counter() - start)
            yield batch
