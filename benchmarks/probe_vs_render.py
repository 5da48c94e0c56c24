"""What does it cost to measure all animations before drawing any, against drawing those that are then drawn?

Both are done on the same assets in one run: the probe whole (import included), drawing for one clip of each asset from
one camera, scaled to the default rig. Usage: python benchmarks/probe_vs_render.py [number of assets]
"""

import sys
import tempfile
import time
from dataclasses import replace

from benchmarks.measured import BlenderTimes, last_line, manifest, say
from ingest.sources.open_source import open_source
from ingest.stage import Ingest
from pipeline.records import Asset, Clip, ClipPlan, Rejected
from render.draw import Render
from render.plan import Plan
from render.probe import ProbeAsset

IMAGES_A_CLIP = 16 * 16


def main(num_assets: int) -> None:
    items = list(open_source(str(manifest())).items())
    items = items[:: max(1, len(items) // (2 * num_assets))]
    times = BlenderTimes()
    probe_s = draw_s = all_draw_s = 0.0
    num_done = 0
    with tempfile.TemporaryDirectory(prefix="mv4d-bench-") as data:
        ingest, probe, render = Ingest(data=data), ProbeAsset(data=data), Render(data=data)
        plan = Plan(data=data, rig="front", quality="standard", size_px=256)
        warm = False
        for item in items:
            assets = [row for row in ingest.process(item) if isinstance(row, Asset)]
            if not assets or num_done == num_assets:
                continue
            if not warm:
                list(probe.process(assets[0]))  # starts Blender, whose start is paid once for many assets
                list(probe.process(replace(assets[0], asset_id="0" * 64)))
                warm = True
            started = time.monotonic()
            # Another id, so that the asset is imported again even if it is still loaded.
            rows = list(probe.process(assets[0]))
            seconds = time.monotonic() - started
            found = [row for row in rows if not isinstance(row, Rejected)]
            plans = [row for asset in plan.inputs(found) for row in plan.process(asset) if isinstance(row, ClipPlan)]
            if not plans:
                continue
            before = times.total["draw_s"]
            if not [row for row in render.process(plans[0]) if isinstance(row, Clip)]:
                continue
            drawn_s = (times.total["draw_s"] - before) / plans[0].num_frames * IMAGES_A_CLIP
            num_animations = len(found) - 1
            num_done += 1
            probe_s += seconds
            draw_s += drawn_s * len(plans)
            all_draw_s += drawn_s * num_animations
            say(
                f"{item.name}: {num_animations} animations measured in {seconds:.2f} s, {len(plans)} clips of 256 "
                f"pictures drawn in {drawn_s * len(plans):.0f} s: {100 * seconds / (drawn_s * len(plans)):.2f} %"
            )
        render.close()
    say(f"measured animations, if all were drawn: {100 * probe_s / all_draw_s:.3f} %")
    last_line(
        name="probe_vs_render",
        value=100 * probe_s / draw_s,
        unit="% of the time to draw",
        baseline=f"drawing what is planned for the same {num_done} assets: mv16, standard, 256 px, {draw_s:.0f} s",
        goal="< 2",
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10)
