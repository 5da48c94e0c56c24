"""`mv4d build --dry-run`: counts and bytes of the whole input, and the cost scaled from a few assets."""

import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rich.console import Console

from ingest.__main__ import print_dry_run
from ingest.stage import Ingest
from pipeline.cli import EXIT_OK
from pipeline.records import Asset, Rejected, SourceItem
from pipeline.stage import Stage
from pipeline.storage import Store
from render.draw import Render
from render.environments import copy_pictures
from render.estimate import Estimate, estimate_render, print_estimate
from render.plan import Plan

if TYPE_CHECKING:
    from pipeline.build import BuildOptions

NUM_SAMPLED = 6


def estimate_build(options: "BuildOptions", specs: Sequence[str]) -> int:
    """Print what a build would do; only a temporary folder is written to."""
    console = Console()
    items = [item for spec in specs for item in options.open_source(spec).items()]
    ingest, probe, plan, render, *_ = options.stages()
    assert isinstance(ingest, Ingest)
    found = ingest.dry_run(items)
    print_dry_run(found, console)
    sampled = items[:: max(1, len(items) // NUM_SAMPLED)][:NUM_SAMPLED]
    share = len(items) / max(1, len(sampled))
    with tempfile.TemporaryDirectory(prefix="mv4d-estimate-") as folder:
        assert isinstance(plan, Plan)
        copy_pictures(plan.look, plan.store, Store(folder))
        stages: list[Stage[Any, Any]] = [replace(stage, data=folder) for stage in (ingest, probe, plan, render)]
        estimate, seconds = _estimate_sampled(stages, sampled)
    console.print()
    print_estimate(estimate.scaled(share), options.num_workers)
    console.print(
        f"and these from {len(sampled)} of {len(items)} inputs, measured in {seconds:.0f} s",
        style="dim",
        highlight=False,
    )
    return EXIT_OK


def _estimate_sampled(stages: Sequence[Stage[Any, Any]], items: Sequence[SourceItem]) -> tuple[Estimate, float]:
    """What rendering these would cost, and the seconds it took to fetch and measure them."""
    ingest, probe, plan, render = stages
    assert isinstance(plan, Plan)
    assert isinstance(render, Render)
    started = time.monotonic()
    animated = []
    for item in items:
        for row in ingest.process(item):
            if isinstance(row, Asset):
                animated += plan.inputs([found for found in probe.process(row) if not isinstance(found, Rejected)])
    seconds = time.monotonic() - started
    return estimate_render(plan, render, animated), seconds
