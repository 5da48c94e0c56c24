"""The funnel, the figures, and SQL over everything. The queries are the files in `stats/`: read and run them."""

import contextlib
import csv
import io
import json
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, TextIO

import duckdb
from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from pipeline.tables import Tables
from shards.readme import size_in_words
from shards.views import connect

Format = Literal["table", "csv", "json"]

BAR = 40
"""Characters of the longest bar."""
MAX_ROWS = 200
"""Rows that a table on the terminal shows; CSV and JSON have all of them."""


@dataclass
class FunnelStep:
    """One step of the funnel: what came in and what became of it."""

    step: int
    unit: str
    arrives: str
    leaves: str
    num_in: int = 0
    num_on: int = 0
    turned_away: dict[str, int] = field(default_factory=dict)
    """Reason: how many."""
    waiting: int = 0
    """Neither passed on nor turned away yet."""
    unknown: int = 0
    """Among the results or the rejected, and never came in."""

    @property
    def sums(self) -> bool:
        """Everything that came in is accounted for, and nothing else."""
        return self.num_in == self.num_on + sum(self.turned_away.values()) + self.waiting and not self.unknown


def funnel(con: duckdb.DuckDBPyConnection) -> list[FunnelStep]:
    """All steps, in order.

    Args:
        con: From `shards.views.connect`.
    """
    steps: dict[int, FunnelStep] = {}
    for step, unit, arrives, leaves, outcome, reason, num in con.execute(query_text("funnel")).fetchall():
        row = steps.setdefault(step, FunnelStep(step, unit, arrives, leaves))
        match outcome:
            case "in":
                row.num_in = num
            case "on":
                row.num_on = num
            case "turned away":
                row.turned_away[reason] = num
            case "waiting":
                row.waiting = num
            case "unknown":
                row.unknown = num
    return list(steps.values())


def queries() -> dict[str, str]:
    """The shipped queries: name to what each answers."""
    found = {}
    for file in sorted(files("shards").joinpath("stats").iterdir(), key=lambda file: file.name):
        if file.name.endswith(".sql") and not file.name.startswith("_"):
            found[file.name.removesuffix(".sql")] = file.read_text("utf-8").splitlines()[0].removeprefix("-- ")
    return found


def query_text(name: str) -> str:
    """A shipped query.

    Raises:
        ValueError: There is none of that name.
    """
    if name not in queries():
        raise ValueError(f"no query {name!r}; there are: {', '.join(queries())}")
    return files("shards").joinpath("stats", f"{name}.sql").read_text("utf-8")


def print_stats(tables: Tables, console: Console | None = None) -> bool:
    """Print the funnel and the main figures; returns whether the funnel sums up."""
    console = console or Console()
    with connect(tables) as con:
        steps = funnel(con)
        parts: list[RenderableType] = [_funnel_table(steps)]
        if any(step.num_in for step in steps):
            parts += [_figures_table(con), _licence_table(con), _motion_chart(con), _small_tables(con)]
    for part in parts:
        console.print(part)
        console.print()
    return all(step.sums for step in steps)


def print_query(
    con: duckdb.DuckDBPyConnection, sql: str, *, how: Format = "table", console: Console | None = None
) -> None:
    """Run a query and print its result.

    Raises:
        ValueError: DuckDB does not like the query.
    """
    console = console or Console()
    if not sql.strip().strip(";"):
        raise ValueError("the query is empty")
    try:
        result = con.execute(sql)
        names = [column[0] for column in result.description or []]
        found = result.fetchall()
    except duckdb.Error as error:
        raise ValueError(str(error)) from error
    match how:
        case "csv":
            console.out(_as_csv(names, found), end="", highlight=False)
        case "json":
            console.out(_as_json(names, found), highlight=False)
        case "table":
            console.print(_as_table(names, found))


def shell(con: duckdb.DuckDBPyConnection, console: Console | None = None, lines: TextIO | None = None) -> None:
    """Read queries from the terminal until its end.

    Args:
        con: From `shards.views.connect`.
        console: Where answers go.
        lines: Where queries come from, if not from the terminal.
    """
    console = console or Console()
    console.print("DuckDB over the data root. A query ends with ;   .help says what else there is.", style="dim")
    for statement in _statements(console, lines):
        command, _, argument = statement.partition(" ")
        try:
            match command:
                case ".quit" | ".exit":
                    return
                case ".help":
                    console.print(_SHELL_HELP, highlight=False)
                case ".tables":
                    print_query(con, _TABLES, console=console)
                case ".columns":
                    print_query(con, f"SELECT column_name, column_type FROM (DESCRIBE {argument})", console=console)
                case ".queries":
                    console.print(query_list())
                case ".show":
                    console.print(query_text(argument), highlight=False, markup=False)
                case ".run":
                    print_query(con, query_text(argument), console=console)
                case _:
                    print_query(con, statement, console=console)
        except ValueError as error:
            console.print(str(error), style="red", markup=False, highlight=False)


