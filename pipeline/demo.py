"""`mv4d demo`: the whole data pipeline on the built-in samples, checked against what each should come to; then one clip
becomes a moving object."""

import csv
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from ingest.sources.samples import Samples, default_cache
from pipeline.build import main as build
from pipeline.cli import EXIT_FINDINGS, EXIT_OK, command_parser, parse
from pipeline.records import Asset, ClipPlan
from pipeline.storage import Store
from pipeline.tables import Tables
from render.objects import Moment, write_still
from render.supervisor import BlenderSettings, child_for, close_child


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What an input came to, beside what it should have come to."""

    name: str
    expected: str
    """`clips`, `clips:TAG` or `rejected:REASON`."""
    came_to: str
    num_actions: int
    """Animations found in the file."""
    expected_actions: int | None
    note: str

    @property
    def as_expected(self) -> bool:
        """True if both the end and the number of animations are as they should be."""
        return self.came_to == self.expected and self.expected_actions in (None, self.num_actions)


OUTCOMES = """
WITH firsts AS (SELECT asset_id, item_id FROM assets),
actions AS (
    SELECT asset_id, count(DISTINCT action_index) AS num_actions FROM animations GROUP BY asset_id
),
kept AS (
    SELECT asset_id, count(*) AS num_kept FROM clips JOIN decisions USING (clip_id) WHERE keep GROUP BY asset_id
),
losses AS (
    SELECT rejected_id AS item_id, reason, 0 AS place FROM rejected WHERE stage LIKE 'ingest%'
    UNION ALL
    SELECT item_id, reason, 1 FROM rejected JOIN firsts ON rejected_id = asset_id
    UNION ALL
    SELECT item_id, reason, 2 FROM rejected JOIN animations ON rejected_id = animation_id JOIN firsts USING (asset_id)
    UNION ALL
    SELECT item_id, reason, 3 FROM rejected JOIN clips ON rejected_id = clip_id JOIN firsts USING (asset_id)
    UNION ALL
    SELECT item_id, reason, 4 FROM decisions JOIN clips USING (clip_id) JOIN firsts USING (asset_id) WHERE NOT keep
),
worst AS (
    SELECT item_id, arg_min(reason, (place, -number, reason)) AS reason, min(place) AS place
    FROM (SELECT item_id, reason, place, count(*) AS number FROM losses GROUP BY ALL) GROUP BY item_id
)
SELECT
    items.name,
    CASE
        WHEN worst.place = 0 THEN 'rejected:' || worst.reason
        WHEN num_kept > 0 AND len(missing_textures) > 0 THEN 'clips:missing_texture'
        WHEN num_kept > 0 THEN 'clips'
        WHEN worst.reason IS NOT NULL THEN 'rejected:' || worst.reason
        ELSE 'lost'
    END AS came_to,
    coalesce(actions.num_actions, 0) AS num_actions
