"""Fit a motion field to a multi-view video: the object at frame 0 is given, where it is at the others is found."""

import dataclasses
import json
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from fourd.canonical import Canonical
from fourd.checkpoint import read_checkpoint, write_checkpoint
from fourd.checks import check_memory, check_overlap
from fourd.errors import ReconstructionError
from fourd.looks import fit_looks, keep_looks, look_groups, looks_of
from fourd.losses.arap import arap_energy
from fourd.losses.matches import Matches
from fourd.losses.perceptual import Lpips, load_lpips
from fourd.losses.pictures import depth_roughness, mean_squared, psnr_db, shrunk
from fourd.motion.field import HexplaneMotion, HexplaneSettings, Motion, MotionField
from fourd.motion.nodes import NodeMotion, NodeSettings
from fourd.motion.uniform_adam import UniformAdam
from fourd.moving import MovingGaussians
from fourd.preview import draw_below
from fourd.settings import ReconstructionSettings, Stage
from fourd.tries import Tries
from fourd.video import MultiViewVideo
from pipeline.events import EventLog
from pipeline.storage import Store

logger = logging.getLogger("mv4d.fourd")

CHECKPOINT = "checkpoint.pt"
PREVIEW = "preview.png"
LEAST_PACE = 1 / 3
"""Share of the rates that every frame has."""


