"""`mv4d ingest` and `python -m ingest`."""

import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from ingest.duplicates import mark_duplicates
from ingest.register import register
from ingest.sources.lists import Only
from ingest.sources.open_source import open_source
from ingest.stage import DryRun, Ingest
from pipeline.cli import EXIT_OK, command_parser, parse, pick, usage_error
from pipeline.running import RunOptions, absolute_root, run_stages
from pipeline.sole_driver import sole_driver


def main(arguments: Sequence[str] | None = None) -> int:
    """List sources, judge licences, fetch, inspect and store."""
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
    parser.add_argument("--dry_run", action="store_true", help="Count by licence and format; fetch and write nothing.")
    parser.add_argument("--ask_servers", action="store_true", help="In a dry run, ask servers for the size of URLs.")
    parser.add_class_arguments(RunOptions, None)
    parser.add_class_arguments(Only, "only", help="Which objects of a collection on the web.")
    parser.add_class_arguments(Ingest, None, skip={"data"})
    namespace = parse(parser, arguments)
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
            items = [item for source in sources for item in register(options.tables, source)]
            items.sort(key=lambda item: item.seq)
            run_stages(options, [stage], iter(items), heading="mv4d ingest", num_inputs=len(items))
            mark_duplicates(options.tables)
    except ValueError as error:
        usage_error(str(error))
    return EXIT_OK


def print_dry_run(found: DryRun, console: Console) -> None:
    """What would be admitted and turned away, by licence and format."""
    table = Table(box=None, pad_edge=False, title="What ingesting would do", title_justify="left")
    for column in ("", "licence class or reason", "format", "files"):
        table.add_column(column, justify="right" if column == "files" else "left")
    for mark, counts in (("[green]admit[/]", found.admitted), ("[yellow]turn away[/]", found.turned_away)):
        for (what, suffix), number in sorted(counts.items()):
            table.add_row(mark, what, suffix, str(number))
    console.print(table)
    unknown = f", and {found.num_unknown_size} of unknown size" if found.num_unknown_size else ""
    console.print(f"{found.admitted.total()} to fetch or copy: {found.num_bytes / 1e6:.1f} MB{unknown}")


if __name__ == "__main__":
    sys.exit(main())
