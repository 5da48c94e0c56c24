"""What a run says of itself: a line a person can read, and the same numbers for TensorBoard and others."""

import resource
import time
from typing import Any

import torch
from lightning.fabric.utilities.throughput import get_available_flops
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from rich.console import Console
from torch.utils.flop_counter import FlopCounterMode

from training.data_module import Batch, ClipBatches
from training.model.unet import MultiViewVideoUNet
from training.module import MultiViewVideoTraining
from training.saving import Checkpoints

PRECISIONS = {"bf16": torch.bfloat16, "16": torch.float16}
"""By how the trainer's precision begins."""


class Progress(Callback):
    """Reports every so many steps.

    `data_wait` is the share of time in which training waited for the loader. MFU is model FLOPs utilisation: what the
    network's forward and backward pass need, without recomputation and without the frozen encoders, as a share of what
    the device can do.

    Args:
        every_n_steps: Steps between reports; the loss is the mean over them and over all ranks.
        count_flops: Count the network's work at the start; takes some seconds for a large one.
    """

    def __init__(self, *, every_n_steps: int = 10, count_flops: bool = True) -> None:
        if every_n_steps < 1:
            raise ValueError(f"every_n_steps must be at least 1, got {every_n_steps}")
        self.every_n_steps = every_n_steps
        self.count_flops = count_flops
        self.flops_per_sample = 0
        """Forward and backward; 0 if it was not counted."""
        self._console = Console(highlight=False)
        self._since = _Since(0, 0.0, 0.0, 0.0)
        self._paused_s = 0.0
        self._pause_start = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say what is about to be trained on what."""
        module, data = _known(trainer, pl_module)
        trained = sum(parameter.numel() for parameter in module.trained)
        everything = sum(parameter.numel() for parameter in module.unet.parameters())
        self._say(
            trainer,
            f"{data.num_samples:,} samples of {data.latents or data.shards}; {trained / 1e6:.1f} of "
            f"{everything / 1e6:.1f} M parameters are trained; step {trainer.global_step:,} of {trainer.max_steps:,}, "
            f"each {data.global_batch} samples: {trainer.world_size} x {data.batch_size} x "
            f"{trainer.accumulate_grad_batches} accumulated; into {trainer.default_root_dir}",
        )
        self._since = self._now(trainer, data)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int) -> None:
        """Count the work of the first batch."""
        if self.count_flops and batch_idx == 0 and not self.flops_per_sample:
            module, data = _known(trainer, pl_module)
            with torch.no_grad():
                clips = module.encoded(batch)
            shapes = [tuple(part.shape[1:]) for part in (clips.latents, clips.text, clips.image_embeds, clips.cameras)]
            self.flops_per_sample = flops_per_sample(module.unet, shapes, module.train_part)
            self._since = self._now(trainer, data)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Report, if it is time."""
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        step = trainer.global_step
        if step % self.every_n_steps == 0 or step == trainer.max_steps:
            module, data = _known(trainer, pl_module)
            self._report(trainer, module, data)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Validation is not training time."""
        self._pause_start = time.perf_counter()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say what came of it."""
        self._paused_s += time.perf_counter() - self._pause_start
        found = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("val/")}
        if "val/loss" in found:
            picture = f"; sampled clips {found['val/psnr']:.1f} dB" if "val/psnr" in found else ""
            self._say(
                trainer,
                f"validation at step {trainer.global_step:,}: loss {found['val/loss']:.4f} with averaged weights "
                f"(blind {found['val/baseline_blind']:.4f}, standing still {found['val/baseline_still']:.4f}){picture}",
            )

    on_test_end = on_validation_end
    on_test_start = on_validation_start

    def _report(self, trainer: Trainer, module: MultiViewVideoTraining, data: ClipBatches) -> None:
        losses, module.step_losses = module.step_losses, []
        loss = float(trainer.strategy.reduce(torch.stack(losses).mean(), reduce_op="mean"))
        now, before = self._now(trainer, data), self._since
        self._since = now
        steps = now.step - before.step
        seconds = max(1e-9, now.time_s - before.time_s - (now.paused_s - before.paused_s))
        metrics = {
            "train/loss": loss,
            "train/lr": float(trainer.optimizers[0].param_groups[0]["lr"]),
            "train/passes": data.place / data.num_samples,
            "speed/samples_per_s": steps * data.global_batch / seconds,
            "speed/step_s": seconds / steps,
            "speed/data_wait": (now.waited_s - before.waited_s) / seconds,
            "speed/memory_gib": memory_gib(module.device),
        }
        metrics |= self._work(trainer, metrics["speed/samples_per_s"])
        for logger in trainer.loggers:
            logger.log_metrics(metrics, step=now.step)
        left_s = (trainer.max_steps - now.step) * seconds / steps
        mfu = f"  MFU {metrics['speed/mfu']:.1%}" if "speed/mfu" in metrics else ""
        self._say(
            trainer,
            f"step {now.step:>{len(str(trainer.max_steps))}}/{trainer.max_steps}  loss {loss:.4f}  "
            f"{metrics['speed/samples_per_s']:.2f} samples/s  waiting {metrics['speed/data_wait']:.1%}{mfu}  "
            f"{metrics['speed/memory_gib']:.1f} GiB  left {clock(left_s)}",
        )
        if not torch.isfinite(torch.tensor(loss)):
            raise RuntimeError(f"the loss is {loss} at step {now.step}: go on with a lower model.optimizer.lr")

    def _work(self, trainer: Trainer, samples_per_s: float) -> dict[str, float]:
        if not self.flops_per_sample:
            return {}
        per_device = samples_per_s * self.flops_per_sample / trainer.world_size
        dtype = next(
            (kind for name, kind in PRECISIONS.items() if str(trainer.precision).startswith(name)), torch.float32
        )
        able = get_available_flops(trainer.strategy.root_device, dtype)
        found = {"speed/tflops_a_device": per_device / 1e12}
        if able:
            found["speed/mfu"] = per_device / able
        return found

    def _now(self, trainer: Trainer, data: ClipBatches) -> "_Since":
        savers = [callback for callback in trainer.checkpoint_callbacks if isinstance(callback, Checkpoints)]
        saving = sum(saver.saving_s for saver in savers)
        return _Since(trainer.global_step, time.perf_counter(), self._paused_s + saving, data.waited_s)

    def _say(self, trainer: Trainer, line: str) -> None:
        if trainer.is_global_zero:
            self._console.print(line, soft_wrap=True)


