"""Checkpoints that survive: written beside and renamed, the last and the one before kept, checked before they are used.

A run that is asked to stop (SIGTERM, SIGUSR1, ^C) saves at the next step and ends; the same command goes on from there.
A run that is killed goes on from its last checkpoint, which is whole whenever it was killed.
"""

import logging
import os
import re
import signal
import time
import uuid
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from lightning.fabric.plugins.io.checkpoint_io import CheckpointIO
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from torch import Tensor

from training.checkpoints import CheckpointError, check_torch_file, read_torch_file
from training.data_module import ClipBatches

logger = logging.getLogger("mv4d.training")

STOPPING = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
PARTIAL = ".partial"
_NAME = re.compile(r"step-(\d{8})\.ckpt")


class StoppedEarlyError(Exception):
    """The run was asked to stop and has saved where it stands; the same command goes on from there.

    Args:
        step: Steps that are done.
        signal_number: What asked.
    """

    def __init__(self, step: int, signal_number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signal_number).name} after step {step}")
        self.step, self.signal_number = step, signal_number


class StopRequest:
    """Remembers that a signal came; the second ^C interrupts at once."""

    def __init__(self) -> None:
        self.signal_number = 0
        """0 if none came."""
        self._before: dict[int, Any] = {}

    def listen(self) -> None:
        """Take the signals from whoever has them."""
        for number in STOPPING:
            handler = signal.signal(number, self._receive)
            self._before.setdefault(number, handler)

    def stop_listening(self) -> None:
        """Give them back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def _receive(self, number: int, _: FrameType | None) -> None:
        if number == signal.SIGINT and self.signal_number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal_number = number


class CheckpointFiles(CheckpointIO):
    """How a checkpoint of the trainer gets into a file and out of it."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write it beside, bring it to the disk, rename it: the name stands for a whole file or for nothing."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}{PARTIAL}")
        try:
            with beside.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(beside, path)
        finally:
            beside.unlink(missing_ok=True)
        _sync_folder(path.parent)

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = True) -> dict[str, Any]:
        """Read tensors and plain values, and run no code, whatever `weights_only` says.

        Raises:
            CheckpointError: The file is absent, damaged, or would run code.
        """
        checkpoint: dict[str, Any] = read_torch_file(path)
        return checkpoint

    def remove_checkpoint(self, path: Any) -> None:
        """Delete it."""
        Path(path).unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def saved_steps(folder: Path) -> dict[int, Path]:
    """The checkpoints of a run by their step, the newest first; unfinished ones are not among them."""
    found = {int(match[1]): path for path in folder.glob("step-*.ckpt") if (match := _NAME.fullmatch(path.name))}
    return dict(sorted(found.items(), reverse=True))


def newest_whole(folder: Path) -> Path | None:
    """The newest checkpoint of a run that can be read, or None if there is none at all.

    Raises:
        CheckpointError: There are checkpoints, and every one is damaged.
    """
    faults = []
    for path in saved_steps(folder).values():
        try:
            check_torch_file(path)
        except CheckpointError as error:
            logger.warning("passed over a checkpoint: %s", error)
            faults.append(error)
        else:
            return path
    if faults:
        raise CheckpointError(folder, "damaged", f"all {len(faults)} checkpoints are damaged; move them away to start")
    return None


