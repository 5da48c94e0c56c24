"""`mv4d probe` (`python -m render probe`) and `mv4d render` (`python -m render`)."""

import sys
from collections.abc import Sequence

from pipeline.cli import EXIT_OK, command_parser, parse, pick, usage_error
from pipeline.records import Animation, Asset, Probe
from pipeline.running import RunOptions, absolute_root, run_stages
from pipeline.tables import Tables
from render.draw import Render
from render.estimate import estimate_render, print_estimate
from render.plan import AnimatedAsset, Plan
from render.probe import ProbeAsset


def probe_main(arguments: Sequence[str] | None = None) -> int:
    """Open every asset in Blender and measure every animation; nothing is drawn."""
    parser = command_parser(
        "probe",
        "Measure every animation of every asset on its deformed mesh: how it moves, where it goes, what it repeats.",
        """mv4d probe --data data
        mv4d probe --data data --windows.window_s 1 --workers 8
        mv4d stats --data data --sql "SELECT action_name, motion_mean, rigid_share FROM animations\"""",
    )
    parser.add_class_arguments(RunOptions, None)
    parser.add_class_arguments(ProbeAsset, None, skip={"data"})
    namespace = parse(parser, arguments)
    options = pick(RunOptions, namespace)
    stage = pick(ProbeAsset, namespace, data=absolute_root(options.data))
    assets = first_assets(options.tables)
    if not assets:
        usage_error(f"there are no assets in {options.data}; run `mv4d ingest` first")
    run_stages(options, [stage], iter(assets), heading="mv4d probe", num_inputs=len(assets))
    return EXIT_OK


def main(arguments: Sequence[str] | None = None) -> int:
    """Plan a clip for each animation that passes the gate, and draw it."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["probe"]:
        return probe_main(given[1:])
    parser = command_parser(
        "render",
        "Render the measured animations that pass the gate: views by frames of RGBA, with cameras.",
        """mv4d render --data data --rig ortho4 --quality preview --size 128
        mv4d render --data data --rig mv16 --dry-run
        mv4d render --data data --rig orbit24 --gate.allow_rigid true --max_animations 0""",
    )
    parser.add_argument("--dry_run", action="store_true", help="Count clips and pictures and estimate their cost.")
    parser.add_class_arguments(RunOptions, None)
    parser.add_class_arguments(Plan, None, skip={"data"})
    parser.add_class_arguments(Render, None, skip={"data"})
    namespace = parse(parser, arguments)
    options = pick(RunOptions, namespace)
    data = absolute_root(options.data)
    plan, render = pick(Plan, namespace, data=data), pick(Render, namespace, data=data)
    assets = animated_assets(options.tables)
    if not assets:
        usage_error(f"there are no measured animations in {options.data}; run `mv4d probe` first")
    if namespace.dry_run:
        print_estimate(estimate_render(plan, render, assets), options.num_workers)
        return EXIT_OK
    run_stages(options, [plan, render], iter(assets), heading="mv4d render", num_inputs=len(assets))
    return EXIT_OK


def first_assets(tables: Tables) -> list[Asset]:
    """Each asset once, in the order of the input."""
    by_id: dict[str, Asset] = {}
    for asset in sorted(tables.rows(Asset), key=lambda row: row.seq):
        by_id.setdefault(asset.asset_id, asset)
    return list(by_id.values())


def animated_assets(tables: Tables) -> list[AnimatedAsset]:
    """Each probed asset with its animations, in the order of the input."""
    order = {asset.asset_id: place for place, asset in enumerate(first_assets(tables))}
    found = Plan.inputs([*tables.rows(Probe), *tables.rows(Animation)])
    return sorted(found, key=lambda item: order.get(item.probe.asset_id, len(order)))


if __name__ == "__main__":
    sys.exit(main())
