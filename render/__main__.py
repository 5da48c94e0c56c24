"""`mv4d render` (`python -m render`), and `probe`, `object` and `convert` (`mv4d probe`, `python -m render probe`)."""

import sys
from collections.abc import Sequence
from typing import Any

from rich.console import Console

from pipeline.cli import EXIT_OK, command_parser, parse, pick, usage_error
from pipeline.records import Animation, Asset, Probe
from pipeline.running import RunOptions, absolute_root, run_stages
from pipeline.sole_driver import sole_driver
from pipeline.stage import Stage
from pipeline.tables import Tables
from pipeline.truth_media import PASSES_HELP, passes_of
from render.draw import Render
from render.environments import with_pictures
from render.estimate import Counts, calibrate, count, estimate, print_counts, print_estimate
from render.objects import convert_main, object_main
from render.plan import AnimatedAsset, Plan
from render.preflight import settle_device
from render.presets import add_preset_option
from render.probe import ProbeAsset, is_of
from render.truth import GroundTruth
from render.windows import WindowSettings


def probe_main(arguments: Sequence[str] | None = None) -> int:
    """Open every asset in Blender and measure every animation; nothing is drawn."""
    parser = command_parser(
        "probe",
        "Measure every animation of every asset on its deformed mesh: how it moves, where it goes, what it repeats.",
        """mv4d probe --data data
        mv4d probe --data data --windows.window_s 1 --workers 8
        mv4d probe --data data --as diffusion4d
        mv4d stats --data data --sql "SELECT action_name, motion_mean, rigid_share FROM animations\"""",
    )
    parser.add_class_arguments(RunOptions, None)
    parser.add_class_arguments(ProbeAsset, None, skip={"data"})
    given = list(sys.argv[1:] if arguments is None else arguments)
    add_preset_option(parser, given)
    namespace = parse(parser, given)
    options = pick(RunOptions, namespace)
    stage = pick(ProbeAsset, namespace, data=absolute_root(options.data))
    assets = first_assets(options.tables)
    if not assets:
        usage_error(f"there are no assets in {options.data}; run `mv4d ingest` first")
    with sole_driver(options.tables.store):
        run_stages(options, [stage], iter(assets), heading="mv4d probe", num_inputs=len(assets))
    return EXIT_OK


def main(arguments: Sequence[str] | None = None) -> int:
    """Plan a clip for each animation that passes the gate, and draw it."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    others = {"probe": probe_main, "object": object_main, "convert": convert_main}
    if given and given[0] in others:
        return others[given[0]](given[1:])
    parser = command_parser(
        "render",
        "Render the measured animations that pass the gate: views by frames of RGBA, with cameras.",
        """mv4d render --data data --rig ortho4 --quality preview --size 128
        mv4d render --data data --rig mv16 --estimate
        mv4d render --data data --rig orbit24 --gate.allow_rigid true --max_animations 0
        mv4d render --data data --rig ortho4 --passes depth,normal,flow
        mv4d render --data data --look.lights hdri --look.hdri_folder skies/
        mv4d probe --data data --as diffusion4d && mv4d render --data data --as diffusion4d""",
    )
    parser.add_argument("--dry_run", action="store_true", help="Only count clips and pictures.")
    parser.add_argument(
        "--estimate",
        action="store_true",
        help="Count, draw some pictures of up to 20 assets, with their --passes, and say what all would cost.",
    )
    parser.add_argument("--passes", type=str, default="", help=PASSES_HELP)
    parser.add_class_arguments(RunOptions, None)
    parser.add_class_arguments(Plan, None, skip={"data"})
    parser.add_class_arguments(Render, None, skip={"data"})
    parser.add_argument(
        "--windows",
        type=WindowSettings | None,
        default=None,
        help="Draw only what was measured with these windows; by default all that was measured.",
    )
    add_preset_option(parser, given)
    namespace = parse(parser, given)
    options = pick(RunOptions, namespace)
    data = absolute_root(options.data)
    assets = animated_assets(options.tables, namespace.windows)
    if not assets:
        usage_error(f"there are no measured animations in {options.data}; run `mv4d probe` first")
    if namespace.windows and not any(asset.animations for asset in assets):
        usage_error(f"nothing is measured with {namespace.windows}; run `mv4d probe` with the same --as and --windows")
    render = pick(Render, namespace, data=data)
    try:
        look = with_pictures(namespace.look, options.tables.store, render.blender)
    except ValueError as error:
        usage_error(str(error))
    plan = pick(Plan, namespace, data=data, look=look)
    truth: GroundTruth | None = None
    try:
        if passes := passes_of(namespace.passes):
            truth = GroundTruth(data=data, passes=passes, blender=render.blender)
    except ValueError as error:
        usage_error(str(error))
    stages: list[Stage[Any, Any]] = [plan, render, *([truth] if truth else ())]
    if namespace.dry_run or namespace.estimate:
        counts = count(plan, assets)
        print_counts(counts, Console())
    if namespace.dry_run or (namespace.estimate and not counts.clips):
        return EXIT_OK
    options = settle_device(options, render.blender, plan.look.engine)
    if namespace.estimate:
        return print_cost(counts, render, truth, options)
    with sole_driver(options.tables.store):
        run_stages(options, stages, iter(assets), heading="mv4d render", num_inputs=len(assets))
    return EXIT_OK


def print_cost(counts: Counts, render: Render, truth: GroundTruth | None, options: RunOptions) -> int:
    """Draw some pictures, and say what all would cost."""
    try:
        found = estimate(counts.clips, calibrate(render, counts.clips, truth, quiet=options.quiet))
    except ValueError as error:
        usage_error(str(error))
    print_estimate(found, options.num_workers, Console())
    return EXIT_OK


def first_assets(tables: Tables) -> list[Asset]:
    """Each asset once, in the order of the input; those of which only pictures came in are passed over."""
    by_id: dict[str, Asset] = {}
    for asset in sorted(tables.rows(Asset, "blob <> ''"), key=lambda row: row.seq):
        by_id.setdefault(asset.asset_id, asset)
    return list(by_id.values())


def animated_assets(tables: Tables, windows: WindowSettings | None = None) -> list[AnimatedAsset]:
    """Each probed asset with its animations, in the order of the input.

    Args:
        tables: Of the data root.
        windows: Only animations that were measured with these; None for all.
    """
    order = {asset.asset_id: place for place, asset in enumerate(first_assets(tables))}
    animations = [row for row in tables.rows(Animation) if windows is None or is_of(row, windows)]
    found = Plan.inputs([*tables.rows(Probe, "blob <> ''"), *animations])
    return sorted(found, key=lambda item: order.get(item.probe.asset_id, len(order)))


if __name__ == "__main__":
    sys.exit(main())
