"""How much longer does `mv4d build` take than Blender itself needs to draw, spread over the workers?

Everything but the draw calls is overhead: starting Blender, importing, measuring, encoding, scoring, packing, linting,
the contact sheet, and workers that wait at the end. Usage: python benchmarks/pipeline_overhead.py [animations an asset]
"""

import os
import sys
import tempfile
import time

from benchmarks.measured import BlenderTimes, last_line, say
from ingest.sources.samples import Samples, default_cache
from pipeline.build import BuildOptions, build


def main(max_animations: int) -> None:
    for _ in Samples(cache=default_cache()).items():
        break  # made before the clock starts
    times = BlenderTimes()
    workers = os.cpu_count() or 1
    with tempfile.TemporaryDirectory(prefix="mv4d-bench-") as data:
        options = BuildOptions(data=data, rig="ortho4", workers=workers, max_animations=max_animations, quiet=True)
        started = time.monotonic()
        code = build(options, ["samples"])
        wall_s = time.monotonic() - started
    assert code == 0
    ideal_s = times.total["draw_s"] / workers
    say(f"wall {wall_s:.1f} s; drawing {times.total['num_images']} pictures over {workers} workers {ideal_s:.1f} s")
    for name in ("load_s", "prepare_s", "encode_s", "write_s"):
        say(f"  {name} {times.total[name] / workers:.1f} a worker")
    last_line(
        name="pipeline_overhead",
        value=100 * (wall_s / ideal_s - 1),
        unit="% more than drawing alone",
        baseline=f"Blender's own draw time over {workers} workers: {ideal_s:.0f} s, samples, ortho4, standard, 256 px",
        goal="< 10",
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1)