_TABLES = "SELECT view_name AS name FROM duckdb_views() WHERE schema_name = 'once' ORDER BY name"
_SHELL_HELP = """\
.tables          the views: every table with each key once, and kept, clips_full, first_assets
.columns NAME    the columns of one
.queries         the shipped queries
.show NAME       the SQL of one
.run NAME        its answer
.quit            or Ctrl-D"""


def _statements(console: Console, lines: TextIO | None) -> Iterator[str]:
    """Dot commands and queries, which may go over several lines."""
    pending = ""
    with _history() if lines is None else contextlib.nullcontext():
        while True:
            try:
                prompt = "  ...> " if pending else "mv4d> "
                line = input(prompt) if lines is None else next(lines)
            except (EOFError, StopIteration):
                break
            except KeyboardInterrupt:
                console.print()
                pending = ""
                continue
            line = line.strip()
            if not pending and line.startswith("."):
                yield line
            elif line or pending:
                pending = f"{pending}\n{line}".strip()
                if pending.endswith(";"):
                    yield pending
                    pending = ""
    if pending:
        yield pending


@contextlib.contextmanager
def _history() -> Iterator[None]:
    """Arrow keys and a history file, where the platform has readline."""
    try:
        import readline
    except ImportError:
        yield
        return
    path = Path(os.environ.get("XDG_STATE_HOME", Path.home() / ".local" / "state")) / "mv4d" / "sql_history"
    with contextlib.suppress(OSError):
        readline.read_history_file(path)
    yield
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        readline.write_history_file(path)


def query_list() -> Table:
    """The shipped queries as a table."""
    table = _plain_table("Shipped queries")
    table.add_column("name", style="bold")
    table.add_column("answers")
    for name, answer in queries().items():
        table.add_row(name, answer)
    return table


def _funnel_table(steps: Sequence[FunnelStep]) -> Table:
    table = _plain_table("Funnel")
    table.caption, table.caption_justify = "at each step: in = on + turned away + waiting", "left"
    table.add_column("step", style="bold")
    for column in ("in", "on"):
        table.add_column(column, justify="right")
    table.add_column("turned away")
    table.add_column("waiting", justify="right")
    table.add_column("sums")
    last_unit = ""
    for step in steps:
        if last_unit and step.unit != last_unit:
            table.add_section()
        last_unit = step.unit
        width = max((len(f"{num:,}") for num in step.turned_away.values()), default=0)
        reasons = [f"{num:>{width},} {reason}" for reason, num in step.turned_away.items()]
        why = Text("\n".join(reasons), style="yellow")
        verdict = Text("yes", style="green") if step.sums else Text(f"no: {step.unknown} unknown", style="bold red")
        name = f"{step.arrives} → {step.leaves}"
        table.add_row(
            name,
            f"{step.num_in:,}",
            f"{step.num_on:,}",
            why,
            _number(step.waiting or None),
            verdict,
        )
    return table


def _figures_table(con: duckdb.DuckDBPyConnection) -> Table:
    table = _plain_table("Figures")
    table.add_column("")
    for column in ("rendered", "kept", "packed"):
        table.add_column(column, justify="right", style="bold" if column == "packed" else "")
    table.add_column("MV-Video", justify="right", style="dim")
    for name, *values in con.execute(query_text("figures")).fetchall():
        form = size_in_words if name.startswith("bytes") else _number
        table.add_row(name, *("" if value is None else form(value) for value in values))
    return table


def _licence_table(con: duckdb.DuckDBPyConnection) -> Table:
    table = _plain_table("Licences of the 3D models")
    for column in ("class", "licence"):
        table.add_column(column, overflow="fold")
    for column in ("fetched", "kept", "packed", "clips", "bytes"):
        table.add_column(column, justify="right")
    table.add_column("MV-Video", justify="right", style="dim")
    table.caption = "clips and bytes: of what is packed; MV-Video: models of the class, as its card says"
    table.caption_justify = "left"
    published = {row[0]: row[2] for row in con.execute(query_text("mv_video")).fetchall()}
    for licence_class, spdx, *numbers, num_bytes in con.execute(query_text("licences")).fetchall():
        reference = published.pop(licence_class, None)
        table.add_row(
            Text(licence_class),
            Text(spdx),
            *(f"{number:,}" for number in numbers),
            size_in_words(num_bytes),
            f"~{reference:,}" if reference else "",
        )
    return table


