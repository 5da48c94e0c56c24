"""DuckDB over a data root: every table with each key once, and views that put together what belongs together."""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, ClassVar, TypeVar

import duckdb
import pyarrow as pa

from pipeline.records import RECORDS, Asset, LicenceCheck, Record, SamplePart, from_dict
from pipeline.tables import Tables

R = TypeVar("R", bound=Record)


@dataclass(frozen=True, kw_only=True)
class Shard(Record):
    """A tar that is complete: written after the tar and its samples, so what has no row here is done again."""

    table: ClassVar[str] = "shards"
    key: ClassVar[tuple[str, ...]] = ("shard",)

    shard: str
    """Path below the data root."""
    licence_class: str
    split: str
    num_bytes: int
    sha256: str
    """Of the whole tar."""
    num_samples: int
    num_assets: int


@dataclass(frozen=True, kw_only=True)
class TruthSample(Record):
    """One pass of ground truth of a sample, in a tar beside the sample's: the index for exact random access."""

    table: ClassVar[str] = "truth_samples"
    key: ClassVar[tuple[str, ...]] = ("sample_key", "name")

    sample_key: str
    name: str
    """The pass."""
    clip_id: str
    asset_id: str
    shard: str
    """Path below the data root: `shards/<licence class>/<split>/truth/mv-000000.<pass>.tar`."""
    split: str
    licence_class: str
    offset: int
    """Of its first tar header."""
    num_bytes: int
    """To the end of its last member, padding included."""
    parts: tuple[SamplePart, ...]
    """Only `json` if the clip lacks the pass."""


@dataclass(frozen=True, kw_only=True)
class TruthShard(Record):
    """A tar of ground truth that is complete."""

    table: ClassVar[str] = "truth_shards"
    key: ClassVar[tuple[str, ...]] = ("shard",)

    shard: str
    """Path below the data root."""
    of_shard: str
    """The shard that it goes with, key by key."""
    name: str
    """The pass."""
    licence_class: str
    split: str
    num_bytes: int
    sha256: str
    """Of the whole tar."""
    num_samples: int
    num_missing: int
    """Samples that lack the pass."""


TABLES: tuple[type[Record], ...] = (*RECORDS, Shard, TruthSample, TruthShard)
"""Every table of a data root."""


FIRST_ASSETS = """
SELECT
    a.* REPLACE (
        coalesce(c.spdx, a.spdx) AS spdx,
        coalesce(c.licence_class, a.licence_class) AS licence_class,
        coalesce(c.licence_text, a.licence_text) AS licence_text,
        coalesce(c.licence_url, a.licence_url) AS licence_url,
        coalesce(c.attribution, a.attribution) AS attribution,
        if(c.item_id IS NULL, a.noai, c.noai) AS noai,
        coalesce(c.checked_at[:10], a.checked_on) AS checked_on,
        coalesce(c.evidence, a.evidence) AS evidence,
        coalesce(c.evidence_sha256, a.evidence_sha256) AS evidence_sha256,
        coalesce(c.noai_checked_on, a.noai_checked_on) AS noai_checked_on
    ),
    a.licence_class AS first_class,
    coalesce(c.checked_at, '') AS corrected_at,
    coalesce(l.source_status, '') AS source_status,
    coalesce(l.checked_at[:10], '') AS status_checked_on
FROM (SELECT DISTINCT ON (asset_id) * FROM main.assets {where} ORDER BY asset_id, seq, item_id) AS a
LEFT JOIN (
    SELECT DISTINCT ON (item_id) * FROM main.licence_checks
    WHERE list_has_any(changes, ['licence', 'noai', 'noai_lifted']) ORDER BY item_id, checked_at DESC
) AS c ON c.item_id = a.item_id
LEFT JOIN (
    SELECT DISTINCT ON (item_id) * FROM main.licence_checks ORDER BY item_id, checked_at DESC
) AS l ON l.item_id = a.item_id
"""
"""One row an asset: the first of those that hold the same bytes, with its licence as it is known now. `first_class` is
the one under which it was packed first; `source_status` is empty if its source was not read again."""


def first_assets(con: duckdb.DuckDBPyConnection, asset_ids: Sequence[str]) -> dict[str, Asset]:
    """Those rows, by asset.

    Args:
        con: Has the tables of `Asset` and `LicenceCheck`.
        asset_ids: Of which assets.
    """
    # Not through the view: DuckDB would look at every row of the table before it filters.
    query = FIRST_ASSETS.format(where="WHERE asset_id IN (SELECT unnest(?::VARCHAR[]))")
    return {row["asset_id"]: from_dict(Asset, row) for row in rows(con, query, [list(asset_ids)])}


@contextlib.contextmanager
def connect(tables: Tables) -> Iterator[duckdb.DuckDBPyConnection]:
    """DuckDB in memory, with a view of each table under its own name, each key once, and those of `stats/_views.sql`.

    The tables as they lie on disk, where the same row may stand twice, are `main.<name>`.
    """
    with connect_to(tables, TABLES) as con:
        con.execute(files("shards").joinpath("stats", "_views.sql").read_text("utf-8"))
        yield con


@contextlib.contextmanager
def connect_to(tables: Tables, records: Iterable[type[Record]]) -> Iterator[duckdb.DuckDBPyConnection]:
    """As `connect`, with some tables and without the views over several, `first_assets` aside: quicker to open."""
    records = list(records)
    with tables.connect(records) as con:
        con.execute("CREATE SCHEMA once")
        for record in records:
            _add_view(con, record)
        con.execute("SET search_path = 'once,main'")
        if {Asset, LicenceCheck} <= set(records):
            con.execute(f"CREATE VIEW first_assets AS {FIRST_ASSETS.format(where='')}")
        yield con


def _add_view(con: duckdb.DuckDBPyConnection, record: type[Record]) -> None:
    table, key = record.table, ", ".join(record.key)
    in_main = "SELECT 1 FROM duckdb_views() WHERE schema_name = 'main' AND NOT temporary AND view_name = ?"
    if not con.execute(in_main, [table]).fetchall():
        # Without files it is a registered Arrow table, which has no schema and would hide the view.
        con.execute(f"CREATE TABLE main.{table} AS SELECT * FROM {table}")
        con.unregister(table)
    con.execute(
        f"CREATE VIEW once.{table} AS SELECT DISTINCT ON ({key}) * FROM main.{table} ORDER BY {key}, made_by, made_from"
    )


def select(con: duckdb.DuckDBPyConnection, record: type[R], column: str, values: Sequence[str]) -> list[R]:
    """The rows of a table whose column holds one of the values, each key once, sorted by key."""
    key = ", ".join(record.key)
    # Not through the view with each key once: DuckDB would look at every row of the table before it filters.
    query = (
        f"SELECT DISTINCT ON ({key}) * FROM main.{record.table} WHERE {column} IN (SELECT unnest(?::VARCHAR[])) "
        f"ORDER BY {key}, made_by, made_from"
    )
    return [from_dict(record, row) for row in rows(con, query, [list(values)])]


def rows(con: duckdb.DuckDBPyConnection, query: str, parameters: Sequence[Any] = ()) -> list[dict[str, Any]]:
    """The result of a query, a dictionary a row."""
    table: pa.Table = con.sql(query, params=list(parameters)).to_arrow_table()
    found: list[dict[str, Any]] = table.to_pylist()
    return found