class Checkpoints(Checkpoint):
    """Saves at steps, and when asked to stop.

    Args:
        every_n_steps: Steps between checkpoints.
        keep: How many of the newest are kept; with 2, a damaged one costs `every_n_steps` steps.
        keep_every_n_steps: Those of every so manieth step are kept for good; 0 keeps none.
    """

    def __init__(self, *, every_n_steps: int = 500, keep: int = 2, keep_every_n_steps: int = 0) -> None:
        if every_n_steps < 1 or keep < 1 or keep_every_n_steps < 0:
            raise ValueError("every_n_steps and keep must be at least 1, keep_every_n_steps at least 0")
        if keep_every_n_steps % every_n_steps:
            raise ValueError(f"keep_every_n_steps must be a multiple of every_n_steps ({every_n_steps})")
        self.every_n_steps, self.keep, self.keep_every_n_steps = every_n_steps, keep, keep_every_n_steps
        self.saving_s = 0.0
        """Time spent in saving."""
        self._saved_step = -1
        self._stop = StopRequest()

    @staticmethod
    def folder(trainer: Trainer) -> Path:
        """Where the checkpoints of a run lie."""
        return Path(trainer.default_root_dir) / "checkpoints"

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Put our files in the place of Lightning's, and see that all ranks begin alike."""
        trainer.strategy.checkpoint_io = CheckpointFiles()
        chosen = str(trainer.ckpt_path)
        if trainer.strategy.broadcast(chosen) != chosen:
            raise MisconfigurationException(
                f"rank {trainer.global_rank} would begin from {chosen}, unlike rank 0: is {trainer.default_root_dir} "
                "the same folder on all nodes?"
            )
        if stage == "fit" and trainer.is_global_zero:
            for partial in self.folder(trainer).glob(f".*{PARTIAL}"):
                partial.unlink(missing_ok=True)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Lightning has its own way with signals, which saves in the middle of a step."""
        self._stop.listen()
        self._saved_step = trainer.global_step

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Give the signals back before Lightning does."""
        self._stop.stop_listening()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """The same, where training does not end well."""
        self._stop.stop_listening()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """At the end of a step: save if it is time, or if any rank was asked to stop."""
        _data(trainer).on_shown(batch)
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        asked = torch.tensor(self._stop.signal_number, device=pl_module.device)
        number = int(trainer.strategy.reduce(asked, reduce_op="max"))
        if number or trainer.global_step % self.every_n_steps == 0 or trainer.global_step == trainer.max_steps:
            self._save(trainer, pl_module)
        if number:
            raise StoppedEarlyError(trainer.global_step, number)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Take up the count of steps, and nothing else of Lightning's loops.

        They count batches, whose number in a step is another on another number of devices, and they cannot go on in the
        middle of an epoch. For them, each start of a run is the start of an epoch.
        """
        checkpoint.pop("loops", None)
        begin_at_step(trainer, checkpoint["global_step"])

    def _save(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.global_step == self._saved_step:
            return
        start = time.perf_counter()
        _refuse_broken(pl_module, trainer.global_step)
        folder = self.folder(trainer)
        trainer.save_checkpoint(folder / f"step-{trainer.global_step:08d}.ckpt")
        _data(trainer).write_seen()
        self._saved_step = trainer.global_step
        if trainer.is_global_zero:
            for step, path in list(saved_steps(folder).items())[self.keep :]:
                if not self.keep_every_n_steps or step % self.keep_every_n_steps:
                    path.unlink(missing_ok=True)
        self.saving_s += time.perf_counter() - start


def _data(trainer: Trainer) -> ClipBatches:
    data: Any = trainer.datamodule  # type: ignore[attr-defined]
    if not isinstance(data, ClipBatches):
        raise MisconfigurationException("only runs on training.data_module.ClipBatches can go on where they stand")
    return data


def begin_at_step(trainer: Trainer, step: int) -> None:
    """Set Lightning's counters as after so many steps, at the start of its epoch."""
    loop = trainer.fit_loop.epoch_loop
    loop.automatic_optimization.optim_progress.optimizer.step.total.completed = step
    loop.automatic_optimization.optim_progress.optimizer.step.total.ready = step
    loop._batches_that_stepped = step
    batches = step * trainer.accumulate_grad_batches
    for count in ("ready", "started", "processed", "completed"):
        setattr(loop.batch_progress.total, count, batches)


def _refuse_broken(module: LightningModule, step: int) -> None:
    trained: list[Tensor] = [parameter.detach() for parameter in module.parameters() if parameter.requires_grad]
    if not torch.stack([norm.float() for norm in torch._foreach_norm(trained)]).isfinite().all():
        raise RuntimeError(
            f"the weights are no longer finite at step {step}: not saved. The last checkpoint is from before that; "
            "go on from it with a lower model.optimizer.lr, or with bf16 in place of fp16"
        )