class _Since:
    """Where the clocks stood at the last report."""

    def __init__(self, step: int, time_s: float, paused_s: float, waited_s: float) -> None:
        self.step, self.time_s, self.paused_s, self.waited_s = step, time_s, paused_s, waited_s


def flops_per_sample(unet: MultiViewVideoUNet, shapes: list[tuple[int, ...]], train: Any) -> int:
    """Floating-point operations of a forward and a backward pass over one item, counted without computing anything.

    Args:
        unet: Gives the sizes.
        shapes: Of latents, text, image embeddings and cameras of an item.
        train: Which part of the network has gradients.
    """
    with torch.device("meta"):
        twin = MultiViewVideoUNet.from_config(unet.config).to("meta")
        twin.train_only(train)
        latents, text, image, cameras = (torch.empty(1, *shape) for shape in shapes)
        with FlopCounterMode(display=False) as counter:
            twin(latents, torch.zeros(1, dtype=torch.long), text, image, cameras).sum().backward()
    return int(counter.get_total_flops())


def memory_gib(device: torch.device) -> float:
    """The most that was in use at once: on the GPU, or of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def clock(seconds: float) -> str:
    """Hours, minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def _known(trainer: Trainer, module: LightningModule) -> tuple[MultiViewVideoTraining, ClipBatches]:
    data: Any = trainer.datamodule  # type: ignore[attr-defined]
    assert isinstance(module, MultiViewVideoTraining)
    assert isinstance(data, ClipBatches)
    return module, data
