"""What rendering would cost, from drawing a few of the planned clips."""

import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from pipeline.records import Clip, ClipPlan, Rejected
from pipeline.storage import Store
from render.draw import Render
from render.plan import AnimatedAsset, Plan

NUM_CALIBRATED = 4


@dataclass
class Estimate:
    """Counts are exact, costs are scaled from `num_calibrated` clips."""

    num_assets: int = 0
    num_animations: int = 0
    num_clips: int = 0
    num_images: int = 0
    turned_away: Counter[str] = field(default_factory=Counter)
    core_s: float = 0.0
    """Of one worker, for all clips."""
    num_bytes: int = 0
    num_calibrated: int = 0

    def scaled(self, factor: float) -> "Estimate":
        """The same for so many times the input."""
        return Estimate(
            num_assets=round(self.num_assets * factor),
            num_animations=round(self.num_animations * factor),
            num_clips=round(self.num_clips * factor),
            num_images=round(self.num_images * factor),
            turned_away=Counter({reason: round(number * factor) for reason, number in self.turned_away.items()}),
            core_s=self.core_s * factor,
            num_bytes=round(self.num_bytes * factor),
            num_calibrated=self.num_calibrated,
        )


def estimate_render(plan: Plan, render: Render, assets: Sequence[AnimatedAsset]) -> Estimate:
    """Plan everything, draw a few clips into a temporary folder, and scale up. The data root is only read."""
    estimate = Estimate(num_assets=len(assets))
    plans: list[ClipPlan] = []
    for asset in assets:
        estimate.num_animations += len(asset.animations)
        for row in plan.process(asset):
            if isinstance(row, Rejected):
                estimate.turned_away[row.reason] += 1
            else:
                plans.append(row)
    estimate.num_clips = len(plans)
    estimate.num_images = sum(row.num_views * row.num_frames for row in plans)
    # Evenly spread over the input, each of another asset where there are enough.
    chosen = plans[:: max(1, len(plans) // NUM_CALIBRATED)][:NUM_CALIBRATED]
    seconds, num_bytes, num_images = 0.0, 0, 0
    with tempfile.TemporaryDirectory(prefix="mv4d-estimate-") as folder:
        for row in chosen:
            _copy_blob(plan.store, row.blob, folder)
            started = time.monotonic()
            for clip in replace(render, data=folder).process(row):
                if isinstance(clip, Clip):
                    seconds += time.monotonic() - started
                    num_bytes += sum(part.num_bytes for part in clip.parts)
                    num_images += row.num_views * row.num_frames
                    estimate.num_calibrated += 1
    render.close()
    if num_images:
        estimate.core_s = seconds * estimate.num_images / num_images
        estimate.num_bytes = round(num_bytes * estimate.num_images / num_images)
    return estimate


def _copy_blob(store: Store, blob: str, folder: str) -> None:
    target = Path(folder) / blob
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(store.read_bytes(blob))


def print_estimate(estimate: Estimate, num_workers: int) -> None:
    """The estimate as a table."""
    table = Table(box=None, pad_edge=False, show_header=False, title="What rendering would cost", title_justify="left")
    table.add_column(style="bold")
    table.add_column(justify="right")
    rows = [
        ("assets", f"{estimate.num_assets}"),
        ("animations", f"{estimate.num_animations}"),
        *((f"  turned away: {reason}", f"{number}") for reason, number in estimate.turned_away.most_common()),
        ("clips", f"{estimate.num_clips}"),
        ("pictures", f"{estimate.num_images}"),
        ("core hours", f"{estimate.core_s / 3600:.2f}"),
        (f"hours with {num_workers} workers", f"{estimate.core_s / 3600 / num_workers:.2f}"),
        ("size of the clips", f"{estimate.num_bytes / 1e6:.1f} MB"),
    ]
    for row in rows:
        table.add_row(*row)
    console = Console()
    console.print(table)
    console.print(f"scaled from {estimate.num_calibrated} clips drawn just now", style="dim")
