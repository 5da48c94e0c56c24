"""Does memory stay flat over hundreds of assets in one run?

Real assets (or the built-in samples), made distinct by a number inside, go through ingest, probe, drawing of tiny
pictures and scoring, in one run of two workers with the default settings; resident memory of the driver and of its
Blender children is sampled all the while. The baseline is the same with children that are never replaced. Writes the
curves as an SVG.

    python -m benchmarks.memory_over_assets [--assets 300] [--plot docs/images/memory.svg]
"""

import argparse
import csv
import itertools
import json
import struct
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil

from benchmarks.measured import last_line, manifest, say
from curate.score import Score
from ingest.register import register
from ingest.sources.manifest import Manifest
from ingest.stage import Ingest
from pipeline.backends import LocalBackend, RetryPolicy
from pipeline.events import EventLog
from pipeline.records import Clip
from pipeline.runner import Runner, RunState
from pipeline.storage import Store
from pipeline.tables import Tables
from render.draw import Render
from render.plan import Plan
from render.probe import ProbeAsset
from render.supervisor import BlenderSettings
from render.windows import WindowSettings

NUM_WORKERS = 2
MOST_BYTES = 1_800_000
"""Larger files only take longer to load."""
NEVER = 10**6
WIDTH, HEIGHT, MARGIN = 760, 340, 56


