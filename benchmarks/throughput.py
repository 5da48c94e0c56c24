"""How many more pictures a second do two workers draw than one?

The same clips of real assets (or built-in samples) are drawn by one worker and by two, in turns (1 2 2 1 …), each time
into an empty data root with fresh Blender children, so everything counts: start, import, drawing, encoding, writing,
and the worker that waits at the end. Turns make a machine that gets slower or faster hit both alike.

    python -m benchmarks.throughput [--assets 16] [--rounds 2] [--size 128]
"""

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

from benchmarks.measured import last_line, manifest, say
from ingest.sources.open_source import open_source
from ingest.stage import Ingest
from pipeline.records import Asset, Clip, ClipPlan, Rejected
from pipeline.running import RunOptions, run_stages
from pipeline.storage import Store
from pipeline.tables import Tables
from render.draw import Render
from render.plan import Plan
from render.probe import ProbeAsset

MOST_BYTES = 2_000_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--assets", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=2, help="each is four runs: 1, 2, 2 and 1 workers")
    parser.add_argument("--size", type=int, default=128, help="pixels a side")
    arguments = parser.parse_args()
    rates: dict[int, list[float]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory(prefix="mv4d-bench-") as folder:
        first = Path(folder) / "first"
        plans = planned(str(first), arguments.assets, arguments.size)
        num_pictures = sum(plan.num_views * plan.num_frames for plan in plans)
        say(f"{len(plans)} clips, {num_pictures} pictures of {arguments.size} px")
        for number, workers in enumerate((1, 2, 2, 1) * arguments.rounds):
            seconds = drawn(Path(folder) / f"run{number}", first, plans, workers)
            rates[workers].append(num_pictures / seconds)
            say(f"{workers} workers: {seconds:.1f} s, {num_pictures / seconds:.2f} pictures a second")
    one, two = (statistics.median(rates[workers]) for workers in (1, 2))
    last_line(
        name="throughput",
        value=two / one,
        unit=f"times the pictures a second of one worker, with two on {os.cpu_count()} cores ({two:.2f} a second)",
        baseline=f"one worker: {one:.2f} pictures a second; {len(plans)} clips, standard, {arguments.size} px, "
        f"median of {len(rates[1])} runs each, in turns",
        goal=">= 1.8",
    )


def planned(data: str, num_assets: int, size_px: int) -> list[ClipPlan]:
    """One plan for each of some assets, fetched and measured in the data root."""
    ingest, probe = Ingest(data=data), ProbeAsset(data=data, max_actions=4)
    plan = Plan(data=data, rig="front", quality="standard", size_px=size_px, max_animations=1)
    items = list(open_source(str(manifest())).items())
    plans: list[ClipPlan] = []
    seen: set[str] = set()
    for item in items:
        if len(plans) == num_assets:
            break
        assets = [row for row in ingest.process(item) if isinstance(row, Asset)]
        if not assets or assets[0].num_bytes > MOST_BYTES or assets[0].asset_id in seen:
            continue
        seen.add(assets[0].asset_id)
        found = [row for row in probe.process(assets[0]) if not isinstance(row, Rejected)]
        made = [row for asset in plan.inputs(found) for row in plan.process(asset) if isinstance(row, ClipPlan)]
        plans += made[:1]
    probe.close()
    return plans


def drawn(data: Path, first: Path, plans: list[ClipPlan], workers: int) -> float:
    """Seconds to draw the plans into an empty data root."""
    data.mkdir()
    (data / "blobs").symlink_to(first / "blobs")
    options = RunOptions(data=str(data), backend="local", workers=workers, quiet=True)
    started = time.monotonic()
    run_stages(options, [Render(data=str(data))], iter(plans), heading="throughput", num_inputs=len(plans))
    seconds = time.monotonic() - started
    num_clips = len(Tables(Store(str(data))).rows(Clip))
    assert num_clips == len(plans), f"{num_clips} clips of {len(plans)} plans"
    return seconds


if __name__ == "__main__":
    main()
