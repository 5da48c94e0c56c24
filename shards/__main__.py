"""`mv4d pack` (`python -m shards`), `mv4d lint` (`… lint`) and `mv4d stats` (`… stats`)."""

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from pipeline.cli import EXIT_FINDINGS, EXIT_OK, command_parser, parse, pick, usage_error
from pipeline.sole_driver import sole_driver
from pipeline.storage import Store
from pipeline.tables import Tables
from shards.cards import write_cards
from shards.lint import LintReport, LintSettings, lint
from shards.pack import Packer, PackReport
from shards.plan import PackSettings
from shards.readme import CardSettings
from shards.statistics import print_query, print_stats, query_list, query_text, shell
from shards.views import connect


def pack_main(arguments: Sequence[str] | None = None) -> int:
    """Write the kept clips into shards, with index and cards."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["lint"]:
        return lint_main(given[1:])
    if given[:1] == ["stats"]:
        return stats_main(given[1:])
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
            with progress_bar("packing") as on_progress:
                report = Packer(tables, pick(PackSettings, namespace), on_progress=on_progress).pack()
            papers = write_cards(tables, namespace.card) if report.num_samples else []
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
    with progress_bar("reading") as on_progress:
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
    parser.add_argument("--format", type=str, default="table", choices=["table", "csv", "json"], help="Of the answer.")
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


@contextlib.contextmanager
def progress_bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on the terminal's error stream; gives the function to call with what is done and the total."""
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


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
