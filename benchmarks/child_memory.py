"""How much memory does Blender take for an asset, and does the estimate by which work is admitted cover it?

Each asset is measured and drawn in a child of its own (16 small pictures), whose peak is compared with the estimate.
Then all are drawn twice over in one child that is never replaced: what it has when it is done with each.
Usage: python -m benchmarks.child_memory [number of assets]
"""

import sys
import tempfile

from benchmarks.measured import BlenderTimes, last_line, manifest, say
from ingest.sources.open_source import open_source
from ingest.stage import Ingest
from pipeline.records import Asset, ClipPlan, Probe, Rejected
from render.draw import Render
from render.footprint import measuring_mb
from render.plan import Plan
from render.probe import ProbeAsset
from render.supervisor import BlenderSettings, child_for, vitals

ALONE = BlenderSettings(recycle_after=1)
FOR_EVER = BlenderSettings(recycle_after=10**6, recycle_memory_mb=10**6)


def main(num_assets: int) -> None:
    items = list(open_source(str(manifest())).items())
    items = items[:: max(1, len(items) // num_assets)]
    BlenderTimes()
    shares = []
    plans: list[ClipPlan] = []
    with tempfile.TemporaryDirectory(prefix="mv4d-bench-") as data:
        ingest = Ingest(data=data)
        for asset in [row for item in items for row in ingest.process(item) if isinstance(row, Asset)]:
            probe, render = ProbeAsset(data=data, blender=ALONE), Render(data=data, blender=ALONE)
            plan = Plan(data=data, rig="front", quality="preview", size_px=64, max_animations=1)
            rows = [row for row in probe.process(asset) if not isinstance(row, Rejected)]
            measuring = peak_mb(ALONE)
            found = [row for item in plan.inputs(rows) for row in plan.process(item) if isinstance(row, ClipPlan)]
            if not found:
                continue
            list(render.process(found[0]))
            drawing = peak_mb(ALONE)
            plans.append(found[0])
            (seen,) = (row for row in rows if isinstance(row, Probe))
            shares.append(max(measuring / measuring_mb(asset), drawing / found[0].memory_mb))
            say(
                f"{asset.name}: {seen.num_vertices} vertices, {seen.image_pixels / 1e6:.1f} million pixels, "
                f"{asset.num_bytes / 1e6:.1f} MB; to measure {measuring:.0f} MB (estimate {measuring_mb(asset):.0f}), "
                f"to draw {drawing:.0f} MB (estimate {found[0].memory_mb})"
            )
        ProbeAsset(data=data, blender=ALONE).close()
        long_lived = Render(data=data, blender=FOR_EVER)
        rested = []
        for row in plans * 2:
            list(long_lived.process(row))
            rested.append(child_for(FOR_EVER).memory_mb())
        long_lived.close()
    rounds = [rested[: len(plans)], rested[len(plans) :]]
    say(
        "one child for all: "
        + ", ".join(
            f"{min(values):.0f} to {max(values):.0f} MB in round {index}" for index, values in enumerate(rounds, 1)
        )
    )
    last_line(
        name="child_memory",
        value=max(shares),
        unit="of the estimate, the worst asset's peak",
        baseline=f"the estimate for each of {len(shares)} assets",
        goal="<= 1",
    )


def peak_mb(settings: BlenderSettings) -> float:
    """Largest resident memory of this thread's child."""
    child = child_for(settings)
    assert child.pid
    return vitals(child.pid)[0]


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
