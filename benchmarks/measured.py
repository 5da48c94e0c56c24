"""What the benchmarks share: real or built-in assets, pictures of them, Blender's own times, and the last line."""

import dataclasses
import json
import logging
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import psutil

from ingest.sources.open_source import open_source
from ingest.sources.samples import Samples, default_cache
from ingest.stage import Ingest
from pipeline.media import compose
from pipeline.records import Asset, ClipPlan, Rejected
from render.draw import Render, Shot, read_pictures
from render.look import Quality
from render.plan import AnimatedAsset, Gate, Plan
from render.probe import ProbeAsset
from render.scratch import empty
from render.supervisor import BlenderChild, BlenderSettings, child_for
from render.windows import WindowSettings

REPOSITORY = Path(__file__).resolve().parents[1]


class BlenderTimes(logging.Handler):
    """Sums the seconds that the render stage reports for each clip: `draw_s`, `load_s`, `encode_s`, …"""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.total: Counter[str] = Counter()
        logger = logging.getLogger("mv4d.render")
        logger.setLevel(logging.INFO)
        logger.addHandler(self)
        logger.propagate = False

    def emit(self, record: logging.LogRecord) -> None:
        event = getattr(record, "event", None)
        if isinstance(event, dict) and event.get("kind") == "clip_drawn":
            self.total.update({name: value for name, value in event.items() if isinstance(value, int | float)})


def manifest() -> Path:
    """A manifest of real assets if there are some (MV4D_ASSETS), else the built-in samples."""
    folder = Path(os.environ.get("MV4D_ASSETS", REPOSITORY.parent / "shared" / "assets"))
    if (folder / "catalog.csv").exists():
        return folder / "catalog.csv"
    samples = Samples(cache=default_cache())
    for _ in samples.items():
        break
    return samples.manifest


def say(text: str) -> None:
    """Progress, apart from the result."""
    print(text, file=sys.stderr, flush=True)


def last_line(*, name: str, value: float, unit: str, baseline: str, goal: str) -> None:
    """The result as one JSON object."""
    print(json.dumps({"name": name, "value": round(value, 5), "unit": unit, "baseline": baseline, "goal": goal}))


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """Pictures, and what they took of the processor."""

    pictures: np.ndarray
    """Shape (view, frame, height, width, 4), uint8, straight alpha."""
    core_s: float


class Studio:
    """Real assets, planned as always, and drawn by a real Blender child at any settings. A context manager."""

    def __init__(
        self, *, num_frames: int = 16, device: Literal["cpu", "cuda", "optix", "hip"] = "cpu", **plan: Any
    ) -> None:
        """Nothing is started yet.

        Args:
            num_frames: Of a clip.
            device: What draws. On a GPU, costs are seconds of the clock.
            plan: Settings of `Plan`.
        """
        blender = BlenderSettings(device=device)
        self._folder = tempfile.TemporaryDirectory(prefix="mv4d-bench-")
        data = self._folder.name
        self._ingest = Ingest(data=data)
        self._probe = ProbeAsset(data=data, windows=WindowSettings(num_frames=num_frames), blender=blender)
        self.planner = Plan(data=data, max_animations=1, gate=Gate(allow_rigid=True), **plan)
        self.render = Render(data=data, blender=blender)

    @property
    def child(self) -> BlenderChild:
        """The Blender that measures and draws."""
        return child_for(self.render.blender)

    def __enter__(self) -> "Studio":
        return self

    def __exit__(self, *_: object) -> None:
        self.render.close()
        self._folder.cleanup()

    def started(self) -> float:
        """Start Blender, unless it runs already; gives what that took."""
        before = self.core_s()
        self.child.device_for("cycles")
        assert self.child.out.exists()
        return self.core_s() - before

    def plans(self, num_assets: int) -> Iterator[tuple[str, ClipPlan]]:
        """Name and one plan of each asset that has something to draw, evenly spread over the list."""
        for name, asset in self.assets(num_assets):
            plan = self.plan(asset)
            if plan:
                yield name, plan

    def assets(self, num_assets: int, formats: Sequence[str] = ()) -> Iterator[tuple[str, Asset]]:
        """Name and asset, evenly spread over the list, of some formats or all; not what is broken on purpose."""
        items = list(open_source(str(manifest())).items())
        good = [item for item in items if "hostile" not in item.name]
        good = [item for item in good if not formats or item.name.rpartition(".")[2] in formats]
        for item in good[:: max(1, len(good) // num_assets)]:
            yield from ((item.name, row) for row in self._ingest.process(item) if isinstance(row, Asset))

    def plan(self, asset: Asset) -> ClipPlan | None:
        """One clip of an asset, if it has an animation that passes the gate."""
        plans = [row for entry in self.measured(asset) for row in self.planner.process(entry)]
        return next((row for row in plans if isinstance(row, ClipPlan)), None)

    def measured(self, asset: Asset) -> list[AnimatedAsset]:
        """The asset with its measured animations, or nothing."""
        return self.planner.inputs([row for row in self._probe.process(asset) if not isinstance(row, Rejected)])

    def draw(
        self, plan: ClipPlan, quality: Quality, *, views: slice, frames: slice, seed: int | None = None
    ) -> Drawing:
        """Some views and frames of a plan; with cameras that stand still."""
        shot = Shot.of(plan)
        device = self.child.device_for(shot.look.engine).device
        self.child.load(plan, self.render.store)
        request = shot.request(str(self.child.out), self.render.blender.threads)
        request = dataclasses.replace(
            request,
            views=request.views[views],
            times_s=request.times_s[frames],
            samples=quality.samples,
            denoise=quality.denoise,
            paths=quality.paths,
            device=device,
            seed=request.seed if seed is None else seed,
        )
        started = self.core_s()
        self.child.call(request)
        part = dataclasses.replace(plan, num_frames=len(request.times_s))
        pictures = np.stack([read_pictures(self.child.out, view.name, part) for view in request.views])
        core_s = self.core_s() - started
        empty(self.child.out)
        return Drawing(pictures=pictures, core_s=core_s)

    def core_s(self) -> float:
        """Processor seconds so far of this process and the Blender child together; on a GPU, those of the clock."""
        if self.render.blender.device != "cpu":
            return time.monotonic()
        return time.process_time() + process_core_s(self.child.pid)


def process_core_s(pid: int | None) -> float:
    """Processor seconds of a process and of the children that it has waited for; 0.0 if there is none."""
    return float(sum(psutil.Process(pid).cpu_times()[:4])) if pid else 0.0


def foreground_psnr(pictures: np.ndarray, reference: np.ndarray) -> float:
    """Likeness in dB over the pixels where either shows anything, both on grey.

    Args:
        pictures: Shape (..., height, width, 4), uint8, straight alpha.
        reference: The same shape.
    """
    shown = (pictures[..., 3] > 0) | (reference[..., 3] > 0)
    square = ((compose(pictures) - compose(reference)) ** 2).mean(axis=-1)[shown].mean()
    return float(-10 * np.log10(max(float(square), 1e-10)))


def alpha_error(pictures: np.ndarray, reference: np.ndarray) -> float:
    """Root mean square difference of alpha, 0..1, over the pixels where either shows anything."""
    shown = (pictures[..., 3] > 0) | (reference[..., 3] > 0)
    difference = (pictures[..., 3].astype(float) - reference[..., 3])[shown] / 255
    return float(np.sqrt((difference**2).mean()))
