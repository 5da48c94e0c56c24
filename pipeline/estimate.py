"""`mv4d build --dry-run` counts the input; `--estimate` also draws for a few assets what it would, and scales up."""

import math
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import stdev
from typing import TYPE_CHECKING

from rich.console import Console

from ingest.__main__ import print_dry_run
from ingest.stage import Ingest
from pipeline.cli import EXIT_OK
from pipeline.records import Asset, Rejected, SourceItem
from pipeline.storage import Store
from render.draw import Render
from render.environments import copy_pictures
from render.estimate import CONFIDENCE, Counts, Estimate, Interval, calibrate, count, estimate, print_estimate
from render.plan import AnimatedAsset, Plan
from render.probe import ProbeAsset
from render.truth import GroundTruth

if TYPE_CHECKING:
    from pipeline.build import BuildOptions

NUM_SAMPLED = 20
"""Inputs that are fetched and measured for an estimate."""


@dataclass(frozen=True, kw_only=True)
class Sampled:
    """Some inputs, evenly spread over all, and what would be drawn of them."""

    counts: Counts
    pictures: list[int]
    """Of each input."""

    @property
    def relative_error(self) -> float:
        """How far the sum over all inputs may be from what these few say, as a share of it."""
        number, total = len(self.pictures), sum(self.pictures)
        return CONFIDENCE * stdev(self.pictures) * math.sqrt(number) / total if number > 1 and total else 1.0


def dry_run_build(options: "BuildOptions", specs: Sequence[str]) -> int:
    """Print what the input holds; nothing is fetched or written."""
    ingest = options.stages()[0]
    assert isinstance(ingest, Ingest)
    print_dry_run(ingest.dry_run(_items(options, specs)), Console())
    return EXIT_OK


def estimate_build(options: "BuildOptions", specs: Sequence[str]) -> int:
    """Print what a build would draw and what that would cost; only a temporary folder is written to."""
    console = Console()
    items = _items(options, specs)
    number = min(NUM_SAMPLED, len(items))
    sampled = [items[(2 * place + 1) * len(items) // (2 * number)] for place in range(number)]
    ingest, probe, plan, render, *others = options.stages()
    assert isinstance(ingest, Ingest)
    assert isinstance(probe, ProbeAsset)
    assert isinstance(plan, Plan)
    assert isinstance(render, Render)
    dry_run_build(options, specs)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mv4d-estimate-") as folder:
        copy_pictures(plan.look, plan.store, Store(folder))
        found = _sample(replace(ingest, data=folder), replace(probe, data=folder), replace(plan, data=folder), sampled)
        truth = next((replace(stage, data=folder) for stage in others if isinstance(stage, GroundTruth)), None)
        trials = calibrate(replace(render, data=folder), found.counts.clips, truth, quiet=options.quiet)
    console.print()
    if not trials:
        console.print(f"nothing of {number} inputs would be drawn, so there is nothing to estimate")
        return EXIT_OK
    factor = len(items) / number
    error = found.relative_error * math.sqrt(1 - number / len(items))
    console.print(
        f"[bold]{found.counts.num_pictures} pictures in {len(found.counts.clips)} clips[/bold] of {number} inputs, "
        f"so about {found.counts.num_pictures * factor:.0f} of all {len(items)}",
        highlight=False,
    )
    print_estimate(_scaled(estimate(found.counts.clips, trials), factor, error), options.num_workers, console)
    console.print(f"measured in {time.monotonic() - started:.0f} s", style="dim", highlight=False)
    return EXIT_OK


def _items(options: "BuildOptions", specs: Sequence[str]) -> list[SourceItem]:
    return [item for spec in specs for item in options.open_source(spec).items()]


def _sample(ingest: Ingest, probe: ProbeAsset, plan: Plan, items: Sequence[SourceItem]) -> Sampled:
    animated: list[AnimatedAsset] = []
    pictures = []
    for item in items:
        assets = [row for row in ingest.process(item) if isinstance(row, Asset)]
        rows = [row for asset in assets for row in probe.process(asset) if not isinstance(row, Rejected)]
        mine = plan.inputs(rows)
        animated += mine
        pictures.append(count(plan, mine).num_pictures)
    return Sampled(counts=count(plan, animated), pictures=pictures)


def _scaled(found: Estimate, factor: float, relative_error: float) -> Estimate:
    def scaled(interval: Interval) -> Interval:
        value = interval.value * factor
        return Interval(value=value, error=math.hypot(interval.error * factor, value * relative_error))

    return replace(
        found,
        seconds=scaled(found.seconds),
        num_bytes=scaled(found.num_bytes),
        truth_seconds=scaled(found.truth_seconds),
        truth_bytes=scaled(found.truth_bytes),
    )