def _motion_chart(con: duckdb.DuckDBPyConnection) -> Table:
    found = con.execute(query_text("motion")).fetchall()
    table = _plain_table("Motion")
    table.caption = "mean displacement of an animation's vertices, as a share of the object's diagonal; █ kept, ░ not"
    table.caption_justify = "left"
    table.add_column("displacement")
    table.add_column("animations", justify="right")
    table.add_column("kept", justify="right")
    table.add_column("", min_width=BAR)
    most = max((row[2] for row in found), default=0) or 1
    for low, high, animations, kept in found:
        solid = round(BAR * kept / most)
        length = max(math.ceil(BAR * animations / most), solid)
        bar = Text("█" * solid, style="green") + Text("░" * (length - solid), style="dim")
        table.add_row(_span(low, high), f"{animations:,}", f"{kept:,}", bar)
    return table


def _small_tables(con: duckdb.DuckDBPyConnection) -> RenderableType:
    titles = {
        "rigs": "Rigs",
        "splits": "Splits of what is packed",
        "formats": "File formats",
        "durations": "Length of the actions, seconds",
        "animations_per_asset": "Animations an asset",
        "bytes": "Bytes",
    }
    parts: list[RenderableType] = []
    for name, title in titles.items():
        # Families are in the card; here the table would be too wide for a terminal.
        narrow = f"SELECT COLUMNS(lambda name: name != 'families') FROM ({query_text(name).rstrip().rstrip(';')})"
        result = con.execute(narrow)
        names = [column[0] for column in result.description or []]
        if found := result.fetchall():
            parts += [_as_table(names, found, title=title), Text()]
    return Group(*parts[:-1])


def _span(low: float, high: float) -> str:
    return f"{low:g} – {high:g}" if math.isfinite(high) else f"over {low:g}"


def _plain_table(title: str) -> Table:
    return Table(
        title=title or None,
        title_justify="left",
        title_style="bold cyan",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 2, 0, 0),
        collapse_padding=True,
    )


def _as_table(names: Sequence[str], found: Sequence[Sequence[Any]], title: str = "") -> Table:
    table = _plain_table(title)
    if list(names[:2]) == ["low", "high"]:
        names = ["from – to", *names[2:]]
        found = [(_span(low, high), *rest) for low, high, *rest in found]
    numeric = [
        all(isinstance(row[index], int | float | None) for row in found) and bool(found) for index in range(len(names))
    ]
    for name, is_number in zip(names, numeric, strict=True):
        heading = name.removeprefix("num_").replace("_", " ") if title else name
        table.add_column(heading, justify="right" if is_number else "left", overflow="fold")
    for row in found[:MAX_ROWS]:
        table.add_row(*(Text(_cell(name, value)) for name, value in zip(names, row, strict=True)))
    if len(found) > MAX_ROWS:
        table.caption = f"{MAX_ROWS} of {len(found):,} rows; --format csv and json have all"
    return table


def _cell(name: str, value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return size_in_words(value) if "bytes" in name else _number(value)
    return str(value)


def _number(value: float | None) -> str:
    """Short, and not less exact than a person needs."""
    if value is None:
        return ""
    if not math.isfinite(value):
        return "–" if math.isnan(value) else "∞" if value > 0 else "-∞"
    if value == round(value):
        return f"{value:,.0f}"
    return f"{value:,.2f}" if abs(value) >= 1 else f"{value:.3g}"


def _as_csv(names: Sequence[str], found: Iterable[Sequence[Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    writer.writerows([["" if value is None else value for value in row] for row in found])
    return text.getvalue()


def _as_json(names: Sequence[str], found: Iterable[Sequence[Any]]) -> str:
    """One object a row; infinities and NaN, which JSON does not have, become null."""
    entries = [{name: _plain_value(value) for name, value in zip(names, row, strict=True)} for row in found]
    return json.dumps(entries, indent=1, ensure_ascii=False, default=str)


def _plain_value(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _plain_value(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain_value(entry) for entry in value]
    return value
