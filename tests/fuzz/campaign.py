"""Take mutants through ingest, probe and draw of a tiny picture, and say what became of each.

    python -m tests.fuzz.campaign --count 1000 --out FOLDER --samples SAMPLES [--real ASSETS] [--workers 2]

It is a run like any other: killed and started again with the same folder, it goes on. Ends with a table.
"""

import argparse
import dataclasses
import json
import os
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
from rich.console import Console
from rich.table import Table

from curate.decide import decide
from curate.rules import load_preset
from curate.score import Score
from ingest.register import register
from ingest.sources.manifest import Manifest
from ingest.stage import Ingest
from pipeline.media import read_view
from pipeline.records import Animation, Asset, Clip, ClipPlan, Decision, Rejected, SourceItem
from pipeline.running import RunOptions, run_stages
from pipeline.storage import Store
from pipeline.tables import Tables
from render.draw import Render
from render.plan import Gate, Plan
from render.probe import ProbeAsset
from render.supervisor import BlenderSettings
from render.windows import WindowSettings
from tests.fuzz.mutants import mutant, sources_in

BLENDER = BlenderSettings(memory_mb=2000, load_s=40, measure_s=40, image_s=40, recycle_after=200)
ANYTHING_THAT_MOVES = Gate(
    min_motion=0.0, allow_rigid=True, max_travel=1e9, max_jump=1e9, max_stretch=1e9, min_duration_s=0.0
)
"""What the gate turns away in earnest is drawn here: that is where things break."""


@dataclass
class Ends:
    """How a mutant ended."""

    name: str
    outcome: str
    """`kept`, or the stage and reason of the first rejection, or why its clip was not kept."""
    detail: str = ""
    seconds: float = 0.0


@dataclass
class Report:
    """What became of all mutants, and what it cost."""

    ends: list[Ends] = field(default_factory=list)
    odd: list[str] = field(default_factory=list)
    """Kept, and yet not right: numbers that are not finite, or a picture with nothing in it."""
    driver_growth_mb: float = 0.0
    """From when a fifth was done to the end."""
    child_peak_mb: float = 0.0

    @property
    def outcomes(self) -> Counter[str]:
        """How often each."""
        return Counter(end.outcome for end in self.ends)


