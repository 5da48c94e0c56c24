"""`mv4d pack` (`python -m shards`), and `lint`, `stats`, `takedown` and `attribution` (`python -m shards lint`, …)."""

import sys
from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pipeline import dates
from pipeline.cli import EXIT_FINDINGS, EXIT_OK, command_parser, parse, pick, usage_error
from pipeline.progress_bar import progress_bar
from pipeline.sole_driver import sole_driver
from pipeline.storage import Store
from pipeline.tables import Tables
from shards.cards import last_settings, remove_cards, write_cards
from shards.credits import Incomplete, credits_of_run, credits_of_shards, published, write_attribution
from shards.lint import LintReport, LintSettings, lint
from shards.pack import Packer, PackReport
from shards.plan import PackSettings
from shards.readme import CardSettings
from shards.statistics import Format, print_query, print_stats, query_list, query_text, shell
from shards.takedown import Kind, Meant, carry_out, meaning_of, tombstone
from shards.views import connect


def pack_main(arguments: Sequence[str] | None = None) -> int:
    """Write the kept clips into shards, with index and cards."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    others = {"lint": lint_main, "stats": stats_main, "takedown": takedown_main, "attribution": attribution_main}
    if given and given[0] in others:
        return others[given[0]](given[1:])
    parser = command_parser(
        "pack",
        "Write the clips that curation keeps into WebDataset shards, pure in licence class and split, with an index, a "
        "data card, Croissant metadata and attribution. The same clips give the same bytes.",
        """mv4d pack --data data
        mv4d pack --data data --shard_mb 500 --allowed_classes '[cc0, permissive]'
        mv4d pack --data data --val_share 0.05 --test_share 0.05""",
    )
    parser.add_argument("--data", type=str, default="data", help="Data root: a folder or an fsspec URL.")
    parser.add_class_arguments(PackSettings, None)
    parser.add_class_arguments(CardSettings, "card")
    namespace = parse(parser, given)
    tables = Tables(Store(namespace.data))
    console = Console()
    try:
        with sole_driver(tables.store):
            with progress_bar("packing", "clips") as on_progress:
                report = Packer(tables, pick(PackSettings, namespace), on_progress=on_progress).pack()
            if report.num_samples:
                papers = write_cards(tables, namespace.card)
            else:
                papers = []
                remove_cards(tables.store, last_settings(tables.store))
    except ValueError as error:
        usage_error(str(error))
    print_pack_report(report, console)
    for path in papers:
        console.print(f"  {tables.store.path(path)}", highlight=False, soft_wrap=True)
    return EXIT_OK


def lint_main(arguments: Sequence[str] | None = None) -> int:
    """Check every shard against its index."""
    parser = command_parser(
        "lint",
        "Read every shard and check each part's hash and offset, each camera, each picture, and that no licence class "
        "or asset family is where it should not be. Ends with 1 if anything is wrong.",
        """mv4d lint --data data
        mv4d lint --data data --decode false""",
    )
    parser.add_argument("--data", type=str, default="data", help="Data root: a folder or an fsspec URL.")
    parser.add_class_arguments(LintSettings, None)
    namespace = parse(parser, arguments)
    with progress_bar("reading", "MB") as show:

        def on_progress(done: int, total: int) -> None:
            show(round(done / 1e6), round(total / 1e6))

        report = lint(Tables(Store(namespace.data)), pick(LintSettings, namespace), on_progress=on_progress)
    print_lint_report(report, Console())
    return EXIT_FINDINGS if report.findings else EXIT_OK


def stats_main(arguments: Sequence[str] | None = None) -> int:
    """Print the funnel and figures, or answer a query."""
    parser = command_parser(
        "stats",
        "Show where every input went and what the data set holds, or ask in SQL: every table is a view, and "
        "`clips_full` joins what is known of a clip.",
        """mv4d stats --data data
        mv4d stats --data data --list
        mv4d stats --data data --query rejects
        mv4d stats --data data --sql "SELECT rig, count(*) FROM kept GROUP BY rig" --format json
        mv4d stats --data data --shell""",
    )
    parser.add_argument("--data", type=str, default="data", help="Data root: a folder or an fsspec URL.")
    parser.add_argument("--sql", type=str, default="", help="Run a query of your own.")
    parser.add_argument("--query", type=str, default="", help="Run a shipped query by name.")
    parser.add_argument("--list", action="store_true", help="List the shipped queries.")
    parser.add_argument("--shell", action="store_true", help="Read queries from the terminal.")
    parser.add_argument("--format", type=Format, default="table", help="Of the answer.")
    namespace = parse(parser, arguments)
    tables = Tables(Store(namespace.data))
    console = Console()
    if namespace.list:
        console.print(query_list())
        return EXIT_OK
    try:
        if not (namespace.sql or namespace.query or namespace.shell):
            return EXIT_OK if print_stats(tables, console) else EXIT_FINDINGS
        with connect(tables) as con:
            if namespace.shell:
                shell(con, console)
            else:
                print_query(con, namespace.sql or query_text(namespace.query), how=namespace.format, console=console)
    except ValueError as error:
        usage_error(str(error))
    return EXIT_OK


def takedown_main(arguments: Sequence[str] | None = None) -> int:
    """Take assets out of a data set."""
    parser = command_parser(
        "takedown",
        "Take assets out of a data set, and keep them out. TARGETS are assets (their sha256, its first 12 digits, or "
        "the key of a sample), web addresses, or authors. Readers stop serving them at once, running ones too; then "
        "the tars that hold them are written again, with index and cards as a new version, and their pictures and 3D "
        "files are removed. Without a target, what was interrupted is finished.",
        """mv4d takedown 1785e9ce8361 --data data --dry-run
        mv4d takedown https://sketchfab.com/3d-models/fox-3f4a… --data data --why "its author asked"
        mv4d takedown "Ann Artist" --kind author --data data --keep_evidence
        mv4d takedown --data data""",
    )
    parser.add_argument("targets", nargs="*", type=str, help="Assets, addresses or authors.")
    parser.add_argument("--data", type=str, default="data", help="Data root: a folder or an fsspec URL.")
    parser.add_argument("--kind", type=Kind, default="auto", help="What the targets are; auto: as they look.")
    parser.add_argument("--why", type=str, default="", help="Reason. It is published with the data set.")
    parser.add_argument("--dry_run", action="store_true", help="Say what would go; change nothing.")
    parser.add_argument(
        "--keep_evidence", action="store_true", help="Move 3D files to evidence/ instead of removing them."
    )
    parser.add_argument(
        "--ahead", action="store_true", help="Keep out even what is not there yet: addresses, authors, or a sha256."
    )
    namespace = parse(parser, arguments)
    tables, console, today = Tables(Store(namespace.data)), Console(), dates.today()
    try:
        meant = [
            meaning_of(tables, target, kind=namespace.kind, why=namespace.why, asked_on=today)
            for target in namespace.targets
        ]
    except ValueError as error:
        usage_error(str(error))
    for one in meant:
        print_meant(one, console)
        if not (one.titles or namespace.ahead):
            usage_error(
                f"no asset of {namespace.data} is meant by {one.request.value!r}; --ahead keeps it out if it comes"
            )
    if namespace.dry_run:
        return EXIT_OK
    if meant:
        tombstone(tables, [one.request for one in meant])
        console.print("no reader serves them any more", highlight=False)
    with sole_driver(tables.store), progress_bar("rewriting", "tars") as on_progress:
        tombstone(tables, [])
        report = carry_out(tables, on=today, keep_evidence=namespace.keep_evidence, on_progress=on_progress)
    console.print(
        f"[bold]{report.num_samples}[/] samples taken out: {len(report.rewritten)} tars written again, "
        f"{len(report.removed)} removed, {report.num_unchanged} left as they were; {report.num_files} files of "
        "pictures and 3D models removed",
        highlight=False,
    )
    if report.version:
        console.print(f"version {report.version}: {tables.store.path(report.changes)}", highlight=False, soft_wrap=True)
    return EXIT_OK


def attribution_main(arguments: Sequence[str] | None = None) -> int:
    """Name the authors of what somebody uses."""
    parser = command_parser(
        "attribution",
        "Write ATTRIBUTION.md and attribution.parquet: author, source, licence and credit of every asset in a data "
        "set, in some of its tars, or in what a training run was shown. Ends with 1 if one of them has no credit.",
        """mv4d attribution --data data --out credits/
        mv4d attribution --data downloaded/ --shards 'by/train/*.tar,cc0/train/mv-000003.tar' --out credits/
        mv4d attribution --run runs/small --data data --out credits/""",
    )
    parser.add_argument("--data", type=str, default="", help="Data root, or a folder of shards as they are published.")
    parser.add_argument("--shards", type=str, default="", help="Only these tars: names with * and ?, by commas.")
    parser.add_argument("--run", type=str, default="", help="Folder of a training run: what it was shown.")
    parser.add_argument("--out", type=str, required=True, help="Folder to write to.")
    namespace = parse(parser, arguments)
    patterns = [pattern for part in namespace.shards.split(",") if (pattern := part.strip())]
    if namespace.run and patterns:
        usage_error("give --shards or --run, not both")
    try:
        store = published(namespace.data or "data") if namespace.data or not namespace.run else None
        if namespace.run:
            entries, where = credits_of_run(namespace.run, store), "seen by a training run"
        else:
            assert store is not None
            entries = credits_of_shards(store, patterns)
            where = "in some tars of a data set" if patterns else "in this data set"
    except Incomplete as error:
        Console(stderr=True).print(f"[bold red]incomplete:[/] {error}", highlight=False)
        return EXIT_FINDINGS
    except ValueError as error:
        usage_error(str(error))
    out = Store(namespace.out)
    for name in write_attribution(out, entries, where):
        Console().print(out.path(name), highlight=False, soft_wrap=True)
    return EXIT_OK


def print_pack_report(report: PackReport, console: Console) -> None:
    """What packing did."""
    console.print(
        f"[bold]{report.num_samples}[/] samples in {len(report.written) + len(report.unchanged)} shards, "
        f"{report.num_bytes / 1e6:.1f} MB: {len(report.written)} written, {len(report.unchanged)} unchanged, "
        f"{len(report.removed)} removed",
        highlight=False,
    )
    truth = report.truth
    if truth.written or truth.unchanged or truth.removed:
        console.print(
            f"  ground truth beside them: {len(truth.written)} tars written, {len(truth.unchanged)} unchanged, "
            f"{len(truth.removed)} removed",
            highlight=False,
        )
    for reason, number in report.left_out.most_common():
        console.print(f"  left out: {reason} {number}", style="yellow", highlight=False)


def print_meant(meant: Meant, console: Console) -> None:
    """What a request is about."""
    request = meant.request
    console.print(
        f"{request.kind} {escape(request.value)}: {len(meant.titles)} assets, {meant.num_samples} samples in "
        f"{len(meant.tars)} tars of {sum(meant.tars.values()) / 1e6:.1f} MB",
        highlight=False,
    )
    for asset_id, title in sorted(meant.titles.items()):
        console.print(f"  {asset_id[:12]} {escape(title)}", highlight=False)
    if meant.relatives:
        console.print(
            f"  {len(meant.relatives)} other assets have the same geometry and stay: "
            f"{', '.join(asset_id[:12] for asset_id in meant.relatives[:5])}",
            style="yellow",
            highlight=False,
        )


def print_lint_report(report: LintReport, console: Console) -> None:
    """What is wrong, if anything."""
    beside = f" and {report.num_truth_shards} tars of ground truth" if report.num_truth_shards else ""
    checked = f"{report.num_samples} samples in {report.num_shards} shards{beside}, {report.num_bytes / 1e6:.1f} MB"
    if not report.findings:
        console.print(f"[green]no findings[/] in {checked}", highlight=False)
        return
    table = Table(box=None, pad_edge=False)
    for column in ("kind", "shard", "sample", "what is wrong"):
        table.add_column(column, overflow="fold")
    for finding in report.findings:
        table.add_row(f"[red]{finding.kind}[/]", finding.shard, finding.key, finding.detail)
    console.print(table)
    console.print(f"[red]{len(report.findings)} findings[/] in {checked}", highlight=False)


if __name__ == "__main__":
    sys.exit(pack_main())