class Guidance(Protocol):
    """A further loss, such as 4D-SDS."""

    def __call__(self, model: MovingGaussians, step: int) -> Tensor:
        """A scalar to be added, with its gradient."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """What is told of a step that is done."""

    stage: str
    step: int
    """Over all stages, from 1."""
    num_steps: int
    """At most, over all stages."""
    loss: float
    psnr_db: float
    """Of the pictures of this step."""
    newest_frame: int
    rate: float
    """Steps a second since this process began."""
    losses: dict[str, float]


def build_field(canonical: Canonical, num_frames: int, settings: ReconstructionSettings) -> MotionField:
    """The motion field that settings ask for, before any step."""
    if isinstance(settings.field, HexplaneSettings):
        generator = torch.Generator().manual_seed(settings.seed)
        return HexplaneMotion(canonical.points, num_frames, settings.field, generator)
    return NodeMotion(canonical.points, num_frames, settings.field, canonical.faces)


class Reconstruction:
    """A fit that can be stopped at any step and gone on with."""

    def __init__(
        self,
        video: MultiViewVideo,
        canonical: Canonical,
        settings: ReconstructionSettings,
        folder: Path | None = None,
        *,
        static: MultiViewVideo | None = None,
        guidance: Guidance | None = None,
        identity: str = "",
    ) -> None:
        """Check everything, and take up what the folder holds of the same fit.

        Args:
            video: To fit to.
            canonical: What is moved.
            settings: How.
            folder: For checkpoints, previews and events; None keeps nothing.
            static: The orbit round frame 0, for stages that ask for it.
            guidance: A further loss in each step.
            identity: What else makes this fit another one than the last: it is kept with the checkpoint.

        Raises:
            ReconstructionError: Video and object do not belong together, memory would not do, or the folder holds
                another fit.
        """
        self.video, self.settings, self.folder = video, settings, folder
        self.static, self.guidance = static, guidance
        if video.num_frames < 2:
            raise ReconstructionError(video.clip_id, "no_motion", "it has one frame; motion needs at least 2")
        if video.c2w.device.type == "cpu":
            check_memory(
                video.clip_id, settings, num_frames=video.num_frames, num_views=video.num_views, size_px=video.size_px,
                num_gaussians=len(canonical.gaussians), num_points=len(canonical.points.positions),
            )  # fmt: skip
        field = build_field(canonical, video.num_frames, settings)
        self.model = MovingGaussians(canonical, field, settings.drawing).to(video.c2w.device)
        check_overlap(self.model, video)
        self.lpips = self._lpips()
        weights = settings.weights
        self.neighbours = (
            canonical.neighbours(settings.arap_neighbours, nearest=not settings.arap_by_edges) if weights.arap else None
        )
        self.matches = Matches(video) if weights.matches else None
        self.tries = Tries()
        self.identity = json.dumps(
            [
                identity,
                video.clip_id,
                video.views,
                video.size_px,
                len(canonical.gaussians),
                dataclasses.asdict(settings),
            ],
            sort_keys=True,
        )
        self.stage_index = self.stage_step = self.step = 0
        self.best_loss, self.best_step = math.inf, 0
        self.mean_loss = math.nan
        self.newest = 0
        self.pace = 1.0
        self.optimizer = self._optimizer(settings.stages[0])
        self.has_looks = False
        self.is_resumed = self._resume()

    @property
    def is_done(self) -> bool:
        """All stages have ended."""
        return self.stage_index >= len(self.settings.stages)

    @property
    def num_steps(self) -> int:
        """At most."""
        return sum(stage.num_steps(self.video.num_frames) for stage in self.settings.stages)

    def run(
        self,
        on_step: Callable[[Step], None] | None = None,
        *,
        save_every_s: float = 20.0,
        preview_every_s: float = 10.0,
    ) -> MovingGaussians:
        """Go on to the end.

        Args:
            on_step: Told of each step.
            save_every_s: Between checkpoints.
            preview_every_s: Between preview pictures.

        Raises:
            ReconstructionError: The loss is no longer a number, or memory ran out.
        """
        events = EventLog(Store(str(self.folder)), "reconstruct") if self.folder else None
        try:
            self._run(on_step, events, save_every_s, preview_every_s)
        except (MemoryError, torch.OutOfMemoryError) as error:
            advice = "fewer views, a smaller --size_px or fewer Gaussians need less"
            raise ReconstructionError(self.video.clip_id, "memory", f"memory ran out: {advice}") from error
        finally:
            if events:
                events.flush()
        return self.model

    def _run(
        self,
        on_step: Callable[[Step], None] | None,
        events: EventLog | None,
        save_every_s: float,
        preview_every_s: float,
    ) -> None:
        began = saved = previewed = time.monotonic()
        first = self.step
        if not self.has_looks:
            self._fit_static_looks(events)
        while not self.is_done:
            stage = self.settings.stages[self.stage_index]
            losses, psnr = self._take_step(stage)
            now = time.monotonic()
            if on_step:
                on_step(
                    Step(
                        stage=stage.name, step=self.step, num_steps=self.num_steps, loss=sum(losses.values()),
                        psnr_db=psnr, newest_frame=self.newest, losses=losses,
                        rate=(self.step - first) / max(now - began, 1e-9),
                    )
                )  # fmt: skip
            if self._stage_ends(stage):
                if events:
                    events.write("stage_done", stage=stage.name, steps=self.stage_step, losses=losses, psnr_db=psnr)
                self._next_stage()
            if self.folder and (now - saved >= save_every_s or self.is_done):
                self.save()
                saved = time.monotonic()
            if self.folder and (now - previewed >= preview_every_s or self.is_done):
                self.preview(self.folder / PREVIEW)
                previewed = time.monotonic()
                if events:
                    events.write("step", step=self.step, losses=losses, psnr_db=psnr, newest_frame=self.newest)

    def _fit_static_looks(self, events: EventLog | None) -> None:
        static = self.settings.static
        if static.steps and (static.always or not self.model.canonical.has_colors):
            videos = [self.video] + ([self.static] if self.static else [])
            psnr = fit_looks(self.model, videos, static, self.settings.background)
            if events:
                events.write("looks_fitted", psnr_db=psnr)
        self.has_looks = True

    def _take_step(self, stage: Stage) -> tuple[dict[str, float], float]:
        generator = torch.Generator().manual_seed(self.settings.seed * 1_000_003 + self.step)
        newest = self._newest_of(stage)
        for frame in range(self.newest + 1, newest + 1):
            self.model.field.begin_frame(frame, partial(self._judged, stage, frame))
            self.newest = frame
            self.pace = self._pace_of(stage, frame)
        if stage.num_tries > 1:
            self._go_on_trying(stage)
        frames = self._frames_of(stage, generator)
        factor = self._rate_factor(stage)
        for group in self.optimizer.param_groups:
            group["lr"] = group["base"] * factor
        losses, psnr = self._losses(stage, frames, generator)
        total = torch.stack(list(losses.values())).sum()
        if not math.isfinite(float(total.detach())):
            raise ReconstructionError(self.video.clip_id, "diverged", f"the loss is {float(total)} at step {self.step}")
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        self.optimizer.step()
        if stage.fits_looks and self.model.canonical.binding.points.shape[1] > 1:
            keep_looks(self.model)
        self.step += 1
        self.stage_step += 1
        self._remember(float(total.detach()))
        return {name: float(loss.detach()) for name, loss in losses.items()}, psnr

    def _go_on_trying(self, stage: Stage) -> None:
        """Begin or end a try of the newest frame, if it is time."""
        done = self.stage_step % stage.num_per_frame
        if done > stage.num_tries * stage.num_coarse or done % stage.num_coarse:
            return
        own = self.model.field.frame_parameters(self.newest)
        for parameter in own:
            self.optimizer.state.pop(parameter, None)
        if done == 0:
            self.tries.begin(own)
        elif done < stage.num_tries * stage.num_coarse:
            self.tries.begin_again(own, self._judged(stage, self.newest))
        else:
            self.tries.end(own, self._judged(stage, self.newest))

    def _judged(self, stage: Stage, frame: int) -> float:
        """How well a frame fits as it is, in pictures of half the size, however stiff it was meant to be."""
        with torch.no_grad():
            losses, _ = self._fit_losses(stage, torch.tensor([frame]), torch.Generator().manual_seed(0), 1.0, 2)
        return float(torch.stack(list(losses.values())).sum())

    def _pace_of(self, stage: Stage, frame: int) -> float:
        """Share of the rates that a frame needs to come where its matches are."""
        if self.matches is None or not stage.full_rate_at:
            return 1.0
        with torch.no_grad():
            frames = torch.tensor([frame])
            _, gaussians = self.model.motion(frames)
            squared = self._matches_distance(self.matches, frames, gaussians, torch.Generator().manual_seed(0))
        return min(1.0, max(LEAST_PACE, math.sqrt(float(squared)) / stage.full_rate_at))

    def _losses(self, stage: Stage, frames: Tensor, generator: torch.Generator) -> tuple[dict[str, Tensor], float]:
        stiffness = stage.stiffness[self._tried(stage)[0]]
        losses, psnr = self._fit_losses(stage, frames, generator, stiffness, self._coarseness(stage))
        if stage.static_views and self.static is not None:
            losses |= self._static_losses(stage, generator)
        if self.guidance is not None:
            losses["guidance"] = self.guidance(self.model, self.step)
        return losses, psnr

    def _fit_losses(
        self, stage: Stage, frames: Tensor, generator: torch.Generator, stiffness: float, coarseness: int
    ) -> tuple[dict[str, Tensor], float]:
        weights = self.settings.weights
        points, gaussians = self.model.motion(frames)
        shown = _partly_held(gaussians, stage.gradient_share, generator)
        views = torch.arange(self.video.num_views)
        losses, psnr = self._picture_losses(self.video, frames, views, shown, coarseness)
        if self.matches is not None and coarseness > 1:
            losses["matches"] = weights.matches * self._matches_distance(self.matches, frames, gaussians, generator)
        if self.neighbours is not None:
            sample = self._arap_sample(points.positions.shape[1], generator)
            energy = arap_energy(self.model.field.positions, points.positions, self.neighbours, sample=sample)
            reduced = energy.sum() if self.settings.arap_reduction == "sum" else energy.mean(dim=1).sum()
            losses["arap"] = weights.arap * reduced
        wanted = [name for name, weight in vars(weights).items() if weight]
        for name, penalty in self.model.field.penalties(frames, wanted).items():
            factor = stiffness if name == "node_arap" else 1.0
            losses[name] = factor * getattr(weights, name) * penalty
        return losses, psnr

    def _picture_losses(
        self, video: MultiViewVideo, frames: Tensor, views: Tensor, moved: Motion, coarseness: int
    ) -> tuple[dict[str, Tensor], float]:
        weights, background = self.settings.weights, self.settings.background
        target, mask = video.colors(frames, views, background)
        width, height = video.size_px
        if coarseness > 1 and width == height:
            width = height = max(16, width // coarseness)
            both = shrunk(torch.cat([target, mask[..., None]], dim=-1), width)
            target, mask = both[..., :3], both[..., 3]
        render, alpha, depth = self.model.pictures(
            moved, video.w2c(frames, views), video.camera_matrix(width), width, height,
            background=background, with_depth=bool(weights.depth),
        )  # fmt: skip
        losses = {}
        if weights.rgb:
            losses["rgb"] = weights.rgb * mean_squared(render, target)
        if weights.mask:
            losses["mask"] = weights.mask * mean_squared(alpha, mask)
        if weights.l1:
            losses["l1"] = weights.l1 * (render - target).abs().mean()
        if self.lpips is not None:
            pair = [pictures.flatten(0, 1).permute(0, 3, 1, 2) for pictures in (render, target)]
            losses["lpips"] = weights.lpips * self.lpips(*pair).mean()
        if depth is not None:
            rough = depth_roughness(depth.flatten(0, 1), alpha.flatten(0, 1), target.flatten(0, 1))
            losses["depth"] = weights.depth * rough
        with torch.no_grad():
            psnr = float(psnr_db(render, target))
        return losses, psnr

    def _matches_distance(
        self, matches: Matches, frames: Tensor, gaussians: Motion, generator: torch.Generator
    ) -> Tensor:
        w2c = self.video.w2c(frames, torch.arange(self.video.num_views))
        colors, hidden = self.model.colors(gaussians, w2c), self.model.hidden(gaussians, w2c)
        return matches.distance(frames, gaussians.positions, colors, generator, hidden=hidden)

    def _static_losses(self, stage: Stage, generator: torch.Generator) -> dict[str, Tensor]:
        assert self.static is not None
        shown = torch.randint(self.static.num_frames, (1,), generator=generator)
        _, at_rest = self.model.motion(torch.zeros(1, dtype=torch.int64, device=self.model.sh.device))
        views = torch.arange(self.static.num_views)
        losses, _ = self._picture_losses(self.static, shown, views, at_rest, self._coarseness(stage))
        return {f"static_{name}": loss for name, loss in losses.items()}

    def _arap_sample(self, num_points: int, generator: torch.Generator) -> Tensor | None:
        count = self.settings.arap_points
        if not count:
            return None
        return torch.randint(num_points, (count,), generator=generator).to(self.model.sh.device)

    def _newest_of(self, stage: Stage) -> int:
        last = self.video.num_frames - 1
        return last if stage.frames == "all" else min(1 + self.stage_step // stage.num_per_frame, last)

    def _frames_of(self, stage: Stage, generator: torch.Generator) -> Tensor:
        """Frames 1 to the newest, or some of them. Frame 0 has nothing to be fitted, unless looks are."""
        newest = self._newest_of(stage)
        if stage.frames == "newest":
            earlier = torch.randperm(newest - 1, generator=generator)[: stage.num_earlier] + 1
            return torch.cat([torch.tensor([newest]), earlier]).sort().values
        first = 0 if stage.fits_looks else 1
        count = newest + 1 - first
        if not stage.frames_per_step or stage.frames_per_step >= count:
            return torch.arange(first, newest + 1)
        drawn = torch.randperm(count, generator=generator)[: stage.frames_per_step] + first
        if stage.frames == "progressive" and newest < self.video.num_frames - 1 and newest not in drawn:
            drawn[0] = newest
        return drawn.sort().values

    def _share_done(self, stage: Stage) -> float:
        if stage.frames == "newest":
            return self._tried(stage)[1] / stage.steps_per_frame
        return self.stage_step / stage.num_steps(self.video.num_frames)

    def _tried(self, stage: Stage) -> tuple[int, int]:
        """Which try of its frame a step belongs to, and its number without the tries before."""
        done = self.stage_step % stage.num_per_frame
        if stage.num_tries == 1:
            return 0, done
        if done < stage.num_tries * stage.num_coarse:
            return done // stage.num_coarse, done % stage.num_coarse
        return self.tries.best, done - (stage.num_tries - 1) * stage.num_coarse

    def _rate_factor(self, stage: Stage) -> float:
        fall = 0.5 * (1 - math.cos(math.pi * self._share_done(stage)))
        pace = self.pace if stage.frames == "newest" else 1.0
        return pace * stage.rate_factor * (1 + (stage.rate_end - 1) * fall)

    def _coarseness(self, stage: Stage) -> int:
        done = self._share_done(stage)
        return 1 if done >= stage.coarse_share else 2 if done >= stage.coarse_share / 2 else 4

    def _remember(self, loss: float) -> None:
        self.mean_loss = loss if math.isnan(self.mean_loss) else 0.95 * self.mean_loss + 0.05 * loss
        if self.mean_loss < self.best_loss * (1 - self.settings.stages[self.stage_index].tolerance):
            self.best_loss, self.best_step = self.mean_loss, self.stage_step

    def _stage_ends(self, stage: Stage) -> bool:
        # A new frame makes the loss rise: until the last has come, that says nothing.
        if self.newest < self.video.num_frames - 1:
            self.best_loss, self.best_step = math.inf, self.stage_step
        is_stuck = bool(stage.patience) and self.stage_step - self.best_step >= stage.patience
        return self.stage_step >= stage.num_steps(self.video.num_frames) or is_stuck

    def _next_stage(self) -> None:
        self.stage_index += 1
        self.stage_step = 0
        self.best_loss, self.best_step, self.mean_loss = math.inf, 0, math.nan
        if not self.is_done:
            self.optimizer = self._optimizer(self.settings.stages[self.stage_index])

    def _optimizer(self, stage: Stage) -> torch.optim.Optimizer:
        groups = [{**group, "base": group["lr"]} for group in self.model.field.parameter_groups()]
        if stage.fits_looks:
            looks = look_groups(self.model, self.settings.static)
            groups += [{**group, "lr": group["lr"] / 10, "base": group["lr"] / 10} for group in looks]
        for tensor in looks_of(self.model):
            tensor.requires_grad_(stage.fits_looks)
        if isinstance(self.settings.field, NodeSettings):
            return UniformAdam(groups)
        return torch.optim.Adam(groups, eps=1e-15)

    def _lpips(self) -> Lpips | None:
        if not self.settings.weights.lpips:
            return None
        if not self.settings.lpips_weights:
            logger.warning("no lpips_weights are given: the LPIPS term is left out")
            return None
        return load_lpips(self.settings.lpips_weights).to(self.video.c2w.device)

    def save(self) -> None:
        """Write a checkpoint that this fit goes on from exactly."""
        if self.folder is None:
            return
        state: dict[str, Any] = {
            "identity": self.identity, "model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(),
            "counts": [self.stage_index, self.stage_step, self.step, self.best_step, self.newest],
            "losses": [self.best_loss, self.mean_loss, self.pace], "has_looks": self.has_looks,
            "tries": self.tries.state_dict(),
        }  # fmt: skip
        write_checkpoint(self.folder / CHECKPOINT, state)

    def _resume(self) -> bool:
        if self.folder is None or not (self.folder / CHECKPOINT).is_file():
            return False
        state = read_checkpoint(self.folder / CHECKPOINT, map_location=str(self.video.c2w.device))
        if state.get("identity") != self.identity:
            raise ReconstructionError(
                self.video.clip_id,
                "other_run",
                f"{self.folder} holds a fit with other settings or another clip; give another --out, or delete it",
            )
        self.model.load_state_dict(state["model"])
        self.stage_index, self.stage_step, self.step, self.best_step, self.newest = state["counts"]
        self.best_loss, self.mean_loss, self.pace = state["losses"]
        self.has_looks = state["has_looks"]
        self.tries.load_state_dict(state["tries"])
        if not self.is_done:
            self.optimizer = self._optimizer(self.settings.stages[self.stage_index])
            self.optimizer.load_state_dict(state["optimizer"])
        return True

    def preview(self, path: Path) -> None:
        """Write a picture: the video above, the fit below, first view, up to six frames."""
        frames = torch.linspace(0, max(self.newest, 1), min(6, self.newest + 1)).round().long().unique()
        draw_below(self.model, self.video, frames, 0, path, background=self.settings.background)


def _partly_held(moved: Motion, share: float, generator: torch.Generator) -> Motion:
    """The same with gradients for some Gaussians only, drawn anew each time."""
    if share >= 1:
        return moved
    free = (torch.rand(moved.positions.shape[1], generator=generator) < share)[:, None].to(moved.positions.device)
    return Motion(
        positions=torch.where(free, moved.positions, moved.positions.detach()),
        quats=torch.where(free, moved.quats, moved.quats.detach()),
        log_scales=torch.where(free, moved.log_scales, moved.log_scales.detach()),
    )
