"""The training of MV-VDM as Lightning sees it: steps, averaged weights, validation, sampled clips."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from diffusers.optimization import get_scheduler
from diffusers.training_utils import EMAModel
from jaxtyping import Float
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor, nn

from training import objective
from training.baselines import LatentMoments
from training.data_module import Batch, ClipBatches
from training.model.unet import MultiViewVideoUNet
from training.objective import CLEAN_FRAMES, Objective
from training.pictures import as_image, psnr, sheet
from training.sampling.free_init import FreeInit
from training.sampling.guidance import Condition, classifier_free
from training.sampling.pipeline import MultiViewVideoPipeline
from training.start import Start


@dataclass(frozen=True, kw_only=True)
class AdamW:
    """The optimizer, and how its rate runs over the steps."""

    lr: float = 1e-4
    """Not scaled by anything: it is what each step uses."""
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.01
    eps: float = 1e-8
    schedule: Literal["constant", "cosine", "linear"] = "constant"
    """After the warm-up: as it is, or down to 0 at the end of the run."""
    warmup_steps: int = 0
    """Steps over which the rate rises to `lr`."""

    def __post_init__(self) -> None:
        if self.lr <= 0 or self.weight_decay < 0 or self.warmup_steps < 0:
            raise ValueError(f"need lr > 0, weight_decay >= 0 and warmup_steps >= 0, got {self}")


@dataclass(frozen=True, kw_only=True)
class Averaging:
    """An exponential moving average of the trained weights: what is validated, sampled with and exported."""

    decay: float = 0.9999
    """At most; in step n it is (1 + n) / (10 + n) if that is less."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.decay < 1.0:
            raise ValueError(f"decay must lie in 0..1, without 1, got {self.decay}")


@dataclass(frozen=True, kw_only=True)
class Validation:
    """What is looked at beside the loss of training."""

    timesteps: tuple[int, ...] = (50, 200, 400, 600, 800, 950)
    """At which the loss of validation is taken, with the same noise each time."""
    num_clips: int = 1
    """Clips that are sampled at each validation and shown beside the true ones; 0 samples none."""
    num_inference_steps: int = 25
    guidance: float = 7.5
    free_init_rounds: int = 1
    """Published: 3, which take three times as long."""

    def __post_init__(self) -> None:
        if not self.timesteps or min(self.timesteps) < 0 or self.num_clips < 0 or self.num_inference_steps < 1:
            raise ValueError(f"need timesteps from 0 on, num_clips >= 0 and num_inference_steps >= 1, got {self}")


