"""`mv4d ingest` (`python -m ingest`), `mv4d import` (`… import`) and `mv4d licence` (`… licence`)."""

import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ingest.duplicates import mark_duplicates
from ingest.fetch import FetchSettings
from ingest.recheck import Recheck, RecheckReport, list_items
from ingest.rendered.command import import_main
from ingest.sources.lists import Only, Sites
from ingest.sources.open_source import open_source
from ingest.stage import DryRun, Ingest
from pipeline.cli import EXIT_FINDINGS, EXIT_OK, command_parser, parse, pick, usage_error
from pipeline.records import Asset
from pipeline.running import RunOptions, absolute_root, run_stages
from pipeline.sole_driver import sole_driver
from pipeline.storage import Store
from pipeline.tables import Tables


def main(arguments: Sequence[str] | None = None) -> int:
    """List sources, judge licences, fetch, inspect and store."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["import"]:
        return import_main(given[1:])
    if given[:1] == ["licence"]:
        return licence_main(given[1:])
    parser = command_parser(
        "ingest",
        "Bring 3D files into the blob store of a data root, with their licences. SOURCES are folders, 3D files, "
        "manifests (.csv, .jsonl, .parquet) of paths or URLs, or the words `samples`, `objaverse`, `objaverse-xl` and "
        "`sketchfab`.",
        """mv4d ingest samples --data demo-data
        mv4d ingest catalog.csv --data data --dry-run
        mv4d ingest models/ --licence CC0-1.0 --author "Ann Artist" --data data
        mv4d ingest catalog.csv --data data --policy custom --allow CC0-1.0,MIT
        mv4d ingest objaverse --only.tags animal,creature --only.max_items 500 --data data
        mv4d ingest objaverse-xl --only.ids curated.csv --data data --dry-run
        SKETCHFAB_TOKEN=… mv4d ingest sketchfab --only.query "walking robot" --only.max_items 50 --data data
        mv4d ingest objaverse --data data --retry-rejected fetch_failed
        ray job submit --working-dir . -- python -m ingest /shared/catalog.csv --data /shared/set""",
    )
    parser.add_argument("sources", nargs="+", type=str, help="What to ingest.")
    parser.add_argument("--licence", type=str, default="", help="SPDX id for files of which nothing else is said.")
    parser.add_argument("--author", type=str, default="", help="Author of files that do not name one.")
    parser.add_argument(
        "--dry_run",
        action="store_true",
        help="Count files and bytes by source, licence and format; fetch and write nothing.",
    )
    parser.add_argument("--ask_servers", action="store_true", help="In a dry run, ask servers for the size of URLs.")
    parser.add_class_arguments(RunOptions, None)
    parser.add_class_arguments(Only, "only", help="Which objects of a collection on the web.")
    parser.add_class_arguments(Ingest, None, skip={"data"})
    namespace = parse(parser, given)
    options = pick(RunOptions, namespace)
    stage = pick(Ingest, namespace, data=absolute_root(options.data))
    try:
        sources = [
            open_source(
                spec,
                licence=namespace.licence,
                author=namespace.author,
                only=namespace.only,
                sites=stage.sites,
                fetch=stage.fetch,
            )
            for spec in namespace.sources
        ]
        if namespace.dry_run:
            listed = (item for source in sources for item in source.items())
            print_dry_run(stage.dry_run(listed, ask_servers=namespace.ask_servers), Console())
            return EXIT_OK
        with sole_driver(options.tables.store):
            items = list_items(options.tables, sources)
            run_stages(options, [stage], iter(items), heading="mv4d ingest", num_inputs=len(items))
            mark_duplicates(options.tables)
    except ValueError as error:
        usage_error(str(error))
    return EXIT_OK


def licence_main(arguments: Sequence[str] | None = None) -> int:
    """Read the sources of assets once more."""
    parser = command_parser(
        "licence",
        "`recheck` reads the sources of all assets once more and says what changed: live, gone, private or unlisted, "
        "another licence, an opt-out from AI. What is found becomes rows with dates; the next `mv4d pack` moves assets "
        "to their new licence class or leaves them out. Ends with 1 if anything changed.",
        """mv4d licence recheck --data data --dry-run
        mv4d licence recheck --data data --older_than_days 30
        mv4d stats --data data --sql "SELECT checked_at, source_status, changes, spdx FROM licence_checks\"""",
    )
    parser.add_argument("what", type=str, choices=["recheck"], help="recheck: read the sources once more.")
    parser.add_argument("--data", type=str, default="data", help="Data root: a folder or an fsspec URL.")
    parser.add_argument("--older_than_days", type=int, default=0, help="Only what was not checked for so many days.")
    parser.add_argument("--dry_run", action="store_true", help="Say what changed; write nothing.")
    parser.add_class_arguments(Sites, "sites")
    parser.add_class_arguments(FetchSettings, "fetch")
    namespace = parse(parser, arguments)
    tables = Tables(Store(namespace.data))
    recheck = Recheck(tables, sites=namespace.sites, fetch=namespace.fetch)
    try:
        with contextlib.nullcontext() if namespace.dry_run else sole_driver(tables.store):
            report = recheck.run(older_than_days=namespace.older_than_days, store=not namespace.dry_run)
    except ValueError as error:
        usage_error(str(error))
    print_recheck(tables, report, Console())
    return EXIT_FINDINGS if report.changed else EXIT_OK


def print_recheck(tables: Tables, report: RecheckReport, console: Console) -> None:
    """What a recheck found."""
    known = {row.item_id: row for row in tables.rows(Asset)}
    counts = ", ".join(f"{number} {status}" for status, number in report.checked.most_common())
    console.print(f"{report.checked.total()} sources read: {counts or 'none'}", highlight=False)
    if report.not_checkable:
        console.print(f"{report.not_checkable} have no source that could be read again", highlight=False)
    if not report.changed:
        return
    table = Table(box=None, pad_edge=False)
    for column in ("asset", "changed", "source", "licence", "opt-out", "what was found"):
        table.add_column(column, overflow="fold")
    for check in report.changed:
        before = known[check.item_id]
        licence = before.spdx if before.spdx == check.spdx else f"{before.spdx} → {check.spdx}"
        opt_out = {True: "yes", False: "no", None: ""}[check.noai]
        cells = (before.title or before.name, ", ".join(check.changes), check.source_status, licence, opt_out)
        table.add_row(*(escape(cell) for cell in cells), escape(check.detail))
    console.print(table)
    console.print("`mv4d pack` applies it: corrected licences move, what is no longer admitted is left out")


def print_dry_run(found: DryRun, console: Console) -> None:
    """What would be admitted and turned away, by source, licence and format."""
    table = Table(box=None, pad_edge=False, title="What ingesting would do", title_justify="left")
    columns = ("", "source", "licence class or reason", "format", "files", "MB", "of unknown size")
    for place, column in enumerate(columns):
        table.add_column(column, justify="right" if place > 3 else "left")
    for mark, counts in (("[green]admit[/]", found.admitted), ("[yellow]turn away[/]", found.turned_away)):
        for (source, what, suffix), tally in sorted(counts.items()):
            size, unknown = f"{tally.num_bytes / 1e6:.1f}", str(tally.num_unknown_size or "")
            table.add_row(mark, Path(source).name, what, suffix, str(tally.num_files), size, unknown)
    console.print(table)
    total = found.total
    unknown = f", and {total.num_unknown_size} of unknown size" if total.num_unknown_size else ""
    console.print(f"{total.num_files} to fetch or copy: {total.num_bytes / 1e6:.1f} MB{unknown}")


if __name__ == "__main__":
    sys.exit(main())