class MemoryWatch:
    """Samples this process and its descendants twice a second."""

    def __init__(self) -> None:
        self.driver_mb: list[float] = []
        self.child_peak_mb = 0.0
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "MemoryWatch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join()

    @property
    def growth_mb(self) -> float:
        """Of this process, from a fifth of the way on."""
        later = self.driver_mb[len(self.driver_mb) // 5 :]
        return later[-1] - later[0] if later else 0.0

    def _watch(self) -> None:
        here = psutil.Process()
        while not self._ending.wait(0.5):
            self.driver_mb.append(here.memory_info().rss / 2**20)
            for child in here.children(recursive=True):
                try:
                    self.child_peak_mb = max(self.child_peak_mb, child.memory_info().rss / 2**20)
                except psutil.Error:
                    continue


def write_mutants(folder: Path, sources: Sequence[Path], numbers: Sequence[int], seed: int) -> Path:
    """The files that are not there yet, and a manifest of them."""
    files = folder / "files"
    files.mkdir(parents=True, exist_ok=True)
    there = {path.name.partition("_")[0]: path for path in files.iterdir()}
    lines = ["file,spdx"]
    for number in numbers:
        path = there.get(f"{number:04d}")
        if path is None:
            made = mutant(sources, number, seed=seed)
            path = files / made.name
            beside = folder / "half.tmp"
            beside.write_bytes(made.content)
            beside.replace(path)
        lines.append(f"{path},CC0-1.0")
    manifest = folder / "manifest.csv"
    manifest.write_text("\n".join(lines) + "\n")
    return manifest


def run(
    folder: Path,
    sources: Sequence[Path],
    numbers: Sequence[int],
    *,
    seed: int = 0,
    workers: int = 1,
    quiet: bool = True,
) -> Report:
    """Run the mutants of some numbers; what an earlier run has done in the folder is not done again."""
    manifest = write_mutants(folder, sources, numbers, seed)
    data = str(folder / "data")
    tables = Tables(Store(data))
    stages = [
        Ingest(data=data),
        ProbeAsset(data=data, windows=WindowSettings(num_frames=2), max_actions=2, blender=BLENDER),
        Plan(data=data, rig="front", quality="preview", size_px=32, gate=ANYTHING_THAT_MOVES, max_animations=1),
        Render(data=data, blender=BLENDER),
        Score(data=data),
    ]
    items = list(register(tables, Manifest(path=manifest)))
    options = RunOptions(data=data, backend="local", workers=workers, quiet=quiet, deadline_s=600)
    with MemoryWatch() as memory:
        run_stages(options, stages, iter(items), heading="fuzz", num_inputs=len(items))
    decide(tables, load_preset("default"))
    report = Report(ends=endings(tables), odd=oddities(tables))
    report.driver_growth_mb, report.child_peak_mb = memory.growth_mb, memory.child_peak_mb
    return report


def endings(tables: Tables) -> list[Ends]:
    """How each mutant ended; `lost` is one that nothing is known of."""
    rejects: dict[str, list[Rejected]] = defaultdict(list)
    for row in tables.rows(Rejected):
        rejects[row.rejected_id].append(row)
    decisions = {row.clip_id: row for row in tables.rows(Decision)}
    drawn = {row.asset_id: decisions[row.clip_id] for row in tables.rows(Clip) if row.clip_id in decisions}
    below: dict[str, list[str]] = defaultdict(list)
    for animation in tables.rows(Animation):
        below[animation.asset_id].append(animation.animation_id)
    for plan in tables.rows(ClipPlan):
        below[plan.asset_id].append(plan.clip_id)
    # Animations that could not be measured have no row but their rejection, which names the blob.
    by_blob: dict[str, list[Rejected]] = defaultdict(list)
    for rows in rejects.values():
        for row in rows:
            by_blob[row.name.partition(": ")[0]].append(row)
    assets = {row.item_id: row for row in tables.rows(Asset)}
    seconds = _seconds(tables)
    found = []
    for item in sorted(tables.rows(SourceItem), key=lambda row: row.seq):
        asset = assets.get(item.item_id)
        ids = [item.item_id] + ([asset.asset_id, *below[asset.asset_id]] if asset else [])
        reasons = [row for key in ids for row in rejects[key]] or (by_blob[asset.blob] if asset else [])
        end = Ends(Path(item.uri).name, "lost", seconds=sum(seconds[key] for key in ids))
        if asset and asset.asset_id in drawn:
            decision = drawn[asset.asset_id]
            end.outcome = "kept" if decision.keep else f"curate: {decision.reason}"
        elif reasons:
            first = min(
                reasons, key=lambda row: ("ingest", "render.probe", "render.plan", "render.draw").index(row.stage)
            )
            end.outcome, end.detail = f"{first.stage}: {first.reason}", first.detail
        found.append(end)
    return found


def _seconds(tables: Tables) -> Counter[str]:
    """Time by input id, over all runs of the folder."""
    spent: Counter[str] = Counter()
    for path in Path(tables.store.path("runs")).glob("*/events.jsonl"):
        for text in path.read_text().splitlines():
            event = json.loads(text)
            if event["event"] == "done":
                spent[event["input_id"]] += event["seconds"]
    return spent


def oddities(tables: Tables) -> list[str]:
    """What was kept and should not have been."""
    odd = []
    for record in (Animation, Clip):
        for row in tables.rows(record):
            numbers = [value for value in dataclasses.asdict(row).values() if isinstance(value, float)]
            if not np.isfinite(numbers).all():
                odd.append(f"a number of {row} is not finite")
    kept = {row.clip_id for row in tables.rows(Decision) if row.keep}
    for clip in tables.rows(Clip):
        alpha = read_view(tables.store, clip, 0)[..., 3]
        if clip.clip_id in kept and not alpha.any():
            odd.append(f"nothing can be seen: clip {clip.clip_id} of asset {clip.asset_id}")
    return odd


def print_report(report: Report, console: Console) -> None:
    """The table."""
    table = Table(box=None, pad_edge=False, title=f"{len(report.ends)} mutants", title_justify="left")
    for column in ("outcome", "files", "median s", "longest s"):
        table.add_column(column, justify="left" if column == "outcome" else "right")
    for outcome, count in report.outcomes.most_common():
        times = [end.seconds for end in report.ends if end.outcome == outcome]
        table.add_row(outcome, str(count), f"{np.median(times):.2f}", f"{max(times):.1f}")
    console.print(table)
    for line in report.odd:
        console.print(f"odd: {line}", highlight=False)
    console.print(
        f"driver grew by {report.driver_growth_mb:.0f} MB, children at most {report.child_peak_mb:.0f} MB",
        highlight=False,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--samples", type=Path, required=True, help="folder of `python -m render.blender.make_samples`")
    parser.add_argument("--real", type=Path, help="folder of real assets")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    started = time.monotonic()
    report = run(
        arguments.out, sources_in(arguments.samples, arguments.real), range(arguments.count), seed=arguments.seed,
        workers=arguments.workers, quiet=False,
    )  # fmt: skip
    print_report(report, Console())
    print(f"{time.monotonic() - started:.0f} s in this run")


if __name__ == "__main__":
    main()