FROM items
LEFT JOIN firsts USING (item_id)
LEFT JOIN worst USING (item_id)
LEFT JOIN actions USING (asset_id)
LEFT JOIN kept USING (asset_id)
LEFT JOIN probes USING (asset_id)
ORDER BY items.seq
"""


def outcomes(tables: Tables, manifest: Path) -> list[Outcome]:
    """What each line of a manifest with the columns `file`, `expect` and `expect_actions` came to."""
    with tables.connect() as con:
        came_to = {name: (end, actions) for name, end, actions in con.execute(OUTCOMES).fetchall()}
    found = []
    with manifest.open(newline="", encoding="utf-8") as file:
        for line in csv.DictReader(file):
            end, actions = came_to.get(line["file"], ("lost", 0))
            found.append(
                Outcome(
                    name=line["file"],
                    expected=line["expect"],
                    came_to=end,
                    num_actions=actions if end.startswith("clips") else 0,
                    expected_actions=int(line["expect_actions"]) if end.startswith("clips") else None,
                    note=line["note"],
                )
            )
    return found


def print_outcomes(found: Sequence[Outcome], console: Console) -> None:
    """A table of every sample: what it is, what it came to, and whether that is right."""
    table = Table(title="What each sample came to", title_justify="left", box=None, pad_edge=False)
    for column in ("", "file", "animations", "came to", "what it is"):
        table.add_column(column, overflow="fold", justify="right" if column == "animations" else "left")
    for outcome in found:
        mark = "[green]ok[/]" if outcome.as_expected else "[bold red]WRONG[/]"
        end = outcome.came_to if outcome.as_expected else f"{outcome.came_to} (expected {outcome.expected})"
        table.add_row(mark, outcome.name, str(outcome.num_actions or ""), end, outcome.note)
    console.print(table)


SHOWN = ("toy_robot.glb", "dance")
"""File and action of the clip that becomes a moving object."""
MOVING = {
    "view.html": "a clip brought back to 3D: plays from any side, in a browser",
    "animated.glb": "the same as an animated mesh, for Blender",
}


def make_4d(data: str) -> list[Path]:
    """Reconstruct how a robot dances from four views of it; the files to look at, the page first."""
    from fourd.command import ReconstructOptions, print_metrics, reconstruct_clip  # torch and all
    from fourd.settings import load_settings

    tables = Tables(Store(data))
    names = {asset.asset_id: asset.name for asset in tables.rows(Asset)}
    plans = [plan for plan in tables.rows(ClipPlan) if (names.get(plan.asset_id), plan.action_name) == SHOWN]
    plan = min(plans, key=lambda plan: plan.clip_id)
    folder = Path(data) / "4d"
    folder.mkdir(exist_ok=True)
    settings = BlenderSettings()
    try:
        write_still(child_for(settings), plan, Store(data), folder / "object.glb", at=Moment.of_clip(plan))
    finally:
        close_child(settings)
    options = ReconstructOptions(
        data=data, clip=plan.clip_id, object=str(folder / "object.glb"), out=str(folder), size_px=96
    )
    full = load_settings("cpu")
    # A robot that dances on the spot is found at the first try.
    track = replace(full.stages[0], stiffness=full.stages[0].stiffness[:1], steps_per_frame=70)
    done = reconstruct_clip(options, replace(full, stages=(track, *full.stages[1:])))
    print_metrics(done.metrics, Console(stderr=True))
    return done.written


def main(arguments: Sequence[str] | None = None) -> int:
    """`mv4d demo`."""
    parser = command_parser(
        "demo",
        "Make the sample assets, run the whole data pipeline on them, check what each came to, and bring one clip back "
        "to 3D: a mesh and splats that move.",
        """mv4d demo
        mv4d demo --data /tmp/demo --size 256 --quality standard""",
    )
    parser.add_argument("--data", type=str, default="demo-data", help="Where everything is put.")
    parser.add_argument("--size", type=int, default=144, help="Pixels a side.")
    parser.add_argument("--rig", type=str, default="ortho4", help="Cameras; see `mv4d build --help`.")
    parser.add_argument("--quality", type=str, default="preview", help="preview, standard or high.")
    parser.add_argument("--workers", type=int, default=0, help="Renderers at once; 0 is one a core.")
    parser.add_argument("--data_only", action="store_true", help="Leave out the 4D object: no torch is needed then.")
    options = parse(parser, arguments)
    console = Console()
    build_arguments = ["samples", "--data", options.data, "--rig", options.rig, "--quality", options.quality]
    code = build([*build_arguments, "--size_px", str(options.size), "--workers", str(options.workers)])
    if code != EXIT_OK:
        return code
    tables = Tables(Store(options.data))
    found = outcomes(tables, Samples(cache=default_cache()).manifest)
    print_outcomes(found, console)
    wrong = [outcome for outcome in found if not outcome.as_expected]
    print(f"\n{len(found) - len(wrong)} of {len(found)} samples ended as they should.", file=sys.stderr, flush=True)
    moving = [] if options.data_only else make_4d(options.data)
    console.print("\nLook at:")
    for what, path in (
        ("contact sheet, open it in a browser", "report.html"),
        ("shards with their data card", "shards/README.md"),
        ("tables, for DuckDB", "tables"),
    ):
        console.print(f"  {Path(options.data).resolve() / path}  [dim]{what}[/]", highlight=False, soft_wrap=True)
    for file in moving[:2]:
        console.print(f"  {file.resolve()}  [dim]{MOVING[file.name]}[/]", highlight=False, soft_wrap=True)
    console.print(f"and ask:  .venv/bin/mv4d stats --data {options.data}", highlight=False)
    return EXIT_FINDINGS if wrong else EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