class MultiViewVideoTraining(LightningModule):
    """Train MV-VDM on clips.

    Args:
        start: Where the network and its frozen encoders come from.
        objective: What it is trained to do.
        train: Animate3D's own parts, on frozen parents, or everything.
        optimizer: AdamW and its rate.
        averaging: Of the weights.
        validation: What is looked at.
        recompute_levels: Levels of the network that are computed again in the backward pass, to save memory; `all` for
            all of them. Level 0 has most of the memory and a third of the work.
        compile: Compile the network with `torch.compile`.
        encoders_dtype: What the frozen encoders compute in on a GPU; on a CPU it is float32.
        pictures_at_once: Pictures that the autoencoder encodes or decodes together.
        seed: Of timesteps, noise and dropout, and of random weights.
    """

    def __init__(
        self,
        start: Start,
        *,
        objective: Objective = Objective(),  # noqa: B008  (frozen, as are the others)
        train: Literal["animate3d", "all"] = "animate3d",
        optimizer: AdamW = AdamW(),
        averaging: Averaging = Averaging(),
        validation: Validation = Validation(),
        recompute_levels: Literal["all"] | tuple[int, ...] = (),
        compile: bool = False,
        encoders_dtype: Literal["float32", "float16", "bfloat16"] = "bfloat16",
        pictures_at_once: int = 16,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if max(validation.timesteps) >= objective.schedule.num_timesteps:
            raise ValueError(f"validation.timesteps end at {objective.schedule.num_timesteps - 1}")
        if start.scratch and start.scratch.carries_clip and objective.schedule.prediction != "sample":
            raise ValueError("carries_clip needs objective.schedule.prediction sample: noise is no part of the clip")
        self.start, self.objective, self.train_part = start, objective, train
        self.optimizer_settings, self.averaging, self.validation = optimizer, averaging, validation
        self.recompute_levels, self.compiles = recompute_levels, compile
        self.encoders_dtype: torch.dtype = getattr(torch, encoders_dtype)
        self.pictures_at_once, self.seed = pictures_at_once, seed
        self.network: nn.Module | None = None
        self.step_losses: list[Tensor] = []
        """Of this rank's batches since somebody last took them."""
        self._empty_text: Tensor | None = None
        self._evaluated: list[dict[str, Tensor]] = []
        self._moments: LatentMoments | None = None

    # Setting up.

    def configure_model(self) -> None:
        """Build the network and the encoders, once; Lightning calls it before weights are restored."""
        if self.network is not None:
            return
        self.pipeline: MultiViewVideoPipeline = self.start.build(self.objective.schedule, self.seed)
        unet = self.pipeline.unet
        self.trained = unet.train_only(self.train_part)
        unet.checkpoint_levels(self.recompute_levels)
        self.network = unet
        if self.compiles:
            unet.compile()
        self.ema = EMAModel(self.trained, decay=self.averaging.decay, foreach=True)

    @property
    def unet(self) -> MultiViewVideoUNet:
        """The network, whatever is wrapped round it."""
        return self.pipeline.unet

    def configure_optimizers(self) -> Any:
        """AdamW over what trains, and its schedule by steps."""
        settings = self.optimizer_settings
        optimizer = torch.optim.AdamW(
            self.trained,
            lr=settings.lr,
            betas=settings.betas,
            weight_decay=settings.weight_decay,
            eps=settings.eps,
            fused=self.device.type == "cuda" or None,
        )
        name = "constant_with_warmup" if settings.schedule == "constant" else settings.schedule
        schedule = get_scheduler(
            name,
            optimizer,
            num_warmup_steps=settings.warmup_steps,
            num_training_steps=max(self.trainer.max_steps, settings.warmup_steps + 1),
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _move_encoders(self) -> None:
        dtype = self.encoders_dtype if self.device.type == "cuda" else torch.float32
        for part in (self.pipeline.vae, self.pipeline.text_encoder, self.pipeline.image_encoder):
            nn.Module.to(part, self.device, dtype)
        self.ema.to(self.device)

    def on_fit_start(self) -> None:
        """Bring what Lightning does not know to the device."""
        self._move_encoders()

    # Training.

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss of a batch, with the noise that belongs to its places in the stream."""
        clips = self.encoded(batch)
        draw = self.objective.draw(clips, item_seeds(self.seed, batch["place"]))
        loss = self.objective.loss(self._network, clips, draw)
        self.step_losses.append(loss.mean.detach())
        return loss.mean

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """A step, and its share in the average."""
        super().optimizer_step(*args, **kwargs)
        self.ema.step(self.trained)

    @property
    def _network(self) -> Any:
        assert self.network is not None
        return self.network

    @torch.no_grad()
    def encoded(self, batch: Batch) -> objective.Batch:
        """A batch as the network sees it: pictures and captions are encoded, latents are taken as they come."""
        if "latents" in batch:
            names = ("latents", "text", "image_embeds")
            latents, text, image_embeds = (batch[name].to(self.device).float() for name in names)
        else:
            video = batch["video"] / 2 + 0.5
            frames = video.flatten(1, 2).split(max(1, self.pictures_at_once // len(video)), dim=1)
            latents = torch.cat([self.pipeline.encode_pictures(part) for part in frames], dim=1)
            latents = latents.unflatten(1, video.shape[1:3])
            text = self.pipeline.encode_prompts(batch["caption"]).float()
            image_embeds = self.pipeline.encode_first_frames(video[:, :, 0]).float()
        return objective.Batch(
            latents=latents,
            text=text,
            empty_text=self.empty_text(),
            image_embeds=image_embeds,
            cameras=batch["cameras"].to(self.device),
        )

    def empty_text(self) -> Float[Tensor, "words context"]:
        """The states of the empty prompt, which are always the same."""
        if self._empty_text is None:
            stored = self._data.empty_text()
            states = self.pipeline.encode_prompts([""])[0] if stored is None else stored
            self._empty_text = states.to(self.device).float()
        return self._empty_text

    @property
    def _data(self) -> ClipBatches:
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        if not isinstance(data, ClipBatches):
            raise MisconfigurationException("train with training.data_module.ClipBatches: noise depends on its places")
        return data

    # The average.

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """With the averaged weights in the place of the trained ones."""
        self.ema.store(self.trained)
        self.ema.copy_to(self.trained)
        try:
            yield
        finally:
            self.ema.restore(self.trained)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """The average goes with the weights."""
        checkpoint["ema"] = {name: whole(value) for name, value in self.ema.state_dict().items()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """And comes back with them."""
        shadows = [
            like(old, new) for old, new in zip(self.ema.shadow_params, checkpoint["ema"]["shadow_params"], strict=True)
        ]
        self.ema.load_state_dict({**checkpoint["ema"], "shadow_params": shadows})

    # Looking.

    def on_validation_start(self) -> None:
        """Everything from here to the end of validation is done with the average."""
        self._move_encoders()
        self._averaged = self.averaged()
        self._averaged.__enter__()

    def on_validation_end(self) -> None:
        """Back to training."""
        self._averaged.__exit__(None, None, None)

    on_test_start = on_predict_start = on_validation_start
    on_test_end = on_predict_end = on_validation_end

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """The loss at fixed timesteps with fixed noise, item by item."""
        self._evaluate(batch, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """The same on the test split."""
        self._evaluate(batch, "test")

    def _evaluate(self, batch: Batch, split: str) -> None:
        counts = (batch["place"] < self._data.num_evaluated(split)).to(self.device)
        if not counts.any():
            return
        clips = self.encoded(batch)
        if self._moments is None:
            self._moments = LatentMoments.zero(tuple(clips.latents.shape[3:]), self.device)
        self._moments.add(clips.latents[counts])
        losses = []
        for timestep in self.validation.timesteps:
            draw = self.objective.draw(
                clips,
                item_seeds(timestep, batch["place"]),
                timesteps=torch.full((len(counts),), timestep, device=self.device),
            )
            certain = torch.zeros_like(draw.drops_text)
            draw = objective.Draw(timesteps=draw.timesteps, noise=draw.noise, drops_text=certain, drops_image=certain)
            losses.append(self.objective.loss(self._network, clips, draw).per_item[counts].sum())
        self._evaluated.append({"sum": torch.stack(losses), "count": counts.sum()})

    def on_validation_epoch_end(self) -> None:
        """Say what came of it, and show some clips."""
        self._report("val")

    def on_test_epoch_end(self) -> None:
        """The same for the test split."""
        self._report("test")

    def _report(self, split: str) -> None:
        metrics = self._losses()
        if self.validation.num_clips:
            batch = self._data.examples(split, self.validation.num_clips)
            truth, sampled = self.sample(batch)
            metrics["psnr"] = psnr(truth, sampled)
            for number in range(len(truth)):
                self._show(f"{split}_{number}", sheet(truth[number], sampled[number]))
        named = {f"{split}/{name}": value for name, value in metrics.items()}
        self.log_dict(named, logger=False, rank_zero_only=True)
        # Lightning would put them one step too early.
        for logger in self.trainer.loggers:
            logger.log_metrics(named, step=self.trainer.global_step)

    def _losses(self) -> dict[str, float]:
        width = len(self.validation.timesteps)
        sums = torch.zeros(width + 1, device=self.device)
        for part in self._evaluated:
            sums += torch.cat([part["sum"], part["count"][None].to(sums)])
        sums = self.all_reduced(sums)
        self._evaluated.clear()
        at = (sums[:width] / sums[width]).tolist()
        metrics = {"loss": float(np.mean(at))}
        metrics |= {f"loss_t{timestep:03d}": loss for timestep, loss in zip(self.validation.timesteps, at, strict=True)}
        return metrics | self._baselines()

    def _baselines(self) -> dict[str, float]:
        """At the fixed timesteps, to hold the loss of validation against; and over all, for that of training."""
        moments, self._moments = self._moments, None
        if moments is None:
            # A rank without samples still takes part in the sums.
            shape = tuple(self.encoded(self._data.examples("val", 1)).latents.shape[3:])
            moments = LatentMoments.zero(shape, self.device)
        moments = LatentMoments(*(self.all_reduced(part) for part in vars(moments).values()))
        schedule = self.objective.schedule
        fixed = moments.losses(schedule, torch.tensor(self.validation.timesteps, device=self.device))
        everywhere = moments.losses(schedule, torch.arange(schedule.num_timesteps, device=self.device))
        metrics = {f"baseline_{name}": float(losses.mean()) for name, losses in fixed.items()}
        return metrics | {f"baseline_{name}_all_t": float(losses.mean()) for name, losses in everywhere.items()}

    def all_reduced(self, values: Tensor) -> Tensor:
        """The sum over ranks."""
        summed = self.trainer.strategy.reduce(values, reduce_op="sum")
        assert isinstance(summed, Tensor)
        return summed

    @torch.no_grad()
    def sample(
        self, batch: Batch, seeds: Sequence[int] | None = None
    ) -> tuple[Float[Tensor, "b v t 3 h w"], Float[Tensor, "b v t 3 h w"]]:
        """True clips and clips sampled from their first frames, prompts and cameras; colours in 0..1, on the CPU."""
        clips = self.encoded(batch)
        condition = Condition(text=clips.text, image_embeds=clips.image_embeds, cameras=clips.cameras)
        negative = clips.empty_text.expand_as(clips.text)
        settings = self.validation
        with self.trainer.precision_plugin.forward_context():
            latents = self.pipeline.denoise(
                clips.latents[:, :, :CLEAN_FRAMES],
                (condition, condition.without_prompt(negative)),
                classifier_free(settings.guidance),
                FreeInit(num_rounds=settings.free_init_rounds),
                clips.latents.shape[2],
                settings.num_inference_steps,
                [torch.Generator().manual_seed(seed) for seed in seeds or item_seeds(self.seed, batch["place"])],
            )
        sampled = self.pipeline.decode_latents(latents, self.pictures_at_once)
        if "video" in batch:
            return (batch["video"] / 2 + 0.5).cpu(), sampled
        return self.pipeline.decode_latents(clips.latents, self.pictures_at_once), sampled

    def predict_step(self, batch: Batch, batch_idx: int) -> list[tuple[str, float]]:
        """Sample the clips of a batch and write each as a sheet; returns their keys and PSNR."""
        truth, sampled = self.sample(batch)
        found = []
        counts = batch["place"] < self._data.num_evaluated("val")
        for number, key in enumerate(batch["key"]):
            if counts[number]:
                self._write(f"sampled/{key}.png", sheet(truth[number], sampled[number]))
                found.append((key, psnr(truth[number], sampled[number])))
        return found

    def _show(self, name: str, picture: Float[Tensor, "3 height width"]) -> None:
        if not self.trainer.is_global_zero:
            return
        step = self.trainer.global_step
        self._write(f"samples/{name}_step-{step:08d}.png", picture)
        for logger in self.trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_image(f"samples/{name}", picture.clamp(0, 1), step)
            elif hasattr(logger, "log_image"):
                logger.log_image(f"samples/{name}", [as_image(picture)], step=step)

    def _write(self, relative: str, picture: Float[Tensor, "3 height width"]) -> None:
        path = Path(self.trainer.default_root_dir) / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        as_image(picture).save(path)


def item_seeds(seed: int, places: Sequence[int] | Tensor) -> list[int]:
    """A seed for each place of the stream: what is left to chance there is the same on any rank, in any batch."""
    numbers = [int(place) for place in places]
    return [int(np.random.SeedSequence((seed, place)).generate_state(1, np.uint64)[0]) >> 1 for place in numbers]


def whole(value: Any) -> Any:
    """A value of the average as it is saved: tensors that are spread over ranks are put together."""
    if isinstance(value, list):
        return [whole(part) for part in value]
    return value.full_tensor() if hasattr(value, "full_tensor") else value


def like(old: Tensor, new: Tensor) -> Tensor:
    """A saved tensor as the present one lies: on its device, and spread as it is."""
    if hasattr(old, "device_mesh"):
        from torch.distributed.tensor import DTensor, distribute_tensor

        assert isinstance(old, DTensor)
        return distribute_tensor(new.to(old.device), old.device_mesh, old.placements)
    return new.to(old.device)
