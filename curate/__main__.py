"""`mv4d curate` (`python -m curate`) and `mv4d report` (`python -m curate report`)."""

import sys
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table

from curate.decide import Changes, Summary, decide, preview
from curate.report import ReportSettings, write_report
from curate.rules import load_preset, preset_names
from curate.score import Score
from pipeline.cli import EXIT_OK, command_parser, parse, pick, usage_error
from pipeline.records import Clip
from pipeline.running import RunOptions, absolute_root, run_stages
from pipeline.sole_driver import sole_driver


def main(arguments: Sequence[str] | None = None) -> int:
    """Score what is not scored yet, then decide by a preset."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["report"]:
        return report_main(given[1:])
    parser = command_parser(
        "curate",
        "Score clips (once) and decide by a preset which to keep (in seconds, as often as you like). Nothing is "
        f"rendered and nothing is deleted. Presets: {', '.join(preset_names())}, or a YAML file.",
        """mv4d curate --data data
        mv4d curate --data data --preset diffusion4d --dry-run
        mv4d curate --data data --set too_still=0.01 --set duplicate_look=off
        mv4d curate --data data --preset my-rules.yaml && mv4d pack --data data""",
    )
    parser.add_argument("--preset", type=str, default="default", help="Name or YAML file of the rules.")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        type=str,
        help="Another threshold: reason=number or reason=off. May be repeated.",
    )
    parser.add_argument("--dry_run", action="store_true", help="Show what would change; score and write nothing.")
    parser.add_class_arguments(RunOptions, None)
    parser.add_class_arguments(Score, None, skip={"data"})
    namespace = parse(parser, given)
    options = pick(RunOptions, namespace)
    score = pick(Score, namespace, data=absolute_root(options.data))
    console = Console()
    try:
        preset = load_preset(namespace.preset, namespace.set)
        if namespace.dry_run:
            print_changes(preview(options.tables, preset), console)
            return EXIT_OK
        clips = options.tables.rows(Clip)
        if not clips:
            usage_error(f"there are no clips in {options.data}; run `mv4d render` first")
        with sole_driver(options.tables.store):
            run_stages(options, [score], iter(clips), heading="mv4d curate", num_inputs=len(clips))
            print_summary(decide(options.tables, preset), console)
    except ValueError as error:
        usage_error(str(error))
    return EXIT_OK


def report_main(arguments: Sequence[str] | None = None) -> int:
    """Write the contact sheet."""
    parser = command_parser(
        "report",
        "Write the contact sheet: one HTML file with playing clips, scores, and the preset's thresholds as sliders.",
        """mv4d report --data data
        mv4d report --data data --preset diffusion4d --out sheet.html""",
    )
    parser.add_argument("--preset", type=str, default="default", help="Rules whose thresholds become the sliders.")
    parser.add_argument("--set", action="append", default=[], type=str, help="Another threshold, as in `mv4d curate`.")
    parser.add_class_arguments(RunOptions, None)
    parser.add_class_arguments(ReportSettings, None)
    namespace = parse(parser, arguments)
    options = pick(RunOptions, namespace)
    try:
        path = write_report(
            options.tables, load_preset(namespace.preset, namespace.set), pick(ReportSettings, namespace)
        )
    except ValueError as error:
        usage_error(str(error))
    Console().print(str(path), soft_wrap=True, highlight=False)
    return EXIT_OK


def print_summary(summary: Summary, console: Console) -> None:
    """What was decided."""
    share = 100 * summary.num_kept / max(1, summary.num_clips)
    console.print(
        f"[bold]{summary.num_kept}[/] of {summary.num_clips} clips kept by {summary.preset} ({share:.1f} %)",
        highlight=False,
    )
    table = Table(box=None, pad_edge=False)
    table.add_column("dropped for")
    table.add_column("clips", justify="right")
    table.add_column("that fail the rule at all", justify="right")
    for reason, number in summary.by_any_reason.items():
        table.add_row(reason, str(summary.by_reason.get(reason, 0)), str(number))
    if summary.by_any_reason:
        console.print(table)
    if summary.num_unread:
        console.print(f"{summary.num_unread} clips could not be read", style="yellow")
    if summary.num_waiting:
        console.print(f"{summary.num_waiting} clips have no scores", style="yellow")


def print_changes(changes: Changes, console: Console) -> None:
    """What another decision would change."""
    console.print(f"{changes.before or '(nothing decided yet)'} -> [bold]{changes.after}[/]", highlight=False)
    if not changes.any:
        console.print(f"nothing would change for {changes.num_same} clips")
        return
    table = Table(box=None, pad_edge=False)
    for column in ("change", "reason", "clips"):
        table.add_column(column, justify="right" if column == "clips" else "left")

    def add(label: str, counts: Mapping[str, int]) -> None:
        for reason, number in counts.items():
            table.add_row(label, reason, str(number))

    add("[red]kept -> dropped[/]", changes.dropped)
    add("[green]dropped -> kept[/]", changes.restored)
    add("dropped, other reason", {f"{now} -> {then}": n for (now, then), n in changes.regrouped.items()})
    add("new, dropped", changes.added_dropped)
    add("new, kept", {"": changes.added_kept} if changes.added_kept else {})
    add("no longer a clip", {"": changes.removed} if changes.removed else {})
    add("unchanged", {"": changes.num_same})
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