@dataclass
class Curve:
    """Memory over finished assets."""

    label: str
    num_finished: list[int] = field(default_factory=list)
    driver_mb: list[float] = field(default_factory=list)
    children_mb: list[float] = field(default_factory=list)
    num_clips: int = 0

    def by_part(self, values: Sequence[float], num_assets: int, num_parts: int = 6) -> list[float]:
        """Mean in each sixth of the assets."""
        finished = np.array(self.num_finished)
        bounds = np.linspace(0, num_assets, num_parts + 1)
        parts = [(finished >= low) & (finished < high) for low, high in itertools.pairwise(bounds)]
        return [float(np.mean(np.array(values)[part])) if part.any() else float("nan") for part in parts]

    def growth_mb(self, num_assets: int) -> float:
        """Slope of all memory over the assets in MB for each hundred; the first sixth is for warming up."""
        finished, total = np.array(self.num_finished), np.array(self.driver_mb) + np.array(self.children_mb)
        warm = finished >= num_assets / 6
        return float(np.polyfit(finished[warm], total[warm], 1)[0]) * 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--assets", type=int, default=300)
    parser.add_argument("--plot", type=Path, default=Path("benchmarks/out/memory.svg"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mv4d-bench-") as folder:
        listed = make_distinct(Path(folder), arguments.assets)
        curves = [
            measured(Path(folder) / "kept", listed, arguments.assets, "never replaced", NEVER),
            measured(Path(folder) / "replaced", listed, arguments.assets, "replaced (default)", 0),
        ]
    for curve in curves:
        for what, values in (("driver", curve.driver_mb), ("children", curve.children_mb)):
            parts = " ".join(f"{value:.0f}" for value in curve.by_part(values, arguments.assets))
            say(f"{curve.label}: {what}, MB in each sixth of the run: {parts}")
    arguments.plot.parent.mkdir(parents=True, exist_ok=True)
    arguments.plot.write_text(svg(curves, arguments.assets))
    baseline, ours = curves
    parts = ours.by_part(np.add(ours.driver_mb, ours.children_mb).tolist(), arguments.assets)
    last_line(
        name="memory_over_assets",
        value=ours.growth_mb(arguments.assets),
        unit=f"MB more for each 100 assets, driver and {NUM_WORKERS} children together, over {arguments.assets} assets "
        f"and {ours.num_clips} clips ({parts[1]:.0f} MB early, {parts[-1]:.0f} MB at the end)",
        baseline=f"{baseline.growth_mb(arguments.assets):.1f} MB with children that are never replaced",
        goal="< 10",
    )


def make_distinct(folder: Path, count: int) -> Path:
    """A manifest of so many files: the sources again and again, each with another number inside."""
    with manifest().open(newline="") as file:
        named = [manifest().parent / row["file"] for row in csv.DictReader(file) if row.get("file")]
    sound = [path for path in named if "hostile" not in path.parts and path.suffix in (".glb", ".fbx")]
    sources = [path for path in sound if path.exists() and 1000 < path.stat().st_size < MOST_BYTES]
    target = folder / "files"
    target.mkdir()
    lines = ["file,spdx"]
    for number, source in zip(range(count), itertools.cycle(sources), strict=False):
        path = target / f"{number:04d}_{source.name}"
        content = source.read_bytes()
        # What follows the last record of an FBX is not read.
        path.write_bytes(numbered_glb(content, number) if path.suffix == ".glb" else content + str(number).encode())
        lines.append(f"{path},CC0-1.0")
    say(f"{count} files from {len(sources)} assets")
    listed = folder / "manifest.csv"
    listed.write_text("\n".join(lines) + "\n")
    return listed


def numbered_glb(content: bytes, number: int) -> bytes:
    """The GLB with a number in its `asset`."""
    length = struct.unpack_from("<I", content, 12)[0]
    try:
        document = json.loads(content[20 : 20 + length])
        document["asset"]["extras"] = {"number": number}
    except (ValueError, LookupError, TypeError):
        return content + struct.pack("<I", number)  # a broken one stays broken
    text = json.dumps(document).encode()
    text += b" " * (-len(text) % 4)
    rest = content[20 + length :]
    return struct.pack("<4sIII4s", b"glTF", 2, 20 + len(text) + len(rest), len(text), b"JSON") + text + rest


def measured(data: Path, listed: Path, num_assets: int, label: str, recycle_after: int) -> Curve:
    """Run everything and watch."""
    blender = BlenderSettings()
    if recycle_after:
        blender = BlenderSettings(recycle_after=recycle_after, recycle_memory_mb=recycle_after)
    root = str(data)
    stages = [
        Ingest(data=root),
        ProbeAsset(data=root, windows=WindowSettings(num_frames=2), max_actions=4, blender=blender),
        Plan(data=root, rig="front", quality="preview", size_px=32, max_animations=1),
        Render(data=root, blender=blender),
        Score(data=root),
    ]
    store, policy = Store(root), RetryPolicy()
    tables = Tables(store)
    items = list(register(tables, Manifest(path=listed)))
    curve = Curve(label)
    finished = 0

    def on_change(state: RunState) -> None:
        nonlocal finished
        if state.num_finished // 50 > finished // 50:
            say(f"{label}: {state.num_finished} of {num_assets}")
        finished = state.num_finished

    ending = threading.Event()

    def watch() -> None:
        here = psutil.Process()
        while not ending.wait(0.5):
            curve.num_finished.append(finished)
            curve.driver_mb.append(here.memory_info().rss / 2**20)
            curve.children_mb.append(sum(resident_mb(here)))

    watcher = threading.Thread(target=watch)
    backend = LocalBackend(store, stages, NUM_WORKERS, policy)
    try:
        watcher.start()
        Runner(tables, stages, backend, policy=policy, events=EventLog(store), on_change=on_change).run(iter(items))
    finally:
        ending.set()
        watcher.join()
        backend.close()
    curve.num_clips = len(tables.rows(Clip))
    return curve


def resident_mb(process: psutil.Process) -> Iterator[float]:
    """Of each descendant."""
    for child in process.children(recursive=True):
        try:
            yield child.memory_info().rss / 2**20
        except psutil.Error:
            continue


def svg(curves: Sequence[Curve], num_assets: int) -> str:
    """The curves, smoothed over five seconds, as a picture."""
    top = max(max(curve.children_mb) for curve in curves) * 1.1
    lines = [
        (f"Blender children, {curves[0].label}", curves[0], curves[0].children_mb, "#c44e52"),
        (f"Blender children, {curves[1].label}", curves[1], curves[1].children_mb, "#4c72b0"),
        ("driver", curves[1], curves[1].driver_mb, "#55a868"),
    ]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        'font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
    ]
    right, bottom = WIDTH - 16, HEIGHT - 40
    step = 10 ** int(np.log10(top)) / 2
    for level in np.arange(0, top, step):
        y = bottom - (bottom - 30) * level / top
        parts.append(f'<path d="M{MARGIN} {y:.1f}H{right}" stroke="#ddd"/>')
        parts.append(f'<text x="{MARGIN - 6}" y="{y + 4:.1f}" text-anchor="end">{level:.0f}</text>')
    for number in np.linspace(0, num_assets, 7):
        x = MARGIN + (right - MARGIN) * number / num_assets
        parts.append(f'<text x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{number:.0f}</text>')
    parts.append(f'<text x="{(MARGIN + right) / 2}" y="{HEIGHT - 8}" text-anchor="middle">assets finished</text>')
    parts.append(f'<text x="{MARGIN}" y="14">resident memory, MB</text>')
    for place, (label, curve, values, colour) in enumerate(lines):
        smooth = np.convolve(np.pad(values, 5, mode="edge"), np.ones(11) / 11, mode="valid")
        points = " ".join(
            f"{MARGIN + (right - MARGIN) * number / num_assets:.1f},{bottom - (bottom - 30) * value / top:.1f}"
            for number, value in zip(curve.num_finished, smooth, strict=True)
        )
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        parts.append(f'<text x="{right}" y="{14 + 15 * place}" text-anchor="end" fill="{colour}">{label}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


if __name__ == "__main__":
    main()
