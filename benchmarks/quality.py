"""What do the quality presets cost, and how far are their pictures from converged ones?

Of each real asset, a picture is drawn with 512 paths a pixel, no denoiser and another seed, then with each preset, all
else the same. Compared is what the object covers, on grey. The cost is processor time for the pictures of a frame from
several cameras, sync of the scene and transport included.
Usage: python -m benchmarks.quality [number of assets] [cameras that are timed]
"""

import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.measured import Studio, alpha_error, foreground_psnr, last_line, say
from pipeline.records import ClipPlan
from render.draw import Shot
from render.look import QUALITIES, Quality
from render.protocol import Paths

CONVERGED = Quality(samples=512, denoise="none", paths=Paths(adaptive_threshold=0.001, adaptive_min_samples=1))
"""The threshold spares pixels without any noise, as those of the background."""
PRESETS = ("preview", "standard", "high")
FRAME = slice(7, 8)
"""The one in the middle."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One asset at one preset."""

    core_s: float
    """A picture."""
    psnr_db: float
    alpha: float
    num_bytes: float
    """A picture, stored as a strip of one frame."""


def main(num_assets: int, num_views: int) -> None:
    found: dict[str, list[Measured]] = {name: [] for name in PRESETS}
    with Studio(rig="mv16", quality="standard", size_px=256) as studio:
        for name, plan in studio.plans(num_assets):
            seed = Shot.of(plan).request("", 1).seed + 1
            reference = studio.draw(plan, CONVERGED, views=slice(0, 1), frames=FRAME, seed=seed)
            said = []
            for preset in PRESETS:
                measured = measure(studio, plan, QUALITIES[preset], num_views, reference.pictures)
                found[preset].append(measured)
                said.append(f"{preset} {measured.core_s:.2f} core-s {measured.psnr_db:.1f} dB")
            say(f"{name}: {', '.join(said)}; reference {reference.core_s:.0f} core-s")
    print(table(found))
    last_line(
        name="quality",
        value=statistics.median(entry.psnr_db for entry in found["standard"]),
        unit="dB over the foreground (standard, median)",
        baseline=f"{CONVERGED.samples} paths a pixel without denoiser, {len(found['standard'])} real assets, 256 px",
        goal="> 38",
    )


def measure(studio: Studio, plan: ClipPlan, quality: Quality, num_views: int, reference: np.ndarray) -> Measured:
    """Draw a frame from some cameras, and compare the first picture with the reference, shape (1, 1, h, w, 4)."""
    drawn = studio.draw(plan, quality, views=slice(0, num_views), frames=FRAME)
    pictures = drawn.pictures[:1]
    look = Shot.of(plan).look
    return Measured(
        core_s=drawn.core_s / len(drawn.pictures),
        psnr_db=foreground_psnr(pictures, reference),
        alpha=alpha_error(pictures, reference),
        num_bytes=statistics.mean(len(look.encode(frames)) for frames in drawn.pictures),
    )


def table(found: dict[str, list[Measured]]) -> str:
    """The presets as a table in Markdown: median and worst of all assets."""
    lines = [
        "| `--quality` | paths a pixel | denoiser | core-s a picture | PSNR, dB | alpha error | kB a picture |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, rows in found.items():
        quality = QUALITIES[name]
        cells = [
            f"`{name}`",
            f"{quality.samples}",
            quality.denoise,
            both([row.core_s for row in rows], max, ".2f"),
            both([row.psnr_db for row in rows], min, ".1f"),
            both([row.alpha for row in rows], max, ".4f"),
            both([row.num_bytes / 1e3 for row in rows], max, ".1f"),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def both(values: Sequence[float], worst: Callable[[Sequence[float]], float], form: str) -> str:
    """Median and worst."""
    return f"{statistics.median(values):{form}} ({worst(values):{form}})"


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 24, int(sys.argv[2]) if len(sys.argv) > 2 else 4)
